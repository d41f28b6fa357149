#define _GNU_SOURCE
/*
 * Frozen groups: parameters that are stored once and stay as they are, and nothing else. The
 * toy looks at every use of a frozen group whether its bytes are the initial ones, rounded.
 */

#include "base/random.h"
#include "tests/support/temp_dir.h"
#include "tests/support/toy.h"

#include <criterion/criterion.h>

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* A group of several tiles, the one that is used at both ends, and the last one. */
#define FROZEN 0x51u
#define STEPS  6u

static struct temp_dir dir;
static struct toy_result reference;

static const struct toy_run in_device = {.params = STRATA_DEVICE,
                                         .grads = STRATA_DEVICE,
                                         .states = STRATA_DEVICE,
                                         .stash = STRATA_DEVICE,
                                         .clip = 1,
                                         .frozen = FROZEN,
                                         .steps = STEPS};

static void expect_good(const struct toy_result *result)
{
    cr_assert_eq(result->status, STRATA_OK, "%s", result->error.message);
    cr_expect_gt(result->frozen_uses, 0);
    cr_expect_eq(result->frozen_wrong, 0, "%u of %u uses saw other bytes",
                 (unsigned)result->frozen_wrong, (unsigned)result->frozen_uses);
}

static void setup(void)
{
    strata_temp_dir_make(&dir);
    reference = strata_toy_run(&in_device);
    expect_good(&reference);
}

static void teardown(void)
{
    strata_temp_dir_remove(&dir);
}

TestSuite(frozen, .init = setup, .fini = teardown);

static void expect_reference(const struct toy_result *result)
{
    expect_good(result);
    cr_expect_arr_eq(result->hash, reference.hash, 16);
    cr_expect_eq(result->grad_norm, reference.grad_norm);
}

static struct toy_run placed(strata_tier params, strata_tier grads, strata_tier states)
{
    struct toy_run run = in_device;
    run.params = params;
    run.grads = grads;
    run.states = states;
    run.stash = STRATA_HOST;
    run.dir = dir.path;
    return run;
}

/* A group whose gradient is zero and that does not decay stays as it is, too, and adds nothing
 * to the norm: the others must come to the same bits. */
Test(frozen, others_train_as_beside_a_group_whose_gradient_is_zero)
{
    struct toy_run still = in_device;
    struct toy_run frozen = in_device;
    frozen.still = 2;
    still.frozen = 0;
    still.still = FROZEN | 2;
    struct toy_result a = strata_toy_run(&frozen);
    struct toy_result b = strata_toy_run(&still);
    expect_good(&a);
    cr_assert_eq(b.status, STRATA_OK, "%s", b.error.message);
    cr_expect_eq(a.moving_hash, b.moving_hash);
    cr_expect_eq(a.grad_norm, b.grad_norm);
    cr_expect_neq(memcmp(a.hash, b.hash, 16), 0, "the state hash has frozen groups in it");
}

Test(frozen, placement_changes_no_bit)
{
    const struct toy_run runs[] = {
        placed(STRATA_HOST, STRATA_HOST, STRATA_HOST),
        placed(STRATA_NVME, STRATA_NVME, STRATA_NVME),
        placed(STRATA_NVME, STRATA_HOST, STRATA_HOST),
        placed(STRATA_HOST, STRATA_HOST, STRATA_NVME),
        placed(STRATA_DEVICE, STRATA_HOST, STRATA_NVME),
    };
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        for (int durability = STRATA_SCRATCH; durability <= STRATA_DURABLE_POWER;
             durability++) {
            struct temp_dir store;
            struct toy_run run = runs[i];
            strata_temp_dir_make(&store);
            run.dir = store.path;
            run.durability = (strata_durability)durability;
            run.commit_every = 2;
            run.clip_mode = i % 2 == 0 ? STRATA_CLIP_SPECULATIVE : STRATA_CLIP_AUTO;
            struct toy_result result = strata_toy_run(&run);
            expect_reference(&result);
            strata_temp_dir_remove(&store);
        }
    }
}

