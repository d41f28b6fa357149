#ifndef STRATA_TRAIN_ATTENTION_CALLS_H
#define STRATA_TRAIN_ATTENTION_CALLS_H

/*
 * How fused attention of a shape is cut into calls, and how much workspace it needs.
 *
 * A backward whose sums have a fixed order writes the scores of every head of a call to
 * memory: two bytes for each pair of a query and a key. So it runs by groups of heads, and a
 * workspace of a fixed size is enough for any number of sequences and heads. All of this
 * follows from the shape alone, so a memory plan needs neither a GPU nor cuDNN.
 *
 *     struct attention_calls calls;
 *     STRATA_TRY(strata_attention_calls(&calls, &shape, error));
 *     reserve(calls.workspace_bytes);
 *
 * Thread: any.
 */

#include <stdint.h>

#include "strata/status.h"
#include "strata/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The scores of a call take at most the first number, and its whole workspace at most the
 * second: the rest of it grows with tokens, not with their square. A head that needs more gets
 * a call of its own, as long as its scores take no more than the third. */
#define ATTENTION_SCORES_BYTES     (UINT64_C(1) << 30)
#define ATTENTION_CALL_BYTES       (UINT64_C(1120) << 20)
#define ATTENTION_SCORES_BYTES_MAX (UINT64_C(2) << 30)

/* The largest head that all GPUs from Ampere on have a backward for. */
#define ATTENTION_HEAD_DIM_MAX 128u

/*
 * Causal attention over rows that are tokens. heads is a multiple of kv_heads. q, k and v lie
 * in the rows of one matrix or of three, a row of each qkv_stride elements after the one
 * before; their gradients likewise. Rows of o and of its gradient lie o_stride apart.
 */
struct attention_shape {
    uint32_t sequences;
    uint32_t seq; /* tokens of a sequence */
    uint32_t heads;
    uint32_t kv_heads;
    uint32_t head_dim;
    uint32_t window;     /* keys that a token sees, its own included; 0: all up to its own   */
    strata_dtype dtype;  /* STRATA_BF16 or STRATA_FP16: of q, k, v, o and their gradients    */
    uint64_t qkv_stride; /* elements; 0: (heads + 2 kv_heads) x head_dim, q, k and v packed  */
    uint64_t o_stride;   /* elements; 0: heads x head_dim                                    */
};

struct attention_calls {
    uint32_t
        sequences; /* of a backward call; a divisor of the shape's; 1 unless it has all heads */
    uint32_t heads;      /* query heads of a backward call; a divisor of the shape's heads */
    uint32_t kv_heads;   /* key heads of a call: whole ones, or 1 whose query heads are split */
    uint32_t parts;      /* calls that share a key head; their dK and dV are added after */
    uint64_t call_bytes; /* workspace of one backward call, at most */
    uint64_t parts_bytes;     /* dK and dV of all the parts; 0 where parts is 1 */
    uint64_t workspace_bytes; /* of forward and backward, at most: the two together */
};

/*
 * The calls of a shape, the largest that the limits above allow.
 *
 * STRATA_E_UNSUPPORTED: fused attention does not support the shape; the message names key and
 * value. STRATA_E_NOMEM: not even the scores of one head fit.
 */
STRATA_NODISCARD strata_status strata_attention_calls(struct attention_calls *out,
                                                      const struct attention_shape *shape,
                                                      strata_error *error);

/* The shape with its strides filled in. */
struct attention_shape strata_attention_resolved(const struct attention_shape *shape);

#ifdef __cplusplus
}
#endif

#endif
