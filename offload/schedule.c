/*
 * The schedule: chains, the frames they wait for, and the lanes they queue on.
 *
 * Each lane and each kind of frame has a heap of chains that wait for it, keyed by deadline. So
 * an event costs a few heap operations, whatever the size of the model.
 *
 * A deadline is a placement's number counted through all steps: what is wanted by an earlier
 * placement goes first. An update is wanted by the first placement of its group in the next
 * step.
 *
 * Thread: the pager.
 */

#include "offload/schedule.h"

#include "base/error.h"
#include "offload/schedule_state.h"

/* Ops of one lane that are under way at once. Copies run in order on one stream, two keep it
 * fed; a drive wants a queue; the cpu lane computes one job at a time and has the next at hand.
 */
static const uint32_t lane_depth[STRATA_LANE_COUNT] = {
    [STRATA_LANE_NVME_READ] = 8, [STRATA_LANE_NVME_WRITE] = 8, [STRATA_LANE_H2D] = 4,
    [STRATA_LANE_D2H] = 4,       [STRATA_LANE_CPU] = 2,
};

static strata_lane lane_of(enum op_kind kind)
{
    static const strata_lane lanes[] = {
        [OP_NVME_READ] = STRATA_LANE_NVME_READ,
        [OP_NVME_WRITE] = STRATA_LANE_NVME_WRITE,
        [OP_H2D] = STRATA_LANE_H2D,
        [OP_D2H] = STRATA_LANE_D2H,
        [OP_ZERO] = STRATA_LANE_H2D,
        [OP_ROUND] = STRATA_LANE_D2H,
        [OP_NORM] = STRATA_LANE_CPU,
        [OP_UPDATE] = STRATA_LANE_CPU,
        [OP_TOTAL] = STRATA_LANE_CPU,
        [OP_COMMIT] = STRATA_LANE_NVME_WRITE,
    };
    return lanes[kind];
}

static uint8_t home(const struct schedule *s, strata_part part, uint32_t tile)
{
    return s->plan->homes[part].tier[tile];
}

static bool on_device(const struct schedule *s, enum op_kind kind, uint32_t tile)
{
    return (kind == OP_NORM && home(s, STRATA_GRAD, tile) == STRATA_DEVICE) ||
           (kind == OP_UPDATE && s->plan->states_on_device);
}

static void queue(struct schedule *s, uint32_t c, enum op_kind kind, enum op_what what)
{
    struct chain *chain = &s->chains[c];
    bool device = chain->tile != STRATA_NONE && on_device(s, kind, chain->tile);
    strata_lane lane = device ? STRATA_LANE_D2H : lane_of(kind);
    uint64_t key = chain->key;
    /* Whoever holds a frame goes first on the cpu lane: others may be waiting for that frame.
     */
    if (lane == STRATA_LANE_CPU && chain->frame == STRATA_NONE && kind != OP_TOTAL)
        key |= (uint64_t)1 << 63;
    chain->pending++;
    strata_heap_push(
        &s->lanes[lane],
        (struct entry){.key = key, .chain = c, .kind = (uint8_t)kind, .what = (uint8_t)what});
}

static uint64_t instance_key(const struct schedule *s, uint64_t step, uint32_t placement)
{
    return step * s->plan->residency.count + placement;
}

/* A position among all steps' uses; where the caller stands is one. */
static bool asked_past(const struct schedule *s, uint64_t step, uint32_t use)
{
    return s->asked_any &&
           (s->asked_step > step || (s->asked_step == step && s->asked_use >= use));
}

static void start_with_frame(struct schedule *s, uint32_t c);

/* Does this step end with a commit? */
static bool commit_due(const struct schedule *s, uint64_t step)
{
    return s->slots.desc.durable && s->commit_every > 0 &&
           (s->base_step + step + 1) % s->commit_every == 0;
}

/* Frames. A chain that needs none starts at once. */

