/*
 * Adam over a range for one instruction set. adam.c includes this file after a simd_<set>.h,
 * which defines its macros; it gives one static function, adam_<set>(). Every line of
 * adam_vector() is a line of the definition at the top of adam.c: a change here changes the
 * definition.
 *
 * The form is an argument whose dtypes are constants where the loop is inlined, so every
 * common form gets a loop without branches on it. The elements before the first whole group of
 * 128 and after the last one go to the scalar code: the bits are the same, and a range is
 * long.
 *
 * The largest bits, as in adam_scalar(), are compared as integers: a comparison of floats
 * would lose a NaN.
 *
 * Only param is stored past the caches. It is written and not read, and such a store saves
 * reading its line from memory first. For arrays that are read and written these stores cost
 * more than they save.
 */

#define HALVES (16 / VL) /* vectors that 16 elements take */
#define INLINE static inline __attribute__((always_inline))

struct SUFFIX(adam_scalars) {
    vec grad_scale;
    vec l2;
    vec one_minus_beta1;
    vec beta2;
    vec one_minus_beta2;
    vec inv_sqrt_bias2;
    vec eps;
    vec minus_step_size;
    vec decay;
};

TARGET INLINE vec SUFFIX(adam_load)(const void *array, strata_dtype dtype, size_t i)
{
    if (dtype == STRATA_FP32)
        return vec_load((const float *)array + i);
    const uint16_t *at = (const uint16_t *)array + i;
    return dtype == STRATA_BF16 ? vec_load_bf16(at) : vec_load_fp16(at);
}

/* x is canonical. */
TARGET INLINE void SUFFIX(adam_put_param)(const strata_adam_range *range, struct adam_form form,
                                          size_t i, vec x)
{
    if (form.param == STRATA_FP32) {
        float *at = (float *)range->param + i;
        if (form.stream)
            vec_stream(at, x);
        else
            vec_store(at, x);
    } else if (form.param != 0) {
        uint16_t *at = (uint16_t *)range->param + i;
        vec_half half = form.param == STRATA_BF16 ? vec_bf16(x) : vec_fp16(x);
        if (form.stream)
            vec_half_stream(at, half);
        else
            vec_half_store(at, half);
    }
}

/* m_random, v_random: for bf16 moments only. */
TARGET INLINE void SUFFIX(adam_vector)(const struct SUFFIX(adam_scalars) * k,
                                       const strata_adam_range *range, struct adam_form form,
                                       size_t i, vec_int m_random, vec_int v_random,
                                       vec_int *largest)
{
    vec w = vec_load(range->master + i);
    vec g = vec_mul(SUFFIX(adam_load)(range->grad, form.grad, i), k->grad_scale);
    if (form.l2)
        g = vec_fma(k->l2, w, g);
    vec m = SUFFIX(adam_load)(range->m, form.moments, i);
    m = vec_fma(k->one_minus_beta1, vec_sub(g, m), m);
    vec v = vec_mul(k->beta2, SUFFIX(adam_load)(range->v, form.moments, i));
    v = vec_fma(k->one_minus_beta2, vec_mul(g, g), v);
    vec denom = vec_fma(vec_sqrt(v), k->inv_sqrt_bias2, k->eps);
    w = vec_fma(k->minus_step_size, vec_div(m, denom), vec_mul(w, k->decay));
    *largest = vec_int_largest(vec_int_largest(vec_int_largest(*largest, m), v), w);
    w = vec_canon(w);
    vec_store(range->master + i, w);
    if (form.moments == STRATA_FP32) {
        vec_store((float *)range->m + i, vec_canon(m));
        vec_store((float *)range->v + i, vec_canon(v));
    } else {
        vec_half_store((uint16_t *)range->m + i, vec_bf16_random(vec_canon(m), m_random));
        vec_half_store((uint16_t *)range->v + i, vec_bf16_random(vec_canon(v), v_random));
    }
    SUFFIX(adam_put_param)(range, form, i, w);
}

/* Philox of VL / 2 blocks; c0 holds the lower words of their numbers. Each number of 32 bits
 * has a lane of 64, so a product is already in place for the next round; the upper 32 bits are
 * ignored. */
