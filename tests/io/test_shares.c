#define _GNU_SOURCE
/*
 * Drives get places by the speed that each writes at, and a resume finds them where they are.
 *
 * No real time is measured here. While a store is made, each thread has a clock of its own that
 * only its requests move, those of the slow drive several times as far. A drive is measured by
 * one thread, so the factor is exact however busy the machine is.
 */

#include "base/clock.h"
#include "base/error.h"
#include "strata/store.h"
#include "tests/io/commit_check.h"

#include <limits.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#define SLOWER      4u
#define REQUEST_NS  1000u
#define PROBE_BYTES 32768u

/* How often the file systems still say what is free; after that, that nothing is. */
static int answers = INT_MAX;

int __real_fstatvfs(int fd, struct statvfs *out);
int __wrap_fstatvfs(int fd, struct statvfs *out);

int __wrap_fstatvfs(int fd, struct statvfs *out)
{
    int rc = __real_fstatvfs(fd, out);
    if (answers-- <= 0)
        out->f_bavail = 0;
    return rc;
}

/* Where the threads' clocks stand still; 0: they show the real time. */
static _Atomic uint64_t still_ns;
static _Thread_local uint64_t worked_ns;

uint64_t __real_strata_now_ns(void);
uint64_t __wrap_strata_now_ns(void);

uint64_t __wrap_strata_now_ns(void)
{
    return still_ns > 0 ? still_ns + worked_ns : __real_strata_now_ns();
}

struct paced {
    struct io_backend base;
    struct io_backend *inner;
    bool slow;
};

static const struct io_ops paced_ops;

static uint64_t paced_bytes(uint32_t depth)
{
    return sizeof(struct paced) + strata_io_threads.bytes(depth);
}

static strata_status paced_open(struct io_backend **out, const struct io_backend_desc *desc,
                                strata_error *error)
{
    struct paced *paced = calloc(1, sizeof *paced);
    struct io_backend_desc inner = *desc;
    cr_assert(paced != NULL);
    paced->base.ops = &paced_ops;
    paced->slow = strstr(desc->files[0].path, "/b/") != NULL;
    inner.config = NULL;
    strata_status status = strata_io_threads.open(&paced->inner, &inner, error);
    *out = &paced->base;
    return status;
}

static void paced_close(struct io_backend *backend)
{
    struct paced *paced = (struct paced *)backend;
    paced->inner->ops->close(paced->inner);
    free(paced);
}

static uint32_t paced_start(struct io_backend *backend, const struct io_attempt *attempts,
                            uint32_t count)
{
    struct paced *paced = (struct paced *)backend;
    worked_ns += (paced->slow ? SLOWER : 1) * count * REQUEST_NS;
    return paced->inner->ops->start(paced->inner, attempts, count);
}

static int32_t paced_reap(struct io_backend *backend, struct io_result *out, uint32_t capacity,
                          uint64_t timeout_ns)
{
    struct paced *paced = (struct paced *)backend;
    return paced->inner->ops->reap(paced->inner, out, capacity, timeout_ns);
}

static void paced_wake(struct io_backend *backend)
{
    struct paced *paced = (struct paced *)backend;
    paced->inner->ops->wake(paced->inner);
}

static const struct io_ops paced_ops = {
    .name = "paced",
    .bytes = paced_bytes,
    .open = paced_open,
    .close = paced_close,
    .start = paced_start,
    .reap = paced_reap,
    .wake = paced_wake,
};

Test(shares, are_inverse_to_the_time_taken_and_equal_within_a_tenth)
{
    const uint64_t times_ns[] = {2150, 1000, 1090, 2000, 1120, 10000, 100000000};
    const uint32_t expected[] = {500, 1000, 1000, 500, 892, 100, 1};
    enum { COUNT = sizeof times_ns / sizeof *times_ns };
    uint32_t shares[COUNT];
    strata_store_share(times_ns, COUNT, shares);
    for (uint32_t i = 0; i < COUNT; i++)
        cr_expect(shares[i] == expected[i], "drive %u: %u", (unsigned)i, (unsigned)shares[i]);
}

