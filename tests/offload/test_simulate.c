/*
 * The simulator against arithmetic: what a step costs where one resource decides it, and how
 * near the schedule comes to what no order of ops could beat.
 */

#include <criterion/criterion.h>
#include <criterion/logging.h>
#include <stdio.h>
#include <time.h>

#include "offload/forecast.h"
#include "train/llama.h"

#define GIB ((uint64_t)1 << 30)

/* Datasheet-like figures; what matters is that they lie as far apart as real ones do. */
static const strata_profile desktop = {
    .name = "desktop",
    .cores = 16,
    .drives = 1,
    .flops_per_s = 80e12,
    .dram_bytes_per_s = 60e9,
    .update_bytes_per_s = 50e9,
    .norm_bytes_per_s = 50e9,
    .h2d_bytes_per_s = 25e9,
    .d2h_bytes_per_s = 25e9,
    .duplex = 1.9,
    .device_bytes_per_s = 8e11,
    .drive_read_bytes_per_s = 7e9,
    .drive_write_bytes_per_s = 6e9,
    .mix = 1.1,
    .op_s = 20e-6,
    .drive_op_s = 80e-6,
    .update_share = 0.2,
};

static const strata_profile server = {
    .name = "an eighth of a server",
    .cores = 12,
    .drives = 1,
    .flops_per_s = 400e12,
    .dram_bytes_per_s = 70e9,
    .update_bytes_per_s = 60e9,
    .norm_bytes_per_s = 60e9,
    .h2d_bytes_per_s = 50e9,
    .d2h_bytes_per_s = 50e9,
    .duplex = 1.9,
    .device_bytes_per_s = 3e12,
    .drive_read_bytes_per_s = 6.8e9,
    .drive_write_bytes_per_s = 5e9,
    .mix = 1.1,
    .op_s = 20e-6,
    .drive_op_s = 80e-6,
    .update_share = 0.2,
};

/* A host device with two cores, as the demo has it. */
static const strata_profile laptop = {
    .name = "two cores",
    .host_device = true,
    .cores = 2,
    .drives = 1,
    .flops_per_s = 150e9,
    .dram_bytes_per_s = 20e9,
    .update_bytes_per_s = 15e9,
    .norm_bytes_per_s = 10e9,
    .h2d_bytes_per_s = 6e9,
    .d2h_bytes_per_s = 6e9,
    .duplex = 1.5,
    .device_bytes_per_s = 10e9,
    .drive_read_bytes_per_s = 1.5e9,
    .drive_write_bytes_per_s = 1e9,
    .mix = 1,
    .drive_cpu_s_per_byte = 1e-10,
    .op_s = 50e-6,
    .drive_op_s = 200e-6,
    .update_share = 0.2,
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
    strata_tier states;
    enum update_mode mode;
    double most; /* of the bound */
};

static strata_forecast forecast_of(const struct setup *setup, strata_plan *out_plan)
{
    static strata_plan plan;
    struct llama_config config;
    struct llama *llama;
    strata_error error = {0};
    strata_forecast forecast = {0};
    struct llama_shape shape = {.seq = setup->seq,
                                .batch = setup->batch,
                                .micro_batch = setup->micro,
                                .vocab_slices = setup->slices,
                                .compute_dtype = STRATA_BF16};
    cr_assert(strata_llama_config_named(&config, setup->model));
    cr_assert_eq(strata_llama_create(&llama, &config, &shape, NULL, &error), STRATA_OK, "%s",
                 error.message);
    struct store_records records = {.durable = true, .slots = 2};
    struct store_desc store = {
        .dirs = (const char *const[]){"."}, .dir_count = 1, .records = &records};
    struct forecast_desc desc = {
        .plan = {.model = strata_llama_model(llama),
                 .compute_dtype = STRATA_BF16,
                 .state_elem_bytes = 12,
                 .tile_elems = strata_default_tile_elems(strata_llama_model(llama)),
                 .device_bytes = setup->device_bytes,
                 .host_bytes = setup->host_bytes,
                 .nvme_bytes = UINT64_MAX / 4,
                 .want = {[STRATA_STATE] = setup->states},
                 .slots = {.durable = true},
                 .fold = setup->mode == UPDATES_AHEAD,
                 .store = &store},
        .mode = setup->mode,
        .commit_every = 1,
        .ranks = setup->ranks,
        .simulate = {.profile = setup->profile, .caller_waits = true},
    };
    strata_status status =
        strata_forecast_make(&forecast, out_plan != NULL ? out_plan : &plan, &desc, &error);
    cr_assert_eq(status, STRATA_OK, "%s", error.message);
    strata_llama_destroy(llama);
    return forecast;
}

/*
 * Ten machines and models. What no order of ops can beat is the busiest resource and then the
 * norm, which the caller waits for between two steps. Three are further from it than 5 %: the
 * drive has nothing to write until the first gradient is there, and a tied embedding, used
 * first and updated last, has its states read and written between two steps.
 */
