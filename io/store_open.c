#define _GNU_SOURCE
/*
 * How a store comes into being, or goes on.
 *
 * Everything that can be refused is refused before anything is written: the limit, directories
 * that are missing or the same, a file that is not ours, a lock that is held, a run that is to
 * be kept, too little space. After that whatever this call made is removed again when it fails.
 *
 * Creation writes every block once. It proves that the space is there, and it spares the drive
 * the conversion of reserved extents in the middle of a step. All drives are written at once,
 * each by a thread that ends before the drive's I/O thread begins. A durable store's files get
 * their name only after that, the first drive's first: so a file that has the name is complete,
 * and what lies on the first drive tells whether there is a commit.
 *
 * A store that goes on keeps what it has but for the scratch places, which lie at the end: the
 * file is cut or grown there, and what is new of it is written.
 *
 * All memory is taken here. The tables are one block, so that what the budget was told and what
 * is taken cannot differ.
 *
 * Thread: the opener, and "I/O" for the creation of its drive.
 */

#include "io/store_internal.h"

#include "base/error.h"
#include "base/thread.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#define DEFAULT_DEPTH         32u
#define DEFAULT_REQUEST_BYTES (4u << 20)
#define DEFAULT_DEADLINE_NS   120000000000u

/* Creation's requests; from 1 MiB on a drive is as fast as it gets. */
#define FILL_BYTES (1u << 20)

/* The loop, the hash and the caller's done functions; sanitizers want the better part of it. */
#define STACK_BYTES (512u << 10)

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
    return FILL_BYTES + (uint64_t)desc->dir_count * STRATA_STORE_BLOCK_BYTES;
}

/* A table per drive, and the commit record. */
static uint64_t durable_bytes(const struct store_desc *desc)
{
    struct drive_layout drives[STRATA_STORE_MAX_DRIVES];
    uint64_t bytes = STRATA_STORE_BLOCK_BYTES;
    if (!desc->records->durable)
        return 0;
    strata_store_lay_out(desc, drives, NULL);
    for (uint32_t i = 0; i < desc->dir_count; i++)
        bytes += drives[i].table_bytes;
    return bytes;
}

/* A transfer of every place, and the message that stops the thread. */
static uint32_t channel_capacity(uint32_t place_count)
{
    return place_count + 1;
}

/* The larger of the two, so that a fallback from one backend to the other changes no plan. */
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
        bytes += channel + queue_bytes(depth_of(desc)) +
                 strata_store_file_memory_bytes(desc->dirs[i]);
    return bytes;
}

/* One request, alone. */
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

