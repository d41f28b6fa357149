#ifndef STRATA_BENCH_MATRIX_H
#define STRATA_BENCH_MATRIX_H

/*
 * offload-bench matrix: the device's matrix rate, which a training step's is a share of.
 *
 * Thread: one.
 */

#include "bench/report.h"

/* argv[0] is the subcommand's own name. */
enum bench_exit strata_bench_matrix(int argc, char **argv);

#endif
