/*
 * The schedule's core: lanes, frames, and the events from outside.
 *
 * Each lane and each kind of frame has a heap of chains that wait for it, keyed by deadline. So
 * an event costs a few heap operations, whatever the size of the model.
 *
 * A deadline is a placement's number, counted through all steps: what an earlier placement
 * waits for goes first. The first placement of its group in the next step waits for an update.
 *
 * Thread: the pager.
 */

#include "offload/schedule/schedule.h"

#include "base/error.h"
#include "offload/schedule/schedule_state.h"

/* Ops of one lane that are under way at once. Copies run in order on one stream, two keep it
 * fed; a drive wants a queue; the cpu lane computes one job at a time and has the next at hand.
 */
const uint32_t strata_lane_depth[STRATA_LANE_COUNT] = {
    [STRATA_LANE_NVME_READ] = 8, [STRATA_LANE_NVME_WRITE] = 8, [STRATA_LANE_H2D] = 4,
    [STRATA_LANE_D2H] = 4,       [STRATA_LANE_COMM] = 1,       [STRATA_LANE_CPU] = 2,
};

/* A drive works through its requests in an order of its own. So it gets few at once of those
 * that nothing waits for: states that are read ahead, and states on their way home, which only
 * hold a frame. Otherwise the weights of group 0, with which the next step begins, wait behind
 * megabytes that could have waited for them; measured: 8 ms a step. */
#define AHEAD_DEPTH       2u
#define STATE_WRITE_DEPTH 4u

/* May the soonest op of a lane start beside those that are under way? */
static bool may_start(const struct schedule *s, strata_lane lane)
{
    const struct entry *entry = &s->lanes[lane].entries[0];
    bool state = entry->what == WHAT_STATE;
    uint32_t depth = strata_lane_depth[lane];
    if (lane == STRATA_LANE_NVME_READ && state && s->chains[entry->chain].reads_ahead)
        depth = AHEAD_DEPTH;
    if (lane == STRATA_LANE_NVME_WRITE && state)
        depth = STATE_WRITE_DEPTH;
    return s->in_flight[lane] < depth;
}

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
        [OP_GATHER] = STRATA_LANE_COMM,
        [OP_REDUCE] = STRATA_LANE_COMM,
        [OP_SHARE] = STRATA_LANE_COMM,
        [OP_TOTAL] = STRATA_LANE_CPU,
        [OP_COMMIT] = STRATA_LANE_NVME_WRITE,
    };
    return lanes[kind];
}

static bool on_device(const struct schedule *s, enum op_kind kind, uint32_t tile)
{
    return (kind == OP_NORM && home_tier(s, STRATA_GRAD, tile) == STRATA_DEVICE) ||
           (kind == OP_UPDATE && strata_plan_state_in_device(s->plan, tile));
}

uint64_t strata_schedule_key(const struct schedule *s, uint64_t turn, uint32_t placement)
{
    return turn * s->plan->residency.count + placement;
}

void strata_schedule_ready(struct schedule *s, uint32_t c)
{
    if (s->chains[c].ready)
        return;
    s->chains[c].ready = true;
    s->chains[c].next = STRATA_NONE;
    if (s->ready_first == STRATA_NONE)
        s->ready_first = c;
    else
        s->chains[s->ready_last].next = c;
    s->ready_last = c;
}

void strata_schedule_ready_tile(struct schedule *s, uint32_t tile)
{
    strata_schedule_ready(s, s->first_update + tile);
}

void strata_schedule_ready_tiles(struct schedule *s)
{
    for (uint32_t i = 0; i < s->plan->model.trained_tile_count; i++)
        strata_schedule_ready_tile(s, i);
}

/* A position among all turns' uses of a list; where the caller stands is one. */
bool strata_schedule_asked_past(const struct schedule *s, uint64_t turn, uint32_t use)
{
    const struct list *list = &s->lists[list_of_use(s, use)];
    return list->asked_any &&
           (list->asked_turn > turn || (list->asked_turn == turn && list->asked_use >= use));
}

