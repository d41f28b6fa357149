#define _GNU_SOURCE
/*
 * Files that are to leave nothing behind, also where Ctrl-C ends the program. See scratch.h.
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

/* A run has one per drive and its probe one; 16 drives are the most. */
#define MAX_LIVE 20

/*
 * Those that are there. A signal handler reaches nothing but statics, so these are: written by
 * their owners, one thread, read by the handler.
 */
static struct scratch *_Atomic live[MAX_LIVE];

static strata_status fail(strata_error *error, const char *what, const char *path, int code)
{
    return strata_fail(error, STRATA_E_IO, code, "%s %.160s: %s", what, path, strerror(code));
}

/* A signal handler may call this: it does nothing but ask the system. */
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
            (void)unlinkat(dir, entry->d_name, 0); // "." and ".." refuse
            at += entry->d_reclen;
        }
    }
    close(dir);
    (void)rmdir(path);
}

/* Then it is ended as any program is, since SA_RESETHAND took this handler away. */
static void on_signal(int number)
{
    for (int i = 0; i < MAX_LIVE; i++) {
        const struct scratch *scratch = live[i];
        if (scratch != NULL)
            remove_with_files(scratch->path);
    }
    raise(number);
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

/* One that is there no more, or more than there is place for, is just not known. */
static void replace(struct scratch *known, struct scratch *by)
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
    replace(NULL, out);
    catch_signals();
    if (mkdtemp(out->path) != NULL)
        return STRATA_OK;
    int code = errno;
    replace(out, NULL);
    out->path[0] = '\0';
    return fail(error, "making a directory in", parent, code);
}

void strata_bench_scratch_remove(struct scratch *scratch)
{
    if (scratch->path[0] == '\0')
        return;
    remove_with_files(scratch->path);
    replace(scratch, NULL);
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
    return good ? STRATA_OK : fail(error, "writing", path, code);
}
