#ifndef STRATA_TRAIN_LOG_H
#define STRATA_TRAIN_LOG_H

/*
 * The log of a run: one line of JSON per step, in a file.
 *
 * Opening has two halves. The first checks that the file can be written and changes nothing.
 * The second, when the run really starts, empties the file, or, if a run is resumed, cuts it
 * back to the step where that begins. So a run that is refused leaves an older log unchanged,
 * and makes no new one.
 *
 * A line is put together in a fixed buffer and written by one call, so a step allocates
 * nothing and a reader never sees half a line.
 *
 * Thread: one per object, except strata_log_flush().
 */

#include <pthread.h>

#include "train/trainer.h"

/* Bytes of the line buffer; the longest line takes about 1,100. */
#define LOG_LINE_BYTES 2048

struct log {
    const char *path; /* NULL: there is no log, and every call does nothing */
    int file;         /* -1: not open                                       */
    bool regular;     /* a file that can be cut and flushed                 */
    char line[LOG_LINE_BYTES];
    /* For a commit that waits for its step's line; under the lock, which exists from check to
     * close. */
    pthread_mutex_t lock;
    pthread_cond_t news;
    uint64_t step; /* of the last line; at first the step that the run continues from */
    bool over;     /* no more lines will come */
};

/*
 * The first half, for a path that strata_outputs_check() accepts. The path is borrowed until
 * close; NULL is accepted.
 *
 * STRATA_E_IO: native EACCES, ...
 */
strata_status strata_log_check(struct log *log, const char *path, strata_error *error);

/* The second half of a new run. */
strata_status strata_log_start(struct log *log, strata_error *error);

/*
 * The second half of a run that continues from a step: everything after the last complete line
 * of that step or an earlier one is cut off. Without such a line the file becomes empty.
 */
strata_status strata_log_resume(struct log *log, uint64_t step, strata_error *error);

/* Append a step's line. state_hash: 32 hexadecimal digits, or NULL. */
strata_status strata_log_step(struct log *log, const struct trainer_step *step,
                              const char *state_hash, strata_error *error);

/* Append the line of a run that had no step left: its step and the hash. */
strata_status strata_log_nothing_left(struct log *log, uint64_t step, const char *state_hash,
                                      strata_error *error);

/*
 * A strata_before_commit_fn; user: the log. Waits until the step's line is written and flushes
 * it. So the log has the line of every committed step, whenever the power fails.
 *
 * STRATA_E_STATE: the line will not come. STRATA_E_IO: the flush.
 *
 * Thread: any but the one that writes lines.
 */
strata_status strata_log_flush(void *user, uint64_t step, strata_error *error);

/* No more lines will come: a commit that waits for one is given up. */
void strata_log_end(struct log *log);

void strata_log_close(struct log *log);

/*
 * Write the line, with its newline, into buffer; returns its length, which is below
 * buffer_bytes. LOG_LINE_BYTES are always enough.
 */
size_t strata_log_format(char *buffer, size_t buffer_bytes, const struct trainer_step *step,
                         const char *state_hash);

#endif
