/*
 * The CUDA operators, by the tests of the host's: on the CPU, emulated, unless test_ops_gpu.c
 * says otherwise. What runs there is ops_cuda.c and the kernels; the products are plain loops.
 * With 16-bit weights activations are rounded too, so those cases are compared with fp32 within
 * the type's precision.
 */

#ifndef OPS_TABLE
#    define OPS_TABLE strata_ops_emulated
#    define EMULATED  1
#    include "tests/train/ops_emulated.h"
#endif
#define ROUNDS_ACTIVATIONS 1

#include "tests/train/test_ops.c"
#include "tests/train/test_ops_attention.c"
#include "tests/train/test_ops_vocab.c"

#include "strata/adam.h"

/* Of the largest value: sums of rounded terms, whose errors of 2^-9 are independent. */
#define HALF_TOLERANCE 2e-2

static void expect_near(const char *what, const float *got, const float *want, uint64_t count)
{
    double most = 0;
    for (uint64_t i = 0; i < count; i++)
        most = fmax(most, fabs((double)want[i]));
    for (uint64_t i = 0; i < count; i++)
        cr_assert(fabs((double)got[i] - want[i]) <= HALF_TOLERANCE * most,
                  "%s: element %llu is %g, wanted %g", what, (unsigned long long)i,
                  (double)got[i], (double)want[i]);
}

struct attended {
    float *o, *dq, *dk, *dv;
};

static struct attended attend(struct op_heads s, strata_dtype dtype)
{
    struct rig rig = rig_open(1);
    float *q = random_floats(q_count(&s), 31), *k = random_floats(kv_count(&s), 32);
    float *v = random_floats(kv_count(&s), 33), *d_out = random_floats(q_count(&s), 34);
    struct attended out = {zero_floats(q_count(&s)), copy_floats(q, q_count(&s)),
                           copy_floats(k, kv_count(&s)), copy_floats(v, kv_count(&s))};
    float *scratch = take(OPS_TABLE.attention_scratch(&s) * sizeof *scratch);
    rig.ops.weight_dtype = dtype;
    strata_op_attention(&rig.ops, &(struct op_attention){q, k, v, out.o, scratch, s});
    strata_op_attention_grad(
        &rig.ops, &(struct op_attention_grad){out.dq, out.dk, out.dv, d_out, scratch, s});
    strata_stream_sync(rig.stream);
    give(q), give(k), give(v), give(d_out), give(scratch);
    rig_close(&rig);
    return out;
}

Test(ops_cuda, attention_in_16_bits_is_near_that_in_fp32)
{
    struct op_heads s = {2, 37, 6, 2, 8, 0};
    struct attended want = attend(s, STRATA_FP32);
    for (strata_dtype dtype = STRATA_BF16; dtype <= STRATA_FP16; dtype++) {
        struct attended got = attend(s, dtype);
        expect_near("o", got.o, want.o, q_count(&s));
        expect_near("dq", got.dq, want.dq, q_count(&s));
        expect_near("dk", got.dk, want.dk, kv_count(&s));
        expect_near("dv", got.dv, want.dv, kv_count(&s));
        give(got.o), give(got.dq), give(got.dk), give(got.dv);
    }
    give(want.o), give(want.dq), give(want.dk), give(want.dv);
}

#ifdef EMULATED
/* 10 blocks of rows; two numbers of keys there, and so two times three products. */
Test(ops_cuda, attention_over_many_blocks_has_few_shapes_of_products)
{
    struct op_heads s = {1, 160, 2, 1, 2, 0};
    struct attended done = attend(s, STRATA_FP32);
    cr_expect_eq(strata_emulated_shape_count(), 6);
    give(done.o), give(done.dq), give(done.dk), give(done.dv);
}

/* Backward begins with all keys; the blocks after it see 16 to 112 of them, in steps of 16 rows
 * and ends that are multiples of 80. */
Test(ops_cuda, attention_in_a_window_over_many_blocks_has_few_shapes_of_products)
{
    struct op_heads s = {1, 160, 2, 1, 2, 20};
    struct attended done = attend(s, STRATA_FP32);
    cr_expect_leq(strata_emulated_shape_count(), 3 * 7);
    give(done.o), give(done.dq), give(done.dk), give(done.dv);
}
#endif

static uint16_t *as_fp16(const float *values, uint64_t count)
{
    uint16_t *out = take(count * sizeof *out);
    strata_convert(STRATA_ISA_SCALAR, out, STRATA_FP16, values, STRATA_FP32, count);
    return out;
}

Test(ops_cuda, linear_in_16_bits_is_near_that_in_fp32)
{
    struct linear_shape s = {70, 131, 257, 0};
    struct rig rig = rig_open(1);
    struct linear_case want = linear_open(s);
    linear_run(&rig, &want, STRATA_FP32, false);
    for (strata_dtype dtype = STRATA_BF16; dtype <= STRATA_FP16; dtype++) {
        struct linear_case got = linear_open(s);
        if (dtype == STRATA_FP16) {
            give(got.weight16);
            got.weight16 = as_fp16(got.weight, s.out * s.in);
        }
        rig.ops.weight_dtype = dtype;
        linear_queue(&rig, &got, got.weight16, false);
        expect_near("y", got.y, want.y, s.rows * s.out);
        expect_near("dx", got.dx, want.dx, s.rows * s.in);
        expect_near("dweight", got.dweight, want.dweight, s.out * s.in);
        linear_close(&got);
    }
    linear_close(&want);
    rig_close(&rig);
}
