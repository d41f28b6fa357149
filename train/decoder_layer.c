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
 * q, k and v lie side by side in a row, as their weights and biases do in the group, and so do
 * gate and up: each is one product, and so are the gradients.
 *
 * Forward works in place: x becomes mid becomes out. Backward makes q, k, v, o and mid again
 * from x, then goes through the MLP piece by piece while dx turns from the gradient of out into
 * that of mid; then mid's bytes are free for the gradient of o. The gradients of q, k and v
 * take their places, or lie apart where the device's attention wants it; the norm adds the last
 * part to dx.
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

/* Matrices that lie one behind the other, of one width: from `tensor` to `last`. */
struct matrices {
    enum decoder_layer_tensor tensor;
    enum decoder_layer_tensor last;
};

static const struct matrices qkv_matrices = {DECODER_Q, DECODER_V};
static const struct matrices o_matrix = {DECODER_O, DECODER_O};
static const struct matrices gate_up_matrices = {DECODER_GATE, DECODER_UP};
static const struct matrices down_matrix = {DECODER_DOWN, DECODER_DOWN};

static uint64_t in_of(const struct run *run, struct matrices of)
{
    return sizes_of(run, of.tensor)[1];
}

static uint64_t out_of(const struct run *run, struct matrices of)
{
    uint64_t out = 0;
    for (enum decoder_layer_tensor tensor = of.tensor; tensor <= of.last; tensor++)
        out += sizes_of(run, tensor)[0];
    return out;
}

static void linear(const struct run *run, struct matrices of, struct op_linear how)
{
    how.weight = weight_at(run, offset_of(run, of.tensor));
    how.out = out_of(run, of);
    how.in = in_of(run, of);
    strata_op_linear(&run->ops, &how);
}

static void linear_dx(const struct run *run, struct matrices of, struct op_linear how)
{
    how.weight = weight_at(run, offset_of(run, of.tensor));
    how.out = out_of(run, of);
    how.in = in_of(run, of);
    strata_op_linear_dx(&run->ops, &how);
}

static void linear_dw(const struct run *run, struct matrices of, struct op_linear_dw how)
{
    how.dweight = grad_at(run, offset_of(run, of.tensor));
    how.out = out_of(run, of);
    how.in = in_of(run, of);
    strata_op_linear_dw(&run->ops, &how);
}

/* A layer. Its arrays, once more by name. */
struct layer {
    const struct run *run;
    uint64_t tokens;
    uint64_t hidden;
    uint64_t qkv_width;
    uint64_t ffn;
    uint64_t piece_rows; /* of the MLP and the norms before products */
    uint32_t window;
    void *x;
    void *dx;
    void *qkv;     /* the product of x, and its bias                      */
    void *heads;   /* what attention takes: qkv; apart, if heads are normed */
    void *d_heads; /* their gradients                                     */
    void *d_qkv;   /* those of qkv                                        */
    void *o;
    float *lse;
    void *mid;
    void *normed;
    void *gate_up;
    void *act;
};

static struct layer layer_of(const struct run *run, uint32_t index)
{
    const struct decoder_config *c = &run->decoder->config;
    const struct decoder_layout *at = &run->decoder->layout;
    return (struct layer){
        .run = run,
        .tokens = run->decoder->micro_tokens,
        .hidden = c->hidden_size,
        .qkv_width = decoder_qkv_width(c),
        .ffn = c->ffn_size,
        .piece_rows = run->ops.table->layer_rows,
        .window = decoder_window(run->decoder, index),
        .x = array_at(run, at->x),
        .dx = array_at(run, at->dx),
        .qkv = array_at(run, at->qkv),
        .heads = array_at(run, at->heads),
        .d_heads = array_at(run, at->d_heads),
        .d_qkv = array_at(run, at->d_qkv),
        .o = array_at(run, at->o),
        .lse = array_at(run, at->lse),
        .mid = array_at(run, at->mid),
        .normed = array_at(run, at->normed),
        .gate_up = array_at(run, at->gate_up),
        .act = array_at(run, at->act),
    };
}

/* The rows of a piece of the layer's tokens that begins at `first`. */
static uint64_t piece_of(const struct layer *l, uint64_t first)
{
    return rows_from(l->run, first, l->piece_rows);
}

/* The queries, keys and values of an array as wide as qkv. */

static void *keys_in(const struct layer *l, void *array)
{
    return elems_after(l->run, array, decoder_q_width(&l->run->decoder->config));
}

static void *values_in(const struct layer *l, void *array)
{
    const struct decoder_config *c = &l->run->decoder->config;
    return elems_after(l->run, array, decoder_q_width(c) + decoder_kv_width(c));
}

