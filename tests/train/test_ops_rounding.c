/*
 * Activations in 16 bits: an operator computes in fp32 and rounds each element that it writes
 * once. So with arguments that are numbers of the type, what it gives is what it gives in fp32,
 * rounded; and the gradients of weights are those in fp32 to the bit.
 */

#include "tests/train/ops_rig.h"

#include "strata/adam.h"

enum { ROWS = 70, WIDTH = 24, ELEMS = ROWS * 3 * WIDTH };

/* What an operator may read and write: activations, and gradients of weights. */
struct arrays {
    float *act[5];
    float *grad;
    const uint16_t *weight;
};
enum { ACTS = 5 };

typedef void queue_operator(struct rig *rig, struct arrays *a);

static void round_to(strata_dtype dtype, float *values, uint64_t count)
{
    uint16_t *half = malloc(count * sizeof *half);
    cr_assert_not_null(half);
    strata_convert(STRATA_ISA_SCALAR, half, dtype, values, STRATA_FP32, count);
    strata_convert(STRATA_ISA_SCALAR, values, STRATA_FP32, half, dtype, count);
    free(half);
}

static struct arrays arrays_of(strata_dtype dtype)
{
    struct arrays a = {.grad = random_floats(ELEMS, 90)};
    float *weight = random_floats(ELEMS, 91);
    uint16_t *half = take(ELEMS * sizeof *half);
    strata_convert(STRATA_ISA_SCALAR, half, dtype, weight, STRATA_FP32, ELEMS);
    give(weight);
    a.weight = half;
    for (uint32_t i = 0; i < ACTS; i++) {
        a.act[i] = random_floats(ELEMS, 80 + i);
        round_to(dtype, a.act[i], ELEMS);
    }
    return a;
}

static struct arrays run(queue_operator *queue, strata_dtype weight_dtype,
                         strata_dtype act_dtype)
{
    struct rig rig = rig_open(2);
    struct arrays a = arrays_of(weight_dtype);
    rig.ops.weight_dtype = weight_dtype;
    rig.ops.act_dtype = act_dtype;
    queue(&rig, &a);
    rig_close(&rig);
    return a;
}

static void check(const char *name, queue_operator *queue)
{
    for (strata_dtype dtype = STRATA_BF16; dtype <= STRATA_FP16; dtype++) {
        struct arrays before = arrays_of(dtype);
        struct arrays wide = run(queue, dtype, STRATA_FP32), narrow = run(queue, dtype, dtype);
        bool wrote = false;
        cr_assert_arr_eq(narrow.grad, wide.grad, ELEMS * sizeof *wide.grad, "%s: grad", name);
        for (int i = 0; i < ACTS; i++) {
            float *want = copy_floats(wide.act[i], ELEMS);
            round_to(dtype, want, ELEMS);
            for (uint64_t e = 0; e < ELEMS; e++)
                cr_assert_eq(narrow.act[i][e], want[e],
                             "%s in %s: array %d, element %llu is %g of %g", name,
                             strata_dtype_name(dtype), i, (unsigned long long)e,
                             (double)narrow.act[i][e], (double)wide.act[i][e]);
            wrote |= memcmp(before.act[i], narrow.act[i], ELEMS * sizeof *want) != 0;
            give(want), give(before.act[i]), give(wide.act[i]), give(narrow.act[i]);
        }
        wrote |= memcmp(before.grad, narrow.grad, ELEMS * sizeof *wide.grad) != 0;
        cr_assert(wrote, "%s wrote nothing", name);
        give(before.grad), give(wide.grad), give(narrow.grad);
    }
}

static void queue_norm(struct rig *rig, struct arrays *a)
{
    strata_op_norm(&rig->ops, &(struct op_norm){a->act[0], a->weight, a->act[1], ROWS, WIDTH, 2,
                                                3 * WIDTH, 1e-5f});
}

static void queue_norm_grad(struct rig *rig, struct arrays *a)
{
    strata_op_norm_grad(&rig->ops, &(struct op_norm_grad){a->act[0], a->weight, a->act[1],
                                                          a->act[2], a->act[1], a->grad, ROWS,
                                                          WIDTH, 0, 0, 1e-5f, true});
}