Test(shares, records_and_scratch_places_are_spread_in_proportion)
{
    enum { RECORDS = 300, PLACES = 200, BLOCK = STRATA_IO_ALIGN_BYTES };
    static uint64_t record_bytes[RECORDS], place_bytes[PLACES];
    static struct place places[PLACES + 2 * RECORDS + 32];
    const uint32_t shares[] = {400, 1000, 600};
    const char *dirs[] = {"a", "b", "c"};
    struct store_records records = {
        .bytes = record_bytes, .count = RECORDS, .slots = 2, .durable = true};
    struct store_desc desc = {.dirs = dirs,
                              .dir_count = 3,
                              .place_bytes = place_bytes,
                              .place_count = PLACES,
                              .records = &records};
    struct drive_layout drives[3];
    double slots[3] = {0}, total = 0, all = 0;
    for (uint32_t i = 0; i < RECORDS; i++)
        record_bytes[i] = (1 + i % 5) * BLOCK;
    for (uint32_t i = 0; i < PLACES; i++)
        place_bytes[i] = (1 + i % 3) * BLOCK;
    strata_store_lay_out(&desc, shares, drives, places);
    for (uint32_t i = PLACES; i < PLACES + 2 * RECORDS; i++)
        slots[places[i].drive_index] += (double)places[i].bytes;
    for (uint32_t i = 0; i < 3; i++) {
        total += slots[i];
        all += (double)drives[i].file_bytes;
    }
    for (uint32_t i = 0; i < 3; i++) {
        cr_expect(fabs(slots[i] - total * shares[i] / 2000) <= 2 * 5 * BLOCK, "slots of %u",
                  (unsigned)i);
        cr_expect(fabs((double)drives[i].file_bytes - all * shares[i] / 2000) <= 5 * BLOCK,
                  "file %u", (unsigned)i);
    }
    cr_expect(all <= (double)strata_store_file_bytes(&desc));
}

static uint32_t records_on(const struct commit_rig *rig, uint32_t drive)
{
    return rig->store->drives[drive].layout.record_count;
}

/* The store was made with drive b slower; later nothing is, and yet all is where it was. */
Test(shares, a_slower_drive_gets_less_and_a_resume_finds_it_there)
{
    struct commit_rig rig;
    strata_scrub_result result;
    uint32_t shares[STRATA_STORE_MAX_DRIVES];
    strata_error error = {.status = STRATA_OK};
    strata_commit_rig_make(&rig, 2, STRATA_IO_THREADS, false);
    strata_commit_rig_keep(&rig, 2, 2);
    rig.desc.probe_bytes = PROBE_BYTES;
    rig.ops = &paced_ops;
    still_ns = __real_strata_now_ns();
    open_rig(&rig);
    still_ns = 0;
    memcpy(shares, rig.store->shares, sizeof shares);
    cr_expect(shares[0] == STRATA_STORE_FULL_SHARE);
    cr_expect(shares[1] > 0 && shares[1] < STRATA_STORE_FULL_SHARE / 2, "%u",
              (unsigned)shares[1]);
    cr_expect(records_on(&rig, 1) < records_on(&rig, 0));
    run_to(&rig, 5);
    rig.ops = NULL;
    reopen(&rig);
    cr_expect(memcmp(shares, rig.store->shares, sizeof shares) == 0);
    EXPECT_LIST(&rig, 5, 4, 2);
    expect_whole(&rig);
    run_to(&rig, 7);
    strata_commit_rig_close(&rig);
    strata_scrub_desc desc = {.dirs = rig.dirs, .dir_count = 2};
    cr_expect(strata_store_scrub(&result, &desc, &error) == STRATA_OK, "%s", error.message);
    cr_expect(result.step == 7 && result.bad == 0);
    strata_commit_rig_remove(&rig);
}

static void note_line(void *user, const char *line)
{
    if (strstr(line, "equal shares, not by speed: nvme: need") != NULL)
        ++*(int *)user;
}

Test(shares, too_little_space_for_unequal_ones_leaves_equal_ones_and_is_told)
{
    struct commit_rig rig;
    int told = 0;
    strata_commit_rig_make(&rig, 2, STRATA_IO_THREADS, false);
    rig.desc.probe_bytes = PROBE_BYTES;
    rig.desc.log = note_line;
    rig.desc.log_user = &told;
    rig.ops = &paced_ops;
    answers = 2; /* one for each directory, before anything is written */
    still_ns = __real_strata_now_ns();
    open_rig(&rig);
    still_ns = 0;
    cr_expect(answers < 0, "it was not asked again");
    answers = INT_MAX;
    cr_expect(told == 1);
    for (uint32_t i = 0; i < 2; i++)
        cr_expect(rig.store->shares[i] == STRATA_STORE_FULL_SHARE);
    run_to(&rig, 3);
    reopen(&rig);
    expect_whole(&rig);
    strata_commit_rig_remove(&rig);
}

Test(shares, a_store_too_small_to_tell_a_speed_has_equal_ones)
{
    struct commit_rig rig;
    strata_commit_rig_make(&rig, 3, STRATA_IO_THREADS, false);
    open_rig(&rig);
    for (uint32_t i = 0; i < 3; i++)
        cr_expect(rig.store->shares[i] == STRATA_STORE_FULL_SHARE);
    strata_commit_rig_remove(&rig);
}
