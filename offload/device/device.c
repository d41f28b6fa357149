/*
 * The public device interface: wrong arguments are refused here, then the backend does the
 * work.
 *
 * The checks are here and not in the backends, so that the rules for a program are the same on
 * the host device as on any other.
 *
 * Objects may be closed in any order: a device lives until the last stream, event, engine and
 * piece of memory on it is gone, and a stream until the engines that used it are. The counts
 * for that are under the device's hold_lock.
 *
 * Thread: as in strata/device.h.
 */

#include "offload/device/device.h"

#include "base/error.h"

#include <stdlib.h>

/* Device memory that a caller took outside of engines. */
struct taken {
    struct taken *next;
    void *memory;
    uint64_t bytes;
};

void strata_device_begin(strata_device *device, const struct strata_device_ops *ops)
{
    *device = (strata_device){.ops = ops};
    pthread_mutex_init(&device->hold_lock, NULL);
}

void strata_device_end(strata_device *device)
{
    pthread_mutex_destroy(&device->hold_lock);
}

strata_status strata_device_hold(strata_device *device, const char *what, strata_error *error)
{
    pthread_mutex_lock(&device->hold_lock);
    bool closed = device->closed;
    device->holds += !closed;
    pthread_mutex_unlock(&device->hold_lock);
    if (!closed)
        return STRATA_OK;
    return strata_fail(error, STRATA_E_STATE, 0, "%s device: %s: the device has been closed",
                       device->ops->name, what);
}

void strata_device_release(strata_device *device)
{
    pthread_mutex_lock(&device->hold_lock);
    device->holds--;
    bool last = device->closed && device->holds == 0;
    pthread_mutex_unlock(&device->hold_lock);
    if (last)
        device->ops->close(device);
}

void strata_device_close(strata_device *device)
{
    if (device == NULL)
        return;
    pthread_mutex_lock(&device->hold_lock);
    bool first = !device->closed;
    device->closed = true;
    bool last = first && device->holds == 0;
    pthread_mutex_unlock(&device->hold_lock);
    if (last)
        device->ops->close(device);
}

const char *strata_device_name(const strata_device *device)
{
    return device != NULL ? device->ops->name : "none";
}

void strata_device_facts_of(strata_device *device, strata_device_facts *out)
{
    if (out != NULL)
        *out = (strata_device_facts){.total_bytes = 0};
    if (device != NULL && out != NULL)
        device->ops->facts(device, out);
}

const strata_error *strata_device_error(strata_device *device)
{
    return device != NULL ? device->ops->error(device) : NULL;
}

/* The arguments that every function has which makes an object. */
static strata_status check_making(void **out, const strata_device *device, const char *what,
                                  strata_error *error)
{
    if (out == NULL)
        return strata_fail(error, STRATA_E_INVALID, 0, "%s: out is NULL", what);
    *out = NULL;
    if (device == NULL)
        return strata_fail(error, STRATA_E_INVALID, 0, "%s: the device is NULL", what);
    return STRATA_OK;
}

strata_status strata_device_take(strata_device *device, uint64_t bytes, void **out,
                                 strata_error *error)
{
    bool huge;
    STRATA_TRY(check_making(out, device, "device memory", error));
    if (bytes == 0)
        return STRATA_OK;
    struct taken *taken = calloc(1, sizeof *taken);
    if (taken == NULL)
        return strata_fail(error, STRATA_E_NOMEM, 0, "device memory: no memory to note it in");
    strata_status status = strata_device_hold(device, "memory", error);
    if (status != STRATA_OK)
        goto free_taken;
    status = device->ops->arena_create(device, bytes, &taken->memory, &huge, error);
    if (status != STRATA_OK)
        goto release_device;
    taken->bytes = bytes;
    pthread_mutex_lock(&device->hold_lock);
    taken->next = device->taken;
    device->taken = taken;
    pthread_mutex_unlock(&device->hold_lock);
    *out = taken->memory;
    return STRATA_OK;
release_device:
    strata_device_release(device);
free_taken:
    free(taken);
    return status;
}

strata_status strata_device_give(strata_device *device, void *memory, uint64_t bytes)
{
    if (memory == NULL)
        return STRATA_OK;
    if (device == NULL)
        return STRATA_E_INVALID;
    pthread_mutex_lock(&device->hold_lock);
    struct taken **at = &device->taken;
    while (*at != NULL && ((*at)->memory != memory || (*at)->bytes != bytes))
        at = &(*at)->next;
    struct taken *taken = *at;
    if (taken != NULL)
        *at = taken->next;
    pthread_mutex_unlock(&device->hold_lock);
    if (taken == NULL)
        return STRATA_E_INVALID;
    free(taken);
    device->ops->arena_destroy(device, memory, bytes);
    strata_device_release(device);
    return STRATA_OK;
}

