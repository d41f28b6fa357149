#ifndef STRATA_TRAIN_PROGRESS_LINE_H
#define STRATA_TRAIN_PROGRESS_LINE_H

/*
 * The progress of a piece of work as a line on stderr: its name, the share done, the time
 * left. The library and the data reader call strata_progress_line() while they write a store,
 * make weights, resume, hash or scrub.
 *
 * On a terminal one line is redrawn, from two seconds after the beginning, and erased when the
 * piece is done. Elsewhere a plain line comes every ten seconds, so a log stays short. Shorter
 * work prints nothing.
 *
 * Thread: one per object.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* All zero: it prints nothing. */
struct progress_line {
    bool silent;
    bool live;        /* stderr is a terminal */
    bool open;        /* a live line is on the screen */
    const char *what; /* the piece of work; NULL: none yet */
    uint64_t begin_ns;
    uint64_t begin_done;
    uint64_t next_ns; /* time of the next line */
};

void strata_progress_line_begin(struct progress_line *line, bool silent);

/* A strata_progress_fn; user: the struct progress_line. */
void strata_progress_line(void *user, const char *what, uint64_t done, uint64_t total);

/* Erase the live line, if there is one. Also for the way out after an error. */
void strata_progress_line_end(struct progress_line *line);

/*
 * Write the text for a time, without a line end, into buffer. False: nothing is to be printed
 * now. done == total ends the piece.
 */
bool strata_progress_line_at(struct progress_line *line, const char *what, uint64_t done,
                             uint64_t total, uint64_t now_ns, char *buffer, size_t bytes);

#endif
