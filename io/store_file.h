#ifndef STRATA_IO_STORE_FILE_H
#define STRATA_IO_STORE_FILE_H

/*
 * One drive's file of a store: finding, locking, making and removing it, and the block it
 * begins with. What lies behind that block is the store's business.
 *
 * The order is always the same, so that a refusal leaves everything as it was:
 *
 *     find      open the directory; lock and identify a file that is there already
 *     make      create the file, or empty the one found; write the header
 *     reserve   take the space
 *     close     remove what make made, unlock, forget
 *
 * Thread: one at a time per file.
 */

#include "strata/status.h"

#include <stdbool.h>
#include <sys/types.h>

#define STRATA_STORE_FILE_NAME    "strata.tiles"
#define STRATA_STORE_HEADER_BYTES 4096u

/*
 * The first block of a file, in the byte order of the machine, which is little-endian wherever
 * this library runs. A reader refuses what it does not know; so a field that changes what the
 * rest of the file means raises the version.
 */
struct store_header {
    char magic[8];
    uint32_t version;
    uint32_t header_bytes;
    uint8_t store_id[16]; /* random; the same in all files of one store     */
    uint32_t drive_index;
    uint32_t drive_count;
    uint32_t place_count; /* of the whole store                             */
    uint32_t tile_elems;
    uint64_t file_bytes; /* of this file, header included                   */
    uint64_t generation; /* of the last commit; 0: there is none            */
    uint8_t zero[STRATA_STORE_HEADER_BYTES - 80];
    uint8_t hash[16]; /* of everything before it                            */
};

struct store_file {
    char *path; /* owned; directory and name, for messages            */
    int dir_fd;
    int fd;                 /* -1: no file                                        */
    dev_t device;           /* the file system's, the same for drives that share it */
    bool found;             /* somebody's scratch lay there; it is locked         */
    bool made;              /* ours to remove                                     */
    bool direct;            /* O_DIRECT                                           */
    uint64_t reclaim_bytes; /* of disk, which making it anew gives back     */
};

/* Bytes of memory that find takes. */
uint64_t strata_store_file_memory_bytes(const char *dir);

/*
 * On failure nothing is held and nothing was touched.
 *
 * STRATA_E_IO: native ENOENT: no such directory; ELOOP: the file is a symbolic link; ...
 * STRATA_E_STATE: another process holds the lock.
 * STRATA_E_UNSUPPORTED: a file that is not ours, or of another version, or with a commit.
 * STRATA_E_CORRUPT: a header of ours that does not match its own hash.
 */
strata_status strata_store_file_find(struct store_file *out, const char *dir,
                                     strata_error *error);

/*
 * header: aligned as a block; its hash is set here. Afterwards fd is open, locked and direct,
 * unless the file system cannot and allow_buffered is set. On failure close is still due.
 */
strata_status strata_store_file_make(struct store_file *file, struct store_header *header,
                                     bool allow_buffered, strata_error *error);

/* STRATA_E_IO, native ENOSPC: the space went away since it was looked at. */
strata_status strata_store_file_reserve(const struct store_file *file, uint64_t bytes,
                                        strata_error *error);

/* The blocks are at least what a header is, the hash is right, and the version is ours. */
strata_status strata_store_header_check(const struct store_header *header, const char *path,
                                        strata_error *error);

/*
 * Removes the file if it was made, then closes it, which gives up the lock. A zeroed file with
 * both descriptors -1 is fine.
 */
void strata_store_file_close(struct store_file *file);

#endif
