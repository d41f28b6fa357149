#define _GNU_SOURCE
/*
 * Opening a store: making a new one, or resuming one that exists.
 *
 * Everything that can be refused is refused before anything is written: a limit that is too
 * low, directories that are missing or named twice, a file that is not ours, a lock that is
 * held, a run that must not be overwritten, too little space. If the call fails later, the
 * files that it made are removed.
 *
 * A durable store's files get their names once every block of them is written (store_create.c),
 * the first drive's first. So a file with the name is complete, and the first drive shows
 * whether there is a commit.
 *
 * A store that is resumed keeps all but its scratch places. These lie at the end, so the file
 * is cut or made longer there, and what is new of it is written.
 *
 * All memory is taken here. The tables are one block, so that the bytes that the budget counts
 * are the bytes that are taken.
 *
 * Thread: the opener.
 */

#include "io/store_internal.h"

#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#define DEFAULT_DEPTH         32u
#define DEFAULT_REQUEST_BYTES (4u << 20)
#define DEFAULT_DEADLINE_NS   120000000000u

/* A drive's speed is measured by writing this: some 10 ms of a fast drive, a second of a slow
 * one. */
#define DEFAULT_PROBE_BYTES (64u << 20)

static uint32_t depth_of(const struct store_desc *desc)
{
    return desc->depth > 0 ? desc->depth : DEFAULT_DEPTH;
}

static uint64_t recovered_bytes(const struct store_desc *desc)
{
    const struct store_records *records = desc->records;
    return records->durable ? (uint64_t)(1 + records->keep) * records->count : 0;
}

/* A list of digests for the largest place. */
static uint64_t list_bytes(const struct store_desc *desc)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < desc->place_count; i++)
        most = desc->place_bytes[i] > most ? desc->place_bytes[i] : most;
    for (uint32_t i = 0; i < desc->records->count; i++)
        most = desc->records->bytes[i] > most ? desc->records->bytes[i] : most;
    return sizeof(struct digest_list) + strata_hash_piece_count(most) * sizeof(struct hash128);
}

static uint64_t block_bytes(const struct store_desc *desc)
{
    return sizeof(struct store) + desc->dir_count * sizeof(struct drive) +
           (uint64_t)strata_store_all_places(desc) * sizeof(struct place) +
           (uint64_t)desc->dir_count * depth_of(desc) *
               (sizeof(struct piece) + list_bytes(desc)) +
           recovered_bytes(desc);
}

static uint64_t fill_bytes(const struct store_desc *desc)
{
    return STRATA_STORE_FILL_BYTES + (uint64_t)desc->dir_count * STRATA_STORE_BLOCK_BYTES;
}

/* A table per drive, however the records are shared, a commit record and a receipt. */
static uint64_t durable_bytes(const struct store_desc *desc)
{
    struct drive_layout drives[STRATA_STORE_MAX_DRIVES];
    uint64_t bytes = (2 + (uint64_t)strata_store_spare_blocks(desc)) * STRATA_STORE_BLOCK_BYTES;
    if (!desc->records->durable)
        return 0;
    strata_store_lay_out(desc, NULL, drives, NULL);
    for (uint32_t i = 0; i < desc->dir_count; i++)
        bytes += drives[i].table_bytes;
    return bytes;
}

/* A transfer of every place, and the message that stops the thread. */
static uint32_t channel_capacity(uint32_t place_count)
{
    return place_count + 1;
}

/* The larger of the two backends', so that a fallback to the other one changes no plan. */
static uint64_t queue_bytes(uint32_t depth)
{
    uint64_t uring = strata_io_queue_bytes(&strata_io_uring, depth);
    uint64_t threads = strata_io_queue_bytes(&strata_io_threads, depth);
    return uring > threads ? uring : threads;
}

uint64_t strata_store_table_bytes(const struct store_desc *desc)
{
    STRATA_CHECK(desc->dir_count <= STRATA_STORE_MAX_DRIVES);
    uint64_t bytes = block_bytes(desc) + fill_bytes(desc) + durable_bytes(desc);
    uint64_t channel = strata_channel_bytes(channel_capacity(strata_store_all_places(desc)),
                                            sizeof(struct store_io *));
    for (uint32_t i = 0; i < desc->dir_count; i++)
        bytes += channel + queue_bytes(depth_of(desc)) + strata_store_file_memory_bytes();
    return bytes;
}

