/*
 * What an op leaves behind. In place of bytes, every home, slot and frame holds a token that
 * says what went into it.
 */

#include "tests/support/driver_internal.h"

#include <string.h>

static struct frame_tokens *frame_of(struct driver *d, const struct op *op)
{
    static _Thread_local struct frame_tokens none;
    if (op->frame == STRATA_NONE) {
        none = (struct frame_tokens){TORN, TORN, TORN};
        return &none;
    }
    return &d->frames[op->frame_kind * STRATA_MAX_FRAMES + op->frame];
}

uint64_t *strata_driver_content(struct driver *d, uint32_t tile, uint32_t slot)
{
    return &d->content[tile * strata_slots_per_tile(&d->schedule_desc.slots) + slot];
}

uint64_t strata_driver_truth(const struct driver *d, uint32_t tile, uint64_t step)
{
    return strata_plan_is_frozen(&d->plan, tile) ? FROZEN : d->truth[step];
}

uint64_t strata_driver_steps_seen(const struct driver *d, const struct op *op)
{
    bool eval = op->placement != STRATA_NONE && op->placement >= d->plan.residency.count;
    return eval ? d->eval_steps[op->step] : op->step;
}

uint32_t strata_driver_block(const struct driver *d, uint64_t turn, uint32_t event)
{
    const struct model *model = &d->plan.model;
    bool eval = event >= model->stash_event_count;
    uint64_t events = eval ? model->eval_stash_event_count : model->stash_event_count;
    uint64_t first = eval ? model->stash_event_count : 0;
    return (uint32_t)((turn * events + event - first) % d->plan.stash_frames);
}

uint64_t strata_driver_mix(uint64_t state, uint64_t step, enum verdict verdict)
{
    uint64_t token = (state ^ (step * 4 + verdict + 1)) * 0x9e3779b97f4a7c15u;
    return token ^ token >> 29;
}

/* The state after this step's gradient with the scale that is known, or guessed, by now. */
static uint64_t updated(const struct driver *d, uint64_t state, uint64_t step)
{
    bool known =
        d->mode == UPDATES_AT_ONCE || d->base + strata_schedule_normed(d->schedule) > step;
    enum verdict verdict = known ? d->verdicts[step] : VERDICT_WITHIN;
    return verdict == VERDICT_SKIP ? TORN : strata_driver_mix(state, step, verdict);
}

static void note_commit(struct driver *d)
{
    struct commit_line lines[1 + STRATA_MAX_KEEP];
    d->durable_count = strata_schedule_commit_lines(d->schedule, lines);
    for (uint32_t i = 0; i < d->durable_count; i++) {
        d->durable[i].step = lines[i].step;
        memcpy(d->durable[i].slots, lines[i].slots, d->plan.model.tile_count);
    }
}

static void note_update(struct driver *d, const struct op *op)
{
    struct frame_tokens *frame = frame_of(d, op);
    bool device = strata_plan_state_in_device(&d->plan, op->tile);
    bool nvme = !device && d->plan.homes[STRATA_STATE].tier[op->tile] == STRATA_NVME;
    bool in_place = device || d->plan.homes[STRATA_PARAM].tier[op->tile] == STRATA_HOST;
    bool grad_there = device || d->plan.homes[STRATA_GRAD].tier[op->tile] == STRATA_HOST;
    uint64_t *state = nvme ? &frame->state : &d->states[op->tile];
    uint64_t *param = in_place ? &d->params[op->tile] : &frame->param;
    uint64_t *grad =
        grad_there && !(op->work & UPDATE_TAKE) ? &d->grads[op->tile] : &frame->grad;
    uint64_t step = d->base + op->step;
    uint64_t fold_step = d->base + op->fold_step;
    HOLDS(*state != TORN);
    if (op->work & UPDATE_FOLD) {
        HOLDS(d->grads[op->tile] == fold_step + 1);
        *state = updated(d, *state, fold_step);
    }
    if (op->work & (UPDATE_APPLY | UPDATE_WEIGHTS)) {
        HOLDS(*grad == step + 1);
        HOLDS(*state == d->truth[step]);
        *param = updated(d, *state, step);
    }
    if (op->work & UPDATE_APPLY)
        *state = updated(d, *state, step);
    if (op->work & UPDATE_REBUILD)
        *param = *state;
    if (op->work & UPDATE_TAKE) {
        HOLDS(frame->grad == step + 1);
        d->grads[op->tile] = frame->grad;
    }
}

static void note_read(struct driver *d, const struct op *op)
{
    struct frame_tokens *frame = frame_of(d, op);
    if (op->what == WHAT_STATE)
        frame->state = *strata_driver_content(d, op->tile, op->slot);
    else if (op->what == WHAT_GRAD)
        frame->grad = d->grads[op->tile];
}

static void note_copy_out(struct driver *d, const struct op *op)
{
    struct frame_tokens *frame = frame_of(d, op);
    if (op->what == WHAT_GRAD && op->placement == STRATA_NONE)
        frame->grad = d->grads[op->tile];
    else if (op->what == WHAT_GRAD && op->frame != STRATA_NONE)
        frame->grad = d->base + op->step + 1;
    else if (op->what == WHAT_GRAD)
        d->grads[op->tile] = d->base + op->step + 1;
    else if (op->what == WHAT_STATE)
        frame->state = d->states[op->tile];
    if (op->what != WHAT_STASH)
        return;
    d->block_busy[strata_driver_block(d, op->step, op->stash_event)] = false;
    if (d->plan.stash == STRATA_HOST)
        d->stashed[op->stash_event]++;
}

static void note_written(struct driver *d, const struct op *op)
{
    const struct frame_tokens *frame = frame_of(d, op);
    bool framed =
        op->what == WHAT_STATE && d->plan.homes[STRATA_STATE].tier[op->tile] != STRATA_HOST;
    if (op->what == WHAT_STATE)
        *strata_driver_content(d, op->tile, op->slot) =
            framed ? frame->state : d->states[op->tile];
    else if (op->what == WHAT_PARAM)
        d->params[op->tile] = frame->param;
    else if (op->what == WHAT_GRAD)
        d->grads[op->tile] = frame->grad;
    else if (op->what == WHAT_STASH)
        d->stashed[op->stash_event]++;
}

void strata_driver_note_done(struct driver *d, struct op *op)
{
    switch (op->kind) {
    case OP_UPDATE:
        note_update(d, op);
        break;
    case OP_NVME_READ:
        note_read(d, op);
        break;
    case OP_NVME_WRITE:
        note_written(d, op);
        break;
    case OP_D2H:
        note_copy_out(d, op);
        break;
    case OP_H2D:
        if (op->what == WHAT_PARAM && op->placement == STRATA_NONE)
            d->params[op->tile] = frame_of(d, op)->param;
        break;
    case OP_NORM:
        if (d->plan.homes[STRATA_GRAD].tier[op->tile] == STRATA_DEVICE)
            d->grads[op->tile] = d->base + op->step + 1;
        d->norms[op->tile]++;
        if (strata_driver_roll(d, 4) == 0 && d->verdicts[d->base + op->step] != VERDICT_WITHIN)
            op->verdict = d->verdicts[d->base + op->step];
        break;
    case OP_TOTAL:
        op->verdict = d->verdicts[d->base + op->step];
        break;
    case OP_COMMIT:
        note_commit(d);
        break;
    default:
        break;
    }
}
