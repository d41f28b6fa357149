/*
 * Adam, norm blocks and rounding on a CUDA device, for tiles whose state is in its memory.
 *
 * adam.c, norm.c and half.h have the definitions; the bits here are the same. So every
 * operation of Adam is an intrinsic that rounds to nearest and is never contracted, whatever
 * the compiler's flags. This file is still compiled with -fmad=false -ftz=false -prec-div=true
 * -prec-sqrt=true, because the few float operations of half.h need them. A test reads the PTX.
 *
 * Adam is bound by memory: one thread per element, and neighbours share a line. A norm block
 * is sixteen independent sums, each a chain of 1,024 additions. A tile has hundreds of blocks,
 * so a warp takes two blocks, and the warps fill the device.
 *
 * Thread: see cuda.h.
 */

#include "optim/cuda.h"
#include "optim/half.h"

#include <cuda_runtime.h>

#define THREADS         256u
#define GROUP           128u /* elements that 16 Philox blocks serve; see adam.c */
#define SUMS            16u
#define BLOCKS_PER_WARP 2u

/* Like strata_philox(). */
static __device__ void philox_rounds(uint32_t c[4], uint32_t low, uint32_t high)
{
    for (int round = 0; round < 10; round++) {
        uint64_t even = (uint64_t)0xD2511F53u * c[0];
        uint64_t odd = (uint64_t)0xCD9E8D57u * c[2];
        c[0] = (uint32_t)(odd >> 32) ^ c[1] ^ low;
        c[1] = (uint32_t)odd;
        c[2] = (uint32_t)(even >> 32) ^ c[3] ^ high;
        c[3] = (uint32_t)even;
        low += 0x9E3779B9u;
        high += 0xBB67AE85u;
    }
}

/* The r of m; the r of v is the same with its bytes exchanged. */
static __device__ uint32_t random_half(uint32_t t, const struct cuda_update *u, uint64_t i)
{
    uint64_t element = u->element + i;
    uint64_t block = element / GROUP * 16 + element % 16;
    uint32_t words[4] = {(uint32_t)block, (uint32_t)(block >> 32), u->tensor, t};
    philox_rounds(words, (uint32_t)u->seed, (uint32_t)(u->seed >> 32));
    uint32_t word = words[element / 16 % 4];
    return element % GROUP < GROUP / 2 ? word & 0xffff : word >> 16;
}

static __device__ float adam_element(const strata_adam_step *step, bool decays, float *m,
                                     float *v, float w, float grad)
{
    float g = __fmul_rn(grad, step->grad_scale);
    if (decays && step->l2 != 0)
        g = __fmaf_rn(step->l2, w, g);
    *m = __fmaf_rn(step->one_minus_beta1, __fsub_rn(g, *m), *m);
    *v = __fmaf_rn(step->one_minus_beta2, __fmul_rn(g, g), __fmul_rn(step->beta2, *v));
    float denom = __fmaf_rn(__fsqrt_rn(*v), step->inv_sqrt_bias2, step->eps);
    return __fmaf_rn(-step->step_size, __fdiv_rn(*m, denom),
                     __fmul_rn(w, decays ? step->decay : 1.0f));
}

static __device__ void store_moments(void *m_at, void *v_at, strata_dtype dtype, float m,
                                     float v, uint32_t r)
{
    if (dtype == STRATA_FP32) {
        half_store(m_at, STRATA_FP32, 0, m);
        half_store(v_at, STRATA_FP32, 0, v);
    } else {
        half_put(m_at, 0, bf16_round_random(m, r));
        half_put(v_at, 0, bf16_round_random(v, (r << 8 & 0xff00) | r >> 8));
    }
}

