#define _GNU_SOURCE

/*
 * The CUDA device against the rules of offload/device/device.h. Without a GPU: that it says so.
 */

#include "offload/device/arena.h"
#include "offload/device/device.h"
#include "tests/support/cuda_rig.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#define BYTES (8u << 20)

Test(device_cuda, without_a_gpu_it_is_refused_in_one_line)
{
    strata_device *device = (strata_device *)&device;
    strata_error error = {0};
    /* No machine has that many. */
    cr_expect_eq(strata_device_open_cuda(&device, 1000, &error), STRATA_E_UNSUPPORTED);
    cr_expect_null(device);
    cr_expect_not_null(strstr(error.message, "cuda device"));
    cr_expect_null(strchr(error.message, '\n'));
}

/* Bytes to the device and back, through pinned pages, zeroed in between where asked. */
static void copies_keep_their_order(struct cuda_rig *rig)
{
    struct arena arena;
    uint64_t piece_bytes;
    strata_error error = {0};
    const struct strata_device_ops *ops = rig->device->ops;
    cr_assert_eq(strata_arena_create(&arena, 2 * BYTES, "a test", &error), STRATA_OK);
    cr_assert_eq(ops->pin(rig->device, arena.base, arena.bytes, &piece_bytes, &error),
                 STRATA_OK, "%s", error.message);
    cr_expect_gt(piece_bytes, 0);
    for (uint32_t i = 0; i < BYTES; i++)
        arena.base[i] = (uint8_t)(i * 31 + i / 256);
    uint8_t *memory = cuda_rig_take(rig, NULL, BYTES);
    strata_stream_copy(rig->stream, memory, arena.base, BYTES);
    strata_stream_zero(rig->stream, memory + 1000, 24);
    strata_stream_copy(rig->stream, arena.base + BYTES, memory, BYTES);
    strata_stream_sync(rig->stream);
    memset(arena.base + 1000, 0, 24);
    cr_expect_eq(memcmp(arena.base, arena.base + BYTES, BYTES), 0);
    strata_device_give(rig->device, memory, BYTES);
    ops->unpin(rig->device, arena.base);
    strata_arena_destroy(&arena);
}

struct seen {
    _Atomic uint64_t count;
    _Atomic uint64_t out_of_order;
};

static void see(void *user, uint64_t value, uint64_t now_ns)
{
    struct seen *seen = user;
    if (atomic_fetch_add(&seen->count, 1) != value || now_ns == 0)
        atomic_fetch_add(&seen->out_of_order, 1);
}

static void notifies_come_in_order_and_sync_waits_for_them(struct cuda_rig *rig)
{
    struct seen seen = {0};
    for (uint64_t i = 0; i < 5000; i++)
        rig->device->ops->stream_notify(rig->stream, see, &seen, i);
    strata_stream_sync(rig->stream);
    cr_expect_eq(seen.count, 5000);
    cr_expect_eq(seen.out_of_order, 0);
}

struct opener {
    struct gates *gates;
    struct seen *seen;
};

/* A gate is raised by another thread than the one that waits at it. */
static void *open_a_little_later(void *argument)
{
    struct opener *opener = argument;
    strata_gate_open(opener->gates, 0, 100);
    strata_gate_open(opener->gates, 1, 6);
    usleep(20000);
    cr_expect_eq(opener->seen->count, 0);
    strata_gate_open(opener->gates, 1, 8);
    return NULL;
}

static void a_gate_holds_the_stream_until_it_is_raised(struct cuda_rig *rig)
{
    const struct strata_device_ops *ops = rig->device->ops;
    struct seen seen = {0};
    struct opener opener = {.seen = &seen};
    pthread_t thread;
    cr_assert_eq(strata_gates_create(&opener.gates, 2, NULL), STRATA_OK);
    cr_assert_eq(pthread_create(&thread, NULL, open_a_little_later, &opener), 0);
    ops->stream_wait_gate(rig->stream, opener.gates, 1, 7);
    ops->stream_notify(rig->stream, see, &seen, 0);
    strata_stream_sync(rig->stream);
    cr_expect_eq(seen.count, 1);
    cr_expect_eq(pthread_join(thread, NULL), 0);
    strata_gates_destroy(opener.gates);
}

