#define _GNU_SOURCE
/*
 * Outputs: which files they may replace, and how a file is replaced only when it is whole. See
 * output.h.
 *
 * A file may have many names: another path, a symbolic or a hard link. So files are compared
 * by device and inode. A file that does not exist yet is identified by its directory and its
 * name.
 *
 * The first bytes of an existing file tell its kind: documents, traces and logs each have a
 * fixed beginning. White space is ignored, so a document that went through a formatter is
 * still recognised.
 *
 * Thread: see output.h.
 */

#include "base/output.h"

#include "base/error.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The beginning of each kind, without white space. */
static const char *const beginnings[] = {
    [OUTPUT_DOCUMENT] = "{\"program\":\"offload-",
    [OUTPUT_TRACE] = "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"events_left_out\":",
    [OUTPUT_LOG] = "{\"step\":",
};
static const char *const kind_names[] = {
    [OUTPUT_DOCUMENT] = "a document of Strata",
    [OUTPUT_TRACE] = "a trace of Strata",
    [OUTPUT_LOG] = "a log of Strata",
};

/* The files of a store have this name or begin with it, and their content begins with
 * STORE_MAGIC. */
#define STORE_NAME  "strata.tiles"
#define STORE_MAGIC "STRATA\r\n"

/* Longer than any beginning, with room for a formatter's white space. */
#define LOOK_BYTES 512

/* How many names are tried for the temporary file. */
#define MAX_TRIES 100

static strata_status refuse_output(const char *option, const char *path, strata_status status,
                                   int native, const char *why, strata_error *error)
{
    return strata_fail(error, status, native, "%s %.120s: %s", option, path, why);
}

static const char *name_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

/* Write the directory of a path into out, PATH_MAX bytes. False: it is too long. */
static bool parent_of(const char *path, char *out)
{
    const char *slash = strrchr(path, '/');
    size_t length = slash == NULL ? 0 : slash == path ? 1 : (size_t)(slash - path);
    if (length >= PATH_MAX)
        return false;
    memcpy(out, slash == NULL ? "." : path, slash == NULL ? 1 : length);
    out[slash == NULL ? 1 : length] = '\0';
    return true;
}

static bool same_inode(const struct stat *a, dev_t device, ino_t inode)
{
    return a->st_dev == device && a->st_ino == inode;
}

bool strata_output_is_stream(int fd)
{
    struct stat file, stream;
    if (fstat(fd, &file) != 0)
        return false;
    for (int i = STDOUT_FILENO; i <= STDERR_FILENO; i++)
        if (fstat(i, &stream) == 0 && same_inode(&stream, file.st_dev, file.st_ino))
            return true;
    return false;
}

void strata_output_sync_name(const char *path)
{
    char parent[PATH_MAX];
    int fd = parent_of(path, parent) ? open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    (void)fsync(fd);
    close(fd);
}

/* stdout or stderr if it writes to this file; NULL: neither does. */
static FILE *standard_stream_of(const struct stat *file)
{
    struct stat info;
    if (fstat(STDOUT_FILENO, &info) == 0 && same_inode(&info, file->st_dev, file->st_ino))
        return stdout;
    if (fstat(STDERR_FILENO, &info) == 0 && same_inode(&info, file->st_dev, file->st_ino))
        return stderr;
    return NULL;
}

/* The first bytes of a file as a string, without white space. */
static strata_status read_beginning(const char *option, const char *path, char *out,
                                    strata_error *error)
{
    char bytes[LOOK_BYTES];
    size_t length = 0;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    ssize_t got = fd >= 0 ? pread(fd, bytes, sizeof bytes, 0) : -1;
    int code = errno;
    if (fd >= 0)
        close(fd);
    if (got < 0)
        return refuse_output(option, path, STRATA_E_IO, code, strerror(code), error);
    for (ssize_t i = 0; i < got; i++)
        if (bytes[i] == '\r' || !isspace((unsigned char)bytes[i]))
            out[length++] = bytes[i];
    out[length] = '\0';
    return STRATA_OK;
}

