/*
 * The lane functions: norms, updates and rounding, which compute for the pager. Here are those
 * of the cpu lane, and of the host device.
 *
 * A tile is cut into chunks of whole norm blocks that fit a core's cache. Each chunk is one
 * item of a worker job, so the cut does not depend on how many workers there are. An update
 * goes through the record's blocks and does to each all that its job asks for, tensor by
 * tensor. The padding of a group's last block has no weights: its gradient counts as zero, its
 * state stays zero and its parameters are written as zero.
 *
 * Sums of squares: one double per norm block, kept until the step's last gradient is in, then
 * added by group and block. That order is part of the definition of the norm.
 *
 * Thread: norm, update, total: the cpu lane's dispatcher and the workers. round and the device
 * functions queue on the pager's stream; what they queue runs on that stream's thread.
 */

#include "base/error.h"
#include "base/round.h"
#include "engine/engine_internal.h"
#include "optim/loss_scale.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

/* Elements of a work item. With fp32 states and bf16 in and out all its bytes are 1.8 MiB,
 * which fits a core's share of the last level cache. */
#define CHUNK_ELEMS (4 * STRATA_BLOCK_ELEMS)

/* The norm's guard against division by zero, as torch.nn.utils.clip_grad_norm_ has it. */
#define NORM_EPS 1e-6

static uint32_t chunk_count(uint64_t elems)
{
    return (uint32_t)strata_units_of(elems, CHUNK_ELEMS);
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
    const struct group_layout *layout = strata_plan_layout(plan, work->tile);
    uint64_t first = (uint64_t)index * CHUNK_ELEMS;
    uint64_t end = first + chunk_elems(tile->elems, index);
    for (uint64_t at = first; at < end; at += STRATA_BLOCK_ELEMS)
        work->engine->block_sums[tile->first_block + at / STRATA_BLOCK_ELEMS] =
            strata_norm_block(STRATA_ISA_BEST,
                              work->grad + strata_layout_bytes(layout, STRATA_GRAD, at),
                              layout->wire_dtype, STRATA_BLOCK_ELEMS);
}

static void sum_blocks(strata_engine *engine, uint32_t tile, const void *grad)
{
    struct norm_work work = {.engine = engine, .tile = tile, .grad = grad};
    strata_workers_run(engine->desc.workers, STRATA_JOB_UPDATE, norm_chunk, &work,
                       chunk_count(engine->plan.model.tiles[tile].elems));
}

/* The sums so far can only grow. They are not added in the norm's order here, so rounding may
 * give "over" for a norm that is just within the limit. Then work is done later than it could
 * be, and no result changes. */
static enum verdict verdict_so_far(strata_engine *engine, uint32_t tile, double loss_scale)
{
    const struct tile *of = &engine->plan.model.tiles[tile];
    for (uint64_t b = 0; b < of->elems / STRATA_BLOCK_ELEMS; b++)
        engine->partial_sum += engine->block_sums[of->first_block + b];
    double norm = sqrt(engine->partial_sum) / loss_scale;
    bool over = engine->desc.clip > 0 && !(norm <= engine->desc.clip);
    return over ? VERDICT_OVER : VERDICT_NONE;
}

enum verdict strata_lane_norm(void *user, uint32_t tile, const void *grad, double loss_scale)
{
    strata_engine *engine = user;
    sum_blocks(engine, tile, grad);
    return verdict_so_far(engine, tile, loss_scale);
}

/* Name the first block that is not finite: the group, and the tensor that it begins in. */
static strata_status fail_not_finite(const strata_engine *engine, const strata_step_result *of,
                                     strata_error *error)
{
    const struct model *model = &engine->plan.model;
    for (uint32_t i = 0; i < model->trained_tile_count; i++) {
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
            return strata_fail(
                error, STRATA_E_NUMERIC, 0,
                "the gradient of step %llu is not finite at loss scale %g: group "
                "%s, tensor %s or one that follows it within %u elements",
                (unsigned long long)of->step, of->loss_scale, group->name,
                model->tensors[t].name, STRATA_BLOCK_ELEMS);
        }
    }
    return strata_fail(error, STRATA_E_NUMERIC, 0, "the gradient norm of step %llu overflows",
                       (unsigned long long)of->step);
}

float strata_lane_guess(double loss_scale)
{
    return (float)(1 / loss_scale);
}

