/*
 * Products, rotary embedding and gated linear units on the host device, and its table of
 * operators.
 *
 * Weights in bf16 are widened as a whole before their product: each panel would otherwise widen
 * the part that its neighbours widen too.
 *
 * Thread: run_... on the stream's thread, the functions with an index on workers.
 */

#include "train/ops_host.h"

#include <math.h>
#include <string.h>

#define ELEMS_PER_ITEM 16384u /* of an array without rows                        */
#define GLU_ROWS       2u     /* a row is some 10,000 exponentials               */
#define PIECE_ROWS     256u   /* of MLP and head: what they write stays in cache */

/* Weights of a product. */

struct widening {
    const void *weight;
    float *out;
    strata_dtype dtype;
    uint64_t count;
};

static void widen_item(void *user, uint32_t index, uint32_t worker)
{
    (void)worker;
    const struct widening *w = user;
    uint64_t first = (uint64_t)index * ELEMS_PER_ITEM;
    strata_host_widen(w->out + first, w->weight, w->dtype, first,
                      strata_host_min(ELEMS_PER_ITEM, w->count - first));
}

/* The matrix as fp32: where it is, or in ops->scratch until the next product. */
static const float *wide_matrix(const struct ops *ops, const void *weight, uint64_t count)
{
    if (ops->weight_dtype == STRATA_FP32)
        return weight;
    struct widening w = {weight, ops->scratch, ops->weight_dtype, count};
    strata_workers_run(ops->workers, STRATA_JOB_PANEL, widen_item, &w,
                       strata_host_items(count, ELEMS_PER_ITEM));
    return ops->scratch;
}

/* Rows of an activation that an operator goes over by itself before or after a product. */
struct rows_call {
    const struct ops *ops;
    const float *from; /* NULL: rows are rounded in place */
    float *to;
    uint64_t rows;
    uint64_t width;
    uint64_t stride;
};

static void rows_item(void *user, uint32_t index, uint32_t worker)
{
    (void)worker;
    const struct rows_call *call = user;
    uint64_t first = (uint64_t)index * STRATA_HOST_ITEM_ROWS;
    uint64_t end = strata_host_min(first + STRATA_HOST_ITEM_ROWS, call->rows);
    for (uint64_t row = first; row < end; row++) {
        float *to = call->to + row * call->stride;
        if (call->from == NULL)
            strata_host_round(call->ops, to, call->width);
        else
            memcpy(to, call->from + row * call->stride, call->width * sizeof *to);
    }
}

static void run_rows(const struct rows_call *call)
{
    strata_workers_run(call->ops->workers, STRATA_JOB_PANEL, rows_item, (void *)(uintptr_t)call,
                       strata_host_items(call->rows, STRATA_HOST_ITEM_ROWS));
}

struct linear_call {
    struct ops ops;
    struct op_linear args;
    struct product_shape shape;
};
STRATA_HOST_CALL(struct linear_call);

static void run_linear(void *data)
{
    const struct linear_call *call = data;
    const struct op_linear *a = &call->args;
    struct rows_call rows = {.ops = &call->ops,
                             .from = a->addend,
                             .to = a->dst,
                             .rows = call->shape.rows,
                             .width = call->shape.cols,
                             .stride = call->shape.c_stride};
    if (a->addend != NULL && a->addend != a->dst)
        run_rows(&rows);
    struct product product = {
        .a = a->src,
        .b = wide_matrix(&call->ops, a->weight, a->in * a->out),
        .c = a->dst,
        .shape = call->shape,
        .scale = 1.0f,
        .beta = a->addend != NULL ? 1.0f : 0.0f,
    };
    strata_host_panels(call->ops.workers, &product);
    rows.from = NULL;
    if (call->ops.act_dtype != STRATA_FP32)
        run_rows(&rows);
}

static void host_linear(const struct ops *ops, const struct op_linear *args)
{
    struct linear_call call = {*ops, *args,
                               strata_product_linear(args->rows, args->in, args->out)};
    call.shape.c_stride = strata_op_out_stride(args->out_stride, args->out);
    strata_stream_call(ops->stream, run_linear, &call, sizeof call);
}