/* A regular file that is not empty may be replaced only by an output of its own kind. */
static strata_status check_replaced_content(const char *option, const char *path,
                                            enum output_kind kind, strata_error *error)
{
    char begins[LOOK_BYTES + 1];
    char why[128];
    const char *ours = beginnings[kind];
    STRATA_TRY(read_beginning(option, path, begins, error));
    /* A power failure may have cut off the end of a log's first line. */
    size_t length = strlen(begins);
    if (kind != OUTPUT_LOG || length == 0 || length > strlen(ours))
        length = strlen(ours);
    if (strncmp(begins, ours, length) == 0)
        return STRATA_OK;
    if (strncmp(begins, STORE_MAGIC, sizeof STORE_MAGIC - 2) == 0)
        return refuse_output(option, path, STRATA_E_INVALID, EEXIST,
                             "it is a store's file: give another name", error);
    snprintf(why, sizeof why, "it is not %s and is left alone: give another name, or remove it",
             kind_names[kind]);
    return refuse_output(option, path, STRATA_E_INVALID, EEXIST, why, error);
}

/* The file exists, links followed: may this output replace it? */
static strata_status check_existing(const char *option, const char *path,
                                    const struct stat *info, enum output_kind kind,
                                    strata_error *error)
{
    if (S_ISDIR(info->st_mode))
        return refuse_output(option, path, STRATA_E_IO, EISDIR,
                             "it is a directory: name a file", error);
    if (S_ISBLK(info->st_mode) || S_ISSOCK(info->st_mode))
        return refuse_output(option, path, STRATA_E_INVALID, 0,
                             "it is a device or a socket: name a file", error);
    if (!S_ISREG(info->st_mode) || info->st_size == 0 || standard_stream_of(info) != NULL)
        return STRATA_OK;
    return check_replaced_content(option, path, kind, error);
}

/* The file does not exist: can it be made? */
static strata_status check_missing(const char *option, const char *path, strata_error *error)
{
    struct stat info;
    if (lstat(path, &info) == 0)
        return refuse_output(option, path, STRATA_E_INVALID, ELOOP,
                             "it is a symbolic link to what is not there: name a file", error);
    if (name_of(path)[0] == '\0')
        return refuse_output(option, path, STRATA_E_IO, ENOENT,
                             "no such directory: name a file", error);
    return STRATA_OK;
}

/* Replacing a file, like making one, writes to its directory. A log is appended to and needs
 * the file alone. */
static strata_status check_parent(const char *option, const char *path, strata_error *error)
{
    char parent[PATH_MAX];
    if (!parent_of(path, parent))
        return refuse_output(option, path, STRATA_E_IO, ENAMETOOLONG, strerror(ENAMETOOLONG),
                             error);
    if (access(parent, W_OK | X_OK) != 0) {
        int code = errno;
        return strata_fail(error, STRATA_E_IO, code, "%s %.120s: its directory: %s", option,
                           path, strerror(code));
    }
    return STRATA_OK;
}

/* out_path: the path with all links followed, PATH_MAX bytes. out_info: st_ino is 0 if there
 * is no file. */
static strata_status resolve_output_path(const char *option, const char *path, char *out_path,
                                         struct stat *out_info, strata_error *error)
{
    memset(out_info, 0, sizeof *out_info);
    if (stat(path, out_info) != 0) {
        if (errno != ENOENT)
            return refuse_output(option, path, STRATA_E_IO, errno, strerror(errno), error);
        out_info->st_ino = 0;
        STRATA_TRY(check_missing(option, path, error));
        if (strlen(path) >= PATH_MAX)
            return refuse_output(option, path, STRATA_E_IO, ENAMETOOLONG,
                                 strerror(ENAMETOOLONG), error);
        strcpy(out_path, path);
        return STRATA_OK;
    }
    /* realpath() fails for a pipe in /dev/fd. */
    if (!S_ISREG(out_info->st_mode) || realpath(path, out_path) == NULL)
        snprintf(out_path, PATH_MAX, "%s", path);
    return STRATA_OK;
}

