/*
 * Attention by cuDNN on a GPU: beside a plain one in fp32, whole beside groups of heads, twice.
 *
 * The plain one is made of whole matrices on the CPU, for the last key head of the last
 * sequence and all the query heads that share it. Its inputs are the same bf16 numbers, so what
 * differs is cuDNN's roundings within: of probabilities and of results to bf16, 2^-9 each. Of
 * an array's norm that leaves some thousandths; a wrong mask, stride or head is of order one.
 */

#include "train/attention_cudnn.h"
#include "train/product.h"

#include "strata/adam.h"
#include "strata/device.h"

#include "base/random.h"
#include "tests/support/checks.h"
#include "tests/support/cuda_rig.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TOLERANCE 1e-2

/* Device arrays of a shape, and the CPU's copies of them. */
struct arrays {
    struct attention_shape shape; /* resolved */
    uint64_t rows;
    uint16_t *qkv;
    uint16_t *d_o;
    uint16_t *o;
    uint16_t *d_qkv;
    void *device_qkv;
    void *device_d_o;
    void *device_o;
    void *device_d_qkv;
    void *device_lse;
    void *workspace;
};

static struct cuda_rig rig;
static struct attention_cudnn *attention;

/* The GPU and cuDNN, or the test is skipped. */
static void open_all(void)
{
    strata_error error = {0};
    rig = cuda_rig_open();
    if (strata_attention_cudnn_absent() != NULL)
        strata_skip(strata_attention_cudnn_absent());
    struct attention_target here = {0};
    strata_status status = strata_attention_cudnn_open(&attention, &here, &error);
    if (status == STRATA_E_UNSUPPORTED)
        strata_skip(error.message);
    cr_assert_eq(status, STRATA_OK, "%s", error.message);
}

static void close_all(void)
{
    strata_attention_cudnn_close(attention);
    cuda_rig_close(&rig);
}

static void *allocate(uint64_t bytes)
{
    void *out = calloc(1, bytes);
    cr_assert_not_null(out);
    return out;
}

static uint16_t *random_numbers(uint64_t count, uint32_t stream)
{
    float *numbers = allocate(count * sizeof *numbers);
    uint16_t *out = allocate(count * sizeof *out);
    strata_random_normal(11, stream, 0, count, 1, numbers);
    cr_assert_eq(
        strata_convert(STRATA_ISA_SCALAR, out, STRATA_BF16, numbers, STRATA_FP32, count),
        STRATA_OK);
    free(numbers);
    return out;
}

static void make_arrays(struct arrays *out, const struct attention_shape *shape)
{
    struct attention_calls calls;
    strata_error error = {0};
    cr_assert_eq(strata_attention_calls(&calls, shape, &error), STRATA_OK, "%s", error.message);
    *out = (struct arrays){.shape = strata_attention_resolved(shape)};
    shape = &out->shape;
    out->rows = (uint64_t)shape->sequences * shape->seq;
    uint64_t qkv_count = out->rows * shape->qkv_stride;
    uint64_t o_count = out->rows * shape->o_stride;
    out->qkv = random_numbers(qkv_count, 1);
    out->d_o = random_numbers(o_count, 2);
    out->o = allocate(o_count * 2);
    out->d_qkv = allocate(qkv_count * 2);
    out->device_qkv = cuda_rig_take(&rig, out->qkv, qkv_count * 2);
    out->device_d_o = cuda_rig_take(&rig, out->d_o, o_count * 2);
    out->device_o = cuda_rig_take(&rig, out->o, o_count * 2);
    out->device_d_qkv = cuda_rig_take(&rig, out->d_qkv, qkv_count * 2);
    out->device_lse = cuda_rig_take(&rig, NULL, out->rows * shape->heads * sizeof(float));
    out->workspace = cuda_rig_take(&rig, NULL, calls.workspace_bytes);
}

static uint16_t *at(void *array, uint64_t element)
{
    return (uint16_t *)array + element;
}

