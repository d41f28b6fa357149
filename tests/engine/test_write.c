/*
 * Replacing master weights and moments between steps: the bytes reach every home, the weights
 * follow, commits that are made keep what they have.
 */

#include "tests/engine/engine_rig.h"
#include "tests/support/temp_dir.h"

#include <criterion/criterion.h>

#include <math.h>
#include <string.h>

#define STEPS 4u

static struct temp_dir dir;

static struct toy_run placed(strata_tier params, strata_tier grads, strata_tier states)
{
    struct toy_run run = strata_toy_homes(params, grads, states);
    run.clip = 1;
    run.steps = STEPS;
    run.commit_every = 1;
    run.dir = dir.path;
    return run;
}

static const strata_tier homes[][STRATA_PART_COUNT] = {
    {STRATA_DEVICE, STRATA_DEVICE, STRATA_DEVICE}, {STRATA_HOST, STRATA_HOST, STRATA_HOST},
    {STRATA_NVME, STRATA_NVME, STRATA_NVME},       {STRATA_NVME, STRATA_HOST, STRATA_HOST},
    {STRATA_HOST, STRATA_HOST, STRATA_NVME},       {STRATA_DEVICE, STRATA_HOST, STRATA_NVME},
};
#define PLACES (sizeof homes / sizeof *homes)

static void setup(void)
{
    strata_temp_dir_make(&dir);
}

static void teardown(void)
{
    strata_temp_dir_remove(&dir);
}

TestSuite(write, .init = setup, .fini = teardown);

static struct toy_result run_in(struct toy_run run)
{
    struct temp_dir store;
    strata_temp_dir_make(&store);
    run.dir = store.path;
    struct toy_result result = strata_toy_run(&run);
    cr_assert_eq(result.status, STRATA_OK, "%s", result.error.message);
    strata_temp_dir_remove(&store);
    return result;
}

/* Speculation, no commits, commits at every step and at every second: nothing is lost or mixed
 * up by records that change their slots between steps. bf16 moments with commits at each. */
Test(write, what_was_read_changes_no_bit)
{
    for (int moments = 0; moments < 2; moments++) {
        struct toy_run plain = placed(STRATA_HOST, STRATA_HOST, STRATA_HOST);
        plain.states_dtype = moments ? STRATA_BF16 : STRATA_FP32;
        struct toy_result reference = run_in(plain);
        for (size_t i = 0; i < PLACES; i++)
            for (uint32_t way = moments ? 1 : 0; way < (moments ? 2 : 3); way++) {
                struct toy_run run = placed(homes[i][0], homes[i][1], homes[i][2]);
                run.states_dtype = plain.states_dtype;
                run.rewrite = true;
                run.clip_mode = STRATA_CLIP_SPECULATIVE;
                run.durability = way > 0 ? STRATA_DURABLE_POWER : STRATA_SCRATCH;
                run.commit_every = way;
                struct toy_result result = run_in(run);
                cr_expect_arr_eq(result.hash, reference.hash, 16, "homes %zu, way %u", i, way);
            }
    }
}

/* The gradients of later steps follow from the weights that were written. */
Test(write, what_was_changed_trains_the_same_wherever_it_rests)
{
    struct toy_run run = placed(STRATA_HOST, STRATA_HOST, STRATA_HOST);
    struct toy_result untouched = run_in(run);
    run.halve_at = 2;
    struct toy_result reference = run_in(run);
    cr_expect_neq(memcmp(reference.hash, untouched.hash, 16), 0);
    for (size_t i = 0; i < PLACES; i++) {
        run = placed(homes[i][0], homes[i][1], homes[i][2]);
        run.halve_at = 2;
        run.evaluate = true;
        run.durability = STRATA_DURABLE_POWER;
        struct toy_result result = run_in(run);
        cr_expect_arr_eq(result.hash, reference.hash, 16, "homes %zu", i);
        cr_expect_eq(result.eval_wrong, 0);
    }
}

static strata_tier state_home;

/* Step 2 is committed when its records are halved: its commit has them whole. */
Test(write, a_commit_that_is_made_keeps_what_it_has)
{
    for (state_home = STRATA_HOST; state_home <= STRATA_NVME; state_home++) {
        struct temp_dir store;
        strata_temp_dir_make(&store);
        struct toy_run run = placed(STRATA_HOST, STRATA_HOST, state_home);
        run.steps = 2;
        struct toy_result whole = run_in(run);
        run.dir = store.path;
        run.durability = STRATA_DURABLE_POWER;
        run.halve_at = 2;
        struct toy_result halved = strata_toy_run(&run);
        cr_assert_eq(halved.status, STRATA_OK, "%s", halved.error.message);
        cr_expect_neq(memcmp(halved.hash, whole.hash, 16), 0);
        run.halve_at = 0;
        run.resume = true;
        struct toy_result resumed = strata_toy_run(&run);
        cr_assert_eq(resumed.status, STRATA_OK, "%s", resumed.error.message);
        cr_expect_eq(resumed.first_step, 2);
        cr_expect_arr_eq(resumed.hash, whole.hash, 16);
        strata_temp_dir_remove(&store);
    }
}

