#ifndef STRATA_OFFLOAD_FORECAST_H
#define STRATA_OFFLOAD_FORECAST_H

/*
 * A plan, and what a step of it will cost: for choosing among plans, before a run and for
 * what-ifs. The planner makes the plan (offload/plan/planner.h). What only a simulation can
 * decide is decided here: which homes AUTO parts get, and how often the run commits.
 *
 * Thread: any; each call has its own memory.
 */

#include "offload/plan/planner.h"
#include "offload/simulate/simulate.h"

struct forecast_desc {
    /* plan.way: the way that is tried first. take_tables: takes tables besides the schedule's.
     * updates_ahead is filled in. */
    struct planner_desc planner;
    enum update_mode mode;
    bool no_overlap;
    /* 0 or 1: one. More: the plan is that of one of them, which owns a contiguous part of each
     * group's elements. Copies in the device are whole groups. Budgets and profile are the
     * rank's, and the profile's copy rates count the gathering of the other parts. */
    uint32_t ranks;
    bool compare_homes;     /* try all ways to give AUTO parts homes, and take the fastest */
    const char *trace_path; /* NULL: none; the simulated steps as a Chrome trace */
    /* profile and begins; the rest is filled in. profile NULL: nothing is simulated. */
    struct simulate_desc simulate;
};

/*
 * The plan with its schedule, which points to *out and lives in its tables; the forecast is in
 * the plan's summary. The caller frees the plan. On failure nothing is held.
 *
 * The refusals are those of the planner and of the simulation.
 */
strata_status strata_forecast_make(struct offload_plan *out, struct schedule **out_schedule,
                                   const struct forecast_desc *desc, strata_error *error);

/*
 * If a commit writes more than updates do, and comes every few steps, its cost is the
 * difference between two windows of a few simulated steps, one with a commit and one without.
 * Each step bears its share.
 */
enum forecast_window { WINDOW_QUIET, WINDOW_COMMIT, FORECAST_WINDOWS };

/* Fill in which steps are measured, how many come before them, and which commit. A plan that
 * commits in every step or never (every is 1 or 0) needs WINDOW_QUIET alone. */
void strata_forecast_window(struct simulate_desc *out, enum forecast_window window,
                            uint32_t every);

/* The mean step if one in *every commits. *every 0: it is set to the least number, from 2 on,
 * at which commits take at most three hundredths of a step. */
strata_forecast strata_commits_spread(const strata_forecast windows[FORECAST_WINDOWS],
                                      const strata_profile *profile, uint32_t *every);

#endif
