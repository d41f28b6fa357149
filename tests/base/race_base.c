#define _GNU_SOURCE

/*
 * The threaded parts of base/ under load, as a plain program: Criterion does not start under
 * the thread sanitizer, and the thread sanitizer is the referee of what is shared here. It
 * prints a line and exits 0, or says what went wrong and exits 1.
 */

#include "base/channel.h"
#include "base/error.h"
#include "strata/workers.h"

#include <pthread.h>

#define CALLERS  4
#define ROUNDS   3000
#define MESSAGES 20000

struct shared {
    strata_workers *workers;
    struct channel *channel;
};

struct caller {
    struct shared *shared;
    pthread_t thread;
    uint64_t
        cells[16]; /* plain memory: an item of one job writes it, the next job's item adds */
    bool good;
};

static void add_item(void *user, uint32_t index, uint32_t worker)
{
    (void)worker;
    ((struct caller *)user)->cells[index]++;
}

/* Jobs of both classes, whose results are read without a lock when run has returned. */
static void *run_jobs(void *arg)
{
    struct caller *caller = arg;
    caller->good = true;
    for (uint32_t i = 1; i <= ROUNDS; i++) {
        strata_workers_run(caller->shared->workers, i % STRATA_JOB_CLASS_COUNT, add_item,
                           caller, 16);
        for (uint32_t k = 0; k < 16; k++)
            caller->good = caller->good && caller->cells[k] == i;
    }
    return NULL;
}

/* What a message points to was written before it was sent. */
static void *send_numbers(void *arg)
{
    struct caller *caller = arg;
    for (uint64_t i = 0; i < MESSAGES; i++)
        strata_channel_send(caller->shared->channel, &i);
    return NULL;
}

static bool receive_all(struct shared *shared)
{
    uint64_t sum = 0;
    uint64_t number;
    for (uint32_t i = 0; i < CALLERS * MESSAGES; i++) {
        if (!strata_channel_receive(shared->channel, &number, UINT64_C(60000000000)))
            return false;
        sum += number;
    }
    return sum == (uint64_t)CALLERS * MESSAGES * (MESSAGES - 1) / 2;
}

static void start(struct caller *callers, struct shared *shared, void *(*run)(void *))
{
    for (uint32_t i = 0; i < CALLERS; i++) {
        callers[i] = (struct caller){.shared = shared, .good = true};
        STRATA_CHECK(pthread_create(&callers[i].thread, NULL, run, &callers[i]) == 0);
    }
}

static bool join(struct caller *callers)
{
    bool good = true;
    for (uint32_t i = 0; i < CALLERS; i++) {
        pthread_join(callers[i].thread, NULL);
        good = good && callers[i].good;
    }
    return good;
}

int main(void)
{
    strata_error error = {0};
    struct shared shared = {0};
    struct caller callers[CALLERS];
    strata_workers_desc desc = {.thread_count = 3};
    if (strata_workers_create(&shared.workers, &desc, &error) != STRATA_OK ||
        strata_channel_create(&shared.channel, 5, sizeof(uint64_t), &error) != STRATA_OK) {
        fprintf(stderr, "race_base: %s\n", error.message);
        return 1;
    }
    start(callers, &shared, run_jobs);
    bool jobs_good = join(callers);
    start(callers, &shared, send_numbers);
    bool messages_good = receive_all(&shared);
    join(callers);
    strata_channel_destroy(shared.channel);
    strata_workers_destroy(shared.workers);
    printf("race_base: jobs %s, messages %s\n", jobs_good ? "good" : "wrong",
           messages_good ? "good" : "wrong");
    return jobs_good && messages_good ? 0 : 1;
}
