#ifndef STRATA_OFFLOAD_SCHEDULE_H
#define STRATA_OFFLOAD_SCHEDULE_H

/*
 * What moves when: the schedule of steps as a pure state machine.
 *
 * A step walks the use list, and every use needs bytes that rest elsewhere. The schedule
 * decides which bytes move next, on which lane, through which frame. It has no clock, no thread
 * and no I/O, and after create it allocates nothing. A driver feeds it events and carries out
 * the ops that it returns:
 *
 *     the caller has come to a use        strata_schedule_ask
 *     a stream has reached a release      strata_schedule_released
 *     a stream has copied a stash block   strata_schedule_copied
 *     an op is done                       strata_schedule_done
 *     which op to start next?             strata_schedule_next
 *
 * There are three drivers: the pager with real lanes (offload/pager/pager.h), the simulator
 * with a virtual clock (offload/simulate/simulate.h), and tests with completions in any order
 * (tests/support/driver.h). So the code that is simulated and tested is the code that runs.
 *
 * Work is done in chains. A chain brings one thing to its place, one op after the other. The
 * ops in brackets are there only if the home of that part asks for them:
 *
 *     fetch    [nvme_read param] -> h2d
 *     grad     d2h -> norm -> [nvme_write]
 *     update   [nvme_read state, grad] [d2h grad] -> update -> [nvme_write state, param] [h2d]
 *     park     d2h -> [nvme_write], and back: a gradient that is not finished
 *     stash    d2h -> [nvme_write], and back: an activation block
 *     save     [d2h state] -> nvme_write state: a commit of a state that rests elsewhere
 *
 * With several ranks each moves its own shards. A gather follows the fetches of a placement, a
 * reduction precedes a gradient's way home, and the block sums are shared before the norm.
 *
 * The rules of progress. Together they make sure that in no order of completions the schedule
 * gets stuck:
 *
 *   - The residency has laid out the device's room. Placements open in its order, each once
 *     those that overlap it have closed.
 *   - A chain takes the one frame it needs before its first op, or needs none. Each kind of
 *     frame serves chains that end without another frame. Only an update that reads ahead may
 *     hold a frame while it waits for the caller, and the last frame is never given to one.
 *   - A tile's parameters for step n are fetched once its update n is final and written. A
 *     gradient placement of step n opens once the norm of step n - 1 is known.
 *   - A state record is written to a slot that no commit needs (offload/plan/slots.h), or the
 *     write waits for the commit in preparation. An update of step n begins once every tile of
 *     step n - 1 has the frame it ends with, so that this commit never waits for a frame that
 *     such a write holds.
 *   - The comm lane's order is fixed by the plan and is the same on all ranks. It never depends
 *     on what has arrived (offload/schedule/schedule_comm.c).
 *   - Of all chains whose next op could start, the one whose result is needed first goes on
 *     (earliest deadline first). On the cpu lane a chain that holds a frame goes before all
 *     others. Transfers that nothing waits for, which are states that are read ahead and states
 *     on their way home, get few of a drive's requests at once.
 *
 * Updates and the norm (offload/schedule/schedule_update.c): with clipping or a loss scale the
 * scale of an update is known only with the norm of the step. An update is deferred until then,
 * or computed ahead with the scale of a norm within the limit. The norm gives the verdict: if
 * the scale is another one, the update is redone from the state before it. On NVMe that is in
 * another slot; in host RAM the state is kept one gradient behind. Either way the bits are the
 * same.
 *
 * Steps count from 0 here: step n uses weights that have seen the updates of n steps.
 *
 * An evaluation comes between two steps and walks a list of its own, forward only. When it
 * begins, what is in the device for the next step already is taken back, and it is brought
 * again afterwards. A turn is the number of a walk: the step for the step's list, and for the
 * evaluation's list the count of evaluations before it. Whether there are evaluations, and
 * when, changes no bit.
 *
 * Thread: one owner, the pager.
 */

#include "offload/plan/plan.h"
#include "offload/plan/slots.h"
#include "strata/types.h"

enum op_kind {
    OP_NVME_READ,
    OP_NVME_WRITE,
    OP_H2D,
    OP_D2H,
    OP_ZERO,   /* h2d lane: a fresh gradient buffer */
    OP_ROUND,  /* d2h lane: a group's finished gradient to the wire dtype */
    OP_NORM,   /* cpu lane, or d2h lane on the device: sums of a tile's blocks */
    OP_UPDATE, /* cpu lane, or d2h lane on the device */
    OP_GATHER, /* comm lane: all ranks' shards of a placement's parameters */
    OP_REDUCE, /* comm lane: the sum over ranks of a finished gradient, to each its shard */
    OP_SHARE,  /* comm lane: every rank's block sums to all */
    OP_TOTAL,  /* cpu lane: the norm of the step */
    OP_COMMIT, /* nvme_write lane: make the slots of strata_schedule_commit_lines() a commit */
    OP_OPEN    /* no lane and no done: open a gate, since what a stream waits for is there */
};

