#define _GNU_SOURCE

/*
 * The host device's ordering rules. Where a test shows that something does not go on, it waits
 * a little and looks: a correct device can never fail it, a wrong one nearly always does.
 */

#include "offload/device/device.h"

#include "base/clock.h"

#include <criterion/criterion.h>

#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#define MANY 5000u /* several times what a ring holds */

static strata_device *device;
static strata_stream *first;
static strata_stream *second;
static strata_stream *third;
static struct gates *gates;

static strata_stream *make_stream(const char *name)
{
    strata_stream *stream;
    strata_error error = {0};
    cr_assert_eq(strata_stream_create(&stream, device, name, &error), STRATA_OK, "%s",
                 error.message);
    return stream;
}

static strata_event *make_event(void)
{
    strata_event *event;
    cr_assert_eq(strata_event_create(&event, device, NULL), STRATA_OK);
    return event;
}

static void set_up(void)
{
    cr_assert_eq(strata_device_open_host(&device, NULL), STRATA_OK);
    first = make_stream("first");
    second = make_stream("second");
    third = make_stream("third");
    cr_assert_eq(strata_gates_create(&gates, 4, NULL), STRATA_OK);
}

static void tear_down(void)
{
    strata_stream_destroy(third);
    strata_stream_destroy(second);
    strata_stream_destroy(first);
    strata_gates_destroy(gates);
    strata_device_close(device);
}

TestSuite(device_host, .init = set_up, .fini = tear_down);

static void wait_gate(strata_stream *stream, uint32_t gate, uint64_t value)
{
    device->ops->stream_wait_gate(stream, gates, gate, value);
}

static void open_gate(uint32_t gate, uint64_t value)
{
    strata_gate_open(gates, gate, value);
}

static void a_little_later(void)
{
    usleep(20000);
}

/* A call that sets a flag; the flag is read while the stream may still run. */
static void set_flag(void *args)
{
    atomic_store(*(atomic_int **)args, 1);
}

static void queue_flag(strata_stream *stream, atomic_int *flag)
{
    strata_stream_call(stream, set_flag, &flag, sizeof flag);
}

struct append {
    uint32_t *list;
    uint32_t *count;
    uint32_t value;
};

static void append(void *args)
{
    const struct append *what = args;
    what->list[(*what->count)++] = what->value;
}

Test(device_host, work_of_one_stream_runs_in_order)
{
    static uint32_t list[MANY];
    uint32_t count = 0;
    for (uint32_t i = 0; i < MANY; i++)
        strata_stream_call(first, append, &(struct append){list, &count, i},
                           sizeof(struct append));
    strata_stream_sync(first);
    cr_assert_eq(count, MANY);
    for (uint32_t i = 0; i < MANY; i++)
        cr_assert_eq(list[i], i);
}

Test(device_host, a_stream_that_waits_does_not_hold_another)
{
    atomic_int held = 0, other = 0;
    wait_gate(first, 0, 1);
    queue_flag(first, &held);
    queue_flag(second, &other);
    strata_stream_sync(second);
    cr_expect_eq(atomic_load(&other), 1);
    a_little_later();
    cr_expect_eq(atomic_load(&held), 0);
    open_gate(0, 1);
    strata_stream_sync(first);
    cr_expect_eq(atomic_load(&held), 1);
}

Test(device_host, an_event_orders_two_streams)
{
    strata_event *event = make_event();
    uint32_t list[2], count = 0;
    wait_gate(first, 0, 1);
    strata_stream_call(first, append, &(struct append){list, &count, 1}, sizeof(struct append));
    strata_event_record(event, first);
    strata_stream_wait_event(second, event);
    strata_stream_call(second, append, &(struct append){list, &count, 2},
                       sizeof(struct append));
    a_little_later();
    open_gate(0, 1);
    strata_stream_sync(second);
    cr_expect_eq(count, 2);
    cr_expect_eq(list[0], 1);
    cr_expect_eq(list[1], 2);
    strata_event_destroy(event);
}

