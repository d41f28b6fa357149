#define _GNU_SOURCE
/*
 * Several threads against one store, with a plain main, because the test framework does not
 * start under the thread sanitizer.
 *
 *     stress_store [ROUNDS]        default 40
 *
 * Each thread owns some places and keeps a transfer of each under way: its done function, on an
 * I/O thread, hands the place back, and the owner checks what was read and starts the next. Run
 * over both backends, over one that cuts transfers short, and over one that fails for good from
 * some request on, where all that may be asked is that every transfer comes back.
 *
 * Exit 0: every byte was right; 1: it was not; the sanitizer has its own.
 */

#include "base/channel.h"
#include "base/error.h"
#include "tests/support/io_fault.h"
#include "tests/support/store_rig.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#define THREADS 4u
#define PLACES  (RIG_PLACES / THREADS) /* per thread */

struct worker {
    struct store_rig *rig;
    struct channel *returned; /* of struct store_io *; from the I/O threads */
    uint32_t rounds;
    bool may_fail;
    struct store_io ios[PLACES];
    uint8_t *buffers[PLACES];
    uint8_t *expected;
    uint32_t round_of[PLACES];
    uint32_t wrong;
    uint32_t refused;
};

static void give_back(void *user, struct store_io *io)
{
    struct worker *worker = user;
    strata_channel_send(worker->returned, &io);
}

/* Even turns write the next round, odd ones read it back. */
static void start_turn(struct worker *worker, uint32_t slot, uint32_t turn)
{
    struct store_io *io = &worker->ios[slot];
    io->write = turn % 2 == 0;
    if (io->write)
        strata_store_rig_pattern(worker->rig, io->place, ++worker->round_of[slot], io->buffer);
    else
        memset(io->buffer, 0xee, worker->rig->place_bytes[io->place]);
    strata_store_start(worker->rig->store, io);
}

static void check_turn(struct worker *worker, uint32_t slot)
{
    struct store_io *io = &worker->ios[slot];
    if (io->status != STRATA_OK) {
        worker->refused++;
        return;
    }
    strata_store_rig_pattern(worker->rig, io->place, worker->round_of[slot], worker->expected);
    if (memcmp(io->buffer, worker->expected, worker->rig->place_bytes[io->place]) != 0)
        worker->wrong++;
}

static void *run_worker(void *user)
{
    struct worker *worker = user;
    uint32_t turns[PLACES] = {0};
    uint32_t under_way = PLACES;
    for (uint32_t i = 0; i < PLACES; i++)
        start_turn(worker, i, 0);
    while (under_way > 0) {
        struct store_io *io;
        STRATA_CHECK(strata_channel_receive(worker->returned, &io, UINT64_MAX));
        uint32_t slot = (uint32_t)(io - worker->ios);
        check_turn(worker, slot);
        /* A failed write leaves nothing to read: go on writing, and be refused. */
        turns[slot] += io->status == STRATA_OK ? 1 : 2;
        if (turns[slot] < 2 * worker->rounds)
            start_turn(worker, slot, turns[slot]);
        else
            under_way--;
    }
    return NULL;
}

static void make_worker(struct worker *worker, struct store_rig *rig, uint32_t index)
{
    *worker = (struct worker){.rig = rig};
    STRATA_CHECK(strata_channel_create(&worker->returned, PLACES, sizeof(struct store_io *),
                                       NULL) == STRATA_OK);
    worker->expected = malloc(RIG_LARGEST_BYTES);
    STRATA_CHECK(worker->expected != NULL);
    for (uint32_t i = 0; i < PLACES; i++) {
        uint32_t place = i * THREADS + index;
        worker->buffers[i] = aligned_alloc(STRATA_IO_ALIGN_BYTES, rig->place_bytes[place]);
        STRATA_CHECK(worker->buffers[i] != NULL);
        worker->ios[i] = (struct store_io){
            .place = place, .buffer = worker->buffers[i], .done = give_back, .user = worker};
    }
}

static void free_worker(struct worker *worker)
{
    for (uint32_t i = 0; i < PLACES; i++)
        free(worker->buffers[i]);
    free(worker->expected);
    strata_channel_destroy(worker->returned);
}

/* false: a wrong byte, or a failure where none was asked for. */
static bool run_store(struct store_rig *rig, const char *name, uint32_t rounds, bool may_fail)
{
    struct worker workers[THREADS];
    pthread_t threads[THREADS];
    uint32_t wrong = 0, refused = 0;
    for (uint32_t i = 0; i < THREADS; i++) {
        make_worker(&workers[i], rig, i);
        workers[i].rounds = rounds;
        STRATA_CHECK(pthread_create(&threads[i], NULL, run_worker, &workers[i]) == 0);
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        wrong += workers[i].wrong;
        refused += workers[i].refused;
        free_worker(&workers[i]);
    }
    bool failed = strata_store_error(rig->store)->status != STRATA_OK;
    printf("%s: %u wrong, %u refused: %s\n", name, wrong, refused,
           failed ? strata_store_error(rig->store)->message : "no failure");
    return wrong == 0 && failed == may_fail && (refused > 0) == may_fail;
}

static bool run_backend(strata_io_backend backend, uint32_t rounds)
{
    struct store_rig rig;
    strata_error error = {.status = STRATA_OK};
    strata_store_rig_make(&rig, 3, backend);
    bool good = strata_store_open(&rig.store, &rig.desc, &error) == STRATA_OK;
    if (!good)
        printf("open: %s\n", error.message);
    good = good && run_store(&rig, strata_store_backend_name(rig.store), rounds, false);
    strata_store_rig_remove(&rig);
    return good;
}

static bool run_fault(enum io_fault_kind fault, uint64_t nth, uint32_t rounds)
{
    struct store_rig rig;
    struct io_fault_count count = {0};
    struct io_fault_plan plan = {
        .inner = &strata_io_threads,
        .count = &count,
        .fault = fault,
        .native = EIO,
        .nth = nth,
        .times = UINT64_MAX,
    };
    strata_error error = {.status = STRATA_OK};
    strata_store_rig_make(&rig, 3, STRATA_IO_THREADS);
    bool good = strata_store_open_on(&rig.store, &rig.desc, &strata_io_fault, &plan, &error) ==
                STRATA_OK;
    if (!good)
        printf("open: %s\n", error.message);
    bool fails = fault == IO_FAULT_ERRNO;
    good = good && run_store(&rig, fails ? "failing" : "short", rounds, fails);
    strata_store_rig_remove(&rig);
    return good;
}

int main(int argc, char **argv)
{
    uint32_t rounds = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 40;
    bool good = run_backend(STRATA_IO_URING, rounds);
    good = run_backend(STRATA_IO_THREADS, rounds) && good;
    good = run_fault(IO_FAULT_SHORT, 1, rounds) && good;
    /* Creation takes about forty requests; this one comes in the middle of what follows. */
    good = run_fault(IO_FAULT_ERRNO, 400, rounds) && good;
    return good ? 0 : 1;
}
