#ifndef STRATA_BENCH_STEP_UNORDERED_H
#define STRATA_BENCH_STEP_UNORDERED_H

/*
 * The ops of a step with all dependencies removed: what the lanes do when none waits for
 * another. No order of the same work on the same cores is faster, so it is what the schedule is
 * measured against.
 *
 * The list of ops is the schedule's own: those it gives out for one step in its stride. Each
 * lane goes through its part of the list, as many at once as the schedule would have under way,
 * with the engine's memory, store, update and hashes. Frames are used by several ops at once
 * and the bytes in them mean nothing, which changes no cost; nothing of the engine is of use
 * afterwards. Two things are left out: commits, whose tables are small and not flushed, and the
 * comparison of a hash with the one expected, though not the hashing.
 *
 * Thread: one owner.
 */

#include "bench/rig/step_caller.h"
#include "engine/engine_internal.h"

struct step_unordered;

/* Ends the engine's own pager. Both slots of each record have been written. */
strata_status strata_bench_unordered_open(struct step_unordered **out,
                                          const struct step_caller *caller,
                                          strata_engine *engine, strata_error *error);
/* Before the engine is destroyed. NULL is fine. */
void strata_bench_unordered_close(struct step_unordered *run);

/* All lanes through the list of so many steps; out: of one. */
strata_status strata_bench_unordered_sample(struct step_unordered *run, uint32_t products,
                                            uint32_t steps, struct step_sample *out,
                                            strata_error *error);

#endif
