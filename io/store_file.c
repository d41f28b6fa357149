#define _GNU_SOURCE
/*
 * The file of one drive: who owns it, what it is, and that it is removed.
 *
 * Ownership is a lock on the file itself, not a file beside it: the kernel drops it with the
 * last reference, and the ring that writes to the file holds one. So a file that can be locked
 * has no write in flight, even if its last owner was killed in the middle of one. Such writes
 * take tens of milliseconds to land, therefore a lock that is taken is tried again for a
 * moment.
 *
 * The name may have been removed, or given to another file, between opening and locking. Only a
 * locked file that still has the name counts; its owner removes the name while it holds the
 * lock.
 *
 * Nobody's work is overwritten. A file is taken over only if its header is one this version
 * wrote and names no commit, or if it is empty, which is what a process killed between creating
 * a file and writing its header leaves. Everything else is refused and not touched.
 *
 * O_DIRECT is switched on after opening: an open that fails for lack of it may have created the
 * file already. Some file systems accept the flag and use the page cache all the same; statx
 * tells.
 *
 * Thread: one at a time per file.
 */

#include "io/store_file.h"

#include "io/io.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define VERSION 1u
static const char magic[8] = {'S', 'T', 'R', 'A', 'T', 'A', '\r', '\n'};

/* Writes of a killed owner were seen to land up to 59 ms later; two seconds are a moment. */
#define LOCK_WAIT_NS  2000000000u
#define LOCK_PAUSE_NS 10000000

/* Each lap means that somebody closed a store between our open and our lock. */
#define FIND_LAPS 16

_Static_assert(sizeof(struct store_header) == STRATA_STORE_HEADER_BYTES, "one block");
_Static_assert(offsetof(struct store_header, hash) == STRATA_STORE_HEADER_BYTES - 16,
               "at its end");

static void header_hash(const struct store_header *header, uint8_t out[16])
{
    struct hash128 hash = strata_hash(header, offsetof(struct store_header, hash), 0);
    memcpy(out, &hash.low, 8);
    memcpy(out + 8, &hash.high, 8);
}

strata_status strata_store_header_check(const struct store_header *header, const char *path,
                                        strata_error *error)
{
    uint8_t hash[16];
    if (memcmp(header->magic, magic, sizeof magic) != 0)
        return strata_fail(
            error, STRATA_E_UNSUPPORTED, 0,
            "%s is not a store's file; it is left alone: move it or name another "
            "directory",
            path);
    if (header->version != VERSION || header->header_bytes != STRATA_STORE_HEADER_BYTES)
        return strata_fail(error, STRATA_E_UNSUPPORTED, 0,
                           "%s is of store version %" PRIu32 ", this one knows %u; it is left "
                           "alone",
                           path, header->version, VERSION);
    header_hash(header, hash);
    if (memcmp(hash, header->hash, sizeof hash) != 0)
        return strata_fail(error, STRATA_E_CORRUPT, 0,
                           "the header of %s, %u bytes at 0, is not what was written; the file "
                           "is left alone: move it or remove it",
                           path, STRATA_STORE_HEADER_BYTES);
    return STRATA_OK;
}

/* Take the lock, patiently. EWOULDBLOCK: the owner lives. */
static int lock_file(int fd)
{
    uint64_t begin_ns = strata_now_ns();
    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return errno;
        if (strata_now_ns() - begin_ns > LOCK_WAIT_NS)
            return EWOULDBLOCK;
        nanosleep(&(struct timespec){.tv_nsec = LOCK_PAUSE_NS}, NULL);
    }
    return 0;
}

static strata_status lock_failed(const struct store_file *file, int cause, strata_error *error)
{
    if (cause == EWOULDBLOCK)
        return strata_fail(
            error, STRATA_E_STATE, cause, "store %.*s is in use by another process",
            (int)(strlen(file->path) - sizeof STRATA_STORE_FILE_NAME), file->path);
    return strata_fail(error, STRATA_E_IO, cause, "lock of %s: %s", file->path,
                       strerror(cause));
}

/* The name in the directory still means this very file. */
static bool named(int dir_fd, int fd)
{
    struct stat mine, theirs;
    return fstat(fd, &mine) == 0 &&
           fstatat(dir_fd, STRATA_STORE_FILE_NAME, &theirs, AT_SYMLINK_NOFOLLOW) == 0 &&
           mine.st_dev == theirs.st_dev && mine.st_ino == theirs.st_ino;
}