/* And the next one has what was written. */
Test(write, the_next_commit_has_what_was_written)
{
    struct toy_run run = placed(STRATA_NVME, STRATA_NVME, STRATA_NVME);
    run.durability = STRATA_DURABLE_POWER;
    run.halve_at = 2;
    struct toy_result whole = run_in(run);
    run.steps = 3;
    struct toy_result first = strata_toy_run(&run);
    cr_assert_eq(first.status, STRATA_OK, "%s", first.error.message);
    run.steps = STEPS;
    run.resume = true;
    struct toy_result resumed = strata_toy_run(&run);
    cr_assert_eq(resumed.status, STRATA_OK, "%s", resumed.error.message);
    cr_expect_arr_eq(resumed.hash, whole.hash, 16);
}

static void ones(void *user, uint32_t group, uint32_t tensor, uint64_t first, uint64_t count,
                 float *out)
{
    (void)user;
    (void)group;
    (void)tensor;
    (void)first;
    for (uint64_t i = 0; i < count; i++)
        out[i] = 1;
}

TestSuite(write_calls, .init = open_engine_rig, .fini = close_engine_rig);

static void refused(strata_status status, const char *story)
{
    cr_expect_eq(status, STRATA_E_INVALID);
    cr_expect_not_null(strstr(strata_engine_error(engine)->message, story), "%s: no %s",
                       strata_engine_error(engine)->message, story);
}

Test(write_calls, what_may_not_be_there_is_refused_and_changes_nothing)
{
    uint8_t before[16];
    uint8_t after[16];
    const float nan_last[] = {1, 2, NAN};
    const float infinite[] = {INFINITY};
    const float below[] = {-1e-30f};
    create_engine(ones);
    cr_assert_eq(strata_engine_hash(engine, before), STRATA_OK);
    refused(strata_engine_write(engine, 2, 0, STRATA_MASTER, 5, 3, nan_last),
            "element 7 of tensor g2.t0 would be nan");
    refused(strata_engine_write(engine, 2, 0, STRATA_MOMENT1, 0, 1, infinite), "finite");
    refused(strata_engine_write(engine, 2, 0, STRATA_MOMENT2, 0, 1, below), "below zero");
    refused(strata_engine_write(engine, 2, 0, STRATA_MASTER, 98, 3, below), "has 100");
    refused(strata_engine_write(engine, TOY_GROUPS, 0, STRATA_MASTER, 0, 1, below), "group 7");
    refused(strata_engine_write(engine, 2, TOY_TENSORS, STRATA_MASTER, 0, 1, below),
            "tensor 2");
    refused(strata_engine_write(engine, 2, 0, (strata_record)3, 0, 1, below), "record 3");
    refused(strata_engine_write(engine, 2, 0, STRATA_MASTER, 0, 1, NULL), "values is NULL");
    cr_expect_eq(strata_engine_write(engine, 2, 0, STRATA_MASTER, 100, 0, NULL), STRATA_OK);
    cr_expect_eq(strata_engine_write(NULL, 2, 0, STRATA_MASTER, 0, 1, below), STRATA_E_INVALID);
    cr_assert_eq(strata_engine_hash(engine, after), STRATA_OK);
    cr_expect_arr_eq(before, after, 16);
    cr_assert_eq(strata_step_begin(engine, 0.1), STRATA_OK);
    cr_expect_eq(strata_engine_write(engine, 2, 0, STRATA_MASTER, 0, 1, below), STRATA_E_STATE);
}

/* A moment does not touch the weights, and a value is what is read afterwards. */
Test(write_calls, a_value_is_read_as_it_was_written)
{
    const float value = -0.25f;
    float out[3];
    create_engine(ones);
    cr_assert_eq(strata_engine_write(engine, 4, 1, STRATA_MASTER, 15, 1, &value), STRATA_OK);
    cr_assert_eq(strata_engine_read(engine, 4, 1, STRATA_MASTER, 13, 3, out), STRATA_OK);
    cr_expect_eq(out[0], 1);
    cr_expect_eq(out[1], 1);
    cr_expect_eq(out[2], value);
    cr_assert_eq(strata_engine_read(engine, 4, 1, STRATA_MOMENT1, 15, 1, out), STRATA_OK);
    cr_expect_eq(out[0], 0);
}

/* The largest float is infinite once it is rounded to a bf16 moment. */
Test(write_calls, what_rounds_to_infinity_is_refused)
{
    const float edge = 0x1.fep127f;
    const float past = 0x1.fep127f + 0x1p104f;
    float out;
    strata_engine_desc desc = describe_engine(ones);
    desc.states_dtype = STRATA_BF16;
    cr_assert_eq(strata_engine_create(&engine, &desc, &error), STRATA_OK, "%s", error.message);
    cr_assert_eq(strata_engine_write(engine, 2, 0, STRATA_MOMENT2, 0, 1, &edge), STRATA_OK);
    cr_assert_eq(strata_engine_read(engine, 2, 0, STRATA_MOMENT2, 0, 1, &out), STRATA_OK);
    cr_expect_eq(out, edge);
    refused(strata_engine_write(engine, 2, 0, STRATA_MOMENT2, 0, 1, &past), "finite");
    cr_expect_eq(strata_engine_write(engine, 2, 0, STRATA_MASTER, 0, 1, &past), STRATA_OK,
                 "master weights are fp32");
}