/* Each tier at the least it can do with, and at one byte less. */
Test(frozen, least_budgets_are_enough_and_one_byte_less_is_refused)
{
    struct toy_run run = placed(STRATA_NVME, STRATA_HOST, STRATA_NVME);
    strata_plan plan;
    strata_error error = {0};
    run.durability = STRATA_DURABLE_POWER;
    run.commit_every = 1;
    cr_assert_eq(strata_toy_plan(&run, &plan, &error), STRATA_OK, "%s", error.message);
    run.device_bytes = plan.tiers[STRATA_DEVICE].need_bytes;
    cr_assert_eq(strata_toy_plan(&run, &plan, &error), STRATA_OK, "%s", error.message);
    run.host_bytes = plan.tiers[STRATA_HOST].need_bytes;
    run.nvme_bytes = plan.tiers[STRATA_NVME].need_bytes;
    uint64_t *budgets[] = {&run.device_bytes, &run.host_bytes, &run.nvme_bytes};
    for (int i = 0; i < 3; i++) {
        --*budgets[i];
        struct toy_result refused = strata_toy_run(&run);
        cr_expect_eq(refused.status, STRATA_E_NOMEM, "tier %d", i);
        ++*budgets[i];
    }
    struct toy_result result = strata_toy_run(&run);
    expect_reference(&result);
}

Test(frozen, the_plan_counts_parameters_alone)
{
    struct toy_run trained = in_device;
    strata_plan with, without;
    strata_error error = {0};
    trained.frozen = 0;
    cr_assert_eq(strata_toy_plan(&in_device, &with, &error), STRATA_OK, "%s", error.message);
    cr_assert_eq(strata_toy_plan(&trained, &without, &error), STRATA_OK, "%s", error.message);
    /* Groups 0, 4 and 6: 50007, 90017 and 70005 elements in 4, 6 and 5 blocks. */
    const uint64_t frozen = 50007 + 90017 + 70005;
    const uint64_t padded = (4 + 6 + 5) * (uint64_t)STRATA_BLOCK_ELEMS;
    const uint64_t *home = with.tiers[STRATA_DEVICE].home_bytes;
    const uint64_t *home_trained = without.tiers[STRATA_DEVICE].home_bytes;
    cr_expect_eq(with.frozen_count, frozen);
    cr_expect_eq(with.param_count + frozen, without.param_count);
    cr_expect_eq(without.frozen_count, 0);
    cr_expect_eq(with.tile_count, without.tile_count);
    cr_expect_eq(home[STRATA_PARAM], home_trained[STRATA_PARAM]);
    cr_expect_eq(home[STRATA_GRAD] + 2 * padded, home_trained[STRATA_GRAD]);
    cr_expect_eq(home[STRATA_STATE] + 12 * padded, home_trained[STRATA_STATE]);
    cr_expect_eq(with.state_bytes + 14 * frozen, without.state_bytes);
}

static uint64_t frozen_bytes_in(const strata_plan *plan, strata_tier tier)
{
    cr_expect_leq(plan->tiers[tier].frozen_bytes, plan->tiers[tier].home_bytes[STRATA_PARAM]);
    return plan->tiers[tier].frozen_bytes;
}

Test(frozen, the_plan_says_where_frozen_parameters_rest)
{
    static const strata_tier tiers[] = {STRATA_DEVICE, STRATA_HOST, STRATA_NVME};
    const uint64_t padded = (4 + 6 + 5) * (uint64_t)STRATA_BLOCK_ELEMS;
    for (int i = 0; i < 3; i++) {
        struct toy_run run = placed(tiers[i], STRATA_HOST, STRATA_HOST);
        strata_plan plan;
        strata_error error = {0};
        cr_assert_eq(strata_toy_plan(&run, &plan, &error), STRATA_OK, "%s", error.message);
        for (int tier = 0; tier < 3; tier++)
            cr_expect_eq(frozen_bytes_in(&plan, tiers[tier]), tier == i ? 2 * padded : 0);
        run.frozen = 0;
        cr_assert_eq(strata_toy_plan(&run, &plan, &error), STRATA_OK, "%s", error.message);
        cr_expect_eq(frozen_bytes_in(&plan, tiers[i]), 0);
    }
}

/* A step reads a frozen group's parameters where it brings them to the device, and never writes
 * them: what it writes are those of the trained groups, once. */
Test(frozen, steps_write_no_frozen_byte)
{
    struct toy_run run = placed(STRATA_NVME, STRATA_HOST, STRATA_HOST);
    const uint64_t frozen = (4 + 6 + 5) * (uint64_t)STRATA_BLOCK_ELEMS;
    /* Nothing is done twice: there is no norm to wait for. */
    run.clip = 0;
    struct toy_result result = strata_toy_run(&run);
    expect_good(&result);
    uint64_t read = result.stats.lanes[STRATA_LANE_NVME_READ].bytes;
    uint64_t written = result.stats.lanes[STRATA_LANE_NVME_WRITE].bytes;
    cr_expect_eq(written, STEPS * 2 * (result.plan.padded_elems - frozen));
    cr_expect_geq(read, STEPS * 2 * result.plan.padded_elems);
}

