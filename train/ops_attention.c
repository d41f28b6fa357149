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
 * q, k and v are overwritten as soon as nobody needs them: a block of q after its gradient's
 * last product, k and v at the item's end. That is why backward needs no arrays of their size.
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

uint64_t strata_host_attention_scratch(const struct op_heads *shape)
{
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
        .q_stride = (uint64_t)s->heads * s->head_dim,
        .kv_stride = (uint64_t)s->kv_heads * s->head_dim,
    };
    b.first = first - b.hidden;
    b.of.keys = b.first + b.of.rows;
    b.q = q + first * b.of.q_stride;
    b.k = k + b.hidden * b.of.kv_stride;
    b.v = v + b.hidden * b.of.kv_stride;
    return b;
}

/* Where a head of a sequence begins in an array of that many heads. */
static uint64_t head_offset(const struct op_heads *s, uint64_t sequence, uint32_t heads,
                            uint64_t head)
{
    return (sequence * s->seq * heads + head) * s->head_dim;
}

static void attend_head(const struct op_attention *a, uint64_t item, float *scratch)
{
    const struct op_heads *s = &a->shape;
    uint64_t sequence = item / s->heads;
    uint64_t head = item % s->heads;
    uint64_t q_at = head_offset(s, sequence, s->heads, head);
    uint64_t kv_at = head_offset(s, sequence, s->kv_heads, head / (s->heads / s->kv_heads));
    for (uint64_t first = 0; first < s->seq; first += BLOCK_ROWS) {
        struct block b = block_at(s, a->q + q_at, a->k + kv_at, a->v + kv_at, first);
        b.scores = scratch;
        probabilities(&b);
        strata_host_product(&(struct product){
            .a = b.scores,
            .b = b.v,
            .c = a->o + q_at + first * b.of.q_stride,
            .shape = strata_product_values(&b.of),
            .scale = 1.0f,
        });
    }
}

static void attention_lane(const struct ops *ops, const void *args, uint32_t index)
{
    (void)ops;
    const struct op_attention *a = args;
    uint64_t items = (uint64_t)a->shape.sequences * a->shape.heads;
    float *scratch = a->scratch + index * lane_floats(&a->shape);
    for (uint64_t item = index; item < items; item += lane_count(items))
        attend_head(a, item, scratch);
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
 * block. */
static void add_to_keys(const struct block *b, const float *scores, const float *rows, float *c)
{
    strata_host_product(&(struct product){
        .a = scores,
        .b = rows,
        .c = c + b->hidden * b->of.head_dim,
        .shape = strata_product_keys(&b->of),
        .scale = 1.0f,
        .beta = 1.0f,
    });
}

/* One block: adds to dk and dv, then q's rows become their gradient. */
static void attend_block_grad(struct block *b, const float *d_out, float *dq, float *scratch,
                              uint64_t seq)
{
    float *d_scores = scratch + strata_host_min(BLOCK_ROWS, seq) * seq;
    float *dk = scratch + 2 * strata_host_min(BLOCK_ROWS, seq) * seq;
    float *dv = dk + seq * b->of.head_dim;
    b->scores = scratch;
    probabilities(b);
    add_to_keys(b, b->scores, d_out, dv);
    strata_host_product(&(struct product){
        .a = d_out,
        .b = b->v,
        .c = d_scores,
        .shape = strata_product_scores(&b->of),
        .scale = 1.0f,
    });
    softmax_grad_rows(b, d_scores);
    add_to_keys(b, d_scores, b->q, dk);
    strata_host_product(&(struct product){
        .a = d_scores,
        .b = b->k,
        .c = dq,
        .shape = strata_product_values(&b->of),
        .scale = 1.0f,
    });
}

static void copy_rows(float *dst, uint64_t dst_stride, const float *src,
                      const struct op_heads *s)
{
    for (uint64_t row = 0; row < s->seq; row++)
        memcpy(dst + row * dst_stride, src + row * s->head_dim, s->head_dim * sizeof *dst);
}

static void attend_group_grad(const struct op_attention_grad *a, uint64_t item, float *scratch)
{
    const struct op_heads *s = &a->shape;
    uint64_t sequence = item / s->kv_heads;
    uint64_t kv_head = item % s->kv_heads;
    uint64_t kv_at = head_offset(s, sequence, s->kv_heads, kv_head);
    uint64_t shared = s->heads / s->kv_heads;
    uint64_t head_floats = (uint64_t)s->seq * s->head_dim;
    float *dk = scratch + 2 * strata_host_min(BLOCK_ROWS, s->seq) * s->seq;
    memset(dk, 0, 2 * head_floats * sizeof *dk);
    for (uint64_t head = kv_head * shared; head < (kv_head + 1) * shared; head++) {
        uint64_t q_at = head_offset(s, sequence, s->heads, head);
        for (uint64_t first = 0; first < s->seq; first += BLOCK_ROWS) {
            struct block b = block_at(s, a->q + q_at, a->k + kv_at, a->v + kv_at, first);
            uint64_t at = q_at + first * b.of.q_stride;
            attend_block_grad(&b, a->d_out + at, a->q + at, scratch, s->seq);
        }
    }
    copy_rows(a->k + kv_at, (uint64_t)s->kv_heads * s->head_dim, dk, s);
    copy_rows(a->v + kv_at, (uint64_t)s->kv_heads * s->head_dim, dk + head_floats, s);
}

static void attention_grad_lane(const struct ops *ops, const void *args, uint32_t index)
{
    (void)ops;
    const struct op_attention_grad *a = args;
    uint64_t items = (uint64_t)a->shape.sequences * a->shape.kv_heads;
    float *scratch = a->scratch + index * lane_floats(&a->shape);
    for (uint64_t item = index; item < items; item += lane_count(items))
        attend_group_grad(a, item, scratch);
}

void strata_host_attention_grad(const struct ops *ops, const struct op_attention_grad *args)
{
    uint64_t items = (uint64_t)args->shape.sequences * args->shape.kv_heads;
    strata_host_call_items(ops, attention_grad_lane, lane_count(items), args, sizeof *args);
}
