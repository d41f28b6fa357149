#ifndef STRATA_BENCH_PLAN_H
#define STRATA_BENCH_PLAN_H

/*
 * offload-bench plan: what a machine that may not exist would make of a model: does it fit, how
 * fast is a step, what bounds it, what it wears out, what to buy next.
 *
 * Thread: one.
 */

#include "bench/report.h"

/* argv[0] is the subcommand's own name. */
enum bench_exit strata_bench_plan(int argc, char **argv);

#endif
