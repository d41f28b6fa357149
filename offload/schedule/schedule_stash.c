/*
 * Activation blocks between forward and backward.
 *
 * Device blocks are assigned in the order of the use list, in turn. So no event waits for a
 * block that an event after it holds. A block that leaves for NVMe goes through a host frame;
 * the device block is free once the copy is in the frame.
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
    if (use->kind != STRATA_USE_UNSTASH)
        return;
    strata_schedule_begin(s, state->chain, CHAIN_STASH, step,
                          strata_schedule_key(s, step, state->placement));
    uint32_t from = s->plan->model.uses[use->partner].stash_event;
    if (s->stashes[from].home > step)
        strata_schedule_take_frame(s, state->chain);
}

void strata_schedule_open_stashes(struct schedule *s)
{
    uint32_t events = s->plan->model.stash_event_count;
    if (s->plan->stash_frames == 0)
        return;
    for (;;) {
        uint64_t step = s->next_stash / events;
        uint32_t event = (uint32_t)(s->next_stash % events);
        if (s->stashes[event].closed < step || s->chains[s->stashes[event].chain].busy)
            return;
        if (s->next_stash >= s->plan->stash_frames) {
            uint64_t last = s->next_stash - s->plan->stash_frames;
            if (s->stashes[last % events].closed <= last / events)
                return;
        }
        if (s->no_overlap &&
            !strata_schedule_asked_past(s, step, s->plan->model.stash_uses[event]))
            return;
        s->next_stash++;
        open_stash(s, event, step);
    }
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
    s->stashes[event].closed += op->kind == OP_D2H;
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
    strata_schedule_look(s, LOOK_STASHES);
}
