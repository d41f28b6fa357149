/*
 * State records on their way to a slot, and commits.
 *
 * A record is written to a slot that no commit needs, and for an update computed ahead not over
 * the record it was made from; if there is none, the write waits. A tile joins the commit in
 * preparation once its record is whole and final: the verdict on its step is in. Then its slot
 * is named; when all are, the commit is made.
 *
 * Thread: the pager.
 */

#include "base/error.h"
#include "offload/schedule/schedule_state.h"

bool strata_schedule_commit_due(const struct schedule *s, uint64_t step)
{
    return s->slots.desc.durable && s->commit_every > 0 &&
           (s->base_step + step + 1) % s->commit_every == 0;
}

/* Does the chain's record belong to a commit of its step? */
static bool is_of_commit(const struct schedule *s, const struct chain *chain)
{
    return chain->kind == CHAIN_SAVE || strata_schedule_commit_due(s, chain->step);
}

static bool on_nvme(const struct schedule *s, uint32_t tile)
{
    return home_tier(s, STRATA_STATE, tile) == STRATA_NVME;
}

static void queue_commit(struct schedule *s)
{
    strata_schedule_begin(s, s->commit_chain, CHAIN_COMMIT, s->slots.preparing.step, 0);
    strata_schedule_queue(s, s->commit_chain, OP_COMMIT, WHAT_NOTHING);
}

/* The tile's newest record joins the commit in preparation. The last one makes it complete. */
static void name_in_commit(struct schedule *s, uint32_t tile)
{
    strata_slots_name(&s->slots, tile, s->slots.current[tile]);
    if (strata_slots_ready(&s->slots))
        queue_commit(s);
}

void strata_schedule_state_final(struct schedule *s, uint32_t c)
{
    struct chain *chain = &s->chains[c];
    strata_slots_written(&s->slots, chain->tile, chain->slot);
    if (is_of_commit(s, chain))
        name_in_commit(s, chain->tile);
}

void strata_schedule_state_written(struct schedule *s, uint32_t c)
{
    s->chains[c].state_written = true;
    if (!s->chains[c].ahead)
        strata_schedule_state_final(s, c);
}

void strata_schedule_end_save(struct schedule *s, uint32_t c)
{
    uint64_t step = s->chains[c].step;
    strata_schedule_end(s, c);
    /* A commit between steps finds the step counted already. */
    if (strata_schedule_commit_due(s, step))
        strata_schedule_tile_updated(s, s->chains[c].tile, step);
}

void strata_schedule_write_state(struct schedule *s, uint32_t c)
{
    struct chain *chain = &s->chains[c];
    /* What is to be redone need not be written. */
    if (chain->ahead && strata_schedule_verdict_on(s, chain->step) > VERDICT_WITHIN)
        return;
    bool ready = !is_of_commit(s, chain) ||
                 strata_slots_prepare(&s->slots, s->base_step + chain->step + 1);
    if (ready && chain->kind == CHAIN_SAVE && on_nvme(s, chain->tile)) {
        name_in_commit(s, chain->tile);
        strata_schedule_end_save(s, c);
        return;
    }
    uint32_t slot =
        ready ? strata_slots_choose(&s->slots, chain->tile, chain->ahead) : STRATA_NO_SLOT;
    if (slot == STRATA_NO_SLOT) {
        chain->pending++;
        strata_heap_push(&s->slot_waits, (struct entry){.key = chain->key, .chain = c});
        return;
    }
    chain->slot = slot;
    strata_schedule_queue(s, c, OP_NVME_WRITE, WHAT_STATE);
}

void strata_schedule_start_save(struct schedule *s, uint32_t c)
{
    if (s->chains[c].started)
        return;
    s->chains[c].started = true;
    /* What rests in the device comes through the chain's frame. */
    if (strata_plan_state_in_device(s->plan, s->chains[c].tile))
        strata_schedule_queue(s, c, OP_D2H, WHAT_STATE);
    else
        strata_schedule_write_state(s, c);
}

void strata_schedule_save_done(struct schedule *s, uint32_t c, const struct op *op)
{
    if (op->kind == OP_D2H) {
        strata_schedule_write_state(s, c);
        return;
    }
    strata_schedule_state_written(s, c);
    strata_schedule_end_save(s, c);
}

void strata_schedule_commit_done(struct schedule *s)
{
    s->chains[s->commit_chain].busy = false;
    strata_slots_committed(&s->slots);
    /* Each may find a slot now; one that does not waits again. An update that need not write
     * any more has ended. */
    for (uint32_t left = s->slot_waits.count; left > 0; left--) {
        uint32_t c = strata_heap_pop(&s->slot_waits).chain;
        s->chains[c].pending--;
        strata_schedule_write_state(s, c);
        strata_schedule_ready(s, c);
    }
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
    STRATA_CHECK(s->slots.desc.durable && s->behind_count == 0 &&
                 strata_slots_prepare(&s->slots, step));
    for (uint32_t i = 0; i < s->plan->model.trained_tile_count; i++) {
        if (on_nvme(s, i)) {
            name_in_commit(s, i);
            continue;
        }
        strata_schedule_begin(s, s->first_update + i, CHAIN_SAVE, s->updated - 1, 0);
        strata_schedule_take_frame(s, s->first_update + i);
    }
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

uint32_t strata_schedule_rewrite(struct schedule *s, uint32_t tile)
{
    return strata_slots_rewrite(&s->slots, tile);
}

uint32_t strata_schedule_slot(const struct schedule *s, uint32_t tile)
{
    return s->slots.current[tile];
}
