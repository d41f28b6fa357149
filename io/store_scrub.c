#define _GNU_SOURCE
/*
 * Scrub: compare every tile of the last commit with its hash. See include/strata/store.h.
 *
 * Where tiles lie follows from the lengths in the tile tables. These must give the hash of all
 * lengths that the header has, or a wrong length would move all tiles behind it.
 *
 * A scrub has one thread per drive, because hashing keeps one core busy at 10 to 20 GB/s. The
 * thread reads its drive front to back in requests of 4 MiB, with enough of them in flight to
 * keep the drive busy. Requests are hashed in the order of the file, in whatever order they
 * end, so one list of digests is enough, for the longest tile. The tables are in order of
 * offsets: a drive is read in one sequential pass, with gaps where other slots are.
 *
 * A transfer that fails does not end a scrub, as it would end a run: damaged tiles are what a
 * scrub looks for. Only a drive that does not answer ends its thread, since the drive may still
 * write to the buffers.
 *
 * The drives' threads send what they find through a channel, so the callback runs in the
 * caller's thread.
 *
 * Thread: the caller, and one per drive during a scrub.
 */

#include "strata/store.h"

#include "io/store_survey.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/progress.h"
#include "base/thread.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#define REQUEST_BYTES (4u << 20)
/* 64 MiB in flight: a drive of 10 GB/s stays busy while 6 ms are spent elsewhere. */
#define DEPTH           16u
#define BUFFER_BYTES    ((size_t)DEPTH * REQUEST_BYTES)
#define HUGE_PAGE_BYTES ((size_t)2 << 20)
/* With room to align the buffers to a huge page. */
#define MAP_BYTES   (BUFFER_BYTES + HUGE_PAGE_BYTES)
#define DEADLINE_S  120u
#define STACK_BYTES (512u << 10)
/* Lines on their way to the caller; a drive that has found more waits. */
#define NOTE_COUNT 64u

/* One record of a drive's table, where it is. */
struct target {
    const struct table_entry *entry;
    uint64_t offset;
};

/* A request of a scrub, in a ring of them. */
struct scrub_piece {
    struct io_req req; /* first: a reaped request is its piece */
    struct target target;
    uint64_t moved; /* bytes of its record before it */
    bool last;
    bool done;
};

/* What a drive's thread sends: a line, or that it has ended. */
struct scrub_note {
    bool end;
    char line[sizeof((strata_error *)NULL)->message];
};

struct scrub_drive {
    const struct drive *drive;
    struct io_file io_file;
    struct io_queue *queue;
    struct channel *notes;   /* borrowed */
    struct hash128 *digests; /* of the record being hashed */
    void *map;
    uint8_t *buffers; /* in map; one of REQUEST_BYTES per piece */
    struct scrub_piece pieces[DEPTH];
    uint64_t issued; /* pieces, ever */
    uint64_t hashed;
    uint32_t next_entry; /* what the next piece is cut from */
    uint64_t next_slot0; /* where its slot 0 is among the slots of the drive */
    uint64_t slot_bytes; /* all of them */
    uint64_t next_moved;
    bool entry_bad; /* the record being hashed is damaged, and that has been reported */
    uint64_t tiles;
    /* Written by the drive's thread, read by the caller for its progress; relaxed. */
    _Atomic uint64_t bytes;
    uint64_t bad;
    strata_error error; /* why the thread ended early */
    pthread_t thread;
    bool running;
};

static void note_bad(struct scrub_drive *scrub, const struct target *target, const char *what)
{
    strata_error story = {.status = STRATA_OK};
    struct scrub_note note = {.end = false};
    /* strata_fail() makes the line, since it replaces control bytes in a path. */
    (void)strata_fail(&story, STRATA_E_CORRUPT, 0,
                      "tile %" PRIu32 ", slot %" PRIu32 ": %s: %" PRIu64 " bytes at %" PRIu64
                      " in %s",
                      target->entry->record, target->entry->slot, what, target->entry->bytes,
                      target->offset, scrub->drive->file.path);
    memcpy(note.line, story.message, sizeof note.line);
    strata_channel_send(scrub->notes, &note);
    scrub->bad++;
    scrub->entry_bad = true;
}

static bool more_to_issue(const struct scrub_drive *scrub)
{
    return scrub->next_entry < scrub->drive->layout.record_count;
}

