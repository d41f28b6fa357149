/*
 * The one planner; see planner.h.
 *
 * Host RAM has to hold the tables, and their size is known only after it has been decided what
 * goes to the device and how many slots a record has. So a plan that does not fit is thrown
 * away and made again with the next best choice. The choices are nested: where activations
 * rest, then slots, then how the device is filled.
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
    /* Each commit brings states up to date. With one in every step, keeping them a gradient
     * behind is not worth its frame. */
    bool each_step = desc->plan.slots.durable && known_commit_every(desc) == 1;
    return desc->updates_ahead && (desc->fold_each_step || !each_step);
}

/* Steps between commits of a new store: 1 if a commit writes nothing that updates do not. */
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

/* One plan from a descriptor with every choice made. The caller frees it either way. */
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

/* Fill the device in the best way that leaves host and NVMe enough room. If no way does, the
 * refusal is that of the best one. */
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

/* Would one more slot let updates be written ahead of the norm? */
static bool wants_slot_ahead(const struct offload_plan *plan, const struct planner_desc *desc)
{
    bool on_nvme = false;
    for (uint32_t i = 0; i < plan->model.tile_count && !on_nvme; i++)
        on_nvme = plan->homes[STRATA_STATE].tier[i] == STRATA_NVME;
    return desc->updates_ahead && plan->durable && on_nvme && plan->summary.commit_every > 1;
}

/* A store that exists keeps the slots that it was made with. A new one gets the slot for
 * writing ahead if that is of use and the budgets have room for it. */
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

/* If neither the device nor the host has room for the activations, they go to NVMe. If that
 * does not fit either, the refusal is that of the plan that kept them off NVMe. */
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
