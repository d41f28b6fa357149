#ifndef STRATA_ENGINE_PLANNING_H
#define STRATA_ENGINE_PLANNING_H

/*
 * The plan that an engine would have on a machine that need not be this one, made by the same
 * code as the plan of an engine that runs.
 *
 * Thread: any.
 */

#include "strata/engine.h"

/* What a plan depends on besides the engine's descriptor. */
struct what_if {
    uint32_t workers;       /* threads that compute */
    uint32_t ranks;         /* 0, 1: one; more: the plan is one rank's, see forecast.h */
    const char *trace_path; /* NULL: none; the simulated steps as a Chrome trace */
    /* Seconds that the caller computes after each use, before the next; NULL: from the use
     * list's FLOPs and the profile's rate; borrowed */
    const double *compute_s;
};

/*
 * desc: with its budgets, tile_elems and keep_every given. Its device, workers, adam and init
 * are not looked at, and its store directories need not exist.
 *
 * The refusals are those of strata_engine_plan(), less those of this machine's limits.
 */
strata_status strata_engine_what_if(strata_plan *out, const strata_engine_desc *desc,
                                    const struct what_if *machine, strata_error *error);

#endif