enum op_what { WHAT_PARAM, WHAT_GRAD, WHAT_STATE, WHAT_PARK, WHAT_STASH, WHAT_NOTHING };

/* What the norm of a step means for an update that was computed without it. */
enum verdict {
    VERDICT_NONE,   /* not known yet */
    VERDICT_WITHIN, /* it was computed with the right scale */
    VERDICT_OVER,   /* the scale is another one: it is redone */
    VERDICT_SKIP    /* the norm is not finite, with a loss scale: the step changes nothing */
};

/* What an OP_UPDATE does, in this order. */
enum update_work {
    UPDATE_FOLD = 1,    /* apply the gradient at home, which is fold_step's, to the state */
    UPDATE_APPLY = 2,   /* apply the step's gradient: new state and weights */
    UPDATE_WEIGHTS = 4, /* make the weights of APPLY, and leave the state as it is */
    UPDATE_REBUILD = 8, /* make the weights from the master weights */
    UPDATE_TAKE = 16    /* copy the gradient from the frame to its home */
};

struct op {
    enum op_kind kind;
    enum op_what what;
    strata_lane lane;
    bool on_device;       /* NORM, UPDATE: where the bytes are */
    uint32_t chain;       /* the schedule's; unchanged in done */
    uint32_t tile;        /* or STRATA_NONE */
    uint32_t placement;   /* or STRATA_NONE; OP_OPEN of a stash: STRATA_NONE */
    uint32_t stash_event; /* or STRATA_NONE */
    uint32_t slot;        /* of the tile's state record, or STRATA_NONE */
    uint32_t frame;       /* or STRATA_NONE */
    enum frame_kind frame_kind;
    uint32_t work;       /* UPDATE: enum update_work bits */
    uint64_t gate_value; /* OPEN: what its gate is raised to */
    uint64_t step;       /* of what belongs to an evaluation: its turn */
    uint64_t fold_step;
    /* Set by the driver before done. TOTAL: the step's. NORM: OVER or SKIP if the sums so far
     * decide it already, else NONE; knowing it early saves work and changes no bit. */
    enum verdict verdict;
};

/*
 * What is known of a step: one table, in the schedule, which only its owning thread reads and
 * writes; other threads get copies with their jobs. The schedule itself uses only the verdict,
 * which it sets. The driver sets the rest: lr when the step begins, the result with the norm,
 * and with the result what the next step begins with.
 *
 * The last four steps are kept. A caller waits for the norms of the last two that have ended,
 * and that of the one in progress may be known before its end. A caller that begins step n + 4
 * has been granted the last gradient of n + 3, so the norm of n + 2 is known, so every tile has
 * weights of step n + 2 and with them step n in its state.
 */
#define STRATA_STEPS_KEPT 4u

struct step_facts {
    double lr;
    uint64_t applied;          /* updates before it, earlier runs' included */
    double loss_scale;         /* of its gradients; what a commit before it holds */
    strata_step_result result; /* once its norm is known: step < strata_schedule_normed() */
    enum verdict verdict;      /* known when the result is */
};

/* When an update may be computed. */
enum update_mode {
    UPDATES_AT_ONCE,  /* it needs no norm: there is no clipping and no loss scale */
    UPDATES_DEFERRED, /* once the norm is known */
    UPDATES_AHEAD     /* before, if the old state stays, so that it can be redone; else after */
};

struct schedule;

struct schedule_desc {
    const struct offload_plan *plan; /* borrowed; frames and homes are read only after create */
    enum update_mode mode;
    bool no_overlap; /* for comparison: updates deferred, nothing moves before its use */
    struct slots_desc slots; /* the counts are filled in */
};

/* Its arrays are taken from tables, whose owner frees them. */
strata_status strata_schedule_create(struct schedule **out, struct tables *tables,
                                     const struct schedule_desc *desc, strata_error *error);

/* Call it once, before the first event, when the plan is finished and has its frames. */
void strata_schedule_start(struct schedule *schedule);

/* The facts of one of the last four steps, the one in progress included. Lent as long as the
 * schedule lives. */
struct step_facts *strata_schedule_facts(struct schedule *schedule, uint64_t step);

/* The caller has come to a use of a turn and waits until it may go on. */
void strata_schedule_ask(struct schedule *schedule, uint64_t turn, uint32_t use);
/* May it go on? At an acquire, once its placements are open; at a stash or unstash, once a
 * device block is assigned. */