void strata_schedule_queue(struct schedule *s, uint32_t c, enum op_kind kind, enum op_what what)
{
    struct chain *chain = &s->chains[c];
    bool device = chain->tile != STRATA_NONE && on_device(s, kind, chain->tile);
    strata_lane lane = device ? STRATA_LANE_D2H : lane_of(kind);
    uint64_t key = chain->key;
    /* On the cpu lane a chain that holds a frame goes first: others may wait for that frame.
     * Among writes the states go last: the device waits for weights. */
    bool others_first =
        (lane == STRATA_LANE_CPU && chain->frame == STRATA_NONE && kind != OP_TOTAL) ||
        (kind == OP_NVME_WRITE && what == WHAT_STATE);
    if (others_first)
        key |= (uint64_t)1 << 63;
    chain->pending++;
    s->queued_lanes |= 1u << lane;
    strata_heap_push(
        &s->lanes[lane],
        (struct entry){.key = key, .chain = c, .kind = (uint8_t)kind, .what = (uint8_t)what});
}

void strata_schedule_gate(struct schedule *s, uint32_t c)
{
    strata_heap_push(&s->opens, (struct entry){.key = s->chains[c].key,
                                               .chain = c,
                                               .kind = OP_OPEN,
                                               .what = WHAT_NOTHING});
}

/* Frames. A chain that needs none starts at once. */

static bool needs_frame(const struct schedule *s, const struct chain *chain,
                        enum frame_kind *out_kind)
{
    switch ((enum chain_kind)chain->kind) {
    case CHAIN_FETCH:
        *out_kind = FRAME_FETCH;
        return home_tier(s, STRATA_PARAM, chain->tile) == STRATA_NVME;
    case CHAIN_GRAD:
        if (strata_schedule_folds(s, chain->tile)) {
            bool in_place = home_tier(s, STRATA_PARAM, chain->tile) == STRATA_HOST;
            *out_kind = in_place ? FRAME_GRAD : FRAME_UPDATE;
            return true;
        }
        *out_kind = FRAME_GRAD;
        return home_tier(s, STRATA_GRAD, chain->tile) == STRATA_NVME;
    case CHAIN_UPDATE:
        *out_kind = FRAME_UPDATE;
        return strata_plan_update_needs_frame(s->plan, chain->tile) ||
               (strata_plan_state_in_device(s->plan, chain->tile) &&
                strata_schedule_commit_due(s, chain->step));
    case CHAIN_SAVE:
        *out_kind = FRAME_UPDATE;
        return strata_plan_state_in_device(s->plan, chain->tile);
    case CHAIN_PARK_IN:
    case CHAIN_PARK_OUT:
        *out_kind = FRAME_PARK;
        return s->plan->park.tier[chain->tile] == STRATA_NVME;
    case CHAIN_STASH:
        *out_kind = FRAME_STASH;
        return s->plan->stash == STRATA_NVME;
    case CHAIN_SETTLE:
    case CHAIN_COMMIT:
    case CHAIN_GROUP:
    case CHAIN_TOTAL:
        break;
    }
    return false;
}

void strata_schedule_take_frame(struct schedule *s, uint32_t c)
{
    struct chain *chain = &s->chains[c];
    enum frame_kind kind;
    if (chain->frame != STRATA_NONE || !needs_frame(s, chain, &kind)) {
        strata_schedule_ready(s, c);
        return;
    }
    chain->for_frame = true;
    strata_heap_push(&s->waits[kind], (struct entry){.key = chain->key, .chain = c});
    strata_schedule_look(s, LOOK_FRAMES);
}

void strata_schedule_free_frame(struct schedule *s, uint32_t c)
{
    struct chain *chain = &s->chains[c];
    enum frame_kind kind = (enum frame_kind)chain->frame_kind;
    if (chain->frame == STRATA_NONE)
        return;
    s->free_frames[kind][s->free_count[kind]++] = chain->frame;
    chain->frame = STRATA_NONE;
    strata_schedule_look(s, LOOK_FRAMES);
}

