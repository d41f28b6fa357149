#ifndef STRATA_TESTS_EMULATOR_CUDA_BF16_H
#define STRATA_TESTS_EMULATOR_CUDA_BF16_H

/* In place of CUDA's header of this name, by the library's own conversions. */

#include "strata/adam.h"

struct __nv_bfloat16 {
    uint16_t bits;
};

static inline uint16_t __bfloat16_as_ushort(__nv_bfloat16 half)
{
    return half.bits;
}

static inline __nv_bfloat16 __float2bfloat16_rn(float value)
{
    __nv_bfloat16 half;
    strata_convert(STRATA_ISA_SCALAR, &half.bits, STRATA_BF16, &value, STRATA_FP32, 1);
    return half;
}

#endif
