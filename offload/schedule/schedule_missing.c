/*
 * Why the caller waits. Nothing here changes the state. The pager and the simulator ask when a
 * wait begins, and count all of its time under that answer.
 *
 * Thread: the pager.
 */

#include "offload/schedule/schedule_state.h"

static bool waits_for_updates(const struct schedule *s, uint32_t group_index, uint64_t step)
{
    const struct group *group = &s->plan->model.groups[group_index];
    for (uint32_t i = 0; i < group->layout.tile_count; i++)
        if (s->tiles[group->layout.first_tile + i].version < step)
            return true;
    return false;
}

strata_stall strata_schedule_missing(const struct schedule *s, uint64_t turn, uint32_t use)
{
    const struct use *u = &s->plan->model.uses[use];
    bool granted = strata_schedule_granted(s, turn, use);
    uint64_t step = wanted_version(s, list_of_use(s, use), turn);
    if (u->kind != STRATA_USE_ACQUIRE)
        return granted ? STRATA_STALL_FETCH : STRATA_STALL_ROOM;
    uint32_t grad = s->plan->residency.use_grad[use];
    bool grad_waits = grad != STRATA_NONE && s->placements[grad].opened <= step;
    bool updating = waits_for_updates(s, u->index, step);
    /* A gradient's place of this step, and a deferred update of the one before, both wait for
     * the norm. */
    if (s->normed < step && (grad_waits || updating))
        return STRATA_STALL_NORM;
    if (updating)
        return STRATA_STALL_UPDATE;
    return granted ? STRATA_STALL_FETCH : STRATA_STALL_ROOM;
}

const char *strata_stall_name(strata_stall stall)
{
    static const char *const names[STRATA_STALL_COUNT] = {"room", "fetch", "update", "norm"};
    return stall >= 0 && stall < STRATA_STALL_COUNT ? names[stall] : "unknown";
}
