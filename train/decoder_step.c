/*
 * A training step, forward and backward by hand, queued on a stream along the walk.
 *
 * A layer, with n = norm:
 *
 *     mid = x + attention(rotary(n1(x) Wq'), rotary(n1(x) Wk'), n1(x) Wv') Wo'
 *     out = mid + (silu(n2(mid) Wg') * (n2(mid) Wu')) Wd'
 *
 * Forward works in place: x becomes mid becomes out, and o lies in q. Backward makes q, k, v, o
 * and mid again from x, then goes through the MLP piece by piece while dx turns from the
 * gradient of out into that of mid; then mid's bytes are free for the gradient of o.
 * Attention's gradient turns q, k, v into their own gradients in place, and the norm adds the
 * last part to dx.
 *
 * Nothing here computes: everything is queued, in order, on one stream, so a buffer may be
 * queued to be overwritten as soon as its last reader is queued.
 *
 * Thread: the caller's.
 */

#include "train/decoder_model.h"

#include "base/error.h"

struct run {
    struct decoder *decoder;
    strata_engine *engine;
    strata_stream *stream;
    char *scratch;
    double loss_scale;
    struct ops ops;
    strata_view view; /* of the group that is held */
};

/* Arrays in scratch. */

static float *array_at(const struct run *run, uint64_t offset)
{
    return (float *)(void *)(run->scratch + offset);
}

static uint32_t *tokens_at(const struct run *run, uint64_t offset, uint32_t micro)
{
    return (uint32_t *)(void *)(run->scratch + offset) + micro * run->decoder->micro_tokens;
}

static struct op_row_stat *stats_at(const struct run *run, uint32_t micro)
{
    return (struct op_row_stat *)(void *)(run->scratch + run->decoder->layout.stats) +
           micro * run->decoder->micro_tokens;
}

static double *loss_at(const struct run *run)
{
    return (double *)(void *)(run->scratch + run->decoder->layout.loss);
}

/* The weight and the gradient that lie `offset` elements into the group that is held. */

static const void *weight_at(const struct run *run, uint64_t offset)
{
    return (const char *)run->view.param + offset * strata_dtype_bytes(run->ops.weight_dtype);
}

static float *grad_at(const struct run *run, uint64_t offset)
{
    return run->view.grad + offset;
}

/* Rows of the piece that starts at `first`. */
static uint64_t piece_rows(const struct run *run, uint64_t first)
{
    uint64_t left = run->decoder->micro_tokens - first;
    return left < STRATA_OP_PIECE_ROWS ? left : STRATA_OP_PIECE_ROWS;
}

/* The operators on tensors of the group that is held: these fill in the weight and its sizes.
 * */

static void norm(const struct run *run, uint64_t offset, struct op_norm how)
{
    how.weight = weight_at(run, offset);
    how.width = run->decoder->config.hidden_size;
    how.eps = (float)run->decoder->config.rms_eps;
    strata_op_norm(&run->ops, &how);
}

static void norm_grad(const struct run *run, uint64_t offset, struct op_norm_grad how)
{
    how.weight = weight_at(run, offset);
    how.dweight = grad_at(run, offset);
    how.width = run->decoder->config.hidden_size;
    how.eps = (float)run->decoder->config.rms_eps;
    strata_op_norm_grad(&run->ops, &how);
}

static uint64_t offset_of(const struct run *run, enum decoder_layer_tensor tensor)
{
    return run->decoder->layer_offset[tensor];
}

/* [out, in] of a layer's matrix. */
static const uint64_t *sizes_of(const struct run *run, enum decoder_layer_tensor tensor)
{
    return run->decoder->groups[run->decoder->shape.vocab_slices].tensors[tensor].shape;
}

static void linear(const struct run *run, enum decoder_layer_tensor tensor,
                   struct op_linear how)
{
    how.weight = weight_at(run, offset_of(run, tensor));
    how.out = sizes_of(run, tensor)[0];
    how.in = sizes_of(run, tensor)[1];
    strata_op_linear(&run->ops, &how);
}

static void linear_dx(const struct run *run, enum decoder_layer_tensor tensor,
                      struct op_linear how)
{
    how.weight = weight_at(run, offset_of(run, tensor));
    how.out = sizes_of(run, tensor)[0];
    how.in = sizes_of(run, tensor)[1];
    strata_op_linear_dx(&run->ops, &how);
}

