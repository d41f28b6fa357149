/*
 * AdamW: every variant gives the scalar code's bits on every input, and the scalar code
 * computes AdamW. The second is checked against a plain double computation written from the
 * algorithm, not from our formula.
 */

#include "tests/optim/special.h"

enum { GRAD_FP32 = STRATA_FP32, GRAD_BF16 = STRATA_BF16, NO_PARAM = 0 };

struct state {
    struct test_array grad, master, m, v, param;
    strata_adam_range range;
};

static struct state state_make(size_t count, size_t shift, uint32_t grad_dtype,
                               uint32_t param_dtype)
{
    uint32_t grad_bytes = strata_dtype_bytes((strata_dtype)grad_dtype);
    struct state s = {
        .grad = test_array_make(count, grad_bytes, shift),
        .master = test_array_make(count, 4, shift),
        .m = test_array_make(count, 4, shift),
        .v = test_array_make(count, 4, shift),
        .param = test_array_make(count, 4, shift),
    };
    s.range = (strata_adam_range){.grad = s.grad.at,
                                  .master = s.master.at,
                                  .m = s.m.at,
                                  .v = s.v.at,
                                  .param = param_dtype ? s.param.at : NULL,
                                  .grad_dtype = (strata_dtype)grad_dtype,
                                  .param_dtype = (strata_dtype)param_dtype,
                                  .count = count};
    memset(s.param.at, 0x55, count * 4);
    return s;
}

static void state_free(struct state *s)
{
    free(s->grad.base);
    free(s->master.base);
    free(s->m.base);
    free(s->v.base);
    free(s->param.base);
}

static void state_fill(struct state *s, uint64_t seed, bool special)
{
    for (size_t i = 0; i < s->range.count; i++) {
        float grad =
            special ? test_any_float(&seed) : (float)(int32_t)test_next(&seed) * 0x1p-33f;
        if (s->range.grad_dtype == STRATA_FP32)
            ((float *)s->grad.at)[i] = grad;
        else
            strata_convert(STRATA_ISA_SCALAR, (uint16_t *)s->grad.at + i, STRATA_BF16, &grad,
                           STRATA_FP32, 1);
        s->range.master[i] =
            special ? test_any_float(&seed) : (float)(int32_t)test_next(&seed) * 0x1p-31f;
        s->range.m[i] = special ? test_any_float(&seed) : 0;
        s->range.v[i] = special ? fabsf(test_any_float(&seed)) : 0;
    }
}

/* Two states built alike, one updated by the scalar code and one by isa, must be alike
 * again. */
static void expect_same(const struct state *a, const struct state *b, const char *what)
{
    for (size_t i = 0; i < a->range.count; i++) {
        cr_assert(test_same_float(a->range.master[i], b->range.master[i]),
                  "%s: master %zu of %zu: %a and %a", what, i, a->range.count,
                  (double)a->range.master[i], (double)b->range.master[i]);
        cr_assert(test_same_float(a->range.m[i], b->range.m[i]), "%s: m %zu", what, i);
        cr_assert(test_same_float(a->range.v[i], b->range.v[i]), "%s: v %zu", what, i);
        if (a->range.param_dtype == STRATA_FP32)
            cr_assert(test_same_float(((float *)a->param.at)[i], ((float *)b->param.at)[i]));
    }
    if (a->range.param_dtype != STRATA_FP32) /* bf16 has one NaN; NO_PARAM is left as it was */
        cr_assert_eq(memcmp(a->param.at, b->param.at, a->range.count * 2), 0, "%s: param",
                     what);
}

static strata_adam_step some_step(uint64_t t, float grad_scale)
{
    strata_adam_params params = strata_adam_defaults();
    return strata_adam_prepare(&params, t, 1e-3, grad_scale);
}

