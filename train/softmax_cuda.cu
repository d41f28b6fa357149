/*
 * Softmax over causal scores and its gradient on a CUDA device, for attention as
 * attention_cuda.c makes it of products: twins of those in ops_attention.c.
 *
 * A block a row. Scores are fp32, and neighbours in a warp read neighbours in memory; what the
 * products take is written in the activations' type.
 *
 * Thread: see ops_cuda.h.
 */

#include "train/elements.cuh"
#include "train/ops_cuda.h"

/* An element of an array of elem_t. */
template <typename elem_t> static __device__ void put_at(void *array, uint64_t i, float value)
{
    if constexpr (sizeof(elem_t) == 4)
        ((float *)array)[i] = value;
    else
        ((uint16_t *)array)[i] = (uint16_t)element<elem_t>::narrow(value);
}

template <typename elem_t>
static __global__ void __launch_bounds__(THREADS, BLOCKS(THREADS))
    softmax_kernel(struct cuda_scores a)
{
    uint32_t head = blockIdx.x / a.rows;
    uint32_t row = blockIdx.x % a.rows;
    uint64_t at = (uint64_t)blockIdx.x * a.keys;
    float *scores = a.scores + at;
    uint32_t end = a.first + row + 1;
    uint32_t begin = a.window != 0 && end > a.window ? end - a.window : 0;
    float max = -INFINITY;
    for (uint32_t j = begin + threadIdx.x; j < end; j += THREADS)
        max = fmaxf(max, scores[j]);
    max = block_max(max);
    double sum = 0;
    for (uint32_t j = begin + threadIdx.x; j < end; j += THREADS) {
        scores[j] = expf(scores[j] - max);
        sum += scores[j];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0 && a.lse != NULL)
        a.lse[head * a.lse_stride + row] = (float)(log(sum) + max);
    float inverse = (float)(1.0 / sum);
    for (uint32_t j = threadIdx.x; j < a.keys; j += THREADS) {
        scores[j] = j >= begin && j < end ? scores[j] * inverse : 0.0f;
        if (sizeof(elem_t) != sizeof(float))
            put_at<elem_t>(a.rounded, at + j, scores[j]);
    }
}

extern "C" int strata_cuda_softmax(void *stream, const struct cuda_scores *args)
{
    struct grid grid = {stream, (uint64_t)args->heads * args->rows, 0, 0};
    return launch(grid, KERNEL_OF(softmax_kernel, args->dtype), *args);
}

template <typename elem_t>
static __global__ void __launch_bounds__(THREADS, BLOCKS(THREADS))
    softmax_grad_kernel(struct cuda_scores a)
{
    uint64_t at = (uint64_t)blockIdx.x * a.keys;
    const float *p = a.scores + at;
    float *d = a.d_scores + at;
    double dot = 0;
    for (uint32_t j = threadIdx.x; j < a.keys; j += THREADS)
        dot += (double)p[j] * d[j];
    float mean = (float)block_sum(dot);
    void *out = sizeof(elem_t) != sizeof(float) ? a.rounded : a.d_scores;
    for (uint32_t j = threadIdx.x; j < a.keys; j += THREADS)
        put_at<elem_t>(out, at + j, p[j] * (d[j] - mean) * a.scale);
}

extern "C" int strata_cuda_softmax_grad(void *stream, const struct cuda_scores *args)
{
    struct grid grid = {stream, (uint64_t)args->heads * args->rows, 0, 0};
    return launch(grid, KERNEL_OF(softmax_grad_kernel, args->dtype), *args);
}

template <typename elem_t, bool WIDE>
static __global__ void __launch_bounds__(THREADS, BLOCKS(THREADS))
    heads_to_rows_kernel(uint32_t count, struct cuda_heads a, uint32_t chunks)
{
    constexpr uint32_t elems = element<elem_t>::chunk;
    uint32_t i = chunk_index();
    if (i >= count)
        return;
    uint32_t col = i % chunks * elems;
    uint32_t line = i / chunks; /* of src */
    uint32_t left = a.head_dim - col;
    uint64_t to = line % a.seq * a.stride + (uint64_t)(line / a.seq) * a.head_dim + col;
    float values[elems];
    load_floats<elem_t, WIDE>(values, a.src, (uint64_t)line * a.head_dim + col, left);
    struct chunk out = {};
#pragma unroll
    for (uint32_t k = 0; k < elems; k++)
        put<elem_t>(&out, k, values[k]);
    store<elem_t, WIDE>(a.dst, to, left, out);
}

extern "C" int strata_cuda_heads_to_rows(void *stream, const struct cuda_heads *args,
                                         strata_dtype dtype)
{
    uint32_t chunks = chunks_of(args->head_dim, dtype);
    bool wide =
        is_wide(dtype, args->head_dim | args->stride, address(args->src) | address(args->dst));
    return launch_chunks(stream, (uint64_t)args->heads * args->seq * chunks,
                         KERNEL_FOR(heads_to_rows_kernel, dtype, wide), *args, chunks);
}
