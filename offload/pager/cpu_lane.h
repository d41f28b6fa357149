#ifndef STRATA_OFFLOAD_CPU_LANE_H
#define STRATA_OFFLOAD_CPU_LANE_H

/*
 * What the pager has others compute, and the thread that does it on the host.
 *
 * The pager knows where bytes live, not what they mean: the engine gives it this table.
 * Functions of the cpu lane run on the lane's dispatcher, which hands their jobs to the workers
 * and waits, so that the pager never computes and never waits for a job. Functions of the
 * device queue on a stream.
 *
 * Thread: the table's cpu functions: the dispatcher. Its device functions: the pager.
 */

#include "offload/pager/update_hashes.h"
#include "strata/device.h"
#include "strata/types.h"

/* A gradient with all that applying it takes. */
struct update_grad {
    const void *grad; /* compute dtype */
    uint64_t t;       /* updates applied, this one included */
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
    void *param;                   /* compute dtype; APPLY, WEIGHTS, REBUILD */
    struct update_digests digests; /* to fill: of what is read before it is used */
};

struct lane_functions {
    /* cpu lane. norm: what the sums so far say of the step, NONE if nothing yet. loss_scale:
     * the step's. */
    enum verdict (*norm)(void *user, uint32_t tile, const void *grad, double loss_scale);
    void (*update)(void *user, const struct update_job *job);
    /* result holds the step, counted from 1, its loss scale, and the updates applied before it;
     * to be completed. NUMERIC: its norm is not finite. */
    strata_status (*total)(void *user, strata_step_result *result, strata_error *error);
    /* Any thread: what a step's gradients are multiplied with if its norm is within the limit.
     */
    float (*guess)(double loss_scale);
    /* The pager, before a commit whose updates are all done: is what they made fit to be
     * kept? */
    strata_status (*may_commit)(void *user, strata_error *error);
    /* device */
    void (*round)(void *user, strata_stream *stream, uint32_t group, void *dst,
                  const float *src);
    void (*device_norm)(void *user, strata_stream *stream, uint32_t tile, const void *grad);
    void (*device_update)(void *user, strata_stream *stream, const struct update_job *job);
};

struct cpu_lane;

struct cpu_job {
    enum { CPU_NORM, CPU_UPDATE, CPU_TOTAL } kind;
    uint32_t slot;            /* given back */
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

/* The first failure, which sticks. Written before the failing done call: whoever was told may
 * read it. */
const strata_error *strata_cpu_lane_error(const struct cpu_lane *lane);

#endif
