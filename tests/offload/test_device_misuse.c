/*
 * Misuse of strata/device.h, strata/workers.h and the names of strata/types.h: each call that
 * makes no sense is refused and changes nothing, and what is closed in the wrong order goes
 * with the last that needs it (the sanitizer looks for memory).
 */

#include "strata/device.h"
#include "strata/plan.h"
#include "strata/workers.h"

#include <criterion/criterion.h>

#include <stdatomic.h>
#include <string.h>

static strata_device *device;
static strata_stream *stream;
static strata_error error;

static void set_up(void)
{
    error = (strata_error){.status = STRATA_OK};
    cr_assert_eq(strata_device_open_host(&device, NULL), STRATA_OK);
    cr_assert_eq(strata_stream_create(&stream, device, "misuse", NULL), STRATA_OK);
}

static void tear_down(void)
{
    strata_stream_destroy(stream);
    strata_device_close(device);
}

TestSuite(device_misuse, .init = set_up, .fini = tear_down);

static void count_call(void *args)
{
    atomic_fetch_add(*(atomic_int **)args, 1);
}

Test(device_misuse, null_is_refused_where_something_is_made)
{
    strata_stream *other = stream;
    strata_event *event;
    void *memory;
    cr_expect_eq(strata_device_open_host(NULL, NULL), STRATA_E_INVALID);
    cr_expect_neq(strata_device_open_cuda(NULL, 0, NULL), STRATA_OK);
    cr_expect_eq(strata_stream_create(NULL, device, "x", NULL), STRATA_E_INVALID);
    cr_expect_eq(strata_stream_create(&other, NULL, "x", NULL), STRATA_E_INVALID);
    cr_expect_null(other);
    cr_expect_eq(strata_stream_create(&other, device, NULL, &error), STRATA_E_INVALID);
    cr_expect_not_null(strstr(error.message, "name"), "%s", error.message);
    cr_expect_eq(strata_event_create(NULL, device, NULL), STRATA_E_INVALID);
    cr_expect_eq(strata_event_create(&event, NULL, NULL), STRATA_E_INVALID);
    cr_expect_eq(strata_device_take(NULL, 4096, &memory, NULL), STRATA_E_INVALID);
    cr_expect_eq(strata_device_take(device, 4096, NULL, NULL), STRATA_E_INVALID);
}

Test(device_misuse, a_device_that_is_null_has_nothing_to_say)
{
    strata_device_facts facts = {.total_bytes = 1};
    strata_device_facts_of(NULL, &facts);
    cr_expect_eq(facts.total_bytes, 0);
    strata_device_facts_of(device, NULL);
    cr_expect_str_eq(strata_device_name(NULL), "none");
    cr_expect_null(strata_device_error(NULL));
    cr_expect_null(strata_stream_native(NULL));
}

Test(device_misuse, calls_that_make_no_sense_are_refused_and_the_stream_goes_on)
{
    atomic_int calls = 0;
    atomic_int *where = &calls;
    unsigned char args[STRATA_CALL_BYTES + 1] = {0};
    cr_expect_eq(strata_stream_call(NULL, count_call, &where, sizeof where), STRATA_E_INVALID);
    cr_expect_eq(strata_stream_call(stream, NULL, &where, sizeof where), STRATA_E_INVALID);
    cr_expect_eq(strata_stream_call(stream, count_call, NULL, 8), STRATA_E_INVALID);
    cr_expect_eq(strata_stream_call(stream, count_call, args, sizeof args), STRATA_E_INVALID);
    cr_expect_eq(strata_stream_copy(NULL, args, args, 1), STRATA_E_INVALID);
    cr_expect_eq(strata_stream_copy(stream, NULL, args, 1), STRATA_E_INVALID);
    cr_expect_eq(strata_stream_copy(stream, args, NULL, 1), STRATA_E_INVALID);
    cr_expect_eq(strata_stream_copy(stream, NULL, NULL, 0), STRATA_OK);
    cr_expect_eq(strata_stream_zero(NULL, args, 1), STRATA_E_INVALID);
    cr_expect_eq(strata_stream_zero(stream, NULL, 1), STRATA_E_INVALID);
    cr_expect_eq(strata_stream_sync(NULL), STRATA_E_INVALID);
    cr_expect_eq(strata_stream_failed(stream, 700, "a launch"), STRATA_E_UNSUPPORTED);
    cr_expect_eq(strata_stream_failed(stream, 700, NULL), STRATA_E_INVALID);
    cr_expect_eq(strata_stream_failed(NULL, 700, "a launch"), STRATA_E_INVALID);
    cr_expect_eq(strata_stream_failed(stream, 0, "a launch"), STRATA_OK);
    cr_expect_null(strata_device_error(device));
    cr_expect_eq(strata_stream_call(stream, count_call, &where, sizeof where), STRATA_OK);
    cr_expect_eq(strata_stream_sync(stream), STRATA_OK);
    cr_expect_eq(atomic_load(&calls), 1);
}

