/*
 * Every CUDA operator beside its host twin, in fp32, bf16 and fp16: on the CPU, emulated, or on
 * a GPU where test_ops_gpu.c says so.
 *
 * Both get numbers of the type; the host keeps them in fp32 arrays, as ops.h says. What has one
 * order of sums must be the same bits: rotary embedding, biases, gated units, look-ups and
 * their gradient. Elsewhere an element may differ by one unit in the last place of its type,
 * where a sum in another order has crossed the middle between two numbers, and by 1e-6 of the
 * array's largest. On a GPU that goes for all of them: its expf() is not the host's. Attention
 * on a CUDA device rounds within, where its products take probabilities, so it is compared by
 * the largest.
 *
 * Shapes: whole chunks of 16 bytes and widths that are not; lines of a few threads, of a warp,
 * of a block, and of more than a block has; strides between rows, and heads in a row.
 */

#ifndef OPS_TABLE
#    define OPS_TABLE strata_ops_emulated
#    define EMULATED  1
#    include "tests/train/ops_emulated.h"
#endif
#define ONE_TYPE 1

#include "tests/train/ops_rig.h"

#include "strata/adam.h"

static const strata_dtype dtypes[] = {STRATA_FP32, STRATA_BF16, STRATA_FP16};

enum { ACTS = 4, VOCAB = 11 };

struct dims {
    uint64_t rows;
    uint64_t width;
    uint64_t heads;  /* 0: 1             */
    uint64_t stride; /* 0: heads x width */
};

static uint64_t row_elems(const struct dims *d)
{
    return d->stride != 0 ? d->stride : (d->heads != 0 ? d->heads : 1) * d->width;
}

/* What an operator works on, on one side. */
struct side {
    struct ops ops;
    const struct dims *dims;
    void *act[ACTS]; /* rows x 2 row_elems each */
    void *weight;    /* VOCAB x width           */
    float *grad;     /* VOCAB x width           */
    struct op_row_stat *stats;
    uint32_t *tokens;
    uint32_t *order;
    uint32_t *starts;
    uint64_t distinct;
    float *table; /* of angles: 7 positions */
    double *loss;
};

/* Opened once for many cases: a device on a GPU takes its time. */
struct rigs {
    struct rig cuda;
    struct rig host;
};

struct twins {
    struct side host;
    struct side cuda;
    uint64_t act_count;
    uint64_t weight_count;
};

static struct rig open_host(void)
{
    struct rig rig = {0};
    strata_error error = {0};
    strata_workers_desc desc = {.thread_count = 2, .unbound = true};
    cr_assert_eq(strata_device_open_host(&rig.device, &error), STRATA_OK);
    cr_assert_eq(strata_stream_create(&rig.stream, rig.device, "twin", &error), STRATA_OK);
    cr_assert_eq(strata_workers_create(&rig.workers, &desc, &error), STRATA_OK);
    rig.ops =
        (struct ops){.table = &strata_ops_host, .stream = rig.stream, .workers = rig.workers};
    rig.ops.scratch = malloc(strata_ops_host.scratch(MATRIX_ELEMS, STRATA_BF16));
    cr_assert_eq(rig.ops.table->open(&rig.ops, &error), STRATA_OK);
    return rig;
}

static void close_host(struct rig *rig)
{
    rig->ops.table->close(&rig->ops);
    strata_stream_destroy(rig->stream);
    strata_workers_destroy(rig->workers);
    strata_device_close(rig->device);
    free(rig->ops.scratch);
}

static void convert(void *dst, strata_dtype to, const void *src, strata_dtype from,
                    uint64_t count)
{
    if (to == from)
        memcpy(dst, src, count * strata_dtype_bytes(to));
    else
        strata_convert(STRATA_ISA_SCALAR, dst, to, src, from, count);
}

/* The same numbers for both sides: rounded to the type, in fp32 for the host. */
static void fill_both(void **cuda, float **host, strata_dtype dtype, uint64_t count,
                      uint32_t seed)
{
    *host = random_floats(count, seed);
    *cuda = take(count * strata_dtype_bytes(dtype));
    convert(*cuda, dtype, *host, STRATA_FP32, count);
    convert(*host, STRATA_FP32, *cuda, dtype, count);
}

