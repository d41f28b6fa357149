#ifndef STRATA_OFFLOAD_LANES_H
#define STRATA_OFFLOAD_LANES_H

/*
 * Ops on real lanes: an op of the schedule becomes a transfer, a copy, a job or a commit here,
 * and its end is timed and counted. Which op starts when, and what follows from its end, is
 * decided by the pager and its schedule (offload/pager/pager.h).
 *
 * Steps count from 0, as in the schedule.
 *
 * Thread: create, destroy, table_bytes: the engine's caller; the others: the pager.
 */

#include "offload/schedule/address.h"
#include "offload/pager/committer.h"
#include "offload/pager/cpu_lane.h"
#include "offload/device/device.h"
#include "offload/schedule/op_trace.h"

struct lanes;

/* How an op ended. */
struct lane_done {
    uint32_t slot;
    strata_status status;
    uint64_t start_ns; /* 0: when it was queued */
    uint64_t end_ns;
    enum verdict verdict;     /* of a norm */
    strata_step_result total; /* of OP_TOTAL */
};

struct lanes_desc {
    struct memory memory;                   /* the finished plan and the arenas */
    struct schedule *schedule;              /* borrowed; its facts of steps */
    strata_device *device;                  /* borrowed */
    struct store *store;                    /* borrowed; NULL: none */
    uint64_t base_step;                     /* steps done before this run */
    uint64_t base_updates;                  /* updates applied before it; records name theirs */
    double base_loss_scale;                 /* of the first step */
    const struct lane_functions *functions; /* borrowed */
    void *functions_user;
    struct trace *trace; /* borrowed; NULL: none */
    /* As each op ends, on its lane's thread; must not block for long. */
    void (*done)(void *user, const struct lane_done *done);
    void *done_user;
};

strata_status strata_lanes_create(struct lanes **out, const struct lanes_desc *desc,
                                  strata_error *error);
/* No op is under way. NULL is fine. */
void strata_lanes_destroy(struct lanes *lanes);

/* Memory that create takes beyond the plan's tables. */
uint64_t strata_lanes_table_bytes(const struct offload_plan *plan);

/* Any but OP_OPEN and OP_COMMIT. */
void strata_lanes_start(struct lanes *lanes, const struct op *op);
/* OP_COMMIT; job.slot is filled in. */
void strata_lanes_commit(struct lanes *lanes, const struct op *op, struct commit_job *job);

/* The op that has ended; its slot is free again. NULL, or why it failed: lent by the store or
 * the cpu lane. */
const strata_error *strata_lanes_finish(struct lanes *lanes, const struct lane_done *done,
                                        struct op *out);
/* Has every op that was started been finished? */
bool strata_lanes_idle(const struct lanes *lanes);

/* The caller's stream begins to compute. Returns for how many nanoseconds it did not. */
uint64_t strata_lanes_computing(struct lanes *lanes, uint64_t now_ns);
/* The caller's stream has reached a release: what it computed before has ended. */
void strata_lanes_computed(struct lanes *lanes, uint64_t step, uint32_t use, uint64_t now_ns);

/* By lane; lent. */
const strata_lane_stats *strata_lanes_stats(const struct lanes *lanes);

#endif
