#define _GNU_SOURCE
/*
 * Commits on real files: what was committed is found again, and only by the run that may have
 * it. How commits fare when power is lost, or a drive lies, is test_crash.c.
 */

#include "base/clock.h"
#include "base/error.h"
#include "tests/support/commit_rig.h"
#include "tests/support/io_fault.h"
#include "tests/support/kernel.h"
#include "tests/support/store_rig.h"

#include <criterion/criterion.h>

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void open_rig(struct commit_rig *rig)
{
    strata_error error = {.status = STRATA_OK};
    cr_assert(strata_commit_rig_open(rig, &error) == STRATA_OK, "%s", error.message);
}

static void make_rig(struct commit_rig *rig, uint32_t drive_count, uint32_t keep)
{
    strata_commit_rig_make(rig, drive_count, STRATA_IO_URING, false);
    strata_commit_rig_keep(rig, keep, 2);
}

static void run_to(struct commit_rig *rig, uint64_t step)
{
    while (rig->step < step)
        cr_assert(strata_commit_rig_step(rig) == STRATA_OK, "%s",
                  strata_store_error(rig->store)->message);
}

static void reopen(struct commit_rig *rig)
{
    strata_commit_rig_close(rig);
    open_rig(rig);
}

/* A store that was run to this step and closed. */
static void leave_at(struct commit_rig *rig, uint32_t drive_count, uint32_t keep, uint64_t step)
{
    make_rig(rig, drive_count, keep);
    open_rig(rig);
    run_to(rig, step);
    strata_commit_rig_close(rig);
}

static void expect_whole(struct commit_rig *rig)
{
    bool same = false;
    cr_expect(strata_commit_rig_check(rig, &same) == STRATA_OK, "%s",
              strata_store_error(rig->store)->message);
    cr_expect(same);
}

static void expect_list(const struct commit_rig *rig, uint32_t count, const uint64_t *steps)
{
    cr_expect(rig->listed.count == count, "%d lines", (int)rig->listed.count);
    for (uint32_t i = 0; i < count && i < rig->listed.count; i++)
        cr_expect(rig->listed.steps[i] == steps[i], "line %d: step %d", (int)i,
                  (int)rig->listed.steps[i]);
}