/* Cut the next request from the record that is next in the table. */
static void issue_piece(struct scrub_drive *scrub)
{
    const struct store_header *header = scrub->drive->header;
    const struct table_entry *entry =
        (const struct table_entry *)(scrub->drive->table + 1) + scrub->next_entry;
    uint32_t index = (uint32_t)(scrub->issued++ % DEPTH);
    struct scrub_piece *piece = &scrub->pieces[index];
    uint64_t left = entry->bytes - scrub->next_moved;
    uint64_t offset =
        scrub->drive->layout.slots_offset + scrub->next_slot0 + entry->slot * entry->bytes;
    if (header->drive_index == 0)
        offset += strata_store_records_before(scrub->next_slot0, scrub->slot_bytes) *
                  STRATA_STORE_BLOCK_BYTES;
    *piece = (struct scrub_piece){
        .req = {.op = IO_READ,
                .length = left < REQUEST_BYTES ? (uint32_t)left : REQUEST_BYTES,
                .buffer = scrub->buffers + (size_t)index * REQUEST_BYTES,
                .offset = offset + scrub->next_moved},
        .target = {.entry = entry, .offset = offset},
        .moved = scrub->next_moved,
        .last = left <= REQUEST_BYTES,
    };
    scrub->next_moved += piece->req.length;
    if (piece->last) {
        scrub->next_entry++;
        scrub->next_slot0 += strata_store_slots_of(header, entry->record) * entry->bytes;
        scrub->next_moved = 0;
    }
    strata_io_queue_start(scrub->queue, &piece->req);
}

static void check_hash(struct scrub_drive *scrub, const struct target *target)
{
    char what[80];
    struct hash128 is = strata_hash_fold(
        scrub->digests, strata_hash_piece_count(target->entry->bytes),
        strata_store_record_seed(target->entry->record, target->entry->updates));
    struct hash128 was = strata_store_get_hash(target->entry->hash);
    if (is.low == was.low && is.high == was.high)
        return;
    snprintf(what, sizeof what, "the hash differs, these are not the bytes of update %" PRIu64,
             target->entry->updates);
    note_bad(scrub, target, what);
}

/* Hash a piece, which is the next one in the order of the file. */
static void take_piece(struct scrub_drive *scrub, const struct scrub_piece *piece)
{
    const struct target *target = &piece->target;
    if (piece->moved == 0)
        scrub->entry_bad = false;
    if (piece->req.status != STRATA_OK && !scrub->entry_bad) {
        char what[80];
        snprintf(what, sizeof what, "read at %" PRIu64 ": %s", piece->req.offset,
                 piece->req.native != 0 ? strerror(piece->req.native)
                                        : "the device moved nothing");
        note_bad(scrub, target, what);
    }
    if (!scrub->entry_bad)
        strata_hash_pieces(piece->req.buffer, piece->req.length,
                           scrub->digests + piece->moved / STRATA_HASH_PIECE_BYTES);
    atomic_fetch_add_explicit(&scrub->bytes, piece->req.length, memory_order_relaxed);
    if (!piece->last)
        return;
    scrub->tiles++;
    if (!scrub->entry_bad)
        check_hash(scrub, target);
}

/* Wait for a piece. false: the drive does not answer. */
static bool await_piece(struct scrub_drive *scrub, const struct scrub_piece *piece)
{
    while (!piece->done) {
        struct scrub_piece *come =
            (struct scrub_piece *)strata_io_queue_reap(scrub->queue, UINT64_MAX);
        if (come == NULL)
            continue;
        come->done = true;
        if (come->req.status == STRATA_E_TIMEOUT) {
            scrub->error = *strata_io_queue_error(scrub->queue);
            return false;
        }
    }
    return true;
}

static void *scrub_serve(void *user)
{
    struct scrub_drive *scrub = user;
    for (;;) {
        while (more_to_issue(scrub) && scrub->issued - scrub->hashed < DEPTH)
            issue_piece(scrub);
        if (scrub->issued == scrub->hashed)
            break;
        struct scrub_piece *piece = &scrub->pieces[scrub->hashed % DEPTH];
        if (!await_piece(scrub, piece))
            break;
        take_piece(scrub, piece);
        scrub->hashed++;
    }
    strata_channel_send(scrub->notes, &(struct scrub_note){.end = true});
    return NULL;
}

