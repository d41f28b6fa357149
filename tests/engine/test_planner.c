/*
 * One planner: a run, a what-if and offload-bench plan decide alike. Over random models and
 * budgets the three say the same: fits or not, and then the same bytes of every tier, the same
 * homes, frames and steps between commits.
 */

#include "bench/plan_ask.h"
#include "engine/planning.h"
#include "tests/support/profiles.h"
#include "tests/support/temp_dir.h"

#include <criterion/criterion.h>
#include <criterion/logging.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_GROUPS 5u
#define MAX_USES   (6 * MAX_GROUPS)
#define BLOCK      16384u

static strata_profile profile;

static void read_profile(void)
{
    strata_test_profile("two_cores", &profile);
}

TestSuite(planner, .init = read_profile);

static const char *const names[MAX_GROUPS] = {"a", "b", "c", "d", "e"};

struct made_up {
    strata_tensor_desc tensors[MAX_GROUPS];
    strata_group_desc groups[MAX_GROUPS];
    strata_use uses[MAX_USES];
    strata_model_desc desc;
};

static uint64_t state;

static uint64_t roll(uint64_t below)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % below;
}

static void use(struct made_up *m, strata_use_kind kind, uint32_t index, bool grad)
{
    m->uses[m->desc.use_count++] =
        (strata_use){.kind = kind, .index = index, .grad = grad, .flops = 1e6};
}

/* Once forward and once backward through all groups. */
static void make_up(struct made_up *m)
{
    uint32_t groups = 1 + (uint32_t)roll(MAX_GROUPS);
    bool stash = roll(2) == 1;
    *m = (struct made_up){0};
    for (uint32_t g = 0; g < groups; g++) {
        m->tensors[g] =
            (strata_tensor_desc){.name = names[g], .shape = {1 + roll(40 * BLOCK)}, .rank = 1};
        m->groups[g] =
            (strata_group_desc){.name = names[g], .tensors = &m->tensors[g], .tensor_count = 1};
    }
    for (uint32_t g = 0; g < groups; g++) {
        if (stash)
            use(m, STRATA_USE_STASH, g, false);
        use(m, STRATA_USE_ACQUIRE, g, false);
        use(m, STRATA_USE_RELEASE, g, false);
    }
    for (uint32_t g = groups; g-- > 0;) {
        if (stash)
            use(m, STRATA_USE_UNSTASH, g, false);
        use(m, STRATA_USE_ACQUIRE, g, true);
        use(m, STRATA_USE_RELEASE, g, false);
    }
    m->desc.groups = m->groups;
    m->desc.group_count = groups;
    m->desc.uses = m->uses;
    m->desc.stash_bytes = (1 + roll(8)) << 16;
    m->desc.scratch_bytes = 1 + roll(1u << 18);
}

/* From `least` on, each power of two as likely as the next. */
static uint64_t some_bytes(uint64_t least, double doublings)
{
    return (uint64_t)((double)least * exp2(doublings * (double)roll(1u << 20) / (1u << 20)));
}

static strata_tier some_tier(bool store)
{
    static const strata_tier tiers[] = {STRATA_AUTO, STRATA_AUTO, STRATA_AUTO,
                                        STRATA_HOST, STRATA_NVME, STRATA_DEVICE};
    strata_tier tier = tiers[roll(6)];
    return tier == STRATA_NVME && !store ? STRATA_AUTO : tier;
}

static strata_engine_desc some_desc(const struct made_up *m, const char *const *dirs)
{
    static const strata_dtype dtypes[] = {STRATA_BF16, STRATA_FP16, STRATA_FP32};
    bool store = roll(4) != 0;
    bool durable = store && roll(3) != 0;
    return (strata_engine_desc){
        .model = &m->desc,
        .compute_dtype = dtypes[roll(3)],
        .states_dtype = roll(2) ? STRATA_FP32 : STRATA_BF16,
        .clip = roll(3) ? 1 : 0,
        .clip_mode = (strata_clip_mode)roll(3),
        .device_bytes = some_bytes(1u << 20, 6),
        .host_bytes = some_bytes(1u << 21, 6),
        .nvme_bytes = some_bytes(1u << 22, 6),
        .reserved_host_bytes = roll(1u << 20),
        .params = some_tier(store),
        .grads = some_tier(store),
        .states = some_tier(store),
        .stash = some_tier(store),
        .store_dirs = store ? dirs : NULL,
        .store_dir_count = store ? 1 : 0,
        .durability = durable ? STRATA_DURABLE_POWER : STRATA_SCRATCH,
        .commit_every = roll(2) ? 0 : 1 + (uint32_t)roll(4),
        .keep = (uint32_t)roll(3),
        .keep_every = 10,
        .tile_elems = BLOCK << roll(3),
        .profile = roll(3) == 0 ? &profile : NULL,
        .trace_events = roll(4) == 0 ? 1000 : 0,
        .no_overlap = roll(8) == 0,
    };
}

