/*
 * The operators that no library has, on a CUDA device: twins of ops_host.c, ops_vocab.c and the
 * softmax of ops_attention.c. Matrix products are products_cuda.c's.
 *
 * Every sum has one order, given by the shape alone: a thread adds its elements in their order,
 * the threads of a block are added as a tree. No atomics, so a step's result is one. Sums over
 * a row are in double, as on the host.
 *
 * One thread block a row where a row is reduced, one thread an element elsewhere.
 *
 * The look-up's gradient: the first row of a token owns it, and adds all rows of that token in
 * their order; the others leave. So no two blocks write to one row, and the sums are the host's
 * to the bit.
 *
 * Thread: see ops_cuda.h.
 */

#include "train/ops_cuda.h"

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define THREADS 256u

/* Sums over rows: columns and rows that a thread block takes at a time, and the rows of a part.
 * A test has fewer of those, so that short arrays have several parts. */
#define TILE_COLUMNS 32u
#define TILE_ROWS    8u
#ifndef PART_ROWS
#    define PART_ROWS 2048u
#endif

static __device__ float widen(const void *array, strata_dtype dtype, uint64_t i)
{
    if (dtype == STRATA_FP32)
        return ((const float *)array)[i];
    uint16_t half = ((const uint16_t *)array)[i];
    if (dtype == STRATA_FP16)
        return __half2float(__ushort_as_half(half));
    return __uint_as_float((uint32_t)half << 16);
}

/* To nearest, ties to even, as the library's own conversions. */
static __device__ void narrow(void *array, strata_dtype dtype, uint64_t i, float value)
{
    uint32_t bits = __float_as_uint(value);
    uint16_t half;
    if (dtype == STRATA_FP16)
        half = __half_as_ushort(__float2half_rn(value));
    else if (value != value)
        half = 0x7fc0;
    else
        half = (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
    ((uint16_t *)array)[i] = half;
}

/* The sum of all threads' values, for all of them. */
static __device__ double block_sum(double value)
{
    __shared__ double parts[THREADS];
    parts[threadIdx.x] = value;
    __syncthreads();
    for (uint32_t half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half)
            parts[threadIdx.x] += parts[threadIdx.x + half];
        __syncthreads();
    }
    double sum = parts[0];
    __syncthreads();
    return sum;
}

static __device__ float block_max(float value)
{
    __shared__ float parts[THREADS];
    parts[threadIdx.x] = value;
    __syncthreads();
    for (uint32_t half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half)
            parts[threadIdx.x] = fmaxf(parts[threadIdx.x], parts[threadIdx.x + half]);
        __syncthreads();
    }
    float max = parts[0];
    __syncthreads();
    return max;
}

static cudaLaunchConfig_t blocks(uint64_t count, void *stream)
{
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((uint32_t)count);
    config.blockDim = dim3(THREADS);
    config.stream = (cudaStream_t)stream;
    return config;
}

/* One thread an element. */
static cudaLaunchConfig_t elements(uint64_t count, void *stream)
{
    return blocks((count + THREADS - 1) / THREADS, stream);
}

static __device__ uint64_t element(void)
{
    return (uint64_t)blockIdx.x * THREADS + threadIdx.x;
}

static __global__ void narrow_kernel(void *dst, strata_dtype dtype, const float *src,
                                     uint64_t count)
{
    uint64_t i = element();
    if (i < count)
        narrow(dst, dtype, i, src[i]);
}

extern "C" int strata_cuda_narrow(void *stream, void *dst, strata_dtype dtype, const float *src,
                                  uint64_t count)
{
    cudaLaunchConfig_t config = elements(count, stream);
    return cudaLaunchKernelEx(&config, narrow_kernel, dst, dtype, src, count);
}

/* Norms. */

static __device__ float inverse_rms(const float *x, uint64_t width, float eps)
{
    double sum = 0;
    for (uint64_t i = threadIdx.x; i < width; i += THREADS)
        sum += (double)x[i] * x[i];
    return (float)(1.0 / sqrt(block_sum(sum) / (double)width + eps));
}

