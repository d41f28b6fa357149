#ifndef STRATA_TRAIN_OPS_HOST_H
#define STRATA_TRAIN_OPS_HOST_H

/*
 * What the files of the host operators share: matrix products and items.
 *
 * Thread: the stream's, or a worker's.
 */

#include "train/ops.h"
#include "train/product.h"

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

#endif