static void share(struct side *side, const struct dims *d)
{
    uint32_t room[VOCAB];
    side->tokens = take(d->rows * sizeof *side->tokens);
    side->order = take(d->rows * sizeof *side->order);
    side->starts = take((d->rows + 1) * sizeof *side->starts);
    side->stats = take(d->rows * sizeof *side->stats);
    side->loss = take(sizeof *side->loss);
    for (uint64_t i = 0; i < d->rows; i++)
        side->tokens[i] =
            (uint32_t)(i * i * 7 % (VOCAB + 1)); /* one is beyond the vocabulary */
    side->distinct =
        strata_op_order_tokens(side->tokens, d->rows, VOCAB, side->order, side->starts, room);
    side->table = random_floats(7 * d->width, 95);
    side->dims = d;
}

static struct twins twins_open(const struct rigs *rigs, const struct dims *d,
                               strata_dtype dtype)
{
    struct twins t = {.host.ops = rigs->host.ops, .cuda.ops = rigs->cuda.ops};
    memset(pool, 0, pool_used); /* of the case before */
    pool_used = 0;
    t.act_count = d->rows * 2 * row_elems(d);
    t.weight_count = VOCAB * d->width;
    t.host.ops.weight_dtype = t.cuda.ops.weight_dtype = dtype;
    t.host.ops.act_dtype = t.cuda.ops.act_dtype = dtype;
    for (uint32_t i = 0; i < ACTS; i++)
        fill_both(&t.cuda.act[i], (float **)&t.host.act[i], dtype, t.act_count, 80 + i);
    float *wide;
    fill_both(&t.cuda.weight, &wide, dtype, t.weight_count, 90);
    give(wide);
    t.host.weight = t.cuda.weight;
    t.host.grad = random_floats(t.weight_count, 91);
    t.cuda.grad = random_floats(t.weight_count, 91);
    share(&t.host, d);
    share(&t.cuda, d);
    return t;
}

static void twins_close(struct twins *t)
{
    for (int i = 0; i < ACTS; i++)
        give(t->host.act[i]), give(t->cuda.act[i]);
    give(t->host.weight), give(t->host.grad), give(t->cuda.grad);
    struct side *sides[] = {&t->host, &t->cuda};
    for (int i = 0; i < 2; i++) {
        give(sides[i]->tokens), give(sides[i]->order), give(sides[i]->starts);
        give(sides[i]->stats), give(sides[i]->table), give(sides[i]->loss);
    }
}

/* A unit in the last place, relative to the number. */
static double unit_of(strata_dtype dtype)
{
    return dtype == STRATA_FP32 ? 0x1p-23 : dtype == STRATA_BF16 ? 0x1p-7 : 0x1p-10;
}

/* An operator with its arguments. */
struct twin_op {
    const char *name;
    void (*queue)(const struct side *side);
    enum { NEAR = 0, EXACT, ROUNDED_WITHIN } how;
};

static void compare(const struct twin_op *op, const struct twins *t, const char *array,
                    const float *got, const float *want, uint64_t count, double unit)
{
    const struct dims *d = t->host.dims;
    double largest = 0;
    for (uint64_t i = 0; i < count; i++)
        largest = fmax(largest, fabs((double)want[i]));
    for (uint64_t i = 0; i < count; i++) {
        double most = unit * fabs((double)want[i]) + 1e-6 * largest;
        if (op->how == EXACT && !ON_GPU)
            most = 0;
        if (op->how == ROUNDED_WITHIN)
            most = 4 * unit * largest;
        cr_assert(fabs((double)got[i] - want[i]) <= most,
                  "%s in %s, %llu x %llu: %s, element %llu is %.9g, the host's %.9g", op->name,
                  strata_dtype_name(t->host.ops.act_dtype), (unsigned long long)d->rows,
                  (unsigned long long)d->width, array, (unsigned long long)i, (double)got[i],
                  (double)want[i]);
    }
}

/* Statistics: the largest and the target are numbers of the row, and so the same. */
static void compare_stats(const struct twin_op *op, const struct twins *t)
{
    for (uint64_t i = 0; i < t->host.dims->rows; i++) {
        const struct op_row_stat *got = &t->cuda.stats[i], *want = &t->host.stats[i];
        cr_assert(got->max == want->max && got->target == want->target, "%s: row %llu",
                  op->name, (unsigned long long)i);
        cr_assert(fabs(got->sum - want->sum) <= 1e-6 * want->sum, "%s: row %llu: %.9g, %.9g",
                  op->name, (unsigned long long)i, got->sum, want->sum);
    }
    cr_assert_float_eq(*t->cuda.loss, *t->host.loss, 1e-6);
}

