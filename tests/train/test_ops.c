/*
 * The operators against plain versions in double precision.
 *
 * Forward: against the double version itself. Gradients: the double version is differentiated
 * by central differences of sum(out x weights), with random weights; so a wrong formula cannot
 * hide in both. Steps of 1e-5 in double leave an error of 1e-9, far below fp32's.
 *
 * Tolerance: 2e-6 of the largest value of the array per forward operator and 1e-5 per gradient.
 * Sums here have at most some hundred terms of 6e-8 each. Shapes are small, odd, and cross the
 * borders of blocks and panels.
 */

#include "train/ops.h"

/* The host's, the CUDA operators on the CPU by tests/emulator, or, ON_GPU, on a GPU. */
#ifndef OPS_TABLE
#    define OPS_TABLE strata_ops_host
#endif
#ifndef ON_GPU
#    define ON_GPU 0
#endif
extern const struct ops_table OPS_TABLE;

#include "offload/device/device.h"
#include "tests/support/cuda_rig.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FORWARD_TOLERANCE  2e-6
#define GRADIENT_TOLERANCE 1e-5
#define INPUTS_MAX         4

/* Device, stream, workers. */

/* More than any shape here has. */
static const struct op_sizes sizes = {.matrix_elems = 1u << 20, .activation_elems = 1u << 20};

/* What a test's arrays lie in on a GPU: host memory that is pinned while a rig is open. Nothing
 * is given back, a test being a process. */
#define POOL_BYTES (ON_GPU ? (size_t)64 << 20 : 4096)
static _Alignas(4096) uint8_t pool[POOL_BYTES];
static size_t pool_used;

/* Zeroed memory that the host and the operators may touch. */
static void *take(size_t bytes)
{
    void *out = ON_GPU ? pool + pool_used : calloc(1, bytes);
    if (ON_GPU)
        pool_used += (bytes + 255) / 256 * 256;
    cr_assert(out != NULL && pool_used <= sizeof pool, "no memory for an array");
    return out;
}

static void give(void *memory)
{
    if (!ON_GPU)
        free(memory);
}

struct rig {
    strata_device *device;
    strata_stream *stream;
    strata_workers *workers;
    struct ops ops;
};

static void rig_open_device(struct rig *rig)
{
    strata_error error = {0};
    if (ON_GPU) {
        struct cuda_rig cuda = cuda_rig_open();
        uint64_t piece_bytes;
        rig->device = cuda.device;
        rig->stream = cuda.stream;
        cr_assert(rig->device->ops->pin(rig->device, pool, sizeof pool, &piece_bytes, &error) ==
                      STRATA_OK,
                  "%s", error.message);
        return;
    }
    cr_assert(strata_device_open_host(&rig->device, &error) == STRATA_OK, "%s", error.message);
    cr_assert(strata_stream_create(&rig->stream, rig->device, "test", &error) == STRATA_OK,
              "%s", error.message);
}

static struct rig rig_open(uint32_t threads)
{
    struct rig rig = {0};
    strata_error error = {0};
    strata_workers_desc desc = {.thread_count = threads, .unbound = true};
    rig_open_device(&rig);
    cr_assert(strata_workers_create(&rig.workers, &desc, &error) == STRATA_OK, "%s",
              error.message);
    rig.ops = (struct ops){.table = &OPS_TABLE,
                           .stream = rig.stream,
                           .workers = rig.workers,
                           .weight_dtype = STRATA_FP32};
    cr_assert(rig.ops.table->open(&rig.ops, &error) == STRATA_OK, "%s", error.message);
    cr_assert(strata_device_take(rig.device, OPS_TABLE.scratch(&sizes, STRATA_BF16),
                                 &rig.ops.scratch, &error) == STRATA_OK,
              "%s", error.message);
    return rig;
}

static void rig_close(struct rig *rig)
{
    strata_stream_sync(rig->stream);
    const strata_error *failure = strata_device_error(rig->device);
    cr_expect(failure == NULL, "%s", failure != NULL ? failure->message : "");
    strata_stream_destroy(rig->stream);
    rig->ops.table->close(&rig->ops);
    strata_device_give(rig->device, rig->ops.scratch, OPS_TABLE.scratch(&sizes, STRATA_BF16));
    if (ON_GPU)
        rig->device->ops->unpin(rig->device, pool);
    strata_workers_destroy(rig->workers);
    strata_device_close(rig->device);
}

/* Arrays. */

/* Values between -1 and 1, always the same for a seed. */
static float *random_floats(uint64_t count, uint32_t seed)
{
    float *out = take(count * sizeof *out);
    uint32_t state = seed * 2654435761u + 12345u;
    for (uint64_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        out[i] = (float)((double)(state >> 8) / 8388608.0 - 1.0);
    }
    return out;
}

