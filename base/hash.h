#ifndef STRATA_BASE_HASH_H
#define STRATA_BASE_HASH_H

/*
 * XXH3-128, seeded: against accidents, not against an attacker. xxhash does the work.
 *
 * Thread: any; a state belongs to one.
 */

#include "strata/status.h"

#include <stddef.h>

struct hash128 {
    uint64_t low;
    uint64_t high;
};

struct hash128 strata_hash(const void *data, size_t bytes, uint64_t seed);

/*
 * What is long is hashed in pieces, each by whoever has it in cache, in any order: the digests
 * go into an array, and the hash of the whole is that of the array.
 *
 *     struct hash128 digests[strata_hash_piece_count(bytes)];
 *     strata_hash_pieces(data, bytes, digests);     // or a few pieces at a time
 *     hash = strata_hash_fold(digests, strata_hash_piece_count(bytes), seed);
 *
 * A piece is a norm block of 16,384 values in a 16-bit dtype, half of one in fp32.
 */
#define STRATA_HASH_PIECE_BYTES 32768u

uint64_t strata_hash_piece_count(uint64_t bytes);
/* The digests of the pieces from data on, which is the beginning of one. bytes are whole
 * pieces; only the last piece of the whole may be shorter. */
void strata_hash_pieces(const void *data, size_t bytes, struct hash128 *out);
struct hash128 strata_hash_fold(const struct hash128 *digests, uint64_t count, uint64_t seed);

/* Streaming; the state is heap memory, made once. */
struct hash_state;
strata_status strata_hash_create(struct hash_state **out, strata_error *error);
void strata_hash_destroy(struct hash_state *state);
void strata_hash_reset(struct hash_state *state);
void strata_hash_add(struct hash_state *state, const void *data, size_t bytes);
/* Big-endian bytes, as xxhash's canonical form. */
void strata_hash_digest(const struct hash_state *state, uint8_t out[16]);

#endif
