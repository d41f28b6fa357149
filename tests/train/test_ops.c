/*
 * Norm, bias, linear and gated linear units against plain versions in double precision. See
 * ops_rig.h.
 */

#include "tests/train/ops_rig.h"

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
    float *normed = zero_floats(count);
    float *dweight = zero_floats(width);
    uint16_t *weight16 = as_bf16(weight, width);
    struct plain plain = {plain_norm, &shape, {x, weight}, {count, width}, count};
    const void *stored = dtype == STRATA_BF16 ? (const void *)weight16 : weight;
    rig.ops.weight_dtype = dtype;
    strata_op_norm(
        &rig.ops,
        &(struct op_norm){
            .x = x, .weight = stored, .out = out, .rows = rows, .width = width, .eps = 1e-5f});
    strata_op_norm_grad(&rig.ops, &(struct op_norm_grad){.x = x,
                                                         .weight = stored,
                                                         .dy = dx,
                                                         .dx = dx,
                                                         .normed = normed,
                                                         .dweight = dweight,
                                                         .rows = rows,
                                                         .width = width,
                                                         .eps = 1e-5f});
    strata_stream_sync(rig.stream);
    cr_assert_arr_eq(normed, out, count * sizeof *out);
    expect_forward("norm", &plain, out);
    expect_gradient("norm dx", &plain, 0, d_out, dx);
    expect_gradient("norm dweight", &plain, 1, d_out, dweight);
    give(x), give(weight), give(d_out), give(out), give(dx), give(dweight), give(weight16);
    give(normed);
    rig_close(&rig);
}

Test(ops, norm_and_its_gradient_agree_with_double)
{
    check_norm(STRATA_FP32, 1, 3);
    check_norm(STRATA_FP32, 5, 7);
    check_norm(STRATA_FP32, 19, 67);
}

#if !ONE_TYPE
Test(ops, norm_reads_bf16_weights_exactly)
{
    check_norm(STRATA_BF16, 5, 67);
}
#endif

Test(ops, norm_gradient_of_more_than_one_piece_covers_every_row)
{
    check_norm(STRATA_FP32, 256 + 3, 2);
}

/* Three heads of two elements at the start of each row of 10: as many rows of their own. */
Test(ops, norm_of_heads_is_that_of_rows_and_leaves_the_rest_of_the_row)
{
    enum { ROWS = 130, HEADS = 3, WIDTH = 2, STRIDE = 10, LINES = ROWS * HEADS };
    struct rig rig = rig_open(2);
    float *weight = random_floats(WIDTH, 2);
    float *x = random_floats(ROWS * STRIDE, 1), *dy = random_floats(ROWS * STRIDE, 3);
    float *out = copy_floats(x, ROWS * STRIDE), *dx = copy_floats(x, ROWS * STRIDE);
    float *packed = zero_floats(LINES * WIDTH), *packed_dy = zero_floats(LINES * WIDTH);
    float *dweight = zero_floats(WIDTH), *packed_dweight = zero_floats(WIDTH);
    for (uint64_t i = 0; i < LINES * WIDTH; i++) {
        packed[i] = x[i / (HEADS * WIDTH) * STRIDE + i % (HEADS * WIDTH)];
        packed_dy[i] = dy[i / (HEADS * WIDTH) * STRIDE + i % (HEADS * WIDTH)];
    }
    float *packed_out = zero_floats(LINES * WIDTH);
    struct op_norm norm = {.x = x,
                           .weight = weight,
                           .out = out,
                           .rows = ROWS,
                           .width = WIDTH,
                           .heads = HEADS,
                           .stride = STRIDE,
                           .eps = 1e-5f};
    struct op_norm_grad grad = {.x = dx,
                                .weight = weight,
                                .dy = dy,
                                .dx = dx,
                                .dweight = dweight,
                                .rows = ROWS,
                                .width = WIDTH,
                                .heads = HEADS,
                                .stride = STRIDE,
                                .eps = 1e-5f};
    strata_op_norm(&rig.ops, &norm);
    strata_op_norm_grad(&rig.ops, &grad); /* dx in the place of x */
    strata_op_norm(&rig.ops, &(struct op_norm){.x = packed,
                                               .weight = weight,
                                               .out = packed_out,
                                               .rows = LINES,
                                               .width = WIDTH,
                                               .eps = 1e-5f});
    strata_op_norm_grad(&rig.ops, &(struct op_norm_grad){.x = packed,
                                                         .weight = weight,
                                                         .dy = packed_dy,
                                                         .dx = packed_dy,
                                                         .dweight = packed_dweight,
                                                         .rows = LINES,
                                                         .width = WIDTH,
                                                         .eps = 1e-5f});
    strata_stream_sync(rig.stream);
    for (uint64_t i = 0; i < ROWS * STRIDE; i++) {
        uint64_t column = i % STRIDE, at = i / STRIDE * HEADS * WIDTH + column;
        bool head = column < HEADS * WIDTH;
        cr_assert_eq(out[i], head ? packed_out[at] : x[i], "out %llu", (unsigned long long)i);
        cr_assert_eq(dx[i], head ? packed_dy[at] : x[i], "dx %llu", (unsigned long long)i);
    }
    cr_assert_arr_eq(dweight, packed_dweight, WIDTH * sizeof *dweight);
    give(weight), give(x), give(dy), give(out), give(dx), give(packed), give(packed_dy);
    give(dweight), give(packed_dweight), give(packed_out);
    rig_close(&rig);
}

