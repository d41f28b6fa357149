/*
 * Making a commit durable.
 *
 * What matters is the order of writes. First the tile tables, to places that no commit uses
 * which is listed now or will be. Then one flush per file, for the tables and all records
 * written before them. Only then the commit record, and a flush. After a crash before the
 * record is on the drive, the last commit is as it was, tables included; after a crash later,
 * the new commit is there. The record is written over the oldest of four, so a record that is
 * torn by a crash costs nothing.
 *
 * Tables and record have two copies each, in case a drive damages one. Both copies are written
 * at once and flushed together; if a crash leaves only one of them, it counts. When the record
 * has been flushed, a receipt is written that says so (store_records.c explains its use). The
 * receipt has no flush of its own.
 *
 * Retained commits have their tables on the drives already. They are listed, not rewritten.
 *
 * A flush that failed is not repeated: the kernel may have dropped what it could not write and
 * would report success. The store has failed, and the last commit is the one before.
 *
 * Thread: the one that commits, one commit at a time; the I/O threads make the transfers.
 */

#include "io/store_internal.h"

#include "base/error.h"

#include <string.h>

/* Start transfers and wait for all of them. OK, or the status with which the store failed. */
static strata_status run_transfers(struct store *store, struct store_io *ios, uint32_t count)
{
    strata_store_run(store, ios, count);
    return strata_store_failed(store);
}

static strata_status flush_files(struct store *store, uint32_t drive_count)
{
    struct store_io ios[STRATA_STORE_MAX_DRIVES];
    if (!store->flush)
        return STRATA_OK;
    for (uint32_t i = 0; i < drive_count; i++)
        ios[i] = (struct store_io){.write = true, .place = strata_store_file_place(store, i)};
    return run_transfers(store, ios, drive_count);
}

/* Write that the newest record has been flushed. */
static strata_status write_receipt(struct store *store)
{
    struct commit_receipt *receipt = store->receipt;
    if (!store->flush)
        return STRATA_OK;
    memset(receipt, 0, sizeof *receipt);
    memcpy(receipt->store_id, store->store_id, sizeof receipt->store_id);
    receipt->generation = store->listing_generation;
    receipt->step = store->lines[0].step;
    strata_store_receipt_finish(receipt);
    uint32_t index = (uint32_t)(receipt->generation % STRATA_STORE_RECEIPT_COUNT);
    struct store_io io = {
        .write = true,
        .place = strata_store_receipt_place(store, index),
        .buffer = receipt,
    };
    return run_transfers(store, &io, 1);
}

strata_status strata_store_confirm(struct store *store)
{
    struct store_io io = {
        .write = true,
        .place = strata_store_commit_place(store, 0, 0) + store->torn_copy,
        .buffer = store->record,
    };
    if (store->torn_copy < STRATA_STORE_RECORD_BLOCKS) {
        STRATA_TRY(run_transfers(store, &io, 1));
        STRATA_TRY(flush_files(store, 1));
    }
    return write_receipt(store);
}

/* Write the listing under the next generation. Once it is flushed the store takes it over. */
static strata_status write_listing(struct store *store, const struct listed_commit *lines,
                                   uint32_t line_count)
{
    uint64_t current = store->line_count > 0 ? store->listing_generation : UINT64_MAX;
    uint32_t index = strata_store_oldest_record(store->record_generation, current);
    struct store_io ios[STRATA_STORE_COPIES];
    struct commit_record *record = store->record;
    memset(record, 0, sizeof *record);
    memcpy(record->store_id, store->store_id, sizeof record->store_id);
    record->generation = store->generation + 1;
    record->line_count = line_count;
    record->commit_every = store->recovery.commit_every;
    memcpy(record->lines, lines, line_count * sizeof *lines);
    strata_store_record_finish(record);
    for (uint32_t copy = 0; copy < STRATA_STORE_COPIES; copy++)
        ios[copy] = (struct store_io){
            .write = true,
            .place = strata_store_commit_place(store, index, copy),
            .buffer = record,
        };
    STRATA_TRY(run_transfers(store, ios, STRATA_STORE_COPIES));
    STRATA_TRY(flush_files(store, 1));
    store->generation++;
    store->listing_generation = store->generation;
    store->record_generation[index] = store->generation;
    store->line_count = line_count;
    memmove(store->lines, lines, line_count * sizeof *lines);
    return write_receipt(store);
}

strata_status strata_store_relist(struct store *store)
{
    struct listed_commit lines[STRATA_STORE_LINES];
    memcpy(lines, store->lines, sizeof lines);
    return write_listing(store, lines, store->line_count);
}

/* A table that no listed commit uses. There are 2 + keep tables, so one is free. */
static uint32_t free_table(const struct store *store)
{
    bool used[2 + STRATA_STORE_MAX_KEEP] = {false};
    for (uint32_t i = 0; i < store->line_count; i++)
        used[store->lines[i].table_copy] = true;
    uint32_t copy = 0;
    while (used[copy])
        copy++;
    STRATA_CHECK(copy < 2 + store->keep);
    return copy;
}

