#ifndef STRATA_BASE_OUTPUT_H
#define STRATA_BASE_OUTPUT_H

/*
 * Files that a program writes for its user: a JSON document, a trace, a log. None of them may
 * replace a file that the user wants to keep, and none may be left half written.
 *
 * Before a program begins it names the files that it reads, then checks each of its outputs:
 *
 *     struct output_guard guard = {.count = 0};
 *     strata_output_protect(&guard, "text", "this run reads it");
 *     STRATA_TRY(strata_output_check(&guard, "-o", "out.json", OUTPUT_DOCUMENT, error));
 *
 * and it writes an output when the content is known:
 *
 *     struct output out;
 *     STRATA_TRY(strata_output_open(&out, "out.json", OUTPUT_DOCUMENT, error));
 *     fputs(text, out.stream);
 *     status = strata_output_close(&out, error);
 *
 * A file is written under a temporary name in the same directory, and renamed once it is whole
 * and on the drive. Pipes, terminals, /dev/null and the files of stdout and stderr
 * (/dev/stdout for one) are written to directly.
 *
 * Thread: one at a time per object.
 */

#include "strata/status.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

/* The kind of an output. An existing file is replaced only if it is of the same kind. */
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

/* No output may be written to this file, or into this directory. NULL and paths that do not
 * exist are ignored. why: static; ends the message of a refusal. */
void strata_output_protect(struct output_guard *guard, const char *path, const char *why);

/*
 * Check that this kind of output may go to the path; later outputs may then not go there.
 * Links are followed: the file itself counts. NULL is accepted and ignored. option names the
 * path in messages, and is static.
 *
 * STRATA_E_INVALID: it is protected; it is a store's file; or it holds something else than an
 * output of this kind.
 * STRATA_E_IO: native EISDIR: a directory; ENOENT: its directory does not exist; EACCES, EROFS:
 * it cannot be written there; ...
 */
strata_status strata_output_check(struct output_guard *guard, const char *option,
                                  const char *path, enum output_kind kind, strata_error *error);

/* Flush the directory of a file that was just made, so that its name survives a power failure,
 * as far as the file system can promise that. */
void strata_output_sync_name(const char *path);

/* True when stdout or stderr write to this file. */
bool strata_output_is_stream(int fd);

struct output {
    FILE *stream;
    const char *path; /* borrowed */
    char *target;     /* owned; what is replaced at close; NULL: nothing is */
    char *beside;     /* owned; the file written meanwhile; NULL: the path itself */
};

/*
 * Begin to write a document or a trace. The path is checked again, since hours may have
 * passed. path is borrowed until close. On failure nothing is held.
 *
 * STRATA_E_INVALID, STRATA_E_IO: as strata_output_check().
 */
strata_status strata_output_open(struct output *out, const char *path, enum output_kind kind,
                                 strata_error *error);

/* Finish it. On failure the old file is unchanged. */
strata_status strata_output_close(struct output *out, strata_error *error);

#endif
