#define _GNU_SOURCE
/*
 * The file of one drive: finding, locking, checking, making and removing it.
 *
 * There are two locks. The lock on the directory is held by a process that works here, and ends
 * with the process. The lock on the file lasts until the last write of a process has ended,
 * even if that process was killed: the ring that writes to the file holds a reference to it,
 * and the kernel drops the lock with the last reference. So a file that can be locked has no
 * write in flight.
 *
 * A file gets the store's name only when it is complete and on the drive. So a file with that
 * name has a header by which it can be judged, and nobody's work is overwritten. If the power
 * fails during a creation, what is left of it has another name, or none. A scratch file has no
 * name at all, so nothing of it outlives the process.
 *
 * O_DIRECT is switched on after opening, because an open that fails for lack of it may have
 * created the file already. Some file systems accept the flag and use the page cache all the
 * same; statx reports that.
 *
 * A run's file must be ours alone. A user who may write to it could replace committed bytes by
 * others with matching hashes. A user who may read it can hold its lock, and has the weights. A
 * second name is a second way to both. So such a file is refused. New files are checked too: on
 * some file systems owners or modes cannot be set. Reading is less strict, since it harms no
 * run: mode and names do not matter, so that a copy on a read-only mount can be verified, and
 * root may read a file of any user.
 *
 * Thread: one at a time per file.
 */

#include "io/store_file.h"

#include "io/io.h"

#include "base/clock.h"
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

/* How long to wait for a lock. An owner that was killed frees its memory before its locks, and
 * its writes were seen to end up to 59 ms later; a drive with errors is slower. An owner that
 * lives looks the same from here, so the wait is as long. */
#define OWNER_WAIT_NS 10000000000u
#define LOCK_PAUSE_NS 10000000

/* Take a lock, or wait for it. EWOULDBLOCK: it was held all the time. */
static int lock_patiently(int fd)
{
    uint64_t begin_ns = strata_now_ns();
    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return errno;
        if (strata_now_ns() - begin_ns > OWNER_WAIT_NS)
            return EWOULDBLOCK;
        nanosleep(&(struct timespec){.tv_nsec = LOCK_PAUSE_NS}, NULL);
    }
    return 0;
}

static int path_dir_bytes(const struct store_file *file)
{
    return (int)(strlen(file->path) - sizeof STRATA_STORE_FILE_NAME);
}

static strata_status open_directory(struct store_file *file, const char *dir,
                                    strata_error *error)
{
    struct stat stat;
    file->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file->dir_fd < 0 || fstat(file->dir_fd, &stat) != 0)
        return strata_fail(error, STRATA_E_IO, errno,
                           "store directory %s: %s: give one that exists", dir,
                           strerror(errno));
    file->device = stat.st_dev;
    file->others_write = stat.st_mode & (S_IWGRP | S_IWOTH);
    int cause = lock_patiently(file->dir_fd);
    if (cause == EWOULDBLOCK)
        return strata_fail(error, STRATA_E_STATE, cause,
                           "store %s is in use by another process", dir);
    if (cause != 0)
        return strata_fail(error, STRATA_E_IO, cause, "lock of %s: %s", dir, strerror(cause));
    return STRATA_OK;
}

static strata_status check_alone(const struct store_file *file, const char *name,
                                 const struct stat *stat, strata_error *error)
{
    uid_t user = geteuid();
    if (stat->st_uid != user && !(file->read_only && user == 0))
        return strata_fail(error, STRATA_E_IO, EPERM,
                           "%.*s/%s belongs to user %u, this process to user %u: run as its "
                           "owner, or chown it",
                           path_dir_bytes(file), file->path, name, (unsigned)stat->st_uid,
                           (unsigned)user);
    if (file->read_only)
        return STRATA_OK;
    if (stat->st_mode & (S_IRWXG | S_IRWXO))
        return strata_fail(error, STRATA_E_IO, EPERM,
                           "%.*s/%s has mode %04o, others may use it: chmod 600 keeps them out",
                           path_dir_bytes(file), file->path, name,
                           (unsigned)stat->st_mode & 07777);
    if (stat->st_nlink > 1)
        return strata_fail(error, STRATA_E_IO, EPERM,
                           "%.*s/%s has %u names (hard links): remove the others, find "
                           "-samefile shows them",
                           path_dir_bytes(file), file->path, name, (unsigned)stat->st_nlink);
    return STRATA_OK;
}

