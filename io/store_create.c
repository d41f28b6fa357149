#define _GNU_SOURCE
/*
 * Filling a store's files when it is made, and when a resume makes them longer. A resume
 * flushes them before it writes anything.
 *
 * Every block is written once. That proves that the space is there, and the file system need
 * not convert reserved extents in the middle of a step. All drives are written at once, each by
 * a thread that ends before the drive's I/O thread begins.
 *
 * If a new store has several drives, writing the first part of each file measures how fast its
 * drive writes. Places are shared out by that, so that all drives end a step's transfers at the
 * same time and none waits for the slowest. The header keeps the shares, so a resume finds the
 * same places even if the drives' speeds have changed. Writing is measured because a new file
 * can only be written, and because it is the slower half of a step.
 *
 * Thread: the opener, and "I/O" for each drive.
 */

#include "io/store_internal.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/progress.h"
#include "base/thread.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/random.h>
#include <sys/statvfs.h>
#include <time.h>

/* For the loop, the hash and the owner's done functions; sanitizers need most of it. */
#define STACK_BYTES (512u << 10)

/* Start one request and wait for it. Nothing else is in flight. */
static strata_status transfer_alone(struct drive *drive, const struct io_req *req)
{
    struct piece *piece = strata_drive_take(drive);
    piece->req = *req;
    strata_io_queue_start(drive->queue, &piece->req);
    while (strata_drive_reap(drive, UINT64_MAX) == NULL)
        continue;
    strata_status status = piece->req.status;
    strata_drive_free(drive, piece);
    return status;
}

/* Write every block from fill_from on. A failure of any drive ends it. */
static void fill_file(struct drive *drive, uint64_t end)
{
    struct store *store = drive->store;
    uint64_t at = drive->fill_from;
    for (;;) {
        bool more = at < end && strata_store_failed(store) == STRATA_OK;
        while (more && drive->free_pieces != NULL) {
            uint64_t left = end - at;
            struct piece *piece = strata_drive_take(drive);
            piece->req = (struct io_req){
                .op = IO_WRITE,
                .length =
                    (uint32_t)(left < STRATA_STORE_FILL_BYTES ? left : STRATA_STORE_FILL_BYTES),
                .buffer = store->fill,
                .offset = at,
            };
            at += piece->req.length;
            strata_io_queue_start(drive->queue, &piece->req);
            more = at < end;
        }
        if (drive->piece_count == 0)
            return;
        struct piece *piece = strata_drive_reap(drive, UINT64_MAX);
        if (piece == NULL)
            continue;
        atomic_fetch_add_explicit(&drive->filled_bytes, piece->req.length,
                                  memory_order_relaxed);
        strata_drive_free(drive, piece);
    }
}

/* Fill the places of the commit records with a known pattern. As long as it is there, the store
 * has no commit. */
static strata_status write_empty_records(struct drive *drive)
{
    struct store *store = drive->store;
    /* There is no commit yet, so the block for its record is free. */
    struct empty_record *empty = (struct empty_record *)store->record;
    for (uint32_t i = 0; i < STRATA_STORE_RECORD_BLOCKS; i++) {
        memset(empty, 0, sizeof *empty);
        memcpy(empty->store_id, store->store_id, sizeof empty->store_id);
        empty->block = i;
        strata_store_empty_finish(empty);
        struct io_req req = {.op = IO_WRITE,
                             .length = sizeof *empty,
                             .buffer = empty,
                             .offset = drive->layout.record_offsets[i]};
        STRATA_TRY(transfer_alone(drive, &req));
    }
    return STRATA_OK;
}

/* Write the header and see that it can be read. */
static void write_header(struct drive *drive, strata_error *error)
{
    struct io_req req = {
        .op = IO_WRITE, .length = sizeof *drive->header, .buffer = drive->header};
    if (transfer_alone(drive, &req) != STRATA_OK ||
        transfer_alone(drive, &(struct io_req){.op = IO_SYNC}) != STRATA_OK)
        return;
    memset(drive->header, 0, sizeof *drive->header);
    req.op = IO_READ;
    if (transfer_alone(drive, &req) == STRATA_OK)
        (void)strata_store_header_check(drive->header, drive->file.path, error);
}

static void create_contents(struct drive *drive, strata_error *error)
{
    /* The process before may have been killed between a write and its flush. What it wrote has
     * been read and is believed, but a loss of power could still take it back, and what this
     * run writes goes over the commit before it. So all of it is flushed first. */
    if (drive->store->resumed &&
        transfer_alone(drive, &(struct io_req){.op = IO_SYNC}) != STRATA_OK)
        return;
    if (strata_store_file_resize(&drive->file, drive->layout.file_bytes, error) != STRATA_OK)
        return;
    fill_file(drive, drive->layout.file_bytes);
    struct store *store = drive->store;
    if (strata_store_failed(store) != STRATA_OK || store->resumed)
        return;
    if (store->durable && drive == store->drives && write_empty_records(drive) != STRATA_OK)
        return;
    write_header(drive, error);
}

