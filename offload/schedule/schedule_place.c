/*
 * Placements in the device, and the chains that fill and empty them: parameters in, unfinished
 * gradients out and in again, finished ones to their home.
 *
 * Where a placement lies and from which use to which is the residency's. Here it opens: in
 * order, once those that overlap it and opened before have closed. It closes when its last use
 * is over and nothing of it is on its way out; or, before its first use, when it is taken back.
 *
 * Thread: the pager.
 */

#include "base/error.h"
#include "offload/schedule/schedule_state.h"

static const struct placement *placement_of(const struct schedule *s, uint32_t placement)
{
    return &s->plan->residency.placements[placement];
}

static const struct group *group_of(const struct schedule *s, uint32_t placement)
{
    return &s->plan->model.groups[placement_of(s, placement)->group];
}

/* The first op of a fetch, a park or a gradient's way home. */
void strata_schedule_start_move(struct schedule *s, uint32_t c)
{
    struct chain *chain = &s->chains[c];
    bool framed = chain->frame != STRATA_NONE;
    switch ((enum chain_kind)chain->kind) {
    case CHAIN_FETCH:
        strata_schedule_queue(s, c, framed ? OP_NVME_READ : OP_H2D, WHAT_PARAM);
        break;
    case CHAIN_PARK_IN:
        strata_schedule_queue(s, c, framed ? OP_NVME_READ : OP_H2D, WHAT_PARK);
        break;
    case CHAIN_PARK_OUT:
        strata_schedule_queue(s, c, OP_D2H, WHAT_PARK);
        break;
    case CHAIN_GRAD:
        /* Gradients that rest in the device are there once rounded. */
        if (home_tier(s, STRATA_GRAD, chain->tile) == STRATA_DEVICE)
            strata_schedule_queue(s, c, OP_NORM, WHAT_GRAD);
        else
            strata_schedule_queue(s, c, OP_D2H, WHAT_GRAD);
        break;
    case CHAIN_UPDATE:
    case CHAIN_SETTLE:
    case CHAIN_SAVE:
    case CHAIN_STASH:
    case CHAIN_COMMIT:
    case CHAIN_GROUP:
    case CHAIN_TOTAL:
        STRATA_CHECK(false);
    }
}

/* Opening. */

/* One tile, or the zeroing, of a placement has arrived. */
static void note_arrival(struct schedule *s, uint32_t placement, uint64_t step)
{
    struct placement_state *state = &s->placements[placement];
    uint32_t c = state->group_chain;
    bool param = placement_of(s, placement)->kind == PLACEMENT_PARAM;
    if (--state->left > 0)
        return;
    if (param && s->plan->model.ranks > 1) {
        strata_schedule_begin(s, c, CHAIN_GROUP, step, strata_schedule_key(s, step, placement));
        strata_schedule_comm(s, c, OP_GATHER);
    } else {
        s->chains[c].key = strata_schedule_key(s, step, placement);
        s->chains[c].step = step;
        strata_schedule_gate(s, c);
    }
    if (param || s->taking_back)
        strata_schedule_look(s, LOOK_PLACEMENTS);
}

static void fetch_tile(struct schedule *s, uint32_t c)
{
    struct chain *chain = &s->chains[c];
    if (placement_of(s, chain->owner)->home) {
        /* Rests there already; only the update was to be waited for. */
        chain->busy = false;
        note_arrival(s, chain->owner, chain->step);
        return;
    }
    strata_schedule_take_frame(s, c);
}

static void open_param(struct schedule *s, uint32_t placement, uint64_t step)
{
    uint64_t wanted = wanted_version(s, s->list, step);
    const struct group *group = group_of(s, placement);
    struct placement_state *state = &s->placements[placement];
    state->left = group->layout.tile_count;
    for (uint32_t i = 0; i < group->layout.tile_count; i++) {
        uint32_t c = state->first_chain + i;
        struct tile_state *tile = &s->tiles[group->layout.first_tile + i];
        strata_schedule_begin(s, c, CHAIN_FETCH, step, strata_schedule_key(s, step, placement));
        if (tile->version >= wanted) {
            fetch_tile(s, c);
        } else {
            s->chains[c].next = tile->waiting;
            tile->waiting = c;
        }
    }
}

