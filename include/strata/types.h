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

/* One line, no newline; lent for the call. */
typedef void (*strata_log_fn)(void *user, const char *line);

typedef enum strata_io_backend {
    STRATA_IO_URING = 0, /* io_uring; forbidden here: refused, unless threads are allowed */
    STRATA_IO_THREADS    /* a pool of threads with pread and pwrite */
} strata_io_backend;

/* Lacks that are accepted. Without the bit the lack is an error; with it, it is logged and
 * counted. */
enum {
    STRATA_ALLOW_THREADS_IO = 1,  /* io_uring is forbidden: use threads */
    STRATA_ALLOW_BUFFERED_IO = 2, /* the file system has no O_DIRECT: use the page cache */
    STRATA_ALLOW_UNPINNED = 4,    /* host memory cannot be pinned for a CUDA device */
    STRATA_ALLOW_OVERCOMMIT = 8   /* the machine has less host memory free than a run takes: for
                                     a virtual machine whose memory grows with use */
};

/* What the store promises. A commit is all states of one step; it survives what its name says.
 */
typedef enum strata_durability {
    STRATA_SCRATCH = 0,     /* no commits: the store is removed at destroy */
    STRATA_DURABLE_PROCESS, /* the end of the process, however sudden; no flushes */
    STRATA_DURABLE_POWER    /* loss of power, on drives that honour a flush */
} strata_durability;

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
    /* Not trained: no gradient, no state. Its parameters are rounded to the compute dtype once,
     * when a run begins, and stay as they are. No use of it has grad. */
    bool frozen;
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
    const strata_use *uses;      /* required; copied; each trained group's last use has grad */
    uint32_t use_count;          /* required */
    const strata_use *eval_uses; /* of an evaluation; NULL: there is none; copied; no grad */
    uint32_t eval_use_count;     /* required with eval_uses; it may leave groups out */
    uint64_t scratch_bytes;      /* 0: none; device bytes lent to the caller for good */
    uint64_t stash_bytes;        /* 0: no stash; bytes of one activation block */
} strata_model_desc;

/* Where a group lies in the device: see strata_acquire(). */
typedef struct strata_view {
    const void
        *param;  /* device: the group's flat elements in the compute dtype, padding included */
    float *grad; /* device: the same elements in fp32; NULL unless the use has .grad */
} strata_view;

/* What became known of a step: see strata_wait(). */
typedef struct strata_step_result {
    uint64_t step;
    uint64_t updates; /* applied, this step's and earlier runs' included */
    /* Global L2 norm of the rounded gradients over the loss scale, before clipping; of a
     * skipped step infinite or NaN. */
    double grad_norm;
    float grad_scale; /* what they were multiplied with: clip / (norm + 1e-6) where below 1,
                         else 1, over the loss scale */
    bool skipped;     /* not finite under a dynamic loss scale: the step has changed nothing */
    double loss_scale;
    double next_loss_scale; /* of the step that follows */
} strata_step_result;

typedef struct strata_lane_stats {
    uint64_t bytes;   /* moved; cpu: bytes of DRAM the updates touch; compute: 0 */
    uint64_t busy_ns; /* time in which the lane had work under way */
    uint64_t ops;
} strata_lane_stats;

/*
 * How far a piece of work is that may take seconds: making a store, taking memory, initial
 * weights, resuming, hashing, scrubbing.
 *
 * what: a few words in static storage, such as "writing the store"; another what is another
 * piece of work. done of total, both in bytes; total is not 0 and stays the same. The first
 * call comes a quarter of a second after the work began, if it is not done by then; at most
 * four follow in a second, and the last has done == total, unless the work fails. From done,
 * total and the time since the first call a program tells the time that is left.
 *
 * Called in the thread that called the library. It must not call the library.
 */
typedef void (*strata_progress_fn)(void *user, const char *what, uint64_t done, uint64_t total);

/* "fp32", "bf16", "fp16"; "auto", "device", "host", "nvme"; "unknown" for what is none, and 0
 * bytes. Static storage. Thread: any. */
STRATA_API const char *strata_dtype_name(strata_dtype dtype);
STRATA_API const char *strata_tier_name(strata_tier tier);
STRATA_API uint32_t strata_dtype_bytes(strata_dtype dtype);

#ifdef __cplusplus
}
#endif

#endif