static float *copy_floats(const float *src, uint64_t count)
{
    float *out = take(count * sizeof *out);
    memcpy(out, src, count * sizeof *out);
    return out;
}

static float *zero_floats(uint64_t count)
{
    return take(count * sizeof(float));
}

static double *doubles(uint64_t count)
{
    double *out = calloc(count, sizeof *out);
    cr_assert_not_null(out);
    return out;
}

static double *widened(const float *src, uint64_t count)
{
    double *out = doubles(count);
    for (uint64_t i = 0; i < count; i++)
        out[i] = src[i];
    return out;
}

/* Cut to bf16, in place, so that fp32 and bf16 arrays hold the same numbers. */
static uint16_t *as_bf16(float *values, uint64_t count)
{
    uint16_t *out = take(count * sizeof *out);
    for (uint64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        out[i] = (uint16_t)(bits >> 16);
        bits &= 0xffff0000u;
        memcpy(&values[i], &bits, sizeof bits);
    }
    return out;
}

static void expect_close(const char *what, const float *got, const double *want, uint64_t count,
                         double tolerance)
{
    double largest = 0.0;
    for (uint64_t i = 0; i < count; i++)
        largest = fmax(largest, fabs(want[i]));
    for (uint64_t i = 0; i < count; i++)
        cr_assert(fabs(got[i] - want[i]) <= tolerance * largest,
                  "%s: element %llu is %.9g, wanted %.9g (largest %.3g)", what,
                  (unsigned long long)i, got[i], want[i], largest);
}

/* A plain operator: out from in[], with its sizes in shape. */
struct plain {
    void (*run)(const void *shape, double *const *in, double *out);
    const void *shape;
    const float *in[INPUTS_MAX];
    uint64_t in_count[INPUTS_MAX];
    uint64_t out_count;
};

static void plain_open(const struct plain *p, double **in)
{
    for (int i = 0; i < INPUTS_MAX; i++)
        in[i] = p->in[i] != NULL ? widened(p->in[i], p->in_count[i]) : NULL;
}

static void plain_close(double **in)
{
    for (int i = 0; i < INPUTS_MAX; i++)
        free(in[i]);
}

static void expect_forward(const char *what, const struct plain *p, const float *got)
{
    double *in[INPUTS_MAX];
    plain_open(p, in);
    double *out = doubles(p->out_count);
    p->run(p->shape, in, out);
    expect_close(what, got, out, p->out_count, FORWARD_TOLERANCE);
    free(out);
    plain_close(in);
}

static double weighted(const struct plain *p, double *const *in, const float *d_out,
                       double *out)
{
    double sum = 0.0;
    p->run(p->shape, in, out);
    for (uint64_t i = 0; i < p->out_count; i++)
        sum += d_out[i] * out[i];
    return sum;
}

/* got: the operator's gradient of sum(out x d_out) for input `which`. */
static void expect_gradient(const char *what, const struct plain *p, int which,
                            const float *d_out, const float *got)
{
    const double step = 1e-5;
    double *in[INPUTS_MAX];
    plain_open(p, in);
    double *out = doubles(p->out_count);
    double *want = doubles(p->in_count[which]);
    for (uint64_t i = 0; i < p->in_count[which]; i++) {
        double at = in[which][i];
        in[which][i] = at + step;
        double above = weighted(p, in, d_out, out);
        in[which][i] = at - step;
        double below = weighted(p, in, d_out, out);
        in[which][i] = at;
        want[i] = (above - below) / (2.0 * step);
    }
    expect_close(what, got, want, p->in_count[which], GRADIENT_TOLERANCE);
    free(want);
    free(out);
    plain_close(in);
}

/* Norm. */

struct norm_shape {
    uint64_t rows;
    uint64_t width;
    double eps;
};

static void plain_norm(const void *shape, double *const *in, double *out)
{
    const struct norm_shape *s = shape;
    for (uint64_t r = 0; r < s->rows; r++) {
        const double *x = in[0] + r * s->width;
        double sum = 0.0;
        for (uint64_t i = 0; i < s->width; i++)
            sum += x[i] * x[i];
        for (uint64_t i = 0; i < s->width; i++)
            out[r * s->width + i] = x[i] / sqrt(sum / (double)s->width + s->eps) * in[1][i];
    }
}