/* Fail if an update that is not undone has made a value that is not finite. */
static strata_status check_not_spoiled(const strata_engine *engine, strata_error *error)
{
    uint32_t tile = atomic_load_explicit(&engine->spoiled_tile, memory_order_relaxed);
    if (tile == STRATA_NONE && *engine->device_spoiled == 0)
        return STRATA_OK;
    const struct model *model = &engine->plan.model;
    return strata_fail(error, STRATA_E_NUMERIC, 0,
                       "an update made a weight or moment that is not finite%s%s: the last "
                       "commit stands",
                       tile != STRATA_NONE ? ": group " : " in the device",
                       tile != STRATA_NONE ? model->groups[model->tiles[tile].group].name : "");
}

strata_status strata_lane_may_commit(void *user, strata_error *error)
{
    return check_not_spoiled(user, error);
}

static double sum_of_blocks(const strata_engine *engine)
{
    double sum = 0;
    for (uint64_t b = 0; b < engine->plan.model.block_count; b++)
        sum += engine->block_sums[b];
    return sum;
}

/* Squares of finite values of any dtype add up to a finite double. So a sum that is not finite
 * means that a gradient was not. */
strata_status strata_lane_total(void *user, strata_step_result *result, strata_error *error)
{
    strata_engine *engine = user;
    bool dynamic = strata_engine_scales(&engine->desc);
    double loss_scale = result->loss_scale;
    double sum = sum_of_blocks(engine);
    engine->partial_sum = 0;
    result->grad_norm = sqrt(sum) / loss_scale;
    result->next_loss_scale = loss_scale;
    result->skipped = !isfinite(sum);
    if (result->skipped) {
        if (!dynamic || !strata_loss_scale_can_shrink(loss_scale))
            return fail_not_finite(engine, result, error);
        result->next_loss_scale = strata_loss_scale_shrink(loss_scale);
    } else {
        double scale = (double)engine->desc.clip / (result->grad_norm + NORM_EPS);
        bool clips = engine->desc.clip > 0 && scale < 1;
        result->grad_scale = (float)((clips ? scale : 1) / loss_scale);
        result->updates++;
        if (dynamic)
            result->next_loss_scale = strata_loss_scale_grow(loss_scale, result->updates);
    }
    engine->updates = result->updates;
    /* Updates ahead of this norm are kept if they were made with the right scale. */
    bool stands = !result->skipped && result->grad_scale == strata_lane_guess(loss_scale);
    if (stands && engine->maybe_spoiled_tile != STRATA_NONE)
        atomic_store_explicit(&engine->spoiled_tile, engine->maybe_spoiled_tile,
                              memory_order_relaxed);
    engine->maybe_spoiled_tile = STRATA_NONE;
    return check_not_spoiled(engine, error);
}

/* Updates. */

struct update_pass {
    strata_engine *engine;
    const struct group_layout *layout; /* of the tile's group */
    const struct update_job *job;
    /* Set by any worker: the update by the gradient, or by the one before it, has made a value
     * that is not finite. */
    _Atomic bool spoiled_by_fold;
    _Atomic bool spoiled;
    strata_adam_step fold; /* the step that each of the job's gradients belongs to */
    strata_adam_step grad;
};

/* Where an update finds a state and puts its weights: elements of one norm block. */
struct block {
    uint8_t *state; /* the record's block */
    uint8_t *param; /* NULL: no weights */
    const uint8_t *grad;
};

/* AdamW over one block of a tile, tensor by tensor. The padding of a group's end has state zero
 * and weights zero, whatever lies in the gradient's buffer. */
