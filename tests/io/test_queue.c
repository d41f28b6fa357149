#define _GNU_SOURCE
/*
 * The queue over both real backends, and over one that fails on purpose.
 *
 * The file is a MiB on a real file system with O_DIRECT. Every test leaves by the same door,
 * which closes the queue, so under the address sanitizer a request that is forgotten is a leak.
 */

#include "base/clock.h"
#include "base/error.h"
#include "tests/support/kernel.h"
#include "tests/support/io_fault.h"
#include "tests/support/temp_dir.h"

#include <criterion/criterion.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define BLOCK      STRATA_IO_ALIGN_BYTES
#define PIECE      (16 * BLOCK)
#define REQS       16u
#define FILE_BYTES (REQS * PIECE)
#define LONG_NS    20000000000u
#define SHORT_NS   250000000u

struct rig {
    struct temp_dir dir;
    char path[PATH_MAX + 16];
    struct io_file file;
    struct io_region region; /* set before open_rig() */
    uint8_t *buffer;         /* FILE_BYTES */
    struct io_queue *queue;
    struct io_fault_plan plan;
    struct io_fault_count count;
    struct io_req reqs[REQS];
};

/* The clock of the queue and its backend, which a test puts forward; hurry: at every look, by
 * more than the deadline. */
static _Atomic uint64_t ahead_ns;
static _Atomic bool hurry;

uint64_t __real_strata_now_ns(void);
uint64_t __wrap_strata_now_ns(void);

uint64_t __wrap_strata_now_ns(void)
{
    if (hurry)
        ahead_ns += 2 * LONG_NS;
    return __real_strata_now_ns() + ahead_ns;
}

/* Both backends, in turn; where io_uring is forbidden, threads twice. */
static const struct io_ops *backend_of(uint32_t index)
{
    return strata_io_ops_here(index == 0 ? STRATA_IO_URING : STRATA_IO_THREADS);
}

static void open_rig(struct rig *rig, const struct io_ops *ops, uint32_t depth,
                     uint64_t deadline_ns)
{
    strata_error error = {.status = STRATA_OK};
    strata_temp_dir_make(&rig->dir);
    snprintf(rig->path, sizeof rig->path, "%s/file", rig->dir.path);
    rig->file.path = rig->path;
    rig->file.fd = open(rig->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_DIRECT, 0600);
    cr_assert(rig->file.fd >= 0);
    rig->buffer = aligned_alloc(BLOCK, FILE_BYTES);
    cr_assert(rig->buffer != NULL);
    for (uint32_t i = 0; i < FILE_BYTES; i++)
        rig->buffer[i] = (uint8_t)(i * 7 + i / BLOCK);
    cr_assert(pwrite(rig->file.fd, rig->buffer, FILE_BYTES, 0) == FILE_BYTES);
    struct io_queue_desc desc = {
        .ops = ops,
        .ops_config = &rig->plan,
        .files = &rig->file,
        .file_count = 1,
        .depth = depth,
        .region = rig->region,
        .deadline_ns = deadline_ns,
    };
    cr_assert(strata_io_queue_open(&rig->queue, &desc, &error) == STRATA_OK, "%s",
              error.message);
}

/* A queue over a backend whose first request of this kind fails. */
static void open_failing(struct rig *rig, const struct io_ops *inner, enum io_fault_kind fault,
                         enum io_op op)
{
    rig->plan = (struct io_fault_plan){
        .inner = inner,
        .count = &rig->count,
        .fault = fault,
        .native = EIO,
        .op = op,
        .nth = 1,
        .times = 1,
    };
    open_rig(rig, &strata_io_fault, 4, LONG_NS);
}

static void close_rig(struct rig *rig)
{
    strata_io_queue_close(rig->queue);
    close(rig->file.fd);
    free(rig->buffer);
    strata_temp_dir_remove(&rig->dir);
}

static void start(struct rig *rig, uint32_t index, enum io_op op)
{
    rig->reqs[index] = (struct io_req){
        .op = op,
        .length = PIECE,
        .buffer = rig->buffer + (size_t)index * PIECE,
        .offset = (uint64_t)index * PIECE,
    };
    strata_io_queue_start(rig->queue, &rig->reqs[index]);
}

static struct io_req *reap(struct rig *rig)
{
    struct io_req *req = NULL;
    while (req == NULL)
        req = strata_io_queue_reap(rig->queue, LONG_NS);
    return req;
}

