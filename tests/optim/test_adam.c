/*
 * Adam: every variant gives the scalar code's bytes on every input, and the scalar code
 * computes Adam. The second is checked against a plain double computation written from the
 * algorithm, not from our formula.
 */

#include "strata/workers.h"
#include "tests/optim/special.h"

/* What a sanitizer sees of a kernel does not depend on the values. */
#if defined(__SANITIZE_ADDRESS__)
#    define RANDOM_CASES 2000u
#else
#    define RANDOM_CASES 10000u
#endif

static const strata_dtype NO_PARAM = (strata_dtype)0;

/* One call of the kernel, but for its contents. */
struct test_case {
    size_t count;
    size_t shift; /* elements, of every array */
    strata_dtype grad;
    strata_dtype param; /* NO_PARAM: none */
    strata_dtype moment;
    bool l2;
    bool no_decay;
    bool stream;
    double decay;
    uint64_t t;
    uint64_t element;
    uint64_t fill; /* seed of the contents */
    bool plain;    /* contents: only usual values, moments 0 */
};

struct state {
    struct test_array grad, master, m, v, param;
    strata_adam_range range;
};

static strata_adam_step step_of(const struct test_case *c)
{
    strata_adam_params params = strata_adam_defaults();
    params.weight_decay = c->decay;
    params.l2_decay = c->l2;
    return strata_adam_prepare(&params, c->t, 1e-3, 0.7f);
}

static void put(void *array, strata_dtype dtype, size_t i, float value)
{
    strata_convert(STRATA_ISA_SCALAR, (uint8_t *)array + i * strata_dtype_bytes(dtype), dtype,
                   &value, STRATA_FP32, 1);
}

static void fill(struct state *s, const struct test_case *c)
{
    uint64_t seed = c->fill;
    for (size_t i = 0; i < c->count; i++) {
        put(s->grad.at, c->grad, i, c->plain ? test_usual(&seed) : test_any_float(&seed));
        s->range.master[i] = c->plain ? test_usual(&seed) : test_any_float(&seed);
        put(s->m.at, c->moment, i, c->plain ? 0 : test_any_float(&seed));
        put(s->v.at, c->moment, i, c->plain ? 0 : fabsf(test_any_float(&seed)));
    }
    memset(s->param.at, 0x55, c->count * 4);
}

/* Its arrays have nothing in them yet. */
static struct state state_take(const struct test_case *c, size_t shift)
{
    struct state s = {
        .grad = test_array_make(c->count, strata_dtype_bytes(c->grad), shift),
        .master = test_array_make(c->count, 4, shift),
        .m = test_array_make(c->count, strata_dtype_bytes(c->moment), shift),
        .v = test_array_make(c->count, strata_dtype_bytes(c->moment), shift),
        .param = test_array_make(c->count, 4, shift),
    };
    s.range = (strata_adam_range){.grad = s.grad.at,
                                  .master = s.master.at,
                                  .m = s.m.at,
                                  .v = s.v.at,
                                  .param = c->param != NO_PARAM ? s.param.at : NULL,
                                  .grad_dtype = c->grad,
                                  .param_dtype = c->param,
                                  .moment_dtype = c->moment,
                                  .count = c->count,
                                  .no_decay = c->no_decay,
                                  .stream_param = c->stream,
                                  .seed = 0x123456789abcdef0 + c->fill,
                                  .tensor = 5,
                                  .element = c->element};
    return s;
}

static struct state state_make(const struct test_case *c, size_t shift)
{
    struct state s = state_take(c, shift);
    fill(&s, c);
    return s;
}

