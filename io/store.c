#define _GNU_SOURCE
/*
 * The tile store: places on drives, and the threads that move them.
 *
 * Every drive has one I/O thread, which owns its queue, its file and the order of its
 * transfers. Other threads send to it through a bounded channel that has room for a transfer of
 * every place at once. A place has at most one transfer under way, so sending never waits.
 *
 * A transfer is a whole place and may be tens of megabytes. It is cut into requests of a few
 * megabytes, in order of arrival, so that a drive has several in flight.
 *
 * A hash is compared before the bytes are used. A record's is seeded with its number and the
 * updates it has seen, a scratch place's with the place and the count of writes to it. So the
 * bytes of another place, or of an earlier write, do not pass. Bytes are hashed in pieces,
 * request by request: of a read when the request has ended, of a write before the request is
 * started, so that the kernel reads from the buffer what was hashed. An owner that works
 * through all bytes anyway hashes them itself, and the store only compares.
 *
 * The first failure ends the store. It waits for what is in flight and refuses what comes later
 * with the same status: training must not continue on a drive that returns wrong bytes.
 *
 * Thread: "I/O" in the table of threads, one per drive; the functions of store.h as they say.
 */

#include "io/store_internal.h"

#include "base/clock.h"
#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <semaphore.h>
#include <string.h>

strata_status strata_store_failed(const struct store *store)
{
    return (strata_status)atomic_load_explicit(&store->failed, memory_order_acquire);
}

/* The lock is needed because two drives may fail at once. */
void strata_store_note(struct store *store, const strata_error *error)
{
    pthread_mutex_lock(&store->error_lock);
    if (store->error.status == STRATA_OK) {
        store->error = *error;
        atomic_store_explicit(&store->failed, (int)error->status, memory_order_release);
    }
    pthread_mutex_unlock(&store->error_lock);
}

strata_status strata_store_tell(const struct store *store, strata_error *error)
{
    if (store->error.status != STRATA_OK && error != NULL)
        *error = store->error;
    return store->error.status;
}

struct piece *strata_drive_take(struct drive *drive)
{
    struct piece *piece = drive->free_pieces;
    drive->free_pieces = piece->next;
    drive->piece_count++;
    return piece;
}

void strata_drive_free(struct drive *drive, struct piece *piece)
{
    piece->next = drive->free_pieces;
    drive->free_pieces = piece;
    drive->piece_count--;
}

struct piece *strata_drive_reap(struct drive *drive, uint64_t timeout_ns)
{
    struct io_req *req = strata_io_queue_reap(drive->queue, timeout_ns);
    if (req != NULL && req->status != STRATA_OK)
        strata_store_note(drive->store, strata_io_queue_error(drive->queue));
    return (struct piece *)req;
}

/* Tables, commit records and receipts carry their own hashes. */
static bool is_hashed(const struct store *store, const struct store_io *io)
{
    return io->place < store->public_count;
}

/* The hash of a place's content as its round-th write left it. */
static struct hash128 fold_hash(const struct store *store, uint32_t place, uint64_t round,
                                const struct hash128 *digests)
{
    uint64_t seed =
        place < store->scratch_count
            ? (uint64_t)place << 32 | (uint32_t)round
            : strata_store_record_seed((place - store->scratch_count) / store->slots, round);
    return strata_hash_fold(digests, strata_hash_piece_count(store->places[place].bytes), seed);
}

/* One request's bytes, if the store hashes them. */
static void hash_request(struct store_io *io, const struct io_req *req)
{
    if (io->list == NULL)
        return;
    uint64_t at = (uint64_t)((uint8_t *)req->buffer - (uint8_t *)io->buffer);
    strata_hash_pieces(req->buffer, req->length,
                       io->list->digests + at / STRATA_HASH_PIECE_BYTES);
}

/* Before the first request of a transfer goes out. false: there is no list for its digests yet.
 */
