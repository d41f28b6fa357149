#ifndef STRATA_TRAIN_ELEMENTS_CUH
#define STRATA_TRAIN_ELEMENTS_CUH

/*
 * What the operators' kernels share: elements of the three types, sums over the threads of a
 * row, and launches.
 *
 * A thread works on chunks: 16 bytes of elements, 4 of fp32 or 8 of bf16 and fp16. Where
 * widths, strides and addresses are multiples of 16 bytes (WIDE), a chunk is one load or one
 * store; else its elements are moved one by one, and the last chunk of a row has fewer. Which
 * thread has which element is the same either way. So the order of a sum follows from shape and
 * type alone, and an address changes no bit.
 *
 * A kernel holds 64 registers at most, which its launch bounds say: half of an SM's threads are
 * then there, enough to hide what memory takes.
 *
 * Indices of chunks are 32 bits: a 64-bit division by a number that only the launch knows costs
 * more than moving the chunk. launch() refuses what is too large.
 */

#include "strata/types.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <stdint.h>

#define THREADS     256u
#define CHUNK_BYTES 16u
#define WARP        32u
#define WARPS_MAX   32u

/* Blocks on an SM that leave 64 registers to each of their threads. */
#define BLOCKS(threads) (65536u / 64u / (threads))

/* What of an element's type a kernel must know. sum_t: what a row is added up in. What is
 * rounded to 16 bits needs no more than fp32's sum in a tree, and a GPU for games computes in
 * double at a 64th of the rate, which would take longer than memory does. */
template <typename elem_t> struct element;

template <> struct element<float> {
    typedef float bits_t;
    typedef double sum_t;
    static constexpr uint32_t chunk = 4;
};

template <> struct element<__nv_bfloat16> {
    typedef uint16_t bits_t;
    typedef float sum_t;
    static constexpr uint32_t chunk = 8;
    static __device__ float widen(uint32_t bits)
    {
        return __uint_as_float(bits << 16);
    }
    static __device__ uint32_t narrow(float value)
    {
        return __bfloat16_as_ushort(__float2bfloat16_rn(value));
    }
};

template <> struct element<__half> {
    typedef uint16_t bits_t;
    typedef float sum_t;
    static constexpr uint32_t chunk = 8;
    static __device__ float widen(uint32_t bits)
    {
        return __half2float(__ushort_as_half((uint16_t)bits));
    }
    static __device__ uint32_t narrow(float value)
    {
        return __half_as_ushort(__float2half_rn(value));
    }
};

/* 16 bytes of elements, as they lie in memory. */
struct chunk {
    uint32_t word[4];
};

/* Element i of a chunk. */
template <typename elem_t> static __device__ float get(const struct chunk &from, uint32_t i)
{
    if constexpr (sizeof(elem_t) == 4)
        return __uint_as_float(from.word[i]);
    else
        return element<elem_t>::widen(from.word[i / 2] >> 16 * (i % 2) & 0xffffu);
}

/* Rounds. The chunk's element i must be zero. */
template <typename elem_t> static __device__ void put(struct chunk *to, uint32_t i, float value)
{
    if constexpr (sizeof(elem_t) == 4)
        to->word[i] = __float_as_uint(value);
    else
        to->word[i / 2] |= element<elem_t>::narrow(value) << 16 * (i % 2);
}

/* A type's element in memory. */
template <typename elem_t> static __device__ float get_at(const void *array, uint64_t i)
{
    if constexpr (sizeof(elem_t) == 4)
        return ((const float *)array)[i];
    else
        return element<elem_t>::widen(((const uint16_t *)array)[i]);
}

/* The chunk that begins with element `at`; the row has `left` elements from there on. */
template <typename elem_t, bool WIDE>
static __device__ struct chunk load(const void *array, uint64_t at, uint32_t left)
{
    struct chunk out = {};
    if constexpr (WIDE) {
        uint4 words = *(const uint4 *)((const elem_t *)array + at);
        out.word[0] = words.x;
        out.word[1] = words.y;
        out.word[2] = words.z;
        out.word[3] = words.w;
    } else {
#pragma unroll
        for (uint32_t i = 0; i < element<elem_t>::chunk; i++)
            if (i < left)
                put<elem_t>(&out, i, get_at<elem_t>(array, at + i));
    }
    return out;
}

template <typename elem_t, bool WIDE>
static __device__ void store(void *array, uint64_t at, uint32_t left, const struct chunk &from)
{
    if constexpr (WIDE) {
        *(uint4 *)((elem_t *)array + at) =
            make_uint4(from.word[0], from.word[1], from.word[2], from.word[3]);
    } else {
        typedef typename element<elem_t>::bits_t bits_t;
#pragma unroll
        for (uint32_t i = 0; i < element<elem_t>::chunk; i++) {
            if (i >= left)
                continue;
            if constexpr (sizeof(elem_t) == 4)
                ((bits_t *)array)[at + i] = __uint_as_float(from.word[i]);
            else
                ((bits_t *)array)[at + i] = (bits_t)(from.word[i / 2] >> 16 * (i % 2));
        }
    }
}

/* fp32 beside a chunk of any type: as many numbers as the chunk has elements. */
template <typename elem_t, bool WIDE>
static __device__ void load_floats(float *out, const float *array, uint64_t at, uint32_t left)
{
#pragma unroll
    for (uint32_t i = 0; i < element<elem_t>::chunk; i += 4) {
        struct chunk part = {};
        if (WIDE || i < left)
            part = load<float, WIDE>(array, at + i, left - i);
#pragma unroll
        for (uint32_t j = 0; j < 4; j++)
            out[i + j] = get<float>(part, j);
    }
}

