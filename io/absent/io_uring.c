#define _GNU_SOURCE

/*
 * What stands in for io/io_uring.c in a library built without it (STRATA_URING=OFF): a backend
 * that refuses to open. So the rest of the library has one shape, and the refusal takes the way
 * that a kernel's refusal takes: an error, or the threads backend where that is allowed.
 *
 * Thread: any; nothing is ever opened.
 */

#include "io/io.h"

#include "base/error.h"

#include <errno.h>

static uint64_t absent_bytes(uint32_t depth)
{
    (void)depth;
    return 0;
}

static strata_status absent_open(struct io_backend **out, const struct io_backend_desc *desc,
                                 strata_error *error)
{
    (void)desc;
    *out = NULL;
    return strata_fail(
        error, STRATA_E_UNSUPPORTED, ENOSYS,
        "io_uring: this library was built without it; allow threads-io, or build "
        "with STRATA_URING=ON");
}

/* Nothing was opened, so what follows is never called. */
static void absent_close(struct io_backend *backend)
{
    STRATA_CHECK(backend == NULL);
}

static uint32_t absent_start(struct io_backend *backend, const struct io_attempt *attempts,
                             uint32_t count)
{
    (void)attempts;
    (void)count;
    STRATA_CHECK(backend == NULL);
    return 0;
}

static int32_t absent_reap(struct io_backend *backend, struct io_result *out, uint32_t capacity,
                           uint64_t timeout_ns)
{
    (void)out;
    (void)capacity;
    (void)timeout_ns;
    STRATA_CHECK(backend == NULL);
    return -ENOSYS;
}

static void absent_wake(struct io_backend *backend)
{
    STRATA_CHECK(backend == NULL);
}

const struct io_ops strata_io_uring = {
    .name = "uring",
    .bytes = absent_bytes,
    .open = absent_open,
    .close = absent_close,
    .start = absent_start,
    .reap = absent_reap,
    .wake = absent_wake,
};