static void check_twins(const struct rigs *rigs, const struct twin_op *op, const struct dims *d,
                        strata_dtype dtype)
{
    static const char *const names[ACTS] = {"array 0", "array 1", "array 2", "array 3"};
    struct twins t = twins_open(rigs, d, dtype);
    op->queue(&t.host);
    op->queue(&t.cuda);
    strata_stream_sync(t.host.ops.stream);
    strata_stream_sync(t.cuda.ops.stream);
    for (int i = 0; i < ACTS; i++) {
        float *got = zero_floats(t.act_count);
        convert(got, STRATA_FP32, t.cuda.act[i], dtype, t.act_count);
        compare(op, &t, names[i], got, t.host.act[i], t.act_count, unit_of(dtype));
        give(got);
    }
    compare(op, &t, "the gradient", t.cuda.grad, t.host.grad, t.weight_count,
            4 * unit_of(STRATA_FP32));
    compare_stats(op, &t);
    twins_close(&t);
}

static void check_all(const struct twin_op *ops, uint32_t op_count, const struct dims *dims,
                      uint32_t dim_count)
{
    struct rigs rigs = {.cuda = rig_open(1), .host = open_host()};
    for (uint32_t o = 0; o < op_count; o++)
        for (uint32_t d = 0; d < dim_count; d++)
            for (uint32_t i = 0; i < 3; i++)
                check_twins(&rigs, &ops[o], &dims[d], dtypes[i]);
    rig_close(&rigs.cuda);
    close_host(&rigs.host);
}
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* Element `count` of a side's activation. */
static void *act_at(const struct side *s, void *act, uint64_t count)
{
    return (char *)act + count * s->ops.table->act_bytes(s->ops.act_dtype);
}

/* Norms. */

static void queue_norm(const struct side *s)
{
    const struct dims *d = s->dims;
    strata_op_norm(&s->ops, &(struct op_norm){s->act[0], s->weight, s->act[1], d->rows,
                                              d->width, d->heads, d->stride, 1e-5f});
}

static void queue_norm_in_place(const struct side *s)
{
    const struct dims *d = s->dims;
    strata_op_norm(&s->ops, &(struct op_norm){s->act[0], s->weight, s->act[0], d->rows,
                                              d->width, d->heads, d->stride, 1e-5f});
}

static void norm_grad(const struct side *s, void *dx, void *normed, bool add)
{
    const struct dims *d = s->dims;
    strata_op_norm_grad(&s->ops, &(struct op_norm_grad){s->act[0], s->weight, s->act[1], dx,
                                                        normed, s->grad, d->rows, d->width,
                                                        d->heads, d->stride, 1e-5f, add});
}

static void queue_norm_grad(const struct side *s)
{
    norm_grad(s, s->act[2], s->act[3], false);
}

/* As the step does it: dx is added to, dy makes room for what the norm gave. */
static void queue_norm_grad_added(const struct side *s)
{
    norm_grad(s, s->act[2], s->act[1], true);
}

static void queue_norm_grad_in_place(const struct side *s)
{
    norm_grad(s, s->act[0], NULL, false);
}

static const struct dims norm_dims[] = {
    {1, 1, 0, 0},     {5, 7, 0, 0},     {37, 64, 0, 0},   {130, 24, 0, 0}, {33, 16, 3, 80},
    {33, 5, 3, 17},   {40, 128, 2, 0},  {19, 264, 0, 0},  {3, 1000, 0, 0}, {18, 4096, 0, 0},
    {17, 5120, 0, 0}, {18, 4099, 0, 0}, {18, 9216, 0, 0}, {2, 8199, 0, 0},
};

Test(twins, norms)
{
    static const struct twin_op ops[] = {{"norm", queue_norm, NEAR},
                                         {"norm in place", queue_norm_in_place, NEAR}};
    check_all(ops, COUNT(ops), norm_dims, COUNT(norm_dims));
}

Test(twins, gradients_of_norms)
{
    static const struct twin_op ops[] = {
        {"norm's gradient", queue_norm_grad, NEAR},
        {"norm's gradient, added", queue_norm_grad_added, NEAR},
        {"norm's gradient in the place of x", queue_norm_grad_in_place, NEAR}};
    check_all(ops, COUNT(ops), norm_dims, COUNT(norm_dims));
}

/* More parts than one of lines, and more lines in a part than the least. */
Test(twins, gradients_of_norms_over_many_lines)
{
    static const struct twin_op ops[] = {{"norm's gradient", queue_norm_grad, NEAR}};
    static const struct dims dims[] = {{5000, 8, 0, 0}, {1030, 3, 5, 16}};
    check_all(ops, COUNT(ops), dims, COUNT(dims));
}

/* Biases. */

static void queue_bias(const struct side *s)
{
    strata_op_bias(&s->ops,
                   &(struct op_bias){s->act[0], s->weight, s->dims->rows, s->dims->width});
}

