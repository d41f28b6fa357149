#ifndef STRATA_TRAIN_ATTENTION_FUSED_H
#define STRATA_TRAIN_ATTENTION_FUSED_H

/*
 * The CUDA operators' way to cuDNN's attention: which shapes it takes, and what is missing
 * where it takes none. For a shape that is refused there is the attention that is made of
 * products (attention_cuda.c), which takes every shape.
 *
 * Thread: the one that queues on the stream, with its device current.
 */

#include "train/ops.h"

struct fused_attention;

/* Never fails: without cuDNN, without memory or with fp32 it refuses every shape. NULL is
 * accepted by the functions below and refuses too. */
struct fused_attention *strata_fused_attention_open(strata_dtype act_dtype);
void strata_fused_attention_close(struct fused_attention *fused);

/* What is lost and why, as one line; NULL: nothing so far, or nothing to be had in fp32. Lent
 * until close. */
const char *strata_fused_attention_lack(const struct fused_attention *fused);

/* Queue it. False: this shape is refused, and nothing is queued; a shape has one answer for its
 * forward and its gradient. */
bool strata_fused_attention(const struct ops *ops, const struct op_attention *args);
bool strata_fused_attention_grad(const struct ops *ops, const struct op_attention_grad *args);

/* Bytes of its workspace, which is op_attention's scratch; 0: it has no such shape. */
uint64_t strata_fused_attention_bytes(const struct op_heads *shape, strata_dtype act_dtype);

#endif
