#define _GNU_SOURCE
/*
 * The log of a run. See log.h.
 *
 * Numbers of the training are written with 17 digits, so that a reader gets back the same
 * double; times with nine, which is more than the clock's precision.
 *
 * A log that is continued is searched from its end: it may be long, and the step to continue
 * from is one of the last.
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

#include "base/json.h"
#include "base/output.h"
#include "base/error.h"

static strata_status log_failure(const struct log *log, const char *what, int code,
                                 strata_error *error)
{
    return strata_fail(error, STRATA_E_IO, code, "%s of log %.150s: %s", what, log->path,
                       strerror(code));
}

strata_status strata_log_check(struct log *log, const char *path, strata_error *error)
{
    log->path = path;
    log->file = -1;
    if (path == NULL)
        return STRATA_OK;
    pthread_mutex_init(&log->lock, NULL);
    pthread_cond_init(&log->news, NULL);
    log->file = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (log->file < 0 && errno != ENOENT)
        return log_failure(log, "open", errno, error);
    return STRATA_OK;
}

/* Open the file, or make it if it does not exist. Only a regular file can be cut, and not one
 * that stdout writes to at the same time. */
static strata_status open_or_make(struct log *log, uint64_t *out_bytes, strata_error *error)
{
    struct stat facts;
    bool made = log->file < 0;
    if (made)
        log->file = open(log->path, O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (log->file < 0)
        return log_failure(log, "making", errno, error);
    if (made)
        strata_output_sync_name(log->path);
    if (fstat(log->file, &facts) != 0)
        return log_failure(log, "stat", errno, error);
    log->regular = S_ISREG(facts.st_mode) && !strata_output_is_stream(log->file);
    *out_bytes = (uint64_t)facts.st_size;
    return STRATA_OK;
}

strata_status strata_log_start(struct log *log, strata_error *error)
{
    uint64_t bytes;
    if (log->path == NULL)
        return STRATA_OK;
    STRATA_TRY(open_or_make(log, &bytes, error));
    /* A pipe or a terminal cannot be emptied. */
    if (log->regular && ftruncate(log->file, 0) != 0)
        return log_failure(log, "emptying", errno, error);
    return STRATA_OK;
}

static strata_status read_at(struct log *log, int file, uint64_t offset, size_t bytes,
                             strata_error *error)
{
    size_t done = 0;
    while (done < bytes) {
        ssize_t got = pread(file, log->line + done, bytes - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return log_failure(log, "read", got < 0 ? errno : EIO, error);
        done += (size_t)got;
    }
    return STRATA_OK;
}

/* True for a complete line of this step or an earlier one. */
static bool is_line_up_to(const char *line, size_t bytes, uint64_t step)
{
    strata_json *document = NULL;
    uint64_t found = UINT64_MAX;
    if (bytes == 0 || line[bytes - 1] != '\n' ||
        strata_json_read_text(&document, line, bytes - 1, NULL) != STRATA_OK)
        return false;
    bool has = strata_json_get_uint(document, "step", &found, NULL) == STRATA_OK;
    strata_json_free(document);
    return has && found <= step;
}

/*
 * Find the end of the last line for which is_line_up_to() is true. A line longer than the
 * buffer is not ours: its pieces do not parse and are skipped.
 */
static strata_status find_end(struct log *log, int file, uint64_t step, uint64_t *end,
                              strata_error *error)
{
    while (*end > 0) {
        size_t window = *end < sizeof log->line ? (size_t)*end : sizeof log->line;
        STRATA_TRY(read_at(log, file, *end - window, window, error));
        const char *before = memrchr(log->line, '\n', window - 1);
        size_t begin = before == NULL ? 0 : (size_t)(before + 1 - log->line);
        if (is_line_up_to(log->line + begin, window - begin, step))
            return STRATA_OK;
        *end -= window - begin;
    }
    return STRATA_OK;
}

strata_status strata_log_resume(struct log *log, uint64_t step, strata_error *error)
{
    uint64_t end;
    if (log->path == NULL)
        return STRATA_OK;
    log->step = step;
    STRATA_TRY(open_or_make(log, &end, error));
    if (!log->regular)
        return STRATA_OK;
    /* A second descriptor: the log is open for appending only, since it may be a pipe. */
    int file = open(log->path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return log_failure(log, "open", errno, error);
    strata_status status = find_end(log, file, step, &end, error);
    close(file);
    STRATA_TRY(status);
    if (ftruncate(log->file, (off_t)end) != 0)
        return log_failure(log, "cutting", errno, error);
    return STRATA_OK;
}

/* Append to the text in buffer, whose length is *length; text that does not fit is cut off. */
STRATA_PRINTF(4, 5)
static void append_text(char *buffer, size_t buffer_bytes, size_t *length, const char *format,
                        ...)
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
    append_text(buffer, buffer_bytes, &length,
                "{\"step\":%llu,\"loss\":%.17g,\"grad_norm\":", (unsigned long long)step->step,
                step->loss);
    /* JSON has no infinity. */
    if (step->skipped)
        append_text(buffer, buffer_bytes, &length, "null");
    else
        append_text(buffer, buffer_bytes, &length, "%.17g", step->grad_norm);
    append_text(buffer, buffer_bytes, &length,
                ",\"skipped\":%s,\"updates\":%llu,\"loss_scale\":%.17g,\"lr\":%.17g,"
                "\"tokens_per_s\":%.9g,\"step_s\":%.9g,\"exposed_s\":%.9g,\"lanes\":{",
                step->skipped ? "true" : "false", (unsigned long long)step->updates,
                step->loss_scale, step->lr, step->tokens_per_s, step->seconds, step->exposed_s);
    for (int lane = 0; lane < STRATA_LANE_COUNT; lane++)
        append_text(buffer, buffer_bytes, &length, "%s\"%s\":{\"busy_s\":%.9g,\"bytes\":%llu}",
                    lane > 0 ? "," : "", strata_lane_name((strata_lane)lane),
                    1e-9 * (double)step->lanes[lane].busy_ns,
                    (unsigned long long)step->lanes[lane].bytes);
    append_text(buffer, buffer_bytes, &length, "},\"waits\":{");
    for (int stall = 0; stall < STRATA_STALL_COUNT; stall++)
        append_text(buffer, buffer_bytes, &length, "%s\"%s\":%.9g", stall > 0 ? "," : "",
                    strata_stall_name((strata_stall)stall), step->stall_s[stall]);
    append_text(buffer, buffer_bytes, &length,
                "},\"device_peak_bytes\":%llu,\"host_peak_bytes\":%llu,\"nvme_bytes\":%llu",
                (unsigned long long)step->total.device_peak_bytes,
                (unsigned long long)step->total.host_peak_bytes,
                (unsigned long long)step->total.nvme_bytes);
    if (state_hash != NULL)
        append_text(buffer, buffer_bytes, &length, ",\"state_hash\":\"%s\"", state_hash);
    append_text(buffer, buffer_bytes, &length, "}\n");
    return length;
}

static strata_status write_line(struct log *log, size_t length, strata_error *error)
{
    size_t done = 0;
    while (done < length) {
        ssize_t wrote = write(log->file, log->line + done, length - done);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return log_failure(log, "write", errno, error);
        done += (size_t)wrote;
    }
    return STRATA_OK;
}

strata_status strata_log_step(struct log *log, const struct trainer_step *step,
                              const char *state_hash, strata_error *error)
{
    if (log->path == NULL)
        return STRATA_OK;
    STRATA_TRY(write_line(log, strata_log_format(log->line, sizeof log->line, step, state_hash),
                          error));
    pthread_mutex_lock(&log->lock);
    log->step = step->step;
    pthread_cond_broadcast(&log->news);
    pthread_mutex_unlock(&log->lock);
    return STRATA_OK;
}

strata_status strata_log_nothing_left(struct log *log, uint64_t step, const char *state_hash,
                                      strata_error *error)
{
    size_t length = 0;
    if (log->path == NULL)
        return STRATA_OK;
    append_text(log->line, sizeof log->line, &length, "{\"step\":%llu",
                (unsigned long long)step);
    if (state_hash != NULL)
        append_text(log->line, sizeof log->line, &length, ",\"state_hash\":\"%s\"", state_hash);
    append_text(log->line, sizeof log->line, &length, "}\n");
    return write_line(log, length, error);
}

strata_status strata_log_flush(void *user, uint64_t step, strata_error *error)
{
    struct log *log = user;
    pthread_mutex_lock(&log->lock);
    while (log->step < step && !log->over)
        pthread_cond_wait(&log->news, &log->lock);
    bool missing = log->step < step;
    pthread_mutex_unlock(&log->lock);
    if (missing)
        return strata_fail(error, STRATA_E_STATE, 0,
                           "commit of step %llu: its line did not get into the log",
                           (unsigned long long)step);
    /* Before the run starts there is no line and no file. */
    if (!log->regular || fdatasync(log->file) == 0)
        return STRATA_OK;
    return log_failure(log, "sync", errno, error);
}

void strata_log_end(struct log *log)
{
    if (log->path == NULL)
        return;
    pthread_mutex_lock(&log->lock);
    log->over = true;
    pthread_cond_broadcast(&log->news);
    pthread_mutex_unlock(&log->lock);
}

void strata_log_close(struct log *log)
{
    if (log->path != NULL && log->file >= 0)
        close(log->file);
    if (log->path != NULL) {
        pthread_cond_destroy(&log->news);
        pthread_mutex_destroy(&log->lock);
        log->path = NULL;
    }
    log->file = -1;
}
