/*
 * Conversions between dtypes over arrays: to bf16 by nearest-even with one NaN, from bf16
 * exactly (bf16.h has the definition and the scalar form). The same dtype on both sides is a
 * copy of bytes.
 *
 * Source and destination must not overlap.
 *
 * Thread: any.
 */

#include "strata/adam.h"

#include "base/error.h"
#include "optim/bf16.h"
#include "optim/isa.h"

static void widen_scalar(float *dst, const uint16_t *src, size_t count)
{
    for (size_t i = 0; i < count; i++)
        dst[i] = bf16_widen(src[i]);
}

static void round_scalar(uint16_t *dst, const float *src, size_t count)
{
    for (size_t i = 0; i < count; i++)
        dst[i] = bf16_round(src[i]);
}

#if defined(__x86_64__)

#    include "optim/simd_avx2.h"
#    include "optim/convert_template.h"
#    include "optim/simd_end.h"

#    include "optim/simd_avx512.h"
#    include "optim/convert_template.h"
#    include "optim/simd_end.h"

#else

/* Never reached: strata_isa_usable() says no. */
#    define widen_avx2   widen_scalar
#    define widen_avx512 widen_scalar
#    define round_avx2   round_scalar
#    define round_avx512 round_scalar

#endif

static void widen(strata_isa isa, float *dst, const uint16_t *src, size_t count)
{
    if (isa == STRATA_ISA_AVX512)
        widen_avx512(dst, src, count);
    else if (isa == STRATA_ISA_AVX2)
        widen_avx2(dst, src, count);
    else
        widen_scalar(dst, src, count);
}

static void round_to_bf16(strata_isa isa, uint16_t *dst, const float *src, size_t count)
{
    if (isa == STRATA_ISA_AVX512)
        round_avx512(dst, src, count);
    else if (isa == STRATA_ISA_AVX2)
        round_avx2(dst, src, count);
    else
        round_scalar(dst, src, count);
}

void strata_convert(strata_isa isa, void *dst, strata_dtype dst_dtype, const void *src,
                    strata_dtype src_dtype, size_t count)
{
    uint32_t dst_bytes = strata_dtype_bytes(dst_dtype);
    uint32_t src_bytes = strata_dtype_bytes(src_dtype);
    isa = strata_isa_resolve(isa);
    if (dst_bytes > src_bytes)
        widen(isa, dst, src, count);
    else if (dst_bytes < src_bytes)
        round_to_bf16(isa, dst, src, count);
    else if (count > 0)
        memcpy(dst, src, count * src_bytes);
}
