#ifndef STRATA_BENCH_STEP_UNORDERED_H
#define STRATA_BENCH_STEP_UNORDERED_H

/*
 * The ops of a step with all dependencies removed: the lanes at work when no lane waits for
 * another. No order of the same work on the same cores is faster, so the schedule is compared
 * with it.
 *
 * The schedule itself makes the list of ops: those of one step in the middle of a run. Each
 * lane goes through its part of the list, with as many ops at once as the schedule would run,
 * and with the engine's memory, store, updates and hashes. Several ops use a frame at once and
 * the bytes in it mean nothing, which changes no cost; afterwards the engine cannot be used.
 * Two things are left out: commits, whose tables are small and not flushed, and the comparison
 * of a hash with the expected one, though not the hashing.
 *
 * Thread: one owner.
 */

#include "bench/rig/step_caller.h"
#include "engine/engine_internal.h"

struct step_unordered;

/* Ends the engine's own pager. Both slots of each record must have been written. */
strata_status strata_bench_unordered_open(struct step_unordered **out,
                                          const struct step_caller *caller,
                                          strata_engine *engine, strata_error *error);
/* Before the engine is destroyed. NULL is fine. */
void strata_bench_unordered_close(struct step_unordered *run);

/* Runs all lanes through the list of `steps` steps; *out has the figures of one step. */
strata_status strata_bench_unordered_sample(struct step_unordered *run, uint32_t products,
                                            uint32_t steps, struct step_sample *out,
                                            strata_error *error);

#endif
