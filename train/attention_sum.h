#ifndef STRATA_TRAIN_ATTENTION_SUM_H
#define STRATA_TRAIN_ATTENTION_SUM_H

/*
 * The sum of the gradients of a key head whose query heads were split over several calls.
 *
 * Thread: the one that queues on the stream, with its device current.
 */

#include <stdint.h>

#include "strata/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* dst = the sum of the parts, in fp32 and in their order, rounded once. */
struct attention_sum {
    void *dst;         /* seq rows of head_dim, dst_stride elements apart */
    const void *parts; /* part_count x seq x head_dim, without gaps       */
    strata_dtype dtype;
    uint32_t part_count;
    uint32_t seq;
    uint32_t head_dim; /* a multiple of 8 */
    uint64_t dst_stride;
};
/* Launch the kernel; returns 0 or a cudaError_t. */
int strata_cuda_attention_sum(void *stream, const struct attention_sum *args);

#ifdef __cplusplus
}
#endif

#endif
