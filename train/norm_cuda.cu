/*
 * Norms, and sums over rows, on a CUDA device: twins of ops_norm.c.
 *
 * A line is what is normed: a row, or one of the heads that lie side by side in it. Threads
 * share a line; a thread's first chunk, or first few, stay in registers between the sum and
 * what follows from it, so that memory is read once. Only lines of more than 16 KiB have more,
 * and those chunks are read again.
 *
 * The norm's gradient goes over a part of the lines in each block. A thread has the same
 * columns of every line that it takes, so dweight's sums are its own until the part ends. A
 * block's sums are then a row of an array in scratch, and a second kernel adds those rows.
 *
 * Every sum has one order, which follows from shape and type.
 *
 * Thread: see ops_cuda.h.
 */

#include "train/elements.cuh"
#include "train/ops_cuda.h"

/* Chunks of a line that a thread of norm_kernel keeps. */
#define NORM_KEPT 4u

/* A norm's gradient: threads of a block, where one line takes all of them and where several
 * groups have a line each. */
#define GRAD_THREADS_MAX 1024u
#define GROUPS_THREADS   512u

/* Lines of a part, at least, so that adding parts is little beside making them. PARTS_MAX:
 * about two blocks for each SM of the largest GPUs. */
#define PART_LINES_MIN 16u
#define PARTS_MAX      256u

/* Sums over rows: chunks or columns, and rows, that a block takes at a time. */
#define TILE_COLUMNS WARP
#define TILE_ROWS    (THREADS / TILE_COLUMNS)

/* Where the lines of an array lie, and how many threads share one. */
struct lines {
    uint32_t count;
    uint32_t heads; /* of a row */
    uint32_t width;
    uint32_t threads;
    uint64_t stride; /* from a row to the next */
};

/* As many as leave each with `kept` chunks, but neither a few that read far apart nor more than
 * a block has: a power of two within a warp, else whole warps. */
static uint32_t line_threads(uint32_t chunks, uint32_t kept, uint32_t block)
{
    uint32_t threads = 8;
    while (threads < WARP && threads * kept < chunks)
        threads *= 2;
    while (threads < block && threads * kept < chunks)
        threads += WARP;
    return threads;
}

static struct lines lines_of(uint64_t rows, uint64_t heads, uint64_t width, uint64_t stride)
{
    struct lines lines = {};
    lines.heads = heads != 0 ? (uint32_t)heads : 1;
    lines.count = (uint32_t)(rows * lines.heads);
    lines.width = (uint32_t)width;
    lines.stride = stride != 0 ? stride : lines.heads * width;
    return lines;
}

static __device__ uint64_t line_at(const struct lines *lines, uint32_t line)
{
    return line / lines->heads * lines->stride + (uint64_t)(line % lines->heads) * lines->width;
}

template <typename elem_t>
static __device__ typename element<elem_t>::sum_t sum_of_squares(const struct chunk &x)
{
    typename element<elem_t>::sum_t sum = 0;
#pragma unroll
    for (uint32_t i = 0; i < element<elem_t>::chunk; i++) {
        typename element<elem_t>::sum_t value = get<elem_t>(x, i);
        sum += value * value;
    }
    return sum;
}

template <typename sum_t>
static __device__ float inverse_rms(sum_t squares, uint32_t width, float eps)
{
    return (float)((sum_t)1 / sqrt(squares / (sum_t)width + (sum_t)eps));
}

/* What the norm gives for a chunk of a line. */
template <typename elem_t>
static __device__ struct chunk norm_of(const struct chunk &x, float inverse,
                                       const struct chunk &weight)
{
    struct chunk out = {};
#pragma unroll
    for (uint32_t i = 0; i < element<elem_t>::chunk; i++)
        put<elem_t>(&out, i, get<elem_t>(x, i) * inverse * get<elem_t>(weight, i));
    return out;
}

