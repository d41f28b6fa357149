#ifndef STRATA_TRAIN_PROGRESS_LINE_H
#define STRATA_TRAIN_PROGRESS_LINE_H

/*
 * How far a piece of work is, as a line on stderr: what, share, time left. The library and the
 * data reader call strata_progress_line() while they write a store, make weights, resume, hash
 * or scrub.
 *
 * On a terminal it is one line, drawn over itself, after two seconds of the piece, and taken
 * away when the piece is done. Elsewhere a plain line comes every ten seconds, so that a log
 * stays short. What ends sooner says nothing.
 *
 * Thread: one per object.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zeros and silent: nothing is said. */
struct progress_line {
    bool silent;
    bool live;        /* stderr is a terminal */
    bool open;        /* the cursor stands behind a live line */
    const char *what; /* the piece of work; NULL: none yet */
    uint64_t begin_ns;
    uint64_t begin_done;
    uint64_t next_ns; /* no line sooner */
};

void strata_progress_line_begin(struct progress_line *line, bool silent);

/* A strata_progress_fn; user: the struct progress_line. */
void strata_progress_line(void *user, const char *what, uint64_t done, uint64_t total);

/* Take the live line away, if there is one. Also for the way out after an error. */
void strata_progress_line_end(struct progress_line *line);

/*
 * The text at a time, without a line's end, into buffer of so many bytes; false: nothing is to
 * be said now. done == total ends the piece.
 */
bool strata_progress_line_at(struct progress_line *line, const char *what, uint64_t done,
                             uint64_t total, uint64_t now_ns, char *buffer, size_t bytes);

#endif
