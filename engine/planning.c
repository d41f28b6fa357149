#define _GNU_SOURCE
/*
 * From a resolved descriptor to a plan, with every table the run will use: which homes, how
 * many slots a record has, how often there is a commit. Where the machine's profile is known
 * the answers are compared by simulation. Nothing is taken yet but the tables' memory.
 *
 * Thread: the engine's caller.
 */

#include "base/error.h"
#include "base/topology.h"
#include "engine/state.h"
#include "offload/simulate/forecast.h"
#include "strata/store.h"

#include <errno.h>
#include <stdlib.h>

/* Where commits cost writes of their own and nothing is known of the machine. */
#define UNKNOWN_COMMIT_EVERY 10u

static struct store_records store_records(const strata_engine_desc *desc)
{
    return (struct store_records){
        .keep = desc->durability == STRATA_SCRATCH ? 0 : desc->keep,
        .record_type = (uint32_t)strata_record_type(desc->states_dtype),
        .durable = desc->durability != STRATA_SCRATCH,
        .flush = desc->durability == STRATA_DURABLE_POWER,
        .resume = desc->resume,
        .resume_step = desc->resume_at ? desc->resume_step : UINT64_MAX,
        .commit_every = desc->commit_every,
        .identity = desc->identity != NULL ? desc->identity : "",
    };
}

struct store_desc strata_engine_store_desc(const strata_engine *engine)
{
    const strata_engine_desc *desc = &engine->desc;
    return (struct store_desc){
        .records = &engine->records,
        .limit_bytes = desc->nvme_bytes,
        .dirs = desc->store_dirs,
        .dir_count = desc->store_dir_count,
        .backend = desc->io,
        .allow = desc->allow,
        .depth = desc->io_depth,
        .log = desc->log,
        .log_user = desc->log_user,
        .progress = desc->progress,
        .progress_user = desc->progress_user,
    };
}

bool strata_engine_scales(const strata_engine_desc *desc)
{
    return desc->compute_dtype == STRATA_FP16 && desc->loss_scale == 0;
}

static enum update_mode update_mode(const strata_engine_desc *desc)
{
    if (!(desc->clip > 0) && !strata_engine_scales(desc))
        return UPDATES_AT_ONCE;
    return desc->no_overlap || desc->clip_mode == STRATA_CLIP_DEFERRED ? UPDATES_DEFERRED
                                                                       : UPDATES_AHEAD;
}

/* Steps between commits: what is asked for, or what the store has. 0: what the plan of a new
 * one calls for. */
static uint32_t known_commit_every(const strata_engine *engine)
{
    return engine->desc.commit_every > 0 ? engine->desc.commit_every
                                         : engine->found.commit_every;
}

/* A state that is a gradient behind at each commit is not worth its frame. */
static bool may_fold(const strata_engine *engine)
{
    const strata_engine_desc *desc = &engine->desc;
    bool each_step = desc->durability != STRATA_SCRATCH && known_commit_every(engine) == 1;
    return engine->mode == UPDATES_AHEAD && !(desc->clip_mode == STRATA_CLIP_AUTO && each_step);
}

/* Everything that needs memory but no arena: the plan and its tables. slot_ahead: records have
 * one slot more, so that they can be written ahead of the norm between commits. */
