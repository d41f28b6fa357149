#ifndef STRATA_BASE_CLOCK_H
#define STRATA_BASE_CLOCK_H

/* Monotonic nanoseconds, for statistics and deadlines. Never for a decision of the schedule. */

#include <stdint.h>

uint64_t strata_now_ns(void);

#endif
