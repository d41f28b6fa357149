#ifndef STRATA_BENCH_PROBE_H
#define STRATA_BENCH_PROBE_H

/*
 * The measurement of `offload-bench probe`, which `run` uses too: this machine as a profile
 * (strata/profile.h), with the working set of a training run.
 *
 * Thread: one.
 */

#include "strata/profile.h"
#include "strata/status.h"

/* The model and the places to measure with, in the words of offload-train's command line. A
 * field that may be NULL then has its default. All borrowed. */
struct probe_desc {
    const char *store; /* a directory on the drive; NULL: without one */
    const char *model;
    const char *seq;
    const char *batch;
    const char *micro_batch;
    const char *threads;
    const char *compute_dtype;
    const char *states_dtype;
};

/* Runs some steps of training and some passes over memory and the drive; leaves no file
 * behind. */
strata_status strata_bench_probe_machine(strata_profile *out, const struct probe_desc *desc,
                                         strata_error *error);

#endif
