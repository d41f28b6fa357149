/*
 * Causal grouped-query attention on the host device, forward and backward.
 *
 * The scores of a head, seq x seq, are never there as a whole: query rows go in blocks, and a
 * block sees only the keys up to its last row, and from the first row's window on where there
 * is a window. Nothing is kept between forward and backward;
 * backward makes the scores again, which costs one product of five and saves a matrix per head.
 *
 * Work is cut into lanes, whose number follows from the shape; lane i takes items i, i + lanes,
 * ... and has its own part of the scratch. A forward item is one head of one sequence. A
 * backward item is one key-value head with all query heads that share it, because their
 * gradients meet in its keys and values: added in the order of heads and blocks, by one thread.
 *
 * The gradients of q, k and v may lie in their places: a block of q's is written by the last
 * product that reads the block, those of k and v at the item's end.
 *
 * Thread: the caller's, and workers for the functions with an index.
 */

#include "train/ops_host.h"

#include <math.h>
#include <string.h>

#define BLOCK_ROWS 64u /* scores of 4,096 tokens are 1 MiB, a core's second cache */
#define LANES_MAX  16u /* scratch grows with it; workers beyond it wait in attention */

static uint32_t lane_count(uint64_t items)
{
    return (uint32_t)strata_host_min(items, LANES_MAX);
}

/* Backward: scores, their gradient, and the gradients of one head's keys and values. */
static uint64_t lane_floats(const struct op_heads *s)
{
    uint64_t block = strata_host_min(BLOCK_ROWS, s->seq);
    return 2 * block * s->seq + 2 * (uint64_t)s->seq * s->head_dim;
}

uint64_t strata_host_attention_scratch(const struct op_heads *shape, strata_dtype act_dtype)
{
    (void)act_dtype;
    return lane_count((uint64_t)shape->sequences * shape->heads) * lane_floats(shape);
}

/* One block of query rows of one head, with where its keys and values are. */
struct block {
    const float *q; /* the block's first row                        */
    const float *k; /* the first key that the block sees            */
    const float *v;
    uint64_t first;         /* the block's first row, counted from that key */
    uint64_t hidden;        /* keys before that one                         */
    uint64_t window;        /* 0: none                                      */
    struct product_rows of; /* keys: first + rows, what a causal block sees */
    float *scores;          /* rows x keys                                  */
};

/* Softmax over keys begin .. end - 1 of a row; the others get 0. */
static void softmax_row(float *scores, uint64_t begin, uint64_t end, uint64_t keys)
{
    float max = scores[begin];
    for (uint64_t j = begin + 1; j < end; j++)
        max = scores[j] > max ? scores[j] : max;
    double sum = 0.0;
    for (uint64_t j = begin; j < end; j++) {
        scores[j] = expf(scores[j] - max);
        sum += scores[j];
    }
    float inverse = (float)(1.0 / sum);
    for (uint64_t j = begin; j < end; j++)
        scores[j] *= inverse;
    memset(scores, 0, begin * sizeof *scores);
    memset(scores + end, 0, (keys - end) * sizeof *scores);
}

/* The first key that is in the window of a row whose own key is end - 1. */
static uint64_t window_begin(uint64_t window, uint64_t end)
{
    return window != 0 && end > window ? end - window : 0;
}

static float score_scale(uint64_t head_dim)
{
    return (float)(1.0 / sqrt((double)head_dim));
}

static void probabilities(const struct block *b)
{
    strata_host_product(&(struct product){
        .a = b->q,
        .b = b->k,
        .c = b->scores,
        .shape = strata_product_scores(&b->of),
        .scale = score_scale(b->of.head_dim),
    });
    for (uint64_t r = 0; r < b->of.rows; r++) {
        uint64_t end = b->first + r + 1;
        softmax_row(b->scores + r * b->of.keys, window_begin(b->window, end), end, b->of.keys);
    }
}

