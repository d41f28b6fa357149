#ifndef STRATA_IO_STORE_INTERNAL_H
#define STRATA_IO_STORE_INTERNAL_H

/*
 * What the two files of the store share: its structs, and the calls by which creation uses the
 * drives before their threads serve transfers.
 *
 *     store_open.c   sizes, files, creation: everything before the first transfer
 *     store.c        transfers and the end
 *
 * Thread: a drive's queue, pieces and list belong to one thread at a time: to the opener, then
 * to a creating thread, then to the I/O thread; starting and joining a thread hands them over.
 */

#include "io/io.h"
#include "io/store.h"
#include "io/store_file.h"

#include "base/channel.h"
#include "base/hash.h"

#include <pthread.h>
#include <stdatomic.h>

struct place {
    uint64_t offset;
    uint64_t bytes;
    struct hash128 hash; /* of the last write; I/O thread */
    uint32_t drive_index;
    uint32_t write_count; /* I/O thread; others read it only between transfers of the place */
    /* Set by whoever starts a transfer, cleared by the I/O thread before done; acquire and
       release, so that the fields above go along. */
    _Atomic bool busy;
};

/* One request of a transfer. */
struct piece {
    struct io_req req; /* first: a reaped request is its piece */
    struct store_io *io;
    struct piece *next; /* in the list of free ones */
};

struct drive {
    struct store *store;
    struct store_file file;
    struct io_file io_file; /* what the queue knows of it */
    struct io_queue *queue;
    struct channel *channel; /* of struct store_io *; NULL: stop when idle */
    uint64_t file_bytes;
    struct store_header *header; /* one block, only during creation */
    pthread_t thread;
    bool running;
    /* the I/O thread's */
    struct piece *free_pieces;
    struct store_io *first; /* not fully submitted, in order of arrival */
    struct store_io **end;
    uint32_t piece_count; /* in flight */
    bool stopping;
    _Atomic uint64_t read_bytes; /* written by the I/O thread, read by anybody; relaxed */
    _Atomic uint64_t written_bytes;
};

struct store {
    const struct io_ops *ops;
    const void *ops_config;
    uint32_t drive_count;
    uint32_t place_count;
    uint32_t depth;
    uint64_t request_bytes;
    uint64_t deadline_ns;
    struct drive *drives;
    struct place *places;
    struct piece *pieces; /* depth of them per drive */
    uint8_t *fill;        /* only during creation: what is written, then one header per drive */
    pthread_mutex_t error_lock;
    strata_error error; /* under the lock until failed is set, fixed afterwards */
    /* strata_status of error; set with release once error is written, read with acquire by the
       I/O threads. */
    _Atomic int failed;
};

/* A store on any backend, without the fallback to threads: for tests that make one fail. */
strata_status strata_store_open_on(struct store **out, const struct store_desc *desc,
                                   const struct io_ops *ops, const void *ops_config,
                                   strata_error *error);

/* OK, or the status of the first failure. Thread: any. */
strata_status strata_store_failed(const struct store *store);

/* Keep a failure if it is the first; whoever returns from here can read it. Thread: any. */
void strata_store_note(struct store *store, const strata_error *error);

/* A piece of the drive's; there must be a free one. */
struct piece *strata_drive_take(struct drive *drive);
void strata_drive_free(struct drive *drive, struct piece *piece);

/* A piece that is done, its failure noted; NULL after a wake or the timeout. */
struct piece *strata_drive_reap(struct drive *drive, uint64_t timeout_ns);

/* The I/O thread: transfers until it is told to stop and nothing is left. user: the drive. */
void *strata_drive_serve(void *user);

/* Wait for the drive's thread, if it has one. */
void strata_drive_join(struct drive *drive);

#endif