static __global__ void norm_kernel(struct op_norm a, strata_dtype dtype)
{
    const float *x = a.x + blockIdx.x * a.width;
    float *out = a.out + blockIdx.x * a.width;
    float inverse = inverse_rms(x, a.width, a.eps);
    for (uint64_t i = threadIdx.x; i < a.width; i += THREADS)
        out[i] = x[i] * inverse * widen(a.weight, dtype, i);
}

extern "C" int strata_cuda_norm(void *stream, const struct op_norm *args,
                                strata_dtype weight_dtype)
{
    cudaLaunchConfig_t config = blocks(args->rows, stream);
    return cudaLaunchKernelEx(&config, norm_kernel, *args, weight_dtype);
}

/* Of each row: 1 / rms, and the mean of dy * weight * normed x. */
static __global__ void norm_stats_kernel(struct op_norm_grad a, strata_dtype dtype,
                                         float *stats)
{
    const float *x = a.x + blockIdx.x * a.width;
    const float *dy = a.dy + blockIdx.x * a.width;
    float inverse = inverse_rms(x, a.width, a.eps);
    double sum = 0;
    for (uint64_t i = threadIdx.x; i < a.width; i += THREADS)
        sum += (double)(dy[i] * widen(a.weight, dtype, i)) * (x[i] * inverse);
    sum = block_sum(sum);
    if (threadIdx.x != 0)
        return;
    stats[2 * blockIdx.x] = inverse;
    stats[2 * blockIdx.x + 1] = (float)(sum / (double)a.width);
}

/* Sums over rows of dy, or of dy * normed x, added to out. Rows go in parts, so that many
 * blocks share narrow arrays; the parts are added in their order. */
struct column_sums {
    const float *dy;
    const float *x;     /* NULL: dy alone                    */
    const float *stats; /* with x: 1 / rms of row r at 2 r   */
    double *parts;      /* parts x width; unused for one part */
    float *out;
    uint64_t rows;
    uint64_t width;
};

static __host__ __device__ uint64_t part_count(uint64_t rows)
{
    return (rows + PART_ROWS - 1) / PART_ROWS;
}

static uint64_t parts_bytes(uint64_t rows, uint64_t width)
{
    return part_count(rows) * width * sizeof(double);
}

/* Thread (row, column) of a tile adds every eighth row; the eight are added in their order. */
static __global__ void column_sums_kernel(struct column_sums a)
{
    __shared__ double tile[TILE_ROWS][TILE_COLUMNS];
    uint64_t tiles = (a.width + TILE_COLUMNS - 1) / TILE_COLUMNS;
    uint64_t part = blockIdx.x / tiles;
    uint32_t row = threadIdx.x / TILE_COLUMNS;
    uint32_t lane = threadIdx.x % TILE_COLUMNS;
    uint64_t column = blockIdx.x % tiles * TILE_COLUMNS + lane;
    uint64_t end = part * PART_ROWS + PART_ROWS < a.rows ? (part + 1) * PART_ROWS : a.rows;
    double sum = 0;
    for (uint64_t r = part * PART_ROWS + row; column < a.width && r < end; r += TILE_ROWS) {
        uint64_t i = r * a.width + column;
        sum += a.x != NULL ? (double)a.dy[i] * (a.x[i] * a.stats[2 * r]) : (double)a.dy[i];
    }
    tile[row][lane] = sum;
    __syncthreads();
    if (row != 0 || column >= a.width)
        return;
    for (uint32_t i = 1; i < TILE_ROWS; i++)
        sum += tile[i][lane];
    if (part_count(a.rows) == 1)
        a.out[column] += (float)sum;
    else
        a.parts[part * a.width + column] = sum;
}

static __global__ void add_parts_kernel(struct column_sums a)
{
    uint64_t column = element();
    if (column >= a.width)
        return;
    double sum = 0;
    for (uint64_t part = 0; part < part_count(a.rows); part++)
        sum += a.parts[part * a.width + column];
    a.out[column] += (float)sum;
}

