#ifndef STRATA_BENCH_IO_H
#define STRATA_BENCH_IO_H

/*
 * offload-bench io: what the store costs. Sequential reads, writes and both at once, through
 * the store and by a bare loop with the same requests, in turn.
 *
 * Thread: one.
 */

#include "bench/report.h"

/* argv[0] is the subcommand's own name. */
enum bench_exit strata_bench_io(int argc, char **argv);

#endif