static void check_norm(strata_dtype dtype, uint64_t rows, uint64_t width)
{
    struct rig rig = rig_open(2);
    struct norm_shape shape = {rows, width, 1e-5};
    uint64_t count = rows * width;
    float *x = random_floats(count, 1);
    float *weight = random_floats(width, 2);
    float *d_out = random_floats(count, 3);
    float *out = zero_floats(count);
    float *dx = copy_floats(d_out, count);
    float *dweight = zero_floats(width);
    uint16_t *weight16 = as_bf16(weight, width);
    struct plain plain = {plain_norm, &shape, {x, weight}, {count, width}, count};
    const void *stored = dtype == STRATA_BF16 ? (const void *)weight16 : weight;
    rig.ops.weight_dtype = dtype;
    strata_op_norm(&rig.ops, &(struct op_norm){x, stored, out, rows, width, 1e-5f});
    strata_op_norm_grad(&rig.ops, &(struct op_norm_grad){x, stored, dx, dx, dweight, rows,
                                                         width, 1e-5f, false});
    strata_stream_sync(rig.stream);
    expect_forward("norm", &plain, out);
    expect_gradient("norm dx", &plain, 0, d_out, dx);
    expect_gradient("norm dweight", &plain, 1, d_out, dweight);
    give(x), give(weight), give(d_out), give(out), give(dx), give(dweight), give(weight16);
    rig_close(&rig);
}

Test(ops, norm_and_its_gradient_agree_with_double)
{
    check_norm(STRATA_FP32, 1, 3);
    check_norm(STRATA_FP32, 5, 7);
    check_norm(STRATA_FP32, 19, 67);
}

Test(ops, norm_reads_bf16_weights_exactly)
{
    check_norm(STRATA_BF16, 5, 67);
}

Test(ops, norm_gradient_of_more_than_one_piece_covers_every_row)
{
    check_norm(STRATA_FP32, STRATA_OP_PIECE_ROWS + 3, 2);
}

Test(ops, gradients_are_added_where_add_is_asked_for)
{
    struct rig rig = rig_open(1);
    enum { ROWS = 3, WIDTH = 4, COUNT = ROWS * WIDTH };
    float *x = random_floats(COUNT, 1), *weight = random_floats(WIDTH, 2),
          *dy = random_floats(COUNT, 3);
    float *once = zero_floats(COUNT), *dweight = zero_floats(WIDTH);
    struct op_norm_grad args = {x, weight, dy, once, dweight, ROWS, WIDTH, 1e-5f, false};
    strata_op_norm_grad(&rig.ops, &args);
    strata_stream_sync(rig.stream);
    float *twice = copy_floats(once, COUNT), *dweight_twice = copy_floats(dweight, WIDTH);
    args.dx = twice;
    args.dweight = dweight_twice;
    args.add = true;
    strata_op_norm_grad(&rig.ops, &args);
    strata_stream_sync(rig.stream);
    for (int i = 0; i < COUNT; i++)
        cr_assert_float_eq(twice[i], 2.0f * once[i], 1e-6f);
    for (int i = 0; i < WIDTH; i++)
        cr_assert_float_eq(dweight_twice[i], 2.0f * dweight[i], 1e-6f);
    give(x), give(weight), give(dy), give(once), give(dweight);
    give(twice), give(dweight_twice);
    rig_close(&rig);
}

/* Linear. */

struct linear_shape {
    uint64_t rows;
    uint64_t in;
    uint64_t out;
};

static void plain_linear(const void *shape, double *const *in, double *out)
{
    const struct linear_shape *s = shape;
    for (uint64_t r = 0; r < s->rows; r++) {
        for (uint64_t o = 0; o < s->out; o++) {
            double sum = 0.0;
            for (uint64_t i = 0; i < s->in; i++)
                sum += in[0][r * s->in + i] * in[1][o * s->in + i];
            out[r * s->out + o] = sum;
        }
    }
}

/* Exact gradients of a linear map are linear maps; differences would only be slower. */
static void plain_linear_grads(const struct linear_shape *s, double *const *in, double *dx,
                               double *dw)
{
    for (uint64_t r = 0; r < s->rows; r++) {
        for (uint64_t o = 0; o < s->out; o++) {
            double dy = in[2][r * s->out + o];
            for (uint64_t i = 0; i < s->in; i++) {
                dx[r * s->in + i] += dy * in[1][o * s->in + i];
                dw[o * s->in + i] += dy * in[0][r * s->in + i];
            }
        }
    }
}

struct linear_case {
    struct linear_shape shape;
    float *x;
    float *weight;
    float *dy;
    float *y;
    float *dx;
    float *dweight;
    uint16_t *weight16;
};

static struct linear_case linear_open(struct linear_shape s)
{
    struct linear_case c = {
        .shape = s,
        .x = random_floats(s.rows * s.in, 11),
        .weight = random_floats(s.out * s.in, 12),
        .dy = random_floats(s.rows * s.out, 13),
        .y = zero_floats(s.rows * s.out),
        .dx = zero_floats(s.rows * s.in),
        .dweight = zero_floats(s.out * s.in),
    };
    c.weight16 = as_bf16(c.weight, s.out * s.in);
    return c;
}

static void linear_close(struct linear_case *c)
{
    give(c->x), give(c->weight), give(c->dy), give(c->y);
    give(c->dx), give(c->dweight), give(c->weight16);
}

