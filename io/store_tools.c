#define _GNU_SOURCE
/*
 * A durable store without its run: list and drop. See include/strata/store.h; scrub has a file
 * of its own.
 *
 * Thread: the caller.
 */

#include "strata/store.h"

#include "io/store_survey.h"

#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

_Static_assert(STRATA_STORE_MAX_COMMITS == STRATA_STORE_LINES, "all of them can be listed");
_Static_assert(STRATA_STORE_IDENTITY_BYTES == STRATA_IDENTITY_BYTES + 1, "and a zero");

static void list_survey(const struct survey *survey, strata_store_listing *out)
{
    const struct commit_record *record = strata_survey_newest(survey);
    out->keep = survey->header->keep;
    out->slots = survey->header->slots;
    out->tiles = survey->header->record_count;
    memcpy(out->identity, survey->header->identity, survey->header->identity_bytes);
    out->commit_count = record != NULL ? record->line_count : 0;
    out->commit_every = record != NULL ? record->commit_every : 0;
    for (uint32_t i = 0; i < out->commit_count; i++)
        out->commits[i] =
            (strata_commit_info){.step = record->lines[i].step, .retained = i > 0};
}

static void note_sight(const struct survey *survey, struct store_sight *out)
{
    const struct commit_record *record = strata_survey_newest(survey);
    if (record == NULL)
        return;
    memcpy(out->store_id, record->store_id, sizeof out->store_id);
    out->generation = record->generation;
}

strata_status strata_store_look(strata_store_listing *out, struct store_sight *out_sight,
                                const char *const *dirs, uint32_t dir_count,
                                strata_error *error)
{
    struct survey survey;
    memset(out, 0, sizeof *out);
    *out_sight = (struct store_sight){.generation = 0};
    strata_status status = strata_survey_begin(&survey, dirs, dir_count, true, NULL, error);
    if (status == STRATA_OK) {
        list_survey(&survey, out);
        note_sight(&survey, out_sight);
        status = strata_survey_check_lost(&survey, error);
    }
    strata_survey_end(&survey);
    return status;
}

strata_status strata_store_list(strata_store_listing *out, const char *const *dirs,
                                uint32_t dir_count, strata_error *error)
{
    struct store_sight sight;
    if (out == NULL)
        return strata_fail(error, STRATA_E_INVALID, 0, "list: out is NULL");
    return strata_store_look(out, &sight, dirs, dir_count, error);
}

static strata_status write_block(const struct store_file *file, const void *block,
                                 uint64_t offset, strata_error *error)
{
    ssize_t put;
    do
        put = pwrite(file->fd, block, STRATA_STORE_BLOCK_BYTES, (off_t)offset);
    while (put < 0 && errno == EINTR);
    if (put != STRATA_STORE_BLOCK_BYTES)
        return strata_fail(error, STRATA_E_IO, put < 0 ? errno : 0,
                           "write of %u bytes at %" PRIu64 " in %s: %s",
                           STRATA_STORE_BLOCK_BYTES, offset, file->path,
                           put < 0 ? strerror(errno) : "a part of it moved");
    return STRATA_OK;
}

/* A failed sync is not repeated: the kernel may have dropped what it could not write. */
static strata_status sync_file(const struct store_file *file, strata_error *error)
{
    if (fdatasync(file->fd) == 0)
        return STRATA_OK;
    return strata_fail(error, STRATA_E_IO, errno, "sync of %s: %s", file->path,
                       strerror(errno));
}

static strata_status find_retained(const struct commit_record *record, uint64_t step,
                                   const char *dir, uint32_t *out, strata_error *error)
{
    for (*out = 0; *out < record->line_count; ++*out)
        if (record->lines[*out].step == step)
            break;
    if (*out == record->line_count)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "the store in %.120s holds no commit of step %" PRIu64
                           ": --list names those it has",
                           dir, step);
    if (*out == 0)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "step %" PRIu64 " is the last commit of the store in %.120s, which "
                           "the run goes on from: it cannot be dropped",
                           step, dir);
    return STRATA_OK;
}

/* Write both copies of the record, flush, and write a receipt, as a commit does. */
static strata_status write_record(const struct survey *survey, struct commit_record *record,
                                  strata_error *error)
{
    const struct drive *drive = &survey->store.drives[0];
    const struct store_header *header = drive->header;
    uint32_t index =
        strata_store_oldest_record(survey->commits.generations, record->generation);
    record->generation = survey->commits.generation + 1;
    strata_store_record_finish(record);
    for (uint32_t copy = 0; copy < STRATA_STORE_COPIES; copy++)
        STRATA_TRY(write_block(&drive->file, record,
                               header->record_offsets[copy * STRATA_STORE_RECORD_COUNT + index],
                               error));
    STRATA_TRY(sync_file(&drive->file, error));
    uint64_t generation = record->generation, step = record->lines[0].step;
    struct commit_receipt *receipt = (struct commit_receipt *)record;
    memset(receipt, 0, sizeof *receipt);
    memcpy(receipt->store_id, header->store_id, sizeof receipt->store_id);
    receipt->generation = generation;
    receipt->step = step;
    strata_store_receipt_finish(receipt);
    return write_block(&drive->file, receipt,
                       (1 + generation % STRATA_STORE_RECEIPT_COUNT) * STRATA_STORE_BLOCK_BYTES,
                       error);
}

static strata_status drop_commit(struct survey *survey, const char *dir, uint64_t step,
                                 strata_error *error)
{
    uint32_t index;
    const struct commit_record *newest = strata_survey_newest(survey);
    if (newest == NULL)
        return strata_survey_no_commit(dir, error);
    STRATA_TRY(strata_survey_check_lost(survey, error));
    STRATA_TRY(find_retained(newest, step, dir, &index, error));
    /* This overwrites one of four listings. If the newest commit is damaged, all may be needed.
     */
    STRATA_TRY(strata_store_read_tables(&survey->store, &newest->lines[0], NULL, error));
    /* This block was used for reading and is free now. */
    struct commit_record *record =
        (struct commit_record *)survey->store.fill + STRATA_STORE_RECORD_BLOCKS;
    *record = *newest;
    record->line_count--;
    memmove(&record->lines[index], &record->lines[index + 1],
            (record->line_count - index) * sizeof *record->lines);
    memset(&record->lines[record->line_count], 0, sizeof *record->lines);
    return write_record(survey, record, error);
}

strata_status strata_store_drop(const char *const *dirs, uint32_t dir_count, uint64_t step,
                                strata_error *error)
{
    struct survey survey;
    strata_status status = strata_survey_begin(&survey, dirs, dir_count, false, NULL, error);
    if (status == STRATA_OK)
        status = drop_commit(&survey, dirs[0], step, error);
    strata_survey_end(&survey);
    return status;
}
