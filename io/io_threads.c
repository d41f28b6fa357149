#define _GNU_SOURCE
/*
 * The backend for machines that forbid io_uring: a few threads with pread, pwrite and
 * fdatasync.
 *
 * Containers forbid io_uring by default, so runs depend on this backend. With requests of
 * megabytes a handful of threads reaches the rate of the device; more would only cost stacks.
 * They exist from open on: a thread per request would allocate in the middle of a step.
 *
 * Attempts are copied into a ring of jobs, results into a ring of results. Both have room for
 * everything that may be in flight, so neither side waits for room.
 *
 * A thread that is stuck in the kernel can be neither stopped nor joined. Then close never
 * frees the pool's memory: a few kilobytes are lost, beside a dead drive. The thread may still
 * copy to the buffer of its job, so the queue's close reports it, and the buffer's owner keeps
 * the buffer mapped.
 *
 * Thread: the queue's owner; wake from any; the pool's own. One mutex guards all of it.
 */

#include "io/io.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/thread.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Four reach the device's rate with requests of 1 MiB (measured); eight leave a margin. */
#define MAX_THREADS 8

/* pread needs next to none; sanitizers and the C library need some. */
#define STACK_BYTES (256u << 10)

struct pool {
    struct io_backend base;
    const struct io_file *files; /* borrowed */
    uint32_t depth;
    uint32_t thread_count;
    pthread_t threads[MAX_THREADS];
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t work;
    pthread_cond_t news;
    struct io_attempt *jobs; /* ring of depth */
    uint32_t job_first;
    uint32_t job_count;
    struct io_result *results; /* ring of depth */
    uint32_t result_first;
    uint32_t result_count;
    uint32_t busy; /* jobs that a thread is working on */
    bool woken;
    bool stopping;
};

static uint64_t pool_bytes(uint32_t depth)
{
    return sizeof(struct pool) +
           (uint64_t)depth * (sizeof(struct io_attempt) + sizeof(struct io_result));
}

static int64_t perform_job(int fd, const struct io_attempt *job)
{
    int64_t result = -1;
    switch (job->op) {
    case IO_READ:
        result = pread(fd, job->buffer, job->length, (off_t)job->offset);
        break;
    case IO_WRITE:
        result = pwrite(fd, job->buffer, job->length, (off_t)job->offset);
        break;
    case IO_SYNC:
        result = fdatasync(fd);
        break;
    }
    return result < 0 ? -errno : result;
}