static enum frame_kind frame_of(const struct chain *chain)
{
    static const enum frame_kind kinds[] = {
        [CHAIN_FETCH] = FRAME_FETCH,   [CHAIN_PARK_IN] = FRAME_PARK,
        [CHAIN_PARK_OUT] = FRAME_PARK, [CHAIN_GRAD] = FRAME_GRAD,
        [CHAIN_UPDATE] = FRAME_UPDATE, [CHAIN_SAVE] = FRAME_UPDATE};
    return kinds[chain->kind];
}

static bool needs_frame(const struct schedule *s, const struct chain *chain)
{
    switch (chain->kind) {
    case CHAIN_FETCH:
        return home(s, STRATA_PARAM, chain->tile) == STRATA_NVME;
    case CHAIN_GRAD:
        return home(s, STRATA_GRAD, chain->tile) == STRATA_NVME;
    case CHAIN_UPDATE:
        return strata_plan_update_needs_frame(s->plan, chain->tile) ||
               (s->plan->states_on_device && commit_due(s, chain->step));
    case CHAIN_SAVE:
        return s->plan->states_on_device;
    case CHAIN_PARK_IN:
    case CHAIN_PARK_OUT:
        return s->plan->park.tier[chain->tile] == STRATA_NVME;
    default:
        return false;
    }
}

static void hand_out_frames(struct schedule *s, enum frame_kind kind)
{
    while (s->waits[kind].count > 0 && s->free_count[kind] > 0) {
        uint32_t c = strata_heap_pop(&s->waits[kind]).chain;
        s->chains[c].frame = s->free_frames[kind][--s->free_count[kind]];
        start_with_frame(s, c);
    }
}

static void start_chain(struct schedule *s, uint32_t c)
{
    struct chain *chain = &s->chains[c];
    if (!needs_frame(s, chain)) {
        start_with_frame(s, c);
        return;
    }
    enum frame_kind kind = frame_of(chain);
    strata_heap_push(&s->waits[kind], (struct entry){.key = chain->key, .chain = c});
    hand_out_frames(s, kind);
}

static void end_chain(struct schedule *s, uint32_t c)
{
    struct chain *chain = &s->chains[c];
    chain->busy = false;
    if (chain->frame == STRATA_NONE)
        return;
    enum frame_kind kind = frame_of(chain);
    s->free_frames[kind][s->free_count[kind]++] = chain->frame;
    chain->frame = STRATA_NONE;
    hand_out_frames(s, kind);
}

static void begin_chain(struct schedule *s, uint32_t c, enum chain_kind kind, uint64_t step,
                        uint64_t key)
{
    struct chain *chain = &s->chains[c];
    STRATA_CHECK(!chain->busy);
    chain->busy = true;
    chain->kind = (uint8_t)kind;
    chain->slot = STRATA_NONE;
    chain->step = step;
    chain->key = key;
    chain->pending = 0;
}

/* Write the tile's state record to a slot that may be written, once there is one. */
static void write_state(struct schedule *s, uint32_t c)
{
    struct chain *chain = &s->chains[c];
    bool commits = chain->kind == CHAIN_SAVE || commit_due(s, chain->step);
    bool prepares = !commits || strata_slots_prepare(&s->slots, s->base_step + chain->step + 1);
    uint32_t slot = prepares ? strata_slots_choose(&s->slots, chain->tile) : STRATA_NO_SLOT;
    if (slot == STRATA_NO_SLOT) {
        chain->pending++;
        strata_heap_push(&s->slot_waits, (struct entry){.key = chain->key, .chain = c});
        return;
    }
    if (commits)
        strata_slots_name(&s->slots, chain->tile, slot);
    chain->slot = slot;
    queue(s, c, OP_NVME_WRITE, WHAT_STATE);
}

/* From wherever the state rests; what rests in the device comes through the chain's frame. */
static void save_state(struct schedule *s, uint32_t c)
{
    if (s->plan->states_on_device)
        queue(s, c, OP_D2H, WHAT_STATE);
    else
        write_state(s, c);
}