static void check_desc(const struct store_desc *desc)
{
    const struct store_records *records = desc->records;
    STRATA_CHECK(desc->dir_count > 0 && strata_store_all_places(desc) < UINT32_MAX);
    STRATA_CHECK(desc->probe_bytes % STRATA_IO_ALIGN_BYTES == 0);
    STRATA_CHECK(desc->request_bytes % STRATA_HASH_PIECE_BYTES == 0);
    STRATA_CHECK(desc->request_bytes <= UINT32_MAX && depth_of(desc) <= STRATA_IO_MAX_DEPTH);
    for (uint32_t i = 0; i < desc->place_count; i++)
        STRATA_CHECK(desc->place_bytes[i] > 0 &&
                     desc->place_bytes[i] % STRATA_IO_ALIGN_BYTES == 0);
    for (uint32_t i = 0; i < records->count; i++)
        STRATA_CHECK(records->bytes[i] % STRATA_IO_ALIGN_BYTES == 0);
    STRATA_CHECK(records->count == 0 || records->slots > 0);
    STRATA_CHECK(!records->durable ||
                 (records->keep <= STRATA_STORE_MAX_KEEP &&
                  records->slots >= 2 + records->keep && records->slots <= 3 + records->keep &&
                  records->identity != NULL &&
                  (records->commit_every > 0 || records->new_commit_every > 0)));
}

/* Check what a user may get wrong and what needs no look at a file. */
static strata_status check_limits(const struct store_desc *desc, strata_error *error)
{
    size_t identity =
        desc->records->durable ? strnlen(desc->records->identity, SIZE_MAX / 2) : 0;
    if (identity > STRATA_IDENTITY_BYTES)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "the run's identity has %zu bytes, a store holds %u", identity,
                           STRATA_IDENTITY_BYTES);
    if (identity > 0 && !strata_store_is_text(desc->records->identity, identity))
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "the run's identity has control characters: give lines of text");
    uint64_t need = strata_store_file_bytes(desc);
    if (need > desc->limit_bytes)
        return strata_fail(error, STRATA_E_NOMEM, 0,
                           "nvme: need %" PRIu64 " bytes for the store's files, have %" PRIu64,
                           need, desc->limit_bytes);
    return STRATA_OK;
}

/* A drive without file and queue, as it is at first. */
static void init_drive(struct store *store, uint32_t index, uint64_t list_bytes)
{
    struct drive *drive = &store->drives[index];
    drive->store = store;
    drive->file = (struct store_file){.dir_fd = -1, .fd = -1};
    drive->end = &drive->first;
    drive->header = (struct store_header *)(store->fill + STRATA_STORE_FILL_BYTES) + index;
    struct piece *pieces = store->pieces + (size_t)index * store->depth;
    for (uint32_t i = store->depth; i > 0; i--) {
        pieces[i - 1].next = drive->free_pieces;
        drive->free_pieces = &pieces[i - 1];
        struct digest_list *list =
            (struct digest_list *)(store->lists +
                                   ((size_t)index * store->depth + i - 1) * list_bytes);
        list->next = drive->free_lists;
        drive->free_lists = list;
    }
}

/* The parts of the store's block, one after the other. */
static void carve(struct store *store, const struct store_desc *desc)
{
    store->drives = (struct drive *)(store + 1);
    store->places = (struct place *)(store->drives + desc->dir_count);
    store->pieces = (struct piece *)(store->places + store->place_count);
    size_t piece_count = (size_t)desc->dir_count * store->depth;
    store->lists = (uint8_t *)(store->pieces + piece_count);
    store->recovered_slots = store->lists + piece_count * list_bytes(desc);
    memset(store->fill + STRATA_STORE_FILL_BYTES, 0,
           fill_bytes(desc) - STRATA_STORE_FILL_BYTES);
    for (uint32_t i = 0; i < store->drive_count; i++)
        init_drive(store, i, list_bytes(desc));
    strata_store_share_evenly(store, desc);
}

static void copy_desc(struct store *store, const struct store_desc *desc)
{
    store->drive_count = desc->dir_count;
    store->scratch_count = desc->place_count;
    store->public_count = strata_store_public_places(desc);
    store->place_count = strata_store_all_places(desc);
    store->record_count = desc->records->count;
    store->slots = desc->records->slots;
    store->keep = desc->records->keep;
    store->durable = desc->records->durable;
    store->flush = desc->records->flush;
    store->before_commit = desc->records->before_commit;
    store->before_commit_user = desc->records->before_commit_user;
    store->recovery.commit_every = desc->records->commit_every;
    store->depth = depth_of(desc);
    store->request_bytes =
        desc->request_bytes > 0 ? desc->request_bytes : DEFAULT_REQUEST_BYTES;
    store->probe_bytes = desc->probe_bytes > 0 ? desc->probe_bytes : DEFAULT_PROBE_BYTES;
    store->deadline_ns = desc->deadline_ns > 0 ? desc->deadline_ns : DEFAULT_DEADLINE_NS;
}

