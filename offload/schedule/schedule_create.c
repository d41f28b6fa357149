/*
 * Building a schedule: numbering its chains and taking its arrays.
 *
 * Thread: the engine's caller, at create.
 */

#include "base/error.h"
#include "offload/schedule/schedule_state.h"

#include <string.h>

static void number_chains(struct schedule *s)
{
    const struct residency *residency = &s->plan->residency;
    uint32_t placements = residency->count + residency->eval_count;
    uint32_t next = 0;
    for (uint32_t i = 0; i < placements; i++) {
        const struct group *group = &s->plan->model.groups[residency->placements[i].group];
        s->placements[i].first_chain = next;
        for (uint32_t t = 0; t < group->layout.tile_count; t++)
            s->chains[next++] = (struct chain){
                .tile = group->layout.first_tile + t, .owner = i, .frame = STRATA_NONE};
        s->placements[i].group_chain = next;
        s->chains[next++] = (struct chain){
            .kind = CHAIN_GROUP, .tile = STRATA_NONE, .owner = i, .frame = STRATA_NONE};
        if (residency->placements[i].kind == PLACEMENT_PARAM &&
            s->group_first[residency->placements[i].group] == STRATA_NONE)
            s->group_first[residency->placements[i].group] = i;
    }
    s->first_update = next;
    for (uint32_t i = 0; i < s->plan->model.trained_tile_count; i++)
        s->chains[next++] =
            (struct chain){.tile = i, .owner = STRATA_NONE, .frame = STRATA_NONE};
    uint32_t placement = 0;
    uint32_t events = s->plan->model.stash_event_count + s->plan->model.eval_stash_event_count;
    for (uint32_t i = 0; i < events; i++) {
        while (placement < placements &&
               residency->placements[placement].first_use < s->plan->model.stash_uses[i])
            placement++;
        s->stashes[i].placement = placement;
        s->stashes[i].chain = next;
        s->chains[next++] =
            (struct chain){.tile = STRATA_NONE, .owner = i, .frame = STRATA_NONE};
    }
    s->total_chain = next;
    s->chains[next++] =
        (struct chain){.tile = STRATA_NONE, .owner = STRATA_NONE, .frame = STRATA_NONE};
    s->commit_chain = next;
    s->chains[next++] =
        (struct chain){.tile = STRATA_NONE, .owner = STRATA_NONE, .frame = STRATA_NONE};
    for (uint32_t i = 0; i < next; i++)
        s->chains[i].slot = STRATA_NONE;
    STRATA_CHECK(next == s->chain_count);
}

static uint32_t append_tiles(struct schedule *s, uint32_t group_index, uint32_t next)
{
    const struct group *group = &s->plan->model.groups[group_index];
    for (uint32_t t = 0; t < group->layout.tile_count && !group->layout.frozen; t++)
        s->ahead_order[next++] = group->layout.first_tile + t;
    return next;
}

/* The tiles in the order in which updates want to begin: as their gradients are finished, which
 * is at a placement's last use, or, when all wait for the norm, as the next step wants them. */
static void order_ahead(struct schedule *s)
{
    const struct residency *residency = &s->plan->residency;
    uint32_t next = 0;
    for (uint32_t u = 0; u < s->plan->model.use_count; u++) {
        const struct use *use = &s->plan->model.uses[u];
        if (s->mode == UPDATES_DEFERRED) {
            if (use->kind == STRATA_USE_ACQUIRE &&
                residency->placements[s->group_first[use->index]].first_use == u)
                next = append_tiles(s, use->index, next);
        } else if (use->kind == STRATA_USE_RELEASE && use->grad) {
            const struct placement *p = &residency->placements[residency->use_grad[u]];
            if (p->last_use == u && !p->park_out)
                next = append_tiles(s, use->index, next);
        }
    }
    STRATA_CHECK(next == s->plan->model.trained_tile_count);
}

/* Queues have room for twice as many, counted in 32 bits. */
#define MAX_CHAINS (UINT32_MAX / 2)

static uint64_t count_chains(const struct offload_plan *plan)
{
    uint64_t count = (uint64_t)plan->model.trained_tile_count + plan->model.stash_event_count +
                     plan->model.eval_stash_event_count + 2;
    for (uint32_t i = 0; i < plan->residency.count + plan->residency.eval_count; i++)
        count += (uint64_t)plan->model.groups[plan->residency.placements[i].group]
                     .layout.tile_count +
                 1;
    return count;
}

