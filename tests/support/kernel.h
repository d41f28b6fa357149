#ifndef STRATA_TESTS_KERNEL_H
#define STRATA_TESTS_KERNEL_H

/*
 * What the kernel, or the container, lets a test have; and taking it away, as a container does.
 *
 * Many a container forbids io_uring. What a test says about the store holds with either
 * backend, so it asks for STRATA_IO_URING by strata_backend_here() and gets threads where there
 * is no io_uring. A test of io_uring itself skips. Where STRATA_TEST_FAIL_ON_SKIP=1 nothing is
 * replaced, and the test fails.
 *
 * Thread: any.
 */

#include "io/io.h"
#include "strata/engine.h"

#include <stdbool.h>

/* Does the kernel make a ring for this process? */
bool strata_io_uring_permitted(void);

/* The backend itself, or threads where it is io_uring and not to be had. */
strata_io_backend strata_backend_here(strata_io_backend wanted);
const struct io_ops *strata_io_ops_here(strata_io_backend wanted);

/* From now on this process and its children get EPERM from io_uring_setup. 0 or the errno. */
int strata_forbid_io_uring(void);

#endif
