/*
 * The slot rule; see slots.h. No array of slots is ever copied or freed: when a commit becomes
 * durable its array becomes a line's, and the array of the line that is dropped serves the next
 * preparation.
 *
 * Thread: the schedule's.
 */

#include "offload/plan/slots.h"

#include "base/error.h"

#include <string.h>

uint32_t strata_slots_per_tile(const struct slots_desc *desc)
{
    return desc->durable ? 2 + desc->keep + desc->ahead : 1;
}

strata_status strata_slots_create(struct slots *out, struct tables *tables,
                                  const struct slots_desc *desc, strata_error *error)
{
    STRATA_CHECK(desc->keep <= STRATA_MAX_KEEP);
    *out = (struct slots){.desc = *desc};
    out->current = strata_tables_take(tables, desc->tile_count, 1);
    out->named = strata_tables_take(tables, desc->tile_count, sizeof *out->named);
    out->preparing.slots = strata_tables_take(tables, desc->tile_count, 1);
    for (uint32_t i = 0; i <= desc->keep; i++)
        out->lines[i].slots = strata_tables_take(tables, desc->tile_count, 1);
    return strata_tables_check(tables, error);
}

void strata_slots_recover(struct slots *slots, const struct commit_line *lines, uint32_t count)
{
    STRATA_CHECK(count <= 1 + slots->desc.keep && slots->line_count == 0 && !slots->active);
    for (uint32_t i = 0; i < count; i++) {
        slots->lines[i].step = lines[i].step;
        memcpy(slots->lines[i].slots, lines[i].slots, slots->desc.tile_count);
    }
    slots->line_count = count;
    if (count > 0)
        memcpy(slots->current, lines[0].slots, slots->desc.tile_count);
}

static bool slot_is_needed(const struct slots *slots, uint32_t tile, uint32_t slot)
{
    if (slots->active && slots->named[tile] && slots->preparing.slots[tile] == slot)
        return true;
    for (uint32_t i = 0; i < slots->line_count; i++)
        if (slots->lines[i].slots[tile] == slot)
            return true;
    return false;
}

bool strata_slots_spare(const struct slots *slots, uint32_t commit_every)
{
    bool of_last = commit_every == 1 && !slots->rewritten;
    return slots->desc.durable && (slots->desc.ahead || of_last);
}

uint32_t strata_slots_choose(const struct slots *slots, uint32_t tile, bool ahead)
{
    uint32_t count = strata_slots_per_tile(&slots->desc);
    for (uint32_t slot = 0; slot < count; slot++)
        if (!slot_is_needed(slots, tile, slot) && !(ahead && slots->current[tile] == slot))
            return slot;
    return STRATA_NO_SLOT;
}

void strata_slots_written(struct slots *slots, uint32_t tile, uint32_t slot)
{
    slots->current[tile] = (uint8_t)slot;
}

uint32_t strata_slots_rewrite(struct slots *slots, uint32_t tile)
{
    uint32_t slot = strata_slots_choose(slots, tile, false);
    STRATA_CHECK(!slots->active && slot != STRATA_NO_SLOT);
    slots->current[tile] = (uint8_t)slot;
    slots->rewritten = true;
    return slot;
}

bool strata_slots_prepare(struct slots *slots, uint64_t step)
{
    if (slots->active)
        return slots->preparing.step == step;
    slots->active = true;
    slots->preparing.step = step;
    slots->left = slots->desc.tile_count - slots->desc.fixed_count;
    memset(slots->named, 0, slots->desc.tile_count * sizeof *slots->named);
    return true;
}

void strata_slots_name(struct slots *slots, uint32_t tile, uint32_t slot)
{
    STRATA_CHECK(slots->active && !slots->named[tile]);
    slots->named[tile] = true;
    slots->preparing.slots[tile] = (uint8_t)slot;
}

bool strata_slots_ready(struct slots *slots)
{
    STRATA_CHECK(slots->active && slots->left > 0);
    return --slots->left == 0;
}

static bool line_is_retained(const struct slots *slots, const struct commit_line *line)
{
    return slots->desc.keep > 0 && slots->desc.keep_every > 0 &&
           line->step % slots->desc.keep_every == 0;
}

uint32_t strata_slots_next_lines(const struct slots *slots,
                                 struct commit_line out[1 + STRATA_MAX_KEEP])
{
    uint32_t count = 0;
    out[count++] = slots->preparing;
    for (uint32_t i = 0; i < slots->line_count && count <= slots->desc.keep; i++)
        if (i > 0 || line_is_retained(slots, &slots->lines[i]))
            out[count++] = slots->lines[i];
    return count;
}

/* The arrays of lines that no next line has. One of the next lines has the array of the commit
 * in preparation, so there is at least one. */
static uint32_t unused_arrays(const struct slots *slots, const struct commit_line *next,
                              uint32_t count, uint8_t *out[1 + STRATA_MAX_KEEP])
{
    uint32_t unused = 0;
    for (uint32_t i = 0; i <= slots->desc.keep; i++) {
        bool kept = false;
        for (uint32_t j = 0; j < count; j++)
            kept = kept || next[j].slots == slots->lines[i].slots;
        if (!kept)
            out[unused++] = slots->lines[i].slots;
    }
    return unused;
}

void strata_slots_committed(struct slots *slots)
{
    struct commit_line next[1 + STRATA_MAX_KEEP];
    STRATA_CHECK(slots->active && slots->left == 0);
    uint32_t count = strata_slots_next_lines(slots, next);
    uint8_t *unused[1 + STRATA_MAX_KEEP];
    STRATA_CHECK(unused_arrays(slots, next, count, unused) == slots->desc.keep + 2 - count);
    /* The first is for the next preparation, the others are for the lines past the count. */
    for (uint32_t i = 0; i <= slots->desc.keep; i++)
        slots->lines[i] =
            i < count ? next[i] : (struct commit_line){.slots = unused[i - count + 1]};
    slots->line_count = count;
    slots->preparing.slots = unused[0];
    slots->active = slots->rewritten = false;
}