static void open_grad(struct schedule *s, uint32_t placement, uint64_t step)
{
    const struct group *group = group_of(s, placement);
    struct placement_state *state = &s->placements[placement];
    uint64_t key = strata_schedule_key(s, step, placement);
    if (!placement_of(s, placement)->park_in) {
        state->left = 1;
        strata_schedule_begin(s, state->group_chain, CHAIN_GROUP, step, key);
        strata_schedule_queue(s, state->group_chain, OP_ZERO, WHAT_GRAD);
        return;
    }
    state->left = group->layout.tile_count;
    for (uint32_t i = 0; i < group->layout.tile_count; i++) {
        strata_schedule_begin(s, state->first_chain + i, CHAIN_PARK_IN, step, key);
        if (s->tiles[group->layout.first_tile + i].parked)
            strata_schedule_take_frame(s, state->first_chain + i);
    }
}

/* Is a gradient of the step before still on its way from this placement to its home? */
static bool chains_busy(const struct schedule *s, uint32_t placement)
{
    uint32_t first = s->placements[placement].first_chain;
    for (uint32_t i = 0; i < group_of(s, placement)->layout.tile_count; i++)
        if (s->chains[first + i].busy)
            return true;
    return false;
}

/* Is an open placement in the way of this one? */
static bool is_obstructed(const struct schedule *s, const struct placement *p)
{
    for (uint32_t i = 0; i < s->open_count; i++) {
        const struct placement *other = placement_of(s, s->open_list[i]);
        if (p->offset < other->offset + other->bytes && other->offset < p->offset + p->bytes)
            return true;
        /* A tile is read once at a time. */
        if (p->kind == PLACEMENT_PARAM && other->kind == PLACEMENT_PARAM &&
            p->group == other->group && s->placements[s->open_list[i]].left > 0)
            return true;
    }
    return false;
}

/* This is asked at each look, so what takes a look at every tile comes last. */
static bool may_open(const struct schedule *s, uint32_t placement, uint64_t step)
{
    const struct placement *p = placement_of(s, placement);
    if (s->placements[placement].closed < step)
        return false;
    if (p->kind == PLACEMENT_GRAD && s->normed < step)
        return false;
    if (s->no_overlap && (s->updated < wanted_version(s, s->list, step) ||
                          !strata_schedule_asked_past(s, step, p->first_use)))
        return false;
    return !is_obstructed(s, p) && (p->kind != PLACEMENT_GRAD || !chains_busy(s, placement));
}

/* Of those that are open: did it open for the step that waits? */
static bool is_held(const struct schedule *s, uint32_t placement)
{
    return placement < s->plan->residency.count &&
           s->placements[placement].opened > s->held_step;
}

/* Close what is open for the step that waits, once all that was on its way there has come. A
 * gradient that was parked is on its way only once the step parks it. */
static void take_back(struct schedule *s)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < s->open_count; i++) {
        uint32_t placement = s->open_list[i];
        bool coming = !placement_of(s, placement)->park_in && s->placements[placement].left > 0;
        if (is_held(s, placement) && coming)
            return;
    }
    for (uint32_t i = 0; i < s->open_count; i++) {
        uint32_t placement = s->open_list[i];
        struct placement_state *state = &s->placements[placement];
        if (!is_held(s, placement)) {
            s->open_list[kept++] = placement;
            continue;
        }
        state->opened--;
        for (uint32_t t = 0; t < group_of(s, placement)->layout.tile_count; t++)
            s->chains[state->first_chain + t].busy = false;
    }
    s->open_count = kept;
    s->lists[LIST_STEP].next_placement = s->held_step * s->plan->residency.count;
    strata_schedule_take_back_stashes(s);
    s->taking_back = false;
    strata_schedule_look(s, LOOK_STASHES);
}

