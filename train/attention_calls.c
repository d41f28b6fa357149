/*
 * Groups of heads for a backward of fused attention, and its workspace.
 *
 * The workspace was measured with cuDNN 9.19 and 9.28, on descriptions of an A100, an RTX 4090
 * and an H200. A backward whose sums have one order needs the scores of the call, two bytes
 * each, with rows rounded up to 64 and keys to 128; four bytes for each row and head; and,
 * where heads share keys, dK and dV of each query head before they are added. When a plan is
 * built, its workspace is checked against this formula.
 *
 * A group has whole key heads, since cuDNN adds the gradients of heads that share one within a
 * call. If not even the heads of one key head fit, a group is a part of them, and a kernel of
 * ours adds the parts in the order of heads.
 *
 * Thread: any.
 */

#include "train/attention_calls.h"

#include <stdbool.h>

#include "base/error.h"
#include "base/round.h"

/* Bytes that a plan may need for itself. No plan needed any; a later cuDNN may align its
 * arrays. */
#define SMALL_BYTES (UINT64_C(1) << 20)

struct attention_shape strata_attention_resolved(const struct attention_shape *shape)
{
    struct attention_shape out = *shape;
    if (out.qkv_stride == 0)
        out.qkv_stride = ((uint64_t)out.heads + 2 * (uint64_t)out.kv_heads) * out.head_dim;
    if (out.o_stride == 0)
        out.o_stride = (uint64_t)out.heads * out.head_dim;
    return out;
}

/* Bytes for one head of one sequence: the part of the workspace that grows with a call's
 * sequences x heads. */
static uint64_t scores_bytes(const struct attention_shape *shape)
{
    return 2 * strata_round_up(shape->seq, 64) * strata_round_up(shape->seq, 128);
}

static uint64_t beside_bytes(const struct attention_shape *shape, bool shared)
{
    uint64_t sums = 4 * (uint64_t)shape->seq;
    uint64_t dk_dv = 2 * 2 * (uint64_t)shape->seq * shape->head_dim;
    return sums + (shared ? dk_dv : 0);
}

/* The largest divisor of count that is at most most, which is 1 or more. */
static uint32_t largest_divisor(uint32_t count, uint64_t most)
{
    uint32_t divisor = most < count ? (uint32_t)most : count;
    while (count % divisor != 0)
        divisor--;
    return divisor;
}

static strata_status check_attention_shape(const struct attention_shape *shape,
                                           strata_error *error)
{
    if (shape->sequences == 0 || shape->heads == 0 || shape->kv_heads == 0 ||
        shape->heads % shape->kv_heads != 0)
        return strata_fail(error, STRATA_E_UNSUPPORTED, 0,
                           "fused attention: %u sequences, %u heads on %u key heads: heads "
                           "must be a multiple of key heads, and nothing zero",
                           shape->sequences, shape->heads, shape->kv_heads);
    if (shape->seq < 2)
        return strata_fail(error, STRATA_E_UNSUPPORTED, 0,
                           "fused attention: sequences of %u tokens: needs 2 or more",
                           shape->seq);
    if (shape->head_dim == 0 || shape->head_dim % 8 != 0 ||
        shape->head_dim > ATTENTION_HEAD_DIM_MAX)
        return strata_fail(error, STRATA_E_UNSUPPORTED, 0,
                           "fused attention: head_dim %u: must be a multiple of 8, at most %u",
                           shape->head_dim, ATTENTION_HEAD_DIM_MAX);
    if (shape->dtype != STRATA_BF16 && shape->dtype != STRATA_FP16)
        return strata_fail(error, STRATA_E_UNSUPPORTED, 0,
                           "fused attention: works in bf16 or fp16 only: compute in one of "
                           "those");
    if (shape->qkv_stride % 8 != 0 || shape->o_stride % 8 != 0)
        return strata_fail(error, STRATA_E_UNSUPPORTED, 0,
                           "fused attention: rows %llu and %llu elements apart: must be "
                           "multiples of 8",
                           (unsigned long long)shape->qkv_stride,
                           (unsigned long long)shape->o_stride);
    return STRATA_OK;
}

/* The most heads of a sequence that a call may have; at least 1. */
static uint64_t most_heads(const struct attention_shape *shape)
{
    uint64_t each = scores_bytes(shape);
    uint64_t by_scores = ATTENTION_SCORES_BYTES / each;
    uint64_t by_all =
        ATTENTION_CALL_BYTES / (each + beside_bytes(shape, shape->heads > shape->kv_heads));
    uint64_t most = by_scores < by_all ? by_scores : by_all;
    return most > 0 ? most : 1;
}

/* Choose how many query heads, and how many sequences with all heads, a call has. */
static void choose_group(struct attention_calls *out, const struct attention_shape *shape)
{
    uint64_t most = most_heads(shape);
    uint32_t sharing = shape->heads / shape->kv_heads;
    if (most >= sharing) {
        out->kv_heads = largest_divisor(shape->kv_heads, most / sharing);
        out->heads = out->kv_heads * sharing;
        out->parts = 1;
    } else {
        out->kv_heads = 1;
        out->heads = largest_divisor(sharing, most);
        out->parts = sharing / out->heads;
    }
    out->sequences = 1;
    if (out->heads == shape->heads)
        out->sequences = largest_divisor(shape->sequences, most / shape->heads);
}

strata_status strata_attention_calls(struct attention_calls *out,
                                     const struct attention_shape *shape, strata_error *error)
{
    struct attention_shape full = strata_attention_resolved(shape);
    STRATA_TRY(check_attention_shape(&full, error));
    uint64_t each = scores_bytes(&full);
    if (each > ATTENTION_SCORES_BYTES_MAX)
        return strata_fail(error, STRATA_E_NOMEM, 0,
                           "fused attention: a sequence of %u tokens needs %llu MiB of "
                           "workspace for one head's gradient, %llu are the most: take "
                           "shorter sequences",
                           full.seq, (unsigned long long)(each >> 20),
                           (unsigned long long)(ATTENTION_SCORES_BYTES_MAX >> 20));
    *out = (struct attention_calls){0};
    choose_group(out, &full);
    uint64_t beside = beside_bytes(&full, out->heads > out->kv_heads);
    out->call_bytes = (uint64_t)out->sequences * out->heads * (each + beside) + SMALL_BYTES;
    if (out->parts > 1)
        out->parts_bytes = 2 * 2 * (uint64_t)out->parts * full.seq * full.head_dim;
    out->workspace_bytes = strata_round_up(out->call_bytes, 256) + out->parts_bytes;
    return STRATA_OK;
}