static strata_status allocate(struct store **out, const struct store_desc *desc,
                              strata_error *error)
{
    uint64_t bytes = block_bytes(desc);
    uint64_t blocks = durable_bytes(desc);
    struct store *store = calloc(1, bytes);
    uint8_t *fill = aligned_alloc(STRATA_IO_ALIGN_BYTES, fill_bytes(desc));
    uint8_t *durable = blocks > 0 ? aligned_alloc(STRATA_IO_ALIGN_BYTES, blocks) : NULL;
    if (store == NULL || fill == NULL || (durable == NULL && blocks > 0)) {
        free(durable);
        free(fill);
        free(store);
        return strata_fail(error, STRATA_E_NOMEM, ENOMEM,
                           "host: need %" PRIu64 " bytes for the store's tables, have none",
                           bytes + fill_bytes(desc) + blocks);
    }
    copy_desc(store, desc);
    store->fill = fill;
    store->blocks = durable;
    pthread_mutex_init(&store->error_lock, NULL);
    carve(store, desc);
    *out = store;
    return STRATA_OK;
}

static bool same_directory(const char *a, const char *b)
{
    struct stat one, other;
    return stat(a, &one) == 0 && stat(b, &other) == 0 && one.st_dev == other.st_dev &&
           one.st_ino == other.st_ino;
}

strata_status strata_store_find_files(struct store *store, const char *const *dirs,
                                      bool read_only, strata_error *error)
{
    for (uint32_t i = 0; i < store->drive_count; i++) {
        for (uint32_t j = 0; j < i; j++)
            if (same_directory(dirs[i], dirs[j]))
                return strata_fail(error, STRATA_E_INVALID, 0,
                                   "store directories %s and %s are the same", dirs[j],
                                   dirs[i]);
        struct drive *drive = &store->drives[i];
        STRATA_TRY(
            strata_store_file_find(&drive->file, dirs[i], read_only, drive->header, error));
    }
    return STRATA_OK;
}

/* Remove the files found, which have no commit. The last drive's goes first: see above. */
static strata_status discard_files(struct store *store, strata_error *error)
{
    for (uint32_t i = store->drive_count; i > 0; i--)
        STRATA_TRY(strata_store_file_discard(&store->drives[i - 1].file, error));
    return STRATA_OK;
}

static strata_status make_files(struct store *store, const struct store_desc *desc,
                                strata_error *error)
{
    bool allow_buffered = desc->allow & STRATA_ALLOW_BUFFERED_IO;
    STRATA_TRY(discard_files(store, error));
    for (uint32_t i = 0; i < store->drive_count; i++) {
        struct drive *drive = &store->drives[i];
        drive->fill_from = STRATA_STORE_BLOCK_BYTES;
        STRATA_TRY(
            strata_store_file_make(&drive->file, !store->durable, allow_buffered, error));
    }
    return STRATA_OK;
}

static strata_status adopt_files(struct store *store, const struct store_desc *desc,
                                 strata_error *error)
{
    bool allow_buffered = desc->allow & STRATA_ALLOW_BUFFERED_IO;
    for (uint32_t i = 0; i < store->drive_count; i++) {
        struct drive *drive = &store->drives[i];
        /* In blocks, since a crash may have left the file at any length while it was made
         * longer. */
        drive->fill_from =
            drive->file.found_bytes / STRATA_STORE_BLOCK_BYTES * STRATA_STORE_BLOCK_BYTES;
        STRATA_TRY(strata_store_file_adopt(&drive->file, allow_buffered, error));
    }
    return STRATA_OK;
}

static strata_status publish_files(struct store *store, strata_error *error)
{
    for (uint32_t i = 0; i < store->drive_count && !store->resumed; i++)
        STRATA_TRY(strata_store_file_publish(&store->drives[i].file, error));
    return STRATA_OK;
}

static strata_status open_queue(struct drive *drive, const struct store_desc *store_desc,
                                strata_error *error)
{
    const struct store *store = drive->store;
    drive->io_file = (struct io_file){.fd = drive->file.fd, .path = drive->file.path};
    struct io_queue_desc desc = {
        .ops = store->ops,
        .ops_config = store->ops_config,
        .files = &drive->io_file,
        .file_count = 1,
        .depth = store->depth,
        .region = {.base = store_desc->buffers, .bytes = store_desc->buffers_bytes},
        .deadline_ns = store->deadline_ns,
    };
    return strata_io_queue_open(&drive->queue, &desc, error);
}

void strata_store_log(const struct store_desc *desc, const char *format, ...)
{
    char line[320];
    va_list args;
    if (desc->log == NULL)
        return;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    desc->log(desc->log_user, line);
}