/* Check that this kind of output may go to the path; out_path as for resolve_output_path(). */
static strata_status check_target(const char *option, const char *path, enum output_kind kind,
                                  char *out_path, struct stat *out_info, strata_error *error)
{
    STRATA_TRY(resolve_output_path(option, path, out_path, out_info, error));
    bool exists = out_info->st_ino != 0;
    if (exists && !S_ISREG(out_info->st_mode))
        return check_existing(option, path, out_info, kind, error);
    if (strncmp(name_of(out_path), STORE_NAME, sizeof STORE_NAME - 1) == 0)
        return refuse_output(option, path, STRATA_E_INVALID, 0,
                             "a store's files have that name: give another", error);
    if (exists)
        STRATA_TRY(check_existing(option, path, out_info, kind, error));
    if (exists && (kind == OUTPUT_LOG || standard_stream_of(out_info) != NULL)) {
        if (access(path, W_OK) != 0)
            return refuse_output(option, path, STRATA_E_IO, errno, strerror(errno), error);
        return STRATA_OK;
    }
    return check_parent(option, out_path, error);
}

void strata_output_protect(struct output_guard *guard, const char *path, const char *why)
{
    struct stat info;
    if (path == NULL || stat(path, &info) != 0)
        return;
    STRATA_CHECK(guard->count < OUTPUT_GUARD_MAX);
    guard->kept[guard->count].device = info.st_dev;
    guard->kept[guard->count].inode = info.st_ino;
    guard->kept[guard->count].directory = S_ISDIR(info.st_mode);
    guard->kept[guard->count].name[0] = '\0';
    guard->kept[guard->count].why = why;
    guard->count++;
}

/* True when this directory holds the path, at any depth. */
static bool lies_in_directory(const char *path, dev_t device, ino_t inode)
{
    char parent[PATH_MAX], at[PATH_MAX];
    struct stat info;
    if (!parent_of(path, parent) || realpath(parent, at) == NULL)
        return false;
    for (;;) {
        if (stat(at, &info) == 0 && same_inode(&info, device, inode))
            return true;
        if (strcmp(at, "/") == 0)
            return false;
        parent_of(at, parent);
        strcpy(at, parent);
    }
}

/* True when the path is that of a file which an earlier output will make. */
static bool will_be_made(const char *path, const struct output_guard *guard, uint32_t i)
{
    char parent[PATH_MAX];
    struct stat info;
    return guard->kept[i].name[0] != '\0' && parent_of(path, parent) &&
           stat(parent, &info) == 0 &&
           same_inode(&info, guard->kept[i].device, guard->kept[i].inode) &&
           strcmp(name_of(path), guard->kept[i].name) == 0;
}

static strata_status check_kept(const struct output_guard *guard, const char *option,
                                const char *path, const char *real, const struct stat *info,
                                strata_error *error)
{
    for (uint32_t i = 0; i < guard->count; i++) {
        dev_t device = guard->kept[i].device;
        ino_t inode = guard->kept[i].inode;
        bool hit;
        if (guard->kept[i].name[0] != '\0')
            hit = info->st_ino == 0 && will_be_made(real, guard, i);
        else if (guard->kept[i].directory)
            hit = lies_in_directory(real, device, inode);
        else
            hit = info->st_ino != 0 && same_inode(info, device, inode);
        if (hit)
            return strata_fail(error, STRATA_E_INVALID, 0, "%s %.120s: %s: give another name",
                               option, path, guard->kept[i].why);
    }
    return STRATA_OK;
}

/* Refuse this path to all later outputs. */
static void keep_output(struct output_guard *guard, const char *real, const struct stat *info)
{
    char parent[PATH_MAX];
    struct stat above;
    if (info->st_ino != 0) {
        strata_output_protect(guard, real, "another output goes there");
        return;
    }
    STRATA_CHECK(guard->count < OUTPUT_GUARD_MAX);
    if (!parent_of(real, parent) || stat(parent, &above) != 0)
        return;
    guard->kept[guard->count].device = above.st_dev;
    guard->kept[guard->count].inode = above.st_ino;
    guard->kept[guard->count].directory = false;
    guard->kept[guard->count].why = "another output goes there";
    snprintf(guard->kept[guard->count].name, sizeof guard->kept->name, "%.255s", name_of(real));
    guard->count++;
}

