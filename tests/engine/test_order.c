#define _GNU_SOURCE
/*
 * The caller's contract: use lists that make no sense, gradients that are not finite. What
 * fails, fails with a story, sticks, and leaves nothing hanging. Calls out of order:
 * test_misuse.c.
 */

#include "tests/engine/engine_rig.h"

#include <criterion/criterion.h>

#include <math.h>
#include <string.h>
#include <time.h>

TestSuite(order, .init = open_engine_rig, .fini = close_engine_rig);

static strata_engine_desc describe(void)
{
    return describe_engine(init_zeros);
}

static void create(void)
{
    create_engine(init_zeros);
}

static void refused_as(const strata_engine_desc *desc, const char *word)
{
    error = (strata_error){.status = STRATA_OK};
    cr_expect_eq(strata_engine_create(&engine, desc, &error), STRATA_E_INVALID, "%s",
                 error.message);
    cr_expect_null(engine);
    cr_expect_not_null(strstr(error.message, word), "%s: no %s", error.message, word);
}

static void refused(const char *word)
{
    strata_engine_desc desc = describe();
    refused_as(&desc, word);
}

/* The stream still waits for bytes when the engine goes: it must be let go, and nothing may be
 * touched afterwards (the sanitizer would say). */
Test(order, destroy_in_the_middle_of_a_step_ends)
{
    strata_view view;
    create();
    cr_assert_eq(strata_step_begin(engine, 0.1), STRATA_OK);
    cr_assert_eq(strata_stash(engine, 0, strata_scratch(engine), stream), STRATA_OK);
    cr_assert_eq(strata_acquire(engine, 0, stream, &view), STRATA_OK);
    strata_stream_zero(stream, strata_scratch(engine), 64);
    strata_engine_destroy(engine);
    engine = NULL;
}

Test(order, destroy_before_any_step_ends)
{
    create();
}

Test(order, release_without_acquire_is_refused)
{
    toy.uses[1].kind = STRATA_USE_RELEASE;
    refused("release");
}

Test(order, a_group_that_is_never_released_is_refused)
{
    toy.model.use_count--;
    refused("never released");
}

Test(order, a_block_that_is_never_taken_back_is_refused)
{
    toy.uses[toy.model.use_count++] = (strata_use){.kind = STRATA_USE_STASH, .index = 0};
    refused("never taken back");
}

Test(order, a_group_that_does_not_exist_is_refused)
{
    toy.uses[1].index = TOY_GROUPS;
    refused("group 7 of 7");
}

Test(order, a_tensor_of_no_elements_is_refused)
{
    toy.tensors[2][0].shape[0] = 0;
    refused("g2.t0");
}

Test(order, a_group_without_gradient_is_refused)
{
    for (uint32_t u = 0; u < toy.model.use_count; u++)
        if (toy.uses[u].index == 3)
            toy.uses[u].grad = false;
    refused("g3.t0");
}

/* Its update could come before that use, or after it. */
Test(order, a_last_use_without_gradient_is_refused)
{
    toy.uses[toy.model.use_count++] = (strata_use){.kind = STRATA_USE_ACQUIRE, .index = 2};
    toy.uses[toy.model.use_count++] = (strata_use){.kind = STRATA_USE_RELEASE, .index = 2};
    refused("g2.t0");
}

Test(order, sizes_that_would_wrap_around_are_refused)
{
    toy.model.scratch_bytes = UINT64_MAX;
    refused("scratch");
    toy.model.scratch_bytes = 4096;
    toy.model.stash_bytes = UINT64_MAX / 4;
    refused("activation");
}

Test(order, choices_that_do_not_exist_are_refused)
{
    strata_engine_desc desc = describe();
    desc.states = (strata_tier)7;
    refused_as(&desc, "homes");
    desc = describe();
    desc.stash = (strata_tier)-1;
    refused_as(&desc, "homes");
    desc = describe();
    desc.io = (strata_io_backend)2;
    refused_as(&desc, "backend");
    desc = describe();
    desc.io_depth = 4097;
    refused_as(&desc, "4096");
}

Test(order, a_model_without_groups_is_refused)
{
    strata_engine_desc desc = describe();
    desc.tile_elems = 0;
    toy.model.groups = NULL;
    refused_as(&desc, "groups");
}

static void walk(void)
{
    strata_view view;
    cr_assert_eq(strata_step_begin(engine, 0.1), STRATA_OK);
    for (uint32_t u = 0; u < toy.model.use_count; u++) {
        const strata_use *use = &toy.uses[u];
        strata_status status = STRATA_OK;
        if (use->kind == STRATA_USE_ACQUIRE)
            status = strata_acquire(engine, use->index, stream, &view);
        else if (use->kind == STRATA_USE_RELEASE)
            status = strata_release(engine, use->index, stream);
        else if (use->kind == STRATA_USE_STASH)
            status = strata_stash(engine, use->index, strata_scratch(engine), stream);
        else
            status = strata_unstash(engine, use->index, strata_scratch(engine), stream);
        cr_assert_eq(status, STRATA_OK, "%s", strata_engine_error(engine)->message);
    }
}

/* The norm of the step in progress is known before the step ends, and must not replace one that
 * can still be asked for. */
static void expect_norms_of_two_steps(void)
{
    for (uint64_t step = 1; step <= 2; step++) {
        strata_step_result result;
        cr_assert_eq(strata_wait(engine, step, &result), STRATA_OK);
        cr_assert_eq(result.step, step);
    }
}

Test(order, the_norms_of_the_last_two_steps_are_kept)
{
    create();
    for (int step = 0; step < 2; step++) {
        walk();
        cr_assert_eq(strata_step_end(engine), STRATA_OK);
    }
    walk();
    strata_stream_sync(stream);
    /* The third step has its norm once its updates are done, though it has not ended. */
    strata_stats stats;
    do {
        expect_norms_of_two_steps();
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        strata_engine_stats(engine, &stats);
    } while (stats.updates < 3);
    expect_norms_of_two_steps();
}

Test(order, infinite_gradient_stops_the_run_and_names_the_place)
{
    struct toy_result result = strata_toy_run(&(struct toy_run){.clip = 1, .poison = INFINITY});
    cr_expect_eq(result.status, STRATA_E_NUMERIC);
    cr_expect_not_null(strstr(result.error.message, "step 2"), "%s", result.error.message);
    cr_expect_not_null(strstr(result.error.message, "g3.t0"), "%s", result.error.message);
}

Test(order, nan_gradient_stops_the_run_without_clipping_too)
{
    struct toy_result result =
        strata_toy_run(&(struct toy_run){.poison = NAN, .states = STRATA_HOST});
    cr_expect_eq(result.status, STRATA_E_NUMERIC, "%s", result.error.message);
}

/* A gradient that is far too large must move the weights no farther than a clipped one may. */
Test(order, clipping_bounds_the_update)
{
    struct toy_result calm = strata_toy_run(&(struct toy_run){.clip = 1});
    struct toy_result wild = strata_toy_run(&(struct toy_run){.clip = 1, .poison = 1e6f});
    cr_assert_eq(calm.status, STRATA_OK);
    cr_assert_eq(wild.status, STRATA_OK, "%s", wild.error.message);
    cr_expect(memcmp(calm.hash, wild.hash, 16) != 0);
}
