/*
 * Tile tables: any bytes are accepted or refused, and of an accepted table every entry lies
 * inside it and names a slot there is.
 *
 * Input: the slots per record, the table's length in blocks, then its bytes, to which zeros are
 * added. The commit that lists it is the one the table claims to be of, or else no input would
 * get past that comparison.
 *
 * Thread: one.
 */

#include "io/store_format.h"
#include "tests/fuzz/fuzz.h"

#include "base/error.h"

#include <string.h>

#define BLOCKS_MAX 4u

union table {
    struct table_head head;
    uint8_t bytes[BLOCKS_MAX * STRATA_STORE_BLOCK_BYTES];
};

static void make_header(struct store_header *out, uint8_t slots)
{
    memset(out, 0, sizeof *out);
    out->drive_count = 2;
    out->drive_index = 1;
    out->durable = 1;
    out->keep = slots % (STRATA_STORE_MAX_KEEP + 1);
    out->slots = 2 + out->keep;
    out->record_count = 256;
    memset(out->store_id, 0x5a, sizeof out->store_id);
    strata_store_header_finish(out);
}

static void judge(const union table *table, uint64_t bytes, const struct store_header *header)
{
    struct listed_commit line = {
        .step = table->head.step, .generation = table->head.generation, .updates = UINT64_MAX};
    if (!strata_store_table_valid(&table->head, bytes, header, &line))
        return;
    const struct table_entry *entries = (const struct table_entry *)(&table->head + 1);
    STRATA_CHECK(sizeof table->head + table->head.entry_count * sizeof *entries <= bytes - 16);
    for (uint32_t i = 0; i < table->head.entry_count; i++)
        STRATA_CHECK(entries[i].slot < header->slots &&
                     entries[i].record < header->record_count);
    line.step++;
    STRATA_CHECK(!strata_store_table_valid(&table->head, bytes, header, &line));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static union table table;
    struct store_header header;
    if (bytes < 2)
        return 0;
    make_header(&header, data[0]);
    uint64_t length = (1 + data[1] % BLOCKS_MAX) * (uint64_t)STRATA_STORE_BLOCK_BYTES;
    data += 2;
    bytes -= 2;
    memset(&table, 0, sizeof table);
    memcpy(&table, data, bytes < length ? bytes : length);
    judge(&table, length, &header);
    strata_store_seal(&table, length);
    judge(&table, length, &header);
    return 0;
}

static void seed(const char *name, uint8_t slots, uint32_t entry_count, bool whole)
{
    struct {
        uint8_t slots;
        uint8_t blocks;
        union table table;
    } seed;
    static union table table;
    struct store_header header;
    struct listed_commit line = {.step = 41, .generation = 3, .updates = 41};
    uint64_t length = strata_store_table_length(entry_count);
    make_header(&header, slots);
    memset(&table, 0, sizeof table);
    table.head.drive_index = header.drive_index;
    table.head.entry_count = entry_count;
    table.head.generation = line.generation;
    table.head.step = line.step;
    memcpy(table.head.store_id, header.store_id, sizeof header.store_id);
    struct table_entry *entries = (struct table_entry *)(&table.head + 1);
    for (uint32_t i = 0; i < entry_count; i++)
        entries[i] = (struct table_entry){
            .record = i, .slot = i % header.slots, .bytes = 4096, .updates = 41 - i % 2};
    strata_store_table_finish(&table.head, length);
    STRATA_CHECK(strata_store_table_valid(&table.head, length, &header, &line));
    memset(&seed, 0, sizeof seed);
    seed.slots = slots;
    seed.blocks = (uint8_t)(length / STRATA_STORE_BLOCK_BYTES - 1);
    seed.table = table;
    size_t cut = sizeof table.head + entry_count * sizeof *entries;
    strata_fuzz_seed(name, &seed, offsetof(__typeof__(seed), table) + (whole ? length : cut));
}

void strata_fuzz_seeds(void)
{
    seed("none", 0, 0, false);
    seed("four", 0, 4, false);
    seed("four_whole", 0, 4, true);
    seed("two_blocks", 3, 130, false);
}