#define EXPECT_LIST(rig, ...)                                                                  \
    expect_list((rig), sizeof((uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t),                   \
                (uint64_t[]){__VA_ARGS__})

static struct hash128 file_hash(const struct commit_rig *rig, uint32_t drive)
{
    char path[PATH_MAX + 32];
    struct stat info;
    int fd = open(strata_commit_rig_file(rig, drive, path), O_RDONLY | O_CLOEXEC);
    cr_assert(fd >= 0 && fstat(fd, &info) == 0);
    uint8_t *bytes = malloc((size_t)info.st_size);
    cr_assert(bytes != NULL && read(fd, bytes, (size_t)info.st_size) == info.st_size);
    struct hash128 hash = strata_hash(bytes, (size_t)info.st_size, 0);
    free(bytes);
    close(fd);
    return hash;
}

/* Open is refused with this status and text; no byte of any file is another, nothing is held.
 */
static void expect_refusal(struct commit_rig *rig, strata_status status, const char *text)
{
    struct hash128 before[COMMIT_DRIVES_MAX], after;
    char path[PATH_MAX + 32];
    strata_error error = {.status = STRATA_OK};
    int descriptors = strata_open_descriptors();
    for (uint32_t i = 0; i < COMMIT_DRIVES_MAX && rig->drives[i][0] != '\0'; i++)
        if (access(strata_commit_rig_file(rig, i, path), F_OK) == 0)
            before[i] = file_hash(rig, i);
    cr_expect(strata_commit_rig_open(rig, &error) == status, "%d: %s", (int)error.status,
              error.message);
    cr_expect(error.status == status && rig->store == NULL);
    cr_expect(strstr(error.message, text) != NULL, "'%s' instead of '%s'", error.message, text);
    cr_expect(strata_open_descriptors() == descriptors);
    for (uint32_t i = 0; i < COMMIT_DRIVES_MAX && rig->drives[i][0] != '\0'; i++) {
        if (access(strata_commit_rig_file(rig, i, path), F_OK) != 0)
            continue;
        after = file_hash(rig, i);
        cr_expect(after.low == before[i].low && after.high == before[i].high);
    }
}

/* Change bytes of a file behind the store's back. */
static void damage(const struct commit_rig *rig, uint32_t drive, uint64_t offset)
{
    char path[PATH_MAX + 32];
    uint8_t byte;
    int fd = open(strata_commit_rig_file(rig, drive, path), O_RDWR | O_CLOEXEC);
    cr_assert(fd >= 0 && pread(fd, &byte, 1, (off_t)offset) == 1);
    byte ^= 8;
    cr_assert(pwrite(fd, &byte, 1, (off_t)offset) == 1 && fsync(fd) == 0);
    close(fd);
}

Test(commit, what_was_committed_is_found_again)
{
    for (int backend = STRATA_IO_URING; backend <= STRATA_IO_THREADS; backend++) {
        for (uint32_t drives = 1; drives <= COMMIT_DRIVES_MAX; drives++) {
            struct commit_rig rig;
            strata_commit_rig_make(&rig, drives, (strata_io_backend)backend, false);
            open_rig(&rig);
            cr_expect(strata_store_recovery(rig.store)->line_count == 0);
            for (uint64_t step = 1; step <= 6; step++) {
                reopen(&rig);
                EXPECT_LIST(&rig, step - 1);
                expect_whole(&rig);
                run_to(&rig, step);
            }
            strata_commit_rig_remove(&rig);
        }
    }
}

/* The same bytes three times: only the seed tells one record, and one step, from another. */
Test(commit, a_hash_knows_the_record_and_its_step)
{
    struct commit_rig rig;
    struct hash128 hashes[3];
    const uint64_t steps[3] = {7, 7, 8};
    make_rig(&rig, 1, 0);
    open_rig(&rig);
    memset(rig.buffer, 9, COMMIT_LARGEST_BYTES);
    for (uint32_t i = 0; i < 3; i++) {
        /* Records 0 and 4 have the same length. */
        uint32_t place = strata_store_slot_place(rig.store, i == 1 ? 4 : 0, 1);
        cr_assert(strata_store_transfer(rig.store, true, place, steps[i], rig.buffer) ==
                  STRATA_OK);
        hashes[i] = rig.store->places[place].hash;
    }
    for (uint32_t i = 1; i < 3; i++)
        cr_expect(hashes[0].low != hashes[i].low && hashes[0].high != hashes[i].high);
    strata_commit_rig_remove(&rig);
}

Test(commit, records_that_are_not_committed_cost_nothing)
{
    struct commit_rig rig;
    make_rig(&rig, 2, 0);
    rig.commit_every = 3;
    open_rig(&rig);
    run_to(&rig, 8);
    reopen(&rig);
    EXPECT_LIST(&rig, 6);
    expect_whole(&rig);
    strata_commit_rig_remove(&rig);
}

Test(commit, without_flush_the_order_is_the_same_and_a_killed_process_loses_nothing)
{
    struct commit_rig rig;
    struct io_fault_count count = {0};
    struct io_fault_plan plan = {
        .inner = strata_io_ops_here(STRATA_IO_URING), .count = &count, .op = IO_SYNC};
    make_rig(&rig, 2, 1);
    rig.records.flush = false;
    rig.ops = &strata_io_fault;
    rig.ops_config = &plan;
    open_rig(&rig);
    uint64_t syncs = count.seen;
    run_to(&rig, 3);
    cr_expect(count.seen == syncs, "only creation flushes");
    reopen(&rig);
    EXPECT_LIST(&rig, 3, 2);
    expect_whole(&rig);
    strata_commit_rig_remove(&rig);
}

Test(commit, a_record_without_bytes_is_not_in_the_store)
{
    struct commit_rig rig;
    make_rig(&rig, 2, 0);
    rig.record_bytes[6] = 0;
    open_rig(&rig);
    run_to(&rig, 3);
    reopen(&rig);
    EXPECT_LIST(&rig, 3);
    expect_whole(&rig);
    cr_expect(strata_store_recovery(rig.store)->lines[0].slots[6] == 0);
    strata_commit_rig_remove(&rig);
}

/* Slots are a record's, not a tile's on a drive: a table is longer than a block. */
Test(commit, tables_of_many_records_are_found_again)
{
    enum { COUNT = 500 };
    struct commit_rig rig;
    static uint64_t bytes[COUNT];
    static uint8_t slots[COUNT];
    strata_error error = {.status = STRATA_OK};
    struct store_line line = {.step = 9, .slots = slots};
    make_rig(&rig, 2, 0);
    for (uint32_t i = 0; i < COUNT; i++) {
        bytes[i] = STRATA_IO_ALIGN_BYTES;
        slots[i] = i * 7 % 3 == 0;
    }
    rig.records.bytes = bytes;
    rig.records.count = COUNT;
    cr_assert(strata_store_open(&rig.store, &rig.desc, &error) == STRATA_OK);
    cr_assert(rig.store->drives[0].layout.table_bytes > STRATA_STORE_BLOCK_BYTES);
    for (uint32_t i = 0; i < COUNT; i++) {
        memset(rig.buffer, (int)(i % 251), STRATA_IO_ALIGN_BYTES);
        cr_assert(strata_store_transfer(rig.store, true,
                                        strata_store_slot_place(rig.store, i, slots[i]), 9,
                                        rig.buffer) == STRATA_OK);
    }
    cr_assert(strata_store_commit(rig.store, &line, 1, 9, 1.0) == STRATA_OK);
    strata_store_close(rig.store);
    cr_assert(strata_store_open(&rig.store, &rig.desc, &error) == STRATA_OK);
    const struct store_recovery *found = strata_store_recovery(rig.store);
    cr_assert(found->line_count == 1 && found->lines[0].step == 9 && found->updates == 9);
    cr_expect(memcmp(found->lines[0].slots, slots, COUNT) == 0);
    for (uint32_t i = 0; i < COUNT; i += 37) {
        cr_expect(strata_store_transfer(rig.store, false,
                                        strata_store_slot_place(rig.store, i, slots[i]), 9,
                                        rig.buffer) == STRATA_OK);
        cr_expect(rig.buffer[17] == i % 251);
    }
    strata_commit_rig_remove(&rig);
}

Test(commit, retained_commits_stay_whole)
{
    struct commit_rig rig;
    make_rig(&rig, 2, 2);
    open_rig(&rig);
    run_to(&rig, 7);
    EXPECT_LIST(&rig, 7, 6, 4);
    for (uint64_t step = 8; step <= 12; step++) {
        reopen(&rig);
        expect_whole(&rig);
        run_to(&rig, step);
    }
    EXPECT_LIST(&rig, 12, 10, 8);
    reopen(&rig);
    EXPECT_LIST(&rig, 12, 10, 8);
    expect_whole(&rig);
    strata_commit_rig_remove(&rig);
}

Test(commit, a_retained_commit_can_be_gone_on_from)
{
    struct commit_rig rig;
    leave_at(&rig, 2, 2, 7);
    rig.records.resume_step = 6;
    open_rig(&rig);
    EXPECT_LIST(&rig, 6, 4);
    expect_whole(&rig);
    run_to(&rig, 9);
    EXPECT_LIST(&rig, 9, 8, 6);
    rig.records.resume_step = UINT64_MAX;
    reopen(&rig);
    EXPECT_LIST(&rig, 9, 8, 6);
    expect_whole(&rig);
    strata_commit_rig_remove(&rig);
}

/* Its slots are written from now on, so nobody may find it any more. */
Test(commit, a_commit_that_was_gone_back_behind_is_given_up_at_once)
{
    struct commit_rig rig;
    leave_at(&rig, 2, 2, 7);
    rig.commit_every = 100;
    rig.records.resume_step = 4;
    open_rig(&rig);
    EXPECT_LIST(&rig, 4);
    run_to(&rig, 6); /* records without a commit, into what were the slots of 6 and 7 */
    rig.records.resume_step = UINT64_MAX;
    reopen(&rig);
    EXPECT_LIST(&rig, 4);
    expect_whole(&rig);
    strata_commit_rig_remove(&rig);
}

Test(commit, a_step_that_is_not_listed_is_refused_with_those_that_are)
{
    struct commit_rig rig;
    leave_at(&rig, 1, 2, 7);
    rig.records.resume_step = 5;
    expect_refusal(&rig, STRATA_E_INVALID, "holds no commit of step 5; it has 7, 6, 4");
    strata_commit_rig_remove(&rig);
}

Test(commit, a_run_is_never_overwritten)
{
    struct commit_rig rig;
    char text[PATH_MAX + 128];
    leave_at(&rig, 2, 0, 3);
    rig.records.resume = false;
    snprintf(text, sizeof text,
             "store %s holds a run at step 3: --resume goes on from it, or give another "
             "directory",
             rig.drives[0]);
    expect_refusal(&rig, STRATA_E_STATE, text);
    rig.records.durable = false; /* not for scratch either */
    rig.records.slots = 1;
    expect_refusal(&rig, STRATA_E_STATE, text);
    rig.records.durable = true;
    rig.records.slots = 2;
    rig.records.resume = true;
    open_rig(&rig);
    EXPECT_LIST(&rig, 3);
    expect_whole(&rig);
    strata_commit_rig_remove(&rig);
}

Test(commit, a_run_of_another_identity_is_refused_by_its_first_difference)
{
    const struct {
        const char *identity;
        const char *text;
    } cases[] = {
        {"model=tiny\nseed=2\n", "has seed 1, this one 2"},
        {"model=large\nseed=2\n", "has model tiny, this one large"},
        {"model=tiny\n", "has seed 1, this one "},
        {"model=tiny\nseed=1\nclip=0.5\n", "has clip , this one 0.5"},
        {"model=tiny\nseed=11\n", "has seed 1, this one 11"},
        {"", "has model tiny, this one "},
    };
    struct commit_rig rig;
    leave_at(&rig, 1, 0, 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rig.records.identity = cases[i].identity;
        expect_refusal(&rig, STRATA_E_INVALID, cases[i].text);
    }
    strata_commit_rig_remove(&rig);
}

Test(commit, an_identity_may_be_as_long_as_a_header_has_room)
{
    struct commit_rig rig;
    char identity[STRATA_IDENTITY_BYTES + 2];
    memset(identity, 'x', sizeof identity);
    identity[STRATA_IDENTITY_BYTES + 1] = '\0';
    make_rig(&rig, 1, 0);
    rig.records.identity = identity;
    expect_refusal(&rig, STRATA_E_INVALID, "identity has 2049 bytes, a store holds 2048");
    identity[STRATA_IDENTITY_BYTES] = '\0';
    open_rig(&rig);
    reopen(&rig);
    EXPECT_LIST(&rig, 0);
    identity[STRATA_IDENTITY_BYTES - 1] = 'y';
    strata_commit_rig_close(&rig);
    expect_refusal(&rig, STRATA_E_INVALID, "has xxxx");
    strata_commit_rig_remove(&rig);
}

Test(commit, records_of_another_layout_are_refused_by_name)
{
    struct commit_rig rig;
    leave_at(&rig, 2, 1, 2);
    rig.desc.tile_elems = 32768;
    expect_refusal(&rig, STRATA_E_INVALID, "16384 elements per tile, this run 32768");
    rig.desc.tile_elems = 16384;
    rig.records.record_type = 2;
    expect_refusal(&rig, STRATA_E_INVALID, "1 as record type, this run 2");
    rig.records.record_type = 1;
    rig.records.count = 7;
    expect_refusal(&rig, STRATA_E_INVALID, "8 records, this run 7");
    rig.records.count = 8;
    strata_commit_rig_keep(&rig, 2, 2);
    expect_refusal(&rig, STRATA_E_INVALID, "3 slots per record, this run 4");
    strata_commit_rig_keep(&rig, 1, 2);
    rig.record_bytes[3] += STRATA_IO_ALIGN_BYTES;
    expect_refusal(&rig, STRATA_E_INVALID, "records of other lengths");
    rig.record_bytes[3] -= STRATA_IO_ALIGN_BYTES;
    open_rig(&rig);
    EXPECT_LIST(&rig, 2, 0);
    strata_commit_rig_remove(&rig);
}

Test(commit, drives_in_another_order_are_refused)
{
    struct commit_rig rig;
    leave_at(&rig, 2, 0, 1);
    rig.dirs[0] = rig.drives[1];
    rig.dirs[1] = rig.drives[0];
    expect_refusal(&rig, STRATA_E_INVALID, "is drive 2 of 2, not 1: name the directories in");
    strata_commit_rig_remove(&rig);
}

Test(commit, a_drive_that_is_not_named_or_has_lost_its_file_is_missed)
{
    struct commit_rig rig;
    char path[PATH_MAX + 32], moved[PATH_MAX + 32];
    leave_at(&rig, 3, 0, 1);
    rig.desc.dir_count = 2;
    expect_refusal(&rig, STRATA_E_INVALID, "has 3 drives, 2 directories are named");
    rig.dirs[0] = rig.drives[1];
    rig.desc.dir_count = 1;
    for (int resume = 0; resume <= 1; resume++) {
        rig.records.resume = resume == 1;
        expect_refusal(&rig, STRATA_E_INVALID, "holds drive 2 of 3 of a store whose first");
    }
    rig.dirs[0] = rig.drives[0];
    rig.desc.dir_count = 3;
    snprintf(moved, sizeof moved, "%s/moved", rig.drives[1]);
    cr_assert(rename(strata_commit_rig_file(&rig, 1, path), moved) == 0);
    expect_refusal(&rig, STRATA_E_INVALID, "drive 2 of 3 of the store in");
    cr_assert(rename(moved, path) == 0);
    open_rig(&rig);
    expect_whole(&rig);
    strata_commit_rig_remove(&rig);
}

Test(commit, a_drive_of_another_store_is_refused)
{
    struct commit_rig rig, other;
    char path[PATH_MAX + 32], other_path[PATH_MAX + 32];
    leave_at(&rig, 2, 0, 1);
    leave_at(&other, 2, 0, 1);
    rig.dirs[1] = other.drives[0]; /* a first drive, of a run of its own */
    expect_refusal(&rig, STRATA_E_INVALID, "holds a drive of another store than");
    rig.dirs[1] = other.drives[1]; /* its first is not here: it may be precious */
    expect_refusal(&rig, STRATA_E_INVALID, "whose first drive is not named");
    rig.dirs[1] = rig.drives[1];
    cr_assert(rename(strata_commit_rig_file(&other, 1, other_path),
                     strata_commit_rig_file(&rig, 1, path)) == 0);
    expect_refusal(&rig, STRATA_E_INVALID, "whose first drive is not named");
    strata_commit_rig_remove(&rig);
    strata_commit_rig_remove(&other);
}

Test(commit, scratch_places_may_change_from_run_to_run)
{
    const uint64_t bytes[][2] = {{12288, 12288}, {262144, 4096}, {4096, 4096}, {65536, 65536}};
    struct commit_rig rig;
    leave_at(&rig, 2, 1, 3);
    for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++) {
        uint64_t sum = 0;
        memcpy(rig.scratch_bytes, bytes[i], sizeof rig.scratch_bytes);
        rig.desc.place_count = i == 2 ? 0 : 2;
        rig.desc.limit_bytes = strata_store_file_bytes(&rig.desc);
        open_rig(&rig);
        for (uint32_t drive = 0; drive < 2; drive++) {
            char path[PATH_MAX + 32];
            struct stat info;
            cr_assert(stat(strata_commit_rig_file(&rig, drive, path), &info) == 0);
            cr_expect(info.st_blocks * 512 >= info.st_size && (info.st_mode & 07777) == 0600);
            sum += (uint64_t)info.st_size;
        }
        cr_expect(sum == rig.desc.limit_bytes);
        expect_whole(&rig);
        uint8_t *scratch = aligned_alloc(STRATA_IO_ALIGN_BYTES, bytes[i][0]);
        cr_assert(scratch != NULL);
        memset(scratch, (int)i, bytes[i][0]);
        for (int write = 1; write >= 0 && rig.desc.place_count > 0; write--)
            cr_expect(strata_store_transfer(rig.store, write, 0, 0, scratch) == STRATA_OK);
        free(scratch);
        run_to(&rig, rig.step + 1);
        reopen(&rig);
        expect_whole(&rig);
        strata_commit_rig_close(&rig);
    }
    strata_commit_rig_remove(&rig);
}

