#ifndef STRATA_BENCH_KERNEL_H
#define STRATA_BENCH_KERNEL_H

/*
 * What a kernel's version says about I/O.
 *
 * Thread: any.
 */

#include "bench/report.h"

/*
 * Judge a kernel by uname(). FAIL: its direct I/O damages files; WARN: its io_uring is too
 * young to be trusted.
 */
void strata_bench_judge_kernel(struct finding *out, const char *release, const char *version);

#endif
