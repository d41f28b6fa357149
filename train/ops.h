#ifndef STRATA_TRAIN_OPS_H
#define STRATA_TRAIN_OPS_H

/*
 * The operators of a transformer, forward and backward, as work queued on a stream.
 *
 *     struct ops ops = {.table = &strata_ops_host, .stream = stream, .workers = workers,
 *                       .weight_dtype = STRATA_FP32};
 *     strata_op_linear(&ops, &(struct op_linear){.src = x, .weight = w, .dst = y, ...});
 *
 * Every call returns at once; the work runs on the stream, in order. All pointers are device
 * memory and are lent until the stream got there. Arrays are row-major without gaps; a row is a
 * token.
 *
 * Activations, gradients and sums are fp32. Weights are in weight_dtype. On the host device
 * they are widened exactly before a product; on a CUDA device the activations of a product are
 * rounded to weight_dtype. Gradients of weights are added to what is there.
 *
 * Work is cut by shape alone, and every sum has one fixed order: neither the number of workers
 * nor a repetition changes a bit of any result. Nothing is allocated.
 *
 * Thread: the one that queues on the stream.
 */

#include "strata/device.h"
#include "strata/types.h"
#include "strata/workers.h"

#include <stddef.h>

/* Rows that MLP and head work on at a time: the scratch of a step follows from it. */
#define STRATA_OP_PIECE_ROWS 256u

struct ops_table;
struct cuda_products;

/* Where operators are queued. Borrowed until the stream has been synchronised: stream, workers.
 */
struct ops {
    const struct ops_table *table;
    strata_stream *stream;
    strata_workers *workers;
    strata_dtype weight_dtype;
    void *scratch;                  /* device; as many bytes as the table's scratch says */
    struct cuda_products *products; /* the CUDA table's own */
};

/* out = x / sqrt(mean(x^2) + eps) * weight, row by row. out may be x. */
struct op_norm {
    const float *x;
    const void *weight;
    float *out;
    uint64_t rows;
    uint64_t width;
    float eps;
};
void strata_op_norm(const struct ops *ops, const struct op_norm *args);

/* dx (+)= the norm's gradient for x; dweight += its gradient for the weight. dx may be dy
 * unless add. */
struct op_norm_grad {
    const float *x;
    const void *weight;
    const float *dy;
    float *dx;
    float *dweight;
    uint64_t rows;
    uint64_t width;
    float eps;
    bool add; /* dx += instead of dx = */
};
void strata_op_norm_grad(const struct ops *ops, const struct op_norm_grad *args);

/*
 * A matrix of out x in weights.
 * linear:    dst (rows x out) (+)= src (rows x in)  times weight transposed
 * linear_dx: dst (rows x in)  (+)= src (rows x out) times weight
 * out_stride: elements from a row of `out` numbers to the next, in dst or src; 0: no gaps.
 */
struct op_linear {
    const float *src;
    const void *weight;
    float *dst;
    uint64_t rows;
    uint64_t in;
    uint64_t out;
    bool add; /* dst += instead of dst = */
    uint64_t out_stride;
};
static inline uint64_t strata_op_out_stride(uint64_t out_stride, uint64_t out)
{
    return out_stride != 0 ? out_stride : out;
}
void strata_op_linear(const struct ops *ops, const struct op_linear *args);
void strata_op_linear_dx(const struct ops *ops, const struct op_linear *args);

/* dweight (out x in) += dy (rows x out) transposed times x (rows x in). out_stride: of dy, as
 * above. */
struct op_linear_dw {
    const float *x;
    const float *dy;
    float *dweight;
    uint64_t rows;
    uint64_t in;
    uint64_t out;
    uint64_t out_stride;
};
void strata_op_linear_dw(const struct ops *ops, const struct op_linear_dw *args);

/* x += bias, row by row. */
struct op_bias {
    float *x;
    const void *bias;
    uint64_t rows;
    uint64_t width;
};
void strata_op_bias(const struct ops *ops, const struct op_bias *args);

/* dbias += the sum of dy's rows. */
struct op_bias_grad {
    const float *dy;
    float *dbias;
    uint64_t rows;
    uint64_t width;
};
void strata_op_bias_grad(const struct ops *ops, const struct op_bias_grad *args);

/*
 * Rotary position embedding in place: elements i and i + turned / 2 of a head are turned by the
 * angle of row's position (row mod seq); those from turned on stay as they are. table: seq x
 * turned, a row's cosines, then its sines, all times whatever the turn scales by. inverse turns
 * back and scales again, which is the gradient.
 */
struct op_rotary {
    float *x; /* rows x (heads x head_dim) */
    const float *table;
    uint64_t rows;
    uint32_t seq;
    uint32_t heads;
    uint32_t head_dim;
    uint32_t turned; /* of a head's elements; even, at most head_dim */
    bool inverse;
};
void strata_op_rotary(const struct ops *ops, const struct op_rotary *args);

/* Shape of causal attention: heads is a multiple of kv_heads, which share keys and values. A
 * row sees the keys up to its own, or only the last `window` of them, its own included. */
struct op_heads {
    uint32_t sequences;
    uint32_t seq;
    uint32_t heads;
    uint32_t kv_heads;
    uint32_t head_dim;
    uint32_t window; /* 0: every key up to the row's own */
};

/* o = softmax(q k^T / sqrt(head_dim), causal) v, by sequence and head. o may be q. */
struct op_attention {
    const float *q; /* (sequences x seq) x (heads x head_dim)    */
    const float *k; /* (sequences x seq) x (kv_heads x head_dim) */
    const float *v;
    float *o;
    float *scratch; /* the table's attention_scratch floats      */
    struct op_heads shape;
};
void strata_op_attention(const struct ops *ops, const struct op_attention *args);

