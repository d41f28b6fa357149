/*
 * Evaluations between steps: every use sees the weights of the step that has ended, activations
 * come back as they went, and no bit of the training is another.
 */

#include "tests/engine/engine_rig.h"
#include "tests/support/temp_dir.h"

#include <criterion/criterion.h>

#include <string.h>

#define STEPS 6u

static struct temp_dir dir;
static struct toy_result reference;

/* Evaluations of one run: before the first step and after each, after odd ones twice. */
#define EVALUATIONS (1 + STEPS + STEPS / 2)

static struct toy_run placed(strata_tier params, strata_tier grads, strata_tier states,
                             strata_tier stash)
{
    struct toy_run run = strata_toy_homes(params, grads, states);
    run.stash = stash;
    run.clip = 1;
    run.steps = STEPS;
    run.dir = dir.path;
    return run;
}

static void setup(void)
{
    strata_temp_dir_make(&dir);
    struct toy_run run = placed(STRATA_HOST, STRATA_HOST, STRATA_HOST, STRATA_HOST);
    reference = strata_toy_run(&run);
    cr_assert_eq(reference.status, STRATA_OK, "%s", reference.error.message);
}

static void teardown(void)
{
    strata_temp_dir_remove(&dir);
}

TestSuite(evaluate, .init = setup, .fini = teardown);

/* Returns what its evaluations saw. */
static uint64_t expect_same_training(struct toy_run run)
{
    struct temp_dir store;
    strata_temp_dir_make(&store);
    run.dir = store.path;
    run.evaluate = true;
    struct toy_result result = strata_toy_run(&run);
    cr_assert_eq(result.status, STRATA_OK, "%s", result.error.message);
    cr_expect_arr_eq(result.hash, reference.hash, 16);
    cr_expect_eq(result.grad_norm, reference.grad_norm);
    cr_expect_eq(result.evaluations, EVALUATIONS);
    cr_expect_eq(result.eval_wrong, 0, "%llu uses, stash %d, params %d",
                 (unsigned long long)result.eval_wrong, (int)run.stash, (int)run.params);
    strata_temp_dir_remove(&store);
    return result.eval_hash;
}

Test(evaluate, changes_no_bit_and_sees_the_weights_wherever_they_rest)
{
    const struct toy_run runs[] = {
        placed(STRATA_DEVICE, STRATA_DEVICE, STRATA_DEVICE, STRATA_DEVICE),
        placed(STRATA_HOST, STRATA_HOST, STRATA_HOST, STRATA_NVME),
        placed(STRATA_NVME, STRATA_NVME, STRATA_NVME, STRATA_NVME),
        placed(STRATA_NVME, STRATA_HOST, STRATA_NVME, STRATA_HOST),
        placed(STRATA_DEVICE, STRATA_HOST, STRATA_NVME, STRATA_DEVICE),
    };
    uint64_t seen = 0;
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        for (uint32_t way = 0; way < 4; way++) {
            struct toy_run run = runs[i];
            run.clip_mode = way & 1 ? STRATA_CLIP_DEFERRED : STRATA_CLIP_SPECULATIVE;
            run.durability = way & 2 ? STRATA_DURABLE_POWER : STRATA_SCRATCH;
            run.commit_every = 1;
            uint64_t hash = expect_same_training(run);
            cr_expect(seen == 0 || seen == hash, "run %zu, way %u: other weights", i, way);
            seen = hash;
        }
    }
}

Test(evaluate, without_overlap_too)
{
    struct toy_run run = placed(STRATA_NVME, STRATA_NVME, STRATA_NVME, STRATA_NVME);
    run.no_overlap = true;
    (void)expect_same_training(run);
}

/* The least budgets of the training do for an evaluation that holds no more at once. */
Test(evaluate, at_the_least_budgets)
{
    struct toy_run run = placed(STRATA_NVME, STRATA_NVME, STRATA_NVME, STRATA_NVME);
    strata_plan plan;
    run.evaluate = true;
    cr_assert_eq(strata_toy_plan(&run, &plan, &error), STRATA_OK, "%s", error.message);
    run.device_bytes = plan.tiers[STRATA_DEVICE].need_bytes;
    cr_assert_eq(strata_toy_plan(&run, &plan, &error), STRATA_OK, "%s", error.message);
    run.host_bytes = plan.tiers[STRATA_HOST].need_bytes;
    (void)expect_same_training(run);
    run.host_bytes--;
    cr_expect_eq(strata_toy_run(&run).status, STRATA_E_NOMEM);
}

Test(evaluate, frozen_groups_are_seen_too)
{
    struct toy_run run = placed(STRATA_NVME, STRATA_HOST, STRATA_NVME, STRATA_HOST);
    struct temp_dir store;
    strata_temp_dir_make(&store);
    run.dir = store.path;
    run.evaluate = true;
    run.frozen = 0x51;
    struct toy_result result = strata_toy_run(&run);
    cr_assert_eq(result.status, STRATA_OK, "%s", result.error.message);
    cr_expect_eq(result.eval_wrong, 0);
    cr_expect_eq(result.frozen_wrong, 0);
    strata_temp_dir_remove(&store);
}