static void queue_bias_grad(const struct side *s)
{
    strata_op_bias_grad(
        &s->ops, &(struct op_bias_grad){s->act[0], s->grad, s->dims->rows, s->dims->width});
}

static const struct dims plain_dims[] = {
    {1, 1, 0, 0},    {5, 7, 0, 0},    {37, 64, 0, 0},
    {70, 264, 0, 0}, {9, 2056, 0, 0}, {9, 2057, 0, 0},
};

Test(twins, biases)
{
    static const struct twin_op ops[] = {{"bias", queue_bias, EXACT},
                                         {"bias's gradient", queue_bias_grad, NEAR}};
    static const struct dims many = {3000, 40, 0, 0};
    check_all(ops, COUNT(ops), plain_dims, COUNT(plain_dims));
    check_all(ops, COUNT(ops), &many, 1);
}

/* Rotary embedding, of heads at the start of a row. */

static void rotary(const struct side *s, uint32_t turned, bool inverse)
{
    const struct dims *d = s->dims;
    strata_op_rotary(&s->ops, &(struct op_rotary){s->act[0], s->table, d->rows, row_elems(d), 7,
                                                  d->heads != 0 ? (uint32_t)d->heads : 1,
                                                  (uint32_t)d->width, turned, inverse});
}

static void queue_rotary(const struct side *s)
{
    rotary(s, (uint32_t)s->dims->width, false);
}

static void queue_rotary_back(const struct side *s)
{
    rotary(s, (uint32_t)s->dims->width, true);
}

static void queue_rotary_of_half(const struct side *s)
{
    rotary(s, (uint32_t)s->dims->width / 4 * 2, false);
}

Test(twins, rotary_embeddings)
{
    static const struct twin_op ops[] = {
        {"rotary", queue_rotary, EXACT},
        {"rotary, back", queue_rotary_back, EXACT},
        {"rotary of half a head", queue_rotary_of_half, EXACT}};
    static const struct dims dims[] = {
        {1, 2, 0, 0}, {20, 64, 5, 0}, {20, 64, 5, 336}, {20, 6, 3, 20}, {30, 128, 3, 513},
    };
    check_all(ops, COUNT(ops), dims, COUNT(dims));
}

/* Gated linear units. */

static void glu(const struct side *s, enum op_activation activation)
{
    strata_op_glu(&s->ops, &(struct op_glu){s->act[0], s->act[1], s->dims->rows, s->dims->width,
                                            activation});
}

/* out in the place of d_out, as the step does it. */
static void glu_grad(const struct side *s, enum op_activation activation)
{
    strata_op_glu_grad(&s->ops,
                       &(struct op_glu_grad){s->act[0], s->act[1], s->act[1], s->dims->rows,
                                             s->dims->width, activation});
}

static void queue_silu(const struct side *s)
{
    glu(s, OP_SILU);
}

static void queue_gelu(const struct side *s)
{
    glu(s, OP_GELU);
}

static void queue_gelu_tanh(const struct side *s)
{
    glu(s, OP_GELU_TANH);
}

static void queue_silu_grad(const struct side *s)
{
    glu_grad(s, OP_SILU);
}

static void queue_gelu_grad(const struct side *s)
{
    glu_grad(s, OP_GELU);
}

static void queue_gelu_tanh_grad(const struct side *s)
{
    glu_grad(s, OP_GELU_TANH);
}

Test(twins, gated_linear_units)
{
    static const struct twin_op ops[] = {
        {"silu", queue_silu, EXACT},
        {"gelu", queue_gelu, EXACT},
        {"gelu by tanh", queue_gelu_tanh, EXACT},
        {"silu's gradient", queue_silu_grad, EXACT},
        {"gelu's gradient", queue_gelu_grad, EXACT},
        {"gelu's gradient by tanh", queue_gelu_tanh_grad, EXACT}};
    check_all(ops, COUNT(ops), plain_dims, COUNT(plain_dims));
}

/* Look-ups, by a slice of the vocabulary that leaves the first two and the last tokens out. */

enum { FIRST = 2, SLICE = VOCAB - 4 };

static void queue_embed(const struct side *s)
{
    strata_op_embed(&s->ops, &(struct op_embed){s->tokens, s->weight, s->act[0], s->dims->rows,
                                                s->dims->width, FIRST, SLICE});
}

static void queue_embed_grad(const struct side *s)
{
    strata_op_embed_grad(&s->ops,
                         &(struct op_embed_grad){s->tokens, s->order, s->starts, s->act[0],
                                                 s->grad, s->dims->rows, s->distinct,
                                                 s->dims->width, FIRST, SLICE});
}

