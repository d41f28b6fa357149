/*
 * Sums of squares over whole groups of sixteen, for one instruction set. norm.c includes this
 * file after a simd_<set>.h, which defines its macros; it gives norm_<set>(), which sets the
 * sums and returns how many elements it has added.
 */

TARGET static size_t SUFFIX(norm)(double sums[SUMS], const void *grad, strata_dtype dtype,
                                  size_t count)
{
    vec_sums parts = {0};
    size_t whole = count / SUMS * SUMS;
    if (dtype == STRATA_BF16)
        for (size_t i = 0; i < whole; i += SUMS)
            vec_sums_add_bf16(&parts, (const uint16_t *)grad + i);
    else if (dtype == STRATA_FP16)
        for (size_t i = 0; i < whole; i += SUMS)
            vec_sums_add_fp16(&parts, (const uint16_t *)grad + i);
    else
        for (size_t i = 0; i < whole; i += SUMS)
            vec_sums_add_fp32(&parts, (const float *)grad + i);
    vec_sums_store(sums, &parts);
    return whole;
}