template <typename elem_t, bool WIDE>
static __global__ void __launch_bounds__(THREADS, BLOCKS(THREADS))
    norm_kernel(struct op_norm a, struct lines lines)
{
    constexpr uint32_t elems = element<elem_t>::chunk;
    uint32_t line = blockIdx.x * (blockDim.x / lines.threads) + threadIdx.x / lines.threads;
    uint32_t width = line < lines.count ? lines.width : 0;
    uint64_t at = line < lines.count ? line_at(&lines, line) : 0;
    uint32_t first = threadIdx.x % lines.threads * elems;
    uint32_t step = lines.threads * elems;
    struct chunk kept[NORM_KEPT] = {};
    typename element<elem_t>::sum_t sum = 0;
#pragma unroll
    for (uint32_t k = 0; k < NORM_KEPT; k++)
        if (first + k * step < width)
            kept[k] = load<elem_t, WIDE>(a.x, at + first + k * step, width - first - k * step);
#pragma unroll
    for (uint32_t k = 0; k < NORM_KEPT; k++)
        sum += sum_of_squares<elem_t>(kept[k]);
    for (uint32_t col = first + NORM_KEPT * step; col < width; col += step)
        sum += sum_of_squares<elem_t>(load<elem_t, WIDE>(a.x, at + col, width - col));
    row_sums<1>(&sum, lines.threads);
    float inverse = inverse_rms(sum, lines.width, a.eps);
#pragma unroll
    for (uint32_t k = 0; k < NORM_KEPT; k++) {
        uint32_t col = first + k * step;
        if (col < width)
            store<elem_t, WIDE>(
                a.out, at + col, width - col,
                norm_of<elem_t>(kept[k], inverse,
                                load<elem_t, WIDE>(a.weight, col, width - col)));
    }
    for (uint32_t col = first + NORM_KEPT * step; col < width; col += step)
        store<elem_t, WIDE>(a.out, at + col, width - col,
                            norm_of<elem_t>(load<elem_t, WIDE>(a.x, at + col, width - col),
                                            inverse,
                                            load<elem_t, WIDE>(a.weight, col, width - col)));
}

extern "C" int strata_cuda_norm(void *stream, const struct op_norm *args, strata_dtype dtype)
{
    struct lines lines = lines_of(args->rows, args->heads, args->width, args->stride);
    lines.threads = line_threads(chunks_of(args->width, dtype), NORM_KEPT, THREADS);
    bool wide = is_wide(dtype, args->width | lines.stride,
                        address(args->x) | address(args->weight) | address(args->out));
    uint32_t each = THREADS / lines.threads;
    struct grid grid = {stream, ((uint64_t)lines.count + each - 1) / each, 0,
                        each * lines.threads};
    return launch(grid, KERNEL_FOR(norm_kernel, dtype, wide), *args, lines);
}

/* The gradient. */

/* What a line's sums come to. */
struct line_stats {
    float inverse; /* 1 / rms                                */
    float mean;    /* of dy * weight * normed x, over a line */
};

/* Parts of the lines, and the array of their sums. */
struct norm_parts {
    void *sums;     /* count x width, of the type's sum_t */
    uint32_t lines; /* of a part                          */
    uint32_t count;
};

/* A chunk of a line's two arguments. */
struct grad_chunk {
    struct chunk x;
    struct chunk dy;
};

template <typename elem_t, bool WIDE>
static __device__ struct grad_chunk load_grad(const struct op_norm_grad *a, uint64_t at,
                                              uint32_t left)
{
    struct grad_chunk out;
    out.x = load<elem_t, WIDE>(a->x, at, left);
    out.dy = load<elem_t, WIDE>(a->dy, at, left);
    return out;
}

/* What dx is added to. */
template <typename elem_t, bool WIDE>
static __device__ struct chunk load_dx(const struct op_norm_grad *a, uint64_t at, uint32_t left)
{
    struct chunk none = {};
    return a->add ? load<elem_t, WIDE>(a->dx, at, left) : none;
}

/* Adds to sums the squares of x, and dy * weight * x. */
template <typename elem_t, typename sum_t>
static __device__ void add_sums(sum_t *sums, const struct grad_chunk &of,
                                const struct chunk &weight)
{
    sum_t sum = 0;
#pragma unroll
    for (uint32_t i = 0; i < element<elem_t>::chunk; i++) {
        sum_t value = get<elem_t>(of.dy, i) * get<elem_t>(weight, i);
        sum += value * get<elem_t>(of.x, i);
    }
    sums[0] += sum_of_squares<elem_t>(of.x);
    sums[1] += sum;
}

