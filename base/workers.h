#ifndef STRATA_BASE_WORKERS_H
#define STRATA_BASE_WORKERS_H

/*
 * Holding a pool for the life of an engine: strata_workers_destroy() then leaves the pool to
 * the last holder, whose release frees it.
 *
 * Thread: any.
 */

#include "strata/workers.h"

void strata_workers_hold(strata_workers *workers);
void strata_workers_release(strata_workers *workers);

#endif