static int launch_column_sums(void *stream, const struct column_sums *sums)
{
    uint64_t tiles = (sums->width + TILE_COLUMNS - 1) / TILE_COLUMNS;
    cudaLaunchConfig_t config = blocks(tiles * part_count(sums->rows), stream);
    cudaError_t cause = cudaLaunchKernelEx(&config, column_sums_kernel, *sums);
    if (cause != cudaSuccess || part_count(sums->rows) == 1)
        return cause;
    config = elements(sums->width, stream);
    return cudaLaunchKernelEx(&config, add_parts_kernel, *sums);
}

static __global__ void norm_dx_kernel(struct op_norm_grad a, strata_dtype dtype,
                                      const float *stats)
{
    uint64_t i = element();
    if (i >= a.rows * a.width)
        return;
    uint64_t row = i / a.width;
    float inverse = stats[2 * row];
    float normed = a.x[i] * inverse;
    float grad =
        inverse * (a.dy[i] * widen(a.weight, dtype, i % a.width) - normed * stats[2 * row + 1]);
    a.dx[i] = a.add ? a.dx[i] + grad : grad;
}

extern "C" uint64_t strata_cuda_norm_grad_scratch(uint64_t rows, uint64_t width)
{
    return parts_bytes(rows, width) + 2 * rows * sizeof(float);
}

/* dweight before dx: dx may take the place of dy. */
extern "C" int strata_cuda_norm_grad(void *stream, const struct op_norm_grad *args,
                                     strata_dtype weight_dtype, void *scratch)
{
    struct column_sums sums = {};
    float *stats = (float *)((char *)scratch + parts_bytes(args->rows, args->width));
    cudaLaunchConfig_t config = blocks(args->rows, stream);
    cudaError_t cause =
        cudaLaunchKernelEx(&config, norm_stats_kernel, *args, weight_dtype, stats);
    if (cause != cudaSuccess)
        return cause;
    sums.dy = args->dy;
    sums.x = args->x;
    sums.stats = stats;
    sums.parts = (double *)scratch;
    sums.out = args->dweight;
    sums.rows = args->rows;
    sums.width = args->width;
    int failed = launch_column_sums(stream, &sums);
    if (failed != cudaSuccess)
        return failed;
    config = elements(args->rows * args->width, stream);
    return cudaLaunchKernelEx(&config, norm_dx_kernel, *args, weight_dtype,
                              (const float *)stats);
}

/* Biases. */

static __global__ void bias_kernel(struct op_bias a, strata_dtype dtype)
{
    uint64_t i = element();
    if (i < a.rows * a.width)
        a.x[i] += widen(a.bias, dtype, i % a.width);
}

extern "C" int strata_cuda_bias(void *stream, const struct op_bias *args,
                                strata_dtype weight_dtype)
{
    cudaLaunchConfig_t config = elements(args->rows * args->width, stream);
    return cudaLaunchKernelEx(&config, bias_kernel, *args, weight_dtype);
}

extern "C" uint64_t strata_cuda_bias_grad_scratch(uint64_t rows, uint64_t width)
{
    return parts_bytes(rows, width);
}

extern "C" int strata_cuda_bias_grad(void *stream, const struct op_bias_grad *args,
                                     void *scratch)
{
    struct column_sums sums = {};
    sums.dy = args->dy;
    sums.parts = (double *)scratch;
    sums.out = args->dbias;
    sums.rows = args->rows;
    sums.width = args->width;
    return launch_column_sums(stream, &sums);
}

/* Rotary embedding: a thread turns one pair. */

