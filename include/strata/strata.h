#ifndef STRATA_STRATA_H
#define STRATA_STRATA_H

/* Everything. Reading order: engine.h, then whatever it names. */

#include "strata/adam.h"
#include "strata/device.h"
#include "strata/engine.h"
#include "strata/plan.h"
#include "strata/profile.h"
#include "strata/status.h"
#include "strata/store.h"
#include "strata/types.h"
#include "strata/workers.h"

#endif
