/*
 * When an update is computed changes no bit: deferred until the norm, ahead of it on NVMe (the
 * slot before) and in host RAM (a gradient behind), and in the naive order, with norms that are
 * within the limit, over it, and now this, now that.
 */

#include "tests/support/suite_dir.h"
#include "tests/support/toy.h"

#include <string.h>

#define STEPS 8u

TestSuite(clipping, .init = make_dir, .fini = remove_dir);

static struct toy_result good(const struct toy_run *run)
{
    struct toy_run with_dir = *run;
    struct temp_dir store;
    strata_temp_dir_make(&store);
    with_dir.dir = store.path;
    with_dir.steps = STEPS;
    struct toy_result result = strata_toy_run(&with_dir);
    strata_temp_dir_remove(&store);
    cr_assert_eq(result.status, STRATA_OK, "%s", result.error.message);
    return result;
}

static const struct toy_run deferred = {.params = STRATA_HOST,
                                        .grads = STRATA_HOST,
                                        .states = STRATA_HOST,
                                        .stash = STRATA_HOST,
                                        .clip_mode = STRATA_CLIP_DEFERRED};

/* What the updates can be ahead with, by what rests where and how often it is committed. */
static const struct toy_run ahead[] = {
    {.params = STRATA_HOST, .grads = STRATA_HOST, .states = STRATA_HOST},
    {.params = STRATA_NVME, .grads = STRATA_HOST, .states = STRATA_HOST},
    {.params = STRATA_DEVICE, .grads = STRATA_HOST, .states = STRATA_HOST},
    {.params = STRATA_HOST,
     .grads = STRATA_HOST,
     .states = STRATA_HOST,
     .durability = STRATA_DURABLE_PROCESS,
     .commit_every = 3},
    {.params = STRATA_NVME,
     .grads = STRATA_HOST,
     .states = STRATA_NVME,
     .durability = STRATA_DURABLE_PROCESS,
     .commit_every = 1},
    {.params = STRATA_NVME,
     .grads = STRATA_NVME,
     .states = STRATA_NVME,
     .durability = STRATA_DURABLE_PROCESS,
     .commit_every = 1,
     .keep = 1,
     .keep_every = 2},
    {.params = STRATA_HOST,
     .grads = STRATA_NVME,
     .states = STRATA_NVME,
     .durability = STRATA_DURABLE_PROCESS,
     .commit_every = 3},
};
#define AHEAD (sizeof ahead / sizeof ahead[0])

static float usual_norm(void)
{
    struct toy_run run = deferred;
    run.clip = 1e30f;
    return (float)good(&run).grad_norm;
}

enum expected { NOTHING_AHEAD, NOTHING_REDONE, SOMETHING_REDONE };

/* poison: what the gradient of a group in the middle of the model has more, in step 2. */
static void all_equal(float clip, float poison, strata_dtype states, enum expected expected)
{
    struct toy_run run = deferred;
    run.clip = clip;
    run.poison = poison;
    run.states_dtype = states;
    struct toy_result reference = good(&run);
    cr_expect_eq(reference.stats.tiles_ahead, 0);
    run.no_overlap = true;
    struct toy_result naive = good(&run);
    cr_expect_arr_eq(reference.hash, naive.hash, 16, "the naive order");
    for (size_t i = 0; i < AHEAD; i++) {
        run = ahead[i];
        run.clip = clip;
        run.poison = poison;
        run.states_dtype = states;
        run.clip_mode = STRATA_CLIP_SPECULATIVE;
        struct toy_result result = good(&run);
        cr_expect_arr_eq(reference.hash, result.hash, 16, "case %zu", i);
        cr_expect_eq(reference.grad_norm, result.grad_norm);
        cr_expect_eq(result.stats.updates, STEPS);
        cr_expect_eq(result.stats.tiles_ahead > 0, expected != NOTHING_AHEAD, "case %zu", i);
        cr_expect_eq(result.stats.tiles_redone > 0, expected == SOMETHING_REDONE, "case %zu",
                     i);
    }
}

Test(clipping, norms_within_the_limit_give_one_state_in_every_mode)
{
    all_equal(1e30f, 0, STRATA_FP32, NOTHING_REDONE);
}

/* Step 2 is over, and it shows only when some gradients have had their updates. */
Test(clipping, norms_that_cross_the_limit_give_one_state_in_every_mode)
{
    all_equal(10 * usual_norm(), 1000 * usual_norm(), STRATA_FP32, SOMETHING_REDONE);
}

/* The first gradient alone is over the limit: it is known before its update could begin. */
Test(clipping, norms_over_the_limit_give_one_state_in_every_mode)
{
    all_equal(1e-6f, 0, STRATA_FP32, NOTHING_AHEAD);
}

/* What is done again is rounded by the same chance. */
Test(clipping, bf16_states_are_one_state_in_every_mode_too)
{
    all_equal(10 * usual_norm(), 1000 * usual_norm(), STRATA_BF16, SOMETHING_REDONE);
}
