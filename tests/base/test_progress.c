/*
 * How often a caller's progress function is called, on a clock of the test's own.
 */

#include "base/progress.h"

#include <criterion/criterion.h>

#define SECOND UINT64_C(1000000000)

static uint32_t calls;
static uint64_t last_done;
static uint64_t last_total;

static void count(void *user, const char *what, uint64_t done, uint64_t total)
{
    cr_expect_str_eq(what, "counting");
    cr_expect_eq(user, &calls);
    calls++;
    last_done = done;
    last_total = total;
}

static struct progress begin(uint64_t total)
{
    struct progress progress;
    const struct progress_call call = {.fn = count, .user = &calls};
    calls = 0;
    strata_progress_begin(&progress, &call, "counting", total, SECOND);
    return progress;
}

Test(progress, short_work_makes_no_call)
{
    struct progress progress = begin(10);
    for (uint64_t i = 0; i <= 10; i++)
        strata_progress_at(&progress, i, SECOND + STRATA_PROGRESS_NS - 1);
    cr_expect_eq(calls, 0);
}

Test(progress, long_work_makes_four_calls_a_second_and_one_at_the_end)
{
    struct progress progress = begin(1000);
    for (uint64_t i = 0; i < 1000; i++)
        strata_progress_at(&progress, i, SECOND + i * SECOND / 100);
    cr_expect_eq(calls, 39); /* ten seconds, without the first quarter of one */
    strata_progress_at(&progress, 1000, 11 * SECOND);
    cr_expect_eq(calls, 40);
    cr_expect_eq(last_done, 1000);
    cr_expect_eq(last_total, 1000);
}

Test(progress, the_end_is_called_once)
{
    struct progress progress = begin(2);
    strata_progress_at(&progress, 1, 2 * SECOND);
    strata_progress_at(&progress, 2, 2 * SECOND);
    strata_progress_at(&progress, 2, 9 * SECOND);
    cr_expect_eq(calls, 2);
}

Test(progress, no_work_makes_no_call)
{
    struct progress progress = begin(0);
    strata_progress_at(&progress, 0, 9 * SECOND);
    cr_expect_eq(calls, 0);
}

Test(progress, no_function_is_fine)
{
    struct progress progress;
    strata_progress_begin(&progress, &(struct progress_call){.fn = NULL}, "counting", 1, 0);
    strata_progress_at(&progress, 1, SECOND);
    cr_expect_not(progress.called);
}
