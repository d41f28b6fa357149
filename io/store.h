#ifndef STRATA_IO_STORE_H
#define STRATA_IO_STORE_H

/*
 * The tile store: the NVMe tier's bytes, one file per drive.
 *
 * A store holds places. A scratch place is a fixed range of one file, for one part of one tile;
 * the engine numbers them. A record is a tile's state, in one of several slots, and each slot
 * is a place too. Places are spread over the drives in proportion to the speed at which each
 * drive wrote when the store was made. Files are preallocated and written once at creation,
 * opened with O_DIRECT, and begin with a 4 KiB header that says what they are. A file of a
 * version that this code does not know is refused.
 *
 * Every place's content carries an XXH3-128 hash over the digests of its pieces (base/hash.h),
 * seeded with the record and the updates it has seen, or the scratch place and the count of
 * writes to it. What is read is compared with it before the read counts as good. Hashes are
 * kept in memory; those of a commit are in its tile tables too. An owner that works through all
 * bytes itself may hash them, piece by piece while they are in cache: own_hash in struct
 * store_io.
 *
 * A durable store outlives its process. A commit names a step and a slot of every record. It is
 * written in such an order that after a crash at any moment the last commit or the new one is
 * whole. As long as a commit is listed its slots must not be written; the caller decides which
 * slot may be (offload/plan/slots.h). A store without a commit holds nobody's work and is made
 * anew. A store with a commit is resumed or refused, and never overwritten. Of a scratch store
 * nothing is left, however the process ends.
 *
 * Thread: create, close: one thread. strata_store_start: any thread; the request is lent to the
 * store until its done function has been called, on the drive's I/O thread.
 */

#include "strata/store.h"

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

/* Which store was looked at, and how far its run was. Zero: there was none with a commit. */
struct store_sight {
    uint8_t store_id[16];
    uint64_t generation; /* of the newest commit record */
};

/* strata_store_list(), and what open compares. Where this fails with ENOENT, out_sight is that
 * of no store. */
strata_status strata_store_look(strata_store_listing *out, struct store_sight *out_sight,
                                const char *const *dirs, uint32_t dir_count,
                                strata_error *error);

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
    bool resume; /* resume from a commit if there is one */
    uint64_t resume_step; /* UINT64_MAX: the last; else a listed one */
    /* What this run was planned for; a store that is another by now, or further, is refused.
     * NULL: whatever there is; borrowed during open. */
    const struct store_sight *seen;
    /* durable: steps from one commit to the next, kept for a resume */
    uint32_t commit_every;     /* 0: as the store has it; a new one gets new_commit_every */
    uint32_t new_commit_every; /* required where commit_every is 0 */
    const char *identity; /* durable: "name=value" lines that a resume must match; copied */
    /* durable: called before a commit's record is written, on the thread that commits; NULL:
     * none. If it fails the store has failed. */
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
    /* where buffers lie; NULL: unknown. Registered with the kernel if that is allowed, which
     * saves CPU time; borrowed until close */
    void *buffers;
    uint64_t buffers_bytes;
    uint64_t deadline_ns; /* 0: 120 s; a request older than that is STRATA_E_TIMEOUT */
    /* 0: 64 MiB. A new store of several drives writes so much to each to measure its speed, if
     * it has at least that on each; a multiple of 4096 */
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
    uint64_t updates; /* records: the updates that it has seen; part of the hash's seed */
    void *buffer;     /* 4096-aligned, place_bytes long */
    /* false: the store hashes. true: the owner makes a write's digests, and it must call
     * strata_store_verify() before it trusts what a read has brought. */
    bool own_hash;
    const struct hash128 *digests; /* own_hash and write: of all pieces; lent until done */
    /* Called on the I/O thread; must not block. It may start transfers, and io may be gone when
     * it returns. */
    void (*done)(void *user, struct store_io *io);
    void *user;
    /* set before done is called */
    strata_status status; /* OK, IO, CORRUPT, TIMEOUT, or that with which the store failed;
                             strata_store_error() describes it */
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

/* Bytes of disk that are free in a directory, and those that a store's files there occupy. */
strata_status strata_store_room(const char *dir, uint64_t *out_free_bytes,
                                uint64_t *out_own_bytes, strata_error *error);

