#ifndef STRATA_OPTIM_HALF_H
#define STRATA_OPTIM_HALF_H

/*
 * The 16-bit types, and the one rule about NaN.
 *
 * bf16 is the upper half of an fp32: the same exponent, seven bits of mantissa. fp16 is IEEE's
 * binary16: five bits of exponent, ten of mantissa. Widening is exact. Rounding is to nearest,
 * ties to even, denormals included; what is beyond the largest value becomes infinite.
 *
 * Every NaN that is stored, as a weight, a moment or a rounded value, is the one of
 * half_canon(): 0x7fc00000, which is 0x7fc0 in bf16 and 0x7e00 in fp16. So equal results are
 * equal bytes, whichever instructions computed them. Widening stores nothing and keeps the
 * payload; an fp16 NaN becomes quiet, as with the instruction for widening.
 *
 * These functions are the definition; the vector forms give the same bits for many values.
 *
 * Thread: any.
 */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "optim/kernel.h"
#include "strata/types.h"

#define HALF_NAN_BITS 0x7fc00000u

KERNEL_INLINE uint32_t half_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

KERNEL_INLINE float half_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

KERNEL_INLINE float half_canon(float value)
{
    return value != value ? half_float(HALF_NAN_BITS) : value;
}

KERNEL_INLINE float bf16_widen(uint16_t half)
{
    return half_float((uint32_t)half << 16);
}

/* To nearest: add half of the last place, less one where the last place is even. The carry
 * does the rest, up to infinity. The one NaN stays the same. */
KERNEL_INLINE uint16_t bf16_round(float value)
{
    uint32_t bits = half_bits(half_canon(value));
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

/*
 * Stochastic: away from zero with a probability of the cut bits, in units of 2^-16. random: 16
 * bits. The mean over all values of random is the value itself, exactly, except above the
 * largest bf16, where rounding up gives infinity.
 */
KERNEL_INLINE uint16_t bf16_round_random(float value, uint32_t random)
{
    return (uint16_t)((half_bits(half_canon(value)) + random) >> 16);
}

KERNEL_INLINE float fp16_widen(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t size = half & 0x7fffu;
    if (size < 0x400u) /* denormal: a multiple of 2^-24 */
        return half_float(sign | half_bits((float)size * 0x1p-24f));
    if (size >= 0x7c00u)
        return half_float(sign | 0x7f800000u | size << 13 | (size > 0x7c00u ? 0x400000u : 0));
    return half_float(sign | ((size << 13) + (112u << 23)));
}

KERNEL_INLINE uint16_t fp16_round(float value)
{
    uint32_t bits = half_bits(half_canon(value));
    uint32_t sign = bits >> 16 & 0x8000u;
    uint32_t size = bits & 0x7fffffffu;
    if (size > 0x7f800000u)
        return 0x7e00u;
    if (size >= 0x47800000u) /* 65536 */
        return (uint16_t)(sign | 0x7c00u);
    if (size < 0x38800000u) /* 2^-14: beside 0.5 the last place of an fp32 is 2^-24 */
        return (uint16_t)(sign | (half_bits(half_float(size) + 0.5f) - 0x3f000000u));
    return (uint16_t)(sign | ((size - (112u << 23) + 0xfffu + (size >> 13 & 1)) >> 13));
}

/* One element of an array of any dtype; any alignment. */

KERNEL_INLINE float half_load(const void *array, strata_dtype dtype, size_t index)
{
    if (dtype == STRATA_FP32) {
        float value;
        memcpy(&value, (const uint8_t *)array + index * sizeof value, sizeof value);
        return value;
    }
    uint16_t half;
    memcpy(&half, (const uint8_t *)array + index * sizeof half, sizeof half);
    return dtype == STRATA_BF16 ? bf16_widen(half) : fp16_widen(half);
}

KERNEL_INLINE void half_put(void *array, size_t index, uint16_t half)
{
    memcpy((uint8_t *)array + index * sizeof half, &half, sizeof half);
}

KERNEL_INLINE void half_store(void *array, strata_dtype dtype, size_t index, float value)
{
    if (dtype == STRATA_FP32) {
        value = half_canon(value);
        memcpy((uint8_t *)array + index * sizeof value, &value, sizeof value);
    } else {
        half_put(array, index, dtype == STRATA_BF16 ? bf16_round(value) : fp16_round(value));
    }
}

#endif
