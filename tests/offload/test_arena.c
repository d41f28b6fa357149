#define _GNU_SOURCE

#include "offload/device/arena.h"

#include <criterion/criterion.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB ((uint64_t)1 << 20)

static struct arena make(uint64_t bytes)
{
    struct arena arena;
    strata_error error = {0};
    cr_assert_eq(strata_arena_create(&arena, bytes, "a test", &error), STRATA_OK, "%s",
                 error.message);
    return arena;
}

/* Is every page of the range in memory? */
static bool resident(const struct arena *arena)
{
    static unsigned char pages[1 << 16];
    size_t count = (arena->bytes + STRATA_PAGE_BYTES - 1) / STRATA_PAGE_BYTES;
    cr_assert_leq(count, sizeof pages);
    cr_assert_eq(mincore(arena->base, arena->bytes, pages), 0);
    for (size_t i = 0; i < count; i++)
        if ((pages[i] & 1) == 0)
            return false;
    return true;
}

/* Does the mapping that holds the address carry the flag in smaps? Two letters each. */
static bool has_flag(const void *address, const char *flag)
{
    char line[512];
    bool inside = false, found = false;
    FILE *file = fopen("/proc/self/smaps", "r");
    cr_assert_not_null(file);
    while (!found && fgets(line, sizeof line, file) != NULL) {
        uintptr_t first, end;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &first, &end) == 2)
            inside = (uintptr_t)address >= first && (uintptr_t)address < end;
        else if (inside && strncmp(line, "VmFlags:", 8) == 0)
            found = strstr(line, flag) != NULL;
    }
    fclose(file);
    return found;
}

Test(arena, starts_on_a_huge_page_boundary)
{
    struct arena arena = make(5 * MIB);
    cr_expect_eq((uintptr_t)arena.base % STRATA_HUGE_PAGE_BYTES, 0);
    cr_expect_eq(arena.bytes, 5 * MIB);
    strata_arena_destroy(&arena);
}

Test(arena, every_page_is_there_and_zero)
{
    struct arena arena = make(9 * MIB + 4096);
    cr_expect(resident(&arena));
    uint64_t set = 0;
    for (uint64_t i = 0; i < arena.bytes; i++)
        set += arena.base[i] != 0;
    cr_expect_eq(set, 0);
    strata_arena_destroy(&arena);
}

Test(arena, bytes_need_not_be_whole_pages)
{
    struct arena arena = make(4097);
    cr_expect_eq(arena.bytes, 4097);
    memset(arena.base, 1, arena.bytes);
    strata_arena_destroy(&arena);
    cr_expect_null(arena.base);
}

Test(arena, zero_bytes_are_an_empty_arena)
{
    struct arena arena = make(0);
    cr_expect_null(arena.base);
    cr_expect_eq(arena.bytes, 0);
    strata_arena_destroy(&arena);
}

Test(arena, stays_out_of_core_dumps_and_children)
{
    struct arena arena = make(2 * MIB);
    cr_expect(has_flag(arena.base, " dd"), "no DONTDUMP");
    cr_expect(has_flag(arena.base, " dc"), "no DONTFORK");
    strata_arena_destroy(&arena);
}

Test(arena, huge_says_what_the_kernel_is_set_to)
{
    char line[128] = "";
    FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
    bool possible = file != NULL && fgets(line, sizeof line, file) != NULL &&
                    strstr(line, "[never]") == NULL;
    if (file != NULL)
        fclose(file);
    struct arena arena = make(4 * MIB);
    cr_expect_eq(arena.huge, possible);
    strata_arena_destroy(&arena);
}

/* The advice is taken all the same: only the flag of the process tells. */
Test(arena, huge_is_false_where_this_process_is_denied_huge_pages)
{
    cr_assert_eq(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
    struct arena arena = make(4 * MIB);
    cr_expect(!arena.huge);
    strata_arena_destroy(&arena);
}

Test(arena, destroy_gives_the_range_back)
{
    struct arena arena = make(4 * MIB);
    unsigned char page;
    void *base = arena.base;
    strata_arena_destroy(&arena);
    cr_expect_eq(mincore(base, STRATA_PAGE_BYTES, &page), -1);
    cr_expect_eq(errno, ENOMEM);
}

static void note_done(void *user, const char *what, uint64_t done, uint64_t total)
{
    cr_expect_str_eq(what, "taking memory");
    cr_expect_leq(done, total);
    *(uint64_t *)user = done;
}

/* Some pieces of all workers, one that is short, and one page. */
Test(arena, workers_touch_every_page_of_any_length)
{
    const uint64_t lengths[] = {STRATA_PAGE_BYTES, 64 * MIB, 64 * MIB + 1, 200 * MIB};
    strata_workers *workers;
    strata_error error = {0};
    const strata_workers_desc two = {.thread_count = 2, .unbound = true};
    cr_assert_eq(strata_workers_create(&workers, &two, &error), STRATA_OK, "%s", error.message);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct arena arena;
        uint64_t done = 0;
        const struct progress_call progress = {note_done, &done};
        cr_assert_eq(
            strata_arena_create_by(&arena, lengths[i], "a test", workers, &progress, &error),
            STRATA_OK, "%s", error.message);
        cr_expect(resident(&arena), "%" PRIu64 " bytes", lengths[i]);
        strata_arena_destroy(&arena);
    }
    strata_workers_destroy(workers);
}

Test(arena, too_much_is_refused_with_the_bytes_and_what_for)
{
    struct arena arena;
    strata_error error = {0};
    cr_expect_eq(strata_arena_create(&arena, (uint64_t)1 << 52, "frames", &error),
                 STRATA_E_NOMEM);
    cr_expect_eq(error.status, STRATA_E_NOMEM);
    cr_expect_eq(error.native, ENOMEM);
    cr_expect_not_null(strstr(error.message, "frames"));
    cr_expect_not_null(strstr(error.message, "4503599627370496 bytes"));
    cr_expect_null(arena.base);
    cr_expect_eq(strata_arena_create(&arena, UINT64_MAX, "frames", NULL), STRATA_E_NOMEM);
}

Test(arena, create_and_destroy_leave_no_mapping_behind)
{
    struct rusage before, after;
    strata_arena_destroy(&(struct arena){0});
    for (int i = 0; i < 3; i++) {
        struct arena arena = make(8 * MIB);
        strata_arena_destroy(&arena);
    }
    getrusage(RUSAGE_SELF, &before);
    for (int i = 0; i < 40; i++) {
        struct arena arena = make(8 * MIB);
        strata_arena_destroy(&arena);
    }
    getrusage(RUSAGE_SELF, &after);
    cr_expect_leq(after.ru_maxrss - before.ru_maxrss, 4 * 1024);
}
