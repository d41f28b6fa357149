/*
 * A durable store without its run; see store_survey.h.
 *
 * Without a run there is no plan, so where everything is follows from the headers alone. Their
 * numbers have been checked before they are used.
 *
 * Thread: the caller.
 */

#include "io/store_survey.h"

#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

void strata_survey_end(struct survey *survey)
{
    struct store *store = &survey->store;
    for (uint32_t i = 0; i < store->drive_count; i++) {
        strata_store_file_close(&store->drives[i].file);
        free(store->drives[i].table);
    }
    free(store->drives);
    free(store->fill);
}

/* Memory for the drives, and for blocks: those that are read, then a header per drive. */
static strata_status survey_take(struct survey *survey, uint32_t dir_count, strata_error *error)
{
    struct store *store = &survey->store;
    size_t blocks = (STRATA_STORE_READ_BLOCKS + (size_t)dir_count) * STRATA_STORE_BLOCK_BYTES;
    store->drives = calloc(dir_count, sizeof *store->drives);
    store->fill = aligned_alloc(STRATA_IO_ALIGN_BYTES, blocks);
    if (store->drives == NULL || store->fill == NULL)
        return strata_fail(error, STRATA_E_NOMEM, ENOMEM,
                           "host: no memory for %" PRIu32 " drives", dir_count);
    memset(store->fill, 0, blocks);
    store->drive_count = dir_count;
    for (uint32_t i = 0; i < dir_count; i++) {
        struct drive *drive = &store->drives[i];
        drive->store = store;
        drive->file = (struct store_file){.dir_fd = -1, .fd = -1};
        drive->header = (struct store_header *)store->fill + STRATA_STORE_READ_BLOCKS + i;
    }
    return STRATA_OK;
}

/* The part of a drive's layout that follows from its header. */
static strata_status survey_drive(struct drive *drive, strata_error *error)
{
    const struct store_header *header = drive->header;
    struct drive_layout *layout = &drive->layout;
    layout->record_count = header->file_records;
    layout->durable_bytes = header->durable_bytes;
    strata_store_place_tables(layout, 2 + header->keep);
    drive->table = aligned_alloc(STRATA_IO_ALIGN_BYTES, layout->table_bytes);
    if (drive->table == NULL)
        return strata_fail(error, STRATA_E_NOMEM, ENOMEM,
                           "host: no memory for a tile table of %" PRIu64 " bytes",
                           layout->table_bytes);
    return STRATA_OK;
}

static strata_status check_any(const struct store *store, const char *const *dirs,
                               strata_error *error)
{
    for (uint32_t i = 0; i < store->drive_count; i++)
        if (store->drives[i].file.found && !store->drives[i].header->durable)
            return strata_fail(error, STRATA_E_INVALID, 0,
                               "the store in %s is a scratch store: it has no commits",
                               dirs[i]);
    if (!store->drives[0].file.found)
        return strata_fail(error, STRATA_E_IO, ENOENT, "directory %s holds no store", dirs[0]);
    return STRATA_OK;
}

/* The first directory must have the first drive, since the commits are there. */
static strata_status check_first(const struct store *store, const char *const *dirs,
                                 strata_error *error)
{
    if (store->drives[0].header->drive_index == 0)
        return STRATA_OK;
    return strata_store_check_drives(store, dirs, 0, error);
}

strata_status strata_survey_begin(struct survey *survey, const char *const *dirs,
                                  uint32_t dir_count, bool read_only, struct damage *damage,
                                  strata_error *error)
{
    struct store *store = &survey->store;
    *survey = (struct survey){.header = NULL};
    if (dir_count == 0 || dir_count > STRATA_STORE_MAX_DRIVES)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "a store has 1 to %u directories, %" PRIu32 " are named",
                           STRATA_STORE_MAX_DRIVES, dir_count);
    for (uint32_t i = 0; i < dir_count; i++)
        if (dirs == NULL || dirs[i] == NULL)
            return strata_fail(error, STRATA_E_INVALID, 0,
                               "a store's directory %" PRIu32 " of %" PRIu32 " is NULL", i + 1,
                               dir_count);
    STRATA_TRY(survey_take(survey, dir_count, error));
    STRATA_TRY(strata_store_find_files(store, dirs, read_only, error));
    STRATA_TRY(check_any(store, dirs, error));
    survey->header = store->drives[0].header;
    memcpy(store->store_id, survey->header->store_id, sizeof store->store_id);
    STRATA_TRY(check_first(store, dirs, error));
    STRATA_TRY(
        strata_store_read_commits(store, &store->drives[0], &survey->commits, damage, error));
    if (survey->commits.count == 0)
        return STRATA_OK;
    STRATA_TRY(strata_store_check_drives(store, dirs, 0, error));
    for (uint32_t i = 0; i < dir_count; i++)
        STRATA_TRY(survey_drive(&store->drives[i], error));
    return STRATA_OK;
}

const struct commit_record *strata_survey_newest(const struct survey *survey)
{
    if (survey->commits.count == 0)
        return NULL;
    return &survey->commits.blocks[survey->commits.order[0]];
}

strata_status strata_survey_no_commit(const char *dir, strata_error *error)
{
    return strata_fail(error, STRATA_E_STATE, 0, "the store in %s has no commit yet", dir);
}

strata_status strata_survey_check_lost(const struct survey *survey, strata_error *error)
{
    strata_error story = {.status = STRATA_OK};
    if (!survey->commits.lost)
        return STRATA_OK;
    (void)strata_store_lost(&survey->store.drives[0], &survey->commits, &story);
    return strata_fail(error, STRATA_E_CORRUPT, 0,
                       "%s; --resume --at %" PRIu64 " goes on from the newest that is left",
                       story.message, strata_survey_newest(survey)->lines[0].step);
}
