#ifndef STRATA_TESTS_QUICK_CLOCK_H
#define STRATA_TESTS_QUICK_CLOCK_H

/*
 * A clock that a test may hurry: each look at it is then a second after the one before. What
 * waits for ten seconds by it has waited after ten looks. Link with WRAP strata_now_ns; one
 * source file of a test includes this.
 *
 * Thread: any.
 */

#include <stdbool.h>
#include <stdint.h>

static _Atomic uint64_t clock_ahead_ns; /* stays: time never goes back */
static _Atomic bool clock_hurries;

uint64_t __real_strata_now_ns(void);
uint64_t __wrap_strata_now_ns(void);

uint64_t __wrap_strata_now_ns(void)
{
    if (clock_hurries)
        clock_ahead_ns += 1000000000u;
    return __real_strata_now_ns() + clock_ahead_ns;
}

#endif
