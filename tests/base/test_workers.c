#define _GNU_SOURCE

/* The pool: every item once, who gets which, several callers, seats, no denormal flushed. */

#include "strata/workers.h"

#include "base/topology.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#    include <xmmintrin.h>
#endif

/* A lost wake-up hangs: then the test fails instead. */
static strata_workers *make(uint32_t threads)
{
    strata_workers *workers;
    strata_error error = {0};
    strata_workers_desc desc = {.thread_count = threads};
    cr_assert_eq(strata_workers_create(&workers, &desc, &error), STRATA_OK, "%s",
                 error.message);
    return workers;
}

struct count_job {
    _Atomic uint32_t *counts;
    uint32_t thread_count;
};

static void count_item(void *user, uint32_t index, uint32_t worker)
{
    struct count_job *job = user;
    cr_assert_lt(worker, job->thread_count);
    job->counts[index]++;
}

Test(workers, every_item_runs_once)
{
    enum { N = 5000 };
    static _Atomic uint32_t counts[N];
    for (uint32_t threads = 1; threads <= 4; threads++) {
        strata_workers *workers = make(threads);
        cr_assert_eq(strata_workers_count(workers), threads);
        struct count_job job = {counts, threads};
        memset(counts, 0, sizeof counts);
        strata_workers_run(workers, STRATA_JOB_UPDATE, count_item, &job, N);
        for (uint32_t i = 0; i < N; i++)
            cr_assert_eq(counts[i], 1, "item %u ran %u times", i, counts[i]);
        strata_workers_destroy(workers);
    }
}

Test(workers, one_item_and_no_item)
{
    _Atomic uint32_t count = 0;
    strata_workers *workers = make(2);
    struct count_job job = {&count, 2};
    strata_workers_run(workers, STRATA_JOB_PANEL, count_item, &job, 0);
    cr_assert_eq(count, 0);
    strata_workers_run(workers, STRATA_JOB_PANEL, count_item, &job, 1);
    cr_assert_eq(count, 1);
    strata_workers_destroy(workers);
}

/* A job finished means its writes are seen, over thousands of hand-overs, awake and asleep. */
static void add_item(void *user, uint32_t index, uint32_t worker)
{
    (void)worker;
    ((uint64_t *)user)[index] += index + 1;
}

Test(workers, results_are_there_when_run_returns)
{
    strata_workers *workers = make(3);
    uint64_t values[8] = {0};
    for (uint32_t round = 0; round < 5000; round++) {
        strata_workers_run(workers, round % 2 ? STRATA_JOB_PANEL : STRATA_JOB_UPDATE, add_item,
                           values, 1 + round % 8);
        if (round % 500 == 0)
            usleep(2000); /* long enough that all workers sleep */
    }
    /* Item i runs where count > i: in (8 - i) of every 8 rounds. */
    for (uint32_t i = 0; i < 8; i++)
        cr_assert_eq(values[i], (i + 1) * 625 * (8 - i));
    strata_workers_destroy(workers);
}

struct caller {
    strata_workers *workers;
    uint32_t index;
    uint64_t sum; /* of the caller alone: its jobs do not overlap */
    _Atomic uint64_t items;
};

static void caller_item(void *user, uint32_t index, uint32_t worker)
{
    (void)index;
    (void)worker;
    ((struct caller *)user)->items++;
}

static void *call_many(void *arg)
{
    struct caller *caller = arg;
    for (uint32_t i = 0; i < 1000; i++) {
        uint32_t count = 1 + (i * 7 + caller->index) % 13;
        strata_workers_run(caller->workers,
                           (i + caller->index) % 2 ? STRATA_JOB_PANEL : STRATA_JOB_UPDATE,
                           caller_item, caller, count);
        caller->sum += count;
        cr_assert_eq(caller->items, caller->sum);
    }
    return NULL;
}

Test(workers, several_threads_run_jobs_at_once)
{
    enum { CALLERS = 5 };
    strata_workers *workers = make(2);
    struct caller callers[CALLERS];
    pthread_t threads[CALLERS];
    for (uint32_t i = 0; i < CALLERS; i++) {
        callers[i] = (struct caller){.workers = workers, .index = i};
        cr_assert_eq(pthread_create(&threads[i], NULL, call_many, &callers[i]), 0);
    }
    for (uint32_t i = 0; i < CALLERS; i++)
        pthread_join(threads[i], NULL);
    strata_workers_destroy(workers);
}

