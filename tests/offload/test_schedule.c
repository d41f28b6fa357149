/*
 * The schedule under random models, homes, budgets, verdicts, crashes and orders of completion:
 * 200,000 cases, a million in the long form, half of them at the least budget, a third with two
 * or three ranks. Every seed is a case of its own; a failing one is named and can be run alone.
 */

#include "tests/support/driver.h"

#include <criterion/criterion.h>

#include <stdlib.h>

/* Of each kind; five times as many in the long form. Sanitizers take a hundred times as
 * long. */
#if defined(__SANITIZE_ADDRESS__)
#    define CASES 320u
#else
#    define CASES 32000u
#endif
#define LONG_FACTOR 5u

static void drive(uint64_t first, uint32_t count, struct driver_case what)
{
    if (getenv("STRATA_TEST_LONG") != NULL)
        count *= LONG_FACTOR;
    for (uint64_t seed = first; seed < first + count; seed++) {
        what.seed = seed;
        what.ranks = seed % 3 == 0 ? 2 + seed % 2 : 1;
        const char *problem = strata_drive(&what);
        cr_assert_null(problem, "%s, ranks %u", problem, what.ranks);
    }
}

Test(schedule, roomy_and_ahead_of_the_norm_ends_with_the_right_weights)
{
    drive(1, CASES, (struct driver_case){.mode = UPDATES_AHEAD});
}

Test(schedule, minimum_and_ahead_of_the_norm_ends_with_the_right_weights)
{
    drive(1000000, CASES, (struct driver_case){.minimum = true, .mode = UPDATES_AHEAD});
}

Test(schedule, roomy_and_deferred_ends_with_the_right_weights)
{
    drive(2000000, CASES, (struct driver_case){.mode = UPDATES_DEFERRED});
}

Test(schedule, minimum_and_deferred_ends_with_the_right_weights)
{
    drive(3000000, CASES, (struct driver_case){.minimum = true, .mode = UPDATES_DEFERRED});
}

Test(schedule, roomy_without_a_norm_to_wait_for_ends)
{
    drive(4000000, CASES, (struct driver_case){.mode = UPDATES_AT_ONCE});
}

Test(schedule, minimum_without_a_norm_to_wait_for_ends)
{
    drive(5000000, CASES, (struct driver_case){.minimum = true, .mode = UPDATES_AT_ONCE});
}

Test(schedule, naive_order_ends)
{
    drive(6000000, CASES / 8, (struct driver_case){.no_overlap = true});
    drive(7000000, CASES / 8,
          (struct driver_case){.minimum = true, .mode = UPDATES_AHEAD, .no_overlap = true});
}

/* More chains than can be counted: refused before anything of that size is taken. */
Test(schedule, a_use_list_with_too_many_moves_is_refused)
{
    struct group group = {.layout = {.tile_count = 1u << 24}};
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
