#define _GNU_SOURCE
/*
 * Making and unmaking an engine.
 *
 * A descriptor's defaults are resolved here, once, into a private copy. Then the plan is made,
 * with every table the run will use, and compared with the budgets, and those with what this
 * machine has; only then are arenas taken and files made. Whatever fails undoes what was done
 * before it.
 *
 * Thread: the engine's caller.
 */

#include "base/error.h"
#include "base/hash.h"
#include "base/topology.h"
#include "engine/state.h"
#include "io/io.h"
#include "offload/simulate.h"
#include "optim/loss_scale.h"
#include "strata/store.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MIN_TILE_ELEMS (256u << 10)
#define MAX_TILE_ELEMS (4u << 20)
#define MAX_TILES      16384u

uint32_t strata_default_tile_elems(const strata_model_desc *model)
{
    for (uint32_t tile = MIN_TILE_ELEMS; tile < MAX_TILE_ELEMS; tile *= 2) {
        uint64_t count = 0;
        for (uint32_t g = 0; model->groups != NULL && g < model->group_count; g++) {
            uint64_t elems = 0;
            for (uint32_t t = 0;
                 model->groups[g].tensors != NULL && t < model->groups[g].tensor_count; t++) {
                const strata_tensor_desc *tensor = &model->groups[g].tensors[t];
                uint64_t product = 1;
                for (uint32_t i = 0; i < tensor->rank && i < STRATA_MAX_RANK; i++)
                    product *= tensor->shape[i];
                elems += product;
            }
            count += (elems + tile - 1) / tile;
        }
        if (count <= MAX_TILES)
            return tile;
    }
    return MAX_TILE_ELEMS;
}

/* Resolving. */

/* Nine tenths of what is free, and all that the store to be resumed has already. */
static strata_status room_for_store(const strata_engine_desc *desc, uint64_t *out,
                                    strata_error *error)
{
    *out = 0;
    for (uint32_t i = 0; i < desc->store_dir_count; i++) {
        uint64_t free_bytes, own_bytes;
        STRATA_TRY(strata_store_room(desc->store_dirs[i], &free_bytes, &own_bytes, error));
        *out += free_bytes / 10 * 9 + own_bytes;
    }
    return STRATA_OK;
}

static bool is_tier(strata_tier tier)
{
    return (int)tier >= STRATA_AUTO && (int)tier < STRATA_TIER_COUNT;
}

static strata_status check_choices(const strata_engine_desc *desc, strata_error *error)
{
    if (!is_tier(desc->params) || !is_tier(desc->grads) || !is_tier(desc->states) ||
        !is_tier(desc->stash))
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "homes %d, %d, %d, stash %d: auto, device, host or nvme",
                           (int)desc->params, (int)desc->grads, (int)desc->states,
                           (int)desc->stash);
    if (desc->io != STRATA_IO_URING && desc->io != STRATA_IO_THREADS)
        return strata_fail(error, STRATA_E_INVALID, 0, "io backend %d: uring or threads",
                           (int)desc->io);
    if (desc->store_dir_count > STRATA_STORE_MAX_DRIVES)
        return strata_fail(error, STRATA_E_INVALID, 0, "%u store directories: at most %u",
                           desc->store_dir_count, STRATA_STORE_MAX_DRIVES);
    if (desc->io_depth > STRATA_IO_MAX_DEPTH)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "%u requests in flight per drive: at most %u", desc->io_depth,
                           STRATA_IO_MAX_DEPTH);
    return STRATA_OK;
}

static strata_status check_dtypes(const strata_engine_desc *desc, strata_error *error)
{
    bool fp16 = desc->compute_dtype == STRATA_FP16;
    if (desc->compute_dtype != STRATA_FP32 && desc->compute_dtype != STRATA_BF16 && !fp16)
        return strata_fail(error, STRATA_E_INVALID, 0, "compute dtype %d: fp32, bf16 or fp16",
                           (int)desc->compute_dtype);
    if (desc->states_dtype != 0 && desc->states_dtype != STRATA_FP32 &&
        desc->states_dtype != STRATA_BF16)
        return strata_fail(error, STRATA_E_INVALID, 0, "states dtype %d: fp32 or bf16",
                           (int)desc->states_dtype);
    if (desc->loss_scale != 0 && !(fp16 && isnormal(desc->loss_scale) && desc->loss_scale > 0))
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "loss scale %g: a positive number, and for fp16 only",
                           desc->loss_scale);
    return STRATA_OK;
}

