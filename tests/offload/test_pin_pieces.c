/*
 * Pinned pieces, with a driver that refuses what it is told to refuse. The addresses are never
 * touched.
 */

#include "offload/device/pin_pieces.h"

#include <criterion/criterion.h>

#define GIB        (UINT64_C(1) << 30)
#define PIECES_MAX 4096u

struct driver {
    uint64_t limit;      /* whatever reaches beyond it is refused */
    uint64_t large;      /* as are pieces that are larger than this */
    uint64_t large_from; /* and begin here or later */
    uint32_t count;
    uint64_t at[PIECES_MAX];
    uint64_t bytes[PIECES_MAX];
};

static int pin(void *user, void *base, uint64_t bytes)
{
    struct driver *driver = user;
    uint64_t at = (uintptr_t)base;
    if (at + bytes > driver->limit || (bytes > driver->large && at >= driver->large_from))
        return 2;
    cr_assert_lt(driver->count, PIECES_MAX);
    driver->at[driver->count] = at;
    driver->bytes[driver->count++] = bytes;
    return 0;
}

static void unpin(void *user, void *base)
{
    struct driver *driver = user;
    cr_assert_gt(driver->count, 0);
    uint32_t i = 0;
    while (i < driver->count && driver->at[i] != (uintptr_t)base)
        i++;
    cr_assert_lt(i, driver->count, "%p was not pinned", base);
    driver->at[i] = driver->at[--driver->count];
    driver->bytes[i] = driver->bytes[driver->count];
}

static struct pin_calls calls_of(struct driver *driver)
{
    return (struct pin_calls){pin, unpin, driver};
}

/* All of the range is pinned, piece after piece, none across a multiple of the smallest size
 * unless it is larger and begins at a multiple of its own; and unpinning leaves nothing. */
static void check(uint64_t base, uint64_t bytes, struct driver driver, uint64_t smallest,
                  uint32_t pieces)
{
    struct pin_calls calls = calls_of(&driver);
    struct pinned_range range;
    cr_assert_eq(strata_pin_pieces(&range, (void *)(uintptr_t)base, bytes, &calls), 0);
    cr_assert_eq(range.piece_bytes, smallest, "%llu", (unsigned long long)range.piece_bytes);
    cr_assert_eq(driver.count, pieces, "%u pieces", driver.count);
    uint64_t at = base;
    for (uint32_t i = 0; i < driver.count; i++) {
        cr_assert_eq(driver.at[i], at);
        cr_assert(i == 0 || at % range.piece_bytes == 0);
        at += driver.bytes[i];
    }
    cr_assert_eq(at, base + bytes);
    strata_unpin_pieces(&range, &calls);
    cr_assert_eq(driver.count, 0);
}

Test(pin_pieces, a_range_is_pinned_whole_where_nothing_is_refused)
{
    check(64 * GIB, 32 * GIB, (struct driver){.limit = UINT64_MAX, .large = UINT64_MAX},
          32 * GIB, 1);
    check(64 * GIB + 4096, 100 * GIB, (struct driver){.limit = UINT64_MAX, .large = UINT64_MAX},
          32 * GIB, 4);
}

Test(pin_pieces, a_refused_size_is_halved)
{
    check(64 * GIB, 64 * GIB, (struct driver){.limit = UINT64_MAX, .large = 8 * GIB}, 8 * GIB,
          8);
}

/* The first 64 GiB are two pieces; of the other 17, 8, 8 and 1 are taken. */
Test(pin_pieces, what_is_pinned_stays_when_a_later_piece_is_refused)
{
    struct driver driver = {.limit = UINT64_MAX, .large = 8 * GIB, .large_from = 128 * GIB};
    check(64 * GIB, 81 * GIB, driver, 8 * GIB, 2 + 3);
}

Test(pin_pieces, nothing_stays_pinned_where_the_smallest_piece_is_refused)
{
    struct driver driver = {.limit = 64 * GIB + 33 * GIB - 1, .large = UINT64_MAX};
    struct pin_calls calls = calls_of(&driver);
    struct pinned_range range;
    cr_assert_eq(strata_pin_pieces(&range, (void *)(uintptr_t)(64 * GIB), 33 * GIB, &calls), 2);
    cr_assert_eq(driver.count, 0);
}
