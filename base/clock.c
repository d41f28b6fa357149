#define _GNU_SOURCE

/*
 * CLOCK_MONOTONIC as one number. Reading it cannot fail on Linux, and it does not jump when
 * the date is set. The timed waits in base/ use the same clock, so a deadline is the time from
 * here plus a duration.
 *
 * Thread: any.
 */

#include "base/clock.h"

#include <time.h>

uint64_t strata_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
