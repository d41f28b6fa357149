/*
 * Placement never changes a bit: the toy model's state hash over tiers, budgets, tile sizes,
 * threads, backends and orders. The first run, with everything in the device, is the reference.
 */

#include "tests/support/suite_dir.h"
#include "tests/support/toy.h"

#include <string.h>

static struct toy_result good(const struct toy_run *run)
{
    struct toy_run with_dir = *run;
    with_dir.dir = dir.path;
    struct toy_result result = strata_toy_run(&with_dir);
    cr_assert_eq(result.status, STRATA_OK, "%s", result.error.message);
    return result;
}

/* The least host and device bytes a run needs. */
static struct toy_run tightened(const struct toy_run *run)
{
    struct toy_run tight = *run;
    strata_plan plan;
    strata_error error = {0};
    tight.dir = dir.path;
    /* The device first: how it is laid out decides the size of the host's tables. */
    cr_assert_eq(strata_toy_plan(&tight, &plan, &error), STRATA_OK, "%s", error.message);
    tight.device_bytes = plan.tiers[STRATA_DEVICE].need_bytes;
    cr_assert_eq(strata_toy_plan(&tight, &plan, &error), STRATA_OK, "%s", error.message);
    tight.host_bytes = plan.tiers[STRATA_HOST].need_bytes;
    return tight;
}

static void same(const struct toy_run *a, const struct toy_run *b)
{
    struct toy_result first = good(a);
    struct toy_result second = good(b);
    cr_expect_arr_eq(first.hash, second.hash, 16);
    cr_expect_eq(first.grad_norm, second.grad_norm);
}

static const struct toy_run in_device = {.params = STRATA_DEVICE,
                                         .grads = STRATA_DEVICE,
                                         .states = STRATA_DEVICE,
                                         .stash = STRATA_DEVICE,
                                         .clip = 1};

static void same_as_device(strata_tier params, strata_tier grads, strata_tier states)
{
    struct toy_run run = strata_toy_homes(params, grads, states);
    run.clip = 1;
    same(&in_device, &run);
}

TestSuite(placement, .init = make_dir, .fini = remove_empty_dir);

Test(placement, host_equals_device)
{
    same_as_device(STRATA_HOST, STRATA_HOST, STRATA_HOST);
}

Test(placement, nvme_equals_device)
{
    same_as_device(STRATA_NVME, STRATA_NVME, STRATA_NVME);
}

Test(placement, every_combination_of_homes_at_its_minimum_equals_device)
{
    struct toy_result reference = good(&in_device);
    for (int i = 0; i < 27; i++) {
        struct toy_run run = {.params = (strata_tier)(1 + i % 3),
                              .grads = (strata_tier)(1 + i / 3 % 3),
                              .states = (strata_tier)(1 + i / 9),
                              .stash = STRATA_HOST,
                              .clip = 1};
        if (run.states == STRATA_DEVICE &&
            (run.params != STRATA_DEVICE || run.grads != STRATA_DEVICE))
            continue;
        struct toy_run tight = tightened(&run);
        struct toy_result result = good(&tight);
        cr_expect_arr_eq(reference.hash, result.hash, 16, "params %s, grads %s, states %s",
                         strata_tier_name(run.params), strata_tier_name(run.grads),
                         strata_tier_name(run.states));
    }
}

Test(placement, activations_on_nvme_at_the_minimum_equal_device)
{
    struct toy_run run = {.params = STRATA_NVME,
                          .grads = STRATA_HOST,
                          .states = STRATA_NVME,
                          .stash = STRATA_NVME,
                          .clip = 1};
    struct toy_run tight = tightened(&run);
    same(&in_device, &run);
    same(&in_device, &tight);
}

Test(placement, tile_size_changes_nothing)
{
    const uint32_t tiles[] = {STRATA_BLOCK_ELEMS, 3 * STRATA_BLOCK_ELEMS,
                              64 * STRATA_BLOCK_ELEMS};
    for (int i = 0; i < 3; i++) {
        struct toy_run run = {.params = STRATA_NVME,
                              .grads = STRATA_HOST,
                              .states = STRATA_NVME,
                              .clip = 1,
                              .tile_elems = tiles[i]};
        same(&in_device, &run);
    }
}

Test(placement, threads_change_nothing)
{
    struct toy_run run = {
        .params = STRATA_HOST, .states = STRATA_NVME, .clip = 1, .threads = 2};
    same(&in_device, &run);
}

Test(placement, io_backend_changes_nothing)
{
    struct toy_run run = {
        .params = STRATA_NVME, .states = STRATA_NVME, .clip = 1, .io = STRATA_IO_THREADS};
    same(&in_device, &run);
}

