/*
 * The learning rate's promises: where it starts, where it peaks, where it ends, and that the
 * cosine without a mathematical library is the cosine.
 */

#include "train/rate.h"

#include <criterion/criterion.h>
#include <math.h>

static struct rate make(enum rate_schedule schedule, uint64_t warmup)
{
    return (struct rate){
        .schedule = schedule, .peak = 1e-3, .least = 1e-4, .warmup = warmup, .steps = 80};
}

Test(rate, warmup_rises_in_equal_amounts_to_the_peak)
{
    struct rate rate = make(RATE_COSINE, 10);
    for (uint64_t step = 1; step <= 10; step++)
        cr_assert_float_eq(strata_rate_at(&rate, step), 1e-4 * (double)step, 1e-18, "step %d",
                           (int)step);
    cr_assert_eq(strata_rate_at(&rate, 10), 1e-3);
}

Test(rate, without_warmup_the_first_step_has_the_peak)
{
    for (int schedule = RATE_CONSTANT; schedule <= RATE_COSINE; schedule++) {
        struct rate rate = make((enum rate_schedule)schedule, 0);
        cr_assert_eq(strata_rate_at(&rate, 1), 1e-3);
    }
}

Test(rate, constant_stays_and_never_looks_at_least)
{
    struct rate rate = make(RATE_CONSTANT, 3);
    for (uint64_t step = 3; step <= 200; step++)
        cr_assert_eq(strata_rate_at(&rate, step), 1e-3);
}

Test(rate, the_last_step_has_exactly_the_least_and_later_ones_too)
{
    for (int schedule = RATE_LINEAR; schedule <= RATE_COSINE; schedule++) {
        struct rate rate = make((enum rate_schedule)schedule, 10);
        cr_assert_eq(strata_rate_at(&rate, 80), 1e-4);
        cr_assert_eq(strata_rate_at(&rate, 81), 1e-4);
    }
}

Test(rate, linear_and_cosine_fall_at_every_step)
{
    for (int schedule = RATE_LINEAR; schedule <= RATE_COSINE; schedule++) {
        struct rate rate = make((enum rate_schedule)schedule, 10);
        for (uint64_t step = 11; step <= 80; step++)
            cr_assert_lt(strata_rate_at(&rate, step), strata_rate_at(&rate, step - 1));
    }
}

Test(rate, cosine_is_the_cosine)
{
    struct rate rate = {
        .schedule = RATE_COSINE, .peak = 1.0, .least = 0.0, .warmup = 0, .steps = 1001};
    for (uint64_t step = 1; step <= 1001; step++) {
        double expected =
            0.5 * (1.0 + cos(3.14159265358979323846 * (double)(step - 1) / 1000.0));
        cr_assert_float_eq(strata_rate_at(&rate, step), expected, 4e-16, "step %d", (int)step);
    }
}

Test(rate, a_warmup_longer_than_the_run_only_rises)
{
    struct rate rate = make(RATE_LINEAR, 200);
    for (uint64_t step = 1; step <= 80; step++)
        cr_assert_float_eq(strata_rate_at(&rate, step), 5e-6 * (double)step, 1e-17);
}

Test(rate, a_run_of_one_step_has_the_peak)
{
    struct rate rate = {
        .schedule = RATE_COSINE, .peak = 0.5, .least = 0.1, .warmup = 0, .steps = 1};
    cr_assert_eq(strata_rate_at(&rate, 1), 0.5);
}
