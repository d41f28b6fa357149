#ifndef STRATA_OFFLOAD_PLANNER_H
#define STRATA_OFFLOAD_PLANNER_H

/*
 * The one planner. What a plan's descriptor leaves open is decided here, for a run, for a
 * forecast and for a what-if alike: how the device is filled, whether states are kept a
 * gradient behind, how many slots a record has, how many steps lie between commits, and whether
 * activations have to go to NVMe. So a budget that fits one of them fits all of them, with the
 * same bytes.
 *
 * A plan is made for one way to give AUTO parts homes. Which way is the fastest is decided by
 * offload/simulate/forecast.h, which asks for a plan of each.
 *
 * Thread: any; a plan has its own memory.
 */

#include "offload/plan/plan.h"

/* The store that a run resumes. Zero: there is none, or it has no commit. */
struct found_store {
    uint32_t slots; /* per record */
    uint32_t commit_every;
};

struct planner_desc {
    struct plan_desc plan;   /* fold, skip and slots.ahead are set by the planner */
    bool updates_ahead;      /* of the norm, where there is a state to go back to */
    bool fold_each_step;     /* keep states a gradient behind where every step commits, too */
    uint32_t commit_every;   /* 0: as the store has it; a new one gets what is best */
    uint32_t spread_commits; /* steps between commits if a commit costs writes; 0: not known */
    struct found_store found;
    /* Takes the tables that others want in the plan; NULL: there are none. Called between the
     * halves of the plan, with the descriptor as it was decided. Called again whenever a plan
     * is made anew: the tables that it took before have been freed by then. */
    strata_status (*take_tables)(void *user, struct offload_plan *plan,
                                 const struct plan_desc *desc, strata_error *error);
    void *user;
};

/*
 * STRATA_E_NOMEM: no plan fits; the message is that of the plan that would be the fastest.
 * STRATA_E_INVALID: the model or the descriptor makes no sense. On failure nothing is held.
 */
strata_status strata_planner_make(struct offload_plan *out, const struct planner_desc *desc,
                                  strata_error *error);

/* True when states in host RAM may be kept one gradient behind. */
bool strata_planner_may_fold(const struct planner_desc *desc);

#endif
