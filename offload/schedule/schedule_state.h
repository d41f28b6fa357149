#ifndef STRATA_OFFLOAD_SCHEDULE_STATE_H
#define STRATA_OFFLOAD_SCHEDULE_STATE_H

/*
 * What a schedule is made of, and what its files ask of one another. No other file includes
 * this header.
 *
 *     schedule_create.c   builds it
 *     schedule.c          lanes, frames, the ready list, and the events from outside
 *     schedule_place.c    placements, and the chains between device and home
 *     schedule_update.c   updates and verdicts
 *     schedule_commit.c   state records and commits
 *     schedule_stash.c    activation blocks
 *     schedule_comm.c     the order of the comm lane
 *
 * A handler is what runs when something happened: an event from outside, or a chain that can go
 * on. No handler calls another. It changes the state, queues ops on lanes, and names what may
 * be possible now: a chain goes on the ready list, and what concerns no single chain (frames,
 * the comm lane, placements, stash blocks, reading ahead) is marked to be looked at. Then it
 * returns. strata_schedule_next runs the handlers of what is ready before it gives out an op.
 * So no handler finds the state changed under it by a function that it called, and the depth of
 * calls does not depend on what follows from what.
 *
 * A chain may be on the list although it can do nothing yet; its handler looks at the state and
 * does what is possible. So it does not matter why it was put there, or how often.
 *
 * A chain is an entry of one array. Tiles of a placement have theirs in a row, so have the
 * updates (one per tile) and the stash events; an entry serves the same purpose again in the
 * next step.
 *
 * Thread: the pager.
 */

#include "offload/schedule/heap.h"
#include "offload/schedule/schedule.h"

enum chain_kind {
    CHAIN_FETCH,
    CHAIN_PARK_IN,
    CHAIN_PARK_OUT,
    CHAIN_GRAD,
    CHAIN_UPDATE,
    CHAIN_SETTLE, /* the gradient at home into the state; then, if a commit is due, as SAVE */
    CHAIN_SAVE,   /* write the state for a commit, or name the slot where it lies */
    CHAIN_STASH,
    CHAIN_COMMIT,
    CHAIN_GROUP, /* what is done to a placement as a whole */
    CHAIN_TOTAL
};

/* One collective of a step. */
struct comm_event {
    enum op_kind kind;
    uint32_t placement; /* or STRATA_NONE: the block sums */
    uint32_t position;  /* uses that are over when it can be due at the earliest */
};

struct chain {
    uint64_t key; /* deadline; smaller is sooner */
    uint64_t step;
    uint32_t tile;  /* or STRATA_NONE */
    uint32_t owner; /* placement, stash event */
    uint32_t frame; /* held, or STRATA_NONE */
    uint32_t slot;  /* a state record is written to, or STRATA_NONE */
    uint32_t next;  /* on the ready list, or among the fetches that wait for an update */
    uint8_t kind;
    uint8_t frame_kind;
    uint8_t pending; /* ops under way or queued */
    uint8_t work;    /* update: what its op does, once it is given out */
    bool busy;
    bool ready;     /* it is on the ready list */
    bool for_frame; /* it waits for a frame */
    bool started;   /* its handler has run since it had the frame it needs */
    /* update */
    uint8_t again;    /* enum verdict: it redoes what was computed ahead: OVER or SKIP */
    bool reads_ahead; /* it has a frame and waits for its gradient or the verdict */
    bool guesses;     /* it is computed without waiting for the verdict */
    bool has_grad;    /* the gradient is there, or being read */
    bool computed;    /* its op is queued, under way or done */
    bool ahead;       /* its op was given out before the verdict */
    bool param_written;
    bool state_written;
};

struct placement_state {
    uint64_t opened; /* instances opened so far: step n is open or past when opened > n */
    uint64_t closed;
    uint64_t gate_value;  /* of its gate, once what it opened for is there */
    uint32_t left;        /* tiles that are still on their way in, or out */
    uint32_t first_chain; /* one per tile */
    uint32_t group_chain; /* gradient: zero and round */
    uint32_t comm; /* several ranks: its collective in the step's order, or STRATA_NONE */
};

struct tile_state {
    uint64_t version;     /* updates whose parameters are at home and final */
    uint64_t grads;       /* gradients that are at home, or in the frame they wait in */
    uint64_t updates;     /* updates begun or passed over */
    uint64_t framed;      /* steps for which it has the frame it ends with */
    uint64_t behind_step; /* the step of the gradient that the state lacks, if it is behind */
    uint32_t waiting;     /* fetch chains that wait for the next version */
    uint32_t grad_chain; /* folding: holds the frame with the newest gradient, or STRATA_NONE */
    bool parked;         /* the unfinished gradient is at its parking place */
    bool behind;         /* the gradient at home is not in the state yet */
    bool undecided;      /* the update has ended ahead of the verdict */
};

struct stash_state {
    uint64_t opened;
    uint64_t closed; /* its block is free again */
    uint64_t home;   /* stash: copies that have come to rest */
    uint64_t gate_value;
    uint32_t chain;
    uint32_t placement; /* the first one that opens for a later use: its deadline */
};

