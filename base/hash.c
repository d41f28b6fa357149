/*
 * XXH3-128 by libxxhash; only this file includes its headers. We call the library's functions
 * and never use its inlined form, so there is one copy of the code, the distribution's.
 *
 * The plain functions run the code that the packager compiled, on x86-64 with SSE2. A second
 * set, the dispatched functions, looks at the CPU first and hashes with AVX2 or AVX-512. That
 * takes a quarter to a half of the time for a tile in cache, and every tile is hashed each
 * time it is moved. The values are the same. A libxxhash may have been built without this set,
 * as Debian's static one is. So these functions are weak symbols, and where they are missing
 * the plain ones run.
 *
 * A digest's bytes are xxhash's canonical form, so a hash printed here equals xxh128sum's.
 *
 * Thread: any; one thread at a time per state.
 */

#include "base/hash.h"

#include "base/error.h"
#include "base/round.h"

#include <string.h>

#define XXH_DISPATCH_DISABLE_REPLACE
#if defined(__x86_64__)
#    include <xxh_x86dispatch.h>
#    pragma weak XXH3_128bits_withSeed_dispatch
#    pragma weak XXH3_128bits_update_dispatch
#else
#    include <xxhash.h>
/* Null pointers under the same names: the plain functions run. */
static XXH128_hash_t (*const XXH3_128bits_withSeed_dispatch)(const void *, size_t,
                                                             XXH64_hash_t) = NULL;
static XXH_errorcode (*const XXH3_128bits_update_dispatch)(XXH3_state_t *, const void *,
                                                           size_t) = NULL;
#endif

struct hash_state {
    XXH3_state_t *xxh;
};

struct hash128 strata_hash(const void *data, size_t bytes, uint64_t seed)
{
    XXH128_hash_t hash = XXH3_128bits_withSeed_dispatch != NULL
                             ? XXH3_128bits_withSeed_dispatch(data, bytes, seed)
                             : XXH3_128bits_withSeed(data, bytes, seed);
    return (struct hash128){.low = hash.low64, .high = hash.high64};
}

uint64_t strata_hash_piece_count(uint64_t bytes)
{
    return strata_units_of(bytes, STRATA_HASH_PIECE_BYTES);
}

void strata_hash_pieces(const void *data, size_t bytes, struct hash128 *out)
{
    const uint8_t *at = data;
    for (size_t left = bytes; left > 0;) {
        size_t piece = left < STRATA_HASH_PIECE_BYTES ? left : STRATA_HASH_PIECE_BYTES;
        *out++ = strata_hash(at, piece, 0);
        at += piece;
        left -= piece;
    }
}

struct hash128 strata_hash_fold(const struct hash128 *digests, uint64_t count, uint64_t seed)
{
    return strata_hash(digests, count * sizeof *digests, seed);
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
    /* The library refuses NULL even for 0 bytes. */
    if (bytes == 0)
        return;
    XXH_errorcode code = XXH3_128bits_update_dispatch != NULL
                             ? XXH3_128bits_update_dispatch(state->xxh, data, bytes)
                             : XXH3_128bits_update(state->xxh, data, bytes);
    STRATA_CHECK(code == XXH_OK);
}

void strata_hash_digest(const struct hash_state *state, uint8_t out[16])
{
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state->xxh));
    memcpy(out, canonical.digest, sizeof canonical.digest);
}