static strata_status scrub_start(struct scrub_drive *scrub, strata_error *error)
{
    int rc = strata_thread_start(&scrub->thread, STACK_BYTES, scrub_serve, scrub);
    if (rc != 0)
        return strata_fail(error, STRATA_E_NOMEM, rc, "host: starting a thread to read %s: %s",
                           scrub->drive->file.path, strerror(rc));
    scrub->running = true;
    return STRATA_OK;
}

/* Bytes of the slots of all records of a drive, without the commit records between them. */
static uint64_t bytes_of_slots(const struct drive *drive)
{
    uint64_t records = drive->header->drive_index == 0
                           ? STRATA_STORE_RECORD_BLOCKS * STRATA_STORE_BLOCK_BYTES
                           : 0;
    return drive->layout.tables_offset[1] - drive->layout.slots_offset - records;
}

/* Bytes of the longest record in a drive's table. */
static uint64_t longest_record(const struct drive *drive)
{
    const struct table_entry *entries = (const struct table_entry *)(drive->table + 1);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < drive->layout.record_count; i++)
        bytes = entries[i].bytes > bytes ? entries[i].bytes : bytes;
    return bytes;
}

static strata_status scrub_open(struct scrub_drive *scrub, const struct drive *drive,
                                const struct io_ops *ops, uint64_t deadline_ns,
                                strata_error *error)
{
    scrub->drive = drive;
    scrub->slot_bytes = bytes_of_slots(drive);
    scrub->io_file = (struct io_file){.fd = drive->file.fd, .path = drive->file.path};
    uint64_t pieces = strata_hash_piece_count(longest_record(drive));
    scrub->digests = calloc(pieces > 0 ? pieces : 1, sizeof *scrub->digests);
    if (scrub->digests == NULL)
        return strata_fail(error, STRATA_E_NOMEM, ENOMEM,
                           "host: no memory for the hashes of %" PRIu64 " pieces of a tile",
                           pieces);
    scrub->map = mmap(NULL, MAP_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (scrub->map == MAP_FAILED) {
        scrub->map = NULL;
        return strata_fail(error, STRATA_E_NOMEM, errno, "host: %zu bytes to read %s: %s",
                           MAP_BYTES, drive->file.path, strerror(errno));
    }
    /* Huge pages save CPU time; the drive's rate is reached without them too. */
    (void)madvise(scrub->map, MAP_BYTES, MADV_HUGEPAGE);
    uintptr_t first = (uintptr_t)scrub->map + HUGE_PAGE_BYTES - 1;
    scrub->buffers = (uint8_t *)(first / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES);
    struct io_queue_desc desc = {
        .ops = ops,
        .files = &scrub->io_file,
        .file_count = 1,
        .depth = DEPTH,
        .deadline_ns = deadline_ns,
    };
    return strata_io_queue_open(&scrub->queue, &desc, error);
}

static void scrub_close(struct scrub_drive *scrub)
{
    if (scrub->running)
        pthread_join(scrub->thread, NULL);
    /* A drive that does not answer may still write to the buffers, so they stay mapped. */
    bool quiet = strata_io_queue_close(scrub->queue);
    if (scrub->map != NULL && quiet)
        munmap(scrub->map, MAP_BYTES);
    free(scrub->digests);
    scrub->running = false;
    scrub->queue = NULL;
    scrub->map = NULL;
    scrub->digests = NULL;
}

static void report_bad(const strata_scrub_desc *desc, const char *line)
{
    if (desc->on_bad != NULL)
        desc->on_bad(desc->on_bad_user, line);
}

/* Bytes of all records in the drives' tables. */
static uint64_t bytes_to_read(const struct survey *survey)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < survey->store.drive_count; i++) {
        const struct drive *drive = &survey->store.drives[i];
        const struct table_entry *entries = (const struct table_entry *)(drive->table + 1);
        for (uint32_t e = 0; e < drive->layout.record_count; e++)
            bytes += entries[e].bytes;
    }
    return bytes;
}

