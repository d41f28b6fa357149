#ifndef STRATA_BASE_PROGRESS_H
#define STRATA_BASE_PROGRESS_H

/*
 * When to call a caller's progress function: never for work that ends soon, and not too often.
 *
 *     struct progress progress;
 *     strata_progress_begin(&progress, &call, "writing the store", bytes, strata_now_ns());
 *     ... strata_progress_at(&progress, written, strata_now_ns());
 *
 * Thread: the one that called the library.
 */

#include "strata/types.h"

/* Time from the beginning to the first call, and between two calls, at least: four a second,
 * which the eye can still follow. */
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

/* what is in static storage. With total 0 the function is never called. */
void strata_progress_begin(struct progress *progress, const struct progress_call *call,
                           const char *what, uint64_t total, uint64_t now_ns);

/* done never decreases. At done == total the function is called if it was called before. */
void strata_progress_at(struct progress *progress, uint64_t done, uint64_t now_ns);

#endif
