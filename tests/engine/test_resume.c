/*
 * Commits and resume: a run that stops and goes on ends in the state of one that did not stop,
 * bit for bit, whatever rests where; retained commits can be gone back to; what does not match
 * is refused by name.
 */

#include "io/store.h"
#include "tests/support/temp_dir.h"
#include "tests/support/toy.h"

#include <criterion/criterion.h>

#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct temp_dir dir;
static struct toy_result undisturbed;

/* Called once when a store is about to be opened: after the run was planned. */
static void (*meanwhile)(void);

extern strata_status __real_strata_store_open(struct store **out, const struct store_desc *desc,
                                              strata_error *error);
strata_status __wrap_strata_store_open(struct store **out, const struct store_desc *desc,
                                       strata_error *error);

strata_status __wrap_strata_store_open(struct store **out, const struct store_desc *desc,
                                       strata_error *error)
{
    void (*disturb)(void) = meanwhile;
    meanwhile = NULL;
    if (disturb != NULL)
        disturb();
    return __real_strata_store_open(out, desc, error);
}

static const struct toy_run in_device = {.params = STRATA_DEVICE,
                                         .grads = STRATA_DEVICE,
                                         .states = STRATA_DEVICE,
                                         .stash = STRATA_DEVICE,
                                         .clip = 1,
                                         .steps = 7};

static void setup(void)
{
    strata_temp_dir_make(&dir);
    undisturbed = strata_toy_run(&in_device);
    cr_assert_eq(undisturbed.status, STRATA_OK, "%s", undisturbed.error.message);
}

static void teardown(void)
{
    strata_temp_dir_remove(&dir);
}

TestSuite(resume, .init = setup, .fini = teardown);

static struct toy_run durable(strata_tier params, strata_tier grads, strata_tier states,
                              uint32_t commit_every)
{
    struct toy_run run = strata_toy_durable(params, grads, states, dir.path);
    run.clip = 1;
    run.durability = STRATA_DURABLE_POWER;
    run.commit_every = commit_every;
    run.nvme_bytes = 256u << 20;
    return run;
}

/* Go on to the step given; the run stood at `from`. */
static struct toy_result go(struct toy_run run, uint64_t from, uint32_t to)
{
    run.resume = true;
    run.steps = to;
    struct toy_result result = strata_toy_run(&run);
    cr_assert_eq(result.status, STRATA_OK, "%s", result.error.message);
    cr_expect_eq(result.first_step, from, "began at %llu",
                 (unsigned long long)result.first_step);
    return result;
}

/* It cannot go on, and the story has the word. */
static void cannot_go_on(struct toy_run run, const char *word)
{
    run.resume = true;
    struct toy_result result = strata_toy_run(&run);
    cr_expect_eq(result.status, STRATA_E_INVALID, "%s", result.error.message);
    cr_expect_not_null(strstr(result.error.message, word), "%s", result.error.message);
}

static void equals_undisturbed(const struct toy_result *result)
{
    cr_expect_arr_eq(undisturbed.hash, result->hash, 16);
}

/* Go on to the last step. */
static void ends_as_undisturbed(struct toy_run run, uint64_t from)
{
    struct toy_result result = go(run, from, 7);
    equals_undisturbed(&result);
}

Test(resume, an_unbroken_durable_run_ends_as_any_other)
{
    ends_as_undisturbed(durable(STRATA_NVME, STRATA_HOST, STRATA_NVME, 1), 0);
}

Test(resume, a_run_in_three_parts_ends_as_one)
{
    struct toy_run run = durable(STRATA_NVME, STRATA_NVME, STRATA_NVME, 1);
    run.commit_at_end = true;
    go(run, 0, 2);
    go(run, 2, 3);
    ends_as_undisturbed(run, 3);
}

Test(resume, every_combination_of_homes_goes_on)
{
    uint64_t from = 0;
    struct toy_result result = {0};
    for (uint32_t i = 0; i < 7; i++) {
        struct toy_run run = durable((strata_tier)(1 + i % 3), (strata_tier)(1 + i / 2 % 3),
                                     (strata_tier)(2 + i % 2), 2);
        run.commit_at_end = true;
        result = go(run, from, (uint32_t)from + 1);
        from++;
    }
    equals_undisturbed(&result);
}

