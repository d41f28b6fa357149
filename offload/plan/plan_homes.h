#ifndef STRATA_OFFLOAD_PLAN_HOMES_H
#define STRATA_OFFLOAD_PLAN_HOMES_H

/* The decision of the plan's second half: which tier each part rests in outside the device. */

#include "offload/plan/plan.h"

/* Homes of the parts that do not rest in the device, and of parked gradients. Where nothing
 * fits the budgets, homes with which a refusal names the tier that lacks room. */
void strata_plan_choose_homes(struct offload_plan *plan, const struct plan_desc *desc);

#endif