Test(commit, a_store_without_a_commit_is_nobodys)
{
    struct commit_rig rig;
    char path[PATH_MAX + 32];
    make_rig(&rig, 2, 0);
    for (int round = 0; round < 3; round++) {
        cr_assert(strata_store_open(&rig.store, &rig.desc, NULL) == STRATA_OK);
        cr_expect(strata_store_recovery(rig.store)->line_count == 0);
        strata_commit_rig_close(&rig);
        cr_expect(access(strata_commit_rig_file(&rig, 0, path), F_OK) == 0);
        rig.records.resume = round == 0;
    }
    /* Killed between the first drive's name and the second's. */
    cr_assert(unlink(strata_commit_rig_file(&rig, 1, path)) == 0);
    rig.records.resume = true;
    open_rig(&rig);
    run_to(&rig, 1);
    reopen(&rig);
    expect_whole(&rig);
    strata_commit_rig_remove(&rig);
}

/* In requests: a table per drive, a flush per drive, a commit record, a flush of its file. */
Test(commit, a_commit_costs_a_flush_per_file_a_table_and_a_block)
{
    for (uint32_t drives = 1; drives <= COMMIT_DRIVES_MAX; drives++) {
        struct commit_rig rig;
        struct io_fault_count counts[2] = {{0}, {0}};
        struct io_fault_plan writes = {
            .inner = strata_io_ops_here(STRATA_IO_URING), .count = &counts[0], .op = IO_WRITE};
        struct io_fault_plan syncs = {
            .inner = writes.inner, .count = &counts[1], .op = IO_SYNC};
        const struct io_fault_plan *plans[2] = {&writes, &syncs};
        uint64_t before[2], records = 0, written[2], read;
        for (uint32_t i = 0; i < 2; i++) {
            make_rig(&rig, drives, 0);
            rig.ops = &strata_io_fault;
            rig.ops_config = plans[i];
            open_rig(&rig);
            before[i] = counts[i].seen;
            strata_store_counters(rig.store, &read, &written[0]);
            run_to(&rig, 1);
            strata_store_counters(rig.store, &read, &written[1]);
            cr_expect(rig.store->drives[0].layout.table_bytes == STRATA_STORE_BLOCK_BYTES);
            strata_commit_rig_remove(&rig);
        }
        for (uint32_t i = 0; i < COMMIT_RECORDS; i++)
            records +=
                (rig.record_bytes[i] + rig.desc.request_bytes - 1) / rig.desc.request_bytes;
        cr_expect(counts[0].seen - before[0] == records + drives + 1);
        cr_expect(counts[1].seen - before[1] == drives + 1);
        cr_expect(written[1] - written[0] == 20 * STRATA_IO_ALIGN_BYTES, "records alone");
    }
}

