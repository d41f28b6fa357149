#ifndef STRATA_BASE_HASH_H
#define STRATA_BASE_HASH_H

/*
 * XXH3-128 with a seed, by xxhash. It finds accidental damage; it does not stop an attacker.
 *
 * Thread: any; one thread at a time per state.
 */

#include "strata/status.h"

#include <stddef.h>

struct hash128 {
    uint64_t low;
    uint64_t high;
};

struct hash128 strata_hash(const void *data, size_t bytes, uint64_t seed);

/*
 * Large data is hashed in pieces, in any order, each by the thread that has it in cache. The
 * digests go into an array, and the hash of the whole is the hash of this array.
 *
 *     struct hash128 digests[strata_hash_piece_count(bytes)];
 *     strata_hash_pieces(data, bytes, digests);     // or a few pieces at a time
 *     hash = strata_hash_fold(digests, strata_hash_piece_count(bytes), seed);
 *
 * A piece is a norm block of 16,384 values in a 16-bit dtype, half of one in fp32.
 */
#define STRATA_HASH_PIECE_BYTES 32768u

uint64_t strata_hash_piece_count(uint64_t bytes);
/* The digests of the pieces in data, which begins at the start of a piece. bytes is a multiple
 * of the piece size, except at the end of the whole. */
void strata_hash_pieces(const void *data, size_t bytes, struct hash128 *out);
struct hash128 strata_hash_fold(const struct hash128 *digests, uint64_t count, uint64_t seed);

/* Streaming; create allocates the state once. */
struct hash_state;
strata_status strata_hash_create(struct hash_state **out, strata_error *error);
void strata_hash_destroy(struct hash_state *state);
void strata_hash_reset(struct hash_state *state);
void strata_hash_add(struct hash_state *state, const void *data, size_t bytes);
/* Big-endian bytes, as xxhash's canonical form. */
void strata_hash_digest(const struct hash_state *state, uint8_t out[16]);

#endif
