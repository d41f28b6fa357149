#define _GNU_SOURCE

/*
 * The pool of CPU workers: threads that are made once, and jobs that lie on their callers'
 * stacks.
 *
 * Five facts shape this file.
 *
 * A job is megabytes of work, and its items take tens of microseconds at least. So one mutex
 * around "take the next item" costs little, and a reader can see that the code is right. No
 * memory is allocated per job: it is linked in from the stack of strata_workers_run(), which
 * does not return before the last item is done, because the count of done items changes under
 * the same mutex.
 *
 * Workers choose their job anew after every item. While both kinds wait, half of the workers
 * update and the others compute panels; while only one kind waits, all work on it. Panels are
 * limited by the cores and updates by memory, and one core's updates use most of the memory
 * bandwidth. Two cores that did all panels first and then all updates took 1.36 times an even
 * share of the two times on one core; side by side they take 1.06 (`offload-bench gemm`). A
 * panel waits for at most one item of an update. A caller that waits for an update queues no
 * panels meanwhile, so no priority has to be raised for it.
 *
 * Two matrix products are microseconds apart, and waking a sleeping thread costs about as much
 * as a small panel. So an idle worker first spins on one word, for at most SPIN_NS, and then
 * sleeps. Longer spinning was measured with OpenMP's teams: it takes the core that I/O needs.
 * For the same reason the mutex spins before it sleeps.
 *
 * A caller that brings panels has nothing else to do until they are done. So it computes too:
 * it takes the seat of the worker that is bound to its core, if this worker is idle. Then no
 * thread has to be woken on that core, neither for the first panel nor after the last. A seat
 * serves one thread at a time, so at most thread_count items run at once, each with a worker
 * number of its own. If jobs are queued already, the workers are awake and need their cores:
 * then the caller sleeps.
 *
 * Every worker keeps denormals and rounds to nearest, whatever the thread that made the pool
 * had set (a library built with -ffast-math flushes them): the bits of a result must not
 * depend on the thread that computes it.
 *
 * Thread: the workers' row of docs/threads.md. Any thread runs jobs.
 */

#include "base/workers.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/thread.h"
#include "base/topology.h"

#include <fenv.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

/* Below the 50 us that waking a team of sleeping threads was measured to cost, so a spin that
 * finds no work loses less than a sleep. */
#define SPIN_NS 20000u

/* More threads per core than this is a typing error. */
#define THREADS_PER_CORE_MAX 4u

struct job {
    strata_job_class job_class;
    strata_job_fn fn;
    void *user;
    uint32_t count;
    uint32_t started;
    /* Written under the mutex, read without it by a caller that spins. Relaxed on both sides:
     * what the items wrote, the caller reads after it has taken the mutex. */
    _Atomic uint32_t done;
    struct job *next;         /* in its class's queue, until its last item has been started */
    pthread_cond_t *finished; /* of the caller, who may sleep on it */
};

struct job_queue {
    struct job *head;
    struct job *tail;
};

struct worker {
    pthread_t thread;
    strata_workers *pool;
    uint32_t index;
    uint32_t pu;
    bool bound;
    /* The mutex guards the rest. */
    pthread_cond_t wake;
    bool asleep; /* waits for wake, which was not signalled yet */
    bool busy;   /* runs an item, or a caller has its seat */
};

struct strata_workers {
    pthread_mutex_t mutex;
    struct job_queue queues[STRATA_JOB_CLASS_COUNT];
    uint32_t running[STRATA_JOB_CLASS_COUNT]; /* items */
    bool stop;
    uint32_t holds;
    bool destroyed; /* strata_workers_destroy() was called; the last release frees the pool */
    /* Counts the jobs that were queued, and the stop. The bringer of work writes it under the
     * mutex; spinning workers read it without. Relaxed on both sides: it only tells a worker
     * to look, and the worker then looks under the mutex. */
    _Atomic uint32_t arrivals;
    uint32_t thread_count;
    struct worker workers[];
};

