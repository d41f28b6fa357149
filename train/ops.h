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
 * memory and are lent until the stream got there. Arrays are row-major without gaps unless a
 * stride says otherwise, in elements from a row to the next; a row is a token.
 *
 * Activations and their gradients (void *) are in act_dtype, which is fp32 or the weights' own
 * type: an operator computes in fp32 and rounds once, where it writes. On a CUDA device they
 * lie in memory in that type. The host device keeps fp32 elements whatever the type and rounds
 * the values, so that it can show what a GPU's rounding does to a model. Gradients of weights,
 * statistics and all sums are fp32 or wider. Weights are in weight_dtype, and the host device
 * widens them exactly. Gradients of weights are added to what is there.
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

struct ops_table;
struct cuda_products;
struct fused_attention;

/* Where operators are queued. Borrowed until the stream has been synchronised: stream, workers.
 */
struct ops {
    const struct ops_table *table;
    strata_stream *stream;
    strata_workers *workers;
    strata_dtype weight_dtype;
    strata_dtype act_dtype;         /* fp32 or weight_dtype                              */
    void *scratch;                  /* device; as many bytes as the table's scratch says */
    struct cuda_products *products; /* the CUDA table's own, as is the next              */
    struct fused_attention *fused;
};

/*
 * out = x / sqrt(mean(x^2) + eps) * weight, for each run of `width` elements: `heads` of them
 * side by side in a row, and rows `stride` elements apart, in every array. out may be x.
 */
struct op_norm {
    const void *x;
    const void *weight;
    void *out;
    uint64_t rows;
    uint64_t width;
    uint64_t heads;  /* 0: 1             */
    uint64_t stride; /* 0: heads x width */
    float eps;
};
void strata_op_norm(const struct ops *ops, const struct op_norm *args);

/*
 * dx (+)= the norm's gradient for x; dweight += its gradient for the weight; normed, unless
 * NULL, becomes what the norm had given. normed may be dy; dx may be dy or x unless add.
 */
struct op_norm_grad {
    const void *x;
    const void *weight;
    const void *dy;
    void *dx;
    void *normed;
    float *dweight;
    uint64_t rows;
    uint64_t width;
    uint64_t heads; /* as above */
    uint64_t stride;
    float eps;
    bool add; /* dx += instead of dx = */
};
void strata_op_norm_grad(const struct ops *ops, const struct op_norm_grad *args);

/*
 * A matrix of out x in weights.
 * linear:    dst (rows x out) = addend + src (rows x in)  times weight transposed
 * linear_dx: dst (rows x in)  = addend + src (rows x out) times weight
 * The addend lies as dst does, and may be dst.
 * out_stride: elements from a row of `out` numbers to the next, in dst or src; 0: no gaps.
 */
struct op_linear {
    const void *src;
    const void *weight;
    const void *addend; /* NULL: none */
    void *dst;
    uint64_t rows;
    uint64_t in;
    uint64_t out;
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
    const void *x;
    const void *dy;
    float *dweight;
    uint64_t rows;
    uint64_t in;
    uint64_t out;
    uint64_t out_stride;
};
void strata_op_linear_dw(const struct ops *ops, const struct op_linear_dw *args);

/* x += bias, row by row. */
struct op_bias {
    void *x;
    const void *bias;
    uint64_t rows;
    uint64_t width;
};
void strata_op_bias(const struct ops *ops, const struct op_bias *args);

/* dbias += the sum of dy's rows. */
struct op_bias_grad {
    const void *dy;
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
    void *x; /* heads x head_dim at the start of each row */
    const float *table;
    uint64_t rows;
    uint64_t stride;
    uint32_t seq;
    uint32_t heads;
    uint32_t head_dim;
    uint32_t turned; /* of a head's elements; even, at most head_dim */
    bool inverse;
};
void strata_op_rotary(const struct ops *ops, const struct op_rotary *args);

/*
 * Shape of causal attention: heads is a multiple of kv_heads, which share keys and values. A
 * row sees the keys up to its own, or only the last `window` of them, its own included.
 */
struct op_heads {
    uint32_t sequences;
    uint32_t seq;
    uint32_t heads;
    uint32_t kv_heads;
    uint32_t head_dim;
    uint32_t window; /* 0: every key up to the row's own                                   */
    uint64_t stride; /* from a row of q, k or v, or of their gradients, to the next; o and its
                      * gradient have no gaps */
};