Test(twins, look_ups)
{
    static const struct twin_op ops[] = {{"look-up", queue_embed, EXACT},
                                         {"look-up's gradient", queue_embed_grad, EXACT}};
    check_all(ops, COUNT(ops), plain_dims, COUNT(plain_dims));
}

/* Cross entropy over two slices, with another stride than the slice is long. */

static void queue_entropy(const struct side *s)
{
    const struct dims *d = s->dims;
    struct op_entropy first = {s->act[0], s->tokens, s->stats,     d->rows,
                               0,         d->width,  row_elems(d), 0.25f};
    struct op_entropy second = first;
    second.logits = s->act[1];
    second.first = d->width;
    strata_op_entropy_begin(&s->ops, s->stats, d->rows);
    strata_op_entropy_scan(&s->ops, &first);
    strata_op_entropy_scan(&s->ops, &second);
    strata_op_entropy_grad(&s->ops, &first);
    strata_op_entropy_grad(&s->ops, &second);
    strata_op_entropy_loss(&s->ops, s->stats, d->rows, s->loss);
}

Test(twins, cross_entropies)
{
    static const struct twin_op ops[] = {{"cross entropy", queue_entropy, NEAR}};
    static const struct dims dims[] = {{1, 1, 0, 0},    {5, 7, 0, 9},        {37, 64, 0, 0},
                                       {300, 8, 0, 16}, {20, 2504, 0, 2512}, {20, 3001, 0, 0}};
    check_all(ops, COUNT(ops), dims, COUNT(dims));
}

/* Products: an addend elsewhere, rows of `width` numbers further apart than they are long. */

static void queue_linear(const struct side *s)
{
    const struct dims *d = s->dims;
    strata_op_linear(&s->ops, &(struct op_linear){s->act[0], s->weight, s->act[1], s->act[2],
                                                  d->rows, VOCAB, d->width, row_elems(d)});
}

static void queue_linear_dx(const struct side *s)
{
    const struct dims *d = s->dims;
    strata_op_linear_dx(&s->ops, &(struct op_linear){s->act[0], s->weight, NULL, s->act[2],
                                                     d->rows, VOCAB, d->width, row_elems(d)});
}

static void queue_linear_dw(const struct side *s)
{
    const struct dims *d = s->dims;
    strata_op_linear_dw(&s->ops, &(struct op_linear_dw){s->act[0], s->act[1], s->grad, d->rows,
                                                        VOCAB, d->width, row_elems(d)});
}

Test(twins, products)
{
    static const struct twin_op ops[] = {{"linear", queue_linear, NEAR},
                                         {"linear dx", queue_linear_dx, NEAR},
                                         {"linear dw", queue_linear_dw, NEAR}};
    static const struct dims dims[] = {{7, 24, 0, 0}, {70, 33, 0, 40}};
    check_all(ops, COUNT(ops), dims, COUNT(dims));
}

/* Attention in packed rows: four query heads, two of keys and of values, two sequences. */

static struct op_heads heads_of(const struct dims *d)
{
    return (struct op_heads){2,  (uint32_t)d->rows / 2, 4, 2, (uint32_t)d->width,
                             20, row_elems(d)};
}

static void queue_attention(const struct side *s)
{
    struct op_heads shape = heads_of(s->dims);
    uint64_t k = 4 * s->dims->width, v = 6 * s->dims->width;
    float *scratch =
        take(s->ops.table->attention_scratch(&shape, STRATA_BF16) * sizeof *scratch);
    strata_op_attention(&s->ops, &(struct op_attention){.q = s->act[0],
                                                        .k = act_at(s, s->act[0], k),
                                                        .v = act_at(s, s->act[0], v),
                                                        .o = s->act[2],
                                                        .scratch = scratch,
                                                        .shape = shape});
    strata_op_attention_grad(&s->ops, &(struct op_attention_grad){.q = s->act[0],
                                                                  .k = act_at(s, s->act[0], k),
                                                                  .v = act_at(s, s->act[0], v),
                                                                  .o = s->act[2],
                                                                  .d_out = s->act[3],
                                                                  .dq = s->act[1],
                                                                  .dk = act_at(s, s->act[1], k),
                                                                  .dv = act_at(s, s->act[1], v),
                                                                  .scratch = scratch,
                                                                  .shape = shape});
    strata_stream_sync(s->ops.stream);
    give(scratch);
}

Test(twins, attentions)
{
    static const struct twin_op ops[] = {{"attention", queue_attention, ROUNDED_WITHIN}};
    static const struct dims dims[] = {{74, 8, 8, 0}, {74, 6, 8, 51}};
    check_all(ops, COUNT(ops), dims, COUNT(dims));
}
