#ifndef STRATA_IO_STORE_H
#define STRATA_IO_STORE_H

/*
 * The tile store: the NVMe tier's bytes, one file per drive.
 *
 * A store holds places. A scratch place is a fixed range of one file that one part of one tile
 * rests in; the engine numbers them. A record is a tile's state, in one of several slots, each
 * a place as well. Places are spread over the drives in proportion to the speed that each was
 * seen to write at when the store was made. Files are preallocated and written once at its
 * creation, opened with O_DIRECT, and begin with a 4 KiB header that names what they are; what
 * this version does not know it refuses.
 *
 * Every place's content carries an XXH3-128 hash over the digests of its pieces (base/hash.h),
 * seeded with the record and the updates it has seen, or the scratch place and the count of
 * writes to it; a read is checked against it before it is reported as good. Hashes are kept in
 * memory; those of a commit are in its tile tables too. An owner that goes through all bytes
 * itself may take the hashing over, piece by piece while it has them in cache: own_hash in
 * struct store_io.
 *
 * A durable store outlives its process. A commit names a step and a slot of every record, and
 * is made in an order that a crash at any moment leaves the last one or the new one whole. As
 * long as it is listed its slots must not be written: which slot may be is the caller's
 * business (offload/plan/slots.h). A store without a commit is nobody's and is made anew; one
 * with a commit is gone on with, or refused, never overwritten. A scratch store leaves nothing
 * behind, however the process ends.
 *
 * Thread: create, close: one thread. strata_store_start: any thread; the request is lent to the
 * store until its done function has been called, on the drive's I/O thread.
 */

#include "strata/types.h"

#include "base/hash.h"

struct store;

/* Bytes an identity may have; see store_records. */
#define STRATA_IDENTITY_BYTES 2048u
/* Commits that may be retained at once. */
#define STRATA_STORE_MAX_KEEP 16u
/* Records, one for each tile; a model may have as many (offload/plan/model.c). */
#define STRATA_STORE_MAX_RECORDS (1u << 26)
/* Directories; more than any machine has drives. */
#define STRATA_STORE_MAX_DRIVES 64u

/*
 * The records of a store: the state record of each tile, in one of several slots. Slot s of
 * record r is place place_count + r x slots + s, after the scratch places. Their layout in the
 * files follows from this descriptor and the header alone, not from the scratch places, which
 * lie behind it and may change from run to run.
 */
struct store_records {
    /* required; borrowed during open; by record, multiples of 4096; 0: no such record */
    const uint64_t *bytes;
    uint32_t count;       /* required */
    uint32_t fixed_count; /* of them, the last ones: written once, they have slot 0 alone */
    uint32_t slots;       /* required; 1: scratch; durable: 2 + keep, or 1 more */
    uint32_t keep;        /* retained commits at most, up to STRATA_STORE_MAX_KEEP */
    uint32_t record_type; /* 1: fp32 master, m, v */
    bool durable;         /* commits; false: scratch, removed at close */
    bool flush;  /* fdatasync in a commit (durability power); false: durability process */
    bool resume; /* go on from a commit; there is none: begin anew */
    uint64_t resume_step; /* UINT64_MAX: the last; else a listed one */
    /* durable: steps from one commit to the next, told to whoever resumes */
    uint32_t commit_every;     /* 0: what the store has, or new_commit_every in a new one */
    uint32_t new_commit_every; /* required where commit_every is 0 */
    const char *identity; /* durable: "name=value" lines that a resume must match; copied */
    /* durable: called before a commit's record is written, on the thread that commits; NULL:
     * not. A failure is the store's. */
    strata_status (*before_commit)(void *user, uint64_t step, strata_error *error);
    void *before_commit_user;
};

struct store_desc {
    const char *const *dirs; /* required; borrowed during open; they exist */
    uint32_t dir_count;      /* required; at most STRATA_STORE_MAX_DRIVES */
    /* required; borrowed during open; multiples of 4096, not 0 */
    const uint64_t *place_bytes;
    uint32_t place_count;                /* scratch places; may be 0 when there are records */
    const struct store_records *records; /* required; borrowed during open */
    uint64_t limit_bytes;                /* required; all files together, headers included */
    uint32_t tile_elems;                 /* for the header */
    strata_io_backend backend;
    uint32_t allow; /* STRATA_ALLOW_THREADS_IO, STRATA_ALLOW_BUFFERED_IO */
    uint32_t depth; /* 0: 32 requests in flight per drive */
    /* 0: 4 MiB; a place's transfer is cut into requests of this, whole pieces of the hash */
    uint64_t request_bytes;
    /* NULL: unknown; where buffers lie: registered with the kernel if it lets us, which saves
     * CPU; borrowed until close */
    void *buffers;
    uint64_t buffers_bytes;
    uint64_t deadline_ns; /* 0: 120 s; a request older than that is STRATA_E_TIMEOUT */
    /* 0: 64 MiB; what a new store of several drives writes to each to know its speed, and the
     * least it has on each for that; a multiple of 4096 */
    uint64_t probe_bytes;
    strata_log_fn log; /* NULL: silent; called during open only */
    void *log_user;
    strata_progress_fn progress; /* NULL: none; called during open only, in its thread */
    void *progress_user;
};

