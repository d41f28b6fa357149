#define _GNU_SOURCE
/*
 * Creating and destroying an engine.
 *
 * First the descriptor is resolved (resolve.c) and the plan is made within the budgets, which
 * are compared with what this machine has (planning.c). Only then are arenas taken and files
 * made. If a part of it fails, everything before it is undone.
 *
 * Thread: the engine's caller.
 */

#include "base/channel.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/workers.h"
#include "engine/engine_internal.h"
#include "optim/loss_scale.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void log_line(const strata_engine *engine, const char *line)
{
    if (engine->desc.log != NULL)
        engine->desc.log(engine->desc.log_user, line);
}

/* Pin the host arena for the device's copies. Copies of unpinned memory are slow, and each
 * waits for the one before it. */
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
        log_line(engine, why.message);
        return STRATA_OK;
    }
    if (status != STRATA_OK)
        return strata_fail(error, status, why.native, "%s", why.message);
    if (piece_bytes > 0) {
        char line[64];
        snprintf(line, sizeof line, "host memory is pinned in pieces of %llu MiB",
                 (unsigned long long)(piece_bytes >> 20));
        log_line(engine, line);
    }
    return STRATA_OK;
}

static strata_status take_arenas(strata_engine *engine, strata_error *error)
{
    strata_device *device = engine->desc.device;
    const struct progress_call progress = {engine->desc.progress, engine->desc.progress_user};
    void *memory;
    void *sums;
    if (engine->plan.host_arena_bytes > 0)
        STRATA_TRY(strata_arena_create_by(&engine->host, engine->plan.host_arena_bytes,
                                          "host arena", engine->desc.workers, &progress,
                                          error));
    STRATA_TRY(device->ops->arena_create(device, engine->plan.device_arena_bytes, &memory,
                                         &engine->device_huge, error));
    engine->memory =
        (struct memory){.plan = &engine->plan, .host = engine->host.base, .device = memory};
    bool huge =
        engine->device_huge && (engine->host.huge || engine->plan.host_arena_bytes == 0);
    if (!huge)
        log_line(engine, "huge pages were not to be had: I/O and copies cost more cpu time");
    STRATA_TRY(device->ops->shared_create(
        device, (engine->plan.model.block_count + 1) * sizeof *engine->block_sums, &sums,
        error));
    engine->block_sums = sums;
    engine->device_spoiled = (uint32_t *)(engine->block_sums + engine->plan.model.block_count);
    return pin_host(engine, error);
}

/* Give the schedule the commits that the store holds, and note where this run begins. */
static void recover_schedule(strata_engine *engine)
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

/* The loss scale that a new run begins with. */
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
    struct store_desc base = strata_engine_store_desc(engine);
    struct store_desc store = strata_plan_store(&engine->plan, &base, &records);
    store.buffers = engine->host.base;
    store.buffers_bytes = engine->host.bytes;
    STRATA_TRY(strata_store_open(&engine->store, &store, error));
    STRATA_TRY(
        strata_channel_create(&engine->arrivals, ARRIVALS, sizeof(struct store_io *), error));
    if (!engine->plan.durable)
        return STRATA_OK;
    *out_fresh = strata_store_recovery(engine->store)->line_count == 0;
    recover_schedule(engine);
    return STRATA_OK;
}

static strata_status start_pager(strata_engine *engine, strata_error *error)
{
    if (engine->desc.trace_events > 0)
        STRATA_TRY(strata_trace_create(&engine->trace, engine->desc.trace_events, error));
    struct pager_desc pager = {.schedule = engine->schedule,
                               .lanes = {.memory = engine->memory,
                                         .base_step = engine->base_step,
                                         .base_updates = engine->base_updates,
                                         .base_loss_scale = engine->loss_scale,
                                         .device = engine->desc.device,
                                         .store = engine->store,
                                         .functions = engine->desc.device->ops->in_ram
                                                          ? &strata_engine_lanes_host
                                                          : &strata_engine_lanes_cuda,
                                         .functions_user = engine,
                                         .trace = engine->trace}};
    return strata_pager_create(&engine->pager, &pager, error);
}

