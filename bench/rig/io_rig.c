#define _GNU_SOURCE
/*
 * One pass over a scratch store. See io_rig.h.
 *
 * The bare loop uses the store's own file through a ring of its own, and the store does not
 * know about it. This is safe because a place always gets the same bytes, those of its buffer.
 * So the store's hashes stay right whichever way wrote last, and the store's reads after a
 * bare pass verify that pass too.
 *
 * Timed: from the first request to the last completion; buffers, rings and threads exist
 * before. CPU time is that of the whole process. It includes the kernel's work for our
 * requests as far as the kernel charges it to us; the work of a hypervisor or an interrupt
 * does not show.
 *
 * Thread: one, and the store's.
 */

#include "bench/rig/io_rig.h"

#include "base/round.h"
#include "bench/report.h"

#include <errno.h>
#include <inttypes.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIECES_PER_PLACE  (RIG_PLACE_BYTES / RIG_REQUEST_BYTES)
#define DIGESTS_PER_PLACE (RIG_PLACE_BYTES / STRATA_HASH_PIECE_BYTES)
/* The number of pieces in all buffers. */
#define PIECE_RING (RIG_WINDOW * PIECES_PER_PLACE)

_Static_assert(PIECE_RING >= 2 * RIG_DEPTH, "the bare loop never waits for memory");

static uint8_t *place_buffer(const struct io_rig *rig, uint64_t place)
{
    return rig->buffers.base + place % RIG_WINDOW * RIG_PLACE_BYTES;
}

/* RIG_WINDOW is even, so no buffer is both read into and written from. */
static bool is_write(enum io_kind kind, uint64_t place)
{
    return kind == KIND_WRITE || (kind == KIND_MIXED && place % 2 == 1);
}

static strata_status fill_buffers(struct io_rig *rig, strata_error *error)
{
    uint64_t state = 1;
    for (uint64_t i = 0; i < rig->buffers.bytes; i += sizeof state) {
        state = state * 6364136223846793005u + 1442695040888963407u; // Knuth's MMIX generator
        memcpy(rig->buffers.base + i, &state, sizeof state);
    }
    rig->digests = calloc(RIG_WINDOW * DIGESTS_PER_PLACE, sizeof *rig->digests);
    if (rig->digests == NULL)
        return strata_fail(error, STRATA_E_NOMEM, ENOMEM,
                           "host: no memory for the buffers' hashes");
    strata_hash_pieces(rig->buffers.base, rig->buffers.bytes, rig->digests);
    return STRATA_OK;
}

static strata_status open_backend(struct io_rig *rig, strata_error *error)
{
    const struct store_file *file = &rig->store->drives[0].file;
    rig->file = (struct io_file){.fd = file->fd, .path = file->path};
    struct io_backend_desc desc = {
        .files = &rig->file,
        .file_count = 1,
        .depth = RIG_DEPTH,
        .region = {.base = rig->buffers.base, .bytes = rig->buffers.bytes},
    };
    return strata_io_uring.open(&rig->backend, &desc, error);
}

