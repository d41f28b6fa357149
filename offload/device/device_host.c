#define _GNU_SOURCE

/*
 * The host device: a GPU made of RAM, with the ordering rules of a real one.
 *
 * Three facts shape this file.
 *
 * A stream is a thread with a ring of entries, made at create. An entry is run in its place and
 * frees it only when it is done, so a queued call reads its arguments from the ring, and
 * nothing is allocated after create. If the ring is full, the thread that queues waits.
 *
 * A stream's progress is one number, the count of entries done, kept in a timeline. Recording
 * an event notes the timeline and a count, so it costs no entry. Waiting for the event is
 * waiting until that count is reached. A count per event would be wrong once an event is
 * recorded on a second stream, whose work may end first. A timeline outlives its stream,
 * because another stream may still wait for it. The next stream that is created takes it over
 * and continues the count.
 *
 * Mutexes are fast enough here. Each timeline has one, which also guards its stream's ring. The
 * device's own guards events and the spare timelines. No function holds two of them at once. On
 * Linux none can fail to be made with default attributes.
 *
 * Thread: the row "host-device stream" of docs/threads.md. A stream's ring is filled by one
 * thread at a time and emptied by the stream's own.
 */

#include "offload/device/device.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/thread.h"
#include "base/topology.h"
#include "offload/device/arena.h"

#include <errno.h>
#include <fenv.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdalign.h>
#include <string.h>

/* A layer queues some hundred entries; a thousand let the caller run well ahead. */
#define RING_ENTRIES 1024u

/* A cache line: aligned for any type, vectors included, and not shared by two entries. */
#define ENTRY_ALIGNMENT 64

#define NAME_BYTES 16 /* the kernel's limit for a thread's name, the final zero included */

struct timeline {
    pthread_mutex_t lock;
    pthread_cond_t progress; /* done has grown */
    uint64_t done;           /* entries done, of all streams that had this timeline in turn */
    struct timeline *next;   /* in the device's list of all */
    struct timeline *spare;  /* in the device's list of those without a stream */
};

struct host_device {
    strata_device base;
    pthread_mutex_t lock; /* guards everything below, and the records of all events */
    struct timeline *timelines;
    struct timeline *spares;
    uint32_t stream_count;
    uint32_t event_count;
};

struct host_event {
    strata_event base;
    struct timeline *timeline; /* of the latest record; NULL: none */
    uint64_t count; /* the work before the record is done when `done` has this value */
};

enum entry_kind { ENTRY_CALL, ENTRY_COPY, ENTRY_ZERO, ENTRY_EVENT, ENTRY_GATE, ENTRY_NOTIFY };

struct entry {
    alignas(ENTRY_ALIGNMENT) unsigned char args[STRATA_CALL_BYTES];
    enum entry_kind kind;
    uint32_t gate;
    union {
        strata_call_fn call;
        strata_notify_fn notify;
        const void *src;
        struct timeline *timeline;
        struct gates *gates;
    };
    union {
        void *dst;
        void *user;
    };
    union {
        size_t bytes;
        uint64_t value;
    };
};

struct host_stream {
    strata_stream base;
    struct timeline *timeline;
    struct entry *ring;
    pthread_cond_t queued_more; /* with the timeline's lock: an entry came, or ending is set */
    uint64_t queued;            /* entries ever queued, counted as timeline->done is */
    bool ending;
    pthread_t thread;
    char name[NAME_BYTES];
};

/* The base is the first member of each. */
static struct host_device *host_device(strata_device *device)
{
    return (struct host_device *)device;
}

static struct host_stream *host_stream(strata_stream *stream)
{
    return (struct host_stream *)stream;
}

static struct host_event *host_event(strata_event *event)
{
    return (struct host_event *)event;
}

