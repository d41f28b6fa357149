#ifndef STRATA_BENCH_GEMM_H
#define STRATA_BENCH_GEMM_H

/*
 * offload-bench gemm: what the worker pool costs. The trainer's matrix products through the
 * pool and on OpenBLAS's own threads, in turn; then products and updates at once.
 *
 * Thread: one, and the pool's.
 */

#include "bench/report.h"

/* argv[0] is the subcommand's own name. */
enum bench_exit strata_bench_gemm(int argc, char **argv);

#endif