/* The block that starts at row `first` of a sequence and query head. */
static struct block block_at(const struct op_heads *s, const float *q, const float *k,
                             const float *v, uint64_t first)
{
    struct block b = {.hidden = window_begin(s->window, first + 1), .window = s->window};
    b.of = (struct product_rows){
        .rows = strata_host_min(BLOCK_ROWS, s->seq - first),
        .head_dim = s->head_dim,
        .q_stride = s->stride,
        .kv_stride = s->stride,
    };
    b.first = first - b.hidden;
    b.of.keys = b.first + b.of.rows;
    b.q = q + first * s->stride;
    b.k = k + b.hidden * s->stride;
    b.v = v + b.hidden * s->stride;
    return b;
}

/* Where a head of a sequence begins in an array whose rows are `stride` apart. */
static uint64_t head_offset(const struct op_heads *s, uint64_t sequence, uint64_t stride,
                            uint64_t head)
{
    return sequence * s->seq * stride + head * s->head_dim;
}

/* o and its gradient have no gaps. */
static uint64_t o_stride(const struct op_heads *s)
{
    return (uint64_t)s->heads * s->head_dim;
}

/* The block's products with rows of o or its gradient in the place of q's. */
static struct product_rows of_o(const struct block *b, const struct op_heads *s)
{
    struct product_rows of = b->of;
    of.q_stride = o_stride(s);
    return of;
}

static void round_rows(const struct ops *ops, float *rows, uint64_t count, uint64_t width,
                       uint64_t stride)
{
    for (uint64_t r = 0; r < count; r++)
        strata_host_round(ops, rows + r * stride, width);
}

static void attend_head(const struct ops *ops, const struct op_attention *a, uint64_t item,
                        float *scratch)
{
    const struct op_heads *s = &a->shape;
    uint64_t sequence = item / s->heads;
    uint64_t head = item % s->heads;
    uint64_t q_at = head_offset(s, sequence, s->stride, head);
    uint64_t kv_at = head_offset(s, sequence, s->stride, head / (s->heads / s->kv_heads));
    float *o = (float *)a->o + head_offset(s, sequence, o_stride(s), head);
    for (uint64_t first = 0; first < s->seq; first += BLOCK_ROWS) {
        struct block b = block_at(s, (const float *)a->q + q_at, (const float *)a->k + kv_at,
                                  (const float *)a->v + kv_at, first);
        struct product_rows of = of_o(&b, s);
        b.scores = scratch;
        probabilities(&b);
        strata_host_product(&(struct product){
            .a = b.scores,
            .b = b.v,
            .c = o + first * o_stride(s),
            .shape = strata_product_values(&of),
            .scale = 1.0f,
        });
        round_rows(ops, o + first * o_stride(s), b.of.rows, s->head_dim, o_stride(s));
    }
}

static void attention_lane(const struct ops *ops, const void *args, uint32_t index)
{
    const struct op_attention *a = args;
    uint64_t items = (uint64_t)a->shape.sequences * a->shape.heads;
    float *scratch = a->scratch + index * lane_floats(&a->shape);
    for (uint64_t item = index; item < items; item += lane_count(items))
        attend_head(ops, a, item, scratch);
}

void strata_host_attention(const struct ops *ops, const struct op_attention *args)
{
    uint64_t items = (uint64_t)args->shape.sequences * args->shape.heads;
    strata_host_call_items(ops, attention_lane, lane_count(items), args, sizeof *args);
}

/* d_scores holds the gradient of the probabilities; make it that of the scores before scaling.
 * */
static void softmax_grad_rows(const struct block *b, float *d_scores)
{
    float scale = score_scale(b->of.head_dim);
    for (uint64_t r = 0; r < b->of.rows; r++) {
        const float *p = b->scores + r * b->of.keys;
        float *d = d_scores + r * b->of.keys;
        double dot = 0.0;
        for (uint64_t j = 0; j < b->of.keys; j++)
            dot += (double)p[j] * d[j];
        float mean = (float)dot;
        for (uint64_t j = 0; j < b->of.keys; j++)
            d[j] = p[j] * (d[j] - mean) * scale;
    }
}

/* c (keys x head_dim of the sequence, without gaps) += scores transposed times rows of the
 * block, which lie as `of` says. */