template <typename elem_t, bool WIDE>
static __device__ void store_floats(float *array, uint64_t at, uint32_t left, const float *from)
{
#pragma unroll
    for (uint32_t i = 0; i < element<elem_t>::chunk; i += 4) {
        struct chunk part = {};
#pragma unroll
        for (uint32_t j = 0; j < 4; j++)
            put<float>(&part, j, from[i + j]);
        if (WIDE || i < left)
            store<float, WIDE>(array, at + i, left - i, part);
    }
}

/*
 * The sums of `values` over the threads that share a row, for all of them. threads: how many, a
 * power of two within a warp or a number of whole warps; a row's first thread has a number that
 * is a multiple of it. Warps add as a tree, then a row's warps are added in their order. Every
 * thread of the block calls it.
 */
template <uint32_t COUNT, typename sum_t>
static __device__ void row_sums(sum_t *values, uint32_t threads)
{
    __shared__ sum_t parts[COUNT][WARPS_MAX];
    for (uint32_t half = (threads < WARP ? threads : WARP) / 2; half > 0; half /= 2)
#pragma unroll
        for (uint32_t k = 0; k < COUNT; k++)
            values[k] += __shfl_xor_sync(0xffffffffu, values[k], (int)half);
    if (threads <= WARP)
        return;
    uint32_t first = threadIdx.x / threads * (threads / WARP);
#pragma unroll
    for (uint32_t k = 0; k < COUNT; k++) {
        if (threadIdx.x % WARP == 0)
            parts[k][threadIdx.x / WARP] = values[k];
    }
    __syncthreads();
#pragma unroll
    for (uint32_t k = 0; k < COUNT; k++) {
        values[k] = parts[k][first];
        for (uint32_t i = 1; i < threads / WARP; i++)
            values[k] += parts[k][first + i];
    }
    __syncthreads();
}

/* The sum of the block's values, for all of its THREADS threads. */
static __device__ inline double block_sum(double value)
{
    row_sums<1>(&value, THREADS);
    return value;
}

static __device__ inline float block_max(float value)
{
    __shared__ float parts[THREADS / WARP];
    for (uint32_t half = WARP / 2; half > 0; half /= 2)
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, (int)half));
    if (threadIdx.x % WARP == 0)
        parts[threadIdx.x / WARP] = value;
    __syncthreads();
    for (uint32_t i = 0; i < THREADS / WARP; i++)
        value = fmaxf(value, parts[i]);
    __syncthreads();
    return value;
}

/* Launches. */

/* The instance of a kernel for a type and a way of access. */
#define KERNEL_FOR(kernel, dtype, wide)                                                        \
    ((dtype) == STRATA_BF16                                                                    \
         ? ((wide) ? kernel<__nv_bfloat16, true> : kernel<__nv_bfloat16, false>)               \
     : (dtype) == STRATA_FP16 ? ((wide) ? kernel<__half, true> : kernel<__half, false>)        \
                              : ((wide) ? kernel<float, true> : kernel<float, false>))

/* The same for a kernel that moves elements one by one. */
#define KERNEL_OF(kernel, dtype)                                                               \
    ((dtype) == STRATA_BF16   ? kernel<__nv_bfloat16>                                          \
     : (dtype) == STRATA_FP16 ? kernel<__half>                                                 \
                              : kernel<float>)

static inline uint32_t chunk_elems(strata_dtype dtype)
{
    return CHUNK_BYTES / strata_dtype_bytes(dtype);
}

/* How many chunks a row of `width` elements has. */
static inline uint32_t chunks_of(uint64_t width, strata_dtype dtype)
{
    return (uint32_t)((width + chunk_elems(dtype) - 1) / chunk_elems(dtype));
}

/* May chunks be moved whole? elems: the widths and strides, or'ed; addresses likewise. */
static inline bool is_wide(strata_dtype dtype, uint64_t elems, uintptr_t addresses)
{
    return elems % chunk_elems(dtype) == 0 && addresses % CHUNK_BYTES == 0;
}

static inline uintptr_t address(const void *array)
{
    return (uintptr_t)array;
}

/* blocks x columns blocks; a row of blocks runs over whatever the kernel says. */
struct grid {
    void *stream;
    uint64_t blocks;
    uint32_t columns; /* 0: 1       */
    uint32_t threads; /* 0: THREADS */
};

template <typename... want_t, typename... give_t>
static int launch(const struct grid &grid, void (*kernel)(want_t...), const give_t &...args)
{
    cudaLaunchConfig_t config = {};
    if (grid.blocks == 0)
        return cudaSuccess;
    if (grid.blocks > INT32_MAX || grid.columns > UINT16_MAX)
        return cudaErrorInvalidConfiguration;
    config.gridDim = dim3((uint32_t)grid.blocks, grid.columns != 0 ? grid.columns : 1);
    config.blockDim = dim3(grid.threads != 0 ? grid.threads : THREADS);
    config.stream = (cudaStream_t)grid.stream;
    return cudaLaunchKernelEx(&config, kernel, args...);
}

/* One thread a chunk. */
template <typename... want_t, typename... give_t>
static int launch_chunks(void *stream, uint64_t count, void (*kernel)(want_t...),
                         const give_t &...args)
{
    if (count > UINT32_MAX - THREADS)
        return cudaErrorInvalidConfiguration;
    struct grid grid = {stream, (count + THREADS - 1) / THREADS, 0, 0};
    return launch(grid, kernel, (uint32_t)count, args...);
}

static __device__ inline uint32_t chunk_index(void)
{
    return blockIdx.x * THREADS + threadIdx.x;
}

#endif