static __global__ void adam_kernel(strata_adam_step step, struct cuda_update u)
{
    uint64_t i = (uint64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= u.count)
        return;
    strata_dtype moments = strata_record_moments(u.record_type);
    struct record_place place = strata_record_place(u.record_type, u.first + i);
    uint8_t *state = (uint8_t *)u.state;
    float m = half_load(state + place.m, moments, 0);
    float v = half_load(state + place.v, moments, 0);
    float w = adam_element(&step, !u.no_decay, &m, &v,
                           half_load(state + place.master, STRATA_FP32, 0),
                           half_load(u.grad, u.dtype, u.first + i));
    if (!u.weights_only) {
        uint32_t limit = moments == STRATA_FP32 ? 0x7f7fffffu : 0x7f7f0000u;
        bool spoiled = (half_bits(w) & 0x7fffffffu) > limit ||
                       (half_bits(m) & 0x7fffffffu) > limit ||
                       (half_bits(v) & 0x7fffffffu) > limit;
        if (spoiled && u.spoiled != NULL)
            *u.spoiled = 1;
        half_store(state + place.master, STRATA_FP32, 0, w);
        store_moments(state + place.m, state + place.v, moments, m, v,
                      moments == STRATA_FP32 ? 0 : random_half(step.t, &u, i));
    }
    if (u.param != NULL)
        half_store(u.param, u.dtype, u.first + i, w);
}

static __global__ void norm_kernel(double *sums, const void *grad, strata_dtype dtype,
                                   uint64_t block_count)
{
    __shared__ double parts[BLOCKS_PER_WARP][SUMS];
    uint32_t mine = threadIdx.x / SUMS;
    uint32_t lane = threadIdx.x % SUMS;
    uint64_t block = (uint64_t)blockIdx.x * BLOCKS_PER_WARP + mine;
    bool there = block < block_count;
    double sum = 0;
    uint64_t first = block * STRATA_BLOCK_ELEMS + lane;
#pragma unroll 8
    for (uint32_t i = 0; there && i < STRATA_BLOCK_ELEMS; i += SUMS) {
        double value = (double)half_load(grad, dtype, first + i);
        sum = __dadd_rn(sum, __dmul_rn(value, value));
    }
    parts[mine][lane] = sum;
    __syncwarp();
    if (!there || lane != 0)
        return;
    for (uint32_t i = 1; i < SUMS; i++)
        sum = __dadd_rn(sum, parts[mine][i]);
    sums[block] = sum;
}

static __global__ void convert_kernel(void *dst, strata_dtype dst_dtype, const void *src,
                                      strata_dtype src_dtype, uint64_t count)
{
    uint64_t i = (uint64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i < count)
        half_store(dst, dst_dtype, i, half_load(src, src_dtype, i));
}

/* A launch for count items, `each` of them per block of threads. */
static cudaLaunchConfig_t launch_config(uint64_t count, uint32_t each, uint32_t threads,
                                        void *stream)
{
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((uint32_t)((count + each - 1) / each));
    config.blockDim = dim3(threads);
    config.stream = (cudaStream_t)stream;
    return config;
}

extern "C" int strata_cuda_optim_load(void)
{
    cudaFuncAttributes attributes;
    cudaError_t cause = cudaFuncGetAttributes(&attributes, adam_kernel);
    if (cause == cudaSuccess)
        cause = cudaFuncGetAttributes(&attributes, norm_kernel);
    if (cause == cudaSuccess)
        cause = cudaFuncGetAttributes(&attributes, convert_kernel);
    return cause;
}

extern "C" int strata_cuda_adam(void *stream, const strata_adam_step *step,
                                const struct cuda_update *update)
{
    if (update->count == 0)
        return cudaSuccess;
    cudaLaunchConfig_t config = launch_config(update->count, THREADS, THREADS, stream);
    return cudaLaunchKernelEx(&config, adam_kernel, *step, *update);
}

extern "C" int strata_cuda_norm_blocks(void *stream, double *sums, const void *grad,
                                       strata_dtype dtype, uint64_t block_count)
{
    if (block_count == 0)
        return cudaSuccess;
    cudaLaunchConfig_t config =
        launch_config(block_count, BLOCKS_PER_WARP, BLOCKS_PER_WARP * SUMS, stream);
    return cudaLaunchKernelEx(&config, norm_kernel, sums, grad, dtype, block_count);
}

extern "C" int strata_cuda_convert(void *stream, void *dst, strata_dtype dst_dtype,
                                   const void *src, strata_dtype src_dtype, uint64_t count)
{
    if (count == 0)
        return cudaSuccess;
    cudaLaunchConfig_t config = launch_config(count, THREADS, THREADS, stream);
    return cudaLaunchKernelEx(&config, convert_kernel, dst, dst_dtype, src, src_dtype, count);
}