/* Forward and backward of some heads of some sequences. */
static void run_some(const struct arrays *of, const struct attention_shape *shape,
                     uint64_t sequence, uint64_t head)
{
    const struct attention_shape *whole = &of->shape;
    uint64_t dim = whole->head_dim;
    uint64_t sharing = whole->heads / whole->kv_heads;
    uint64_t row = sequence * whole->seq;
    uint64_t q = row * whole->qkv_stride + head * dim;
    uint64_t k = row * whole->qkv_stride + (whole->heads + head / sharing) * dim;
    uint64_t v = k + whole->kv_heads * dim;
    uint64_t o = row * whole->o_stride + head * dim;
    float *lse = (float *)of->device_lse + (sequence * whole->heads + head) * whole->seq;
    struct attention_forward forward = {*shape,
                                        at(of->device_qkv, q),
                                        at(of->device_qkv, k),
                                        at(of->device_qkv, v),
                                        at(of->device_o, o),
                                        lse,
                                        of->workspace};
    struct attention_backward backward = {*shape,
                                          forward.q,
                                          forward.k,
                                          forward.v,
                                          forward.o,
                                          at(of->device_d_o, o),
                                          lse,
                                          at(of->device_d_qkv, q),
                                          at(of->device_d_qkv, k),
                                          at(of->device_d_qkv, v),
                                          of->workspace};
    strata_error error = {0};
    void *stream = strata_stream_native(rig.stream);
    cr_assert_eq(strata_attention_cudnn_forward(attention, stream, &forward, &error), STRATA_OK,
                 "%s", error.message);
    cr_assert_eq(strata_attention_cudnn_backward(attention, stream, &backward, &error),
                 STRATA_OK, "%s", error.message);
}

static void read_results(const struct arrays *of)
{
    cuda_rig_read(&rig, of->o, of->device_o, of->rows * of->shape.o_stride * 2);
    cuda_rig_read(&rig, of->d_qkv, of->device_d_qkv, of->rows * of->shape.qkv_stride * 2);
}

static void run_whole(const struct arrays *of)
{
    run_some(of, &of->shape, 0, 0);
    read_results(of);
}

/* The last sequence's head_dim columns from `column` on, in fp32. */
static float *columns_of(const struct arrays *of, const uint16_t *array, uint64_t stride,
                         uint64_t column)
{
    const struct attention_shape *shape = &of->shape;
    float *out = allocate((uint64_t)shape->seq * shape->head_dim * sizeof *out);
    uint64_t first = (uint64_t)(shape->sequences - 1) * shape->seq;
    for (uint64_t row = 0; row < shape->seq; row++)
        cr_assert_eq(strata_convert(STRATA_ISA_SCALAR, out + row * shape->head_dim, STRATA_FP32,
                                    array + (first + row) * stride + column, STRATA_BF16,
                                    shape->head_dim),
                     STRATA_OK);
    return out;
}

static bool sees(const struct attention_shape *shape, uint64_t row, uint64_t key)
{
    return key <= row && (shape->window == 0 || row - key < shape->window);
}

/* Scores become probabilities. */
static void softmax(const struct attention_shape *shape, float *scores)
{
    for (uint64_t row = 0; row < shape->seq; row++) {
        float *p = scores + row * shape->seq;
        float largest = -INFINITY;
        double sum = 0;
        for (uint64_t key = 0; key < shape->seq; key++)
            if (sees(shape, row, key) && p[key] > largest)
                largest = p[key];
        for (uint64_t key = 0; key < shape->seq; key++) {
            p[key] = sees(shape, row, key) ? expf(p[key] - largest) : 0;
            sum += p[key];
        }
        for (uint64_t key = 0; key < shape->seq; key++)
            p[key] = (float)(p[key] / sum);
    }
}

/* dP becomes dS: p (dP - the row's sum of p dP), scaled. */
static void softmax_grad(const struct attention_shape *shape, const float *p, float *d,
                         float scale)
{
    for (uint64_t row = 0; row < shape->seq; row++, p += shape->seq, d += shape->seq) {
        double sum = 0;
        for (uint64_t key = 0; key < shape->seq; key++)
            sum += (double)p[key] * d[key];
        for (uint64_t key = 0; key < shape->seq; key++)
            d[key] = p[key] * (d[key] - (float)sum) * scale;
    }
}

static void multiply(const float *a, const float *b, float *c, struct product_shape shape,
                     float scale, float beta)
{
    struct product product = {a, b, c, shape, scale, beta};
    strata_host_product_threaded(&product, 8);
}