static void linear_dw(const struct run *run, enum decoder_layer_tensor tensor,
                      struct op_linear_dw how)
{
    how.dweight = grad_at(run, offset_of(run, tensor));
    how.out = sizes_of(run, tensor)[0];
    how.in = sizes_of(run, tensor)[1];
    strata_op_linear_dw(&run->ops, &how);
}

/* A layer. Its arrays, once more by name. */
struct layer {
    const struct run *run;
    uint64_t tokens;
    uint64_t hidden;
    uint64_t q_width;
    uint64_t kv_width;
    float *x;
    float *dx;
    float *q;
    float *k;
    float *v;
    float *o;
    float *mid;
    float *normed;
    float *gate;
    float *up;
    float *act;
};

static struct layer layer_of(const struct run *run)
{
    const struct decoder_config *c = &run->decoder->config;
    const struct decoder_layout *at = &run->decoder->layout;
    return (struct layer){
        .run = run,
        .tokens = run->decoder->micro_tokens,
        .hidden = c->hidden_size,
        .q_width = c->head_count * c->head_dim,
        .kv_width = c->kv_head_count * c->head_dim,
        .x = array_at(run, at->x),
        .dx = array_at(run, at->dx),
        .q = array_at(run, at->q),
        .k = array_at(run, at->k),
        .v = array_at(run, at->v),
        .o = array_at(run, at->o),
        .mid = array_at(run, at->mid),
        .normed = array_at(run, at->normed),
        .gate = array_at(run, at->gate),
        .up = array_at(run, at->up),
        .act = array_at(run, at->act),
    };
}

static void rotate(const struct layer *l, float *array, uint64_t heads, bool inverse)
{
    const struct decoder *decoder = l->run->decoder;
    strata_op_rotary(&l->run->ops, &(struct op_rotary){
                                       .x = array,
                                       .table = array_at(l->run, decoder->layout.rotary),
                                       .rows = l->tokens,
                                       .seq = decoder->shape.seq,
                                       .heads = (uint32_t)heads,
                                       .head_dim = (uint32_t)decoder->config.head_dim,
                                       .inverse = inverse,
                                   });
}

static void rotate_both(const struct layer *l, bool inverse)
{
    rotate(l, l->q, l->run->decoder->config.head_count, inverse);
    rotate(l, l->k, l->run->decoder->config.kv_head_count, inverse);
}

static struct op_heads heads_of(const struct layer *l)
{
    const struct decoder *decoder = l->run->decoder;
    return (struct op_heads){
        .sequences = decoder->shape.micro_batch,
        .seq = decoder->shape.seq,
        .heads = (uint32_t)decoder->config.head_count,
        .kv_heads = (uint32_t)decoder->config.kv_head_count,
        .head_dim = (uint32_t)decoder->config.head_dim,
    };
}

/* q, k, v from x, then o, which may be q. */
static void attend(const struct layer *l, float *o)
{
    const struct run *run = l->run;
    for (uint64_t first = 0; first < l->tokens; first += STRATA_OP_PIECE_ROWS) {
        uint64_t rows = piece_rows(run, first);
        norm(run, offset_of(run, DECODER_INPUT_NORM),
             (struct op_norm){.x = l->x + first * l->hidden, .out = l->normed, .rows = rows});
        linear(run, DECODER_Q,
               (struct op_linear){
                   .src = l->normed, .dst = l->q + first * l->q_width, .rows = rows});
        linear(run, DECODER_K,
               (struct op_linear){
                   .src = l->normed, .dst = l->k + first * l->kv_width, .rows = rows});
        linear(run, DECODER_V,
               (struct op_linear){
                   .src = l->normed, .dst = l->v + first * l->kv_width, .rows = rows});
    }
    rotate_both(l, false);
    strata_op_attention(&run->ops, &(struct op_attention){
                                       .q = l->q,
                                       .k = l->k,
                                       .v = l->v,
                                       .o = o,
                                       .scratch = array_at(run, run->decoder->layout.attend),
                                       .shape = heads_of(l),
                                   });
}

