/*
 * What the host operators are cut into: items; weights widened and activations rounded for
 * them.
 *
 * Thread: the function that is queued on the stream's thread, items on workers.
 */

#include "train/ops_host.h"

#include "strata/adam.h"

#include <string.h>

#define ROUND_ELEMS 512u /* at a time, through the first cache */

void strata_host_widen(float *out, const void *weight, strata_dtype dtype, uint64_t first,
                       uint64_t count)
{
    const char *src = (const char *)weight + first * strata_dtype_bytes(dtype);
    strata_convert(STRATA_ISA_BEST, out, STRATA_FP32, src, dtype, count);
}

void strata_host_round_elems(float *array, strata_dtype dtype, uint64_t count)
{
    uint16_t half[ROUND_ELEMS];
    for (uint64_t first = 0; first < count; first += ROUND_ELEMS) {
        uint64_t some = strata_host_min(ROUND_ELEMS, count - first);
        strata_convert(STRATA_ISA_BEST, half, dtype, array + first, STRATA_FP32, some);
        strata_convert(STRATA_ISA_BEST, array + first, STRATA_FP32, half, dtype, some);
    }
}

struct items_call {
    struct ops ops;
    strata_host_item *item;
    uint32_t count;
    union {
        struct op_norm norm;
        struct op_bias bias;
        struct op_bias_grad bias_grad;
        struct op_rotary rotary;
        struct op_attention attention;
        struct op_attention_grad attention_grad;
        struct op_glu glu;
        struct op_glu_grad glu_grad;
        struct op_embed embed;
        struct op_embed_grad embed_grad;
        struct op_entropy entropy;
    } args; /* of one of these, whose operators are items and nothing else */
};
STRATA_HOST_CALL(struct items_call);

static void one_item(void *user, uint32_t index, uint32_t worker)
{
    (void)worker;
    const struct items_call *call = user;
    call->item(&call->ops, &call->args, index);
}

static void run_items(void *data)
{
    struct items_call *call = data;
    strata_workers_run(call->ops.workers, STRATA_JOB_PANEL, one_item, call, call->count);
}

void strata_host_call_items(const struct ops *ops, strata_host_item *item, uint32_t count,
                            const void *args, size_t args_bytes)
{
    struct items_call call = {.ops = *ops, .item = item, .count = count};
    memcpy(&call.args, args, args_bytes);
    strata_stream_call(ops->stream, run_items, &call, sizeof call);
}
