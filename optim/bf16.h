#ifndef STRATA_OPTIM_BF16_H
#define STRATA_OPTIM_BF16_H

/*
 * bf16 is the upper half of an fp32: the same exponent, seven bits of mantissa. Both directions
 * are integer work, so no rounding mode and no flushing of denormals can touch them. These two
 * functions are the definition; the vector forms beside them in optim/ do the same on many.
 *
 * Thread: any.
 */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The one NaN that rounding makes, so that equal results stay equal bytes. */
#define BF16_NAN 0x7fc0u

static inline float bf16_widen(uint16_t half)
{
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/*
 * To nearest, ties to even: half of the last place is added, less one where the last place is
 * even, and the carry does the rest. It turns what is beyond the largest value into infinity.
 */
static inline uint16_t bf16_round(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return BF16_NAN;
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

/* Elements of an array of bf16 that need not be known as uint16_t; any alignment. */
static inline uint16_t bf16_load(const void *array, size_t index)
{
    uint16_t half;
    memcpy(&half, (const uint8_t *)array + index * sizeof half, sizeof half);
    return half;
}

static inline void bf16_store(void *array, size_t index, uint16_t half)
{
    memcpy((uint8_t *)array + index * sizeof half, &half, sizeof half);
}

#endif
