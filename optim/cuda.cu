/*
 * Adam, norm blocks and rounding on a CUDA device, for tiles whose state is in its memory.
 *
 * adam.c, norm.c and half.h have the definitions; the bits here are the same. So every
 * operation of Adam is an intrinsic that rounds to nearest and is never contracted, whatever
 * the compiler's flags. This file is still compiled with -fmad=false -ftz=false -prec-div=true
 * -prec-sqrt=true, because the few float operations of half.h need them. A test reads the PTX.
 *
 * Adam and rounding are bound by memory: a thread has a quad, four elements whose first index
 * is a multiple of four. Where it lies in the range and arrays are aligned, each of its parts
 * is one load and one store, of 8 or 16 bytes; else its elements go one by one. half.h's own
 * loads and stores take any alignment, and so go by bytes here: they are not used.
 *
 * A norm block is a chain of 1,024 additions in each of its sixteen sums, and only the sums are
 * independent; a tile has hundreds of blocks, so a warp takes two of them and the warps fill
 * the device.
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
#define QUAD            4u

/* Elements by their types. */

static __device__ float load(const void *array, strata_dtype dtype, uint64_t i)
{
    if (dtype == STRATA_FP32)
        return ((const float *)array)[i];
    uint16_t half = ((const uint16_t *)array)[i];
    return dtype == STRATA_BF16 ? bf16_widen(half) : fp16_widen(half);
}

/* A 16-bit element as it is stored. */
static __device__ uint32_t rounded(float value, strata_dtype dtype)
{
    return dtype == STRATA_BF16 ? bf16_round(value) : fp16_round(value);
}

/* Elements of a quad that are to be moved: from begin to end - 1, and whether that is all and
 * memory allows it at once. */
struct span {
    uint32_t begin;
    uint32_t end;
    bool whole;
};

static __device__ struct span span_of(uint64_t quad, uint64_t first, uint64_t end, bool aligned)
{
    struct span out = {quad < first ? (uint32_t)(first - quad) : 0,
                       end - quad < QUAD ? (uint32_t)(end - quad) : QUAD, false};
    out.whole = aligned && out.end - out.begin == QUAD;
    return out;
}

static __device__ void load_quad(float *out, const void *array, strata_dtype dtype, uint64_t i,
                                 struct span span)
{
    if (!span.whole) {
#pragma unroll
        for (uint32_t k = 0; k < QUAD; k++)
            out[k] = k >= span.begin && k < span.end ? load(array, dtype, i + k) : 0.0f;
    } else if (dtype == STRATA_FP32) {
        uint4 words = *(const uint4 *)((const float *)array + i);
        out[0] = __uint_as_float(words.x);
        out[1] = __uint_as_float(words.y);
        out[2] = __uint_as_float(words.z);
        out[3] = __uint_as_float(words.w);
    } else {
        uint2 words = *(const uint2 *)((const uint16_t *)array + i);
        uint32_t halves[QUAD] = {words.x & 0xffff, words.x >> 16, words.y & 0xffff,
                                 words.y >> 16};
#pragma unroll
        for (uint32_t k = 0; k < QUAD; k++)
            out[k] = dtype == STRATA_BF16 ? bf16_widen((uint16_t)halves[k])
                                          : fp16_widen((uint16_t)halves[k]);
    }
}

/* bits: of fp32 numbers, or 16-bit ones as they are stored. */
static __device__ void store_quad(void *array, strata_dtype dtype, uint64_t i, struct span span,
                                  const uint32_t *bits)
{
    if (!span.whole) {
#pragma unroll
        for (uint32_t k = 0; k < QUAD; k++)
            if (k >= span.begin && k < span.end) {
                if (dtype == STRATA_FP32)
                    ((uint32_t *)array)[i + k] = bits[k];
                else
                    ((uint16_t *)array)[i + k] = (uint16_t)bits[k];
            }
    } else if (dtype == STRATA_FP32) {
        *(uint4 *)((float *)array + i) = make_uint4(bits[0], bits[1], bits[2], bits[3]);
    } else {
        *(uint2 *)((uint16_t *)array + i) =
            make_uint2(bits[0] | bits[1] << 16, bits[2] | bits[3] << 16);
    }
}

/* To nearest; a NaN is half.h's one. */
static __device__ void round_quad(void *array, strata_dtype dtype, uint64_t i, struct span span,
                                  const float *values)
{
    uint32_t bits[QUAD];
#pragma unroll
    for (uint32_t k = 0; k < QUAD; k++)
        bits[k] =
            dtype == STRATA_FP32 ? half_bits(half_canon(values[k])) : rounded(values[k], dtype);
    store_quad(array, dtype, i, span, bits);
}

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
    uint32_t which = element / 16 % 4;
    uint32_t word =
        which < 2 ? (which == 0 ? words[0] : words[1]) : (which == 2 ? words[2] : words[3]);
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

/* What a quad of a tile is made of. */
struct quad {
    float g[QUAD];
    float m[QUAD];
    float v[QUAD];
    float w[QUAD];
};

/* Does element k hold what is no finite number of its type? */
static __device__ bool is_spoiled(const struct quad *q, uint32_t k, strata_dtype moments)
{
    uint32_t limit = moments == STRATA_FP32 ? 0x7f7fffffu : 0x7f7f0000u;
    return (half_bits(q->w[k]) & 0x7fffffffu) > limit ||
           (half_bits(q->m[k]) & 0x7fffffffu) > limit ||
           (half_bits(q->v[k]) & 0x7fffffffu) > limit;
}

/* i: of the quad's first element, from the range's first on, and so below 0 where the range
 * begins within the quad. */
