/*
 * Two ranks on the virtual clock: one rank's schedule, whose collectives take the comm lane's
 * time for the bytes that it receives.
 */

#include "offload/simulate/simulate.h"
#include "tests/support/profiles.h"

#include <criterion/criterion.h>

#define GROUPS 3u
#define RANKS  2u
#define BLOCKS 8u /* of a group */
#define ELEMS  (BLOCKS * (uint64_t)STRATA_BLOCK_ELEMS)
#define STEPS  4u

static strata_profile machine;

static void read_profile(void)
{
    strata_test_profile("two_ranks", &machine);
}

TestSuite(simulate_ranks, .init = read_profile);

struct run {
    struct offload_plan plan;
    struct schedule *schedule;
    strata_forecast forecast;
    uint64_t gathers;
    uint64_t reductions;
    uint64_t shares;
};

static void count_op(void *user, const struct op *op)
{
    struct run *run = user;
    run->gathers += op->kind == OP_GATHER;
    run->reductions += op->kind == OP_REDUCE;
    run->shares += op->kind == OP_SHARE;
    if (op->kind == OP_GATHER || op->kind == OP_REDUCE || op->kind == OP_SHARE)
        cr_assert_eq(op->lane, STRATA_LANE_COMM);
}

/* Forward and backward over groups of one tensor each. */
static strata_status simulate(struct run *run, const strata_profile *profile,
                              strata_error *error)
{
    static const char *const names[GROUPS] = {"a", "b", "c"};
    strata_tensor_desc tensors[GROUPS];
    strata_group_desc groups[GROUPS];
    strata_use uses[4 * GROUPS];
    uint32_t count = 0;
    for (uint32_t i = 0; i < 2 * GROUPS; i++) {
        uint32_t g = i < GROUPS ? i : 2 * GROUPS - 1 - i;
        tensors[g] = (strata_tensor_desc){.name = names[g], .shape = {ELEMS}, .rank = 1};
        groups[g] =
            (strata_group_desc){.name = names[g], .tensors = &tensors[g], .tensor_count = 1};
        uses[count++] = (strata_use){
            .kind = STRATA_USE_ACQUIRE, .index = g, .grad = i >= GROUPS, .flops = 1};
        uses[count++] = (strata_use){.kind = STRATA_USE_RELEASE, .index = g};
    }
    strata_model_desc model = {
        .groups = groups, .group_count = GROUPS, .uses = uses, .use_count = count};
    struct store_records records = {.durable = true, .slots = 2};
    struct store_desc store = {
        .dirs = (const char *const[]){"."}, .dir_count = 1, .records = &records};
    struct plan_desc desc = {
        .model = &model,
        .compute_dtype = STRATA_BF16,
        .record = {1, 12 * STRATA_BLOCK_ELEMS},
        .tile_elems = STRATA_BLOCK_ELEMS,
        .device_bytes = 16u << 20,
        .host_bytes = 64u << 20,
        .nvme_bytes = 256u << 20,
        .want = {STRATA_HOST, STRATA_HOST, STRATA_NVME},
        .slots = {.durable = true},
        .store = &store,
        .shard = {.ranks = RANKS},
    };
    struct schedule_desc schedule = {
        .plan = &run->plan, .mode = UPDATES_AHEAD, .slots = desc.slots};
    struct simulate_desc simulate = {.plan = &run->plan,
                                     .profile = profile,
                                     .begins = STEP_AFTER_NORM,
                                     .commit_every = 1,
                                     .warm_steps = 1,
                                     .steps = STEPS,
                                     .note = count_op,
                                     .note_user = run};
    struct simulation *simulation;
    cr_assert_eq(strata_plan_begin(&run->plan, &desc, error), STRATA_OK, "%s", error->message);
    cr_assert_eq(strata_schedule_create(&run->schedule, &run->plan.tables, &schedule, error),
                 STRATA_OK);
    cr_assert_eq(strata_plan_finish(&run->plan, &desc, error), STRATA_OK, "%s", error->message);
    simulate.schedule = run->schedule;
    strata_status status =
        strata_simulation_create(&simulation, &run->plan.tables, &simulate, error);
    if (status == STRATA_OK)
        status = strata_simulation_run(simulation, &run->forecast, error);
    return status;
}

Test(simulate_ranks, collectives_take_the_comm_lane_s_time_for_their_bytes)
{
    static struct run run;
    strata_error error = {0};
    cr_assert_eq(simulate(&run, &machine, &error), STRATA_OK, "%s", error.message);
    uint64_t steps = STEPS + 1; /* one of them not measured */
    cr_expect_eq(run.reductions, steps * GROUPS);
    cr_expect_eq(run.shares, steps);
    cr_expect_geq(run.gathers, steps * run.plan.residency.load_count);
    /* A rank owns half of a group in bf16 and receives the other half; of the sums likewise. */
    uint64_t half = ELEMS / RANKS * 2;
    uint64_t bytes = half * (run.plan.residency.load_count + GROUPS) +
                     GROUPS * BLOCKS / RANKS * sizeof(double);
    cr_expect_eq(run.forecast.bytes[STRATA_LANE_COMM], bytes, "%llu, not %llu",
                 (unsigned long long)run.forecast.bytes[STRATA_LANE_COMM],
                 (unsigned long long)bytes);
    cr_expect_eq(run.forecast.bottleneck, STRATA_LANE_COMM);
    double comm_s = (double)bytes / machine.comm_bytes_per_s;
    cr_expect_float_eq(run.forecast.busy_s[STRATA_LANE_COMM], comm_s, 1e-6 * comm_s);
    cr_expect_float_eq(run.forecast.bound_s, comm_s, 1e-6 * comm_s);
    cr_expect_geq(run.forecast.step_s, 0.999 * comm_s);
    cr_expect_leq(run.forecast.step_s, 1.1 * comm_s, "%g of %g s", run.forecast.step_s, comm_s);
    /* Updates and norms alone are the cpu's: no collective costs it anything. */
    cr_expect_lt(run.forecast.busy_s[STRATA_LANE_CPU], 0.01 * comm_s);
    strata_plan_free(&run.plan);
}

Test(simulate_ranks, a_profile_without_a_rate_of_collectives_is_refused)
{
    static struct run run;
    strata_profile profile = machine;
    strata_error error = {0};
    profile.comm_bytes_per_s = 0;
    cr_assert_eq(simulate(&run, &profile, &error), STRATA_E_INVALID);
    cr_expect_str_eq(error.message, "profile: comm_bytes_per_s is not given, and there are 2 "
                                    "ranks");
    strata_plan_free(&run.plan);
}
