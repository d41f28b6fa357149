#define _GNU_SOURCE
/*
 * Commits while the drives are busy with other places, with a plain main, because the test
 * framework does not start under the thread sanitizer.
 *
 *     stress_commit [STEPS]        default 200
 *
 * One thread writes records into free slots, all of a step at once, and commits; another one
 * reads and writes scratch places all the time. Over the kernel's backend, over threads, and
 * over simulated drives, whose memory the sanitizer sees. Afterwards the store is opened again.
 *
 * Exit 0: every byte was right; 1: it was not; the sanitizer has its own.
 */

#include "base/error.h"
#include "tests/support/commit_rig.h"
#include "tests/support/io_sim.h"
#include "tests/support/kernel.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define SCRATCH_BYTES (3u * STRATA_IO_ALIGN_BYTES)

struct busy {
    struct store *store;
    _Atomic bool stop;
    uint64_t rounds;
    bool wrong;
};

static void *keep_busy(void *user)
{
    struct busy *busy = user;
    uint8_t *buffer = aligned_alloc(STRATA_IO_ALIGN_BYTES, SCRATCH_BYTES);
    STRATA_CHECK(buffer != NULL);
    for (; !busy->stop && !busy->wrong; busy->rounds++) {
        uint32_t place = busy->rounds % 2;
        memset(buffer, (int)(busy->rounds % 251), SCRATCH_BYTES);
        busy->wrong = strata_store_transfer(busy->store, true, place, 0, buffer) != STRATA_OK;
        memset(buffer, 0xee, SCRATCH_BYTES);
        busy->wrong =
            busy->wrong ||
            strata_store_transfer(busy->store, false, place, 0, buffer) != STRATA_OK ||
            buffer[SCRATCH_BYTES - 1] != busy->rounds % 251;
    }
    free(buffer);
    return NULL;
}

static bool run_steps(struct commit_rig *rig, uint64_t steps)
{
    struct busy busy = {.store = rig->store};
    pthread_t thread;
    strata_status status = STRATA_OK;
    STRATA_CHECK(pthread_create(&thread, NULL, keep_busy, &busy) == 0);
    while (status == STRATA_OK && rig->step < steps)
        status = strata_commit_rig_step(rig);
    busy.stop = true;
    pthread_join(thread, NULL);
    return status == STRATA_OK && !busy.wrong && busy.rounds > 0;
}

static bool run(const char *name, const struct io_ops *ops, uint64_t steps)
{
    struct commit_rig rig;
    struct io_sim sim = {.opened = 0};
    struct io_sim_plan plan = {.sim = &sim};
    strata_error error = {.status = STRATA_OK};
    bool same = false;
    strata_commit_rig_make(&rig, 3, STRATA_IO_THREADS, true);
    strata_commit_rig_keep(&rig, 2, 3);
    rig.ops = ops;
    rig.ops_config = ops == &strata_io_sim ? &plan : NULL;
    bool good = strata_commit_rig_open(&rig, &error) == STRATA_OK && run_steps(&rig, steps);
    strata_commit_rig_close(&rig);
    strata_sim_power_on(&sim);
    good = good && strata_commit_rig_open(&rig, &error) == STRATA_OK && rig.step == steps &&
           strata_commit_rig_check(&rig, &same) == STRATA_OK && same;
    printf("%s: %s %s\n", name, good ? "good" : "wrong", error.message);
    strata_commit_rig_remove(&rig);
    strata_sim_free(&sim);
    return good;
}

int main(int argc, char **argv)
{
    uint64_t steps = argc > 1 ? strtoull(argv[1], NULL, 10) : 200;
    const struct io_ops *here = strata_io_ops_here(STRATA_IO_URING);
    bool good = run(here->name, here, steps);
    good = run("threads", &strata_io_threads, steps) && good;
    good = run("sim", &strata_io_sim, steps) && good;
    return good ? 0 : 1;
}