static bool begin_transfer(struct drive *drive, struct store_io *io, struct place *place)
{
    const struct store *store = drive->store;
    if (is_hashed(store, io) && !io->own_hash) {
        if (drive->free_lists == NULL)
            return false;
        io->list = drive->free_lists;
        drive->free_lists = io->list->next;
    }
    io->start_ns = strata_now_ns();
    if (io->write && is_hashed(store, io)) {
        place->round = io->place < store->scratch_count ? place->round + 1 : io->updates;
        place->known = true;
    }
    return true;
}

/* What a message calls a place: a record's is known by its tile. */
static void name_place(const struct store *store, uint32_t place, char *out, size_t bytes)
{
    uint32_t slot = place - store->scratch_count;
    if (place < store->scratch_count)
        snprintf(out, bytes, "place %" PRIu32, place);
    else
        snprintf(out, bytes, "tile %" PRIu32 ", slot %" PRIu32, slot / store->slots,
                 slot % store->slots);
}

strata_status strata_store_verify(struct store *store, const struct store_io *io,
                                  const struct hash128 *digests)
{
    char name[48];
    const struct place *place = &store->places[io->place];
    struct hash128 hash = fold_hash(store, io->place, io->round, digests);
    if (hash.low == io->expected.low && hash.high == io->expected.high)
        return STRATA_OK;
    strata_error error = {.status = STRATA_OK};
    name_place(store, io->place, name, sizeof name);
    (void)strata_fail(&error, STRATA_E_CORRUPT, 0,
                      "read of %s, %" PRIu64 " bytes at %" PRIu64
                      " in %s: the hash differs, these are not the bytes of %s %" PRIu64,
                      name, place->bytes, place->offset,
                      store->drives[place->drive_index].file.path,
                      io->place < store->scratch_count ? "write" : "update", io->round);
    strata_store_note(store, &error);
    return error.status;
}

/* All bytes have moved. A write's hash becomes the place's; a read's must be the place's. */
static void settle_hash(struct store *store, struct store_io *io, struct place *place)
{
    if (io->write) {
        place->hash = fold_hash(store, io->place, place->round,
                                io->own_hash ? io->digests : io->list->digests);
        return;
    }
    io->expected = place->hash;
    io->round = place->round;
    if (!io->own_hash)
        io->status = strata_store_verify(store, io, io->list->digests);
}

/* The transfer is over. io may be gone once done has been called. */
static void finish_transfer(struct drive *drive, struct store_io *io)
{
    struct place *place = &drive->store->places[io->place];
    if (io->status == STRATA_OK && is_hashed(drive->store, io))
        settle_hash(drive->store, io, place);
    if (io->list != NULL) {
        io->list->next = drive->free_lists;
        drive->free_lists = io->list;
    }
    io->end_ns = strata_now_ns();
    atomic_store_explicit(&place->busy, false, memory_order_release);
    io->done(io->user, io);
}

static void drop_first(struct drive *drive)
{
    drive->first = drive->first->next;
    if (drive->first == NULL)
        drive->end = &drive->first;
}

/* A place without bytes stands for a file, which is flushed. */
static enum io_op op_of_transfer(const struct store_io *io, const struct place *place)
{
    if (place->bytes == 0)
        return IO_SYNC;
    return io->write ? IO_WRITE : IO_READ;
}

static void cut_piece(struct drive *drive, struct store_io *io, const struct place *place)
{
    struct piece *piece = strata_drive_take(drive);
    uint64_t left = place->bytes - io->submitted;
    uint64_t most = drive->store->request_bytes;
    uint32_t length = (uint32_t)(left < most ? left : most);
    piece->io = io;
    piece->req = (struct io_req){
        .op = op_of_transfer(io, place),
        .length = length,
        .buffer = (uint8_t *)io->buffer + io->submitted,
        .offset = place->offset + io->submitted,
    };
    io->submitted += length;
    if (io->write)
        hash_request(io, &piece->req);
    strata_io_queue_start(drive->queue, &piece->req);
    /* The drive works on this request while the next one is hashed. */
    if (io->list != NULL)
        strata_io_queue_push(drive->queue);
}

/* Refuse the first transfer in line. If requests of it are in flight, finish_piece() ends it.
 */