/* What offload-bench plan asks: all homes open, a store on every drive or none. */
static strata_engine_desc benchs_desc(const struct made_up *m, const char *const *dirs)
{
    bool store = roll(4) != 0;
    return (strata_engine_desc){
        .model = &m->desc,
        .compute_dtype = STRATA_BF16,
        .clip = 1,
        .device_bytes = some_bytes(1u << 22, 6),
        .host_bytes = some_bytes(1u << 22, 6),
        .nvme_bytes = some_bytes(1u << 23, 5),
        .reserved_host_bytes = roll(1u << 20),
        .store_dirs = store ? dirs : NULL,
        .store_dir_count = store ? 1 : 0,
        .durability = store ? STRATA_DURABLE_POWER : STRATA_SCRATCH,
        .profile = &profile,
    };
}

struct said {
    strata_status status;
    strata_error error;
    strata_plan plan;
};

static void init_nothing(void *user, uint32_t group, uint32_t tensor, uint64_t first,
                         uint64_t count, float *out)
{
    (void)user;
    (void)group;
    (void)tensor;
    (void)first;
    (void)count;
    (void)out;
}

/* What a run would be given. */
static struct said ask_engine(const strata_engine_desc *desc, strata_device *device,
                              strata_workers *workers)
{
    static const strata_adam_params adam = {0};
    struct said said = {0};
    strata_engine_desc whole = *desc;
    whole.device = device;
    whole.workers = workers;
    whole.adam = &adam;
    whole.init = init_nothing;
    said.status = strata_engine_plan(&said.plan, &whole, &said.error);
    return said;
}

static struct said ask_what_if(const strata_engine_desc *desc)
{
    static const char *const nowhere[] = {"a directory that is not there"};
    struct said said = {0};
    struct what_if machine = {.workers = profile.cores};
    strata_engine_desc without = *desc;
    without.store_dirs = nowhere;
    said.status = strata_engine_what_if(&said.plan, &without, &machine, &said.error);
    return said;
}

static struct said ask_bench(const strata_engine_desc *desc)
{
    struct said said = {0};
    struct answer answer = {0};
    struct question question = {.machine = {.gpus = 1,
                                            .device_bytes = desc->device_bytes,
                                            .ram_bytes = desc->host_bytes,
                                            .drives = desc->store_dir_count,
                                            .drive_bytes = (double)desc->nvme_bytes,
                                            .host = profile}};
    said.status = strata_plan_ask_model(&answer, desc->model, desc->reserved_host_bytes, NULL,
                                        &question, &said.error);
    said.plan = answer.plan;
    return said;
}

static void agree(const struct said *one, const struct said *other, uint64_t seed)
{
    cr_assert_eq(one->status, other->status, "seed %llu: '%s' and '%s'",
                 (unsigned long long)seed, one->error.message, other->error.message);
    cr_assert_str_eq(one->error.message, other->error.message);
    if (one->status != STRATA_OK)
        return;
    const strata_plan *a = &one->plan;
    const strata_plan *b = &other->plan;
    for (int tier = STRATA_DEVICE; tier < STRATA_TIER_COUNT; tier++)
        cr_assert(memcmp(&a->tiers[tier], &b->tiers[tier], sizeof a->tiers[tier]) == 0,
                  "seed %llu, tier %d: need %llu and %llu, used %llu and %llu",
                  (unsigned long long)seed, tier, (unsigned long long)a->tiers[tier].need_bytes,
                  (unsigned long long)b->tiers[tier].need_bytes,
                  (unsigned long long)a->tiers[tier].used_bytes,
                  (unsigned long long)b->tiers[tier].used_bytes);
    cr_assert_eq(a->commit_every, b->commit_every, "seed %llu", (unsigned long long)seed);
    cr_assert_eq(a->homes, b->homes, "seed %llu", (unsigned long long)seed);
    cr_assert(a->fetch_frames == b->fetch_frames && a->grad_frames == b->grad_frames &&
              a->update_frames == b->update_frames && a->park_frames == b->park_frames);
    cr_assert(a->forecast.step_s == b->forecast.step_s, "seed %llu", (unsigned long long)seed);
}