/* Let time pass until a request comes back. In steps: the queue does not believe in one jump,
 * which may be a machine that slept. */
static struct io_req *reap_past_the_deadline(struct rig *rig)
{
    struct io_req *req;
    while ((req = strata_io_queue_reap(rig->queue, 0)) == NULL)
        ahead_ns += LONG_NS / 16;
    return req;
}

/* Start all requests, reap all, say how many failed; each must come back exactly once. */
static uint32_t run_all(struct rig *rig, enum io_op op)
{
    bool seen[REQS] = {false};
    uint32_t failed = 0;
    for (uint32_t i = 0; i < REQS; i++)
        start(rig, i, op);
    for (uint32_t i = 0; i < REQS; i++) {
        struct io_req *req = reap(rig);
        size_t index = (size_t)(req - rig->reqs);
        cr_assert(index < REQS && !seen[index]);
        seen[index] = true;
        failed += req->status != STRATA_OK;
    }
    cr_assert(strata_io_queue_reap(rig->queue, 0) == NULL);
    return failed;
}

static bool intact(const struct rig *rig)
{
    for (uint32_t i = 0; i < FILE_BYTES; i++)
        if (rig->buffer[i] != (uint8_t)(i * 7 + i / BLOCK))
            return false;
    return true;
}

static bool story_has(const struct rig *rig, const char *text)
{
    return strstr(strata_io_queue_error(rig->queue)->message, text) != NULL;
}

Test(queue, what_is_written_is_read_back_by_both_backends)
{
    for (size_t b = 0; b < 2; b++) {
        struct rig rig = {0};
        open_rig(&rig, backend_of(b), 4, LONG_NS);
        cr_expect(run_all(&rig, IO_WRITE) == 0);
        memset(rig.buffer, 0, FILE_BYTES);
        cr_expect(run_all(&rig, IO_READ) == 0);
        cr_expect(intact(&rig), "%s", backend_of(b)->name);
        start(&rig, 0, IO_SYNC);
        cr_expect(reap(&rig)->status == STRATA_OK);
        cr_expect(strata_io_queue_error(rig.queue)->status == STRATA_OK);
        close_rig(&rig);
    }
}

Test(queue, a_depth_of_one_moves_everything_too)
{
    for (size_t b = 0; b < 2; b++) {
        struct rig rig = {0};
        open_rig(&rig, backend_of(b), 1, LONG_NS);
        memset(rig.buffer, 0, FILE_BYTES);
        cr_expect(run_all(&rig, IO_READ) == 0);
        cr_expect(intact(&rig), "%s", backend_of(b)->name);
        close_rig(&rig);
    }
}

Test(queue, a_bad_file_is_reported_with_its_errno_by_both_backends)
{
    for (size_t b = 0; b < 2; b++) {
        struct rig rig = {0};
        open_rig(&rig, backend_of(b), 4, LONG_NS);
        cr_assert(ftruncate(rig.file.fd, 0) == 0);
        start(&rig, 3, IO_READ);
        cr_expect(reap(&rig)->status == STRATA_E_IO); /* beyond the end: nothing moves */
        cr_expect(story_has(&rig, "read of 65536 bytes at 196608 in "));
        cr_expect(story_has(&rig, "moved 0 of the last 65536"));
        close_rig(&rig);
    }
}

Test(queue, a_short_transfer_is_resumed)
{
    for (size_t b = 0; b < 2; b++) {
        for (int op = IO_READ; op <= IO_WRITE; op++) {
            struct rig rig = {0};
            open_failing(&rig, backend_of(b), IO_FAULT_SHORT, op);
            rig.plan.times = 3;
            if (op == IO_READ)
                memset(rig.buffer, 0, FILE_BYTES);
            cr_expect(run_all(&rig, op) == 0);
            memset(rig.buffer, 0, op == IO_WRITE ? FILE_BYTES : 0);
            cr_assert(op == IO_READ || run_all(&rig, IO_READ) == 0);
            cr_expect(intact(&rig));
            struct io_queue_counts counts;
            strata_io_queue_counts(rig.queue, &counts);
            cr_expect(counts.resumed == 3, "%d", (int)counts.resumed);
            close_rig(&rig);
        }
    }
}