Test(resume, states_in_the_device_are_committed_and_come_back)
{
    struct toy_run run = durable(STRATA_DEVICE, STRATA_DEVICE, STRATA_DEVICE, 2);
    run.commit_at_end = true;
    go(run, 0, 3);
    ends_as_undisturbed(run, 3);
}

/* Without a commit at the end the steps since the last one are lost, and done again. */
Test(resume, what_was_not_committed_is_done_again)
{
    const strata_tier states[] = {STRATA_DEVICE, STRATA_HOST, STRATA_NVME};
    for (int i = 0; i < 3; i++) {
        strata_tier others = states[i] == STRATA_DEVICE ? STRATA_DEVICE : STRATA_HOST;
        struct temp_dir other;
        strata_temp_dir_make(&other);
        struct toy_run run = durable(others, others, states[i], 3);
        run.dir = other.path;
        go(run, 0, 5);
        ends_as_undisturbed(run, 3);
        strata_temp_dir_remove(&other);
    }
}

Test(resume, at_the_minimum_budget_too)
{
    struct toy_run run = durable(STRATA_NVME, STRATA_NVME, STRATA_NVME, 1);
    strata_plan plan;
    strata_error error = {0};
    cr_assert_eq(strata_toy_plan(&run, &plan, &error), STRATA_OK, "%s", error.message);
    run.device_bytes = plan.tiers[STRATA_DEVICE].need_bytes;
    cr_assert_eq(strata_toy_plan(&run, &plan, &error), STRATA_OK, "%s", error.message);
    run.host_bytes = plan.tiers[STRATA_HOST].need_bytes;
    run.nvme_bytes = plan.tiers[STRATA_NVME].need_bytes;
    go(run, 0, 4);
    ends_as_undisturbed(run, 4);
}

Test(resume, a_retained_commit_can_be_gone_back_to)
{
    struct toy_run run = durable(STRATA_HOST, STRATA_HOST, STRATA_NVME, 1);
    run.keep = 2;
    run.keep_every = 2;
    go(run, 0, 7);
    run.resume_at = true;
    run.resume_step = 4;
    ends_as_undisturbed(run, 4);
    run.resume_step = 5;
    cannot_go_on(run, "no commit of step 5");
}

Test(resume, the_commit_of_step_0_can_be_gone_back_to)
{
    struct toy_run run = durable(STRATA_NVME, STRATA_HOST, STRATA_HOST, 2);
    run.keep = 1;
    run.keep_every = 100;
    go(run, 0, 5);
    run.resume_at = true;
    ends_as_undisturbed(run, 0);
}

/* By themselves the homes of the second part would have it commit every step. */
Test(resume, commits_come_as_often_as_in_the_run_before)
{
    struct toy_run run = durable(STRATA_HOST, STRATA_HOST, STRATA_HOST, 0);
    run.commit_at_end = true;
    struct toy_result result = go(run, 0, 1);
    cr_expect_eq(result.plan.commit_every, 10);
    run.states = STRATA_NVME;
    result = go(run, 1, 2);
    cr_expect_eq(result.plan.commit_every, 10);
    run.commit_at_end = false;
    run.commit_every = 3;
    result = go(run, 2, 5);
    cr_expect_eq(result.plan.commit_every, 3);
    run.commit_every = 0;
    result = go(run, 3, 7);
    cr_expect_eq(result.plan.commit_every, 3);
    equals_undisturbed(&result);
    go(run, 6, 7);
}

/* Where commits come every step, states in host RAM are not kept a gradient behind, which would
 * take a frame more. */
Test(resume, the_plan_of_a_resume_knows_how_often_the_store_has_commits)
{
    struct toy_run run = durable(STRATA_HOST, STRATA_HOST, STRATA_HOST, 0);
    strata_plan anew, resumed;
    cr_assert_eq(strata_toy_plan(&run, &anew, NULL), STRATA_OK);
    run.commit_every = 1;
    struct toy_result each_step = go(run, 0, 2);
    run.commit_every = 0;
    run.resume = true;
    cr_assert_eq(strata_toy_plan(&run, &resumed, NULL), STRATA_OK);
    cr_expect_eq(resumed.commit_every, 1);
    cr_expect_eq(resumed.tiers[STRATA_HOST].need_bytes,
                 each_step.plan.tiers[STRATA_HOST].need_bytes);
    cr_expect_neq(resumed.tiers[STRATA_HOST].need_bytes, anew.tiers[STRATA_HOST].need_bytes);
    ends_as_undisturbed(run, 2);
}

