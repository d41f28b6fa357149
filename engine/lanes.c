/*
 * What the pager has others compute: norms, updates, rounding.
 *
 * A tile is cut into chunks of whole norm blocks that stay in a core's cache; each chunk is one
 * item of a worker job, so the cut never depends on how many workers there are. An update's
 * chunk is cut again where weight decay changes. The padding of a group's last block is no
 * weight: its gradient is zero, its state stays zero and its parameters are written as zero.
 *
 * Sums of squares: one double per norm block, kept until the step's last gradient is in, then
 * added by group and block. That order is part of the definition of the norm.
 *
 * Thread: norm, update, total: the cpu lane's dispatcher and the workers. round and the device
 * functions queue on the pager's stream; what they queue runs on that stream's thread.
 */

#include "base/error.h"
#include "engine/state.h"

#include <math.h>
#include <string.h>

/* Elements of a work item: with all its streams 1.8 MiB of fp32 state and bf16 in and out,
 * which fits a core's share of the last level cache. */
#define CHUNK_ELEMS (4 * STRATA_BLOCK_ELEMS)

/* The norm's guard against division by zero, as torch.nn.utils.clip_grad_norm_ has it. */
#define NORM_EPS 1e-6

static uint32_t chunk_count(uint64_t elems)
{
    return (uint32_t)((elems + CHUNK_ELEMS - 1) / CHUNK_ELEMS);
}

static uint64_t chunk_elems(uint64_t elems, uint32_t index)
{
    uint64_t first = (uint64_t)index * CHUNK_ELEMS;
    return elems - first < CHUNK_ELEMS ? elems - first : CHUNK_ELEMS;
}

/* Norms. */

struct norm_work {
    strata_engine *engine;
    uint32_t tile;
    const uint8_t *grad;
};

static void norm_chunk(void *user, uint32_t index, uint32_t worker)
{
    (void)worker;
    const struct norm_work *work = user;
    const struct offload_plan *plan = &work->engine->plan;
    const struct tile *tile = &plan->model.tiles[work->tile];
    uint64_t first = (uint64_t)index * CHUNK_ELEMS;
    uint64_t end = first + chunk_elems(tile->elems, index);
    for (uint64_t at = first; at < end; at += STRATA_BLOCK_ELEMS)
        work->engine->block_sums[tile->first_block + at / STRATA_BLOCK_ELEMS] =
            strata_norm_block(STRATA_ISA_BEST, work->grad + at * plan->w, plan->compute_dtype,
                              STRATA_BLOCK_ELEMS);
}

static void norm(void *user, uint32_t tile, const void *grad)
{
    strata_engine *engine = user;
    struct norm_work work = {.engine = engine, .tile = tile, .grad = grad};
    strata_workers_run(engine->desc.workers, STRATA_JOB_UPDATE, norm_chunk, &work,
                       chunk_count(engine->plan.model.tiles[tile].elems));
}

/* Which tensor of which group begins the block that spoils the sum? */
static strata_status not_finite(strata_engine *engine, uint64_t step, strata_error *error)
{
    const struct model *model = &engine->plan.model;
    for (uint32_t i = 0; i < model->tile_count; i++) {
        const struct tile *tile = &model->tiles[i];
        const struct group *group = &model->groups[tile->group];
        for (uint64_t b = 0; b < tile->elems / STRATA_BLOCK_ELEMS; b++) {
            if (isfinite(engine->block_sums[tile->first_block + b]))
                continue;
            uint64_t elem = tile->first + b * STRATA_BLOCK_ELEMS;
            uint32_t t = group->first_tensor;
            while (t + 1 < group->first_tensor + group->tensor_count &&
                   model->tensors[t + 1].offset <= elem)
                t++;
            return strata_fail(error, STRATA_E_NUMERIC, 0,
                               "the gradient of step %llu is not finite: group %s, tensor %s "
                               "or one that follows it within %u elements",
                               (unsigned long long)step, group->name, model->tensors[t].name,
                               STRATA_BLOCK_ELEMS);
        }
    }
    return strata_fail(error, STRATA_E_NUMERIC, 0, "the gradient norm of step %llu overflows",
                       (unsigned long long)step);
}

static strata_status total(void *user, uint64_t step, strata_step_result *out,
                           strata_error *error)
{
    strata_engine *engine = user;
    double sum = 0;
    for (uint64_t b = 0; b < engine->plan.model.block_count; b++)
        sum += engine->block_sums[b];
    if (!isfinite(sum))
        return not_finite(engine, step, error);
    *out = (strata_step_result){.step = step, .grad_norm = sqrt(sum), .grad_scale = 1};
    double scale = (double)engine->desc.clip / (out->grad_norm + NORM_EPS);
    if (engine->desc.clip > 0 && scale < 1)
        out->grad_scale = (float)scale;
    return STRATA_OK;
}

/* Updates. */

