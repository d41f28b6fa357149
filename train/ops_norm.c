/*
 * Norms and biases on the host device.
 *
 * Reductions over rows (the gradient of a norm's weight, of a bias) are cut by columns: each
 * item goes over all rows in their order, so there are no partial sums whose number could
 * depend on anything.
 *
 * A line is what is normed: a row, or one of the heads that lie side by side in it. Items of
 * lines are small: 256 make 16 of them, enough for the workers of one NUMA node.
 *
 * Thread: run_... on the stream's thread, the functions with an index on workers.
 */

#include "train/ops_host.h"

#include <math.h>

#define COLUMNS_PER_ITEM 64u  /* of floats: four cache lines of every row */
#define PIECE_LINES      256u /* of a norm's gradient at a time           */

/* Where the lines of an array lie. */
struct lines {
    uint64_t count;
    uint64_t heads; /* of a row */
    uint64_t width;
    uint64_t stride; /* from a row to the next */
};

static struct lines lines_of(uint64_t rows, uint64_t heads, uint64_t width, uint64_t stride)
{
    heads = heads != 0 ? heads : 1;
    return (struct lines){rows * heads, heads, width, stride != 0 ? stride : heads * width};
}

static uint64_t line_at(const struct lines *lines, uint64_t line)
{
    return line / lines->heads * lines->stride + line % lines->heads * lines->width;
}

/* 1 / sqrt(mean(x^2) + eps). Four sums, because one would wait for each addition to finish. */
static float inverse_rms(const float *x, uint64_t width, float eps)
{
    double sums[4] = {0};
    uint64_t whole = width / 4 * 4;
    for (uint64_t i = 0; i < whole; i += 4)
        for (int j = 0; j < 4; j++)
            sums[j] += (double)x[i + j] * x[i + j];
    for (uint64_t i = whole; i < width; i++)
        sums[i - whole] += (double)x[i] * x[i];
    double sum = sums[0] + sums[1] + sums[2] + sums[3];
    return (float)(1.0 / sqrt(sum / (double)width + eps));
}

static void norm_lines(const struct ops *ops, const void *args, uint32_t index)
{
    const struct op_norm *a = args;
    struct lines lines = lines_of(a->rows, a->heads, a->width, a->stride);
    uint64_t first = (uint64_t)index * STRATA_HOST_ITEM_ROWS;
    uint64_t count = strata_host_min(STRATA_HOST_ITEM_ROWS, lines.count - first);
    const float *x[STRATA_HOST_ITEM_ROWS];
    float *out[STRATA_HOST_ITEM_ROWS];
    float inverse[STRATA_HOST_ITEM_ROWS];
    float weight[COLUMNS_PER_ITEM];
    for (uint64_t r = 0; r < count; r++) {
        x[r] = (const float *)a->x + line_at(&lines, first + r);
        out[r] = (float *)a->out + line_at(&lines, first + r);
        inverse[r] = inverse_rms(x[r], a->width, a->eps);
    }
    for (uint64_t col = 0; col < a->width; col += COLUMNS_PER_ITEM) {
        uint64_t cols = strata_host_min(COLUMNS_PER_ITEM, a->width - col);
        strata_host_widen(weight, a->weight, ops->weight_dtype, col, cols);
        for (uint64_t r = 0; r < count; r++) {
            for (uint64_t i = 0; i < cols; i++)
                out[r][col + i] = x[r][col + i] * inverse[r] * weight[i];
            strata_host_round(ops, out[r] + col, cols);
        }
    }
}

void strata_host_norm(const struct ops *ops, const struct op_norm *args)
{
    uint64_t lines = lines_of(args->rows, args->heads, args->width, args->stride).count;
    strata_host_call_items(ops, norm_lines, strata_host_items(lines, STRATA_HOST_ITEM_ROWS),
                           args, sizeof *args);
}

struct norm_grad_call {
    struct ops ops;
    struct op_norm_grad args;
};
STRATA_HOST_CALL(struct norm_grad_call);

