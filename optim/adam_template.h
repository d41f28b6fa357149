/*
 * AdamW over a range for one instruction set. Included by adam.c after a simd_<set>.h, whose
 * words it speaks; gives one static function, adam_<set>(). Every line of adam_vector() is a
 * line of the definition at the top of adam.c; change one and you have changed the definition.
 *
 * The two dtypes are arguments that are constant where the loop is inlined, so each of the
 * forms that matter gets a loop without questions in it. What is left below one vector goes to
 * the scalar code: the bits are the same, and a range is a tile.
 */

struct SUFFIX(adam_scalars) {
    vec grad_scale;
    vec one_minus_beta1;
    vec beta2;
    vec one_minus_beta2;
    vec inv_sqrt_bias2;
    vec eps;
    vec minus_step_size;
    vec decay;
};

/* Updates the moments in place and returns the new weights. */
TARGET static inline vec SUFFIX(adam_vector)(const struct SUFFIX(adam_scalars) * k, float *m_at,
                                             float *v_at, vec w, vec grad)
{
    vec g = vec_mul(grad, k->grad_scale);
    vec m = vec_load(m_at);
    m = vec_fma(k->one_minus_beta1, vec_sub(g, m), m);
    vec_store(m_at, m);
    vec v = vec_mul(k->beta2, vec_load(v_at));
    v = vec_fma(k->one_minus_beta2, vec_mul(g, g), v);
    vec_store(v_at, v);
    vec denom = vec_fma(vec_sqrt(v), k->inv_sqrt_bias2, k->eps);
    return vec_fma(k->minus_step_size, vec_div(m, denom), vec_mul(w, k->decay));
}

/* param_dtype 0: param is not written. Returns how many elements are done. */
TARGET static inline __attribute__((always_inline)) size_t
SUFFIX(adam_loop)(const struct SUFFIX(adam_scalars) * k, const strata_adam_range *range,
                  uint32_t grad_dtype, uint32_t param_dtype)
{
    size_t i = 0;
    for (; i + VL <= range->count; i += VL) {
        vec grad = grad_dtype == STRATA_BF16 ? vec_load_bf16((const uint16_t *)range->grad + i)
                                             : vec_load((const float *)range->grad + i);
        vec w = vec_load(range->master + i);
        w = SUFFIX(adam_vector)(k, range->m + i, range->v + i, w, grad);
        vec_store(range->master + i, w);
        if (param_dtype == STRATA_BF16)
            vec_store_bf16((uint16_t *)range->param + i, w);
        else if (param_dtype == STRATA_FP32)
            vec_store((float *)range->param + i, w);
    }
    return i;
}

TARGET static void SUFFIX(adam)(const strata_adam_step *step, const strata_adam_range *range)
{
    const struct SUFFIX(adam_scalars) k = {
        .grad_scale = vec_set1(step->grad_scale),
        .one_minus_beta1 = vec_set1(step->one_minus_beta1),
        .beta2 = vec_set1(step->beta2),
        .one_minus_beta2 = vec_set1(step->one_minus_beta2),
        .inv_sqrt_bias2 = vec_set1(step->inv_sqrt_bias2),
        .eps = vec_set1(step->eps),
        .minus_step_size = vec_set1(-step->step_size),
        .decay = vec_set1(range->no_decay ? 1.0f : step->decay),
    };
    uint32_t param_dtype = range->param ? range->param_dtype : 0;
    size_t done;
    if (range->grad_dtype == STRATA_BF16 && param_dtype == STRATA_BF16)
        done = SUFFIX(adam_loop)(&k, range, STRATA_BF16, STRATA_BF16);
    else if (range->grad_dtype == STRATA_FP32 && param_dtype == STRATA_FP32)
        done = SUFFIX(adam_loop)(&k, range, STRATA_FP32, STRATA_FP32);
    else
        done = SUFFIX(adam_loop)(&k, range, range->grad_dtype, param_dtype);
    adam_scalar(step, range, done);
}
