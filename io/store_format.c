/*
 * Making and checking the blocks of a store's files; see store_format.h.
 *
 * A block that passes here can be used without further checks: counts are within their arrays,
 * slots are among those of the record. The hash alone is not enough: it guards against
 * accidents, but anybody may have made the file.
 *
 * Thread: any.
 */

#include "io/store_format.h"

#include "base/error.h"
#include "base/round.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#define HASH_BYTES 16u

static const char header_magic[8] = {'S', 'T', 'R', 'A', 'T', 'A', '\r', '\n'};
static const char record_magic[8] = {'S', 'T', 'R', 'A', 'T', 'A', 'C', '\n'};
static const char empty_magic[8] = {'S', 'T', 'R', 'A', 'T', 'A', 'E', '\n'};
static const char receipt_magic[8] = {'S', 'T', 'R', 'A', 'T', 'A', 'R', '\n'};
static const char table_magic[8] = {'S', 'T', 'R', 'A', 'T', 'A', 'T', '\n'};

_Static_assert(sizeof(struct store_header) == STRATA_STORE_BLOCK_BYTES, "one block");
_Static_assert(offsetof(struct store_header, hash) == STRATA_STORE_BLOCK_BYTES - HASH_BYTES,
               "at its end");
_Static_assert(sizeof(struct commit_record) == STRATA_STORE_BLOCK_BYTES, "one block");
_Static_assert(offsetof(struct commit_record, hash) == STRATA_STORE_BLOCK_BYTES - HASH_BYTES,
               "at its end");
_Static_assert(sizeof(struct empty_record) == STRATA_STORE_BLOCK_BYTES, "one block");
_Static_assert(sizeof(struct commit_receipt) == STRATA_STORE_BLOCK_BYTES, "one block");
_Static_assert(sizeof(struct listed_commit) == 56, "no padding");
_Static_assert(sizeof(struct table_head) == 64 && sizeof(struct table_entry) == 40,
               "no padding");