/* Once all that asks for frames by now has asked: the soonest gets the first. */
static void hand_out_frames(struct schedule *s)
{
    for (int kind = 0; kind < FRAME_KIND_COUNT; kind++)
        while (s->waits[kind].count > 0 && s->free_count[kind] > 0) {
            uint32_t c = strata_heap_pop(&s->waits[kind]).chain;
            struct chain *chain = &s->chains[c];
            chain->frame = s->free_frames[kind][--s->free_count[kind]];
            chain->frame_kind = (uint8_t)kind;
            chain->for_frame = false;
            strata_schedule_ready(s, c);
        }
}

void strata_schedule_begin(struct schedule *s, uint32_t c, enum chain_kind kind, uint64_t step,
                           uint64_t key)
{
    struct chain *chain = &s->chains[c];
    STRATA_CHECK(!chain->busy && chain->frame == STRATA_NONE);
    *chain = (struct chain){
        .key = key,
        .step = step,
        .tile = chain->tile,
        .owner = chain->owner,
        .frame = STRATA_NONE,
        .slot = STRATA_NONE,
        .next = chain->next,
        .kind = (uint8_t)kind,
        .busy = true,
        .ready = chain->ready,
    };
}

void strata_schedule_end(struct schedule *s, uint32_t c)
{
    strata_schedule_free_frame(s, c);
    s->chains[c].busy = false;
}

void strata_schedule_hand_over(struct schedule *s, uint32_t from, uint32_t to)
{
    STRATA_CHECK(s->chains[to].frame == STRATA_NONE);
    s->chains[to].frame = s->chains[from].frame;
    s->chains[to].frame_kind = s->chains[from].frame_kind;
    s->chains[from].frame = STRATA_NONE;
    s->chains[from].busy = false;
}

/* What became ready. */

/* Only chains of updates are listed while they wait for a frame, or are idle. */
static void run_ready(struct schedule *s, uint32_t c)
{
    struct chain *chain = &s->chains[c];
    if (chain->for_frame)
        return;
    if (!chain->busy) {
        strata_schedule_next_update(s, chain->tile);
        return;
    }
    switch ((enum chain_kind)chain->kind) {
    case CHAIN_FETCH:
    case CHAIN_PARK_IN:
    case CHAIN_PARK_OUT:
    case CHAIN_GRAD:
        strata_schedule_start_move(s, c);
        break;
    case CHAIN_UPDATE:
        strata_schedule_go_on_update(s, c);
        break;
    case CHAIN_SAVE:
        strata_schedule_start_save(s, c);
        break;
    case CHAIN_STASH:
        strata_schedule_start_stash(s, c);
        break;
    case CHAIN_SETTLE: /* they wait for nothing but the ends of their ops */
    case CHAIN_COMMIT:
    case CHAIN_GROUP:
    case CHAIN_TOTAL:
        break;
    }
}

static void take_look(struct schedule *s)
{
    uint32_t look = s->looks & -s->looks;
    s->looks &= ~look;
    switch ((enum look)look) {
    case LOOK_FRAMES:
        hand_out_frames(s);
        break;
    case LOOK_COMM:
        strata_schedule_next_comm(s);
        break;
    case LOOK_PLACEMENTS:
        strata_schedule_open_placements(s);
        break;
    case LOOK_STASHES:
        strata_schedule_open_stashes(s);
        break;
    case LOOK_AHEAD:
        strata_schedule_read_ahead(s);
        break;
    }
}

static void drain_ready(struct schedule *s)
{
    while (s->ready_first != STRATA_NONE || s->looks != 0) {
        uint32_t c = s->ready_first;
        if (c == STRATA_NONE) {
            take_look(s);
            continue;
        }
        s->ready_first = s->chains[c].next;
        s->chains[c].ready = false;
        run_ready(s, c);
    }
}

/* Events from outside. */

void strata_schedule_ask(struct schedule *s, uint64_t turn, uint32_t use)
{
    struct list *list = &s->lists[list_of_use(s, use)];
    list->asked_any = true;
    list->asked_turn = turn;
    list->asked_use = use;
    if (s->no_overlap)
        strata_schedule_look(s, LOOK_PLACEMENTS | LOOK_STASHES);
}

