#define _GNU_SOURCE
/*
 * What goes wrong while an engine is made, or while it runs: the Nth allocation, thread,
 * mapping, lock or ring of its creation or of its resume, the Nth transfer of its life. Each
 * time the status and the story are right, nothing hangs, no descriptor is left, and no file
 * but that of a run with a commit, which stands; the sanitizer looks for memory.
 *
 * Built with the linker's --wrap for the functions below.
 */

#include "strata/store.h"
#include "tests/support/io_fault.h"
#include "tests/support/kernel.h"
#include "tests/support/suite_dir.h"
#include "tests/support/store_rig.h"
#include "tests/support/toy.h"

#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>

enum target {
    NOTHING,
    MALLOC,
    CALLOC,
    ALIGNED_ALLOC,
    PTHREAD_CREATE,
    MMAP,
    FLOCK,
    RING,
    RING_FILES,
    EVENTFD
};

static _Atomic bool creating; /* calls count only then */
static enum target target;
static uint64_t nth;
static bool lasting; /* from the nth on, not only that one */
static _Atomic uint64_t seen;
static struct io_fault_plan faults; /* inner NULL: the real store */
static struct io_fault_count counts;

static bool fails(enum target which)
{
    if (!creating || target != which)
        return false;
    uint64_t number = atomic_fetch_add(&seen, 1) + 1;
    return lasting ? number >= nth : number == nth;
}

extern void *__real_malloc(size_t bytes);
extern void *__real_calloc(size_t count, size_t each);
extern void *__real_aligned_alloc(size_t alignment, size_t bytes);
extern int __real_pthread_create(pthread_t *out, const pthread_attr_t *attr,
                                 void *(*run)(void *), void *user);
extern void *__real_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);
extern int __real_flock(int fd, int operation);
extern int __real_io_uring_queue_init(unsigned entries, struct io_uring *ring, unsigned flags);
extern int __real_io_uring_register_files(struct io_uring *ring, const int *files,
                                          unsigned count);
extern int __real_eventfd(unsigned value, int flags);
extern strata_status __real_strata_engine_create(strata_engine **out,
                                                 const strata_engine_desc *desc,
                                                 strata_error *error);
extern strata_status __real_strata_store_open(struct store **out, const struct store_desc *desc,
                                              strata_error *error);

void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t each);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
int __wrap_pthread_create(pthread_t *out, const pthread_attr_t *attr, void *(*run)(void *),
                          void *user);
void *__wrap_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);
int __wrap_flock(int fd, int operation);
int __wrap_io_uring_queue_init(unsigned entries, struct io_uring *ring, unsigned flags);
int __wrap_io_uring_register_files(struct io_uring *ring, const int *files, unsigned count);
int __wrap_eventfd(unsigned value, int flags);
strata_status __wrap_strata_engine_create(strata_engine **out, const strata_engine_desc *desc,
                                          strata_error *error);
strata_status __wrap_strata_store_open(struct store **out, const struct store_desc *desc,
                                       strata_error *error);

void *__wrap_malloc(size_t bytes)
{
    return fails(MALLOC) ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t each)
{
    return fails(CALLOC) ? NULL : __real_calloc(count, each);
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes)
{
    return fails(ALIGNED_ALLOC) ? NULL : __real_aligned_alloc(alignment, bytes);
}

int __wrap_pthread_create(pthread_t *out, const pthread_attr_t *attr, void *(*run)(void *),
                          void *user)
{
    return fails(PTHREAD_CREATE) ? EAGAIN : __real_pthread_create(out, attr, run, user);
}

void *__wrap_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset)
{
    if (!fails(MMAP))
        return __real_mmap(at, bytes, prot, flags, fd, offset);
    errno = ENOMEM;
    return MAP_FAILED;
}

int __wrap_flock(int fd, int operation)
{
    if (!fails(FLOCK))
        return __real_flock(fd, operation);
    errno = ENOLCK;
    return -1;
}

int __wrap_io_uring_queue_init(unsigned entries, struct io_uring *ring, unsigned flags)
{
    return fails(RING) ? -ENOMEM : __real_io_uring_queue_init(entries, ring, flags);
}

int __wrap_io_uring_register_files(struct io_uring *ring, const int *files, unsigned count)
{
    return fails(RING_FILES) ? -EMFILE : __real_io_uring_register_files(ring, files, count);
}