void strata_schedule_open_placements(struct schedule *s)
{
    if (s->taking_back)
        take_back(s);
    if (s->taking_back || s->list == LIST_COUNT)
        return;
    struct list *list = &s->lists[s->list];
    for (;;) {
        uint64_t turn = list->next_placement / list->placement_count;
        uint32_t placement =
            list->first_placement + (uint32_t)(list->next_placement % list->placement_count);
        if ((s->list == LIST_EVAL && turn == s->evaluations) || !may_open(s, placement, turn))
            return;
        list->next_placement++;
        s->placements[placement].opened++;
        s->placements[placement].gate_value = strata_schedule_gate_value(
            s->plan, placement_of(s, placement)->first_use, turn, s->holds);
        s->open_list[s->open_count++] = placement;
        if (placement_of(s, placement)->kind == PLACEMENT_PARAM)
            open_param(s, placement, turn);
        else
            open_grad(s, placement, turn);
    }
}

static void close_placement(struct schedule *s, uint32_t placement)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < s->open_count; i++)
        if (s->open_list[i] != placement)
            s->open_list[kept++] = s->open_list[i];
    s->open_count = kept;
    s->placements[placement].closed++;
    strata_schedule_look(s, LOOK_PLACEMENTS);
}

/* Parameters. */

void strata_schedule_fetch_done(struct schedule *s, uint32_t c, const struct op *op)
{
    if (op->kind == OP_NVME_READ) {
        strata_schedule_queue(s, c, OP_H2D, WHAT_PARAM);
        return;
    }
    strata_schedule_end(s, c);
    note_arrival(s, s->chains[c].owner, op->step);
}

void strata_schedule_new_version(struct schedule *s, uint32_t tile)
{
    struct tile_state *state = &s->tiles[tile];
    state->version++;
    uint32_t c = state->waiting;
    state->waiting = STRATA_NONE;
    while (c != STRATA_NONE) {
        uint32_t next = s->chains[c].next;
        fetch_tile(s, c);
        c = next;
    }
}

/* Gradients on their way out. */

/* One tile of a gradient placement has left the device. */
static void left_device(struct schedule *s, uint32_t placement)
{
    if (--s->placements[placement].left == 0)
        close_placement(s, placement);
}

static void start_tiles_out(struct schedule *s, uint32_t placement, uint64_t step,
                            enum chain_kind kind)
{
    const struct group *group = group_of(s, placement);
    s->placements[placement].left = group->layout.tile_count;
    for (uint32_t i = 0; i < group->layout.tile_count; i++) {
        uint32_t c = s->placements[placement].first_chain + i;
        strata_schedule_begin(s, c, kind, step, strata_schedule_key(s, step, placement));
        strata_schedule_take_frame(s, c);
    }
}

/* The last gradient use of a placement is over on the stream. */
static void grad_released(struct schedule *s, uint32_t placement, uint64_t step)
{
    const struct placement *p = placement_of(s, placement);
    uint32_t c = s->placements[placement].group_chain;
    if (p->park_out) {
        start_tiles_out(s, placement, step, CHAIN_PARK_OUT);
        return;
    }
    bool rounds = strata_layout_rounds(&s->plan->model.groups[p->group].layout);
    if (!rounds && s->plan->model.ranks == 1) {
        start_tiles_out(s, placement, step, CHAIN_GRAD);
        return;
    }
    strata_schedule_begin(s, c, CHAIN_GROUP, step, strata_schedule_key(s, step, placement));
    if (rounds)
        strata_schedule_queue(s, c, OP_ROUND, WHAT_GRAD);
    else
        strata_schedule_comm(s, c, OP_REDUCE);
}

void strata_schedule_group_done(struct schedule *s, uint32_t c, const struct op *op)
{
    uint32_t placement = s->chains[c].owner;
    if (op->kind == OP_ROUND && strata_schedule_comm(s, c, OP_REDUCE))
        return;
    s->chains[c].busy = false;
    if (op->kind == OP_GATHER || op->kind == OP_REDUCE)
        strata_schedule_look(s, LOOK_COMM);
    if (op->kind == OP_GATHER) {
        strata_schedule_gate(s, c);
        return;
    }
    if (op->kind == OP_ZERO) {
        note_arrival(s, placement, op->step);
        return;
    }
    start_tiles_out(s, placement, op->step, CHAIN_GRAD);
    /* What rests in the device has arrived: the buffer is free. */
    if (s->plan->model.groups[placement_of(s, placement)->group].layout.in_device[STRATA_GRAD])
        close_placement(s, placement);
}