/* normed, gate, up and act of the piece that starts at row `first`. */
static void mlp_inside(const struct layer *l, const float *mid, uint64_t first)
{
    const struct run *run = l->run;
    uint64_t rows = piece_rows(run, first);
    norm(run, offset_of(run, DECODER_POST_NORM),
         (struct op_norm){.x = mid + first * l->hidden, .out = l->normed, .rows = rows});
    linear(run, DECODER_GATE,
           (struct op_linear){.src = l->normed, .dst = l->gate, .rows = rows});
    linear(run, DECODER_UP, (struct op_linear){.src = l->normed, .dst = l->up, .rows = rows});
    strata_op_swiglu(&run->ops, &(struct op_swiglu){
                                    .gate = l->gate,
                                    .up = l->up,
                                    .out = l->act,
                                    .count = rows * run->decoder->config.ffn_size,
                                });
}

static void layer_forward(const struct run *run)
{
    struct layer l = layer_of(run);
    attend(&l, l.q);
    linear(run, DECODER_O,
           (struct op_linear){.src = l.q, .dst = l.x, .rows = l.tokens, .add = true});
    for (uint64_t first = 0; first < l.tokens; first += STRATA_OP_PIECE_ROWS) {
        mlp_inside(&l, l.x, first);
        linear(run, DECODER_DOWN,
               (struct op_linear){
                   .src = l.act,
                   .dst = l.x + first * l.hidden,
                   .rows = piece_rows(run, first),
                   .add = true,
               });
    }
}

/* Turns dx of the piece from the gradient of the layer's output into that of mid. */
static void mlp_grad(const struct layer *l, uint64_t first)
{
    const struct run *run = l->run;
    uint64_t rows = piece_rows(run, first);
    float *dx = l->dx + first * l->hidden;
    mlp_inside(l, l->mid, first);
    linear_dw(run, DECODER_DOWN, (struct op_linear_dw){.x = l->act, .dy = dx, .rows = rows});
    linear_dx(run, DECODER_DOWN, (struct op_linear){.src = dx, .dst = l->act, .rows = rows});
    strata_op_swiglu_grad(&run->ops, &(struct op_swiglu_grad){
                                         .gate = l->gate,
                                         .up = l->up,
                                         .d_out = l->act,
                                         .count = rows * run->decoder->config.ffn_size,
                                     });
    linear_dw(run, DECODER_GATE,
              (struct op_linear_dw){.x = l->normed, .dy = l->gate, .rows = rows});
    linear_dw(run, DECODER_UP,
              (struct op_linear_dw){.x = l->normed, .dy = l->up, .rows = rows});
    linear_dx(run, DECODER_GATE,
              (struct op_linear){.src = l->gate, .dst = l->normed, .rows = rows});
    linear_dx(run, DECODER_UP,
              (struct op_linear){.src = l->up, .dst = l->normed, .rows = rows, .add = true});
    norm_grad(run, offset_of(run, DECODER_POST_NORM),
              (struct op_norm_grad){.x = l->mid + first * l->hidden,
                                    .dy = l->normed,
                                    .dx = dx,
                                    .rows = rows,
                                    .add = true});
}

/* The gradients of q, k, v, in their places. mid is no longer needed and takes that of o. */
static void attend_grad(const struct layer *l)
{
    const struct run *run = l->run;
    linear_dw(run, DECODER_O, (struct op_linear_dw){.x = l->o, .dy = l->dx, .rows = l->tokens});
    linear_dx(run, DECODER_O,
              (struct op_linear){.src = l->dx, .dst = l->mid, .rows = l->tokens});
    strata_op_attention_grad(&run->ops,
                             &(struct op_attention_grad){
                                 .q = l->q,
                                 .k = l->k,
                                 .v = l->v,
                                 .d_out = l->mid,
                                 .scratch = array_at(run, run->decoder->layout.attend),
                                 .shape = heads_of(l),
                             });
    rotate_both(l, true);
}

/* From the gradients of q, k, v to dx of the piece, which already has the residual's part. */
static void attend_inputs_grad(const struct layer *l, uint64_t first)
{
    const struct run *run = l->run;
    uint64_t rows = piece_rows(run, first);
    const float *x = l->x + first * l->hidden;
    const float *dq = l->q + first * l->q_width;
    const float *dk = l->k + first * l->kv_width;
    const float *dv = l->v + first * l->kv_width;
    norm(run, offset_of(run, DECODER_INPUT_NORM),
         (struct op_norm){.x = x, .out = l->normed, .rows = rows});
    linear_dw(run, DECODER_Q, (struct op_linear_dw){.x = l->normed, .dy = dq, .rows = rows});
    linear_dw(run, DECODER_K, (struct op_linear_dw){.x = l->normed, .dy = dk, .rows = rows});
    linear_dw(run, DECODER_V, (struct op_linear_dw){.x = l->normed, .dy = dv, .rows = rows});
    linear_dx(run, DECODER_Q, (struct op_linear){.src = dq, .dst = l->normed, .rows = rows});
    linear_dx(run, DECODER_K,
              (struct op_linear){.src = dk, .dst = l->normed, .rows = rows, .add = true});
    linear_dx(run, DECODER_V,
              (struct op_linear){.src = dv, .dst = l->normed, .rows = rows, .add = true});
    norm_grad(run, offset_of(run, DECODER_INPUT_NORM),
              (struct op_norm_grad){.x = x,
                                    .dy = l->normed,
                                    .dx = l->dx + first * l->hidden,
                                    .rows = rows,
                                    .add = true});
}

