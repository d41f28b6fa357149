#ifndef STRATA_OPTIM_ISA_H
#define STRATA_OPTIM_ISA_H

/*
 * Which variant of a kernel runs. It is chosen at every call: asking the CPU takes a few
 * loads, and a call handles a whole tile.
 *
 * Thread: any.
 */

#include "strata/adam.h"

/* STRATA_ISA_BEST becomes the widest usable one; any other must be usable. */
strata_isa strata_isa_resolve(strata_isa isa);

#endif
