#ifndef STRATA_BASE_ROUND_H
#define STRATA_BASE_ROUND_H

/*
 * Whole units: how many of them hold a value, and how many bytes these are. The result is
 * wrong for values within a unit of 2^64; sizes are checked long before that.
 *
 * Thread: any.
 */

#include <stdint.h>

/* The smallest number of units that hold value. */
static inline uint64_t strata_units_of(uint64_t value, uint64_t unit)
{
    return (value + unit - 1) / unit;
}

/* The smallest multiple of unit that is at least value. */
static inline uint64_t strata_round_up(uint64_t value, uint64_t unit)
{
    return strata_units_of(value, unit) * unit;
}

#endif