Test(queue, a_transfer_that_ends_inside_a_block_is_resumed_from_its_beginning)
{
    struct rig rig = {0};
    open_failing(&rig, strata_io_ops_here(STRATA_IO_URING), IO_FAULT_ODD, IO_READ);
    memset(rig.buffer, 0, FILE_BYTES);
    cr_expect(run_all(&rig, IO_READ) == 0);
    cr_expect(intact(&rig));
    cr_expect(rig.count.seen == REQS + 1);
    close_rig(&rig);
}

Test(queue, an_attempt_that_moves_nothing_is_an_error_with_file_offset_and_length)
{
    struct rig rig = {0};
    open_failing(&rig, strata_io_ops_here(STRATA_IO_URING), IO_FAULT_ZERO, IO_WRITE);
    start(&rig, 2, IO_WRITE);
    struct io_req *req = reap(&rig);
    cr_expect(req->status == STRATA_E_IO);
    cr_expect(story_has(&rig, "write of 65536 bytes at 131072 in "));
    cr_expect(story_has(&rig, rig.path));
    cr_expect(story_has(&rig, "moved 0"));
    close_rig(&rig);
}

Test(queue, eagain_and_eintr_are_tried_again)
{
    const int causes[] = {EAGAIN, EINTR};
    for (size_t c = 0; c < 2; c++) {
        struct rig rig = {0};
        open_failing(&rig, strata_io_ops_here(STRATA_IO_URING), IO_FAULT_ERRNO, IO_READ);
        rig.plan.native = causes[c];
        rig.plan.times = 40;
        memset(rig.buffer, 0, FILE_BYTES);
        cr_expect(run_all(&rig, IO_READ) == 0);
        cr_expect(intact(&rig));
        struct io_queue_counts counts;
        strata_io_queue_counts(rig.queue, &counts);
        cr_expect(counts.retried == 40);
        cr_expect(strata_io_queue_error(rig.queue)->status == STRATA_OK);
        close_rig(&rig);
    }
}

Test(queue, eagain_for_ever_ends_at_the_deadline)
{
    struct rig rig = {0};
    rig.plan = (struct io_fault_plan){
        .inner = strata_io_ops_here(STRATA_IO_URING),
        .count = &rig.count,
        .fault = IO_FAULT_ERRNO,
        .native = EAGAIN,
        .nth = 1,
        .times = UINT64_MAX,
    };
    open_rig(&rig, &strata_io_fault, 4, SHORT_NS);
    cr_expect(run_all(&rig, IO_READ) == REQS);
    cr_expect(rig.reqs[0].status == STRATA_E_TIMEOUT);
    cr_expect(rig.count.seen < 4000, "it span");
    close_rig(&rig);
}

Test(queue, other_errors_are_reported_once_and_the_others_go_on)
{
    const int causes[] = {EIO, ENOSPC, EFAULT};
    for (size_t c = 0; c < 3; c++) {
        struct rig rig = {0};
        open_failing(&rig, &strata_io_threads, IO_FAULT_ERRNO, IO_WRITE);
        rig.plan.native = causes[c];
        rig.plan.nth = 5;
        cr_expect(run_all(&rig, IO_WRITE) == 1);
        cr_expect(rig.reqs[4].status == STRATA_E_IO && rig.reqs[4].native == causes[c]);
        cr_expect(strata_io_queue_error(rig.queue)->native == causes[c]);
        cr_expect(story_has(&rig, strerror(causes[c])));
        cr_expect(rig.count.seen == REQS);
        close_rig(&rig);
    }
}

Test(queue, the_first_failure_is_the_story)
{
    struct rig rig = {0};
    open_failing(&rig, &strata_io_threads, IO_FAULT_ERRNO, IO_WRITE);
    rig.plan.times = 2;
    start(&rig, 6, IO_WRITE);
    (void)reap(&rig);
    start(&rig, 7, IO_WRITE);
    cr_expect(reap(&rig)->status == STRATA_E_IO);
    cr_expect(story_has(&rig, "at 393216 in"));
    close_rig(&rig);
}

Test(queue, a_failed_sync_is_never_repeated)
{
    const int causes[] = {EIO, EINTR, EAGAIN};
    for (size_t c = 0; c < 3; c++) {
        struct rig rig = {0};
        open_failing(&rig, strata_io_ops_here(STRATA_IO_URING), IO_FAULT_ERRNO, IO_SYNC);
        rig.plan.native = causes[c];
        start(&rig, 0, IO_SYNC);
        struct io_req *req = reap(&rig);
        cr_expect(req->status == STRATA_E_IO && req->native == causes[c]);
        cr_expect(rig.count.seen == 1);
        cr_expect(story_has(&rig, "sync of "));
        close_rig(&rig);
    }
}

