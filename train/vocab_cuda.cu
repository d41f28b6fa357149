/*
 * The two ends of a transformer on a CUDA device: twins of ops_vocab.c.
 *
 * The look-up's gradient: a block has one token's row and some of its columns, and adds the
 * rows of dy that look it up in their order, which is given. So no two blocks write to one
 * place, and the sums are the host's to the bit.
 *
 * Cross entropy: a block a row. The scan goes over the logits once. A thread keeps the largest
 * that it has seen and the sum of exponentials relative to it, and scales the sum again where a
 * larger one comes; the block's threads are then made relative to the row's largest. The loss
 * adds rows in their order, as the host does.
 *
 * Thread: see ops_cuda.h.
 */

#include "train/elements.cuh"
#include "train/ops_cuda.h"

template <typename elem_t, bool WIDE>
static __global__ void __launch_bounds__(THREADS, BLOCKS(THREADS))
    embed_kernel(struct op_embed a)
{
    constexpr uint32_t elems = element<elem_t>::chunk;
    uint64_t token = a.tokens[blockIdx.x];
    uint32_t width = (uint32_t)a.width;
    if (token < a.first || token - a.first >= a.slice_rows)
        return;
    uint64_t from = (token - a.first) * width;
    uint64_t to = (uint64_t)blockIdx.x * width;
    for (uint32_t col = threadIdx.x * elems; col < width; col += THREADS * elems)
        store<elem_t, WIDE>(a.out, to + col, width - col,
                            load<elem_t, WIDE>(a.weight, from + col, width - col));
}

extern "C" int strata_cuda_embed(void *stream, const struct op_embed *args, strata_dtype dtype)
{
    bool wide = is_wide(dtype, args->width, address(args->out) | address(args->weight));
    struct grid grid = {stream, args->rows, 0, 0};
    return launch(grid, KERNEL_FOR(embed_kernel, dtype, wide), *args);
}

template <typename elem_t, bool WIDE>
static __global__ void __launch_bounds__(THREADS, BLOCKS(THREADS))
    embed_grad_kernel(struct op_embed_grad a)
{
    constexpr uint32_t elems = element<elem_t>::chunk;
    uint32_t begin = a.starts[blockIdx.x];
    uint32_t end = a.starts[blockIdx.x + 1];
    uint64_t token = a.tokens[a.order[begin]];
    uint32_t col = (blockIdx.y * THREADS + threadIdx.x) * elems;
    if (token < a.first || token - a.first >= a.slice_rows || col >= a.width)
        return;
    uint32_t left = (uint32_t)a.width - col;
    uint64_t at = (token - a.first) * a.width + col;
    float sums[elems];
    load_floats<elem_t, WIDE>(sums, a.dweight, at, left);
#pragma unroll 4
    for (uint32_t i = begin; i < end; i++) {
        struct chunk dy = load<elem_t, WIDE>(a.dy, a.order[i] * a.width + col, left);
#pragma unroll
        for (uint32_t k = 0; k < elems; k++)
            sums[k] += get<elem_t>(dy, k);
    }
    store_floats<elem_t, WIDE>(a.dweight, at, left, sums);
}

extern "C" int strata_cuda_embed_grad(void *stream, const struct op_embed_grad *args,
                                      strata_dtype dtype)
{
    uint32_t chunks = chunks_of(args->width, dtype);
    bool wide = is_wide(dtype, args->width, address(args->dy) | address(args->dweight));
    struct grid grid = {stream, args->distinct, (chunks + THREADS - 1) / THREADS, 0};
    return launch(grid, KERNEL_FOR(embed_grad_kernel, dtype, wide), *args);
}

/* Cross entropy. */

static __global__ void __launch_bounds__(THREADS, BLOCKS(THREADS))
    entropy_begin_kernel(uint32_t rows, struct op_row_stat *stats)
{
    uint32_t row = chunk_index();
    if (row >= rows)
        return;
    stats[row].sum = 0.0;
    stats[row].max = -INFINITY;
    stats[row].target = 0.0f;
}

extern "C" int strata_cuda_entropy_begin(void *stream, struct op_row_stat *stats, uint64_t rows)
{
    return launch_chunks(stream, rows, entropy_begin_kernel, stats);
}

/* Where in the slice the row's target is; slice_rows: nowhere. */
static __device__ uint64_t target_of(const struct op_entropy *a, uint32_t row)
{
    uint64_t target = a->targets[row];
    bool here = target >= a->first && target - a->first < a->slice_rows;
    return here ? target - a->first : a->slice_rows;
}

/* Exponentials so far: their sum relative to the largest logit. */
struct running {
    double sum;
    float max;
};

/* What a sum relative to `from` is multiplied with to be relative to `to`. */
template <typename elem_t> static __device__ double scale_of(float from, float to)
{
    typedef typename element<elem_t>::sum_t sum_t;
    return exp((sum_t)from - (sum_t)to);
}