int __wrap_eventfd(unsigned value, int flags)
{
    if (!fails(EVENTFD))
        return __real_eventfd(value, flags);
    errno = EMFILE;
    return -1;
}

strata_status __wrap_strata_engine_create(strata_engine **out, const strata_engine_desc *desc,
                                          strata_error *error)
{
    creating = true;
    strata_status status = __real_strata_engine_create(out, desc, error);
    creating = false;
    cr_expect_eq(status == STRATA_OK, *out != NULL);
    return status;
}

strata_status __wrap_strata_store_open(struct store **out, const struct store_desc *desc,
                                       strata_error *error)
{
    struct store_desc impatient = *desc;
    if (faults.inner == NULL)
        return __real_strata_store_open(out, desc, error);
    impatient.deadline_ns = faults.fault == IO_FAULT_LOST ? 300000000 : 0;
    return strata_store_open_on(out, &impatient, &strata_io_fault, &faults, error);
}

TestSuite(failures, .init = make_dir, .fini = remove_dir);

/* One run; it leaves so many files. want: the status, if it is not OK. */
static strata_status run_leaving(const struct toy_run *run, int files, strata_status want)
{
    int descriptors = strata_open_descriptors();
    seen = 0;
    struct toy_result result = strata_toy_run(run);
    cr_expect_eq(strata_open_descriptors(), descriptors);
    if (result.status != STRATA_OK || run->durability == STRATA_SCRATCH)
        cr_expect_eq(strata_temp_dir_count(dir.path), files, "left behind: %s",
                     result.error.message);
    if (result.status == STRATA_OK)
        return STRATA_OK;
    cr_expect_eq(result.status, want, "%s: %s", strata_status_name(result.status),
                 result.error.message);
    cr_expect_eq(result.error.status, result.status);
    cr_expect(result.error.message[0] != 0);
    /* A machine that lacks memory is not a budget that is too small. */
    cr_expect_null(strstr(result.error.message, "raise --"), "%s", result.error.message);
    return result.status;
}

/* One run through all tiers. */
static strata_status run_once(const struct toy_run *run, strata_status want)
{
    return run_leaving(run, 0, want);
}

static void each_call_fails_once(enum target which, strata_status want)
{
    struct toy_run run = {.params = STRATA_NVME,
                          .grads = STRATA_HOST,
                          .states = STRATA_NVME,
                          .stash = STRATA_HOST,
                          .clip = 1,
                          .dir = dir.path,
                          .steps = 1};
    target = which;
    for (int io = 0; io < 2; io++) {
        run.io = io == 0 ? STRATA_IO_URING : STRATA_IO_THREADS;
        uint64_t failed = 0;
        for (nth = 1; failed + 1 == nth; nth++)
            failed += run_once(&run, want) != STRATA_OK;
        cr_expect_leq(seen, nth, "call %d failed without notice", (int)nth - 1);
        cr_expect_gt(failed, 0);
    }
}

Test(failures, of_any_allocation_are_told_and_leave_nothing)
{
    each_call_fails_once(MALLOC, STRATA_E_NOMEM);
    each_call_fails_once(CALLOC, STRATA_E_NOMEM);
    each_call_fails_once(ALIGNED_ALLOC, STRATA_E_NOMEM);
}

Test(failures, of_any_thread_or_mapping_are_told_and_leave_nothing)
{
    each_call_fails_once(PTHREAD_CREATE, STRATA_E_NOMEM);
    each_call_fails_once(MMAP, STRATA_E_NOMEM);
}

/* A durable run in the making: it leaves nothing. Then one that goes on from step 2: it leaves
 * that commit, from which the attempt that nothing fails goes on to step 3. */
