/*
 * XXH3-128 by libxxhash, the only file that knows it. The plain library calls are used, never
 * its inlined form: one copy of the code, the distribution's, which dispatches by CPU itself.
 *
 * A digest's bytes are xxhash's canonical form, so a hash printed here equals xxh128sum's.
 *
 * Thread: any; a state belongs to one.
 */

#include "base/hash.h"

#include "base/error.h"

#include <string.h>
#include <xxhash.h>

struct hash_state {
    XXH3_state_t *xxh;
};

struct hash128 strata_hash(const void *data, size_t bytes, uint64_t seed)
{
    XXH128_hash_t hash = XXH3_128bits_withSeed(data, bytes, seed);
    return (struct hash128){.low = hash.low64, .high = hash.high64};
}

strata_status strata_hash_create(struct hash_state **out, strata_error *error)
{
    *out = NULL;
    struct hash_state *state = malloc(sizeof *state);
    if (!state)
        goto fail;
    state->xxh = XXH3_createState();
    if (!state->xxh)
        goto free_state;
    strata_hash_reset(state);
    *out = state;
    return STRATA_OK;

free_state:
    free(state);
fail:
    return strata_fail(error, STRATA_E_NOMEM, 0, "hash state: out of memory");
}

void strata_hash_destroy(struct hash_state *state)
{
    if (!state)
        return;
    XXH3_freeState(state->xxh);
    free(state);
}

void strata_hash_reset(struct hash_state *state)
{
    STRATA_CHECK(XXH3_128bits_reset(state->xxh) == XXH_OK);
}

void strata_hash_add(struct hash_state *state, const void *data, size_t bytes)
{
    /* The library refuses a NULL even with nothing behind it. */
    if (bytes > 0)
        STRATA_CHECK(XXH3_128bits_update(state->xxh, data, bytes) == XXH_OK);
}

void strata_hash_digest(const struct hash_state *state, uint8_t out[16])
{
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state->xxh));
    memcpy(out, canonical.digest, sizeof canonical.digest);
}