bool strata_schedule_granted(const struct schedule *s, uint64_t turn, uint32_t use)
{
    const struct use *u = &s->plan->model.uses[use];
    if (u->kind == STRATA_USE_STASH || u->kind == STRATA_USE_UNSTASH)
        return s->plan->stash == STRATA_DEVICE || s->stashes[u->stash_event].opened > turn;
    const struct residency *residency = &s->plan->residency;
    uint32_t grad = residency->use_grad[use];
    return s->placements[residency->use_param[use]].opened > turn &&
           (grad == STRATA_NONE || s->placements[grad].opened > turn);
}

/* Between steps. */

void strata_schedule_hold(struct schedule *s, uint64_t steps)
{
    STRATA_CHECK(s->list == LIST_STEP && s->plan->model.ranks == 1);
    s->list = LIST_COUNT;
    s->held_step = steps;
    s->holds++;
    s->taking_back = true;
    strata_schedule_look(s, LOOK_PLACEMENTS);
}

bool strata_schedule_resting(const struct schedule *s)
{
    uint32_t ops = s->opens.count;
    for (int lane = 0; lane < STRATA_LANE_COMPUTE; lane++)
        ops += s->in_flight[lane] + s->lanes[lane].count;
    return s->list == LIST_COUNT && !s->taking_back && ops == 0;
}

void strata_schedule_evaluate(struct schedule *s)
{
    STRATA_CHECK(s->list == LIST_COUNT && s->lists[LIST_EVAL].placement_count > 0);
    s->list = LIST_EVAL;
    s->evaluations++;
    strata_schedule_look(s, LOOK_PLACEMENTS | LOOK_STASHES);
}

void strata_schedule_go_on(struct schedule *s)
{
    s->list = LIST_STEP;
    strata_schedule_look(s, LOOK_PLACEMENTS | LOOK_STASHES);
}

static void total_done(struct schedule *s, const struct op *op)
{
    if (op->kind == OP_SHARE) {
        strata_schedule_look(s, LOOK_COMM);
        strata_schedule_queue(s, s->total_chain, OP_TOTAL, WHAT_NOTHING);
        return;
    }
    s->chains[s->total_chain].busy = false;
    strata_schedule_verdict(s, op->verdict);
}

void strata_schedule_done(struct schedule *s, const struct op *op)
{
    struct chain *chain = &s->chains[op->chain];
    STRATA_CHECK(s->in_flight[op->lane] > 0 && chain->pending > 0);
    s->in_flight[op->lane]--;
    chain->pending--;
    switch ((enum chain_kind)chain->kind) {
    case CHAIN_FETCH:
        strata_schedule_fetch_done(s, op->chain, op);
        break;
    case CHAIN_PARK_IN:
    case CHAIN_PARK_OUT:
        strata_schedule_park_done(s, op->chain, op);
        break;
    case CHAIN_GRAD:
        strata_schedule_grad_done(s, op->chain, op);
        break;
    case CHAIN_UPDATE:
        strata_schedule_update_done(s, op->chain, op);
        break;
    case CHAIN_SETTLE:
        strata_schedule_settle_done(s, op->chain, op);
        break;
    case CHAIN_STASH:
        strata_schedule_stash_done(s, op->chain, op);
        break;
    case CHAIN_SAVE:
        strata_schedule_save_done(s, op->chain, op);
        break;
    case CHAIN_COMMIT:
        strata_schedule_commit_done(s);
        break;
    case CHAIN_GROUP:
        strata_schedule_group_done(s, op->chain, op);
        break;
    case CHAIN_TOTAL:
        total_done(s, op);
        break;
    }
    strata_schedule_look(s, LOOK_AHEAD);
}

