/*
 * cuDNN's attention behind the CUDA operators.
 *
 * A shape's plans are built when it is met for the first time, which a rehearsal does before
 * the first step. A refusal is kept, since asking again would take half a second each time.
 *
 * Thread: see the header.
 */

#include "train/attention_fused.h"

#include "train/attention_cudnn.h"
#include "train/ops_cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REFUSED_MAX 8u   /* a model has two shapes: layers with a window and without */
#define LACK_BYTES  300u /* an error's message and some words                       */

struct fused_attention {
    struct attention_cudnn *cudnn; /* NULL: none */
    struct op_heads refused[REFUSED_MAX];
    uint32_t refused_count;
    char lack[LACK_BYTES];
};

static struct attention_shape shape_of(const struct op_heads *heads, strata_dtype dtype)
{
    return (struct attention_shape){.sequences = heads->sequences,
                                    .seq = heads->seq,
                                    .heads = heads->heads,
                                    .kv_heads = heads->kv_heads,
                                    .head_dim = heads->head_dim,
                                    .window = heads->window,
                                    .dtype = dtype,
                                    .qkv_stride = heads->stride};
}

static void keep_lack(struct fused_attention *fused, const strata_error *error)
{
    if (fused->lack[0] == '\0')
        snprintf(fused->lack, sizeof fused->lack, "attention is made of products, slower: %s",
                 error->message);
}

struct fused_attention *strata_fused_attention_open(strata_dtype act_dtype)
{
    struct fused_attention *fused = calloc(1, sizeof *fused);
    const struct attention_target here = {0};
    strata_error error = {0};
    if (fused == NULL || act_dtype == STRATA_FP32)
        return fused;
    if (strata_attention_cudnn_open(&fused->cudnn, &here, &error) != STRATA_OK)
        keep_lack(fused, &error);
    return fused;
}

void strata_fused_attention_close(struct fused_attention *fused)
{
    if (fused == NULL)
        return;
    strata_attention_cudnn_close(fused->cudnn);
    free(fused);
}

const char *strata_fused_attention_lack(const struct fused_attention *fused)
{
    return fused != NULL && fused->lack[0] != '\0' ? fused->lack : NULL;
}

/* Are the shape's plans there? */
static bool has_plans(struct fused_attention *fused, const struct op_heads *heads,
                      strata_dtype dtype)
{
    _Static_assert(sizeof *heads == 6 * sizeof(uint32_t) + sizeof(uint64_t), "no padding");
    if (fused == NULL || fused->cudnn == NULL)
        return false;
    for (uint32_t i = 0; i < fused->refused_count; i++)
        if (memcmp(&fused->refused[i], heads, sizeof *heads) == 0)
            return false;
    struct attention_shape shape = shape_of(heads, dtype);
    strata_error error = {0};
    if (strata_attention_cudnn_prepare(fused->cudnn, &shape, &error) == STRATA_OK)
        return true;
    keep_lack(fused, &error);
    if (fused->refused_count < REFUSED_MAX)
        fused->refused[fused->refused_count++] = *heads;
    return false;
}

/* A refusal of a shape whose plans were there becomes the stream's failure. */
static void keep_failure(const struct ops *ops, strata_status status, const strata_error *error)
{
    if (status != STRATA_OK)
        strata_stream_failed(ops->stream, CUDA_CUDNN_NATIVE + (int)error->native,
                             error->message);
}

bool strata_fused_attention(const struct ops *ops, const struct op_attention *args)
{
    struct attention_forward forward = {
        .shape = shape_of(&args->shape, ops->act_dtype),
        .q = args->q,
        .k = args->k,
        .v = args->v,
        .o = args->o,
        .lse = args->lse,
        .workspace = args->scratch,
    };
    strata_error error = {.status = STRATA_OK};
    if (!has_plans(ops->fused, &args->shape, ops->act_dtype))
        return false;
    keep_failure(ops,
                 strata_attention_cudnn_forward(
                     ops->fused->cudnn, strata_stream_native(ops->stream), &forward, &error),
                 &error);
    return true;
}

bool strata_fused_attention_grad(const struct ops *ops, const struct op_attention_grad *args)
{
    struct attention_backward backward = {
        .shape = shape_of(&args->shape, ops->act_dtype),
        .q = args->q,
        .k = args->k,
        .v = args->v,
        .o = args->o,
        .d_o = args->d_out,
        .lse = args->lse,
        .d_q = args->dq,
        .d_k = args->dk,
        .d_v = args->dv,
        .workspace = args->scratch,
    };
    strata_error error = {.status = STRATA_OK};
    if (!has_plans(ops->fused, &args->shape, ops->act_dtype))
        return false;
    keep_failure(ops,
                 strata_attention_cudnn_backward(
                     ops->fused->cudnn, strata_stream_native(ops->stream), &backward, &error),
                 &error);
    return true;
}

uint64_t strata_fused_attention_bytes(const struct op_heads *heads, strata_dtype act_dtype)
{
    struct attention_shape shape = shape_of(heads, act_dtype);
    struct attention_calls calls;
    if (act_dtype == STRATA_FP32 || strata_attention_calls(&calls, &shape, NULL) != STRATA_OK)
        return 0;
    return calls.workspace_bytes;
}
