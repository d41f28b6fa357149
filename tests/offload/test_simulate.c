/*
 * The simulator against arithmetic: what a step costs where one resource decides it, and how
 * near the schedule comes to what no order of ops could beat.
 */

#include <criterion/criterion.h>
#include <criterion/logging.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "offload/simulate/forecast.h"
#include "tests/support/profiles.h"
#include "train/decoder.h"

#define GIB ((uint64_t)1 << 30)

/* Sanitizers take five times as long, and find the same in one of many cases. */
#if defined(__SANITIZE_ADDRESS__)
#    define FEW true
#else
#    define FEW false
#endif

static strata_profile desktop;
static strata_profile server;
static strata_profile laptop;

static void read_profiles(void)
{
    strata_test_profile("desktop", &desktop);
    strata_test_profile("server", &server);
    strata_test_profile("two_cores", &laptop);
}

TestSuite(simulate, .init = read_profiles);

/* What updates wait for, what waits for them, and where things rest: 0: AUTO. */
struct policy {
    const char *name;
    enum update_mode mode;
    enum step_begin begins;
    strata_tier grads;
    strata_tier states;
    strata_tier stash;
    strata_dtype dtype;
    double cost[5]; /* the step over that of ahead, by x: policy_x */
};

static const struct policy ahead = {
    .mode = UPDATES_AHEAD,
    .begins = STEP_AFTER_NORM,
    .states = STRATA_NVME,
    .dtype = STRATA_BF16,
};
static const struct policy free_homes = {
    .mode = UPDATES_AHEAD,
    .begins = STEP_AFTER_NORM,
    .dtype = STRATA_BF16,
};
static const struct policy stash_on_nvme = {
    .mode = UPDATES_AHEAD,
    .begins = STEP_AFTER_NORM,
    .stash = STRATA_NVME,
    .dtype = STRATA_BF16,
};

struct setup {
    const char *model;
    const strata_profile *profile;
    uint32_t ranks;
    uint32_t seq;
    uint32_t batch; /* of a rank */
    uint32_t micro;
    uint32_t slices; /* of the vocabulary; 0: default */
    uint64_t device_bytes;
    uint64_t host_bytes;
    const struct policy *policy;
};

/* Not a way to give homes: all are compared. */
#define BEST STRATA_HOME_WAYS

static strata_forecast forecast_in(const struct setup *setup, uint32_t way,
                                   uint32_t commit_every, strata_plan *out_plan)
{
    struct decoder_config config;
    struct decoder *decoder;
    strata_error error = {0};
    strata_forecast forecast = {0};
    struct decoder_shape shape = {.seq = setup->seq,
                                  .batch = setup->batch,
                                  .micro_batch = setup->micro,
                                  .vocab_slices = setup->slices,
                                  .compute_dtype = setup->policy->dtype};
    cr_assert(strata_decoder_config_named(&config, setup->model));
    cr_assert_eq(strata_decoder_create(&decoder, &config, &shape, NULL, &error), STRATA_OK,
                 "%s", error.message);
    struct store_records records = {.durable = true, .slots = 2};
    struct store_desc store = {
        .dirs = (const char *const[]){"."}, .dir_count = 1, .records = &records};
    struct forecast_desc desc = {
        .planner = {.plan = {.model = strata_decoder_model(decoder),
                             .compute_dtype = setup->policy->dtype,
                             .record = {1, 12 * STRATA_BLOCK_ELEMS},
                             .tile_elems =
                                 strata_default_tile_elems(strata_decoder_model(decoder)),
                             .device_bytes = setup->device_bytes,
                             .host_bytes = setup->host_bytes,
                             .nvme_bytes = UINT64_MAX / 4,
                             .want = {[STRATA_STATE] = setup->policy->states,
                                      [STRATA_GRAD] = setup->policy->grads},
                             .want_stash = setup->policy->stash,
                             .way = way == BEST ? 0 : way,
                             .slots = {.durable = true},
                             .store = &store},
                    .fold_each_step = true,
                    .commit_every = commit_every},
        .mode = setup->policy->mode,
        .ranks = setup->ranks,
        .compare_homes = way == BEST,
        .simulate = {.profile = setup->profile, .begins = setup->policy->begins},
    };
    struct offload_plan plan;
    struct schedule *schedule;
    strata_status status = strata_forecast_make(&plan, &schedule, &desc, &error);
    cr_assert_eq(status, STRATA_OK, "%s", error.message);
    forecast = plan.summary.forecast;
    if (out_plan != NULL)
        *out_plan = plan.summary;
    strata_plan_free(&plan);
    strata_decoder_destroy(decoder);
    return forecast;
}

