/*
 * Making and judging the blocks of a store's files; see store_format.h.
 *
 * A block that passes here can be used without another look: counts are within the arrays they
 * count, slots within the slots there are. A hash alone would not do: it guards against
 * accidents, and a file may have been made by anybody.
 *
 * Thread: any.
 */

#include "io/store_format.h"

#include "base/error.h"

#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#define HASH_BYTES 16u

static const char header_magic[8] = {'S', 'T', 'R', 'A', 'T', 'A', '\r', '\n'};
static const char record_magic[8] = {'S', 'T', 'R', 'A', 'T', 'A', 'C', '\n'};
static const char table_magic[8] = {'S', 'T', 'R', 'A', 'T', 'A', 'T', '\n'};

_Static_assert(sizeof(struct store_header) == STRATA_STORE_BLOCK_BYTES, "one block");
_Static_assert(offsetof(struct store_header, hash) == STRATA_STORE_BLOCK_BYTES - HASH_BYTES,
               "at its end");
_Static_assert(sizeof(struct commit_record) == STRATA_STORE_BLOCK_BYTES, "one block");
_Static_assert(offsetof(struct commit_record, hash) == STRATA_STORE_BLOCK_BYTES - HASH_BYTES,
               "at its end");
_Static_assert(sizeof(struct listed_commit) == 56, "no padding");
_Static_assert(sizeof(struct table_head) == 64 && sizeof(struct table_entry) == 40,
               "no padding");

uint64_t strata_store_table_length(uint32_t entry_count)
{
    uint64_t bytes = sizeof(struct table_head) + HASH_BYTES +
                     (uint64_t)entry_count * sizeof(struct table_entry);
    return (bytes + STRATA_STORE_BLOCK_BYTES - 1) / STRATA_STORE_BLOCK_BYTES *
           STRATA_STORE_BLOCK_BYTES;
}

void strata_store_put_hash(uint8_t out[16], struct hash128 hash)
{
    memcpy(out, &hash.low, 8);
    memcpy(out + 8, &hash.high, 8);
}

struct hash128 strata_store_get_hash(const uint8_t bytes[16])
{
    struct hash128 hash;
    memcpy(&hash.low, bytes, 8);
    memcpy(&hash.high, bytes + 8, 8);
    return hash;
}

void strata_store_seal(void *block, uint64_t bytes)
{
    strata_store_put_hash((uint8_t *)block + bytes - HASH_BYTES,
                          strata_hash(block, bytes - HASH_BYTES, 0));
}

bool strata_store_sealed(const void *block, uint64_t bytes)
{
    uint8_t hash[HASH_BYTES];
    strata_store_put_hash(hash, strata_hash(block, bytes - HASH_BYTES, 0));
    return memcmp(hash, (const uint8_t *)block + bytes - HASH_BYTES, HASH_BYTES) == 0;
}

/* Both in full: a sum or a shift of the two could be the same for another pair. */
uint64_t strata_store_record_seed(uint32_t record, uint64_t step)
{
    uint64_t pair[2] = {record, step};
    return strata_hash(pair, sizeof pair, 0).low;
}

void strata_store_header_finish(struct store_header *header)
{
    memcpy(header->magic, header_magic, sizeof header_magic);
    header->version = STRATA_STORE_VERSION;
    header->header_bytes = STRATA_STORE_BLOCK_BYTES;
    strata_store_seal(header, sizeof *header);
}

void strata_store_record_finish(struct commit_record *record)
{
    memcpy(record->magic, record_magic, sizeof record_magic);
    record->version = STRATA_STORE_VERSION;
    strata_store_seal(record, sizeof *record);
}

void strata_store_table_finish(struct table_head *table, uint64_t bytes)
{
    memcpy(table->magic, table_magic, sizeof table_magic);
    strata_store_seal(table, bytes);
}

static bool shares_in_range(const struct store_header *header)
{
    for (uint32_t i = 0; i < STRATA_STORE_MAX_DRIVES; i++)
        if (header->shares[i] > STRATA_STORE_FULL_SHARE ||
            (header->shares[i] > 0) != (i < header->drive_count))
            return false;
    return true;
}

static bool header_in_range(const struct store_header *header)
{
    return header->drive_count <= STRATA_STORE_MAX_DRIVES &&
           header->drive_index < header->drive_count && header->slots > 0 &&
           header->slots <= 2 + STRATA_STORE_MAX_KEEP &&
           header->keep <= STRATA_STORE_MAX_KEEP && header->durable <= 1 &&
           (!header->durable || header->slots == 2 + header->keep ||
            header->slots == 3 + header->keep) &&
           header->identity_bytes <= STRATA_IDENTITY_BYTES &&
           header->durable_bytes <= INT64_MAX && shares_in_range(header);
}

strata_status strata_store_header_check(const struct store_header *header, const char *path,
                                        strata_error *error)
{
    if (memcmp(header->magic, header_magic, sizeof header_magic) != 0)
        return strata_fail(
            error, STRATA_E_UNSUPPORTED, 0,
            "%s is not a store's file; it is left alone: move it or name another "
            "directory",
            path);
    if (header->version != STRATA_STORE_VERSION ||
        header->header_bytes != STRATA_STORE_BLOCK_BYTES)
        return strata_fail(error, STRATA_E_UNSUPPORTED, 0,
                           "%s is of store version %" PRIu32 ", this one knows %u; it is left "
                           "alone",
                           path, header->version, STRATA_STORE_VERSION);
    if (!strata_store_sealed(header, sizeof *header) || !header_in_range(header))
        return strata_fail(error, STRATA_E_CORRUPT, 0,
                           "the header of %s, %u bytes at 0, is not what was written; the file "
                           "is left alone: move it or remove it",
                           path, STRATA_STORE_BLOCK_BYTES);
    return STRATA_OK;
}

bool strata_store_record_valid(const struct commit_record *record,
                               const struct store_header *header)
{
    if (memcmp(record->magic, record_magic, sizeof record_magic) != 0 ||
        record->version != STRATA_STORE_VERSION ||
        !strata_store_sealed(record, sizeof *record) ||
        memcmp(record->store_id, header->store_id, sizeof record->store_id) != 0)
        return false;
    if (record->line_count == 0 || record->line_count > 1 + header->keep ||
        record->commit_every == 0)
        return false;
    for (uint32_t i = 0; i < record->line_count; i++)
        if (record->lines[i].table_copy >= 2 + header->keep ||
            record->lines[i].generation > record->generation)
            return false;
    return true;
}

bool strata_store_table_valid(const struct table_head *table, uint64_t bytes,
                              const struct store_header *header,
                              const struct listed_commit *line)
{
    if (memcmp(table->magic, table_magic, sizeof table_magic) != 0 ||
        !strata_store_sealed(table, bytes) ||
        memcmp(table->store_id, header->store_id, sizeof table->store_id) != 0)
        return false;
    if (table->drive_index != header->drive_index || table->generation != line->generation ||
        table->step != line->step || strata_store_table_length(table->entry_count) != bytes)
        return false;
    const struct table_entry *entries = (const struct table_entry *)(table + 1);
    for (uint32_t i = 0; i < table->entry_count; i++)
        if (entries[i].slot >= header->slots || entries[i].record >= header->record_count)
            return false;
    return true;
}
