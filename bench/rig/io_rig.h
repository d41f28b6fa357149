#ifndef STRATA_BENCH_IO_RIG_H
#define STRATA_BENCH_IO_RIG_H

/*
 * One pass over a scratch store: every place once, in order, in one of three ways.
 *
 *     bare     the same requests through the backend alone: no queue, no store, no thread,
 *              no hash, nothing but what the kernel wants
 *     plain    the store's own path with checksums off: the caller passes ready digests, and
 *              none is checked
 *     store    the store's own path
 *
 * All ways move the same ranges of the same file, in requests of the same length, with as many
 * in flight, from and to the same memory on huge pages.
 *
 * Thread: one, and the store's.
 */

#include "strata/status.h"

#include "io/store_internal.h"
#include "offload/device/arena.h"

#include <stdbool.h>

#define RIG_REQUEST_BYTES ((uint64_t)4 << 20)
/* A tile of 1,398,101 elements; four requests, so the store has to cut it. */
#define RIG_PLACE_BYTES ((uint64_t)16 << 20)
/* Requests in flight. */
#define RIG_DEPTH 16u
/* Places that have a buffer: twice as many as are in flight, so no way waits for a buffer. */
#define RIG_WINDOW 8u

enum io_kind { KIND_READ, KIND_WRITE, KIND_MIXED, IO_KIND_COUNT };
enum io_way { WAY_BARE, WAY_PLAIN, WAY_STORE, IO_WAY_COUNT };

struct io_sample {
    double seconds;
    double cpu_s; /* of the whole process, user and kernel time */
};

struct io_rig {
    struct store *store;
    uint64_t *place_bytes;
    uint32_t place_count;
    struct io_file file; /* the store's */
    struct io_backend *backend;
    struct arena buffers;    /* RIG_WINDOW places */
    struct hash128 *digests; /* of the buffers' pieces */
};

/* bytes are rounded up to whole places, at least two. After a failure, close is still
 * required. */
strata_status strata_bench_rig_open(struct io_rig *out, const char *dir, uint64_t bytes,
                                    strata_error *error);
void strata_bench_rig_close(struct io_rig *rig);

/* Mixed: reads and writes alternate. What the store reads is verified. */
strata_status strata_bench_rig_pass(struct io_rig *rig, enum io_kind kind, enum io_way way,
                                    struct io_sample *out, strata_error *error);

#endif
