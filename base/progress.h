#ifndef STRATA_BASE_PROGRESS_H
#define STRATA_BASE_PROGRESS_H

/*
 * When to call a caller's progress function: not for work that ends soon, and never often.
 *
 *     struct progress progress;
 *     strata_progress_begin(&progress, &call, "writing the store", bytes, strata_now_ns());
 *     ... strata_progress_at(&progress, written, strata_now_ns());
 *
 * Thread: the one that called the library.
 */

#include "strata/types.h"

/* The first call comes no sooner than this after the beginning, and so does each next one after
 * the one before: four in a second, which the eye can still follow. */
#define STRATA_PROGRESS_NS 250000000u

/* A caller's function; fn NULL: none. */
struct progress_call {
    strata_progress_fn fn;
    void *user;
};

struct progress {
    struct progress_call call;
    const char *what;
    uint64_t total;
    uint64_t next_ns;
    bool called;
};

/* what is in static storage. total 0: nothing is to be done, and nothing is called. */
void strata_progress_begin(struct progress *progress, const struct progress_call *call,
                           const char *what, uint64_t total, uint64_t now_ns);

/* done never falls. At done == total the last call is made, if there was one before. */
void strata_progress_at(struct progress *progress, uint64_t done, uint64_t now_ns);

#endif
