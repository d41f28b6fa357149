/*
 * Conversions for one instruction set. convert.c includes this file after a simd_<set>.h,
 * which defines its macros; it gives widen_<set>() and round_<set>(). The scalar functions
 * convert the rest of an array.
 */

TARGET static void SUFFIX(widen)(float *dst, const uint16_t *src, strata_dtype dtype,
                                 size_t count)
{
    size_t i = 0;
    if (dtype == STRATA_BF16)
        for (; i + VL <= count; i += VL)
            vec_store(dst + i, vec_load_bf16(src + i));
    else
        for (; i + VL <= count; i += VL)
            vec_store(dst + i, vec_load_fp16(src + i));
    widen_scalar(dst + i, src + i, dtype, count - i);
}

TARGET static void SUFFIX(round)(uint16_t *dst, strata_dtype dtype, const float *src,
                                 size_t count)
{
    size_t i = 0;
    if (dtype == STRATA_BF16)
        for (; i + VL <= count; i += VL)
            vec_half_store(dst + i, vec_bf16(vec_canon(vec_load(src + i))));
    else
        for (; i + VL <= count; i += VL)
            vec_half_store(dst + i, vec_fp16(vec_canon(vec_load(src + i))));
    round_scalar(dst + i, dtype, src + i, count - i);
}