static __device__ void store_moments(const struct quad *q, const struct cuda_update *u,
                                     uint8_t *m, uint8_t *v, struct span span, uint32_t t,
                                     uint64_t i)
{
    uint32_t m_bits[QUAD] = {}, v_bits[QUAD] = {};
    if (strata_record_moments(u->record_type) == STRATA_FP32) {
        round_quad(m, STRATA_FP32, 0, span, q->m);
        round_quad(v, STRATA_FP32, 0, span, q->v);
        return;
    }
#pragma unroll
    for (uint32_t k = 0; k < QUAD; k++) {
        uint32_t r = random_half(t, u, i + k);
        m_bits[k] = bf16_round_random(q->m[k], r);
        v_bits[k] = bf16_round_random(q->v[k], (r << 8 & 0xff00) | r >> 8);
    }
    store_quad(m, STRATA_BF16, 0, span, m_bits);
    store_quad(v, STRATA_BF16, 0, span, v_bits);
}

static __global__ void __launch_bounds__(THREADS, 4)
    adam_kernel(strata_adam_step step, struct cuda_update u, bool aligned)
{
    uint64_t at = u.first / QUAD * QUAD + ((uint64_t)blockIdx.x * THREADS + threadIdx.x) * QUAD;
    if (at >= u.first + u.count)
        return;
    struct span span = span_of(at, u.first, u.first + u.count, aligned);
    strata_dtype moments = strata_record_moments(u.record_type);
    struct record_place place = strata_record_place(u.record_type, at);
    uint8_t *state = (uint8_t *)u.state;
    struct quad q;
    bool spoiled = false;
    load_quad(q.g, u.grad, u.dtype, at, span);
    load_quad(q.m, state + place.m, moments, 0, span);
    load_quad(q.v, state + place.v, moments, 0, span);
    load_quad(q.w, state + place.master, STRATA_FP32, 0, span);
#pragma unroll
    for (uint32_t k = 0; k < QUAD; k++) {
        q.w[k] = adam_element(&step, !u.no_decay, &q.m[k], &q.v[k], q.w[k], q.g[k]);
        spoiled |= k >= span.begin && k < span.end && is_spoiled(&q, k, moments);
    }
    if (!u.weights_only) {
        if (spoiled && u.spoiled != NULL)
            *u.spoiled = 1;
        round_quad(state + place.master, STRATA_FP32, 0, span, q.w);
        store_moments(&q, &u, state + place.m, state + place.v, span, step.t, at - u.first);
    }
    if (u.param != NULL)
        round_quad(u.param, u.dtype, at, span, q.w);
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
        double value = (double)load(grad, dtype, first + i);
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

static __global__ void __launch_bounds__(THREADS, 4)
    convert_kernel(void *dst, strata_dtype dst_dtype, const void *src, strata_dtype src_dtype,
                   uint64_t count, bool aligned)
{
    uint64_t at = ((uint64_t)blockIdx.x * THREADS + threadIdx.x) * QUAD;
    float values[QUAD];
    if (at >= count)
        return;
    struct span span = span_of(at, 0, count, aligned);
    load_quad(values, src, src_dtype, at, span);
    round_quad(dst, dst_dtype, at, span, values);
}

static __global__ void __launch_bounds__(THREADS, 4)
    rebuild_kernel(void *param, strata_dtype dtype, const void *state, enum record_type type,
                   uint64_t count, bool aligned)
{
    uint64_t at = ((uint64_t)blockIdx.x * THREADS + threadIdx.x) * QUAD;
    float values[QUAD];
    if (at >= count)
        return;
    struct span span = span_of(at, 0, count, aligned);
    uint64_t master = strata_record_place(type, at).master;
    load_quad(values, (const uint8_t *)state + master, STRATA_FP32, 0, span);
    round_quad(param, dtype, at, span, values);
}

/* May quads be moved at once? addresses: or'ed. */
static bool is_aligned(uintptr_t addresses)
{
    return addresses % sizeof(uint4) == 0;
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
    if (cause == cudaSuccess)
        cause = cudaFuncGetAttributes(&attributes, rebuild_kernel);
    return cause;
}

extern "C" int strata_cuda_adam(void *stream, const strata_adam_step *step,
                                const struct cuda_update *update)
{
    if (update->count == 0)
        return cudaSuccess;
    bool aligned = is_aligned((uintptr_t)update->grad | (uintptr_t)update->state |
                              (uintptr_t)update->param);
    uint64_t elems = update->first % QUAD + update->count;
    cudaLaunchConfig_t config = launch_config(elems, THREADS * QUAD, THREADS, stream);
    return cudaLaunchKernelEx(&config, adam_kernel, *step, *update, aligned);
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
    bool aligned = is_aligned((uintptr_t)dst | (uintptr_t)src);
    cudaLaunchConfig_t config = launch_config(count, THREADS * QUAD, THREADS, stream);
    return cudaLaunchKernelEx(&config, convert_kernel, dst, dst_dtype, src, src_dtype, count,
                              aligned);
}

extern "C" int strata_cuda_rebuild(void *stream, void *param, strata_dtype dtype,
                                   const void *state, enum record_type record_type,
                                   uint64_t block_count)
{
    uint64_t count = block_count * STRATA_BLOCK_ELEMS;
    if (count == 0)
        return cudaSuccess;
    bool aligned = is_aligned((uintptr_t)param | (uintptr_t)state);
    cudaLaunchConfig_t config = launch_config(count, THREADS * QUAD, THREADS, stream);
    return cudaLaunchKernelEx(&config, rebuild_kernel, param, dtype, state, record_type, count,
                              aligned);
}
