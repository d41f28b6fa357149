/*
 * A training step, queued on a stream along the walk.
 *
 * Thread: the caller's.
 */

#include "train/decoder_run.h"

#include "base/error.h"
#include "base/shape.h"

static void queue_loss(const struct run *run)
{
    const struct decoder_shape *shape = &run->decoder->shape;
    strata_op_entropy_loss(&run->ops, stats_at(run, 0), (uint64_t)shape->batch * shape->seq,
                           loss_at(run));
}

static void queue_work(void *user, const struct decoder_task *task)
{
    const struct run *run = user;
    const struct decoder_layout *at = &run->decoder->layout;
    void *x = array_at(run, at->x);
    void *dx = array_at(run, at->dx);
    uint64_t tokens = run->decoder->micro_tokens;
    switch (task->work) {
    case DECODER_EMBED:
        strata_vocab_embed(run, task);
        break;
    case DECODER_LAYER:
        strata_layer_forward(run, task->index);
        break;
    case DECODER_NORM:
        norm(run, 0, (struct op_norm){.x = x, .out = array_at(run, at->y), .rows = tokens});
        break;
    case DECODER_HEAD_SCAN:
        strata_vocab_head_scan(run, task);
        break;
    case DECODER_LOSS:
        queue_loss(run);
        break;
    case DECODER_HEAD:
    case DECODER_HEAD_GRAD:
        strata_vocab_head_grad(run, task);
        break;
    case DECODER_NORM_GRAD:
        norm_grad(run, 0, (struct op_norm_grad){.x = x, .dy = dx, .dx = dx, .rows = tokens});
        break;
    case DECODER_LAYER_GRAD:
        strata_layer_backward(run, task->index);
        break;
    case DECODER_EMBED_GRAD:
        strata_vocab_embed_grad(run, task);
        break;
    }
}

static void *array_of(const struct run *run, enum decoder_array array)
{
    const struct decoder_layout *at = &run->decoder->layout;
    switch (array) {
    case DECODER_X:
        return array_at(run, at->x);
    case DECODER_DX:
        return array_at(run, at->dx);
    case DECODER_Y:
        return array_at(run, at->y);
    case DECODER_NO_ARRAY:
        break;
    }
    return NULL;
}

static strata_status carry_out_use(void *user, const strata_use *use, enum decoder_array array)
{
    struct run *run = user;
    switch (use->kind) {
    case STRATA_USE_ACQUIRE:
        return strata_acquire(run->engine, use->index, run->stream, &run->view);
    case STRATA_USE_RELEASE:
        return strata_release(run->engine, use->index, run->stream);
    case STRATA_USE_STASH:
        return strata_stash(run->engine, use->index, array_of(run, array), run->stream);
    case STRATA_USE_UNSTASH:
        return strata_unstash(run->engine, use->index, array_of(run, array), run->stream);
    }
    return STRATA_E_INVALID;
}

static struct run run_on(struct decoder *decoder, strata_stream *stream, void *scratch)
{
    struct run run = {
        .decoder = decoder, .stream = stream, .scratch = scratch, .ops = decoder->ops};
    run.ops.stream = stream;
    run.ops.scratch = run.scratch + decoder->layout.ops;
    return run;
}

static void order_inputs(struct decoder *decoder, const uint32_t *inputs)
{
    uint64_t tokens = decoder->micro_tokens;
    for (uint32_t micro = 0; micro < decoder->micro_count; micro++)
        decoder->distinct[micro] = (uint32_t)strata_op_order_tokens(
            inputs + micro * tokens, tokens, decoder->config.vocab_size,
            decoder->order + micro * tokens, decoder->starts + micro * (tokens + 1),
            decoder->room);
}

/* What operators read besides weights: tokens, their order and the rotary table come from the
 * host once a step. */
static void queue_inputs(const struct run *run, const uint32_t *inputs, const uint32_t *targets)
{
    struct decoder *decoder = run->decoder;
    uint64_t tokens = (uint64_t)decoder->shape.batch * decoder->shape.seq;
    order_inputs(decoder, inputs);
    strata_stream_copy(run->stream, tokens_at(run, decoder->layout.order, 0), decoder->order,
                       tokens * sizeof *decoder->order);
    strata_stream_copy(run->stream, starts_at(run, 0), decoder->starts,
                       (tokens + decoder->micro_count) * sizeof *decoder->starts);
    strata_stream_copy(run->stream, tokens_at(run, decoder->layout.inputs, 0), inputs,
                       tokens * sizeof *inputs);
    strata_stream_copy(run->stream, tokens_at(run, decoder->layout.targets, 0), targets,
                       tokens * sizeof *targets);
    strata_stream_copy(run->stream, array_at(run, decoder->layout.rotary), decoder->rotary,
                       decoder->shape.seq * decoder_turned(&decoder->config) *
                           sizeof *decoder->rotary);
    strata_op_entropy_begin(&run->ops, stats_at(run, 0), tokens);
}

