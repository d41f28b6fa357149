#ifndef STRATA_TESTS_IO_FAULT_H
#define STRATA_TESTS_IO_FAULT_H

/*
 * A backend that wraps another and makes the Nth request of a kind go wrong.
 *
 *     struct io_fault_count count = {0};
 *     struct io_fault_plan plan = {
 *         .inner = &strata_io_uring, .count = &count,
 *         .fault = IO_FAULT_ERRNO, .native = EIO, .op = IO_WRITE, .nth = 3, .times = 1};
 *     desc.ops = &strata_io_fault;
 *     desc.ops_config = &plan;              // borrowed until the queue is closed
 *
 * Attempts are counted over all queues that share the plan, resumed and repeated ones included.
 *
 * Thread: as the backend it wraps; the counts may be read by anybody.
 */

#include "io/io.h"

#include <stdatomic.h>

enum io_fault_kind {
    IO_FAULT_ERRNO,  /* fails with native, without being tried                         */
    IO_FAULT_ZERO,   /* reports that nothing moved                                     */
    IO_FAULT_SHORT,  /* moves only the first half, whole blocks                        */
    IO_FAULT_ODD,    /* moves all but the last block, reports 100 bytes more than that */
    IO_FAULT_LATE,   /* done at once, reported delay_ns later                          */
    IO_FAULT_HELD,   /* done at once, reported when count->release is set              */
    IO_FAULT_TWICE,  /* reported, and again delay_ns later                             */
    IO_FAULT_LOST,   /* done, never reported                                           */
    IO_FAULT_FLIP,   /* one bit of what was read is another                            */
    IO_FAULT_BROKEN, /* the backend fails as a whole: reap returns -native             */
};

struct io_fault_count {
    _Atomic uint64_t seen;  /* attempts of the kind */
    _Atomic uint64_t fired; /* of which went wrong  */
    _Atomic bool release;   /* IO_FAULT_HELD: report what was held back */
};

struct io_fault_plan {
    const struct io_ops *inner;   /* required                                            */
    struct io_fault_count *count; /* required; borrowed                                  */
    enum io_fault_kind fault;
    int native;        /* IO_FAULT_ERRNO, IO_FAULT_BROKEN: the errno                     */
    enum io_op op;     /* 0: any                                                         */
    uint64_t nth;      /* the first one that goes wrong, from 1; 0: none does            */
    uint64_t times;    /* how many in a row; UINT64_MAX: from then on                    */
    uint64_t delay_ns; /* IO_FAULT_LATE, IO_FAULT_TWICE                                  */
};

extern const struct io_ops strata_io_fault;

#endif
