/*
 * The public device interface: a check of what only a bug can get wrong, then the backend.
 *
 * The checks stand here and not in the backends, so that a program which passes on the host
 * device has been held to the same rules as on any other.
 *
 * Thread: as in strata/device.h.
 */

#include "offload/device/device.h"

#include "base/error.h"

void strata_device_close(strata_device *device)
{
    if (device != NULL)
        device->ops->close(device);
}

const char *strata_device_name(const strata_device *device)
{
    return device->ops->name;
}

void strata_device_facts_of(strata_device *device, strata_device_facts *out)
{
    device->ops->facts(device, out);
}

const strata_error *strata_device_error(strata_device *device)
{
    return device->ops->error(device);
}

strata_status strata_device_take(strata_device *device, uint64_t bytes, void **out,
                                 strata_error *error)
{
    bool huge;
    *out = NULL;
    return device->ops->arena_create(device, bytes, out, &huge, error);
}

void strata_device_give(strata_device *device, void *memory, uint64_t bytes)
{
    if (memory != NULL)
        device->ops->arena_destroy(device, memory, bytes);
}

strata_status strata_stream_create(strata_stream **out, strata_device *device, const char *name,
                                   strata_error *error)
{
    STRATA_CHECK(name != NULL);
    *out = NULL;
    return device->ops->stream_create(device, name, out, error);
}

void strata_stream_destroy(strata_stream *stream)
{
    if (stream != NULL)
        stream->device->ops->stream_destroy(stream);
}

void strata_stream_call(strata_stream *stream, strata_call_fn fn, const void *args,
                        size_t args_bytes)
{
    STRATA_CHECK(fn != NULL);
    STRATA_CHECK(args_bytes <= STRATA_CALL_BYTES);
    STRATA_CHECK(args != NULL || args_bytes == 0);
    stream->device->ops->stream_call(stream, fn, args, args_bytes);
}

void *strata_stream_native(strata_stream *stream)
{
    return stream->device->ops->stream_native(stream);
}

void strata_stream_failed(strata_stream *stream, int native, const char *what)
{
    if (native != 0)
        stream->device->ops->stream_failed(stream, native, what);
}

void strata_stream_copy(strata_stream *stream, void *dst, const void *src, size_t bytes)
{
    STRATA_CHECK((dst != NULL && src != NULL) || bytes == 0);
    stream->device->ops->stream_copy(stream, dst, src, bytes);
}

void strata_stream_zero(strata_stream *stream, void *dst, size_t bytes)
{
    STRATA_CHECK(dst != NULL || bytes == 0);
    stream->device->ops->stream_zero(stream, dst, bytes);
}

void strata_stream_sync(strata_stream *stream)
{
    stream->device->ops->stream_sync(stream);
}

strata_status strata_event_create(strata_event **out, strata_device *device,
                                  strata_error *error)
{
    *out = NULL;
    return device->ops->event_create(device, out, error);
}

void strata_event_destroy(strata_event *event)
{
    if (event != NULL)
        event->device->ops->event_destroy(event);
}

void strata_event_record(strata_event *event, strata_stream *stream)
{
    STRATA_CHECK(event->device == stream->device);
    event->device->ops->event_record(event, stream);
}

void strata_stream_wait_event(strata_stream *stream, strata_event *event)
{
    STRATA_CHECK(event->device == stream->device);
    stream->device->ops->stream_wait_event(stream, event);
}
