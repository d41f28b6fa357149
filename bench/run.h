#ifndef STRATA_BENCH_RUN_H
#define STRATA_BENCH_RUN_H

/*
 * offload-bench run: a training run as offload-train would make it, forecast and then measured,
 * lane by lane.
 *
 * Thread: one.
 */

#include "bench/report.h"

/* argv[0] is the subcommand's own name. */
enum bench_exit strata_bench_run(int argc, char **argv);

#endif
