#ifndef STRATA_OFFLOAD_UPDATE_HASHES_H
#define STRATA_OFFLOAD_UPDATE_HASHES_H

/*
 * Hashes of what an update reads from the store and writes to it, made in the update's own
 * pass.
 *
 * The store would hash these bytes when they are transferred, from memory. The workers that
 * compute the update have each block in cache. They make the digests of its pieces, before they
 * use what was read and after they have written, in arrays that belong to the chain's frame.
 * Once the update is computed, the digests of what it read are compared with what the store
 * expects. Until then nothing that was made of those bytes is written, and if they differ
 * nothing ever is.
 *
 * Which arrays an update has follows from where its tile's parts rest, so only the reads
 * themselves are remembered.
 *
 * Thread: the pager; verify: the cpu lane's dispatcher, between the start of the update and the
 * report of its end.
 */

#include "offload/schedule/address.h"

/* Of one update. NULL: the store hashes these bytes, or they are not transferred. */
struct update_digests {
    struct hash128 *state_read; /* arrays by piece of the tile's part */
    struct hash128 *grad_read;
    struct hash128 *state;
    struct hash128 *param;
};

struct update_hashes;

/* Bytes of memory that create takes. */
uint64_t strata_update_hashes_bytes(const struct offload_plan *plan);
/* plan: finished, borrowed. */
strata_status strata_update_hashes_create(struct update_hashes **out,
                                          const struct offload_plan *plan, strata_error *error);
/* NULL is fine. */
void strata_update_hashes_destroy(struct update_hashes *hashes);

/* A transfer is about to start: fill in who hashes its bytes. */
void strata_update_hashes_start(struct update_hashes *hashes, const struct op *op,
                                struct store_io *io);
/* A transfer is done: of a read, keep what its bytes are to be compared with. */
void strata_update_hashes_done(struct update_hashes *hashes, const struct op *op,
                               const struct store_io *io);

/* The arrays that the update op fills in. */
struct update_digests strata_update_hashes_of(const struct update_hashes *hashes,
                                              const struct op *op);

/* STRATA_E_CORRUPT: what the update read is not what was written; the store has failed. */
strata_status strata_update_hashes_verify(struct update_hashes *hashes, const struct op *op,
                                          struct store *store);

#endif
