#ifndef STRATA_OFFLOAD_COST_H
#define STRATA_OFFLOAD_COST_H

/*
 * What an op costs on a machine: its seconds as if it were alone, and what it takes meanwhile
 * of what others need too. The simulator and the bound (offload/simulate/bound.h) go by the
 * same costs.
 *
 * Thread: any.
 */

#include "offload/schedule/schedule.h"
#include "strata/profile.h"

struct cost {
    double work_s; /* as if alone */
    double dram;   /* bytes of host memory for each second of work */
    double cores;  /* busy meanwhile */
};

/* Of an op with a lane. */
struct cost strata_cost_of(const struct offload_plan *plan, const strata_profile *profile,
                           const struct op *op);

/* Of an activation block's copy within the device. */
struct cost strata_cost_of_block(const struct offload_plan *plan,
                                 const strata_profile *profile);

/* Of what the caller computes after a use. compute_s: by use; NULL: from FLOPs. */
struct cost strata_cost_of_compute(const struct offload_plan *plan,
                                   const strata_profile *profile, const double *compute_s,
                                   uint32_t use);

/* Seconds in which the drives can have read and written so much, given what each takes alone:
 * while both directions work, a second does mix seconds' worth. */
double strata_cost_of_drives(const strata_profile *profile, double read_s, double write_s);

#endif
