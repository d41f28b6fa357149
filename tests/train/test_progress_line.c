/*
 * When a line of progress appears and what it says. The time is an argument; no clock is asked.
 */

#include "train/progress_line.h"

#include <criterion/criterion.h>

#define MS UINT64_C(1000000)

static char text[160];

static bool at(struct progress_line *line, uint64_t done, uint64_t ms)
{
    return strata_progress_line_at(line, "writing the store", done, 1000, 5000 * MS + ms * MS,
                                   text, sizeof text);
}

Test(progress_line, a_terminal_has_one_after_two_seconds_with_share_and_time_left)
{
    struct progress_line line = {.live = true};
    cr_expect_not(at(&line, 100, 0));
    cr_expect_not(at(&line, 200, 1000));
    cr_expect_not(at(&line, 270, 1749));
    cr_assert(at(&line, 300, 2000));
    /* 200 in 2 s, 700 are left. */
    cr_expect_str_eq(text, "writing the store: 30 %, 0:07 left");
    cr_assert(at(&line, 600, 2250), "each later call draws");
    cr_expect_str_eq(text, "writing the store: 60 %, 0:02 left");
    cr_expect_not(at(&line, 1000, 2500), "what is done says nothing");
}

Test(progress_line, elsewhere_a_line_comes_every_ten_seconds)
{
    struct progress_line line = {0};
    int lines = 0;
    for (uint64_t ms = 0; ms < 60000; ms += 250)
        lines += at(&line, 1 + ms / 100, ms);
    cr_expect_eq(lines, 5, "%d lines in 60 s", lines);
    cr_expect_str_eq(text, "writing the store: 50 %, 0:50 left");
}

Test(progress_line, each_piece_of_work_has_its_own_time)
{
    struct progress_line line = {.live = true};
    cr_expect_not(at(&line, 1, 0));
    cr_expect(at(&line, 2, 2000));
    cr_expect_not(
        strata_progress_line_at(&line, "initial weights", 1, 10, 8000 * MS, text, sizeof text));
    cr_expect(strata_progress_line_at(&line, "initial weights", 1, 10, 10000 * MS, text,
                                      sizeof text));
    cr_expect_str_eq(text, "initial weights: 10 %, ? left", "nothing was done since");
    /* The same piece again, after its end: a second run of it. */
    cr_expect_not(strata_progress_line_at(&line, "initial weights", 10, 10, 11000 * MS, text,
                                          sizeof text));
    cr_expect_not(strata_progress_line_at(&line, "initial weights", 1, 10, 20000 * MS, text,
                                          sizeof text));
}

Test(progress_line, quiet_says_nothing)
{
    struct progress_line line = {.live = true, .silent = true};
    for (uint64_t ms = 0; ms < 60000; ms += 250)
        cr_expect_not(at(&line, 1 + ms / 100, ms));
}

Test(progress_line, nothing_of_nothing_is_no_line)
{
    struct progress_line line = {.live = true};
    cr_expect_not(
        strata_progress_line_at(&line, "initial weights", 0, 0, MS, text, sizeof text));
    cr_expect_not(
        strata_progress_line_at(&line, "initial weights", 0, 0, 9000 * MS, text, sizeof text));
}