/* Write every block from fill_from to the end; a failure anywhere ends it. */
static void fill(struct drive *drive)
{
    struct store *store = drive->store;
    uint64_t at = drive->fill_from;
    uint64_t end = drive->layout.file_bytes;
    for (;;) {
        bool more = at < end && strata_store_failed(store) == STRATA_OK;
        while (more && drive->free_pieces != NULL) {
            uint64_t left = end - at;
            struct piece *piece = strata_drive_take(drive);
            piece->req = (struct io_req){
                .op = IO_WRITE,
                .length = left < FILL_BYTES ? (uint32_t)left : FILL_BYTES,
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
        if (piece != NULL)
            strata_drive_free(drive, piece);
    }
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
    if (strata_store_file_resize(&drive->file, drive->layout.file_bytes, error) != STRATA_OK)
        return;
    fill(drive);
    if (strata_store_failed(drive->store) == STRATA_OK && !drive->store->resumed)
        write_header(drive, error);
}

static void *create(void *user)
{
    struct drive *drive = user;
    strata_error error = {.status = STRATA_OK};
    create_contents(drive, &error);
    if (error.status != STRATA_OK)
        strata_store_note(drive->store, &error);
    return NULL;
}

static strata_status start_thread(struct drive *drive, void *(*run)(void *),
                                  strata_error *error)
{
    int rc = strata_thread_start(&drive->thread, STACK_BYTES, run, drive);
    if (rc != 0)
        return strata_fail(error, STRATA_E_NOMEM, rc, "host: starting the I/O thread of %s: %s",
                           drive->file.path, strerror(rc));
    pthread_setname_np(drive->thread, "strata-io");
    drive->running = true;
    return STRATA_OK;
}

/* What the caller is told of a failure on an I/O thread. */
static strata_status tell(const struct store *store, strata_error *error)
{
    if (store->error.status != STRATA_OK && error != NULL)
        *error = store->error;
    return store->error.status;
}

/* All drives at once: each is as slow as its size. */
static strata_status create_drives(struct store *store, strata_error *error)
{
    strata_status status = STRATA_OK;
    for (uint32_t i = 0; i < store->drive_count && status == STRATA_OK; i++)
        status = start_thread(&store->drives[i], create, error);
    for (uint32_t i = 0; i < store->drive_count; i++)
        strata_drive_join(&store->drives[i]);
    return status == STRATA_OK ? tell(store, error) : status;
}

static void check_desc(const struct store_desc *desc)
{
    const struct store_records *records = desc->records;
    STRATA_CHECK(desc->dir_count > 0 && strata_store_all_places(desc) < UINT32_MAX);
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

/* What a user can get wrong without looking at a file. */
static strata_status check_limits(const struct store_desc *desc, strata_error *error)
{
    uint64_t need = strata_store_file_bytes(desc);
    size_t identity =
        desc->records->durable ? strnlen(desc->records->identity, SIZE_MAX / 2) : 0;
    if (identity > STRATA_IDENTITY_BYTES)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "the run's identity has %zu bytes, a store holds %u", identity,
                           STRATA_IDENTITY_BYTES);
    if (need > desc->limit_bytes)
        return strata_fail(error, STRATA_E_NOMEM, 0,
                           "nvme: need %" PRIu64 " bytes for the store's files, have %" PRIu64,
                           need, desc->limit_bytes);
    return STRATA_OK;
}

/* A drive that takes no work yet: no file, no queue. */
static void init_drive(struct store *store, uint32_t index, uint64_t list_bytes)
{
    struct drive *drive = &store->drives[index];
    drive->store = store;
    drive->file = (struct store_file){.dir_fd = -1, .fd = -1};
    drive->end = &drive->first;
    drive->header = (struct store_header *)(store->fill + FILL_BYTES) + index;
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

/* Anything but zeros, which some drives keep without taking space for them. */
static void make_fill(uint8_t *fill)
{
    uint64_t state = 0;
    for (size_t i = 0; i < FILL_BYTES; i += sizeof state) {
        state = state * 6364136223846793005u + 1442695040888963407u; // Knuth's MMIX generator
        memcpy(fill + i, &state, sizeof state);
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
    memset(store->fill + FILL_BYTES, 0, fill_bytes(desc) - FILL_BYTES);
    for (uint32_t i = 0; i < store->drive_count; i++)
        init_drive(store, i, list_bytes(desc));
    struct drive_layout drives[STRATA_STORE_MAX_DRIVES];
    uint8_t *block = store->blocks;
    strata_store_lay_out(desc, drives, store->places);
    for (uint32_t i = 0; i < store->drive_count; i++) {
        store->drives[i].layout = drives[i];
        store->drives[i].table = (struct table_head *)block;
        block += store->durable ? drives[i].table_bytes : 0;
    }
    store->record = (struct commit_record *)block;
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
    store->recovery.commit_every = desc->records->commit_every;
    store->depth = depth_of(desc);
    store->request_bytes =
        desc->request_bytes > 0 ? desc->request_bytes : DEFAULT_REQUEST_BYTES;
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
                                      strata_error *error)
{
    for (uint32_t i = 0; i < store->drive_count; i++) {
        for (uint32_t j = 0; j < i; j++)
            if (same_directory(dirs[i], dirs[j]))
                return strata_fail(error, STRATA_E_INVALID, 0,
                                   "store directories %s and %s are the same", dirs[j],
                                   dirs[i]);
        struct drive *drive = &store->drives[i];
        STRATA_TRY(strata_store_file_find(&drive->file, dirs[i], drive->header, error));
    }
    return STRATA_OK;
}

/* Directories may share a file system: the needs and what is given back add up. */
static strata_status check_space(const struct store *store, const struct store_desc *desc,
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
        /* Some file systems, made of RAM, know no size: reserving will tell. */
        if (free_space.f_blocks > 0 && need > have)
            return strata_fail(error, STRATA_E_NOMEM, ENOSPC,
                               "nvme: need %" PRIu64 " bytes, have %" PRIu64
                               " free on the file system of %s",
                               need, have, desc->dirs[i]);
    }
    return STRATA_OK;
}

/* What was found belongs to nobody. The last drive's goes first: see above. */
static strata_status discard_files(struct store *store, strata_error *error)
{
    for (uint32_t i = store->drive_count; i > 0; i--)
        STRATA_TRY(strata_store_file_discard(&store->drives[i - 1].file, error));
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

static strata_status make_files(struct store *store, const struct store_desc *desc,
                                strata_error *error)
{
    bool allow_buffered = desc->allow & STRATA_ALLOW_BUFFERED_IO;
    STRATA_TRY(discard_files(store, error));
    STRATA_TRY(make_header(store->drives[0].header, desc, error));
    memcpy(store->store_id, store->drives[0].header->store_id, sizeof store->store_id);
    for (uint32_t i = 0; i < store->drive_count; i++) {
        struct drive *drive = &store->drives[i];
        if (i > 0)
            *drive->header = *store->drives[0].header;
        drive->header->drive_index = i;
        drive->header->durable_bytes = drive->layout.durable_bytes;
        drive->header->file_records = drive->layout.record_count;
        strata_store_header_finish(drive->header);
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
        /* Blocks: the file may have been left at any length while it was grown. */
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

/* The first drive shows whether the backend is to be had; the others get the same. */
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

/* No error: the same requests go out, and each costs a little more. */
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

/* The files are the owner's alone; who may write to their directory can remove them. It is the
 * user's own, so it is not changed. */
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
    STRATA_TRY(strata_store_find_files(store, desc->dirs, error));
    warn_of_others(store, desc);
    STRATA_TRY(strata_store_recover(store, desc, error));
    if (!store->resumed && store->recovery.commit_every == 0)
        store->recovery.commit_every = desc->records->new_commit_every;
    STRATA_TRY(check_space(store, desc, error));
    STRATA_TRY((store->resumed ? adopt_files : make_files)(store, desc, error));
    make_fill(store->fill);
    STRATA_TRY(open_queues(store, desc, error));
    STRATA_TRY(open_channels(store, error));
    STRATA_TRY(create_drives(store, error));
    for (uint32_t i = 0; i < store->drive_count; i++)
        STRATA_TRY(start_thread(&store->drives[i], strata_drive_serve, error));
    if (!store->durable)
        return STRATA_OK;
    STRATA_TRY(publish_files(store, error));
    if (store->dropped && strata_store_relist(store) != STRATA_OK)
        return tell(store, error);
    return STRATA_OK;
}

strata_status strata_store_open_on(struct store **out, const struct store_desc *desc,
                                   const struct io_ops *ops, const void *ops_config,
                                   strata_error *error)
{
    struct store *store = NULL;
    *out = NULL;
    check_desc(desc);
    STRATA_TRY(check_limits(desc, error));
    STRATA_TRY(allocate(&store, desc, error));
    store->ops = ops;
    store->ops_config = ops_config;
    uint8_t *fill_block = store->fill;
    strata_status status = open_parts(store, desc, error);
    store->fill = NULL;
    if (status != STRATA_OK) {
        /* Before the block goes: requests that were given up may still be at it. */
        strata_store_close(store);
        free(fill_block);
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