Test(resume, bf16_states_go_on_too)
{
    struct toy_run reference = in_device;
    reference.states_dtype = STRATA_BF16;
    struct toy_result whole = strata_toy_run(&reference);
    cr_assert_eq(whole.status, STRATA_OK, "%s", whole.error.message);
    struct toy_run run = durable(STRATA_NVME, STRATA_NVME, STRATA_NVME, 1);
    run.states_dtype = STRATA_BF16;
    go(run, 0, 3);
    run.params = run.grads = run.states = STRATA_HOST;
    struct toy_result result = go(run, 3, 7);
    cr_expect_arr_eq(whole.hash, result.hash, 16);
}

Test(resume, another_record_type_is_refused_by_name)
{
    struct toy_run run = durable(STRATA_HOST, STRATA_HOST, STRATA_NVME, 1);
    go(run, 0, 2);
    run.states_dtype = STRATA_BF16;
    cannot_go_on(run, "record type");
}

Test(resume, a_store_that_holds_a_run_is_not_begun_anew)
{
    struct toy_run run = durable(STRATA_HOST, STRATA_HOST, STRATA_NVME, 1);
    go(run, 0, 2);
    struct toy_result result = strata_toy_run(&run);
    cr_expect_eq(result.status, STRATA_E_STATE);
    cr_expect_not_null(strstr(result.error.message, "resume"), "%s", result.error.message);
    ends_as_undisturbed(run, 2);
}

Test(resume, another_identity_is_refused_by_name)
{
    struct toy_run run = durable(STRATA_HOST, STRATA_HOST, STRATA_NVME, 1);
    run.identity = "data=one\nseed=1\n";
    go(run, 0, 2);
    run.identity = "data=one\nseed=2\n";
    cannot_go_on(run, "seed");
}

Test(resume, another_tile_size_is_refused)
{
    struct toy_run run = durable(STRATA_HOST, STRATA_HOST, STRATA_NVME, 1);
    go(run, 0, 2);
    run.tile_elems = 2 * STRATA_BLOCK_ELEMS;
    cannot_go_on(run, "tile");
}

Test(resume, without_clipping_and_in_naive_order_too)
{
    struct toy_run reference = in_device;
    reference.clip = 0;
    struct toy_result expected = strata_toy_run(&reference);
    struct toy_run run = durable(STRATA_NVME, STRATA_NVME, STRATA_NVME, 2);
    run.clip = 0;
    go(run, 0, 4);
    run.no_overlap = true;
    struct toy_result result = go(run, 4, 7);
    cr_expect_arr_eq(expected.hash, result.hash, 16);
}

/* Do states rest in host RAM and on NVMe both? */
static bool is_mixed(const strata_plan *plan)
{
    return plan->tiers[STRATA_HOST].home_bytes[STRATA_STATE] > 0 &&
           plan->tiers[STRATA_NVME].home_bytes[STRATA_STATE] > 0;
}

/* States of 20 MiB, which is more than the frames that the plan likes to have, and the least
 * host bytes that hold a fifth of them beside those. */
static struct toy_run mixed(void)
{
    struct toy_run run = durable(STRATA_NVME, STRATA_HOST, STRATA_AUTO, 2);
    strata_plan plan;
    run.groups = 4;
    run.scale = 16;
    run.tile_elems = 8 * STRATA_BLOCK_ELEMS;
    for (run.host_bytes = 8u << 20; run.host_bytes < 96u << 20; run.host_bytes += 1u << 20)
        if (strata_toy_plan(&run, &plan, NULL) == STRATA_OK && is_mixed(&plan) &&
            plan.tiers[STRATA_HOST].home_bytes[STRATA_STATE] * 4 >=
                plan.tiers[STRATA_NVME].home_bytes[STRATA_STATE])
            return run;
    cr_assert(false, "no budget divides the states");
    return run;
}