static strata_status check_open(const struct store_file *file, int fd, const char *name,
                                strata_error *error)
{
    struct stat stat;
    if (fstat(fd, &stat) != 0)
        return strata_fail(error, STRATA_E_IO, errno, "stat of %.*s/%s: %s",
                           path_dir_bytes(file), file->path, name, strerror(errno));
    return check_alone(file, name, &stat, error);
}

/* Open the file with this name; *out_fd is -1 if there is none. */
static strata_status open_found(const struct store_file *file, const char *name, int *out_fd,
                                strata_error *error)
{
    struct stat stat;
    int fd =
        openat(file->dir_fd, name,
               (file->read_only ? O_RDONLY : O_RDWR) | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    *out_fd = -1;
    if (fd < 0 && errno == ENOENT)
        return STRATA_OK;
    if (fd < 0 && errno == ELOOP)
        return strata_fail(error, STRATA_E_IO, ELOOP,
                           "open of %.*s/%s: it is a symbolic link, which is never followed",
                           path_dir_bytes(file), file->path, name);
    if (fd < 0)
        return strata_fail(error, STRATA_E_IO, errno, "open of %.*s/%s%s: %s",
                           path_dir_bytes(file), file->path, name,
                           file->read_only ? "" : " for writing", strerror(errno));
    if (fstat(fd, &stat) != 0 || !S_ISREG(stat.st_mode)) {
        close(fd);
        return strata_fail(error, STRATA_E_UNSUPPORTED, 0,
                           "%.*s/%s is not a regular file; it is left alone",
                           path_dir_bytes(file), file->path, name);
    }
    *out_fd = fd;
    return STRATA_OK;
}

/* The space that removing the file gives back. */
static uint64_t disk_bytes(int fd)
{
    struct stat stat;
    return fstat(fd, &stat) == 0 ? (uint64_t)stat.st_blocks * 512 : 0;
}

strata_status strata_store_room(const char *dir, uint64_t *out_free_bytes,
                                uint64_t *out_own_bytes, strata_error *error)
{
    static const char *const names[] = {STRATA_STORE_FILE_NAME, STRATA_STORE_NEW_NAME};
    struct statvfs space;
    struct stat stat;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fstatvfs(fd, &space) != 0) {
        strata_status status =
            strata_fail(error, STRATA_E_IO, errno,
                        "store directory %s: %s: give one that exists", dir, strerror(errno));
        if (fd >= 0)
            close(fd);
        return status;
    }
    *out_own_bytes = 0;
    *out_free_bytes = (uint64_t)space.f_bavail * space.f_frsize;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (fstatat(fd, names[i], &stat, AT_SYMLINK_NOFOLLOW) == 0)
            *out_own_bytes += (uint64_t)stat.st_blocks * 512;
    close(fd);
    return STRATA_OK;
}

/* Do our transfers have the alignment that this file asks of direct ones? 0: it allows none. */
static bool alignment_fits(int fd)
{
    struct statx fields;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &fields) != 0 ||
        !(fields.stx_mask & STATX_DIOALIGN))
        return true; // The kernel does not say; a transfer of the creation would fail.
    return fields.stx_dio_offset_align > 0 &&
           fields.stx_dio_offset_align <= STRATA_IO_ALIGN_BYTES &&
           fields.stx_dio_mem_align <= STRATA_IO_ALIGN_BYTES;
}

/* Switch O_DIRECT on if the file system has it: file->direct. The lack of it is no error. */
static strata_status try_direct(struct store_file *file, strata_error *error)
{
    int flags = fcntl(file->fd, F_GETFL);
    file->direct = fcntl(file->fd, F_SETFL, flags | O_DIRECT) == 0;
    if (!file->direct && errno != EINVAL)
        return strata_fail(error, STRATA_E_IO, errno, "O_DIRECT on %s: %s", file->path,
                           strerror(errno));
    if (file->direct && !alignment_fits(file->fd)) {
        file->direct = false;
        if (fcntl(file->fd, F_SETFL, flags & ~O_DIRECT) != 0)
            return strata_fail(error, STRATA_E_IO, errno, "flags of %s: %s", file->path,
                               strerror(errno));
    }
    return STRATA_OK;
}