static __global__ void rotary_kernel(struct op_rotary a)
{
    uint64_t half = a.turned / 2;
    uint64_t i = element();
    if (i >= a.rows * a.heads * half)
        return;
    uint64_t pair = i % half;
    uint64_t row = i / half / a.heads;
    const float *cosines = a.table + row % a.seq * a.turned;
    float *x = a.x + i / half * a.head_dim + pair;
    float sine = a.inverse ? -cosines[half + pair] : cosines[half + pair];
    float low = x[0];
    float high = x[half];
    x[0] = low * cosines[pair] - high * sine;
    x[half] = high * cosines[pair] + low * sine;
}

extern "C" int strata_cuda_rotary(void *stream, const struct op_rotary *args)
{
    cudaLaunchConfig_t config = elements(args->rows * args->heads * (args->turned / 2), stream);
    return cudaLaunchKernelEx(&config, rotary_kernel, *args);
}

/* Gated linear units; the formulas and their order are ops_host.c's. */

#define SQRT_HALF    0.70710678118654752f
#define TWO_OVER_PI  0.79788456080286536f
#define GELU_CUBE    0.044715f
#define NORMAL_SCALE 0.39894228040143268f

static __device__ float activate(float x, enum op_activation activation)
{
    if (activation == OP_GELU)
        return 0.5f * x * (1.0f + erff(x * SQRT_HALF));
    if (activation == OP_GELU_TANH)
        return 0.5f * x * (1.0f + tanhf(TWO_OVER_PI * (x + GELU_CUBE * x * x * x)));
    return x / (1.0f + expf(-x));
}

static __global__ void glu_kernel(struct op_glu a)
{
    uint64_t i = element();
    if (i < a.count)
        a.out[i] = activate(a.gate[i], a.activation) * a.up[i];
}

extern "C" int strata_cuda_glu(void *stream, const struct op_glu *args)
{
    cudaLaunchConfig_t config = elements(args->count, stream);
    return cudaLaunchKernelEx(&config, glu_kernel, *args);
}

/* An activation's value and its derivative. */
struct slope {
    float value;
    float slope;
};

static __device__ struct slope slope_of(float x, enum op_activation activation)
{
    if (activation == OP_GELU) {
        float below = 0.5f * (1.0f + erff(x * SQRT_HALF));
        return {x * below, below + x * NORMAL_SCALE * expf(-0.5f * x * x)};
    }
    if (activation == OP_GELU_TANH) {
        float t = tanhf(TWO_OVER_PI * (x + GELU_CUBE * x * x * x));
        float inner = TWO_OVER_PI * (1.0f + 3.0f * GELU_CUBE * x * x);
        return {0.5f * x * (1.0f + t), 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * inner};
    }
    float sigmoid = 1.0f / (1.0f + expf(-x));
    return {x * sigmoid, sigmoid * (1.0f + x * (1.0f - sigmoid))};
}

static __global__ void glu_grad_kernel(struct op_glu_grad a)
{
    uint64_t i = element();
    if (i >= a.count)
        return;
    struct slope at = slope_of(a.gate[i], a.activation);
    a.gate[i] = a.d_out[i] * a.up[i] * at.slope;
    a.up[i] = a.d_out[i] * at.value;
}

extern "C" int strata_cuda_glu_grad(void *stream, const struct op_glu_grad *args)
{
    cudaLaunchConfig_t config = elements(args->count, stream);
    return cudaLaunchKernelEx(&config, glu_grad_kernel, *args);
}

/* The look-up. */

static __global__ void embed_kernel(struct op_embed a, strata_dtype dtype)
{
    uint64_t token = a.tokens[blockIdx.x];
    if (token < a.first || token - a.first >= a.slice_rows)
        return;
    for (uint64_t i = threadIdx.x; i < a.width; i += THREADS)
        a.out[blockIdx.x * a.width + i] =
            widen(a.weight, dtype, (token - a.first) * a.width + i);
}

extern "C" int strata_cuda_embed(void *stream, const struct op_embed *args,
                                 strata_dtype weight_dtype)
{
    cudaLaunchConfig_t config = blocks(args->rows, stream);
    return cudaLaunchKernelEx(&config, embed_kernel, *args, weight_dtype);
}

