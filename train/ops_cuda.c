/*
 * The operators on a CUDA device: kernels and products put together as on the host.
 *
 * Activations and weights lie in memory in one type, which is what products multiply; a
 * product's sums are fp32, and it rounds once where it writes. With fp32 nothing is rounded.
 *
 * Scratch is the products' workspace, and the sums of a norm's or a bias's gradient: everything
 * runs on one stream, so one operator's scratch is the next one's.
 *
 * Thread: the one that queues on the stream; nothing is computed here.
 */

#include "train/ops_cuda.h"

#include "train/attention_fused.h"

#include <stdio.h>

#include "base/error.h"
#include "base/round.h"

/* Logits at a time: of 152,000 tokens and in bf16, 600 MB. */
#define HEAD_ROWS 2048u

static void *stream_of(const struct ops *ops)
{
    return strata_stream_native(ops->stream);
}

static void check(const struct ops *ops, int native, const char *what)
{
    strata_stream_failed(ops->stream, native, what);
}

/* Products. */

static uint64_t op_scratch(uint64_t matrix_elems, strata_dtype weight_dtype)
{
    (void)matrix_elems;
    (void)weight_dtype;
    return CUDA_WORKSPACE_BYTES;
}

static uint64_t act_bytes(strata_dtype act_dtype)
{
    return strata_dtype_bytes(act_dtype);
}

/* What a product is told by in a message. */
struct product_text {
    char text[160];
};

static struct product_text text_of(const struct cuda_product *p, const char *refusal)
{
    struct product_text out;
    snprintf(out.text, sizeof out.text, "a product of %llu x %llu x %llu in %s, %u times: %s",
             (unsigned long long)p->shape.rows, (unsigned long long)p->shape.depth,
             (unsigned long long)p->shape.cols, strata_dtype_name(p->dtype), p->batch, refusal);
    return out;
}

void strata_cuda_queue_product(const struct ops *ops, const struct cuda_product *p)
{
    struct cuda_refusal refusal =
        strata_cuda_product(ops->products, stream_of(ops), ops->scratch, p);
    if (refusal.status == 0)
        return;
    struct product_text what = text_of(p, refusal.name);
    check(ops, CUDA_CUBLAS_NATIVE + refusal.status, what.text);
}

/* A layer's. */
static void layer_product(const struct ops *ops, const struct op_linear *a,
                          struct product_shape shape)
{
    strata_cuda_queue_product(ops, &(struct cuda_product){
                                       .a = a->src,
                                       .b = a->weight,
                                       .addend = a->addend,
                                       .d = a->dst,
                                       .dtype = ops->act_dtype,
                                       .d_dtype = ops->act_dtype,
                                       .shape = shape,
                                       .batch = 1,
                                       .scale = 1.0f,
                                   });
}

static void linear(const struct ops *ops, const struct op_linear *a)
{
    struct product_shape shape = strata_product_linear(a->rows, a->in, a->out);
    shape.c_stride = strata_op_out_stride(a->out_stride, a->out);
    layer_product(ops, a, shape);
}

static void linear_dx(const struct ops *ops, const struct op_linear *a)
{
    struct product_shape shape = strata_product_linear_dx(a->rows, a->in, a->out);
    shape.a_stride = strata_op_out_stride(a->out_stride, a->out);
    layer_product(ops, a, shape);
}

static void linear_dw(const struct ops *ops, const struct op_linear_dw *a)
{
    struct product_shape shape = strata_product_linear_dw(a->rows, a->in, a->out);
    shape.a_stride = strata_op_out_stride(a->out_stride, a->out);
    strata_cuda_queue_product(ops, &(struct cuda_product){
                                       .a = a->dy,
                                       .b = a->x,
                                       .addend = a->dweight,
                                       .d = a->dweight,
                                       .dtype = ops->act_dtype,
                                       .d_dtype = STRATA_FP32,
                                       .shape = shape,
                                       .batch = 1,
                                       .scale = 1.0f,
                                   });
}

/* Kernels. */

static void norm(const struct ops *ops, const struct op_norm *args)
{
    check(ops, strata_cuda_norm(stream_of(ops), args, ops->act_dtype), "a norm");
}

static void norm_grad(const struct ops *ops, const struct op_norm_grad *args)
{
    check(ops, strata_cuda_norm_grad(stream_of(ops), args, ops->act_dtype, ops->scratch),
          "a norm's gradient");
}

static void bias(const struct ops *ops, const struct op_bias *args)
{
    check(ops, strata_cuda_bias(stream_of(ops), args, ops->act_dtype), "a bias");
}

