#ifndef STRATA_IO_STORE_INTERNAL_H
#define STRATA_IO_STORE_INTERNAL_H

/*
 * What the files of the store share: its structs, and the calls they make to one another.
 *
 *     store_format.c   blocks on disk: sealing and checking them
 *     store_file.c     one drive's file: locks, names, O_DIRECT
 *     store_layout.c   where every place lies, and how many bytes that takes
 *     store_open.c     memory, files, creation: everything before the first transfer
 *     store_records.c  reading the commit records: the newest, what is damaged, what is lost
 *     store_recover.c  what the files hold, and whether this run may resume it
 *     store_commit.c   making a commit durable
 *     store.c          transfers, and close
 *     store_survey.c   the files of a store without its run
 *     store_tools.c    list and drop
 *     store_scrub.c    scrub
 *
 * Besides the places of store.h there are some of the store's own: a place per copy of a tile
 * table and of a commit record, one per receipt, and one per drive that stands for the whole
 * file: a transfer of it is a flush. So the I/O threads need no second kind of job for commits.
 *
 *     0 .. scratch_count      scratch places
 *       .. public_count       slots: record x slots + slot
 *       .. place_count        tables, commit records, receipts, files
 *
 * Thread: a drive's queue, pieces and list belong to one thread at a time: to the opener, then
 * to a creating thread, then to the I/O thread. Starting or joining a thread hands them over.
 */

#include "io/io.h"
#include "io/store.h"
#include "io/store_file.h"
#include "io/store_format.h"

#include "base/channel.h"

#include <pthread.h>
#include <stdatomic.h>

struct place {
    uint64_t offset;
    uint64_t bytes;
    struct hash128 hash; /* of what is there; I/O thread */
    /* records: the updates it has seen; scratch: the count of writes; I/O thread. Other threads
       read it, and hash, only between transfers of the place. */
    uint64_t round;
    uint32_t drive_index;
    bool known; /* hash and round are valid; I/O thread, as these */
    /* Set by the thread that starts a transfer, cleared by the I/O thread before done. Acquire
       and release, so that the fields above are seen with it. */
    _Atomic bool busy;
};

/* Where things are in one drive's file. */
struct drive_layout {
    uint64_t tables_offset[STRATA_STORE_COPIES];
    uint64_t table_bytes;   /* of one table; 0: scratch */
    uint64_t slots_offset;  /* with the commit records between them on the first drive */
    uint64_t durable_bytes; /* scratch places begin here */
    uint64_t record_offsets[STRATA_STORE_RECORD_BLOCKS]; /* the first drive's */
    uint64_t file_bytes;
    uint32_t record_count; /* with bytes, on this drive */
};

/* One request of a transfer. */
struct piece {
    struct io_req req; /* first: a reaped request is its piece */
    struct store_io *io;
    struct piece *next; /* in the list of free ones */
};

/* Digests of a transfer under way that the store hashes. */
struct digest_list {
    struct digest_list *next; /* in the list of free ones */
    struct hash128 digests[]; /* room for the largest place's */
};

struct drive {
    struct store *store;
    struct store_file file;
    struct io_file io_file; /* what the queue knows of it */
    struct io_queue *queue;
    struct channel *channel; /* of struct store_io *; NULL: stop when idle */
    struct drive_layout layout;
    uint64_t fill_from; /* creation writes from here to the end */
    /* Bytes of that which are written; by the filling thread, for the opener's progress;
     * relaxed. */
    _Atomic uint64_t filled_bytes;
    uint64_t probe_ns;           /* time that a probe took; only during open */
    struct store_header *header; /* one block, only during open */
    struct table_head *table;    /* durable: room for one table; open, then commit */
    pthread_t thread;
    bool running;
    /* the I/O thread's */
    struct piece *free_pieces;
    struct digest_list
        *free_lists;        /* as many as pieces: one becomes free with a request's end */
    struct store_io *first; /* not fully submitted, in order of arrival */
    struct store_io **end;
    uint32_t piece_count; /* in flight */
    bool stopping;
    _Atomic uint64_t read_bytes; /* written by the I/O thread, read by any; relaxed */
    _Atomic uint64_t written_bytes;
    /* The thread may be waiting for its queue without having seen what was sent, so the sender
     * has to wake it. Written and read around the channel's lock, which orders them. */
    _Atomic bool idle;
};

