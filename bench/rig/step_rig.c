#define _GNU_SOURCE
/*
 * The rig of offload-bench step. See step_rig.h.
 *
 * The engine without updates is the overlapped one with another pager, in which every norm
 * skips its step. So gradients go home and are summed, and no state is read, updated or
 * written. The public API offers neither this nor the lanes alone; so this file includes
 * engine/engine_internal.h.
 *
 * Thread: one owner; the caller's work runs on its stream.
 */

#include "bench/rig/step_rig.h"

#include "base/clock.h"
#include "bench/report.h"
#include "bench/rig/step_unordered.h"
#include "base/random.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The device has room for the weights and gradients of so many groups. */
#define DEVICE_GROUPS 6u
#define FRAME_BYTES   (UINT64_C(192) << 20)

/* Spans of a tile in a step: its ops and its share of the group's uses. */
#define SPANS_OF_TILE 12u

static void stamp_time(void *args)
{
    **(uint64_t **)args = strata_now_ns();
}

static strata_status walk_step(struct step_rig *rig, strata_engine *engine, uint32_t products,
                               uint64_t *out_end_ns)
{
    const struct model *model = &engine->plan.model;
    strata_view view;
    STRATA_TRY(strata_step_begin(engine, 1e-6));
    for (uint32_t u = 0; u < model->use_count; u++) {
        const struct use *use = &model->uses[u];
        if (use->kind == STRATA_USE_RELEASE) {
            STRATA_TRY(strata_release(engine, use->index, rig->caller.stream));
            continue;
        }
        STRATA_TRY(strata_acquire(engine, use->index, rig->caller.stream, &view));
        struct step_compute compute = {.caller = &rig->caller,
                                       .grad = view.grad,
                                       .products = strata_bench_step_products(use, products)};
        strata_stream_call(rig->caller.stream, strata_bench_step_compute, &compute,
                           sizeof compute);
    }
    strata_stream_call(rig->caller.stream, stamp_time, &out_end_ns, sizeof out_end_ns);
    return strata_step_end(engine);
}

static strata_status run_rig_steps(struct step_rig *rig, strata_engine *engine,
                                   uint32_t products, uint32_t steps, struct step_sample *out)
{
    uint64_t ends_ns[BENCH_MAX_SAMPLES];
    strata_stats before;
    strata_stats after;
    strata_engine_stats(engine, &before);
    for (uint32_t i = 0; i < steps; i++)
        STRATA_TRY(walk_step(rig, engine, products, &ends_ns[i]));
    STRATA_TRY(strata_wait(engine, 0, NULL));
    strata_stream_sync(rig->caller.stream);
    strata_engine_stats(engine, &after);
    out->step_s = 1e-9 * (double)(ends_ns[steps - 2] - ends_ns[0]) / (steps - 2);
    for (int lane = 0; lane < STRATA_LANE_COUNT; lane++) {
        const strata_lane_stats *a = &before.lanes[lane];
        const strata_lane_stats *b = &after.lanes[lane];
        out->busy_s[lane] = 1e-9 * (double)(b->busy_ns - a->busy_ns) / steps;
        out->bytes[lane] = (double)(b->bytes - a->bytes) / steps;
    }
    return STRATA_OK;
}

strata_status strata_bench_step_sample(struct step_rig *rig, enum step_way way,
                                       uint32_t products, uint32_t steps,
                                       struct step_sample *out, strata_error *error)
{
    if (way == STEP_UNORDERED)
        return strata_bench_unordered_sample(rig->ways[way].unordered, products, steps - 2, out,
                                             error);
    strata_engine *engine = rig->ways[way].engine;
    strata_status status = run_rig_steps(rig, engine, products, steps, out);
    if (status != STRATA_OK)
        *error = *strata_engine_error(engine);
    return status;
}

static void make_model(struct step_rig *rig)
{
    const struct step_desc *desc = &rig->desc;
    uint32_t next = 0;
    for (uint32_t g = 0; g < desc->groups; g++) {
        snprintf(rig->names[g], sizeof rig->names[g], "g%u", g);
        rig->tensors[g] = (strata_tensor_desc){
            .name = rig->names[g], .shape = {desc->group_elems}, .rank = 1};
        rig->groups[g] = (strata_group_desc){
            .name = rig->names[g], .tensors = &rig->tensors[g], .tensor_count = 1};
    }
    for (uint32_t i = 0; i < 2 * desc->groups; i++) {
        bool grad = i >= desc->groups;
        uint32_t group = grad ? 2 * desc->groups - 1 - i : i;
        rig->uses[next++] =
            (strata_use){.kind = STRATA_USE_ACQUIRE, .index = group, .grad = grad};
        rig->uses[next++] = (strata_use){.kind = STRATA_USE_RELEASE, .index = group};
    }
    rig->model = (strata_model_desc){.groups = rig->groups,
                                     .group_count = desc->groups,
                                     .uses = rig->uses,
                                     .use_count = next};
    rig->adam = strata_adam_defaults();
}