static void layer_backward(const struct run *run)
{
    struct layer l = layer_of(run);
    attend(&l, l.o);
    strata_stream_copy(run->stream, l.mid, l.x, l.tokens * l.hidden * sizeof *l.x);
    linear(run, DECODER_O,
           (struct op_linear){.src = l.o, .dst = l.mid, .rows = l.tokens, .add = true});
    for (uint64_t first = 0; first < l.tokens; first += STRATA_OP_PIECE_ROWS)
        mlp_grad(&l, first);
    attend_grad(&l);
    for (uint64_t first = 0; first < l.tokens; first += STRATA_OP_PIECE_ROWS)
        attend_inputs_grad(&l, first);
}

/* Embedding and head: work on one vocabulary slice, whose matrix is the whole group. */

static uint64_t slice_rows(const struct run *run, uint32_t slice)
{
    return strata_decoder_slice_first(run->decoder, slice + 1) -
           strata_decoder_slice_first(run->decoder, slice);
}

static void embed(const struct run *run, const struct decoder_task *task)
{
    const struct decoder_layout *at = &run->decoder->layout;
    strata_op_embed(&run->ops,
                    &(struct op_embed){
                        .tokens = tokens_at(run, at->inputs, task->micro),
                        .weight = weight_at(run, 0),
                        .out = array_at(run, at->x),
                        .rows = run->decoder->micro_tokens,
                        .width = run->decoder->config.hidden_size,
                        .first = strata_decoder_slice_first(run->decoder, task->index),
                        .slice_rows = slice_rows(run, task->index),
                    });
}

static void embed_grad(const struct run *run, const struct decoder_task *task)
{
    const struct decoder_layout *at = &run->decoder->layout;
    strata_op_embed_grad(&run->ops,
                         &(struct op_embed_grad){
                             .tokens = tokens_at(run, at->inputs, task->micro),
                             .dy = array_at(run, at->dx),
                             .dweight = grad_at(run, 0),
                             .rows = run->decoder->micro_tokens,
                             .width = run->decoder->config.hidden_size,
                             .first = strata_decoder_slice_first(run->decoder, task->index),
                             .slice_rows = slice_rows(run, task->index),
                         });
}

/* The logits of a piece of y, and what the passes need to go over them. */
static struct op_entropy head_logits(const struct run *run, const struct decoder_task *task,
                                     uint64_t first)
{
    const struct decoder *decoder = run->decoder;
    struct op_entropy entropy = {
        .logits = array_at(run, decoder->layout.logits),
        .targets = tokens_at(run, decoder->layout.targets, task->micro) + first,
        .stats = stats_at(run, task->micro) + first,
        .rows = piece_rows(run, first),
        .first = strata_decoder_slice_first(decoder, task->index),
        .slice_rows = slice_rows(run, task->index),
        .scale = (float)(run->loss_scale / ((double)decoder->shape.batch * decoder->shape.seq)),
    };
    strata_op_linear(&run->ops, &(struct op_linear){
                                    .src = array_at(run, decoder->layout.y) +
                                           first * decoder->config.hidden_size,
                                    .weight = weight_at(run, 0),
                                    .dst = entropy.logits,
                                    .rows = entropy.rows,
                                    .in = decoder->config.hidden_size,
                                    .out = entropy.slice_rows,
                                });
    return entropy;
}

static void head_scan(const struct run *run, const struct decoder_task *task)
{
    for (uint64_t first = 0; first < run->decoder->micro_tokens;
         first += STRATA_OP_PIECE_ROWS) {
        struct op_entropy entropy = head_logits(run, task, first);
        strata_op_entropy_scan(&run->ops, &entropy);
    }
}

