/*
 * The schedule under random models, homes and orders of completion. Every seed is a case of its
 * own; a failing one is named and can be run alone.
 */

#include "tests/support/driver.h"

#include <criterion/criterion.h>

/* Short form; the seed of the first case moves on with each suite below. */
#define CASES 3000u

static void drive(uint64_t first, bool minimum, enum update_mode mode, bool no_overlap)
{
    for (uint64_t seed = first; seed < first + CASES; seed++) {
        const char *problem = strata_drive(&(struct driver_case){
            .seed = seed, .minimum = minimum, .mode = mode, .no_overlap = no_overlap});
        cr_assert_null(problem, "%s", problem);
    }
}

Test(schedule, roomy_and_ahead_of_the_norm_ends_with_the_right_weights)
{
    drive(1, false, UPDATES_AHEAD, false);
}

Test(schedule, minimum_and_ahead_of_the_norm_ends_with_the_right_weights)
{
    drive(100000, true, UPDATES_AHEAD, false);
}

Test(schedule, roomy_and_deferred_ends_with_the_right_weights)
{
    drive(200000, false, UPDATES_DEFERRED, false);
}

Test(schedule, minimum_and_deferred_ends_with_the_right_weights)
{
    drive(300000, true, UPDATES_DEFERRED, false);
}

Test(schedule, roomy_without_a_norm_to_wait_for_ends)
{
    drive(400000, false, UPDATES_AT_ONCE, false);
}

Test(schedule, minimum_without_a_norm_to_wait_for_ends)
{
    drive(500000, true, UPDATES_AT_ONCE, false);
}

Test(schedule, naive_order_ends)
{
    drive(600000, false, UPDATES_DEFERRED, true);
    drive(700000, true, UPDATES_AHEAD, true);
}

/* More chains than can be counted: refused before anything of that size is taken. */
Test(schedule, a_use_list_with_too_many_moves_is_refused)
{
    struct group group = {.tile_count = 1u << 24};
    struct placement placements[256] = {{.group = 0}};
    struct offload_plan plan = {.model = {.groups = &group, .group_count = 1},
                                .residency = {.placements = placements, .count = 256}};
    struct tables tables = {0};
    struct schedule *schedule;
    strata_error error = {0};
    strata_status status = strata_schedule_create(
        &schedule, &tables, &(struct schedule_desc){.plan = &plan}, &error);
    cr_expect_eq(status, STRATA_E_INVALID);
    cr_expect_null(schedule);
    cr_expect_eq(tables.bytes, 0);
}
