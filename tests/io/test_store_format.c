/*
 * Blocks of a store's files are judged before they are used: a right hash makes no number
 * right, since a file may have been made by anybody. The fuzz targets try the rest.
 */

#include "io/store_format.h"

#include <criterion/criterion.h>

#include <math.h>
#include <stdint.h>
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
        .file_records = 12,
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
    header.slots = STRATA_STORE_MAX_SLOTS + 1;
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

Test(store_format, a_header_at_its_limits_is_good_and_one_past_them_is_not)
{
    struct store_header header = good_header();
    for (uint32_t slots = 2; slots <= 3; slots++) {
        header.keep = STRATA_STORE_MAX_KEEP;
        header.slots = slots + header.keep;
        cr_expect_eq(judge(&header), STRATA_OK, "%u slots", header.slots);
    }
    header.slots++;
    cr_expect_eq(judge(&header), STRATA_E_CORRUPT, "slots");
    header = good_header();
    header.record_count = STRATA_STORE_MAX_RECORDS;
    cr_expect_eq(judge(&header), STRATA_OK);
    header.record_count++;
    cr_expect_eq(judge(&header), STRATA_E_CORRUPT, "records");
    header = good_header();
    header.file_records = header.record_count + 1;
    cr_expect_eq(judge(&header), STRATA_E_CORRUPT, "records of a file");
    header = good_header();
    header.durable_bytes =
        3 * STRATA_STORE_BLOCK_BYTES + 2 * 4 * strata_store_table_length(header.file_records);
    cr_expect_eq(judge(&header), STRATA_OK);
    header.durable_bytes -= STRATA_STORE_BLOCK_BYTES;
    cr_expect_eq(judge(&header), STRATA_E_CORRUPT, "no room for the tables");
    header = good_header();
    memset(header.identity, 'x', sizeof header.identity);
    header.identity_bytes = STRATA_IDENTITY_BYTES;
    cr_expect_eq(judge(&header), STRATA_OK);
}

/* They are at the end of the store's only drive here, as there are no records. */
static struct store_header first_header(void)
{
    struct store_header header = good_header();
    header.drive_index = 0;
    for (uint32_t i = 0; i < STRATA_STORE_RECORD_BLOCKS; i++)
        header.record_offsets[i] =
            header.durable_bytes -
            (STRATA_STORE_RECORD_BLOCKS - i) * (uint64_t)STRATA_STORE_BLOCK_BYTES;
    return header;
}

Test(store_format, commit_records_are_in_the_first_drives_durable_part_and_apart)
{
    struct store_header header = first_header();
    cr_expect_eq(judge(&header), STRATA_OK);
    header.record_offsets[7] += STRATA_STORE_BLOCK_BYTES;
    cr_expect_eq(judge(&header), STRATA_E_CORRUPT, "behind it");
    header = first_header();
    header.record_offsets[0] = 2 * STRATA_STORE_BLOCK_BYTES;
    cr_expect_eq(judge(&header), STRATA_E_CORRUPT, "at a receipt");
    header.record_offsets[0] = 3 * STRATA_STORE_BLOCK_BYTES;
    cr_expect_eq(judge(&header), STRATA_OK);
    header.record_offsets[0]++;
    cr_expect_eq(judge(&header), STRATA_E_CORRUPT, "not at a block");
    header = first_header();
    header.record_offsets[4] = header.record_offsets[3];
    cr_expect_eq(judge(&header), STRATA_E_CORRUPT, "two at one place");
    header = good_header();
    header.record_offsets[2] = 5 * STRATA_STORE_BLOCK_BYTES;
    cr_expect_eq(judge(&header), STRATA_E_CORRUPT, "of a drive that has none");
}

Test(store_format, an_identity_with_control_characters_is_refused)
{
    static const struct {
        const char *text;
        bool good;
    } cases[] = {
        {"model=tiny\nseed=1\n", true},
        {"model=tiny ~\n", true},
        {"name=\xc3\xa9\xc2\xa0\n", true}, /* é, and a space that does not break */
        {"model=\x1b[2J\n", false},
        {"model=\x1f\n", false},
        {"model=\x7f\n", false},
        {"model=\r\n", false},
        {"model=\t\n", false},
        {"model=\xc2\x9b"
         "2J\n",
         false}, /* the same command in one character */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct store_header header = good_header();
        header.identity_bytes = (uint32_t)strlen(cases[i].text);
        memcpy(header.identity, cases[i].text, header.identity_bytes);
        cr_expect_eq(judge(&header), cases[i].good ? STRATA_OK : STRATA_E_CORRUPT, "case %d",
                     (int)i);
    }
    struct store_header header = good_header();
    header.identity_bytes = 5; /* a zero is a control character, too */
    cr_expect_eq(judge(&header), STRATA_E_CORRUPT);
}

Test(store_format, a_header_of_version_5_is_refused_by_its_number_with_what_to_do)
{
    strata_error error = {.status = STRATA_OK};
    struct store_header header = good_header();
    header.version = 5;
    strata_store_seal(&header, sizeof header);
    cr_assert_eq(strata_store_header_check(&header, "a/file", &error), STRATA_E_UNSUPPORTED);
    cr_expect_str_eq(error.message,
                     "a/file is of store version 5, this program knows 6; it is left alone: go "
                     "on with the program that made it, or name another directory");
}