/* Biases. */

struct bias_shape {
    uint64_t rows;
    uint64_t width;
};

static void plain_bias(const void *shape, double *const *in, double *out)
{
    const struct bias_shape *s = shape;
    for (uint64_t r = 0; r < s->rows; r++)
        for (uint64_t i = 0; i < s->width; i++)
            out[r * s->width + i] = in[0][r * s->width + i] + in[1][i];
}

static void check_bias(strata_dtype dtype, uint64_t rows, uint64_t width)
{
    struct rig rig = rig_open(2);
    struct bias_shape shape = {rows, width};
    uint64_t count = rows * width;
    float *x = random_floats(count, 1), *bias = random_floats(width, 2);
    float *d_out = random_floats(count, 3), *out = copy_floats(x, count);
    float *dbias = zero_floats(width);
    uint16_t *bias16 = as_bf16(bias, width);
    struct plain plain = {plain_bias, &shape, {x, bias}, {count, width}, count};
    rig.ops.weight_dtype = dtype;
    strata_op_bias(&rig.ops,
                   &(struct op_bias){out, dtype == STRATA_BF16 ? (const void *)bias16 : bias,
                                     rows, width});
    strata_op_bias_grad(&rig.ops, &(struct op_bias_grad){d_out, dbias, rows, width});
    strata_stream_sync(rig.stream);
    expect_forward("bias", &plain, out);
    expect_gradient("bias dbias", &plain, 1, d_out, dbias);
    give(x), give(bias), give(d_out), give(out), give(dbias), give(bias16);
    rig_close(&rig);
}

Test(ops, bias_and_its_gradient_agree_with_double)
{
    check_bias(STRATA_FP32, 1, 1);
    check_bias(STRATA_FP32, 5, 7);
    check_bias(STRATA_FP32, 67, 131); /* several items of rows and of columns */
    if (!ONE_TYPE)
        check_bias(STRATA_BF16, 5, 67);
}

Test(ops, bias_gradient_is_added_to_what_is_there)
{
    struct rig rig = rig_open(1);
    static const float rows[6] = {1, 2, 3, 10, 20, 30}, before[3] = {100, 200, 300};
    float *dy = copy_floats(rows, 6), *dbias = copy_floats(before, 3);
    strata_op_bias_grad(&rig.ops, &(struct op_bias_grad){dy, dbias, 2, 3});
    strata_stream_sync(rig.stream);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(dbias[i], before[i] + rows[i] + rows[i + 3]);
    give(dy), give(dbias);
    rig_close(&rig);
}