/*
 * The pool's condition variables, seen from outside: how many threads wait on one, how often a
 * wait began, and whether the thread that brings the panels waits. It waits with the pool's
 * mutex, so its job is then in the queue.
 */
static _Atomic int waiting;
static _Atomic int waits_begun;
static _Atomic bool panels_queued;
static _Thread_local bool brings_panels;

int __real_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex);
int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex);

int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex)
{
    if (brings_panels)
        panels_queued = true;
    waits_begun++;
    waiting++;
    int result = __real_pthread_cond_wait(condition, mutex);
    waiting--;
    return result;
}

static void wait_for(_Atomic bool *flag)
{
    while (!*flag)
        usleep(100);
}

/* One worker, so its order of items is the order of the log. */
struct order {
    strata_workers *workers;
    char log[16];
    uint32_t length;
    _Atomic bool update_started;
};

static void log_panel(void *user, uint32_t index, uint32_t worker)
{
    (void)index;
    (void)worker;
    struct order *order = user;
    order->log[order->length++] = 'p';
}

/* The first item holds the only worker until the panels have been queued behind the update. */
static void log_update(void *user, uint32_t index, uint32_t worker)
{
    (void)worker;
    struct order *order = user;
    order->log[order->length++] = 'u';
    if (index > 0)
        return;
    order->update_started = true;
    wait_for(&panels_queued);
}

static void *run_updates(void *arg)
{
    struct order *order = arg;
    strata_workers_run(order->workers, STRATA_JOB_UPDATE, log_update, order, 3);
    return NULL;
}

Test(workers, panels_overtake_the_only_workers_updates_between_two_items)
{
    struct order order = {.workers = make(1)};
    pthread_t updates;
    cr_assert_eq(pthread_create(&updates, NULL, run_updates, &order), 0);
    wait_for(&order.update_started);
    brings_panels = true;
    strata_workers_run(order.workers, STRATA_JOB_PANEL, log_panel, &order, 3);
    pthread_join(updates, NULL);
    cr_assert_str_eq(order.log, "upppuu");
    strata_workers_destroy(order.workers);
}

/*
 * Two workers, both in an update when two panels come. From then on one worker has the panels
 * and the other goes on with updates: a panel asks for two updates and ends when they have been
 * done; an update waits until it is asked for. Two panels at once, or two updates that wait at
 * once, are a failure, and then all are let go.
 */
#define MIXED_PANELS  2u
#define MIXED_UPDATES (2u + 2u * MIXED_PANELS + 1u)

struct mixture {
    strata_workers *workers;
    _Atomic uint32_t updates; /* begun */
    _Atomic uint32_t updating;
    _Atomic uint32_t panels; /* under way */
    _Atomic int32_t asked;   /* for updates, which have not begun */
    _Atomic uint32_t panels_done;
    _Atomic bool wrong;
};

/* Take one of the updates that were asked for. */
static bool take_asked(struct mixture *mixture)
{
    int32_t asked = mixture->asked;
    return asked > 0 && atomic_compare_exchange_strong(&mixture->asked, &asked, asked - 1);
}

static void mixed_update(void *user, uint32_t index, uint32_t worker)
{
    (void)worker;
    struct mixture *mixture = user;
    mixture->updates++;
    if (index < 2) {
        wait_for(&panels_queued);
        return;
    }
    if (++mixture->updating > 1 && mixture->panels_done < MIXED_PANELS)
        mixture->wrong = true;
    while (!take_asked(mixture) && mixture->panels_done < MIXED_PANELS && !mixture->wrong)
        usleep(100);
    mixture->updating--;
}

static void mixed_panel(void *user, uint32_t index, uint32_t worker)
{
    (void)index;
    (void)worker;
    struct mixture *mixture = user;
    if (++mixture->panels > 1)
        mixture->wrong = true;
    mixture->asked += 2;
    while (mixture->asked > 0 && !mixture->wrong)
        usleep(100);
    mixture->panels--;
    mixture->panels_done++;
}