/* Whose is it? OK: nobody's any more. */
static strata_status identify(struct store_file *file, int fd, strata_error *error)
{
    struct stat stat;
    struct store_header header = {.version = 0};
    if (fstat(fd, &stat) != 0)
        return strata_fail(error, STRATA_E_IO, errno, "stat of %s: %s", file->path,
                           strerror(errno));
    file->reclaim_bytes = (uint64_t)stat.st_blocks * 512;
    if (stat.st_size == 0)
        return STRATA_OK;
    ssize_t got = pread(fd, &header, sizeof header, 0);
    if (got < 0)
        return strata_fail(error, STRATA_E_IO, errno, "read of %u bytes at 0 in %s: %s",
                           STRATA_STORE_HEADER_BYTES, file->path, strerror(errno));
    STRATA_TRY(strata_store_header_check(&header, file->path, error));
    if (header.generation != 0)
        return strata_fail(error, STRATA_E_UNSUPPORTED, 0,
                           "%s holds a commit (generation %" PRIu64 "), which this version "
                           "cannot use; it is left alone",
                           file->path, header.generation);
    return STRATA_OK;
}

/* Open what has the name; *out_fd is -1 where nothing has. */
static strata_status open_found(const struct store_file *file, int *out_fd, strata_error *error)
{
    struct stat stat;
    int fd = openat(file->dir_fd, STRATA_STORE_FILE_NAME,
                    O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    *out_fd = -1;
    if (fd < 0 && errno == ENOENT)
        return STRATA_OK;
    if (fd < 0 && errno == ELOOP)
        return strata_fail(error, STRATA_E_IO, ELOOP,
                           "open of %s: it is a symbolic link, which is never followed",
                           file->path);
    if (fd < 0)
        return strata_fail(error, STRATA_E_IO, errno, "open of %s: %s", file->path,
                           strerror(errno));
    if (fstat(fd, &stat) != 0 || !S_ISREG(stat.st_mode)) {
        close(fd);
        return strata_fail(error, STRATA_E_UNSUPPORTED, 0,
                           "%s is not a regular file; it is left alone", file->path);
    }
    *out_fd = fd;
    return STRATA_OK;
}

/* Lock what is there; *out_again: it lost its name meanwhile. */
static strata_status claim(struct store_file *file, bool *out_again, strata_error *error)
{
    int fd;
    *out_again = false;
    STRATA_TRY(open_found(file, &fd, error));
    if (fd < 0)
        return STRATA_OK;
    strata_status status = STRATA_OK;
    int cause = lock_file(fd);
    if (cause != 0)
        status = lock_failed(file, cause, error);
    else if (!named(file->dir_fd, fd))
        *out_again = true;
    else
        status = identify(file, fd, error);
    if (status != STRATA_OK || *out_again) {
        close(fd);
        return status;
    }
    file->fd = fd;
    file->found = true;
    return STRATA_OK;
}

static strata_status open_directory(struct store_file *file, const char *dir,
                                    strata_error *error)
{
    struct stat stat;
    file->dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (file->dir_fd < 0 || fstat(file->dir_fd, &stat) != 0)
        return strata_fail(error, STRATA_E_IO, errno, "store directory %s: %s", dir,
                           strerror(errno));
    file->device = stat.st_dev;
    return STRATA_OK;
}

uint64_t strata_store_file_memory_bytes(const char *dir)
{
    return strlen(dir) + 1 + sizeof STRATA_STORE_FILE_NAME;
}

strata_status strata_store_file_find(struct store_file *out, const char *dir,
                                     strata_error *error)
{
    *out = (struct store_file){.dir_fd = -1, .fd = -1};
    size_t path_bytes = strata_store_file_memory_bytes(dir);
    out->path = malloc(path_bytes);
    if (out->path == NULL)
        return strata_fail(error, STRATA_E_NOMEM, ENOMEM, "host: no memory for a path");
    snprintf(out->path, path_bytes, "%s/%s", dir, STRATA_STORE_FILE_NAME);
    strata_status status = open_directory(out, dir, error);
    bool again = true;
    for (int lap = 0; status == STRATA_OK && again && lap < FIND_LAPS; lap++)
        status = claim(out, &again, error);
    if (status == STRATA_OK && again)
        status = lock_failed(out, EWOULDBLOCK, error);
    if (status != STRATA_OK)
        strata_store_file_close(out);
    return status;
}

/* Only a lock makes the new file ours: somebody may have found and locked it before us. */
static strata_status create(struct store_file *file, strata_error *error)
{
    file->fd = openat(file->dir_fd, STRATA_STORE_FILE_NAME,
                      O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file->fd < 0)
        return strata_fail(error, STRATA_E_IO, errno, "creation of %s: %s", file->path,
                           strerror(errno));
    int cause = lock_file(file->fd);
    if (cause == 0 && !named(file->dir_fd, file->fd))
        cause = EWOULDBLOCK;
    /* Made by us, unless it is somebody else's by now. */
    file->made = cause != EWOULDBLOCK;
    return cause == 0 ? STRATA_OK : lock_failed(file, cause, error);
}

static strata_status make_anew(struct store_file *file, strata_error *error)
{
    file->made = true;
    if (fchmod(file->fd, 0600) != 0 || ftruncate(file->fd, 0) != 0)
        return strata_fail(error, STRATA_E_IO, errno, "emptying %s: %s", file->path,
                           strerror(errno));
    return STRATA_OK;
}

/* The alignment this file asks of direct transfers is one that we keep. 0: it has none. */
static bool alignment_fits(int fd)
{
    struct statx fields;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &fields) != 0 ||
        !(fields.stx_mask & STATX_DIOALIGN))
        return true; // Not told: the transfers of the creation will.
    return fields.stx_dio_offset_align > 0 &&
           fields.stx_dio_offset_align <= STRATA_IO_ALIGN_BYTES &&
           fields.stx_dio_mem_align <= STRATA_IO_ALIGN_BYTES;
}

