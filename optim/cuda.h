#ifndef STRATA_OPTIM_CUDA_H
#define STRATA_OPTIM_CUDA_H

/*
 * The optimizer's kernels on a CUDA device, with the same bits as the host's (optim/adam.c,
 * norm.c and convert.c define them). The stream is a cudaStream_t, passed as void * so that no
 * CUDA header is needed here. Each function returns 0 or its launch's cudaError_t.
 *
 * All arrays lie in the device's own memory or in pinned host memory.
 *
 * Thread: the one that queues on the stream, with its device current.
 */

#include "optim/record.h"
#include "strata/adam.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Load every kernel's code onto the device. Call it before a stream may wait for a gate. */
int strata_cuda_optim_load(void);

/* Elements first to first + count - 1 of a tile, all of one tensor. */
struct cuda_update {
    const void *grad;   /* of the tile's first element; state and param too */
    void *state;        /* the record */
    void *param;        /* NULL: not written */
    strata_dtype dtype; /* of grad and param */
    /* NULL, or memory that the device can write to: set to 1 where strata_adam_update() would
     * return NUMERIC. Not with weights_only. */
    uint32_t *spoiled;
    enum record_type record_type;
    uint64_t first;
    uint64_t count;
    bool weights_only; /* the state is left as it is */
    bool no_decay;     /* this and the next fields: as in strata_adam_range */
    uint64_t seed;
    uint32_t tensor;
    uint64_t element;
};

/* Like strata_adam_update(), on a part of a tile. */
int strata_cuda_adam(void *stream, const strata_adam_step *step,
                     const struct cuda_update *update);

/* The weights of block_count whole blocks, in dtype, from the masters in their records. */
int strata_cuda_rebuild(void *stream, void *param, strata_dtype dtype, const void *state,
                        enum record_type record_type, uint64_t block_count);

/* Like strata_norm_block(), on each of block_count whole blocks. */
int strata_cuda_norm_blocks(void *stream, double *sums, const void *grad, strata_dtype dtype,
                            uint64_t block_count);

/* Like strata_convert(). */
int strata_cuda_convert(void *stream, void *dst, strata_dtype dst_dtype, const void *src,
                        strata_dtype src_dtype, uint64_t count);

#ifdef __cplusplus
}
#endif

#endif
