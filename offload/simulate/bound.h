#ifndef STRATA_OFFLOAD_BOUND_H
#define STRATA_OFFLOAD_BOUND_H

/*
 * What no order of ops can beat, given a plan, a machine, and what ops cost there: the busiest
 * lane, and the longest chain of things that each need the one before.
 *
 * Steps follow one another, so a chain is a circle: from a point of the use list the caller
 * computes up to where a gradient is complete; the gradient leaves, its tile is updated, the
 * new weights go home and are brought back for that point of the next step. No step takes less
 * than the longest of these. Where several groups have their gradients behind one point and
 * their first use before another, each lane has to do the work of all of them in between, but
 * for the states that frames have room for, read before or written after.
 *
 * Thread: any.
 */

#include "offload/simulate/simulate.h"

/* Of a step: what each has to do, in seconds as if it were alone. */
struct bound_work {
    double lane_s[STRATA_LANE_COUNT];
    double core_s;
    double dram_bytes;
};

struct bound_scratch {
    struct bound_way *ways;
    double *stream_s; /* by use: what the stream does before it */
};

/* Takes arrays from tables, whose owner frees them. */
struct bound_scratch strata_bound_take(struct tables *tables, const struct offload_plan *plan);

/* The lane with most to do: where the two directions of a drive are one thing, and cores and
 * host memory are shared by several lanes. Returns its seconds. */
double strata_bound_of_lanes(const strata_profile *profile, const struct bound_work *work,
                             strata_lane *out_lane);

/* The longest chain, in seconds; the plan is finished. */
double strata_bound_of_chains(const struct simulate_desc *desc,
                              const struct bound_scratch *scratch);

#endif