static strata_status take_step_memory(struct step_rig *rig, strata_error *error)
{
    uint32_t groups = rig->desc.groups;
    rig->tensors = calloc(groups, sizeof *rig->tensors);
    rig->groups = calloc(groups, sizeof *rig->groups);
    rig->uses = calloc(4 * (size_t)groups, sizeof *rig->uses);
    rig->names = calloc(groups, sizeof *rig->names);
    if (rig->tensors == NULL || rig->groups == NULL || rig->uses == NULL || rig->names == NULL)
        return strata_fail(error, STRATA_E_NOMEM, ENOMEM, "memory for the model: none left");
    make_model(rig);
    return STRATA_OK;
}

static void init_step_weights(void *user, uint32_t group, uint32_t tensor, uint64_t first,
                              uint64_t count, float *out)
{
    (void)user;
    (void)tensor;
    strata_random_normal(1, group, first, count, 0.02f, out);
}

/* Every norm skips the step. */
static strata_status skip_every_step(void *user, strata_step_result *result,
                                     strata_error *error)
{
    STRATA_TRY(strata_lane_total(user, result, error));
    result->skipped = true;
    return STRATA_OK;
}

static strata_status leave_updates_out(struct step_rig *rig, strata_engine *engine,
                                       strata_error *error)
{
    strata_pager_destroy(engine->pager);
    engine->pager = NULL;
    rig->skipping = strata_engine_lanes_host;
    rig->skipping.total = skip_every_step;
    struct schedule_desc schedule = {
        .plan = &engine->plan, .mode = UPDATES_DEFERRED, .slots = {.durable = true}};
    STRATA_TRY(
        strata_schedule_create(&engine->schedule, &engine->plan.tables, &schedule, error));
    strata_schedule_recover(engine->schedule, &engine->first_line, 1, 0);
    struct pager_desc pager = {.schedule = engine->schedule,
                               .lanes = {.memory = engine->memory,
                                         .base_loss_scale = 1,
                                         .device = rig->caller.device,
                                         .store = engine->store,
                                         .functions = &rig->skipping,
                                         .functions_user = engine}};
    return strata_pager_create(&engine->pager, &pager, error);
}

static strata_status open_engine(struct step_rig *rig, enum step_way way, strata_error *error)
{
    struct step_engine *of = &rig->ways[way];
    const char *dir = of->dir.path;
    uint64_t group_bytes = rig->desc.group_elems * (2 + 4);
    uint64_t tiles = rig->desc.group_elems / STRATA_BLOCK_ELEMS * rig->desc.groups;
    STRATA_TRY(strata_bench_scratch_make(&of->dir, rig->desc.dir, error));
    strata_engine_desc desc = {.device = rig->caller.device,
                               .workers = rig->caller.workers,
                               .model = &rig->model,
                               .compute_dtype = STRATA_BF16,
                               .adam = &rig->adam,
                               .init = init_step_weights,
                               .clip = 1,
                               .params = STRATA_NVME,
                               .grads = STRATA_HOST,
                               .states = STRATA_NVME,
                               .device_bytes = DEVICE_GROUPS * group_bytes,
                               .host_bytes =
                                   2 * rig->desc.group_elems * rig->desc.groups + FRAME_BYTES,
                               .store_dirs = &dir,
                               .store_dir_count = 1,
                               .durability = STRATA_DURABLE_PROCESS,
                               .commit_every = 1,
                               .no_overlap = way == STEP_IN_TURN};
    if (way == STEP_OVERLAPPED && rig->desc.trace)
        desc.trace_events = (uint32_t)(tiles * SPANS_OF_TILE * rig->desc.max_steps);
    return strata_engine_create(&of->engine, &desc, error);
}

static strata_status open_way(struct step_rig *rig, enum step_way way, strata_error *error)
{
    struct step_sample ignored;
    struct step_engine *of = &rig->ways[way];
    STRATA_TRY(open_engine(rig, way, error));
    if (way == STEP_NO_UPDATES)
        return leave_updates_out(rig, of->engine, error);
    if (way != STEP_UNORDERED)
        return STRATA_OK;
    /* Three steps, so that both slots of each record are written and there are gradients. */
    strata_status status = run_rig_steps(rig, of->engine, 1, 3, &ignored);
    if (status != STRATA_OK) {
        *error = *strata_engine_error(of->engine);
        return status;
    }
    return strata_bench_unordered_open(&of->unordered, &rig->caller, of->engine, error);
}

strata_status strata_bench_step_open(struct step_rig *rig, const struct step_desc *desc,
                                     strata_error *error)
{
    *rig = (struct step_rig){.desc = *desc};
    STRATA_TRY(take_step_memory(rig, error));
    STRATA_TRY(strata_bench_step_caller_open(&rig->caller, desc->on_pool, error));
    for (int way = 0; way < STEP_WAY_COUNT; way++)
        STRATA_TRY(open_way(rig, (enum step_way)way, error));
    return STRATA_OK;
}

void strata_bench_step_close(struct step_rig *rig)
{
    for (int way = 0; way < STEP_WAY_COUNT; way++) {
        strata_bench_unordered_close(rig->ways[way].unordered);
        strata_engine_destroy(rig->ways[way].engine);
        // A durable store keeps its files, so they are removed here.
        strata_bench_scratch_remove(&rig->ways[way].dir);
    }
    strata_bench_step_caller_close(&rig->caller);
    free(rig->names);
    free(rig->uses);
    free(rig->groups);
    free(rig->tensors);
}