static uint64_t each_call_of_a_durable_run_fails(enum target which, strata_status want)
{
    struct toy_run run = strata_toy_durable(STRATA_NVME, STRATA_HOST, STRATA_HOST, dir.path);
    run.groups = 2;
    run.clip = 1;
    run.allow = STRATA_ALLOW_BUFFERED_IO;
    run.steps = 2;
    run.resume = true;
    const char *const dirs[] = {dir.path};
    uint64_t failed = 0;
    target = which;
    for (nth = 1; run_leaving(&run, 0, want) != STRATA_OK; nth++)
        failed++;
    run.steps = 3;
    for (nth = 1; run_leaving(&run, 1, want) != STRATA_OK; nth++, failed++) {
        strata_store_listing listing;
        cr_assert(strata_store_list(&listing, dirs, 1, NULL) == STRATA_OK);
        cr_expect(listing.commit_count == 1 && listing.commits[0].step == 2);
    }
    target = NOTHING;
    struct toy_result after = strata_toy_run(&run);
    run.dir = NULL;
    run.params = STRATA_HOST;
    run.durability = STRATA_SCRATCH;
    run.resume = false;
    struct toy_result undisturbed = strata_toy_run(&run);
    cr_expect(after.status == STRATA_OK && after.first_step == 3, "%s", after.error.message);
    cr_expect_arr_eq(after.hash, undisturbed.hash, 16);
    strata_temp_dir_remove(&dir);
    strata_temp_dir_make_in_memory(&dir);
    return failed;
}

static void of_a_durable_run(enum target which, strata_status want)
{
    strata_temp_dir_remove(&dir);
    strata_temp_dir_make_in_memory(&dir);
    lasting = false;
    uint64_t once = each_call_of_a_durable_run_fails(which, want);
    lasting = true;
    uint64_t for_good = each_call_of_a_durable_run_fails(which, want);
    cr_expect(once > 0 && once == for_good, "%d calls, or %d", (int)once, (int)for_good);
}

Test(failures, of_any_allocation_of_a_durable_run_leave_nothing_or_the_last_commit)
{
    of_a_durable_run(MALLOC, STRATA_E_NOMEM);
    of_a_durable_run(CALLOC, STRATA_E_NOMEM);
    of_a_durable_run(ALIGNED_ALLOC, STRATA_E_NOMEM);
    of_a_durable_run(PTHREAD_CREATE, STRATA_E_NOMEM);
    of_a_durable_run(MMAP, STRATA_E_NOMEM);
}

Test(failures, of_a_ring_in_the_making_leave_nothing_or_the_last_commit)
{
    if (!strata_io_uring_permitted())
        cr_skip_test("no io_uring here");
    of_a_durable_run(RING, STRATA_E_NOMEM);
    of_a_durable_run(RING_FILES, STRATA_E_IO);
    of_a_durable_run(EVENTFD, STRATA_E_IO);
}

Test(failures, of_the_lock_leave_no_file)
{
    target = FLOCK;
    nth = 1;
    cr_expect_eq(
        run_once(&(struct toy_run){.params = STRATA_NVME, .dir = dir.path}, STRATA_E_IO),
        STRATA_E_IO);
}

/* The Nth of op goes wrong, N from first on, in strides later, until a run survives. */
static void each_transfer_goes_wrong(enum io_fault_kind fault, enum io_op op, uint64_t first,
                                     strata_status want)
{
    for (nth = first;; nth += nth < 10 ? 1 : nth / 3) {
        struct toy_run run = {.params = STRATA_NVME,
                              .grads = STRATA_NVME,
                              .states = STRATA_NVME,
                              .stash = STRATA_HOST,
                              .clip = nth % 3 ? 1 : 0,
                              .device_bytes = 1u << 20,
                              .dir = dir.path,
                              .steps = 2,
                              .no_overlap = nth % 4 == 1};
        counts = (struct io_fault_count){0};
        faults =
            (struct io_fault_plan){.inner = nth % 2 ? &strata_io_uring : &strata_io_threads,
                                   .count = &counts,
                                   .fault = fault,
                                   .native = EIO,
                                   .op = op,
                                   .nth = nth,
                                   .times = 1};
        strata_status status = run_once(&run, want);
        if (counts.fired == 0)
            break;
        cr_expect_eq(status, want, "number %d", (int)nth);
    }
}

Test(failures, of_any_transfer_end_the_run)
{
    each_transfer_goes_wrong(IO_FAULT_ERRNO, IO_READ, 1, STRATA_E_IO);
    each_transfer_goes_wrong(IO_FAULT_ERRNO, IO_WRITE, 1, STRATA_E_IO);
    each_transfer_goes_wrong(IO_FAULT_ERRNO, IO_SYNC, 1, STRATA_E_IO);
}

Test(failures, of_bits_are_noticed)
{
    /* From the second read on: the first is the header's. */
    each_transfer_goes_wrong(IO_FAULT_FLIP, IO_READ, 2, STRATA_E_CORRUPT);
}

