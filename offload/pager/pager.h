#ifndef STRATA_OFFLOAD_PAGER_H
#define STRATA_OFFLOAD_PAGER_H

/*
 * The schedule's driver on real lanes. It turns the schedule's ops into reads, writes, copies
 * and jobs, and their ends into the schedule's events. It is one thread, which owns the
 * schedule, the frames and the two copy streams. It does not compute, and it waits for nothing
 * but messages.
 *
 * Every answer to the caller carries a status. Once something has failed, no more ops are
 * started, all gates are open (so that no stream hangs), and every answer is that failure.
 *
 * Steps count from 0 here, as in the schedule, and so do turns: of a step's use the step, of an
 * evaluation's the evaluation.
 *
 * Thread: create, destroy and all functions below: the engine's caller.
 */

#include "offload/pager/lanes.h"

struct pager;

/* Different streams a caller may use with one engine. */
#define STRATA_MAX_STREAMS 16u

struct pager_desc {
    struct lanes_desc lanes;   /* schedule and done are filled in */
    struct schedule *schedule; /* borrowed; the pager's until destroy */
};

strata_status strata_pager_create(struct pager **out, const struct pager_desc *desc,
                                  strata_error *error);

/* Waits for the ops under way. NULL is fine. */
void strata_pager_destroy(struct pager *pager);

/* Memory that create takes beyond the plan's tables; the placements are known. */
uint64_t strata_pager_table_bytes(const struct offload_plan *plan);

strata_status strata_pager_begin(struct pager *pager, uint64_t step, double lr);

/* Block until the use is granted. out_blocked_ns: how long that took. */
strata_status strata_pager_ask(struct pager *pager, uint64_t turn, uint32_t use,
                               uint64_t *out_blocked_ns);

/* Between steps, of which all uses are granted: begin an evaluation; or block until nothing is
 * under way. go_on: the evaluation's last use is granted; or the rest is over. */
void strata_pager_evaluate(struct pager *pager, uint64_t steps);
strata_status strata_pager_rest(struct pager *pager, uint64_t steps);
void strata_pager_go_on(struct pager *pager);

/* Before the first call below with a stream: hold it until destroy. false: it would be one more
 * than STRATA_MAX_STREAMS. */
bool strata_pager_take_stream(struct pager *pager, strata_stream *stream);
/* Queue on the stream: wait for the bytes of an acquire, and notify the pager that computing
 * begins. Not OK: the bytes will never come, and nothing that needs them may be queued. */
strata_status strata_pager_queue_acquire(struct pager *pager, strata_stream *stream,
                                         uint64_t turn, uint32_t use);
/* Queue on the stream: notify the pager that the use is over. */
void strata_pager_queue_release(struct pager *pager, strata_stream *stream, uint64_t turn,
                                uint32_t use);
/* Queue the copy of a granted stash or unstash. Not OK: as for an acquire. */
strata_status strata_pager_queue_stash(struct pager *pager, strata_stream *stream,
                                       uint64_t turn, uint32_t use, void *bytes);

/* The device addresses of a granted acquire. */
strata_view strata_pager_view(const struct pager *pager, uint32_t use);

/* Block until `steps` steps have their norm; out: the latest of them. */
strata_status strata_pager_wait_norm(struct pager *pager, uint64_t steps,
                                     strata_step_result *out);
/* Block until `steps` steps, all that have begun, are updated and their parts are at home.
 * out_applied: updates applied by then, earlier runs' included. */
strata_status strata_pager_wait_updates(struct pager *pager, uint64_t steps,
                                        uint64_t *out_applied);

/* Make the latest step durable; all its updates are at home. step: base_step included. */
strata_status strata_pager_commit(struct pager *pager, uint64_t step);

/* What the lanes did, and how the updates went. */
struct pager_stats {
    strata_lane_stats lanes[STRATA_LANE_COUNT];
    uint64_t stall_ns[STRATA_STALL_COUNT];
    uint64_t applied; /* updates that all tiles have seen, earlier runs' included */
    struct schedule_counts counts;
};
void strata_pager_stats(struct pager *pager, struct pager_stats *out);

/* The first failure; status OK: none. The caller may read it after an answer with a failure. */
const strata_error *strata_pager_error(const struct pager *pager);

#endif