strata_status strata_bench_rig_open(struct io_rig *out, const char *dir, uint64_t bytes,
                                    strata_error *error)
{
    struct store_records none = {.bytes = NULL};
    struct io_sample sample;
    uint64_t count = strata_units_of(bytes, RIG_PLACE_BYTES);
    *out = (struct io_rig){.store = NULL};
    if (count > UINT32_MAX / 2)
        return strata_fail(error, STRATA_E_INVALID, 0, "--size: more than %" PRIu64 " bytes",
                           UINT32_MAX / 2 * RIG_PLACE_BYTES);
    out->place_count = count < 2 ? 2 : (uint32_t)count;
    out->place_bytes = calloc(out->place_count, sizeof *out->place_bytes);
    if (out->place_bytes == NULL)
        return strata_fail(error, STRATA_E_NOMEM, ENOMEM,
                           "host: no memory for %" PRIu32 " places", out->place_count);
    for (uint32_t i = 0; i < out->place_count; i++)
        out->place_bytes[i] = RIG_PLACE_BYTES;
    strata_status status = strata_arena_create(&out->buffers, RIG_WINDOW * RIG_PLACE_BYTES,
                                               "the buffers of offload-bench io", error);
    if (status == STRATA_OK)
        status = fill_buffers(out, error);
    if (status != STRATA_OK)
        return status;
    struct store_desc desc = {
        .dirs = &dir,
        .dir_count = 1,
        .place_bytes = out->place_bytes,
        .place_count = out->place_count,
        .records = &none,
        .limit_bytes = UINT64_MAX,
        .depth = RIG_DEPTH,
        .request_bytes = RIG_REQUEST_BYTES,
        .buffers = out->buffers.base,
        .buffers_bytes = out->buffers.bytes,
    };
    status = strata_store_open(&out->store, &desc, error);
    if (status == STRATA_OK)
        status = open_backend(out, error);
    /* The store reads no place that it has not written. */
    return status == STRATA_OK
               ? strata_bench_rig_pass(out, KIND_WRITE, WAY_STORE, &sample, error)
               : status;
}

void strata_bench_rig_close(struct io_rig *rig)
{
    if (rig->backend != NULL)
        strata_io_uring.close(rig->backend);
    if (strata_store_close(rig->store))
        strata_arena_destroy(&rig->buffers);
    free(rig->digests);
    free(rig->place_bytes);
}

struct bare {
    struct io_rig *rig;
    enum io_kind kind;
    uint64_t total; /* pieces */
    uint64_t issued;
    uint64_t retired; /* index of the first piece that is not done */
    uint32_t in_flight;
    bool done[PIECE_RING];
};

static struct io_attempt attempt_of(const struct bare *bare, uint64_t piece)
{
    uint64_t place = piece / PIECES_PER_PLACE;
    uint64_t at = piece % PIECES_PER_PLACE * RIG_REQUEST_BYTES;
    return (struct io_attempt){
        .id = piece + 1,
        .op = is_write(bare->kind, place) ? IO_WRITE : IO_READ,
        .length = (uint32_t)RIG_REQUEST_BYTES,
        .buffer = place_buffer(bare->rig, place) + at,
        .offset = bare->rig->store->places[place].offset + at,
    };
}

/* Starts as many requests as there is room for, in one call. */
static void issue_requests(struct bare *bare)
{
    struct io_attempt attempts[RIG_DEPTH];
    uint32_t count = 0;
    while (bare->issued + count < bare->total && bare->in_flight + count < RIG_DEPTH &&
           bare->issued + count - bare->retired < PIECE_RING) {
        attempts[count] = attempt_of(bare, bare->issued + count);
        count++;
    }
    if (count == 0)
        return;
    count = strata_io_uring.start(bare->rig->backend, attempts, count);
    bare->issued += count;
    bare->in_flight += count;
}

static strata_status collect_attempts(struct bare *bare, strata_error *error)
{
    struct io_result results[RIG_DEPTH];
    int32_t count = strata_io_uring.reap(bare->rig->backend, results, RIG_DEPTH, UINT64_MAX);
    if (count < 0)
        return strata_fail(error, STRATA_E_IO, -count, "bare loop: reaping: %s",
                           strerror(-count));
    bare->in_flight -= (uint32_t)count;
    for (int32_t i = 0; i < count; i++) {
        bare->done[(results[i].id - 1) % PIECE_RING] = true;
        if (results[i].result != (int64_t)RIG_REQUEST_BYTES)
            return strata_fail(
                error, STRATA_E_IO, results[i].result < 0 ? -results[i].result : 0,
                "bare loop: request %" PRIu64 " of %" PRIu64
                " bytes in %s came back with %" PRId64,
                results[i].id, RIG_REQUEST_BYTES, bare->rig->file.path, results[i].result);
    }
    return STRATA_OK;
}