/* A NAN is not near. Both are freed. */
static void expect_near(const char *what, const struct attention_shape *shape, float *got,
                        float *wanted)
{
    double error = 0, norm = 0;
    for (uint64_t i = 0; i < (uint64_t)shape->seq * shape->head_dim; i++) {
        error += pow((double)got[i] - wanted[i], 2);
        norm += pow(wanted[i], 2);
    }
    cr_expect(sqrt(error) <= TOLERANCE * sqrt(norm),
              "%s of %u tokens, heads %u/%u, window %u: off by %g of its norm", what,
              shape->seq, shape->heads, shape->kv_heads, shape->window, sqrt(error / norm));
    free(got);
    free(wanted);
}

/* One query head in fp32, seq x head_dim each. d_k and d_v are added to. */
struct head {
    const float *q;
    const float *k;
    const float *v;
    const float *d_o;
    float *o;
    float *d_q;
    float *d_k;
    float *d_v;
};

static void plain_head(const struct attention_shape *shape, const struct head *head)
{
    uint64_t dim = shape->head_dim;
    float scale = 1 / sqrtf((float)dim);
    struct product_rows rows = {shape->seq, shape->seq, dim, dim, dim};
    float *p = allocate((uint64_t)shape->seq * shape->seq * sizeof *p);
    float *d = allocate((uint64_t)shape->seq * shape->seq * sizeof *d);
    multiply(head->q, head->k, p, strata_product_scores(&rows), scale, 0);
    softmax(shape, p);
    multiply(p, head->v, head->o, strata_product_values(&rows), 1, 0);
    multiply(p, head->d_o, head->d_v, strata_product_keys(&rows), 1, 1);
    multiply(head->d_o, head->v, d, strata_product_scores(&rows), 1, 0);
    softmax_grad(shape, p, d, scale);
    multiply(d, head->k, head->d_q, strata_product_values(&rows), 1, 0);
    multiply(d, head->q, head->d_k, strata_product_keys(&rows), 1, 1);
    free(p);
    free(d);
}

/* One query head beside the plain one, which adds to dK and dV of the key head. */
static void expect_head(const struct arrays *of, uint64_t index, const float *k, const float *v,
                        float *d_k, float *d_v)
{
    const struct attention_shape *shape = &of->shape;
    uint64_t column = index * shape->head_dim;
    uint64_t bytes = (uint64_t)shape->seq * shape->head_dim * sizeof(float);
    float *q = columns_of(of, of->qkv, shape->qkv_stride, column);
    float *d_o = columns_of(of, of->d_o, shape->o_stride, column);
    struct head head = {q, k, v, d_o, allocate(bytes), allocate(bytes), d_k, d_v};
    plain_head(shape, &head);
    expect_near("o", shape, columns_of(of, of->o, shape->o_stride, column), head.o);
    expect_near("dq", shape, columns_of(of, of->d_qkv, shape->qkv_stride, column), head.d_q);
    free(q);
    free(d_o);
}

/* The last key head of the last sequence beside the plain attention. */
static void expect_plain(const struct arrays *of)
{
    const struct attention_shape *shape = &of->shape;
    uint64_t dim = shape->head_dim;
    uint64_t bytes = shape->seq * dim * sizeof(float);
    uint64_t k_column = (shape->heads + shape->kv_heads - 1) * dim;
    uint64_t v_column = k_column + shape->kv_heads * dim;
    uint64_t stride = shape->qkv_stride;
    float *k = columns_of(of, of->qkv, stride, k_column);
    float *v = columns_of(of, of->qkv, stride, v_column);
    float *d_k = allocate(bytes), *d_v = allocate(bytes);
    uint32_t sharing = shape->heads / shape->kv_heads;
    for (uint32_t i = shape->heads - sharing; i < shape->heads; i++)
        expect_head(of, i, k, v, d_k, d_v);
    expect_near("dk", shape, columns_of(of, of->d_qkv, stride, k_column), d_k);
    expect_near("dv", shape, columns_of(of, of->d_qkv, stride, v_column), d_v);
    free(k);
    free(v);
}

/* The sum of o x d_o. */
static double loss_of(const struct attention_shape *shape, const struct head *head)
{
    double loss = 0;
    plain_head(shape, head);
    for (uint64_t i = 0; i < (uint64_t)shape->seq * shape->head_dim; i++)
        loss += (double)head->o[i] * head->d_o[i];
    return loss;
}

/* The plain attention itself, on any machine: its gradient against differences of its output,
 * and an output that is simple to know. */