/* The last commit stands, whichever of its flushes failed. */
Test(commit, a_failed_flush_is_not_repeated_and_the_last_commit_stands)
{
    for (uint64_t nth = 1; nth <= 3; nth++) {
        struct commit_rig rig;
        struct io_fault_count count = {0};
        struct io_fault_plan plan = {
            .inner = strata_io_ops_here(STRATA_IO_URING),
            .count = &count,
            .fault = IO_FAULT_ERRNO,
            .native = EIO,
            .op = IO_SYNC,
            .times = 1,
        };
        leave_at(&rig, 2, 0, 2);
        rig.ops = &strata_io_fault;
        rig.ops_config = &plan;
        open_rig(&rig);
        plan.nth = count.seen + nth;
        cr_expect(strata_commit_rig_step(&rig) == STRATA_E_IO);
        cr_expect(strstr(strata_store_error(rig.store)->message, "sync of ") != NULL);
        cr_expect(strata_store_error(rig.store)->native == EIO);
        uint64_t seen = count.seen;
        cr_expect(seen <= plan.nth + 1, "at most the other drive's flush came after it");
        struct store_line line = {.step = 4, .slots = rig.slots.lines[0].slots};
        cr_expect(strata_store_commit(rig.store, &line, 1, 4, 1.0) == STRATA_E_IO);
        cr_expect(count.seen == seen);
        plan.nth = 0;
        reopen(&rig);
        /* A record that was not flushed may be there all the same. */
        cr_expect(rig.step == 2 || (nth == 3 && rig.step == 3));
        expect_whole(&rig);
        strata_commit_rig_remove(&rig);
    }
}

