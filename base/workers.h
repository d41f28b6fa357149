#ifndef STRATA_BASE_WORKERS_H
#define STRATA_BASE_WORKERS_H

/*
 * A pool that is used for long, by an engine: strata_workers_destroy() then leaves it to the
 * last who holds it.
 *
 * Thread: any.
 */

#include "strata/workers.h"

void strata_workers_hold(strata_workers *workers);
void strata_workers_release(strata_workers *workers);

#endif