static strata_status plan_once(strata_engine *engine, uint32_t skip, bool slot_ahead,
                               strata_error *error)
{
    const strata_engine_desc *desc = &engine->desc;
    engine->records = store_records(desc);
    engine->record_type = strata_record_type(desc->states_dtype);
    struct store_desc store = strata_engine_store_desc(engine);
    struct slots_desc slots = {
        .durable = engine->records.durable,
        .ahead = slot_ahead,
        .keep = engine->records.keep,
        .keep_every = desc->keep_every,
    };
    struct plan_desc plan = {
        .slots = slots,
        .model = desc->model,
        .compute_dtype = desc->compute_dtype,
        .record = {engine->record_type, strata_record_block_bytes(engine->record_type)},
        .tile_elems = desc->tile_elems,
        .device_bytes = desc->device_bytes,
        .host_bytes = desc->host_bytes,
        .nvme_bytes = desc->nvme_bytes,
        .reserved_host_bytes = desc->reserved_host_bytes,
        .want = {desc->params, desc->grads, desc->states},
        .want_stash = desc->stash,
        .fold = may_fold(engine),
        .store = desc->store_dir_count > 0 ? &store : NULL,
        .skip = skip,
        .way = engine->home_way,
    };
    STRATA_TRY(strata_plan_begin(&engine->plan, &plan, error));
    struct tables *tables = &engine->plan.tables;
    strata_tables_count(tables,
                        (engine->plan.model.block_count + 1) * sizeof *engine->block_sums);
    engine->bounce = strata_tables_take(tables, STRATA_BLOCK_ELEMS, sizeof *engine->bounce);
    /* For any dtype. */
    engine->bounce_bytes = strata_tables_take(tables, STRATA_BLOCK_ELEMS, sizeof(float));
    if (may_fold(engine))
        engine->scratch = strata_tables_take(tables, strata_workers_count(desc->workers),
                                             strata_record_block_bytes(engine->record_type));
    strata_tables_count(tables, sizeof *engine + strata_pager_table_bytes(&engine->plan));
    if (desc->trace_events > 0)
        strata_tables_count(tables, strata_trace_bytes(desc->trace_events));
    struct schedule_desc schedule = {
        .plan = &engine->plan,
        .mode = engine->mode,
        .no_overlap = desc->no_overlap,
        .slots = slots,
    };
    engine->first_line.slots = strata_tables_take(tables, engine->plan.model.tile_count, 1);
    STRATA_TRY(strata_schedule_create(&engine->schedule, tables, &schedule, error));
    return strata_plan_finish(&engine->plan, &plan, error);
}

/* Of a new store: every step where that costs no extra writes. */
static uint32_t new_commit_every(const strata_engine *engine)
{
    if (strata_plan_states_on_nvme(&engine->plan))
        return 1;
    return engine->spread_commits > 0 ? engine->spread_commits : UNKNOWN_COMMIT_EVERY;
}

static void settle_commits(strata_engine *engine)
{
    struct store_records *records = &engine->records;
    uint32_t known = known_commit_every(engine);
    records->new_commit_every = new_commit_every(engine);
    if (records->durable)
        engine->plan.summary.commit_every = known > 0 ? known : records->new_commit_every;
}

/* What goes to the device is decided before the tables are known that host RAM has to hold. So
 * a plan that host RAM or the store refuses is made again with the device filled in the next
 * best way. Where none fits, the best one's refusal is told. */
static strata_status plan_device(strata_engine *engine, bool slot_ahead, strata_error *error)
{
    strata_error first = {.status = STRATA_OK};
    for (uint32_t skip = 0;; skip++) {
        strata_error why = {.status = STRATA_OK};
        strata_status status = plan_once(engine, skip, slot_ahead, &why);
        if (status == STRATA_OK) {
            settle_commits(engine);
            return STRATA_OK;
        }
        if (skip == 0)
            first = why;
        bool again = status == STRATA_E_NOMEM && engine->plan.more_choices &&
                     !engine->plan.tables.failed;
        if (!again) {
            if (error != NULL && error->status == STRATA_OK)
                *error = first;
            return first.status;
        }
        strata_plan_free(&engine->plan);
    }
}

/* Would a slot more let updates be written ahead of the norm? */
static bool wants_slot_ahead(const strata_engine *engine)
{
    const struct offload_plan *plan = &engine->plan;
    bool on_nvme = false;
    for (uint32_t i = 0; i < plan->model.tile_count && !on_nvme; i++)
        on_nvme = plan->homes[STRATA_STATE].tier[i] == STRATA_NVME;
    return engine->mode == UPDATES_AHEAD && plan->durable && on_nvme &&
           plan->summary.commit_every > 1;
}

