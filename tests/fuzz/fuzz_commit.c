/*
 * Commit records: any block is accepted or refused, and of an accepted one every number is in
 * range, so that recovery may use it without another look.
 *
 * Input: how many commits the store retains, then the record's bytes, to which zeros are added.
 *
 * Thread: one.
 */

#include "io/store_format.h"
#include "tests/fuzz/fuzz.h"

#include "base/error.h"

#include <string.h>

static void make_header(struct store_header *out, uint8_t keep)
{
    memset(out, 0, sizeof *out);
    out->drive_count = 1;
    out->durable = 1;
    out->keep = keep % (STRATA_STORE_MAX_KEEP + 1);
    out->slots = 2 + out->keep;
    memset(out->store_id, 0x5a, sizeof out->store_id);
    strata_store_header_finish(out);
}

static void judge(const struct commit_record *record, const struct store_header *header)
{
    if (!strata_store_record_valid(record, header))
        return;
    STRATA_CHECK(record->line_count >= 1 && record->line_count <= STRATA_STORE_LINES);
    STRATA_CHECK(record->line_count <= 1 + header->keep && record->commit_every > 0);
    for (uint32_t i = 0; i < record->line_count; i++) {
        STRATA_CHECK(record->lines[i].table_copy < 2 + header->keep);
        STRATA_CHECK(record->lines[i].generation <= record->generation);
        STRATA_CHECK(record->lines[i].updates <= record->lines[i].step);
        STRATA_CHECK(record->lines[i].loss_scale > 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct commit_record record;
    struct store_header header;
    if (bytes == 0)
        return 0;
    make_header(&header, data[0]);
    data++;
    bytes--;
    memset(&record, 0, sizeof record);
    memcpy(&record, data, bytes < sizeof record ? bytes : sizeof record);
    judge(&record, &header);
    strata_store_seal(&record, sizeof record);
    judge(&record, &header);
    return 0;
}

/* A record that lists so many commits, whole and cut behind its lines. */
static void seed(const char *whole, const char *cut, uint8_t keep, uint32_t line_count)
{
    struct {
        uint8_t keep;
        uint8_t record[sizeof(struct commit_record)];
    } bytes = {.keep = keep};
    struct commit_record record;
    struct store_header header;
    make_header(&header, keep);
    memset(&record, 0, sizeof record);
    memcpy(record.store_id, header.store_id, sizeof record.store_id);
    record.line_count = line_count;
    record.generation = 7;
    record.commit_every = 10;
    for (uint32_t i = 0; i < line_count; i++)
        record.lines[i] = (struct listed_commit){.step = 100 - i,
                                                 .generation = 7 - i,
                                                 .updates = 99 - i,
                                                 .loss_scale = 65536.0,
                                                 .table_copy = i};
    strata_store_record_finish(&record);
    STRATA_CHECK(strata_store_record_valid(&record, &header));
    memcpy(bytes.record, &record, sizeof record);
    strata_fuzz_seed(whole, &bytes, sizeof bytes);
    strata_fuzz_seed(cut, &bytes, 1 + offsetof(struct commit_record, lines[line_count]));
}

void strata_fuzz_seeds(void)
{
    seed("one_whole", "one", 0, 1);
    seed("three_whole", "three", 2, 3);
}
