#ifndef STRATA_OFFLOAD_DEVICE_H
#define STRATA_OFFLOAD_DEVICE_H

/*
 * What a device backend must do. All of it is required. Objects embed their base first, so a
 * backend finds its own by container_of.
 *
 * Two things go beyond the public streams. A notify tells the host when a stream got somewhere:
 * its function runs on a thread of the backend's, must not block and must not touch a stream.
 * And a stream can wait at a gate (offload/device/gates.h), for which a backend may hold
 * whoever queues: so nothing that opens a gate may wait for that thread.
 *
 * A failure of the device is kept by the backend; from then on streams pass everything by,
 * notifies still come, and nothing hangs. So whoever waits for a notify looks for a failure
 * after it.
 *
 * Thread: one thread at a time queues on a stream.
 */

#include "offload/device/gates.h"

#include "strata/device.h"

#include <pthread.h>

typedef void (*strata_notify_fn)(void *user, uint64_t value, uint64_t now_ns);

struct strata_device_ops {
    const char *name;
    bool in_ram; /* its arena is host RAM, and streams run host functions */
    void (*close)(strata_device *device);
    void (*facts)(strata_device *device, strata_device_facts *out);
    const strata_error *(*error)(strata_device *device);

    /* The one arena; aligned for any access. NOMEM names what was asked for. huge: on huge
     * pages? */
    strata_status (*arena_create)(strata_device *device, uint64_t bytes, void **out,
                                  bool *out_huge, strata_error *error);
    void (*arena_destroy)(strata_device *device, void *arena, uint64_t bytes);

    /*
     * Make host memory reachable for the device's copies at full speed, and for its kernels.
     * out_piece_bytes: the largest piece that could be pinned at once; 0: nothing was to be
     * done. The memory must stay as it is until unpin.
     */
    strata_status (*pin)(strata_device *device, void *base, uint64_t bytes,
                         uint64_t *out_piece_bytes, strata_error *error);
    void (*unpin)(strata_device *device, void *base);
    /* A little zeroed host memory that kernels write to as well, at the same address. */
    strata_status (*shared_create)(strata_device *device, uint64_t bytes, void **out,
                                   strata_error *error);
    void (*shared_destroy)(strata_device *device, void *shared);

    strata_status (*stream_create)(strata_device *device, const char *name, strata_stream **out,
                                   strata_error *error);
    /* Around a stream of the caller's; UNSUPPORTED: this device has none. */
    strata_status (*stream_wrap)(strata_device *device, void *native, strata_stream **out,
                                 strata_error *error);
    void (*stream_destroy)(strata_stream *stream);
    /* false: this device takes no functions. */
    bool (*stream_call)(strata_stream *stream, strata_call_fn fn, const void *args,
                        size_t args_bytes);
    void *(*stream_native)(strata_stream *stream);
    /* false: this device takes no launches. */
    bool (*stream_failed)(strata_stream *stream, int native, const char *what);
    void (*stream_copy)(strata_stream *stream, void *dst, const void *src, size_t bytes);
    void (*stream_zero)(strata_stream *stream, void *dst, size_t bytes);
    void (*stream_sync)(strata_stream *stream);
    void (*stream_notify)(strata_stream *stream, strata_notify_fn fn, void *user,
                          uint64_t value);

    strata_status (*event_create)(strata_device *device, strata_event **out,
                                  strata_error *error);
    void (*event_destroy)(strata_event *event);
    void (*event_record)(strata_event *event, strata_stream *stream);
    void (*stream_wait_event)(strata_stream *stream, strata_event *event);

    /* What is queued after it runs once the gate is at least value. */
    void (*stream_wait_gate)(strata_stream *stream, struct gates *gates, uint32_t gate,
                             uint64_t value);
};

struct taken;

/* What is held outlives its close or destroy until the last holder lets it go: streams, events,
 * engines and memory that was taken hold their device, an engine holds the streams that it was
 * used with. The device's hold_lock guards all of it. */
struct strata_device {
    const struct strata_device_ops *ops;
    pthread_mutex_t hold_lock;
    uint32_t holds;
    bool closed;
    struct taken *taken; /* device memory outside of engines */
};
struct strata_stream {
    strata_device *device;
    uint32_t holds;
    bool destroyed;
};
struct strata_event {
    strata_device *device;
};

/* A backend's open does this first, and its close strata_device_end() last. */
void strata_device_begin(strata_device *device, const struct strata_device_ops *ops);
void strata_device_end(strata_device *device);

/* STATE: the device has been closed. what: whom it is held for. Thread: any. */
strata_status strata_device_hold(strata_device *device, const char *what, strata_error *error);
void strata_device_release(strata_device *device);
void strata_stream_hold(strata_stream *stream);
void strata_stream_release(strata_stream *stream);

extern const struct strata_device_ops strata_device_host;
extern const struct strata_device_ops strata_device_cuda; /* where the build has CUDA */

#endif