/* A spare timeline, or a new one; NULL: no memory. */
static struct timeline *timeline_take(struct host_device *device)
{
    pthread_mutex_lock(&device->lock);
    struct timeline *timeline = device->spares;
    if (timeline != NULL)
        device->spares = timeline->spare;
    pthread_mutex_unlock(&device->lock);
    if (timeline != NULL)
        return timeline;
    timeline = calloc(1, sizeof *timeline);
    if (timeline == NULL)
        return NULL;
    pthread_mutex_init(&timeline->lock, NULL);
    pthread_cond_init(&timeline->progress, NULL);
    pthread_mutex_lock(&device->lock);
    timeline->next = device->timelines;
    device->timelines = timeline;
    pthread_mutex_unlock(&device->lock);
    return timeline;
}

static void timeline_give_back(struct host_device *device, struct timeline *timeline)
{
    pthread_mutex_lock(&device->lock);
    timeline->spare = device->spares;
    device->spares = timeline;
    pthread_mutex_unlock(&device->lock);
}

static void timeline_wait(struct timeline *timeline, uint64_t count)
{
    pthread_mutex_lock(&timeline->lock);
    while (timeline->done < count)
        pthread_cond_wait(&timeline->progress, &timeline->lock);
    pthread_mutex_unlock(&timeline->lock);
}

static void run_entry(struct entry *entry)
{
    switch (entry->kind) {
    case ENTRY_CALL:
        entry->call(entry->args);
        break;
    case ENTRY_COPY:
        memcpy(entry->dst, entry->src, entry->bytes);
        break;
    case ENTRY_ZERO:
        memset(entry->dst, 0, entry->bytes);
        break;
    case ENTRY_EVENT:
        timeline_wait(entry->timeline, entry->value);
        break;
    case ENTRY_GATE:
        strata_gate_wait(entry->gates, entry->gate, entry->value);
        break;
    case ENTRY_NOTIFY:
        entry->notify(entry->user, entry->value, strata_now_ns());
        break;
    }
}

/* The oldest entry; NULL: the stream ends. It keeps its place in the ring until finish_entry().
 */
static struct entry *next_entry(struct host_stream *stream)
{
    struct timeline *timeline = stream->timeline;
    pthread_mutex_lock(&timeline->lock);
    while (timeline->done == stream->queued && !stream->ending)
        pthread_cond_wait(&stream->queued_more, &timeline->lock);
    bool any = timeline->done < stream->queued;
    struct entry *entry = any ? &stream->ring[timeline->done % RING_ENTRIES] : NULL;
    pthread_mutex_unlock(&timeline->lock);
    return entry;
}

static void finish_entry(struct timeline *timeline)
{
    pthread_mutex_lock(&timeline->lock);
    timeline->done++;
    pthread_cond_broadcast(&timeline->progress);
    pthread_mutex_unlock(&timeline->lock);
}

static void *stream_main(void *argument)
{
    struct host_stream *stream = argument;
    pthread_setname_np(pthread_self(), stream->name);
    // A thread inherits its creator's floating-point modes, and those must not decide any bit.
    fesetenv(FE_DFL_ENV);
    for (struct entry *entry; (entry = next_entry(stream)) != NULL;) {
        run_entry(entry);
        finish_entry(stream->timeline);
    }
    return NULL;
}

/* Wait for room and return the place of the next entry; commit_entry() makes it visible. */
static struct entry *reserve_entry(struct host_stream *stream, enum entry_kind kind)
{
    struct timeline *timeline = stream->timeline;
    pthread_mutex_lock(&timeline->lock);
    while (stream->queued - timeline->done == RING_ENTRIES)
        pthread_cond_wait(&timeline->progress, &timeline->lock);
    pthread_mutex_unlock(&timeline->lock);
    // Only this thread queues, so the place stays free without the lock.
    struct entry *entry = &stream->ring[stream->queued % RING_ENTRIES];
    entry->kind = kind;
    return entry;
}

static void commit_entry(struct host_stream *stream)
{
    pthread_mutex_lock(&stream->timeline->lock);
    stream->queued++;
    pthread_cond_signal(&stream->queued_more);
    pthread_mutex_unlock(&stream->timeline->lock);
}