/* Twelve bytes an element in each of two slots, or the two of bf16 once. */
Test(frozen, parameters_stand_in_the_store_once)
{
    struct toy_run run = placed(STRATA_NVME, STRATA_HOST, STRATA_HOST);
    strata_plan with, without;
    strata_error error = {0};
    run.durability = STRATA_DURABLE_POWER;
    run.commit_every = 1;
    cr_assert_eq(strata_toy_plan(&run, &with, &error), STRATA_OK, "%s", error.message);
    run.frozen = 0;
    cr_assert_eq(strata_toy_plan(&run, &without, &error), STRATA_OK, "%s", error.message);
    /* Trained, the parameters have a place of their own besides their state's slots. */
    const uint64_t padded = (4 + 6 + 5) * (uint64_t)STRATA_BLOCK_ELEMS;
    cr_expect_eq(with.tiers[STRATA_NVME].used_bytes + (2 * 12 + 2 - 2) * padded,
                 without.tiers[STRATA_NVME].used_bytes);
}

static void die(void *user, uint64_t step)
{
    if (step == *(const uint64_t *)user)
        raise(SIGKILL);
}

/* Die after the third step, go on in another process's place. */
Test(frozen, a_killed_run_goes_on_to_the_same_state)
{
    static const strata_tier homes[][3] = {
        {STRATA_NVME, STRATA_NVME, STRATA_NVME},
        {STRATA_HOST, STRATA_HOST, STRATA_HOST},
        {STRATA_DEVICE, STRATA_DEVICE, STRATA_DEVICE},
    };
    uint64_t last = 3;
    for (uint32_t i = 0; i < 3; i++) {
        struct temp_dir store;
        struct toy_run run = placed(homes[i][0], homes[i][1], homes[i][2]);
        strata_temp_dir_make(&store);
        run.dir = store.path;
        run.durability = STRATA_DURABLE_POWER;
        run.commit_every = 1 + i;
        run.keep = 1;
        run.keep_every = 2;
        run.resume = true;
        run.after_step = die;
        run.after_user = &last;
        pid_t child = fork();
        if (child == 0) {
            strata_toy_run(&run);
            _exit(1);
        }
        int status;
        cr_assert(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
        run.after_step = NULL;
        /* Homes are another run's choice. */
        run.params = STRATA_HOST;
        run.grads = run.states = STRATA_AUTO;
        struct toy_result result = strata_toy_run(&run);
        expect_reference(&result);
        strata_temp_dir_remove(&store);
    }
}

static struct toy_run stored(void)
{
    struct toy_run run = placed(STRATA_NVME, STRATA_HOST, STRATA_NVME);
    run.durability = STRATA_DURABLE_POWER;
    run.commit_every = 1;
    run.steps = 2;
    struct toy_result result = strata_toy_run(&run);
    expect_good(&result);
    run.resume = true;
    run.steps = STEPS;
    return run;
}

/* The file of the store that has the data. */
static void find_file(char *out, size_t bytes)
{
    DIR *opened = opendir(dir.path);
    cr_assert(opened != NULL);
    off_t largest = 0;
    for (struct dirent *entry; (entry = readdir(opened)) != NULL;) {
        char path[PATH_MAX + 300];
        struct stat facts;
        snprintf(path, sizeof path, "%s/%s", dir.path, entry->d_name);
        if (stat(path, &facts) != 0 || !S_ISREG(facts.st_mode) || facts.st_size <= largest)
            continue;
        largest = facts.st_size;
        snprintf(out, bytes, "%s", path);
    }
    closedir(opened);
    cr_assert(largest > 0);
}

/* Flip a bit of what group 4's first weights are in bf16: its first tile. */
static void damage_frozen_tile(void)
{
    char path[PATH_MAX + 300];
    float initial[16];
    uint8_t wanted[32], block[4096];
    strata_random_normal(42, 4 * TOY_TENSORS, 0, 16, 0.5f, initial);
    strata_convert(STRATA_ISA_SCALAR, wanted, STRATA_BF16, initial, STRATA_FP32, 16);
    find_file(path, sizeof path);
    int file = open(path, O_RDWR | O_CLOEXEC);
    cr_assert(file >= 0);
    uint32_t found = 0;
    for (off_t at = 0; pread(file, block, sizeof block, at) == sizeof block;
         at += (off_t)sizeof block) {
        if (memcmp(block, wanted, sizeof wanted) != 0)
            continue;
        found++;
        block[1000] ^= 4;
        cr_assert(pwrite(file, block, sizeof block, at) == sizeof block);
    }
    cr_assert(fsync(file) == 0 && close(file) == 0);
    cr_assert_eq(found, 1, "a frozen tile is in the store %u times", found);
}

static uint32_t bad_lines;

static void note_bad(void *user, const char *line)
{
    (void)user;
    bad_lines += strstr(line, "tile") != NULL;
}

Test(frozen, a_damaged_tile_is_found_by_scrub_and_refused_by_name)
{
    struct toy_run run = stored();
    const char *dirs[] = {dir.path};
    strata_scrub_desc scrub = {.dirs = dirs, .dir_count = 1, .on_bad = note_bad};
    strata_scrub_result scrubbed;
    strata_error error = {0};
    cr_assert_eq(strata_store_scrub(&scrubbed, &scrub, &error), STRATA_OK, "%s", error.message);
    cr_expect_eq(scrubbed.bad, 0);
    /* Tiles of one block each: 32 of all groups. */
    cr_expect_eq(scrubbed.tiles, reference.plan.tile_count);
    damage_frozen_tile();
    cr_expect_neq(strata_store_scrub(&scrubbed, &scrub, &error), STRATA_E_IO);
    cr_expect_eq(scrubbed.bad, 1);
    cr_expect_eq(bad_lines, 1);
    struct toy_result result = strata_toy_run(&run);
    cr_expect_eq(result.status, STRATA_E_CORRUPT);
    cr_expect_not_null(strstr(result.error.message, "tile"), "%s", result.error.message);
}

Test(frozen, a_run_with_other_groups_frozen_is_refused_by_name)
{
    struct toy_run run = stored();
    static const uint32_t others[] = {0, FROZEN | 2, 0x52};
    for (int i = 0; i < 3; i++) {
        run.frozen = others[i];
        struct toy_result result = strata_toy_run(&run);
        cr_expect_eq(result.status, STRATA_E_INVALID);
        cr_expect_not_null(strstr(result.error.message, "frozen"), "%s", result.error.message);
        cr_expect_not_null(strstr(result.error.message, "g0.t0,g4.t0"), "%s",
                           result.error.message);
    }
    run.frozen = FROZEN;
    struct toy_result result = strata_toy_run(&run);
    expect_reference(&result);
}

Test(frozen, a_model_without_a_trained_group_is_refused)
{
    struct toy_run run = in_device;
    run.frozen = (1u << TOY_GROUPS) - 1;
    struct toy_result result = strata_toy_run(&run);
    cr_expect_eq(result.status, STRATA_E_INVALID);
    cr_expect_not_null(strstr(result.error.message, "all 7 groups are frozen"), "%s",
                       result.error.message);
}

static void zeros(void *user, uint32_t group, uint32_t tensor, uint64_t first, uint64_t count,
                  float *out)
{
    (void)user, (void)group, (void)tensor, (void)first;
    memset(out, 0, count * sizeof *out);
}

Test(frozen, a_gradient_of_a_frozen_group_is_refused_by_name)
{
    struct toy toy;
    strata_plan plan;
    strata_error error = {0};
    strata_device *device;
    strata_workers *workers;
    strata_toy_make(&toy);
    toy.groups[2].frozen = true;
    cr_assert_eq(strata_device_open_host(&device, &error), STRATA_OK);
    cr_assert_eq(
        strata_workers_create(&workers, &(strata_workers_desc){.thread_count = 1}, &error),
        STRATA_OK);
    strata_engine_desc desc = {.device = device,
                               .workers = workers,
                               .model = &toy.model,
                               .adam = &toy.adam,
                               .init = zeros,
                               .compute_dtype = STRATA_BF16};
    cr_expect_eq(strata_engine_plan(&plan, &desc, &error), STRATA_E_INVALID);
    cr_expect_not_null(strstr(error.message, "a gradient of group g2.t0, which is frozen"),
                       "%s", error.message);
    strata_workers_destroy(workers);
    strata_device_close(device);
}
