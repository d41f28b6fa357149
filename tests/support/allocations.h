#ifndef STRATA_TESTS_ALLOCATIONS_H
#define STRATA_TESTS_ALLOCATIONS_H

/*
 * The bytes that this process takes from its allocators, as the address sanitizer counts them.
 *
 *     if (!strata_allocations_count())
 *         cr_skip_test(...);
 *     strata_allocations_reset();
 *     ...
 *     uint64_t taken = strata_allocations_bytes();
 *
 * Thread: any.
 */

#include <stdbool.h>
#include <stdint.h>

/* Count from now on; false: this program has no address sanitizer. */
bool strata_allocations_count(void);

void strata_allocations_reset(void);
/* Since the latest reset; what was freed meanwhile counts too. */
uint64_t strata_allocations_bytes(void);

#endif