TARGET INLINE void SUFFIX(adam_philox)(vec_int out[4], vec_int c0, uint32_t block_high,
                                       uint32_t t, const strata_adam_range *range)
{
    const vec_int multiply_even = vec_int_set1(0xD2511F53u);
    const vec_int multiply_odd = vec_int_set1(0xCD9E8D57u);
    vec_int c1 = vec_int_set1(block_high);
    vec_int c2 = vec_int_set1(range->tensor);
    vec_int c3 = vec_int_set1(t);
    uint32_t k0 = (uint32_t)range->seed;
    uint32_t k1 = (uint32_t)(range->seed >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; round++) {
        vec_int even = vec_int_product(c0, multiply_even);
        vec_int odd = vec_int_product(c2, multiply_odd);
        c0 = vec_int_xor3(vec_int_upper(odd), c1, vec_int_set1(k0));
        c1 = odd;
        c2 = vec_int_xor3(vec_int_upper(even), c3, vec_int_set1(k1));
        c3 = even;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* The words of 16 blocks from `block` on, a multiple of 16: first word 0 of every block, then
 * word 1 of every block, ... */
TARGET INLINE void SUFFIX(adam_random)(vec_int words[4 * HALVES], uint32_t t,
                                       const strata_adam_range *range, uint64_t block)
{
    uint32_t high = (uint32_t)(block >> 32);
#pragma GCC unroll 2
    for (uint32_t h = 0; h < HALVES; h++) {
        vec_int first[4];
        vec_int second[4];
        vec_int c0 = vec_int_add(vec_int_evens(), vec_int_set1((uint32_t)block + h * VL));
        SUFFIX(adam_philox)(first, c0, high, t, range);
        SUFFIX(adam_philox)(second, vec_int_add(c0, vec_int_set1(1)), high, t, range);
#pragma GCC unroll 4
        for (uint32_t w = 0; w < 4; w++)
            words[w * HALVES + h] = vec_int_pair(first[w], second[w]);
    }
}

/* Whole groups from element `first` on. Returns the index after the last of them. */
TARGET INLINE size_t SUFFIX(adam_loop)(const struct SUFFIX(adam_scalars) * k,
                                       const strata_adam_step *step,
                                       const strata_adam_range *range, struct adam_form form,
                                       size_t first, uint32_t *out_largest)
{
    size_t i = first;
    vec_int largest = vec_int_set1(0);
    for (; i + GROUP <= range->count; i += GROUP) {
        vec_int words[4 * HALVES] = {0};
        if (form.moments == STRATA_BF16)
            SUFFIX(adam_random)(words, step->t, range, (range->element + i) / GROUP * 16);
#pragma GCC unroll 8
        for (size_t j = 0; j < 4 * HALVES; j++) {
            vec_int m_random = vec_int_low16(words[j]);
            vec_int v_random = vec_int_low16(vec_int_swap8(words[j]));
            SUFFIX(adam_vector)(k, range, form, i + j * VL, m_random, v_random, &largest);
        }
#pragma GCC unroll 8
        for (size_t j = 0; j < 4 * HALVES; j++) {
            size_t at = i + GROUP / 2 + j * VL;
            vec_int m_random = vec_int_high16(words[j]);
            vec_int v_random = vec_int_high16(vec_int_swap8(words[j]));
            SUFFIX(adam_vector)(k, range, form, at, m_random, v_random, &largest);
        }
    }
    uint32_t each[VL];
    vec_int_store(each, largest);
    for (uint32_t j = 0; j < VL; j++)
        *out_largest = each[j] > *out_largest ? each[j] : *out_largest;
    return i;
}

/* The forms that training uses: gradients and parameters of one dtype. */
TARGET static size_t SUFFIX(adam_select)(const struct SUFFIX(adam_scalars) * k,
                                         const strata_adam_step *step,
                                         const strata_adam_range *range, struct adam_form form,
                                         size_t first, uint32_t *largest)
{
    const struct adam_form bf16 = {STRATA_BF16, STRATA_BF16, STRATA_FP32, form.l2, form.stream};
    const struct adam_form fp16 = {STRATA_FP16, STRATA_FP16, STRATA_FP32, form.l2, form.stream};
    const struct adam_form fp32 = {STRATA_FP32, STRATA_FP32, STRATA_FP32, form.l2, form.stream};
    const struct adam_form all_bf16 = {STRATA_BF16, STRATA_BF16, STRATA_BF16, form.l2,
                                       form.stream};
    bool alike = form.grad == form.param;
    bool large = form.moments == STRATA_FP32;
    if (alike && large && form.grad == STRATA_BF16)
        return SUFFIX(adam_loop)(k, step, range, bf16, first, largest);
    if (alike && large && form.grad == STRATA_FP16)
        return SUFFIX(adam_loop)(k, step, range, fp16, first, largest);
    if (alike && large && form.grad == STRATA_FP32)
        return SUFFIX(adam_loop)(k, step, range, fp32, first, largest);
    if (alike && form.grad == STRATA_BF16)
        return SUFFIX(adam_loop)(k, step, range, all_bf16, first, largest);
    return SUFFIX(adam_loop)(k, step, range, form, first, largest);
}

TARGET static uint32_t SUFFIX(adam)(const strata_adam_step *step,
                                    const strata_adam_range *range)
{
    const struct SUFFIX(adam_scalars) k = {
        .grad_scale = vec_set1(step->grad_scale),
        .l2 = vec_set1(step->l2),
        .one_minus_beta1 = vec_set1(step->one_minus_beta1),
        .beta2 = vec_set1(step->beta2),
        .one_minus_beta2 = vec_set1(step->one_minus_beta2),
        .inv_sqrt_bias2 = vec_set1(step->inv_sqrt_bias2),
        .eps = vec_set1(step->eps),
        .minus_step_size = vec_set1(-step->step_size),
        .decay = vec_set1(range->no_decay ? 1.0f : step->decay),
    };
    struct adam_form form = {
        .grad = range->grad_dtype,
        .param = range->param != NULL ? range->param_dtype : (strata_dtype)0,
        .moments = range->moment_dtype == STRATA_BF16 ? STRATA_BF16 : STRATA_FP32,
        .l2 = step->l2 != 0 && !range->no_decay,
    };
    size_t first = adam_first(range, form, VL);
    form.stream = adam_streams(range, form, VL, first);
    uint32_t largest = 0;
    adam_scalar(step, range, 0, first, &largest);
    size_t done = SUFFIX(adam_select)(&k, step, range, form, first, &largest);
    adam_scalar(step, range, done, range->count, &largest);
    if (form.stream)
        _mm_sfence(); /* makes the streamed stores visible before the range counts as done */
    return largest;
}

#undef HALVES
#undef INLINE