static strata_status make_direct(struct store_file *file, bool allow_buffered,
                                 strata_error *error)
{
    int flags = fcntl(file->fd, F_GETFL);
    file->direct = fcntl(file->fd, F_SETFL, flags | O_DIRECT) == 0;
    if (!file->direct && errno != EINVAL)
        return strata_fail(error, STRATA_E_IO, errno, "O_DIRECT on %s: %s", file->path,
                           strerror(errno));
    file->direct = file->direct && alignment_fits(file->fd);
    if (file->direct)
        return STRATA_OK;
    if (!allow_buffered)
        return strata_fail(error, STRATA_E_UNSUPPORTED, EINVAL,
                           "%s: this file system has no O_DIRECT; name a directory on another, "
                           "or run with --allow buffered-io",
                           file->path);
    if (fcntl(file->fd, F_SETFL, flags & ~O_DIRECT) != 0)
        return strata_fail(error, STRATA_E_IO, errno, "flags of %s: %s", file->path,
                           strerror(errno));
    return STRATA_OK;
}

static strata_status write_header(const struct store_file *file, struct store_header *header,
                                  strata_error *error)
{
    memcpy(header->magic, magic, sizeof magic);
    header->version = VERSION;
    header->header_bytes = STRATA_STORE_HEADER_BYTES;
    header_hash(header, header->hash);
    ssize_t put = pwrite(file->fd, header, sizeof *header, 0);
    if (put == sizeof *header)
        return STRATA_OK;
    int cause = put < 0 ? errno : ENOSPC;
    return strata_fail(error, STRATA_E_IO, cause, "write of %u bytes at 0 in %s: %s",
                       STRATA_STORE_HEADER_BYTES, file->path, strerror(cause));
}

strata_status strata_store_file_make(struct store_file *file, struct store_header *header,
                                     bool allow_buffered, strata_error *error)
{
    STRATA_TRY(file->found ? make_anew(file, error) : create(file, error));
    STRATA_TRY(make_direct(file, allow_buffered, error));
    return write_header(file, header, error);
}

strata_status strata_store_file_reserve(const struct store_file *file, uint64_t bytes,
                                        strata_error *error)
{
    int rc;
    do
        rc = fallocate(file->fd, 0, 0, (off_t)bytes);
    while (rc != 0 && errno == EINTR);
    /* Where it does not exist the writing pass alone takes the space. */
    if (rc != 0 && errno != EOPNOTSUPP)
        return strata_fail(error, STRATA_E_IO, errno, "reserving %" PRIu64 " bytes for %s: %s",
                           bytes, file->path, strerror(errno));
    return STRATA_OK;
}

void strata_store_file_close(struct store_file *file)
{
    if (file->fd >= 0) {
        if (file->made && named(file->dir_fd, file->fd))
            unlinkat(file->dir_fd, STRATA_STORE_FILE_NAME, 0);
        close(file->fd);
    }
    if (file->dir_fd >= 0)
        close(file->dir_fd);
    free(file->path);
    *file = (struct store_file){.dir_fd = -1, .fd = -1};
}