static strata_status apply_adam(const struct update_pass *work, const strata_adam_step *step,
                                uint64_t at, const struct block *block)
{
    const strata_engine *engine = work->engine;
    const struct offload_plan *plan = &engine->plan;
    const struct group_layout *layout = work->layout;
    const struct tile *tile = &plan->model.tiles[work->job->tile];
    strata_status status = STRATA_OK;
    for (uint64_t i = 0; i < STRATA_BLOCK_ELEMS;) {
        uint64_t param_at = strata_layout_bytes(layout, STRATA_PARAM, i);
        const struct tensor *tensor =
            strata_model_tensor_at(&plan->model, tile->group, tile->first + at + i);
        if (tensor == NULL) {
            if (block->param != NULL)
                memset(block->param + param_at, 0,
                       strata_layout_bytes(layout, STRATA_PARAM, STRATA_BLOCK_ELEMS - i));
            return status;
        }
        uint64_t stop = tensor->offset + tensor->elems - tile->first - at;
        stop = stop < STRATA_BLOCK_ELEMS ? stop : STRATA_BLOCK_ELEMS;
        struct record_place place = strata_record_place(engine->record_type, i);
        struct strata_adam_range range = {
            .grad = block->grad + strata_layout_bytes(layout, STRATA_GRAD, i),
            .master = (float *)(block->state + place.master),
            .m = block->state + place.m,
            .v = block->state + place.v,
            .param = block->param != NULL ? block->param + param_at : NULL,
            .grad_dtype = layout->wire_dtype,
            .param_dtype = layout->param_dtype,
            .moment_dtype = strata_record_moments(engine->record_type),
            .count = stop - i,
            .no_decay = tensor->no_decay,
            .seed = engine->desc.seed,
            .tensor = (uint32_t)(tensor - plan->model.tensors),
            .element = tile->first + at + i - tensor->offset,
        };
        strata_status now = strata_adam_update(STRATA_ISA_BEST, step, &range);
        status = status == STRATA_OK ? now : status;
        i = stop;
    }
    return status;
}

/* Make the weights and leave the state as it is: the update runs on a copy, which stays in the
 * cache. */
static void apply_to_copy(const struct update_pass *work, uint64_t at, struct block block,
                          uint32_t worker)
{
    const strata_engine *engine = work->engine;
    size_t bytes = work->layout->record.block_bytes;
    uint8_t *copy = engine->scratch + worker * bytes;
    memcpy(copy, block.state, bytes);
    block.state = copy;
    (void)apply_adam(work, &work->grad, at, &block); // The copy is not kept.
}

/* The digests of a norm block's bytes, whole pieces in every dtype. */
static void hash_block(struct hash128 *digests, const void *block, uint64_t at, uint64_t bytes)
{
    uint64_t index = at / STRATA_BLOCK_ELEMS;
    if (digests != NULL)
        strata_hash_pieces(block, bytes, digests + index * strata_hash_piece_count(bytes));
}

/* All work on a block, while it is in cache. What was read is hashed before it changes, what
 * will be written afterwards. */
static void update_block(struct update_pass *work, uint64_t at, uint32_t worker)
{
    const struct update_job *job = work->job;
    const struct group_layout *layout = work->layout;
    uint64_t grad_at = strata_layout_bytes(layout, STRATA_GRAD, at);
    uint64_t state_bytes = layout->record.block_bytes;
    uint64_t grad_bytes = strata_layout_bytes(layout, STRATA_GRAD, STRATA_BLOCK_ELEMS);
    uint64_t param_bytes = strata_layout_bytes(layout, STRATA_PARAM, STRATA_BLOCK_ELEMS);
    struct block block = {.state = (uint8_t *)job->state +
                                   strata_layout_bytes(layout, STRATA_STATE, at)};
    hash_block(job->digests.state_read, block.state, at, state_bytes);
    if (job->work & UPDATE_FOLD) {
        block.grad = (const uint8_t *)job->fold.grad + grad_at;
        if (apply_adam(work, &work->fold, at, &block) != STRATA_OK)
            atomic_store_explicit(&work->spoiled_by_fold, true, memory_order_relaxed);
    }
    block.grad = (const uint8_t *)job->grad.grad + grad_at;
    block.param = (uint8_t *)job->param + strata_layout_bytes(layout, STRATA_PARAM, at);
    hash_block(job->digests.grad_read, block.grad, at, grad_bytes);
    if ((job->work & UPDATE_APPLY) && apply_adam(work, &work->grad, at, &block) != STRATA_OK)
        atomic_store_explicit(&work->spoiled, true, memory_order_relaxed);
    if (job->work & UPDATE_WEIGHTS)
        apply_to_copy(work, at, block, worker);
    /* Master weights come first in a block; those of the padding are zero. */
    if (job->work & UPDATE_REBUILD)
        strata_convert(STRATA_ISA_BEST, block.param, layout->param_dtype, block.state,
                       STRATA_FP32, STRATA_BLOCK_ELEMS);
    if (job->work & UPDATE_TAKE)
        memcpy((uint8_t *)job->grad_home + grad_at, block.grad, grad_bytes);
    if (job->work & UPDATE_APPLY)
        hash_block(job->digests.state, block.state, at, state_bytes);
    hash_block(job->digests.param, block.param, at, param_bytes);
}