/* Pass lines on until every thread that was started has ended, and report progress. */
static void pass_lines_on(const struct survey *survey, const struct scrub_drive *scrubs,
                          const strata_scrub_desc *desc, struct channel *notes,
                          uint32_t running)
{
    struct scrub_note note;
    struct progress progress;
    const struct progress_call call = {.fn = desc->progress, .user = desc->progress_user};
    const uint64_t patience_ns = call.fn != NULL ? STRATA_PROGRESS_NS : UINT64_MAX;
    strata_progress_begin(&progress, &call, "scrubbing", bytes_to_read(survey),
                          strata_now_ns());
    while (running > 0) {
        bool received = strata_channel_receive(notes, &note, patience_ns);
        if (received && note.end)
            running--;
        else if (received)
            report_bad(desc, note.line);
        uint64_t bytes = 0;
        for (uint32_t i = 0; i < survey->store.drive_count; i++)
            bytes += atomic_load_explicit(&scrubs[i].bytes, memory_order_relaxed);
        strata_progress_at(&progress, bytes, strata_now_ns());
    }
}

/* Read the tables of the newest commit whose tables are whole, and report what is damaged. */
static strata_status pick_commit(struct survey *survey, struct damage *damage,
                                 strata_scrub_result *out, strata_error *error)
{
    strata_error story = {.status = STRATA_OK};
    if (strata_survey_check_lost(survey, &story) != STRATA_OK)
        strata_store_tell_damage(damage, &story);
    for (uint32_t i = 0; i < survey->commits.count; i++) {
        const struct commit_record *record = &survey->commits.blocks[survey->commits.order[i]];
        out->step = record->lines[0].step;
        if (strata_store_read_tables(&survey->store, &record->lines[0], damage, &story) ==
            STRATA_OK)
            return STRATA_OK;
    }
    return strata_fail(error, STRATA_E_CORRUPT, story.native, "%s", story.message);
}

/* Check that the lengths in the tables are those that the header was made for, and fit in the
 * files. */
static strata_status check_lengths(const struct survey *survey, strata_error *error)
{
    const struct store *store = &survey->store;
    struct store_records records = {.count = survey->header->record_count};
    uint64_t *bytes = calloc(records.count, sizeof *bytes);
    uint8_t hash[16];
    if (bytes == NULL)
        return strata_fail(error, STRATA_E_NOMEM, ENOMEM,
                           "host: no memory for the lengths of %" PRIu32 " tiles",
                           records.count);
    records.bytes = bytes;
    bool fits = true;
    for (uint32_t i = 0; i < store->drive_count; i++) {
        const struct drive *drive = &store->drives[i];
        const struct table_entry *entry = (const struct table_entry *)(drive->table + 1);
        uint64_t left = bytes_of_slots(drive);
        for (uint32_t j = 0; j < drive->layout.record_count && fits; j++, entry++) {
            uint32_t slots = strata_store_slots_of(survey->header, entry->record);
            fits = entry->bytes > 0 && entry->bytes % STRATA_IO_ALIGN_BYTES == 0 &&
                   entry->bytes <= left / slots && bytes[entry->record] == 0;
            bytes[entry->record] = entry->bytes;
            left -= fits ? entry->bytes * slots : 0;
        }
    }
    strata_store_put_hash(hash, strata_store_layout_hash(&records));
    free(bytes);
    if (fits && memcmp(hash, survey->header->layout_hash, sizeof hash) == 0)
        return STRATA_OK;
    return strata_fail(error, STRATA_E_CORRUPT, 0,
                       "the tile tables in %s name lengths that this store was not made for",
                       store->drives[0].file.path);
}

/* Open all drives on io_uring, or on threads if there is no io_uring. out says which. */
static strata_status open_drives(struct survey *survey, struct scrub_drive *scrubs,
                                 uint32_t deadline_s, strata_scrub_result *out,
                                 strata_error *error)
{
    const struct drive *drives = survey->store.drives;
    uint64_t deadline_ns = (deadline_s > 0 ? deadline_s : DEADLINE_S) * UINT64_C(1000000000);
    strata_error lack = {.status = STRATA_OK};
    const struct io_ops *ops = &strata_io_uring;
    strata_status status = scrub_open(&scrubs[0], &drives[0], ops, deadline_ns, &lack);
    if (status == STRATA_E_UNSUPPORTED) {
        ops = &strata_io_threads;
        scrub_close(&scrubs[0]);
        status = scrub_open(&scrubs[0], &drives[0], ops, deadline_ns, error);
    } else if (status != STRATA_OK && error != NULL) {
        *error = lack;
    }
    out->backend = ops->name;
    for (uint32_t i = 1; i < survey->store.drive_count && status == STRATA_OK; i++)
        status = scrub_open(&scrubs[i], &drives[i], ops, deadline_ns, error);
    return status;
}

