#define _GNU_SOURCE
/*
 * Files that are to leave nothing behind. See scratch.h.
 *
 * Thread: one owner.
 */

#include "bench/scratch.h"

#include "train/fail.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DATA_BYTES (1u << 20)

static strata_status fail(strata_error *error, const char *what, const char *path, int code)
{
    return strata_train_fail(error, STRATA_E_IO, code, "%s %.160s: %s", what, path,
                             strerror(code));
}

strata_status strata_bench_scratch_make(struct scratch *out, const char *parent,
                                        strata_error *error)
{
    snprintf(out->path, sizeof out->path, "%.4000s/offload-bench-XXXXXX", parent);
    if (mkdtemp(out->path) != NULL)
        return STRATA_OK;
    int code = errno;
    out->path[0] = '\0';
    return fail(error, "making a directory in", parent, code);
}

void strata_bench_scratch_remove(struct scratch *scratch)
{
    DIR *dir = scratch->path[0] != '\0' ? opendir(scratch->path) : NULL;
    if (dir == NULL)
        return;
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir))
        (void)unlinkat(dirfd(dir), entry->d_name, 0); // "." and ".." refuse
    closedir(dir);
    (void)rmdir(scratch->path);
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
