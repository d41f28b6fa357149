/*
 * Initial weights: each element is asked for once, by several threads, and the state is the
 * same whatever their number and wherever it rests. What is not finite is refused.
 */

#include "tests/support/temp_dir.h"
#include "tests/support/toy.h"

#include <criterion/criterion.h>

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define MOST_ELEMS 100000u

static struct temp_dir dir;
static strata_device *device;
static strata_workers *workers;
static strata_engine *engine;
static strata_error error;
static struct toy toy;

/* How often each element was asked for, and what is to be made of one of them. */
static atomic_uchar asked[TOY_GROUPS][TOY_TENSORS][MOST_ELEMS];
static uint32_t bad_group, bad_tensor;
static uint64_t bad_element;
static float bad_value;

static void init(void *user, uint32_t group, uint32_t tensor, uint64_t first, uint64_t count,
                 float *out)
{
    (void)user;
    for (uint64_t i = 0; i < count; i++) {
        bool bad = group == bad_group && tensor == bad_tensor && first + i == bad_element;
        atomic_fetch_add(&asked[group][tensor][first + i], 1);
        out[i] = bad ? bad_value : (float)(group * 1000 + tensor * 100 + (first + i) % 97);
    }
}

static void setup(void)
{
    strata_toy_make(&toy);
    strata_temp_dir_make(&dir);
    cr_assert_eq(strata_device_open_host(&device, &error), STRATA_OK);
}

static void teardown(void)
{
    strata_engine_destroy(engine);
    strata_workers_destroy(workers);
    strata_device_close(device);
    strata_temp_dir_remove(&dir);
}

TestSuite(fill, .init = setup, .fini = teardown);

static strata_status create(uint32_t threads, strata_tier params, strata_tier states)
{
    const char *dirs[] = {dir.path};
    strata_workers_destroy(workers);
    cr_assert_eq(strata_workers_create(&workers,
                                       &(strata_workers_desc){.thread_count = threads}, &error),
                 STRATA_OK);
    strata_engine_desc desc = {.device = device,
                               .workers = workers,
                               .model = &toy.model,
                               .adam = &toy.adam,
                               .init = init,
                               .compute_dtype = STRATA_BF16,
                               .device_bytes = 64u << 20,
                               .host_bytes = 64u << 20,
                               .nvme_bytes = 64u << 20,
                               .tile_elems = STRATA_BLOCK_ELEMS,
                               .params = params,
                               .grads = states == STRATA_DEVICE ? STRATA_DEVICE : STRATA_HOST,
                               .states = states,
                               .stash = STRATA_HOST,
                               .io = STRATA_IO_THREADS,
                               .store_dirs = dirs,
                               .store_dir_count = 1};
    memset(asked, 0, sizeof asked);
    return strata_engine_create(&engine, &desc, &error);
}

static void expect_values(void)
{
    static float values[MOST_ELEMS];
    for (uint32_t g = 0; g < TOY_GROUPS; g++) {
        for (uint32_t t = 0; t < TOY_TENSORS; t++) {
            uint64_t elems = toy.tensors[g][t].shape[0], wrong = 0;
            cr_assert_leq(elems, MOST_ELEMS);
            cr_assert_eq(strata_engine_read(engine, g, t, STRATA_MASTER, 0, elems, values),
                         STRATA_OK);
            for (uint64_t i = 0; i < elems; i++)
                wrong += values[i] != (float)(g * 1000 + t * 100 + i % 97) ||
                         atomic_load(&asked[g][t][i]) != 1;
            cr_expect_eq(wrong, 0, "group %u, tensor %u: %llu elements", g, t,
                         (unsigned long long)wrong);
            cr_assert_eq(strata_engine_read(engine, g, t, STRATA_MOMENT2, 0, elems, values),
                         STRATA_OK);
            for (uint64_t i = 0; i < elems; i++)
                cr_assert_eq(values[i], 0);
        }
    }
}

Test(fill, each_element_is_asked_for_once_wherever_it_rests)
{
    /* Parameters, states. */
    const strata_tier homes[][2] = {
        {STRATA_DEVICE, STRATA_DEVICE}, {STRATA_DEVICE, STRATA_HOST},
        {STRATA_DEVICE, STRATA_NVME},   {STRATA_HOST, STRATA_HOST},
        {STRATA_HOST, STRATA_NVME},     {STRATA_NVME, STRATA_HOST},
        {STRATA_NVME, STRATA_NVME}};
    uint8_t first[16], hash[16];
    bad_group = UINT32_MAX;
    for (uint32_t i = 0; i < sizeof homes / sizeof *homes; i++) {
        cr_assert_eq(create(1 + i % 4, homes[i][0], homes[i][1]), STRATA_OK, "%s",
                     error.message);
        expect_values();
        cr_assert_eq(strata_engine_hash(engine, hash), STRATA_OK);
        if (i == 0)
            memcpy(first, hash, sizeof first);
        cr_expect_arr_eq(first, hash, sizeof hash, "homes %u", i);
        strata_engine_destroy(engine);
        engine = NULL;
    }
}

Test(fill, a_weight_that_is_not_finite_is_refused_and_named)
{
    const float values[] = {NAN, INFINITY, -INFINITY};
    bad_group = 4;
    bad_tensor = 0;
    for (uint32_t i = 0; i < 3; i++) {
        bad_element = i * 45000;
        bad_value = values[i];
        error = (strata_error){.status = STRATA_OK};
        char text[64];
        snprintf(text, sizeof text, "element %u of tensor g4.t0", i * 45000);
        cr_expect_eq(create(2, STRATA_HOST, i == 1 ? STRATA_NVME : STRATA_HOST),
                     STRATA_E_INVALID);
        cr_expect_null(engine);
        cr_expect_not_null(strstr(error.message, text), "%s", error.message);
        cr_expect_eq(strata_temp_dir_count(dir.path), 0, "files are left");
    }
    bad_value = 3.4028235e38f;
    cr_expect_eq(create(2, STRATA_HOST, STRATA_HOST), STRATA_OK, "%s", error.message);
}

Test(fill, the_descriptor_that_is_read_back_has_its_defaults)
{
    bad_group = UINT32_MAX;
    cr_assert_eq(create(1, STRATA_AUTO, STRATA_AUTO), STRATA_OK, "%s", error.message);
    const strata_engine_desc *desc = strata_engine_desc_of(engine);
    cr_expect_eq(desc->keep_every, 1000);
    cr_expect_eq(desc->tile_elems, STRATA_BLOCK_ELEMS);
    cr_expect_eq(desc->host_bytes, 64u << 20);
    cr_expect_null(desc->model);
    cr_expect_null(strata_engine_desc_of(NULL));
}