Test(device_misuse, an_event_of_another_device_is_refused)
{
    strata_device *other;
    strata_event *event;
    cr_assert_eq(strata_device_open_host(&other, NULL), STRATA_OK);
    cr_assert_eq(strata_event_create(&event, other, NULL), STRATA_OK);
    cr_expect_eq(strata_event_record(event, stream), STRATA_E_INVALID);
    cr_expect_eq(strata_stream_wait_event(stream, event), STRATA_E_INVALID);
    cr_expect_eq(strata_event_record(NULL, stream), STRATA_E_INVALID);
    cr_expect_eq(strata_event_record(event, NULL), STRATA_E_INVALID);
    cr_expect_eq(strata_stream_wait_event(stream, NULL), STRATA_E_INVALID);
    strata_event_destroy(event);
    strata_device_close(other);
}

Test(device_misuse, memory_is_given_back_once_and_whole)
{
    void *memory, *none = &memory;
    int mine = 0;
    cr_assert_eq(strata_device_take(device, 8192, &memory, NULL), STRATA_OK);
    cr_expect_eq(strata_device_give(device, memory, 4096), STRATA_E_INVALID);
    cr_expect_eq(strata_device_give(device, &mine, 8192), STRATA_E_INVALID);
    cr_expect_eq(strata_device_give(NULL, memory, 8192), STRATA_E_INVALID);
    memset(memory, 1, 8192);
    cr_expect_eq(strata_device_give(device, memory, 8192), STRATA_OK);
    cr_expect_eq(strata_device_give(device, memory, 8192), STRATA_E_INVALID);
    cr_expect_eq(strata_device_take(device, 0, &none, NULL), STRATA_OK);
    cr_expect_null(none);
    cr_expect_eq(strata_device_give(device, none, 0), STRATA_OK);
}

Test(device_misuse, the_host_device_wraps_no_stream)
{
    strata_stream *wrapped;
    int native;
    cr_expect_eq(strata_stream_wrap(&wrapped, device, &native, &error), STRATA_E_UNSUPPORTED);
    cr_expect_null(wrapped);
    cr_expect_not_null(strstr(error.message, "no native streams"), "%s", error.message);
    cr_expect_eq(strata_stream_wrap(&wrapped, device, NULL, NULL), STRATA_E_INVALID);
    cr_expect_eq(strata_stream_wrap(&wrapped, NULL, &native, NULL), STRATA_E_INVALID);
    cr_expect_eq(strata_stream_wrap(NULL, device, &native, NULL), STRATA_E_INVALID);
}

