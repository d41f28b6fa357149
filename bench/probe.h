#ifndef STRATA_BENCH_PROBE_H
#define STRATA_BENCH_PROBE_H

/*
 * offload-bench probe: this machine as a profile (strata/profile.h), measured with the working
 * set of a training run.
 *
 * Thread: one.
 */

#include "bench/report.h"

/* argv[0] is the subcommand's own name. */
enum bench_exit strata_bench_probe(int argc, char **argv);

#endif
