#ifndef STRATA_BENCH_PLAN_BUY_H
#define STRATA_BENCH_PLAN_BUY_H

/*
 * Tables of answers to a question with one thing changed: purchases, each with all else
 * unchanged, and sweeps over seven values of one thing. Both are printed and added to the
 * document.
 *
 * Thread: the caller's.
 */

#include <stdio.h>

#include "bench/plan_ask.h"

enum plan_sweep { SWEEP_NONE, SWEEP_BATCH, SWEEP_RAM, SWEEP_NVME };

/* now: the answer to the unchanged question. */
strata_status strata_plan_weigh(FILE *out, strata_json *document,
                                const struct question *question, const struct answer *now,
                                strata_error *error);

/* sweep: not SWEEP_NONE. */
strata_status strata_plan_sweep(FILE *out, strata_json *document,
                                const struct question *question, enum plan_sweep sweep,
                                strata_error *error);

#endif
