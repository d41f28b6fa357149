/*
 * Plan, schedule, simulation; see forecast.h.
 *
 * A schedule can be run once. So a plan that is simulated is thrown away with its schedule, and
 * the plan that is returned is made anew, with the choices that were the fastest.
 *
 * Thread: any.
 */

#include "offload/simulate/forecast.h"

#include "base/error.h"
#include "base/round.h"
#include "base/shape.h"

#include <math.h>

/* From the third step on, each step takes as long as the one before it, within a few per mille.
 * Four are measured. In a window with a commit the second of them commits. The delay falls into
 * the two after it, since the next update of a state waits until that state has been written.
 */
#define WARM_STEPS 2u
#define STEPS      4u

#define COMMIT_SHARE  0.03 /* of a step, at most */
#define LEAST_COMMITS 2u

/* Spans of a simulated trace, at most. */
#define TRACE_EVENTS (1u << 20)

void strata_forecast_window(struct simulate_desc *out, enum forecast_window window,
                            uint32_t every)
{
    out->warm_steps = WARM_STEPS;
    out->steps = STEPS;
    out->commit_every = every == 1 ? 1 : window == WINDOW_COMMIT ? STEPS : 0;
}

/* A step's share of a commit's cost if one step in `every` commits. The cost is the difference
 * of the two windows. It may be below 0: a commit may shorten some wait. */
static double spread_commit_cost(double quiet, double committing, uint32_t every)
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
    out.step_s = spread_commit_cost(quiet->step_s, commit->step_s, *every);
    out.exposed_s = spread_commit_cost(quiet->exposed_s, commit->exposed_s, *every);
    for (int lane = 0; lane < STRATA_LANE_COUNT; lane++) {
        out.busy_s[lane] =
            spread_commit_cost(quiet->busy_s[lane], commit->busy_s[lane], *every);
        out.bytes[lane] = (uint64_t)spread_commit_cost((double)quiet->bytes[lane],
                                                       (double)commit->bytes[lane], *every);
    }
    for (int stall = 0; stall < STRATA_STALL_COUNT; stall++)
        out.stall_s[stall] =
            spread_commit_cost(quiet->stall_s[stall], commit->stall_s[stall], *every);
    out.drive_days = strata_drive_days(profile, &out);
    out.ops += commit->ops;
    return out;
}

/* What take_tables() needs, and the schedule that it makes. */
struct making {
    const struct forecast_desc *desc;
    struct schedule *schedule;
};

static strata_status take_tables(void *user, struct offload_plan *plan,
                                 const struct plan_desc *desc, strata_error *error)
{
    struct making *making = user;
    const struct planner_desc *planner = &making->desc->planner;
    struct schedule_desc with = {.plan = plan,
                                 .mode = making->desc->mode,
                                 .no_overlap = making->desc->no_overlap,
                                 .slots = desc->slots};
    if (planner->take_tables != NULL)
        STRATA_TRY(planner->take_tables(planner->user, plan, desc, error));
    return strata_schedule_create(&making->schedule, &plan->tables, &with, error);
}

static strata_status make_one_rank(struct offload_plan *out, struct schedule **out_schedule,
                                   const struct forecast_desc *desc, strata_error *error)
{
    struct making making = {.desc = desc};
    struct planner_desc planner = desc->planner;
    planner.updates_ahead = desc->mode == UPDATES_AHEAD;
    planner.take_tables = take_tables;
    planner.user = &making;
    STRATA_TRY(strata_planner_make(out, &planner, error));
    *out_schedule = making.schedule;
    return STRATA_OK;
}

/* One rank of several. */

/* A model whose groups are the parts that one rank owns. It borrows the names of `whole`. */
static strata_status shard_model(strata_model_desc *out, struct tables *tables,
                                 const strata_model_desc *whole, uint32_t ranks,
                                 strata_error *error)
{
    strata_group_desc *groups = strata_tables_take(tables, whole->group_count, sizeof *groups);
    strata_tensor_desc *tensors =
        strata_tables_take(tables, whole->group_count, sizeof *tensors);
    STRATA_TRY(strata_tables_check(tables, error));
    for (uint32_t g = 0; g < whole->group_count; g++) {
        uint64_t elems = strata_group_elems(&whole->groups[g]);
        tensors[g] = (strata_tensor_desc){
            .name = whole->groups[g].name, .shape = {strata_units_of(elems, ranks)}, .rank = 1};
        groups[g] = (strata_group_desc){.name = whole->groups[g].name,
                                        .tensors = &tensors[g],
                                        .tensor_count = 1,
                                        .frozen = whole->groups[g].frozen};
    }
    *out = *whole;
    out->groups = groups;
    return STRATA_OK;
}

/* What the largest group's part takes of the device's pool in backward. A gradient is staged
 * there whatever its dtype, since other ranks add to it. */
static uint64_t pool_bytes(const strata_model_desc *model, strata_dtype dtype)
{
    struct group_layout layout = {.param_dtype = dtype, .wire_dtype = dtype, .staged = true};
    uint64_t most = 0;
    for (uint32_t g = 0; g < model->group_count; g++)
        if (model->groups[g].tensors->shape[0] > most)
            most = model->groups[g].tensors->shape[0];
    layout.padded = most + STRATA_BLOCK_ELEMS;
    return strata_layout_param_pool_bytes(&layout) + strata_layout_grad_pool_bytes(&layout);
}

/*
 * The planner knows nothing of ranks, so it gets a model of one rank's parts, and the device's
 * budget is converted: what rests in the device is as large as the part, but each copy is a
 * whole group. First the budget is made smaller by the other parts of one group, which leaves
 * the most for homes. If parameters do not rest there then, all but scratch and activations is
 * for copies, and that much of the budget is divided by the number of ranks.
 */
