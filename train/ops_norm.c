/*
 * Norms and biases on the host device.
 *
 * Reductions over rows (the gradient of a norm's weight, of a bias) are cut by columns: each
 * item goes over all rows in their order, so there are no partial sums whose number could
 * depend on anything.
 *
 * Items of rows are small: 256 rows make 16 of them, enough for the workers of one NUMA node.
 *
 * Thread: run_... on the stream's thread, the functions with an index on workers.
 */

#include "train/ops_host.h"

#include <math.h>

#define COLUMNS_PER_ITEM 64u /* of floats: four cache lines of every row */

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

static void norm_rows(const struct ops *ops, const void *args, uint32_t index)
{
    const struct op_norm *a = args;
    uint64_t first = (uint64_t)index * STRATA_HOST_ITEM_ROWS;
    uint64_t rows = strata_host_min(STRATA_HOST_ITEM_ROWS, a->rows - first);
    const float *x = a->x + first * a->width;
    float *out = a->out + first * a->width;
    float inverse[STRATA_HOST_ITEM_ROWS];
    float weight[COLUMNS_PER_ITEM];
    for (uint64_t r = 0; r < rows; r++)
        inverse[r] = inverse_rms(x + r * a->width, a->width, a->eps);
    for (uint64_t col = 0; col < a->width; col += COLUMNS_PER_ITEM) {
        uint64_t cols = strata_host_min(COLUMNS_PER_ITEM, a->width - col);
        strata_host_widen(weight, a->weight, ops->weight_dtype, col, cols);
        for (uint64_t r = 0; r < rows; r++)
            for (uint64_t i = 0; i < cols; i++)
                out[r * a->width + col + i] =
                    x[r * a->width + col + i] * inverse[r] * weight[i];
    }
}

void strata_host_norm(const struct ops *ops, const struct op_norm *args)
{
    strata_host_call_items(ops, norm_rows, strata_host_items(args->rows, STRATA_HOST_ITEM_ROWS),
                           args, sizeof *args);
}

struct norm_grad_call {
    struct ops ops;
    struct op_norm_grad args;
};
STRATA_HOST_CALL(struct norm_grad_call);

/* A piece of the rows: what its items share. */
struct norm_grad_piece {
    struct op_norm_grad a; /* x, dy, dx at the piece's first row */
    strata_dtype weight_dtype;
    float inverse[STRATA_OP_PIECE_ROWS];
};

static void norm_grad_inverse(void *user, uint32_t index, uint32_t worker)
{
    (void)worker;
    struct norm_grad_piece *piece = user;
    uint64_t first = (uint64_t)index * STRATA_HOST_ITEM_ROWS;
    uint64_t end = strata_host_min(first + STRATA_HOST_ITEM_ROWS, piece->a.rows);
    for (uint64_t r = first; r < end; r++)
        piece->inverse[r] =
            inverse_rms(piece->a.x + r * piece->a.width, piece->a.width, piece->a.eps);
}

/* Columns of dweight, over all rows in their order. */
static void norm_grad_weight(void *user, uint32_t index, uint32_t worker)
{
    (void)worker;
    const struct norm_grad_piece *piece = user;
    const struct op_norm_grad *a = &piece->a;
    uint64_t col = (uint64_t)index * COLUMNS_PER_ITEM;
    uint64_t cols = strata_host_min(COLUMNS_PER_ITEM, a->width - col);
    double sums[COLUMNS_PER_ITEM] = {0};
    for (uint64_t r = 0; r < a->rows; r++) {
        const float *x = a->x + r * a->width + col;
        const float *dy = a->dy + r * a->width + col;
        for (uint64_t i = 0; i < cols; i++)
            sums[i] += (double)dy[i] * (x[i] * piece->inverse[r]);
    }
    for (uint64_t i = 0; i < cols; i++)
        a->dweight[col + i] += (float)sums[i];
}