static void queue_commit(struct schedule *s)
{
    begin_chain(s, s->commit_chain, CHAIN_COMMIT, s->slots.preparing.step, 0);
    queue(s, s->commit_chain, OP_COMMIT, WHAT_NOTHING);
}

static void state_written(struct schedule *s, uint32_t c)
{
    struct chain *chain = &s->chains[c];
    strata_slots_written(&s->slots, chain->tile, chain->slot);
    bool commits = chain->kind == CHAIN_SAVE || commit_due(s, chain->step);
    if (commits && strata_slots_ready(&s->slots))
        queue_commit(s);
}

static void commit_done(struct schedule *s)
{
    s->chains[s->commit_chain].busy = false;
    strata_slots_committed(&s->slots);
    /* Each may find a slot now; one that does not waits again. */
    for (uint32_t left = s->slot_waits.count; left > 0; left--) {
        uint32_t c = strata_heap_pop(&s->slot_waits).chain;
        s->chains[c].pending--;
        write_state(s, c);
    }
}

/* The first op of a chain that has what it needs. */
static void start_with_frame(struct schedule *s, uint32_t c)
{
    struct chain *chain = &s->chains[c];
    bool framed = chain->frame != STRATA_NONE;
    switch (chain->kind) {
    case CHAIN_FETCH:
        queue(s, c, framed ? OP_NVME_READ : OP_H2D, WHAT_PARAM);
        break;
    case CHAIN_PARK_IN:
        queue(s, c, framed ? OP_NVME_READ : OP_H2D, WHAT_PARK);
        break;
    case CHAIN_PARK_OUT:
        queue(s, c, OP_D2H, WHAT_PARK);
        break;
    case CHAIN_GRAD:
        /* Gradients that rest in the device are there once rounded. */
        if (home(s, STRATA_GRAD, chain->tile) == STRATA_DEVICE)
            queue(s, c, OP_NORM, WHAT_GRAD);
        else
            queue(s, c, OP_D2H, WHAT_GRAD);
        break;
    case CHAIN_UPDATE:
        if (!s->plan->states_on_device && home(s, STRATA_STATE, chain->tile) == STRATA_NVME)
            queue(s, c, OP_NVME_READ, WHAT_STATE);
        if (!s->plan->states_on_device && home(s, STRATA_GRAD, chain->tile) == STRATA_NVME)
            queue(s, c, OP_NVME_READ, WHAT_GRAD);
        if (!s->plan->states_on_device && home(s, STRATA_GRAD, chain->tile) == STRATA_DEVICE)
            queue(s, c, OP_D2H, WHAT_GRAD);
        if (chain->pending == 0)
            queue(s, c, OP_UPDATE, WHAT_STATE);
        break;
    case CHAIN_SAVE:
        save_state(s, c);
        break;
    default:
        STRATA_CHECK(false);
    }
}

/* Placements: opening. */

static void gate(struct schedule *s, uint32_t c)
{
    strata_heap_push(&s->opens, (struct entry){.key = s->chains[c].key,
                                               .chain = c,
                                               .kind = OP_OPEN,
                                               .what = WHAT_NOTHING});
}

/* One tile, or the zeroing, of a placement has arrived. */
static void arrived(struct schedule *s, uint32_t placement, uint64_t step)
{
    struct placement_state *state = &s->placements[placement];
    if (--state->left > 0)
        return;
    s->chains[state->group_chain].key = instance_key(s, step, placement);
    s->chains[state->group_chain].step = step;
    gate(s, state->group_chain);
}

static void fetch_tile(struct schedule *s, uint32_t c)
{
    struct chain *chain = &s->chains[c];
    if (s->plan->residency.placements[chain->owner].home) {
        /* Rests there already; only the update was to be waited for. */
        chain->busy = false;
        arrived(s, chain->owner, chain->step);
        return;
    }
    start_chain(s, c);
}