static void head_grad(const struct run *run, const struct decoder_task *task)
{
    const struct decoder *decoder = run->decoder;
    uint64_t hidden = decoder->config.hidden_size;
    for (uint64_t first = 0; first < decoder->micro_tokens; first += STRATA_OP_PIECE_ROWS) {
        struct op_entropy entropy = head_logits(run, task, first);
        strata_op_entropy_grad(&run->ops, &entropy);
        strata_op_linear_dw(&run->ops,
                            &(struct op_linear_dw){
                                .x = array_at(run, decoder->layout.y) + first * hidden,
                                .dy = entropy.logits,
                                .dweight = grad_at(run, 0),
                                .rows = entropy.rows,
                                .in = hidden,
                                .out = entropy.slice_rows,
                            });
        strata_op_linear_dx(&run->ops,
                            &(struct op_linear){
                                .src = entropy.logits,
                                .weight = weight_at(run, 0),
                                .dst = array_at(run, decoder->layout.dx) + first * hidden,
                                .rows = entropy.rows,
                                .in = hidden,
                                .out = entropy.slice_rows,
                                .add = !task->first,
                            });
    }
}

/* The step. */

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
    float *x = array_at(run, at->x);
    float *dx = array_at(run, at->dx);
    uint64_t tokens = run->decoder->micro_tokens;
    switch (task->work) {
    case DECODER_EMBED:
        embed(run, task);
        break;
    case DECODER_LAYER:
        layer_forward(run);
        break;
    case DECODER_NORM:
        norm(run, 0, (struct op_norm){.x = x, .out = array_at(run, at->y), .rows = tokens});
        break;
    case DECODER_HEAD_SCAN:
        head_scan(run, task);
        break;
    case DECODER_LOSS:
        queue_loss(run);
        break;
    case DECODER_HEAD_GRAD:
        head_grad(run, task);
        break;
    case DECODER_NORM_GRAD:
        norm_grad(run, 0, (struct op_norm_grad){.x = x, .dy = dx, .dx = dx, .rows = tokens});
        break;
    case DECODER_LAYER_GRAD:
        layer_backward(run);
        break;
    case DECODER_EMBED_GRAD:
        embed_grad(run, task);
        break;
    }
}

static float *array_of(const struct run *run, enum decoder_array array)
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

/* What operators read besides weights: tokens and the rotary table come from the host once a
 * step. */
static void queue_inputs(const struct run *run, const uint32_t *inputs, const uint32_t *targets)
{
    const struct decoder *decoder = run->decoder;
    uint64_t tokens = (uint64_t)decoder->shape.batch * decoder->shape.seq;
    strata_stream_copy(run->stream, tokens_at(run, decoder->layout.inputs, 0), inputs,
                       tokens * sizeof *inputs);
    strata_stream_copy(run->stream, tokens_at(run, decoder->layout.targets, 0), targets,
                       tokens * sizeof *targets);
    strata_stream_copy(run->stream, array_at(run, decoder->layout.rotary), decoder->rotary,
                       decoder->shape.seq * decoder->config.head_dim * sizeof *decoder->rotary);
    strata_op_entropy_begin(&run->ops, stats_at(run, 0), tokens);
}

/* Every kind of work once, on zeros, tokens included; slices differ in their rows. */
static void queue_everything(const struct run *run)
{
    for (enum decoder_work work = DECODER_EMBED; work <= DECODER_EMBED_GRAD; work++)
        for (uint32_t slice = 0; slice < run->decoder->shape.vocab_slices; slice++) {
            bool sliced = work == DECODER_EMBED || work == DECODER_HEAD_SCAN ||
                          work == DECODER_HEAD_GRAD || work == DECODER_EMBED_GRAD;
            if (sliced || slice == 0)
                queue_work((void *)(uintptr_t)run,
                           &(struct decoder_task){.work = work, .index = slice, .first = true});
        }
}

/* Elements of the largest group, each tensor's. */
static uint64_t largest_group(const struct decoder *decoder)
{
    uint64_t most = 0;
    for (uint32_t g = 0; g < decoder->model.group_count; g++) {
        const strata_group_desc *group = &decoder->groups[g];
        uint64_t elems = 0;
        for (uint32_t t = 0; t < group->tensor_count; t++)
            elems += group->tensors[t].shape[0] *
                     (group->tensors[t].rank > 1 ? group->tensors[t].shape[1] : 1);
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
