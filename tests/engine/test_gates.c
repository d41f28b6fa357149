#define _GNU_SOURCE
/*
 * A device whose streams wait at gates by holding whoever queues, as CUDA's do: an acquire or
 * an unstash that a failure lets through has no bytes, and must say so.
 *
 * The host device is given such a wait, and each read of a step fails in turn. Whatever an
 * acquire calls good is compared with the initial weights.
 *
 * Built with the linker's --wrap for strata_store_open.
 */

#include "offload/device/device.h"
#include "tests/support/io_fault.h"
#include "tests/support/kernel.h"
#include "tests/support/store_rig.h"
#include "tests/support/toy.h"

#include <criterion/criterion.h>

#include <errno.h>
#include <string.h>

static struct temp_dir dir;
static struct toy toy;
static strata_device *device;
static strata_workers *workers;
static strata_stream *stream;
static strata_engine *engine;
static struct strata_device_ops ops;
static struct io_fault_plan faults;
static struct io_fault_count counts;

extern strata_status __real_strata_store_open(struct store **out, const struct store_desc *desc,
                                              strata_error *error);
strata_status __wrap_strata_store_open(struct store **out, const struct store_desc *desc,
                                       strata_error *error);

strata_status __wrap_strata_store_open(struct store **out, const struct store_desc *desc,
                                       strata_error *error)
{
    return strata_store_open_on(out, desc, &strata_io_fault, &faults, error);
}

static void wait_in_the_caller(strata_stream *of, struct gates *gates, uint32_t gate,
                               uint64_t value)
{
    (void)of;
    strata_gate_wait(gates, gate, value);
}

/* Exact in bf16, and another for each place. */
static float weight(uint32_t group, uint32_t tensor, uint64_t element)
{
    return (float)(1 + (group * 31 + tensor * 17 + element) % 250);
}

static void init(void *user, uint32_t group, uint32_t tensor, uint64_t first, uint64_t count,
                 float *out)
{
    (void)user;
    for (uint64_t i = 0; i < count; i++)
        out[i] = weight(group, tensor, first + i);
}

static void expect_weights(uint32_t group, const void *param)
{
    uint64_t at = 0, wrong = 0;
    for (uint32_t t = 0; t < TOY_TENSORS; t++) {
        for (uint64_t i = 0; i < toy.tensors[group][t].shape[0]; i++, at++) {
            float value;
            strata_convert(STRATA_ISA_SCALAR, &value, STRATA_FP32, (const uint16_t *)param + at,
                           STRATA_BF16, 1);
            wrong += value != weight(group, t, i);
        }
    }
    cr_expect_eq(wrong, 0, "group %u: %llu weights are not those of the store", group,
                 (unsigned long long)wrong);
}

static void open_all(void)
{
    strata_error error = {.status = STRATA_OK};
    const char *dirs[] = {dir.path};
    strata_engine_desc desc = {.model = &toy.model,
                               .adam = &toy.adam,
                               .init = init,
                               .compute_dtype = STRATA_BF16,
                               .params = STRATA_NVME,
                               .grads = STRATA_HOST,
                               .states = STRATA_HOST,
                               .stash = STRATA_NVME,
                               .device_bytes = 64u << 20,
                               .host_bytes = 64u << 20,
                               .nvme_bytes = 64u << 20,
                               .tile_elems = STRATA_BLOCK_ELEMS,
                               .store_dirs = dirs,
                               .store_dir_count = 1};
    strata_toy_make(&toy);
    ops = strata_device_host;
    ops.stream_wait_gate = wait_in_the_caller;
    cr_assert_eq(strata_device_open_host(&device, &error), STRATA_OK);
    device->ops = &ops;
    cr_assert_eq(
        strata_workers_create(&workers, &(strata_workers_desc){.thread_count = 1}, &error),
        STRATA_OK);
    cr_assert_eq(strata_stream_create(&stream, device, "compute", &error), STRATA_OK);
    desc.device = device;
    desc.workers = workers;
    cr_assert_eq(strata_engine_create(&engine, &desc, &error), STRATA_OK, "%s", error.message);
}

static void close_all(void)
{
    strata_engine_destroy(engine);
    strata_stream_destroy(stream);
    strata_workers_destroy(workers);
    strata_device_close(device);
}

static strata_status make_use(const strata_use *use, unsigned char *block)
{
    strata_view view;
    strata_status status;
    switch (use->kind) {
    case STRATA_USE_STASH:
        memset(block, (int)use->index + 1, toy.model.stash_bytes);
        status = strata_stash(engine, use->index, block, stream);
        strata_stream_sync(stream);
        return status;
    case STRATA_USE_UNSTASH:
        memset(block, 0, toy.model.stash_bytes);
        status = strata_unstash(engine, use->index, block, stream);
        strata_stream_sync(stream);
        if (status == STRATA_OK)
            cr_expect_eq(block[toy.model.stash_bytes - 1], use->index + 1, "block %u",
                         use->index);
        return status;
    case STRATA_USE_ACQUIRE:
        status = strata_acquire(engine, use->index, stream, &view);
        if (status == STRATA_OK)
            expect_weights(use->index, view.param);
        else
            cr_expect_null(view.param);
        return status;
    default:
        return strata_release(engine, use->index, stream);
    }
}

static strata_status walk(void)
{
    static unsigned char block[TOY_ACTIVATION * sizeof(float)];
    strata_status status = strata_step_begin(engine, 0);
    for (uint32_t u = 0; status == STRATA_OK && u < toy.model.use_count; u++)
        status = make_use(&toy.uses[u], block);
    return status;
}

Test(gates, a_failure_never_passes_for_bytes)
{
    strata_temp_dir_make(&dir);
    uint64_t failed = 0;
    strata_status status = STRATA_E_IO;
    /* The first read is the header's, which creation looks at. */
    for (uint64_t nth = 2; status != STRATA_OK; nth++) {
        counts = (struct io_fault_count){0};
        faults = (struct io_fault_plan){.inner = &strata_io_threads,
                                        .count = &counts,
                                        .fault = IO_FAULT_ERRNO,
                                        .native = EIO,
                                        .op = IO_READ,
                                        .nth = nth,
                                        .times = 1};
        open_all();
        status = walk();
        if (status != STRATA_OK) {
            cr_expect_eq(status, STRATA_E_IO, "%s", strata_engine_error(engine)->message);
            failed++;
        }
        close_all();
    }
    cr_expect_gt(failed, 20);
    strata_temp_dir_remove(&dir);
}
