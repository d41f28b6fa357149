#ifndef STRATA_OFFLOAD_FORECAST_H
#define STRATA_OFFLOAD_FORECAST_H

/*
 * A plan and what a step of it will cost, without a device, a store or an engine: for choosing
 * among plans, for what-ifs and for tests.
 *
 * Thread: any; each call has its own memory and gives it back.
 */

#include "offload/simulate/simulate.h"

struct forecast_desc {
    struct plan_desc plan; /* its store's directories need not exist */
    enum update_mode mode;
    bool no_overlap;
    uint32_t commit_every; /* of durable plans; 0: as strata_commits_spread() has it */
    /* 0 or 1: one. More: what one of them does, which owns a contiguous part of each group's
     * elements. Copies in the device are whole groups; budgets and profile are the rank's, and
     * the profile's copy rates count the gathering of the other parts. */
    uint32_t ranks;
    bool compare_homes;     /* try all ways to give AUTO parts homes, and take the fastest */
    const char *trace_path; /* NULL: none; the simulated steps as a Chrome trace */
    struct simulate_desc simulate; /* profile and begins; the rest is filled in */
};

/* The refusals are those of the plan and of the simulation. */
strata_status strata_forecast_make(strata_forecast *out, strata_plan *out_plan,
                                   const struct forecast_desc *desc, strata_error *error);

/*
 * Where a commit writes more than updates do, and comes every few steps, what it costs is
 * simulated in two windows of a few steps, one without a commit and one with, and shared out.
 */
enum forecast_window { WINDOW_QUIET, WINDOW_COMMIT, FORECAST_WINDOWS };

/* Steps to measure, and to take before, and which commit. Plans whose commits cost nothing or
 * that have none need WINDOW_QUIET alone: every is 1 or 0 there. */
void strata_forecast_window(struct simulate_desc *out, enum forecast_window window,
                            uint32_t every);

/* A step of which every *every-th commits. 0: the least number at which commits take three
 * hundredths of a step at most, from 2 on; it is set. */
strata_forecast strata_commits_spread(const strata_forecast windows[FORECAST_WINDOWS],
                                      const strata_profile *profile, uint32_t *every);

#endif
