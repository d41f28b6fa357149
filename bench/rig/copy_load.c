#define _GNU_SOURCE
/*
 * The loads of offload-bench copy. See copy_load.h.
 *
 * Thread: run_adam and run_io on their own; the others on the caller's.
 */

#include "bench/rig/copy_load.h"

#include "strata/adam.h"
#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* A work item has the fp32 state and gradient of four norm blocks. */
#define ITEM_ELEMS (4u * STRATA_BLOCK_ELEMS)
#define ITEMS      64u /* 64 MiB in all: no cache holds it */
#define RIG_BYTES  ((uint64_t)256 << 20)

static void adam_item(void *user, uint32_t index, uint32_t worker)
{
    (void)worker;
    const struct copy_load *load = user;
    float *at = (float *)load->state.base + (size_t)index * 4 * ITEM_ELEMS;
    strata_adam_params params = strata_adam_defaults();
    strata_adam_step step = strata_adam_prepare(&params, 1, 1e-3, 1.0f);
    strata_adam_range range = {.grad = at,
                               .master = at + ITEM_ELEMS,
                               .m = at + 2 * (size_t)ITEM_ELEMS,
                               .v = at + 3 * (size_t)ITEM_ELEMS,
                               .grad_dtype = STRATA_FP32,
                               .count = ITEM_ELEMS};
    strata_adam_update(STRATA_ISA_BEST, &step, &range);
}

static void *run_adam(void *user)
{
    struct copy_load *load = user;
    while (!atomic_load(&load->stop))
        strata_workers_run(load->workers, STRATA_JOB_UPDATE, adam_item, load, ITEMS);
    return NULL;
}

static void *run_io(void *user)
{
    struct copy_load *load = user;
    struct io_sample sample;
    strata_status status = STRATA_OK;
    while (!atomic_load(&load->stop) && status == STRATA_OK)
        status =
            strata_bench_rig_pass(&load->rig, KIND_MIXED, WAY_STORE, &sample, &load->error);
    return NULL;
}

strata_status strata_bench_load_open(struct copy_load *out, const char *dir,
                                     strata_error *error)
{
    memset(out, 0, sizeof *out);
    strata_workers_desc workers = {0};
    strata_status status = strata_workers_create(&out->workers, &workers, error);
    if (status == STRATA_OK)
        status = strata_arena_create(&out->state, (uint64_t)ITEMS * 4 * ITEM_ELEMS * 4,
                                     "the load's states", error);
    if (status != STRATA_OK)
        return status;
    out->rig_open = true;
    return strata_bench_rig_open(&out->rig, dir, RIG_BYTES, error);
}

void strata_bench_load_close(struct copy_load *load)
{
    if (load->rig_open)
        strata_bench_rig_close(&load->rig);
    strata_arena_destroy(&load->state);
    strata_workers_destroy(load->workers);
}

strata_status strata_bench_load_start(struct copy_load *load, bool adam, bool io,
                                      strata_error *error)
{
    atomic_store(&load->stop, false);
    load->adam_runs = adam && pthread_create(&load->adam, NULL, run_adam, load) == 0;
    load->io_runs = io && pthread_create(&load->io, NULL, run_io, load) == 0;
    if (load->adam_runs == adam && load->io_runs == io)
        return STRATA_OK;
    strata_error ignored; /* no thread could be started: that is all we need to know */
    strata_status status = strata_bench_load_stop(load, &ignored);
    (void)status;
    return strata_fail(error, STRATA_E_NOMEM, EAGAIN, "a thread for the load: none to be had");
}

strata_status strata_bench_load_stop(struct copy_load *load, strata_error *error)
{
    atomic_store(&load->stop, true);
    if (load->adam_runs)
        pthread_join(load->adam, NULL);
    if (load->io_runs)
        pthread_join(load->io, NULL);
    load->adam_runs = load->io_runs = false;
    if (load->error.status != STRATA_OK)
        *error = load->error;
    return load->error.status;
}
