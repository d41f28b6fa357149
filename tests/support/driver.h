#ifndef TESTS_SUPPORT_DRIVER_H
#define TESTS_SUPPORT_DRIVER_H

/*
 * A driver of the schedule without time: a made-up caller, one stream and lanes whose ops end
 * in any order that the seed says. It runs a random model with random homes and random verdicts
 * for a few steps and looks at every op: is it allowed, has it what it needs, does it happen
 * exactly once?
 *
 * Nothing here is real but the schedule, the plan and the residency. In place of bytes every
 * home, slot and frame holds a token that says what went into it: a state is the fold of the
 * (step, verdict) pairs applied to it, weights carry the token of the state they were made
 * from. So weights that saw a guess where the norm said otherwise, a record overwritten too
 * soon or an update done twice show when they are used, as wrong bytes would.
 */

#include "offload/schedule.h"

struct driver_case {
    uint64_t seed;
    bool minimum; /* budgets at the formula's minimum */
    enum update_mode mode;
    bool no_overlap;
};

/* NULL: all held. Otherwise what did not, in static storage of the calling thread. */
const char *strata_drive(const struct driver_case *what);

#endif
