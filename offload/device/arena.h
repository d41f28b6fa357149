#ifndef STRATA_OFFLOAD_ARENA_H
#define STRATA_OFFLOAD_ARENA_H

/*
 * Memory taken once, at create: an anonymous mapping, on huge pages if the kernel gives them.
 * It is kept out of core dumps and forks, and every page is touched so that it really exists.
 *
 * Thread: plain data; one owner.
 */

#include "base/progress.h"
#include "strata/workers.h"

#define STRATA_PAGE_BYTES      4096u
#define STRATA_HUGE_PAGE_BYTES (2u << 20)

struct arena {
    uint8_t *base; /* 2 MiB aligned */
    uint64_t bytes;
    bool huge; /* the kernel backs it with huge pages where it can */
};

/* The caller's thread touches the pages. */
strata_status strata_arena_create(struct arena *out, uint64_t bytes, const char *what,
                                  strata_error *error);

/* The workers touch the pages. The progress function is called with "taking memory". */
strata_status strata_arena_create_by(struct arena *out, uint64_t bytes, const char *what,
                                     strata_workers *workers,
                                     const struct progress_call *progress, strata_error *error);
void strata_arena_destroy(struct arena *arena);

#endif