static strata_status check_desc(const strata_engine_desc *desc, strata_error *error)
{
    if (desc->device == NULL || desc->workers == NULL || desc->model == NULL ||
        desc->adam == NULL || desc->init == NULL)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "an engine needs a device, workers, a model, adam and init");
    STRATA_TRY(check_dtypes(desc, error));
    if ((int)desc->clip_mode < STRATA_CLIP_AUTO || desc->clip_mode > STRATA_CLIP_SPECULATIVE)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "clip mode %d: auto, deferred or speculative", (int)desc->clip_mode);
    if (!(desc->clip >= 0))
        return strata_fail(error, STRATA_E_INVALID, 0, "clip %g: not a norm",
                           (double)desc->clip);
    if (desc->durability != STRATA_SCRATCH && desc->store_dir_count == 0)
        return strata_fail(error, STRATA_E_INVALID, 0, "durability needs a store directory");
    if (desc->keep > STRATA_MAX_KEEP)
        return strata_fail(error, STRATA_E_INVALID, 0, "keep %u commits: at most %u",
                           desc->keep, STRATA_MAX_KEEP);
    STRATA_TRY(check_choices(desc, error));
    if (desc->store_dir_count > 0 && desc->store_dirs == NULL)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "store_dirs is NULL, store_dir_count is %u", desc->store_dir_count);
    return STRATA_OK;
}

static uint64_t left_of(uint64_t bytes, uint64_t taken)
{
    return bytes > taken ? bytes - taken : 0;
}

/* The host device's memory is RAM too: there the two budgets share what is free. */
static strata_status resolve_memory(strata_engine_desc *out, strata_error *error)
{
    bool shared = out->device->ops->in_ram;
    if (out->device_bytes == 0) {
        strata_device_facts facts;
        strata_device_facts_of(out->device, &facts);
        uint64_t available = facts.free_bytes;
        if (shared && out->host_bytes == 0)
            available /= 2;
        else if (shared)
            available = left_of(available, out->host_bytes);
        out->device_bytes = available / 10 * 9;
    }
    if (out->host_bytes == 0) {
        struct topology topology;
        STRATA_TRY(strata_topology_read(&topology, NULL, error));
        uint64_t left = left_of(topology.memory_limit_bytes, topology.memory_current_bytes);
        uint64_t available = topology.memory_available_bytes;
        available = left < available ? left : available;
        out->host_bytes = left_of(available, shared ? out->device_bytes : 0) / 2;
    }
    return STRATA_OK;
}

/* Defaults, into a private copy. */
static strata_status resolve(strata_engine_desc *out, const strata_engine_desc *desc,
                             strata_error *error)
{
    STRATA_TRY(check_desc(desc, error));
    *out = *desc;
    STRATA_TRY(resolve_memory(out, error));
    uint64_t room;
    STRATA_TRY(room_for_store(desc, &room, error));
    if (out->nvme_bytes == 0)
        out->nvme_bytes = room;
    if (out->tile_elems == 0)
        out->tile_elems = strata_default_tile_elems(desc->model);
    if (out->keep_every == 0)
        out->keep_every = 1000;
    return STRATA_OK;
}

/* Planning. */

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