/* The last step of create: until this commit the store's files are removed on a failure. */
static strata_status commit_initial_state(strata_engine *engine, strata_error *error)
{
    strata_status status =
        strata_commit_lines(engine->store, &engine->first_line, 1, 0, engine->loss_scale);
    if (status != STRATA_OK && error != NULL)
        *error = *strata_store_error(engine->store);
    return status;
}

/* The caller may free these once create has returned. */
static void forget_borrowed(strata_engine_desc *desc)
{
    desc->model = NULL;
    desc->adam = NULL;
    desc->init = NULL;
    desc->store_dirs = NULL;
    desc->profile = NULL;
    desc->identity = NULL;
}

static strata_status build_engine(strata_engine *engine, const strata_engine_desc *desc,
                                  strata_error *error)
{
    STRATA_TRY(strata_engine_resolve(&engine->desc, desc, error));
    STRATA_TRY(strata_device_hold(desc->device, "an engine", error));
    strata_workers_hold(desc->workers);
    engine->holds = true;
    engine->adam = *desc->adam;
    STRATA_TRY(strata_engine_make_plan(engine, error));
    if (!desc->device->ops->in_ram)
        STRATA_TRY(strata_lanes_load(desc->device, error));
    STRATA_TRY(strata_engine_check_machine(engine, error));
    STRATA_TRY(strata_hash_create(&engine->hash, error));
    STRATA_TRY(take_arenas(engine, error));
    STRATA_TRY(strata_stream_create(&engine->stream, desc->device, "strata-engine", error));
    bool fresh;
    engine->loss_scale = first_loss_scale(&engine->desc);
    STRATA_TRY(open_store(engine, &fresh, error));
    engine->updates = engine->base_updates;
    STRATA_TRY(strata_engine_fill(engine, fresh, error));
    STRATA_TRY(start_pager(engine, error));
    if (fresh && engine->plan.durable)
        STRATA_TRY(commit_initial_state(engine, error));
    forget_borrowed(&engine->desc);
    return STRATA_OK;
}

strata_status strata_engine_create(strata_engine **out, const strata_engine_desc *desc,
                                   strata_error *error)
{
    if (out == NULL)
        return strata_fail(error, STRATA_E_INVALID, 0, "engine create: out is NULL");
    *out = NULL;
    if (desc == NULL)
        return strata_fail(error, STRATA_E_INVALID, 0, "engine create: the descriptor is NULL");
    strata_engine *engine = calloc(1, sizeof *engine);
    if (engine == NULL)
        return strata_fail(error, STRATA_E_NOMEM, 0, "no memory for an engine");
    engine->spoiled_tile = engine->maybe_spoiled_tile = STRATA_NONE;
    strata_status status = build_engine(engine, desc, error);
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
    bool quiet = strata_store_close(engine->store);
    strata_channel_destroy(engine->arrivals);
    strata_stream_destroy(engine->stream);
    if (engine->block_sums != NULL)
        engine->desc.device->ops->shared_destroy(engine->desc.device, engine->block_sums);
    if (engine->pinned)
        engine->desc.device->ops->unpin(engine->desc.device, engine->host.base);
    if (engine->memory.device != NULL)
        engine->desc.device->ops->arena_destroy(engine->desc.device, engine->memory.device,
                                                engine->plan.device_arena_bytes);
    /* A drive that does not answer may still write to the arena, so it stays mapped. */
    if (quiet)
        strata_arena_destroy(&engine->host);
    strata_hash_destroy(engine->hash);
    strata_plan_free(&engine->plan);
    if (engine->holds) {
        strata_workers_release(engine->desc.workers);
        strata_device_release(engine->desc.device);
    }
    free(engine);
}

const strata_plan *strata_engine_plan_of(const strata_engine *engine)
{
    return engine != NULL ? &engine->plan.summary : NULL;
}

const strata_engine_desc *strata_engine_desc_of(const strata_engine *engine)
{
    return engine != NULL ? &engine->desc : NULL;
}
