/*
 * Where everything in a store's files lies.
 *
 * Two rules make sure that a resume finds what the run before it left. The places of records
 * follow from their lengths and the drives' shares alone, and scratch places lie behind them.
 * So homes and budgets may change from run to run: only scratch places change with them. And a
 * slot is never moved: its offset follows from the records before it.
 *
 * The first drive also has the commit records. They are spread evenly over its slots, from the
 * first to behind the last, always between two records' slots. So damage to a part of the drive
 * hits few of them, and the two copies of each are half of the slots apart. The tables are
 * before the slots and, as second copies, behind them.
 *
 * A drive's share is its measured speed, fixed when the store is made. Each record goes to the
 * drive that would finish its slots first, each scratch place to the drive that would finish
 * its whole file first.
 *
 * Thread: any.
 */

#include "io/store_internal.h"

#include "base/error.h"

#include <string.h>

/* Tables of a drive: one for each listed commit and one for the next; 0: a scratch store. */
static uint32_t tables_of(const struct store_records *records)
{
    return records->durable ? 2 + records->keep : 0;
}

uint32_t strata_store_public_places(const struct store_desc *desc)
{
    return desc->place_count + desc->records->count * desc->records->slots;
}

/* A durable store has places of its own: tables, commit records, receipts, and the files. */
uint32_t strata_store_all_places(const struct store_desc *desc)
{
    uint32_t own = desc->dir_count * (STRATA_STORE_COPIES * tables_of(desc->records) + 1) +
                   STRATA_STORE_RECORD_BLOCKS + STRATA_STORE_RECEIPT_COUNT;
    return strata_store_public_places(desc) + (desc->records->durable ? own : 0);
}

uint32_t strata_store_spare_blocks(const struct store_desc *desc)
{
    /* A drive's entries are rounded up to blocks, which adds less than a block. */
    return desc->dir_count - 1;
}

/* Measured rates differ by a few per cent from one measurement to the next. */
static bool is_as_fast(uint64_t time_ns, uint64_t than_ns)
{
    return time_ns - than_ns <= time_ns / 10;
}

void strata_store_share(const uint64_t *times_ns, uint32_t count, uint32_t *out)
{
    uint64_t best_ns = 0;
    memset(out, 0, count * sizeof *out);
    for (;;) {
        /* The fastest drive without a share; drives that are as fast get the same share. */
        uint64_t lead_ns = UINT64_MAX;
        for (uint32_t i = 0; i < count; i++)
            if (out[i] == 0 && times_ns[i] < lead_ns)
                lead_ns = times_ns[i];
        if (lead_ns == UINT64_MAX)
            return;
        best_ns = best_ns == 0 ? lead_ns : best_ns;
        uint32_t share =
            (uint32_t)((double)best_ns / (double)lead_ns * STRATA_STORE_FULL_SHARE);
        for (uint32_t i = 0; i < count; i++)
            if (out[i] == 0 && is_as_fast(times_ns[i], lead_ns))
                out[i] = share > 0 ? share : 1;
    }
}

static uint32_t share_of(const uint32_t *shares, uint32_t drive)
{
    return shares != NULL ? shares[drive] : 1;
}

/* The drive that would finish first if it got more; bytes: what each has already. */
static uint32_t first_to_finish(const uint64_t *bytes, const uint32_t *shares, uint32_t count,
                                uint64_t more)
{
    uint32_t first = 0;
    for (uint32_t i = 1; i < count; i++)
        if ((bytes[i] + more) * share_of(shares, first) <
            (bytes[first] + more) * share_of(shares, i))
            first = i;
    return first;
}

static uint32_t slots_of(const struct store_records *records, uint32_t record)
{
    return record < records->count - records->fixed_count ? records->slots : 1;
}

/* Give every slot a drive, and an offset from the first slot of that drive. */
static void spread_records(const struct store_desc *desc, const uint32_t *shares,
                           struct drive_layout *drives, uint64_t *slot_bytes,
                           struct place *places)
{
    const struct store_records *records = desc->records;
    for (uint32_t i = 0; i < records->count; i++) {
        if (records->bytes[i] == 0)
            continue;
        uint32_t drive = first_to_finish(slot_bytes, shares, desc->dir_count,
                                         slots_of(records, i) * records->bytes[i]);
        for (uint32_t slot = 0; slot < slots_of(records, i); slot++) {
            if (places != NULL)
                places[desc->place_count + i * records->slots + slot] = (struct place){
                    .offset = slot_bytes[drive],
                    .bytes = records->bytes[i],
                    .drive_index = drive,
                };
            slot_bytes[drive] += records->bytes[i];
        }
        drives[drive].record_count++;
    }
}

