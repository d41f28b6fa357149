/*
 * The host device under load, as a plain program, so that it also runs under TSan, with which
 * Criterion does not start.
 *
 * A few cells are added to by calls on random streams. Whoever uses a cell waits for the event
 * of its last use, so all uses of a cell are ordered although nothing else is; the expected
 * value travels with the call. Gates are opened by a thread of their own, somewhat late.
 * Streams and events are now and then replaced while waits for them are queued.
 *
 *     stress_device [seed [operations]]
 *
 * With STRATA_TEST_LONG in the environment it goes on a hundred times longer.
 */

#include "offload/device/device.h"

#include "base/error.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#define STREAMS 4u
#define CELLS   6u
#define GATES   3u

struct cell {
    uint64_t value;    /* touched by calls only; TSan is the referee */
    uint64_t expected; /* the queueing thread's                      */
    strata_event *last_use;
};

struct add {
    struct cell *cell;
    uint64_t before;
    uint64_t amount;
};

struct stress {
    strata_device *device;
    strata_stream *streams[STREAMS];
    uint64_t noted[STREAMS]; /* written by the stream's notifies                            */
    uint64_t notes[STREAMS]; /* queued so far                                               */
    struct cell cells[CELLS];
    struct gates *gates;
    _Atomic uint64_t
        wanted[GATES]; /* written by main, read by the opener; relaxed: a hint only */
    atomic_bool ending;
    uint64_t random;
};

static struct stress stress;

static uint32_t draw(uint32_t below)
{
    stress.random ^= stress.random << 13;
    stress.random ^= stress.random >> 7;
    stress.random ^= stress.random << 17;
    return (uint32_t)(stress.random >> 33) % below;
}

static void add(void *args)
{
    const struct add *what = args;
    STRATA_CHECK(what->cell->value == what->before);
    what->cell->value += what->amount;
}

static void note(void *user, uint64_t value, uint64_t now_ns)
{
    uint64_t *noted = user;
    STRATA_CHECK(now_ns > 0);
    STRATA_CHECK(value == *noted + 1);
    *noted = value;
}

static void *open_gates(void *argument)
{
    (void)argument;
    bool ending;
    do {
        ending = atomic_load(&stress.ending);
        for (uint32_t i = 0; i < GATES; i++)
            strata_gate_open(stress.gates, i,
                             atomic_load_explicit(&stress.wanted[i], memory_order_relaxed));
        sched_yield();
    } while (!ending);
    return NULL;
}

static void use_cell(strata_stream *stream, struct cell *cell)
{
    struct add what = {.cell = cell, .before = cell->expected, .amount = draw(1000)};
    strata_stream_wait_event(stream, cell->last_use);
    strata_stream_call(stream, add, &what, sizeof what);
    strata_event_record(cell->last_use, stream);
    cell->expected += what.amount;
}

static void use_gate(strata_stream *stream)
{
    uint32_t gate = draw(GATES);
    uint64_t value = atomic_load(&stress.wanted[gate]) + 1;
    stress.device->ops->stream_wait_gate(stream, stress.gates, gate, value);
    atomic_store_explicit(&stress.wanted[gate], value, memory_order_relaxed);
}

/* Queued waits hold the record, so the event may go; the new one says what the old one said. */
static void replace_event(strata_stream *stream, struct cell *cell)
{
    strata_stream_wait_event(stream, cell->last_use);
    strata_event_destroy(cell->last_use);
    STRATA_CHECK(strata_event_create(&cell->last_use, stress.device, NULL) == STRATA_OK);
    strata_event_record(cell->last_use, stream);
}

static void replace_stream(uint32_t index)
{
    strata_stream_destroy(stress.streams[index]);
    STRATA_CHECK(strata_stream_create(&stress.streams[index], stress.device, "stress", NULL) ==
                 STRATA_OK);
}

static void operate(void)
{
    uint32_t index = draw(STREAMS);
    strata_stream *stream = stress.streams[index];
    uint32_t choice = draw(100);
    if (choice < 70)
        use_cell(stream, &stress.cells[draw(CELLS)]);
    else if (choice < 85)
        stress.device->ops->stream_notify(stream, note, &stress.noted[index],
                                          ++stress.notes[index]);
    else if (choice < 97)
        use_gate(stream);
    else if (choice < 98)
        replace_event(stream, &stress.cells[draw(CELLS)]);
    else if (choice < 99)
        strata_stream_sync(stream);
    else
        replace_stream(index);
}

int main(int argc, char **argv)
{
    stress.random = argc > 1 ? strtoull(argv[1], NULL, 0) | 1 : 0x9e3779b97f4a7c15u;
    uint64_t operations = getenv("STRATA_TEST_LONG") != NULL ? 4000000 : 40000;
    if (argc > 2)
        operations = strtoull(argv[2], NULL, 0);
    pthread_t opener;
    STRATA_CHECK(strata_device_open_host(&stress.device, NULL) == STRATA_OK);
    STRATA_CHECK(strata_gates_create(&stress.gates, GATES, NULL) == STRATA_OK);
    for (uint32_t i = 0; i < STREAMS; i++)
        STRATA_CHECK(strata_stream_create(&stress.streams[i], stress.device, "stress", NULL) ==
                     STRATA_OK);
    for (uint32_t i = 0; i < CELLS; i++)
        STRATA_CHECK(strata_event_create(&stress.cells[i].last_use, stress.device, NULL) ==
                     STRATA_OK);
    STRATA_CHECK(pthread_create(&opener, NULL, open_gates, NULL) == 0);

    for (uint64_t i = 0; i < operations; i++)
        operate();

    for (uint32_t i = 0; i < STREAMS; i++)
        strata_stream_destroy(stress.streams[i]);
    atomic_store(&stress.ending, true);
    STRATA_CHECK(pthread_join(opener, NULL) == 0);
    for (uint32_t i = 0; i < STREAMS; i++)
        STRATA_CHECK(stress.noted[i] == stress.notes[i]);
    for (uint32_t i = 0; i < CELLS; i++) {
        STRATA_CHECK(stress.cells[i].value == stress.cells[i].expected);
        strata_event_destroy(stress.cells[i].last_use);
    }
    strata_gates_destroy(stress.gates);
    strata_device_close(stress.device);
    return 0;
}
