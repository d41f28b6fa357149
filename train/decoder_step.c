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

void strata_decoder_queue(const struct run *run, const struct decoder_task *task)
{
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

static void queue_work(void *user, const struct decoder_task *task)
{
    strata_decoder_queue(user, task);
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

struct run strata_run_on(struct decoder *decoder, strata_stream *stream, void *scratch)
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
void strata_decoder_queue_inputs(const struct run *run, const uint32_t *inputs,
                                 const uint32_t *targets)
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

strata_status strata_decoder_step(struct decoder *decoder, strata_engine *engine,
                                  strata_stream *stream, const uint32_t *inputs,
                                  const uint32_t *targets)
{
    struct run run = strata_run_on(decoder, stream, strata_scratch(engine));
    run.engine = engine;
    run.loss_scale = strata_loss_scale(engine);
    const struct decoder_visitor visitor = {carry_out_use, queue_work, &run};
    strata_decoder_queue_inputs(&run, inputs, targets);
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