/* A piece of the lines: what its items share. */
struct norm_grad_piece {
    const struct ops *ops;
    const struct op_norm_grad *a;
    struct lines lines;
    uint64_t first;
    uint64_t count;
    float inverse[PIECE_LINES];
};

static const float *piece_line(const struct norm_grad_piece *piece, const void *array,
                               uint64_t line)
{
    return (const float *)array + line_at(&piece->lines, piece->first + line);
}

static void norm_grad_inverse(void *user, uint32_t index, uint32_t worker)
{
    (void)worker;
    struct norm_grad_piece *piece = user;
    uint64_t first = (uint64_t)index * STRATA_HOST_ITEM_ROWS;
    uint64_t end = strata_host_min(first + STRATA_HOST_ITEM_ROWS, piece->count);
    for (uint64_t r = first; r < end; r++)
        piece->inverse[r] =
            inverse_rms(piece_line(piece, piece->a->x, r), piece->lines.width, piece->a->eps);
}

/* Columns of dweight, over all lines in their order. */
static void norm_grad_weight(void *user, uint32_t index, uint32_t worker)
{
    (void)worker;
    const struct norm_grad_piece *piece = user;
    const struct op_norm_grad *a = piece->a;
    uint64_t col = (uint64_t)index * COLUMNS_PER_ITEM;
    uint64_t cols = strata_host_min(COLUMNS_PER_ITEM, a->width - col);
    double sums[COLUMNS_PER_ITEM] = {0};
    for (uint64_t r = 0; r < piece->count; r++) {
        const float *x = piece_line(piece, a->x, r) + col;
        const float *dy = piece_line(piece, a->dy, r) + col;
        for (uint64_t i = 0; i < cols; i++)
            sums[i] += (double)dy[i] * (x[i] * piece->inverse[r]);
    }
    for (uint64_t i = 0; i < cols; i++)
        a->dweight[col + i] += (float)sums[i];
}

/* The mean over a line of dy * weight * normed x. */
static double norm_grad_mean(const struct norm_grad_piece *piece, uint64_t line)
{
    const struct op_norm_grad *a = piece->a;
    const float *x = piece_line(piece, a->x, line);
    const float *dy = piece_line(piece, a->dy, line);
    double sum = 0.0;
    for (uint64_t col = 0; col < a->width; col += COLUMNS_PER_ITEM) {
        uint64_t cols = strata_host_min(COLUMNS_PER_ITEM, a->width - col);
        float weight[COLUMNS_PER_ITEM];
        strata_host_widen(weight, a->weight, piece->ops->weight_dtype, col, cols);
        for (uint64_t i = 0; i < cols; i++)
            sum += (double)(dy[col + i] * weight[i]) * (x[col + i] * piece->inverse[line]);
    }
    return sum / (double)a->width;
}

/* Any two of a line's arrays may be one: an element is read before it is written. */
static void norm_grad_line(const struct norm_grad_piece *piece, uint64_t line)
{
    const struct op_norm_grad *a = piece->a;
    uint64_t at = line_at(&piece->lines, piece->first + line);
    const float *x = (const float *)a->x + at;
    const float *dy = (const float *)a->dy + at;
    float *dx = (float *)a->dx + at;
    float *out = a->normed != NULL ? (float *)a->normed + at : NULL;
    float inverse = piece->inverse[line];
    float mean = (float)norm_grad_mean(piece, line);
    for (uint64_t col = 0; col < a->width; col += COLUMNS_PER_ITEM) {
        uint64_t cols = strata_host_min(COLUMNS_PER_ITEM, a->width - col);
        float weight[COLUMNS_PER_ITEM];
        strata_host_widen(weight, a->weight, piece->ops->weight_dtype, col, cols);
        for (uint64_t i = 0; i < cols; i++) {
            float normed = x[col + i] * inverse;
            float grad = inverse * (dy[col + i] * weight[i] - normed * mean);
            dx[col + i] = a->add ? dx[col + i] + grad : grad;
            if (out != NULL)
                out[col + i] = normed * weight[i];
        }
        strata_host_round(piece->ops, dx + col, cols);
        if (out != NULL)
            strata_host_round(piece->ops, out + col, cols);
    }
}

