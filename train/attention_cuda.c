/*
 * Attention on a CUDA device, made of batched products and a softmax: for fp32, for head sizes
 * that no library takes, and where there is no library.
 *
 * It goes over query rows in blocks, for all key-value heads of a sequence at once, and over
 * the query heads that share them one after the other. A block sees only the keys up to its
 * last row, and some more where a long sequence has many blocks: they are masked, and spare
 * products a shape for each block. Backward begins with the last block: it sees all keys, so
 * its parts of their gradients are set and not added, and nothing has to be zeroed. With a
 * window a block begins with the first key that its first row sees, or a little earlier for the
 * same reason; only where backward begins are all keys taken.
 *
 * Scores and the gradients of keys and values are summed in fp32. Probabilities and the
 * scores' gradients are rounded to the activations' type where products take them.
 *
 * Thread: the one that queues on the stream; nothing is computed here.
 */

#include "train/ops_cuda.h"

#include "base/round.h"

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

static uint64_t aligned(uint64_t bytes)
{
    return strata_round_up(bytes, ALIGN_BYTES);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

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

/* Scratch, in bytes from its start. Rounded copies are there whatever the type, so that the
 * size follows from the shape. */
struct attention_layout {
    uint64_t scores; /* kv_heads x rows x seq     */
    uint64_t d_scores;
    uint64_t dk; /* kv_heads x seq x head_dim */
    uint64_t dv;
    uint64_t rounded; /* scores, as products take them */
    uint64_t d_rounded;
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
    uint64_t kv = (uint64_t)s->seq * s->kv_heads * s->head_dim;
    struct attention_layout at;
    uint64_t end = 0;
    at.scores = place(&end, 4 * scores);
    at.d_scores = place(&end, 4 * scores);
    at.dk = place(&end, 4 * kv);
    at.dv = place(&end, 4 * kv);
    at.rounded = place(&end, 2 * scores);
    at.d_rounded = place(&end, 2 * scores);
    at.bytes = end;
    return at;
}

uint64_t strata_cuda_attention_scratch(const struct op_heads *shape)
{
    return layout_of(shape).bytes / 4;
}

/* Rows of heads in memory, in the activations' type. */
struct head_rows {
    const uint8_t *at; /* of one sequence */
    uint64_t stride;
};

/* One sequence. */
struct sequence {
    const struct ops *ops;
    const struct op_heads *shape;
    struct attention_layout at;
    uint8_t *scratch;
    struct head_rows q;
    struct head_rows k;
    struct head_rows v;
    struct head_rows out; /* o, dq: where products write */
    struct head_rows d_out;
    float *lse; /* NULL: not wanted */
    uint64_t elem_bytes;
};

static struct sequence begin_sequence(const struct ops *ops, const struct op_heads *shape,
                                      float *scratch)
{
    return (struct sequence){
        .ops = ops,
        .shape = shape,
        .at = layout_of(shape),
        .scratch = (uint8_t *)scratch,
        .elem_bytes = strata_dtype_bytes(ops->act_dtype),
    };
}

/* A sequence's rows in an array. */
static struct head_rows rows_of(const struct sequence *s, const void *array, uint64_t stride,
                                uint32_t sequence)
{
    uint64_t elems = sequence * s->shape->seq * stride;
    return (struct head_rows){(const uint8_t *)array + elems * s->elem_bytes, stride};
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

/* The block's first key or value. */
static const void *keys_from(const struct sequence *s, const struct rows *r,
                             const struct head_rows *keys)
{
    return keys->at + r->key * keys->stride * s->elem_bytes;
}

/* The block's first row of q, o or their gradients. */
static const void *rows_from(const struct sequence *s, const struct rows *r,
                             const struct head_rows *rows)
{
    return rows->at + (r->first * rows->stride + r->head * s->shape->head_dim) * s->elem_bytes;
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

static struct product_rows sizes_of(const struct sequence *s, const struct rows *r,
                                    const struct head_rows *q, const struct head_rows *keys)
{
    return (struct product_rows){r->count, r->keys, s->shape->head_dim, q->stride,
                                 keys != NULL ? keys->stride : 0};
}

/* Rows of q or d_out times keys or values, transposed: scores. */
static void rows_by_keys(const struct sequence *s, const struct rows *r,
                         const struct head_rows *rows, const struct head_rows *keys,
                         struct cuda_product how)
{
    struct product_rows sizes = sizes_of(s, r, rows, keys);
    how.a = rows_from(s, r, rows);
    how.b = keys_from(s, r, keys);
    how.dtype = s->ops->act_dtype;
    how.d_dtype = STRATA_FP32;
    how.shape = strata_product_scores(&sizes);
    how.batch = s->shape->kv_heads;
    how.a_batch = q_batch(s);
    how.b_batch = s->shape->head_dim;
    how.d_batch = r->count * r->keys;
    strata_cuda_queue_product(s->ops, &how);
}

/* Scores times keys or values: rows of o or dq. */
static void scores_by_keys(const struct sequence *s, const struct rows *r, const void *scores,
                           const struct head_rows *keys)
{
    struct product_rows sizes = sizes_of(s, r, &s->out, keys);
    strata_cuda_queue_product(s->ops, &(struct cuda_product){
                                          .a = scores,
                                          .b = keys_from(s, r, keys),
                                          .d = (void *)(uintptr_t)rows_from(s, r, &s->out),
                                          .dtype = s->ops->act_dtype,
                                          .d_dtype = s->ops->act_dtype,
                                          .shape = strata_product_values(&sizes),
                                          .batch = s->shape->kv_heads,
                                          .a_batch = r->count * r->keys,
                                          .b_batch = s->shape->head_dim,
                                          .d_batch = q_batch(s),
                                          .scale = 1.0f,
                                      });
}

/* sums (kv_heads x seq x head_dim) (+)= scores, transposed, times rows of q or d_out. */
static void scores_by_rows(const struct sequence *s, const struct rows *r, const void *scores,
                           const struct head_rows *rows, uint64_t offset)
{
    struct product_rows sizes = sizes_of(s, r, rows, NULL);
    float *sums = (float *)(s->scratch + offset) + r->key * s->shape->head_dim;
    strata_cuda_queue_product(s->ops,
                              &(struct cuda_product){
                                  .a = scores,
                                  .b = rows_from(s, r, rows),
                                  .addend = r->begins ? NULL : sums,
                                  .d = sums,
                                  .dtype = s->ops->act_dtype,
                                  .d_dtype = STRATA_FP32,
                                  .shape = strata_product_keys(&sizes),
                                  .batch = s->shape->kv_heads,
                                  .a_batch = r->count * r->keys,
                                  .b_batch = q_batch(s),
                                  .d_batch = (uint64_t)s->shape->seq * s->shape->head_dim,
                                  .scale = 1.0f,
                              });
}

static struct cuda_scores scores_of(const struct sequence *s, const struct rows *r)
{
    return (struct cuda_scores){
        .scores = (float *)(s->scratch + s->at.scores),
        .d_scores = (float *)(s->scratch + s->at.d_scores),
        .dtype = s->ops->act_dtype,
        .heads = s->shape->kv_heads,
        .rows = (uint32_t)r->count,
        .keys = (uint32_t)r->keys,
        .first = (uint32_t)(r->first - r->key),
        .window = s->shape->window,
        .scale = score_scale(s),
    };
}

static void check_launch(const struct ops *ops, int native, const char *what)
{
    strata_stream_failed(ops->stream, native, what);
}

/* Probabilities of a block, in the type that products take. */
static const void *probabilities(const struct sequence *s, const struct rows *r)
{
    struct cuda_scores scores = scores_of(s, r);
    scores.rounded = s->scratch + s->at.rounded;
    scores.lse_stride = (uint64_t)s->shape->heads / s->shape->kv_heads * s->shape->seq;
    if (s->lse != NULL)
        scores.lse = s->lse + r->head * s->shape->seq + r->first;
    rows_by_keys(s, r, &s->q, &s->k,
                 (struct cuda_product){.d = scores.scores, .scale = score_scale(s)});
    check_launch(s->ops, strata_cuda_softmax(strata_stream_native(s->ops->stream), &scores),
                 "a softmax");
    return s->ops->act_dtype != STRATA_FP32 ? scores.rounded : scores.scores;
}

void strata_cuda_attention(const struct ops *ops, const struct op_attention *a)
{
    const struct op_heads *shape = &a->shape;
    struct sequence s = begin_sequence(ops, shape, a->scratch);
    uint64_t step = block_rows(shape);
    for (uint32_t i = 0; i < shape->sequences; i++) {
        s.q = rows_of(&s, a->q, shape->stride, i);
        s.k = rows_of(&s, a->k, shape->stride, i);
        s.v = rows_of(&s, a->v, shape->stride, i);
        s.out = rows_of(&s, a->o, (uint64_t)shape->heads * shape->head_dim, i);
        if (a->lse != NULL)
            s.lse = a->lse + (uint64_t)i * shape->heads * shape->seq;
        for (uint64_t head = 0; head < shape->heads / shape->kv_heads; head++)
            for (uint64_t first = 0; first < shape->seq; first += step) {
                struct rows r = rows_at(shape, head, first, false);
                scores_by_keys(&s, &r, probabilities(&s, &r), &s.v);
            }
    }
}

/* One block: adds to dk and dv, and makes its rows of dq. */
static void block_grad(const struct sequence *s, const struct rows *r)
{
    const void *p = probabilities(s, r);
    scores_by_rows(s, r, p, &s->d_out, s->at.dv);
    struct cuda_scores scores = scores_of(s, r);
    scores.rounded = s->scratch + s->at.d_rounded;
    rows_by_keys(s, r, &s->d_out, &s->v,
                 (struct cuda_product){.d = scores.d_scores, .scale = 1.0f});
    check_launch(s->ops,
                 strata_cuda_softmax_grad(strata_stream_native(s->ops->stream), &scores),
                 "a softmax's gradient");
    const void *d = s->ops->act_dtype != STRATA_FP32 ? scores.rounded : scores.d_scores;
    scores_by_rows(s, r, d, &s->q, s->at.dk);
    scores_by_keys(s, r, d, &s->k);
}

static void to_rows(const struct sequence *s, const struct head_rows *dst, uint64_t offset)
{
    struct cuda_heads heads = {
        .src = (const float *)(s->scratch + offset),
        .dst = (void *)(uintptr_t)dst->at,
        .stride = dst->stride,
        .heads = s->shape->kv_heads,
        .seq = s->shape->seq,
        .head_dim = s->shape->head_dim,
    };
    check_launch(s->ops,
                 strata_cuda_heads_to_rows(strata_stream_native(s->ops->stream), &heads,
                                           s->ops->act_dtype),
                 "keys' or values' gradients");
}

void strata_cuda_attention_grad(const struct ops *ops, const struct op_attention_grad *a)
{
    const struct op_heads *shape = &a->shape;
    struct sequence s = begin_sequence(ops, shape, a->scratch);
    uint64_t step = block_rows(shape);
    uint64_t last = (shape->seq - 1) / step * step;
    for (uint32_t i = 0; i < shape->sequences; i++) {
        struct head_rows dk = rows_of(&s, a->dk, shape->stride, i);
        struct head_rows dv = rows_of(&s, a->dv, shape->stride, i);
        s.q = rows_of(&s, a->q, shape->stride, i);
        s.k = rows_of(&s, a->k, shape->stride, i);
        s.v = rows_of(&s, a->v, shape->stride, i);
        s.out = rows_of(&s, a->dq, shape->stride, i);
        s.d_out = rows_of(&s, a->d_out, (uint64_t)shape->heads * shape->head_dim, i);
        for (uint64_t head = 0; head < shape->heads / shape->kv_heads; head++)
            for (uint64_t from_end = 0; from_end <= last; from_end += step) {
                struct rows r =
                    rows_at(shape, head, last - from_end, head == 0 && from_end == 0);
                block_grad(&s, &r);
            }
        to_rows(&s, &dk, s.at.dk);
        to_rows(&s, &dv, s.at.dv);
    }
}