/* Each asks for the stream, as whoever launches does; the mark of the first is long passed. */
static void many_launches_are_held_and_go_on(struct cuda_rig *rig)
{
    uint8_t *memory = cuda_rig_take(rig, NULL, BYTES);
    for (int i = 0; i < 5000; i++) {
        cr_assert_not_null(strata_stream_native(rig->stream));
        strata_stream_zero(rig->stream, memory, BYTES);
    }
    strata_stream_sync(rig->stream);
    strata_device_give(rig->device, memory, BYTES);
}

/* What the copies are of takes milliseconds, so a wait that is none would show. */
static void an_event_orders_two_streams(struct cuda_rig *rig)
{
    const uint64_t bytes = UINT64_C(256) << 20;
    strata_stream *other;
    strata_event *event;
    uint8_t last = 0;
    uint8_t *memory = cuda_rig_take(rig, NULL, bytes);
    cr_assert_eq(strata_stream_create(&other, rig->device, "other", NULL), STRATA_OK);
    cr_assert_eq(strata_event_create(&event, rig->device, NULL), STRATA_OK);
    strata_stream_wait_event(other, event); /* no record: no wait */
    strata_stream_zero(rig->stream, memory, bytes);
    strata_stream_copy(rig->stream, memory + bytes - 1, (const uint8_t[]){7}, 1);
    for (int i = 0; i < 20; i++)
        strata_stream_copy(rig->stream, memory, memory + bytes / 2, bytes / 2);
    strata_event_record(event, rig->stream);
    strata_stream_wait_event(other, event);
    strata_stream_copy(other, &last, memory + bytes / 2 - 1, 1);
    strata_stream_sync(other);
    cr_expect_eq(last, 7);
    strata_event_destroy(event);
    strata_stream_destroy(other);
    strata_device_give(rig->device, memory, bytes);
}

static void what_is_free_shrinks_by_what_is_taken(struct cuda_rig *rig)
{
    strata_device_facts before, after;
    strata_device_facts_of(rig->device, &before);
    void *memory = cuda_rig_take(rig, NULL, UINT64_C(256) << 20);
    strata_device_facts_of(rig->device, &after);
    cr_expect_geq(before.free_bytes - after.free_bytes, UINT64_C(256) << 20);
    cr_expect_gt(before.other_bytes, 0);
    cr_expect_gt(strlen(before.model), 0);
    strata_device_give(rig->device, memory, UINT64_C(256) << 20);
    strata_error error = {0};
    cr_expect_eq(strata_device_take(rig->device, UINT64_C(1) << 52, &memory, &error),
                 STRATA_E_NOMEM);
    cr_expect_null(memory);
}

Test(device_cuda, keeps_the_rules_of_the_seam)
{
    struct cuda_rig rig = cuda_rig_open();
    copies_keep_their_order(&rig);
    notifies_come_in_order_and_sync_waits_for_them(&rig);
    a_gate_holds_the_stream_until_it_is_raised(&rig);
    many_launches_are_held_and_go_on(&rig);
    an_event_orders_two_streams(&rig);
    what_is_free_shrinks_by_what_is_taken(&rig);
    cuda_rig_close(&rig);
}

Test(device_cuda, its_first_failure_sticks_and_nothing_hangs)
{
    struct cuda_rig rig = cuda_rig_open();
    struct seen seen = {0};
    cr_expect_null(strata_device_error(rig.device));
    strata_stream_failed(rig.stream, 0, "nothing");
    cr_expect_null(strata_device_error(rig.device));
    /* 1: cudaErrorInvalidValue */
    strata_stream_failed(rig.stream, 1, "the first launch");
    strata_stream_failed(rig.stream, 2, "the second launch");
    const strata_error *failure = strata_device_error(rig.device);
    cr_assert_not_null(failure);
    cr_expect_eq(failure->native, 1);
    cr_expect_eq(failure->status, STRATA_E_DEVICE);
    cr_expect_not_null(strstr(failure->message, "cudaErrorInvalidValue"));
    cr_expect_not_null(strstr(failure->message, "the first launch"));
    rig.device->ops->stream_notify(rig.stream, see, &seen, 0);
    strata_stream_sync(rig.stream);
    cr_expect_eq(seen.count, 1);
    strata_stream_destroy(rig.stream);
    strata_device_close(rig.device);
}