static void norm_grad_lines(void *user, uint32_t index, uint32_t worker)
{
    (void)worker;
    const struct norm_grad_piece *piece = user;
    uint64_t first = (uint64_t)index * STRATA_HOST_ITEM_ROWS;
    uint64_t end = strata_host_min(first + STRATA_HOST_ITEM_ROWS, piece->count);
    for (uint64_t r = first; r < end; r++)
        norm_grad_line(piece, r);
}

/* dweight before dx and normed: they may take the places of dy and x. */
static void run_norm_grad(void *data)
{
    const struct norm_grad_call *call = data;
    const struct op_norm_grad *a = &call->args;
    strata_workers *workers = call->ops.workers;
    struct norm_grad_piece piece = {
        .ops = &call->ops, .a = a, .lines = lines_of(a->rows, a->heads, a->width, a->stride)};
    for (; piece.first < piece.lines.count; piece.first += PIECE_LINES) {
        piece.count = strata_host_min(PIECE_LINES, piece.lines.count - piece.first);
        uint32_t line_items = strata_host_items(piece.count, STRATA_HOST_ITEM_ROWS);
        strata_workers_run(workers, STRATA_JOB_PANEL, norm_grad_inverse, &piece, line_items);
        strata_workers_run(workers, STRATA_JOB_PANEL, norm_grad_weight, &piece,
                           strata_host_items(a->width, COLUMNS_PER_ITEM));
        strata_workers_run(workers, STRATA_JOB_PANEL, norm_grad_lines, &piece, line_items);
    }
}

void strata_host_norm_grad(const struct ops *ops, const struct op_norm_grad *args)
{
    struct norm_grad_call call = {*ops, *args};
    strata_stream_call(ops->stream, run_norm_grad, &call, sizeof call);
}

/* Biases. */

static void bias_rows(const struct ops *ops, const void *args, uint32_t index)
{
    const struct op_bias *a = args;
    uint64_t first = (uint64_t)index * STRATA_HOST_ITEM_ROWS;
    uint64_t rows = strata_host_min(STRATA_HOST_ITEM_ROWS, a->rows - first);
    float *x = (float *)a->x + first * a->width;
    for (uint64_t col = 0; col < a->width; col += COLUMNS_PER_ITEM) {
        uint64_t cols = strata_host_min(COLUMNS_PER_ITEM, a->width - col);
        float bias[COLUMNS_PER_ITEM];
        strata_host_widen(bias, a->bias, ops->weight_dtype, col, cols);
        for (uint64_t r = 0; r < rows; r++)
            for (uint64_t i = 0; i < cols; i++)
                x[r * a->width + col + i] += bias[i];
    }
    strata_host_round(ops, x, rows * a->width);
}

void strata_host_bias(const struct ops *ops, const struct op_bias *args)
{
    strata_host_call_items(ops, bias_rows, strata_host_items(args->rows, STRATA_HOST_ITEM_ROWS),
                           args, sizeof *args);
}

static void bias_grad_columns(const struct ops *ops, const void *args, uint32_t index)
{
    (void)ops;
    const struct op_bias_grad *a = args;
    uint64_t col = (uint64_t)index * COLUMNS_PER_ITEM;
    uint64_t cols = strata_host_min(COLUMNS_PER_ITEM, a->width - col);
    const float *dy = (const float *)a->dy + col;
    double sums[COLUMNS_PER_ITEM] = {0};
    for (uint64_t r = 0; r < a->rows; r++)
        for (uint64_t i = 0; i < cols; i++)
            sums[i] += dy[r * a->width + i];
    for (uint64_t i = 0; i < cols; i++)
        a->dbias[col + i] += (float)sums[i];
}

void strata_host_bias_grad(const struct ops *ops, const struct op_bias_grad *args)
{
    strata_host_call_items(ops, bias_grad_columns,
                           strata_host_items(args->width, COLUMNS_PER_ITEM), args,
                           sizeof *args);
}
