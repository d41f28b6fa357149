#ifndef STRATA_BENCH_STEP_H
#define STRATA_BENCH_STEP_H

/*
 * offload-bench step: what overlap is worth. One step of one model run four ways: as the
 * schedule has it, its ops with all dependencies removed, without updates, and in the naive
 * order.
 *
 * Thread: one.
 */

#include "bench/report.h"

/* argv[0] is the subcommand's own name. */
enum bench_exit strata_bench_step(int argc, char **argv);

#endif