/* Forward, dx and dweight, each added to what the arrays hold when add is set. */
static void linear_queue(struct rig *rig, struct linear_case *c, const void *weight, bool add)
{
    struct linear_shape s = c->shape;
    strata_op_linear(&rig->ops,
                     &(struct op_linear){c->x, weight, c->y, s.rows, s.in, s.out, add});
    strata_op_linear_dx(&rig->ops,
                        &(struct op_linear){c->dy, weight, c->dx, s.rows, s.in, s.out, add});
    strata_op_linear_dw(&rig->ops,
                        &(struct op_linear_dw){c->x, c->dy, c->dweight, s.rows, s.in, s.out});
    strata_stream_sync(rig->stream);
}

static void linear_run(struct rig *rig, struct linear_case *c, strata_dtype dtype, bool add)
{
    rig->ops.weight_dtype = dtype;
    linear_queue(rig, c, dtype == STRATA_BF16 ? (const void *)c->weight16 : c->weight, add);
}

static void check_linear(strata_dtype dtype, struct linear_shape s)
{
    struct rig rig = rig_open(2);
    struct linear_case c = linear_open(s);
    struct plain plain = {plain_linear,
                          &c.shape,
                          {c.x, c.weight, c.dy},
                          {s.rows * s.in, s.out * s.in, s.rows * s.out},
                          s.rows * s.out};
    double *in[INPUTS_MAX];
    double *dx = doubles(s.rows * s.in);
    double *dw = doubles(s.out * s.in);
    plain_open(&plain, in);
    plain_linear_grads(&s, in, dx, dw);
    linear_run(&rig, &c, dtype, false);
    expect_forward("linear", &plain, c.y);
    expect_close("linear dx", c.dx, dx, s.rows * s.in, GRADIENT_TOLERANCE);
    expect_close("linear dweight", c.dweight, dw, s.out * s.in, GRADIENT_TOLERANCE);
    free(dx), free(dw);
    plain_close(in);
    linear_close(&c);
    rig_close(&rig);
}

Test(ops, linear_and_its_gradients_agree_with_double)
{
    check_linear(STRATA_FP32, (struct linear_shape){1, 1, 1});
    check_linear(STRATA_FP32, (struct linear_shape){3, 5, 2});
    check_linear(STRATA_FP32, (struct linear_shape){37, 131, 70});
    check_linear(STRATA_FP32, (struct linear_shape){257, 33, 290});
    check_linear(STRATA_FP32, (struct linear_shape){600, 9, 1030}); /* panels of full size */
}

#ifndef ROUNDS_ACTIVATIONS
Test(ops, linear_widens_bf16_weights_exactly)
{
    check_linear(STRATA_BF16, (struct linear_shape){3, 5, 2});
    check_linear(STRATA_BF16, (struct linear_shape){70, 131, 257});
}
#endif

Test(ops, linear_adds_to_what_is_there)
{
    struct rig rig = rig_open(1);
    struct linear_case c = linear_open((struct linear_shape){9, 6, 4});
    linear_run(&rig, &c, STRATA_FP32, false);
    float *y = copy_floats(c.y, 9 * 4), *dx = copy_floats(c.dx, 9 * 6),
          *dw = copy_floats(c.dweight, 4 * 6);
    linear_run(&rig, &c, STRATA_FP32, true);
    for (int i = 0; i < 9 * 4; i++)
        cr_assert_float_eq(c.y[i], 2.0f * y[i], 1e-5f);
    for (int i = 0; i < 9 * 6; i++)
        cr_assert_float_eq(c.dx[i], 2.0f * dx[i], 1e-5f);
    for (int i = 0; i < 4 * 6; i++)
        cr_assert_float_eq(c.dweight[i], 2.0f * dw[i], 1e-5f);
    give(y), give(dx), give(dw);
    linear_close(&c);
    rig_close(&rig);
}

/* Rotary embedding. */

struct rotary_shape {
    uint64_t rows;
    uint32_t seq;
    uint32_t heads;
    uint32_t head_dim;
};

/* As the transformers library writes it: x cos + rotate_half(x) sin, halves, not neighbours. */
static void plain_rotary(const void *shape, double *const *in, double *out)
{
    const struct rotary_shape *s = shape;
    uint32_t half = s->head_dim / 2;
    for (uint64_t r = 0; r < s->rows; r++) {
        for (uint32_t h = 0; h < s->heads; h++) {
            const double *x = in[0] + (r * s->heads + h) * s->head_dim;
            for (uint32_t i = 0; i < s->head_dim; i++) {
                double angle =
                    (double)(r % s->seq) * pow(10000.0, -2.0 * (i % half) / s->head_dim);
                double turned = i < half ? -x[i + half] : x[i - half];
                out[(r * s->heads + h) * s->head_dim + i] =
                    x[i] * cos(angle) + turned * sin(angle);
            }
        }
    }
}