/* A life: create, two commits, close, go on, one more. */
static strata_status live(struct commit_rig *rig, strata_error *error)
{
    strata_status status = STRATA_OK;
    for (uint64_t last = 2; last <= 3 && status == STRATA_OK; last++) {
        status = strata_commit_rig_open(rig, error);
        while (status == STRATA_OK && rig->step < last) {
            status = strata_commit_rig_step(rig);
            if (status != STRATA_OK)
                *error = *strata_store_error(rig->store);
        }
        strata_commit_rig_close(rig);
    }
    return status;
}

/* One request of a life fails. What is left is a commit, before or after, or nothing. */
static bool fail_once(const struct io_fault_plan *plan, strata_status expected)
{
    struct commit_rig rig;
    strata_error error = {.status = STRATA_OK};
    atomic_store(&plan->count->seen, 0);
    atomic_store(&plan->count->fired, 0);
    strata_commit_rig_make(&rig, 2, STRATA_IO_URING, true);
    strata_commit_rig_keep(&rig, 1, 2);
    int descriptors = strata_open_descriptors();
    rig.ops = &strata_io_fault;
    rig.ops_config = plan;
    strata_status status = live(&rig, &error);
    bool fired = plan->count->fired > 0;
    cr_expect(status == (fired ? expected : STRATA_OK), "request %d: %d: %s", (int)plan->nth,
              (int)status, error.message);
    cr_expect((status == STRATA_OK) == (error.message[0] == '\0'));
    cr_expect(strata_open_descriptors() == descriptors);
    uint64_t before = rig.listed.steps[0], after = rig.pending.steps[0];
    bool none = rig.listed.count == 0;
    rig.ops = NULL;
    rig.ops_config = NULL;
    open_rig(&rig);
    cr_expect(rig.step == before || rig.step == after || (none && rig.step == 0));
    expect_whole(&rig);
    strata_commit_rig_remove(&rig);
    return fired;
}

static void fail_each(enum io_fault_kind fault, int native, uint64_t times,
                      strata_status expected)
{
    struct io_fault_count count = {0};
    struct io_fault_plan plan = {
        .inner = strata_io_ops_here(STRATA_IO_URING),
        .count = &count,
        .fault = fault,
        .native = native,
        .op = fault == IO_FAULT_ZERO ? IO_WRITE : 0,
        .times = times,
        .delay_ns = 1000000,
    };
    for (plan.nth = 1; fail_once(&plan, expected); plan.nth++)
        cr_assert(plan.nth < 1000);
    cr_expect(plan.nth > 60, "%d requests", (int)plan.nth);
}