static struct store_desc store_desc(const strata_engine_desc *desc,
                                    const struct store_records *records)
{
    return (struct store_desc){
        .records = records,
        .limit_bytes = desc->nvme_bytes,
        .dirs = desc->store_dirs,
        .dir_count = desc->store_dir_count,
        .backend = desc->io,
        .allow = desc->allow,
        .depth = desc->io_depth,
        .log = desc->log,
        .log_user = desc->log_user,
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
    struct store_desc store = store_desc(desc, &engine->records);
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
        .state_elem_bytes = strata_record_elem_bytes(engine->record_type),
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
    strata_tables_count(tables, engine->plan.model.block_count * sizeof *engine->block_sums);
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

/* Steps between commits of a new store: every step where that costs no extra writes. */
static uint32_t new_commit_every(const struct offload_plan *plan)
{
    for (uint32_t i = 0; i < plan->model.tile_count; i++)
        if (plan->homes[STRATA_STATE].tier[i] != STRATA_NVME)
            return 10;
    return 1;
}

static void settle_commits(strata_engine *engine)
{
    struct store_records *records = &engine->records;
    uint32_t known = known_commit_every(engine);
    records->new_commit_every = new_commit_every(&engine->plan);
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
    if (status != STRATA_OK)
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

/* What a step of the plan will cost on the machine of the profile; uses the schedule up. */
static strata_status forecast(strata_engine *engine, strata_error *error)
{
    struct simulation *simulation;
    struct simulate_desc desc = {
        .plan = &engine->plan,
        .schedule = engine->schedule,
        .profile = engine->desc.profile,
        .begins = STEP_AFTER_NORM,
        .commit_every = engine->plan.summary.commit_every,
        .warm_steps = 2,
        .steps = 3,
    };
    if (desc.profile == NULL)
        return STRATA_OK;
    STRATA_TRY(strata_simulation_create(&simulation, &engine->plan.tables, &desc, error));
    return strata_simulation_run(simulation, &engine->plan.summary.forecast, error);
}

/* Plan in one way to give AUTO homes, and simulate it. */
static strata_status try_way(strata_engine *engine, uint32_t way, strata_error *error)
{
    engine->home_way = way;
    STRATA_TRY(plan_slots(engine, error));
    return forecast(engine, error);
}

/* Which way is fastest on the machine of the profile? One that does not fit is none. */
static strata_status choose_way(strata_engine *engine, struct home_choice *out,
                                strata_error *error)
{
    STRATA_TRY(try_way(engine, 0, error));
    strata_plan_offer(out, 0, engine->plan.summary.forecast.step_s);
    bool open = engine->plan.open;
    strata_plan_free(&engine->plan);
    for (uint32_t way = 1; way < STRATA_HOME_WAYS && open; way++) {
        strata_error why = {.status = STRATA_OK};
        strata_status status = try_way(engine, way, &why);
        if (status == STRATA_OK)
            strata_plan_offer(out, way, engine->plan.summary.forecast.step_s);
        strata_plan_free(&engine->plan);
        if (status != STRATA_OK && status != STRATA_E_NOMEM)
            return strata_fail(error, status, why.native, "%s", why.message);
    }
    return STRATA_OK;
}

static strata_status plan_all(strata_engine *engine, strata_error *error)
{
    struct home_choice choice = {0};
    engine->mode = update_mode(&engine->desc);
    STRATA_TRY(find_store(&engine->found, &engine->desc, error));
    if (engine->desc.profile != NULL)
        STRATA_TRY(choose_way(engine, &choice, error));
    engine->home_way = choice.way;
    STRATA_TRY(plan_slots(engine, error));
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

/* Does this machine have what the plan takes? The host device's memory is RAM too. */
static strata_status check_machine(const strata_engine *engine, strata_error *error)
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
    *out = (strata_plan){0};
    strata_engine *engine = calloc(1, sizeof *engine);
    if (engine == NULL)
        return strata_fail(error, STRATA_E_NOMEM, 0, "no memory for an engine");
    strata_status status = resolve(&engine->desc, desc, error);
    if (status == STRATA_OK)
        status = plan_all(engine, error);
    if (status == STRATA_OK)
        status = check_machine(engine, error);
    if (status == STRATA_OK)
        status = forecast(engine, error);
    if (status == STRATA_OK)
        *out = engine->plan.summary;
    strata_plan_free(&engine->plan);
    free(engine);
    return status;
}

/* Taking. */

static void say(const strata_engine *engine, const char *line)
{
    if (engine->desc.log != NULL)
        engine->desc.log(engine->desc.log_user, line);
}

/* The host arena, for the device's copies. Unpinned, they are slow and wait for one another. */
static strata_status pin_host(strata_engine *engine, strata_error *error)
{
    strata_device *device = engine->desc.device;
    if (engine->plan.host_arena_bytes == 0)
        return STRATA_OK;
    strata_error why = {.status = STRATA_OK};
    uint64_t piece_bytes;
    strata_status status = device->ops->pin(device, engine->host.base,
                                            engine->plan.host_arena_bytes, &piece_bytes, &why);
    engine->pinned = status == STRATA_OK;
    bool allowed = (engine->desc.allow & STRATA_ALLOW_UNPINNED) != 0;
    if (status == STRATA_E_UNSUPPORTED && allowed) {
        say(engine, why.message);
        return STRATA_OK;
    }
    if (status != STRATA_OK)
        return strata_fail(error, status, why.native, "%s", why.message);
    if (piece_bytes > 0) {
        char line[64];
        snprintf(line, sizeof line, "host memory is pinned in pieces of %llu MiB",
                 (unsigned long long)(piece_bytes >> 20));
        say(engine, line);
    }
    return STRATA_OK;
}

static strata_status take_arenas(strata_engine *engine, strata_error *error)
{
    strata_device *device = engine->desc.device;
    void *memory;
    void *sums;
    if (engine->plan.host_arena_bytes > 0)
        STRATA_TRY(strata_arena_create(&engine->host, engine->plan.host_arena_bytes,
                                       "host arena", error));
    STRATA_TRY(device->ops->arena_create(device, engine->plan.device_arena_bytes, &memory,
                                         &engine->device_huge, error));
    engine->memory =
        (struct memory){.plan = &engine->plan, .host = engine->host.base, .device = memory};
    bool huge =
        engine->device_huge && (engine->host.huge || engine->plan.host_arena_bytes == 0);
    if (!huge)
        say(engine, "huge pages were not to be had: I/O and copies cost more cpu time");
    STRATA_TRY(device->ops->shared_create(
        device, engine->plan.model.block_count * sizeof *engine->block_sums, &sums, error));
    engine->block_sums = sums;
    return pin_host(engine, error);
}

/* Tell the schedule what the store holds, and remember where this run begins. */
static void recover(strata_engine *engine)
{
    struct commit_line lines[1 + STRATA_MAX_KEEP] = {engine->first_line};
    const struct store_recovery *found = strata_store_recovery(engine->store);
    for (uint32_t i = 0; i < found->line_count; i++)
        lines[i] = (struct commit_line){.step = found->lines[i].step,
                                        .slots = (uint8_t *)(uintptr_t)found->lines[i].slots};
    uint32_t count = found->line_count > 0 ? found->line_count : 1;
    engine->first_line.step = lines[0].step;
    memmove(engine->first_line.slots, lines[0].slots, engine->plan.model.tile_count);
    engine->steps = engine->base_step = lines[0].step;
    engine->base_updates = engine->applied = found->line_count > 0 ? found->updates : 0;
    if (found->line_count > 0 && strata_engine_scales(&engine->desc))
        engine->loss_scale = found->loss_scale;
    engine->plan.summary.commit_every = found->commit_every;
    strata_schedule_recover(engine->schedule, lines, count, found->commit_every);
}

/* The scale that a new run begins with. */
static double first_loss_scale(const strata_engine_desc *desc)
{
    if (desc->compute_dtype != STRATA_FP16)
        return 1;
    return desc->loss_scale != 0 ? desc->loss_scale : LOSS_SCALE_FIRST;
}

static strata_status open_store(strata_engine *engine, bool *out_fresh, strata_error *error)
{
    *out_fresh = true;
    if (!strata_plan_uses_store(&engine->plan))
        return STRATA_OK;
    struct store_records records;
    struct store_desc base = store_desc(&engine->desc, &engine->records);
    struct store_desc store = strata_plan_store(&engine->plan, &base, &records);
    store.buffers = engine->host.base;
    store.buffers_bytes = engine->host.bytes;
    STRATA_TRY(strata_store_open(&engine->store, &store, error));
    if (!engine->plan.durable)
        return STRATA_OK;
    *out_fresh = strata_store_recovery(engine->store)->line_count == 0;
    recover(engine);
    return STRATA_OK;
}

static strata_status start_pager(strata_engine *engine, strata_error *error)
{
    if (engine->desc.trace_events > 0)
        STRATA_TRY(strata_trace_create(&engine->trace, engine->desc.trace_events, error));
    struct pager_desc pager = {
        .memory = engine->memory,
        .schedule = engine->schedule,
        .base_step = engine->base_step,
        .base_updates = engine->base_updates,
        .base_loss_scale = engine->loss_scale,
        .device = engine->desc.device,
        .store = engine->store,
        .functions = engine->desc.device->ops->in_ram ? &strata_engine_lanes_host
                                                      : &strata_engine_lanes_cuda,
        .functions_user = engine,
        .trace = engine->trace,
    };
    return strata_pager_create(&engine->pager, &pager, error);
}

/* Last of all, since a store without a commit leaves no file behind. */
static strata_status commit_first(strata_engine *engine, strata_error *error)
{
    strata_status status =
        strata_commit_lines(engine->store, &engine->first_line, 1, 0, engine->loss_scale);
    if (status != STRATA_OK && error != NULL)
        *error = *strata_store_error(engine->store);
    return status;
}

/* Forget what the caller may take back once create has returned. */
static void forget_borrowed(strata_engine_desc *desc)
{
    desc->model = NULL;
    desc->adam = NULL;
    desc->init = NULL;
    desc->store_dirs = NULL;
    desc->profile = NULL;
    desc->identity = NULL;
}

static strata_status build(strata_engine *engine, const strata_engine_desc *desc,
                           strata_error *error)
{
    STRATA_TRY(resolve(&engine->desc, desc, error));
    engine->adam = *desc->adam;
    STRATA_TRY(plan_all(engine, error));
    if (!desc->device->ops->in_ram)
        STRATA_TRY(strata_lanes_load(desc->device, error));
    STRATA_TRY(check_machine(engine, error));
    STRATA_TRY(strata_hash_create(&engine->hash, error));
    STRATA_TRY(take_arenas(engine, error));
    STRATA_TRY(strata_stream_create(&engine->stream, desc->device, "strata-engine", error));
    bool fresh;
    engine->loss_scale = first_loss_scale(&engine->desc);
    STRATA_TRY(open_store(engine, &fresh, error));
    engine->normed = engine->base_step;
    engine->updates = engine->base_updates;
    engine->loss_scales[(engine->base_step + 1) % LOSS_SCALES] = engine->loss_scale;
    STRATA_TRY(strata_records_init(engine, fresh, error));
    STRATA_TRY(start_pager(engine, error));
    if (fresh && engine->plan.durable)
        STRATA_TRY(commit_first(engine, error));
    forget_borrowed(&engine->desc);
    return STRATA_OK;
}

strata_status strata_engine_create(strata_engine **out, const strata_engine_desc *desc,
                                   strata_error *error)
{
    *out = NULL;
    strata_engine *engine = calloc(1, sizeof *engine);
    if (engine == NULL)
        return strata_fail(error, STRATA_E_NOMEM, 0, "no memory for an engine");
    engine->cached_tile = STRATA_NONE;
    strata_status status = build(engine, desc, error);
    if (status != STRATA_OK) {
        strata_engine_destroy(engine);
        return status;
    }
    *out = engine;
    return STRATA_OK;
}

void strata_engine_destroy(strata_engine *engine)
{
    if (engine == NULL)
        return;
    strata_pager_destroy(engine->pager);
    strata_trace_destroy(engine->trace);
    strata_store_close(engine->store);
    strata_stream_destroy(engine->stream);
    if (engine->block_sums != NULL)
        engine->desc.device->ops->shared_destroy(engine->desc.device, engine->block_sums);
    if (engine->pinned)
        engine->desc.device->ops->unpin(engine->desc.device, engine->host.base);
    if (engine->memory.device != NULL)
        engine->desc.device->ops->arena_destroy(engine->desc.device, engine->memory.device,
                                                engine->plan.device_arena_bytes);
    strata_arena_destroy(&engine->host);
    strata_hash_destroy(engine->hash);
    strata_plan_free(&engine->plan);
    free(engine);
}

const strata_plan *strata_engine_plan_of(const strata_engine *engine)
{
    return &engine->plan.summary;
}