/* With a commit a step. */
static strata_forecast forecast_of(const struct setup *setup, strata_plan *out_plan)
{
    return forecast_in(setup, 0, 1, out_plan);
}

/* Ten machines and models. */
static const struct setup setups[] = {
    {"llama-125m", &laptop, 1, 256, 8, 8, 0, GIB / 4, GIB, &ahead},
    {"llama-350m", &laptop, 1, 256, 1, 1, 0, GIB / 2, 2 * GIB, &ahead},
    {"llama-1b", &desktop, 1, 2048, 64, 8, 4, 20 * GIB, 48 * GIB, &ahead},
    {"llama-3b", &desktop, 1, 2048, 16, 4, 2, 20 * GIB, 32 * GIB, &ahead},
    {"llama-7b", &desktop, 1, 2048, 64, 4, 2, 20 * GIB, 128 * GIB, &ahead},
    {"llama-8b", &desktop, 1, 2048, 256, 4, 4, 20 * GIB, 420 * GIB, &ahead},
    {"llama-13b", &server, 1, 4096, 8, 1, 1, 70 * GIB, 128 * GIB, &ahead},
    {"llama-33b", &server, 1, 4096, 64, 2, 1, 70 * GIB, 600 * GIB, &ahead},
    {"llama-70b", &server, 8, 4096, 16, 1, 2, 70 * GIB, 240 * GIB, &ahead},
    {"llama-405b", &server, 8, 4096, 32, 1, 1, 130 * GIB, 1400 * GIB, &ahead},
};

Test(simulate, a_step_costs_little_more_than_its_busiest_lane_or_longest_chain)
{
    double ops = 0;
    clock_t before = clock();
    for (size_t i = 0; i < (FEW ? 4 : sizeof setups / sizeof setups[0]); i++) {
        strata_plan plan;
        strata_forecast forecast = forecast_of(&setups[i], &plan);
        double bound_s = fmax(forecast.bound_s, forecast.chain_s);
        printf("%-10s x %u: step %.3f s, %s %.3f s, chain %.3f s: %.3f of the bound\n",
               setups[i].model, setups[i].ranks, forecast.step_s,
               strata_lane_name(forecast.bottleneck), forecast.bound_s, forecast.chain_s,
               forecast.step_s / bound_s);
        cr_expect_leq(forecast.step_s, 1.05 * bound_s, "%s: %g of %g s", setups[i].model,
                      forecast.step_s, bound_s);
        cr_expect_geq(forecast.step_s, 0.999 * bound_s, "%s", setups[i].model);
        ops += (double)forecast.ops;
    }
    /* Making models and plans included. */
    printf("simulated %.1f million ops, %.1f million in a second of one core\n", 1e-6 * ops,
           1e-6 * ops * CLOCKS_PER_SEC / (double)(clock() - before));
}

Test(simulate, compute_alone_costs_what_its_operations_take)
{
    struct setup setup = setups[0];
    strata_profile fast = laptop;
    setup.profile = &fast;
    fast.drive_read_bytes_per_s = fast.drive_write_bytes_per_s = 1e12;
    fast.dram_bytes_per_s = fast.update_bytes_per_s = fast.norm_bytes_per_s = 1e13;
    fast.h2d_bytes_per_s = fast.d2h_bytes_per_s = fast.device_bytes_per_s = 1e13;
    fast.op_s = fast.drive_op_s = fast.drive_cpu_s_per_byte = 0;
    strata_forecast forecast = forecast_of(&setup, NULL);
    double flops = 8 * 125e6 * setup.seq * setup.batch; /* the head's look-up costs none */
    cr_expect_float_eq(forecast.step_s, forecast.busy_s[STRATA_LANE_COMPUTE], 0.02, "%g, %g",
                       forecast.step_s, forecast.busy_s[STRATA_LANE_COMPUTE]);
    cr_expect(forecast.step_s > 0.6 * flops / fast.flops_per_s &&
                  forecast.step_s < 1.2 * flops / fast.flops_per_s,
              "%g", forecast.step_s);
}

Test(simulate, twice_the_drives_halve_a_step_that_is_bound_by_them)
{
    struct setup setup = setups[6];
    strata_profile two = server;
    strata_forecast one = forecast_of(&setup, NULL);
    two.drives = 2;
    setup.profile = &two;
    strata_forecast other = forecast_of(&setup, NULL);
    cr_expect_float_eq(other.step_s / one.step_s, 0.5, 0.03, "%g and %g", other.step_s,
                       one.step_s);
    cr_expect_eq(other.bytes[STRATA_LANE_NVME_WRITE], one.bytes[STRATA_LANE_NVME_WRITE]);
}