static void host_linear_dx(const struct ops *ops, const struct op_linear *args)
{
    struct linear_call call = {*ops, *args,
                               strata_product_linear_dx(args->rows, args->in, args->out)};
    call.shape.a_stride = strata_op_out_stride(args->out_stride, args->out);
    strata_stream_call(ops->stream, run_linear, &call, sizeof call);
}

struct linear_dw_call {
    struct ops ops;
    struct op_linear_dw args;
};
STRATA_HOST_CALL(struct linear_dw_call);

static void run_linear_dw(void *data)
{
    const struct linear_dw_call *call = data;
    const struct op_linear_dw *a = &call->args;
    struct product product = {
        .a = a->dy,
        .b = a->x,
        .c = a->dweight,
        .shape = strata_product_linear_dw(a->rows, a->in, a->out),
        .scale = 1.0f,
        .beta = 1.0f,
    };
    product.shape.a_stride = strata_op_out_stride(a->out_stride, a->out);
    strata_host_panels(call->ops.workers, &product);
}

static void host_linear_dw(const struct ops *ops, const struct op_linear_dw *args)
{
    struct linear_dw_call call = {*ops, *args};
    strata_stream_call(ops->stream, run_linear_dw, &call, sizeof call);
}

/* Rotary embedding. */

static void rotate_head(float *x, const float *cosines, const float *sines, uint32_t half,
                        float sign)
{
    for (uint32_t i = 0; i < half; i++) {
        float low = x[i];
        float high = x[i + half];
        float sine = sign * sines[i];
        x[i] = low * cosines[i] - high * sine;
        x[i + half] = high * cosines[i] + low * sine;
    }
}

static void rotary_rows(const struct ops *ops, const void *args, uint32_t index)
{
    const struct op_rotary *a = args;
    uint64_t first = (uint64_t)index * STRATA_HOST_ITEM_ROWS;
    uint64_t end = strata_host_min(first + STRATA_HOST_ITEM_ROWS, a->rows);
    uint32_t half = a->turned / 2;
    for (uint64_t row = first; row < end; row++) {
        const float *cosines = a->table + row % a->seq * a->turned;
        float *x = (float *)a->x + row * a->stride;
        for (uint32_t head = 0; head < a->heads; head++)
            rotate_head(x + (uint64_t)head * a->head_dim, cosines, cosines + half, half,
                        a->inverse ? -1.0f : 1.0f);
        strata_host_round(ops, x, (uint64_t)a->heads * a->head_dim);
    }
}

static void host_rotary(const struct ops *ops, const struct op_rotary *args)
{
    strata_host_call_items(ops, rotary_rows,
                           strata_host_items(args->rows, STRATA_HOST_ITEM_ROWS), args,
                           sizeof *args);
}

/* Gated linear units. */

#define SQRT_HALF    0.70710678118654752f
#define TWO_OVER_PI  0.79788456080286536f /* its root                                */
#define GELU_CUBE    0.044715f
#define NORMAL_SCALE 0.39894228040143268f /* 1 / sqrt(2 pi)                          */

static float activate(float x, enum op_activation activation)
{
    switch (activation) {
    case OP_GELU:
        return 0.5f * x * (1.0f + erff(x * SQRT_HALF));
    case OP_GELU_TANH:
        return 0.5f * x * (1.0f + tanhf(TWO_OVER_PI * (x + GELU_CUBE * x * x * x)));
    case OP_SILU:
        break;
    }
    return x / (1.0f + expf(-x));
}

static void glu_rows(const struct ops *ops, const void *args, uint32_t index)
{
    const struct op_glu *a = args;
    uint64_t first = (uint64_t)index * GLU_ROWS;
    uint64_t end = strata_host_min(first + GLU_ROWS, a->rows);
    for (uint64_t row = first; row < end; row++) {
        const float *gate = (const float *)a->gate_up + row * 2 * a->width;
        const float *up = gate + a->width;
        float *out = (float *)a->out + row * a->width;
        for (uint64_t i = 0; i < a->width; i++)
            out[i] = activate(gate[i], a->activation) * up[i];
        strata_host_round(ops, out, a->width);
    }
}

static void host_glu(const struct ops *ops, const struct op_glu *args)
{
    strata_host_call_items(ops, glu_rows, strata_host_items(args->rows, GLU_ROWS), args,
                           sizeof *args);
}

