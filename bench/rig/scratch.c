#define _GNU_SOURCE
/*
 * Temporary directories that are removed at the end, also when Ctrl-C ends the program. See
 * scratch.h.
 *
 * Thread: one owner.
 */

#include "bench/rig/scratch.h"

#include "base/error.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DATA_BYTES (1u << 20)

/* A run has one per drive, for at most 16 drives, and its probe has one. */
#define MAX_LIVE 20

/*
 * The directories that exist. They are static because a signal handler reaches only statics.
 * Their owners write them, on one thread; the handler reads them.
 */
static struct scratch *_Atomic live[MAX_LIVE];

static strata_status scratch_failure(strata_error *error, const char *what, const char *path,
                                     int code)
{
    return strata_fail(error, STRATA_E_IO, code, "%s %.160s: %s", what, path, strerror(code));
}

/* A signal handler may call this: it makes only system calls. */
static void remove_with_files(const char *path)
{
    _Alignas(struct dirent64) char entries[4096];
    int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return;
    ssize_t bytes;
    while ((bytes = getdents64(dir, entries, sizeof entries)) > 0) {
        for (ssize_t at = 0; at < bytes;) {
            const struct dirent64 *entry = (const void *)(entries + at);
            (void)unlinkat(dir, entry->d_name, 0); // this fails for "." and ".."
            at += entry->d_reclen;
        }
    }
    close(dir);
    (void)rmdir(path);
}

/* Then the signal ends the program in the usual way, since SA_RESETHAND removed this
 * handler. */
static void remove_all_and_end(int number)
{
    for (int i = 0; i < MAX_LIVE; i++) {
        const struct scratch *scratch = live[i];
        if (scratch != NULL)
            remove_with_files(scratch->path);
    }
    raise(number);
}

static void remove_on_signals(void)
{
    struct sigaction action = {.sa_handler = remove_all_and_end, .sa_flags = (int)SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

/* Replace one entry of the list by another. Nothing happens if `known` is not in the list; a
 * full list has no NULL entry. */
static void replace_live(struct scratch *known, struct scratch *by)
{
    for (int i = 0; i < MAX_LIVE; i++) {
        if (live[i] == known) {
            live[i] = by;
            return;
        }
    }
}

strata_status strata_bench_scratch_make(struct scratch *out, const char *parent,
                                        strata_error *error)
{
    snprintf(out->path, sizeof out->path, "%.4000s/offload-bench-XXXXXX", parent);
    replace_live(NULL, out);
    remove_on_signals();
    if (mkdtemp(out->path) != NULL)
        return STRATA_OK;
    int code = errno;
    replace_live(out, NULL);
    out->path[0] = '\0';
    return scratch_failure(error, "making a directory in", parent, code);
}

void strata_bench_scratch_remove(struct scratch *scratch)
{
    if (scratch->path[0] == '\0')
        return;
    remove_with_files(scratch->path);
    replace_live(scratch, NULL);
    scratch->path[0] = '\0';
}

strata_status strata_bench_scratch_data(const char *path, strata_error *error)
{
    FILE *file = fopen(path, "wxe");
    bool good = file != NULL;
    uint32_t random = 1;
    for (uint32_t i = 0; good && i < DATA_BYTES; i++) {
        random = random * 1664525u + 1013904223u;
        good = fputc((int)(random >> 24), file) != EOF;
    }
    int code = errno;
    if (file != NULL && fclose(file) != 0 && good) {
        code = errno;
        good = false;
    }
    return good ? STRATA_OK : scratch_failure(error, "writing", path, code);
}