struct update_work {
    strata_engine *engine;
    const struct update_job *job;
    strata_adam_step step;
};

/* The tensor that holds an element of a group; elements past the last one belong to none. */
static const struct tensor *tensor_at(const struct model *model, const struct group *group,
                                      uint64_t elem)
{
    uint32_t low = group->first_tensor;
    uint32_t high = low + group->tensor_count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (model->tensors[middle].offset <= elem)
            low = middle;
        else
            high = middle;
    }
    const struct tensor *tensor = &model->tensors[low];
    return elem < tensor->offset + tensor->elems ? tensor : NULL;
}

static void update_range(const struct update_work *work, uint64_t at, uint64_t count,
                         bool no_decay)
{
    const struct offload_plan *plan = &work->engine->plan;
    const struct update_job *job = work->job;
    uint64_t elems = plan->model.tiles[job->tile].elems;
    struct strata_adam_range range = {
        .grad = (const uint8_t *)job->grad + at * plan->w,
        .master = job->state + at,
        .m = job->state + elems + at,
        .v = job->state + 2 * elems + at,
        .param = (uint8_t *)job->param + at * plan->w,
        .grad_dtype = plan->compute_dtype,
        .param_dtype = plan->compute_dtype,
        .count = count,
        .no_decay = no_decay,
    };
    strata_adam_update(STRATA_ISA_BEST, &work->step, &range);
}

static void update_chunk(void *user, uint32_t index, uint32_t worker)
{
    (void)worker;
    const struct update_work *work = user;
    const struct offload_plan *plan = &work->engine->plan;
    const struct tile *tile = &plan->model.tiles[work->job->tile];
    const struct group *group = &plan->model.groups[tile->group];
    uint64_t at = (uint64_t)index * CHUNK_ELEMS;
    uint64_t end = at + chunk_elems(tile->elems, index);
    while (at < end) {
        const struct tensor *tensor = tensor_at(&plan->model, group, tile->first + at);
        if (tensor == NULL) {
            memset((uint8_t *)work->job->param + at * plan->w, 0, (end - at) * plan->w);
            return;
        }
        uint64_t stop = tensor->offset + tensor->elems - tile->first;
        stop = stop < end ? stop : end;
        update_range(work, at, stop - at, tensor->no_decay);
        at = stop;
    }
}

static void update(void *user, const struct update_job *job)
{
    strata_engine *engine = user;
    struct update_work work = {.engine = engine, .job = job};
    work.step = strata_adam_prepare(&engine->adam, job->t, job->lr, job->grad_scale);
    strata_workers_run(engine->desc.workers, STRATA_JOB_UPDATE, update_chunk, &work,
                       chunk_count(engine->plan.model.tiles[job->tile].elems));
}

/* On the device's streams. */

struct round_args {
    strata_engine *engine;
    uint8_t *dst;
    const float *src;
    uint64_t elems;
};

static void round_chunk(void *user, uint32_t index, uint32_t worker)
{
    (void)worker;
    const struct round_args *args = user;
    const struct offload_plan *plan = &args->engine->plan;
    uint64_t first = (uint64_t)index * CHUNK_ELEMS;
    strata_convert(STRATA_ISA_BEST, args->dst + first * plan->w, plan->compute_dtype,
                   args->src + first, STRATA_FP32, chunk_elems(args->elems, index));
}

static void run_round(void *user)
{
    struct round_args *args = user;
    strata_workers_run(args->engine->desc.workers, STRATA_JOB_PANEL, round_chunk, args,
                       chunk_count(args->elems));
}

static void queue_round(void *user, strata_stream *stream, void *dst, const float *src,
                        uint64_t elems)
{
    struct round_args args = {.engine = user, .dst = dst, .src = src, .elems = elems};
    strata_stream_call(stream, run_round, &args, sizeof args);
}

struct norm_args {
    strata_engine *engine;
    const void *grad;
    uint32_t tile;
};

static void run_norm(void *user)
{
    const struct norm_args *args = user;
    norm(args->engine, args->tile, args->grad);
}

static void queue_norm(void *user, strata_stream *stream, uint32_t tile, const void *grad)
{
    struct norm_args args = {.engine = user, .grad = grad, .tile = tile};
    strata_stream_call(stream, run_norm, &args, sizeof args);
}

struct update_args {
    strata_engine *engine;
    struct update_job job;
};

static void run_update(void *user)
{
    const struct update_args *args = user;
    update(args->engine, &args->job);
}

static void queue_update(void *user, strata_stream *stream, const struct update_job *job)
{
    struct update_args args = {.engine = user, .job = *job};
    strata_stream_call(stream, run_update, &args, sizeof args);
}

const struct lane_functions strata_engine_lanes = {
    .norm = norm,
    .update = update,
    .total = total,
    .round = queue_round,
    .device_norm = queue_norm,
    .device_update = queue_update,
};
