#ifndef STRATA_TRAIN_OPS_HOST_H
#define STRATA_TRAIN_OPS_HOST_H

/*
 * What the files of the host operators share: items, and rounding.
 *
 * An activation is fp32 in memory whatever its type is. Where it is bf16 or fp16, an operator
 * rounds what it has written, each element once: strata_host_round().
 *
 * Thread: the stream's, or a worker's.
 */

#include "base/round.h"
#include "train/ops.h"
#include "train/product.h"

/* Every queued call begins with where it was queued. */
#define STRATA_HOST_CALL(type)                                                                 \
    _Static_assert(sizeof(type) <= STRATA_CALL_BYTES, "too large to queue")

#define STRATA_HOST_ITEM_ROWS 16u

/* How many items of `each` cover count. */
static inline uint32_t strata_host_items(uint64_t count, uint64_t each)
{
    return (uint32_t)strata_units_of(count, each);
}

static inline uint64_t strata_host_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Elements first .. first + count - 1 of a weight, exactly, as fp32. */
void strata_host_widen(float *out, const void *weight, strata_dtype dtype, uint64_t first,
                       uint64_t count);

/* Round to the type of activations. Nothing to do for fp32. */
void strata_host_round_elems(float *array, strata_dtype dtype, uint64_t count);
static inline void strata_host_round(const struct ops *ops, float *array, uint64_t count)
{
    if (ops->act_dtype != STRATA_FP32)
        strata_host_round_elems(array, ops->act_dtype, count);
}

/* Item `index` of an operator, on a worker. */
typedef void strata_host_item(const struct ops *ops, const void *args, uint32_t index);

/* Queue an operator that is items and nothing else; *ops and *args are copied. args: a struct
 * op_... that ops_items.c knows. */
void strata_host_call_items(const struct ops *ops, strata_host_item *item, uint32_t count,
                            const void *args, size_t args_bytes);

/* The operators of other files than ops_host.c, which has the table. */
void strata_host_norm(const struct ops *ops, const struct op_norm *args);
void strata_host_norm_grad(const struct ops *ops, const struct op_norm_grad *args);
void strata_host_bias(const struct ops *ops, const struct op_bias *args);
void strata_host_bias_grad(const struct ops *ops, const struct op_bias_grad *args);
void strata_host_attention(const struct ops *ops, const struct op_attention *args);
void strata_host_attention_grad(const struct ops *ops, const struct op_attention_grad *args);
void strata_host_embed(const struct ops *ops, const struct op_embed *args);
void strata_host_embed_grad(const struct ops *ops, const struct op_embed_grad *args);
void strata_host_entropy_begin(const struct ops *ops, struct op_row_stat *stats, uint64_t rows);
void strata_host_entropy_scan(const struct ops *ops, const struct op_entropy *args);
void strata_host_entropy_grad(const struct ops *ops, const struct op_entropy *args);
void strata_host_entropy_loss(const struct ops *ops, const struct op_row_stat *stats,
                              uint64_t rows, double *out);
uint64_t strata_host_attention_scratch(const struct op_heads *shape, strata_dtype act_dtype);

#endif