static void *work(void *user)
{
    struct pool *pool = user;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (pool->job_count == 0 && !pool->stopping)
            pthread_cond_wait(&pool->work, &pool->lock);
        if (pool->stopping)
            break;
        struct io_attempt job = pool->jobs[pool->job_first];
        pool->job_first = (pool->job_first + 1) % pool->depth;
        pool->job_count--;
        pool->busy++;
        int fd = pool->files[job.file_index].fd;
        pthread_mutex_unlock(&pool->lock);

        int64_t result = perform_job(fd, &job);

        pthread_mutex_lock(&pool->lock);
        pool->busy--;
        uint32_t last = (pool->result_first + pool->result_count++) % pool->depth;
        pool->results[last] = (struct io_result){.id = job.id, .result = result};
        pthread_cond_signal(&pool->news);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

/* Ask the threads to end. true: some are in the kernel and may never return. */
static bool stop_threads(struct pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    bool stuck = pool->busy > 0;
    pool->stopping = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    return stuck;
}

static void join_threads(struct pool *pool)
{
    for (uint32_t i = 0; i < pool->thread_count; i++)
        pthread_join(pool->threads[i], NULL);
}

static strata_status start_threads(struct pool *pool, uint32_t count, strata_error *error)
{
    int rc = 0;
    while (pool->thread_count < count && rc == 0) {
        rc = strata_thread_start(&pool->threads[pool->thread_count], STACK_BYTES, work, pool);
        if (rc == 0)
            pool->thread_count++;
    }
    if (rc == 0)
        return STRATA_OK;
    (void)stop_threads(pool);
    join_threads(pool);
    return strata_fail(error, STRATA_E_NOMEM, rc, "host: starting I/O thread %u of %u: %s",
                       (unsigned)pool->thread_count + 1, (unsigned)count, strerror(rc));
}

static void destroy_pool(struct pool *pool)
{
    pthread_cond_destroy(&pool->news);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

static strata_status pool_open(struct io_backend **out, const struct io_backend_desc *desc,
                               strata_error *error)
{
    struct pool *pool = calloc(1, pool_bytes(desc->depth));
    if (pool == NULL)
        return strata_fail(error, STRATA_E_NOMEM, ENOMEM, "host: no memory for an I/O pool");
    pool->base.ops = &strata_io_threads;
    pool->files = desc->files;
    pool->depth = desc->depth;
    pool->jobs = (struct io_attempt *)(pool + 1);
    pool->results = (struct io_result *)(pool->jobs + desc->depth);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->news, &monotonic);
    pthread_condattr_destroy(&monotonic);
    uint32_t count = desc->depth < MAX_THREADS ? desc->depth : MAX_THREADS;
    strata_status status = start_threads(pool, count, error);
    if (status != STRATA_OK) {
        destroy_pool(pool);
        return status;
    }
    *out = &pool->base;
    return STRATA_OK;
}

static void pool_close(struct io_backend *backend)
{
    struct pool *pool = (struct pool *)backend;
    if (stop_threads(pool)) {
        for (uint32_t i = 0; i < pool->thread_count; i++)
            pthread_detach(pool->threads[i]);
        return;
    }
    join_threads(pool);
    destroy_pool(pool);
}

static uint32_t pool_start(struct io_backend *backend, const struct io_attempt *attempts,
                           uint32_t count)
{
    struct pool *pool = (struct pool *)backend;
    pthread_mutex_lock(&pool->lock);
    uint32_t room = pool->depth - pool->job_count - pool->busy - pool->result_count;
    uint32_t started = count < room ? count : room;
    for (uint32_t i = 0; i < started; i++) {
        uint32_t last = (pool->job_first + pool->job_count++) % pool->depth;
        pool->jobs[last] = attempts[i];
        pthread_cond_signal(&pool->work);
    }
    pthread_mutex_unlock(&pool->lock);
    return started;
}

/* Wait once for a result, a wake or the time. false: the time is over. */
static bool wait_for_news(struct pool *pool, uint64_t until_ns)
{
    if (until_ns == UINT64_MAX)
        return pthread_cond_wait(&pool->news, &pool->lock) == 0;
    struct timespec ts = {
        .tv_sec = (time_t)(until_ns / 1000000000u),
        .tv_nsec = (long)(until_ns % 1000000000u),
    };
    return pthread_cond_timedwait(&pool->news, &pool->lock, &ts) == 0;
}

static int32_t pool_reap(struct io_backend *backend, struct io_result *out, uint32_t capacity,
                         uint64_t timeout_ns)
{
    struct pool *pool = (struct pool *)backend;
    uint64_t now_ns = strata_now_ns();
    uint64_t until_ns = timeout_ns < UINT64_MAX - now_ns ? now_ns + timeout_ns : UINT64_MAX;
    bool wait = timeout_ns > 0;
    pthread_mutex_lock(&pool->lock);
    while (wait && pool->result_count == 0 && !pool->woken)
        wait = wait_for_news(pool, until_ns);
    pool->woken = false;
    uint32_t count = pool->result_count < capacity ? pool->result_count : capacity;
    for (uint32_t i = 0; i < count; i++) {
        out[i] = pool->results[pool->result_first];
        pool->result_first = (pool->result_first + 1) % pool->depth;
    }
    pool->result_count -= count;
    pthread_mutex_unlock(&pool->lock);
    return (int32_t)count;
}

static void pool_wake(struct io_backend *backend)
{
    struct pool *pool = (struct pool *)backend;
    pthread_mutex_lock(&pool->lock);
    pool->woken = true;
    pthread_cond_signal(&pool->news);
    pthread_mutex_unlock(&pool->lock);
}

const struct io_ops strata_io_threads = {
    .name = "threads",
    .bytes = pool_bytes,
    .open = pool_open,
    .close = pool_close,
    .start = pool_start,
    .reap = pool_reap,
    .wake = pool_wake,
};