/* The caller holds the mutex, here and in the functions below that take a queue or a job. */
static struct job *next_job(const strata_workers *pool)
{
    struct job *panels = pool->queues[STRATA_JOB_PANEL].head;
    struct job *updates = pool->queues[STRATA_JOB_UPDATE].head;
    bool few_update = pool->running[STRATA_JOB_UPDATE] < pool->thread_count / 2;
    return updates && (few_update || !panels) ? updates : panels;
}

static void drop_head(struct job_queue *queue)
{
    queue->head = queue->head->next;
    if (!queue->head)
        queue->tail = NULL;
}

static void append_job(struct job_queue *queue, struct job *job)
{
    if (queue->tail)
        queue->tail->next = job;
    else
        queue->head = job;
    queue->tail = job;
}

static bool is_done(const struct job *job)
{
    return atomic_load_explicit(&job->done, memory_order_relaxed) == job->count;
}

/* Release the mutex and spin until work arrives, until job (may be NULL) is done or until the
 * time is up; then lock it again. */
static void spin_for_work(strata_workers *pool, const struct job *job)
{
    uint32_t seen = atomic_load_explicit(&pool->arrivals, memory_order_relaxed);
    pthread_mutex_unlock(&pool->mutex);
    uint64_t end_ns = strata_now_ns() + SPIN_NS;
    while (atomic_load_explicit(&pool->arrivals, memory_order_relaxed) == seen &&
           !(job && is_done(job)) && strata_now_ns() < end_ns)
        ;
    pthread_mutex_lock(&pool->mutex);
}

static void wait_for_work(struct worker *worker)
{
    strata_workers *pool = worker->pool;
    if (!worker->busy)
        spin_for_work(pool, NULL);
    while ((worker->busy || !next_job(pool)) && !pool->stop) {
        worker->asleep = true;
        pthread_cond_wait(&worker->wake, &pool->mutex);
        worker->asleep = false;
    }
}

static void wake_worker(struct worker *worker)
{
    worker->asleep = false;
    pthread_cond_signal(&worker->wake);
}

/* The pool whose item runs in this thread. An item that brings a job to its own pool might
 * wait for itself, so it is refused. */
static _Thread_local const strata_workers *running_for;

/* Start an item of a job, run it without the mutex, and account for it. */
static void run_item(strata_workers *pool, struct job *job, uint32_t worker)
{
    uint32_t index = job->started++;
    if (job->started == job->count)
        drop_head(&pool->queues[job->job_class]);
    pool->running[job->job_class]++;
    pthread_mutex_unlock(&pool->mutex);
    const strata_workers *outer = running_for;
    running_for = pool;
    job->fn(job->user, index, worker);
    running_for = outer;
    pthread_mutex_lock(&pool->mutex);
    pool->running[job->job_class]--;
    atomic_fetch_add_explicit(&job->done, 1, memory_order_relaxed);
    if (is_done(job))
        pthread_cond_signal(job->finished);
}