bool strata_schedule_granted(const struct schedule *schedule, uint64_t turn, uint32_t use);

/* What a use that is not granted, or whose gate is closed, waits for. */
strata_stall strata_schedule_missing(const struct schedule *schedule, uint64_t turn,
                                     uint32_t use);

/* A stream has reached the release, or the end of the copy into or out of a stash block. */
void strata_schedule_released(struct schedule *schedule, uint64_t turn, uint32_t use);
void strata_schedule_copied(struct schedule *schedule, uint64_t turn, uint32_t stash_event);

/*
 * Between steps: all uses of the first `steps` steps are granted, and no more is asked for.
 *
 * hold: open nothing for the next step, and take back what is open for it already. Then either
 * call evaluate, walk the evaluation's list, and call go_on once its last use is granted; or
 * call go_on. resting: nothing is left to take back and no op is queued or under way, so the
 * caller may change homes and slots until go_on. For one rank only: ranks differ in which
 * gathers have begun, and a gather cannot be taken back.
 */
void strata_schedule_hold(struct schedule *schedule, uint64_t steps);
bool strata_schedule_resting(const struct schedule *schedule);
void strata_schedule_evaluate(struct schedule *schedule);
void strata_schedule_go_on(struct schedule *schedule);

/* A slot for a state record that the caller rewrites while the schedule rests: no commit needs
 * it, and it counts as the newest from now on. */
uint32_t strata_schedule_rewrite(struct schedule *schedule, uint32_t tile);

/* Ops of a lane that are under way at once, at most. */
extern const uint32_t strata_lane_depth[STRATA_LANE_COUNT];

/* An op that strata_schedule_next() returned is done. */
void strata_schedule_done(struct schedule *schedule, const struct op *op);

/* The next op to start; false: there is none. Call it after every event until there is none. An
 * event only notes what happened; what follows from it is worked out here. So the answers of
 * the other functions are as of the last of these calls. */
bool strata_schedule_next(struct schedule *schedule, struct op *out);

/* Steps whose norm is known; steps whose updates are final and all at home. */
uint64_t strata_schedule_normed(const struct schedule *schedule);
uint64_t strata_schedule_updated(const struct schedule *schedule);

/* Would the tile's update wait until the norm of its step is known, by what is known now? */
bool strata_schedule_awaits_norm(const struct schedule *schedule, uint32_t tile);

/* Begin to bring the states that are a gradient behind up to the latest step, whose updates are
 * all at home. settled: true when no state is behind. */
void strata_schedule_settle(struct schedule *schedule);
bool strata_schedule_settled(const struct schedule *schedule);

/* Begin to commit the latest step, whose updates are all at home and settled. Nothing happens
 * if that step is committed already, or if a commit is in preparation. */
void strata_schedule_save(struct schedule *schedule);

/* The step of the last durable commit, earlier runs' included. */
uint64_t strata_schedule_committed(const struct schedule *schedule);

/* What OP_COMMIT is to make durable: the new commit, then those that stay listed. The arrays do
 * not change until it is done. */
uint32_t strata_schedule_commit_lines(const struct schedule *schedule,
                                      struct commit_line out[1 + STRATA_MAX_KEEP]);

/* The commits that the store holds, newest first; before start. This run begins with lines[0]
 * and commits every so many steps; 0: only when asked. */
void strata_schedule_recover(struct schedule *schedule, const struct commit_line *lines,
                             uint32_t count, uint32_t commit_every);

/* The slot of the newest state record of a tile; between steps. */
uint32_t strata_schedule_slot(const struct schedule *schedule, uint32_t tile);

/*
 * Gates: one per placement, then one per stash event. What a use waits for is there once the
 * gate has this value: the number of the turn, from 1 on, and for a step's use as many more as
 * there were calls of hold before it. So a placement that was taken back lets no step through.
 */
uint32_t strata_schedule_gate_count(const struct offload_plan *plan);
uint32_t strata_schedule_stash_gate(const struct offload_plan *plan, uint32_t stash_event);
/* holds: the calls of hold so far. */
uint64_t strata_schedule_gate_value(const struct offload_plan *plan, uint32_t use,
                                    uint64_t turn, uint64_t holds);
/* The gate that an OP_OPEN opens. */
uint32_t strata_schedule_gate_of(const struct offload_plan *plan, const struct op *op);

/* Since create: tiles updated ahead of the norm, and those of them that had to be redone. */
struct schedule_counts {
    uint64_t ahead;
    uint64_t redone;
};
struct schedule_counts strata_schedule_counts(const struct schedule *schedule);

#endif
