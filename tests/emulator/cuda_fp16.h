#ifndef STRATA_TESTS_EMULATOR_CUDA_FP16_H
#define STRATA_TESTS_EMULATOR_CUDA_FP16_H

/* In place of CUDA's header of this name, by the library's own conversions. */

#include "strata/adam.h"

struct __half {
    uint16_t bits;
};

static inline __half __ushort_as_half(uint16_t bits)
{
    return __half{bits};
}

static inline uint16_t __half_as_ushort(__half half)
{
    return half.bits;
}

static inline float __half2float(__half half)
{
    float value;
    strata_convert(STRATA_ISA_SCALAR, &value, STRATA_FP32, &half.bits, STRATA_FP16, 1);
    return value;
}

static inline __half __float2half_rn(float value)
{
    __half half;
    strata_convert(STRATA_ISA_SCALAR, &half.bits, STRATA_FP16, &value, STRATA_FP32, 1);
    return half;
}

#endif