static float *rotary_table(const struct rotary_shape *s)
{
    uint32_t half = s->head_dim / 2;
    float *table = zero_floats((uint64_t)s->seq * s->head_dim);
    for (uint32_t position = 0; position < s->seq; position++) {
        for (uint32_t i = 0; i < half; i++) {
            double angle = position * pow(10000.0, -2.0 * i / s->head_dim);
            table[position * s->head_dim + i] = (float)cos(angle);
            table[position * s->head_dim + half + i] = (float)sin(angle);
        }
    }
    return table;
}

Test(ops, rotary_turns_halves_and_inverse_is_its_gradient)
{
    struct rig rig = rig_open(2);
    struct rotary_shape s = {.rows = 22, .seq = 11, .heads = 3, .head_dim = 6};
    uint64_t count = s.rows * s.heads * s.head_dim;
    float *table = rotary_table(&s);
    float *x = random_floats(count, 21), *d_out = random_floats(count, 22);
    float *out = copy_floats(x, count), *dx = copy_floats(d_out, count);
    struct plain plain = {plain_rotary, &s, {x}, {count}, count};
    struct op_rotary args = {out, table, s.rows, s.seq, s.heads, s.head_dim, false};
    strata_op_rotary(&rig.ops, &args);
    args.x = dx;
    args.inverse = true;
    strata_op_rotary(&rig.ops, &args);
    strata_stream_sync(rig.stream);
    expect_forward("rotary", &plain, out);
    expect_gradient("rotary dx", &plain, 0, d_out, dx);
    give(table), give(x), give(d_out), give(out), give(dx);
    rig_close(&rig);
}

/* Attention. */

static void plain_attention(const void *shape, double *const *in, double *out)
{
    const struct op_heads *s = shape;
    double *p = doubles(s->seq);
    for (uint64_t item = 0; item < (uint64_t)s->sequences * s->heads * s->seq; item++) {
        uint64_t row = item % s->seq, head = item / s->seq % s->heads,
                 seq = item / s->seq / s->heads;
        uint64_t kv_head = head / (s->heads / s->kv_heads);
        const double *q = in[0] + ((seq * s->seq + row) * s->heads + head) * s->head_dim;
        double *o = out + ((seq * s->seq + row) * s->heads + head) * s->head_dim;
        double sum = 0.0;
        for (uint64_t j = 0; j <= row; j++) {
            const double *k =
                in[1] + ((seq * s->seq + j) * s->kv_heads + kv_head) * s->head_dim;
            double score = 0.0;
            for (uint64_t i = 0; i < s->head_dim; i++)
                score += q[i] * k[i];
            p[j] = exp(score / sqrt((double)s->head_dim));
            sum += p[j];
        }
        memset(o, 0, s->head_dim * sizeof *o);
        for (uint64_t j = 0; j <= row; j++) {
            const double *v =
                in[2] + ((seq * s->seq + j) * s->kv_heads + kv_head) * s->head_dim;
            for (uint64_t i = 0; i < s->head_dim; i++)
                o[i] += p[j] / sum * v[i];
        }
    }
    free(p);
}

static uint64_t q_count(const struct op_heads *s)
{
    return (uint64_t)s->sequences * s->seq * s->heads * s->head_dim;
}

static uint64_t kv_count(const struct op_heads *s)
{
    return (uint64_t)s->sequences * s->seq * s->kv_heads * s->head_dim;
}

static void check_attention(struct op_heads s)
{
    struct rig rig = rig_open(2);
    float *q = random_floats(q_count(&s), 31), *k = random_floats(kv_count(&s), 32);
    float *v = random_floats(kv_count(&s), 33), *d_out = random_floats(q_count(&s), 34);
    float *o = copy_floats(q, q_count(&s)); /* the output lies in the place of q */
    float *dq = copy_floats(q, q_count(&s)), *dk = copy_floats(k, kv_count(&s));
    float *dv = copy_floats(v, kv_count(&s));
    float *scratch = take(OPS_TABLE.attention_scratch(&s) * sizeof *scratch);
    struct plain plain = {
        plain_attention, &s, {q, k, v}, {q_count(&s), kv_count(&s), kv_count(&s)}, q_count(&s)};
    strata_op_attention(&rig.ops, &(struct op_attention){o, k, v, o, scratch, s});
    strata_op_attention_grad(&rig.ops,
                             &(struct op_attention_grad){dq, dk, dv, d_out, scratch, s});
    strata_stream_sync(rig.stream);
    expect_forward("attention", &plain, o);
    expect_gradient("attention dq", &plain, 0, d_out, dq);
    expect_gradient("attention dk", &plain, 1, d_out, dk);
    expect_gradient("attention dv", &plain, 2, d_out, dv);
    give(q), give(k), give(v), give(d_out), give(o), give(dq), give(dk), give(dv),
        give(scratch);
    rig_close(&rig);
}