static void retire_pieces(struct bare *bare)
{
    while (bare->retired < bare->issued && bare->done[bare->retired % PIECE_RING])
        bare->done[bare->retired++ % PIECE_RING] = false;
}

/* After a failure, wait for all requests: a ring must not be closed while the kernel writes to
 * our buffers. */
static void drain_attempts(struct bare *bare)
{
    struct io_result results[RIG_DEPTH];
    while (bare->in_flight > 0) {
        int32_t count =
            strata_io_uring.reap(bare->rig->backend, results, RIG_DEPTH, UINT64_MAX);
        if (count < 0)
            return;
        bare->in_flight -= (uint32_t)count;
    }
}

static strata_status bare_pass(struct io_rig *rig, enum io_kind kind, strata_error *error)
{
    struct bare bare = {
        .rig = rig,
        .kind = kind,
        .total = rig->place_count * PIECES_PER_PLACE,
    };
    strata_status status = STRATA_OK;
    while (bare.retired < bare.total && status == STRATA_OK) {
        issue_requests(&bare);
        status = collect_attempts(&bare, error);
        retire_pieces(&bare);
    }
    drain_attempts(&bare);
    return status;
}

/* A pass through the store. A buffer has one transfer at a time, and its end starts the next
 * one. */
struct store_pass {
    struct io_rig *rig;
    enum io_kind kind;
    struct store_io ios[RIG_WINDOW];
    _Atomic uint32_t
        running; /* buffers that are not through; I/O thread; relaxed: done orders */
    sem_t done;
};

static void start_place(struct store_pass *pass, struct store_io *io, uint32_t place)
{
    io->write = is_write(pass->kind, place);
    io->place = place;
    io->buffer = place_buffer(pass->rig, place);
    io->digests = pass->rig->digests + place % RIG_WINDOW * DIGESTS_PER_PLACE;
    strata_store_start(pass->rig->store, io);
}

static void start_next_place(void *user, struct store_io *io)
{
    struct store_pass *pass = user;
    uint32_t next = io->place + RIG_WINDOW;
    if (io->status == STRATA_OK && next < pass->rig->place_count)
        start_place(pass, io, next);
    else if (atomic_fetch_sub_explicit(&pass->running, 1, memory_order_relaxed) == 1)
        sem_post(&pass->done);
}

static strata_status store_pass(struct io_rig *rig, enum io_kind kind, bool own_hash,
                                strata_error *error)
{
    struct store_pass pass = {.rig = rig, .kind = kind};
    uint32_t count = rig->place_count < RIG_WINDOW ? rig->place_count : RIG_WINDOW;
    sem_init(&pass.done, 0, 0);
    atomic_store_explicit(&pass.running, count, memory_order_relaxed);
    for (uint32_t i = 0; i < count; i++) {
        pass.ios[i].done = start_next_place;
        pass.ios[i].user = &pass;
        pass.ios[i].own_hash = own_hash;
        start_place(&pass, &pass.ios[i], i);
    }
    while (sem_wait(&pass.done) != 0 && errno == EINTR)
        continue;
    sem_destroy(&pass.done);
    const strata_error *story = strata_store_error(rig->store);
    if (story->status != STRATA_OK)
        *error = *story;
    return story->status;
}

strata_status strata_bench_rig_pass(struct io_rig *rig, enum io_kind kind, enum io_way way,
                                    struct io_sample *out, strata_error *error)
{
    double cpu_s = strata_bench_process_cpu_s();
    double begin_s = strata_bench_now_s();
    strata_status status = way == WAY_BARE ? bare_pass(rig, kind, error)
                                           : store_pass(rig, kind, way == WAY_PLAIN, error);
    out->seconds = strata_bench_now_s() - begin_s;
    out->cpu_s = strata_bench_process_cpu_s() - cpu_s;
    return status;
}