/* Calls one by one. */

static const strata_use first_group[] = {{.kind = STRATA_USE_ACQUIRE, .index = 1},
                                         {.kind = STRATA_USE_RELEASE, .index = 1}};

static void open_with_list(void)
{
    open_engine_rig();
    toy.model.eval_uses = first_group;
    toy.model.eval_use_count = 2;
}

TestSuite(evaluate_calls, .init = open_with_list, .fini = close_engine_rig);

static void refused(strata_status status, strata_status expected, const char *story)
{
    cr_expect_eq(status, expected, "%s", story);
    cr_expect_not_null(strstr(strata_engine_error(engine)->message, story), "%s: no %s",
                       strata_engine_error(engine)->message, story);
}

Test(evaluate_calls, out_of_order_is_refused_and_changes_nothing)
{
    strata_view view;
    uint8_t hash[16];
    create_engine(init_zeros);
    refused(strata_eval_end(engine), STRATA_E_STATE, "no evaluation has begun");
    cr_assert_eq(strata_eval_begin(engine), STRATA_OK);
    refused(strata_eval_begin(engine), STRATA_E_STATE, "an evaluation has begun");
    refused(strata_step_begin(engine, 0.1), STRATA_E_STATE, "an evaluation has begun");
    refused(strata_step_end(engine), STRATA_E_STATE, "step 1 has not begun");
    refused(strata_engine_hash(engine, hash), STRATA_E_STATE, "an evaluation has begun");
    refused(strata_eval_end(engine), STRATA_E_STATE, "acquire 1, entry 0 of the use list's 2");
    refused(strata_acquire(engine, 0, stream, &view), STRATA_E_STATE,
            "acquire 0 in an evaluation: entry 0 of the use list is acquire 1");
    cr_assert_eq(strata_acquire(engine, 1, stream, &view), STRATA_OK);
    cr_expect_not_null(view.param);
    cr_expect_null(view.grad);
    cr_assert_eq(strata_release(engine, 1, stream), STRATA_OK);
    refused(strata_acquire(engine, 1, stream, &view), STRATA_E_STATE, "ended after 2 entries");
    cr_assert_eq(strata_eval_end(engine), STRATA_OK);
    cr_assert_eq(strata_step_begin(engine, 0.1), STRATA_OK);
    refused(strata_eval_begin(engine), STRATA_E_STATE, "step 1 has begun");
}

Test(evaluate_calls, destroy_in_the_middle_ends)
{
    strata_view view;
    create_engine(init_zeros);
    cr_assert_eq(strata_eval_begin(engine), STRATA_OK);
    cr_assert_eq(strata_acquire(engine, 1, stream, &view), STRATA_OK);
    strata_engine_destroy(engine);
    engine = NULL;
}

Test(evaluate_calls, a_model_without_a_list_has_no_evaluation)
{
    toy.model.eval_uses = NULL;
    toy.model.eval_use_count = 0;
    create_engine(init_zeros);
    refused(strata_eval_begin(engine), STRATA_E_STATE, "no use list of an evaluation");
}

static void no_engine(const strata_use *uses, uint32_t count, const char *story)
{
    toy.model.eval_uses = uses;
    toy.model.eval_use_count = count;
    strata_engine_desc desc = describe_engine(init_zeros);
    error = (strata_error){.status = STRATA_OK};
    cr_expect_eq(strata_engine_create(&engine, &desc, &error), STRATA_E_INVALID);
    cr_expect_not_null(strstr(error.message, story), "%s: no %s", error.message, story);
}

Test(evaluate_calls, lists_that_make_no_sense_are_refused)
{
    const strata_use with_grad[] = {{.kind = STRATA_USE_ACQUIRE, .index = 1, .grad = true},
                                    {.kind = STRATA_USE_RELEASE, .index = 1}};
    const strata_use not_taken_back[] = {{.kind = STRATA_USE_STASH, .index = 0}};
    const strata_use no_acquire[] = {{.kind = STRATA_USE_STASH, .index = 0},
                                     {.kind = STRATA_USE_UNSTASH, .index = 0}};
    const strata_use no_group[] = {{.kind = STRATA_USE_ACQUIRE, .index = TOY_GROUPS}};
    no_engine(with_grad, 2, "evaluation's use list entry 0: a gradient");
    no_engine(first_group, 1, "evaluation's use list: group g1.t0 is never released");
    no_engine(first_group + 1, 1, "evaluation's use list entry 0: release of 1");
    no_engine(not_taken_back, 1, "evaluation's use list: block 0 is never taken back");
    no_engine(no_group, 1, "evaluation's use list entry 0: group 7 of 7");
    no_engine(no_acquire, 2, "evaluation's use list: no group is acquired");
    no_engine(NULL, 2, "evaluation's use list: 2 entries at NULL");
    no_engine(first_group, 0, "evaluation's use list: 0 entries");
}
