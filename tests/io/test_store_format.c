/*
 * Blocks of a store's files are judged before they are used: a right hash makes no number
 * right, since a file may have been made by anybody. The fuzz targets try the rest.
 */

#include "io/store_format.h"

#include <criterion/criterion.h>
#include <string.h>

static struct store_header good_header(void)
{
    struct store_header header = {
        .drive_count = 2,
        .drive_index = 1,
        .tile_elems = 262144,
        .durable = 1,
        .record_count = 12,
        .slots = 4,
        .keep = 2,
        .durable_bytes = 1u << 20,
        .shares = {STRATA_STORE_FULL_SHARE, 400},
    };
    strata_store_header_finish(&header);
    return header;
}

static strata_status judge(struct store_header *header)
{
    strata_error error = {.status = STRATA_OK};
    strata_store_header_finish(header);
    return strata_store_header_check(header, "a/file", &error);
}

Test(store_format, a_header_is_what_was_written_or_refused)
{
    struct store_header header = good_header();
    cr_assert_eq(judge(&header), STRATA_OK);
    strata_error error = {.status = STRATA_OK};
    header.tile_elems++;
    cr_assert_eq(strata_store_header_check(&header, "a/file", &error), STRATA_E_CORRUPT);
    cr_assert_not_null(strstr(error.message, "a/file"));
}

Test(store_format, a_header_of_another_version_or_program_is_unsupported)
{
    strata_error error = {.status = STRATA_OK};
    struct store_header header = good_header();
    header.version++;
    strata_store_seal(&header, sizeof header);
    cr_assert_eq(strata_store_header_check(&header, "a/file", &error), STRATA_E_UNSUPPORTED);
    header = good_header();
    header.magic[0] = 'x';
    strata_store_seal(&header, sizeof header);
    cr_assert_eq(strata_store_header_check(&header, "a/file", &error), STRATA_E_UNSUPPORTED);
}

Test(store_format, a_header_with_numbers_beyond_the_store_is_refused_though_its_hash_is_right)
{
    struct store_header header = good_header();
    header.drive_index = 2;
    cr_expect_eq(judge(&header), STRATA_E_CORRUPT, "drive index");
    header = good_header();
    header.drive_count = STRATA_STORE_MAX_DRIVES + 1;
    cr_expect_eq(judge(&header), STRATA_E_CORRUPT, "drive count");
    header = good_header();
    header.durable = 0;
    header.slots = 2 + STRATA_STORE_MAX_KEEP + 1;
    cr_expect_eq(judge(&header), STRATA_E_CORRUPT, "slots of a scratch store");
    header = good_header();
    header.slots = 3;
    cr_expect_eq(judge(&header), STRATA_E_CORRUPT, "slots and keep");
    header = good_header();
    header.keep = STRATA_STORE_MAX_KEEP + 1;
    header.slots = 2 + header.keep;
    cr_expect_eq(judge(&header), STRATA_E_CORRUPT, "keep");
    header = good_header();
    header.identity_bytes = STRATA_IDENTITY_BYTES + 1;
    cr_expect_eq(judge(&header), STRATA_E_CORRUPT, "identity");
    header = good_header();
    header.durable_bytes = (uint64_t)INT64_MAX + 1;
    cr_expect_eq(judge(&header), STRATA_E_CORRUPT, "length");
    header = good_header();
    header.shares[1] = 0;
    cr_expect_eq(judge(&header), STRATA_E_CORRUPT, "no share");
    header = good_header();
    header.shares[0]++;
    cr_expect_eq(judge(&header), STRATA_E_CORRUPT, "more than a full share");
    header = good_header();
    header.shares[2] = 1;
    cr_expect_eq(judge(&header), STRATA_E_CORRUPT, "a share of no drive");
}

static struct commit_record good_record(const struct store_header *header)
{
    struct commit_record record = {.line_count = 2, .generation = 9, .commit_every = 1};
    memcpy(record.store_id, header->store_id, sizeof record.store_id);
    record.lines[0] = (struct listed_commit){.step = 5, .generation = 9};
    record.lines[1] = (struct listed_commit){.step = 4, .generation = 8, .table_copy = 1};
    strata_store_record_finish(&record);
    return record;
}

