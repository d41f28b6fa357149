/*
 * The loss scale's course: the sequences that DeepSpeed tests of its own (no, all, some steps
 * overflow), by our rule, and that a resume knows all it needs.
 */

#include "optim/loss_scale.h"

#include <criterion/criterion.h>

struct course {
    double scale;
    uint64_t updates;
    uint64_t skipped;
};

static void step(struct course *c, bool overflows)
{
    if (overflows) {
        cr_assert(strata_loss_scale_can_shrink(c->scale));
        c->scale = strata_loss_scale_shrink(c->scale);
        c->skipped++;
    } else {
        c->scale = strata_loss_scale_grow(c->scale, ++c->updates);
    }
}

Test(loss_scale, without_overflow_it_doubles_every_2000_updates)
{
    struct course c = {.scale = LOSS_SCALE_FIRST};
    for (uint32_t i = 1; i <= 10000; i++) {
        step(&c, false);
        cr_assert_eq(c.scale, LOSS_SCALE_FIRST * (double)(1u << i / 2000), "update %u: %g", i,
                     c.scale);
    }
}

Test(loss_scale, each_overflow_halves_it_down_to_1)
{
    struct course c = {.scale = LOSS_SCALE_FIRST};
    for (double expected = LOSS_SCALE_FIRST / 2; expected >= 1; expected /= 2) {
        step(&c, true);
        cr_assert_eq(c.scale, expected);
    }
    cr_assert_eq(c.skipped, 16);
    cr_assert_eq(c.updates, 0);
    cr_assert(!strata_loss_scale_can_shrink(c.scale));
}

Test(loss_scale, skipped_steps_do_not_count_towards_the_next_doubling)
{
    struct course c = {.scale = LOSS_SCALE_FIRST};
    for (uint32_t i = 0; i < 1999; i++)
        step(&c, false);
    step(&c, true);
    step(&c, true);
    cr_assert_eq(c.scale, LOSS_SCALE_FIRST / 4);
    step(&c, false);
    cr_assert_eq(c.scale, LOSS_SCALE_FIRST / 2);
    step(&c, true);
    for (uint32_t i = 0; i < 1999; i++)
        step(&c, false);
    cr_assert_eq(c.scale, LOSS_SCALE_FIRST / 4);
    step(&c, false);
    cr_assert_eq(c.scale, LOSS_SCALE_FIRST / 2);
}
