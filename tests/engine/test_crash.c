#define _GNU_SOURCE
/*
 * The engine on drives that lose their power, at every request there is, wherever its states
 * rest.
 *
 * tests/io/test_crash.c has the store alone and ten thousand states. Here everything above it
 * is real: pager, schedule, committer; a small model trains over two drives, five tiles each,
 * stops, resumes and trains on, once for every request in it (the short form: for every third),
 * and loses its power there. Of what seeds make of the unsynced sectors an engine is resumed.
 * It must stand at the last commit that the store called durable or at the one it was making,
 * retained ones included, and have the very state that an undisturbed run has after that step.
 * Updates run ahead of the norm, which is over the limit in some steps.
 *
 * Which request is the n-th is another one each time, since threads race for it; what must hold
 * does not depend on it.
 *
 * Built with the linker's --wrap for the two functions below.
 */

#include "io/store_internal.h"
#include "tests/support/io_sim.h"
#include "tests/support/temp_dir.h"
#include "tests/support/toy.h"

#include <criterion/criterion.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Requests from one loss to the next, and survivors of each, in the short form and the long. */
#define STRIDE      3u
#define LONG_STRIDE 1u
#define LONG_SEEDS  20u

/* Steps of the first part and in all. Neither is a commit's where those come every two. */
#define PART  3u
#define STEPS 5u

/* What a store lists, newest first. */
struct listing {
    uint32_t count; /* 0: no commit */
    uint64_t steps[1 + STRATA_STORE_MAX_KEEP];
};

static struct temp_dir dir;
static char drives[2][PATH_MAX + 8];
static const char *const dirs[2] = {drives[0], drives[1]};
static struct io_sim sim;
static struct io_sim_plan plan = {.sim = &sim};
static struct listing durable; /* as far as the store said */
static struct listing pending; /* what the commit under way makes of it */
static struct listing found;   /* by the latest open */
static float clip;             /* some steps' norms are over it */
static uint8_t reference[STEPS + 1][16];

extern strata_status __real_strata_store_commit(struct store *store,
                                                const struct store_line *lines,
                                                uint32_t line_count, uint64_t updates,
                                                double loss_scale);

strata_status __wrap_strata_store_open(struct store **out, const struct store_desc *desc,
                                       strata_error *error);
strata_status __wrap_strata_store_commit(struct store *store, const struct store_line *lines,
                                         uint32_t line_count, uint64_t updates,
                                         double loss_scale);

static void list(struct listing *out, const struct store_line *lines, uint32_t count)
{
    *out = (struct listing){.count = count};
    for (uint32_t i = 0; i < count; i++)
        out->steps[i] = lines[i].step;
}

static bool same(const struct listing *a, const struct listing *b)
{
    return a->count == b->count && memcmp(a->steps, b->steps, a->count * sizeof *a->steps) == 0;
}

strata_status __wrap_strata_store_open(struct store **out, const struct store_desc *desc,
                                       strata_error *error)
{
    strata_status status = strata_store_open_on(out, desc, &strata_io_sim, &plan, error);
    if (status == STRATA_OK) {
        const struct store_recovery *recovery = strata_store_recovery(*out);
        list(&found, recovery->lines, recovery->line_count);
    }
    return status;
}

strata_status __wrap_strata_store_commit(struct store *store, const struct store_line *lines,
                                         uint32_t line_count, uint64_t updates,
                                         double loss_scale)
{
    list(&pending, lines, line_count);
    strata_status status =
        __real_strata_store_commit(store, lines, line_count, updates, loss_scale);
    if (status == STRATA_OK)
        durable = pending;
    return status;
}

/* The state after each step of a run that nobody disturbs. */
static void make_reference(uint32_t frozen)
{
    struct toy_run free_run = {.groups = 4, .frozen = frozen, .clip = 1e30f, .steps = STEPS};
    clip = (float)strata_toy_run(&free_run).grad_norm * 1.0001f;
    for (uint32_t steps = 0; steps <= STEPS; steps++) {
        struct toy_run run = {.groups = 4,
                              .frozen = frozen,
                              .clip = clip,
                              .steps = steps > 0 ? steps : TOY_NO_STEPS};
        struct toy_result result = strata_toy_run(&run);
        cr_assert(result.status == STRATA_OK, "%s", result.error.message);
        memcpy(reference[steps], result.hash, sizeof result.hash);
    }
}

static void setup(void)
{
    strata_temp_dir_make_in_memory(&dir);
    for (int i = 0; i < 2; i++) {
        snprintf(drives[i], sizeof drives[i], "%s/%c", dir.path, 'a' + i);
        cr_assert(mkdir(drives[i], 0700) == 0);
    }
    make_reference(0);
}

static void teardown(void)
{
    strata_sim_free(&sim);
    strata_temp_dir_remove(&dir);
}

TestSuite(crash, .init = setup, .fini = teardown);

/* What all runs here have in common. */
static struct toy_run complete(const struct toy_run *what)
{
    struct toy_run run = *what;
    run.groups = 4;
    run.clip = clip;
    run.clip_mode = STRATA_CLIP_SPECULATIVE;
    run.stash = STRATA_HOST;
    run.nvme_bytes = 256u << 20;
    run.dir = dirs[0];
    run.other_dir = dirs[1];
    run.allow = STRATA_ALLOW_BUFFERED_IO;
    run.durability = STRATA_DURABLE_POWER;
    run.resume = true;
    return run;
}