static void compare_variant(strata_isa isa)
{
    static const uint32_t dtypes[][2] = {{GRAD_FP32, STRATA_FP32}, {GRAD_BF16, STRATA_BF16},
                                         {GRAD_FP32, STRATA_BF16}, {GRAD_BF16, STRATA_FP32},
                                         {GRAD_FP32, NO_PARAM},    {GRAD_BF16, NO_PARAM}};
    strata_adam_step step = some_step(3, 0.7f);
    for (size_t n = 0; n < TEST_COUNTS; n++)
        for (size_t shift = 0; shift < TEST_SHIFTS; shift++)
            for (size_t d = 0; d < 6; d++) {
                struct state a =
                    state_make(test_counts[n], test_shifts[shift], dtypes[d][0], dtypes[d][1]);
                struct state b =
                    state_make(test_counts[n], test_shifts[TEST_SHIFTS - 1 - shift],
                               dtypes[d][0], dtypes[d][1]);
                state_fill(&a, n * 100 + d, true);
                state_fill(&b, n * 100 + d, true);
                a.range.no_decay = b.range.no_decay = d % 2 == 1;
                strata_adam_update(STRATA_ISA_SCALAR, &step, &a.range);
                strata_adam_update(isa, &step, &b.range);
                expect_same(&a, &b, test_isa_name(isa));
                state_free(&a);
                state_free(&b);
            }
}

Test(adam, avx2_gives_the_bits_of_scalar)
{
    TEST_NEEDS_ISA(STRATA_ISA_AVX2);
    compare_variant(STRATA_ISA_AVX2);
}

Test(adam, avx512_gives_the_bits_of_scalar)
{
    TEST_NEEDS_ISA(STRATA_ISA_AVX512);
    compare_variant(STRATA_ISA_AVX512);
}

Test(adam, best_gives_the_bits_of_scalar)
{
    compare_variant(STRATA_ISA_BEST);
}

/* The same elements as one range and as pieces cut anywhere. */
Test(adam, a_split_changes_no_bit)
{
    static const size_t cuts[] = {0, 1, 9, 16, 40, 1000, 1017, 4099};
    strata_adam_step step = some_step(7, 1.0f);
    struct state a = state_make(4099, 0, GRAD_BF16, STRATA_BF16);
    struct state b = state_make(4099, 0, GRAD_BF16, STRATA_BF16);
    state_fill(&a, 5, true);
    state_fill(&b, 5, true);
    strata_adam_update(STRATA_ISA_BEST, &step, &a.range);
    for (size_t i = 0; i + 1 < sizeof cuts / sizeof cuts[0]; i++) {
        strata_adam_range piece = b.range;
        piece.grad = (const uint16_t *)piece.grad + cuts[i];
        piece.param = (uint16_t *)piece.param + cuts[i];
        piece.master += cuts[i];
        piece.m += cuts[i];
        piece.v += cuts[i];
        piece.count = cuts[i + 1] - cuts[i];
        strata_adam_update(STRATA_ISA_BEST, &step, &piece);
    }
    expect_same(&a, &b, "split");
    state_free(&a);
    state_free(&b);
}

/* Nothing before or after the range is touched, by any variant. */
Test(adam, writes_only_its_range)
{
    for (int isa = STRATA_ISA_SCALAR; isa <= STRATA_ISA_AVX512; isa++) {
        if (!strata_isa_usable((strata_isa)isa))
            continue;
        for (size_t count = 0; count < 40; count++) {
            struct state s = state_make(64, 0, GRAD_BF16, STRATA_BF16);
            state_fill(&s, count, false);
            float before[64];
            memcpy(before, s.range.master, sizeof before);
            strata_adam_range range = s.range;
            range.grad = (const uint16_t *)range.grad + 8;
            range.param = (uint16_t *)range.param + 8;
            range.master += 8;
            range.m += 8;
            range.v += 8;
            range.count = count;
            strata_adam_step step = some_step(1, 1.0f);
            strata_adam_update((strata_isa)isa, &step, &range);
            for (size_t i = 0; i < 64; i++) {
                bool inside = i >= 8 && i < 8 + count;
                cr_assert_eq(s.range.master[i] != before[i], inside, "%zu of %zu", i, count);
                cr_assert_eq(s.range.v[i] != 0, inside);
                cr_assert_eq(((uint16_t *)s.param.at)[i] != 0x5555, inside);
            }
            state_free(&s);
        }
    }
}

/* The algorithm in double, one element, with the textbook's bias-corrected moments. */
struct plain {
    double w, m, v;
};

static void plain_step(struct plain *p, double g, uint64_t t, double lr,
                       const strata_adam_params *params)
{
    double b1 = (double)params->beta1;
    double b2 = (double)params->beta2;
    p->w -= lr * (double)params->weight_decay * p->w;
    p->m = b1 * p->m + (1 - b1) * g;
    p->v = b2 * p->v + (1 - b2) * g * g;
    double m_hat = p->m / (1 - pow(b1, (double)t));
    double v_hat = p->v / (1 - pow(b2, (double)t));
    p->w -= lr * m_hat / (sqrt(v_hat) + (double)params->eps);
}