/* The first drive shows whether the backend works here; the others get the same one. */
static strata_status open_queues(struct store *store, const struct store_desc *desc,
                                 strata_error *error)
{
    strata_error lack = {.status = STRATA_OK};
    bool may_fall_back =
        store->ops == &strata_io_uring && (desc->allow & STRATA_ALLOW_THREADS_IO);
    strata_status status = open_queue(&store->drives[0], desc, may_fall_back ? &lack : error);
    if (status == STRATA_E_UNSUPPORTED && may_fall_back) {
        strata_store_log(desc, "store: I/O by threads: %s", lack.message);
        store->ops = &strata_io_threads;
        status = open_queue(&store->drives[0], desc, error);
    } else if (status != STRATA_OK && may_fall_back && error != NULL) {
        *error = lack;
    }
    STRATA_TRY(status);
    for (uint32_t i = 1; i < store->drive_count; i++)
        STRATA_TRY(open_queue(&store->drives[i], desc, error));
    return STRATA_OK;
}

/* A registration that is refused is no failure: requests then cost a little more. */
static void log_unregistered(const struct store *store, const struct store_desc *desc)
{
    int32_t cause;
    for (uint32_t i = 0; i < store->drive_count; i++)
        if (!strata_io_queue_registered(store->drives[i].queue, &cause) && cause != 0) {
            strata_store_log(
                desc, "store: buffers are not registered, I/O takes more CPU: %s%s",
                strerror(cause), cause == ENOMEM ? ": raise the memlock limit" : "");
            return;
        }
}

static strata_status open_channels(struct store *store, strata_error *error)
{
    for (uint32_t i = 0; i < store->drive_count; i++)
        STRATA_TRY(strata_channel_create(&store->drives[i].channel,
                                         channel_capacity(store->place_count),
                                         sizeof(struct store_io *), error));
    return STRATA_OK;
}

/* Others who may write to the directory can remove the files. It is the user's directory, so
 * its mode is not changed; the log says so. */
static void warn_of_others(const struct store *store, const struct store_desc *desc)
{
    for (uint32_t i = 0; i < store->drive_count; i++)
        if (store->drives[i].file.others_write)
            strata_store_log(desc,
                             "store: others may write to %s and remove the store: chmod go-w "
                             "keeps them out",
                             desc->dirs[i]);
}

static strata_status open_parts(struct store *store, const struct store_desc *desc,
                                strata_error *error)
{
    STRATA_TRY(strata_store_find_files(store, desc->dirs, false, error));
    warn_of_others(store, desc);
    STRATA_TRY(strata_store_recover(store, desc, error));
    if (!store->resumed && store->recovery.commit_every == 0)
        store->recovery.commit_every = desc->records->new_commit_every;
    STRATA_TRY(strata_store_check_space(store, desc, error));
    STRATA_TRY((store->resumed ? adopt_files : make_files)(store, desc, error));
    STRATA_TRY(open_queues(store, desc, error));
    STRATA_TRY(open_channels(store, error));
    STRATA_TRY(strata_store_create(store, desc, error));
    for (uint32_t i = 0; i < store->drive_count; i++)
        STRATA_TRY(strata_drive_start(&store->drives[i], strata_drive_serve, error));
    if (!store->durable)
        return STRATA_OK;
    STRATA_TRY(publish_files(store, error));
    strata_status status = STRATA_OK;
    if (store->relist)
        status = strata_store_relist(store);
    else if (store->confirm)
        status = strata_store_confirm(store);
    return status == STRATA_OK ? STRATA_OK : strata_store_tell(store, error);
}

strata_status strata_store_open_on(struct store **out, const struct store_desc *desc,
                                   const struct io_ops *ops, const void *ops_config,
                                   strata_error *error)
{
    struct store *store = NULL;
    *out = NULL;
    if (desc->records->count > STRATA_STORE_MAX_RECORDS)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "a store has %u tiles at most, this run %" PRIu32,
                           STRATA_STORE_MAX_RECORDS, desc->records->count);
    check_desc(desc);
    STRATA_TRY(check_limits(desc, error));
    STRATA_TRY(allocate(&store, desc, error));
    store->ops = ops;
    store->ops_config = ops_config;
    uint8_t *fill_block = store->fill;
    strata_status status = open_parts(store, desc, error);
    store->fill = NULL;
    if (status != STRATA_OK) {
        /* A drive that does not answer may still use the block, so it is not freed. */
        if (strata_store_close(store))
            free(fill_block);
        else
            strata_store_leave(fill_block);
        return status;
    }
    free(fill_block);
    if (!strata_store_is_direct(store))
        strata_store_log(desc, "store: no O_DIRECT, through the page cache: %s", desc->dirs[0]);
    log_unregistered(store, desc);
    *out = store;
    return STRATA_OK;
}

strata_status strata_store_open(struct store **out, const struct store_desc *desc,
                                strata_error *error)
{
    const struct io_ops *ops =
        desc->backend == STRATA_IO_THREADS ? &strata_io_threads : &strata_io_uring;
    return strata_store_open_on(out, desc, ops, NULL, error);
}
