#ifndef STRATA_OFFLOAD_DEVICE_H
#define STRATA_OFFLOAD_DEVICE_H

/*
 * What a device backend must do. All of it is required. A backend's object has the base as its
 * first member, so a pointer to the base can be cast to it.
 *
 * Two functions have no public counterpart. stream_notify() calls a function on the host when
 * the stream has done what was queued before it. That function runs on a thread of the
 * backend's; it must not block and must not use a stream. stream_wait_gate() makes a stream
 * wait at a gate (offload/device/gates.h). A backend may block the thread that queues the wait
 * instead, so a thread that opens gates must not wait for one that queues.
 *
 * The backend keeps the first failure of the device. From then on a stream skips its work,
 * notifies still come, and nothing hangs. So after a notify its receiver has to ask for a
 * failure.
 *
 * Thread: one thread at a time queues on a stream.
 */

#include "offload/device/gates.h"

#include "strata/device.h"

#include <pthread.h>

typedef void (*strata_notify_fn)(void *user, uint64_t value, uint64_t now_ns);

struct strata_device_ops {
    const char *name;
    bool in_ram; /* its arena is host RAM, and its streams run functions of the host */
    void (*close)(strata_device *device);
    void (*facts)(strata_device *device, strata_device_facts *out);
    const strata_error *(*error)(strata_device *device);

    /* A piece of device memory, aligned for any access. NOMEM names the bytes that were asked
     * for. out_huge: is it on huge pages? */
    strata_status (*arena_create)(strata_device *device, uint64_t bytes, void **out,
                                  bool *out_huge, strata_error *error);
    void (*arena_destroy)(strata_device *device, void *arena, uint64_t bytes);

    /*
     * Make host memory reachable for the device's copies at full speed, and for its kernels.
     * out_piece_bytes: the largest piece that could be pinned at once; 0: this device needs no
     * pinning. The memory must stay mapped until unpin.
     */
    strata_status (*pin)(strata_device *device, void *base, uint64_t bytes,
                         uint64_t *out_piece_bytes, strata_error *error);
    void (*unpin)(strata_device *device, void *base);
    /* A little zeroed host memory that kernels can write to, at the same address. */
    strata_status (*shared_create)(strata_device *device, uint64_t bytes, void **out,
                                   strata_error *error);
    void (*shared_destroy)(strata_device *device, void *shared);

    strata_status (*stream_create)(strata_device *device, const char *name, strata_stream **out,
                                   strata_error *error);
    /* Around a stream of the caller's; UNSUPPORTED: this device has none. */
    strata_status (*stream_wrap)(strata_device *device, void *native, strata_stream **out,
                                 strata_error *error);
    void (*stream_destroy)(strata_stream *stream);
    /* false: this device's streams run no functions of the host. */
    bool (*stream_call)(strata_stream *stream, strata_call_fn fn, const void *args,
                        size_t args_bytes);
    void *(*stream_native)(strata_stream *stream);
    /* Keep a failed launch as the device's failure. false: this device has no launches. */
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

    /* Work that is queued after it runs once the gate is at least value. */
    void (*stream_wait_gate)(strata_stream *stream, struct gates *gates, uint32_t gate,
                             uint64_t value);
};

struct taken;

/* An object that is held outlives its close or destroy until its last holder releases it.
 * Streams, events, engines and memory that was taken hold their device. An engine holds the
 * streams that it was used with. The device's hold_lock guards all these counts. */
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

/* A backend's open calls begin first, and its close calls end last. */
void strata_device_begin(strata_device *device, const struct strata_device_ops *ops);
void strata_device_end(strata_device *device);

/* STATE: the device has been closed. what: the holder, for the message. Thread: any. */
strata_status strata_device_hold(strata_device *device, const char *what, strata_error *error);
void strata_device_release(strata_device *device);
void strata_stream_hold(strata_stream *stream);
void strata_stream_release(strata_stream *stream);

extern const struct strata_device_ops strata_device_host;
extern const struct strata_device_ops strata_device_cuda; /* where the build has CUDA */

#endif
