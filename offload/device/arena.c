#define _GNU_SOURCE

/*
 * One large piece of memory, taken once and really there.
 *
 * The mapping starts on a 2 MiB boundary, because only whole, aligned 2 MiB ranges become huge
 * pages; the slack that alignment needs is given back before the first page exists. Huge pages
 * cut the CPU cost of O_DIRECT transfers five times (docs/performance.md), so they are asked
 * for, and the answer is kept: a kernel whose transparent huge pages are set to "never" accepts
 * the advice and ignores it, hence the look at that setting.
 *
 * Every page is touched here. A budget that the machine cannot keep then fails at create, with
 * a message, instead of in the middle of a step. The pages stay out of core dumps, which would
 * be as large as the budget, and out of children, whose copy-on-write would break transfers in
 * flight.
 *
 * Thread: the owner of the struct.
 */

#include "offload/device/arena.h"

#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>

/* Linux 5.14; the number is part of the kernel's interface, older headers lack the name. */
#ifndef MADV_POPULATE_WRITE
#    define MADV_POPULATE_WRITE 23
#endif

static uint64_t round_up(uint64_t bytes, uint64_t unit)
{
    return (bytes + unit - 1) / unit * unit;
}

/* Has the administrator left transparent huge pages to whoever asks, or to all, and has nobody
 * denied them to this process? Then madvise still says yes. */
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
    uint64_t before = round_up((uintptr_t)start, STRATA_HUGE_PAGE_BYTES) - (uintptr_t)start;
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
    // A kernel before 5.14: a write to each page does the same, but answers a lack with a
    // signal.
    for (uint64_t offset = 0; offset < bytes; offset += STRATA_PAGE_BYTES)
        *(volatile uint8_t *)(base + offset) = 0;
    return 0;
}

strata_status strata_arena_create(struct arena *out, uint64_t bytes, const char *what,
                                  strata_error *error)
{
    *out = (struct arena){.huge = true};
    if (bytes == 0)
        return STRATA_OK;
    if (bytes > SIZE_MAX - 2 * (uint64_t)STRATA_HUGE_PAGE_BYTES)
        return strata_fail(error, STRATA_E_NOMEM, ENOMEM,
                           "arena for %s: %" PRIu64 " bytes are beyond the address space", what,
                           bytes);
    uint64_t mapped = round_up(bytes, STRATA_PAGE_BYTES);
    uint8_t *base = map_aligned(mapped);
    int cause = base == MAP_FAILED ? errno : 0;
    if (cause == 0) {
        out->huge = madvise(base, mapped, MADV_HUGEPAGE) == 0 && huge_pages_enabled();
        // Neither matters for what the arena holds, so a kernel without them is fine.
        (void)madvise(base, mapped, MADV_DONTDUMP);
        (void)madvise(base, mapped, MADV_DONTFORK);
        cause = populate(base, mapped);
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

void strata_arena_destroy(struct arena *arena)
{
    if (arena->base != NULL)
        STRATA_CHECK(munmap(arena->base, round_up(arena->bytes, STRATA_PAGE_BYTES)) == 0);
    *arena = (struct arena){0};
}