/* One part of the run: to this step, from wherever the store stands. */
static struct toy_result go(const struct toy_run *what, uint32_t steps)
{
    struct toy_run run = complete(what);
    run.steps = steps;
    strata_sim_power_on(&sim);
    return strata_toy_run(&run);
}

/* false: the power went, maybe when all was done but for a commit on its way. */
static bool live(const struct toy_run *what)
{
    strata_sim_remove(dirs, 2);
    sim.attempts = sim.writes = 0;
    durable.count = pending.count = 0;
    struct toy_result result = go(what, PART);
    if (result.status == STRATA_OK && !sim.off)
        result = go(what, STEPS);
    cr_assert(result.status == STRATA_OK || sim.off, "%s", result.error.message);
    return !sim.off;
}

static void expect_state(const struct toy_result *result, uint64_t step, uint64_t request)
{
    cr_assert(result->status == STRATA_OK, "request %d: %s", (int)request,
              result->error.message);
    cr_assert(result->first_step == step && step <= STEPS, "request %d: at step %d, not %d",
              (int)request, (int)result->first_step, (int)step);
    cr_assert(result->frozen_wrong == 0, "request %d: a frozen group has other bytes",
              (int)request);
    cr_assert(memcmp(result->hash, reference[step], 16) == 0,
              "request %d: another state after step %d", (int)request, (int)step);
}

/* Resume what survived; its retained commits as well, newest first, for each drops the ones
 * before. */
static void check_survivor(const struct toy_run *what, const struct listing *before,
                           const struct listing *after, uint64_t request)
{
    struct toy_run run = *what;
    struct toy_result result = go(&run, TOY_NO_STEPS);
    struct listing listed = found;
    expect_state(&result, listed.count > 0 ? listed.steps[0] : 0, request);
    cr_assert(same(&listed, before) || same(&listed, after),
              "request %d: %d commits are listed, the last of step %d", (int)request,
              (int)listed.count, (int)listed.steps[0]);
    run.resume_at = true;
    for (uint32_t i = 1; i < listed.count; i++) {
        run.resume_step = listed.steps[i];
        result = go(&run, TOY_NO_STEPS);
        expect_state(&result, listed.steps[i], request);
    }
}

static bool is_long(void)
{
    return getenv("STRATA_TEST_LONG") != NULL;
}

static void open_survivors(const struct toy_run *what, struct sim_states *states)
{
    uint64_t seeds = is_long() ? LONG_SEEDS : 1;
    uint64_t request = plan.off_at;
    struct listing before = durable, after = pending;
    struct io_sim lost = sim;
    memset(sim.disks, 0, sizeof sim.disks);
    plan.off_at = 0;
    for (uint64_t i = 0; i < seeds; i++) {
        struct hash128 hash;
        strata_sim_remove(dirs, 2);
        strata_sim_survive(&lost, request * 1000 + i, &hash);
        strata_sim_note_state(states, hash);
        check_survivor(what, &before, &after, request);
    }
    plan.off_at = request;
    strata_sim_free(&lost);
}

/* Until there is no such request any more: how many there are is not the same each time. */
static void crash_everywhere(const char *name, const struct toy_run *what)
{
    struct sim_states states = {.count = 0};
    plan.off_at = 0;
    cr_assert(live(what), "%s: an undisturbed run fails", name);
    for (plan.off_at = 1; !live(what); plan.off_at += is_long() ? LONG_STRIDE : STRIDE)
        open_survivors(what, &states);
    printf("crash: %s: up to request %" PRIu64 ", seeds 1000 x request + 0, 1, ...: "
           "%u different states resumed\n",
           name, plan.off_at - 1, states.count);
    cr_expect(plan.off_at > 50 && states.count > 15, "too few of either");
    strata_sim_free_states(&states);
}

Test(crash, states_on_nvme_are_those_of_a_commit)
{
    crash_everywhere("states on nvme, every step", &(struct toy_run){.params = STRATA_HOST,
                                                                     .grads = STRATA_HOST,
                                                                     .states = STRATA_NVME,
                                                                     .commit_every = 1,
                                                                     .keep = 1,
                                                                     .keep_every = 2});
    crash_everywhere("states on nvme, every other step",
                     &(struct toy_run){.params = STRATA_HOST,
                                       .grads = STRATA_HOST,
                                       .states = STRATA_NVME,
                                       .commit_every = 2});
}

Test(crash, states_in_host_memory_are_those_of_a_commit)
{
    crash_everywhere("states in host RAM, every step", &(struct toy_run){.params = STRATA_HOST,
                                                                         .grads = STRATA_HOST,
                                                                         .states = STRATA_HOST,
                                                                         .commit_every = 1});
    crash_everywhere("states in host RAM, every other step",
                     &(struct toy_run){.params = STRATA_HOST,
                                       .grads = STRATA_HOST,
                                       .states = STRATA_HOST,
                                       .commit_every = 2,
                                       .keep = 1,
                                       .keep_every = 2});
}

Test(crash, frozen_groups_are_there_with_every_commit)
{
    make_reference(8);
    crash_everywhere("a frozen group on nvme, every step",
                     &(struct toy_run){.params = STRATA_NVME,
                                       .grads = STRATA_HOST,
                                       .states = STRATA_NVME,
                                       .frozen = 8,
                                       .commit_every = 1,
                                       .keep = 1,
                                       .keep_every = 2});
}

Test(crash, states_in_the_device_are_those_of_a_commit)
{
    crash_everywhere("states in the device, every other step",
                     &(struct toy_run){.params = STRATA_DEVICE,
                                       .grads = STRATA_DEVICE,
                                       .states = STRATA_DEVICE,
                                       .commit_every = 2});
}