Test(failures, of_a_silent_drive_end_the_run)
{
    each_transfer_goes_wrong(IO_FAULT_LOST, IO_READ, 30, STRATA_E_TIMEOUT);
}

/* A durable run of five steps in which the Nth request goes wrong, once or from then on; then
 * the same run goes on over a sound store. Wherever it stopped, it ends as if nothing had been.
 */
static bool interrupted(const struct io_fault_plan *what, const struct toy_result *undisturbed)
{
    struct toy_run run = {.params = STRATA_NVME,
                          .grads = STRATA_HOST,
                          .states = nth % 2 ? STRATA_NVME : STRATA_HOST,
                          .stash = STRATA_HOST,
                          .clip = 1,
                          .dir = dir.path,
                          .nvme_bytes = 256u << 20,
                          .steps = 5,
                          .durability = STRATA_DURABLE_POWER,
                          .commit_every = 1 + nth % 2,
                          .resume = true};
    counts = (struct io_fault_count){0};
    faults = *what;
    faults.inner = nth % 3 ? &strata_io_uring : &strata_io_threads;
    faults.count = &counts;
    faults.nth = nth;
    struct toy_result first = strata_toy_run(&run);
    faults.inner = NULL;
    if (first.status != STRATA_OK)
        cr_expect(first.error.message[0] != 0);
    struct toy_result second = strata_toy_run(&run);
    cr_assert_eq(second.status, STRATA_OK, "request %d: %s, after %s", (int)nth,
                 second.error.message, first.error.message);
    cr_expect_geq(second.first_step, first.status == STRATA_OK ? 4 : 0);
    cr_expect_arr_eq(undisturbed->hash, second.hash, 16, "request %d: %s", (int)nth,
                     first.error.message);
    strata_temp_dir_remove(&dir);
    strata_temp_dir_make(&dir);
    return counts.fired > 0;
}

static void goes_on_after(const struct io_fault_plan *what)
{
    struct toy_run whole = {.clip = 1, .steps = 5};
    struct toy_result undisturbed = strata_toy_run(&whole);
    cr_assert_eq(undisturbed.status, STRATA_OK, "%s", undisturbed.error.message);
    for (nth = 1; interrupted(what, &undisturbed); nth += nth < 4 ? 1 : nth / 2)
        ;
}

Test(failures, of_writes_leave_the_last_commit)
{
    goes_on_after(&(struct io_fault_plan){
        .fault = IO_FAULT_ERRNO, .native = EIO, .op = IO_WRITE, .times = 1});
    goes_on_after(&(struct io_fault_plan){
        .fault = IO_FAULT_ERRNO, .native = ENOSPC, .op = IO_WRITE, .times = UINT64_MAX});
    goes_on_after(
        &(struct io_fault_plan){.fault = IO_FAULT_ZERO, .op = IO_WRITE, .times = UINT64_MAX});
}

Test(failures, of_reads_leave_the_last_commit)
{
    goes_on_after(&(struct io_fault_plan){
        .fault = IO_FAULT_ERRNO, .native = EIO, .op = IO_READ, .times = UINT64_MAX});
    goes_on_after(&(struct io_fault_plan){.fault = IO_FAULT_FLIP, .op = IO_READ, .times = 1});
}

Test(failures, of_flushes_leave_the_last_commit)
{
    goes_on_after(&(struct io_fault_plan){
        .fault = IO_FAULT_ERRNO, .native = EIO, .op = IO_SYNC, .times = 1});
    goes_on_after(&(struct io_fault_plan){
        .fault = IO_FAULT_ERRNO, .native = EIO, .op = IO_SYNC, .times = UINT64_MAX});
}

Test(failures, of_a_drive_that_falls_silent_leave_the_last_commit)
{
    goes_on_after(&(struct io_fault_plan){.fault = IO_FAULT_LOST, .times = UINT64_MAX});
}

Test(failures, that_heal_change_nothing)
{
    goes_on_after(&(struct io_fault_plan){.fault = IO_FAULT_SHORT, .times = 1});
    goes_on_after(
        &(struct io_fault_plan){.fault = IO_FAULT_TWICE, .times = 1, .delay_ns = 1000000});
    goes_on_after(
        &(struct io_fault_plan){.fault = IO_FAULT_LATE, .times = 1, .delay_ns = 20000000});
}