/* An entry per record of the drive, in order of records. */
static void fill_table(struct store *store, uint32_t drive_index, const uint8_t *slots,
                       const struct listed_commit *line)
{
    struct drive *drive = &store->drives[drive_index];
    struct table_head *table = drive->table;
    struct table_entry *entry = (struct table_entry *)(table + 1);
    memset(table, 0, drive->layout.table_bytes);
    memcpy(table->store_id, store->store_id, sizeof table->store_id);
    table->drive_index = drive_index;
    table->entry_count = drive->layout.record_count;
    table->generation = line->generation;
    table->step = line->step;
    for (uint32_t i = 0; i < store->record_count; i++) {
        STRATA_CHECK(slots[i] < store->slots);
        struct place *place = &store->places[strata_store_slot_place(store, i, slots[i])];
        if (place->bytes == 0 || place->drive_index != drive_index)
            continue;
        /* No write of the slot is under way, but a read may be: the tile's next update reads
         * the slot just written. A read changes none of these fields, and the write has set
         * them before its done call, which came before this commit was asked for. */
        STRATA_CHECK(place->known);
        entry->record = i;
        entry->slot = slots[i];
        entry->bytes = place->bytes;
        entry->updates = place->round;
        strata_store_put_hash(entry->hash, place->hash);
        entry++;
    }
    strata_store_table_finish(table, drive->layout.table_bytes);
}

static strata_status write_tables(struct store *store, const uint8_t *slots,
                                  struct listed_commit *line)
{
    struct store_io ios[STRATA_STORE_MAX_DRIVES * STRATA_STORE_COPIES];
    uint32_t count = 0;
    uint8_t hashes[STRATA_STORE_MAX_DRIVES][16];
    for (uint32_t i = 0; i < store->drive_count; i++) {
        struct drive *drive = &store->drives[i];
        fill_table(store, i, slots, line);
        memcpy(hashes[i], (uint8_t *)drive->table + drive->layout.table_bytes - 16, 16);
        for (uint32_t copy = 0; copy < STRATA_STORE_COPIES; copy++)
            ios[count++] = (struct store_io){
                .write = true,
                .place = strata_store_table_place(store, i, line->table_copy, copy),
                .buffer = drive->table,
            };
    }
    strata_store_put_hash(line->tables_hash,
                          strata_hash(hashes, (size_t)store->drive_count * 16, 0));
    return run_transfers(store, ios, count);
}

/* A commit must not be reported as made if a file of it is gone, or open to others. */
static strata_status check_files(struct store *store)
{
    strata_error error = {.status = STRATA_OK};
    for (uint32_t i = 0; i < store->drive_count; i++) {
        struct drive *drive = &store->drives[i];
        if (strata_store_file_check(&drive->file, drive->layout.file_bytes, &error) ==
            STRATA_OK)
            continue;
        strata_store_note(store, &error);
        return error.status;
    }
    return STRATA_OK;
}

/* The owner flushes what it keeps beside the store, its log. It is called after the tables'
 * flush, during which it may have finished that. */
static strata_status ask_owner(struct store *store, uint64_t step)
{
    strata_error error = {.status = STRATA_OK};
    if (store->before_commit == NULL ||
        store->before_commit(store->before_commit_user, step, &error) == STRATA_OK)
        return STRATA_OK;
    strata_store_note(store, &error);
    return error.status;
}

static const struct listed_commit *find_line(const struct store *store, uint64_t step)
{
    for (uint32_t i = 0; i < store->line_count; i++)
        if (store->lines[i].step == step)
            return &store->lines[i];
    return NULL;
}

strata_status strata_store_commit(struct store *store, const struct store_line *lines,
                                  uint32_t line_count, uint64_t updates, double loss_scale)
{
    struct listed_commit next[STRATA_STORE_LINES] = {{.step = 0}};
    STRATA_CHECK(store->durable && line_count >= 1 && line_count <= 1 + store->keep);
    STRATA_TRY(strata_store_failed(store));
    next[0] = (struct listed_commit){
        .step = lines[0].step,
        .generation = store->generation + 1,
        .updates = updates,
        .loss_scale = loss_scale,
        .table_copy = free_table(store),
    };
    for (uint32_t i = 1; i < line_count; i++) {
        const struct listed_commit *line = find_line(store, lines[i].step);
        STRATA_CHECK(line != NULL && line->step != lines[0].step);
        next[i] = *line;
    }
    STRATA_TRY(write_tables(store, lines[0].slots, &next[0]));
    STRATA_TRY(flush_files(store, store->drive_count));
    STRATA_TRY(ask_owner(store, lines[0].step));
    STRATA_TRY(check_files(store));
    STRATA_TRY(write_listing(store, next, line_count));
    for (uint32_t i = 0; i < store->drive_count; i++)
        strata_store_file_keep(&store->drives[i].file);
    return STRATA_OK;
}
