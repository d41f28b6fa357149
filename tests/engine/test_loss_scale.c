/*
 * fp16 and its loss scale: a step that overflows changes the scale and nothing else, whatever
 * rests where and however early updates are computed, and a resume goes on with both counts and
 * the scale. The toy model's gradient of one element is poisoned from step 2 on.
 */

#include "tests/support/suite_dir.h"
#include "tests/support/toy.h"

#include <string.h>

#define POISON 1e30f

TestSuite(loss_scale, .init = make_dir, .fini = remove_dir);

static const struct toy_run in_host = {.params = STRATA_HOST,
                                       .grads = STRATA_HOST,
                                       .states = STRATA_HOST,
                                       .stash = STRATA_HOST,
                                       .clip = 1,
                                       .dtype = STRATA_FP16};

static struct toy_result good(const struct toy_run *run)
{
    struct toy_result result = strata_toy_run(run);
    cr_assert_eq(result.status, STRATA_OK, "%s", result.error.message);
    return result;
}

Test(loss_scale, begins_at_65536_and_stays_while_all_is_well)
{
    struct toy_result result = good(&in_host);
    cr_expect_eq(result.last.loss_scale, 65536);
    cr_expect_eq(result.last.next_loss_scale, 65536);
    cr_expect_eq(result.last.updates, 4);
    cr_expect_not(result.last.skipped);
}

Test(loss_scale, a_skipped_step_leaves_the_state_as_it_was)
{
    struct toy_run run = in_host;
    run.poison = POISON;
    run.steps = 1;
    struct toy_result before = good(&run);
    run.steps = 2;
    struct toy_result after = good(&run);
    cr_expect_arr_eq(before.hash, after.hash, 16);
    cr_expect(after.last.skipped);
    cr_expect_eq(after.last.updates, 1);
    cr_expect_eq(after.stats.updates, 1);
    cr_expect_eq(after.last.loss_scale, 65536);
    cr_expect_eq(after.last.next_loss_scale, 32768);
    run.steps = 5;
    run.poisoned_steps = 2;
    after = good(&run);
    cr_expect_eq(after.last.loss_scale, 16384);
    cr_expect_eq(after.last.updates, 3);
}

/* Powers of two come out of the gradient as they went in, but for what underflows. */
Test(loss_scale, the_scale_itself_changes_no_norm_and_no_clipping)
{
    struct toy_run run = in_host;
    run.loss_scale = 4096;
    struct toy_result small = good(&run);
    run.loss_scale = 65536;
    struct toy_result large = good(&run);
    struct toy_result dynamic = good(&in_host);
    cr_expect_arr_eq(large.hash, dynamic.hash, 16);
    cr_expect_float_eq(small.grad_norm, large.grad_norm, 1e-6 * large.grad_norm);
}

/* Where the update of a skipped step was computed ahead, it is undone. */
Test(loss_scale, a_skipped_step_is_skipped_in_every_placement_and_mode)
{
    const strata_tier states[] = {STRATA_DEVICE, STRATA_HOST, STRATA_NVME, STRATA_NVME};
    for (int clip = 0; clip < 2; clip++) {
        struct toy_run run = in_host;
        run.poison = POISON;
        run.poisoned_steps = 2;
        run.steps = 6;
        run.clip = clip == 0 ? 0 : 1e30f;
        run.clip_mode = STRATA_CLIP_DEFERRED;
        struct toy_result reference = good(&run);
        cr_expect_eq(reference.stats.updates, 4);
        for (int i = 0; i < 4; i++) {
            struct temp_dir store;
            strata_temp_dir_make(&store);
            struct toy_run other = run;
            strata_tier rest = states[i] == STRATA_DEVICE ? STRATA_DEVICE : STRATA_HOST;
            other.clip_mode = STRATA_CLIP_SPECULATIVE;
            other.dir = store.path;
            other.states = states[i];
            other.grads = rest;
            other.params = i == 3 ? STRATA_NVME : rest;
            other.durability = i == 3 ? STRATA_DURABLE_PROCESS : STRATA_SCRATCH;
            other.commit_every = i == 3 ? 1 : 0;
            struct toy_result result = good(&other);
            cr_expect_arr_eq(reference.hash, result.hash, 16, "clip %d, case %d", clip, i);
            cr_expect_eq(result.stats.updates, 4);
            cr_expect_eq(result.last.next_loss_scale, reference.last.next_loss_scale);
            strata_temp_dir_remove(&store);
        }
    }
}

Test(loss_scale, a_resume_goes_on_with_scale_and_updates)
{
    struct toy_run whole = in_host;
    whole.poison = POISON;
    whole.poisoned_steps = 2;
    whole.steps = 6;
    struct toy_result reference = good(&whole);
    for (uint32_t stop = 1; stop < 6; stop++) {
        struct temp_dir store;
        strata_temp_dir_make(&store);
        struct toy_run run = whole;
        run.dir = store.path;
        run.states = STRATA_NVME;
        run.durability = STRATA_DURABLE_PROCESS;
        run.commit_every = 1;
        run.commit_at_end = true;
        run.resume = true;
        run.steps = stop;
        good(&run);
        run.steps = 6;
        struct toy_result result = good(&run);
        cr_expect_eq(result.first_step, stop);
        cr_expect_arr_eq(reference.hash, result.hash, 16, "stopped after %u", stop);
        cr_expect_eq(result.last.loss_scale, 16384);
        cr_expect_eq(result.last.updates, 4);
        strata_temp_dir_remove(&store);
    }
}

static void ends_not_finite(const struct toy_run *run, const char *says)
{
    struct toy_result result = strata_toy_run(run);
    cr_expect_eq(result.status, STRATA_E_NUMERIC);
    cr_expect_not_null(strstr(result.error.message, says), "%s", result.error.message);
    cr_expect_not_null(strstr(result.error.message, "group g3.t0"), "%s", result.error.message);
}

Test(loss_scale, a_fixed_scale_that_overflows_ends_the_run)
{
    struct toy_run run = in_host;
    run.poison = POISON;
    run.loss_scale = 1024;
    ends_not_finite(&run, "step 2 is not finite at loss scale 1024");
}

Test(loss_scale, no_scale_helps_a_gradient_that_is_always_infinite)
{
    struct toy_run run = in_host;
    run.poison = POISON;
    run.poisoned_steps = 100;
    run.steps = 30;
    ends_not_finite(&run, "step 18 is not finite at loss scale 1:");
}

Test(loss_scale, is_for_fp16_only)
{
    struct toy_run run = in_host;
    run.dtype = STRATA_BF16;
    run.loss_scale = 2;
    struct toy_result result = strata_toy_run(&run);
    cr_expect_eq(result.status, STRATA_E_INVALID);
    run.dtype = STRATA_FP16;
    run.loss_scale = -1;
    result = strata_toy_run(&run);
    cr_expect_eq(result.status, STRATA_E_INVALID);
}