static void add_to_keys(const struct block *b, const struct product_rows *of,
                        const float *scores, const float *rows, float *c)
{
    strata_host_product(&(struct product){
        .a = scores,
        .b = rows,
        .c = c + b->hidden * b->of.head_dim,
        .shape = strata_product_keys(of),
        .scale = 1.0f,
        .beta = 1.0f,
    });
}

/* One block: adds to dk and dv, then writes q's rows of dq. */
static void attend_block_grad(struct block *b, const struct op_heads *s, const float *d_out,
                              float *dq, float *scratch)
{
    uint64_t scores = strata_host_min(BLOCK_ROWS, s->seq) * s->seq;
    float *d_scores = scratch + scores;
    float *dk = scratch + 2 * scores;
    float *dv = dk + (uint64_t)s->seq * s->head_dim;
    struct product_rows of = of_o(b, s);
    b->scores = scratch;
    probabilities(b);
    add_to_keys(b, &of, b->scores, d_out, dv);
    strata_host_product(&(struct product){
        .a = d_out,
        .b = b->v,
        .c = d_scores,
        .shape = strata_product_scores(&of),
        .scale = 1.0f,
    });
    softmax_grad_rows(b, d_scores);
    add_to_keys(b, &b->of, d_scores, b->q, dk);
    strata_host_product(&(struct product){
        .a = d_scores,
        .b = b->k,
        .c = dq,
        .shape = strata_product_values(&b->of),
        .scale = 1.0f,
    });
}

static void copy_rows(const struct ops *ops, float *dst, const float *src,
                      const struct op_heads *s)
{
    for (uint64_t row = 0; row < s->seq; row++)
        memcpy(dst + row * s->stride, src + row * s->head_dim, s->head_dim * sizeof *dst);
    round_rows(ops, dst, s->seq, s->head_dim, s->stride);
}

static void attend_group_grad(const struct ops *ops, const struct op_attention_grad *a,
                              uint64_t item, float *scratch)
{
    const struct op_heads *s = &a->shape;
    uint64_t sequence = item / s->kv_heads;
    uint64_t kv_head = item % s->kv_heads;
    uint64_t kv_at = head_offset(s, sequence, s->stride, kv_head);
    uint64_t shared = s->heads / s->kv_heads;
    uint64_t head_floats = (uint64_t)s->seq * s->head_dim;
    float *dk = scratch + 2 * strata_host_min(BLOCK_ROWS, s->seq) * s->seq;
    memset(dk, 0, 2 * head_floats * sizeof *dk);
    for (uint64_t head = kv_head * shared; head < (kv_head + 1) * shared; head++) {
        uint64_t q_at = head_offset(s, sequence, s->stride, head);
        const float *d_out =
            (const float *)a->d_out + head_offset(s, sequence, o_stride(s), head);
        for (uint64_t first = 0; first < s->seq; first += BLOCK_ROWS) {
            struct block b =
                block_at(s, (const float *)a->q + q_at, (const float *)a->k + kv_at,
                         (const float *)a->v + kv_at, first);
            float *dq = (float *)a->dq + q_at + first * s->stride;
            attend_block_grad(&b, s, d_out + first * o_stride(s), dq, scratch);
            round_rows(ops, dq, b.of.rows, s->head_dim, s->stride);
        }
    }
    copy_rows(ops, (float *)a->dk + kv_at, dk, s);
    copy_rows(ops, (float *)a->dv + kv_at, dk + head_floats, s);
}

static void attention_grad_lane(const struct ops *ops, const void *args, uint32_t index)
{
    const struct op_attention_grad *a = args;
    uint64_t items = (uint64_t)a->shape.sequences * a->shape.kv_heads;
    float *scratch = a->scratch + index * lane_floats(&a->shape);
    for (uint64_t item = index; item < items; item += lane_count(items))
        attend_group_grad(ops, a, item, scratch);
}

void strata_host_attention_grad(const struct ops *ops, const struct op_attention_grad *args)
{
    uint64_t items = (uint64_t)args->shape.sequences * args->shape.kv_heads;
    strata_host_call_items(ops, attention_grad_lane, lane_count(items), args, sizeof *args);
}