uint32_t strata_store_records_before(uint64_t slot_offset, uint64_t slot_bytes)
{
    return (uint32_t)(slot_offset * (STRATA_STORE_RECORD_BLOCKS - 1) / slot_bytes) + 1;
}

/* Bytes before the tables: the header, and in a durable store the receipts. */
static uint64_t front_bytes(uint32_t tables)
{
    return STRATA_STORE_BLOCK_BYTES * (1 + (tables > 0 ? STRATA_STORE_RECEIPT_COUNT : 0));
}

void strata_store_place_tables(struct drive_layout *layout, uint32_t tables)
{
    layout->table_bytes = tables > 0 ? strata_store_table_length(layout->record_count) : 0;
    layout->tables_offset[0] = front_bytes(tables);
    layout->slots_offset = layout->tables_offset[0] + tables * layout->table_bytes;
    layout->tables_offset[1] = layout->durable_bytes - tables * layout->table_bytes;
}

/* The parts of a drive's file. slot_bytes: of the slots alone. is_first: the drive has the
 * commit records, too. */
static void place_parts(const struct store_desc *desc, struct drive_layout *layout,
                        uint64_t slot_bytes, bool is_first)
{
    uint32_t tables = tables_of(desc->records);
    layout->durable_bytes = front_bytes(tables) + slot_bytes;
    if (tables > 0)
        layout->durable_bytes +=
            STRATA_STORE_COPIES * tables * strata_store_table_length(layout->record_count);
    if (tables > 0 && is_first)
        layout->durable_bytes += STRATA_STORE_RECORD_BLOCKS * STRATA_STORE_BLOCK_BYTES;
    strata_store_place_tables(layout, tables);
}

/* Turn offsets of slots from the first slot into offsets in the file, with the commit records
 * in between, whose offsets are set here. */
static void place_slots(const struct store_desc *desc, struct drive_layout *drives,
                        uint64_t first_slot_bytes, struct place *slots)
{
    const struct store_records *records = desc->records;
    uint32_t block = 0;
    for (uint32_t i = 0; i < records->count; i++, slots += records->slots) {
        struct drive_layout *drive = &drives[slots->drive_index];
        uint64_t shift = drive->slots_offset;
        if (records->durable && slots->bytes > 0 && slots->drive_index == 0) {
            uint32_t before = strata_store_records_before(slots->offset, first_slot_bytes);
            for (; block < before; block++)
                drive->record_offsets[block] =
                    shift + slots->offset + (uint64_t)block * STRATA_STORE_BLOCK_BYTES;
            shift += (uint64_t)before * STRATA_STORE_BLOCK_BYTES;
        }
        for (uint32_t slot = 0; slot < records->slots; slot++)
            if (slots[slot].bytes > 0)
                slots[slot].offset += shift;
    }
    for (; block < STRATA_STORE_RECORD_BLOCKS; block++)
        drives[0].record_offsets[block] = drives[0].slots_offset + first_slot_bytes +
                                          (uint64_t)block * STRATA_STORE_BLOCK_BYTES;
}

static void spread_scratch(const struct store_desc *desc, const uint32_t *shares,
                           uint64_t *file_bytes, struct place *places)
{
    for (uint32_t i = 0; i < desc->place_count; i++) {
        uint32_t drive =
            first_to_finish(file_bytes, shares, desc->dir_count, desc->place_bytes[i]);
        if (places != NULL)
            places[i] = (struct place){
                .offset = file_bytes[drive],
                .bytes = desc->place_bytes[i],
                .drive_index = drive,
            };
        file_bytes[drive] += desc->place_bytes[i];
    }
}