Test(queue, a_late_answer_is_a_timeout_that_tells_what_was_in_flight)
{
    for (size_t b = 0; b < 2; b++) {
        struct rig rig = {0};
        rig.plan = (struct io_fault_plan){
            .inner = backend_of(b),
            .count = &rig.count,
            .fault = IO_FAULT_HELD,
            .op = IO_READ,
            .nth = 1,
            .times = 2,
        };
        open_rig(&rig, &strata_io_fault, 4, LONG_NS);
        start(&rig, 1, IO_READ);
        start(&rig, 2, IO_READ);
        cr_expect(reap_past_the_deadline(&rig)->status == STRATA_E_TIMEOUT);
        cr_expect(reap(&rig)->status == STRATA_E_TIMEOUT);
        const strata_error *error = strata_io_queue_error(rig.queue);
        cr_expect(error->status == STRATA_E_TIMEOUT && error->native == ETIMEDOUT);
        cr_expect(story_has(&rig, "no answer for 20 s; 2 in flight: read 65536 at 65536 (2"),
                  "%s", error->message);
        rig.count.release = true;
        close_rig(&rig);
    }
}

Test(queue, an_answer_after_the_deadline_touches_no_other_request)
{
    struct rig rig = {0};
    rig.plan = (struct io_fault_plan){
        .inner = strata_io_ops_here(STRATA_IO_URING),
        .count = &rig.count,
        .fault = IO_FAULT_HELD,
        .op = IO_READ,
        .nth = 1,
        .times = 1,
    };
    open_rig(&rig, &strata_io_fault, 1, LONG_NS);
    start(&rig, 0, IO_READ);
    cr_expect(reap_past_the_deadline(&rig)->status == STRATA_E_TIMEOUT);
    /* The same request again. The only slot is still taken, and the late answer frees it. */
    rig.plan.nth = 0;
    memset(rig.buffer, 0, PIECE);
    start(&rig, 0, IO_READ);
    strata_io_queue_push(rig.queue);
    rig.count.release = true;
    cr_expect(reap(&rig)->status == STRATA_OK);
    cr_expect(rig.buffer[1] == 7);
    struct io_queue_counts counts;
    strata_io_queue_counts(rig.queue, &counts);
    cr_expect(counts.stale == 1);
    close_rig(&rig);
}

Test(queue, a_second_answer_to_the_same_attempt_is_dropped)
{
    struct rig rig = {0};
    open_failing(&rig, strata_io_ops_here(STRATA_IO_URING), IO_FAULT_TWICE, IO_READ);
    rig.plan.times = 5;
    memset(rig.buffer, 0, FILE_BYTES);
    cr_expect(run_all(&rig, IO_READ) == 0);
    cr_expect(intact(&rig));
    struct io_queue_counts counts;
    strata_io_queue_counts(rig.queue, &counts);
    cr_expect(counts.stale == 5, "%d", (int)counts.stale);
    close_rig(&rig);
}

Test(queue, a_lost_answer_is_a_timeout_and_close_does_not_hang)
{
    for (size_t b = 0; b < 2; b++) {
        struct rig rig = {0};
        rig.plan = (struct io_fault_plan){
            .inner = backend_of(b),
            .count = &rig.count,
            .fault = IO_FAULT_LOST,
            .nth = 2,
            .times = 1,
        };
        open_rig(&rig, &strata_io_fault, 4, LONG_NS);
        for (uint32_t i = 0; i < REQS; i++)
            start(&rig, i, IO_READ);
        for (uint32_t i = 1; i < REQS; i++)
            cr_expect(reap(&rig)->status == STRATA_OK);
        cr_expect(reap_past_the_deadline(&rig) == &rig.reqs[1]);
        cr_expect(rig.reqs[1].status == STRATA_E_TIMEOUT);
        hurry = true;
        close_rig(&rig);
        hurry = false;
    }
}