static void refuse_first(struct drive *drive, strata_status status)
{
    struct store_io *io = drive->first;
    drop_first(drive);
    if (io->status == STRATA_OK)
        io->status = status;
    if (io->start_ns == 0)
        io->start_ns = strata_now_ns();
    if (io->completed == io->submitted)
        finish_transfer(drive, io);
}

/* Cut the transfers in line into requests while there is room in flight. */
static void submit_transfers(struct drive *drive)
{
    while (drive->first != NULL) {
        struct store_io *io = drive->first;
        struct place *place = &drive->store->places[io->place];
        strata_status failed = strata_store_failed(drive->store);
        if (failed != STRATA_OK) {
            refuse_first(drive, failed);
            continue;
        }
        if (drive->free_pieces == NULL)
            return;
        if (io->submitted == 0 && !begin_transfer(drive, io, place))
            return;
        cut_piece(drive, io, place);
        if (io->submitted == place->bytes)
            drop_first(drive);
    }
}

static void finish_piece(struct drive *drive, struct piece *piece)
{
    struct store_io *io = piece->io;
    uint32_t length = piece->req.length;
    io->completed += length;
    if (piece->req.status != STRATA_OK) {
        if (io->status == STRATA_OK)
            io->status = piece->req.status;
    } else if (io->place < drive->store->public_count) {
        _Atomic uint64_t *count = io->write ? &drive->written_bytes : &drive->read_bytes;
        atomic_fetch_add_explicit(count, length, memory_order_relaxed);
        if (!io->write)
            hash_request(io, &piece->req);
    }
    strata_drive_free(drive, piece);
    /* Only the first transfer in line can be submitted in part; more requests of it follow. */
    if (io->completed == io->submitted && io != drive->first)
        finish_transfer(drive, io);
}

static void receive_transfers(struct drive *drive)
{
    struct store_io *io;
    while (strata_channel_receive(drive->channel, &io, 0)) {
        if (io == NULL) {
            drive->stopping = true;
            continue;
        }
        *drive->end = io;
        drive->end = &io->next;
    }
}

void *strata_drive_serve(void *user)
{
    struct drive *drive = user;
    for (;;) {
        atomic_store_explicit(&drive->idle, true, memory_order_relaxed);
        receive_transfers(drive);
        submit_transfers(drive);
        if (drive->stopping && drive->first == NULL && drive->piece_count == 0)
            return NULL;
        /* With every piece in flight nothing new can begin before one ends, so no wake is
         * needed. */
        if (drive->free_pieces == NULL)
            atomic_store_explicit(&drive->idle, false, memory_order_relaxed);
        struct piece *piece = strata_drive_reap(drive, UINT64_MAX);
        atomic_store_explicit(&drive->idle, false, memory_order_relaxed);
        if (piece != NULL)
            finish_piece(drive, piece);
    }
}

void strata_drive_join(struct drive *drive)
{
    if (drive->running)
        pthread_join(drive->thread, NULL);
    drive->running = false;
}

/* A transfer, or NULL: stop. */
static void send_to_drive(struct drive *drive, struct store_io *io)
{
    strata_channel_send(drive->channel, &io);
    if (atomic_exchange_explicit(&drive->idle, false, memory_order_relaxed))
        strata_io_queue_wake(drive->queue);
}

/* Memory that a drive which does not answer may still use, until the process ends. The list is
 * there for leak checkers: memory on it is not lost. */
struct left_block {
    struct left_block *next;
    void *block;
};
static struct left_block *_Atomic left_blocks;

void strata_store_leave(void *block)
{
    struct left_block *left = malloc(sizeof *left);
    if (left == NULL)
        return;
    left->block = block;
    left->next = atomic_load(&left_blocks);
    while (!atomic_compare_exchange_weak(&left_blocks, &left->next, left))
        continue;
}