Test(commit, each_request_of_a_life_may_fail_and_the_last_commit_stands, .timeout = 120)
{
    fail_each(IO_FAULT_ERRNO, EIO, 1, STRATA_E_IO);
    fail_each(IO_FAULT_ERRNO, ENOSPC, UINT64_MAX, STRATA_E_IO);
    fail_each(IO_FAULT_ZERO, 0, 1, STRATA_E_IO);
}

Test(commit, each_request_of_a_life_may_be_short_late_or_answered_twice, .timeout = 120)
{
    fail_each(IO_FAULT_SHORT, 0, 1, STRATA_OK);
    fail_each(IO_FAULT_LATE, 0, 1, STRATA_OK);
    fail_each(IO_FAULT_TWICE, 0, 1, STRATA_OK);
}

/* Offsets from the beginning of a block that are tried: its ends, and all over. */
static uint64_t next_offset(uint64_t at)
{
    return at < 128 || at >= STRATA_STORE_BLOCK_BYTES - 20 ? at + 1 : at + 101;
}

Test(commit, a_damaged_commit_record_is_not_used)
{
    struct commit_rig rig;
    leave_at(&rig, 2, 0, 6); /* generation 7, in the third of the four */
    uint64_t record = (1 + 2) * STRATA_STORE_BLOCK_BYTES;
    for (uint64_t at = 0; at < STRATA_STORE_BLOCK_BYTES; at = next_offset(at)) {
        damage(&rig, 0, record + at);
        open_rig(&rig);
        cr_expect(rig.step == 5, "byte %d: step %d", (int)at, (int)rig.step);
        expect_whole(&rig);
        strata_commit_rig_close(&rig);
        damage(&rig, 0, record + at);
    }
    open_rig(&rig);
    EXPECT_LIST(&rig, 6);
    strata_commit_rig_remove(&rig);
}

static void keep_line(void *user, const char *line)
{
    snprintf(user, 512, "%s", line);
}

Test(commit, a_damaged_tile_table_is_not_used_and_the_log_says_so)
{
    struct commit_rig rig;
    char line[512];
    leave_at(&rig, 2, 0, 6);
    open_rig(&rig);
    uint64_t table =
        rig.store
            ->places[strata_store_table_place(rig.store, 1, rig.store->lines[0].table_copy)]
            .offset;
    strata_commit_rig_close(&rig);
    rig.desc.log = keep_line;
    rig.desc.log_user = line;
    for (uint64_t at = 0; at < STRATA_STORE_BLOCK_BYTES; at = next_offset(at)) {
        line[0] = '\0';
        damage(&rig, 1, table + at);
        open_rig(&rig);
        cr_expect(rig.step == 5, "byte %d: step %d", (int)at, (int)rig.step);
        cr_expect(strstr(line, "step 5 is the last that is whole") != NULL, "%s", line);
        cr_expect(strstr(line, "the tile table of step 6") != NULL, "%s", line);
        expect_whole(&rig);
        strata_commit_rig_close(&rig);
        damage(&rig, 1, table + at);
    }
    /* It goes on from there, past the generation of the one that is damaged. */
    damage(&rig, 1, table);
    open_rig(&rig);
    run_to(&rig, 9);
    reopen(&rig);
    EXPECT_LIST(&rig, 9);
    expect_whole(&rig);
    strata_commit_rig_remove(&rig);
}

/* A table that is whole, of the right step and generation, but of another attempt at it. */
Test(commit, tables_count_only_together)
{
    struct commit_rig rig;
    char path[PATH_MAX + 32];
    leave_at(&rig, 2, 0, 6);
    open_rig(&rig);
    const struct place *place =
        &rig.store
             ->places[strata_store_table_place(rig.store, 1, rig.store->lines[0].table_copy)];
    uint64_t offset = place->offset;
    strata_commit_rig_close(&rig);
    int fd = open(strata_commit_rig_file(&rig, 1, path), O_RDWR | O_CLOEXEC);
    cr_assert(fd >= 0);
    struct table_head *table = (struct table_head *)rig.buffer;
    struct table_entry *entry = (struct table_entry *)(table + 1);
    cr_assert(pread(fd, table, STRATA_STORE_BLOCK_BYTES, (off_t)offset) ==
              STRATA_STORE_BLOCK_BYTES);
    entry->hash[3] ^= 1;
    strata_store_table_finish(table, STRATA_STORE_BLOCK_BYTES);
    cr_assert(pwrite(fd, table, STRATA_STORE_BLOCK_BYTES, (off_t)offset) ==
                  STRATA_STORE_BLOCK_BYTES &&
              fsync(fd) == 0);
    close(fd);
    open_rig(&rig);
    EXPECT_LIST(&rig, 5);
    expect_whole(&rig);
    strata_commit_rig_remove(&rig);
}

/* Three records newer than the one gone on with, all without tables: none of them is in its
 * way, and it stays until the next commit is durable. */