Test(device_host, a_wait_takes_the_latest_record_at_its_call)
{
    strata_event *event = make_event();
    atomic_int early = 0, late = 0;
    strata_event_record(event, first);
    strata_stream_wait_event(second, event);
    queue_flag(second, &early);
    wait_gate(first, 0, 1);
    strata_event_record(event, first);
    strata_stream_sync(second); // the second record does not concern it
    cr_expect_eq(atomic_load(&early), 1);
    strata_stream_wait_event(second, event);
    queue_flag(second, &late);
    a_little_later();
    cr_expect_eq(atomic_load(&late), 0);
    open_gate(0, 1);
    strata_stream_sync(second);
    cr_expect_eq(atomic_load(&late), 1);
    strata_event_destroy(event);
}

Test(device_host, a_later_record_elsewhere_does_not_end_an_earlier_wait)
{
    strata_event *event = make_event();
    atomic_int flag = 0;
    wait_gate(first, 0, 1);
    strata_event_record(event, first);
    strata_stream_wait_event(second, event);
    queue_flag(second, &flag);
    strata_event_record(event, third);
    strata_stream_sync(third);
    a_little_later();
    cr_expect_eq(atomic_load(&flag), 0);
    open_gate(0, 1);
    strata_stream_sync(second);
    cr_expect_eq(atomic_load(&flag), 1);
    strata_event_destroy(event);
}

Test(device_host, an_event_without_a_record_holds_nothing)
{
    strata_event *event = make_event();
    atomic_int flag = 0;
    strata_stream_wait_event(first, event);
    queue_flag(first, &flag);
    strata_stream_sync(first);
    cr_expect_eq(atomic_load(&flag), 1);
    strata_event_destroy(event);
}

Test(device_host, a_wait_outlives_its_event_and_the_stream_recorded)
{
    strata_event *event = make_event();
    strata_stream *brief = make_stream("brief");
    atomic_int done = 0, flag = 0;
    queue_flag(brief, &done);
    strata_event_record(event, brief);
    wait_gate(first, 0, 1);
    strata_stream_wait_event(first, event);
    queue_flag(first, &flag);
    strata_event_destroy(event);
    strata_stream_destroy(brief);
    strata_stream *next = make_stream("next"); // takes over what is left of the other
    wait_gate(next, 1, 1);
    open_gate(0, 1);
    strata_stream_sync(first);
    cr_expect_eq(atomic_load(&flag), 1);
    open_gate(1, 1);
    strata_stream_destroy(next);
}

Test(device_host, a_gate_opens_before_or_after_the_wait)
{
    atomic_int before = 0, after = 0;
    open_gate(1, 5);
    wait_gate(first, 1, 5);
    queue_flag(first, &before);
    strata_stream_sync(first);
    cr_expect_eq(atomic_load(&before), 1);
    wait_gate(first, 1, 6);
    queue_flag(first, &after);
    a_little_later();
    cr_expect_eq(atomic_load(&after), 0);
    open_gate(1, 7); // more than was waited for will do
    strata_stream_sync(first);
    cr_expect_eq(atomic_load(&after), 1);
}

Test(device_host, a_gate_never_goes_back)
{
    atomic_int flag = 0;
    open_gate(2, 9);
    open_gate(2, 3);
    wait_gate(first, 2, 9);
    queue_flag(first, &flag);
    strata_stream_sync(first);
    cr_expect_eq(atomic_load(&flag), 1);
}

Test(device_host, gates_of_one_array_are_independent)
{
    atomic_int flags[3] = {0};
    strata_stream *streams[] = {first, second, third};
    for (uint32_t i = 0; i < 3; i++) {
        wait_gate(streams[i], i, 1);
        queue_flag(streams[i], &flags[i]);
    }
    open_gate(1, 1);
    strata_stream_sync(second);
    a_little_later();
    cr_expect_eq(atomic_load(&flags[0]), 0);
    cr_expect_eq(atomic_load(&flags[1]), 1);
    cr_expect_eq(atomic_load(&flags[2]), 0);
    open_gate(0, 1);
    open_gate(2, 1);
    strata_stream_sync(first);
    strata_stream_sync(third);
    cr_expect_eq(atomic_load(&flags[0]) + atomic_load(&flags[2]), 2);
}

