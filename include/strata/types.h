#ifndef STRATA_TYPES_H
#define STRATA_TYPES_H

/*
 * The words every other header uses: element types, tiers, and the model as the library sees
 * it.
 *
 * A model is an ordered list of groups and the use list of one training step. A group is what
 * the caller acquires at once: a transformer layer, a slice of an embedding. Its tensors lie
 * one after the other in declaration order, without gaps; the group's end is padded with zeros
 * to a whole norm block (STRATA_BLOCK_ELEMS). Everything the library moves is cut from that
 * flat order.
 *
 * The use list says, in order, every acquire and release of one step and every activation block
 * that is stashed and taken back. It is known before the first step, so that nothing has to be
 * guessed: the plan lays out the device from it, and prefetch follows it.
 *
 *     acquire 0, stash 0, release 0, acquire 1, release 1,              forward
 *     acquire 1 (gradient), release 1, acquire 0 (gradient), ...        backward
 *
 * Thread: plain data.
 */

#include <stdbool.h>
#include <stdint.h>

#include "strata/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Elements of a norm block: the unit of padding, and of the sums that make a gradient norm. */
#define STRATA_BLOCK_ELEMS 16384u

#define STRATA_MAX_RANK 4

typedef enum strata_dtype { STRATA_FP32 = 1, STRATA_BF16 = 2, STRATA_FP16 = 3 } strata_dtype;

typedef enum strata_tier {
    STRATA_AUTO = 0, /* as a choice: let the plan decide */
    STRATA_DEVICE,   /* device memory, or the host device's capped arena */
    STRATA_HOST,     /* RAM */
    STRATA_NVME,     /* files in the store's directories */
    STRATA_TIER_COUNT
} strata_tier;

typedef enum strata_part {
    STRATA_PARAM = 0,
    STRATA_GRAD,
    STRATA_STATE,
    STRATA_PART_COUNT
} strata_part;

/* A resource that works one queue. */
typedef enum strata_lane {
    STRATA_LANE_NVME_READ = 0,
    STRATA_LANE_NVME_WRITE,
    STRATA_LANE_H2D,
    STRATA_LANE_D2H,
    STRATA_LANE_COMM, /* collectives; idle with one rank */
    STRATA_LANE_CPU,
    STRATA_LANE_COMPUTE,
    STRATA_LANE_COUNT
} strata_lane;

/* "nvme_read", "nvme_write", "h2d", "d2h", "comm", "cpu", "compute". Static storage. Thread:
 * any. */
STRATA_API const char *strata_lane_name(strata_lane lane);

typedef struct strata_tensor_desc {
    const char *name;                /* required; copied; unique in the model */
    uint64_t shape[STRATA_MAX_RANK]; /* required; outermost first; unused entries are 0 */
    uint32_t rank;                   /* required; 1 to STRATA_MAX_RANK */
    bool no_decay;                   /* weight decay leaves this tensor alone */
} strata_tensor_desc;

typedef struct strata_group_desc {
    const char *name;                  /* required; copied */
    const strata_tensor_desc *tensors; /* required; copied */
    uint32_t tensor_count;             /* required */
} strata_group_desc;

typedef enum strata_use_kind {
    STRATA_USE_ACQUIRE = 1, /* wants the parameters; with .grad the gradient too */
    STRATA_USE_RELEASE,     /* ends the acquire of the same group */
    STRATA_USE_STASH,       /* an activation block leaves the device */
    STRATA_USE_UNSTASH      /* it comes back; then it may be stashed again */
} strata_use_kind;

typedef struct strata_use {
    strata_use_kind kind; /* required */
    uint32_t index;       /* the group, or for (un)stash the block: 0 to block count - 1 */
    bool grad;            /* acquire: this use adds to the group's gradient */
    double flops;         /* what the caller computes before the next entry; 0: nothing */
} strata_use;

typedef struct strata_model_desc {
    const strata_group_desc *groups; /* required; copied */
    uint32_t group_count;            /* required */
    const strata_use *uses;          /* required; copied; each group's last use has grad */
    uint32_t use_count;              /* required */
    uint64_t scratch_bytes;          /* 0: none; device bytes lent to the caller for good */
    uint64_t stash_bytes;            /* 0: no stash; bytes of one activation block */
} strata_model_desc;

/* "fp32", "bf16", "fp16"; "auto", "device", "host", "nvme". Static storage. Thread: any. */
STRATA_API const char *strata_dtype_name(strata_dtype dtype);
STRATA_API const char *strata_tier_name(strata_tier tier);
STRATA_API uint32_t strata_dtype_bytes(strata_dtype dtype);

#ifdef __cplusplus
}
#endif

#endif