struct store {
    const struct io_ops *ops;
    const void *ops_config;
    uint32_t drive_count;
    uint32_t scratch_count; /* places */
    uint32_t public_count;
    uint32_t place_count;
    uint32_t record_count;
    uint32_t slots;
    uint32_t keep;
    bool durable;
    bool flush;
    bool resumed;
    strata_status (*before_commit)(void *user, uint64_t step, strata_error *error);
    void *before_commit_user;
    uint32_t depth;
    uint64_t request_bytes;
    uint64_t deadline_ns;
    uint64_t probe_bytes;
    uint32_t shares[STRATA_STORE_MAX_DRIVES]; /* of the places; see store_format.h */
    struct drive *drives;
    struct place *places;
    struct piece *pieces; /* depth of them per drive */
    uint8_t *lists;       /* as many */
    uint8_t *fill;        /* only during open: what is written, then one header per drive */
    uint8_t *blocks;      /* durable: tables of the drives, then commit record and receipt */
    /* the commits; the opener's, then the committing thread's */
    uint8_t store_id[16];
    uint64_t generation;                                   /* the greatest there was */
    uint64_t listing_generation;                           /* of the record that lists lines */
    uint64_t record_generation[STRATA_STORE_RECORD_COUNT]; /* 0: none valid */
    uint32_t line_count;                                   /* listed; 0: no commit yet */
    struct listed_commit lines[STRATA_STORE_LINES];
    struct commit_record *record;   /* a block */
    struct commit_receipt *receipt; /* a block */
    struct store_recovery recovery;
    uint8_t *recovered_slots; /* by line and record */
    bool relist;              /* the newest listing on disk lists other commits */
    bool confirm;             /* it lists these, but lacks a receipt or has a damaged copy */
    uint32_t torn_copy;       /* the block of that copy; STRATA_STORE_RECORD_BLOCKS: none */
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

/* Places: those of store.h, and all of them. */
uint32_t strata_store_public_places(const struct store_desc *desc);
uint32_t strata_store_all_places(const struct store_desc *desc);

/* Creation's requests; from 1 MiB on a drive is as fast as it gets. */
#define STRATA_STORE_FILL_BYTES (1u << 20)

/* Where everything lies. places: by number; may be NULL. shares: NULL: all drives have the
 * same. It follows from the descriptor and the shares alone, and all but the scratch places
 * from the records and the shares alone. */
void strata_store_lay_out(const struct store_desc *desc, const uint32_t *shares,
                          struct drive_layout *out_drives, struct place *places);

/* From record_count and durable_bytes: where the tables of a drive are, and the slots. */
void strata_store_place_tables(struct drive_layout *layout, uint32_t tables);

/* How many commit records lie before the slots of a record on the first drive. slot_offset:
 * bytes of slots before its first; slot_bytes: bytes of all slots of the drive. */
uint32_t strata_store_records_before(uint64_t slot_offset, uint64_t slot_bytes);

/* Lay the store out by its shares. Its memory is enough for any shares. */
void strata_store_settle(struct store *store, const struct store_desc *desc);

/* The same with equal shares. */
void strata_store_share_evenly(struct store *store, const struct store_desc *desc);

/* Blocks that other shares may cost over equal ones, in each copy of the tables. */
uint32_t strata_store_spare_blocks(const struct store_desc *desc);

/* Shares from the time that each drive took for the same work. Times within a tenth of each
 * other give the same share. */
void strata_store_share(const uint64_t *times_ns, uint32_t count, uint32_t *out);

uint32_t strata_store_slot_place(const struct store *store, uint32_t record, uint32_t slot);
uint32_t strata_store_table_place(const struct store *store, uint32_t drive, uint32_t table,
                                  uint32_t copy);
uint32_t strata_store_commit_place(const struct store *store, uint32_t index, uint32_t copy);
uint32_t strata_store_receipt_place(const struct store *store, uint32_t index);
uint32_t strata_store_file_place(const struct store *store, uint32_t drive);

/* The hash of the records' lengths. */
struct hash128 strata_store_layout_hash(const struct store_records *records);

/* Lock the directories and judge what is there; fills in the drives' files and headers.
 * read_only: nothing will be written. */
strata_status strata_store_find_files(struct store *store, const char *const *dirs,
                                      bool read_only, strata_error *error);

/* The drives are those of one store, all of them, in order. */
strata_status strata_store_check_drives(const struct store *store, const char *const *dirs,
                                        uint32_t first, strata_error *error);

/* Damaged copies whose other copy is whole: they are counted, and tell, which may be NULL, gets
 * a line for each. */
struct damage {
    void (*tell)(void *user, const char *line);
    void *user;
    uint64_t count;
};
void strata_store_tell_damage(struct damage *damage, const strata_error *story);

/*
 * The commit records of a store's first file. Blocks are the first copies of the four, then the
 * second ones.
 */
struct commits {
    const struct commit_record *blocks; /* lent by the store's fill */
    /* Blocks, the better copy of each record that has one, by generation, newest first. */
    uint32_t order[STRATA_STORE_RECORD_COUNT];
    uint32_t count;                                  /* 0: the store has no commit */
    uint64_t generations[STRATA_STORE_RECORD_COUNT]; /* of the records; 0: none valid */
    uint64_t generation;                             /* the greatest that any block names */
    bool lost;            /* a newer record than order[0] was durable and is not there */
    uint64_t lost_step;   /* its commit; UINT64_MAX: not known */
    bool has_both_copies; /* the record of order[0] */
    bool has_receipt;     /* the same record */
};

/* The block with the other copy of a record. */
uint32_t strata_store_other_copy(uint32_t block);

/* Blocks of memory at the store's fill that this uses. */
#define STRATA_STORE_READ_BLOCKS (STRATA_STORE_RECORD_BLOCKS + 1)

/*
 * Read them. Damage that cost nothing goes to damage, which may be NULL.
 *
 * STRATA_E_CORRUPT: there is no record, and the store is not a new one either.
 */
strata_status strata_store_read_commits(const struct store *store, const struct drive *drive,
                                        struct commits *out, struct damage *damage,
                                        strata_error *error);

/* STRATA_E_CORRUPT, with a message on the commit that is lost. */
strata_status strata_store_lost(const struct drive *drive, const struct commits *commits,
                                strata_error *error);

/* The record to write over next: the oldest, but never the one of the current generation. */
uint32_t strata_store_oldest_record(const uint64_t *generations, uint64_t current);

/* Read the tables of a listed commit into the drives' buffers. OK: one copy of each is whole.
 * STRATA_E_CORRUPT: of one table neither is. damage: as above. */
strata_status strata_store_read_tables(struct store *store, const struct listed_commit *line,
                                       struct damage *damage, strata_error *error);

/*
 * Judge what the files hold. store->resumed: this run resumes it; hashes and recovery are
 * filled in. Else there is no commit, and the files may be made anew. Nothing is written.
 */
strata_status strata_store_recover(struct store *store, const struct store_desc *desc,
                                   strata_error *error);

/* Write the listing as it is in memory under a new generation. */
strata_status strata_store_relist(struct store *store);

/* Write the damaged copy of the newest record again, from the store's record block, and its
 * receipt. */
strata_status strata_store_confirm(struct store *store);

/* Never free a block of malloc's, since a drive may still use it. */
void strata_store_leave(void *block);

/* As strata_store_start, for the store's own places too. */
void strata_store_launch(struct store *store, struct store_io *io);

/* Launch transfers and wait for all of them. Each has a status then. */
void strata_store_run(struct store *store, struct store_io *ios, uint32_t count);

/* OK, or the status of the first failure. Thread: any. */
strata_status strata_store_failed(const struct store *store);

/* Keep a failure if it is the first. store->error may be read afterwards. Thread: any. */
void strata_store_note(struct store *store, const strata_error *error);

/* For the opener: return the store's status, and copy its failure to error if that is not NULL.
 */
strata_status strata_store_tell(const struct store *store, strata_error *error);

/* Is there space? Of directories that share a file system the needs are added up, and so is the
 * space that files which are made anew give back. */
strata_status strata_store_check_space(const struct store *store, const struct store_desc *desc,
                                       strata_error *error);

/* Settle where places lie in new files, which are open, and write what is not written yet. */
strata_status strata_store_create(struct store *store, const struct store_desc *desc,
                                  strata_error *error);

/* A piece of the drive's; there must be a free one. */
struct piece *strata_drive_take(struct drive *drive);
void strata_drive_free(struct drive *drive, struct piece *piece);

/* A piece that has ended; a failure has been noted. NULL after a wake or the timeout. */
struct piece *strata_drive_reap(struct drive *drive, uint64_t timeout_ns);

/* The I/O thread: it makes transfers until it is asked to stop and none is left. user: the
 * drive. */
void *strata_drive_serve(void *user);

/* Run the drive's thread; one at a time. */
strata_status strata_drive_start(struct drive *drive, void *(*run)(void *),
                                 strata_error *error);

/* Wait for the drive's thread, if it has one. */
void strata_drive_join(struct drive *drive);

/* One line to the descriptor's log. */
void strata_store_log(const struct store_desc *desc, const char *format, ...)
    STRATA_PRINTF(2, 3);

#endif