static void open_param(struct schedule *s, uint32_t placement, uint64_t step)
{
    const struct group *group =
        &s->plan->model.groups[s->plan->residency.placements[placement].group];
    struct placement_state *state = &s->placements[placement];
    state->left = group->tile_count;
    for (uint32_t i = 0; i < group->tile_count; i++) {
        uint32_t c = state->first_chain + i;
        struct tile_state *tile = &s->tiles[group->first_tile + i];
        begin_chain(s, c, CHAIN_FETCH, step, instance_key(s, step, placement));
        if (tile->version >= step) {
            fetch_tile(s, c);
        } else {
            s->chains[c].next = tile->waiting;
            tile->waiting = c;
        }
    }
}

static void open_grad(struct schedule *s, uint32_t placement, uint64_t step)
{
    const struct placement *p = &s->plan->residency.placements[placement];
    const struct group *group = &s->plan->model.groups[p->group];
    struct placement_state *state = &s->placements[placement];
    uint64_t key = instance_key(s, step, placement);
    if (!p->park_in) {
        state->left = 1;
        begin_chain(s, state->group_chain, CHAIN_GROUP, step, key);
        queue(s, state->group_chain, OP_ZERO, WHAT_GRAD);
        return;
    }
    state->left = group->tile_count;
    for (uint32_t i = 0; i < group->tile_count; i++) {
        begin_chain(s, state->first_chain + i, CHAIN_PARK_IN, step, key);
        if (s->tiles[group->first_tile + i].parked)
            start_chain(s, state->first_chain + i);
    }
}

/* Is a gradient of the step before still on its way from this placement to its home? */
static bool chains_busy(const struct schedule *s, uint32_t placement)
{
    uint32_t group = s->plan->residency.placements[placement].group;
    uint32_t first = s->placements[placement].first_chain;
    for (uint32_t i = 0; i < s->plan->model.groups[group].tile_count; i++)
        if (s->chains[first + i].busy)
            return true;
    return false;
}

static bool may_open(const struct schedule *s, uint32_t placement, uint64_t step)
{
    const struct placement *p = &s->plan->residency.placements[placement];
    if (s->placements[placement].closed < step)
        return false;
    if (p->kind == PLACEMENT_GRAD && (s->normed < step || chains_busy(s, placement)))
        return false;
    if (s->no_overlap && (s->updated < step || !asked_past(s, step, p->first_use)))
        return false;
    for (uint32_t i = 0; i < s->open_count; i++) {
        const struct placement *other = &s->plan->residency.placements[s->open_list[i]];
        if (p->offset < other->offset + other->bytes && other->offset < p->offset + p->bytes)
            return false;
    }
    return true;
}

