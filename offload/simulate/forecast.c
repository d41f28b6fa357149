/*
 * Plan, schedule, simulation, in the order in which an engine makes the first two; see
 * forecast.h.
 *
 * Thread: any.
 */

#include "offload/simulate/forecast.h"

#include "base/error.h"

#include <math.h>

/* From the third step on a step repeats the one before within a few per mille. Four are
 * measured: with a commit it is the second that commits, and what it delays lies in the two
 * that follow, for the next update of a state waits for it to be written. */
#define WARM_STEPS 2u
#define STEPS      4u

#define COMMIT_SHARE  0.03 /* of a step, at most */
#define LEAST_COMMITS 2u

/* Spans of a simulated trace at most. */
#define TRACE_EVENTS (1u << 20)

void strata_forecast_window(struct simulate_desc *out, enum forecast_window window,
                            uint32_t every)
{
    out->warm_steps = WARM_STEPS;
    out->steps = STEPS;
    out->commit_every = every == 1 ? 1 : window == WINDOW_COMMIT ? STEPS : 0;
}

/* What a window with a commit has more than one without, in a step that has 1 / every of it.
 * It may have less, of some wait. */
static double spread(double quiet, double committing, uint32_t every)
{
    return fmax(0, quiet + STEPS * (committing - quiet) / every);
}

strata_forecast strata_commits_spread(const strata_forecast windows[FORECAST_WINDOWS],
                                      const strata_profile *profile, uint32_t *every)
{
    const strata_forecast *quiet = &windows[WINDOW_QUIET];
    const strata_forecast *commit = &windows[WINDOW_COMMIT];
    strata_forecast out = *quiet;
    if (*every == 0) {
        double cost = STEPS * (commit->step_s / quiet->step_s - 1);
        *every = (uint32_t)fmax(LEAST_COMMITS, ceil(cost / COMMIT_SHARE));
    }
    out.step_s = spread(quiet->step_s, commit->step_s, *every);
    out.exposed_s = spread(quiet->exposed_s, commit->exposed_s, *every);
    for (int lane = 0; lane < STRATA_LANE_COUNT; lane++) {
        out.busy_s[lane] = spread(quiet->busy_s[lane], commit->busy_s[lane], *every);
        out.bytes[lane] =
            (uint64_t)spread((double)quiet->bytes[lane], (double)commit->bytes[lane], *every);
    }
    for (int stall = 0; stall < STRATA_STALL_COUNT; stall++)
        out.stall_s[stall] = spread(quiet->stall_s[stall], commit->stall_s[stall], *every);
    out.drive_days = strata_drive_days(profile, &out);
    out.ops += commit->ops;
    return out;
}

/* The schedule is used up. */
static strata_status simulate(strata_forecast *out, struct offload_plan *plan,
                              struct schedule *schedule, const struct forecast_desc *desc,
                              enum forecast_window window, strata_error *error)
{
    struct simulate_desc simulate = desc->simulate;
    struct simulation *simulation;
    simulate.plan = plan;
    simulate.schedule = schedule;
    strata_forecast_window(&simulate, window, plan->summary.commit_every);
    if (desc->trace_path != NULL)
        STRATA_TRY(strata_trace_create(&simulate.trace, TRACE_EVENTS, error));
    strata_status status =
        strata_simulation_create(&simulation, &plan->tables, &simulate, error);
    if (status == STRATA_OK)
        status = strata_simulation_run(simulation, out, error);
    if (status == STRATA_OK && desc->trace_path != NULL)
        status = strata_trace_save(simulate.trace, plan, simulate.profile->drives, "simulated",
                                   desc->trace_path, error);
    strata_trace_destroy(simulate.trace);
    return status;
}

/* What a forecast is of, and whether it could have been of other homes. */
struct made {
    strata_forecast forecast;
    strata_plan plan;
    bool open;
};

static strata_status make(struct made *out, const struct forecast_desc *desc,
                          enum forecast_window window, strata_error *error)
{
    struct offload_plan plan;
    struct schedule *schedule;
    STRATA_TRY(strata_plan_begin(&plan, &desc->plan, error));
    struct schedule_desc with = {.plan = &plan,
                                 .mode = desc->mode,
                                 .no_overlap = desc->no_overlap,
                                 .slots = desc->plan.slots};
    strata_status status = strata_schedule_create(&schedule, &plan.tables, &with, error);
    if (status == STRATA_OK)
        status = strata_plan_finish(&plan, &desc->plan, error);
    if (status == STRATA_OK && plan.durable)
        plan.summary.commit_every = desc->commit_every == 0 && strata_plan_states_on_nvme(&plan)
                                        ? 1
                                        : desc->commit_every;
    if (status == STRATA_OK)
        status = simulate(&out->forecast, &plan, schedule, desc, window, error);
    out->plan = plan.summary;
    out->open = plan.open;
    strata_plan_free(&plan);
    return status;
}

/* One rank of several. */

