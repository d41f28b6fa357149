/*
 * Activation blocks between forward and backward.
 *
 * Device blocks are assigned in the order of the use list, in turn. So no event waits for a
 * block that an event after it holds. A block that leaves for NVMe goes through a host frame;
 * the device block is free once the copy is in the frame. Where the lists change, between a
 * step and an evaluation, all blocks are free first.
 *
 * Thread: the pager.
 */

#include "base/error.h"
#include "offload/schedule/schedule_state.h"

static const struct use *stash_use(const struct schedule *s, uint32_t event)
{
    return &s->plan->model.uses[s->plan->model.stash_uses[event]];
}

/* The first op of a block's way out or in. */
void strata_schedule_start_stash(struct schedule *s, uint32_t c)
{
    bool out = stash_use(s, s->chains[c].owner)->kind == STRATA_USE_STASH;
    bool framed = s->chains[c].frame != STRATA_NONE;
    enum op_kind kind = out ? OP_D2H : framed ? OP_NVME_READ : OP_H2D;
    strata_schedule_queue(s, c, kind, WHAT_STASH);
}

static void open_stash(struct schedule *s, uint32_t event, uint64_t step)
{
    const struct use *use = stash_use(s, event);
    struct stash_state *state = &s->stashes[event];
    state->opened++;
    state->gate_value =
        strata_schedule_gate_value(s->plan, s->plan->model.stash_uses[event], step, s->holds);
    s->block_list = s->list;
    s->blocks_open++;
    if (use->kind != STRATA_USE_UNSTASH)
        return;
    strata_schedule_begin(s, state->chain, CHAIN_STASH, step,
                          strata_schedule_key(s, step, state->placement));
    uint32_t from = s->plan->model.uses[use->partner].stash_event;
    if (s->stashes[from].home > step)
        strata_schedule_take_frame(s, state->chain);
}

/* May the next event of the list have its device block? */
static bool may_open(const struct schedule *s, const struct list *list, uint32_t event,
                     uint64_t turn)
{
    if (s->stashes[event].closed < turn || s->chains[s->stashes[event].chain].busy)
        return false;
    if (list->next_stash >= s->plan->stash_frames) {
        uint64_t last = list->next_stash - s->plan->stash_frames;
        uint32_t holder = list->first_stash + (uint32_t)(last % list->stash_count);
        if (s->stashes[holder].closed <= last / list->stash_count)
            return false;
    }
    return !s->no_overlap ||
           strata_schedule_asked_past(s, turn, s->plan->model.stash_uses[event]);
}

void strata_schedule_open_stashes(struct schedule *s)
{
    bool held = s->taking_back || s->list == LIST_COUNT;
    if (s->plan->stash_frames == 0 || held || s->lists[s->list].stash_count == 0 ||
        (s->blocks_open > 0 && s->block_list != s->list))
        return;
    struct list *list = &s->lists[s->list];
    for (;;) {
        uint64_t turn = list->next_stash / list->stash_count;
        uint32_t event = list->first_stash + (uint32_t)(list->next_stash % list->stash_count);
        if ((s->list == LIST_EVAL && turn == s->evaluations) || !may_open(s, list, event, turn))
            return;
        list->next_stash++;
        open_stash(s, event, turn);
    }
}

void strata_schedule_take_back_stashes(struct schedule *s)
{
    struct list *list = &s->lists[LIST_STEP];
    for (uint32_t event = 0; event < list->stash_count; event++) {
        struct stash_state *state = &s->stashes[event];
        if (state->opened <= s->held_step)
            continue;
        state->opened--;
        s->blocks_open--;
        /* It waits for a block that the step has not stashed. */
        if (stash_use(s, event)->kind == STRATA_USE_UNSTASH)
            s->chains[state->chain].busy = false;
    }
    if (list->stash_count > 0 && s->plan->stash_frames > 0)
        list->next_stash = s->held_step * list->stash_count;
}

/* A block has come to rest. The event that takes it back may be waiting for that. */
static void rest_at_home(struct schedule *s, uint32_t event, uint64_t step)
{
    s->stashes[event].home++;
    uint32_t taker = s->plan->model.uses[stash_use(s, event)->partner].stash_event;
    if (s->stashes[taker].opened > step)
        strata_schedule_take_frame(s, s->stashes[taker].chain);
}

void strata_schedule_stash_done(struct schedule *s, uint32_t c, const struct op *op)
{
    uint32_t event = s->chains[c].owner;
    uint64_t step = s->chains[c].step;
    if (op->kind == OP_NVME_READ) {
        strata_schedule_queue(s, c, OP_H2D, WHAT_STASH);
        return;
    }
    if (op->kind == OP_H2D) {
        /* The chain goes on until the caller's copy out of the device block is over. */
        strata_schedule_gate(s, c);
        strata_schedule_free_frame(s, c);
        return;
    }
    STRATA_CHECK(op->kind == OP_D2H || op->kind == OP_NVME_WRITE);
    if (op->kind == OP_D2H) {
        s->stashes[event].closed++;
        s->blocks_open--;
    }
    if (op->kind == OP_D2H && s->chains[c].frame != STRATA_NONE) {
        strata_schedule_queue(s, c, OP_NVME_WRITE, WHAT_STASH);
    } else {
        strata_schedule_end(s, c);
        rest_at_home(s, event, step);
    }
    strata_schedule_look(s, LOOK_STASHES);
}

void strata_schedule_copied(struct schedule *s, uint64_t step, uint32_t event)
{
    struct stash_state *state = &s->stashes[event];
    if (stash_use(s, event)->kind == STRATA_USE_STASH) {
        strata_schedule_begin(s, state->chain, CHAIN_STASH, step,
                              strata_schedule_key(s, step, state->placement));
        strata_schedule_take_frame(s, state->chain);
        return;
    }
    s->chains[state->chain].busy = false;
    state->closed++;
    s->blocks_open--;
    strata_schedule_look(s, LOOK_STASHES);
}
