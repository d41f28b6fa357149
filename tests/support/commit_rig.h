#ifndef STRATA_TESTS_COMMIT_RIG_H
#define STRATA_TESTS_COMMIT_RIG_H

/*
 * A durable store with a run on it: eight records over one to three drives, written step after
 * step into the slots that the slot rule leaves, and committed every so many steps. The bytes
 * of a record follow from its number and step, so anybody can say what must be there.
 *
 *     strata_commit_rig_make(&rig, 2, STRATA_IO_URING);
 *     strata_commit_rig_open(&rig, &error);          // anew, or where it was left
 *     while (rig.step < 5)
 *         strata_commit_rig_step(&rig);
 *     strata_commit_rig_close(&rig);
 *     ...
 *     strata_commit_rig_remove(&rig);
 *
 * Thread: one.
 */

#include "io/store_internal.h"
#include "offload/plan/slots.h"
#include "tests/support/temp_dir.h"

#define COMMIT_RECORDS    8u
#define COMMIT_DRIVES_MAX 3u
/* One request and a block. */
#define COMMIT_LARGEST_BYTES (STRATA_HASH_PIECE_BYTES + STRATA_IO_ALIGN_BYTES)

/* The steps that a store lists, newest first. */
struct commit_list {
    uint32_t count; /* 0: no commit */
    uint64_t steps[1 + STRATA_MAX_KEEP];
};

struct commit_rig {
    struct temp_dir dir;
    char drives[COMMIT_DRIVES_MAX][PATH_MAX + 8];
    const char *dirs[COMMIT_DRIVES_MAX];
    uint64_t record_bytes[COMMIT_RECORDS];
    uint64_t scratch_bytes[2];
    struct store_records records; /* resume is set: open anew or go on */
    struct store_desc desc;
    const struct io_ops *ops; /* NULL: the kernel's, by desc.backend */
    const void *ops_config;
    uint32_t commit_every;
    uint32_t keep_every;
    uint32_t
        elsewhere; /* by bit: records that rest in RAM, and are written for a commit only */
    /* while it is open */
    struct store *store;
    struct tables tables;
    struct slots slots;
    uint64_t step; /* written */
    /* durable as far as the store said; kept after close and by an open that fails */
    struct commit_list listed;
    struct commit_list pending; /* what a commit under way makes of it; likewise */
    uint8_t *buffer;            /* of the largest record */
    uint8_t *expected;
};

/* Directories and a descriptor; commits every step, none retained. No store yet. in_memory: on
 * a file system made of RAM, where there is one. */
void strata_commit_rig_make(struct commit_rig *out, uint32_t drive_count,
                            strata_io_backend backend, bool in_memory);
void strata_commit_rig_remove(struct commit_rig *rig);

/* Set what may be retained before open. */
void strata_commit_rig_keep(struct commit_rig *rig, uint32_t keep, uint32_t keep_every);

/* Open; a new store gets its records of step 0 and that commit. On failure nothing is open. */
strata_status strata_commit_rig_open(struct commit_rig *rig, strata_error *error);
void strata_commit_rig_close(struct commit_rig *rig);

/* What a process leaves that is killed before its first commit. */
void strata_commit_rig_leave_uncommitted(struct commit_rig *rig);

/* The next step: every record that rests here, and where one is due all and the commit. */
strata_status strata_commit_rig_step(struct commit_rig *rig);

/* Read every record of every commit that open found, and compare; updates and scale as well. */
strata_status strata_commit_rig_check(struct commit_rig *rig, bool *out_same);

/* What a commit of the step has besides; some steps update nothing. */
uint64_t strata_commit_rig_updates(uint64_t step);
double strata_commit_rig_scale(uint64_t step);

/* Bytes that depend on the record and the step, so that none can stand for another. */
void strata_commit_rig_pattern(const struct commit_rig *rig, uint32_t record, uint64_t step,
                               uint8_t *out);

/* Where in the files things are. */
struct commit_places {
    uint64_t records[STRATA_STORE_RECORD_BLOCKS]; /* on the first drive */
    uint64_t newest[STRATA_STORE_COPIES];         /* the newest of these */
    /* by drive and line of the newest record */
    uint64_t tables[COMMIT_DRIVES_MAX][1 + STRATA_MAX_KEEP][STRATA_STORE_COPIES];
    uint64_t table_bytes[COMMIT_DRIVES_MAX];
    uint64_t back_tables; /* of the first drive: the second copies of all tables */
    uint64_t durable_bytes[COMMIT_DRIVES_MAX];
};

/* Of a store that is open. */
void strata_commit_rig_find(const struct commit_rig *rig, struct commit_places *out);

/* The path of a drive's file, into out of PATH_MAX + 32 bytes; returns out. */
const char *strata_commit_rig_file(const struct commit_rig *rig, uint32_t drive_index,
                                   char *out);

#endif