/* open calls it too, for a store that it could not finish. */
bool strata_store_close(struct store *store)
{
    bool quiet = true;
    if (store == NULL)
        return true;
    for (uint32_t i = 0; i < store->drive_count; i++) {
        struct drive *drive = &store->drives[i];
        if (drive->running)
            send_to_drive(drive, NULL);
    }
    for (uint32_t i = 0; i < store->drive_count; i++) {
        struct drive *drive = &store->drives[i];
        strata_drive_join(drive);
        quiet = strata_io_queue_close(drive->queue) && quiet;
        strata_channel_destroy(drive->channel);
        strata_store_file_close(&drive->file);
    }
    pthread_mutex_destroy(&store->error_lock);
    /* A drive that does not answer may still read a table or a commit record from its buffer.
     */
    if (quiet)
        free(store->blocks);
    else if (store->blocks != NULL)
        strata_store_leave(store->blocks);
    free(store);
    return quiet;
}

void strata_store_launch(struct store *store, struct store_io *io)
{
    struct place *place = &store->places[io->place];
    struct drive *drive = &store->drives[place->drive_index];
    /* Two transfers would race for the bytes, and the channel has no room for a second. */
    STRATA_CHECK(!atomic_exchange_explicit(&place->busy, true, memory_order_acquire));
    STRATA_CHECK(io->write || place->known || io->place >= store->public_count);
    io->status = STRATA_OK;
    io->start_ns = 0;
    io->end_ns = 0;
    io->next = NULL;
    io->submitted = 0;
    io->completed = 0;
    io->list = NULL;
    io->queued_ns = strata_now_ns();
    send_to_drive(drive, io);
}

static void check_transfer(const struct store *store, const struct store_io *io)
{
    STRATA_CHECK(io->place < store->public_count);
    STRATA_CHECK((uintptr_t)io->buffer % STRATA_IO_ALIGN_BYTES == 0 && io->buffer != NULL);
    STRATA_CHECK(store->places[io->place].bytes > 0);
    STRATA_CHECK(!io->own_hash || !io->write || io->digests != NULL);
}

void strata_store_start(struct store *store, struct store_io *io)
{
    STRATA_CHECK(io->done != NULL);
    check_transfer(store, io);
    strata_store_launch(store, io);
}

static void post_semaphore(void *user, struct store_io *io)
{
    (void)io;
    sem_post(user);
}

void strata_store_run(struct store *store, struct store_io *ios, uint32_t count)
{
    sem_t done;
    sem_init(&done, 0, 0);
    for (uint32_t i = 0; i < count; i++) {
        ios[i].done = post_semaphore;
        ios[i].user = &done;
        strata_store_launch(store, &ios[i]);
    }
    for (uint32_t i = 0; i < count; i++)
        while (sem_wait(&done) != 0)
            STRATA_CHECK(errno == EINTR);
    sem_destroy(&done);
}

strata_status strata_store_transfer(struct store *store, bool write, uint32_t place,
                                    uint64_t updates, void *buffer)
{
    struct store_io io = {.write = write, .place = place, .updates = updates, .buffer = buffer};
    check_transfer(store, &io);
    strata_store_run(store, &io, 1);
    return io.status;
}

const struct store_recovery *strata_store_recovery(const struct store *store)
{
    return &store->recovery;
}

const strata_error *strata_store_error(const struct store *store)
{
    return &store->error;
}

const char *strata_store_backend_name(const struct store *store)
{
    return store->ops->name;
}

bool strata_store_is_direct(const struct store *store)
{
    for (uint32_t i = 0; i < store->drive_count; i++)
        if (!store->drives[i].file.direct)
            return false;
    return true;
}

bool strata_store_is_registered(const struct store *store)
{
    int32_t cause;
    for (uint32_t i = 0; i < store->drive_count; i++)
        if (!strata_io_queue_registered(store->drives[i].queue, &cause))
            return false;
    return true;
}

uint32_t strata_store_drive_of(const struct store *store, uint32_t place)
{
    return store->places[place].drive_index;
}

void strata_store_counters(const struct store *store, uint64_t *out_read_bytes,
                           uint64_t *out_written_bytes)
{
    *out_read_bytes = 0;
    *out_written_bytes = 0;
    for (uint32_t i = 0; i < store->drive_count; i++) {
        const struct drive *drive = &store->drives[i];
        *out_read_bytes += atomic_load_explicit(&drive->read_bytes, memory_order_relaxed);
        *out_written_bytes += atomic_load_explicit(&drive->written_bytes, memory_order_relaxed);
    }
}
