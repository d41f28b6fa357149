#ifndef STRATA_BENCH_COPY_LOAD_H
#define STRATA_BENCH_COPY_LOAD_H

/*
 * Loads that keep the rest of the machine busy while copies are measured: AdamW on every
 * worker, and reads and writes of a scratch store, in a loop until stopped.
 *
 * Thread: one, and one more for each load.
 */

#include "bench/rig/io_rig.h"
#include "strata/workers.h"

#include <pthread.h>
#include <stdatomic.h>

struct copy_load {
    strata_workers *workers;
    struct arena state; /* what AdamW works on */
    struct io_rig rig;
    bool rig_open;
    bool adam_runs;
    bool io_runs;
    atomic_bool stop; /* set by start's caller, read by the loads */
    pthread_t adam;
    pthread_t io;
    strata_error error; /* of the store; read after stop */
};

/* dir: of the scratch store. On failure close is still due. */
strata_status strata_bench_load_open(struct copy_load *out, const char *dir,
                                     strata_error *error);
void strata_bench_load_close(struct copy_load *load);

/* Start the loads that are asked for; returns when they run. */
strata_status strata_bench_load_start(struct copy_load *load, bool adam, bool io,
                                      strata_error *error);
/* Stop the loads and wait for them. Returns the store's failure, if it had one. */
strata_status strata_bench_load_stop(struct copy_load *load, strata_error *error);

#endif