strata_status strata_output_check(struct output_guard *guard, const char *option,
                                  const char *path, enum output_kind kind, strata_error *error)
{
    char real[PATH_MAX];
    struct stat info;
    if (path == NULL)
        return STRATA_OK;
    STRATA_TRY(resolve_output_path(option, path, real, &info, error));
    bool kept = info.st_ino == 0 || S_ISREG(info.st_mode);
    /* First, so that the message for a file which the program reads says so, whatever it
     * holds. */
    if (kept)
        STRATA_TRY(check_kept(guard, option, path, real, &info, error));
    STRATA_TRY(check_target(option, path, kind, real, &info, error));
    if (kept)
        keep_output(guard, real, &info);
    return STRATA_OK;
}

/* Make the temporary file in the target's directory. Its name does not contain the target's,
 * which may have the maximal length. */
static int make_beside(struct output *out)
{
    char parent[PATH_MAX];
    size_t bytes = strlen(out->target) + 64;
    out->beside = malloc(bytes);
    if (out->beside == NULL || !parent_of(out->target, parent))
        return -1;
    for (int i = 0; i < MAX_TRIES; i++) {
        snprintf(out->beside, bytes, "%s/.strata-output-%ld-%d", parent, (long)getpid(), i);
        int fd = open(out->beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0 || errno != EEXIST)
            return fd;
    }
    return -1;
}

/* Open the path itself, for pipes and devices, which cannot be replaced. For stdout and
 * stderr, duplicate the open stream, so that its position is kept. */
static int open_place(const struct output *out, const struct stat *info)
{
    FILE *stream = standard_stream_of(info);
    if (stream == NULL)
        return open(out->path, O_WRONLY | O_CLOEXEC);
    if (fflush(stream) != 0)
        return -1;
    return fcntl(fileno(stream), F_DUPFD_CLOEXEC, 0);
}

static strata_status cannot_open(struct output *out, int code, strata_error *error)
{
    free(out->beside);
    free(out->target);
    out->beside = out->target = NULL;
    return strata_fail(error, STRATA_E_IO, code, "making %.150s: %s", out->path,
                       strerror(code));
}

strata_status strata_output_open(struct output *out, const char *path, enum output_kind kind,
                                 strata_error *error)
{
    char real[PATH_MAX];
    struct stat info;
    int fd;
    *out = (struct output){.path = path};
    STRATA_TRY(check_target("write to", path, kind, real, &info, error));
    bool exists = info.st_ino != 0;
    if (exists && (!S_ISREG(info.st_mode) || standard_stream_of(&info) != NULL)) {
        fd = open_place(out, &info);
    } else {
        out->target = strdup(real);
        fd = out->target != NULL ? make_beside(out) : -1;
        /* Keep the modes that the user gave the file. */
        if (fd >= 0 && exists)
            (void)fchmod(fd, info.st_mode & 07777);
    }
    out->stream = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (out->stream != NULL)
        return STRATA_OK;
    int code = errno;
    if (fd >= 0)
        close(fd);
    if (fd >= 0 && out->beside != NULL)
        unlink(out->beside);
    return cannot_open(out, code, error);
}

/* Returns 0, or the errno of the first failure. */
static int finish_stream(FILE *stream, bool sync)
{
    int code = 0;
    if (fflush(stream) != 0 || ferror(stream))
        code = errno != 0 ? errno : EIO;
    if (code == 0 && sync && fsync(fileno(stream)) != 0 && errno != EINVAL && errno != EROFS)
        code = errno;
    if (fclose(stream) != 0 && code == 0)
        code = errno;
    return code;
}

strata_status strata_output_close(struct output *out, strata_error *error)
{
    strata_status status = STRATA_OK;
    int code = finish_stream(out->stream, out->target != NULL);
    if (code != 0)
        status = strata_fail(error, STRATA_E_IO, code, "write of %.150s: %s", out->path,
                             strerror(code));
    if (out->target != NULL && code == 0 && rename(out->beside, out->target) != 0)
        /* rename() fails on a mount point. The temporary file is kept, since it holds the
         * output. */
        status = strata_fail(error, STRATA_E_IO, errno,
                             "naming of %.150s: %s: what was written lies in %.60s", out->path,
                             strerror(errno), name_of(out->beside));
    else if (out->beside != NULL && code != 0)
        unlink(out->beside);
    free(out->beside);
    free(out->target);
    *out = (struct output){.stream = NULL};
    return status;
}