/* A model whose groups are the parts that one rank owns. Names are lent by the whole one. */
static strata_status shard(strata_model_desc *out, struct tables *tables,
                           const strata_model_desc *whole, uint32_t ranks, strata_error *error)
{
    strata_group_desc *groups = strata_tables_take(tables, whole->group_count, sizeof *groups);
    strata_tensor_desc *tensors =
        strata_tables_take(tables, whole->group_count, sizeof *tensors);
    STRATA_TRY(strata_tables_check(tables, error));
    for (uint32_t g = 0; g < whole->group_count; g++) {
        uint64_t elems = 0;
        for (uint32_t t = 0; t < whole->groups[g].tensor_count; t++) {
            uint64_t product = 1;
            for (uint32_t i = 0; i < whole->groups[g].tensors[t].rank; i++)
                product *= whole->groups[g].tensors[t].shape[i];
            elems += product;
        }
        tensors[g] = (strata_tensor_desc){
            .name = "shard", .shape = {(elems + ranks - 1) / ranks}, .rank = 1};
        groups[g] = (strata_group_desc){
            .name = whole->groups[g].name, .tensors = &tensors[g], .tensor_count = 1};
    }
    *out = *whole;
    out->groups = groups;
    return STRATA_OK;
}

/* The largest group's part with what it takes in the device in backward. */
static uint64_t pool_bytes(const strata_model_desc *model, uint32_t w)
{
    uint64_t most = 0;
    for (uint32_t g = 0; g < model->group_count; g++)
        if (model->groups[g].tensors->shape[0] > most)
            most = model->groups[g].tensors->shape[0];
    return (most + STRATA_BLOCK_ELEMS) * (4 + 2 * (uint64_t)w);
}

/*
 * The plan below knows nothing of ranks, so the device's budget is put into the terms of a
 * part: what rests there is as large as the part, but each copy is a whole group. First as if
 * only one group were copied at a time, which leaves most to rest there; if parameters then do
 * not rest there, as if all but scratch were for copies.
 */
static strata_status make_rank(struct made *out, const struct forecast_desc *desc,
                               enum forecast_window window, strata_error *error)
{
    struct tables tables = {0};
    strata_model_desc model;
    struct forecast_desc one = *desc;
    strata_status status = shard(&model, &tables, desc->plan.model, desc->ranks, error);
    if (status == STRATA_OK) {
        uint64_t others = (desc->ranks - 1) *
                          pool_bytes(&model, strata_dtype_bytes(desc->plan.compute_dtype));
        one.plan.model = &model;
        one.plan.device_bytes =
            desc->plan.device_bytes > others ? desc->plan.device_bytes - others : 1;
        status = make(out, &one, window, error);
    }
    bool resting = out->plan.tiers[STRATA_DEVICE].home_bytes[STRATA_PARAM] > 0;
    uint64_t fixed = model.scratch_bytes + model.stash_bytes;
    if (status == STRATA_OK && !resting && desc->plan.device_bytes > fixed) {
        one.plan.device_bytes = (desc->plan.device_bytes - fixed) / desc->ranks + fixed;
        status = make(out, &one, window, error);
    }
    strata_tables_free(&tables);
    return status;
}

static strata_status make_way(struct made *out, const struct forecast_desc *desc, uint32_t way,
                              enum forecast_window window, strata_error *error)
{
    struct forecast_desc one = *desc;
    one.plan.way = way;
    *out = (struct made){0};
    return desc->ranks > 1 ? make_rank(out, &one, window, error)
                           : make(out, &one, window, error);
}

/* The first way's result is in `best`; see whether another is better. A way that does not fit
 * is none. */
static strata_status make_best(struct made *best, struct home_choice *choice,
                               const struct forecast_desc *desc, strata_error *error)
{
    strata_plan_offer(choice, 0, best->forecast.step_s);
    for (uint32_t way = 1; way < STRATA_HOME_WAYS; way++) {
        struct made other;
        strata_error why = {.status = STRATA_OK};
        strata_status status = make_way(&other, desc, way, WINDOW_QUIET, &why);
        if (status == STRATA_E_NOMEM)
            continue;
        if (status != STRATA_OK)
            return strata_fail(error, status, why.native, "%s", why.message);
        strata_plan_offer(choice, way, other.forecast.step_s);
        if (choice->way == way)
            *best = other;
    }
    return STRATA_OK;
}

/* What its commits cost, if that is not in it yet. */
static strata_status add_commits(struct made *best, const struct forecast_desc *desc,
                                 uint32_t way, strata_error *error)
{
    struct made commit;
    if (!desc->plan.slots.durable || best->plan.commit_every == 1)
        return STRATA_OK;
    STRATA_TRY(make_way(&commit, desc, way, WINDOW_COMMIT, error));
    const strata_forecast windows[] = {best->forecast, commit.forecast};
    best->forecast =
        strata_commits_spread(windows, desc->simulate.profile, &best->plan.commit_every);
    return STRATA_OK;
}

strata_status strata_forecast_make(strata_forecast *out, strata_plan *out_plan,
                                   const struct forecast_desc *desc, strata_error *error)
{
    struct home_choice choice = {.way = desc->plan.way};
    struct forecast_desc quiet = *desc;
    struct made best;
    quiet.trace_path = NULL;
    strata_status status = make_way(&best, &quiet, choice.way, WINDOW_QUIET, error);
    if (status == STRATA_OK && desc->compare_homes && best.open)
        status = make_best(&best, &choice, &quiet, error);
    if (status == STRATA_OK && desc->trace_path != NULL)
        status = make_way(&best, desc, choice.way, WINDOW_QUIET, error);
    if (status == STRATA_OK)
        status = add_commits(&best, &quiet, choice.way, error);
    strata_plan_chosen(&best.plan, &choice);
    *out = best.forecast;
    *out_plan = best.plan;
    return status;
}