/* Writes a chunk of dx and of what the norm gave; adds dweight's terms to sums. */
template <typename elem_t, bool WIDE, typename sum_t>
static __device__ void finish_chunk(const struct op_norm_grad *a, uint64_t at, uint32_t left,
                                    const struct grad_chunk &of, const struct chunk &before,
                                    const struct line_stats &stats, sum_t *sums)
{
    uint32_t col = a->width - left;
    struct chunk weight = load<elem_t, WIDE>(a->weight, col, left);
    struct chunk dx = {};
#pragma unroll
    for (uint32_t i = 0; i < element<elem_t>::chunk; i++) {
        float normed = get<elem_t>(of.x, i) * stats.inverse;
        float dy = get<elem_t>(of.dy, i);
        float grad = stats.inverse * (dy * get<elem_t>(weight, i) - normed * stats.mean);
        put<elem_t>(&dx, i, a->add ? get<elem_t>(before, i) + grad : grad);
        sums[i] += (sum_t)dy * normed;
    }
    store<elem_t, WIDE>(a->dx, at, left, dx);
    if (a->normed != NULL)
        store<elem_t, WIDE>(a->normed, at, left, norm_of<elem_t>(of.x, stats.inverse, weight));
}

/* The sums of a block's groups of threads, which have taken different lines, in their order:
 * the first group has them afterwards. */
template <typename elem_t, typename sum_t>
static __device__ void add_groups(sum_t *sums, uint32_t threads)
{
    constexpr uint32_t elems = element<elem_t>::chunk;
    __shared__ sum_t all[GROUPS_THREADS * elems];
#pragma unroll
    for (uint32_t i = 0; i < elems; i++)
        all[i * GROUPS_THREADS + threadIdx.x] = sums[i];
    __syncthreads();
    for (uint32_t from = threads; threadIdx.x < threads && from < blockDim.x; from += threads)
#pragma unroll
        for (uint32_t i = 0; i < elems; i++)
            sums[i] += all[i * GROUPS_THREADS + from + threadIdx.x];
}

template <typename sum_t>
static __device__ struct line_stats stats_of(const sum_t *sums, uint32_t width, float eps)
{
    struct line_stats stats;
    stats.inverse = inverse_rms(sums[0], width, eps);
    stats.mean = (float)(sums[1] * stats.inverse / (sum_t)width);
    return stats;
}

/* A thread has one chunk of a line. The weight is read twice, from the cache, since registers
 * are scarce. */
template <typename elem_t, bool WIDE>
static __global__ void __launch_bounds__(GRAD_THREADS_MAX, BLOCKS(GRAD_THREADS_MAX))
    norm_grad_kernel(struct op_norm_grad a, struct lines lines, struct norm_parts parts)
{
    constexpr uint32_t elems = element<elem_t>::chunk;
    typedef typename element<elem_t>::sum_t sum_t;
    uint32_t groups = blockDim.x / lines.threads;
    uint32_t from = blockIdx.x * parts.lines;
    uint32_t end = from + parts.lines < lines.count ? from + parts.lines : lines.count;
    uint32_t line = from + threadIdx.x / lines.threads;
    uint32_t col = threadIdx.x % lines.threads * elems;
    uint32_t left = col < lines.width ? lines.width - col : 0;
    sum_t kept[elems] = {};
    /* Every group has as many turns, since they meet at barriers. */
    for (; from < end; from += groups, line += groups) {
        bool there = left > 0 && line < end;
        uint64_t at = there ? line_at(&lines, line) + col : 0;
        struct grad_chunk of = {};
        struct chunk before = {};
        sum_t sums[2] = {};
        if (there) {
            of = load_grad<elem_t, WIDE>(&a, at, left);
            before = load_dx<elem_t, WIDE>(&a, at, left);
            add_sums<elem_t>(sums, of, load<elem_t, WIDE>(a.weight, col, left));
        }
        row_sums<2>(sums, lines.threads);
        if (there)
            finish_chunk<elem_t, WIDE>(&a, at, left, of, before,
                                       stats_of(sums, lines.width, a.eps), kept);
    }
    if (groups > 1)
        add_groups<elem_t>(kept, lines.threads);
    sum_t *out = (sum_t *)parts.sums + (uint64_t)blockIdx.x * lines.width + col;
    for (uint32_t i = 0; threadIdx.x < lines.threads && i < elems; i++)
        if (i < left)
            out[i] = kept[i];
}

/* Lines that have more chunks than a block has threads: they are read twice, and dweight's sums
 * are kept in memory. */
