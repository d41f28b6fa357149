/*
 * The lane functions for a GPU: those of the cpu lane are lane_functions.c's, those of the
 * device launch kernels on the pager's stream.
 *
 * A tile whose state rests in the device is updated there, tensor by tensor, with the same bits
 * as on the host. Sums of norm blocks go straight to block_sums, which the device can write to.
 *
 * Thread: norm, update, total: see lane_functions.c. The others: the pager, which only
 * launches.
 */

#include "base/error.h"
#include "engine/engine_internal.h"
#include "optim/cuda.h"

/* One pass of AdamW over a tile. */
struct pass {
    strata_stream *stream;
    strata_adam_step step;
    const struct update_job *job;
    const uint8_t *grad;
    uint8_t *param; /* NULL: no weights */
    bool weights_only;
};

static void launch_range(const strata_engine *engine, const struct pass *pass, uint64_t at,
                         uint64_t count, const struct tensor *tensor)
{
    const struct offload_plan *plan = &engine->plan;
    struct cuda_update update = {
        .grad = pass->grad,
        .state = pass->job->state,
        .param = pass->param,
        .dtype = strata_plan_layout(plan, pass->job->tile)->param_dtype,
        .spoiled = (uint32_t *)(uintptr_t)engine->device_spoiled,
        .record_type = engine->record_type,
        .first = at,
        .count = count,
        .weights_only = pass->weights_only,
        .no_decay = tensor->no_decay,
        .seed = engine->desc.seed,
        .tensor = (uint32_t)(tensor - plan->model.tensors),
        .element = plan->model.tiles[pass->job->tile].first + at - tensor->offset,
    };
    strata_stream_failed(
        pass->stream,
        strata_cuda_adam(strata_stream_native(pass->stream), &pass->step, &update),
        "the update of a tile");
}

/* As in lane_functions.c: the padding of a group's end has state zero and weights zero. */
static void launch_pass(const strata_engine *engine, const struct pass *pass)
{
    const struct offload_plan *plan = &engine->plan;
    const struct tile *tile = &plan->model.tiles[pass->job->tile];
    const struct group_layout *layout = strata_plan_layout(plan, pass->job->tile);
    for (uint64_t at = 0; at < tile->elems;) {
        const struct tensor *tensor =
            strata_model_tensor_at(&plan->model, tile->group, tile->first + at);
        if (tensor == NULL) {
            if (pass->param != NULL)
                strata_stream_zero(pass->stream,
                                   pass->param + strata_layout_bytes(layout, STRATA_PARAM, at),
                                   strata_layout_bytes(layout, STRATA_PARAM, tile->elems - at));
            return;
        }
        uint64_t stop = tensor->offset + tensor->elems - tile->first;
        stop = stop < tile->elems ? stop : tile->elems;
        launch_range(engine, pass, at, stop - at, tensor);
        at = stop;
    }
}

static void round_to_wire(void *user, strata_stream *stream, uint32_t group, void *dst,
                          const float *src)
{
    const struct offload_plan *plan = &((const strata_engine *)user)->plan;
    strata_stream_failed(stream,
                         strata_cuda_convert(strata_stream_native(stream), dst,
                                             plan->model.groups[group].layout.wire_dtype, src,
                                             STRATA_FP32,
                                             plan->model.groups[group].layout.padded),
                         "the rounding of a gradient");
}

static void device_norm(void *user, strata_stream *stream, uint32_t tile, const void *grad)
{
    const strata_engine *engine = user;
    const struct tile *of = &engine->plan.model.tiles[tile];
    strata_stream_failed(stream,
                         strata_cuda_norm_blocks(
                             strata_stream_native(stream), engine->block_sums + of->first_block,
                             grad, strata_plan_layout(&engine->plan, tile)->wire_dtype,
                             of->elems / STRATA_BLOCK_ELEMS),
                         "the norm of a gradient");
}

static strata_adam_step prepare_adam(const strata_engine *engine,
                                     const struct update_grad *grad)
{
    return strata_adam_prepare(&engine->adam, grad->t, grad->lr, grad->scale);
}

/* One launch: a launch for each block would hold the pager, which waits where it is some
 * hundred ahead of the stream. Master weights of the padding are zero. */
static void rebuild_params(const strata_engine *engine, strata_stream *stream,
                           const struct update_job *job)
{
    const struct offload_plan *plan = &engine->plan;
    strata_stream_failed(
        stream,
        strata_cuda_rebuild(strata_stream_native(stream), job->param,
                            strata_plan_layout(plan, job->tile)->param_dtype, job->state,
                            engine->record_type,
                            plan->model.tiles[job->tile].elems / STRATA_BLOCK_ELEMS),
        "the rounding of master weights");
}

static void device_update(void *user, strata_stream *stream, const struct update_job *job)
{
    const strata_engine *engine = user;
    const struct offload_plan *plan = &engine->plan;
    struct pass pass = {.stream = stream, .job = job};
    if (job->work & UPDATE_FOLD) {
        pass.step = prepare_adam(engine, &job->fold);
        pass.grad = job->fold.grad;
        launch_pass(engine, &pass);
    }
    if (job->work & (UPDATE_APPLY | UPDATE_WEIGHTS)) {
        pass.step = prepare_adam(engine, &job->grad);
        pass.grad = job->grad.grad;
        pass.param = job->param;
        pass.weights_only = (job->work & UPDATE_WEIGHTS) != 0;
        launch_pass(engine, &pass);
    }
    if (job->work & UPDATE_REBUILD)
        rebuild_params(engine, stream, job);
    if (job->work & UPDATE_TAKE)
        strata_stream_copy(stream, job->grad_home, job->grad.grad,
                           strata_plan_part_bytes(plan, STRATA_GRAD, job->tile));
}

strata_status strata_lanes_load(strata_device *device, strata_error *error)
{
    int native = strata_cuda_optim_load();
    if (native == 0)
        return STRATA_OK;
    return strata_fail(error, STRATA_E_DEVICE, native,
                       "%s device: loading the optimizer's kernels: error %d: was the build "
                       "made for this GPU?",
                       strata_device_name(device), native);
}

const struct lane_functions strata_engine_lanes_cuda = {
    .norm = strata_lane_norm,
    .update = strata_lane_update,
    .total = strata_lane_total,
    .guess = strata_lane_guess,
    .may_commit = strata_lane_may_commit,
    .round = round_to_wire,
    .device_norm = device_norm,
    .device_update = device_update,
};