static void *worker_main(void *arg)
{
    struct worker *worker = arg;
    strata_workers *pool = worker->pool;
    fesetenv(FE_DFL_ENV);
    char name[16];
    snprintf(name, sizeof name, "strata-w%u", worker->index % 10000);
    pthread_setname_np(pthread_self(), name);
    /* A failure costs speed and changes no bit; the PU was in our own mask a moment ago. */
    if (worker->bound)
        strata_topology_bind(worker->pu);

    pthread_mutex_lock(&pool->mutex);
    for (;;) {
        struct job *job = worker->busy ? NULL : next_job(pool);
        if (job) {
            worker->busy = true;
            run_item(pool, job, worker->index);
            worker->busy = false;
        } else if (pool->stop) {
            break;
        } else {
            wait_for_work(worker);
        }
    }
    pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

static void stop_and_join(strata_workers *pool, uint32_t count)
{
    pthread_mutex_lock(&pool->mutex);
    pool->stop = true;
    atomic_fetch_add_explicit(&pool->arrivals, 1, memory_order_relaxed);
    for (uint32_t i = 0; i < count; i++)
        wake_worker(&pool->workers[i]);
    pthread_mutex_unlock(&pool->mutex);
    for (uint32_t i = 0; i < count; i++) {
        pthread_join(pool->workers[i].thread, NULL);
        pthread_cond_destroy(&pool->workers[i].wake);
    }
}

static strata_status start_worker_threads(strata_workers *pool, const struct topology *topology,
                                          bool bound, strata_error *error)
{
    int result = 0;
    uint32_t started = 0;
    while (started < pool->thread_count && result == 0) {
        struct worker *worker = &pool->workers[started];
        *worker = (struct worker){.pool = pool,
                                  .index = started,
                                  .pu = topology->pu[started % topology->pu_count],
                                  .bound = bound,
                                  .wake = PTHREAD_COND_INITIALIZER};
        result = strata_thread_start(&worker->thread, 0, worker_main, worker);
        started += result == 0 ? 1 : 0;
    }
    if (result == 0)
        return STRATA_OK;
    stop_and_join(pool, started);
    return strata_fail(error, STRATA_E_NOMEM, result,
                       "worker %u of %u could not be started: %s", started + 1,
                       pool->thread_count, strerror(result));
}

static void free_pool(strata_workers *pool)
{
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}

/* The number of threads where the descriptor has none. */
static uint32_t default_count(const strata_workers_desc *desc, const struct topology *topology)
{
    uint32_t count = strata_topology_threads(topology);
    return count > desc->spared ? count - desc->spared : 1;
}

static strata_status create_for(strata_workers **out, const strata_workers_desc *desc,
                                const struct topology *topology, strata_error *error)
{
    uint32_t count = desc->thread_count ? desc->thread_count : default_count(desc, topology);
    if (count > topology->core_count * THREADS_PER_CORE_MAX)
        return strata_fail(
            error, STRATA_E_INVALID, 0,
            "%u worker threads: at most %u, four for each of the %u cores in the "
            "affinity mask",
            count, topology->core_count * THREADS_PER_CORE_MAX, topology->core_count);
    strata_workers *pool = calloc(1, sizeof *pool + count * sizeof pool->workers[0]);
    if (!pool)
        return strata_fail(error, STRATA_E_NOMEM, 0, "pool of %u workers: out of memory",
                           count);
    pool->thread_count = count;
    pthread_mutexattr_t adaptive;
    pthread_mutexattr_init(&adaptive);
    pthread_mutexattr_settype(&adaptive, PTHREAD_MUTEX_ADAPTIVE_NP);
    pthread_mutex_init(&pool->mutex, &adaptive); // It fails only for types that do not exist.
    pthread_mutexattr_destroy(&adaptive);
    strata_status status = start_worker_threads(pool, topology, !desc->unbound, error);
    if (status == STRATA_OK)
        *out = pool;
    else
        free_pool(pool);
    return status;
}

strata_status strata_workers_create(strata_workers **out, const strata_workers_desc *desc,
                                    strata_error *error)
{
    if (out == NULL)
        return strata_fail(error, STRATA_E_INVALID, 0, "workers: out is NULL");
    *out = NULL;
    if (desc == NULL)
        return strata_fail(error, STRATA_E_INVALID, 0, "workers: the descriptor is NULL");
    /* On the heap: it has 4 KiB of PU numbers, and a caller's stack may be small. */
    struct topology *topology = malloc(sizeof *topology);
    if (!topology)
        return strata_fail(error, STRATA_E_NOMEM, 0, "topology: out of memory");
    strata_status status = strata_topology_read(topology, desc->near_cpus, error);
    if (status == STRATA_OK)
        status = create_for(out, desc, topology, error);
    free(topology);
    return status;
}

static void end_pool(strata_workers *pool)
{
    stop_and_join(pool, pool->thread_count);
    free_pool(pool);
}

void strata_workers_hold(strata_workers *workers)
{
    pthread_mutex_lock(&workers->mutex);
    workers->holds++;
    pthread_mutex_unlock(&workers->mutex);
}

void strata_workers_release(strata_workers *workers)
{
    pthread_mutex_lock(&workers->mutex);
    workers->holds--;
    bool last = workers->destroyed && workers->holds == 0;
    pthread_mutex_unlock(&workers->mutex);
    if (last)
        end_pool(workers);
}

void strata_workers_destroy(strata_workers *workers)
{
    if (!workers)
        return;
    pthread_mutex_lock(&workers->mutex);
    bool first = !workers->destroyed;
    workers->destroyed = true;
    bool last = first && workers->holds == 0;
    pthread_mutex_unlock(&workers->mutex);
    if (last)
        end_pool(workers);
}

/* The caller holds the mutex here too, and in give_seat_back() and serve_seat(). */
static struct worker *take_seat(strata_workers *pool)
{
    uint32_t pu = (uint32_t)sched_getcpu();
    for (uint32_t i = 0; i < pool->thread_count; i++) {
        struct worker *worker = &pool->workers[i];
        if (!worker->busy && (worker->pu == pu || !worker->bound)) {
            worker->busy = true;
            return worker;
        }
    }
    return NULL;
}

static void give_seat_back(struct worker *seat)
{
    seat->busy = false;
    if (seat->asleep && next_job(seat->pool))
        wake_worker(seat);
}

/* Do the work of the seat's worker until the job is done or no work is left. */
static void serve_seat(struct worker *seat, const struct job *job)
{
    fenv_t own;
    fegetenv(&own);
    fesetenv(FE_DFL_ENV);
    bool spun = false;
    while (!is_done(job)) {
        struct job *next = next_job(seat->pool);
        if (next)
            run_item(seat->pool, next, seat->index);
        else if (spun)
            break;
        else
            spin_for_work(seat->pool, job);
        spun = !next;
    }
    fesetenv(&own);
    give_seat_back(seat);
}

strata_status strata_workers_run(strata_workers *workers, strata_job_class job_class,
                                 strata_job_fn fn, void *user, uint32_t count)
{
    if (!workers || !fn || (uint32_t)job_class >= STRATA_JOB_CLASS_COUNT)
        return STRATA_E_INVALID;
    if (running_for == workers)
        return STRATA_E_STATE;
    if (count == 0)
        return STRATA_OK;
    pthread_cond_t finished = PTHREAD_COND_INITIALIZER;
    struct job job = {
        .job_class = job_class, .fn = fn, .user = user, .count = count, .finished = &finished};
    pthread_mutex_lock(&workers->mutex);
    bool alone = job_class == STRATA_JOB_PANEL && !next_job(workers);
    struct worker *seat = alone ? take_seat(workers) : NULL;
    append_job(&workers->queues[job_class], &job);
    atomic_fetch_add_explicit(&workers->arrivals, 1, memory_order_relaxed);
    uint32_t more = count - (seat ? 1 : 0);
    for (uint32_t i = 0; i < workers->thread_count && more > 0; i++) {
        if (workers->workers[i].asleep && !workers->workers[i].busy) {
            wake_worker(&workers->workers[i]);
            more--;
        }
    }
    if (seat)
        serve_seat(seat, &job);
    while (!is_done(&job))
        pthread_cond_wait(&finished, &workers->mutex);
    pthread_mutex_unlock(&workers->mutex);
    pthread_cond_destroy(&finished);
    return STRATA_OK;
}

uint32_t strata_workers_count(const strata_workers *workers)
{
    return workers ? workers->thread_count : 0;
}