Test(ops, gradients_are_added_where_add_is_asked_for)
{
    struct rig rig = rig_open(1);
    enum { ROWS = 3, WIDTH = 4, COUNT = ROWS * WIDTH };
    float *x = random_floats(COUNT, 1), *weight = random_floats(WIDTH, 2),
          *dy = random_floats(COUNT, 3);
    float *once = zero_floats(COUNT), *dweight = zero_floats(WIDTH);
    struct op_norm_grad args = {.x = x,
                                .weight = weight,
                                .dy = dy,
                                .dx = once,
                                .dweight = dweight,
                                .rows = ROWS,
                                .width = WIDTH,
                                .eps = 1e-5f};
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
    uint64_t out_stride; /* 0: no gaps */
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
    strata_op_linear(&rig->ops, &(struct op_linear){c->x, weight, add ? c->y : NULL, c->y,
                                                    s.rows, s.in, s.out, s.out_stride});
    strata_op_linear_dx(&rig->ops, &(struct op_linear){c->dy, weight, add ? c->dx : NULL, c->dx,
                                                       s.rows, s.in, s.out, s.out_stride});
    strata_op_linear_dw(&rig->ops, &(struct op_linear_dw){c->x, c->dy, c->dweight, s.rows, s.in,
                                                          s.out, s.out_stride});
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
    check_linear(STRATA_FP32, (struct linear_shape){1, 1, 1, 0});
    check_linear(STRATA_FP32, (struct linear_shape){3, 5, 2, 0});
    check_linear(STRATA_FP32, (struct linear_shape){37, 131, 70, 0});
    check_linear(STRATA_FP32, (struct linear_shape){257, 33, 290, 0});
    check_linear(STRATA_FP32, (struct linear_shape){600, 9, 1030, 0}); /* panels of full size */
}

/* Rows of `out` numbers with gaps give what those without give, and the gaps stay as they
 * are. */
Test(ops, linear_of_rows_with_gaps_is_that_without_them)
{
    enum { ROWS = 300, IN = 9, OUT = 13, STRIDE = 16 };
    struct rig rig = rig_open(2);
    struct linear_case want = linear_open((struct linear_shape){ROWS, IN, OUT, 0});
    struct linear_case got = linear_open((struct linear_shape){ROWS, IN, OUT, STRIDE});
    give(got.y), give(got.dy);
    got.y = random_floats(ROWS * STRIDE, 14);
    got.dy = random_floats(ROWS * STRIDE, 15);
    float *before = copy_floats(got.y, ROWS * STRIDE);
    for (int r = 0; r < ROWS; r++)
        memcpy(got.dy + r * STRIDE, want.dy + r * OUT, OUT * sizeof *want.dy);
    linear_run(&rig, &want, STRATA_FP32, false);
    linear_run(&rig, &got, STRATA_FP32, false);
    cr_assert_eq(memcmp(got.dx, want.dx, ROWS * IN * sizeof *want.dx), 0);
    cr_assert_eq(memcmp(got.dweight, want.dweight, OUT * IN * sizeof *want.dweight), 0);
    for (int r = 0; r < ROWS; r++) {
        cr_assert_eq(memcmp(got.y + r * STRIDE, want.y + r * OUT, OUT * sizeof *want.y), 0);
        cr_assert_eq(memcmp(got.y + r * STRIDE + OUT, before + r * STRIDE + OUT,
                            (STRIDE - OUT) * sizeof *before),
                     0);
    }
    give(before);
    linear_close(&want), linear_close(&got);
    rig_close(&rig);
}

#if !ONE_TYPE
Test(ops, linear_widens_bf16_weights_exactly)
{
    check_linear(STRATA_BF16, (struct linear_shape){3, 5, 2, 0});
    check_linear(STRATA_BF16, (struct linear_shape){70, 131, 257, 0});
}
#endif