strata_status strata_stream_create(strata_stream **out, strata_device *device, const char *name,
                                   strata_error *error)
{
    STRATA_TRY(check_making((void **)out, device, "stream", error));
    if (name == NULL)
        return strata_fail(error, STRATA_E_INVALID, 0, "stream: its name is NULL");
    STRATA_TRY(strata_device_hold(device, "a stream", error));
    strata_status status = device->ops->stream_create(device, name, out, error);
    if (status != STRATA_OK)
        strata_device_release(device);
    return status;
}

strata_status strata_stream_wrap(strata_stream **out, strata_device *device, void *native,
                                 strata_error *error)
{
    STRATA_TRY(check_making((void **)out, device, "stream", error));
    if (native == NULL)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "stream: the native one is NULL, which is the default stream: work "
                           "on it waits for all others");
    STRATA_TRY(strata_device_hold(device, "a stream", error));
    strata_status status = device->ops->stream_wrap(device, native, out, error);
    if (status != STRATA_OK)
        strata_device_release(device);
    return status;
}

static void end_stream(strata_stream *stream)
{
    strata_device *device = stream->device;
    device->ops->stream_destroy(stream);
    strata_device_release(device);
}

void strata_stream_hold(strata_stream *stream)
{
    pthread_mutex_lock(&stream->device->hold_lock);
    stream->holds++;
    pthread_mutex_unlock(&stream->device->hold_lock);
}

void strata_stream_release(strata_stream *stream)
{
    pthread_mutex_lock(&stream->device->hold_lock);
    stream->holds--;
    bool last = stream->destroyed && stream->holds == 0;
    pthread_mutex_unlock(&stream->device->hold_lock);
    if (last)
        end_stream(stream);
}

void strata_stream_destroy(strata_stream *stream)
{
    if (stream == NULL)
        return;
    pthread_mutex_lock(&stream->device->hold_lock);
    bool first = !stream->destroyed;
    stream->destroyed = true;
    bool last = first && stream->holds == 0;
    pthread_mutex_unlock(&stream->device->hold_lock);
    if (last)
        end_stream(stream);
}

strata_status strata_stream_call(strata_stream *stream, strata_call_fn fn, const void *args,
                                 size_t args_bytes)
{
    if (stream == NULL || fn == NULL || args_bytes > STRATA_CALL_BYTES ||
        (args == NULL && args_bytes > 0))
        return STRATA_E_INVALID;
    bool taken = stream->device->ops->stream_call(stream, fn, args, args_bytes);
    return taken ? STRATA_OK : STRATA_E_UNSUPPORTED;
}

void *strata_stream_native(strata_stream *stream)
{
    return stream != NULL ? stream->device->ops->stream_native(stream) : NULL;
}

strata_status strata_stream_failed(strata_stream *stream, int native, const char *what)
{
    if (stream == NULL || what == NULL)
        return STRATA_E_INVALID;
    bool taken = native == 0 || stream->device->ops->stream_failed(stream, native, what);
    return taken ? STRATA_OK : STRATA_E_UNSUPPORTED;
}

strata_status strata_stream_copy(strata_stream *stream, void *dst, const void *src,
                                 size_t bytes)
{
    if (stream == NULL || ((dst == NULL || src == NULL) && bytes > 0))
        return STRATA_E_INVALID;
    stream->device->ops->stream_copy(stream, dst, src, bytes);
    return STRATA_OK;
}

strata_status strata_stream_zero(strata_stream *stream, void *dst, size_t bytes)
{
    if (stream == NULL || (dst == NULL && bytes > 0))
        return STRATA_E_INVALID;
    stream->device->ops->stream_zero(stream, dst, bytes);
    return STRATA_OK;
}

strata_status strata_stream_sync(strata_stream *stream)
{
    if (stream == NULL)
        return STRATA_E_INVALID;
    stream->device->ops->stream_sync(stream);
    return STRATA_OK;
}

strata_status strata_event_create(strata_event **out, strata_device *device,
                                  strata_error *error)
{
    STRATA_TRY(check_making((void **)out, device, "event", error));
    STRATA_TRY(strata_device_hold(device, "an event", error));
    strata_status status = device->ops->event_create(device, out, error);
    if (status != STRATA_OK)
        strata_device_release(device);
    return status;
}

void strata_event_destroy(strata_event *event)
{
    if (event == NULL)
        return;
    strata_device *device = event->device;
    device->ops->event_destroy(event);
    strata_device_release(device);
}

strata_status strata_event_record(strata_event *event, strata_stream *stream)
{
    if (event == NULL || stream == NULL || event->device != stream->device)
        return STRATA_E_INVALID;
    event->device->ops->event_record(event, stream);
    return STRATA_OK;
}

strata_status strata_stream_wait_event(strata_stream *stream, strata_event *event)
{
    if (event == NULL || stream == NULL || event->device != stream->device)
        return STRATA_E_INVALID;
    stream->device->ops->stream_wait_event(stream, event);
    return STRATA_OK;
}
