#ifndef STRATA_OFFLOAD_COMMITTER_H
#define STRATA_OFFLOAD_COMMITTER_H

/*
 * The thread that makes commits durable, one at a time: strata_store_commit() waits for
 * flushes, and neither the pager nor the cpu lane may wait for a drive.
 *
 * Thread: create, destroy: the engine's caller; start: the pager.
 */

#include "io/store.h"
#include "offload/plan/slots.h"

struct committer;

struct commit_job {
    uint32_t slot; /* the caller's; the done call returns it */
    uint32_t line_count;
    struct commit_line lines[1 + STRATA_MAX_KEEP]; /* the arrays are lent until done */
    uint64_t updates;
    double loss_scale; /* of the step that follows */
};

/* Called on the committer's thread. strata_store_error() describes a failure. */
typedef void (*commit_done_fn)(void *user, uint32_t slot, strata_status status);

strata_status strata_committer_create(struct committer **out, struct store *store,
                                      commit_done_fn done, void *user, strata_error *error);
/* Finishes what was started. NULL is fine. */
void strata_committer_destroy(struct committer *committer);
void strata_committer_start(struct committer *committer, const struct commit_job *job);

/* The store's call with the schedule's lines. Blocks. */
strata_status strata_commit_lines(struct store *store, const struct commit_line *lines,
                                  uint32_t line_count, uint64_t updates, double loss_scale);

#endif
