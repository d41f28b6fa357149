#ifndef STRATA_BENCH_SCRATCH_H
#define STRATA_BENCH_SCRATCH_H

/*
 * A temporary directory inside a given one. Once the first exists, SIGINT and SIGTERM remove
 * all that exist before they end the program.
 *
 * Thread: one owner.
 */

#include "strata/status.h"

struct scratch {
    char path[4096]; /* empty: there is none */
};

/* STRATA_E_IO: the parent does not exist or cannot be written to. *out must not move until
 * remove. */
strata_status strata_bench_scratch_make(struct scratch *out, const char *parent,
                                        strata_error *error);

/* Remove it with the files in it; it holds no directories. A struct of zeros is accepted. */
void strata_bench_scratch_remove(struct scratch *scratch);

/* A file of tokens to train on: bytes, the first 256 of every vocabulary. E_IO. */
strata_status strata_bench_scratch_data(const char *path, strata_error *error);

#endif