/* Of one step. */
struct step_state {
    struct step_facts facts;
    uint32_t unframed; /* tiles that still need a frame */
    uint32_t left;     /* tiles that are not final and at home */
};

enum list_kind { LIST_STEP, LIST_EVAL, LIST_COUNT };

/* One of the two use lists, and how far its turns have come. */
struct list {
    uint32_t first_placement;
    uint32_t placement_count;
    uint32_t first_stash; /* event */
    uint32_t stash_count;
    uint64_t next_placement; /* counted through all turns, as is next_stash */
    uint64_t next_stash;
    uint64_t asked_turn; /* where the caller stands */
    uint32_t asked_use;
    bool asked_any;
};

/* What is to be looked at once the ready list is empty, in this order. */
enum look {
    LOOK_FRAMES = 1,     /* a frame is free, or a chain asks for one */
    LOOK_COMM = 2,       /* a collective may be due */
    LOOK_PLACEMENTS = 4, /* one may open */
    LOOK_STASHES = 8,    /* a device block may be assigned */
    LOOK_AHEAD = 16      /* an update may read ahead */
};

struct schedule {
    const struct offload_plan *plan;
    struct chain *chains;
    struct placement_state *placements;
    struct tile_state *tiles;
    struct stash_state *stashes;
    uint32_t *open_list;   /* placements that are open, oldest first */
    uint32_t *group_first; /* by group: its first parameter placement */
    struct comm_event *comm;
    bool *comm_due; /* by event: it may be given out when it is its turn */
    uint32_t comm_count;
    uint64_t comm_next;    /* counted through all steps */
    uint32_t *ahead_order; /* tiles in the order in which their gradients come */
    struct heap lanes[STRATA_LANE_COUNT];
    struct heap waits[FRAME_KIND_COUNT];
    struct heap opens;      /* OP_OPEN */
    struct heap slot_waits; /* state records that no slot is free for */
    uint32_t ready_first;   /* the ready list: chains, first in first out, or STRATA_NONE */
    uint32_t ready_last;
    uint32_t looks;        /* enum look bits */
    uint32_t queued_lanes; /* a bit for each lane with ops on its heap */
    struct slots slots;
    struct step_state steps[STRATA_STEPS_KEPT];
    uint32_t in_flight[STRATA_LANE_COUNT];
    uint32_t free_frames[FRAME_KIND_COUNT][STRATA_MAX_FRAMES];
    uint32_t free_count[FRAME_KIND_COUNT];
    uint32_t chain_count;
    uint32_t first_update; /* chains: one per tile */
    uint32_t total_chain;
    uint32_t commit_chain;
    uint32_t commit_every;
    uint64_t base_step;
    uint32_t open_count;
    struct list lists[LIST_COUNT];
    enum list_kind list;  /* whose placements and blocks open; LIST_COUNT: none do */
    bool taking_back;     /* what is open for step held_step has to close first */
    uint64_t held_step;   /* the step that waits, whose weights an evaluation sees */
    uint64_t holds;       /* calls of hold */
    uint64_t evaluations; /* begun */
    uint32_t blocks_open; /* stash events with a device block, all of one list: */
    enum list_kind block_list;
    uint64_t next_ahead;   /* tile to read ahead for, counted through all steps */
    uint32_t ahead_frames; /* held by chains that read ahead */
    uint64_t normed;
    uint64_t framed;  /* steps all of whose tiles have the frame they end with */
    uint64_t updated; /* steps all of whose updates are final and at home */
    uint32_t norms_left;
    uint32_t behind_count; /* tiles whose state is a gradient behind */
    enum update_mode mode;
    bool doubt; /* the norm is or was over the limit: nothing is computed ahead */
    bool no_overlap;
    struct schedule_counts counts;
};

/* schedule.c */

static inline uint8_t home_tier(const struct schedule *s, strata_part part, uint32_t tile)
{
    return s->plan->homes[part].tier[tile];
}

static inline void strata_schedule_look(struct schedule *s, uint32_t looks)
{
    s->looks |= looks;
}

/* Put a chain on the ready list; nothing if it is there already. */
void strata_schedule_ready(struct schedule *s, uint32_t c);
/* The same for what the tile's updates are chains of. */
void strata_schedule_ready_tile(struct schedule *s, uint32_t tile);
void strata_schedule_ready_tiles(struct schedule *s);

static inline enum list_kind list_of_use(const struct schedule *s, uint32_t use)
{
    return strata_model_is_eval(&s->plan->model, use) ? LIST_EVAL : LIST_STEP;
}

/* How many steps' updates does a turn of the list want to see? */
static inline uint64_t wanted_version(const struct schedule *s, enum list_kind list,
                                      uint64_t turn)
{
    return list == LIST_STEP ? turn : s->held_step;
}

