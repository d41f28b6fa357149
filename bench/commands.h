#ifndef STRATA_BENCH_COMMANDS_H
#define STRATA_BENCH_COMMANDS_H

/*
 * The subcommands of offload-bench. Each is in a file of its own name, whose top comment says
 * what is measured and what is not timed.
 *
 * argv[0] is the subcommand's own name. A wrong command line ends with one line on stderr and
 * BENCH_USAGE, before anything is measured.
 *
 * Thread: the main thread.
 */

#include "bench/report.h"

/* What this machine and this container allow, and what to change. */
enum bench_exit strata_bench_check(int argc, char **argv);
/* The optimizer's update beside the bound of memory, and beside separate passes. */
enum bench_exit strata_bench_adam(int argc, char **argv);
/* Copies to and from the device, as the pager makes them, beside one bare copy. */
enum bench_exit strata_bench_copy(int argc, char **argv);
/* Matrix products through the worker pool, beside OpenBLAS's threads and updates. */
enum bench_exit strata_bench_gemm(int argc, char **argv);
/* The store's reads and writes beside a bare loop with the same requests. */
enum bench_exit strata_bench_io(int argc, char **argv);
/* The device's matrix rate. */
enum bench_exit strata_bench_matrix(int argc, char **argv);
/* Every operator of a layer on a GPU of the catalogue, by its roofline. */
enum bench_exit strata_bench_ops(int argc, char **argv);
/* The plan and the forecast of a model on any machine, and what to buy next. */
enum bench_exit strata_bench_plan(int argc, char **argv);
/* This machine as a profile. */
enum bench_exit strata_bench_probe(int argc, char **argv);
/* A run of training, forecast and measured, lane by lane. */
enum bench_exit strata_bench_run(int argc, char **argv);
/* How much time overlap saves in a step. */
enum bench_exit strata_bench_step(int argc, char **argv);

#endif