static void die(void *user, uint64_t step)
{
    if (step == *(const uint64_t *)user)
        raise(SIGKILL);
}

/* Another process goes on with the run and is killed after this step. */
static void killed_after(struct toy_run run, uint64_t step)
{
    int status;
    pid_t child = fork();
    cr_assert(child >= 0);
    if (child == 0) {
        run.resume = true;
        run.steps = (uint32_t)step + 1;
        run.after_step = die;
        run.after_user = &step;
        (void)strata_toy_run(&run);
        _exit(1);
    }
    cr_assert(waitpid(child, &status, 0) == child);
    cr_expect(WIFSIGNALED(status), "it ended before step %d", (int)step);
}

/* Updates run ahead of the norm, which is over the limit in some steps: those on NVMe in a slot
 * more, those in host RAM a gradient behind. A commit holds both, of one step. */
Test(resume, states_in_host_memory_and_on_nvme_are_committed_together)
{
    struct toy_run run = mixed();
    struct toy_run reference = in_device;
    run.clip_mode = STRATA_CLIP_SPECULATIVE;
    reference.groups = run.groups;
    reference.scale = run.scale;
    reference.clip = 1e30f;
    run.clip = reference.clip = (float)strata_toy_run(&reference).grad_norm * 1.0001f;
    undisturbed = strata_toy_run(&reference);
    cr_assert_eq(undisturbed.status, STRATA_OK, "%s", undisturbed.error.message);
    for (uint64_t step = 1; step < 7; step++)
        killed_after(run, step);
    run.resume = true;
    run.steps = 7;
    struct toy_result result = strata_toy_run(&run);
    cr_assert_eq(result.status, STRATA_OK, "%s", result.error.message);
    cr_expect(result.first_step == 2 || result.first_step == 4);
    cr_expect(is_mixed(&result.plan));
    cr_expect(result.stats.tiles_ahead > 0);
    equals_undisturbed(&result);
}

static void another_goes_on(void)
{
    struct toy_run run = durable(STRATA_NVME, STRATA_HOST, STRATA_NVME, 1);
    go(run, 2, 3);
}

static void another_begins(void)
{
    struct toy_run run = durable(STRATA_NVME, STRATA_HOST, STRATA_NVME, 1);
    go(run, 0, 2);
}

static void remove_store(void)
{
    strata_temp_dir_remove(&dir);
    cr_assert(mkdir(dir.path, 0700) == 0);
}

static void remove_and_begin(void)
{
    remove_store();
    another_begins();
}

/* From step 0 or 2 on, while this happens between planning and opening. */
static void is_refused(void (*happens)(void))
{
    struct toy_run run = durable(STRATA_NVME, STRATA_HOST, STRATA_NVME, 1);
    run.resume = true;
    run.steps = 7;
    meanwhile = happens;
    struct toy_result result = strata_toy_run(&run);
    cr_expect_null(meanwhile);
    cr_expect_eq(result.status, STRATA_E_STATE, "%s", result.error.message);
    cr_expect_not_null(strstr(result.error.message, "was changed by another process"), "%s",
                       result.error.message);
}

Test(resume, a_store_that_went_on_since_it_was_planned_for_is_refused)
{
    another_begins();
    is_refused(another_goes_on);
    ends_as_undisturbed(durable(STRATA_NVME, STRATA_HOST, STRATA_NVME, 1), 3);
}

Test(resume, a_store_that_is_gone_since_it_was_planned_for_is_not_made_anew)
{
    another_begins();
    is_refused(remove_store);
    cr_expect_eq(strata_temp_dir_count(dir.path), 0);
}

Test(resume, another_store_at_the_same_step_is_refused)
{
    another_begins();
    is_refused(remove_and_begin);
    ends_as_undisturbed(durable(STRATA_NVME, STRATA_HOST, STRATA_NVME, 1), 2);
}

Test(resume, a_store_that_came_to_be_since_it_was_planned_for_is_refused)
{
    is_refused(another_begins);
    ends_as_undisturbed(durable(STRATA_NVME, STRATA_HOST, STRATA_NVME, 1), 2);
}