static uint32_t tries(void)
{
    return getenv("STRATA_TEST_LONG") != NULL ? 20000 : 2000;
}

Test(planner, a_run_and_a_what_if_agree_on_random_budgets)
{
    struct temp_dir dir;
    strata_device *device;
    strata_workers *workers;
    uint32_t fit = 0;
    strata_temp_dir_make(&dir);
    const char *const dirs[] = {dir.path};
    cr_assert_eq(strata_device_open_host(&device, NULL), STRATA_OK);
    cr_assert_eq(strata_workers_create(
                     &workers, &(strata_workers_desc){.thread_count = profile.cores}, NULL),
                 STRATA_OK);
    for (uint64_t seed = 1; seed <= tries(); seed++) {
        static struct made_up model;
        state = seed;
        roll(2);
        make_up(&model);
        strata_engine_desc desc =
            roll(4) == 0 ? benchs_desc(&model, dirs) : some_desc(&model, dirs);
        bool of_bench = desc.keep_every == 0;
        struct said run = ask_engine(&desc, device, workers);
        if (of_bench) {
            struct said bench = ask_bench(&desc);
            agree(&run, &bench, seed);
            desc.tile_elems = strata_default_tile_elems(desc.model);
            desc.keep_every = 1000;
        }
        struct said what_if = ask_what_if(&desc);
        agree(&run, &what_if, seed);
        fit += run.status == STRATA_OK;
    }
    cr_log_info("%u of %u fit", fit, tries());
    cr_expect(fit > tries() / 5 && fit < tries() - tries() / 20, "%u of %u fit", fit, tries());
    strata_workers_destroy(workers);
    strata_device_close(device);
    cr_expect_eq(strata_temp_dir_count(dir.path), 0);
    strata_temp_dir_remove(&dir);
}

/* Four blocks of 4 MiB, and a device and a host that have room for one or two of them. */
static struct said ask_with_activations(uint32_t drives, strata_tier stash)
{
    static struct made_up model;
    static const char *const dirs[] = {"."};
    model = (struct made_up){0};
    for (uint32_t g = 0; g < 4; g++) {
        model.tensors[g] = (strata_tensor_desc){.name = names[g], .shape = {BLOCK}, .rank = 1};
        model.groups[g] = (strata_group_desc){
            .name = names[g], .tensors = &model.tensors[g], .tensor_count = 1};
        use(&model, STRATA_USE_STASH, g, false);
        use(&model, STRATA_USE_ACQUIRE, g, false);
        use(&model, STRATA_USE_RELEASE, g, false);
    }
    for (uint32_t g = 4; g-- > 0;) {
        use(&model, STRATA_USE_UNSTASH, g, false);
        use(&model, STRATA_USE_ACQUIRE, g, true);
        use(&model, STRATA_USE_RELEASE, g, false);
    }
    model.desc.groups = model.groups;
    model.desc.group_count = 4;
    model.desc.uses = model.uses;
    model.desc.stash_bytes = 4u << 20;
    return ask_what_if(&(strata_engine_desc){.model = &model.desc,
                                             .compute_dtype = STRATA_BF16,
                                             .clip = 1,
                                             .device_bytes = 12u << 20,
                                             .host_bytes = 14u << 20,
                                             .nvme_bytes = 64u << 20,
                                             .stash = stash,
                                             .store_dirs = dirs,
                                             .store_dir_count = drives,
                                             .keep_every = 1000,
                                             .tile_elems = BLOCK});
}

Test(planner, activations_that_fit_nowhere_else_go_to_nvme)
{
    struct said moved = ask_with_activations(1, STRATA_AUTO);
    cr_assert_eq(moved.status, STRATA_OK, "%s", moved.error.message);
    cr_expect_eq(moved.plan.tiers[STRATA_NVME].stash_bytes, 16u << 20);
    cr_expect_eq(moved.plan.tiers[STRATA_HOST].stash_bytes, 0);
    struct said named = ask_with_activations(1, STRATA_HOST);
    cr_expect_eq(named.status, STRATA_E_NOMEM, "what was asked for by name is not replaced");
    cr_expect_eq(strncmp(named.error.message, "host memory", 11), 0, "%s", named.error.message);
    struct said nowhere = ask_with_activations(0, STRATA_AUTO);
    cr_expect_eq(nowhere.status, STRATA_E_NOMEM);
    cr_expect_str_eq(nowhere.error.message, named.error.message);
}