Test(simulate, four_drives_do_a_quarter_of_the_work_each)
{
    struct setup setup = setups[6];
    strata_profile drives = server;
    setup.profile = &drives;
    drives.flops_per_s = 1e18;
    strata_forecast one = forecast_of(&setup, NULL);
    drives.drives = 4;
    strata_forecast other = forecast_of(&setup, NULL);
    cr_expect_float_eq(other.bound_s / one.bound_s, 0.25, 0.01, "%g and %g", other.bound_s,
                       one.bound_s);
    cr_expect_geq(other.step_s, other.bound_s);
}

Test(simulate, bytes_are_those_of_the_arithmetic)
{
    strata_plan plan;
    strata_forecast forecast = forecast_of(&setups[6], &plan);
    uint64_t states = plan.tiers[STRATA_NVME].home_bytes[STRATA_STATE];
    cr_expect_eq(forecast.bytes[STRATA_LANE_NVME_READ], states);
    /* One commit a step: what rests in host RAM is written for it. */
    cr_expect_eq(forecast.bytes[STRATA_LANE_NVME_WRITE],
                 states + plan.tiers[STRATA_HOST].home_bytes[STRATA_STATE]);
}

/* Where states rest in RAM a commit writes what an update does not. */
Test(simulate, commits_come_as_often_as_three_hundredths_of_a_step_allow)
{
    static const struct setup setup = {"llama-7b", &desktop, 1,        2048,      16,
                                       4,          2,        20 * GIB, 128 * GIB, &free_homes};
    strata_plan plan;
    strata_forecast chosen = forecast_in(&setup, 0, 0, &plan);
    uint32_t every = plan.commit_every;
    double quiet_s = forecast_in(&setup, 0, UINT32_MAX, NULL).step_s;
    printf("7B in RAM: %.3f s without commits, %.3f s with one in %u steps\n", quiet_s,
           chosen.step_s, every);
    cr_assert_gt(every, 2);
    cr_expect_leq(chosen.step_s, 1.03 * quiet_s * 1.0001);
    cr_expect_gt(forecast_in(&setup, 0, every - 1, NULL).step_s, 1.03 * quiet_s * 1.0001);
    uint64_t states = plan.tiers[STRATA_HOST].home_bytes[STRATA_STATE];
    cr_expect_float_eq((double)chosen.bytes[STRATA_LANE_NVME_WRITE] * every, states,
                       0.01 * (double)states);
    forecast_in(&setups[0], 0, 0, &plan);
    cr_expect_eq(plan.commit_every, 1, "states on NVMe");
}

/* By exhaustion: no way to give homes is faster than the one that was taken, by more than what
 * a simulation can tell; the first rule is not always it. */
Test(simulate, of_several_ways_to_give_homes_the_fastest_is_taken)
{
    static const struct setup open[] = {
        {"llama-7b", &desktop, 1, 2048, 32, 8, 2, 20 * GIB, 16 * GIB, &stash_on_nvme},
        {"llama-3b", &desktop, 1, 2048, 16, 4, 2, 20 * GIB, 32 * GIB, &free_homes},
        {"llama-13b", &server, 1, 4096, 8, 1, 1, 70 * GIB, 128 * GIB, &free_homes},
        {"llama-350m", &laptop, 1, 256, 1, 1, 0, GIB / 2, 2 * GIB, &free_homes},
    };
    const size_t count = sizeof open / sizeof open[0];
    bool other_than_first = false;
    for (size_t i = FEW ? count - 1 : 0; i < count; i++) {
        strata_plan plan;
        double step_s = forecast_in(&open[i], BEST, 1, &plan).step_s;
        cr_assert_not_null(plan.homes, "%s: nothing to choose", open[i].model);
        for (uint32_t way = 0; way < STRATA_HOME_WAYS; way++) {
            double way_s = forecast_in(&open[i], way, 1, NULL).step_s;
            const char *name = strata_plan_way_name(way);
            bool taken = strcmp(name, plan.homes) == 0;
            printf("%s, %s: %.3f s%s\n", open[i].model, name, way_s, taken ? ", taken" : "");
            cr_expect_geq(1.0101 * way_s, step_s, "%s, %s", open[i].model, name);
            cr_expect(taken ? way_s == step_s
                            : way_s == step_s || way_s >= 0.9999 * plan.next_factor * step_s,
                      "%s, %s: %g; %g taken, next %g times that", open[i].model, name, way_s,
                      step_s, plan.next_factor);
            other_than_first |= taken && way > 0;
        }
    }
    cr_expect(FEW || other_than_first);
}