static void rotate(const struct layer *l, void *array, bool inverse)
{
    const struct decoder *decoder = l->run->decoder;
    const struct decoder_config *c = &decoder->config;
    strata_op_rotary(&l->run->ops, &(struct op_rotary){
                                       .x = array,
                                       .table = array_at(l->run, decoder->layout.rotary),
                                       .rows = l->tokens,
                                       .stride = l->qkv_width,
                                       .seq = decoder->shape.seq,
                                       .heads = (uint32_t)(c->head_count + c->kv_head_count),
                                       .head_dim = (uint32_t)c->head_dim,
                                       .turned = (uint32_t)decoder_turned(c),
                                       .inverse = inverse,
                                   });
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
        .stride = l->qkv_width,
    };
}

/* The norm of each query head, or of each key head: `heads` of them at the start of a row. */
static void norm_heads(const struct layer *l, enum decoder_layer_tensor tensor, const void *x,
                       void *out, uint64_t heads)
{
    const struct run *run = l->run;
    const struct decoder_config *c = &run->decoder->config;
    strata_op_norm(&run->ops, &(struct op_norm){
                                  .x = x,
                                  .weight = weight_at(run, offset_of(run, tensor)),
                                  .out = out,
                                  .rows = l->tokens,
                                  .width = c->head_dim,
                                  .heads = heads,
                                  .stride = l->qkv_width,
                                  .eps = (float)c->rms_eps,
                              });
}

static void norm_heads_grad(const struct layer *l, enum decoder_layer_tensor tensor,
                            const void *x, const void *dy, void *dx, uint64_t heads)
{
    const struct run *run = l->run;
    const struct decoder_config *c = &run->decoder->config;
    strata_op_norm_grad(&run->ops, &(struct op_norm_grad){
                                       .x = x,
                                       .weight = weight_at(run, offset_of(run, tensor)),
                                       .dy = dy,
                                       .dx = dx,
                                       .dweight = grad_at(run, offset_of(run, tensor)),
                                       .rows = l->tokens,
                                       .width = c->head_dim,
                                       .heads = heads,
                                       .stride = l->qkv_width,
                                       .eps = (float)c->rms_eps,
                                   });
}

/* From the product of x to what attention takes, and back to the product's gradient. */

static void finish_heads(const struct layer *l)
{
    const struct run *run = l->run;
    const struct decoder_config *c = &run->decoder->config;
    if (c->qkv_bias)
        strata_op_bias(&run->ops, &(struct op_bias){
                                      .x = l->qkv,
                                      .bias = weight_at(run, offset_of(run, DECODER_Q_BIAS)),
                                      .rows = l->tokens,
                                      .width = l->qkv_width,
                                  });
    if (c->qk_norm) {
        norm_heads(l, DECODER_Q_NORM, l->qkv, l->heads, c->head_count);
        norm_heads(l, DECODER_K_NORM, keys_in(l, l->qkv), keys_in(l, l->heads),
                   c->kv_head_count);
    }
    rotate(l, l->heads, false);
}

static void finish_heads_grad(const struct layer *l)
{
    const struct run *run = l->run;
    const struct decoder_config *c = &run->decoder->config;
    rotate(l, l->d_heads, true);
    if (c->qk_norm) {
        norm_heads_grad(l, DECODER_Q_NORM, l->qkv, l->d_heads, l->d_qkv, c->head_count);
        norm_heads_grad(l, DECODER_K_NORM, keys_in(l, l->qkv), keys_in(l, l->d_heads),
                        keys_in(l, l->d_qkv), c->kv_head_count);
    }
    if (c->qkv_bias)
        strata_op_bias_grad(&run->ops,
                            &(struct op_bias_grad){
                                .dy = l->d_qkv,
                                .dbias = grad_at(run, offset_of(run, DECODER_Q_BIAS)),
                                .rows = l->tokens,
                                .width = l->qkv_width,
                            });
}

/* q, k, v from x, then o. */
static void attend(const struct layer *l)
{
    const struct run *run = l->run;
    for (uint64_t first = 0; first < l->tokens; first += piece_of(l, first)) {
        uint64_t rows = piece_of(l, first);
        norm(run, offset_of(run, DECODER_INPUT_NORM),
             (struct op_norm){.x = elems_after(run, l->x, first * l->hidden),
                              .out = l->normed,
                              .rows = rows});
        linear(run, qkv_matrices,
               (struct op_linear){.src = l->normed,
                                  .dst = elems_after(run, l->qkv, first * l->qkv_width),
                                  .rows = rows});
    }
    finish_heads(l);
    strata_op_attention(&run->ops, &(struct op_attention){
                                       .q = l->heads,
                                       .k = keys_in(l, l->heads),
                                       .v = values_in(l, l->qkv),
                                       .o = l->o,
                                       .lse = l->lse,
                                       .scratch = array_at(run, run->decoder->layout.attend),
                                       .shape = heads_of(l),
                                   });
}

/* to = x + o Wo'. to may be x. */
static void add_attention(const struct layer *l, void *to)
{
    linear(l->run, o_matrix,
           (struct op_linear){.src = l->o, .addend = l->x, .dst = to, .rows = l->tokens});
}