/*
 * Lock the directories, find what is there, make the files (0600, O_NOFOLLOW) or resume with
 * those that exist, and start one I/O thread per drive. On failure nothing is held and files
 * that this call made are gone. A new store has no commit: the owner writes the records and
 * makes the first. If a store is closed before that, its files are removed.
 *
 * STRATA_E_NOMEM: limit_bytes or the free space is too little; nothing was written.
 * STRATA_E_IO: native ENOENT: no such directory; ENOSPC: the space went away meanwhile; EROFS;
 * ... STRATA_E_INVALID: a directory is named twice; or the run to be resumed is another: its
 * drives, identity, layout or step are not those named. STRATA_E_STATE: another process holds
 * the lock; or there is a run and resume was not asked for. STRATA_E_UNSUPPORTED: no io_uring,
 * no O_DIRECT, and `allow` does not name it; or a file that is not a store's or of another
 * version, which is left alone. STRATA_E_CORRUPT: a header, or both copies of the newest commit
 * record or of one of its tables, are damaged. The message names a step to resume from, if
 * there is one.
 */
strata_status strata_store_open(struct store **out, const struct store_desc *desc,
                                strata_error *error);

/*
 * Wait for what is in flight, let scratch files go, unlock. NULL is fine. No other call may be
 * running, not even a start whose transfer has been done already.
 *
 * false: a drive did not answer, and the kernel may still read from or write to the buffers of
 * transfers, until the process ends. They must stay mapped and unused.
 */
bool strata_store_close(struct store *store);

/*
 * Queue a transfer; never fails and never blocks. A place has one transfer at a time, and its
 * first is a write. After STRATA_E_TIMEOUT the drive may still write to the buffer, or read it:
 * see strata_store_close(). A store that has failed ends later transfers with the same status.
 */
void strata_store_start(struct store *store, struct store_io *io);

/* The same, and wait for its end. Not from a done function. */
strata_status strata_store_transfer(struct store *store, bool write, uint32_t place,
                                    uint64_t updates, void *buffer);

/*
 * For own_hash: compare the digests of all pieces that io has read with what was written to the
 * place. STRATA_E_CORRUPT: these are other bytes. The store has failed with that, as it does
 * when it hashes itself. Thread: any; after done, and before io is used again.
 */
strata_status strata_store_verify(struct store *store, const struct store_io *io,
                                  const struct hash128 *digests);

/* A commit as the store knows it: a step, and each record's slot. */
struct store_line {
    uint64_t step;
    const uint8_t *slots; /* by record */
};

/* What open found. lines[0] is the commit that the run resumes from, then the retained ones,
 * newest first. Lent until close. */
struct store_recovery {
    uint32_t line_count; /* 0: a new store */
    struct store_line lines[1 + STRATA_STORE_MAX_KEEP];
    uint64_t updates;
    double loss_scale;
    uint32_t commit_every; /* durable: the descriptor's, the store's, or a new store's */
};
const struct store_recovery *strata_store_recovery(const struct store *store);

/*
 * Make a commit durable: write tile tables to places that no other listed commit uses, one sync
 * per file, then the commit record over the oldest of four, one sync, then a receipt for it.
 * Every write of the records that the commit names must have been reported done. lines[0] is
 * the new commit; the others are those of the listed commits that stay listed. Blocks; one call
 * at a time; not from a done function. A failed sync is never repeated: the store has failed,
 * and the last commit is the one before.
 */
strata_status strata_store_commit(struct store *store, const struct store_line *lines,
                                  uint32_t line_count, uint64_t updates, double loss_scale);

/*
 * The first failure; it stays. An I/O thread writes it before the done call of the transfer
 * that failed, so the receiver of that call may read it.
 */
const strata_error *strata_store_error(const struct store *store);

/* "uring", "threads". Static storage. */
const char *strata_store_backend_name(const struct store *store);
bool strata_store_is_direct(const struct store *store);
/* Are the descriptor's buffers registered with the kernel, for every drive? */
bool strata_store_is_registered(const struct store *store);
/* The drive, by directory, that a place lies on. */
uint32_t strata_store_drive_of(const struct store *store, uint32_t place);

/* Bytes of places moved since open; creation, tables and commit records left out. */
void strata_store_counters(const struct store *store, uint64_t *out_read_bytes,
                           uint64_t *out_written_bytes);
#endif
