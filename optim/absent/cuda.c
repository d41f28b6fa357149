/*
 * Replaces optim/cuda.cu in a build without the CUDA toolkit. Nothing calls these functions:
 * such a build opens no CUDA device, so there is no stream to launch on.
 *
 * Thread: none.
 */

#include "optim/cuda.h"

#include "base/error.h"

int strata_cuda_optim_load(void)
{
    STRATA_CHECK(!"this build has no CUDA");
    return 0;
}

int strata_cuda_adam(void *stream, const strata_adam_step *step,
                     const struct cuda_update *update)
{
    (void)stream;
    (void)step;
    (void)update;
    return strata_cuda_optim_load();
}

int strata_cuda_rebuild(void *stream, void *param, strata_dtype dtype, const void *state,
                        enum record_type record_type, uint64_t block_count)
{
    (void)stream;
    (void)param;
    (void)dtype;
    (void)state;
    (void)record_type;
    (void)block_count;
    return strata_cuda_optim_load();
}

int strata_cuda_norm_blocks(void *stream, double *sums, const void *grad, strata_dtype dtype,
                            uint64_t block_count)
{
    (void)stream;
    (void)sums;
    (void)grad;
    (void)dtype;
    (void)block_count;
    return strata_cuda_optim_load();
}

int strata_cuda_convert(void *stream, void *dst, strata_dtype dst_dtype, const void *src,
                        strata_dtype src_dtype, uint64_t count)
{
    (void)stream;
    (void)dst;
    (void)dst_dtype;
    (void)src;
    (void)src_dtype;
    (void)count;
    return strata_cuda_optim_load();
}
