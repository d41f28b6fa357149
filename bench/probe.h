#ifndef STRATA_BENCH_PROBE_H
#define STRATA_BENCH_PROBE_H

/*
 * What `offload-bench probe` measures, for `run` too: this machine as a profile
 * (strata/profile.h), with the working set of a training run.
 *
 * Thread: one.
 */

#include "strata/profile.h"
#include "strata/status.h"

/* What is measured with. The words of a command line, as offload-train takes them; NULL, where
 * it may be, is its default. All borrowed. */
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

/* Takes some steps of training and some passes over memory and the drive; leaves no file. */
strata_status strata_bench_probe_machine(strata_profile *out, const struct probe_desc *desc,
                                         strata_error *error);

#endif