static const struct setup setups[] = {
    {"llama-125m", &laptop, 1, 256, 8, 8, 0, GIB / 4, GIB, STRATA_NVME, UPDATES_AHEAD, 1.05},
    {"llama-350m", &laptop, 1, 256, 1, 1, 0, GIB / 2, 2 * GIB, STRATA_NVME, UPDATES_AHEAD,
     1.08},
    {"llama-1b", &desktop, 1, 2048, 64, 8, 4, 20 * GIB, 48 * GIB, STRATA_NVME, UPDATES_AHEAD,
     1.09},
    {"llama-3b", &desktop, 1, 2048, 16, 4, 2, 20 * GIB, 32 * GIB, STRATA_NVME, UPDATES_AHEAD,
     1.09},
    {"llama-7b", &desktop, 1, 2048, 64, 4, 2, 20 * GIB, 128 * GIB, STRATA_NVME, UPDATES_AHEAD,
     1.05},
    {"llama-8b", &desktop, 1, 2048, 256, 4, 4, 20 * GIB, 420 * GIB, STRATA_NVME, UPDATES_AHEAD,
     1.05},
    {"llama-13b", &server, 1, 4096, 8, 1, 1, 70 * GIB, 128 * GIB, STRATA_NVME, UPDATES_AHEAD,
     1.05},
    {"llama-33b", &server, 1, 4096, 64, 2, 1, 70 * GIB, 600 * GIB, STRATA_NVME, UPDATES_AHEAD,
     1.05},
    {"llama-70b", &server, 8, 4096, 16, 1, 2, 70 * GIB, 240 * GIB, STRATA_NVME, UPDATES_AHEAD,
     1.05},
    {"llama-405b", &server, 8, 4096, 32, 1, 1, 130 * GIB, 1400 * GIB, STRATA_NVME,
     UPDATES_AHEAD, 1.05},
};

Test(simulate, a_step_costs_little_more_than_its_busiest_resource)
{
    double ops = 0;
    clock_t before = clock();
    for (size_t i = 0; i < sizeof setups / sizeof setups[0]; i++) {
        strata_plan plan;
        strata_forecast forecast = forecast_of(&setups[i], &plan);
        double bound_s = forecast.bound_s + forecast.stall_s[STRATA_STALL_NORM];
        cr_log_info("%-10s x %u: step %.3f s, bound %.3f s (%s), %.3f", setups[i].model,
                    setups[i].ranks, forecast.step_s, bound_s,
                    strata_lane_name(forecast.bottleneck), forecast.step_s / bound_s);
        cr_expect_leq(forecast.step_s, setups[i].most * bound_s, "%s: %g of %g s",
                      setups[i].model, forecast.step_s, bound_s);
        cr_expect_geq(forecast.step_s, 0.999 * forecast.bound_s, "%s", setups[i].model);
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
 * What waiting for the norm costs: an update has forward alone to hide under then, a quarter
 * of the computing, and not all of it. By x, the computing over the drive's work, the step over
 * one with updates ahead; the figures are those of another simulation, made before this one and
 * independent of it.
 */
static const struct {
    double x;
    double cost;
} deferral[] = {{0.1, 1.03}, {0.5, 1.35}, {0.9, 1.63}, {1.3, 1.44}, {4, 1.00}};

static strata_forecast forecast_at(struct setup setup, double flops_per_s,
                                   enum update_mode mode)
{
    strata_profile profile = *setup.profile;
    profile.flops_per_s = flops_per_s;
    setup.profile = &profile;
    setup.mode = mode;
    return forecast_of(&setup, NULL);
}

static void expect_deferral(const struct setup *setup)
{
    double flops = setup->profile->flops_per_s;
    double drive_s = forecast_at(*setup, 1e18, UPDATES_AHEAD).bound_s;
    double compute_s = forecast_at(*setup, flops, UPDATES_AHEAD).busy_s[STRATA_LANE_COMPUTE];
    for (size_t i = 0; i < sizeof deferral / sizeof deferral[0]; i++) {
        double at = flops * compute_s / (deferral[i].x * drive_s);
        double cost = forecast_at(*setup, at, UPDATES_DEFERRED).step_s /
                      forecast_at(*setup, at, UPDATES_AHEAD).step_s;
        printf("%s, x %.1f: deferred updates cost %.3f, the other model says %.2f\n",
               setup->model, deferral[i].x, cost, deferral[i].cost);
        cr_expect_float_eq(cost, deferral[i].cost, 0.1 * deferral[i].cost, "%s, x %g: %g",
                           setup->model, deferral[i].x, cost);
    }
}

Test(simulate, deferred_updates_cost_within_a_tenth_what_another_model_says)
{
    expect_deferral(&(struct setup){"llama-7b", &desktop, 1, 2048, 8, 4, 2, 20 * GIB, 64 * GIB,
                                    STRATA_NVME, UPDATES_AHEAD, 0});
    expect_deferral(&(struct setup){"llama-13b", &server, 1, 4096, 4, 1, 1, 70 * GIB, 100 * GIB,
                                    STRATA_NVME, UPDATES_AHEAD, 0});
}