Test(ops, linear_adds_to_what_is_there)
{
    struct rig rig = rig_open(1);
    struct linear_case c = linear_open((struct linear_shape){9, 6, 4, 0});
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

/* An addend apart from the result gives what one in its place gives, and stays as it is. */
Test(ops, linear_adds_an_addend_that_lies_elsewhere)
{
    enum { ROWS = 300, IN = 9, OUT = 13 };
    struct rig rig = rig_open(2);
    struct linear_case there = linear_open((struct linear_shape){ROWS, IN, OUT, 0});
    float *addend = random_floats(ROWS * OUT, 15), *before = copy_floats(addend, ROWS * OUT);
    float *in_place = copy_floats(addend, ROWS * OUT);
    struct op_linear args = {.src = there.x,
                             .weight = there.weight,
                             .addend = addend,
                             .dst = there.y,
                             .rows = ROWS,
                             .in = IN,
                             .out = OUT};
    strata_op_linear(&rig.ops, &args);
    args.addend = args.dst = in_place;
    strata_op_linear(&rig.ops, &args);
    strata_stream_sync(rig.stream);
    cr_assert_arr_eq(there.y, in_place, ROWS * OUT * sizeof *in_place);
    cr_assert_arr_eq(addend, before, ROWS * OUT * sizeof *before);
    give(addend), give(before), give(in_place);
    linear_close(&there);
    rig_close(&rig);
}

/* Gated linear units. */

struct glu_shape {
    uint64_t rows;
    uint64_t width;
    enum op_activation activation;
};

/* As the transformers library and PyTorch write them. */
static double plain_activation(double x, enum op_activation activation)
{
    if (activation == OP_GELU)
        return x * 0.5 * (1.0 + erf(x / sqrt(2.0)));
    if (activation == OP_GELU_TANH)
        return x * 0.5 * (1.0 + tanh(sqrt(2.0 / acos(-1.0)) * (x + 0.044715 * pow(x, 3.0))));
    return x / (1.0 + exp(-x));
}

static void plain_glu(const void *shape, double *const *in, double *out)
{
    const struct glu_shape *s = shape;
    for (uint64_t r = 0; r < s->rows; r++)
        for (uint64_t i = 0; i < s->width; i++) {
            const double *gate = in[0] + r * 2 * s->width;
            out[r * s->width + i] =
                plain_activation(gate[i], s->activation) * gate[s->width + i];
        }
}

static void check_glu(enum op_activation activation)
{
    struct rig rig = rig_open(2);
    enum { ROWS = 7, WIDTH = 19, COUNT = ROWS * WIDTH };
    struct glu_shape shape = {ROWS, WIDTH, activation};
    float *both = random_floats(2 * COUNT, 41), *d_out = random_floats(COUNT, 43);
    for (uint64_t i = 0; i < 2 * COUNT; i++)
        if (i % (2 * WIDTH) < WIDTH)
            both[i] *= 10.0f; /* both ends of the curve */
    float *out = zero_floats(COUNT), *again = copy_floats(d_out, COUNT);
    float *d_both = copy_floats(both, 2 * COUNT);
    struct plain plain = {plain_glu, &shape, {both}, {2 * COUNT}, COUNT};
    strata_op_glu(&rig.ops, &(struct op_glu){both, out, ROWS, WIDTH, activation});
    strata_op_glu_grad(&rig.ops,
                       &(struct op_glu_grad){d_both, again, again, ROWS, WIDTH, activation});
    strata_stream_sync(rig.stream);
    expect_forward("glu", &plain, out);
    expect_gradient("glu's gradient", &plain, 0, d_out, d_both);
    cr_assert_arr_eq(again, out, COUNT * sizeof *out);
    give(both), give(d_out), give(out), give(again), give(d_both);
    rig_close(&rig);
}

Test(ops, glu_of_every_activation_and_its_gradient_agree_with_double)
{
    check_glu(OP_SILU);
    check_glu(OP_GELU);
    check_glu(OP_GELU_TANH);
}

static void check_huge_values(enum op_activation activation)
{
    struct rig rig = rig_open(1);
    static const float huge[4] = {200.0f, -200.0f, 0.0f, -88.0f}, one[4] = {1, 1, 1, 1};
    float *both = zero_floats(8), *ones = copy_floats(one, 4), *out = zero_floats(4);
    memcpy(both, huge, sizeof huge);
    memcpy(both + 4, one, sizeof one);
    strata_op_glu(&rig.ops, &(struct op_glu){both, out, 1, 4, activation});
    strata_op_glu_grad(&rig.ops, &(struct op_glu_grad){both, ones, ones, 1, 4, activation});
    strata_stream_sync(rig.stream);
    cr_assert_float_eq(out[0], 200.0f, 1e-4f);
    cr_assert_float_eq(out[1], 0.0f, 1e-4f);
    for (int i = 0; i < 8; i++)
        cr_assert(isfinite(both[i]), "gradient %d", i);
    give(both), give(ones), give(out);
    rig_close(&rig);
}

Test(ops, glu_of_huge_values_stays_finite)
{
    check_huge_values(OP_SILU);
    check_huge_values(OP_GELU);
    check_huge_values(OP_GELU_TANH);
}
