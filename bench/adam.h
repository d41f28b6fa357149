#ifndef STRATA_BENCH_ADAM_H
#define STRATA_BENCH_ADAM_H

/*
 * offload-bench adam: the optimizer's update against the bound that memory sets, and against
 * the same work in separate passes.
 *
 * Thread: one, and the workers.
 */

#include "bench/report.h"

/* argv[0] is the subcommand's own name. */
enum bench_exit strata_bench_adam(int argc, char **argv);

#endif
