#define _GNU_SOURCE

/*
 * One large piece of memory, taken once and really there.
 *
 * The mapping starts on a 2 MiB boundary, because only whole, aligned 2 MiB ranges become huge
 * pages. The slack that alignment needs is unmapped before its first page exists. Huge pages
 * make O_DIRECT transfers cost a fifth of the CPU time (docs/performance.md), so the arena asks
 * for them and keeps the answer. A kernel whose transparent huge pages are set to "never"
 * accepts the advice and ignores it, so that setting is read too.
 *
 * Every page is touched here, because the kernel clears a page when it is first touched. One
 * core clears some 4 GiB a second, so the workers do it if there are any. A budget that the
 * machine cannot keep then fails at create, with a message, and not in the middle of a step.
 * The pages are kept out of core dumps, which would be as large as the budget, and out of child
 * processes, since copy-on-write would break transfers in flight.
 *
 * Thread: the owner of the struct; workers populate while it waits.
 */

#include "offload/device/arena.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/round.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>

/* Linux 5.14; the number is part of the kernel's interface, older headers lack the name. */
#ifndef MADV_POPULATE_WRITE
#    define MADV_POPULATE_WRITE 23
#endif

/* What a worker populates at once: it takes tens of milliseconds, so the hand-over does not
 * count. */
#define PIECE_BYTES ((uint64_t)64 << 20)

/* Does the kernel give transparent huge pages to this process? If not, madvise succeeds all the
 * same. */
static bool huge_pages_enabled(void)
{
    char line[128] = "";
    if (prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) > 0)
        return false;
    FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "re");
    if (file == NULL)
        return false;
    bool read = fgets(line, sizeof line, file) != NULL;
    fclose(file);
    return read && strstr(line, "[never]") == NULL;
}

/* Map bytes at a 2 MiB boundary; MAP_FAILED with errno set when the kernel refuses. */
static uint8_t *map_aligned(uint64_t bytes)
{
    uint64_t reserved = bytes + STRATA_HUGE_PAGE_BYTES;
    uint8_t *start = mmap(NULL, reserved, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED)
        return MAP_FAILED;
    uint64_t before =
        strata_round_up((uintptr_t)start, STRATA_HUGE_PAGE_BYTES) - (uintptr_t)start;
    uint64_t after = reserved - before - bytes;
    if (before > 0)
        munmap(start, before);
    if (after > 0)
        munmap(start + before + bytes, after);
    return start + before;
}

/* Make every page exist. 0 or the errno. */
static int populate(uint8_t *base, uint64_t bytes)
{
    int cause;
    do {
        cause = madvise(base, bytes, MADV_POPULATE_WRITE) == 0 ? 0 : errno;
    } while (cause == EINTR);
    if (cause != EINVAL)
        return cause;
    // A kernel before 5.14: a write to each page does the same, but where memory is lacking it
    // ends in a signal.
    for (uint64_t offset = 0; offset < bytes; offset += STRATA_PAGE_BYTES)
        *(volatile uint8_t *)(base + offset) = 0;
    return 0;
}

struct populating {
    uint8_t *base;
    uint64_t bytes;
    _Atomic int cause; /* 0, or the errno of a piece that failed; set by any worker */
};

static void populate_piece(void *user, uint32_t index, uint32_t worker)
{
    struct populating *job = user;
    uint64_t from = index * PIECE_BYTES;
    uint64_t left = job->bytes - from;
    int cause = populate(job->base + from, left < PIECE_BYTES ? left : PIECE_BYTES);
    (void)worker;
    if (cause != 0)
        atomic_store_explicit(&job->cause, cause, memory_order_relaxed);
}

/* The workers populate a few pieces each at a time, so that progress is reported in between. */
static int populate_by(uint8_t *base, uint64_t bytes, strata_workers *workers,
                       const struct progress_call *call)
{
    const uint64_t step = 4 * strata_workers_count(workers) * PIECE_BYTES;
    struct progress progress;
    strata_progress_begin(&progress, call, "taking memory", bytes, strata_now_ns());
    for (uint64_t at = 0; at < bytes;) {
        struct populating job = {.base = base + at,
                                 .bytes = bytes - at < step ? bytes - at : step};
        uint64_t pieces = strata_units_of(job.bytes, PIECE_BYTES);
        if (strata_workers_run(workers, STRATA_JOB_UPDATE, populate_piece, &job,
                               (uint32_t)pieces) != STRATA_OK)
            return EINVAL;
        int cause = atomic_load_explicit(&job.cause, memory_order_relaxed);
        if (cause != 0)
            return cause;
        at += job.bytes;
        strata_progress_at(&progress, at, strata_now_ns());
    }
    return 0;
}

strata_status strata_arena_create_by(struct arena *out, uint64_t bytes, const char *what,
                                     strata_workers *workers,
                                     const struct progress_call *progress, strata_error *error)
{
    *out = (struct arena){.huge = true};
    if (bytes == 0)
        return STRATA_OK;
    if (bytes > SIZE_MAX - 2 * (uint64_t)STRATA_HUGE_PAGE_BYTES)
        return strata_fail(error, STRATA_E_NOMEM, ENOMEM,
                           "arena for %s: %" PRIu64 " bytes are beyond the address space", what,
                           bytes);
    uint64_t mapped = strata_round_up(bytes, STRATA_PAGE_BYTES);
    uint8_t *base = map_aligned(mapped);
    int cause = base == MAP_FAILED ? errno : 0;
    if (cause == 0) {
        out->huge = madvise(base, mapped, MADV_HUGEPAGE) == 0 && huge_pages_enabled();
        // The arena holds its bytes without these two, so a kernel may refuse them.
        (void)madvise(base, mapped, MADV_DONTDUMP);
        (void)madvise(base, mapped, MADV_DONTFORK);
        cause = workers != NULL ? populate_by(base, mapped, workers, progress)
                                : populate(base, mapped);
        if (cause != 0)
            munmap(base, mapped);
    }
    if (cause != 0) {
        *out = (struct arena){0};
        return strata_fail(error, STRATA_E_NOMEM, cause,
                           "arena for %s: %" PRIu64 " bytes cannot be taken: %s", what, bytes,
                           strerror(cause));
    }
    out->base = base;
    out->bytes = bytes;
    return STRATA_OK;
}

strata_status strata_arena_create(struct arena *out, uint64_t bytes, const char *what,
                                  strata_error *error)
{
    return strata_arena_create_by(out, bytes, what, NULL, NULL, error);
}

void strata_arena_destroy(struct arena *arena)
{
    if (arena->base != NULL)
        STRATA_CHECK(munmap(arena->base, strata_round_up(arena->bytes, STRATA_PAGE_BYTES)) ==
                     0);
    *arena = (struct arena){0};
}