static void update_chunk(void *user, uint32_t index, uint32_t worker)
{
    struct update_pass *work = user;
    uint64_t elems = work->engine->plan.model.tiles[work->job->tile].elems;
    uint64_t at = (uint64_t)index * CHUNK_ELEMS;
    for (uint64_t end = at + chunk_elems(elems, index); at < end; at += STRATA_BLOCK_ELEMS)
        update_block(work, at, worker);
}

/* Run a job over all chunks. out_certain: the gradient before made a value that is not finite.
 * out_ahead: this one did, and its norm may not be known yet. */
static void run_pass(strata_engine *engine, const struct update_job *job, bool *out_certain,
                     bool *out_ahead)
{
    struct update_pass work = {
        .engine = engine, .layout = strata_plan_layout(&engine->plan, job->tile), .job = job};
    if (job->work & UPDATE_FOLD)
        work.fold =
            strata_adam_prepare(&engine->adam, job->fold.t, job->fold.lr, job->fold.scale);
    work.grad = strata_adam_prepare(&engine->adam, job->grad.t, job->grad.lr, job->grad.scale);
    strata_workers_run(engine->desc.workers, STRATA_JOB_UPDATE, update_chunk, &work,
                       chunk_count(engine->plan.model.tiles[job->tile].elems));
    *out_certain = atomic_load_explicit(&work.spoiled_by_fold, memory_order_relaxed);
    *out_ahead = atomic_load_explicit(&work.spoiled, memory_order_relaxed);
}

/* If the update has been counted, the gradient's norm is known, and the update is not undone.
 */
void strata_lane_update(void *user, const struct update_job *job)
{
    strata_engine *engine = user;
    bool certain, ahead;
    run_pass(engine, job, &certain, &ahead);
    if (ahead && job->grad.t > engine->updates)
        engine->maybe_spoiled_tile = job->tile;
    if (certain || (ahead && job->grad.t <= engine->updates))
        atomic_store_explicit(&engine->spoiled_tile, job->tile, memory_order_relaxed);
}

/* On the device's streams. */

struct round_args {
    strata_engine *engine;
    uint8_t *dst;
    const float *src;
    const struct group_layout *layout;
    uint64_t elems;
};

static void round_chunk(void *user, uint32_t index, uint32_t worker)
{
    (void)worker;
    const struct round_args *args = user;
    uint64_t first = (uint64_t)index * CHUNK_ELEMS;
    strata_convert(STRATA_ISA_BEST,
                   args->dst + strata_layout_bytes(args->layout, STRATA_GRAD, first),
                   args->layout->wire_dtype, args->src + first, STRATA_FP32,
                   chunk_elems(args->elems, index));
}

static void run_round(void *user)
{
    struct round_args *args = user;
    strata_workers_run(args->engine->desc.workers, STRATA_JOB_PANEL, round_chunk, args,
                       chunk_count(args->elems));
}

static void queue_round(void *user, strata_stream *stream, uint32_t group, void *dst,
                        const float *src)
{
    strata_engine *engine = user;
    struct round_args args = {.engine = engine,
                              .dst = dst,
                              .src = src,
                              .layout = &engine->plan.model.groups[group].layout,
                              .elems = engine->plan.model.groups[group].layout.padded};
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
    sum_blocks(args->engine, args->tile, args->grad);
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
    bool certain, ahead;
    run_pass(args->engine, &args->job, &certain, &ahead);
    /* These updates are never ahead of the norm, so they are not undone. */
    if (certain || ahead)
        atomic_store_explicit(&args->engine->spoiled_tile, args->job.tile,
                              memory_order_relaxed);
}

static void queue_update(void *user, strata_stream *stream, const struct update_job *job)
{
    struct update_args args = {.engine = user, .job = *job};
    strata_stream_call(stream, run_update, &args, sizeof args);
}

const struct lane_functions strata_engine_lanes_host = {
    .norm = strata_lane_norm,
    .update = strata_lane_update,
    .total = strata_lane_total,
    .guess = strata_lane_guess,
    .may_commit = strata_lane_may_commit,
    .round = queue_round,
    .device_norm = queue_norm,
    .device_update = queue_update,
};
