#ifndef STRATA_BENCH_COPY_H
#define STRATA_BENCH_COPY_H

/*
 * offload-bench copy: what copies to and from the device come to, one way and both ways, alone
 * and while the machine is busy, in the pager's way and by one bare copy.
 *
 * Thread: one.
 */

#include "bench/report.h"

/* argv[0] is the subcommand's own name. */
enum bench_exit strata_bench_copy(int argc, char **argv);

#endif
