/*
 * The CUDA operators, by the tests of the host's: on the CPU, emulated. What runs there is
 * ops_cuda.c and the kernels; the products are plain loops. With 16-bit weights activations are
 * rounded too, so those cases are compared with fp32 within the type's precision.
 */

#define OPS_TABLE          strata_ops_emulated
#define ROUNDS_ACTIVATIONS 1

#include "tests/train/test_ops.c"

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
    float *scratch = malloc(OPS_TABLE.attention_scratch(&s) * sizeof *scratch);
    rig.ops.weight_dtype = dtype;
    strata_op_attention(&rig.ops, &(struct op_attention){q, k, v, out.o, scratch, s});
    strata_op_attention_grad(
        &rig.ops, &(struct op_attention_grad){out.dq, out.dk, out.dv, d_out, scratch, s});
    free(q), free(k), free(v), free(d_out), free(scratch);
    rig_close(&rig);
    return out;
}

Test(ops_cuda, attention_in_16_bits_is_near_that_in_fp32)
{
    struct op_heads s = {2, 37, 6, 2, 8};
    struct attended want = attend(s, STRATA_FP32);
    for (strata_dtype dtype = STRATA_BF16; dtype <= STRATA_FP16; dtype++) {
        struct attended got = attend(s, dtype);
        expect_near("o", got.o, want.o, q_count(&s));
        expect_near("dq", got.dq, want.dq, q_count(&s));
        expect_near("dk", got.dk, want.dk, kv_count(&s));
        expect_near("dv", got.dv, want.dv, kv_count(&s));
        free(got.o), free(got.dq), free(got.dk), free(got.dv);
    }
    free(want.o), free(want.dq), free(want.dk), free(want.dv);
}