static void *run_mixed_updates(void *arg)
{
    struct mixture *mixture = arg;
    strata_workers_run(mixture->workers, STRATA_JOB_UPDATE, mixed_update, mixture,
                       MIXED_UPDATES);
    return NULL;
}

Test(workers, half_of_them_go_on_updating_while_panels_wait)
{
    struct mixture mixture = {.workers = make(2)};
    pthread_t updates;
    cr_assert_eq(pthread_create(&updates, NULL, run_mixed_updates, &mixture), 0);
    while (mixture.updates < 2)
        usleep(100);
    brings_panels = true;
    strata_workers_run(mixture.workers, STRATA_JOB_PANEL, mixed_panel, &mixture, MIXED_PANELS);
    pthread_join(updates, NULL);
    cr_assert_not(mixture.wrong, "two panels at once, or two updates while panels waited");
    cr_assert_eq(mixture.panels_done, MIXED_PANELS);
    strata_workers_destroy(mixture.workers);
}

#if defined(__x86_64__)

/* Denormals and rounding: whatever the creator has set, a worker computes as IEEE says. */
static void denormal_item(void *user, uint32_t index, uint32_t worker)
{
    (void)index;
    (void)worker;
    volatile float *values = user;
    values[1] = values[0] * 0.5f;
}

Test(workers, denormals_survive_a_creator_that_flushes_them)
{
    _mm_setcsr(_mm_getcsr() | 0x8040u | 0x2000u); /* FTZ, DAZ, round down */
    strata_workers *workers = make(1);
    _mm_setcsr(0x1f80);
    volatile float values[2] = {0x1p-126f, 0};
    strata_workers_run(workers, STRATA_JOB_PANEL, denormal_item, (void *)values, 1);
    cr_assert_eq(values[1], 0x1p-127f);
    values[0] = 0x1p-148f;
    strata_workers_run(workers, STRATA_JOB_PANEL, denormal_item, (void *)values, 1);
    cr_assert_eq(values[1], 0x1p-149f);
    strata_workers_destroy(workers);
}

Test(workers, denormals_survive_a_caller_that_flushes_them)
{
    strata_workers_desc desc = {.thread_count = 1, .unbound = true};
    strata_workers *workers;
    cr_assert_eq(strata_workers_create(&workers, &desc, NULL), STRATA_OK);
    volatile float values[2] = {0x1p-126f, 0};
    uint32_t flushing = _mm_getcsr() | 0x8040u;
    _mm_setcsr(flushing);
    strata_workers_run(workers, STRATA_JOB_PANEL, denormal_item, (void *)values, 1);
    uint32_t after = _mm_getcsr();
    _mm_setcsr(0x1f80);
    cr_assert_eq(values[1], 0x1p-127f);
    cr_assert_eq(after & 0xffc0, flushing & 0xffc0);
    strata_workers_destroy(workers);
}

#endif

struct seat {
    pthread_t caller;
    uint32_t by_caller;
};

static void seat_item(void *user, uint32_t index, uint32_t worker)
{
    (void)index;
    cr_assert_eq(worker, 0);
    struct seat *seat = user;
    seat->by_caller += pthread_equal(pthread_self(), seat->caller) ? 1 : 0;
}

/* An unbound worker's seat is any caller's. */
Test(workers, a_caller_computes_panels_in_an_idle_seat_and_never_updates)
{
    strata_workers_desc desc = {.thread_count = 1, .unbound = true};
    strata_workers *workers;
    cr_assert_eq(strata_workers_create(&workers, &desc, NULL), STRATA_OK);
    struct seat seat = {.caller = pthread_self()};
    for (uint32_t round = 0; round < 100; round++) {
        strata_workers_run(workers, STRATA_JOB_UPDATE, seat_item, &seat, 3);
        cr_assert_eq(seat.by_caller, 3 * round);
        strata_workers_run(workers, STRATA_JOB_PANEL, seat_item, &seat, 3);
        cr_assert_eq(seat.by_caller, 3 * round + 3);
    }
    strata_workers_destroy(workers);
}