/* The same contents at another address. Making them takes longer than an update does. */
static struct state state_copy(const struct state *from, const struct test_case *c,
                               size_t shift)
{
    struct state s = state_take(c, shift);
    size_t moment_bytes = c->count * strata_dtype_bytes(c->moment);
    memcpy(s.grad.at, from->grad.at, c->count * strata_dtype_bytes(c->grad));
    memcpy(s.master.at, from->master.at, c->count * 4);
    memcpy(s.m.at, from->m.at, moment_bytes);
    memcpy(s.v.at, from->v.at, moment_bytes);
    memcpy(s.param.at, from->param.at, c->count * 4);
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

/* Bytes, not values: what is stored has one NaN. */
static void expect_same(const struct state *a, const struct state *b, const char *what)
{
    size_t count = a->range.count;
    size_t moment_bytes = count * strata_dtype_bytes(a->range.moment_dtype);
    bool same = memcmp(a->range.master, b->range.master, count * 4) == 0;
    for (size_t i = 0; !same && i < count; i++)
        cr_assert_eq(test_bits_of(a->range.master[i]), test_bits_of(b->range.master[i]),
                     "%s: master %zu of %zu: %a and %a", what, i, count,
                     (double)a->range.master[i], (double)b->range.master[i]);
    cr_assert_eq(memcmp(a->range.m, b->range.m, moment_bytes), 0, "%s: m of %zu", what, count);
    cr_assert_eq(memcmp(a->range.v, b->range.v, moment_bytes), 0, "%s: v of %zu", what, count);
    cr_assert_eq(memcmp(a->param.at, b->param.at, count * 4), 0, "%s: param of %zu", what,
                 count);
}

/* The part of a range from element `first` on. */
static strata_adam_range part(const strata_adam_range *range, size_t first, size_t count)
{
    strata_adam_range out = *range;
    size_t moment_bytes = strata_dtype_bytes(range->moment_dtype);
    out.grad = (const uint8_t *)range->grad + first * strata_dtype_bytes(range->grad_dtype);
    out.master += first;
    out.m = (uint8_t *)range->m + first * moment_bytes;
    out.v = (uint8_t *)range->v + first * moment_bytes;
    if (range->param != NULL)
        out.param = (uint8_t *)range->param + first * strata_dtype_bytes(range->param_dtype);
    out.element += first;
    out.count = count;
    return out;
}

/* Two states built alike, at other addresses, one updated by the scalar code. */
static void compare(strata_isa isa, const struct test_case *c)
{
    struct state a = state_make(c, 0);
    struct state b = state_copy(&a, c, c->shift);
    strata_adam_step step = step_of(c);
    strata_adam_update(STRATA_ISA_SCALAR, &step, &a.range);
    strata_adam_update(isa, &step, &b.range);
    expect_same(&a, &b, test_isa_name(isa));
    state_free(&a);
    state_free(&b);
}

static const strata_dtype dtypes[] = {STRATA_FP32, STRATA_BF16, STRATA_FP16};

/* Form number i of 24: dtypes of gradient, parameter (or none) and moments. */
static struct test_case form(uint32_t i)
{
    uint32_t param = i / 3 % 4;
    return (struct test_case){.grad = dtypes[i % 3],
                              .param = param < 3 ? dtypes[param] : NO_PARAM,
                              .moment = i / 12 % 2 == 0 ? STRATA_FP32 : STRATA_BF16};
}

static void compare_sizes(strata_isa isa)
{
    for (size_t n = 0; n < TEST_COUNTS; n++)
        for (size_t shift = 0; shift < TEST_SHIFTS; shift++)
            for (uint32_t i = 0; i < 24; i++) {
                struct test_case c = form(i);
                c.count = test_counts[n];
                /* The two long ones take most of the time: each form once. */
                if (c.count > 10000 && shift != i % TEST_SHIFTS)
                    continue;
                c.shift = test_shifts[shift];
                c.decay = i % 2 == 0 ? 0.01 : 0;
                c.l2 = i % 5 == 4;
                c.no_decay = i % 7 == 6;
                c.stream = (i + shift) % 2 == 0;
                c.t = 1 + i;
                c.element = shift * 29;
                c.fill = n * 100 + i;
                compare(isa, &c);
            }
}

static void compare_random_cases(strata_isa isa)
{
    uint64_t seed = 17;
    for (uint32_t i = 0; i < RANDOM_CASES; i++) {
        struct test_case c = form(test_next(&seed));
        c.count = test_next(&seed) % 400;
        c.shift = test_next(&seed) % 64;
        c.decay = test_next(&seed) % 2 == 0 ? 0.01 : 0;
        c.l2 = test_next(&seed) % 4 == 0;
        c.no_decay = test_next(&seed) % 4 == 0;
        c.stream = test_next(&seed) % 2 == 0;
        c.t = 1 + test_next(&seed) % 1000;
        c.element = (uint64_t)test_next(&seed) << (test_next(&seed) % 8);
        c.fill = i;
        compare(isa, &c);
    }
}

/* What a step leaves is what the next one begins with. */
static void compare_1000_steps(strata_isa isa, strata_dtype moment, bool l2)
{
    struct test_case c = {.count = 333,
                          .grad = STRATA_BF16,
                          .param = STRATA_BF16,
                          .moment = moment,
                          .decay = 0.01,
                          .l2 = l2,
                          .plain = true,
                          .fill = 3};
    struct state a = state_make(&c, 0);
    struct state b = state_copy(&a, &c, 5);
    uint64_t seed = 4;
    for (c.t = 1; c.t <= 1000; c.t++) {
        for (size_t i = 0; i < c.count; i++) {
            float grad = test_usual(&seed) * (i % 3 == 0 ? 1e-22f : 1.0f);
            put(a.grad.at, STRATA_BF16, i, grad);
            put(b.grad.at, STRATA_BF16, i, grad);
        }
        strata_adam_step step = step_of(&c);
        strata_adam_update(STRATA_ISA_SCALAR, &step, &a.range);
        strata_adam_update(isa, &step, &b.range);
        expect_same(&a, &b, "1000 steps");
    }
    state_free(&a);
    state_free(&b);
}

static void compare_variant(strata_isa isa)
{
    compare_sizes(isa);
    compare_random_cases(isa);
    compare_1000_steps(isa, STRATA_FP32, false);
    compare_1000_steps(isa, STRATA_BF16, true);
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
    compare_sizes(STRATA_ISA_BEST);
}

/* The same elements as one range and as pieces cut anywhere. */
Test(adam, a_split_changes_no_bit)
{
    static const size_t cuts[] = {0, 1, 9, 16, 40, 1000, 1017, 4099};
    for (uint32_t f = 0; f < 24; f++) {
        struct test_case c = form(f);
        c.count = 4099;
        c.t = 7;
        c.element = 11;
        struct state a = state_make(&c, 0);
        struct state b = state_copy(&a, &c, 0);
        strata_adam_step step = step_of(&c);
        strata_adam_update(STRATA_ISA_BEST, &step, &a.range);
        for (size_t i = 0; i + 1 < sizeof cuts / sizeof cuts[0]; i++) {
            strata_adam_range piece = part(&b.range, cuts[i], cuts[i + 1] - cuts[i]);
            strata_adam_update(STRATA_ISA_BEST, &step, &piece);
        }
        expect_same(&a, &b, "split");
        state_free(&a);
        state_free(&b);
    }
}

struct share {
    const strata_adam_step *step;
    const strata_adam_range *range;
    uint32_t count;
};

static void update_share(void *user, uint32_t index, uint32_t worker)
{
    (void)worker;
    const struct share *share = user;
    size_t first = share->range->count * index / share->count;
    size_t end = share->range->count * (index + 1) / share->count;
    strata_adam_range piece = part(share->range, first, end - first);
    strata_adam_update(STRATA_ISA_BEST, share->step, &piece);
}

Test(adam, threads_change_no_bit)
{
    static const uint32_t threads[] = {1, 2, 3, 7};
    for (size_t n = 0; n < 4; n++) {
        strata_workers *workers;
        strata_workers_desc desc = {.thread_count = threads[n]};
        cr_assert_eq(strata_workers_create(&workers, &desc, NULL), STRATA_OK);
        for (uint32_t f = 0; f < 24; f++) {
            struct test_case c = form(f);
            c.count = 100003;
            c.t = 2;
            c.stream = f % 2 == 0;
            struct state a = state_make(&c, 0);
            struct state b = state_copy(&a, &c, 1);
            strata_adam_step step = step_of(&c);
            struct share share = {&step, &b.range, threads[n]};
            strata_adam_update(STRATA_ISA_BEST, &step, &a.range);
            strata_workers_run(workers, STRATA_JOB_UPDATE, update_share, &share, threads[n]);
            expect_same(&a, &b, "threads");
            state_free(&a);
            state_free(&b);
        }
        strata_workers_destroy(workers);
    }
}

/* Nothing before or after the range is touched, by any variant. */
Test(adam, writes_only_its_range)
{
    for (int isa = STRATA_ISA_SCALAR; isa <= STRATA_ISA_AVX512; isa++) {
        if (!strata_isa_usable((strata_isa)isa))
            continue;
        for (uint32_t f = 0; f < 24; f++)
            for (size_t count = 0; count < 150; count += 1 + count / 8) {
                struct test_case c = form(f);
                c.count = 200;
                c.t = 1;
                c.fill = count;
                c.plain = true;
                c.stream = count % 2 == 0;
                struct state a = state_make(&c, 0);
                struct state b = state_copy(&a, &c, 0);
                strata_adam_range inside = part(&b.range, 8, count);
                strata_adam_step step = step_of(&c);
                strata_adam_update((strata_isa)isa, &step, &inside);
                for (size_t i = 0; i < c.count; i++) {
                    bool in = i >= 8 && i < 8 + count;
                    cr_assert_eq(a.range.master[i] != b.range.master[i], in, "%zu of %zu", i,
                                 count);
                }
                /* Put back what the range holds: then all must be as it was. */
                strata_adam_range before = part(&a.range, 8, count);
                memcpy(inside.master, before.master, count * 4);
                memcpy(inside.m, before.m, count * strata_dtype_bytes(c.moment));
                memcpy(inside.v, before.v, count * strata_dtype_bytes(c.moment));
                if (c.param != NO_PARAM)
                    memcpy(inside.param, before.param, count * strata_dtype_bytes(c.param));
                expect_same(&a, &b, "put back");
                state_free(&a);
                state_free(&b);
            }
    }
}

Test(adam, a_nan_is_stored_as_the_one)
{
    for (int isa = STRATA_ISA_SCALAR; isa <= STRATA_ISA_AVX512; isa++) {
        if (!strata_isa_usable((strata_isa)isa))
            continue;
        struct test_case c = {.count = 200,
                              .grad = STRATA_FP32,
                              .param = STRATA_FP16,
                              .moment = STRATA_FP32,
                              .t = 1,
                              .plain = true};
        struct state s = state_make(&c, 0);
        for (size_t i = 0; i < c.count; i++)
            put(s.grad.at, c.grad, i, test_float_of(0xffc12345 + (uint32_t)i));
        strata_adam_step step = step_of(&c);
        strata_adam_update((strata_isa)isa, &step, &s.range);
        for (size_t i = 0; i < c.count; i++) {
            cr_assert_eq(test_bits_of(s.range.master[i]), 0x7fc00000);
            cr_assert_eq(test_bits_of(((float *)s.range.m)[i]), 0x7fc00000);
            cr_assert_eq(test_bits_of(((float *)s.range.v)[i]), 0x7fc00000);
            cr_assert_eq(((uint16_t *)s.range.param)[i], 0x7e00);
        }
        state_free(&s);
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
    struct test_case c = {
        .count = N, .grad = STRATA_FP32, .moment = STRATA_FP32, .plain = true, .fill = 1};
    struct state s = state_make(&c, 0);
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

/* One element by hand: the decay joins the gradient, and the moments see it. */
Test(adam, l2_decay_is_added_to_the_gradient)
{
    strata_adam_params params = {
        .beta1 = 0, .beta2 = 0, .eps = 0, .weight_decay = 0.5, .l2_decay = true};
    strata_adam_step step = strata_adam_prepare(&params, 1, 0.25, 1.0f);
    float grad = 2;
    float w = 8;
    float m = 0;
    float v = 0;
    strata_adam_range range = {
        .grad = &grad, .master = &w, .m = &m, .v = &v, .grad_dtype = STRATA_FP32, .count = 1};
    strata_adam_update(STRATA_ISA_BEST, &step, &range);
    cr_assert_eq(m, 6.0f);
    cr_assert_eq(v, 36.0f);
    cr_assert_eq(w, 7.75f);
    range.no_decay = true;
    strata_adam_update(STRATA_ISA_BEST, &step, &range);
    cr_assert_eq(m, 2.0f);
}

Test(adam, denormal_moments_are_kept)
{
    strata_adam_params params = strata_adam_defaults();
    strata_adam_step step = strata_adam_prepare(&params, 1, 1e-3, 1.0f);
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

/* Many elements that are all alike but for their numbers; moments in bf16. */
enum { ALIKE = 1 << 16 };

struct alike {
    float grad[ALIKE];
    float master[ALIKE];
    uint16_t m[ALIKE];
    uint16_t v[ALIKE];
    strata_adam_range range;
};

static struct alike *alike_make(float m, float v)
{
    struct alike *a = calloc(1, sizeof *a);
    cr_assert(a);
    for (size_t i = 0; i < ALIKE; i++) {
        put(a->m, STRATA_BF16, i, m);
        put(a->v, STRATA_BF16, i, v);
    }
    a->range = (strata_adam_range){.grad = a->grad,
                                   .master = a->master,
                                   .m = a->m,
                                   .v = a->v,
                                   .grad_dtype = STRATA_FP32,
                                   .moment_dtype = STRATA_BF16,
                                   .count = ALIKE,
                                   .seed = 1};
    return a;
}

static double mean_of(const uint16_t *halves)
{
    double sum = 0;
    for (size_t i = 0; i < ALIKE; i++) {
        float value;
        strata_convert(STRATA_ISA_SCALAR, &value, STRATA_FP32, halves + i, STRATA_BF16, 1);
        sum += (double)value;
    }
    return sum / ALIKE;
}

/* The mean is what fp32 would have stored, within five standard errors of a coin between two
 * neighbours, which are 2^-8 of the value apart or less. */
Test(adam, rounding_of_bf16_moments_keeps_the_mean)
{
    static const float grads[] = {0.1f, 0.3f, 0.7f, 1.3f, -2.9f, 1e-20f};
    strata_adam_params params = {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
    strata_adam_step step = strata_adam_prepare(&params, 1, 1e-3, 1.0f);
    for (size_t n = 0; n < sizeof grads / sizeof grads[0]; n++) {
        struct alike *a = alike_make(0.25f, 0.5f);
        for (size_t i = 0; i < ALIKE; i++)
            a->grad[i] = grads[n];
        strata_adam_update(STRATA_ISA_BEST, &step, &a->range);
        double m = 0.25 + 0.1 * ((double)grads[n] - 0.25);
        double v = 0.999 * 0.5 + 0.001 * (double)grads[n] * (double)grads[n];
        double error = 5 * 0.5 * 0x1p-8 / sqrt(ALIKE);
        cr_assert_float_eq(mean_of(a->m), m, error * fabs(m) + 1e-7, "grad %g: m %.9g, %.9g",
                           (double)grads[n], mean_of(a->m), m);
        cr_assert_float_eq(mean_of(a->v), v, error * v + 1e-7, "grad %g: v %.9g, %.9g",
                           (double)grads[n], mean_of(a->v), v);
        free(a);
    }
}

/* To nearest, v of 1 would stay 1: 0.999 is nearer to 1 than to the next bf16 below. */
Test(adam, second_moments_in_bf16_do_not_stand_still)
{
    strata_adam_params params = {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
    struct alike *a = alike_make(0, 1);
    for (uint64_t t = 1; t <= 300; t++) {
        strata_adam_step step = strata_adam_prepare(&params, t, 1e-3, 1.0f);
        strata_adam_update(STRATA_ISA_BEST, &step, &a->range);
    }
    cr_assert_float_eq(mean_of(a->v), pow(0.999, 300), 1e-3, "%g", mean_of(a->v));
    free(a);
}

/* Each part of the key counts: with another one, many elements round otherwise. */
Test(adam, rounding_is_keyed_by_seed_tensor_element_and_update)
{
    strata_adam_params params = {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
    struct alike *first = alike_make(1, 1);
    strata_adam_step step = strata_adam_prepare(&params, 5, 1e-3, 1.0f);
    strata_adam_update(STRATA_ISA_BEST, &step, &first->range);
    for (int key = 0; key < 5; key++) {
        struct alike *other = alike_make(1, 1);
        other->range.seed += key == 0 ? UINT64_C(1) << 32 : 0;
        other->range.tensor += key == 1;
        other->range.element += key == 2 ? UINT64_C(1) << 40 : 0;
        step.t = key == 3 ? 6 : 5;
        strata_adam_update(STRATA_ISA_BEST, &step, &other->range);
        uint32_t m_differ = 0;
        uint32_t v_differ = 0;
        for (size_t i = 0; i < ALIKE; i++) {
            m_differ += other->m[i] != first->m[i];
            v_differ += other->v[i] != first->v[i];
        }
        cr_assert(key == 4 ? m_differ == 0 : m_differ > ALIKE / 8, "%d: %u", key, m_differ);
        cr_assert(key == 4 ? v_differ == 0 : v_differ > ALIKE / 8, "%d: %u", key, v_differ);
        free(other);
    }
    free(first);
}
