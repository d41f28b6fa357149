/*
 * The operators on a CUDA device: kernels and products put together as on the host.
 *
 * Activations, gradients and sums are fp32 here too. What differs is what a product multiplies:
 * with bf16 or fp16 weights the activations are rounded to that type first, which is what the
 * device's matrix units take; with fp32 weights nothing is rounded.
 *
 * Scratch begins with the products' workspace; the rounded copies of a product's two arguments
 * follow. Everything runs on one stream, so one operator's scratch is the next one's.
 *
 * Attention goes over query rows in blocks, for all key-value heads of a sequence at once, and
 * over the query heads that share them one after the other. A block sees only the keys up to
 * its last row, and some more where a long sequence has many blocks: they are masked, and spare
 * products a shape for each block. Backward begins with the last block: it sees all keys, so
 * its parts of their gradients are set and not added, and nothing has to be zeroed. With a
 * window a block begins with the first key that its first row sees, or a little earlier for the
 * same reason; only where backward begins are all keys taken.
 *
 * Thread: the one that queues on the stream; nothing is computed here.
 */

#include "train/ops_cuda.h"

#include "base/round.h"

#include <stdio.h>

/* Scores of a block at a time: 32 MiB in fp32. Rows are cut so that they fit. A test has fewer,
 * so that short sequences take several blocks. */
#ifndef BLOCK_ROWS_MAX
#    define BLOCK_ROWS_MAX 512u
#endif
#define SCORES_MAX     (UINT64_C(8) << 20)
#define BLOCK_ROWS_MIN 16u

/* Numbers of keys that the blocks of a sequence see: an algorithm is chosen for each in three
 * products. 64 cost 1.6 % of a long sequence's products. Few in a test, as above. */
#ifndef KEY_COUNTS
#    define KEY_COUNTS 64u
#endif

#define ALIGN_BYTES 256u

#define PRODUCT_REFUSED 719 /* cudaErrorLaunchFailure */

static void *stream_of(const struct ops *ops)
{
    return strata_stream_native(ops->stream);
}

static void check(const struct ops *ops, int native, const char *what)
{
    strata_stream_failed(ops->stream, native, what);
}