Test(ops, attention_and_its_gradient_agree_with_double)
{
    check_attention((struct op_heads){1, 1, 1, 1, 2});
    check_attention(
        (struct op_heads){2, 5, 6, 2, 4}); /* three query heads share a key-value head */
    check_attention((struct op_heads){3, 7, 6, 6, 2}); /* more items than lanes */
}

Test(ops, attention_over_more_than_one_block_of_rows_agrees_with_double)
{
    check_attention((struct op_heads){2, 67, 2, 1, 2});
}

Test(ops, attention_never_looks_at_later_tokens)
{
    struct rig rig = rig_open(1);
    struct op_heads s = {1, 9, 2, 1, 4};
    float *q = random_floats(q_count(&s), 31), *k = random_floats(kv_count(&s), 32);
    float *v = random_floats(kv_count(&s), 33), *o = zero_floats(q_count(&s)),
          *o2 = zero_floats(q_count(&s));
    float *scratch = take(OPS_TABLE.attention_scratch(&s) * sizeof *scratch);
    strata_op_attention(&rig.ops, &(struct op_attention){q, k, v, o, scratch, s});
    strata_stream_sync(rig.stream);
    for (uint64_t i = 5 * 4; i < kv_count(&s); i++) /* tokens 5 to 8 */
        k[i] = v[i] = 100.0f;
    strata_op_attention(&rig.ops, &(struct op_attention){q, k, v, o2, scratch, s});
    strata_stream_sync(rig.stream);
    cr_assert_arr_eq(o, o2, 5 * 8 * sizeof *o);
    cr_assert_float_neq(o[5 * 8], o2[5 * 8], 1e-3f);
    give(q), give(k), give(v), give(o), give(o2), give(scratch);
    rig_close(&rig);
}

/* SwiGLU. */

static void plain_swiglu(const void *shape, double *const *in, double *out)
{
    uint64_t count = *(const uint64_t *)shape;
    for (uint64_t i = 0; i < count; i++)
        out[i] = in[0][i] / (1.0 + exp(-in[0][i])) * in[1][i];
}

Test(ops, swiglu_and_its_gradient_agree_with_double)
{
    struct rig rig = rig_open(2);
    uint64_t count = 133;
    float *gate = random_floats(count, 41), *up = random_floats(count, 42),
          *d_out = random_floats(count, 43);
    for (uint64_t i = 0; i < count; i++)
        gate[i] *= 10.0f; /* both ends of the sigmoid */
    float *out = copy_floats(gate, count), *dgate = copy_floats(gate, count),
          *dup = copy_floats(up, count);
    struct plain plain = {plain_swiglu, &count, {gate, up}, {count, count}, count};
    strata_op_swiglu(&rig.ops, &(struct op_swiglu){out, up, out, count});
    strata_op_swiglu_grad(&rig.ops, &(struct op_swiglu_grad){dgate, dup, d_out, count});
    strata_stream_sync(rig.stream);
    expect_forward("swiglu", &plain, out);
    expect_gradient("swiglu dgate", &plain, 0, d_out, dgate);
    expect_gradient("swiglu dup", &plain, 1, d_out, dup);
    give(gate), give(up), give(d_out), give(out), give(dgate), give(dup);
    rig_close(&rig);
}

Test(ops, swiglu_of_huge_values_stays_finite)
{
    struct rig rig = rig_open(1);
    static const float huge[4] = {200.0f, -200.0f, 0.0f, -88.0f}, one[4] = {1, 1, 1, 1};
    float *gate = copy_floats(huge, 4), *up = copy_floats(one, 4), *ones = copy_floats(one, 4);
    float *out = zero_floats(4);
    strata_op_swiglu(&rig.ops, &(struct op_swiglu){gate, up, out, 4});
    strata_op_swiglu_grad(&rig.ops, &(struct op_swiglu_grad){gate, up, ones, 4});
    strata_stream_sync(rig.stream);
    cr_assert_float_eq(out[0], 200.0f, 1e-4f);
    cr_assert_float_eq(out[1], 0.0f, 1e-4f);
    for (int i = 0; i < 4; i++)
        cr_assert(isfinite(gate[i]) && isfinite(up[i]), "gradient %d", i);
    give(gate), give(up), give(ones), give(out);
    rig_close(&rig);
}

/* Look-up. */

