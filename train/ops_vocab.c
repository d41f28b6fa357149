/*
 * The two ends of a transformer on the host device, over one vocabulary slice: the look-up and
 * cross entropy.
 *
 * The look-up's gradient adds rows of the same token to one row. Items are columns, and each
 * goes over the tokens, and over a token's rows in their order: no atomics, and one order of
 * every sum.
 *
 * Cross entropy goes over the slices twice. The first pass keeps three numbers a row: the
 * largest logit so far, the sum of exponentials relative to it, and the target's logit. The sum
 * is kept in double, since a vocabulary has more than 100,000 terms. The second pass makes the
 * logits again and turns them into their gradient.
 *
 * Thread: run_... on the stream's thread, the functions with an index on workers.
 */

#include "train/ops_host.h"

#include <math.h>
#include <string.h>

#define ROWS_PER_ITEM    4u  /* a row of logits is some 10,000 exponentials      */
#define LOOKUPS_PER_ITEM 64u /* a look-up is a short copy                        */
#define COLUMNS_PER_ITEM 64u /* of floats: four cache lines of every row         */

static void embed_rows(const struct ops *ops, const void *args, uint32_t index)
{
    const struct op_embed *a = args;
    uint64_t first = (uint64_t)index * LOOKUPS_PER_ITEM;
    uint64_t end = strata_host_min(first + LOOKUPS_PER_ITEM, a->rows);
    for (uint64_t row = first; row < end; row++) {
        uint64_t token = a->tokens[row];
        if (token < a->first || token - a->first >= a->slice_rows)
            continue;
        strata_host_widen((float *)a->out + row * a->width, a->weight, ops->weight_dtype,
                          (token - a->first) * a->width, a->width);
    }
}

void strata_host_embed(const struct ops *ops, const struct op_embed *args)
{
    strata_host_call_items(ops, embed_rows, strata_host_items(args->rows, LOOKUPS_PER_ITEM),
                           args, sizeof *args);
}

static void embed_grad_columns(const struct ops *ops, const void *args, uint32_t index)
{
    (void)ops;
    const struct op_embed_grad *a = args;
    uint64_t col = (uint64_t)index * COLUMNS_PER_ITEM;
    uint64_t cols = strata_host_min(COLUMNS_PER_ITEM, a->width - col);
    for (uint64_t t = 0; t < a->distinct; t++) {
        uint64_t token = a->tokens[a->order[a->starts[t]]];
        if (token < a->first || token - a->first >= a->slice_rows)
            continue;
        float *dweight = a->dweight + (token - a->first) * a->width + col;
        for (uint32_t at = a->starts[t]; at < a->starts[t + 1]; at++) {
            const float *dy = (const float *)a->dy + a->order[at] * a->width + col;
            for (uint64_t i = 0; i < cols; i++)
                dweight[i] += dy[i];
        }
    }
}

void strata_host_embed_grad(const struct ops *ops, const struct op_embed_grad *args)
{
    strata_host_call_items(ops, embed_grad_columns,
                           strata_host_items(args->width, COLUMNS_PER_ITEM), args,
                           sizeof *args);
}

/* Cross entropy. */

struct stats_call {
    struct op_row_stat *stats;
    uint64_t rows;
    double *out; /* the loss; NULL: begin */
};

static void run_entropy_begin(void *data)
{
    const struct stats_call *call = data;
    for (uint64_t row = 0; row < call->rows; row++)
        call->stats[row] = (struct op_row_stat){.sum = 0.0, .max = -INFINITY, .target = 0.0f};
}

void strata_host_entropy_begin(const struct ops *ops, struct op_row_stat *stats, uint64_t rows)
{
    struct stats_call call = {stats, rows, NULL};
    strata_stream_call(ops->stream, run_entropy_begin, &call, sizeof call);
}

static void scan_row(const struct op_entropy *a, uint64_t row)
{
    const float *logits = (const float *)a->logits + row * a->stride;
    struct op_row_stat *stat = &a->stats[row];
    float max = stat->max;
    for (uint64_t i = 0; i < a->slice_rows; i++)
        max = logits[i] > max ? logits[i] : max;
    double sum = stat->sum * exp((double)stat->max - max);
    for (uint64_t i = 0; i < a->slice_rows; i++)
        sum += expf(logits[i] - max);
    stat->sum = sum;
    stat->max = max;
    uint64_t target = a->targets[row];
    if (target >= a->first && target - a->first < a->slice_rows)
        stat->target = logits[target - a->first];
}

static void grad_row(const struct ops *ops, const struct op_entropy *a, uint64_t row)
{
    float *logits = (float *)a->logits + row * a->stride;
    const struct op_row_stat *stat = &a->stats[row];
    float factor = (float)(a->scale / stat->sum);
    for (uint64_t i = 0; i < a->slice_rows; i++)
        logits[i] = expf(logits[i] - stat->max) * factor;
    uint64_t target = a->targets[row];
    if (target >= a->first && target - a->first < a->slice_rows)
        logits[target - a->first] -= a->scale;
    strata_host_round(ops, logits, a->slice_rows);
}

static void scan_rows(const struct ops *ops, const void *args, uint32_t index)
{
    (void)ops;
    const struct op_entropy *a = args;
    uint64_t first = (uint64_t)index * ROWS_PER_ITEM;
    uint64_t end = strata_host_min(first + ROWS_PER_ITEM, a->rows);
    for (uint64_t row = first; row < end; row++)
        scan_row(a, row);
}

static void grad_rows(const struct ops *ops, const void *args, uint32_t index)
{
    const struct op_entropy *a = args;
    uint64_t first = (uint64_t)index * ROWS_PER_ITEM;
    uint64_t end = strata_host_min(first + ROWS_PER_ITEM, a->rows);
    for (uint64_t row = first; row < end; row++)
        grad_row(ops, a, row);
}

void strata_host_entropy_scan(const struct ops *ops, const struct op_entropy *args)
{
    strata_host_call_items(ops, scan_rows, strata_host_items(args->rows, ROWS_PER_ITEM), args,
                           sizeof *args);
}

void strata_host_entropy_grad(const struct ops *ops, const struct op_entropy *args)
{
    strata_host_call_items(ops, grad_rows, strata_host_items(args->rows, ROWS_PER_ITEM), args,
                           sizeof *args);
}

static void run_entropy_loss(void *data)
{
    const struct stats_call *call = data;
    double loss = 0.0;
    for (uint64_t row = 0; row < call->rows; row++) {
        const struct op_row_stat *stat = &call->stats[row];
        loss += log(stat->sum) + stat->max - stat->target;
    }
    *call->out = loss / (double)call->rows;
}

void strata_host_entropy_loss(const struct ops *ops, const struct op_row_stat *stats,
                              uint64_t rows, double *out)
{
    struct stats_call call = {(struct op_row_stat *)stats, rows, out};
    strata_stream_call(ops->stream, run_entropy_loss, &call, sizeof call);
}
