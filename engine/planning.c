#define _GNU_SOURCE
/*
 * Making the plan of a resolved descriptor, with every table that the run will use. The planner
 * decides (offload/plan/planner.h); if the machine's profile is known, its choices are compared
 * by simulation (offload/simulate/forecast.h). This file adds what only an engine knows: its
 * tables, the store that it resumes, and this machine's limits. The tables are the only memory
 * that is taken yet.
 *
 * Thread: the engine's caller.
 */

#include "base/error.h"
#include "base/topology.h"
#include "engine/planning.h"
#include "engine/engine_internal.h"
#include "offload/simulate/forecast.h"
#include "strata/store.h"

#include <errno.h>
#include <stdlib.h>

static struct store_records store_records(const strata_engine *engine)
{
    const strata_engine_desc *desc = &engine->desc;
    return (struct store_records){
        .keep = desc->durability == STRATA_SCRATCH ? 0 : desc->keep,
        .record_type = (uint32_t)strata_record_type(desc->states_dtype),
        .durable = desc->durability != STRATA_SCRATCH,
        .flush = desc->durability == STRATA_DURABLE_POWER,
        .resume = desc->resume,
        .resume_step = desc->resume_at ? desc->resume_step : UINT64_MAX,
        .commit_every = desc->commit_every,
        .identity = engine->identity,
        .seen = engine->looked ? &engine->seen : NULL,
        .before_commit = desc->before_commit,
        .before_commit_user = desc->before_commit_user,
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
        .deadline_ns = (uint64_t)desc->io_deadline_s * 1000000000u,
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

/* What take_tables() needs: the engine, and the machine that the plan is for. */
struct planning {
    strata_engine *engine;
    const struct what_if *machine;
};

/* Take the engine's own tables from the plan's, and count what others will take for the engine.
 */
static strata_status take_tables(void *user, struct offload_plan *plan,
                                 const struct plan_desc *desc, strata_error *error)
{
    const struct planning *planning = user;
    strata_engine *engine = planning->engine;
    struct tables *tables = &plan->tables;
    strata_tables_count(tables, (plan->model.block_count + 1) * sizeof *engine->block_sums);
    engine->bounce = strata_tables_take(tables, STRATA_BLOCK_ELEMS, sizeof *engine->bounce);
    /* Enough for any dtype. */
    engine->bounce_bytes = strata_tables_take(tables, STRATA_BLOCK_ELEMS, sizeof(float));
    if (desc->fold)
        engine->scratch =
            strata_tables_take(tables, planning->machine->workers, desc->record.block_bytes);
    strata_tables_count(tables, sizeof *engine + strata_pager_table_bytes(plan));
    if (engine->desc.trace_events > 0)
        strata_tables_count(tables, strata_trace_bytes(engine->desc.trace_events));
    engine->first_line.slots = strata_tables_take(tables, plan->model.tile_count, 1);
    return strata_tables_check(tables, error);
}

static struct plan_desc plan_desc(const strata_engine *engine, const struct store_desc *store)
{
    const strata_engine_desc *desc = &engine->desc;
    return (struct plan_desc){
        .slots = {.durable = engine->records.durable,
                  .keep = engine->records.keep,
                  .keep_every = desc->keep_every},
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
        .store = desc->store_dir_count > 0 ? store : NULL,
    };
}

/* Look at the store that is to be resumed. If it is damaged the run is refused here, since a
 * plan that ignored the store would be another plan. */
static strata_status find_store(strata_engine *engine, strata_error *error)
{
    const strata_engine_desc *desc = &engine->desc;
    strata_store_listing listing;
    strata_error why = {.status = STRATA_OK};
    if (!desc->resume || desc->durability == STRATA_SCRATCH)
        return STRATA_OK;
    strata_status status = strata_store_look(&listing, &engine->seen, desc->store_dirs,
                                             desc->store_dir_count, &why);
    engine->looked = true;
    if (status == STRATA_E_IO && why.native == ENOENT)
        return STRATA_OK;
    /* The newest commit is lost, but the run asks for an older one: the store decides that. */
    bool older = status == STRATA_E_CORRUPT && listing.commit_count > 0 && desc->resume_at;
    if (status != STRATA_OK && !older)
        return strata_fail(error, status, why.native, "%s", why.message);
    if (listing.commit_count > 0)
        engine->found =
            (struct found_store){.slots = listing.slots, .commit_every = listing.commit_every};
    return STRATA_OK;
}

/* The plan, its tables and its schedule, of a resolved descriptor. */
static strata_status make_plan(strata_engine *engine, const struct what_if *machine,
                               strata_error *error)
{
    const strata_engine_desc *desc = &engine->desc;
    struct planning planning = {engine, machine};
    engine->mode = update_mode(desc);
    STRATA_TRY(strata_engine_identify(engine, error));
    engine->records = store_records(engine);
    engine->record_type = strata_record_type(desc->states_dtype);
    struct store_desc store = strata_engine_store_desc(engine);
    struct forecast_desc forecast = {
        .planner = {.plan = plan_desc(engine, &store),
                    .fold_each_step = desc->clip_mode != STRATA_CLIP_AUTO,
                    .commit_every = desc->commit_every,
                    .found = engine->found,
                    .take_tables = take_tables,
                    .user = &planning},
        .mode = engine->mode,
        .no_overlap = desc->no_overlap,
        .ranks = machine->ranks,
        .compare_homes = true,
        .trace_path = machine->trace_path,
        .simulate = {.profile = desc->profile,
                     .compute_s = machine->compute_s,
                     .begins = STEP_AFTER_NORM},
    };
    STRATA_TRY(strata_forecast_make(&engine->plan, &engine->schedule, &forecast, error));
    engine->records.new_commit_every = engine->plan.new_commit_every;
    return STRATA_OK;
}

strata_status strata_engine_make_plan(strata_engine *engine, strata_error *error)
{
    struct what_if here = {.workers = strata_workers_count(engine->desc.workers)};
    STRATA_TRY(find_store(engine, error));
    return make_plan(engine, &here, error);
}

strata_status strata_engine_what_if(strata_plan *out, const strata_engine_desc *desc,
                                    const struct what_if *machine, strata_error *error)
{
    *out = (strata_plan){0};
    strata_engine *engine = calloc(1, sizeof *engine);
    if (engine == NULL)
        return strata_fail(error, STRATA_E_NOMEM, 0, "no memory for an engine");
    engine->desc = *desc;
    strata_status status = make_plan(engine, machine, error);
    if (status == STRATA_OK)
        *out = engine->plan.summary;
    strata_plan_free(&engine->plan);
    free(engine);
    return status;
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

/* Bytes of RAM that the run takes, and what is left of it: of the machine, and in the control
 * group. The host device's memory is RAM too. */
static strata_status check_host(uint64_t need, uint32_t allow, const struct topology *topology,
                                strata_error *error)
{
    uint64_t limit = topology->memory_limit_bytes;
    uint64_t used = topology->memory_current_bytes;
    uint64_t left = limit > used ? limit - used : 0;
    if (limit != UINT64_MAX && need > left)
        return strata_fail(error, STRATA_E_NOMEM, 0,
                           "host memory: this run takes %llu bytes, the cgroup has %llu left: "
                           "%llu of its %llu are in use",
                           (unsigned long long)need, (unsigned long long)left,
                           (unsigned long long)used, (unsigned long long)limit);
    if (need > topology->memory_available_bytes && (allow & STRATA_ALLOW_OVERCOMMIT) == 0)
        return strata_fail(error, STRATA_E_NOMEM, 0,
                           "host memory: this run takes %llu bytes, the machine has %llu left; "
                           "if its memory grows with use, allow overcommit",
                           (unsigned long long)need,
                           (unsigned long long)topology->memory_available_bytes);
    return STRATA_OK;
}

strata_status strata_engine_check_machine(const strata_engine *engine, strata_error *error)
{
    struct topology topology;
    STRATA_TRY(strata_topology_read(&topology, NULL, error));
    /* Memory of the plan's own tables counts as used already. */
    const struct tables *tables = &engine->plan.tables;
    uint64_t need = engine->plan.summary.tiers[STRATA_HOST].used_bytes -
                    (tables->bytes - tables->counted_bytes);
    if (engine->desc.device->ops->in_ram)
        need += engine->plan.device_arena_bytes;
    else
        STRATA_TRY(check_device(engine, error));
    return check_host(need, engine->desc.allow, &topology, error);
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