static void queue_linear(struct rig *rig, struct arrays *a)
{
    strata_op_linear(&rig->ops, &(struct op_linear){a->act[0], a->weight, a->act[1], a->act[2],
                                                    ROWS, WIDTH, 2 * WIDTH, 3 * WIDTH});
}

static void queue_linear_dx(struct rig *rig, struct arrays *a)
{
    strata_op_linear_dx(&rig->ops, &(struct op_linear){a->act[0], a->weight, NULL, a->act[2],
                                                       ROWS, WIDTH, 2 * WIDTH, 3 * WIDTH});
}

static void queue_linear_dw(struct rig *rig, struct arrays *a)
{
    strata_op_linear_dw(&rig->ops, &(struct op_linear_dw){a->act[0], a->act[1], a->grad, ROWS,
                                                          WIDTH, WIDTH, 0});
}

static void queue_bias(struct rig *rig, struct arrays *a)
{
    strata_op_bias(&rig->ops, &(struct op_bias){a->act[0], a->weight, ROWS, WIDTH});
    strata_op_bias_grad(&rig->ops, &(struct op_bias_grad){a->act[1], a->grad, ROWS, WIDTH});
}

static void queue_rotary(struct rig *rig, struct arrays *a)
{
    float *table = random_floats(7 * 6, 95);
    strata_op_rotary(&rig->ops,
                     &(struct op_rotary){a->act[0], table, ROWS, 3 * WIDTH, 7, 8, 6, 6, false});
    strata_stream_sync(rig->stream);
    give(table);
}

static void queue_attention(struct rig *rig, struct arrays *a)
{
    struct op_heads s = {2, ROWS / 2, 4, 2, 6, 20, 2 * WIDTH};
    float *scratch = take(OPS_TABLE.attention_scratch(&s, STRATA_BF16) * sizeof *scratch);
    float *qkv = a->act[0], *d = a->act[1];
    strata_op_attention(&rig->ops, &(struct op_attention){qkv, qkv + WIDTH, qkv + WIDTH * 3 / 2,
                                                          a->act[2], NULL, scratch, s});
    strata_op_attention_grad(
        &rig->ops,
        &(struct op_attention_grad){qkv, qkv + WIDTH, qkv + WIDTH * 3 / 2, a->act[2], NULL,
                                    a->act[3], d, d + WIDTH, d + WIDTH * 3 / 2, scratch, s});
    strata_stream_sync(rig->stream);
    give(scratch);
}

static void queue_glu(struct rig *rig, struct arrays *a)
{
    strata_op_glu(&rig->ops, &(struct op_glu){a->act[0], a->act[1], ROWS, WIDTH, OP_SILU});
}

static void queue_glu_grad(struct rig *rig, struct arrays *a)
{
    strata_op_glu_grad(&rig->ops, &(struct op_glu_grad){a->act[0], a->act[1], a->act[1], ROWS,
                                                        WIDTH, OP_GELU});
}

static void queue_entropy(struct rig *rig, struct arrays *a)
{
    uint32_t *targets = take(ROWS * sizeof *targets);
    struct op_row_stat *stats = take(ROWS * sizeof *stats);
    struct op_entropy args = {a->act[0], targets, stats, ROWS, 0, WIDTH, 3 * WIDTH, 0.25f};
    strata_op_entropy_begin(&rig->ops, stats, ROWS);
    strata_op_entropy_scan(&rig->ops, &args);
    strata_op_entropy_grad(&rig->ops, &args);
    strata_stream_sync(rig->stream);
    give(targets), give(stats);
}

Test(ops_rounding, each_operator_rounds_what_it_writes_once)
{
    check("norm", queue_norm);
    check("norm's gradient", queue_norm_grad);
    check("linear", queue_linear);
    check("linear dx", queue_linear_dx);
    check("linear dw", queue_linear_dw);
    check("bias", queue_bias);
    check("rotary", queue_rotary);
    check("attention", queue_attention);
    check("glu", queue_glu);
    check("glu's gradient", queue_glu_grad);
    check("entropy", queue_entropy);
}
