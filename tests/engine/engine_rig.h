#ifndef STRATA_TESTS_ENGINE_RIG_H
#define STRATA_TESTS_ENGINE_RIG_H

/*
 * An engine of the toy model whose calls a test makes one by one: all in RAM, one worker.
 *
 *     TestSuite(name, .init = open_engine_rig, .fini = close_engine_rig);
 *
 * Thread: one.
 */

#include "tests/support/toy.h"

#include <criterion/criterion.h>

#include <string.h>

static strata_device *device;
static strata_workers *workers;
static strata_stream *stream;
static strata_engine *engine;
static strata_error error;
static struct toy toy;

static inline void open_engine_rig(void)
{
    strata_toy_make(&toy);
    cr_assert_eq(strata_device_open_host(&device, &error), STRATA_OK);
    cr_assert_eq(
        strata_workers_create(&workers, &(strata_workers_desc){.thread_count = 1}, &error),
        STRATA_OK);
    cr_assert_eq(strata_stream_create(&stream, device, "compute", &error), STRATA_OK);
}

static inline void close_engine_rig(void)
{
    strata_engine_destroy(engine);
    strata_stream_destroy(stream);
    strata_workers_destroy(workers);
    strata_device_close(device);
}

/* Initial weights of zero. */
static inline void init_zeros(void *user, uint32_t group, uint32_t tensor, uint64_t first,
                              uint64_t count, float *out)
{
    (void)user;
    (void)group;
    (void)tensor;
    (void)first;
    memset(out, 0, count * sizeof *out);
}

static inline strata_engine_desc describe_engine(strata_init_fn init)
{
    return (strata_engine_desc){.device = device,
                                .workers = workers,
                                .model = &toy.model,
                                .adam = &toy.adam,
                                .init = init,
                                .compute_dtype = STRATA_BF16,
                                .clip = 1,
                                .device_bytes = 64u << 20,
                                .host_bytes = 64u << 20,
                                .tile_elems = STRATA_BLOCK_ELEMS,
                                .params = STRATA_HOST,
                                .grads = STRATA_HOST,
                                .states = STRATA_HOST,
                                .stash = STRATA_HOST};
}

static inline void create_engine(strata_init_fn init)
{
    strata_engine_desc desc = describe_engine(init);
    cr_assert_eq(strata_engine_create(&engine, &desc, &error), STRATA_OK, "%s", error.message);
}

#endif