Test(commit, the_record_gone_on_with_is_not_the_next_to_be_written)
{
    struct commit_rig rig;
    make_rig(&rig, 1, 1);
    rig.keep_every = 3;
    open_rig(&rig);
    run_to(&rig, 6); /* generations 4 to 7 are on the drive, 4 for step 3, which is retained */
    EXPECT_LIST(&rig, 6, 3);
    uint32_t kept = rig.store->lines[1].table_copy;
    uint64_t tables[3];
    for (uint32_t copy = 0; copy < 3; copy++)
        tables[copy] = rig.store->places[strata_store_table_place(rig.store, 0, copy)].offset;
    strata_commit_rig_close(&rig);
    for (uint32_t copy = 0; copy < 3; copy++)
        if (copy != kept)
            damage(&rig, 0, tables[copy] + 80);
    open_rig(&rig);
    EXPECT_LIST(&rig, 3);
    run_to(&rig, 4);
    bool stays = false;
    for (uint32_t i = 0; i < STRATA_STORE_RECORD_COUNT; i++)
        stays = stays || rig.store->record_generation[i] == 4;
    cr_expect(stays && rig.store->generation == 8);
    strata_commit_rig_remove(&rig);
}

/* Somebody may still save it by hand: it is refused, not made anew. */
Test(commit, a_run_without_a_good_table_is_refused_not_made_anew)
{
    struct commit_rig rig;
    leave_at(&rig, 2, 0, 3);
    open_rig(&rig);
    uint64_t tables[2];
    for (uint32_t copy = 0; copy < 2; copy++)
        tables[copy] = rig.store->places[strata_store_table_place(rig.store, 0, copy)].offset;
    strata_commit_rig_close(&rig);
    damage(&rig, 0, tables[0] + 70);
    damage(&rig, 0, tables[1] + 70);
    expect_refusal(&rig, STRATA_E_CORRUPT, "the tile table of step 3, 4096 bytes at ");
    rig.records.resume = false;
    expect_refusal(&rig, STRATA_E_STATE, "holds a run at step 3");
    strata_commit_rig_remove(&rig);
}

Test(commit, a_retained_commit_with_a_damaged_table_is_given_up_and_the_log_says_so)
{
    struct commit_rig rig;
    char line[512] = "";
    leave_at(&rig, 2, 1, 5);
    open_rig(&rig);
    EXPECT_LIST(&rig, 5, 4);
    uint64_t table =
        rig.store
            ->places[strata_store_table_place(rig.store, 0, rig.store->lines[1].table_copy)]
            .offset;
    strata_commit_rig_close(&rig);
    damage(&rig, 0, table + 64);
    rig.desc.log = keep_line;
    rig.desc.log_user = line;
    open_rig(&rig);
    EXPECT_LIST(&rig, 5);
    cr_expect(strstr(line, "a retained commit is given up") != NULL, "%s", line);
    expect_whole(&rig);
    run_to(&rig, 8);
    reopen(&rig);
    EXPECT_LIST(&rig, 8, 6);
    expect_whole(&rig);
    strata_commit_rig_close(&rig);
    rig.records.resume_step = 4;
    expect_refusal(&rig, STRATA_E_INVALID, "it has 8, 6");
    strata_commit_rig_remove(&rig);
}

Test(commit, a_file_that_was_cut_is_refused)
{
    struct commit_rig rig;
    char path[PATH_MAX + 32];
    leave_at(&rig, 2, 0, 2);
    cr_assert(truncate(strata_commit_rig_file(&rig, 1, path), 16384) == 0);
    expect_refusal(&rig, STRATA_E_CORRUPT, "has 16384 bytes, its header says");
    strata_commit_rig_remove(&rig);
}

Test(commit, a_durable_store_in_use_is_refused_and_goes_on)
{
    struct commit_rig rig, second;
    strata_error error = {.status = STRATA_OK};
    make_rig(&rig, 2, 0);
    open_rig(&rig);
    second = rig;
    uint64_t begin_ns = strata_now_ns();
    cr_expect(strata_commit_rig_open(&second, &error) == STRATA_E_STATE);
    cr_expect(strata_now_ns() - begin_ns < 6000000000u,
              "an owner that lives is not waited for");
    cr_expect(strstr(error.message, "is in use by another process") != NULL);
    run_to(&rig, 2);
    reopen(&rig);
    expect_whole(&rig);
    strata_commit_rig_remove(&rig);
}

/* The directory is free, so its owner is gone; the file is not, so its writes are not. */
Test(commit, an_opener_waits_for_the_writes_of_a_dead_owner, .timeout = 30)
{
    struct commit_rig rig;
    char path[PATH_MAX + 32];
    leave_at(&rig, 1, 0, 2);
    pid_t child = fork();
    cr_assert(child >= 0);
    if (child == 0) {
        int fd = open(strata_commit_rig_file(&rig, 0, path), O_RDWR | O_CLOEXEC);
        if (fd < 0 || flock(fd, LOCK_EX) != 0)
            _exit(1);
        usleep(3500000);
        _exit(0);
    }
    usleep(500000);
    uint64_t begin_ns = strata_now_ns();
    open_rig(&rig);
    cr_expect(strata_now_ns() - begin_ns > 2500000000u);
    EXPECT_LIST(&rig, 2);
    int status;
    cr_assert(waitpid(child, &status, 0) == child && status == 0);
    strata_commit_rig_remove(&rig);
}

/* A run that tells, byte by byte, what it has been told is durable. */
static void run_until_killed(struct commit_rig *rig, int told)
{
    strata_error error;
    if (strata_commit_rig_open(rig, &error) != STRATA_OK)
        _exit(2);
    while (strata_commit_rig_step(rig) == STRATA_OK) {
        uint8_t step = (uint8_t)rig->step;
        if (write(told, &step, 1) != 1)
            break;
    }
    _exit(1);
}

