#ifndef STRATA_TRAIN_LOG_H
#define STRATA_TRAIN_LOG_H

/*
 * The log of a run: one line of JSON a step, in a file.
 *
 * Opening has two halves. The first proves that the file can be written and changes nothing;
 * the second, once the run really starts, empties it, or, where a run goes on, cuts it back to
 * where that begins. So a run that is refused leaves an older log as it was, and no new one
 * behind.
 *
 * A line is put together in a fixed buffer and goes out in one write, so that nothing is
 * allocated in a step and a reader never sees half a line.
 *
 * Thread: one per object.
 */

#include "train/trainer.h"

/* Bytes of the line buffer; the longest line takes about 1,100. */
#define LOG_LINE_BYTES 2048

struct log {
    const char *path; /* NULL: there is no log, and every call does nothing */
    int file;         /* -1: not open                                       */
    char line[LOG_LINE_BYTES];
};

/*
 * The first half, of a path that strata_outputs_check() takes. It is borrowed until close; NULL
 * is fine.
 *
 * STRATA_E_IO: native EACCES, ...
 */
strata_status strata_log_check(struct log *log, const char *path, strata_error *error);

/* The second half of a new run. */
strata_status strata_log_start(struct log *log, strata_error *error);

/*
 * The second half of a run that goes on from a step: what lies behind the last complete line of
 * that step or an earlier one is cut off. Where there is no such line nothing is left.
 */
strata_status strata_log_resume(struct log *log, uint64_t step, strata_error *error);

/* Append a step's line. state_hash: 32 hexadecimal digits, or NULL. */
strata_status strata_log_step(struct log *log, const struct trainer_step *step,
                              const char *state_hash, strata_error *error);

/* Append the line of a run that had no step left: where it stands, and the hash. */
strata_status strata_log_nothing_left(struct log *log, uint64_t step, const char *state_hash,
                                      strata_error *error);

void strata_log_close(struct log *log);

/*
 * The line itself, with its newline, into buffer; returns its length, which is below
 * buffer_bytes. LOG_LINE_BYTES are always enough.
 */
size_t strata_log_format(char *buffer, size_t buffer_bytes, const struct trainer_step *step,
                         const char *state_hash);

#endif