/* Is there a row before this one with the same token? */
static __device__ bool seen_before(const uint32_t *tokens, uint64_t row)
{
    double count = 0;
    for (uint64_t i = threadIdx.x; i < row; i += THREADS)
        count += tokens[i] == tokens[row];
    return block_sum(count) > 0;
}

static __global__ void embed_grad_kernel(struct op_embed_grad a)
{
    __shared__ bool same[THREADS];
    uint64_t row = blockIdx.x;
    uint64_t token = a.tokens[row];
    if (token < a.first || token - a.first >= a.slice_rows || seen_before(a.tokens, row))
        return;
    float *dweight = a.dweight + (token - a.first) * a.width;
    for (uint64_t start = row; start < a.rows; start += THREADS) {
        uint64_t mine = start + threadIdx.x;
        same[threadIdx.x] = mine < a.rows && a.tokens[mine] == token;
        __syncthreads();
        for (uint32_t k = 0; k < THREADS; k++) {
            if (!same[k])
                continue;
            const float *dy = a.dy + (start + k) * a.width;
            for (uint64_t i = threadIdx.x; i < a.width; i += THREADS)
                dweight[i] += dy[i];
        }
        __syncthreads();
    }
}

extern "C" int strata_cuda_embed_grad(void *stream, const struct op_embed_grad *args)
{
    cudaLaunchConfig_t config = blocks(args->rows, stream);
    return cudaLaunchKernelEx(&config, embed_grad_kernel, *args);
}

/* Cross entropy. */

static __global__ void entropy_begin_kernel(struct op_row_stat *stats, uint64_t rows)
{
    uint64_t row = element();
    if (row >= rows)
        return;
    stats[row].sum = 0.0;
    stats[row].max = -INFINITY;
    stats[row].target = 0.0f;
}

extern "C" int strata_cuda_entropy_begin(void *stream, struct op_row_stat *stats, uint64_t rows)
{
    cudaLaunchConfig_t config = elements(rows, stream);
    return cudaLaunchKernelEx(&config, entropy_begin_kernel, stats, rows);
}

/* Where in the slice the row's target is; slice_rows: nowhere. */
static __device__ uint64_t target_of(const struct op_entropy *a, uint64_t row)
{
    uint64_t target = a->targets[row];
    bool here = target >= a->first && target - a->first < a->slice_rows;
    return here ? target - a->first : a->slice_rows;
}

static __global__ void entropy_scan_kernel(struct op_entropy a)
{
    const float *logits = a.logits + blockIdx.x * a.stride;
    struct op_row_stat *stat = &a.stats[blockIdx.x];
    float before = stat->max;
    float max = before;
    for (uint64_t i = threadIdx.x; i < a.slice_rows; i += THREADS)
        max = fmaxf(max, logits[i]);
    max = block_max(max);
    double sum = 0;
    for (uint64_t i = threadIdx.x; i < a.slice_rows; i += THREADS)
        sum += expf(logits[i] - max);
    sum = block_sum(sum);
    if (threadIdx.x != 0)
        return;
    stat->sum = stat->sum * exp((double)before - max) + sum;
    stat->max = max;
    uint64_t target = target_of(&a, blockIdx.x);
    if (target < a.slice_rows)
        stat->target = logits[target];
}

extern "C" int strata_cuda_entropy_scan(void *stream, const struct op_entropy *args)
{
    cudaLaunchConfig_t config = blocks(args->rows, stream);
    return cudaLaunchKernelEx(&config, entropy_scan_kernel, *args);
}

static __global__ void entropy_grad_kernel(struct op_entropy a)
{
    float *logits = a.logits + blockIdx.x * a.stride;
    const struct op_row_stat *stat = &a.stats[blockIdx.x];
    float factor = (float)(a.scale / stat->sum);
    uint64_t target = target_of(&a, blockIdx.x);
    for (uint64_t i = threadIdx.x; i < a.slice_rows; i += THREADS) {
        float grad = expf(logits[i] - stat->max) * factor;
        logits[i] = i == target ? grad - a.scale : grad;
    }
}

