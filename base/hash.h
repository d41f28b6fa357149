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

/* Streaming; the state is heap memory, made once. */
struct hash_state;
strata_status strata_hash_create(struct hash_state **out, strata_error *error);
void strata_hash_destroy(struct hash_state *state);
void strata_hash_reset(struct hash_state *state);
/* The pieces then give what strata_hash() gives for the whole with this seed. */
void strata_hash_reset_seeded(struct hash_state *state, uint64_t seed);
void strata_hash_add(struct hash_state *state, const void *data, size_t bytes);
struct hash128 strata_hash_value(const struct hash_state *state);
/* Big-endian bytes, as xxhash's canonical form. */
void strata_hash_digest(const struct hash_state *state, uint8_t out[16]);

#endif