Test(queue, requests_behind_lost_ones_time_out_too)
{
    struct rig rig = {0};
    rig.plan = (struct io_fault_plan){
        .inner = strata_io_ops_here(STRATA_IO_URING),
        .count = &rig.count,
        .fault = IO_FAULT_LOST,
        .nth = 1,
        .times = UINT64_MAX,
    };
    open_rig(&rig, &strata_io_fault, 2, LONG_NS);
    for (uint32_t i = 0; i < REQS; i++)
        start(&rig, i, IO_READ);
    for (uint32_t i = 0; i < REQS; i++)
        cr_expect(reap_past_the_deadline(&rig)->status == STRATA_E_TIMEOUT);
    hurry = true;
    close_rig(&rig);
}

Test(queue, a_backend_that_breaks_fails_what_is_in_flight)
{
    struct rig rig = {0};
    open_failing(&rig, &strata_io_threads, IO_FAULT_BROKEN, IO_READ);
    rig.plan.native = EBADF;
    start(&rig, 0, IO_READ);
    struct io_req *req = reap(&rig);
    cr_expect(req->status == STRATA_E_IO && req->native == EBADF);
    cr_expect(story_has(&rig, "the I/O backend failed"));
    close_rig(&rig);
}

/* N = 1, 2, ... until a run survives: all come back, and only what must fail fails. */
Test(queue, each_attempt_in_turn_may_fail)
{
    const struct {
        enum io_fault_kind fault;
        int native;
        uint32_t failures;
    } cases[] = {
        {IO_FAULT_ERRNO, EIO, 1},    {IO_FAULT_ERRNO, EAGAIN, 0}, {IO_FAULT_ERRNO, EINTR, 0},
        {IO_FAULT_ERRNO, ENOSPC, 1}, {IO_FAULT_ZERO, 0, 1},       {IO_FAULT_SHORT, 0, 0},
        {IO_FAULT_ODD, 0, 0},        {IO_FAULT_TWICE, 0, 0},
    };
    struct rig rig = {0};
    rig.plan = (struct io_fault_plan){
        .inner = strata_io_ops_here(STRATA_IO_URING), .count = &rig.count, .times = 1};
    open_rig(&rig, &strata_io_fault, 3, LONG_NS);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        rig.plan.fault = cases[c].fault;
        rig.plan.native = cases[c].native;
        bool survived = false;
        for (uint64_t n = 1; !survived; n++) {
            atomic_store(&rig.count.seen, 0);
            atomic_store(&rig.count.fired, 0);
            rig.plan.nth = n;
            uint32_t failed = run_all(&rig, n % 2 ? IO_READ : IO_WRITE);
            survived = rig.count.fired == 0;
            cr_assert(failed == (survived ? 0 : cases[c].failures));
            cr_assert(n <= REQS + 1);
        }
    }
    cr_expect(intact(&rig));
    close_rig(&rig);
}

static void *wake_later(void *user)
{
    struct rig *rig = user;
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    strata_io_queue_wake(rig->queue);
    return NULL;
}

Test(queue, a_wake_ends_a_wait)
{
    for (size_t b = 0; b < 2; b++) {
        struct rig rig = {0};
        pthread_t thread;
        open_rig(&rig, backend_of(b), 4, LONG_NS);
        for (int i = 0; i < 3; i++) {
            cr_assert(pthread_create(&thread, NULL, wake_later, &rig) == 0);
            cr_expect(strata_io_queue_reap(rig.queue, UINT64_MAX) == NULL);
            pthread_join(thread, NULL);
        }
        close_rig(&rig);
    }
}

Test(queue, a_wake_before_the_wait_is_not_lost)
{
    for (size_t b = 0; b < 2; b++) {
        struct rig rig = {0};
        open_rig(&rig, backend_of(b), 4, LONG_NS);
        for (int i = 0; i < 6; i++) {
            /* A wait that timed out has left the backend ready for the wake; or it has not. */
            if (i % 2)
                (void)strata_io_queue_reap(rig.queue, 1000000);
            strata_io_queue_wake(rig.queue);
            strata_io_queue_wake(rig.queue);
            cr_expect(strata_io_queue_reap(rig.queue, UINT64_MAX) == NULL);
        }
        close_rig(&rig);
    }
}

Test(queue, a_wait_ends_at_its_timeout)
{
    for (size_t b = 0; b < 2; b++) {
        struct rig rig = {0};
        open_rig(&rig, backend_of(b), 4, LONG_NS);
        uint64_t begin_ns = strata_now_ns();
        cr_expect(strata_io_queue_reap(rig.queue, 30000000) == NULL);
        uint64_t waited_ns = strata_now_ns() - begin_ns;
        cr_expect(waited_ns >= 25000000);
        close_rig(&rig);
    }
}

