#ifndef STRATA_OFFLOAD_SCHEDULE_STATE_H
#define STRATA_OFFLOAD_SCHEDULE_STATE_H

/*
 * What a schedule is made of: schedule_create.c builds it, schedule.c moves it. Nobody else
 * looks.
 *
 * A chain is a slot of one array. Tiles of a placement have their slots in a row, so have the
 * updates (one per tile) and the stash events; a slot serves the same purpose again in the next
 * step.
 *
 * Thread: the pager.
 */

#include "offload/heap.h"
#include "offload/schedule.h"

enum chain_kind {
    CHAIN_FETCH,
    CHAIN_PARK_IN,
    CHAIN_PARK_OUT,
    CHAIN_GRAD,
    CHAIN_UPDATE,
    CHAIN_STASH,
    CHAIN_SAVE,
    CHAIN_COMMIT,
    CHAIN_GROUP,
    CHAIN_TOTAL
};

struct chain {
    uint64_t key; /* deadline; smaller is sooner */
    uint64_t step;
    uint32_t tile;  /* or STRATA_NONE */
    uint32_t owner; /* placement, stash event */
    uint32_t frame; /* held, or STRATA_NONE */
    uint32_t slot;  /* a state record is written to, or STRATA_NONE */
    uint32_t next;  /* fetch: next in the list of those that wait for the tile's update */
    uint8_t kind;
    uint8_t pending; /* ops under way or queued */
    bool busy;
};

struct placement_state {
    uint64_t opened; /* instances opened so far: step n is open or past when opened > n */
    uint64_t closed;
    uint32_t left;        /* tiles that are still on their way in, or out */
    uint32_t first_chain; /* one per tile */
    uint32_t group_chain; /* gradient: zero and round */
};

struct tile_state {
    uint64_t version; /* updates whose parameters are at home */
    uint64_t grads;   /* gradients that have come to rest at home */
    uint64_t updates; /* updates started */
    uint32_t waiting; /* fetch chains that wait for the next version */
    bool parked;      /* the unfinished gradient is at its parking place */
};

struct stash_state {
    uint64_t opened;
    uint64_t closed; /* its block is free again */
    uint64_t home;   /* stash: copies that have reached the host */
    uint32_t chain;
    uint32_t placement; /* the first one that opens for a later use: its deadline */
};

struct schedule {
    const struct offload_plan *plan;
    struct chain *chains;
    struct placement_state *placements;
    struct tile_state *tiles;
    struct stash_state *stashes;
    uint32_t *open_list;   /* placements that are open, oldest first */
    uint32_t *group_first; /* by group: its first parameter placement */
    struct heap lanes[STRATA_LANE_COUNT];
    struct heap waits[FRAME_KIND_COUNT];
    struct heap opens;      /* OP_OPEN */
    struct heap slot_waits; /* state records that no slot is free for */
    struct slots slots;
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
    uint64_t next_placement; /* counted through all steps */
    uint64_t next_stash;     /* stash event, counted through all steps */
    uint64_t asked_step;     /* where the caller stands */
    uint32_t asked_use;
    bool asked_any;
    uint64_t normed;
    uint64_t updated;
    uint32_t norms_left; /* tiles of the step in progress */
    uint32_t updates_left;
    bool deferred;
    bool no_overlap;
};

#endif