/* The mean over a row of dy * weight * normed x. */
static double norm_grad_mean(const struct norm_grad_piece *piece, uint64_t row)
{
    const struct op_norm_grad *a = &piece->a;
    const float *x = a->x + row * a->width;
    const float *dy = a->dy + row * a->width;
    double sum = 0.0;
    for (uint64_t col = 0; col < a->width; col += COLUMNS_PER_ITEM) {
        uint64_t cols = strata_host_min(COLUMNS_PER_ITEM, a->width - col);
        float weight[COLUMNS_PER_ITEM];
        strata_host_widen(weight, a->weight, piece->weight_dtype, col, cols);
        for (uint64_t i = 0; i < cols; i++)
            sum += (double)(dy[col + i] * weight[i]) * (x[col + i] * piece->inverse[row]);
    }
    return sum / (double)a->width;
}

static void norm_grad_row(const struct norm_grad_piece *piece, uint64_t row)
{
    const struct op_norm_grad *a = &piece->a;
    const float *x = a->x + row * a->width;
    const float *dy = a->dy + row * a->width;
    float *dx = a->dx + row * a->width;
    float inverse = piece->inverse[row];
    float mean = (float)norm_grad_mean(piece, row);
    for (uint64_t col = 0; col < a->width; col += COLUMNS_PER_ITEM) {
        uint64_t cols = strata_host_min(COLUMNS_PER_ITEM, a->width - col);
        float weight[COLUMNS_PER_ITEM];
        strata_host_widen(weight, a->weight, piece->weight_dtype, col, cols);
        for (uint64_t i = 0; i < cols; i++) {
            float normed = x[col + i] * inverse;
            float grad = inverse * (dy[col + i] * weight[i] - normed * mean);
            dx[col + i] = a->add ? dx[col + i] + grad : grad;
        }
    }
}

static void norm_grad_rows(void *user, uint32_t index, uint32_t worker)
{
    (void)worker;
    const struct norm_grad_piece *piece = user;
    uint64_t first = (uint64_t)index * STRATA_HOST_ITEM_ROWS;
    uint64_t end = strata_host_min(first + STRATA_HOST_ITEM_ROWS, piece->a.rows);
    for (uint64_t r = first; r < end; r++)
        norm_grad_row(piece, r);
}

/* dweight before dx: dx may take the place of dy. */
static void run_norm_grad(void *data)
{
    const struct norm_grad_call *call = data;
    strata_workers *workers = call->ops.workers;
    for (uint64_t row = 0; row < call->args.rows; row += STRATA_OP_PIECE_ROWS) {
        struct norm_grad_piece piece = {call->args, call->ops.weight_dtype, {0}};
        piece.a.x += row * piece.a.width;
        piece.a.dy += row * piece.a.width;
        piece.a.dx += row * piece.a.width;
        piece.a.rows = strata_host_min(STRATA_OP_PIECE_ROWS, piece.a.rows - row);
        uint32_t row_items = strata_host_items(piece.a.rows, STRATA_HOST_ITEM_ROWS);
        strata_workers_run(workers, STRATA_JOB_PANEL, norm_grad_inverse, &piece, row_items);
        strata_workers_run(workers, STRATA_JOB_PANEL, norm_grad_weight, &piece,
                           strata_host_items(piece.a.width, COLUMNS_PER_ITEM));
        strata_workers_run(workers, STRATA_JOB_PANEL, norm_grad_rows, &piece, row_items);
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
    float *x = a->x + first * a->width;
    for (uint64_t col = 0; col < a->width; col += COLUMNS_PER_ITEM) {
        uint64_t cols = strata_host_min(COLUMNS_PER_ITEM, a->width - col);
        float bias[COLUMNS_PER_ITEM];
        strata_host_widen(bias, a->bias, ops->weight_dtype, col, cols);
        for (uint64_t r = 0; r < rows; r++)
            for (uint64_t i = 0; i < cols; i++)
                x[r * a->width + col + i] += bias[i];
    }
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
    double sums[COLUMNS_PER_ITEM] = {0};
    for (uint64_t r = 0; r < a->rows; r++)
        for (uint64_t i = 0; i < cols; i++)
            sums[i] += a->dy[r * a->width + col + i];
    for (uint64_t i = 0; i < cols; i++)
        a->dbias[col + i] += (float)sums[i];
}

void strata_host_bias_grad(const struct ops *ops, const struct op_bias_grad *args)
{
    strata_host_call_items(ops, bias_grad_columns,
                           strata_host_items(args->width, COLUMNS_PER_ITEM), args,
                           sizeof *args);
}