static void *create_drive(void *user)
{
    struct drive *drive = user;
    strata_error error = {.status = STRATA_OK};
    create_contents(drive, &error);
    if (error.status != STRATA_OK)
        strata_store_note(drive->store, &error);
    return NULL;
}

/* Write the first part of a new file, and measure how long that takes. */
static void *probe_drive(void *user)
{
    struct drive *drive = user;
    strata_error error = {.status = STRATA_OK};
    uint64_t end = drive->fill_from + drive->store->probe_bytes;
    if (strata_store_file_resize(&drive->file, end, &error) != STRATA_OK) {
        strata_store_note(drive->store, &error);
        return NULL;
    }
    uint64_t begin_ns = strata_now_ns();
    fill_file(drive, end);
    drive->probe_ns = strata_now_ns() - begin_ns;
    /* Creation continues behind it, or cuts the file if the drive's share is less. */
    drive->fill_from = end;
    drive->file.found_bytes = end;
    drive->file.taken_bytes = end;
    drive->file.reclaim_bytes = end;
    return NULL;
}

strata_status strata_drive_start(struct drive *drive, void *(*run)(void *), strata_error *error)
{
    int rc = strata_thread_start(&drive->thread, STACK_BYTES, run, drive);
    if (rc != 0)
        return strata_fail(error, STRATA_E_NOMEM, rc, "host: starting the I/O thread of %s: %s",
                           drive->file.path, strerror(rc));
    pthread_setname_np(drive->thread, "strata-io");
    drive->running = true;
    return STRATA_OK;
}

static uint64_t filled_bytes(const struct store *store)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < store->drive_count; i++)
        bytes += atomic_load_explicit(&store->drives[i].filled_bytes, memory_order_relaxed);
    return bytes;
}

/* Wait for a drive's thread, and report meanwhile how far all drives are. The wait goes by the
 * wall clock; if that jumps, a report comes late. */
static void join_drive(struct drive *drive, struct progress *progress)
{
    while (drive->running && progress->call.fn != NULL) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += STRATA_PROGRESS_NS;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        if (pthread_timedjoin_np(drive->thread, NULL, &until) == 0)
            drive->running = false;
        strata_progress_at(progress, filled_bytes(drive->store), strata_now_ns());
    }
    strata_drive_join(drive);
}

/* Run a function for all drives at once, each on a thread of its own, and wait for all. */
static strata_status run_drives(struct store *store, void *(*run)(void *),
                                struct progress *progress, strata_error *error)
{
    strata_status status = STRATA_OK;
    for (uint32_t i = 0; i < store->drive_count && status == STRATA_OK; i++)
        status = strata_drive_start(&store->drives[i], run, error);
    for (uint32_t i = 0; i < store->drive_count; i++)
        join_drive(&store->drives[i], progress);
    return status == STRATA_OK ? strata_store_tell(store, error) : status;
}

/* The total is what is written already and what is left. The probe may have written more of a
 * file than it keeps. */
static void begin_progress(struct progress *progress, const struct store *store,
                           const struct store_desc *desc)
{
    const struct progress_call call = {.fn = desc->progress, .user = desc->progress_user};
    uint64_t total = filled_bytes(store);
    for (uint32_t i = 0; i < store->drive_count; i++) {
        const struct drive *drive = &store->drives[i];
        if (drive->layout.file_bytes > drive->fill_from)
            total += drive->layout.file_bytes - drive->fill_from;
    }
    strata_progress_begin(progress, &call, "writing the store", total, strata_now_ns());
}

/* Not zeros: some drives store these without taking space for them. */
static void make_fill_pattern(uint8_t *fill)
{
    uint64_t state = 0;
    for (size_t i = 0; i < STRATA_STORE_FILL_BYTES; i += sizeof state) {
        state = state * 6364136223846793005u + 1442695040888963407u; // Knuth's MMIX generator
        memcpy(fill + i, &state, sizeof state);
    }
}