static void check_embed(strata_dtype dtype)
{
    struct rig rig = rig_open(2);
    enum { VOCAB = 7, WIDTH = 67, ROWS = 70, CUT = 3 };
    float *weight = random_floats(VOCAB * WIDTH, 51), *dy = random_floats(ROWS * WIDTH, 52);
    uint16_t *weight16 = as_bf16(weight, VOCAB * WIDTH);
    const char *stored = dtype == STRATA_BF16 ? (const char *)weight16 : (const char *)weight;
    float *out = zero_floats(ROWS * WIDTH), *dweight = zero_floats(VOCAB * WIDTH);
    double *want = doubles(VOCAB * WIDTH);
    uint32_t *tokens = take(ROWS * sizeof *tokens);
    for (uint32_t i = 0; i < ROWS; i++)
        tokens[i] = i * i % VOCAB;
    rig.ops.weight_dtype = dtype;
    for (uint64_t first = 0; first < VOCAB; first += CUT) {
        uint64_t rows = first + CUT < VOCAB ? CUT : VOCAB - first;
        const char *slice = stored + first * WIDTH * strata_dtype_bytes(dtype);
        strata_op_embed(&rig.ops,
                        &(struct op_embed){tokens, slice, out, ROWS, WIDTH, first, rows});
        strata_op_embed_grad(&rig.ops,
                             &(struct op_embed_grad){tokens, dy, dweight + first * WIDTH, ROWS,
                                                     WIDTH, first, rows});
    }
    strata_stream_sync(rig.stream);
    for (uint32_t row = 0; row < ROWS; row++) {
        cr_assert_arr_eq(out + row * WIDTH, weight + tokens[row] * WIDTH, WIDTH * sizeof *out);
        for (uint32_t i = 0; i < WIDTH; i++)
            want[tokens[row] * WIDTH + i] += dy[row * WIDTH + i];
    }
    expect_close("embedding dweight", dweight, want, VOCAB * WIDTH, GRADIENT_TOLERANCE);
    give(weight), give(dy), give(weight16), give(out), give(dweight), give(tokens);
    free(want);
    rig_close(&rig);
}

Test(ops, embedding_slices_together_answer_every_token)
{
    check_embed(STRATA_FP32);
    check_embed(STRATA_BF16);
}

/* Cross entropy. */

struct entropy_shape {
    uint64_t rows;
    uint64_t vocab;
    const uint32_t *targets;
};

/* The mean loss. */
static void plain_entropy(const void *shape, double *const *in, double *out)
{
    const struct entropy_shape *s = shape;
    *out = 0.0;
    for (uint64_t r = 0; r < s->rows; r++) {
        const double *logits = in[0] + r * s->vocab;
        double max = logits[0], sum = 0.0;
        for (uint64_t i = 1; i < s->vocab; i++)
            max = fmax(max, logits[i]);
        for (uint64_t i = 0; i < s->vocab; i++)
            sum += exp(logits[i] - max);
        *out += (log(sum) + max - logits[s->targets[r]]) / (double)s->rows;
    }
}

/* Columns first .. first + count - 1 of a row-major array of that width, without gaps. */
static void copy_columns(float *dst, const float *src, const struct entropy_shape *s,
                         uint64_t first, uint64_t count)
{
    for (uint64_t r = 0; r < s->rows; r++)
        memcpy(dst + r * count, src + r * s->vocab + first, count * sizeof *dst);
}

/* Loss, and the gradient into grad, going over the vocabulary `cut` tokens at a time. */
static double sliced_entropy(struct rig *rig, const struct entropy_shape *s,
                             const float *logits, uint64_t cut, float *grad)
{
    struct op_row_stat *stats = take(s->rows * sizeof *stats);
    float *slice = zero_floats(s->rows * cut);
    double *mean = take(sizeof *mean);
    struct op_entropy args = {.logits = slice,
                              .targets = s->targets,
                              .stats = stats,
                              .rows = s->rows,
                              .scale = 1.0f / (float)s->rows};
    strata_op_entropy_begin(&rig->ops, stats, s->rows);
    for (args.first = 0; args.first < s->vocab; args.first += cut) {
        args.slice_rows = args.first + cut < s->vocab ? cut : s->vocab - args.first;
        copy_columns(slice, logits, s, args.first, args.slice_rows);
        strata_op_entropy_scan(&rig->ops, &args);
        strata_stream_sync(rig->stream);
    }
    strata_op_entropy_loss(&rig->ops, stats, s->rows, mean);
    for (args.first = 0; args.first < s->vocab; args.first += cut) {
        args.slice_rows = args.first + cut < s->vocab ? cut : s->vocab - args.first;
        copy_columns(slice, logits, s, args.first, args.slice_rows);
        strata_op_entropy_grad(&rig->ops, &args);
        strata_stream_sync(rig->stream);
        for (uint64_t r = 0; r < s->rows; r++)
            memcpy(grad + r * s->vocab + args.first, slice + r * args.slice_rows,
                   args.slice_rows * sizeof *grad);
    }
    double loss = *mean;
    give(stats), give(slice), give(mean);
    return loss;
}

