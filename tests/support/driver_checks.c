/*
 * Whether an op may start: nothing else uses its frame, its bytes of the device or its place in
 * the store; what it reads is there; what durable commits name is spared.
 */

#include "tests/support/driver_internal.h"

/* Where in the store an op reads or writes; UINT64_MAX: it is no transfer. */
static uint64_t place_of(const struct driver *d, const struct op *op)
{
    if (op->kind != OP_NVME_READ && op->kind != OP_NVME_WRITE)
        return UINT64_MAX;
    if (op->what == WHAT_STATE)
        return strata_plan_record_place(&d->plan, op->tile, op->slot);
    if (op->what == WHAT_PARK)
        return d->plan.park.at[op->tile];
    if (op->what == WHAT_STASH)
        return d->plan.stash_at +
               d->plan.model.uses[d->plan.model.stash_uses[op->stash_event]].index;
    return d->plan.homes[op->what == WHAT_GRAD ? STRATA_GRAD : STRATA_PARAM].at[op->tile];
}

static void check_frame(struct driver *d, const struct op *op)
{
    if (op->frame == STRATA_NONE)
        return;
    HOLDS(op->frame < d->plan.frame_count[op->frame_kind]);
    for (uint32_t i = 0; i < d->running_count; i++) {
        const struct op *other = &d->running[i];
        if (other->frame == op->frame && other->chain != op->chain)
            HOLDS(other->frame_kind != op->frame_kind);
    }
}

static void check_placement(struct driver *d, const struct op *op)
{
    if (op->placement == STRATA_NONE)
        return;
    const struct placement *p = &d->plan.residency.placements[op->placement];
    for (uint32_t i = 0; i < d->running_count; i++) {
        const struct op *other = &d->running[i];
        if (other->placement == STRATA_NONE || other->placement == op->placement)
            continue;
        /* Only ops that touch the device's pool: norms and writes of a gradient that has left
         * do not. */
        bool touches = other->lane == STRATA_LANE_H2D ||
                       (other->lane == STRATA_LANE_D2H && other->kind != OP_NORM);
        const struct placement *q = &d->plan.residency.placements[other->placement];
        if (touches && (op->lane == STRATA_LANE_H2D || op->lane == STRATA_LANE_D2H) &&
            op->kind != OP_NORM)
            HOLDS(!(p->offset < q->offset + q->bytes && q->offset < p->offset + p->bytes));
    }
}

/* A write of a state record must spare what durable commits name. */
static void check_record(struct driver *d, const struct op *op)
{
    if (op->what != WHAT_STATE || (op->kind != OP_NVME_READ && op->kind != OP_NVME_WRITE))
        return;
    HOLDS(op->slot < strata_slots_per_tile(&d->schedule_desc.slots));
    if (op->kind == OP_NVME_READ)
        return;
    for (uint32_t i = 0; i < d->durable_count; i++)
        HOLDS(d->durable[i].slots[op->tile] != op->slot);
    struct commit_line lines[1 + STRATA_MAX_KEEP];
    for (uint32_t i = 0; i < d->running_count; i++) {
        if (d->running[i].kind != OP_COMMIT)
            continue;
        uint32_t count = strata_schedule_commit_lines(d->schedule, lines);
        HOLDS(count > 0 && lines[0].slots[op->tile] != op->slot);
    }
    *strata_driver_content(d, op->tile, op->slot) = TORN;
}

/* A commit must name whole records of its own step. */
static void check_commit(struct driver *d, const struct op *op)
{
    if (op->kind != OP_COMMIT)
        return;
    struct commit_line lines[1 + STRATA_MAX_KEEP];
    uint32_t count = strata_schedule_commit_lines(d->schedule, lines);
    HOLDS(count >= 1 && count <= 1 + d->schedule_desc.slots.keep);
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t tile = 0; tile < d->plan.model.tile_count; tile++)
            HOLDS(*strata_driver_content(d, tile, lines[i].slots[tile]) ==
                  strata_driver_truth(d, tile, lines[i].step));
}

/* All ranks begin the same collectives in the same order. */
static void check_comm(struct driver *d, const struct op *op)
{
    if (op->lane != STRATA_LANE_COMM)
        return;
    uint32_t at = d->comm_count++;
    d->comm[at] = (uint32_t)op->kind << 24 | (op->placement & 0xffffff);
    for (uint32_t i = 0; i < d->ranks; i++)
        HOLDS(d->peers[i].comm_count <= at || d->peers[i].comm[at] == d->comm[at]);
}

static void check_start(struct driver *d, const struct op *op)
{
    check_frame(d, op);
    check_placement(d, op);
    for (uint32_t i = 0; i < d->running_count && place_of(d, op) != UINT64_MAX; i++)
        HOLDS(place_of(d, op) != place_of(d, &d->running[i]));
    bool fetch = op->what == WHAT_PARAM && op->placement != STRATA_NONE;
    if (fetch && op->tile != STRATA_NONE)
        HOLDS(d->params[op->tile] ==
              strata_driver_truth(d, op->tile, d->base + strata_driver_steps_seen(d, op)));
    if (op->tile != STRATA_NONE && strata_plan_is_frozen(&d->plan, op->tile))
        HOLDS(fetch && (op->kind == OP_NVME_READ || op->kind == OP_H2D));
    if (op->kind == OP_UPDATE) {
        HOLDS(op->work != 0);
        HOLDS(d->mode != UPDATES_DEFERRED || strata_schedule_normed(d->schedule) > op->step);
    }
    if (op->kind == OP_NORM)
        HOLDS(d->norms[op->tile] == d->base + op->step);
    if (op->kind == OP_TOTAL || op->kind == OP_SHARE)
        for (uint32_t i = 0; i < d->plan.model.trained_tile_count; i++)
            HOLDS(d->norms[i] == d->base + op->step + 1);
}

static void check_stash(struct driver *d, const struct op *op)
{
    if (op->stash_event == STRATA_NONE || (op->kind != OP_D2H && op->kind != OP_H2D))
        return;
    uint32_t block = strata_driver_block(d, op->step, op->stash_event);
    const struct use *u = &d->plan.model.uses[d->plan.model.stash_uses[op->stash_event]];
    if (op->kind == OP_D2H) {
        HOLDS(d->block_busy[block]);
        return;
    }
    HOLDS(!d->block_busy[block]);
    HOLDS(d->stashed[d->plan.model.uses[u->partner].stash_event] == op->step + 1);
    d->block_busy[block] = true;
}

void strata_driver_check(struct driver *d, const struct op *op)
{
    check_start(d, op);
    check_stash(d, op);
    check_comm(d, op);
    check_record(d, op);
    check_commit(d, op);
}