extern "C" int strata_cuda_entropy_grad(void *stream, const struct op_entropy *args)
{
    cudaLaunchConfig_t config = blocks(args->rows, stream);
    return cudaLaunchKernelEx(&config, entropy_grad_kernel, *args);
}

/* One block; its first thread adds the rows in their order. */
static __global__ void entropy_loss_kernel(const struct op_row_stat *stats, uint64_t rows,
                                           double *out)
{
    __shared__ double losses[THREADS];
    double loss = 0.0;
    for (uint64_t start = 0; start < rows; start += THREADS) {
        uint64_t row = start + threadIdx.x;
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
    cudaLaunchConfig_t config = blocks(1, stream);
    return cudaLaunchKernelEx(&config, entropy_loss_kernel, stats, rows, out);
}

/* Attention. */

static __global__ void softmax_kernel(struct cuda_scores a)
{
    float *scores = a.scores + blockIdx.x * a.keys;
    uint64_t end = a.first + blockIdx.x % a.rows + 1;
    uint64_t begin = a.window != 0 && end > a.window ? end - a.window : 0;
    float max = -INFINITY;
    for (uint64_t j = begin + threadIdx.x; j < end; j += THREADS)
        max = fmaxf(max, scores[j]);
    max = block_max(max);
    double sum = 0;
    for (uint64_t j = begin + threadIdx.x; j < end; j += THREADS) {
        scores[j] = expf(scores[j] - max);
        sum += scores[j];
    }
    float inverse = (float)(1.0 / block_sum(sum));
    for (uint64_t j = threadIdx.x; j < a.keys; j += THREADS) {
        scores[j] = j >= begin && j < end ? scores[j] * inverse : 0.0f;
        if (a.half != NULL)
            narrow(a.half, a.dtype, blockIdx.x * a.keys + j, scores[j]);
    }
}

extern "C" int strata_cuda_softmax(void *stream, const struct cuda_scores *args)
{
    cudaLaunchConfig_t config = blocks(args->heads * args->rows, stream);
    return cudaLaunchKernelEx(&config, softmax_kernel, *args);
}

static __global__ void softmax_grad_kernel(struct cuda_scores a)
{
    const float *p = a.scores + blockIdx.x * a.keys;
    float *d = a.d_scores + blockIdx.x * a.keys;
    double dot = 0;
    for (uint64_t j = threadIdx.x; j < a.keys; j += THREADS)
        dot += (double)p[j] * d[j];
    float mean = (float)block_sum(dot);
    for (uint64_t j = threadIdx.x; j < a.keys; j += THREADS) {
        d[j] = p[j] * (d[j] - mean) * a.scale;
        if (a.half != NULL)
            narrow(a.half, a.dtype, blockIdx.x * a.keys + j, d[j]);
    }
}

extern "C" int strata_cuda_softmax_grad(void *stream, const struct cuda_scores *args)
{
    cudaLaunchConfig_t config = blocks(args->heads * args->rows, stream);
    return cudaLaunchKernelEx(&config, softmax_grad_kernel, *args);
}

static __global__ void heads_to_rows_kernel(float *dst, const float *src, uint64_t heads,
                                            uint64_t seq, uint64_t head_dim)
{
    uint64_t i = element();
    if (i >= heads * seq * head_dim)
        return;
    uint64_t head = i / (seq * head_dim);
    uint64_t row = i / head_dim % seq;
    dst[(row * heads + head) * head_dim + i % head_dim] = src[i];
}

extern "C" int strata_cuda_heads_to_rows(void *stream, float *dst, const float *src,
                                         uint64_t heads, uint64_t seq, uint64_t head_dim)
{
    cudaLaunchConfig_t config = elements(heads * seq * head_dim, stream);
    return cudaLaunchKernelEx(&config, heads_to_rows_kernel, dst, src, heads, seq, head_dim);
}