/* Half of the cores do for an update that needs one of two: what it takes from computing is
 * less. */
Test(simulate, updates_that_memory_bounds_cost_computing_less)
{
    struct setup setup = setups[0];
    strata_profile profile = laptop;
    setup.profile = &profile;
    profile.drive_read_bytes_per_s = profile.drive_write_bytes_per_s = 1e12;
    double all_s = forecast_of(&setup, NULL).step_s;
    profile.update_cores = 1;
    double one_s = forecast_of(&setup, NULL).step_s;
    profile.update_cores = profile.cores;
    cr_expect_eq(forecast_of(&setup, NULL).step_s, all_s);
    cr_expect_lt(one_s, 0.995 * all_s, "%g and %g", one_s, all_s);
}

Test(simulate, waits_and_compute_make_up_the_step)
{
    for (size_t i = 0; i < 4; i++) {
        strata_forecast forecast = forecast_of(&setups[i], NULL);
        double sum = forecast.busy_s[STRATA_LANE_COMPUTE];
        for (int stall = 0; stall < STRATA_STALL_COUNT; stall++)
            sum += forecast.stall_s[stall];
        cr_expect_float_eq(sum, forecast.step_s, 1e-6 * forecast.step_s, "%s: %g of %g s",
                           setups[i].model, sum, forecast.step_s);
    }
}

/*
 * What it costs to let updates overlap less, by x, the computing over the drive's work: the
 * step over one with updates ahead of the norm that reach into the next step. The figures are
 * those of another simulation, made before this one and independent of it. Its updates after
 * backward are DeepSpeed's, which writes gradients to the drive in fp32 and reads them again.
 */
static const struct policy policies[] = {
    {.name = "deferred",
     .mode = UPDATES_DEFERRED,
     .begins = STEP_AFTER_NORM,
     .states = STRATA_NVME,
     .dtype = STRATA_BF16,
     .cost = {1.03, 1.35, 1.63, 1.44, 1}},
    {.name = "backward only",
     .mode = UPDATES_AHEAD,
     .begins = STEP_AFTER_UPDATES,
     .states = STRATA_NVME,
     .dtype = STRATA_BF16,
     .cost = {1, 1.09, 1.19, 1, 1}},
    {.name = "after backward",
     .mode = UPDATES_DEFERRED,
     .begins = STEP_AFTER_UPDATES,
     .grads = STRATA_NVME,
     .states = STRATA_NVME,
     .dtype = STRATA_FP32,
     .cost = {1.36, 1.67, 2.06, 1.83, 1.28}},
};
static const double policy_x[] = {0.1, 0.5, 0.9, 1.3, 4};

static double step_at(struct setup setup, double flops_per_s, const struct policy *policy)
{
    strata_profile profile = *setup.profile;
    profile.flops_per_s = flops_per_s;
    setup.profile = &profile;
    setup.policy = policy;
    return forecast_of(&setup, NULL).step_s;
}

static void expect_costs(const struct setup *setup)
{
    strata_profile fast = *setup->profile;
    struct setup drives = *setup;
    drives.profile = &fast;
    fast.flops_per_s = 1e18;
    double drive_s = forecast_of(&drives, NULL).bound_s;
    double flops = setup->profile->flops_per_s;
    double compute_s = forecast_of(setup, NULL).busy_s[STRATA_LANE_COMPUTE];
    for (size_t i = 0; i < sizeof policy_x / sizeof policy_x[0]; i += FEW ? 8 : 1) {
        double at = flops * compute_s / (policy_x[i] * drive_s);
        double least_s = step_at(*setup, at, &ahead);
        for (size_t k = 0; k < sizeof policies / sizeof policies[0]; k++) {
            double cost = step_at(*setup, at, &policies[k]) / least_s;
            double said = policies[k].cost[i];
            printf("%s, x %.1f: %s costs %.3f, the other model says %.2f\n", setup->model,
                   policy_x[i], policies[k].name, cost, said);
            cr_expect_float_eq(cost, said, 0.1 * said, "%s, %s, x %g: %g", setup->model,
                               policies[k].name, policy_x[i], cost);
        }
    }
}

Test(simulate, less_overlap_costs_within_a_tenth_what_another_model_says)
{
    expect_costs(
        &(struct setup){"llama-7b", &desktop, 1, 2048, 8, 4, 2, 20 * GIB, 64 * GIB, &ahead});
    if (!FEW)
        expect_costs(&(struct setup){"llama-13b", &server, 1, 4096, 4, 1, 1, 70 * GIB,
                                     100 * GIB, &ahead});
}