/* In place: q, k, v hold their gradients afterwards. Scores are computed again. */
struct op_attention_grad {
    float *q;
    float *k;
    float *v;
    const float *d_out;
    float *scratch;
    struct op_heads shape;
};
void strata_op_attention_grad(const struct ops *ops, const struct op_attention_grad *args);

/* x times its sigmoid; x times the normal distribution's function, exact or by tanh. */
enum op_activation { OP_SILU = 0, OP_GELU, OP_GELU_TANH };

/* out = activation(gate) * up. out may be gate or up. */
struct op_glu {
    const float *gate;
    const float *up;
    float *out;
    uint64_t count;
    enum op_activation activation;
};
void strata_op_glu(const struct ops *ops, const struct op_glu *args);

/* In place: gate and up hold their gradients afterwards. */
struct op_glu_grad {
    float *gate;
    float *up;
    const float *d_out;
    uint64_t count;
    enum op_activation activation;
};
void strata_op_glu_grad(const struct ops *ops, const struct op_glu_grad *args);

/*
 * The part of a look-up that a vocabulary slice answers: rows whose token lies in the slice are
 * written, others left as they are.
 */
struct op_embed {
    const uint32_t *tokens;
    const void *weight; /* slice_rows x width               */
    float *out;         /* rows x width                     */
    uint64_t rows;
    uint64_t width;
    uint64_t first; /* token of the slice's first row   */
    uint64_t slice_rows;
};
void strata_op_embed(const struct ops *ops, const struct op_embed *args);

/* The look-up's gradient: each row is added to the row of its token, in the order of rows. */
struct op_embed_grad {
    const uint32_t *tokens;
    const float *dy;
    float *dweight;
    uint64_t rows;
    uint64_t width;
    uint64_t first;
    uint64_t slice_rows;
};
void strata_op_embed_grad(const struct ops *ops, const struct op_embed_grad *args);

/* What is known of a row's logits so far. */
struct op_row_stat {
    double sum; /* of exp(logit - max) */
    float max;
    float target; /* the target's logit  */
};

/* Cross entropy over a vocabulary slice. logits: rows of slice_rows, `stride` elements
 * apart. */
struct op_entropy {
    float *logits;
    const uint32_t *targets;
    struct op_row_stat *stats;
    uint64_t rows;
    uint64_t first; /* token of the slice's first row                         */
    uint64_t slice_rows;
    uint64_t stride;
    float scale; /* grad only: what a row's loss is multiplied with        */
};
/* Forget what is known of rows. */
void strata_op_entropy_begin(const struct ops *ops, struct op_row_stat *stats, uint64_t rows);
/* First pass: bring stats up to date with the slice's logits. */
void strata_op_entropy_scan(const struct ops *ops, const struct op_entropy *args);
/* Second pass: logits become the gradient of scale x loss for them. */
void strata_op_entropy_grad(const struct ops *ops, const struct op_entropy *args);
/* The mean loss over rows, summed in their order; out is device memory. */
void strata_op_entropy_loss(const struct ops *ops, const struct op_row_stat *stats,
                            uint64_t rows, double *out);

/* What a model's products are at most. */
struct op_sizes {
    uint64_t matrix_elems;     /* of a weight matrix                                    */
    uint64_t activation_elems; /* of an activation or a gradient that enters a product */
};

/*
 * The operators of one kind of device. open: once, before the first operator; what it takes is
 * in ops until close. scratch: bytes for struct ops; attention_scratch: floats for attention
 * and its gradient; both from shapes alone, before open too.
 */
struct ops_table {
    const char *name;
    strata_status (*open)(struct ops *ops, strata_error *error);
    void (*close)(struct ops *ops);
    uint64_t (*scratch)(const struct op_sizes *sizes, strata_dtype weight_dtype);
    uint64_t (*attention_scratch)(const struct op_heads *shape);
    void (*norm)(const struct ops *ops, const struct op_norm *args);
    void (*norm_grad)(const struct ops *ops, const struct op_norm_grad *args);
    void (*linear)(const struct ops *ops, const struct op_linear *args);
    void (*linear_dx)(const struct ops *ops, const struct op_linear *args);
    void (*linear_dw)(const struct ops *ops, const struct op_linear_dw *args);
    void (*bias)(const struct ops *ops, const struct op_bias *args);
    void (*bias_grad)(const struct ops *ops, const struct op_bias_grad *args);
    void (*rotary)(const struct ops *ops, const struct op_rotary *args);
    void (*attention)(const struct ops *ops, const struct op_attention *args);
    void (*attention_grad)(const struct ops *ops, const struct op_attention_grad *args);
    void (*glu)(const struct ops *ops, const struct op_glu *args);
    void (*glu_grad)(const struct ops *ops, const struct op_glu_grad *args);
    void (*embed)(const struct ops *ops, const struct op_embed *args);
    void (*embed_grad)(const struct ops *ops, const struct op_embed_grad *args);
    void (*entropy_begin)(const struct ops *ops, struct op_row_stat *stats, uint64_t rows);
    void (*entropy_scan)(const struct ops *ops, const struct op_entropy *args);
    void (*entropy_grad)(const struct ops *ops, const struct op_entropy *args);
    void (*entropy_loss)(const struct ops *ops, const struct op_row_stat *stats, uint64_t rows,
                         double *out);
};

extern const struct ops_table strata_ops_host;
extern const struct ops_table strata_ops_cuda;

#endif
