#ifndef STRATA_IO_STORE_FILE_H
#define STRATA_IO_STORE_FILE_H

/*
 * One drive's file of a store: finding, locking, making, naming and removing it. Of its
 * contents only the header is read here, by which a store's file is known.
 *
 * The order is always the same, so that a refusal leaves everything as it was:
 *
 *     find      lock the directory; lock and identify a file that is there already
 *     discard   remove the file found, which has no commit      \  or  adopt: keep it
 *     make      create a file that has no name yet, or never    /
 *     publish   give it the store's name, when it is complete
 *     close     remove what make made and what was not kept, unlock
 *
 * Thread: one at a time per file.
 */

#include "io/store_format.h"

#include <sys/types.h>

#define STRATA_STORE_FILE_NAME "strata.tiles"
/* A file in the making. If the directory's lock is free, a file with this name is a leftover.
 */
#define STRATA_STORE_NEW_NAME "strata.tiles.new"

struct store_file {
    char *path;           /* owned; directory and name, for messages                         */
    int dir_fd;           /* locked for as long as it is open                                */
    int fd;               /* -1: no file                                                     */
    dev_t device;         /* the file system's, the same for drives that share it */
    const char *made;     /* the name of a file that close removes; NULL: none    */
    uint64_t found_bytes; /* length of the file found                             */
    uint64_t taken_bytes; /* of these, those that have their space on the disk    */
    uint64_t reclaim_bytes; /* of disk, that are free once the file is made anew    */
    bool read_only;         /* opened for reading alone                             */
    bool others_write;      /* others may write to the directory: remove the file   */
    bool checked;           /* by strata_store_file_check(), once                   */
    bool full;              /* it had its space each time                           */
    bool found;             /* a file with the store's name is there; it is locked  */
    bool direct;            /* O_DIRECT                                             */
};

/* Bytes of memory that find takes: the same for every directory, so that a plan's bytes do not
 * depend on where its store lies. */
uint64_t strata_store_file_memory_bytes(void);

/*
 * out_header: aligned as a block; the header of the file found, checked. An empty file is found
 * with a header of zeros. On failure nothing is held and nothing was changed. read_only: for a
 * caller that only reads: a file on a read-only mount is fine, and a file in the making is not
 * looked at.
 *
 * STRATA_E_IO: native ENOENT: no such directory; ELOOP: the file is a symbolic link; EROFS,
 * EACCES: it cannot be written to; EPERM: others can change it, see strata_store_file_check().
 * STRATA_E_STATE: another process uses the directory, or writes of one that died do not end.
 * STRATA_E_UNSUPPORTED, STRATA_E_CORRUPT: see strata_store_header_check().
 */
strata_status strata_store_file_find(struct store_file *out, const char *dir, bool read_only,
                                     struct store_header *out_header, strata_error *error);

/* Read a range, aligned as for O_DIRECT. STRATA_E_CORRUPT: the file ends before. */
strata_status strata_store_file_read(const struct store_file *file, void *buffer,
                                     uint64_t bytes, uint64_t offset, strata_error *error);

/* Remove the file found, for good. */
strata_status strata_store_file_discard(struct store_file *file, strata_error *error);

/*
 * Create an empty file, locked and direct unless the file system cannot and allow_buffered is
 * set. It will be published, or (scratch) nothing of it is left when the process ends, however
 * it does. On failure close is still due.
 */
strata_status strata_store_file_make(struct store_file *file, bool scratch, bool allow_buffered,
                                     strata_error *error);

/* Keep the file found; it is then as make would leave it. */
strata_status strata_store_file_adopt(struct store_file *file, bool allow_buffered,
                                      strata_error *error);

/* Make the file this long: cut it, or take the space that it does not have yet. STRATA_E_IO,
 * native ENOSPC: the space is gone since it was checked. */
strata_status strata_store_file_resize(const struct store_file *file, uint64_t bytes,
                                       strata_error *error);

/* Name a complete file, durably. Until it is kept, with the first commit, close removes it. */
strata_status strata_store_file_publish(struct store_file *file, strata_error *error);
void strata_store_file_keep(struct store_file *file);

/*
 * OK: the name in the directory still belongs to this file, the file has so many bytes, and it
 * is ours alone: it belongs to this process's user, nobody else may read or write it, and it
 * has no second name. A commit is made only if this holds.
 *
 * STRATA_E_IO: native ESTALE: it was removed, replaced or cut; EPERM: it is not ours alone.
 */
strata_status strata_store_file_check(struct store_file *file, uint64_t bytes,
                                      strata_error *error);

/* A zeroed file with both descriptors -1 is fine. */
void strata_store_file_close(struct store_file *file);

#endif