static void check_entropy(uint64_t cut, float scale)
{
    enum { ROWS = 5, VOCAB = 23 };
    struct rig rig = rig_open(2);
    static const uint32_t tokens[ROWS] = {0, 22, 7, 8, 7};
    uint32_t *targets = take(sizeof tokens);
    memcpy(targets, tokens, sizeof tokens);
    struct entropy_shape s = {ROWS, VOCAB, targets};
    float *logits = random_floats(ROWS * VOCAB, 61), *grad = zero_floats(ROWS * VOCAB);
    for (int i = 0; i < ROWS * VOCAB; i++)
        logits[i] *= scale;
    struct plain plain = {plain_entropy, &s, {logits}, {ROWS * VOCAB}, 1};
    float one = 1.0f;
    float loss = (float)sliced_entropy(&rig, &s, logits, cut, grad);
    expect_forward("entropy", &plain, &loss);
    expect_gradient("entropy dlogits", &plain, 0, &one, grad);
    give(logits), give(grad), give(targets);
    rig_close(&rig);
}

Test(ops, entropy_and_its_gradient_agree_with_double_in_any_slices)
{
    check_entropy(23, 3.0f);
    check_entropy(7, 3.0f);
    check_entropy(1, 3.0f);
}

Test(ops, entropy_of_huge_logits_does_not_overflow)
{
    check_entropy(7, 1000.0f);
}

/* Thread counts. */

/* One after another, all operators on shapes of many items; everything they wrote, in one
 * array. */
static float *run_all(uint32_t threads, uint64_t *out_count)
{
    struct rig rig = rig_open(threads);
    struct op_heads s = {3, 70, 4, 2, 8};
    uint64_t rows = (uint64_t)s.sequences * s.seq, width = (uint64_t)s.heads * s.head_dim;
    uint64_t kv = kv_count(&s), q = q_count(&s), out = 300;
    uint64_t total = q * 4 + kv * 2 + rows * out + out * width + width;
    float *all = random_floats(total, 71), *d = random_floats(q, 73);
    float *x = all, *dx = x + q, *normed = dx + q, *turned = normed + q, *k = turned + q,
          *v = k + kv;
    float *y = v + kv, *dw = y + rows * out, *dnorm = dw + out * width;
    float *weight = random_floats(out * width, 72);
    float *scratch = take(OPS_TABLE.attention_scratch(&s) * sizeof *scratch);
    struct rotary_shape shape = {rows, s.seq, s.heads, s.head_dim};
    float *table = rotary_table(&shape);
    uint32_t *tokens = take(rows * sizeof *tokens);
    struct op_row_stat *stats = take(rows * sizeof *stats);
    for (uint64_t i = 0; i < rows; i++)
        tokens[i] = (uint32_t)(i * i % out);
    struct op_entropy entropy = {y, tokens, stats, rows, 0, out, 0.5f};
    strata_op_embed(&rig.ops, &(struct op_embed){tokens, weight, x, rows, width, 0, out});
    strata_op_norm(&rig.ops, &(struct op_norm){x, weight, normed, rows, width, 1e-5f});
    strata_op_rotary(
        &rig.ops, &(struct op_rotary){turned, table, rows, s.seq, s.heads, s.head_dim, false});
    strata_op_attention(&rig.ops, &(struct op_attention){turned, k, v, x, scratch, s});
    strata_op_attention_grad(&rig.ops,
                             &(struct op_attention_grad){turned, k, v, d, scratch, s});
    strata_op_linear(&rig.ops, &(struct op_linear){normed, weight, y, rows, width, out, true});
    strata_op_entropy_begin(&rig.ops, stats, rows);
    strata_op_entropy_scan(&rig.ops, &entropy);
    strata_op_entropy_grad(&rig.ops, &entropy);
    strata_op_linear_dw(&rig.ops, &(struct op_linear_dw){normed, y, dw, rows, width, out});
    strata_op_linear_dx(&rig.ops, &(struct op_linear){y, weight, dx, rows, width, out, true});
    strata_op_norm_grad(
        &rig.ops, &(struct op_norm_grad){x, weight, dx, dx, dnorm, rows, width, 1e-5f, true});
    strata_op_swiglu(&rig.ops, &(struct op_swiglu){normed, x, normed, rows * width});
    strata_op_embed_grad(&rig.ops,
                         &(struct op_embed_grad){tokens, dx, dw, rows, width, 0, out});
    strata_stream_sync(rig.stream);
    rig_close(&rig);
    give(d), give(weight), give(scratch), give(table), give(tokens), give(stats);
    *out_count = total;
    return all;
}

Test(ops, thread_count_changes_no_bit)
{
    uint64_t count;
    float *one = run_all(1, &count);
    float *three = run_all(3, &count);
    float *four = run_all(4, &count);
    cr_assert_eq(memcmp(one, three, count * sizeof *one), 0, "1 and 3 workers differ");
    cr_assert_eq(memcmp(one, four, count * sizeof *one), 0, "1 and 4 workers differ");
    for (uint64_t i = 0; i < count; i++)
        cr_assert(isfinite(one[i]), "element %llu", (unsigned long long)i);
    give(one), give(three), give(four);
}
