#ifndef STRATA_OFFLOAD_FORECAST_H
#define STRATA_OFFLOAD_FORECAST_H

/*
 * A plan and what a step of it will cost: for choosing among plans, before a run and for
 * what-ifs. The plan is made by the one planner (offload/plan/planner.h). Here is decided what
 * only a simulation can tell: in which way homes are given to what is left to AUTO, and how
 * often there is a commit.
 *
 * Thread: any; each call has its own memory.
 */

#include "offload/plan/planner.h"
#include "offload/simulate/simulate.h"

struct forecast_desc {
    /* plan.way: the one that is tried first. take_tables: what is wanted besides the schedule's
     * tables. updates_ahead is filled in. */
    struct planner_desc planner;
    enum update_mode mode;
    bool no_overlap;
    /* 0 or 1: one. More: what one of them does, which owns a contiguous part of each group's
     * elements. Copies in the device are whole groups; budgets and profile are the rank's, and
     * the profile's copy rates count the gathering of the other parts. */
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