uint64_t strata_store_table_length(uint32_t entry_count)
{
    uint64_t bytes = sizeof(struct table_head) + HASH_BYTES +
                     (uint64_t)entry_count * sizeof(struct table_entry);
    return strata_round_up(bytes, STRATA_STORE_BLOCK_BYTES);
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

/* Both numbers go into it in full: a sum or a shift of them could be that of another pair. */
uint64_t strata_store_record_seed(uint32_t record, uint64_t updates)
{
    uint64_t pair[2] = {record, updates};
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

void strata_store_empty_finish(struct empty_record *empty)
{
    memcpy(empty->magic, empty_magic, sizeof empty_magic);
    empty->version = STRATA_STORE_VERSION;
    strata_store_seal(empty, sizeof *empty);
}

void strata_store_receipt_finish(struct commit_receipt *receipt)
{
    memcpy(receipt->magic, receipt_magic, sizeof receipt_magic);
    receipt->version = STRATA_STORE_VERSION;
    strata_store_seal(receipt, sizeof *receipt);
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

/* A terminal shows an identity as it is, so it has lines of text and nothing else: no control
 * byte, and of UTF-8 neither the control characters U+0080 to U+009F. */
bool strata_store_is_text(const char *text, size_t bytes)
{
    const unsigned char *at = (const unsigned char *)text;
    for (size_t i = 0; i < bytes; i++)
        if ((at[i] < 0x20 && at[i] != '\n') || at[i] == 0x7f ||
            (at[i] == 0xc2 && i + 1 < bytes && at[i + 1] >= 0x80 && at[i + 1] < 0xa0))
            return false;
    return true;
}

/* The commit records' places are on the first drive, in its durable part, in rising order. */
static bool record_offsets_in_range(const struct store_header *header)
{
    bool has_records = header->durable && header->drive_index == 0;
    for (uint32_t i = 0; i < STRATA_STORE_RECORD_BLOCKS; i++) {
        uint64_t offset = header->record_offsets[i];
        if (!has_records && offset != 0)
            return false;
        if (has_records &&
            (offset < (1 + STRATA_STORE_RECEIPT_COUNT) * STRATA_STORE_BLOCK_BYTES ||
             offset % STRATA_STORE_BLOCK_BYTES != 0 ||
             offset > header->durable_bytes - STRATA_STORE_BLOCK_BYTES ||
             (i > 0 && offset <= header->record_offsets[i - 1])))
            return false;
    }
    return true;
}

/* The durable part has room for what the other numbers ask for. */
static bool durable_bytes_in_range(const struct store_header *header)
{
    uint64_t tables = STRATA_STORE_COPIES * (2 + (uint64_t)header->keep) *
                      strata_store_table_length(header->file_records);
    uint64_t records = header->drive_index == 0 ? STRATA_STORE_RECORD_BLOCKS : 0;
    uint64_t least =
        (1 + STRATA_STORE_RECEIPT_COUNT + records) * STRATA_STORE_BLOCK_BYTES + tables;
    return header->durable_bytes <= INT64_MAX &&
           header->durable_bytes % STRATA_STORE_BLOCK_BYTES == 0 &&
           (!header->durable || header->durable_bytes >= least);
}

static bool header_in_range(const struct store_header *header)
{
    return header->drive_count <= STRATA_STORE_MAX_DRIVES &&
           header->drive_index < header->drive_count && header->slots > 0 &&
           header->slots <= STRATA_STORE_MAX_SLOTS && header->keep <= STRATA_STORE_MAX_KEEP &&
           header->durable <= 1 &&
           (!header->durable || header->slots == 2 + header->keep ||
            header->slots == 3 + header->keep) &&
           header->record_count <= STRATA_STORE_MAX_RECORDS &&
           header->file_records <= header->record_count &&
           header->fixed_count <= header->record_count &&
           header->identity_bytes <= STRATA_IDENTITY_BYTES &&
           strata_store_is_text(header->identity, header->identity_bytes) &&
           durable_bytes_in_range(header) && record_offsets_in_range(header) &&
           shares_in_range(header);
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
                           "%s is of store version %" PRIu32 ", this program knows %u; it is "
                           "left alone: go on with the program that made it, or name another "
                           "directory",
                           path, header->version, STRATA_STORE_VERSION);
    if (!strata_store_sealed(header, sizeof *header) || !header_in_range(header))
        return strata_fail(error, STRATA_E_CORRUPT, 0,
                           "the header of %s, %u bytes at 0, is not what was written; the file "
                           "is left alone: move it or remove it",
                           path, STRATA_STORE_BLOCK_BYTES);
    return STRATA_OK;
}

bool strata_store_empty_valid(const struct empty_record *empty,
                              const struct store_header *header, uint32_t block)
{
    return memcmp(empty->magic, empty_magic, sizeof empty_magic) == 0 &&
           empty->version == STRATA_STORE_VERSION &&
           strata_store_sealed(empty, sizeof *empty) && empty->block == block &&
           memcmp(empty->store_id, header->store_id, sizeof empty->store_id) == 0;
}

bool strata_store_receipt_valid(const struct commit_receipt *receipt,
                                const struct store_header *header)
{
    return memcmp(receipt->magic, receipt_magic, sizeof receipt_magic) == 0 &&
           receipt->version == STRATA_STORE_VERSION &&
           strata_store_sealed(receipt, sizeof *receipt) &&
           memcmp(receipt->store_id, header->store_id, sizeof receipt->store_id) == 0 &&
           receipt->generation > 0 && receipt->generation <= INT64_MAX;
}

/* Lines are newest first, each has tables of its own, and a run can resume with their numbers.
 */
static bool lines_in_range(const struct commit_record *record,
                           const struct store_header *header)
{
    bool used[2 + STRATA_STORE_MAX_KEEP] = {false};
    for (uint32_t i = 0; i < record->line_count; i++) {
        const struct listed_commit *line = &record->lines[i];
        if (line->table_copy >= 2 + header->keep || used[line->table_copy] ||
            line->generation == 0 || line->generation > record->generation ||
            line->step > INT64_MAX || line->updates > line->step ||
            !isfinite(line->loss_scale) || line->loss_scale <= 0)
            return false;
        if (i > 0 && (line->step >= line[-1].step || line->generation >= line[-1].generation))
            return false;
        used[line->table_copy] = true;
    }
    return true;
}

bool strata_store_record_valid(const struct commit_record *record,
                               const struct store_header *header)
{
    if (memcmp(record->magic, record_magic, sizeof record_magic) != 0 ||
        record->version != STRATA_STORE_VERSION ||
        !strata_store_sealed(record, sizeof *record) ||
        memcmp(record->store_id, header->store_id, sizeof record->store_id) != 0)
        return false;
    return record->generation <= INT64_MAX && record->line_count > 0 &&
           record->line_count <= 1 + header->keep && record->commit_every > 0 &&
           lines_in_range(record, header);
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
        if (entries[i].record >= header->record_count ||
            entries[i].slot >= strata_store_slots_of(header, entries[i].record) ||
            (i > 0 && entries[i].record <= entries[i - 1].record) || entries[i].bytes == 0 ||
            entries[i].bytes % STRATA_STORE_BLOCK_BYTES != 0 ||
            entries[i].updates > line->updates)
            return false;
    return true;
}