/* normed and gate_up of the piece that starts at row `first`. */
static void mlp_inside(const struct layer *l, const void *mid, uint64_t first)
{
    const struct run *run = l->run;
    uint64_t rows = piece_of(l, first);
    norm(run, offset_of(run, DECODER_POST_NORM),
         (struct op_norm){
             .x = elems_after(run, mid, first * l->hidden), .out = l->normed, .rows = rows});
    linear(run, gate_up_matrices,
           (struct op_linear){.src = l->normed, .dst = l->gate_up, .rows = rows});
}

void strata_layer_forward(const struct run *run, uint32_t layer)
{
    struct layer l = layer_of(run, layer);
    attend(&l);
    add_attention(&l, l.x);
    for (uint64_t first = 0; first < l.tokens; first += piece_of(&l, first)) {
        uint64_t rows = piece_of(&l, first);
        void *x = elems_after(run, l.x, first * l.hidden);
        mlp_inside(&l, l.x, first);
        strata_op_glu(&run->ops, &(struct op_glu){
                                     .gate_up = l.gate_up,
                                     .out = l.act,
                                     .rows = rows,
                                     .width = l.ffn,
                                     .activation = run->decoder->config.activation,
                                 });
        linear(run, down_matrix,
               (struct op_linear){.src = l.act, .addend = x, .dst = x, .rows = rows});
    }
}

/* Turns dx of the piece from the gradient of the layer's output into that of mid. act holds its
 * own gradient first. */
static void mlp_grad(const struct layer *l, uint64_t first)
{
    const struct run *run = l->run;
    uint64_t rows = piece_of(l, first);
    void *dx = elems_after(run, l->dx, first * l->hidden);
    mlp_inside(l, l->mid, first);
    linear_dx(run, down_matrix, (struct op_linear){.src = dx, .dst = l->act, .rows = rows});
    strata_op_glu_grad(&run->ops, &(struct op_glu_grad){
                                      .gate_up = l->gate_up,
                                      .d_out = l->act,
                                      .out = l->act,
                                      .rows = rows,
                                      .width = l->ffn,
                                      .activation = run->decoder->config.activation,
                                  });
    linear_dw(run, down_matrix, (struct op_linear_dw){.x = l->act, .dy = dx, .rows = rows});
    linear_dw(run, gate_up_matrices,
              (struct op_linear_dw){.x = l->normed, .dy = l->gate_up, .rows = rows});
    linear_dx(run, gate_up_matrices,
              (struct op_linear){.src = l->gate_up, .dst = l->normed, .rows = rows});
    norm_grad(run, offset_of(run, DECODER_POST_NORM),
              (struct op_norm_grad){.x = elems_after(run, l->mid, first * l->hidden),
                                    .dy = l->normed,
                                    .dx = dx,
                                    .rows = rows,
                                    .add = true});
}

/* d_qkv. mid is no longer needed and takes the gradient of o. */
static void attend_grad(const struct layer *l)
{
    const struct run *run = l->run;
    linear_dw(run, o_matrix, (struct op_linear_dw){.x = l->o, .dy = l->dx, .rows = l->tokens});
    linear_dx(run, o_matrix,
              (struct op_linear){.src = l->dx, .dst = l->mid, .rows = l->tokens});
    strata_op_attention_grad(&run->ops,
                             &(struct op_attention_grad){
                                 .q = l->heads,
                                 .k = keys_in(l, l->heads),
                                 .v = values_in(l, l->qkv),
                                 .o = l->o,
                                 .lse = l->lse,
                                 .d_out = l->mid,
                                 .dq = l->d_heads,
                                 .dk = keys_in(l, l->d_heads),
                                 .dv = values_in(l, l->d_qkv),
                                 .scratch = array_at(run, run->decoder->layout.attend),
                                 .shape = heads_of(l),
                             });
    finish_heads_grad(l);
}

/* From d_qkv to dx of the piece, which already has the residual's part. */
static void attend_inputs_grad(const struct layer *l, uint64_t first)
{
    const struct run *run = l->run;
    uint64_t rows = piece_of(l, first);
    const void *d_qkv = elems_after(run, l->d_qkv, first * l->qkv_width);
    linear_dx(run, qkv_matrices,
              (struct op_linear){.src = d_qkv, .dst = l->normed, .rows = rows});
    norm_grad(run, offset_of(run, DECODER_INPUT_NORM),
              (struct op_norm_grad){.x = elems_after(run, l->x, first * l->hidden),
                                    .dy = l->normed,
                                    .dx = elems_after(run, l->dx, first * l->hidden),
                                    .normed = l->normed,
                                    .rows = rows,
                                    .add = true});
    linear_dw(run, qkv_matrices,
              (struct op_linear_dw){.x = l->normed, .dy = d_qkv, .rows = rows});
}

void strata_layer_backward(const struct run *run, uint32_t layer)
{
    struct layer l = layer_of(run, layer);
    attend(&l);
    add_attention(&l, l.mid);
    for (uint64_t first = 0; first < l.tokens; first += piece_of(&l, first))
        mlp_grad(&l, first);
    attend_grad(&l);
    for (uint64_t first = 0; first < l.tokens; first += piece_of(&l, first))
        attend_inputs_grad(&l, first);
}