/* Adds a chunk, of which `left` elements are there. */
template <typename elem_t>
static __device__ void add_chunk(struct running *so_far, const struct chunk &logits,
                                 uint32_t left)
{
    float max = so_far->max;
    typename element<elem_t>::sum_t sum = 0;
#pragma unroll
    for (uint32_t i = 0; i < element<elem_t>::chunk; i++)
        max = i < left ? fmaxf(max, get<elem_t>(logits, i)) : max;
    /* Where nothing finite is there yet, a difference would be no number. */
    float relative_to = max > -INFINITY ? max : 0.0f;
#pragma unroll
    for (uint32_t i = 0; i < element<elem_t>::chunk; i++)
        sum += i < left ? expf(get<elem_t>(logits, i) - relative_to) : 0.0f;
    if (max > so_far->max)
        so_far->sum *= scale_of<elem_t>(so_far->max, max);
    so_far->sum += sum;
    so_far->max = max;
}

template <typename elem_t, bool WIDE>
static __global__ void __launch_bounds__(THREADS, BLOCKS(THREADS))
    entropy_scan_kernel(struct op_entropy a)
{
    constexpr uint32_t elems = element<elem_t>::chunk;
    uint32_t width = (uint32_t)a.slice_rows;
    uint64_t row = blockIdx.x * a.stride;
    struct op_row_stat *stat = &a.stats[blockIdx.x];
    struct running mine = {0.0, -INFINITY};
#pragma unroll 2
    for (uint32_t col = threadIdx.x * elems; col < width; col += THREADS * elems)
        add_chunk<elem_t>(&mine, load<elem_t, WIDE>(a.logits, row + col, width - col),
                          width - col);
    float before = stat->max;
    float max = block_max(fmaxf(mine.max, before));
    double sum = block_sum(mine.sum * scale_of<elem_t>(mine.max, max));
    if (threadIdx.x != 0)
        return;
    stat->sum = stat->sum * exp((double)before - max) + sum;
    stat->max = max;
    uint64_t target = target_of(&a, blockIdx.x);
    if (target < a.slice_rows)
        stat->target = get_at<elem_t>(a.logits, row + target);
}

static bool entropy_is_wide(const struct op_entropy *args, strata_dtype dtype)
{
    return is_wide(dtype, args->slice_rows | args->stride, address(args->logits));
}

extern "C" int strata_cuda_entropy_scan(void *stream, const struct op_entropy *args,
                                        strata_dtype dtype)
{
    struct grid grid = {stream, args->rows, 0, 0};
    bool wide = entropy_is_wide(args, dtype);
    return launch(grid, KERNEL_FOR(entropy_scan_kernel, dtype, wide), *args);
}

template <typename elem_t, bool WIDE>
static __global__ void __launch_bounds__(THREADS, BLOCKS(THREADS))
    entropy_grad_kernel(struct op_entropy a)
{
    constexpr uint32_t elems = element<elem_t>::chunk;
    uint32_t width = (uint32_t)a.slice_rows;
    uint64_t row = blockIdx.x * a.stride;
    const struct op_row_stat *stat = &a.stats[blockIdx.x];
    float max = stat->max;
    float factor = (float)(a.scale / stat->sum);
    uint32_t target = (uint32_t)target_of(&a, blockIdx.x);
    for (uint32_t col = threadIdx.x * elems; col < width; col += THREADS * elems) {
        struct chunk logits = load<elem_t, WIDE>(a.logits, row + col, width - col);
        struct chunk out = {};
#pragma unroll
        for (uint32_t i = 0; i < elems; i++) {
            float grad = expf(get<elem_t>(logits, i) - max) * factor;
            put<elem_t>(&out, i, col + i == target ? grad - a.scale : grad);
        }
        store<elem_t, WIDE>(a.logits, row + col, width - col, out);
    }
}

extern "C" int strata_cuda_entropy_grad(void *stream, const struct op_entropy *args,
                                        strata_dtype dtype)
{
    struct grid grid = {stream, args->rows, 0, 0};
    bool wide = entropy_is_wide(args, dtype);
    return launch(grid, KERNEL_FOR(entropy_grad_kernel, dtype, wide), *args);
}

/* One block; its first thread adds the rows in their order. */
static __global__ void __launch_bounds__(THREADS, BLOCKS(THREADS))
    entropy_loss_kernel(const struct op_row_stat *stats, uint32_t rows, double *out)
{
    __shared__ double losses[THREADS];
    double loss = 0.0;
    for (uint32_t start = 0; start < rows; start += THREADS) {
        uint32_t row = start + threadIdx.x;
        losses[threadIdx.x] =
            row < rows ? log(stats[row].sum) + stats[row].max - stats[row].target : 0.0;
        __syncthreads();
        for (uint32_t i = 0; threadIdx.x == 0 && i < THREADS; i++)
            loss += losses[i];
        __syncthreads();
    }
    if (threadIdx.x == 0)
        *out = loss / (double)rows;
}

extern "C" int strata_cuda_entropy_loss(void *stream, const struct op_row_stat *stats,
                                        uint64_t rows, double *out)
{
    struct grid grid = {stream, 1, 0, 0};
    return launch(grid, entropy_loss_kernel, stats, (uint32_t)rows, out);
}
