#ifndef STRATA_OFFLOAD_SLOTS_H
#define STRATA_OFFLOAD_SLOTS_H

/*
 * The slot rule: which slot of a tile's state record may be written.
 *
 * A write goes to a slot that no commit needs: not the last durable one, not a retained one,
 * not the one in preparation. If there is none, the write waits. With slots 2 + keep there is
 * always one once the commit in preparation is durable. A record that is written ahead of the
 * norm must also leave the record that it was made from as it is. If steps pass between
 * commits, that one is not the last commit's, and a slot more is needed.
 *
 * A commit is prepared tile by tile: naming a tile's slot protects it from then on. When all
 * are named and written the commit can be made. When it is durable the commit before it is
 * dropped, unless its step is a multiple of keep_every: the newest `keep` of those are
 * retained.
 *
 * A scratch store has one slot and no commit; the rule then always answers slot 0.
 *
 * Thread: one owner, the schedule.
 */

#include "offload/plan/tables.h"

#define STRATA_NO_SLOT  UINT32_MAX
#define STRATA_MAX_KEEP 16u

struct slots_desc {
    uint32_t tile_count;
    uint32_t fixed_count; /* the last of them are written once; every commit has slot 0 */
    bool durable;
    bool ahead; /* one slot more, so that a record can be written ahead between commits */
    uint32_t keep;
    uint32_t keep_every;
};

/* A commit: its step (from 0: the initial weights) and each tile's slot. */
struct commit_line {
    uint64_t step;
    uint8_t *slots; /* by tile */
};

struct slots {
    struct slots_desc desc;
    uint8_t *current;             /* by tile: the newest record that is complete */
    bool *named;                  /* by tile: in the commit in preparation */
    struct commit_line preparing; /* valid while active */
    bool active;
    uint32_t left; /* tiles not yet named and written */
    struct commit_line
        lines[1 + STRATA_MAX_KEEP]; /* durable: the last, then retained, newest first */
    uint32_t line_count;
    bool rewritten; /* since the last commit, between steps */
};

uint32_t strata_slots_per_tile(const struct slots_desc *desc);

strata_status strata_slots_create(struct slots *out, struct tables *tables,
                                  const struct slots_desc *desc, strata_error *error);

/* What a store already holds, newest first; before the first write. Copies. */
void strata_slots_recover(struct slots *slots, const struct commit_line *lines, uint32_t count);

/* A slot that may be written, or STRATA_NO_SLOT: wait for the commit in preparation. ahead: it
 * must not be the newest record's either, since the run may return to that one. */
uint32_t strata_slots_choose(const struct slots *slots, uint32_t tile, bool ahead);

/* With commits every so many steps (0: only when asked for): is there always a slot to write
 * ahead to, sooner or later? */
bool strata_slots_spare(const struct slots *slots, uint32_t commit_every);

/* The record in this slot is complete and the newest. */
void strata_slots_written(struct slots *slots, uint32_t tile, uint32_t slot);

/* A slot for a record that replaces the newest between steps: the newest from now on. Until the
 * next commit it is one that no commit has, even where commits come every step. So no slot is
 * left to write ahead to. No commit is in preparation. */
uint32_t strata_slots_rewrite(struct slots *slots, uint32_t tile);

/* Begin to prepare a commit of the step. false: another one is being prepared. */
bool strata_slots_prepare(struct slots *slots, uint64_t step);
/* The tile's slot belongs to the commit in preparation. */
void strata_slots_name(struct slots *slots, uint32_t tile, uint32_t slot);
/* A named tile's record is complete; true: it was the last, the commit can be made. */
bool strata_slots_ready(struct slots *slots);

/* The lines as they will be once the commit in preparation is durable, newest first. Lent until
 * strata_slots_committed(). Returns how many. */
uint32_t strata_slots_next_lines(const struct slots *slots,
                                 struct commit_line out[1 + STRATA_MAX_KEEP]);
void strata_slots_committed(struct slots *slots);

#endif