/* The places that only the store itself uses. */
static void place_own(const struct store_desc *desc, const struct drive_layout *drives,
                      struct place *at)
{
    uint32_t tables = tables_of(desc->records);
    for (uint32_t drive = 0; drive < desc->dir_count; drive++)
        for (uint32_t table = 0; table < tables; table++)
            for (uint32_t copy = 0; copy < STRATA_STORE_COPIES; copy++)
                *at++ = (struct place){
                    .offset =
                        drives[drive].tables_offset[copy] + table * drives[drive].table_bytes,
                    .bytes = drives[drive].table_bytes,
                    .drive_index = drive,
                };
    for (uint32_t i = 0; i < STRATA_STORE_RECORD_BLOCKS; i++)
        *at++ = (struct place){
            .offset = drives[0].record_offsets[i],
            .bytes = STRATA_STORE_BLOCK_BYTES,
        };
    for (uint32_t i = 0; i < STRATA_STORE_RECEIPT_COUNT; i++)
        *at++ = (struct place){
            .offset = (1 + (uint64_t)i) * STRATA_STORE_BLOCK_BYTES,
            .bytes = STRATA_STORE_BLOCK_BYTES,
        };
    for (uint32_t drive = 0; drive < desc->dir_count; drive++)
        *at++ = (struct place){.drive_index = drive};
}

void strata_store_lay_out(const struct store_desc *desc, const uint32_t *shares,
                          struct drive_layout *out_drives, struct place *places)
{
    uint64_t bytes[STRATA_STORE_MAX_DRIVES] = {0};
    memset(out_drives, 0, desc->dir_count * sizeof *out_drives);
    spread_records(desc, shares, out_drives, bytes, places);
    for (uint32_t i = 0; i < desc->dir_count; i++)
        place_parts(desc, &out_drives[i], bytes[i], i == 0);
    if (places != NULL) {
        place_slots(desc, out_drives, bytes[0], places + desc->place_count);
        if (desc->records->durable)
            place_own(desc, out_drives, places + strata_store_public_places(desc));
    }
    for (uint32_t i = 0; i < desc->dir_count; i++)
        bytes[i] = out_drives[i].durable_bytes;
    spread_scratch(desc, shares, bytes, places);
    for (uint32_t i = 0; i < desc->dir_count; i++)
        out_drives[i].file_bytes = bytes[i];
}

uint64_t strata_store_file_bytes(const struct store_desc *desc)
{
    struct drive_layout drives[STRATA_STORE_MAX_DRIVES];
    uint64_t bytes = (uint64_t)STRATA_STORE_COPIES * tables_of(desc->records) *
                     strata_store_spare_blocks(desc) * STRATA_STORE_BLOCK_BYTES;
    STRATA_CHECK(desc->dir_count <= STRATA_STORE_MAX_DRIVES);
    strata_store_lay_out(desc, NULL, drives, NULL);
    for (uint32_t i = 0; i < desc->dir_count; i++)
        bytes += drives[i].file_bytes;
    return bytes;
}

void strata_store_settle(struct store *store, const struct store_desc *desc)
{
    struct drive_layout drives[STRATA_STORE_MAX_DRIVES];
    uint8_t *block = store->blocks;
    strata_store_lay_out(desc, store->shares, drives, store->places);
    for (uint32_t i = 0; i < store->drive_count; i++) {
        store->drives[i].layout = drives[i];
        store->drives[i].table = (struct table_head *)block;
        block += store->durable ? drives[i].table_bytes : 0;
    }
    store->record = (struct commit_record *)block;
    store->receipt = (struct commit_receipt *)(block + STRATA_STORE_BLOCK_BYTES);
}

void strata_store_share_evenly(struct store *store, const struct store_desc *desc)
{
    for (uint32_t i = 0; i < store->drive_count; i++)
        store->shares[i] = STRATA_STORE_FULL_SHARE;
    strata_store_settle(store, desc);
}

struct hash128 strata_store_layout_hash(const struct store_records *records)
{
    return strata_hash(records->bytes, records->count * sizeof *records->bytes, 0);
}

uint32_t strata_store_slot_place(const struct store *store, uint32_t record, uint32_t slot)
{
    return store->scratch_count + record * store->slots + slot;
}

uint32_t strata_store_table_place(const struct store *store, uint32_t drive, uint32_t table,
                                  uint32_t copy)
{
    return store->public_count + (drive * (2 + store->keep) + table) * STRATA_STORE_COPIES +
           copy;
}

uint32_t strata_store_commit_place(const struct store *store, uint32_t index, uint32_t copy)
{
    return strata_store_table_place(store, store->drive_count, 0, 0) +
           copy * STRATA_STORE_RECORD_COUNT + index;
}

uint32_t strata_store_receipt_place(const struct store *store, uint32_t index)
{
    return strata_store_commit_place(store, 0, STRATA_STORE_COPIES) + index;
}

uint32_t strata_store_file_place(const struct store *store, uint32_t drive)
{
    return strata_store_receipt_place(store, STRATA_STORE_RECEIPT_COUNT) + drive;
}