static struct commit_record good_record(const struct store_header *header)
{
    struct commit_record record = {.line_count = 2, .generation = 9, .commit_every = 1};
    memcpy(record.store_id, header->store_id, sizeof record.store_id);
    record.lines[0] =
        (struct listed_commit){.step = 5, .generation = 9, .updates = 5, .loss_scale = 65536.0};
    record.lines[1] = (struct listed_commit){
        .step = 4, .generation = 8, .updates = 4, .loss_scale = 1.0, .table_copy = 1};
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

/* A record with one number changed, and sealed again. */
static bool counts(const struct commit_record *record)
{
    struct store_header header = good_header();
    struct commit_record sealed = *record;
    strata_store_record_finish(&sealed);
    return strata_store_record_valid(&sealed, &header);
}

Test(store_format, a_commit_record_whose_hash_is_right_is_not_believed_everything)
{
    struct store_header header = good_header();
    static const double scales[] = {0.0, -1.0, (double)INFINITY, (double)NAN};
    struct commit_record record = good_record(&header);
    cr_assert(counts(&record));
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++) {
        record.lines[1].loss_scale = scales[i];
        cr_expect(!counts(&record), "a loss scale of %g", scales[i]);
    }
    record = good_record(&header);
    record.lines[0].updates = 6;
    cr_expect(!counts(&record), "more updates than steps");
    record = good_record(&header);
    record.lines[0].step = INT64_MAX;
    cr_expect(counts(&record));
    record.lines[0].step++;
    cr_expect(!counts(&record), "a step that no run gets to");
    record = good_record(&header);
    record.lines[1].step = 5;
    cr_expect(!counts(&record), "a step twice");
    record = good_record(&header);
    record.lines[1].generation = 9;
    cr_expect(!counts(&record), "a generation twice");
    record.lines[1].generation = 0;
    cr_expect(!counts(&record), "no generation");
    record = good_record(&header);
    record.lines[1].table_copy = 0;
    cr_expect(!counts(&record), "two commits with one table");
    record = good_record(&header);
    record.generation = (uint64_t)INT64_MAX + 1;
    cr_expect(!counts(&record), "a generation that no store gets to");
}

Test(store_format, an_empty_record_is_known_by_its_store_and_its_place)
{
    struct store_header header = good_header();
    struct empty_record empty = {.block = 3};
    memcpy(empty.store_id, header.store_id, sizeof empty.store_id);
    strata_store_empty_finish(&empty);
    cr_assert(strata_store_empty_valid(&empty, &header, 3));
    cr_expect(!strata_store_empty_valid(&empty, &header, 4), "of another place");
    empty.zero[4000] = 1;
    cr_expect(!strata_store_empty_valid(&empty, &header, 3), "changed");
    empty.zero[4000] = 0;
    empty.store_id[1] ^= 1;
    strata_store_empty_finish(&empty);
    cr_expect(!strata_store_empty_valid(&empty, &header, 3), "of another store");
}

Test(store_format, a_receipt_counts_only_when_it_is_whole_and_of_this_store)
{
    struct store_header header = good_header();
    struct commit_receipt receipt = {.generation = 3, .step = 2};
    memcpy(receipt.store_id, header.store_id, sizeof receipt.store_id);
    strata_store_receipt_finish(&receipt);
    cr_assert(strata_store_receipt_valid(&receipt, &header));
    receipt.generation++;
    cr_expect(!strata_store_receipt_valid(&receipt, &header), "changed");
    receipt.generation = 0;
    strata_store_receipt_finish(&receipt);
    cr_expect(!strata_store_receipt_valid(&receipt, &header), "of no record");
    receipt.generation = 3;
    receipt.store_id[0] ^= 1;
    strata_store_receipt_finish(&receipt);
    cr_expect(!strata_store_receipt_valid(&receipt, &header), "of another store");
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
    for (uint32_t i = 0; i < ENTRIES; i++)
        out->of.entries[i] = (struct table_entry){.record = 2 * i, .bytes = 4096, .updates = 4};
    strata_store_table_finish(&out->of.head, sizeof *out);
}

static bool table_counts(union table *table, const struct store_header *header)
{
    const struct listed_commit line = {.step = 5, .generation = 9, .updates = 4};
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
    const struct listed_commit line = {.step = 5, .generation = 9, .updates = 4};
    union table table;
    make_table(&table, &header);
    table.of.entries[1].hash[3]++;
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
    make_table(&table, &header);
    table.of.entries[2].record = table.of.entries[1].record;
    cr_expect(!table_counts(&table, &header), "a tile twice");
    make_table(&table, &header);
    table.of.entries[2].bytes = 0;
    cr_expect(!table_counts(&table, &header), "no bytes");
    table.of.entries[2].bytes = 4095;
    cr_expect(!table_counts(&table, &header), "a part of a block");
    make_table(&table, &header);
    table.of.entries[2].updates++;
    cr_expect(!table_counts(&table, &header), "updates that the commit has not seen");
}