void strata_schedule_released(struct schedule *s, uint64_t step, uint32_t use)
{
    const struct residency *residency = &s->plan->residency;
    uint32_t param = residency->use_param[use];
    uint32_t grad = residency->use_grad[use];
    if (grad != STRATA_NONE && placement_of(s, grad)->last_use == use)
        grad_released(s, grad, step);
    if (placement_of(s, param)->last_use == use)
        close_placement(s, param);
    strata_schedule_look(s, LOOK_AHEAD);
}

static void grad_at_home(struct schedule *s, uint32_t c)
{
    uint32_t tile = s->chains[c].tile;
    if (strata_schedule_folds(s, tile))
        s->tiles[tile].grad_chain = c; /* and it keeps its frame until the update takes it */
    else
        strata_schedule_end(s, c);
    s->tiles[tile].grads++;
    strata_schedule_ready_tile(s, tile);
    strata_schedule_look(s, LOOK_PLACEMENTS);
}

static void normed_tile(struct schedule *s, const struct op *op)
{
    if (--s->norms_left > 0)
        return;
    s->norms_left = s->plan->model.trained_tile_count;
    strata_schedule_begin(s, s->total_chain, CHAIN_TOTAL, op->step, 0);
    if (!strata_schedule_comm(s, s->total_chain, OP_SHARE))
        strata_schedule_queue(s, s->total_chain, OP_TOTAL, WHAT_NOTHING);
}

void strata_schedule_grad_done(struct schedule *s, uint32_t c, const struct op *op)
{
    const struct chain *chain = &s->chains[c];
    if (op->kind == OP_D2H) {
        strata_schedule_queue(s, c, OP_NORM, WHAT_GRAD);
        left_device(s, chain->owner);
        return;
    }
    if (op->kind == OP_NVME_WRITE) {
        grad_at_home(s, c);
        return;
    }
    STRATA_CHECK(op->kind == OP_NORM);
    s->doubt = s->doubt || op->verdict > VERDICT_WITHIN;
    if (home_tier(s, STRATA_GRAD, chain->tile) == STRATA_NVME)
        strata_schedule_queue(s, c, OP_NVME_WRITE, WHAT_GRAD);
    else
        grad_at_home(s, c);
    normed_tile(s, op);
}

/* Gradients that are not finished. */

static void park_ended(struct schedule *s, uint32_t c)
{
    uint32_t tile = s->chains[c].tile;
    uint64_t step = s->chains[c].step;
    uint32_t group = s->plan->model.tiles[tile].group;
    s->tiles[tile].parked = true;
    strata_schedule_end(s, c);
    /* The placement that takes it back may have opened before the bytes were parked. */
    for (uint32_t i = s->chains[c].owner + 1; i < s->plan->residency.count; i++) {
        const struct placement *p = placement_of(s, i);
        if (p->kind != PLACEMENT_GRAD || p->group != group)
            continue;
        if (p->park_in && s->placements[i].opened > step)
            strata_schedule_take_frame(s, s->placements[i].first_chain + tile -
                                              s->plan->model.groups[group].layout.first_tile);
        return;
    }
}

void strata_schedule_park_done(struct schedule *s, uint32_t c, const struct op *op)
{
    struct chain *chain = &s->chains[c];
    uint32_t owner = chain->owner;
    if (chain->kind == CHAIN_PARK_IN) {
        if (op->kind == OP_NVME_READ) {
            strata_schedule_queue(s, c, OP_H2D, WHAT_PARK);
            return;
        }
        s->tiles[chain->tile].parked = false;
        uint64_t step = chain->step;
        strata_schedule_end(s, c);
        note_arrival(s, owner, step);
        return;
    }
    if (op->kind == OP_D2H) {
        if (chain->frame != STRATA_NONE)
            strata_schedule_queue(s, c, OP_NVME_WRITE, WHAT_PARK);
        else
            park_ended(s, c);
        left_device(s, owner);
        return;
    }
    park_ended(s, c);
}