/* o = softmax(q k^T / sqrt(head_dim), causal) v, by sequence and head. */
struct op_attention {
    const void *q; /* (sequences x seq) x (heads x head_dim)    */
    const void *k; /* (sequences x seq) x (kv_heads x head_dim) */
    const void *v;
    void *o;
    float *lse;     /* sequences x heads x seq: log of the row's sum of exponentials,
                     * for the gradient; unused unless the table says attention_apart */
    float *scratch; /* the table's attention_scratch floats      */
    struct op_heads shape;
};
void strata_op_attention(const struct ops *ops, const struct op_attention *args);

/*
 * The gradients of q, k and v. They may take the places of q, k, v unless the table says
 * attention_apart. o and lse: the forward's, only read where it says so.
 */
struct op_attention_grad {
    const void *q;
    const void *k;
    const void *v;
    const void *o;
    const float *lse;
    const void *d_out;
    void *dq;
    void *dk;
    void *dv;
    float *scratch;
    struct op_heads shape;
};
void strata_op_attention_grad(const struct ops *ops, const struct op_attention_grad *args);

/* x times its sigmoid; x times the normal distribution's function, exact or by tanh. */
enum op_activation { OP_SILU = 0, OP_GELU, OP_GELU_TANH };

/* out = activation(gate) * up. A row of gate_up is `width` of the one, then of the other. */
struct op_glu {
    const void *gate_up; /* rows x 2 width */
    void *out;           /* rows x width   */
    uint64_t rows;
    uint64_t width;
    enum op_activation activation;
};
void strata_op_glu(const struct ops *ops, const struct op_glu *args);

/* In place: gate_up holds the gradients of both afterwards. out becomes what the forward gave,
 * to the bit; it may be d_out. */
struct op_glu_grad {
    void *gate_up;
    const void *d_out;
    void *out;
    uint64_t rows;
    uint64_t width;
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
    void *out;          /* rows x width                     */
    uint64_t rows;
    uint64_t width;
    uint64_t first; /* token of the slice's first row   */
    uint64_t slice_rows;
};
void strata_op_embed(const struct ops *ops, const struct op_embed *args);

/*
 * The look-up's gradient: each row is added to the row of its token, in the order of rows.
 * order: the rows by token, those of one token in their order. starts: where each token's begin
 * in it, and after the last, the end: distinct + 1 numbers.
 */
struct op_embed_grad {
    const uint32_t *tokens;
    const uint32_t *order;
    const uint32_t *starts;
    const void *dy;
    float *dweight;
    uint64_t rows;
    uint64_t distinct;
    uint64_t width;
    uint64_t first;
    uint64_t slice_rows;
};
void strata_op_embed_grad(const struct ops *ops, const struct op_embed_grad *args);

/*
 * On the calling thread, in host memory: fill order (rows numbers) and starts (rows + 1), and
 * return how many tokens are distinct. Tokens from vocab_size on are left out, as by every
 * slice. room: vocab_size numbers.
 */
uint64_t strata_op_order_tokens(const uint32_t *tokens, uint64_t rows, uint64_t vocab_size,
                                uint32_t *order, uint32_t *starts, uint32_t *room);

/* What is known of a row's logits so far. */
struct op_row_stat {
    double sum; /* of exp(logit - max) */
    float max;
    float target; /* the target's logit  */
};

/* Cross entropy over a vocabulary slice. logits: rows of slice_rows, `stride` elements
 * apart. */
struct op_entropy {
    void *logits;
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

/*
 * The operators of one kind of device. open: once, before the first operator; what it takes is
 * in ops until close. lack: what the open operators lack that others have, as one line; NULL:
 * nothing is known to be lacking.
 *
 * What follows from shapes and types alone is asked for before open too. scratch: bytes for
 * struct ops, matrix_elems being those of the largest weight matrix. attention_scratch: floats
 * for attention and its gradient. act_bytes: of an activation's element.
 */
struct ops_table {
    const char *name;
    uint64_t layer_rows;  /* that an MLP works on at a time, at most: scratch follows from it */
    uint64_t head_rows;   /* the same for the logits                                          */
    bool attention_apart; /* gradients of q, k, v want arrays of their own, and lse is kept  */
    strata_status (*open)(struct ops *ops, strata_error *error);
    void (*close)(struct ops *ops);
    uint64_t (*scratch)(uint64_t matrix_elems, strata_dtype weight_dtype);
    const char *(*lack)(const struct ops *ops);
    uint64_t (*attention_scratch)(const struct op_heads *shape, strata_dtype act_dtype);
    uint64_t (*act_bytes)(strata_dtype act_dtype);
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