/* The deadline of a placement; evaluations stand between steps, so theirs are apart. */
uint64_t strata_schedule_key(const struct schedule *s, uint64_t turn, uint32_t placement);
bool strata_schedule_asked_past(const struct schedule *s, uint64_t turn, uint32_t use);
void strata_schedule_begin(struct schedule *s, uint32_t c, enum chain_kind kind, uint64_t step,
                           uint64_t key);
/* Queue an op of a chain on its lane. */
void strata_schedule_queue(struct schedule *s, uint32_t c, enum op_kind kind,
                           enum op_what what);
/* Have the chain on the ready list with the frame it needs, at once or when there is one. */
void strata_schedule_take_frame(struct schedule *s, uint32_t c);
/* Give back the frame that the chain holds, if it holds one. */
void strata_schedule_free_frame(struct schedule *s, uint32_t c);
/* The same, and the chain has ended: it may be begun anew. */
void strata_schedule_end(struct schedule *s, uint32_t c);
/* Hand a held frame from one chain, which ends, to another. */
void strata_schedule_hand_over(struct schedule *s, uint32_t from, uint32_t to);
/* Open the gate of the chain's placement or stash event. */
void strata_schedule_gate(struct schedule *s, uint32_t c);

/* schedule_place.c */

/* LOOK_PLACEMENTS: open those that may. */
void strata_schedule_open_placements(struct schedule *s);
/* A fetch, a park or a gradient on its way home is ready: its first op. */
void strata_schedule_start_move(struct schedule *s, uint32_t c);
void strata_schedule_fetch_done(struct schedule *s, uint32_t c, const struct op *op);
void strata_schedule_park_done(struct schedule *s, uint32_t c, const struct op *op);
void strata_schedule_grad_done(struct schedule *s, uint32_t c, const struct op *op);
void strata_schedule_group_done(struct schedule *s, uint32_t c, const struct op *op);
/* The tile's parameters of one more step are at home: fetches that waited may go on. */
void strata_schedule_new_version(struct schedule *s, uint32_t tile);

/* schedule_comm.c */

/* Number the collectives of a step; once the residency is there. */
void strata_schedule_order_comm(struct schedule *s);
/* With one rank false. Else the chain's collective is due, and will be done in its turn. */
bool strata_schedule_comm(struct schedule *s, uint32_t c, enum op_kind kind);
/* LOOK_COMM: give out the next collective of the order, if it is due. */
void strata_schedule_next_comm(struct schedule *s);

/* schedule_update.c */

/* Is the state of this tile kept one gradient behind? */
static inline bool strata_schedule_folds(const struct schedule *s, uint32_t tile)
{
    return strata_plan_folds(s->plan, tile);
}

enum verdict strata_schedule_verdict_on(const struct schedule *s, uint64_t step);
/* The tile's chain is ready and idle: judge what it did, or begin the next update. */
void strata_schedule_next_update(struct schedule *s, uint32_t tile);
/* An update's chain is ready: what it can do by now. */
void strata_schedule_go_on_update(struct schedule *s, uint32_t c);
/* Decide what the chain's OP_UPDATE does, now that it is about to be given out. false: there is
 * nothing left to do, the op is dropped, and the chain has ended its update without it. */
bool strata_schedule_choose_work(struct schedule *s, uint32_t c);
void strata_schedule_update_done(struct schedule *s, uint32_t c, const struct op *op);
void strata_schedule_settle_done(struct schedule *s, uint32_t c, const struct op *op);
/* The tile is done with the step. */
void strata_schedule_tile_updated(struct schedule *s, uint32_t tile, uint64_t step);
void strata_schedule_verdict(struct schedule *s, enum verdict verdict);
/* LOOK_AHEAD */
void strata_schedule_read_ahead(struct schedule *s);

/* schedule_commit.c */
bool strata_schedule_commit_due(const struct schedule *s, uint64_t step);
/* Write the chain's state record to a slot that may be written, or name the one it lies in. */
void strata_schedule_write_state(struct schedule *s, uint32_t c);
/* The chain's record is written. */
void strata_schedule_state_written(struct schedule *s, uint32_t c);
/* The record in the chain's slot is the tile's newest, for good. */
void strata_schedule_state_final(struct schedule *s, uint32_t c);
/* A save's chain is ready: its first op. */
void strata_schedule_start_save(struct schedule *s, uint32_t c);
/* A save, or what follows a fold for a commit, is over. */
void strata_schedule_end_save(struct schedule *s, uint32_t c);
void strata_schedule_save_done(struct schedule *s, uint32_t c, const struct op *op);
void strata_schedule_commit_done(struct schedule *s);

/* schedule_stash.c */

/* LOOK_STASHES: assign device blocks in their order. */
void strata_schedule_open_stashes(struct schedule *s);
/* The step that waits for an evaluation gives back the blocks that it was assigned. */
void strata_schedule_take_back_stashes(struct schedule *s);
/* A block's chain is ready: its first op. */
void strata_schedule_start_stash(struct schedule *s, uint32_t c);
void strata_schedule_stash_done(struct schedule *s, uint32_t c, const struct op *op);

#endif
