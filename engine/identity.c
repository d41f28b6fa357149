/*
 * What a durable run must have in common with the store that it resumes: the lines that the
 * caller gave, and a line on which groups are frozen, which the engine adds.
 *
 * That line has the names of the frozen groups if they are short enough to be read. Else it has
 * their count and a hash of the names, so that other names still give another line.
 *
 * Thread: the engine's caller.
 */

#include "base/error.h"
#include "base/hash.h"
#include "engine/engine_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Bytes of names at most, so that most of an identity is left for the caller's lines. */
#define MAX_NAMES 256u

/* "frozen=a,b" or "frozen=12 groups, 0123456789abcdef". */
static void name_frozen(const strata_model_desc *model, char *out, size_t bytes)
{
    size_t length = 0;
    uint32_t count = 0;
    uint64_t seed = 0;
    for (uint32_t g = 0; g < model->group_count; g++) {
        const char *name = model->groups[g].name;
        if (!model->groups[g].frozen || name == NULL)
            continue;
        seed = strata_hash(name, strlen(name) + 1, seed).low;
        if (length < MAX_NAMES)
            length += (size_t)snprintf(out + length, MAX_NAMES - length, "%s%s",
                                       count > 0 ? "," : "frozen=", name);
        count++;
    }
    if (length >= MAX_NAMES)
        snprintf(out, bytes, "frozen=%" PRIu32 " groups, %016" PRIx64, count, seed);
}

strata_status strata_engine_identify(strata_engine *engine, strata_error *error)
{
    const char *given = engine->desc.identity != NULL ? engine->desc.identity : "";
    const strata_model_desc *model = engine->desc.model;
    char frozen[MAX_NAMES] = "";
    if (model->groups != NULL)
        name_frozen(model, frozen, sizeof frozen);
    size_t length = strlen(given);
    bool apart = length > 0 && frozen[0] != '\0' && given[length - 1] != '\n';
    int written = snprintf(engine->identity, sizeof engine->identity, "%s%s%s", given,
                           apart ? "\n" : "", frozen);
    if (written >= 0 && (size_t)written < sizeof engine->identity)
        return STRATA_OK;
    return strata_fail(error, STRATA_E_INVALID, 0,
                       "the run's identity has %d bytes, a store holds %u", written,
                       STRATA_IDENTITY_BYTES);
}
