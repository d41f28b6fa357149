/*
 * The schedule under random models, homes and orders of completion. Every seed is a case of its
 * own; a failing one is named and can be run alone.
 */

#include "tests/support/driver.h"

#include <criterion/criterion.h>

/* Short form; the seed of the first case moves on with each suite below. */
#define CASES 3000u

static void drive(uint64_t first, bool minimum, bool deferred, bool no_overlap)
{
    for (uint64_t seed = first; seed < first + CASES; seed++) {
        const char *problem = strata_drive(&(struct driver_case){
            .seed = seed, .minimum = minimum, .deferred = deferred, .no_overlap = no_overlap});
        cr_assert_null(problem, "%s", problem);
    }
}

Test(schedule, roomy_and_clipped_always_ends_and_updates_each_tile_once)
{
    drive(1, false, true, false);
}

Test(schedule, minimum_and_clipped_always_ends_and_updates_each_tile_once)
{
    drive(100000, true, true, false);
}

Test(schedule, roomy_without_clipping_always_ends)
{
    drive(200000, false, false, false);
}

Test(schedule, minimum_without_clipping_always_ends)
{
    drive(300000, true, false, false);
}

Test(schedule, naive_order_always_ends)
{
    drive(400000, false, true, true);
    drive(500000, true, false, true);
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
