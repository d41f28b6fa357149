#ifndef STRATA_OFFLOAD_CPU_LANE_H
#define STRATA_OFFLOAD_CPU_LANE_H

/*
 * The table of functions that compute for the pager, and the thread that calls those which run
 * on the host.
 *
 * The pager knows where bytes live, not what they mean, so the engine gives it this table.
 * Functions of the cpu lane run on the lane's dispatcher, which hands their work to the workers
 * and waits. So the pager never computes and never waits for a job. Functions of the device
 * queue work on a stream.
 *
 * Thread: the table's cpu functions: the dispatcher. Its device functions: the pager.
 */

#include "offload/pager/update_hashes.h"
#include "strata/device.h"
#include "strata/types.h"

/* A gradient with all that applying it takes. */
struct update_grad {
    const void *grad; /* in the group's wire dtype */
    uint64_t t;       /* which update it is, counted from 1 */
    double lr;
    float scale;
};

/* One tile's update. All pointers hold the tile's elements. */
struct update_job {
    uint32_t tile;
    uint32_t work;                 /* enum update_work bits, done in their order */
    struct update_grad fold;       /* FOLD */
    struct update_grad grad;       /* APPLY, WEIGHTS, TAKE */
    void *grad_home;               /* TAKE: where grad goes; fold.grad is not needed any more */
    void *state;                   /* the record */
    void *param;                   /* in the group's dtype; APPLY, WEIGHTS, REBUILD */
    struct update_digests digests; /* to be filled in */
};

struct lane_functions {
    /* On the cpu lane. norm: add a tile's norm blocks, and judge the step by the sums so far;
     * NONE: they decide nothing yet. loss_scale: the step's. */
    enum verdict (*norm)(void *user, uint32_t tile, const void *grad, double loss_scale);
    void (*update)(void *user, const struct update_job *job);
    /* The step's norm. result holds the step, counted from 1, its loss scale, and the updates
     * applied before it; the rest is filled in. NUMERIC: the norm is not finite. */
    strata_status (*total)(void *user, strata_step_result *result, strata_error *error);
    /* Any thread: the factor of a step's gradients if its norm is within the limit. */
    float (*guess)(double loss_scale);
    /* The pager, before a commit whose updates are all done: may what they made be kept? */
    strata_status (*may_commit)(void *user, strata_error *error);
    /* On the device; the pager calls them. */
    void (*round)(void *user, strata_stream *stream, uint32_t group, void *dst,
                  const float *src);
    void (*device_norm)(void *user, strata_stream *stream, uint32_t tile, const void *grad);
    void (*device_update)(void *user, strata_stream *stream, const struct update_job *job);
};

struct cpu_lane;

struct cpu_job {
    enum { CPU_NORM, CPU_UPDATE, CPU_TOTAL } kind;
    uint32_t slot;            /* the caller's; the result has it */
    struct update_job update; /* norm: tile and grad.grad only */
    double loss_scale;        /* norm, total: the step's */
    uint64_t step;            /* total: from 1 */
    uint64_t updates;         /* total: applied before it */
};

struct cpu_result {
    uint32_t slot;
    uint64_t start_ns;
    uint64_t end_ns;
    strata_status status;
    enum verdict verdict; /* NORM */
    strata_step_result total;
};

/* Called on the dispatcher with each result; must not block for long. */
typedef void (*cpu_done_fn)(void *user, const struct cpu_result *result);

struct cpu_lane_desc {
    const struct lane_functions *functions; /* borrowed */
    void *functions_user;
    cpu_done_fn done;
    void *done_user;
};

/* Bytes of memory that create takes. */
uint64_t strata_cpu_lane_bytes(void);

strata_status strata_cpu_lane_create(struct cpu_lane **out, const struct cpu_lane_desc *desc,
                                     strata_error *error);
/* Finishes what is queued. NULL is fine. */
void strata_cpu_lane_destroy(struct cpu_lane *lane);
void strata_cpu_lane_start(struct cpu_lane *lane, const struct cpu_job *job);

/* The first failure; it stays. It is written before the done call of the job that failed, so
 * the receiver of that call may read it. */
const strata_error *strata_cpu_lane_error(const struct cpu_lane *lane);

#endif