static strata_status need_direct(struct store_file *file, bool allow_buffered,
                                 strata_error *error)
{
    STRATA_TRY(try_direct(file, error));
    if (file->direct || allow_buffered)
        return STRATA_OK;
    return strata_fail(error, STRATA_E_UNSUPPORTED, EINVAL,
                       "%s: this file system has no O_DIRECT; name a directory on another, or "
                       "run with --allow buffered-io",
                       file->path);
}

strata_status strata_store_file_read(const struct store_file *file, void *buffer,
                                     uint64_t bytes, uint64_t offset, strata_error *error)
{
    uint64_t done = 0;
    while (done < bytes) {
        ssize_t got =
            pread(file->fd, (char *)buffer + done, bytes - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return strata_fail(error, STRATA_E_IO, errno,
                               "read of %" PRIu64 " bytes at %" PRIu64 " in %s: %s", bytes,
                               offset, file->path, strerror(errno));
        if (got == 0)
            return strata_fail(error, STRATA_E_CORRUPT, 0,
                               "read of %" PRIu64 " bytes at %" PRIu64
                               " in %s: the file ends after %" PRIu64,
                               bytes, offset, file->path, offset + done);
        done += (uint64_t)got;
    }
    return STRATA_OK;
}

static bool has_its_space(const struct stat *stat)
{
    return (uint64_t)stat->st_blocks * 512 >= (uint64_t)stat->st_size;
}

/* Read and check the header of the file that has the store's name. */
static strata_status identify_file(struct store_file *file, struct store_header *header,
                                   strata_error *error)
{
    struct stat stat;
    if (fstat(file->fd, &stat) != 0)
        return strata_fail(error, STRATA_E_IO, errno, "stat of %s: %s", file->path,
                           strerror(errno));
    file->found_bytes = (uint64_t)stat.st_size;
    /* A copy may have holes, or be compressed: then its space is not taken yet. */
    file->taken_bytes = has_its_space(&stat) ? file->found_bytes : 0;
    memset(header, 0, sizeof *header);
    if (stat.st_size == 0)
        return STRATA_OK;
    STRATA_TRY(try_direct(file, error));
    if ((size_t)stat.st_size < sizeof *header)
        return strata_fail(error, STRATA_E_UNSUPPORTED, 0,
                           "%s is not a store's file; it is left alone: move it or name "
                           "another directory",
                           file->path);
    STRATA_TRY(strata_store_file_read(file, header, sizeof *header, 0, error));
    STRATA_TRY(strata_store_header_check(header, file->path, error));
    if (file->found_bytes < header->durable_bytes)
        return strata_fail(error, STRATA_E_CORRUPT, 0,
                           "%s has %" PRIu64 " bytes, its header says %" PRIu64
                           "; it is left alone: move it or remove it",
                           file->path, file->found_bytes, header->durable_bytes);
    return STRATA_OK;
}

/* Check the file of a creation that was cut short. It will be removed. */
static strata_status look_at_leftover(struct store_file *file, strata_error *error)
{
    int leftover;
    STRATA_TRY(open_found(file, STRATA_STORE_NEW_NAME, &leftover, error));
    if (leftover < 0)
        return STRATA_OK;
    strata_status status = check_open(file, leftover, STRATA_STORE_NEW_NAME, error);
    file->reclaim_bytes += disk_bytes(leftover);
    close(leftover);
    return status;
}

static strata_status claim_file(struct store_file *file, struct store_header *header,
                                strata_error *error)
{
    if (!file->read_only)
        STRATA_TRY(look_at_leftover(file, error));
    STRATA_TRY(open_found(file, STRATA_STORE_FILE_NAME, &file->fd, error));
    if (file->fd < 0)
        return STRATA_OK;
    int cause = lock_patiently(file->fd);
    if (cause == EWOULDBLOCK)
        return strata_fail(error, STRATA_E_STATE, cause,
                           "store %.*s is in use by another process, or writes of one that "
                           "died have not ended for %u s",
                           path_dir_bytes(file), file->path,
                           (unsigned)(OWNER_WAIT_NS / 1000000000u));
    if (cause != 0)
        return strata_fail(error, STRATA_E_IO, cause, "lock of %s: %s", file->path,
                           strerror(cause));
    file->found = true;
    file->reclaim_bytes += disk_bytes(file->fd);
    STRATA_TRY(identify_file(file, header, error));
    /* After the header: if the file is not a store's, its mode does not concern us. */
    return check_open(file, file->fd, STRATA_STORE_FILE_NAME, error);
}

uint64_t strata_store_file_memory_bytes(void)
{
    return PATH_MAX + sizeof STRATA_STORE_FILE_NAME;
}

strata_status strata_store_file_find(struct store_file *out, const char *dir, bool read_only,
                                     struct store_header *out_header, strata_error *error)
{
    *out = (struct store_file){.dir_fd = -1, .fd = -1, .read_only = read_only};
    size_t path_bytes = strata_store_file_memory_bytes();
    out->path = malloc(path_bytes);
    if (out->path == NULL)
        return strata_fail(error, STRATA_E_NOMEM, ENOMEM, "host: no memory for a path");
    snprintf(out->path, path_bytes, "%s/%s", dir, STRATA_STORE_FILE_NAME);
    strata_status status = open_directory(out, dir, error);
    if (status == STRATA_OK)
        status = claim_file(out, out_header, error);
    if (status != STRATA_OK)
        strata_store_file_close(out);
    return status;
}

/* Names are in the directory's blocks, which have to be flushed too. */
static strata_status sync_directory(const struct store_file *file, strata_error *error)
{
    if (fsync(file->dir_fd) == 0)
        return STRATA_OK;
    return strata_fail(error, STRATA_E_IO, errno, "sync of %.*s: %s", path_dir_bytes(file),
                       file->path, strerror(errno));
}

strata_status strata_store_file_discard(struct store_file *file, strata_error *error)
{
    if (!file->found)
        return STRATA_OK;
    if (unlinkat(file->dir_fd, STRATA_STORE_FILE_NAME, 0) != 0)
        return strata_fail(error, STRATA_E_IO, errno, "removal of %s: %s", file->path,
                           strerror(errno));
    close(file->fd);
    file->fd = -1;
    file->found = false;
    file->found_bytes = 0;
    file->taken_bytes = 0;
    return sync_directory(file, error);
}

/* A file without a name. On a file system that has no such files: one whose name is removed. */
static strata_status create_nameless(struct store_file *file)
{
    file->fd = openat(file->dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (file->fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
        return file->fd >= 0 ? STRATA_OK : STRATA_E_IO;
    file->fd = openat(file->dir_fd, STRATA_STORE_NEW_NAME,
                      O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file->fd < 0 || unlinkat(file->dir_fd, STRATA_STORE_NEW_NAME, 0) != 0)
        return STRATA_E_IO;
    return STRATA_OK;
}

static strata_status create_named(struct store_file *file)
{
    file->fd = openat(file->dir_fd, STRATA_STORE_NEW_NAME,
                      O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file->fd < 0)
        return STRATA_E_IO;
    file->made = STRATA_STORE_NEW_NAME;
    /* The directory is locked, so no other process holds this lock. */
    return flock(file->fd, LOCK_EX | LOCK_NB) == 0 ? STRATA_OK : STRATA_E_IO;
}

strata_status strata_store_file_make(struct store_file *file, bool scratch, bool allow_buffered,
                                     strata_error *error)
{
    if (unlinkat(file->dir_fd, STRATA_STORE_NEW_NAME, 0) != 0 && errno != ENOENT)
        return strata_fail(error, STRATA_E_IO, errno, "removal of %s.new: %s", file->path,
                           strerror(errno));
    strata_status status = scratch ? create_nameless(file) : create_named(file);
    if (status != STRATA_OK)
        return strata_fail(error, status, errno, "creation of %s: %s", file->path,
                           strerror(errno));
    STRATA_TRY(check_open(file, file->fd, STRATA_STORE_NEW_NAME, error));
    return need_direct(file, allow_buffered, error);
}

strata_status strata_store_file_adopt(struct store_file *file, bool allow_buffered,
                                      strata_error *error)
{
    if (unlinkat(file->dir_fd, STRATA_STORE_NEW_NAME, 0) != 0 && errno != ENOENT)
        return strata_fail(error, STRATA_E_IO, errno, "removal of %s.new: %s", file->path,
                           strerror(errno));
    return need_direct(file, allow_buffered, error);
}

/* Only space that the file does not have yet is reserved. A full file system may refuse to
 * reserve even what the file has, and then a run could not resume a store that lacks nothing.
 */
strata_status strata_store_file_resize(const struct store_file *file, uint64_t bytes,
                                       strata_error *error)
{
    int rc;
    uint64_t taken = file->taken_bytes;
    if (file->found_bytes > bytes && ftruncate(file->fd, (off_t)bytes) != 0)
        return strata_fail(error, STRATA_E_IO, errno, "cutting %s to %" PRIu64 " bytes: %s",
                           file->path, bytes, strerror(errno));
    if (taken >= bytes)
        return STRATA_OK;
    do
        rc = fallocate(file->fd, 0, (off_t)taken, (off_t)(bytes - taken));
    while (rc != 0 && errno == EINTR);
    /* A file system without fallocate: writing takes the space. */
    if (rc != 0 && errno != EOPNOTSUPP)
        return strata_fail(error, STRATA_E_IO, errno, "reserving %" PRIu64 " bytes for %s: %s",
                           bytes - taken, file->path, strerror(errno));
    return STRATA_OK;
}

strata_status strata_store_file_publish(struct store_file *file, strata_error *error)
{
    if (renameat2(file->dir_fd, STRATA_STORE_NEW_NAME, file->dir_fd, STRATA_STORE_FILE_NAME,
                  RENAME_NOREPLACE) != 0)
        return strata_fail(error, STRATA_E_IO, errno, "naming of %s: %s", file->path,
                           strerror(errno));
    file->made = STRATA_STORE_FILE_NAME;
    return sync_directory(file, error);
}

void strata_store_file_keep(struct store_file *file)
{
    file->made = NULL;
}

static strata_status fail_went_away(const struct store_file *file, const char *what,
                                    strata_error *error)
{
    return strata_fail(error, STRATA_E_IO, ESTALE,
                       "%s %s while this run wrote to it: nothing can be committed there any "
                       "more",
                       file->path, what);
}

/* Does the name in the directory still belong to this very file? */
static bool is_named(const struct store_file *file, const char *name, const struct stat *mine)
{
    struct stat theirs;
    return fstatat(file->dir_fd, name, &theirs, AT_SYMLINK_NOFOLLOW) == 0 &&
           mine->st_dev == theirs.st_dev && mine->st_ino == theirs.st_ino;
}

/* If a file is cut and its end is written again, it is as long as before and has a hole. So its
 * space is compared too, but only if it had all of it before: a compressed file never has. */
static strata_status check_length(struct store_file *file, const struct stat *mine,
                                  uint64_t bytes, strata_error *error)
{
    bool had_its_space = file->full;
    file->full = has_its_space(mine) && (had_its_space || !file->checked);
    file->checked = true;
    if ((uint64_t)mine->st_size != bytes)
        return strata_fail(error, STRATA_E_IO, ESTALE,
                           "%s was cut or grown while this run wrote to it: it has %" PRIu64
                           " bytes, not %" PRIu64,
                           file->path, (uint64_t)mine->st_size, bytes);
    if (had_its_space && !has_its_space(mine))
        return strata_fail(error, STRATA_E_IO, ESTALE,
                           "%s was cut while this run wrote to it: it has space for %" PRIu64
                           " of its %" PRIu64 " bytes",
                           file->path, (uint64_t)mine->st_blocks * 512, bytes);
    return STRATA_OK;
}

strata_status strata_store_file_check(struct store_file *file, uint64_t bytes,
                                      strata_error *error)
{
    struct stat mine;
    if (fstat(file->fd, &mine) != 0)
        return strata_fail(error, STRATA_E_IO, errno, "stat of %s: %s", file->path,
                           strerror(errno));
    if (mine.st_nlink == 0)
        return fail_went_away(file, "was removed or replaced", error);
    if (!is_named(file, STRATA_STORE_FILE_NAME, &mine))
        return fail_went_away(file, "was moved away", error);
    STRATA_TRY(check_length(file, &mine, bytes, error));
    return check_alone(file, STRATA_STORE_FILE_NAME, &mine, error);
}

void strata_store_file_close(struct store_file *file)
{
    struct stat mine;
    if (file->fd >= 0) {
        if (file->made != NULL && fstat(file->fd, &mine) == 0 &&
            is_named(file, file->made, &mine))
            unlinkat(file->dir_fd, file->made, 0);
        close(file->fd);
    }
    if (file->dir_fd >= 0)
        close(file->dir_fd);
    free(file->path);
    *file = (struct store_file){.dir_fd = -1, .fd = -1};
}
