#ifndef STRATA_OFFLOAD_FORECAST_H
#define STRATA_OFFLOAD_FORECAST_H

/*
 * A plan and what a step of it will cost, without a device, a store or an engine: for choosing
 * among plans, for what-ifs and for tests.
 *
 * Thread: any; each call has its own memory and gives it back.
 */

#include "offload/simulate.h"

struct forecast_desc {
    struct plan_desc plan; /* its store's directories need not exist */
    enum update_mode mode;
    bool no_overlap;
    uint32_t commit_every; /* of durable plans */
    /* 0 or 1: one. More: what one of them does, which owns a contiguous part of each group's
     * elements. Copies in the device are whole groups; budgets and profile are the rank's, and
     * the profile's copy rates count the gathering of the other parts. */
    uint32_t ranks;
    bool compare_homes;     /* try all ways to give AUTO parts homes, and take the fastest */
    const char *trace_path; /* NULL: none; the simulated steps as a Chrome trace */
    /* plan, schedule and trace are filled in; steps 0: enough for 1 % */
    struct simulate_desc simulate;
};

/* The refusals are those of the plan and of the simulation. */
strata_status strata_forecast_make(strata_forecast *out, strata_plan *out_plan,
                                   const struct forecast_desc *desc, strata_error *error);

#endif