static void open_placements(struct schedule *s)
{
    for (;;) {
        uint64_t step = s->next_placement / s->plan->residency.count;
        uint32_t placement = (uint32_t)(s->next_placement % s->plan->residency.count);
        if (!may_open(s, placement, step))
            return;
        s->next_placement++;
        s->placements[placement].opened++;
        s->open_list[s->open_count++] = placement;
        if (s->plan->residency.placements[placement].kind == PLACEMENT_PARAM)
            open_param(s, placement, step);
        else
            open_grad(s, placement, step);
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
    open_placements(s);
}

/* Updates. */

static void maybe_update(struct schedule *s, uint32_t tile)
{
    struct tile_state *state = &s->tiles[tile];
    uint32_t c = s->first_update + tile;
    if (s->chains[c].busy || state->updates >= state->grads)
        return;
    uint64_t step = state->updates;
    if (s->updated < step)
        return;
    if ((s->deferred || s->no_overlap) && s->normed <= step)
        return;
    state->updates++;
    uint32_t first = s->group_first[s->plan->model.tiles[tile].group];
    begin_chain(s, c, CHAIN_UPDATE, step, instance_key(s, step + 1, first));
    start_chain(s, c);
}

static void param_written(struct schedule *s, uint32_t tile)
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

static void update_ended(struct schedule *s, uint32_t c)
{
    end_chain(s, c);
    if (--s->updates_left > 0)
        return;
    s->updates_left = s->plan->model.tile_count;
    s->updated++;
    if (s->no_overlap)
        open_placements(s);
    /* Without clipping the next step's gradients may already be there. */
    for (uint32_t i = 0; i < s->plan->model.tile_count; i++)
        maybe_update(s, i);
}

/* A tile's update has been computed: write what is not in place, save what a commit wants. */
static void update_computed(struct schedule *s, uint32_t c)
{
    struct chain *chain = &s->chains[c];
    uint32_t tile = chain->tile;
    if (!s->plan->states_on_device && home(s, STRATA_STATE, tile) == STRATA_NVME)
        write_state(s, c);
    else if (commit_due(s, chain->step))
        save_state(s, c);
    if (home(s, STRATA_PARAM, tile) == STRATA_NVME)
        queue(s, c, OP_NVME_WRITE, WHAT_PARAM);
    else if (home(s, STRATA_PARAM, tile) == STRATA_DEVICE && !s->plan->states_on_device)
        queue(s, c, OP_H2D, WHAT_PARAM);
    else
        param_written(s, tile);
}

static void update_done(struct schedule *s, uint32_t c, const struct op *op)
{
    struct chain *chain = &s->chains[c];
    if (op->kind == OP_NVME_READ || (op->kind == OP_D2H && op->what == WHAT_GRAD)) {
        if (chain->pending == 0)
            queue(s, c, OP_UPDATE, WHAT_STATE);
        return;
    }
    if (op->kind == OP_UPDATE)
        update_computed(s, c);
    else if (op->kind == OP_D2H)
        write_state(s, c);
    else if (op->what == WHAT_STATE)
        state_written(s, c);
    else
        param_written(s, chain->tile);
    if (chain->pending == 0)
        update_ended(s, c);
}

static void save_done(struct schedule *s, uint32_t c, const struct op *op)
{
    if (op->kind == OP_D2H) {
        write_state(s, c);
        return;
    }
    state_written(s, c);
    end_chain(s, c);
}

uint64_t strata_schedule_committed(const struct schedule *s)
{
    return s->slots.line_count > 0 ? s->slots.lines[0].step : 0;
}

void strata_schedule_save(struct schedule *s)
{
    uint64_t step = s->base_step + s->updated;
    if (strata_schedule_committed(s) == step || s->slots.active)
        return;
    STRATA_CHECK(s->slots.desc.durable && strata_slots_prepare(&s->slots, step));
    bool last = false;
    for (uint32_t i = 0; i < s->plan->model.tile_count; i++) {
        if (!s->plan->states_on_device && home(s, STRATA_STATE, i) == STRATA_NVME) {
            strata_slots_name(&s->slots, i, s->slots.current[i]);
            last = strata_slots_ready(&s->slots);
            continue;
        }
        begin_chain(s, s->first_update + i, CHAIN_SAVE, s->updated - 1, 0);
        start_chain(s, s->first_update + i);
    }
    if (last)
        queue_commit(s);
}

uint32_t strata_schedule_commit_lines(const struct schedule *s,
                                      struct commit_line out[1 + STRATA_MAX_KEEP])
{
    return strata_slots_next_lines(&s->slots, out);
}

void strata_schedule_recover(struct schedule *s, const struct commit_line *lines,
                             uint32_t count, uint32_t commit_every)
{
    strata_slots_recover(&s->slots, lines, count);
    s->base_step = lines[0].step;
    s->commit_every = commit_every;
}

uint32_t strata_schedule_slot(const struct schedule *s, uint32_t tile)
{
    return s->slots.current[tile];
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
    const struct placement *p = &s->plan->residency.placements[placement];
    const struct group *group = &s->plan->model.groups[p->group];
    s->placements[placement].left = group->tile_count;
    for (uint32_t i = 0; i < group->tile_count; i++) {
        uint32_t c = s->placements[placement].first_chain + i;
        begin_chain(s, c, kind, step, instance_key(s, step, placement));
        start_chain(s, c);
    }
}

/* The last gradient use of a placement is over on the stream. */
static void grad_released(struct schedule *s, uint32_t placement, uint64_t step)
{
    const struct placement *p = &s->plan->residency.placements[placement];
    uint32_t c = s->placements[placement].group_chain;
    if (p->park_out) {
        start_tiles_out(s, placement, step, CHAIN_PARK_OUT);
        return;
    }
    if (s->plan->compute_dtype == STRATA_FP32 && !s->plan->grad_home[p->group]) {
        start_tiles_out(s, placement, step, CHAIN_GRAD);
        return;
    }
    begin_chain(s, c, CHAIN_GROUP, step, instance_key(s, step, placement));
    queue(s, c, OP_ROUND, WHAT_GRAD);
}

static void grad_at_home(struct schedule *s, uint32_t c)
{
    uint32_t tile = s->chains[c].tile;
    end_chain(s, c);
    s->tiles[tile].grads++;
    maybe_update(s, tile);
    open_placements(s);
}

static void normed_tile(struct schedule *s, uint64_t step)
{
    if (--s->norms_left > 0)
        return;
    s->norms_left = s->plan->model.tile_count;
    begin_chain(s, s->total_chain, CHAIN_TOTAL, step, 0);
    queue(s, s->total_chain, OP_TOTAL, WHAT_NOTHING);
}

static void grad_done(struct schedule *s, uint32_t c, const struct op *op)
{
    struct chain *chain = &s->chains[c];
    switch (op->kind) {
    case OP_D2H:
        queue(s, c, OP_NORM, WHAT_GRAD);
        left_device(s, chain->owner);
        return;
    case OP_NORM:
        if (home(s, STRATA_GRAD, chain->tile) == STRATA_NVME)
            queue(s, c, OP_NVME_WRITE, WHAT_GRAD);
        else
            grad_at_home(s, c);
        normed_tile(s, op->step);
        return;
    default:
        grad_at_home(s, c);
    }
}

static void park_ended(struct schedule *s, uint32_t c)
{
    uint32_t tile = s->chains[c].tile;
    uint64_t step = s->chains[c].step;
    uint32_t group = s->plan->model.tiles[tile].group;
    s->tiles[tile].parked = true;
    end_chain(s, c);
    /* The placement that takes it back may have opened before the bytes were parked. */
    for (uint32_t i = s->chains[c].owner + 1; i < s->plan->residency.count; i++) {
        const struct placement *p = &s->plan->residency.placements[i];
        if (p->kind != PLACEMENT_GRAD || p->group != group)
            continue;
        if (p->park_in && s->placements[i].opened > step)
            start_chain(s, s->placements[i].first_chain + tile -
                               s->plan->model.groups[group].first_tile);
        return;
    }
}

static void park_done(struct schedule *s, uint32_t c, const struct op *op)
{
    struct chain *chain = &s->chains[c];
    uint32_t owner = chain->owner;
    if (chain->kind == CHAIN_PARK_IN) {
        if (op->kind == OP_NVME_READ) {
            queue(s, c, OP_H2D, WHAT_PARK);
            return;
        }
        s->tiles[chain->tile].parked = false;
        uint64_t step = chain->step;
        end_chain(s, c);
        arrived(s, owner, step);
        return;
    }
    if (op->kind == OP_D2H) {
        bool to_nvme = chain->frame != STRATA_NONE;
        if (to_nvme)
            queue(s, c, OP_NVME_WRITE, WHAT_PARK);
        else
            park_ended(s, c);
        left_device(s, owner);
        return;
    }
    park_ended(s, c);
}

/* Stash: blocks are taken in the order of the use list, round robin, so none is ever short of
 * one that an earlier event holds for good. */

static const struct use *stash_use(const struct schedule *s, uint32_t event)
{
    return &s->plan->model.uses[s->plan->model.stash_uses[event]];
}

static void open_stash(struct schedule *s, uint32_t event, uint64_t step)
{
    const struct use *use = stash_use(s, event);
    struct stash_state *state = &s->stashes[event];
    state->opened++;
    if (use->kind != STRATA_USE_UNSTASH)
        return;
    begin_chain(s, state->chain, CHAIN_STASH, step, instance_key(s, step, state->placement));
    uint32_t from = s->plan->model.uses[use->partner].stash_event;
    if (s->stashes[from].home > step)
        queue(s, state->chain, OP_H2D, WHAT_STASH);
}

static void open_stashes(struct schedule *s)
{
    uint32_t events = s->plan->model.stash_event_count;
    if (s->plan->stash_frames == 0)
        return;
    for (;;) {
        uint64_t step = s->next_stash / events;
        uint32_t event = (uint32_t)(s->next_stash % events);
        if (s->stashes[event].closed < step)
            return;
        if (s->next_stash >= s->plan->stash_frames) {
            uint64_t last = s->next_stash - s->plan->stash_frames;
            if (s->stashes[last % events].closed <= last / events)
                return;
        }
        if (s->no_overlap && !asked_past(s, step, s->plan->model.stash_uses[event]))
            return;
        s->next_stash++;
        open_stash(s, event, step);
    }
}

static void stash_done(struct schedule *s, uint32_t c, const struct op *op)
{
    uint32_t event = s->chains[c].owner;
    uint64_t step = s->chains[c].step;
    struct stash_state *state = &s->stashes[event];
    if (op->kind == OP_H2D) {
        gate(s, c);
        return;
    }
    s->chains[c].busy = false;
    state->home++;
    state->closed++;
    uint32_t taker = s->plan->model.uses[stash_use(s, event)->partner].stash_event;
    if (s->stashes[taker].opened > step)
        queue(s, s->stashes[taker].chain, OP_H2D, WHAT_STASH);
    open_stashes(s);
}

void strata_schedule_copied(struct schedule *s, uint64_t step, uint32_t event)
{
    struct stash_state *state = &s->stashes[event];
    if (stash_use(s, event)->kind == STRATA_USE_STASH) {
        begin_chain(s, state->chain, CHAIN_STASH, step,
                    instance_key(s, step, state->placement));
        queue(s, state->chain, OP_D2H, WHAT_STASH);
        return;
    }
    s->chains[state->chain].busy = false;
    state->closed++;
    open_stashes(s);
}

/* Events from outside. */

void strata_schedule_ask(struct schedule *s, uint64_t step, uint32_t use)
{
    s->asked_any = true;
    s->asked_step = step;
    s->asked_use = use;
    if (!s->no_overlap)
        return;
    open_placements(s);
    open_stashes(s);
}

bool strata_schedule_granted(const struct schedule *s, uint64_t step, uint32_t use)
{
    const struct use *u = &s->plan->model.uses[use];
    if (u->kind == STRATA_USE_STASH || u->kind == STRATA_USE_UNSTASH)
        return s->plan->stash == STRATA_DEVICE || s->stashes[u->stash_event].opened > step;
    const struct residency *residency = &s->plan->residency;
    uint32_t grad = residency->use_grad[use];
    return s->placements[residency->use_param[use]].opened > step &&
           (grad == STRATA_NONE || s->placements[grad].opened > step);
}

void strata_schedule_released(struct schedule *s, uint64_t step, uint32_t use)
{
    const struct residency *residency = &s->plan->residency;
    uint32_t param = residency->use_param[use];
    uint32_t grad = residency->use_grad[use];
    if (grad != STRATA_NONE && residency->placements[grad].last_use == use)
        grad_released(s, grad, step);
    if (residency->placements[param].last_use == use)
        close_placement(s, param);
}

static void group_done(struct schedule *s, uint32_t c, const struct op *op)
{
    uint32_t placement = s->chains[c].owner;
    s->chains[c].busy = false;
    if (op->kind == OP_ZERO) {
        arrived(s, placement, op->step);
        return;
    }
    start_tiles_out(s, placement, op->step, CHAIN_GRAD);
    /* What rests in the device has arrived: the buffer is free. */
    if (s->plan->grad_home[s->plan->residency.placements[placement].group])
        close_placement(s, placement);
}

static void total_done(struct schedule *s)
{
    s->chains[s->total_chain].busy = false;
    s->normed++;
    if (s->deferred || s->no_overlap)
        for (uint32_t i = 0; i < s->plan->model.tile_count; i++)
            maybe_update(s, i);
    open_placements(s);
}

void strata_schedule_done(struct schedule *s, const struct op *op)
{
    struct chain *chain = &s->chains[op->chain];
    STRATA_CHECK(s->in_flight[op->lane] > 0 && chain->pending > 0);
    s->in_flight[op->lane]--;
    chain->pending--;
    switch (chain->kind) {
    case CHAIN_FETCH:
        if (op->kind == OP_NVME_READ) {
            queue(s, op->chain, OP_H2D, WHAT_PARAM);
        } else {
            end_chain(s, op->chain);
            arrived(s, chain->owner, op->step);
        }
        break;
    case CHAIN_PARK_IN:
    case CHAIN_PARK_OUT:
        park_done(s, op->chain, op);
        break;
    case CHAIN_GRAD:
        grad_done(s, op->chain, op);
        break;
    case CHAIN_UPDATE:
        update_done(s, op->chain, op);
        break;
    case CHAIN_STASH:
        stash_done(s, op->chain, op);
        break;
    case CHAIN_SAVE:
        save_done(s, op->chain, op);
        break;
    case CHAIN_COMMIT:
        commit_done(s);
        break;
    case CHAIN_GROUP:
        group_done(s, op->chain, op);
        break;
    case CHAIN_TOTAL:
        total_done(s);
        break;
    default:
        STRATA_CHECK(false);
    }
}

static void fill(const struct schedule *s, const struct entry *entry, strata_lane lane,
                 struct op *out)
{
    const struct chain *chain = &s->chains[entry->chain];
    bool stash = chain->kind == CHAIN_STASH;
    bool placed = chain->owner != STRATA_NONE && !stash;
    bool state = entry->what == WHAT_STATE && chain->tile != STRATA_NONE;
    *out = (struct op){
        .kind = (enum op_kind)entry->kind,
        .what = (enum op_what)entry->what,
        .lane = lane,
        .on_device =
            chain->tile != STRATA_NONE && on_device(s, (enum op_kind)entry->kind, chain->tile),
        .chain = entry->chain,
        .tile = chain->tile,
        .placement = placed ? chain->owner : STRATA_NONE,
        .stash_event = stash ? chain->owner : STRATA_NONE,
        .slot = !state                         ? STRATA_NONE
                : entry->kind == OP_NVME_WRITE ? chain->slot
                                               : s->slots.current[chain->tile],
        .frame = chain->frame,
        .step = chain->step,
    };
}

bool strata_schedule_next(struct schedule *s, struct op *out)
{
    if (s->opens.count > 0) {
        struct entry entry = strata_heap_pop(&s->opens);
        fill(s, &entry, STRATA_LANE_COUNT, out);
        return true;
    }
    for (int lane = 0; lane < STRATA_LANE_COUNT; lane++) {
        if (s->lanes[lane].count == 0 || s->in_flight[lane] >= lane_depth[lane])
            continue;
        struct entry entry = strata_heap_pop(&s->lanes[lane]);
        s->in_flight[lane]++;
        fill(s, &entry, (strata_lane)lane, out);
        return true;
    }
    return false;
}

uint64_t strata_schedule_normed(const struct schedule *s)
{
    return s->normed;
}

uint64_t strata_schedule_updated(const struct schedule *s)
{
    return s->updated;
}

uint32_t strata_schedule_gate_count(const struct offload_plan *plan)
{
    return plan->residency.count + plan->model.stash_event_count;
}

void strata_schedule_start(struct schedule *s)
{
    for (int kind = 0; kind < FRAME_KIND_COUNT; kind++)
        for (uint32_t i = 0; i < s->plan->frame_count[kind]; i++)
            s->free_frames[kind][s->free_count[kind]++] = i;
    open_placements(s);
    open_stashes(s);
}