/* What else is wrong with the store is told here: a plan made without it would be another. */
static strata_status find_store(struct found_store *out, const strata_engine_desc *desc,
                                strata_error *error)
{
    strata_store_listing listing;
    strata_error why = {.status = STRATA_OK};
    *out = (struct found_store){0};
    if (!desc->resume || desc->durability == STRATA_SCRATCH)
        return STRATA_OK;
    strata_status status =
        strata_store_list(&listing, desc->store_dirs, desc->store_dir_count, &why);
    if (status == STRATA_E_IO && why.native == ENOENT)
        return STRATA_OK;
    /* The newest commit is lost, but an older one was asked for: the store judges that. */
    bool older = status == STRATA_E_CORRUPT && listing.commit_count > 0 && desc->resume_at;
    if (status != STRATA_OK && !older)
        return strata_fail(error, status, why.native, "%s", why.message);
    if (listing.commit_count > 0)
        *out =
            (struct found_store){.slots = listing.slots, .commit_every = listing.commit_every};
    return STRATA_OK;
}

/* A store that is resumed has the slots it was made with. A new one gets the one for writing
 * ahead if it is of use and the budgets have room for it. */
static strata_status plan_slots(strata_engine *engine, strata_error *error)
{
    strata_error why = {.status = STRATA_OK};
    STRATA_TRY(plan_device(engine, engine->found.slots == 3 + engine->desc.keep, error));
    if (engine->found.slots > 0 || !wants_slot_ahead(engine))
        return STRATA_OK;
    strata_plan_free(&engine->plan);
    strata_status status = plan_device(engine, true, &why);
    if (status == STRATA_OK)
        return STRATA_OK;
    if (engine->plan.tables.failed)
        return strata_fail(error, status, why.native, "%s", why.message);
    strata_plan_free(&engine->plan);
    return plan_device(engine, false, error);
}

/* Simulate a window of steps on the machine of the profile; uses the schedule up. */
static strata_status simulate(strata_forecast *out, strata_engine *engine,
                              enum forecast_window window, strata_error *error)
{
    struct simulation *simulation;
    struct simulate_desc desc = {
        .plan = &engine->plan,
        .schedule = engine->schedule,
        .profile = engine->desc.profile,
        .begins = STEP_AFTER_NORM,
    };
    strata_forecast_window(&desc, window, engine->plan.summary.commit_every);
    STRATA_TRY(strata_simulation_create(&simulation, &engine->plan.tables, &desc, error));
    return strata_simulation_run(simulation, out, error);
}

/* Plan with AUTO homes given in one way, and see what a step then takes. */
static strata_status try_way(strata_forecast *out, strata_engine *engine, uint32_t way,
                             enum forecast_window window, strata_error *error)
{
    strata_plan_free(&engine->plan);
    engine->home_way = way;
    STRATA_TRY(plan_slots(engine, error));
    return simulate(out, engine, window, error);
}

/* Which way is fastest on the machine of the profile? One that does not fit is none. */
static strata_status choose_way(struct home_choice *out, strata_forecast *best,
                                strata_engine *engine, strata_error *error)
{
    STRATA_TRY(try_way(best, engine, 0, WINDOW_QUIET, error));
    strata_plan_offer(out, 0, best->step_s);
    bool open = engine->plan.open;
    for (uint32_t way = 1; way < STRATA_HOME_WAYS && open; way++) {
        strata_forecast forecast;
        strata_error why = {.status = STRATA_OK};
        strata_status status = try_way(&forecast, engine, way, WINDOW_QUIET, &why);
        if (status == STRATA_E_NOMEM)
            continue;
        if (status != STRATA_OK)
            return strata_fail(error, status, why.native, "%s", why.message);
        strata_plan_offer(out, way, forecast.step_s);
        if (out->way == way)
            *best = forecast;
    }
    return STRATA_OK;
}

/* What commits cost, if that is not in the forecast yet, and how often they are to come unless
 * that is known. */