Test(adam, agrees_with_a_plain_double_computation_over_200_steps)
{
    enum { N = 1000 };
    strata_adam_params params = {
        .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.01f};
    struct state s = state_make(N, 0, GRAD_FP32, NO_PARAM);
    state_fill(&s, 1, false);
    struct plain *plain = calloc(N, sizeof *plain);
    cr_assert(plain);
    for (size_t i = 0; i < N; i++)
        plain[i].w = (double)s.range.master[i];
    uint64_t seed = 99;
    for (uint64_t t = 1; t <= 200; t++) {
        double lr = 1e-3 * (1 + (double)(t % 5));
        strata_adam_step step = strata_adam_prepare(&params, t, lr, 0.5f);
        for (size_t i = 0; i < N; i++) {
            float g = (float)(int32_t)test_next(&seed) * 0x1p-31f;
            ((float *)s.grad.at)[i] = 2 * g; /* the scale halves it, exactly */
            plain_step(&plain[i], (double)g, t, lr, &params);
        }
        strata_adam_update(STRATA_ISA_BEST, &step, &s.range);
    }
    for (size_t i = 0; i < N; i++)
        cr_assert_float_eq((double)s.range.master[i], plain[i].w, 3e-6,
                           "element %zu: %g and %g", i, (double)s.range.master[i], plain[i].w);
    free(plain);
    state_free(&s);
}

Test(adam, no_decay_leaves_out_the_decay_and_nothing_else)
{
    strata_adam_params params = {.beta1 = 0, .beta2 = 0, .eps = 1, .weight_decay = 0.5f};
    strata_adam_step step = strata_adam_prepare(&params, 1, 0.5, 1.0f);
    float grad = 0;
    float w[2] = {8, 8};
    float m[2] = {0};
    float v[2] = {0};
    for (size_t i = 0; i < 2; i++) {
        strata_adam_range range = {.grad = &grad,
                                   .master = &w[i],
                                   .m = &m[i],
                                   .v = &v[i],
                                   .grad_dtype = STRATA_FP32,
                                   .count = 1,
                                   .no_decay = i == 1};
        strata_adam_update(STRATA_ISA_BEST, &step, &range);
    }
    cr_assert_eq(w[0], 6.0f);
    cr_assert_eq(w[1], 8.0f);
}

Test(adam, denormal_moments_are_kept)
{
    strata_adam_step step = some_step(1, 1.0f);
    for (int isa = STRATA_ISA_SCALAR; isa <= STRATA_ISA_AVX512; isa++) {
        if (!strata_isa_usable((strata_isa)isa))
            continue;
        float grad[16] = {0};
        float w[16] = {0};
        float m[16];
        float v[16];
        for (size_t i = 0; i < 16; i++) {
            m[i] = 1e-40f;
            v[i] = 1e-40f;
        }
        strata_adam_range range = {
            .grad = grad, .master = w, .m = m, .v = v, .grad_dtype = STRATA_FP32, .count = 16};
        strata_adam_update((strata_isa)isa, &step, &range);
        cr_assert(m[5] > 0.85e-40f && m[5] < 0.95e-40f);
        cr_assert(v[5] > 0.9e-40f && v[5] < 1e-40f);
    }
}

Test(adam, prepare_makes_the_bias_corrections_of_step_t)
{
    strata_adam_params params = {
        .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .weight_decay = 0.1f};
    static const uint64_t steps[] = {1, 2, 3, 10, 100, 12345, 1000000};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        strata_adam_step step = strata_adam_prepare(&params, steps[i], 3e-4, 0.25f);
        double t = (double)steps[i];
        cr_assert_float_eq(step.step_size, 3e-4 / (1 - pow((double)0.9f, t)), 3e-9);
        cr_assert_float_eq(step.inv_sqrt_bias2, 1 / sqrt(1 - pow((double)0.95f, t)), 3e-7);
        cr_assert_eq(step.one_minus_beta1, 1.0f - 0.9f);
        cr_assert_eq(step.decay, (float)(1.0 - 3e-4 * (double)0.1f));
        cr_assert_eq(step.grad_scale, 0.25f);
    }
}
