#ifndef STRATA_OFFLOAD_DEVICE_H
#define STRATA_OFFLOAD_DEVICE_H

/*
 * What a device backend must do. All of it is required. Objects embed their base first, so a
 * backend finds its own by container_of.
 *
 * Two things go beyond the public streams. A notify tells the host when a stream got somewhere:
 * its function runs on a thread of the backend's, must not block and must not touch a stream. A
 * gate is a number that the host raises and a stream waits for: how a stream waits for bytes
 * whose copy is not queued yet (CUDA: cuStreamWaitValue64 on a pinned word).
 *
 * Thread: one thread at a time queues on a stream. gate_open: any thread.
 */

#include "strata/device.h"

typedef void (*strata_notify_fn)(void *user, uint64_t value, uint64_t now_ns);

struct strata_device_ops {
    const char *name;
    void (*close)(strata_device *device);

    /* The one arena; 4096-aligned. NOMEM names what was asked for. huge: on huge pages? */
    strata_status (*arena_create)(strata_device *device, uint64_t bytes, void **out,
                                  bool *out_huge, strata_error *error);
    void (*arena_destroy)(strata_device *device, void *arena, uint64_t bytes);
    /* What is free now, for defaults and checks. */
    uint64_t (*free_bytes)(strata_device *device);

    strata_status (*stream_create)(strata_device *device, const char *name, strata_stream **out,
                                   strata_error *error);
    void (*stream_destroy)(strata_stream *stream);
    void (*stream_call)(strata_stream *stream, strata_call_fn fn, const void *args,
                        size_t args_bytes);
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

    /* count gates, all 0 at first. */
    strata_status (*gates_create)(strata_device *device, uint32_t count, void **out,
                                  strata_error *error);
    void (*gates_destroy)(strata_device *device, void *gates);
    void (*gate_open)(strata_device *device, void *gates, uint32_t gate, uint64_t value);
    /* The stream goes on once the gate is at least value. */
    void (*stream_wait_gate)(strata_stream *stream, void *gates, uint32_t gate, uint64_t value);
};

struct strata_device {
    const struct strata_device_ops *ops;
};
struct strata_stream {
    strata_device *device;
};
struct strata_event {
    strata_device *device;
};

extern const struct strata_device_ops strata_device_host;

#endif
