/*
 * The slot rule by hand: what a write may touch, and which commits stay.
 */

#include "offload/plan/slots.h"

#include <criterion/criterion.h>

#define TILES 2u

static struct tables tables;
static struct slots slots;

static void make(bool durable, uint32_t keep, uint32_t keep_every)
{
    strata_error error = {0};
    struct slots_desc desc = {
        .tile_count = TILES, .durable = durable, .keep = keep, .keep_every = keep_every};
    cr_assert_eq(strata_slots_create(&slots, &tables, &desc, &error), STRATA_OK);
    if (!durable)
        return;
    uint8_t zeros[TILES] = {0};
    strata_slots_recover(&slots, &(struct commit_line){.step = 0, .slots = zeros}, 1);
}

static void teardown(void)
{
    strata_tables_free(&tables);
}

TestSuite(slots, .fini = teardown);

/* Write every tile for a commit of the step and make it durable. */
static void commit(uint64_t step)
{
    cr_assert(strata_slots_prepare(&slots, step));
    for (uint32_t i = 0; i < TILES; i++) {
        uint32_t slot = strata_slots_choose(&slots, i, false);
        cr_assert_neq(slot, STRATA_NO_SLOT);
        strata_slots_name(&slots, i, slot);
        strata_slots_written(&slots, i, slot);
        cr_assert_eq(strata_slots_ready(&slots), i + 1 == TILES);
    }
    strata_slots_committed(&slots);
}

Test(slots, a_scratch_store_has_one_slot)
{
    make(false, 0, 0);
    cr_expect_eq(strata_slots_choose(&slots, 1, false), 0);
}

Test(slots, the_durable_slot_is_spared)
{
    make(true, 0, 0);
    cr_expect_eq(strata_slots_choose(&slots, 0, false), 1);
    commit(1);
    cr_expect_eq(strata_slots_choose(&slots, 0, false), 0);
}

Test(slots, a_tile_named_by_a_commit_in_preparation_has_no_slot_left)
{
    make(true, 0, 0);
    cr_assert(strata_slots_prepare(&slots, 1));
    strata_slots_name(&slots, 0, strata_slots_choose(&slots, 0, false));
    cr_expect_eq(strata_slots_choose(&slots, 0, false), STRATA_NO_SLOT);
    cr_expect_eq(strata_slots_choose(&slots, 1, false), 1, "the other tile is not named yet");
}

Test(slots, one_commit_is_prepared_at_a_time)
{
    make(true, 1, 1);
    cr_assert(strata_slots_prepare(&slots, 1));
    cr_expect(strata_slots_prepare(&slots, 1));
    cr_expect_not(strata_slots_prepare(&slots, 2));
}

Test(slots, multiples_are_retained_and_the_latest_of_them_stay)
{
    make(true, 2, 10);
    for (uint64_t step = 5; step <= 45; step += 5)
        commit(step);
    cr_expect_eq(slots.line_count, 3);
    cr_expect_eq(slots.lines[0].step, 45);
    cr_expect_eq(slots.lines[1].step, 40);
    cr_expect_eq(slots.lines[2].step, 30);
}

Test(slots, nothing_is_retained_that_is_no_multiple)
{
    make(true, 2, 100);
    commit(7);
    commit(8);
    cr_expect_eq(slots.line_count, 2, "commit 0 is a multiple of everything");
    cr_expect_eq(slots.lines[0].step, 8);
    cr_expect_eq(slots.lines[1].step, 0);
}

Test(slots, no_slot_of_a_line_is_offered_over_a_long_run)
{
    make(true, 3, 2);
    for (uint64_t step = 1; step < 200; step++) {
        for (uint32_t i = 0; i < TILES; i++) {
            uint32_t slot = strata_slots_choose(&slots, i, false);
            cr_assert_lt(slot, 5);
            for (uint32_t line = 0; line < slots.line_count; line++)
                cr_assert_neq(slots.lines[line].slots[i], slot);
        }
        commit(step);
        cr_assert_leq(slots.line_count, 4);
    }
}

/* With commits every step the newest record is the last commit's, and there is a slot beside
 * it to write ahead to. A rewritten record is in no commit: that slot is its own until the next
 * one. */
Test(slots, a_rewritten_record_spares_all_commits_and_leaves_none_to_write_ahead_to)
{
    make(true, 1, 1);
    commit(1);
    cr_expect(strata_slots_spare(&slots, 1));
    uint32_t slot = strata_slots_rewrite(&slots, 0);
    cr_expect_eq(slots.current[0], slot);
    for (uint32_t i = 0; i < slots.line_count; i++)
        cr_expect_neq(slots.lines[i].slots[0], slot);
    cr_expect_not(strata_slots_spare(&slots, 1));
    cr_expect_eq(strata_slots_choose(&slots, 0, true), STRATA_NO_SLOT);
    commit(2);
    cr_expect(strata_slots_spare(&slots, 1));
}
