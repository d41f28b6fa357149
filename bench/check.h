#ifndef STRATA_BENCH_CHECK_H
#define STRATA_BENCH_CHECK_H

/*
 * offload-bench check: what this machine and this container allow, and what to change.
 *
 * Each finding is OK, WARN (it works, but slower or riskier than it need be) or FAIL
 * (offload-train would refuse, or should not be trusted), with the command that mends it.
 *
 * Thread: one.
 */

#include "bench/report.h"

/* argv[0] is the subcommand's own name. */
enum bench_exit strata_bench_check(int argc, char **argv);

#endif