Test(store_format, a_commit_record_counts_only_when_it_is_whole_and_of_this_store)
{
    struct store_header header = good_header();
    struct commit_record record = good_record(&header);
    cr_assert(strata_store_record_valid(&record, &header));
    record.lines[0].step++;
    cr_expect(!strata_store_record_valid(&record, &header), "changed");
    record = good_record(&header);
    record.store_id[15] ^= 1;
    strata_store_record_finish(&record);
    cr_expect(!strata_store_record_valid(&record, &header), "of another store");
}

Test(store_format, a_commit_record_with_numbers_beyond_the_store_does_not_count)
{
    struct store_header header = good_header();
    struct commit_record record = good_record(&header);
    record.line_count = 0;
    strata_store_record_finish(&record);
    cr_expect(!strata_store_record_valid(&record, &header), "no line");
    record = good_record(&header);
    record.line_count = 2 + header.keep;
    strata_store_record_finish(&record);
    cr_expect(!strata_store_record_valid(&record, &header), "lines");
    record = good_record(&header);
    record.lines[1].table_copy = 2 + header.keep;
    strata_store_record_finish(&record);
    cr_expect(!strata_store_record_valid(&record, &header), "table");
    record = good_record(&header);
    record.lines[1].generation = 10;
    strata_store_record_finish(&record);
    cr_expect(!strata_store_record_valid(&record, &header), "generation");
    record = good_record(&header);
    record.commit_every = 0;
    strata_store_record_finish(&record);
    cr_expect(!strata_store_record_valid(&record, &header), "steps between commits");
}

#define ENTRIES 4u

union table {
    struct {
        struct table_head head;
        struct table_entry entries[ENTRIES];
    } of;
    uint8_t bytes[STRATA_STORE_BLOCK_BYTES];
};

static void make_table(union table *out, const struct store_header *header)
{
    memset(out, 0, sizeof *out);
    memcpy(out->of.head.store_id, header->store_id, sizeof header->store_id);
    out->of.head.drive_index = header->drive_index;
    out->of.head.entry_count = ENTRIES;
    out->of.head.generation = 9;
    out->of.head.step = 5;
    strata_store_table_finish(&out->of.head, sizeof *out);
}

static bool table_counts(union table *table, const struct store_header *header)
{
    const struct listed_commit line = {.step = 5, .generation = 9};
    strata_store_seal(table, sizeof *table);
    return strata_store_table_valid(&table->of.head, sizeof *table, header, &line);
}

Test(store_format, a_table_counts_only_for_the_commit_and_the_drive_it_was_written_for)
{
    struct store_header header = good_header();
    union table table;
    make_table(&table, &header);
    cr_assert(table_counts(&table, &header));
    table.of.head.step++;
    cr_expect(!table_counts(&table, &header), "another step");
    make_table(&table, &header);
    table.of.head.generation--;
    cr_expect(!table_counts(&table, &header), "another generation");
    make_table(&table, &header);
    table.of.head.drive_index = 0;
    cr_expect(!table_counts(&table, &header), "another drive");
    make_table(&table, &header);
    table.of.head.store_id[0] ^= 1;
    cr_expect(!table_counts(&table, &header), "another store");
}

Test(store_format, a_torn_table_does_not_count)
{
    struct store_header header = good_header();
    const struct listed_commit line = {.step = 5, .generation = 9};
    union table table;
    make_table(&table, &header);
    table.of.entries[1].step++;
    cr_expect(!strata_store_table_valid(&table.of.head, sizeof table, &header, &line));
}

/* The same bytes under another number, or of another step, have another hash. */
Test(store_format, a_records_hash_is_seeded_with_its_number_and_its_step)
{
    uint64_t seeds[64];
    for (uint32_t i = 0; i < 64; i++) {
        seeds[i] = strata_store_record_seed(i / 8, i % 8);
        for (uint32_t j = 0; j < i; j++)
            cr_assert_neq(seeds[i], seeds[j], "%u and %u", i, j);
    }
}

Test(store_format, a_table_with_a_slot_or_an_entry_too_many_does_not_count)
{
    struct store_header header = good_header();
    union table table;
    make_table(&table, &header);
    table.of.entries[ENTRIES - 1].slot = header.slots;
    cr_expect(!table_counts(&table, &header), "slot");
    make_table(&table, &header);
    table.of.entries[ENTRIES - 1].record = header.record_count;
    cr_expect(!table_counts(&table, &header), "record");
    make_table(&table, &header);
    table.of.head.entry_count = UINT32_MAX;
    cr_expect(!table_counts(&table, &header), "entries");
}
