#ifndef STRATA_TESTS_STORE_RIG_H
#define STRATA_TESTS_STORE_RIG_H

/*
 * A small store in directories of its own: places of several sizes, none a multiple of the
 * request size but one, over one to three drives.
 *
 * Thread: one.
 */

#include "io/store_internal.h"
#include "tests/support/temp_dir.h"

#define RIG_PLACES        12u
#define RIG_DRIVES_MAX    3u
#define RIG_REQUEST_BYTES 65536u
#define RIG_LARGEST_BYTES (5u * RIG_REQUEST_BYTES)

struct store_rig {
    struct temp_dir dir;
    char drives[RIG_DRIVES_MAX][PATH_MAX + 8];
    const char *dirs[RIG_DRIVES_MAX];
    uint64_t place_bytes[RIG_PLACES];
    struct store_records records; /* none */
    struct store_desc desc;
    struct store *store;
    uint8_t *buffer; /* of the largest place */
};

/* Directories and a descriptor whose limit is exactly what the files need; no store yet. */
void strata_store_rig_make(struct store_rig *out, uint32_t drive_count,
                           strata_io_backend backend);

/* Close the store, if there is one, and remove the directories. */
void strata_store_rig_remove(struct store_rig *rig);

/* A path of a drive's file, which has no name while the store is open; into out of PATH_MAX +
 * 32 bytes; returns out. */
const char *strata_store_rig_file(const struct store_rig *rig, uint32_t drive_index, char *out);

/* Bytes that depend on the place and the round, so that none can stand for another. */
void strata_store_rig_pattern(const struct store_rig *rig, uint32_t place, uint32_t round,
                              uint8_t *out);

/* Write one place; read it and compare with what that round wrote. */
strata_status strata_store_rig_write(struct store_rig *rig, uint32_t place, uint32_t round);
strata_status strata_store_rig_read(struct store_rig *rig, uint32_t place, uint32_t round,
                                    bool *out_same);

/* Have the latest line that a store logs in line, of 512 bytes. */
void strata_store_keep_line(struct store_desc *desc, char *line);

/* Does the call end in a failed check? A child makes it, so that the store can be removed
 * after. */
bool strata_rig_aborts(void (*call)(void *rig), void *rig);

/* Descriptors this process has open. */
int strata_open_descriptors(void);

#endif