Test(device_misuse, a_closed_device_takes_nothing_new_and_serves_what_is_left)
{
    strata_event *event, *late_event;
    strata_stream *late_stream;
    void *memory, *late_memory;
    unsigned char from[64] = {7}, to[64] = {0};
    cr_assert_eq(strata_event_create(&event, device, NULL), STRATA_OK);
    cr_assert_eq(strata_device_take(device, 4096, &memory, NULL), STRATA_OK);
    strata_device_close(device);
    strata_device_close(device);
    cr_expect_eq(strata_stream_create(&late_stream, device, "late", &error), STRATA_E_STATE);
    cr_expect_not_null(strstr(error.message, "closed"), "%s", error.message);
    cr_expect_eq(strata_event_create(&late_event, device, NULL), STRATA_E_STATE);
    cr_expect_eq(strata_device_take(device, 4096, &late_memory, NULL), STRATA_E_STATE);
    cr_expect_eq(strata_stream_copy(stream, to, from, sizeof to), STRATA_OK);
    cr_expect_eq(strata_event_record(event, stream), STRATA_OK);
    cr_expect_eq(strata_stream_sync(stream), STRATA_OK);
    cr_expect_arr_eq(to, from, sizeof to);
    strata_stream_destroy(stream);
    cr_expect_eq(strata_device_give(device, memory, 4096), STRATA_OK);
    strata_event_destroy(event); /* the device goes with it */
    device = NULL;
    stream = NULL;
}

struct nested {
    strata_workers *workers;
    strata_status status;
};

static void no_item(void *user, uint32_t index, uint32_t worker)
{
    (void)user;
    (void)index;
    (void)worker;
}

static void run_again(void *user, uint32_t index, uint32_t worker)
{
    struct nested *nested = user;
    (void)index;
    (void)worker;
    nested->status = strata_workers_run(nested->workers, STRATA_JOB_PANEL, no_item, NULL, 4);
}

Test(device_misuse, of_workers_is_refused)
{
    strata_workers *workers;
    strata_workers_desc desc = {.thread_count = 1};
    cr_expect_eq(strata_workers_create(NULL, &desc, NULL), STRATA_E_INVALID);
    cr_expect_eq(strata_workers_create(&workers, NULL, NULL), STRATA_E_INVALID);
    cr_expect_eq(strata_workers_count(NULL), 0);
    cr_assert_eq(strata_workers_create(&workers, &desc, NULL), STRATA_OK);
    cr_expect_eq(strata_workers_run(NULL, STRATA_JOB_PANEL, no_item, NULL, 1),
                 STRATA_E_INVALID);
    cr_expect_eq(strata_workers_run(workers, STRATA_JOB_PANEL, NULL, NULL, 1),
                 STRATA_E_INVALID);
    cr_expect_eq(strata_workers_run(workers, STRATA_JOB_CLASS_COUNT, no_item, NULL, 1),
                 STRATA_E_INVALID);
    for (int class = 0; class < STRATA_JOB_CLASS_COUNT; class ++) {
        struct nested nested = {.workers = workers};
        cr_expect_eq(strata_workers_run(workers, class, run_again, &nested, 1), STRATA_OK);
        cr_expect_eq(nested.status, STRATA_E_STATE);
    }
    cr_expect_eq(strata_workers_run(workers, STRATA_JOB_UPDATE, no_item, NULL, 3), STRATA_OK);
    strata_workers_destroy(workers);
}

Test(device_misuse, what_has_no_name_is_unknown)
{
    cr_expect_str_eq(strata_lane_name(STRATA_LANE_COUNT), "unknown");
    cr_expect_str_eq(strata_lane_name((strata_lane)-1), "unknown");
    cr_expect_str_eq(strata_stall_name(STRATA_STALL_COUNT), "unknown");
    cr_expect_str_eq(strata_dtype_name((strata_dtype)0), "unknown");
    cr_expect_str_eq(strata_tier_name(STRATA_TIER_COUNT), "unknown");
    cr_expect_eq(strata_dtype_bytes((strata_dtype)0), 0);
    cr_expect_eq(strata_dtype_bytes((strata_dtype)4), 0);
}