Test(placement, naive_order_changes_nothing)
{
    struct toy_run run = {.params = STRATA_NVME,
                          .grads = STRATA_NVME,
                          .states = STRATA_NVME,
                          .clip = 1,
                          .no_overlap = true};
    struct toy_run tight = tightened(&run);
    same(&in_device, &run);
    same(&in_device, &tight);
}

/* What a backend does that cannot hold a stream: see offload/device/device.h. */
static void hold_caller(strata_stream *stream, struct gates *gates, uint32_t gate,
                        uint64_t value)
{
    (void)stream;
    strata_gate_wait(gates, gate, value);
}

Test(placement, a_device_that_holds_the_caller_at_gates_changes_nothing)
{
    struct strata_device_ops holding = strata_device_host;
    holding.stream_wait_gate = hold_caller;
    for (uint32_t bits = 0; bits < 8; bits++) {
        struct toy_run run = {.params = STRATA_NVME,
                              .grads = bits & 1 ? STRATA_NVME : STRATA_HOST,
                              .states = bits & 2 ? STRATA_NVME : STRATA_HOST,
                              .stash = STRATA_NVME,
                              .clip = 1,
                              .no_overlap = (bits & 4) != 0};
        struct toy_run tight = tightened(&run);
        tight.device_ops = &holding;
        same(&in_device, &tight);
    }
}

Test(placement, auto_homes_change_nothing)
{
    struct toy_run tight = tightened(&(struct toy_run){
        .params = STRATA_NVME, .grads = STRATA_NVME, .states = STRATA_NVME, .clip = 1});
    for (uint64_t extra = 0; extra < (24u << 20); extra += 3u << 20) {
        struct toy_run run = {.clip = 1,
                              .device_bytes = tight.device_bytes + extra / 4,
                              .host_bytes = tight.host_bytes + extra};
        same(&in_device, &run);
    }
}

Test(placement, without_clipping_too)
{
    struct toy_run reference = in_device;
    reference.clip = 0;
    struct toy_run run = {
        .params = STRATA_NVME, .grads = STRATA_NVME, .states = STRATA_NVME, .steps = 6};
    struct toy_run tight = tightened(&run);
    reference.steps = 6;
    same(&reference, &run);
    same(&reference, &tight);
}

Test(placement, fp32_too)
{
    struct toy_run reference = in_device;
    reference.dtype = STRATA_FP32;
    struct toy_run run = {.params = STRATA_NVME,
                          .grads = STRATA_HOST,
                          .states = STRATA_HOST,
                          .clip = 1,
                          .dtype = STRATA_FP32};
    struct toy_run tight = tightened(&run);
    same(&reference, &tight);
    struct toy_result fp32 = good(&reference);
    struct toy_result bf16 = good(&in_device);
    cr_expect(memcmp(fp32.hash, bf16.hash, 16) != 0, "the dtype must make a difference");
}

/* Moments of bf16 are rounded by chance, which knows the element and the step, not the tile. */
Test(placement, bf16_states_too)
{
    struct toy_run reference = in_device;
    reference.states_dtype = STRATA_BF16;
    for (int i = 0; i < 9; i++) {
        struct toy_run run = {.params = (strata_tier)(1 + i % 3),
                              .grads = STRATA_HOST,
                              .states = (strata_tier)(2 + i / 3 % 2),
                              .clip = 1,
                              .states_dtype = STRATA_BF16,
                              .tile_elems = (i % 2 == 0 ? 1 : 3) * STRATA_BLOCK_ELEMS};
        struct toy_run tight = tightened(&run);
        same(&reference, &tight);
        run.threads = 2;
        same(&reference, &run);
    }
}

Test(placement, bf16_states_take_8_bytes_and_depend_on_the_seed)
{
    struct toy_run run = in_device;
    run.states_dtype = STRATA_BF16;
    struct toy_result bf16 = good(&run);
    struct toy_result fp32 = good(&in_device);
    run.seed = 1;
    struct toy_result other = good(&run);
    const strata_plan_tier *device = &bf16.plan.tiers[STRATA_DEVICE];
    cr_expect_eq(device->home_bytes[STRATA_STATE], 8 * bf16.plan.padded_elems);
    cr_expect(memcmp(fp32.hash, bf16.hash, 16) != 0);
    cr_expect(memcmp(other.hash, bf16.hash, 16) != 0);
}

Test(placement, the_hash_notices_a_step)
{
    struct toy_run longer = in_device;
    longer.steps = 5;
    struct toy_result four = good(&in_device);
    struct toy_result five = good(&longer);
    cr_expect(memcmp(four.hash, five.hash, 16) != 0);
}