template <typename elem_t, bool WIDE>
static __global__ void __launch_bounds__(GRAD_THREADS_MAX, BLOCKS(GRAD_THREADS_MAX))
    norm_grad_long_kernel(struct op_norm_grad a, struct lines lines, struct norm_parts parts)
{
    constexpr uint32_t elems = element<elem_t>::chunk;
    typedef typename element<elem_t>::sum_t sum_t;
    sum_t *out = (sum_t *)parts.sums + (uint64_t)blockIdx.x * lines.width;
    uint32_t begin = blockIdx.x * parts.lines;
    uint32_t end = begin + parts.lines < lines.count ? begin + parts.lines : lines.count;
    uint32_t first = threadIdx.x * elems;
    uint32_t step = GRAD_THREADS_MAX * elems;
    for (uint32_t line = begin; line < end; line++) {
        uint64_t at = line_at(&lines, line);
        sum_t sums[2] = {};
        for (uint32_t col = first; col < lines.width; col += step)
            add_sums<elem_t>(sums, load_grad<elem_t, WIDE>(&a, at + col, lines.width - col),
                             load<elem_t, WIDE>(a.weight, col, lines.width - col));
        row_sums<2>(sums, GRAD_THREADS_MAX);
        struct line_stats stats = stats_of(sums, lines.width, a.eps);
        for (uint32_t col = first; col < lines.width; col += step) {
            sum_t terms[elems] = {};
            uint32_t left = lines.width - col;
            finish_chunk<elem_t, WIDE>(&a, at + col, left,
                                       load_grad<elem_t, WIDE>(&a, at + col, left),
                                       load_dx<elem_t, WIDE>(&a, at + col, left), stats, terms);
            for (uint32_t i = 0; i < elems && i < left; i++)
                out[col + i] = line == begin ? terms[i] : out[col + i] + terms[i];
        }
    }
}

/* Columns of an array of sums, added to out; the rows are parts. */
template <typename sum_t>
static __global__ void __launch_bounds__(THREADS, BLOCKS(THREADS))
    add_parts_kernel(float *out, const sum_t *parts, uint32_t count, uint32_t width)
{
    __shared__ double tile[TILE_ROWS][TILE_COLUMNS];
    uint32_t row = threadIdx.x / TILE_COLUMNS;
    uint32_t lane = threadIdx.x % TILE_COLUMNS;
    uint32_t column = blockIdx.x * TILE_COLUMNS + lane;
    double sum = 0;
#pragma unroll 4
    for (uint32_t part = row; column < width && part < count; part += TILE_ROWS)
        sum += parts[(uint64_t)part * width + column];
    tile[row][lane] = sum;
    __syncthreads();
    if (row != 0 || column >= width)
        return;
    for (uint32_t i = 1; i < TILE_ROWS; i++)
        sum += tile[i][lane];
    out[column] += (float)sum;
}

static int add_parts(void *stream, float *out, const struct norm_parts *parts, uint64_t width,
                     strata_dtype dtype)
{
    struct grid grid = {stream, (width + TILE_COLUMNS - 1) / TILE_COLUMNS, 0, 0};
    if (dtype == STRATA_FP32)
        return launch(grid, add_parts_kernel<double>, out, (const double *)parts->sums,
                      parts->count, (uint32_t)width);
    return launch(grid, add_parts_kernel<float>, out, (const float *)parts->sums, parts->count,
                  (uint32_t)width);
}

/* As many parts as scratch has room for, PARTS_MAX at most. */
static struct norm_parts parts_of(void *scratch, uint32_t lines, uint64_t width)
{
    struct norm_parts parts = {};
    uint64_t most = CUDA_WORKSPACE_BYTES / sizeof(double) / width;
    most = most < PARTS_MAX ? most : PARTS_MAX;
    parts.sums = scratch;
    parts.lines = (uint32_t)((lines + most - 1) / most);
    parts.lines = parts.lines > PART_LINES_MIN ? parts.lines : PART_LINES_MIN;
    parts.count = (lines + parts.lines - 1) / parts.lines;
    return parts;
}

extern "C" int strata_cuda_norm_grad(void *stream, const struct op_norm_grad *args,
                                     strata_dtype dtype, void *scratch)
{
    struct lines lines = lines_of(args->rows, args->heads, args->width, args->stride);
    struct norm_parts parts = parts_of(scratch, lines.count, args->width);
    uint32_t chunks = chunks_of(args->width, dtype);
    lines.threads = line_threads(chunks, 1, GRAD_THREADS_MAX);
    bool wide = is_wide(dtype, args->width | lines.stride,
                        address(args->x) | address(args->weight) | address(args->dy) |
                            address(args->dx) | address(args->normed));
    uint32_t groups = GROUPS_THREADS / lines.threads;
    struct grid grid = {stream, parts.count, 0, lines.threads * (groups != 0 ? groups : 1)};
    int failed =
        chunks > GRAD_THREADS_MAX
            ? launch(grid, KERNEL_FOR(norm_grad_long_kernel, dtype, wide), *args, lines, parts)
            : launch(grid, KERNEL_FOR(norm_grad_kernel, dtype, wide), *args, lines, parts);
    return failed != cudaSuccess ? failed
                                 : add_parts(stream, args->dweight, &parts, args->width, dtype);
}

