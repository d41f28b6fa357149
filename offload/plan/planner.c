/*
 * The one planner; see planner.h.
 *
 * What goes to the device is decided before the tables are known that host RAM has to hold, and
 * so is the count of slots, which the tables depend on. So a plan that does not fit is made
 * again with the next best choice. The choices are nested: where activations rest, then slots,
 * then how the device is filled.
 *
 * Thread: any.
 */

#include "offload/plan/planner.h"

#include "base/error.h"

/* Steps between commits where each costs writes of its own and nothing is known of the machine.
 */
#define UNKNOWN_COMMIT_EVERY 10u

/* Steps between commits: what is asked for, or what the store has. 0: to be decided. */
static uint32_t known_commit_every(const struct planner_desc *desc)
{
    return desc->commit_every > 0 ? desc->commit_every : desc->found.commit_every;
}

bool strata_planner_may_fold(const struct planner_desc *desc)
{
    /* A state that is a gradient behind at each commit is not worth its frame. */
    bool each_step = desc->plan.slots.durable && known_commit_every(desc) == 1;
    return desc->updates_ahead && (desc->fold_each_step || !each_step);
}

/* Of a new store: every step where that costs no writes besides those of the updates. */
static uint32_t new_commit_every(const struct planner_desc *desc,
                                 const struct offload_plan *plan)
{
    if (strata_plan_states_on_nvme(plan))
        return 1;
    return desc->spread_commits > 0 ? desc->spread_commits : UNKNOWN_COMMIT_EVERY;
}

static void settle_commits(struct offload_plan *plan, const struct planner_desc *desc)
{
    uint32_t known = known_commit_every(desc);
    plan->new_commit_every = new_commit_every(desc, plan);
    if (plan->durable)
        plan->summary.commit_every = known > 0 ? known : plan->new_commit_every;
}

/* The caller frees the plan either way. */
static strata_status make_once(struct offload_plan *plan, const struct planner_desc *desc,
                               const struct plan_desc *decided, strata_error *error)
{
    STRATA_TRY(strata_plan_begin(plan, decided, error));
    if (desc->take_tables != NULL)
        STRATA_TRY(desc->take_tables(desc->user, plan, decided, error));
    STRATA_TRY(strata_plan_finish(plan, decided, error));
    settle_commits(plan, desc);
    return STRATA_OK;
}

/* With the device filled in the best way that host and NVMe have room beside. Where there is
 * none, the refusal is that of the best way. */
static strata_status fill_device(struct offload_plan *plan, const struct planner_desc *desc,
                                 struct plan_desc decided, strata_error *error)
{
    strata_error first = {.status = STRATA_OK};
    for (decided.skip = 0;; decided.skip++) {
        strata_error why = {.status = STRATA_OK};
        strata_status status = make_once(plan, desc, &decided, &why);
        if (status == STRATA_OK)
            return STRATA_OK;
        if (decided.skip == 0)
            first = why;
        bool again = status == STRATA_E_NOMEM && plan->more_choices && !plan->tables.failed;
        strata_plan_free(plan);
        if (!again)
            return strata_fail(error, first.status, first.native, "%s", first.message);
    }
}

/* Would a slot more let updates be written ahead of the norm? */
static bool wants_slot_ahead(const struct offload_plan *plan, const struct planner_desc *desc)
{
    bool on_nvme = false;
    for (uint32_t i = 0; i < plan->model.tile_count && !on_nvme; i++)
        on_nvme = plan->homes[STRATA_STATE].tier[i] == STRATA_NVME;
    return desc->updates_ahead && plan->durable && on_nvme && plan->summary.commit_every > 1;
}

/* A store that is gone on with has the slots it was made with. A new one gets the one for
 * writing ahead if it is of use and the budgets have room for it. */
static strata_status choose_slots(struct offload_plan *plan, const struct planner_desc *desc,
                                  struct plan_desc decided, strata_error *error)
{
    uint32_t found = desc->found.slots;
    struct plan_desc ahead = decided;
    decided.slots.ahead = false;
    ahead.slots.ahead = true;
    if (found > 0)
        return fill_device(
            plan, desc, found == strata_slots_per_tile(&ahead.slots) ? ahead : decided, error);
    STRATA_TRY(fill_device(plan, desc, decided, error));
    if (!wants_slot_ahead(plan, desc))
        return STRATA_OK;
    strata_error why = {.status = STRATA_OK};
    strata_plan_free(plan);
    if (fill_device(plan, desc, ahead, &why) == STRATA_OK)
        return STRATA_OK;
    if (plan->tables.failed)
        return strata_fail(error, why.status, why.native, "%s", why.message);
    return fill_device(plan, desc, decided, error);
}

/* Activations that neither the device nor the host has room for go to NVMe. Where that does not
 * help either, the refusal is that of the plan without. */
strata_status strata_planner_make(struct offload_plan *out, const struct planner_desc *desc,
                                  strata_error *error)
{
    strata_error first = {.status = STRATA_OK};
    strata_error why = {.status = STRATA_OK};
    struct plan_desc decided = desc->plan;
    decided.fold = strata_planner_may_fold(desc);
    strata_status status = choose_slots(out, desc, decided, &first);
    bool may_move = decided.want_stash == STRATA_AUTO && decided.store != NULL &&
                    out->model.stash_block_count > 0 && !out->tables.failed;
    if (status == STRATA_E_NOMEM && may_move) {
        decided.want_stash = STRATA_NVME;
        status = choose_slots(out, desc, decided, &why);
    }
    if (status != STRATA_OK)
        return strata_fail(error, first.status, first.native, "%s", first.message);
    return STRATA_OK;
}
