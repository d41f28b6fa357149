/*
 * When to call a caller's progress function; see progress.h. The time is an argument, so tests
 * need no clock.
 *
 * Thread: the one that called the library.
 */

#include "base/progress.h"

#include <stddef.h>

void strata_progress_begin(struct progress *progress, const struct progress_call *call,
                           const char *what, uint64_t total, uint64_t now_ns)
{
    *progress = (struct progress){
        .call = *call, .what = what, .total = total, .next_ns = now_ns + STRATA_PROGRESS_NS};
    if (total == 0)
        progress->call.fn = NULL;
}

void strata_progress_at(struct progress *progress, uint64_t done, uint64_t now_ns)
{
    bool ends = progress->called && done == progress->total;
    if (progress->call.fn == NULL || (!ends && now_ns < progress->next_ns))
        return;
    progress->call.fn(progress->call.user, progress->what, done, progress->total);
    progress->next_ns = ends ? UINT64_MAX : now_ns + STRATA_PROGRESS_NS;
    progress->called = !ends;
}