struct where {
    cpu_set_t set[8];
    uint32_t count; /* of items */
    _Atomic uint32_t arrived;
};

/* Each item waits for all others, so each runs on a worker of its own. */
static void where_item(void *user, uint32_t index, uint32_t worker)
{
    (void)index;
    struct where *where = user;
    sched_getaffinity(0, sizeof where->set[worker], &where->set[worker]);
    where->arrived++;
    while (where->arrived < where->count)
        usleep(100);
}

static struct where ask_where(uint32_t threads)
{
    strata_workers *workers = make(threads);
    struct where where = {.count = threads};
    strata_workers_run(workers, STRATA_JOB_UPDATE, where_item, &where, threads);
    strata_workers_destroy(workers);
    return where;
}

Test(workers, each_is_bound_to_a_core_of_its_own)
{
    struct topology topology;
    cr_assert_eq(strata_topology_read(&topology, NULL, NULL), STRATA_OK);
    if (topology.core_count < 2)
        cr_skip_test("one core only");
    struct where where = ask_where(2);
    for (uint32_t i = 0; i < 2; i++) {
        cr_assert_eq(CPU_COUNT(&where.set[i]), 1);
        cr_assert(CPU_ISSET(topology.pu[i], &where.set[i]));
    }
}

Test(workers, more_threads_than_cores_stay_inside_the_mask_in_equal_shares)
{
    struct topology topology;
    cr_assert_eq(strata_topology_read(&topology, NULL, NULL), STRATA_OK);
    cr_assert(strata_topology_bind(topology.pu[0]));
    struct where where = ask_where(4);
    for (uint32_t i = 0; i < 4; i++) {
        cr_assert_eq(CPU_COUNT(&where.set[i]), 1);
        cr_assert(CPU_ISSET(topology.pu[0], &where.set[i]));
    }
}

Test(workers, default_is_at_most_one_per_core)
{
    struct topology topology;
    cr_assert_eq(strata_topology_read(&topology, NULL, NULL), STRATA_OK);
    strata_workers *workers = make(0);
    cr_assert_geq(strata_workers_count(workers), 1);
    cr_assert_leq(strata_workers_count(workers), topology.core_count);
    strata_workers_destroy(workers);
}

static uint32_t count_with(uint32_t spared)
{
    strata_workers_desc desc = {.unbound = true, .spared = spared};
    strata_workers *pool;
    cr_assert_eq(strata_workers_create(&pool, &desc, NULL), STRATA_OK);
    uint32_t count = strata_workers_count(pool);
    strata_workers_destroy(pool);
    return count;
}

Test(workers, spared_cores_get_no_worker_but_one_worker_stays)
{
    uint32_t all = count_with(0);
    cr_assert_eq(count_with(1), all > 1 ? all - 1 : 1);
    cr_assert_eq(count_with(all), 1);
    cr_assert_eq(count_with(UINT32_MAX), 1);
}

Test(workers, an_absurd_thread_count_is_refused)
{
    strata_workers *workers = (void *)1;
    strata_error error = {0};
    strata_workers_desc desc = {.thread_count = 4 * STRATA_MAX_PUS + 1};
    cr_assert_eq(strata_workers_create(&workers, &desc, &error), STRATA_E_INVALID);
    cr_assert_null(workers);
    cr_assert(strstr(error.message, "4097 worker threads"), "%s", error.message);
}

/* A worker that spins would never wait, and one that polls would begin to wait again and again.
 * One that the job has woken may run as late as the machine likes, but once an item at most. */
Test(workers, idle_workers_sleep)
{
    enum { ITEMS = 8 };
    strata_workers *workers = make(2);
    uint64_t value[ITEMS] = {0};
    strata_workers_run(workers, STRATA_JOB_PANEL, add_item, value, ITEMS);
    while (waiting < 2)
        usleep(100);
    int begun = waits_begun;
    usleep(300000);
    while (waiting < 2)
        usleep(100);
    cr_expect_leq(waits_begun, begun + ITEMS, "an idle worker woke again and again");
    strata_workers_destroy(workers);
}

Test(workers, destroy_accepts_null)
{
    strata_workers_destroy(NULL);
}