/* How many tasks of a kind differ in their shapes: slices in their rows, the first and the last
 * layer in their window. */
static uint32_t task_count(const struct decoder *decoder, enum decoder_work work)
{
    switch (work) {
    case DECODER_EMBED:
    case DECODER_HEAD:
    case DECODER_HEAD_SCAN:
    case DECODER_HEAD_GRAD:
    case DECODER_EMBED_GRAD:
        return decoder->shape.vocab_slices;
    case DECODER_LAYER:
    case DECODER_LAYER_GRAD:
        return decoder->config.layer_count > 1 ? 2 : 1;
    case DECODER_NORM:
    case DECODER_LOSS:
    case DECODER_NORM_GRAD:
        break;
    }
    return 1;
}

/* Every kind of work once, on zeros, tokens included. */
static void queue_everything(const struct run *run)
{
    uint32_t last_layer = (uint32_t)run->decoder->config.layer_count - 1;
    for (enum decoder_work work = DECODER_EMBED; work <= DECODER_EMBED_GRAD; work++)
        for (uint32_t i = 0; i < task_count(run->decoder, work); i++) {
            bool layer = work == DECODER_LAYER || work == DECODER_LAYER_GRAD;
            uint32_t index = layer && i > 0 ? last_layer : i;
            queue_work((void *)(uintptr_t)run,
                       &(struct decoder_task){.work = work, .index = index, .first = true});
        }
}

/* Elements of the largest group, each tensor's. */
static uint64_t largest_group(const struct decoder *decoder)
{
    uint64_t most = 0;
    for (uint32_t g = 0; g < decoder->model.group_count; g++) {
        uint64_t elems = strata_group_elems(&decoder->groups[g]);
        most = elems > most ? elems : most;
    }
    return most;
}

strata_status strata_decoder_rehearse(struct decoder *decoder, strata_device *device,
                                      strata_stream *stream, strata_error *error)
{
    STRATA_TRY(decoder->ops.table->open(&decoder->ops, error));
    if (!decoder->shape.cuda)
        return STRATA_OK;
    /* Weights lie behind the gradients, which are wider. No plan asks for less than this: each
     * holds scratch and, in backward, the weights and gradients of a group. */
    uint64_t elems = largest_group(decoder);
    uint64_t bytes = decoder->layout.bytes +
                     elems * (sizeof(float) + strata_dtype_bytes(decoder->shape.compute_dtype));
    void *memory;
    STRATA_TRY(strata_device_take(device, bytes, &memory, error));
    struct run run = run_on(decoder, stream, memory);
    run.view =
        (strata_view){.param = run.scratch + decoder->layout.bytes + elems * sizeof(float),
                      .grad = array_at(&run, decoder->layout.bytes)};
    strata_stream_zero(stream, memory, bytes);
    strata_op_entropy_begin(&run.ops, stats_at(&run, 0),
                            (uint64_t)decoder->shape.batch * decoder->shape.seq);
    queue_everything(&run);
    strata_stream_sync(stream);
    strata_device_give(device, memory, bytes);
    const strata_error *failure = strata_device_error(device);
    if (failure == NULL)
        return STRATA_OK;
    return strata_fail(error, failure->status, failure->native, "%s", failure->message);
}

strata_status strata_decoder_step(struct decoder *decoder, strata_engine *engine,
                                  strata_stream *stream, const uint32_t *inputs,
                                  const uint32_t *targets)
{
    struct run run = run_on(decoder, stream, strata_scratch(engine));
    run.engine = engine;
    run.loss_scale = strata_loss_scale(engine);
    const struct decoder_visitor visitor = {carry_out_use, queue_work, &run};
    queue_inputs(&run, inputs, targets);
    return strata_decoder_walk(decoder, &visitor);
}

double strata_decoder_loss(const struct decoder *decoder, strata_engine *engine,
                           strata_stream *stream)
{
    double loss = 0;
    const char *scratch = strata_scratch(engine);
    strata_stream_copy(stream, &loss, scratch + decoder->layout.loss, sizeof loss);
    strata_stream_sync(stream);
    return loss;
}
