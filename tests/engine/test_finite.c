/*
 * A commit never holds what is not finite: a gradient whose norm is finite, and whose square is
 * not in fp32, spoils a second moment. The run stops, and the commit before it stands.
 */

#include "strata/store.h"
#include "tests/support/suite_dir.h"
#include "tests/support/toy.h"

#include <string.h>

#define HUGE_GRADIENT 1e25f /* squared beyond fp32 */

TestSuite(finite, .init = make_dir, .fini = remove_dir);

static struct toy_run durable_run(strata_tier states)
{
    strata_tier others = states == STRATA_DEVICE ? STRATA_DEVICE : STRATA_HOST;
    struct toy_run run = strata_toy_durable(others, others, states, dir.path);
    run.steps = 6;
    return run;
}

static uint64_t last_commit(void)
{
    const char *dirs[] = {dir.path};
    strata_store_listing listing;
    strata_error error = {.status = STRATA_OK};
    cr_assert_eq(strata_store_list(&listing, dirs, 1, &error), STRATA_OK, "%s", error.message);
    cr_assert_gt(listing.commit_count, 0);
    return listing.commits[0].step;
}

/* The step that spoils is the second. The commit of the first may still be in preparation when
 * the run stops, so the last one is of the first step or of the beginning, and a run goes on
 * from there as if the second had never been tried. */
static void expect_stop(strata_tier states, strata_dtype states_dtype, float clip)
{
    struct toy_run run = durable_run(states);
    run.states_dtype = states_dtype;
    run.clip = clip;
    run.poison = HUGE_GRADIENT;
    struct toy_result result = strata_toy_run(&run);
    cr_expect_eq(result.status, STRATA_E_NUMERIC, "states in %s: %s", strata_tier_name(states),
                 result.status == STRATA_OK ? "went on" : result.error.message);
    cr_expect_not_null(strstr(result.error.message, "not finite"), "%s", result.error.message);
    uint64_t committed = last_commit();
    cr_expect_leq(committed, 1);
    run.poison = 0;
    run.resume = true;
    struct toy_result resumed = strata_toy_run(&run);
    cr_expect_eq(resumed.status, STRATA_OK, "%s", resumed.error.message);
    cr_expect_eq(resumed.first_step, committed);
}

Test(finite, a_moment_that_overflows_is_never_committed_from_host_ram)
{
    expect_stop(STRATA_HOST, STRATA_FP32, 0);
}

Test(finite, a_moment_that_overflows_is_never_committed_from_nvme)
{
    expect_stop(STRATA_NVME, STRATA_FP32, 0);
}

Test(finite, a_moment_that_overflows_is_never_committed_from_the_device)
{
    expect_stop(STRATA_DEVICE, STRATA_FP32, 0);
}

Test(finite, a_bf16_moment_that_overflows_is_never_committed)
{
    expect_stop(STRATA_NVME, STRATA_BF16, 0);
}

/*
 * The update ahead of the norm overflows, and is made again with the gradient clipped. On a
 * busy machine the norm may be known before any update was made ahead: every run ends in the
 * same state, and of so many at least one has something to undo.
 */
Test(finite, what_the_norm_undoes_stops_no_run)
{
    struct toy_run run = durable_run(STRATA_NVME);
    run.clip = 1;
    run.poison = HUGE_GRADIENT;
    struct toy_run other = run;
    other.durability = STRATA_SCRATCH;
    other.dir = NULL;
    other.states = STRATA_HOST;
    other.clip_mode = STRATA_CLIP_DEFERRED;
    struct toy_result deferred = strata_toy_run(&other);
    cr_assert_eq(deferred.status, STRATA_OK, "%s", deferred.error.message);
    run.clip_mode = STRATA_CLIP_SPECULATIVE;
    uint64_t redone = 0;
    for (int tries = 0; tries < 40 && redone == 0; tries++) {
        remove_dir();
        make_dir();
        run.dir = dir.path;
        struct toy_result ahead = strata_toy_run(&run);
        cr_assert_eq(ahead.status, STRATA_OK, "%s", ahead.error.message);
        cr_expect_arr_eq(ahead.hash, deferred.hash, sizeof ahead.hash);
        redone = ahead.stats.tiles_redone;
    }
    cr_expect_gt(redone, 0);
}

/* The largest gradient whose square is a number leaves a moment that is one. */
Test(finite, the_largest_gradient_that_has_a_square_goes_on)
{
    struct toy_run run = durable_run(STRATA_HOST);
    run.poison = 1e19f;
    struct toy_result result = strata_toy_run(&run);
    cr_expect_eq(result.status, STRATA_OK, "%s", result.error.message);
    cr_expect_eq(last_commit(), 6);
}
