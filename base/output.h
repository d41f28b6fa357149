#ifndef STRATA_BASE_OUTPUT_H
#define STRATA_BASE_OUTPUT_H

/*
 * Files that a program writes for its user: a JSON document, a trace, a log. None of them may
 * go over something that the user keeps, and none may be half written.
 *
 * Before a program begins it says what it reads, then asks about each of its outputs:
 *
 *     struct output_guard guard = {.count = 0};
 *     strata_output_protect(&guard, "text", "this run reads it");
 *     STRATA_TRY(strata_output_check(&guard, "-o", "out.json", OUTPUT_DOCUMENT, error));
 *
 * and writes when there is something to write:
 *
 *     struct output out;
 *     STRATA_TRY(strata_output_open(&out, "out.json", OUTPUT_DOCUMENT, error));
 *     fputs(text, out.stream);
 *     status = strata_output_close(&out, error);
 *
 * A file is written beside its place and renamed once it is whole and on the drive. Pipes,
 * terminals, /dev/null and what stdout or stderr already are, /dev/stdout for one, are written
 * to as they are.
 *
 * Thread: one at a time per object.
 */

#include "strata/status.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

/* What is written, and so what an existing file must hold to be written over. */
enum output_kind {
    OUTPUT_DOCUMENT, /* a document of one of the programs */
    OUTPUT_TRACE,    /* a trace of strata_trace_write()   */
    OUTPUT_LOG       /* the lines of a run, appended to   */
};

/* Data, model, machine's profile, and three outputs. */
#define OUTPUT_GUARD_MAX 8u

struct output_guard {
    uint32_t count;
    struct {
        dev_t device;
        ino_t inode;
        bool directory;
        char name[256];  /* an output that is not there yet: its directory's inode, and this */
        const char *why; /* borrowed */
    } kept[OUTPUT_GUARD_MAX];
};

/* A file, or a directory with everything in it, that is written by no output. NULL, or what
 * does not exist: nothing happens. why: static; ends the message of a refusal. */
void strata_output_protect(struct output_guard *guard, const char *path, const char *why);

/*
 * The path is one that this kind of output may go to; then no other output may go there. Links
 * are followed: what counts is the file that is there. NULL: nothing happens. option names the
 * path in messages, and is static.
 *
 * STRATA_E_INVALID: it is protected; it is a store's file; or it holds something else than an
 * output of this kind.
 * STRATA_E_IO: native EISDIR: a directory; ENOENT: its directory does not exist; EACCES, EROFS:
 * it cannot be written there; ...
 */
strata_status strata_output_check(struct output_guard *guard, const char *option,
                                  const char *path, enum output_kind kind, strata_error *error);

/* A file that was just made is found there after the power has failed, as far as its file
 * system can promise that. */
void strata_output_sync_name(const char *path);

/* Is it what stdout or stderr write to? */
bool strata_output_is_stream(int fd);

struct output {
    FILE *stream;
    const char *path; /* borrowed */
    char *target;     /* owned; what is replaced at close; NULL: nothing is */
    char *beside;     /* owned; the file written meanwhile; NULL: the path itself */
};

/*
 * Begin to write a document or a trace. It is looked at once more: hours may have passed. path
 * is borrowed until close. On failure nothing is held.
 *
 * STRATA_E_INVALID, STRATA_E_IO: as strata_output_check().
 */
strata_status strata_output_open(struct output *out, const char *path, enum output_kind kind,
                                 strata_error *error);

/* Finish it. On failure what was there before is there still. */
strata_status strata_output_close(struct output *out, strata_error *error);

#endif
