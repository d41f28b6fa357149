#ifndef STRATA_TESTS_PROFILES_H
#define STRATA_TESTS_PROFILES_H

/*
 * Machines to plan and simulate for, each a file in tests/support/profiles as offload-bench
 * probe writes one:
 *
 *     desktop    datasheet-like figures, which lie as far apart as real ones do
 *     server     likewise: an eighth of a server
 *     two_cores  a host device with two cores, as the demo has it
 *     two_ranks  collectives are by far the slowest, and requests cost nothing
 *
 * Thread: any.
 */

#include "strata/profile.h"

void strata_test_profile(const char *name, strata_profile *out);

#endif