Test(attention_gpu, the_plain_attention_has_its_gradient)
{
    enum { SEQ = 9, DIM = 8, COUNT = SEQ * DIM };
    struct attention_shape shape = {.seq = SEQ, .head_dim = DIM, .window = 4};
    float in[4][COUNT], out[4][COUNT] = {{0}}, unused[4][COUNT];
    struct head head = {in[0], in[1], in[2], in[3], out[0], out[1], out[2], out[3]};
    for (uint32_t i = 0; i < 4; i++)
        strata_random_normal(5, i, 0, COUNT, 1, in[i]);
    loss_of(&shape, &head);
    for (uint32_t i = 0; i < DIM; i++)
        cr_expect_float_eq(out[0][i], in[2][i], 1e-6, "the first row sees itself alone");
    struct head again = {in[0],     in[1],     in[2],     in[3],
                         unused[0], unused[1], unused[2], unused[3]};
    for (uint32_t i = 0; i < 3 * COUNT; i++) {
        float *number = &in[i / COUNT][i % COUNT];
        float kept = *number;
        *number = kept + 0.01f;
        double more = loss_of(&shape, &again);
        *number = kept - 0.01f;
        double less = loss_of(&shape, &again);
        *number = kept;
        cr_expect_float_eq(out[1 + i / COUNT][i % COUNT], (more - less) / 0.02, 2e-3,
                           "array %u, element %u", i / COUNT, i % COUNT);
    }
}

static struct attention_shape shape_of(uint32_t sequences, uint32_t seq, uint32_t heads,
                                       uint32_t kv_heads)
{
    return (struct attention_shape){.sequences = sequences,
                                    .seq = seq,
                                    .heads = heads,
                                    .kv_heads = kv_heads,
                                    .head_dim = 128,
                                    .dtype = STRATA_BF16};
}

static void expect_shape(const struct attention_shape *shape)
{
    struct arrays arrays;
    make_arrays(&arrays, shape);
    run_whole(&arrays);
    expect_plain(&arrays);
}

Test(attention_gpu, is_the_plain_attention)
{
    open_all();
    static const uint32_t shapes[][5] = {{2, 1024, 32, 32, 0}, {1, 4096, 32, 32, 0},
                                         {2, 1024, 64, 8, 0},  {1, 4096, 64, 8, 0},
                                         {2, 1000, 14, 2, 0},  {1, 2048, 32, 8, 512}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct attention_shape shape =
            shape_of(shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3]);
        shape.window = shapes[i][4];
        expect_shape(&shape);
    }
    close_all();
}

/* Query heads of one key head in several calls, and the kernel that adds what they leave. */
Test(attention_gpu, parts_of_a_key_head_add_up)
{
    open_all();
    struct attention_shape shape = shape_of(1, 8256, 8, 1);
    struct attention_calls calls;
    cr_assert_eq(strata_attention_calls(&calls, &shape, NULL), STRATA_OK);
    cr_assert_gt(calls.parts, 1);
    expect_shape(&shape);
    close_all();
}

static void expect_same(const struct arrays *a, const struct arrays *b, const char *what)
{
    cr_expect_eq(memcmp(a->o, b->o, a->rows * a->shape.o_stride * 2), 0, "%s: o", what);
    cr_expect_eq(memcmp(a->d_qkv, b->d_qkv, a->rows * a->shape.qkv_stride * 2), 0,
                 "%s: gradients", what);
}

/* Groups whose key heads are whole have the whole's bits; so has a repetition. */
Test(attention_gpu, groups_have_the_bits_of_the_whole)
{
    open_all();
    static const uint32_t heads[][2] = {{32, 32}, {64, 8}};
    for (int i = 0; i < 2; i++) {
        struct attention_shape shape = shape_of(2, 1024, heads[i][0], heads[i][1]);
        struct arrays whole, again, groups;
        make_arrays(&whole, &shape);
        make_arrays(&again, &shape);
        make_arrays(&groups, &shape);
        run_whole(&whole);
        run_whole(&again);
        expect_same(&whole, &again, "a repetition");
        struct attention_shape group = whole.shape;
        group.sequences = 1;
        group.heads = heads[i][0] / 4;
        group.kv_heads = heads[i][1] / 4;
        for (uint32_t sequence = 0; sequence < 2; sequence++)
            for (uint32_t head = 0; head < heads[i][0]; head += group.heads)
                run_some(&groups, &group, sequence, head);
        read_results(&groups);
        expect_same(&whole, &groups, "groups");
    }
    close_all();
}
