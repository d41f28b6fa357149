#ifndef STRATA_BENCH_SCRATCH_H
#define STRATA_BENCH_SCRATCH_H

/*
 * A directory inside one that was named, for files that are to leave nothing behind. From the
 * first one on, SIGINT and SIGTERM remove those that are there before they end the program.
 *
 * Thread: one owner.
 */

#include "strata/status.h"

struct scratch {
    char path[4096]; /* empty: there is none */
};

/* E_IO: the parent is not there, or cannot be written to. *out stays in place until remove. */
strata_status strata_bench_scratch_make(struct scratch *out, const char *parent,
                                        strata_error *error);

/* With the files in it; it has no directories. Of zeros: nothing happens. */
void strata_bench_scratch_remove(struct scratch *scratch);

/* A file of tokens to train on: bytes, the first 256 of every vocabulary. E_IO. */
strata_status strata_bench_scratch_data(const char *path, strata_error *error);

#endif
