#ifndef STRATA_OFFLOAD_PLAN_DEVICE_H
#define STRATA_OFFLOAD_PLAN_DEVICE_H

/* The first half of a plan, called by strata_plan_begin(): what rests in the device, where in
 * its arena, and the pool. */

#include "offload/plan/plan.h"

/* Device homes, the stash's tier and the device's part of the summary, into a plan whose model,
 * homes and residency have their tables. STRATA_E_INVALID, STRATA_E_NOMEM. */
strata_status strata_plan_fill_device(struct offload_plan *plan, const struct plan_desc *desc,
                                      strata_error *error);

/* STRATA_E_NOMEM: a tier is smaller than the run needs. */
strata_status strata_plan_refuse(strata_error *error, strata_tier tier, uint64_t need,
                                 uint64_t have);

#endif