/* One transfer of a whole place. Embedded in its owner. */
struct store_io {
    /* set by the owner before start */
    bool write;
    uint32_t place;
    uint64_t updates; /* records: those it has seen; seeds the hash with its number */
    void *buffer;     /* 4096-aligned, place_bytes long */
    /* false: the store hashes. true: a write's digests come from the owner; what a read brings
     * is not to be trusted before the owner has called strata_store_verify(). */
    bool own_hash;
    const struct hash128 *digests; /* own_hash and write: of all pieces; lent until done */
    /* On the I/O thread; must not block. It may start transfers, and it may drop io. */
    void (*done)(void *user, struct store_io *io);
    void *user;
    /* set before done is called; the story of a failure: strata_store_error() */
    strata_status status; /* OK, IO, CORRUPT, TIMEOUT, or the status that ended the store */
    uint64_t start_ns;    /* when the first request of it went to the backend */
    uint64_t end_ns;
    /* own_hash and read: what strata_store_verify() compares with; set before done is called */
    struct hash128 expected;
    uint64_t round;
    /* the store's own, until done */
    struct store_io *next;
    uint64_t submitted; /* bytes handed to the queue */
    uint64_t completed;
    uint64_t queued_ns;
    struct digest_list *list; /* where the store's digests go */
};

/*
 * Bytes of memory that open will take (tables, request pools), and of files.
 * The host budget counts the first, the nvme budget the second. Both are for any shares that
 * the drives may get: up to a block per drive and table more than a durable store needs.
 */
uint64_t strata_store_table_bytes(const struct store_desc *desc);
uint64_t strata_store_file_bytes(const struct store_desc *desc);

/* Bytes of disk that are free in a directory, and those that a store's files there have. */
strata_status strata_store_room(const char *dir, uint64_t *out_free_bytes,
                                uint64_t *out_own_bytes, strata_error *error);

/*
 * Lock the directories, find what is there, make the files (0600, O_NOFOLLOW) or go on with
 * them, start one I/O thread per drive. On failure nothing is held and files that this call
 * made are gone. Creation ends without a commit: the owner writes the records and makes the
 * first. A store that is closed before that takes its files with it.
 *
 * STRATA_E_NOMEM: limit_bytes or the free space is too little; nothing was written.
 * STRATA_E_IO: native ENOENT: no such directory; ENOSPC: the space went away meanwhile; EROFS;
 * ... STRATA_E_INVALID: a directory is named twice; or the run to be resumed is another: its
 * drives, identity, layout or step are not those named. STRATA_E_STATE: another process holds
 * the lock; or there is a run and resume was not asked for. STRATA_E_UNSUPPORTED: no io_uring,
 * no O_DIRECT, and not allowed to lack; or a file that is not a store's or of another version,
 * which is left alone. STRATA_E_CORRUPT: a header, or both copies of the newest commit record
 * or of one of its tables, are damaged; the message names a step to go on from, if there is
 * one.
 */
strata_status strata_store_open(struct store **out, const struct store_desc *desc,
                                strata_error *error);

/*
 * Waits for what is in flight, forgets scratch files, unlocks. NULL is fine. No other call may
 * be under way, a start whose transfer is done already included.
 *
 * false: a drive did not answer, and the kernel may still read from or write to the buffers of
 * transfers, until the process ends. They must stay mapped and unused.
 */
bool strata_store_close(struct store *store);

/*
 * Queue a transfer; never fails and never blocks. A place has one transfer at a time, and its
 * first is a write. After STRATA_E_TIMEOUT the drive may still write to the buffer, or read it:
 * see strata_store_close(). A store that failed refuses what comes later with the same status.
 */
void strata_store_start(struct store *store, struct store_io *io);

/* The same, waiting: for creation, the state hash and reads between steps. Not from a done
 * function. */
strata_status strata_store_transfer(struct store *store, bool write, uint32_t place,
                                    uint64_t updates, void *buffer);

/*
 * For own_hash: the digests of all pieces of what io has read, against what was written to the
 * place. STRATA_E_CORRUPT: these are other bytes, and the store has failed with it, just as if
 * it had looked itself. Thread: any; after done, and before io is used again.
 */
strata_status strata_store_verify(struct store *store, const struct store_io *io,
                                  const struct hash128 *digests);

/* A commit as the store knows it: a step, and each record's slot. */
struct store_line {
    uint64_t step;
    const uint8_t *slots; /* by record */
};

/* What open found. lines[0] is where the run goes on, then the retained ones, newest first.
 * Lent until close. */
struct store_recovery {
    uint32_t line_count; /* 0: a new store */
    struct store_line lines[1 + STRATA_STORE_MAX_KEEP];
    uint64_t updates;
    double loss_scale;
    uint32_t commit_every; /* durable: asked for, found, or a new store's */
};
const struct store_recovery *strata_store_recovery(const struct store *store);

/*
 * Make a commit durable: tile tables into places no other listed commit uses, one sync per
 * file, then the commit record over the oldest of four, one sync, then a receipt for it. Every
 * write of the records named has been reported done. lines[0] is the new commit; the others
 * are those that stay listed, and were before. Blocks; one at a time; not from a done
 * function. A failed sync is never retried: the store has failed, the last commit stands.
 */
strata_status strata_store_commit(struct store *store, const struct store_line *lines,
                                  uint32_t line_count, uint64_t updates, double loss_scale);

/*
 * The first failure, which sticks. Written by an I/O thread before the failing done call, so
 * whoever was told by done may read it.
 */
const strata_error *strata_store_error(const struct store *store);

/* "uring", "threads". Static storage. */
const char *strata_store_backend_name(const struct store *store);
bool strata_store_is_direct(const struct store *store);
/* The descriptor's buffers are registered, for every drive. */
bool strata_store_is_registered(const struct store *store);
/* The drive, by directory, that a place lies on. */
uint32_t strata_store_drive_of(const struct store *store, uint32_t place);

/* Bytes of places moved since open; creation, tables and commit records left out. */
void strata_store_counters(const struct store *store, uint64_t *out_read_bytes,
                           uint64_t *out_written_bytes);
#endif