static void bias_grad(const struct ops *ops, const struct op_bias_grad *args)
{
    check(ops, strata_cuda_bias_grad(stream_of(ops), args, ops->act_dtype, ops->scratch),
          "a bias's gradient");
}

static void rotary(const struct ops *ops, const struct op_rotary *args)
{
    check(ops, strata_cuda_rotary(stream_of(ops), args, ops->act_dtype), "a rotary embedding");
}

static void glu(const struct ops *ops, const struct op_glu *args)
{
    check(ops, strata_cuda_glu(stream_of(ops), args, ops->act_dtype), "glu");
}

static void glu_grad(const struct ops *ops, const struct op_glu_grad *args)
{
    check(ops, strata_cuda_glu_grad(stream_of(ops), args, ops->act_dtype), "glu's gradient");
}

static void embed(const struct ops *ops, const struct op_embed *args)
{
    check(ops, strata_cuda_embed(stream_of(ops), args, ops->act_dtype), "a look-up");
}

static void embed_grad(const struct ops *ops, const struct op_embed_grad *args)
{
    check(ops, strata_cuda_embed_grad(stream_of(ops), args, ops->act_dtype),
          "a look-up's gradient");
}

static void entropy_begin(const struct ops *ops, struct op_row_stat *stats, uint64_t rows)
{
    check(ops, strata_cuda_entropy_begin(stream_of(ops), stats, rows), "a loss's beginning");
}

static void entropy_scan(const struct ops *ops, const struct op_entropy *args)
{
    check(ops, strata_cuda_entropy_scan(stream_of(ops), args, ops->act_dtype),
          "a pass over logits");
}

static void entropy_grad(const struct ops *ops, const struct op_entropy *args)
{
    check(ops, strata_cuda_entropy_grad(stream_of(ops), args, ops->act_dtype),
          "the logits' gradient");
}

static void entropy_loss(const struct ops *ops, const struct op_row_stat *stats, uint64_t rows,
                         double *out)
{
    check(ops, strata_cuda_entropy_loss(stream_of(ops), stats, rows, out), "the loss");
}

/* Attention: fused, or made of products. */

static void attention(const struct ops *ops, const struct op_attention *args)
{
    if (!strata_fused_attention(ops, args))
        strata_cuda_attention(ops, args);
}

static void attention_grad(const struct ops *ops, const struct op_attention_grad *args)
{
    if (!strata_fused_attention_grad(ops, args))
        strata_cuda_attention_grad(ops, args);
}

/* Room for either: a plan is made where nobody knows yet which it will be. */
static uint64_t attention_scratch(const struct op_heads *shape, strata_dtype act_dtype)
{
    uint64_t fused =
        strata_units_of(strata_fused_attention_bytes(shape, act_dtype), sizeof(float));
    uint64_t products = strata_cuda_attention_scratch(shape);
    return fused > products ? fused : products;
}

/* Opening. */

static strata_status open_ops(struct ops *ops, strata_error *error)
{
    if (ops->act_dtype != ops->weight_dtype)
        return strata_fail(error, STRATA_E_UNSUPPORTED, 0,
                           "cuda operators: activations in %s beside weights in %s: both are "
                           "of one type",
                           strata_dtype_name(ops->act_dtype),
                           strata_dtype_name(ops->weight_dtype));
    STRATA_TRY(strata_cuda_products_create(&ops->products, error));
    ops->fused = strata_fused_attention_open(ops->act_dtype);
    return STRATA_OK;
}

static void close_ops(struct ops *ops)
{
    strata_fused_attention_close(ops->fused);
    strata_cuda_products_destroy(ops->products);
    ops->fused = NULL;
    ops->products = NULL;
}

static const char *lack(const struct ops *ops)
{
    return strata_fused_attention_lack(ops->fused);
}

const struct ops_table strata_ops_cuda = {
    .name = "cuda",
    .layer_rows = UINT64_MAX,
    .head_rows = HEAD_ROWS,
    .attention_apart = true,
    .open = open_ops,
    .close = close_ops,
    .scratch = op_scratch,
    .lack = lack,
    .attention_scratch = attention_scratch,
    .act_bytes = act_bytes,
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
    .glu = glu,
    .glu_grad = glu_grad,
    .embed = embed,
    .embed_grad = embed_grad,
    .entropy_begin = entropy_begin,
    .entropy_scan = entropy_scan,
    .entropy_grad = entropy_grad,
    .entropy_loss = entropy_loss,
};