static strata_status host_stream_create(strata_device *device, const char *name,
                                        strata_stream **out, strata_error *error)
{
    int cause = ENOMEM;
    struct host_device *owner = host_device(device);
    struct host_stream *stream = calloc(1, sizeof *stream);
    if (stream == NULL)
        goto fail;
    stream->base.device = device;
    snprintf(stream->name, sizeof stream->name, "%s", name);
    size_t ring_bytes = RING_ENTRIES * sizeof *stream->ring;
    stream->ring = aligned_alloc(ENTRY_ALIGNMENT, ring_bytes);
    if (stream->ring == NULL)
        goto free_stream;
    // Written once, so that the pages exist and a step's memory does not grow.
    memset(stream->ring, 0, ring_bytes);
    stream->timeline = timeline_take(owner);
    if (stream->timeline == NULL)
        goto free_ring;
    stream->queued = stream->timeline->done;
    pthread_cond_init(&stream->queued_more, NULL);
    cause = strata_thread_start(&stream->thread, 0, stream_main, stream);
    if (cause != 0)
        goto give_timeline_back;
    pthread_mutex_lock(&owner->lock);
    owner->stream_count++;
    pthread_mutex_unlock(&owner->lock);
    *out = &stream->base;
    return STRATA_OK;

give_timeline_back:
    pthread_cond_destroy(&stream->queued_more);
    timeline_give_back(owner, stream->timeline);
free_ring:
    free(stream->ring);
free_stream:
    free(stream);
fail:
    return strata_fail(error, STRATA_E_NOMEM, cause, "host device: stream \"%s\": %s", name,
                       strerror(cause));
}

/* A stream is a thread that the device makes itself, so there is nothing to wrap. */
static strata_status host_stream_wrap(strata_device *device, void *native, strata_stream **out,
                                      strata_error *error)
{
    (void)device;
    (void)native;
    (void)out;
    return strata_fail(error, STRATA_E_UNSUPPORTED, 0,
                       "host device: it has no native streams to wrap: strata_stream_create() "
                       "makes one");
}

static void host_stream_destroy(strata_stream *base)
{
    struct host_stream *stream = host_stream(base);
    struct host_device *owner = host_device(base->device);
    pthread_mutex_lock(&stream->timeline->lock);
    stream->ending = true;
    pthread_cond_signal(&stream->queued_more);
    pthread_mutex_unlock(&stream->timeline->lock);
    STRATA_CHECK(pthread_join(stream->thread, NULL) == 0);
    pthread_cond_destroy(&stream->queued_more);
    timeline_give_back(owner, stream->timeline);
    pthread_mutex_lock(&owner->lock);
    owner->stream_count--;
    pthread_mutex_unlock(&owner->lock);
    free(stream->ring);
    free(stream);
}

static bool host_stream_call(strata_stream *base, strata_call_fn fn, const void *args,
                             size_t args_bytes)
{
    struct host_stream *stream = host_stream(base);
    struct entry *entry = reserve_entry(stream, ENTRY_CALL);
    entry->call = fn;
    if (args_bytes > 0)
        memcpy(entry->args, args, args_bytes);
    commit_entry(stream);
    return true;
}

static void *host_stream_native(strata_stream *stream)
{
    (void)stream;
    return NULL;
}

static bool host_stream_failed(strata_stream *stream, int native, const char *what)
{
    (void)stream;
    (void)native;
    (void)what;
    return false;
}

static void host_stream_copy(strata_stream *base, void *dst, const void *src, size_t bytes)
{
    if (bytes == 0)
        return;
    struct host_stream *stream = host_stream(base);
    struct entry *entry = reserve_entry(stream, ENTRY_COPY);
    entry->dst = dst;
    entry->src = src;
    entry->bytes = bytes;
    commit_entry(stream);
}