Test(commit, a_killed_run_loses_no_committed_step, .timeout = 120)
{
    struct commit_rig rig;
    uint8_t last = 0;
    make_rig(&rig, 2, 1);
    for (int round = 0; round < 12; round++) {
        int told[2];
        cr_assert(pipe(told) == 0);
        pid_t child = fork();
        cr_assert(child >= 0);
        if (child == 0)
            run_until_killed(&rig, told[1]);
        close(told[1]);
        usleep((useconds_t)(round * 4001 % 50000));
        cr_assert(kill(child, SIGKILL) == 0);
        open_rig(&rig); /* at once: its writes may still be on their way */
        uint8_t step;
        while (read(told[0], &step, 1) == 1)
            last = step;
        cr_expect(rig.step == last || rig.step == last + 1u, "step %d, told %d", (int)rig.step,
                  (int)last);
        last = (uint8_t)rig.step;
        expect_whole(&rig);
        strata_commit_rig_close(&rig);
        cr_assert(waitpid(child, NULL, 0) == child);
        close(told[0]);
    }
    cr_expect(last > 5, "it hardly ran: step %d", (int)last);
    strata_commit_rig_remove(&rig);
}

/* Scratch that does not fit is refused before the run is touched; with less it goes on. */
Test(commit, a_full_disk_leaves_the_run_as_it_is)
{
    struct commit_rig rig;
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        cr_skip_test("mounting needs root: %s", strerror(errno));
    make_rig(&rig, 1, 0);
    cr_assert(mount("none", rig.drives[0], "tmpfs", 0, "size=512k") == 0);
    open_rig(&rig);
    run_to(&rig, 3);
    strata_commit_rig_close(&rig);
    rig.scratch_bytes[0] = 1u << 20;
    expect_refusal(&rig, STRATA_E_NOMEM, "nvme: need ");
    rig.scratch_bytes[0] = 131072;
    open_rig(&rig);
    EXPECT_LIST(&rig, 3);
    expect_whole(&rig);
    strata_commit_rig_close(&rig);
    cr_expect(umount2(rig.drives[0], MNT_DETACH) == 0);
    strata_commit_rig_remove(&rig);
}

/* The call ends in a failed check; a child makes it, so that the store can be removed after. */
static bool aborts(struct commit_rig *rig, void (*call)(struct commit_rig *rig))
{
    int status;
    pid_t child = fork();
    cr_assert(child >= 0);
    if (child == 0) {
        fclose(stderr);
        call(rig);
        _exit(0);
    }
    cr_assert(waitpid(child, &status, 0) == child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void read_a_slot_never_written(struct commit_rig *rig)
{
    (void)strata_store_transfer(rig->store, false, strata_store_slot_place(rig->store, 0, 2), 0,
                                rig->buffer);
}

static void commit_a_slot_never_written(struct commit_rig *rig)
{
    uint8_t slots[COMMIT_RECORDS] = {2};
    struct store_line line = {.step = 9, .slots = slots};
    (void)strata_store_commit(rig->store, &line, 1, 0, 1.0);
}

static void retain_what_was_never_committed(struct commit_rig *rig)
{
    struct store_line lines[2] = {{9, rig->slots.lines[0].slots},
                                  {5, rig->slots.lines[0].slots}};
    (void)strata_store_commit(rig->store, lines, 2, 0, 1.0);
}

static void retain_more_than_may_be(struct commit_rig *rig)
{
    const uint8_t *slots = rig->slots.lines[0].slots;
    struct store_line lines[3] = {{9, slots}, {0, slots}, {0, slots}};
    (void)strata_store_commit(rig->store, lines, 3, 0, 1.0);
}

Test(commit, a_caller_that_breaks_the_rules_is_stopped)
{
    struct commit_rig rig;
    make_rig(&rig, 1, 1);
    open_rig(&rig);
    cr_expect(aborts(&rig, read_a_slot_never_written));
    cr_expect(aborts(&rig, commit_a_slot_never_written));
    cr_expect(aborts(&rig, retain_what_was_never_committed));
    cr_expect(aborts(&rig, retain_more_than_may_be));
    strata_commit_rig_remove(&rig);
}

/* What the address sanitizer offers; without it the addresses are null. */
extern int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void *,
                                                                       size_t),
                                                     void (*on_free)(const volatile void *))
    __attribute__((weak));

static _Atomic uint64_t taken_bytes;

static void on_malloc(const volatile void *block, size_t bytes)
{
    (void)block;
    taken_bytes += bytes;
}

static void on_free(const volatile void *block)
{
    (void)block;
}

/* As for scratch in test_store_file.c; and a commit takes nothing. */
Test(commit, open_takes_the_memory_it_said_and_a_commit_none)
{
    struct commit_rig rig;
    if (__sanitizer_install_malloc_and_free_hooks == NULL)
        cr_skip_test("counting allocations needs the address sanitizer");
    leave_at(&rig, 3, 2, 2);
    cr_assert(__sanitizer_install_malloc_and_free_hooks(on_malloc, on_free) > 0);
    for (int round = 0; round < 2; round++) {
        taken_bytes = 0;
        cr_assert(strata_store_open(&rig.store, &rig.desc, NULL) == STRATA_OK);
        uint64_t taken = taken_bytes, told = strata_store_table_bytes(&rig.desc);
        cr_expect(taken <= told + 8192, "%d of %d", (int)taken, (int)told);
        cr_expect(taken + 3 * 20000 >= told, "%d of %d", (int)taken, (int)told);
        strata_commit_rig_close(&rig);
    }
    open_rig(&rig);
    run_to(&rig, 4);
    taken_bytes = 0;
    run_to(&rig, 9);
    uint64_t taken = taken_bytes;
    cr_expect(taken == 0, "%d", (int)taken);
    strata_commit_rig_remove(&rig);
}
