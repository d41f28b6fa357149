/*
 * Replaces attention_cudnn.cpp and attention_sum.cu in a build without cuDNN's frontend or
 * without CUDA. Open fails, so the other functions are never called. CMake defines
 * STRATA_CUDNN_ABSENT with the reason; a build without CMake has no cuDNN.
 *
 * Thread: none.
 */

#include "train/attention_cudnn.h"

#include <stdlib.h>

#include "base/error.h"

#ifndef STRATA_CUDNN_ABSENT
#    define STRATA_CUDNN_ABSENT "built without CMake"
#endif

const char *strata_attention_cudnn_absent(void)
{
    return STRATA_CUDNN_ABSENT;
}

/* What they would be called with is of no interest. */
#pragma GCC diagnostic ignored "-Wunused-parameter"

strata_status strata_attention_cudnn_open(struct attention_cudnn **out,
                                          const struct attention_target *target,
                                          strata_error *error)
{
    *out = NULL;
    return strata_fail(error, STRATA_E_UNSUPPORTED, 0, "cudnn: " STRATA_CUDNN_ABSENT);
}

void strata_attention_cudnn_close(struct attention_cudnn *attention)
{
}

const char *strata_attention_cudnn_version(const struct attention_cudnn *attention)
{
    abort();
}

strata_status strata_attention_cudnn_prepare(struct attention_cudnn *attention,
                                             const struct attention_shape *shape,
                                             strata_error *error)
{
    abort();
}

strata_status strata_attention_cudnn_needs(struct attention_cudnn *attention,
                                           const struct attention_shape *shape,
                                           struct attention_needs *out, strata_error *error)
{
    abort();
}

strata_status strata_attention_cudnn_forward(struct attention_cudnn *attention, void *stream,
                                             const struct attention_forward *args,
                                             strata_error *error)
{
    abort();
}

strata_status strata_attention_cudnn_backward(struct attention_cudnn *attention, void *stream,
                                              const struct attention_backward *args,
                                              strata_error *error)
{
    abort();
}