static void host_stream_zero(strata_stream *base, void *dst, size_t bytes)
{
    if (bytes == 0)
        return;
    struct host_stream *stream = host_stream(base);
    struct entry *entry = reserve_entry(stream, ENTRY_ZERO);
    entry->dst = dst;
    entry->bytes = bytes;
    commit_entry(stream);
}

static void host_stream_sync(strata_stream *base)
{
    struct host_stream *stream = host_stream(base);
    timeline_wait(stream->timeline, stream->queued);
}

static void host_stream_notify(strata_stream *base, strata_notify_fn fn, void *user,
                               uint64_t value)
{
    struct host_stream *stream = host_stream(base);
    struct entry *entry = reserve_entry(stream, ENTRY_NOTIFY);
    entry->notify = fn;
    entry->user = user;
    entry->value = value;
    commit_entry(stream);
}

static strata_status host_event_create(strata_device *device, strata_event **out,
                                       strata_error *error)
{
    struct host_event *event = calloc(1, sizeof *event);
    if (event == NULL)
        return strata_fail(error, STRATA_E_NOMEM, ENOMEM, "host device: event: %s",
                           strerror(ENOMEM));
    event->base.device = device;
    struct host_device *owner = host_device(device);
    pthread_mutex_lock(&owner->lock);
    owner->event_count++;
    pthread_mutex_unlock(&owner->lock);
    *out = &event->base;
    return STRATA_OK;
}

/* Waits that are queued have a copy of the record, so they do not need the event. */
static void host_event_destroy(strata_event *event)
{
    struct host_device *owner = host_device(event->device);
    pthread_mutex_lock(&owner->lock);
    owner->event_count--;
    pthread_mutex_unlock(&owner->lock);
    free(host_event(event));
}

static void host_event_record(strata_event *base, strata_stream *base_stream)
{
    struct host_event *event = host_event(base);
    struct host_stream *stream = host_stream(base_stream);
    struct host_device *owner = host_device(base->device);
    pthread_mutex_lock(&owner->lock);
    event->timeline = stream->timeline;
    event->count = stream->queued;
    pthread_mutex_unlock(&owner->lock);
}

static void host_stream_wait_event(strata_stream *base, strata_event *base_event)
{
    struct host_event *event = host_event(base_event);
    struct host_stream *stream = host_stream(base);
    struct host_device *owner = host_device(base->device);
    pthread_mutex_lock(&owner->lock);
    struct timeline *timeline = event->timeline;
    uint64_t count = event->count;
    pthread_mutex_unlock(&owner->lock);
    // Work of the same stream is earlier anyway.
    if (timeline == NULL || timeline == stream->timeline)
        return;
    struct entry *entry = reserve_entry(stream, ENTRY_EVENT);
    entry->timeline = timeline;
    entry->value = count;
    commit_entry(stream);
}

static void host_stream_wait_gate(strata_stream *base, struct gates *gates, uint32_t gate,
                                  uint64_t value)
{
    struct host_stream *stream = host_stream(base);
    struct entry *entry = reserve_entry(stream, ENTRY_GATE);
    entry->gates = gates;
    entry->gate = gate;
    entry->value = value;
    commit_entry(stream);
}

static strata_status host_arena_create(strata_device *device, uint64_t bytes, void **out,
                                       bool *out_huge, strata_error *error)
{
    (void)device;
    struct arena arena;
    *out = NULL;
    STRATA_TRY(strata_arena_create(&arena, bytes, "the host device", error));
    *out = arena.base;
    *out_huge = arena.huge;
    return STRATA_OK;
}

static void host_arena_destroy(strata_device *device, void *arena, uint64_t bytes)
{
    (void)device;
    strata_arena_destroy(&(struct arena){.base = arena, .bytes = bytes});
}

/* The device is made of RAM: free is what the machine has left, or the cgroup if that is less.
 */
