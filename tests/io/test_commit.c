#define _GNU_SOURCE
/*
 * Making commits on real files: what was committed is there, whatever fails on the way. How
 * they fare when power is lost, or a drive lies, is test_crash.c; who may go on with them is
 * test_resume.c.
 */

#include "base/error.h"
#include "tests/io/commit_check.h"
#include "tests/support/allocations.h"
#include "tests/support/io_fault.h"
#include "tests/support/kernel.h"
#include "tests/support/store_rig.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

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
    run_and_reopen(&rig, 8);
    EXPECT_LIST(&rig, 6);
    remove_whole(&rig);
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
    remove_whole(&rig);
}

Test(commit, a_record_without_bytes_is_not_in_the_store)
{
    struct commit_rig rig;
    make_rig(&rig, 2, 0);
    rig.record_bytes[6] = 0;
    open_rig(&rig);
    run_and_reopen(&rig, 3);
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
    remove_whole(&rig);
}

/* In requests: a table per drive, twice; a flush per drive; a commit record, twice; a flush of
 * its file; a receipt. */
Test(commit, a_commit_costs_a_flush_per_file_two_tables_and_three_blocks)
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
        cr_expect(counts[0].seen - before[0] == records + 2 * drives + 3);
        cr_expect(counts[1].seen - before[1] == drives + 1);
        cr_expect(written[1] - written[0] == 30 * STRATA_IO_ALIGN_BYTES, "records alone");
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
    remove_whole(&rig);
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
    cr_expect(plan.nth > 50, "%d requests", (int)plan.nth);
}

Test(commit, each_request_of_a_life_may_fail_and_the_last_commit_stands)
{
    fail_each(IO_FAULT_ERRNO, EIO, 1, STRATA_E_IO);
    fail_each(IO_FAULT_ERRNO, ENOSPC, UINT64_MAX, STRATA_E_IO);
    fail_each(IO_FAULT_ZERO, 0, 1, STRATA_E_IO);
}

Test(commit, each_request_of_a_life_may_be_short_late_or_answered_twice)
{
    fail_each(IO_FAULT_SHORT, 0, 1, STRATA_OK);
    fail_each(IO_FAULT_LATE, 0, 1, STRATA_OK);
    fail_each(IO_FAULT_TWICE, 0, 1, STRATA_OK);
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

Test(commit, a_killed_run_loses_no_committed_step)
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
        /* After some steps, however long they take, and at another moment of the next. */
        uint8_t step;
        for (int i = 0; i < round % 4; i++) {
            cr_assert(read(told[0], &step, 1) == 1);
            last = step;
        }
        usleep((useconds_t)(round * 4001 % 50000));
        cr_assert(kill(child, SIGKILL) == 0);
        open_rig(&rig); /* at once: its writes may still be on their way */
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

static void read_a_slot_never_written(void *user)
{
    struct commit_rig *rig = user;
    (void)strata_store_transfer(rig->store, false, strata_store_slot_place(rig->store, 0, 2), 0,
                                rig->buffer);
}

static void commit_a_slot_never_written(void *user)
{
    struct commit_rig *rig = user;
    uint8_t slots[COMMIT_RECORDS] = {2};
    struct store_line line = {.step = 9, .slots = slots};
    (void)strata_store_commit(rig->store, &line, 1, 0, 1.0);
}

static void retain_what_was_never_committed(void *user)
{
    struct commit_rig *rig = user;
    struct store_line lines[2] = {{9, rig->slots.lines[0].slots},
                                  {5, rig->slots.lines[0].slots}};
    (void)strata_store_commit(rig->store, lines, 2, 0, 1.0);
}

static void retain_more_than_may_be(void *user)
{
    struct commit_rig *rig = user;
    const uint8_t *slots = rig->slots.lines[0].slots;
    struct store_line lines[3] = {{9, slots}, {0, slots}, {0, slots}};
    (void)strata_store_commit(rig->store, lines, 3, 0, 1.0);
}

Test(commit, a_caller_that_breaks_the_rules_is_stopped)
{
    struct commit_rig rig;
    make_rig(&rig, 1, 1);
    open_rig(&rig);
    cr_expect(strata_rig_aborts(read_a_slot_never_written, &rig));
    cr_expect(strata_rig_aborts(commit_a_slot_never_written, &rig));
    cr_expect(strata_rig_aborts(retain_what_was_never_committed, &rig));
    cr_expect(strata_rig_aborts(retain_more_than_may_be, &rig));
    strata_commit_rig_remove(&rig);
}

/* As for scratch in test_store_file.c; and a commit takes nothing. */
Test(commit, open_takes_the_memory_it_said_and_a_commit_none)
{
    struct commit_rig rig;
    if (!strata_allocations_count())
        cr_skip_test("counting allocations needs the address sanitizer");
    leave_at(&rig, 3, 2, 2);
    for (int round = 0; round < 2; round++) {
        strata_allocations_reset();
        cr_assert(strata_store_open(&rig.store, &rig.desc, NULL) == STRATA_OK);
        uint64_t taken = strata_allocations_bytes(), told = strata_store_table_bytes(&rig.desc);
        cr_expect(taken <= told + 8192, "%d of %d", (int)taken, (int)told);
        cr_expect(taken + 3 * 20000 >= told, "%d of %d", (int)taken, (int)told);
        strata_commit_rig_close(&rig);
    }
    open_rig(&rig);
    run_to(&rig, 4);
    strata_allocations_reset();
    run_to(&rig, 9);
    uint64_t taken = strata_allocations_bytes();
    cr_expect(taken == 0, "%d", (int)taken);
    strata_commit_rig_remove(&rig);
}