/* Biases. */

template <typename elem_t, bool WIDE>
static __global__ void __launch_bounds__(THREADS, BLOCKS(THREADS))
    bias_kernel(uint32_t count, struct op_bias a, uint32_t chunks)
{
    constexpr uint32_t elems = element<elem_t>::chunk;
    uint32_t i = chunk_index();
    if (i >= count)
        return;
    uint32_t col = i % chunks * elems;
    uint32_t left = (uint32_t)a.width - col;
    uint64_t at = i / chunks * a.width + col;
    struct chunk x = load<elem_t, WIDE>(a.x, at, left);
    struct chunk bias = load<elem_t, WIDE>(a.bias, col, left);
    struct chunk out = {};
#pragma unroll
    for (uint32_t k = 0; k < elems; k++)
        put<elem_t>(&out, k, get<elem_t>(x, k) + get<elem_t>(bias, k));
    store<elem_t, WIDE>(a.x, at, left, out);
}

extern "C" int strata_cuda_bias(void *stream, const struct op_bias *args, strata_dtype dtype)
{
    uint32_t chunks = chunks_of(args->width, dtype);
    bool wide = is_wide(dtype, args->width, address(args->x) | address(args->bias));
    return launch_chunks(stream, args->rows * chunks, KERNEL_FOR(bias_kernel, dtype, wide),
                         *args, chunks);
}

/* Thread (row, lane) of a block adds every eighth row of a chunk; the eight are added in their
 * order. */
template <typename elem_t, bool WIDE>
static __global__ void __launch_bounds__(THREADS, BLOCKS(THREADS))
    bias_grad_kernel(struct op_bias_grad a, struct norm_parts parts)
{
    constexpr uint32_t elems = element<elem_t>::chunk;
    typedef typename element<elem_t>::sum_t sum_t;
    __shared__ sum_t tile[TILE_ROWS][elems][TILE_COLUMNS];
    uint32_t row = threadIdx.x / TILE_COLUMNS;
    uint32_t lane = threadIdx.x % TILE_COLUMNS;
    uint32_t col = (blockIdx.y * TILE_COLUMNS + lane) * elems;
    uint32_t begin = blockIdx.x * parts.lines;
    uint32_t end = begin + parts.lines < a.rows ? begin + parts.lines : (uint32_t)a.rows;
    sum_t sums[elems] = {};
#pragma unroll 4
    for (uint32_t r = begin + row; col < a.width && r < end; r += TILE_ROWS) {
        struct chunk dy = load<elem_t, WIDE>(a.dy, r * a.width + col, (uint32_t)a.width - col);
#pragma unroll
        for (uint32_t k = 0; k < elems; k++)
            sums[k] += get<elem_t>(dy, k);
    }
#pragma unroll
    for (uint32_t k = 0; k < elems; k++)
        tile[row][k][lane] = sums[k];
    __syncthreads();
    for (uint32_t k = row; k < elems; k += TILE_ROWS) {
        sum_t sum = tile[0][k][lane];
        for (uint32_t i = 1; i < TILE_ROWS; i++)
            sum += tile[i][k][lane];
        if (col + k < a.width)
            ((sum_t *)parts.sums)[blockIdx.x * a.width + col + k] = sum;
    }
}

extern "C" int strata_cuda_bias_grad(void *stream, const struct op_bias_grad *args,
                                     strata_dtype dtype, void *scratch)
{
    uint32_t chunks = chunks_of(args->width, dtype);
    struct norm_parts parts = parts_of(scratch, (uint32_t)args->rows, args->width);
    bool wide = is_wide(dtype, args->width, address(args->dy));
    struct grid grid = {stream, parts.count, (chunks + TILE_COLUMNS - 1) / TILE_COLUMNS, 0};
    int failed = launch(grid, KERNEL_FOR(bias_grad_kernel, dtype, wide), *args, parts);
    return failed != cudaSuccess ? failed
                                 : add_parts(stream, args->dbias, &parts, args->width, dtype);
}