static strata_status make_one_of_ranks(struct offload_plan *out, struct schedule **out_schedule,
                                       const struct forecast_desc *desc, strata_error *error)
{
    struct tables tables = {0};
    strata_model_desc model = {0};
    struct forecast_desc one = *desc;
    const struct plan_desc *whole = &desc->planner.plan;
    strata_status status = shard_model(&model, &tables, whole->model, desc->ranks, error);
    if (status == STRATA_OK) {
        uint64_t others = (desc->ranks - 1) * pool_bytes(&model, whole->compute_dtype);
        one.planner.plan.model = &model;
        one.planner.plan.device_bytes =
            whole->device_bytes > others ? whole->device_bytes - others : 1;
        status = make_one_rank(out, out_schedule, &one, error);
    }
    uint64_t fixed = model.scratch_bytes + model.stash_bytes;
    if (status == STRATA_OK && whole->device_bytes > fixed &&
        out->summary.tiers[STRATA_DEVICE].home_bytes[STRATA_PARAM] == 0) {
        strata_plan_free(out);
        one.planner.plan.device_bytes = (whole->device_bytes - fixed) / desc->ranks + fixed;
        status = make_one_rank(out, out_schedule, &one, error);
    }
    strata_tables_free(&tables);
    return status;
}

static strata_status make_plan(struct offload_plan *out, struct schedule **out_schedule,
                               const struct forecast_desc *desc, strata_error *error)
{
    return desc->ranks > 1 ? make_one_of_ranks(out, out_schedule, desc, error)
                           : make_one_rank(out, out_schedule, desc, error);
}

/* A forecast, how often its plan commits, and whether its homes could have been others. */
struct trial {
    strata_forecast forecast;
    uint32_t commit_every;
    bool open;
};

static strata_status simulate_plan(strata_forecast *out, struct offload_plan *plan,
                                   struct simulate_desc *desc, strata_error *error)
{
    struct simulation *simulation;
    STRATA_TRY(strata_simulation_create(&simulation, &plan->tables, desc, error));
    return strata_simulation_run(simulation, out, error);
}

/* Plan, simulate a window of steps, and free the plan. */
static strata_status try_plan(struct trial *out, const struct forecast_desc *desc,
                              enum forecast_window window, const char *trace_path,
                              strata_error *error)
{
    struct offload_plan plan;
    struct simulate_desc with = desc->simulate;
    *out = (struct trial){0};
    STRATA_TRY(make_plan(&plan, &with.schedule, desc, error));
    with.plan = &plan;
    strata_forecast_window(&with, window, plan.summary.commit_every);
    strata_status status = STRATA_OK;
    if (trace_path != NULL)
        status = strata_trace_create(&with.trace, TRACE_EVENTS, error);
    if (status == STRATA_OK)
        status = simulate_plan(&out->forecast, &plan, &with, error);
    if (status == STRATA_OK && trace_path != NULL)
        status = strata_trace_save(with.trace, &plan, with.profile->drives, "simulated",
                                   trace_path, error);
    strata_trace_destroy(with.trace);
    out->commit_every = plan.summary.commit_every;
    out->open = plan.open;
    strata_plan_free(&plan);
    return status;
}

/* Try every way to give AUTO parts homes, and keep the fastest. A way that does not fit is left
 * out. */
static strata_status choose_way(struct trial *best, struct home_choice *choice,
                                const struct forecast_desc *desc, strata_error *error)
{
    struct forecast_desc one = *desc;
    STRATA_TRY(try_plan(best, desc, WINDOW_QUIET, NULL, error));
    if (!desc->compare_homes || !best->open)
        return STRATA_OK;
    strata_plan_offer(choice, desc->planner.plan.way, best->forecast.step_s);
    for (uint32_t way = 0; way < STRATA_HOME_WAYS; way++) {
        struct trial other;
        strata_error why = {.status = STRATA_OK};
        if (way == desc->planner.plan.way)
            continue;
        one.planner.plan.way = way;
        strata_status status = try_plan(&other, &one, WINDOW_QUIET, NULL, &why);
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

/* Add the cost of commits to the forecast if they come every few steps, and decide how often
 * they come if neither the caller nor the store says it. */
static strata_status add_commits(struct trial *best, struct forecast_desc *desc,
                                 strata_error *error)
{
    struct trial commit;
    if (best->commit_every < 2) // none, or in every step
        return STRATA_OK;
    STRATA_TRY(try_plan(&commit, desc, WINDOW_COMMIT, NULL, error));
    const struct planner_desc *planner = &desc->planner;
    const strata_forecast windows[] = {best->forecast, commit.forecast};
    uint32_t every =
        planner->commit_every > 0 ? planner->commit_every : planner->found.commit_every;
    best->forecast = strata_commits_spread(windows, desc->simulate.profile, &every);
    desc->planner.spread_commits = every;
    return STRATA_OK;
}

strata_status strata_forecast_make(struct offload_plan *out, struct schedule **out_schedule,
                                   const struct forecast_desc *desc, strata_error *error)
{
    struct home_choice choice = {.way = desc->planner.plan.way};
    struct forecast_desc chosen = *desc;
    struct trial best = {0};
    if (desc->simulate.profile != NULL) {
        STRATA_TRY(choose_way(&best, &choice, desc, error));
        chosen.planner.plan.way = choice.way;
        if (desc->trace_path != NULL)
            STRATA_TRY(try_plan(&best, &chosen, WINDOW_QUIET, desc->trace_path, error));
        STRATA_TRY(add_commits(&best, &chosen, error));
    }
    STRATA_TRY(make_plan(out, out_schedule, &chosen, error));
    out->summary.forecast = best.forecast;
    strata_plan_chosen(&out->summary, &choice);
    return STRATA_OK;
}
