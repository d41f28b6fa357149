#ifndef STRATA_TRAIN_OPS_HOST_H
#define STRATA_TRAIN_OPS_HOST_H

/*
 * What the files of the host operators share: matrix products and items.
 *
 * Thread: the stream's, where strata_host_panels() and strata_host_items() are called; a
 * worker's, where strata_host_product() is.
 */

#include "train/ops.h"

/* c (rows x cols) = scale * op(a) (rows x depth) op(b) (depth x cols) + beta * c, row-major. */
struct product {
    const float *a;
    const float *b;
    float *c;
    uint64_t rows;
    uint64_t cols;
    uint64_t depth;
    uint64_t a_stride; /* elements from one row to the next, as it lies in memory */
    uint64_t b_stride;
    uint64_t c_stride;
    bool a_transposed;
    bool b_transposed;
    float scale;
    float beta;
};

/* The whole product, on the calling thread alone. */
void strata_host_product(const struct product *product);

/* The product cut into panels by its shape, each a job of the pool. */
void strata_host_panels(strata_workers *workers, const struct product *product);

/* How many items of `each` cover count. */
static inline uint32_t strata_host_items(uint64_t count, uint64_t each)
{
    return (uint32_t)((count + each - 1) / each);
}

static inline uint64_t strata_host_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Elements first .. first + count - 1 of a weight, exactly, as fp32. */
void strata_host_widen(float *out, const void *weight, strata_dtype dtype, uint64_t first,
                       uint64_t count);

/* The operators, in three files; ops_host.c has the table. */
void strata_host_attention(const struct ops *ops, const struct op_attention *args);
void strata_host_attention_grad(const struct ops *ops, const struct op_attention_grad *args);
void strata_host_embed(const struct ops *ops, const struct op_embed *args);
void strata_host_embed_grad(const struct ops *ops, const struct op_embed_grad *args);
void strata_host_entropy_begin(const struct ops *ops, struct op_row_stat *stats, uint64_t rows);
void strata_host_entropy_scan(const struct ops *ops, const struct op_entropy *args);
void strata_host_entropy_grad(const struct ops *ops, const struct op_entropy *args);
void strata_host_entropy_loss(const struct ops *ops, const struct op_row_stat *stats,
                              uint64_t rows, double *out);
uint64_t strata_host_attention_scratch(const struct op_heads *shape);

#endif