static strata_status run_drives(struct survey *survey, struct scrub_drive *scrubs,
                                const strata_scrub_desc *desc, strata_error *error)
{
    struct channel *notes;
    strata_status status = STRATA_OK;
    uint32_t running = 0;
    STRATA_TRY(strata_channel_create(&notes, NOTE_COUNT, sizeof(struct scrub_note), error));
    for (; running < survey->store.drive_count && status == STRATA_OK; running++) {
        scrubs[running].notes = notes;
        status = scrub_start(&scrubs[running], error);
        if (status != STRATA_OK)
            break;
    }
    pass_lines_on(survey, scrubs, desc, notes, running);
    for (uint32_t i = 0; i < running; i++) {
        pthread_join(scrubs[i].thread, NULL);
        scrubs[i].running = false;
    }
    strata_channel_destroy(notes);
    return status;
}

static strata_status sum_up(const struct survey *survey, const struct scrub_drive *scrubs,
                            strata_scrub_result *out, strata_error *error)
{
    out->direct = true;
    for (uint32_t i = 0; i < survey->store.drive_count; i++) {
        out->tiles += scrubs[i].tiles;
        out->bytes += scrubs[i].bytes;
        out->bad += scrubs[i].bad;
        out->direct = out->direct && survey->store.drives[i].file.direct;
    }
    for (uint32_t i = 0; i < survey->store.drive_count; i++)
        if (scrubs[i].error.status != STRATA_OK)
            return strata_fail(error, scrubs[i].error.status, scrubs[i].error.native, "%s",
                               scrubs[i].error.message);
    if (out->bad == 0)
        return STRATA_OK;
    return strata_fail(error, STRATA_E_CORRUPT, 0,
                       "scrub of %.120s, step %" PRIu64 ": %" PRIu64
                       " damaged tiles, tables or commit records, %" PRIu64 " tiles read",
                       survey->store.drives[0].file.path, out->step, out->bad, out->tiles);
}

static strata_status scrub_survey(struct survey *survey, const strata_scrub_desc *desc,
                                  struct damage *damage, strata_scrub_result *out,
                                  strata_error *error)
{
    if (survey->commits.count == 0)
        return strata_survey_no_commit(desc->dirs[0], error);
    strata_status picked = pick_commit(survey, damage, out, error);
    out->bad = damage->count;
    STRATA_TRY(picked);
    STRATA_TRY(check_lengths(survey, error));
    struct scrub_drive *scrubs = calloc(survey->store.drive_count, sizeof *scrubs);
    if (scrubs == NULL)
        return strata_fail(error, STRATA_E_NOMEM, ENOMEM, "host: no memory for a scrub");
    uint64_t begin_ns = strata_now_ns();
    strata_status status = open_drives(survey, scrubs, desc->io_deadline_s, out, error);
    if (status == STRATA_OK)
        status = run_drives(survey, scrubs, desc, error);
    out->seconds = (double)(strata_now_ns() - begin_ns) * 1e-9;
    if (status == STRATA_OK)
        status = sum_up(survey, scrubs, out, error);
    for (uint32_t i = 0; i < survey->store.drive_count; i++)
        scrub_close(&scrubs[i]);
    free(scrubs);
    return status;
}

strata_status strata_store_scrub(strata_scrub_result *out, const strata_scrub_desc *desc,
                                 strata_error *error)
{
    struct survey survey;
    if (out == NULL || desc == NULL)
        return strata_fail(error, STRATA_E_INVALID, 0, "scrub: %s is NULL",
                           out == NULL ? "out" : "the descriptor");
    struct damage damage = {.tell = desc->on_bad, .user = desc->on_bad_user};
    *out = (strata_scrub_result){.step = 0};
    strata_status status =
        strata_survey_begin(&survey, desc->dirs, desc->dir_count, true, &damage, error);
    if (status == STRATA_OK)
        status = scrub_survey(&survey, desc, &damage, out, error);
    strata_survey_end(&survey);
    return status;
}