/* An activation's value, to the bit as above, and its derivative. */
struct slope {
    float value;
    float slope;
};

static struct slope gelu_slope(float x)
{
    float below = 1.0f + erff(x * SQRT_HALF);
    return (struct slope){0.5f * x * below,
                          0.5f * below + x * NORMAL_SCALE * expf(-0.5f * x * x)};
}

static struct slope gelu_tanh_slope(float x)
{
    float t = tanhf(TWO_OVER_PI * (x + GELU_CUBE * x * x * x));
    float inner = TWO_OVER_PI * (1.0f + 3.0f * GELU_CUBE * x * x);
    return (struct slope){0.5f * x * (1.0f + t),
                          0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * inner};
}

static struct slope silu_slope(float x)
{
    float below = 1.0f + expf(-x);
    float sigmoid = 1.0f / below;
    return (struct slope){x / below, sigmoid * (1.0f + x * (1.0f - sigmoid))};
}

static struct slope slope_of(float x, enum op_activation activation)
{
    switch (activation) {
    case OP_GELU:
        return gelu_slope(x);
    case OP_GELU_TANH:
        return gelu_tanh_slope(x);
    case OP_SILU:
        break;
    }
    return silu_slope(x);
}

static void glu_grad_rows(const struct ops *ops, const void *args, uint32_t index)
{
    const struct op_glu_grad *a = args;
    uint64_t first = (uint64_t)index * GLU_ROWS;
    uint64_t end = strata_host_min(first + GLU_ROWS, a->rows);
    for (uint64_t row = first; row < end; row++) {
        float *gate = (float *)a->gate_up + row * 2 * a->width;
        float *up = gate + a->width;
        const float *d_out = (const float *)a->d_out + row * a->width;
        float *out = (float *)a->out + row * a->width;
        for (uint64_t i = 0; i < a->width; i++) {
            struct slope at = slope_of(gate[i], a->activation);
            float d = d_out[i];
            out[i] = at.value * up[i];
            gate[i] = d * up[i] * at.slope;
            up[i] = d * at.value;
        }
        strata_host_round(ops, gate, 2 * a->width);
        strata_host_round(ops, out, a->width);
    }
}

static void host_glu_grad(const struct ops *ops, const struct op_glu_grad *args)
{
    strata_host_call_items(ops, glu_grad_rows, strata_host_items(args->rows, GLU_ROWS), args,
                           sizeof *args);
}

/* The table. */

/* Products run on the thread that calls, one thread each. */
static strata_status open_ops(struct ops *ops, strata_error *error)
{
    (void)ops;
    (void)error;
    strata_host_product_setup();
    return STRATA_OK;
}

static void close_ops(struct ops *ops)
{
    (void)ops;
}

/* Room to widen the largest matrix. */
static uint64_t scratch_bytes(uint64_t matrix_elems, strata_dtype dtype)
{
    return dtype == STRATA_FP32 ? 0 : matrix_elems * sizeof(float);
}

static const char *lack(const struct ops *ops)
{
    (void)ops;
    return NULL;
}

static uint64_t act_bytes(strata_dtype dtype)
{
    (void)dtype;
    return sizeof(float);
}

const struct ops_table strata_ops_host = {
    .name = "host",
    .layer_rows = PIECE_ROWS,
    .head_rows = PIECE_ROWS,
    .open = open_ops,
    .close = close_ops,
    .scratch = scratch_bytes,
    .lack = lack,
    .act_bytes = act_bytes,
    .norm = strata_host_norm,
    .norm_grad = strata_host_norm_grad,
    .linear = host_linear,
    .linear_dx = host_linear_dx,
    .linear_dw = host_linear_dw,
    .bias = strata_host_bias,
    .bias_grad = strata_host_bias_grad,
    .rotary = host_rotary,
    .attention = strata_host_attention,
    .attention_grad = strata_host_attention_grad,
    .attention_scratch = strata_host_attention_scratch,
    .glu = host_glu,
    .glu_grad = host_glu_grad,
    .embed = strata_host_embed,
    .embed_grad = strata_host_embed_grad,
    .entropy_begin = strata_host_entropy_begin,
    .entropy_scan = strata_host_entropy_scan,
    .entropy_grad = strata_host_entropy_grad,
    .entropy_loss = strata_host_entropy_loss,
};