struct filler {
    uint32_t *list;
    uint32_t *count;
    _Atomic uint32_t queued; /* written by the filling thread, read by the test */
};

static void *fill(void *argument)
{
    struct filler *filler = argument;
    for (uint32_t i = 0; i < MANY; i++) {
        strata_stream_call(first, append, &(struct append){filler->list, filler->count, i},
                           sizeof(struct append));
        atomic_store(&filler->queued, i + 1);
    }
    return NULL;
}

Test(device_host, a_full_ring_blocks_the_caller_and_then_goes_on)
{
    static uint32_t list[MANY];
    uint32_t count = 0;
    struct filler filler = {.list = list, .count = &count};
    pthread_t thread;
    wait_gate(first, 0, 1);
    cr_assert_eq(pthread_create(&thread, NULL, fill, &filler), 0);
    uint32_t seen = 0;
    do {
        seen = atomic_load(&filler.queued);
        a_little_later();
    } while (seen == 0 || seen != atomic_load(&filler.queued));
    cr_expect_gt(seen, 0);
    cr_expect_lt(seen, MANY);
    open_gate(0, 1);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    strata_stream_sync(first);
    cr_assert_eq(count, MANY);
    for (uint32_t i = 0; i < MANY; i++)
        cr_assert_eq(list[i], i);
}

struct noted {
    uint32_t count;
    uint64_t values[64];
    uint64_t times[64];
};

static void note(void *user, uint64_t value, uint64_t now_ns)
{
    struct noted *noted = user;
    noted->values[noted->count] = value;
    noted->times[noted->count++] = now_ns;
}

static void take_a_millisecond(void *args)
{
    (void)args;
    usleep(1000);
}

Test(device_host, notifies_come_in_order_with_the_time_the_stream_got_there)
{
    struct noted noted = {0};
    uint64_t begin = strata_now_ns();
    for (uint64_t i = 0; i < 64; i++) {
        strata_stream_call(first, take_a_millisecond, NULL, 0);
        device->ops->stream_notify(first, note, &noted, 1000 + i);
    }
    strata_stream_sync(first);
    uint64_t end = strata_now_ns();
    cr_assert_eq(noted.count, 64);
    for (uint64_t i = 0; i < 64; i++) {
        cr_expect_eq(noted.values[i], 1000 + i);
        uint64_t before = i == 0 ? begin : noted.times[i - 1];
        cr_expect_geq(noted.times[i], before + 1000000, "call %lu was not waited for",
                      (unsigned long)i);
    }
    cr_expect_leq(noted.times[63], end);
}

struct large {
    unsigned char bytes[STRATA_CALL_BYTES];
};

static void examine(void *args)
{
    struct large large;
    memcpy(&large, args, sizeof large);
    static unsigned char expected;
    for (size_t i = 0; i < sizeof large.bytes; i++)
        cr_assert_eq(large.bytes[i], expected);
    cr_assert_eq((uintptr_t)args % 64, 0);
    expected++;
}

Test(device_host, arguments_are_copied_whole_and_aligned)
{
    struct large large;
    for (unsigned i = 0; i < 200; i++) {
        memset(large.bytes, (int)i, sizeof large.bytes);
        strata_stream_call(first, examine, &large, sizeof large);
        memset(large.bytes, 0xee, sizeof large.bytes); // the caller's copy is its own again
    }
    strata_stream_sync(first);
}

