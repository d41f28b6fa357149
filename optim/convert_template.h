/*
 * Conversions for one instruction set. Included by convert.c after a simd_<set>.h, whose words
 * it speaks; gives widen_<set>() and round_<set>(). The scalar functions do what is left.
 */

TARGET static void SUFFIX(widen)(float *dst, const uint16_t *src, size_t count)
{
    size_t i = 0;
    for (; i + VL <= count; i += VL)
        vec_store(dst + i, vec_load_bf16(src + i));
    widen_scalar(dst + i, src + i, count - i);
}

TARGET static void SUFFIX(round)(uint16_t *dst, const float *src, size_t count)
{
    size_t i = 0;
    for (; i + VL <= count; i += VL)
        vec_store_bf16(dst + i, vec_load(src + i));
    round_scalar(dst + i, src + i, count - i);
}