static uint64_t aligned(uint64_t bytes)
{
    return strata_round_up(bytes, ALIGN_BYTES);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Products. */

static uint64_t op_scratch(const struct op_sizes *sizes, strata_dtype dtype)
{
    uint64_t halves = dtype == STRATA_FP32 ? 0 : 2 * aligned(2 * sizes->activation_elems);
    return CUDA_WORKSPACE_BYTES + halves;
}

/* An argument of a product: the array, or a rounded copy of it at *at, which moves on. */
static const void *argument(const struct ops *ops, const float *array, uint64_t count,
                            uint8_t **at)
{
    if (ops->weight_dtype == STRATA_FP32)
        return array;
    void *half = *at;
    *at += aligned(2 * count);
    check(ops, strata_cuda_narrow(stream_of(ops), half, ops->weight_dtype, array, count),
          "rounding a product's argument");
    return half;
}

static uint8_t *halves_of(const struct ops *ops)
{
    return (uint8_t *)ops->scratch + CUDA_WORKSPACE_BYTES;
}

/* A refusal has no cudaError_t: cuBLAS's numbers are its own. */
static void product(const struct ops *ops, const struct cuda_product *p)
{
    const char *refusal = strata_cuda_product(ops->products, stream_of(ops), ops->scratch, p);
    if (refusal == NULL)
        return;
    char what[128];
    snprintf(what, sizeof what, "a product of %llu x %llu x %llu, %u times: %s",
             (unsigned long long)p->shape.rows, (unsigned long long)p->shape.depth,
             (unsigned long long)p->shape.cols, p->batch, refusal);
    check(ops, PRODUCT_REFUSED, what);
}

/* A layer's: c = or += a b. */
static void layer_product(const struct ops *ops, const void *a, const void *b, float *c,
                          struct product_shape shape, bool add)
{
    product(ops, &(struct cuda_product){
                     .a = a,
                     .b = b,
                     .c = c,
                     .dtype = ops->weight_dtype,
                     .shape = shape,
                     .batch = 1,
                     .scale = 1.0f,
                     .beta = add ? 1.0f : 0.0f,
                 });
}

/* Elements from the first to after the last of rows of `out` numbers. */
static uint64_t out_span(uint64_t rows, uint64_t out, uint64_t out_stride)
{
    return (rows - 1) * strata_op_out_stride(out_stride, out) + out;
}

static void linear(const struct ops *ops, const struct op_linear *a)
{
    uint8_t *at = halves_of(ops);
    const void *src = argument(ops, a->src, a->rows * a->in, &at);
    struct product_shape shape = strata_product_linear(a->rows, a->in, a->out);
    shape.c_stride = strata_op_out_stride(a->out_stride, a->out);
    layer_product(ops, src, a->weight, a->dst, shape, a->add);
}

static void linear_dx(const struct ops *ops, const struct op_linear *a)
{
    uint8_t *at = halves_of(ops);
    const void *src = argument(ops, a->src, out_span(a->rows, a->out, a->out_stride), &at);
    struct product_shape shape = strata_product_linear_dx(a->rows, a->in, a->out);
    shape.a_stride = strata_op_out_stride(a->out_stride, a->out);
    layer_product(ops, src, a->weight, a->dst, shape, a->add);
}

static void linear_dw(const struct ops *ops, const struct op_linear_dw *a)
{
    uint8_t *at = halves_of(ops);
    const void *dy = argument(ops, a->dy, out_span(a->rows, a->out, a->out_stride), &at);
    const void *x = argument(ops, a->x, a->rows * a->in, &at);
    struct product_shape shape = strata_product_linear_dw(a->rows, a->in, a->out);
    shape.a_stride = strata_op_out_stride(a->out_stride, a->out);
    layer_product(ops, dy, x, a->dweight, shape, true);
}

/* Kernels alone. */

static void norm(const struct ops *ops, const struct op_norm *args)
{
    check(ops, strata_cuda_norm(stream_of(ops), args, ops->weight_dtype), "a norm");
}

/* As many rows at a time as the workspace has room for. */
static void norm_grad(const struct ops *ops, const struct op_norm_grad *args)
{
    uint64_t rows_max = args->rows;
    while (strata_cuda_norm_grad_scratch(rows_max, args->width) > CUDA_WORKSPACE_BYTES)
        rows_max = (rows_max + 1) / 2;
    for (uint64_t first = 0; first < args->rows; first += rows_max) {
        struct op_norm_grad part = *args;
        part.x += first * args->width;
        part.dy += first * args->width;
        part.dx += first * args->width;
        part.rows = least(rows_max, args->rows - first);
        check(ops,
              strata_cuda_norm_grad(stream_of(ops), &part, ops->weight_dtype, ops->scratch),
              "a norm's gradient");
    }
}

static void bias(const struct ops *ops, const struct op_bias *args)
{
    check(ops, strata_cuda_bias(stream_of(ops), args, ops->weight_dtype), "a bias");
}

static void bias_grad(const struct ops *ops, const struct op_bias_grad *args)
{
    uint64_t rows_max = args->rows;
    while (strata_cuda_bias_grad_scratch(rows_max, args->width) > CUDA_WORKSPACE_BYTES)
        rows_max = (rows_max + 1) / 2;
    for (uint64_t first = 0; first < args->rows; first += rows_max) {
        struct op_bias_grad part = *args;
        part.dy += first * args->width;
        part.rows = least(rows_max, args->rows - first);
        check(ops, strata_cuda_bias_grad(stream_of(ops), &part, ops->scratch),
              "a bias's gradient");
    }
}

static void rotary(const struct ops *ops, const struct op_rotary *args)
{
    check(ops, strata_cuda_rotary(stream_of(ops), args), "a rotary embedding");
}

static void glu(const struct ops *ops, const struct op_glu *args)
{
    check(ops, strata_cuda_glu(stream_of(ops), args), "glu");
}

static void glu_grad(const struct ops *ops, const struct op_glu_grad *args)
{
    check(ops, strata_cuda_glu_grad(stream_of(ops), args), "glu's gradient");
}

static void embed(const struct ops *ops, const struct op_embed *args)
{
    check(ops, strata_cuda_embed(stream_of(ops), args, ops->weight_dtype), "a look-up");
}

static void embed_grad(const struct ops *ops, const struct op_embed_grad *args)
{
    check(ops, strata_cuda_embed_grad(stream_of(ops), args), "a look-up's gradient");
}

static void entropy_begin(const struct ops *ops, struct op_row_stat *stats, uint64_t rows)
{
    check(ops, strata_cuda_entropy_begin(stream_of(ops), stats, rows), "a loss's beginning");
}

static void entropy_scan(const struct ops *ops, const struct op_entropy *args)
{
    check(ops, strata_cuda_entropy_scan(stream_of(ops), args), "a pass over logits");
}

static void entropy_grad(const struct ops *ops, const struct op_entropy *args)
{
    check(ops, strata_cuda_entropy_grad(stream_of(ops), args), "the logits' gradient");
}

static void entropy_loss(const struct ops *ops, const struct op_row_stat *stats, uint64_t rows,
                         double *out)
{
    check(ops, strata_cuda_entropy_loss(stream_of(ops), stats, rows, out), "the loss");
}

/* Attention. */

static uint64_t block_rows(const struct op_heads *s)
{
    uint64_t rows = SCORES_MAX / ((uint64_t)s->kv_heads * s->seq);
    rows = least(rows, BLOCK_ROWS_MAX) / BLOCK_ROWS_MIN * BLOCK_ROWS_MIN;
    return least(rows < BLOCK_ROWS_MIN ? BLOCK_ROWS_MIN : rows, s->seq);
}

/* The first key after those of a block whose rows end before `end`. */
static uint64_t keys_end(const struct op_heads *s, uint64_t end)
{
    uint64_t step = block_rows(s);
    uint64_t blocks = strata_units_of(s->seq, step);
    uint64_t unit = strata_units_of(blocks, KEY_COUNTS) * step;
    return least(strata_round_up(end, unit), s->seq);
}

/* Attention's own scratch, in bytes from its start. The halves are there whatever the dtype, so
 * that the size follows from the shape. */
struct attention_layout {
    uint64_t scores; /* kv_heads x rows x seq                         */
    uint64_t d_scores;
    uint64_t dk; /* kv_heads x seq x head_dim                     */
    uint64_t dv;
    uint64_t half_scores; /* rounded: of scores or d_scores, one at a time */
    uint64_t half_d_scores;
    uint64_t half_q; /* of one sequence                               */
    uint64_t half_k;
    uint64_t half_v;
    uint64_t half_d_out;
    uint64_t bytes;
};

static uint64_t place(uint64_t *end, uint64_t bytes)
{
    uint64_t at = *end;
    *end += aligned(bytes);
    return at;
}

static struct attention_layout layout_of(const struct op_heads *s)
{
    uint64_t scores = s->kv_heads * block_rows(s) * s->seq;
    uint64_t q = (uint64_t)s->seq * s->heads * s->head_dim;
    uint64_t kv = (uint64_t)s->seq * s->kv_heads * s->head_dim;
    struct attention_layout at;
    uint64_t end = 0;
    at.scores = place(&end, 4 * scores);
    at.d_scores = place(&end, 4 * scores);
    at.dk = place(&end, 4 * kv);
    at.dv = place(&end, 4 * kv);
    at.half_scores = place(&end, 2 * scores);
    at.half_d_scores = place(&end, 2 * scores);
    at.half_q = place(&end, 2 * q);
    at.half_k = place(&end, 2 * kv);
    at.half_v = place(&end, 2 * kv);
    at.half_d_out = place(&end, 2 * q);
    at.bytes = end;
    return at;
}

static uint64_t attention_scratch(const struct op_heads *shape)
{
    return layout_of(shape).bytes / 4;
}

/* One sequence: its arrays as products take them, in the dtype of products. */
struct sequence {
    const struct ops *ops;
    const struct op_heads *shape;
    struct attention_layout at;
    uint8_t *scratch;
    const uint8_t *q;
    const uint8_t *k;
    const uint8_t *v;
    const uint8_t *d_out; /* gradient only */
    uint64_t elem_bytes;
};

static const uint8_t *rounded(const struct sequence *s, const float *array, uint64_t offset,
                              uint64_t count)
{
    uint8_t *at = s->scratch + offset;
    return argument(s->ops, array, count, &at);
}

static struct sequence begin_sequence(const struct ops *ops, const struct op_heads *shape,
                                      float *scratch)
{
    return (struct sequence){
        .ops = ops,
        .shape = shape,
        .at = layout_of(shape),
        .scratch = (uint8_t *)scratch,
        .elem_bytes = ops->weight_dtype == STRATA_FP32 ? 4 : 2,
    };
}

/* One block of query rows: of every shared-th query head, beginning with head `head`. */
struct rows {
    uint64_t head;
    uint64_t first;
    uint64_t count;
    uint64_t key; /* the first that the block takes */
    uint64_t keys;
    bool begins; /* gradient: the first block of the sequence */
};

/* The block of rows from `first` on. */
static struct rows rows_at(const struct op_heads *s, uint64_t head, uint64_t first, bool begins)
{
    uint64_t step = block_rows(s);
    struct rows r = {.head = head, .first = first, .begins = begins};
    r.count = least(step, s->seq - first);
    if (s->window != 0 && first + 1 > s->window && !begins)
        r.key = (first + 1 - s->window) / step * step;
    r.keys = keys_end(s, first + r.count) - r.key;
    return r;
}

/* The block's first key or value, in the dtype of products. */
static const uint8_t *keys_from(const struct sequence *s, const struct rows *r,
                                const uint8_t *keys)
{
    return keys + r->key * s->shape->kv_heads * s->shape->head_dim * s->elem_bytes;
}

/* Elements into q, o or d_out of a sequence. */
static uint64_t q_offset(const struct sequence *s, const struct rows *r)
{
    return (r->first * s->shape->heads + r->head) * s->shape->head_dim;
}

static uint64_t q_stride(const struct sequence *s)
{
    return (uint64_t)s->shape->heads * s->shape->head_dim;
}

static uint64_t kv_stride(const struct sequence *s)
{
    return (uint64_t)s->shape->kv_heads * s->shape->head_dim;
}

/* From one key-value head's first query head to the next one's. */
static uint64_t q_batch(const struct sequence *s)
{
    return (uint64_t)(s->shape->heads / s->shape->kv_heads) * s->shape->head_dim;
}

static float score_scale(const struct sequence *s)
{
    return (float)(1.0 / __builtin_sqrt((double)s->shape->head_dim));
}

static struct product_rows sizes_of(const struct sequence *s, const struct rows *r)
{
    return (struct product_rows){r->count, r->keys, s->shape->head_dim, q_stride(s),
                                 kv_stride(s)};
}

/* Rows of q, o or d_out times keys or values, transposed: scores. */
static void rows_by_keys(const struct sequence *s, const struct rows *r, const uint8_t *rows,
                         const uint8_t *keys, struct cuda_product how)
{
    struct product_rows sizes = sizes_of(s, r);
    how.a = rows + q_offset(s, r) * s->elem_bytes;
    how.b = keys_from(s, r, keys);
    how.dtype = s->ops->weight_dtype;
    how.shape = strata_product_scores(&sizes);
    how.batch = s->shape->kv_heads;
    how.a_batch = q_batch(s);
    how.b_batch = s->shape->head_dim;
    how.c_batch = r->count * r->keys;
    product(s->ops, &how);
}

/* Scores times keys or values: rows of o or dq. */
static void scores_by_keys(const struct sequence *s, const struct rows *r, const void *scores,
                           const uint8_t *keys, float *out)
{
    struct product_rows sizes = sizes_of(s, r);
    product(s->ops, &(struct cuda_product){
                        .a = scores,
                        .b = keys_from(s, r, keys),
                        .c = out + q_offset(s, r),
                        .dtype = s->ops->weight_dtype,
                        .shape = strata_product_values(&sizes),
                        .batch = s->shape->kv_heads,
                        .a_batch = r->count * r->keys,
                        .b_batch = s->shape->head_dim,
                        .c_batch = q_batch(s),
                        .scale = 1.0f,
                    });
}

/* out (kv_heads x seq x head_dim) (+)= scores, transposed, times rows of q or d_out. */
static void scores_by_rows(const struct sequence *s, const struct rows *r, const void *scores,
                           const uint8_t *rows, float *out)
{
    struct product_rows sizes = sizes_of(s, r);
    product(s->ops, &(struct cuda_product){
                        .a = scores,
                        .b = rows + q_offset(s, r) * s->elem_bytes,
                        .c = out + r->key * s->shape->head_dim,
                        .dtype = s->ops->weight_dtype,
                        .shape = strata_product_keys(&sizes),
                        .batch = s->shape->kv_heads,
                        .a_batch = r->count * r->keys,
                        .b_batch = q_batch(s),
                        .c_batch = (uint64_t)s->shape->seq * s->shape->head_dim,
                        .scale = 1.0f,
                        .beta = r->begins ? 0.0f : 1.0f,
                    });
}

static struct cuda_scores scores_of(const struct sequence *s, const struct rows *r)
{
    return (struct cuda_scores){
        .scores = (float *)(s->scratch + s->at.scores),
        .d_scores = (float *)(s->scratch + s->at.d_scores),
        .dtype = s->ops->weight_dtype,
        .heads = s->shape->kv_heads,
        .rows = r->count,
        .keys = r->keys,
        .first = r->first - r->key,
        .window = s->shape->window,
        .scale = score_scale(s),
    };
}

/* Probabilities of a block, in the dtype of products. */
static const void *probabilities(const struct sequence *s, const struct rows *r)
{
    struct cuda_scores scores = scores_of(s, r);
    if (s->ops->weight_dtype != STRATA_FP32)
        scores.half = s->scratch + s->at.half_scores;
    rows_by_keys(s, r, s->q, s->k,
                 (struct cuda_product){.c = scores.scores, .scale = score_scale(s)});
    check(s->ops, strata_cuda_softmax(stream_of(s->ops), &scores), "a softmax");
    return scores.half != NULL ? scores.half : scores.scores;
}

static void attention(const struct ops *ops, const struct op_attention *a)
{
    const struct op_heads *shape = &a->shape;
    struct sequence s = begin_sequence(ops, shape, a->scratch);
    uint64_t q_elems = shape->seq * q_stride(&s);
    uint64_t kv_elems = shape->seq * kv_stride(&s);
    uint64_t step = block_rows(shape);
    for (uint32_t i = 0; i < shape->sequences; i++) {
        s.q = rounded(&s, a->q + i * q_elems, s.at.half_q, q_elems);
        s.k = rounded(&s, a->k + i * kv_elems, s.at.half_k, kv_elems);
        s.v = rounded(&s, a->v + i * kv_elems, s.at.half_v, kv_elems);
        for (uint64_t head = 0; head < shape->heads / shape->kv_heads; head++)
            for (uint64_t first = 0; first < shape->seq; first += step) {
                struct rows r = rows_at(shape, head, first, false);
                const void *p = probabilities(&s, &r);
                scores_by_keys(&s, &r, p, s.v, a->o + i * q_elems);
            }
    }
}

/* One block: adds to dk and dv, then q's rows become their gradient. */
static void block_grad(const struct sequence *s, const struct rows *r, float *dq)
{
    const void *p = probabilities(s, r);
    scores_by_rows(s, r, p, s->d_out, (float *)(s->scratch + s->at.dv));
    struct cuda_scores scores = scores_of(s, r);
    if (s->ops->weight_dtype != STRATA_FP32)
        scores.half = s->scratch + s->at.half_d_scores;
    rows_by_keys(s, r, s->d_out, s->v,
                 (struct cuda_product){.c = scores.d_scores, .scale = 1.0f});
    check(s->ops, strata_cuda_softmax_grad(stream_of(s->ops), &scores), "a softmax's gradient");
    const void *d = scores.half != NULL ? scores.half : scores.d_scores;
    scores_by_rows(s, r, d, s->q, (float *)(s->scratch + s->at.dk));
    scores_by_keys(s, r, d, s->k, dq);
}

static void to_rows(const struct sequence *s, float *out, uint64_t offset)
{
    check(s->ops,
          strata_cuda_heads_to_rows(stream_of(s->ops), out,
                                    (const float *)(s->scratch + offset), s->shape->kv_heads,
                                    s->shape->seq, s->shape->head_dim),
          "keys' or values' gradients");
}

static void attention_grad(const struct ops *ops, const struct op_attention_grad *a)
{
    const struct op_heads *shape = &a->shape;
    struct sequence s = begin_sequence(ops, shape, a->scratch);
    uint64_t q_elems = shape->seq * q_stride(&s);
    uint64_t kv_elems = shape->seq * kv_stride(&s);
    uint64_t step = block_rows(shape);
    uint64_t last = (shape->seq - 1) / step * step;
    for (uint32_t i = 0; i < shape->sequences; i++) {
        s.q = rounded(&s, a->q + i * q_elems, s.at.half_q, q_elems);
        s.k = rounded(&s, a->k + i * kv_elems, s.at.half_k, kv_elems);
        s.v = rounded(&s, a->v + i * kv_elems, s.at.half_v, kv_elems);
        s.d_out = rounded(&s, a->d_out + i * q_elems, s.at.half_d_out, q_elems);
        for (uint64_t head = 0; head < shape->heads / shape->kv_heads; head++)
            for (uint64_t from_end = 0; from_end <= last; from_end += step) {
                struct rows r =
                    rows_at(shape, head, last - from_end, head == 0 && from_end == 0);
                block_grad(&s, &r, a->q + i * q_elems);
            }
        to_rows(&s, a->k + i * kv_elems, s.at.dk);
        to_rows(&s, a->v + i * kv_elems, s.at.dv);
    }
}

/* Opening. */

static strata_status open_ops(struct ops *ops, strata_error *error)
{
    return strata_cuda_products_create(&ops->products, error);
}

static void close_ops(struct ops *ops)
{
    strata_cuda_products_destroy(ops->products);
    ops->products = NULL;
}

const struct ops_table strata_ops_cuda = {
    .name = "cuda",
    .open = open_ops,
    .close = close_ops,
    .scratch = op_scratch,
    .norm = norm,
    .norm_grad = norm_grad,
    .linear = linear,
    .linear_dx = linear_dx,
    .linear_dw = linear_dw,
    .bias = bias,
    .bias_grad = bias_grad,
    .rotary = rotary,
    .attention = attention,
    .attention_grad = attention_grad,
    .attention_scratch = attention_scratch,
    .glu = glu,
    .glu_grad = glu_grad,
    .embed = embed,
    .embed_grad = embed_grad,
    .entropy_begin = entropy_begin,
    .entropy_scan = entropy_scan,
    .entropy_grad = entropy_grad,
    .entropy_loss = entropy_loss,
};