static void fill_op(const struct schedule *s, const struct entry *entry, strata_lane lane,
                    struct op *out)
{
    const struct chain *chain = &s->chains[entry->chain];
    bool stash = chain->kind == CHAIN_STASH;
    bool tiled = chain->tile != STRATA_NONE;
    bool placed = chain->owner != STRATA_NONE && !stash;
    bool state = entry->what == WHAT_STATE && tiled;
    uint64_t opens = entry->kind != OP_OPEN ? 0
                     : stash                ? s->stashes[chain->owner].gate_value
                                            : s->placements[chain->owner].gate_value;
    *out = (struct op){
        .kind = (enum op_kind)entry->kind,
        .what = (enum op_what)entry->what,
        .lane = lane,
        .on_device = tiled && on_device(s, (enum op_kind)entry->kind, chain->tile),
        .chain = entry->chain,
        .tile = chain->tile,
        .placement = placed ? chain->owner : STRATA_NONE,
        .stash_event = stash ? chain->owner : STRATA_NONE,
        .slot = !state                         ? STRATA_NONE
                : entry->kind == OP_NVME_WRITE ? chain->slot
                                               : s->slots.current[chain->tile],
        .frame = chain->frame,
        .frame_kind = (enum frame_kind)chain->frame_kind,
        .work = chain->work,
        .gate_value = opens,
        .step = chain->step,
        .fold_step = tiled ? s->tiles[chain->tile].behind_step : 0,
    };
}

/* The soonest op of a lane that has room for it. */
static bool pop_op(struct schedule *s, struct entry *out, strata_lane *out_lane)
{
    for (uint32_t left = s->queued_lanes; left != 0; left &= left - 1) {
        strata_lane lane = (strata_lane)__builtin_ctz(left);
        if (!may_start(s, lane))
            continue;
        *out = strata_heap_pop(&s->lanes[lane]);
        *out_lane = lane;
        if (s->lanes[lane].count == 0)
            s->queued_lanes &= ~(1u << lane);
        return true;
    }
    return false;
}

bool strata_schedule_next(struct schedule *s, struct op *out)
{
    for (;;) {
        struct entry entry;
        strata_lane lane;
        drain_ready(s);
        if (s->opens.count > 0) {
            entry = strata_heap_pop(&s->opens);
            fill_op(s, &entry, STRATA_LANE_COUNT, out);
            return true;
        }
        if (!pop_op(s, &entry, &lane))
            return false;
        if (entry.kind == OP_UPDATE && !strata_schedule_choose_work(s, entry.chain))
            continue;
        s->in_flight[lane]++;
        fill_op(s, &entry, lane, out);
        return true;
    }
}

struct step_facts *strata_schedule_facts(struct schedule *s, uint64_t step)
{
    return &s->steps[step % STRATA_STEPS_KEPT].facts;
}

uint64_t strata_schedule_normed(const struct schedule *s)
{
    return s->normed;
}

uint64_t strata_schedule_updated(const struct schedule *s)
{
    return s->updated;
}

struct schedule_counts strata_schedule_counts(const struct schedule *s)
{
    return s->counts;
}

uint32_t strata_schedule_stash_gate(const struct offload_plan *plan, uint32_t stash_event)
{
    return plan->residency.count + plan->residency.eval_count + stash_event;
}

uint32_t strata_schedule_gate_count(const struct offload_plan *plan)
{
    return strata_schedule_stash_gate(plan, plan->model.stash_event_count +
                                                plan->model.eval_stash_event_count);
}

uint64_t strata_schedule_gate_value(const struct offload_plan *plan, uint32_t use,
                                    uint64_t turn, uint64_t holds)
{
    return turn + 1 + (strata_model_is_eval(&plan->model, use) ? 0 : holds);
}

uint32_t strata_schedule_gate_of(const struct offload_plan *plan, const struct op *op)
{
    return op->placement != STRATA_NONE ? op->placement
                                        : strata_schedule_stash_gate(plan, op->stash_event);
}

void strata_schedule_start(struct schedule *s)
{
    for (int kind = 0; kind < FRAME_KIND_COUNT; kind++)
        for (uint32_t i = 0; i < s->plan->frame_count[kind]; i++)
            s->free_frames[kind][s->free_count[kind]++] = i;
    strata_schedule_look(s, LOOK_PLACEMENTS | LOOK_STASHES | LOOK_AHEAD);
}
