#define _GNU_SOURCE
/*
 * The log of a run. See log.h.
 *
 * Numbers of the training are written with 17 digits, so that a reader gets back the very
 * double; times with nine, which is more than the clock is good for.
 *
 * Thread: one per object.
 */

#include "train/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "train/fail.h"

static strata_status failed(const struct log *log, const char *what, int code,
                            strata_error *error)
{
    return strata_train_fail(error, STRATA_E_IO, code, "%s of log %.150s: %s", what, log->path,
                             strerror(code));
}

/* There is no such file yet: could there be? */
static strata_status check_parent(const struct log *log, strata_error *error)
{
    char parent[4096];
    const char *slash = strrchr(log->path, '/');
    size_t length = slash == NULL ? 0 : slash == log->path ? 1 : (size_t)(slash - log->path);
    if (length >= sizeof parent)
        return failed(log, "open", ENAMETOOLONG, error);
    memcpy(parent, log->path, length);
    parent[length] = '\0';
    if (access(slash == NULL ? "." : parent, W_OK | X_OK) != 0)
        return failed(log, "making", errno, error);
    return STRATA_OK;
}

static bool same_file(const char *a, const char *b)
{
    struct stat first;
    struct stat second;
    return stat(a, &first) == 0 && stat(b, &second) == 0 && first.st_dev == second.st_dev &&
           first.st_ino == second.st_ino;
}

strata_status strata_log_check(struct log *log, const struct trainer *trainer, const char *path,
                               strata_error *error)
{
    log->path = path;
    log->file = -1;
    if (path == NULL)
        return STRATA_OK;
    if (strata_data_is_file(strata_trainer_data(trainer), path) ||
        same_file(strata_trainer_options(trainer)->model, path))
        return strata_train_fail(error, STRATA_E_INVALID, 0,
                                 "--log %.150s: this run reads that file: give another name",
                                 path);
    log->file = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (log->file >= 0)
        return STRATA_OK;
    if (errno != ENOENT)
        return failed(log, "open", errno, error);
    return check_parent(log, error);
}

strata_status strata_log_start(struct log *log, strata_error *error)
{
    if (log->path == NULL)
        return STRATA_OK;
    if (log->file < 0) {
        log->file = open(log->path, O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        return log->file >= 0 ? STRATA_OK : failed(log, "making", errno, error);
    }
    struct stat facts;
    if (fstat(log->file, &facts) != 0)
        return failed(log, "stat", errno, error);
    /* A pipe or a terminal has nothing to empty. */
    if (S_ISREG(facts.st_mode) && ftruncate(log->file, 0) != 0)
        return failed(log, "emptying", errno, error);
    return STRATA_OK;
}

/* Append to the text in buffer, whose length is *length; what does not fit is left out. */
STRATA_PRINTF(4, 5)
static void add(char *buffer, size_t buffer_bytes, size_t *length, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int added = vsnprintf(buffer + *length, buffer_bytes - *length, format, arguments);
    va_end(arguments);
    if (added > 0)
        *length +=
            (size_t)added < buffer_bytes - *length ? (size_t)added : buffer_bytes - *length - 1;
}

size_t strata_log_format(char *buffer, size_t buffer_bytes, const struct trainer_step *step,
                         const char *state_hash)
{
    size_t length = 0;
    add(buffer, buffer_bytes, &length,
        "{\"step\":%llu,\"loss\":%.17g,\"grad_norm\":%.17g,\"lr\":%.17g,\"tokens_per_s\":%.9g,"
        "\"step_s\":%.9g,\"exposed_s\":%.9g,\"lanes\":{",
        (unsigned long long)step->step, step->loss, step->grad_norm, step->lr,
        step->tokens_per_s, step->seconds, step->exposed_s);
    for (int lane = 0; lane < STRATA_LANE_COUNT; lane++)
        add(buffer, buffer_bytes, &length, "%s\"%s\":{\"busy_s\":%.9g,\"bytes\":%llu}",
            lane > 0 ? "," : "", strata_lane_name((strata_lane)lane),
            1e-9 * (double)step->lanes[lane].busy_ns,
            (unsigned long long)step->lanes[lane].bytes);
    add(buffer, buffer_bytes, &length,
        "},\"device_peak_bytes\":%llu,\"host_peak_bytes\":%llu,\"nvme_bytes\":%llu",
        (unsigned long long)step->total.device_peak_bytes,
        (unsigned long long)step->total.host_peak_bytes,
        (unsigned long long)step->total.nvme_bytes);
    if (state_hash != NULL)
        add(buffer, buffer_bytes, &length, ",\"state_hash\":\"%s\"", state_hash);
    add(buffer, buffer_bytes, &length, "}\n");
    return length;
}

strata_status strata_log_step(struct log *log, const struct trainer_step *step,
                              const char *state_hash, strata_error *error)
{
    if (log->path == NULL)
        return STRATA_OK;
    size_t length = strata_log_format(log->line, sizeof log->line, step, state_hash);
    size_t done = 0;
    while (done < length) {
        ssize_t wrote = write(log->file, log->line + done, length - done);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return failed(log, "write", errno, error);
        done += (size_t)wrote;
    }
    return STRATA_OK;
}

void strata_log_close(struct log *log)
{
    if (log->path != NULL && log->file >= 0)
        close(log->file);
    log->file = -1;
}