Test(queue, close_waits_for_what_was_never_reaped)
{
    for (size_t b = 0; b < 2; b++) {
        struct rig rig = {0};
        open_rig(&rig, backend_of(b), REQS, LONG_NS);
        for (uint32_t i = 0; i < REQS; i++)
            start(&rig, i, IO_READ);
        strata_io_queue_push(rig.queue);
        close_rig(&rig);
    }
}

Test(queue, close_waits_for_an_answer_that_is_late)
{
    struct rig rig = {0};
    open_failing(&rig, strata_io_ops_here(STRATA_IO_URING), IO_FAULT_LATE, IO_READ);
    rig.plan.delay_ns = SHORT_NS;
    uint64_t begin_ns = strata_now_ns();
    start(&rig, 0, IO_READ);
    strata_io_queue_push(rig.queue);
    close_rig(&rig);
    cr_expect(strata_now_ns() - begin_ns >= SHORT_NS);
}

Test(queue, close_of_nothing_is_fine)
{
    strata_io_queue_close(NULL);
}

#define CHUNK  ((uint64_t)1 << 30) /* what one registration may have */
#define REPEAT ((size_t)2 << 20)

/* More than a chunk for the price of a little: the same memory at many addresses. */
static void map_region(struct io_region *out)
{
    out->bytes = CHUNK + 4 * REPEAT;
    int fd = memfd_create("region", MFD_CLOEXEC);
    cr_assert(fd >= 0 && ftruncate(fd, (off_t)REPEAT) == 0);
    out->base = mmap(NULL, out->bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert(out->base != MAP_FAILED);
    for (uint64_t at = 0; at < out->bytes; at += REPEAT)
        cr_assert(mmap((uint8_t *)out->base + at, REPEAT, PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_FIXED | MAP_POPULATE, fd, 0) != MAP_FAILED);
    close(fd);
}

/* One request, from or to that address. */
static void move_piece(struct rig *rig, enum io_op op, void *buffer)
{
    rig->reqs[0] = (struct io_req){.op = op, .length = PIECE, .buffer = buffer};
    strata_io_queue_start(rig->queue, &rig->reqs[0]);
    cr_assert(reap(rig)->status == STRATA_OK, "%s", strata_io_queue_error(rig->queue)->message);
}

Test(queue, registered_memory_moves_the_same_bytes_within_a_chunk_and_across_two)
{
    struct rig rig = {0};
    int32_t cause;
    if (!strata_io_uring_permitted())
        cr_skip("no io_uring here: it is forbidden, or this kernel has none");
    map_region(&rig.region);
    open_rig(&rig, &strata_io_uring, 4, LONG_NS);
    bool registered = strata_io_queue_registered(rig.queue, &cause);
    cr_expect(registered == (cause == 0), "%s", strerror(cause));
    uint8_t *base = rig.region.base;
    uint8_t *places[] = {base, base + CHUNK - PIECE / 2, base + rig.region.bytes - PIECE,
                         rig.buffer};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        memset(places[i], (int)i + 1, PIECE);
        move_piece(&rig, IO_WRITE, places[i]);
        memset(places[i], 0xee, PIECE);
        move_piece(&rig, IO_READ, places[i]);
        for (size_t j = 0; j < PIECE; j++)
            cr_assert(places[i][j] == i + 1, "place %zu, byte %zu", i, j);
    }
    close_rig(&rig);
    munmap(rig.region.base, rig.region.bytes);
    if (!registered) {
        const char *strict = getenv("STRATA_TEST_FAIL_ON_SKIP");
        cr_assert(strict == NULL || strcmp(strict, "1") != 0, "%s", strerror(cause));
        cr_skip("registration is refused here: %s", strerror(cause));
    }
}

Test(queue, threads_and_a_queue_without_a_region_say_that_nothing_is_registered)
{
    for (uint32_t backend = 0; backend < 2; backend++) {
        struct rig rig = {0};
        uint8_t block[BLOCK];
        int32_t cause = 1;
        if (backend_of(backend) == &strata_io_threads)
            rig.region = (struct io_region){.base = block, .bytes = sizeof block};
        open_rig(&rig, backend_of(backend), 4, LONG_NS);
        cr_expect(!strata_io_queue_registered(rig.queue, &cause) && cause == 0);
        close_rig(&rig);
    }
}
