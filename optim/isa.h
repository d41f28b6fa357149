#ifndef STRATA_OPTIM_ISA_H
#define STRATA_OPTIM_ISA_H

/*
 * Which variant of a kernel runs. There is no table that is filled at start-up: asking the CPU
 * is a few loads, and a kernel's call is a tile.
 *
 * Thread: any.
 */

#include "strata/adam.h"

/* STRATA_ISA_BEST becomes the widest usable one; any other must be usable. */
strata_isa strata_isa_resolve(strata_isa isa);

#endif