static void make_lists(struct schedule *s)
{
    const struct model *model = &s->plan->model;
    const struct residency *residency = &s->plan->residency;
    s->lists[LIST_STEP] = (struct list){.placement_count = residency->count,
                                        .stash_count = model->stash_event_count};
    s->lists[LIST_EVAL] = (struct list){.first_placement = residency->count,
                                        .placement_count = residency->eval_count,
                                        .first_stash = model->stash_event_count,
                                        .stash_count = model->eval_stash_event_count};
}

strata_status strata_schedule_create(struct schedule **out, struct tables *tables,
                                     const struct schedule_desc *desc, strata_error *error)
{
    const struct model *model = &desc->plan->model;
    uint64_t chain_count = count_chains(desc->plan);
    *out = NULL;
    if (chain_count > MAX_CHAINS)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "use list: %llu moves of tiles in a step, at most %u; larger tiles "
                           "need fewer",
                           (unsigned long long)chain_count, MAX_CHAINS);
    struct schedule *s = strata_tables_take(tables, 1, sizeof *s);
    STRATA_TRY(strata_tables_check(tables, error));
    s->plan = desc->plan;
    s->no_overlap = desc->no_overlap;
    s->mode = desc->no_overlap ? UPDATES_DEFERRED : desc->mode;
    s->chain_count = (uint32_t)chain_count;
    s->chains = strata_tables_take(tables, s->chain_count, sizeof *s->chains);
    uint32_t placements = s->plan->residency.count + s->plan->residency.eval_count;
    uint32_t events = model->stash_event_count + model->eval_stash_event_count;
    s->placements = strata_tables_take(tables, placements, sizeof *s->placements);
    s->open_list = strata_tables_take(tables, placements, sizeof *s->open_list);
    s->tiles = strata_tables_take(tables, model->tile_count, sizeof *s->tiles);
    if (model->ranks > 1) {
        uint64_t collectives = (uint64_t)s->plan->residency.count + 1;
        s->comm = strata_tables_take(tables, collectives, sizeof *s->comm);
        s->comm_due = strata_tables_take(tables, collectives, sizeof *s->comm_due);
    }
    s->ahead_order =
        strata_tables_take(tables, model->trained_tile_count, sizeof *s->ahead_order);
    s->stashes = strata_tables_take(tables, events, sizeof *s->stashes);
    s->group_first = strata_tables_take(tables, model->group_count, sizeof *s->group_first);
    /* A chain has at most two ops queued at once: two reads, two writes, or one of each. */
    for (int lane = 0; lane < STRATA_LANE_COMPUTE; lane++)
        strata_heap_take(&s->lanes[lane], tables, 2 * s->chain_count);
    for (int kind = 0; kind < FRAME_KIND_COUNT; kind++)
        strata_heap_take(&s->waits[kind], tables, s->chain_count);
    strata_heap_take(&s->opens, tables, s->chain_count);
    strata_heap_take(&s->slot_waits, tables, model->tile_count);
    struct slots_desc slots = desc->slots;
    slots.tile_count = model->tile_count;
    slots.fixed_count = model->tile_count - model->trained_tile_count;
    STRATA_TRY(strata_slots_create(&s->slots, tables, &slots, error));
    STRATA_TRY(strata_tables_check(tables, error));
    memset(s->group_first, 0xff, model->group_count * sizeof *s->group_first);
    make_lists(s);
    number_chains(s);
    order_ahead(s);
    strata_schedule_order_comm(s);
    for (uint32_t i = 0; i < model->tile_count; i++)
        s->tiles[i].waiting = s->tiles[i].grad_chain = STRATA_NONE;
    /* No update changes them: a frozen tile is as new as any step wants it. */
    for (uint32_t i = model->trained_tile_count; i < model->tile_count; i++)
        s->tiles[i].version = UINT64_MAX;
    s->norms_left = model->trained_tile_count;
    s->ready_first = STRATA_NONE;
    for (uint32_t i = 0; i < STRATA_STEPS_KEPT; i++)
        s->steps[i] = (struct step_state){.unframed = model->trained_tile_count,
                                          .left = model->trained_tile_count};
    *out = s;
    return STRATA_OK;
}
