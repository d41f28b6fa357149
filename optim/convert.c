/*
 * Conversions of arrays between fp32 and a 16-bit type: down with rounding to nearest even and
 * one NaN, up exactly (half.h has the definition and the scalar form). With the same dtype on
 * both sides the bytes are copied.
 *
 * Source and destination must not overlap.
 *
 * Thread: any.
 */

#include "strata/adam.h"

#include "optim/half.h"
#include "optim/isa.h"

static void widen_scalar(float *dst, const uint16_t *src, strata_dtype dtype, size_t count)
{
    for (size_t i = 0; i < count; i++)
        dst[i] = half_load(src, dtype, i);
}

static void round_scalar(uint16_t *dst, strata_dtype dtype, const float *src, size_t count)
{
    for (size_t i = 0; i < count; i++)
        half_store(dst, dtype, i, src[i]);
}

#if defined(__x86_64__)

#    include "optim/simd_avx2.h"
#    include "optim/convert_template.h"
#    include "optim/simd_end.h"

#    include "optim/simd_avx512.h"
#    include "optim/convert_template.h"
#    include "optim/simd_end.h"

#else

/* Never called: strata_isa_usable() returns false. */
#    define widen_avx2   widen_scalar
#    define widen_avx512 widen_scalar
#    define round_avx2   round_scalar
#    define round_avx512 round_scalar

#endif

static void widen(strata_isa isa, float *dst, const uint16_t *src, strata_dtype dtype,
                  size_t count)
{
    if (isa == STRATA_ISA_AVX512)
        widen_avx512(dst, src, dtype, count);
    else if (isa == STRATA_ISA_AVX2)
        widen_avx2(dst, src, dtype, count);
    else
        widen_scalar(dst, src, dtype, count);
}

static void round_to(strata_isa isa, uint16_t *dst, strata_dtype dtype, const float *src,
                     size_t count)
{
    if (isa == STRATA_ISA_AVX512)
        round_avx512(dst, dtype, src, count);
    else if (isa == STRATA_ISA_AVX2)
        round_avx2(dst, dtype, src, count);
    else
        round_scalar(dst, dtype, src, count);
}

strata_status strata_convert(strata_isa isa, void *dst, strata_dtype dst_dtype, const void *src,
                             strata_dtype src_dtype, size_t count)
{
    if (!strata_isa_usable(isa) || strata_dtype_bytes(dst_dtype) == 0 ||
        strata_dtype_bytes(src_dtype) == 0 || (count > 0 && (dst == NULL || src == NULL)))
        return STRATA_E_INVALID;
    if (dst_dtype != src_dtype && dst_dtype != STRATA_FP32 && src_dtype != STRATA_FP32)
        return STRATA_E_INVALID;
    isa = strata_isa_resolve(isa);
    if (dst_dtype == src_dtype) {
        if (count > 0)
            memcpy(dst, src, count * strata_dtype_bytes(src_dtype));
        return STRATA_OK;
    }
    if (dst_dtype == STRATA_FP32)
        widen(isa, dst, src, src_dtype, count);
    else
        round_to(isa, dst, dst_dtype, src, count);
    return STRATA_OK;
}
