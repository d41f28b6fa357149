/*
 * The sum of partial gradients of keys or values (attention_sum.h). A thread adds eight
 * neighbours, one load of 16 bytes from each part.
 *
 * Thread: see attention_sum.h.
 */

#include "train/attention_sum.h"

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define THREADS  256u
#define TOGETHER 8u

struct alignas(16) eight {
    uint16_t value[TOGETHER];
};

static __device__ float widen_part(uint16_t value, strata_dtype dtype)
{
    if (dtype == STRATA_FP16)
        return __half2float(__ushort_as_half(value));
    return __uint_as_float((uint32_t)value << 16);
}

/* To nearest, ties to even. */
static __device__ uint16_t narrow_sum(float value, strata_dtype dtype)
{
    if (dtype == STRATA_FP16)
        return __half_as_ushort(__float2half_rn(value));
    if (value != value)
        return 0x7fc0;
    uint32_t bits = __float_as_uint(value);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

static __global__ void add_parts(struct attention_sum args)
{
    uint32_t row_eights = args.head_dim / TOGETHER;
    uint32_t part_eights = args.seq * row_eights;
    uint32_t index = blockIdx.x * THREADS + threadIdx.x;
    if (index >= part_eights)
        return;
    const struct eight *part = (const struct eight *)args.parts + index;
    float sum[TOGETHER] = {0};
    for (uint32_t p = 0; p < args.part_count; p++, part += part_eights) {
        struct eight here = *part;
        for (uint32_t i = 0; i < TOGETHER; i++)
            sum[i] += widen_part(here.value[i], args.dtype);
    }
    struct eight result;
    for (uint32_t i = 0; i < TOGETHER; i++)
        result.value[i] = narrow_sum(sum[i], args.dtype);
    uint16_t *row = (uint16_t *)args.dst + index / row_eights * args.dst_stride;
    *(struct eight *)(row + index % row_eights * TOGETHER) = result;
}

extern "C" int strata_cuda_attention_sum(void *stream, const struct attention_sum *args)
{
    uint32_t threads = args->seq * (args->head_dim / TOGETHER);
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((threads + THREADS - 1) / THREADS);
    config.blockDim = dim3(THREADS);
    config.stream = (cudaStream_t)stream;
    return cudaLaunchKernelEx(&config, add_parts, *args);
}
