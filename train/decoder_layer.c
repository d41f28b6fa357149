/*
 * A layer, forward and backward by hand.
 *
 * With n = norm:
 *
 *     mid = x + attention(rotary(n1(x) Wq'), rotary(n1(x) Wk'), n1(x) Wv') Wo'
 *     out = mid + (silu(n2(mid) Wg') * (n2(mid) Wu')) Wd'
 *
 * where the configuration says so with biases on q, k and v, with a norm of each head of q and
 * k before it is rotated, with attention in a window, or with another activation than silu.
 *
 * Forward works in place: x becomes mid becomes out, and o lies in q. Backward makes q, k, v, o
 * and mid again from x, then goes through the MLP piece by piece while dx turns from the
 * gradient of out into that of mid; then mid's bytes are free for the gradient of o.
 * Attention's gradient turns q, k, v into their own gradients in place, and the norm adds the
 * last part to dx.
 *
 * Thread: the caller's.
 */

#include "train/decoder_run.h"

static uint64_t offset_of(const struct run *run, enum decoder_layer_tensor tensor)
{
    return run->decoder->layer_offset[tensor];
}

/* [out, in] of a layer's matrix. */
static const uint64_t *sizes_of(const struct run *run, enum decoder_layer_tensor tensor)
{
    return run->decoder->groups[run->decoder->shape.vocab_slices]
        .tensors[run->decoder->layer_place[tensor]]
        .shape;
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
    uint32_t window;
    float *x;
    float *dx;
    float *q;
    float *k;
    float *v;
    float *q_raw; /* before its heads' norms; q where there are none */
    float *k_raw;
    float *o;
    float *mid;
    float *normed;
    float *gate;
    float *up;
    float *act;
};

static struct layer layer_of(const struct run *run, uint32_t index)
{
    const struct decoder_config *c = &run->decoder->config;
    const struct decoder_layout *at = &run->decoder->layout;
    return (struct layer){
        .run = run,
        .tokens = run->decoder->micro_tokens,
        .hidden = c->hidden_size,
        .q_width = decoder_q_width(c),
        .kv_width = decoder_kv_width(c),
        .window = decoder_window(run->decoder, index),
        .x = array_at(run, at->x),
        .dx = array_at(run, at->dx),
        .q = array_at(run, at->q),
        .k = array_at(run, at->k),
        .v = array_at(run, at->v),
        .q_raw = array_at(run, at->q_raw),
        .k_raw = array_at(run, at->k_raw),
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
                                       .turned = (uint32_t)decoder_turned(&decoder->config),
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
        .window = l->window,
    };
}

static void add_bias(const struct layer *l, enum decoder_layer_tensor tensor, float *array)
{
    const struct run *run = l->run;
    strata_op_bias(&run->ops, &(struct op_bias){
                                  .x = array,
                                  .bias = weight_at(run, offset_of(run, tensor)),
                                  .rows = l->tokens,
                                  .width = sizes_of(run, tensor)[0],
                              });
}

static void add_bias_grad(const struct layer *l, enum decoder_layer_tensor tensor,
                          const float *array)
{
    const struct run *run = l->run;
    strata_op_bias_grad(&run->ops, &(struct op_bias_grad){
                                       .dy = array,
                                       .dbias = grad_at(run, offset_of(run, tensor)),
                                       .rows = l->tokens,
                                       .width = sizes_of(run, tensor)[0],
                                   });
}

/* The norm of each head: rows of head_dim. */
static void norm_heads(const struct layer *l, enum decoder_layer_tensor tensor, const float *x,
                       float *out, uint64_t heads)
{
    const struct run *run = l->run;
    const struct decoder_config *c = &run->decoder->config;
    strata_op_norm(&run->ops, &(struct op_norm){
                                  .x = x,
                                  .weight = weight_at(run, offset_of(run, tensor)),
                                  .out = out,
                                  .rows = l->tokens * heads,
                                  .width = c->head_dim,
                                  .eps = (float)c->rms_eps,
                              });
}

/* dx: on entry the gradient of the normed heads. */
static void norm_heads_grad(const struct layer *l, enum decoder_layer_tensor tensor,
                            const float *x, float *dx, uint64_t heads)
{
    const struct run *run = l->run;
    const struct decoder_config *c = &run->decoder->config;
    strata_op_norm_grad(&run->ops, &(struct op_norm_grad){
                                       .x = x,
                                       .weight = weight_at(run, offset_of(run, tensor)),
                                       .dy = dx,
                                       .dx = dx,
                                       .dweight = grad_at(run, offset_of(run, tensor)),
                                       .rows = l->tokens * heads,
                                       .width = c->head_dim,
                                       .eps = (float)c->rms_eps,
                                   });
}

/* From the products of x to what attention takes, and back to the products' gradients. */

static void finish_heads(const struct layer *l)
{
    const struct decoder_config *c = &l->run->decoder->config;
    if (c->qkv_bias) {
        add_bias(l, DECODER_Q_BIAS, l->q_raw);
        add_bias(l, DECODER_K_BIAS, l->k_raw);
        add_bias(l, DECODER_V_BIAS, l->v);
    }
    if (c->qk_norm) {
        norm_heads(l, DECODER_Q_NORM, l->q_raw, l->q, c->head_count);
        norm_heads(l, DECODER_K_NORM, l->k_raw, l->k, c->kv_head_count);
    }
    rotate_both(l, false);
}

static void finish_heads_grad(const struct layer *l)
{
    const struct decoder_config *c = &l->run->decoder->config;
    rotate_both(l, true);
    if (c->qk_norm) {
        norm_heads_grad(l, DECODER_Q_NORM, l->q_raw, l->q, c->head_count);
        norm_heads_grad(l, DECODER_K_NORM, l->k_raw, l->k, c->kv_head_count);
    }
    if (c->qkv_bias) {
        add_bias_grad(l, DECODER_Q_BIAS, l->q);
        add_bias_grad(l, DECODER_K_BIAS, l->k);
        add_bias_grad(l, DECODER_V_BIAS, l->v);
    }
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
                   .src = l->normed, .dst = l->q_raw + first * l->q_width, .rows = rows});
        linear(run, DECODER_K,
               (struct op_linear){
                   .src = l->normed, .dst = l->k_raw + first * l->kv_width, .rows = rows});
        linear(run, DECODER_V,
               (struct op_linear){
                   .src = l->normed, .dst = l->v + first * l->kv_width, .rows = rows});
    }
    finish_heads(l);
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
    strata_op_glu(&run->ops, &(struct op_glu){
                                 .gate = l->gate,
                                 .up = l->up,
                                 .out = l->act,
                                 .count = rows * run->decoder->config.ffn_size,
                                 .activation = run->decoder->config.activation,
                             });
}

void strata_layer_forward(const struct run *run, uint32_t layer)
{
    struct layer l = layer_of(run, layer);
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
    strata_op_glu_grad(&run->ops, &(struct op_glu_grad){
                                      .gate = l->gate,
                                      .up = l->up,
                                      .d_out = l->act,
                                      .count = rows * run->decoder->config.ffn_size,
                                      .activation = run->decoder->config.activation,
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
    finish_heads_grad(l);
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

void strata_layer_backward(const struct run *run, uint32_t layer)
{
    struct layer l = layer_of(run, layer);
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