strata_status strata_store_check_space(const struct store *store, const struct store_desc *desc,
                                       strata_error *error)
{
    for (uint32_t i = 0; i < store->drive_count; i++) {
        struct statvfs free_space;
        if (fstatvfs(store->drives[i].file.dir_fd, &free_space) != 0)
            return strata_fail(error, STRATA_E_IO, errno, "free space in %s: %s", desc->dirs[i],
                               strerror(errno));
        uint64_t need = 0;
        uint64_t have = (uint64_t)free_space.f_bavail * free_space.f_frsize;
        for (uint32_t j = 0; j < store->drive_count; j++) {
            if (store->drives[j].file.device != store->drives[i].file.device)
                continue;
            need += store->drives[j].layout.file_bytes;
            have += store->drives[j].file.reclaim_bytes;
        }
        /* Some file systems in RAM report no size; then reserving the space may fail. */
        if (free_space.f_blocks > 0 && need > have)
            return strata_fail(error, STRATA_E_NOMEM, ENOSPC,
                               "nvme: need %" PRIu64 " bytes, have %" PRIu64
                               " free on the file system of %s",
                               need, have, desc->dirs[i]);
    }
    return STRATA_OK;
}

static strata_status make_header(struct store_header *out, const struct store_desc *desc,
                                 strata_error *error)
{
    const struct store_records *records = desc->records;
    *out = (struct store_header){
        .drive_count = desc->dir_count,
        .tile_elems = desc->tile_elems,
        .durable = records->durable,
        .record_type = records->record_type,
        .record_count = records->count,
        .fixed_count = records->fixed_count,
        .slots = records->count > 0 ? records->slots : 1,
        .keep = records->keep,
    };
    strata_store_put_hash(out->layout_hash, strata_store_layout_hash(records));
    if (records->durable) {
        out->identity_bytes = (uint32_t)strlen(records->identity);
        memcpy(out->identity, records->identity, out->identity_bytes);
    }
    if (getrandom(out->store_id, sizeof out->store_id, 0) != sizeof out->store_id)
        return strata_fail(error, STRATA_E_IO, errno, "getrandom: %s", strerror(errno));
    return STRATA_OK;
}

static strata_status make_headers(struct store *store, const struct store_desc *desc,
                                  strata_error *error)
{
    struct store_header common;
    STRATA_TRY(make_header(&common, desc, error));
    memcpy(common.shares, store->shares, sizeof common.shares);
    memcpy(store->store_id, common.store_id, sizeof store->store_id);
    for (uint32_t i = 0; i < store->drive_count; i++) {
        struct drive *drive = &store->drives[i];
        *drive->header = common;
        drive->header->drive_index = i;
        drive->header->durable_bytes = drive->layout.durable_bytes;
        drive->header->file_records = drive->layout.record_count;
        if (store->durable && i == 0)
            memcpy(drive->header->record_offsets, drive->layout.record_offsets,
                   sizeof drive->header->record_offsets);
        strata_store_header_finish(drive->header);
    }
    return STRATA_OK;
}

static void log_shares(const struct store *store, const struct store_desc *desc)
{
    for (uint32_t i = 0; i < store->drive_count; i++)
        if (store->shares[i] < STRATA_STORE_FULL_SHARE)
            strata_store_log(desc, "store: %s writes slower and gets %.2f of a full share",
                             desc->dirs[i], (double)store->shares[i] / STRATA_STORE_FULL_SHARE);
}

/* A probe is worth its time if each drive has at least that much to write. */
static bool probe_is_worth_it(const struct store *store)
{
    for (uint32_t i = 0; i < store->drive_count; i++)
        if (store->drives[i].layout.file_bytes < STRATA_STORE_BLOCK_BYTES + store->probe_bytes)
            return false;
    return store->drive_count > 1;
}

/* Give a new store's drives shares by their speed, if there is space for that. */
static strata_status share_by_speed(struct store *store, const struct store_desc *desc,
                                    strata_error *error)
{
    uint64_t times_ns[STRATA_STORE_MAX_DRIVES];
    strata_error lack = {.status = STRATA_OK};
    struct progress none = {.total = 0}; /* A probe takes a moment. */
    STRATA_TRY(run_drives(store, probe_drive, &none, error));
    for (uint32_t i = 0; i < store->drive_count; i++)
        times_ns[i] = store->drives[i].probe_ns;
    strata_store_share(times_ns, store->drive_count, store->shares);
    strata_store_settle(store, desc);
    if (strata_store_check_space(store, desc, &lack) != STRATA_OK) {
        strata_store_log(desc, "store: drives get equal shares, not by speed: %s",
                         lack.message);
        strata_store_share_evenly(store, desc);
    }
    log_shares(store, desc);
    return STRATA_OK;
}

strata_status strata_store_create(struct store *store, const struct store_desc *desc,
                                  strata_error *error)
{
    make_fill_pattern(store->fill);
    if (!store->resumed && probe_is_worth_it(store))
        STRATA_TRY(share_by_speed(store, desc, error));
    if (!store->resumed)
        STRATA_TRY(make_headers(store, desc, error));
    struct progress progress;
    begin_progress(&progress, store, desc);
    return run_drives(store, create_drive, &progress, error);
}
