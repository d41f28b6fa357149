#ifndef STRATA_DEVICE_H
#define STRATA_DEVICE_H

/*
 * A device computes; its memory is what is too small. Strata takes one arena of it, once.
 *
 * The host device is a GPU made of RAM: a capped arena, streams that are threads, and the same
 * ordering rules. Work queued on one stream runs in order. Across streams nothing is ordered
 * but by an event: a stream that waits for one goes on when the work queued before its record
 * is done.
 *
 *     strata_device *device;
 *     strata_device_open_host(&device, &error);
 *     strata_stream *stream;
 *     strata_stream_create(&stream, device, "compute", &error);
 *     strata_stream_call(stream, my_kernel, &args, sizeof args);     // returns at once
 *     strata_stream_sync(stream);                                    // all of it is done
 *
 * The CUDA device is one GPU. Its streams are CUDA streams: whoever computes launches kernels
 * on strata_stream_native(), where the host device takes functions by strata_stream_call(). All
 * the rest of this header means the same on both.
 *
 * Queueing never allocates, and fails for nothing but a call that makes no sense: a NULL, an
 * event of another device, a kind of work that the device does not take. That returns INVALID
 * or UNSUPPORTED and does nothing; a caller who is sure need not look. A full queue blocks the
 * caller. What fails later, on the device, is kept: strata_device_error() has the first
 * failure, and every engine on the device answers with it.
 *
 * Things may be closed and destroyed in any order. A device that is closed while streams,
 * events, engines or memory on it are left takes nothing new (STATE) and goes with the last of
 * them; a stream that is destroyed while an engine that used it is left goes with the engine.
 *
 * Thread: device: any. One thread at a time queues on a stream; destroy when nothing is queued.
 */

#include <stddef.h>

#include "strata/types.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct strata_device strata_device;
typedef struct strata_stream strata_stream;
typedef struct strata_event strata_event;

/* Bytes of arguments a queued call can carry. */
#define STRATA_CALL_BYTES 256

/* Open the host device. *out is owned until strata_device_close(). */
STRATA_API STRATA_NODISCARD strata_status strata_device_open_host(strata_device **out,
                                                                  strata_error *error);

/*
 * Open GPU number `index`, and force its context into being, so that what that takes of the
 * device's memory is gone before anybody asks what is free. *out is owned until
 * strata_device_close().
 *
 * STRATA_E_UNSUPPORTED: this build has no CUDA; or no such GPU, or no driver, answers.
 * STRATA_E_DEVICE: it answers with an error; native is the cudaError_t.
 */
STRATA_API STRATA_NODISCARD strata_status strata_device_open_cuda(strata_device **out,
                                                                  uint32_t index,
                                                                  strata_error *error);

/* See above for what is still on it. NULL is fine. */
STRATA_API void strata_device_close(strata_device *device);

/* "host" or "cuda"; "none" for NULL. */
STRATA_API const char *strata_device_name(const strata_device *device);

typedef struct strata_device_facts {
    char model[64];       /* what its maker calls it; empty: the host device             */
    uint64_t total_bytes; /* of its memory                                               */
    uint64_t free_bytes;  /* now                                                         */
    uint64_t other_bytes; /* taken, but not by us: context, libraries, other processes   */
    char near_cpus[256];  /* a list for strata_workers_desc; empty: none nearer          */
} strata_device_facts;
/* NULL: all zero. */
STRATA_API void strata_device_facts_of(strata_device *device, strata_device_facts *out);

/* The device's first failure, which sticks; NULL: none, or no device. Lent until close. */
STRATA_API const strata_error *strata_device_error(strata_device *device);

/*
 * Device memory outside of any engine, for programs that use a device by itself. *out is owned;
 * strata_device_give() takes it back, with the bytes that were taken.
 *
 * 0 bytes are NULL, which give takes back too. STRATA_E_INVALID, of give: not taken from this
 * device, or not with so many bytes; then nothing is given back.
 */
STRATA_API STRATA_NODISCARD strata_status strata_device_take(strata_device *device,
                                                             uint64_t bytes, void **out,
                                                             strata_error *error);
STRATA_API strata_status strata_device_give(strata_device *device, void *memory,
                                            uint64_t bytes);

/* name: for traces and thread names; copied, cut at 15 bytes. *out is owned. */
STRATA_API STRATA_NODISCARD strata_status strata_stream_create(strata_stream **out,
                                                               strata_device *device,
                                                               const char *name,
                                                               strata_error *error);

/*
 * The same around a stream of the caller's, which stays the caller's and outlives *out: on a
 * CUDA device a cudaStream_t of that device. What the caller queues on it himself is ordered
 * with what is queued here.
 *
 * STRATA_E_UNSUPPORTED: the host device, which has no native streams. STRATA_E_INVALID: no
 * stream; NULL, CUDA's default stream, is none.
 */
STRATA_API STRATA_NODISCARD strata_status strata_stream_wrap(strata_stream **out,
                                                             strata_device *device,
                                                             void *native, strata_error *error);

/* Waits for what is queued, unless an engine is left that used the stream. NULL is fine. */
STRATA_API void strata_stream_destroy(strata_stream *stream);

/*
 * Host device only: queue a function with a copy of its arguments, at most STRATA_CALL_BYTES;
 * they are aligned for any type when the function sees them. It runs on the stream's thread and
 * may run jobs on a worker pool. UNSUPPORTED: a CUDA device.
 */
typedef void (*strata_call_fn)(void *args);
STRATA_API strata_status strata_stream_call(strata_stream *stream, strata_call_fn fn,
                                            const void *args, size_t args_bytes);

/*
 * CUDA device only: the cudaStream_t to launch on; NULL on the host device. Makes the stream's
 * device the calling thread's current one. To be asked for at each launch, or few of them:
 * it holds a caller who is some hundred ahead of the stream. Whoever launches reports what came
 * back: strata_stream_failed() with 0 does nothing, with another cudaError_t it is the device's
 * failure. what: what was launched. UNSUPPORTED: a failure on the host device, where nothing is
 * launched.
 */
STRATA_API void *strata_stream_native(strata_stream *stream);
STRATA_API strata_status strata_stream_failed(strata_stream *stream, int native,
                                              const char *what);

/*
 * Queue a copy between any two of: device memory, host memory. src and dst are lent until it
 * ran. On a CUDA device a copy from or to host memory that is not pinned may wait for the
 * stream before it returns.
 */
STRATA_API strata_status strata_stream_copy(strata_stream *stream, void *dst, const void *src,
                                            size_t bytes);

/* Queue filling with zero bytes. */
STRATA_API strata_status strata_stream_zero(strata_stream *stream, void *dst, size_t bytes);

/* Wait until everything queued so far is done. */
STRATA_API strata_status strata_stream_sync(strata_stream *stream);

STRATA_API STRATA_NODISCARD strata_status strata_event_create(strata_event **out,
                                                              strata_device *device,
                                                              strata_error *error);
STRATA_API void strata_event_destroy(strata_event *event);

/* Mark the work queued on the stream so far; a later record replaces an earlier one. */
STRATA_API strata_status strata_event_record(strata_event *event, strata_stream *stream);

/* Queue a wait for the event's latest record at the time of this call; none: no wait. */
STRATA_API strata_status strata_stream_wait_event(strata_stream *stream, strata_event *event);

#ifdef __cplusplus
}
#endif

#endif
