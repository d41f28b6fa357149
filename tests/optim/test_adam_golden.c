/*
 * The optimizer against PyTorch: 100 steps at rate 1e-4, element by element, weights and both
 * moments, AdamW and Adam with L2 decay, in every instruction set. |a - b| is at most 1e-6 of
 * the larger of |b| and the array's root mean square (it is 0 for m, 2.2e-7 for v and 8.4e-8
 * for weights).
 *
 * The golden file is made by tools/make_golden_adam.py, whose top describes it. Beside it stand
 * the cases of DeepSpeed's own tests of its CPU optimizer, elementwise instead of by norm.
 */

#include "tests/optim/special.h"

#include <stdio.h>

#define TOLERANCE 1e-6

static float value(uint32_t stream, uint32_t i)
{
    uint32_t x = i + stream * 0x9E3779B1u;
    x *= 0x85EBCA6Bu;
    x ^= x >> 15;
    x *= 0xC2B2AE35u;
    x ^= x >> 13;
    return (float)(x >> 8) / (float)(1 << 23) - 1.0f;
}

static void expect_near(const float *a, const double *b, size_t count, double tolerance,
                        const char *what)
{
    double squares = 0;
    double worst = 0;
    for (size_t i = 0; i < count; i++)
        squares += b[i] * b[i];
    double rms = sqrt(squares / (double)count);
    for (size_t i = 0; i < count; i++) {
        double size = fabs(b[i]) > rms ? fabs(b[i]) : rms;
        worst = fmax(worst, fabs((double)a[i] - b[i]) / size);
    }
    cr_expect_leq(worst, tolerance, "%s: off by %.2e", what, worst);
}

static void run_golden(FILE *file, strata_isa isa, bool l2)
{
    enum { ELEMS = 1000, STEPS = 100 };
    static float w[ELEMS], m[ELEMS], v[ELEMS], grad[ELEMS];
    strata_adam_params params = {
        .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.01, .l2_decay = l2};
    strata_adam_range range = {
        .grad = grad, .master = w, .m = m, .v = v, .grad_dtype = STRATA_FP32, .count = ELEMS};
    memset(m, 0, sizeof m);
    memset(v, 0, sizeof v);
    for (uint32_t i = 0; i < ELEMS; i++)
        w[i] = value(0, i);
    for (uint32_t t = 1; t <= STEPS; t++) {
        for (uint32_t i = 0; i < ELEMS; i++)
            grad[i] = value(t, i);
        strata_adam_step step = strata_adam_prepare(&params, t, 1e-4, 1.0f);
        strata_adam_update(isa, &step, &range);
    }
    float *const ours[] = {w, m, v};
    const char *const names[] = {"weights", "m", "v"};
    for (int a = 0; a < 3; a++) {
        static float golden[ELEMS];
        static double wide[ELEMS];
        char what[64];
        cr_assert_eq(fread(golden, sizeof golden, 1, file), 1);
        for (uint32_t i = 0; i < ELEMS; i++)
            wide[i] = (double)golden[i];
        snprintf(what, sizeof what, "%s %s, %s", l2 ? "Adam" : "AdamW", names[a],
                 test_isa_name(isa));
        expect_near(ours[a], wide, ELEMS, TOLERANCE, what);
    }
}

Test(adam_golden, agrees_with_pytorch_element_by_element_over_100_steps)
{
    for (int isa = STRATA_ISA_SCALAR; isa <= STRATA_ISA_AVX512; isa++) {
        if (!strata_isa_usable((strata_isa)isa))
            continue;
        uint32_t head[3];
        FILE *file = fopen(STRATA_TESTS_DIR "/optim/golden_adam.bin", "rb");
        cr_assert_not_null(file);
        cr_assert_eq(fread(head, sizeof head, 1, file), 1);
        cr_assert(head[0] == 0x4d414447 && head[1] == 1000 && head[2] == 100);
        run_golden(file, (strata_isa)isa, false);
        run_golden(file, (strata_isa)isa, true);
        cr_assert_eq(fgetc(file), EOF);
        fclose(file);
    }
}

/* Ten steps as there, with gradients cast to the type; the reference is the algorithm in double
 * on the very same gradients. */
static void deepspeed_case(uint32_t count, strata_dtype dtype)
{
    float *w = calloc(count, sizeof *w);
    float *m = calloc(count, sizeof *m);
    float *v = calloc(count, sizeof *v);
    float *wide = calloc(count, sizeof *wide);
    uint8_t *grad = calloc(count, 4);
    double *exact = calloc(3 * (size_t)count, sizeof *exact);
    cr_assert(w && m && v && wide && grad && exact);
    strata_adam_params params = {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
    strata_adam_range range = {
        .grad = grad, .master = w, .m = m, .v = v, .grad_dtype = dtype, .count = count};
    for (uint32_t i = 0; i < count; i++)
        exact[i] = (double)(w[i] = value(0, i));
    for (uint32_t t = 1; t <= 10; t++) {
        for (uint32_t i = 0; i < count; i++)
            wide[i] = value(t, i);
        strata_convert(STRATA_ISA_SCALAR, grad, dtype, wide, STRATA_FP32, count);
        strata_convert(STRATA_ISA_SCALAR, wide, STRATA_FP32, grad, dtype, count);
        strata_adam_step step = strata_adam_prepare(&params, t, 1e-3, 1.0f);
        strata_adam_update(STRATA_ISA_BEST, &step, &range);
        for (uint32_t i = 0; i < count; i++) {
            double g = (double)wide[i];
            double *em = exact + count + i;
            double *ev = exact + 2 * (size_t)count + i;
            *em = 0.9 * *em + 0.1 * g;
            *ev = 0.999 * *ev + 0.001 * g * g;
            exact[i] -=
                1e-3 * (*em / (1 - pow(0.9, t))) / (sqrt(*ev / (1 - pow(0.999, t))) + 1e-8);
        }
    }
    expect_near(w, exact, count, TOLERANCE, "weights");
    expect_near(m, exact + count, count, TOLERANCE, "m");
    expect_near(v, exact + 2 * (size_t)count, count, TOLERANCE, "v");
    free(w);
    free(m);
    free(v);
    free(wide);
    free(grad);
    free(exact);
}

Test(adam_golden, the_cases_of_deepspeeds_tests_agree_element_by_element)
{
    static const uint32_t counts[] = {8, 16, 22, 64, 128, 1024, 1048576};
    static const strata_dtype dtypes[] = {STRATA_FP32, STRATA_BF16, STRATA_FP16};
    for (size_t n = 0; n < sizeof counts / sizeof counts[0]; n++)
        for (int d = 0; d < 3; d++)
            deepspeed_case(counts[n], dtypes[d]);
}