static strata_status add_commits(strata_forecast *forecast, strata_engine *engine, uint32_t way,
                                 strata_error *error)
{
    strata_forecast windows[FORECAST_WINDOWS] = {*forecast};
    if (!engine->records.durable)
        return STRATA_OK;
    STRATA_TRY(try_way(&windows[WINDOW_COMMIT], engine, way, WINDOW_COMMIT, error));
    if (engine->plan.summary.commit_every < 2)
        return STRATA_OK;
    uint32_t every = known_commit_every(engine);
    *forecast = strata_commits_spread(windows, engine->desc.profile, &every);
    engine->spread_commits = every;
    return STRATA_OK;
}

strata_status strata_engine_make_plan(strata_engine *engine, strata_error *error)
{
    struct home_choice choice = {0};
    strata_forecast forecast = {0};
    engine->mode = update_mode(&engine->desc);
    STRATA_TRY(find_store(&engine->found, &engine->desc, error));
    if (engine->desc.profile != NULL) {
        STRATA_TRY(choose_way(&choice, &forecast, engine, error));
        STRATA_TRY(add_commits(&forecast, engine, choice.way, error));
        strata_plan_free(&engine->plan);
    }
    engine->home_way = choice.way;
    STRATA_TRY(plan_slots(engine, error));
    engine->plan.summary.forecast = forecast;
    strata_plan_chosen(&engine->plan.summary, &choice);
    return STRATA_OK;
}

static strata_status check_device(const strata_engine *engine, strata_error *error)
{
    strata_device_facts facts;
    strata_device_facts_of(engine->desc.device, &facts);
    if (engine->plan.device_arena_bytes <= facts.free_bytes)
        return STRATA_OK;
    return strata_fail(error, STRATA_E_NOMEM, 0,
                       "device memory: this run takes %llu bytes, %s has %llu free",
                       (unsigned long long)engine->plan.device_arena_bytes, facts.model,
                       (unsigned long long)facts.free_bytes);
}

/* The host device's memory is RAM too. */
strata_status strata_engine_check_machine(const strata_engine *engine, strata_error *error)
{
    struct topology topology;
    STRATA_TRY(strata_topology_read(&topology, NULL, error));
    uint64_t need = engine->plan.host_arena_bytes;
    if (engine->desc.device->ops->in_ram)
        need += engine->plan.device_arena_bytes;
    else
        STRATA_TRY(check_device(engine, error));
    if (need > topology.memory_available_bytes)
        return strata_fail(error, STRATA_E_NOMEM, 0,
                           "host memory: this run takes %llu bytes, the machine has %llu free",
                           (unsigned long long)need,
                           (unsigned long long)topology.memory_available_bytes);
    if (topology.memory_limit_bytes != UINT64_MAX && need > topology.memory_limit_bytes)
        return strata_fail(error, STRATA_E_NOMEM, 0,
                           "host memory: this run takes %llu bytes, the cgroup grants %llu",
                           (unsigned long long)need,
                           (unsigned long long)topology.memory_limit_bytes);
    return STRATA_OK;
}

strata_status strata_engine_plan(strata_plan *out, const strata_engine_desc *desc,
                                 strata_error *error)
{
    if (out == NULL || desc == NULL)
        return strata_fail(error, STRATA_E_INVALID, 0, "engine plan: %s is NULL",
                           out == NULL ? "out" : "the descriptor");
    *out = (strata_plan){0};
    strata_engine *engine = calloc(1, sizeof *engine);
    if (engine == NULL)
        return strata_fail(error, STRATA_E_NOMEM, 0, "no memory for an engine");
    strata_status status = strata_engine_resolve(&engine->desc, desc, error);
    if (status == STRATA_OK)
        status = strata_engine_make_plan(engine, error);
    if (status == STRATA_OK)
        status = strata_engine_check_machine(engine, error);
    if (status == STRATA_OK)
        *out = engine->plan.summary;
    strata_plan_free(&engine->plan);
    free(engine);
    return status;
}
