#ifndef TESTS_SUPPORT_DRIVER_H
#define TESTS_SUPPORT_DRIVER_H

/*
 * A driver of the schedule without time: a made-up caller, one stream and lanes whose ops end
 * in any order that the seed says. It runs a random model with random homes for a few steps and
 * looks at every op: is it allowed, has it what it needs, does it happen exactly once?
 *
 * Nothing here is real but the schedule, the plan and the residency.
 */

#include "offload/schedule.h"

struct driver_case {
    uint64_t seed;
    bool minimum; /* budgets at the formula's minimum */
    bool deferred;
    bool no_overlap;
};

/* NULL: all held. Otherwise what did not, in static storage of the calling thread. */
const char *strata_drive(const struct driver_case *what);

#endif