Test(device_host, copy_and_zero_move_what_they_say)
{
    void *arena;
    bool huge;
    uint64_t bytes = 3 << 20;
    cr_assert_eq(device->ops->arena_create(device, bytes, &arena, &huge, NULL), STRATA_OK);
    cr_expect_eq((uintptr_t)arena % 4096, 0);
    static unsigned char in[100000], out[100000];
    for (size_t i = 0; i < sizeof in; i++)
        in[i] = (unsigned char)(i * 7 + 1);
    unsigned char *place = (unsigned char *)arena + 4097;
    strata_stream_copy(first, place, in, sizeof in);
    strata_stream_zero(first, place + 10, 5);
    strata_stream_zero(first, place, 0);
    strata_stream_copy(first, NULL, NULL, 0);
    strata_stream_copy(first, out, place, sizeof out);
    strata_stream_sync(first);
    memset(in + 10, 0, 5);
    cr_expect_arr_eq(out, in, sizeof in);
    cr_expect_eq(place[-1], 0);
    cr_expect_eq(place[sizeof in], 0);
    device->ops->arena_destroy(device, arena, bytes);
}

static void count_slowly(void *args)
{
    usleep(2000);
    atomic_fetch_add(*(atomic_int **)args, 1);
}

Test(device_host, destroy_waits_for_what_is_queued)
{
    atomic_int count = 0, *pointer = &count;
    strata_stream *stream = make_stream("brief");
    for (int i = 0; i < 20; i++)
        strata_stream_call(stream, count_slowly, &pointer, sizeof pointer);
    strata_stream_destroy(stream);
    cr_expect_eq(atomic_load(&count), 20);
}

static void divide(void *args)
{
    struct {
        volatile float tiny, quotient;
        int rounding;
    } *out = *(void **)args;
    out->rounding = fegetround();
    out->quotient = out->tiny / 2;
}

Test(device_host, floating_point_modes_of_the_creator_are_not_inherited)
{
    struct {
        volatile float tiny, quotient;
        int rounding;
    } out = {.tiny = 0x1p-126f}, *pointer = &out;
#if defined(__x86_64__)
    __builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() |
                           0x8040); // flush and treat denormals as zero
#endif
    fesetround(FE_UPWARD);
    strata_stream *stream = make_stream("modes");
    strata_stream_call(stream, divide, &pointer, sizeof pointer);
    strata_stream_sync(stream);
    fesetenv(FE_DFL_ENV);
    cr_expect_eq(out.rounding, FE_TONEAREST);
    cr_expect_eq(out.quotient, 0x1p-127f);
    strata_stream_destroy(stream);
}

struct self {
    char name[17];
    bool interruptible;
};

static void look_at_self(void *args)
{
    struct self *self = *(struct self **)args;
    sigset_t blocked;
    prctl(PR_GET_NAME, self->name);
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    self->interruptible = !sigismember(&blocked, SIGINT) || !sigismember(&blocked, SIGTERM);
}

Test(device_host, a_stream_carries_its_name_and_takes_no_signal)
{
    struct self self = {.interruptible = true}, *pointer = &self;
    strata_stream *stream = make_stream("a-name-of-more-than-fifteen");
    strata_stream_call(stream, look_at_self, &pointer, sizeof pointer);
    strata_stream_sync(stream);
    cr_expect_str_eq(self.name, "a-name-of-more-");
    cr_expect_not(self.interruptible);
    strata_stream_destroy(stream);
}

Test(device_host, free_bytes_are_within_the_machine)
{
    struct sysinfo info;
    cr_assert_eq(sysinfo(&info), 0);
    strata_device_facts facts;
    strata_device_facts_of(device, &facts);
    cr_expect_gt(facts.free_bytes, 0);
    cr_expect_leq(facts.free_bytes, (uint64_t)info.totalram * info.mem_unit);
    cr_expect_null(strata_device_error(device));
}

Test(device_host, an_arena_beyond_the_machine_is_refused)
{
    void *arena = &arena;
    bool huge;
    strata_error error = {0};
    cr_expect_eq(device->ops->arena_create(device, (uint64_t)1 << 52, &arena, &huge, &error),
                 STRATA_E_NOMEM);
    cr_expect_null(arena);
    cr_expect_not_null(strstr(error.message, "host device"));
}

Test(device_host, its_name_is_host)
{
    cr_expect_str_eq(strata_device_name(device), "host");
}

Test(device_host, nothing_to_destroy_is_fine)
{
    strata_device_close(NULL);
    strata_stream_destroy(NULL);
    strata_event_destroy(NULL);
    strata_gates_destroy(NULL);
}