static void host_facts(strata_device *device, strata_device_facts *out)
{
    (void)device;
    *out = (strata_device_facts){0};
    struct topology topology;
    if (strata_topology_read(&topology, NULL, NULL) != STRATA_OK)
        return;
    out->total_bytes = topology.memory_limit_bytes;
    out->free_bytes = topology.memory_available_bytes;
    if (topology.memory_limit_bytes == UINT64_MAX)
        return;
    uint64_t taken = topology.memory_current_bytes;
    uint64_t left =
        topology.memory_limit_bytes > taken ? topology.memory_limit_bytes - taken : 0;
    if (left < out->free_bytes)
        out->free_bytes = left;
}

/* A failure of RAM is a signal, so there is never one to report. */
static const strata_error *host_error(strata_device *device)
{
    (void)device;
    return NULL;
}

/* The stream's thread can copy from any memory, so there is nothing to pin. */
static strata_status host_pin(strata_device *device, void *base, uint64_t bytes,
                              uint64_t *out_piece_bytes, strata_error *error)
{
    (void)device;
    (void)base;
    (void)bytes;
    (void)error;
    *out_piece_bytes = 0;
    return STRATA_OK;
}

static void host_unpin(strata_device *device, void *base)
{
    (void)device;
    (void)base;
}

static strata_status host_shared_create(strata_device *device, uint64_t bytes, void **out,
                                        strata_error *error)
{
    (void)device;
    *out = calloc(1, bytes);
    if (*out == NULL)
        return strata_fail(error, STRATA_E_NOMEM, ENOMEM, "host device: %" PRIu64 " bytes: %s",
                           bytes, strerror(ENOMEM));
    return STRATA_OK;
}

static void host_shared_destroy(strata_device *device, void *shared)
{
    (void)device;
    free(shared);
}

static void host_close(strata_device *base)
{
    struct host_device *device = host_device(base);
    STRATA_CHECK(device->stream_count == 0);
    STRATA_CHECK(device->event_count == 0);
    while (device->timelines != NULL) {
        struct timeline *timeline = device->timelines;
        device->timelines = timeline->next;
        pthread_cond_destroy(&timeline->progress);
        pthread_mutex_destroy(&timeline->lock);
        free(timeline);
    }
    pthread_mutex_destroy(&device->lock);
    strata_device_end(&device->base);
    free(device);
}

strata_status strata_device_open_host(strata_device **out, strata_error *error)
{
    if (out == NULL)
        return strata_fail(error, STRATA_E_INVALID, 0, "host device: out is NULL");
    *out = NULL;
    struct host_device *device = calloc(1, sizeof *device);
    if (device == NULL)
        return strata_fail(error, STRATA_E_NOMEM, ENOMEM, "host device: %s", strerror(ENOMEM));
    strata_device_begin(&device->base, &strata_device_host);
    pthread_mutex_init(&device->lock, NULL);
    *out = &device->base;
    return STRATA_OK;
}

const struct strata_device_ops strata_device_host = {
    .name = "host",
    .in_ram = true,
    .close = host_close,
    .facts = host_facts,
    .error = host_error,
    .arena_create = host_arena_create,
    .arena_destroy = host_arena_destroy,
    .pin = host_pin,
    .unpin = host_unpin,
    .shared_create = host_shared_create,
    .shared_destroy = host_shared_destroy,
    .stream_create = host_stream_create,
    .stream_wrap = host_stream_wrap,
    .stream_destroy = host_stream_destroy,
    .stream_call = host_stream_call,
    .stream_native = host_stream_native,
    .stream_failed = host_stream_failed,
    .stream_copy = host_stream_copy,
    .stream_zero = host_stream_zero,
    .stream_sync = host_stream_sync,
    .stream_notify = host_stream_notify,
    .event_create = host_event_create,
    .event_destroy = host_event_destroy,
    .event_record = host_event_record,
    .stream_wait_event = host_stream_wait_event,
    .stream_wait_gate = host_stream_wait_gate,
};
