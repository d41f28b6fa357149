#define _GNU_SOURCE

/*
 * The CUDA device: one GPU, through CUDA's runtime, called from C.
 *
 * Five facts shape this file.
 *
 * A failure of the device is reported late, by whatever call comes next, and then every call on
 * the context fails. So the first failure is kept with the call that reported it, and later
 * ones are dropped. Functions that queue work do not report it; the pager looks for it after
 * every message.
 *
 * CUDA can call a host function from a stream, but the stream waits for it, and after a failure
 * of the context the function is not called at all. So a notify is an event and a thread: each
 * stream has a listener that waits for the stream's events in their order and calls the
 * notifies. After a failure that wait returns at once, so they are called then too. The stream
 * never waits for the host.
 *
 * CUDA can make a stream wait until the host writes a word (cuStreamWaitValue64), but gates do
 * not use it: CUDA does not know what such a wait orders, and its manual warns of deadlocks. A
 * waiting stream stops other streams that share its hardware queue. Once some 1,000 launches
 * are pending behind it, the next launch blocks inside the driver and blocks all other threads
 * there too, among them the pager with the copy that would open the gate. So the caller waits
 * at a gate, not the stream: all work that is ever queued can run. The price is the time from
 * the opening of the gate to the next launch, and only if the stream has run out of work.
 *
 * For the same reason no thread gets that many launches ahead of its stream: one that asks for
 * the native stream too far ahead sleeps here, before its launch would block in the driver.
 *
 * Host memory is registered in pieces, because the driver refuses some large ones, for example
 * of 64 GiB. A copy must not span two pieces, so copies are cut where a piece may begin: at
 * multiples of its size in the address space.
 *
 * Thread: the row "CUDA listener" of docs/threads.md. The device's lock guards its error, its
 * counts and its pinned ranges; a stream's lock guards its ring. No function holds both.
 */

#include "offload/device/device.h"
#include "offload/device/pin_pieces.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/thread.h"
#include "base/topology.h"

#include <cuda_runtime_api.h>

#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

/* As many as the host device's ring has: a layer queues some hundred entries, few are notifies.
 */
#define NOTICES 1024u

/* After every so many launches an event is recorded, one of MARKS in turn. Before it is
 * recorded again the stream must have passed it, so at most (MARKS + 1) * MARK_LAUNCHES are
 * pending. An operator that asks for the stream once may launch three kernels. */
#define MARK_LAUNCHES 64u
#define MARKS         4u

/* Ampere: the first generation with bf16 products. */
#define CAPABILITY_MIN 8

#define NAME_BYTES 16 /* the kernel's limit for a thread's name, the final zero included */

struct pinned {
    struct pinned *next;
    struct pinned_range range;
};

struct cuda_device {
    strata_device base;
    int index;
    char model[64];
    char near_cpus[256];
    atomic_bool failed; /* release after error is written, acquire before it is read */
    pthread_mutex_t lock;
    strata_error error; /* the first failure; written once */
    struct pinned *pinned;
    _Atomic uint64_t piece_bytes; /* smallest of all pinned ranges: where copies are cut */
    uint64_t arena_bytes;         /* of device memory taken */
    uint32_t stream_count;
    uint32_t event_count;
};

struct cuda_event {
    strata_event base;
    cudaEvent_t event;
};

struct notice {
    cudaEvent_t event;
    strata_notify_fn fn;
    void *user;
    uint64_t value;
};

struct cuda_stream {
    strata_stream base;
    cudaStream_t stream;
    bool wrapped; /* stream is the caller's own */
    cudaEvent_t marks[MARKS];
    uint64_t launches; /* calls of stream_native(); the queueing thread's */
    struct notice ring[NOTICES];
    pthread_mutex_t lock;
    pthread_cond_t changed; /* queued or called has grown, or ending is set */
    uint64_t queued;        /* notices ever queued; written by the queueing thread */
    uint64_t called;        /* notices whose function has returned */
    bool ending;
    pthread_t listener;
};

/* The base is the first member of each. */
static struct cuda_device *cuda_device(strata_device *device)
{
    return (struct cuda_device *)device;
}

static struct cuda_stream *cuda_stream(strata_stream *stream)
{
    return (struct cuda_stream *)stream;
}

static struct cuda_event *cuda_event(strata_event *event)
{
    return (struct cuda_event *)event;
}

/* Failures. */

static strata_status refuse_cuda(strata_error *error, strata_status status, cudaError_t cause,
                                 const char *what)
{
    (void)cudaGetLastError();
    return strata_fail(error, status, cause, "cuda device: %s: %s: %s", what,
                       cudaGetErrorName(cause), cudaGetErrorString(cause));
}

/* Keep the first failure; does nothing when there is none. */
static void note_failure(struct cuda_device *device, cudaError_t cause, const char *what)
{
    if (cause == cudaSuccess)
        return;
    pthread_mutex_lock(&device->lock);
    if (!atomic_load_explicit(&device->failed, memory_order_relaxed)) {
        strata_status status = refuse_cuda(&device->error, STRATA_E_DEVICE, cause, what);
        (void)status;
        atomic_store_explicit(&device->failed, true, memory_order_release);
    }
    pthread_mutex_unlock(&device->lock);
}

static const strata_error *cuda_error(strata_device *base)
{
    struct cuda_device *device = cuda_device(base);
    return atomic_load_explicit(&device->failed, memory_order_acquire) ? &device->error : NULL;
}

/* CUDA's current device belongs to a thread, and a new thread's is number 0. */
static struct cuda_device *make_current(strata_device *base)
{
    struct cuda_device *device = cuda_device(base);
    note_failure(device, cudaSetDevice(device->index), "making the device current");
    return device;
}

static void add_to_count(struct cuda_device *device, uint32_t *counter, int by)
{
    pthread_mutex_lock(&device->lock);
    *counter += (uint32_t)by;
    pthread_mutex_unlock(&device->lock);
}

/* Memory. */

static strata_status cuda_arena_create(strata_device *base, uint64_t bytes, void **out,
                                       bool *out_huge, strata_error *error)
{
    *out = NULL;
    *out_huge = true; /* the question is for host RAM: nothing is lost here */
    if (bytes == 0)
        return STRATA_OK;
    struct cuda_device *device = make_current(base);
    cudaError_t cause = cudaMalloc(out, bytes);
    if (cause != cudaSuccess) {
        char what[64];
        snprintf(what, sizeof what, "an arena of %" PRIu64 " bytes", bytes);
        return refuse_cuda(
            error, cause == cudaErrorMemoryAllocation ? STRATA_E_NOMEM : STRATA_E_DEVICE, cause,
            what);
    }
    pthread_mutex_lock(&device->lock);
    device->arena_bytes += bytes;
    pthread_mutex_unlock(&device->lock);
    return STRATA_OK;
}

static void cuda_arena_destroy(strata_device *base, void *arena, uint64_t bytes)
{
    if (arena == NULL)
        return;
    struct cuda_device *device = make_current(base);
    note_failure(device, cudaFree(arena), "freeing an arena");
    pthread_mutex_lock(&device->lock);
    device->arena_bytes -= bytes;
    pthread_mutex_unlock(&device->lock);
}

static void cuda_facts(strata_device *base, strata_device_facts *out)
{
    struct cuda_device *device = make_current(base);
    *out = (strata_device_facts){0};
    size_t left = 0, total = 0;
    note_failure(device, cudaMemGetInfo(&left, &total), "asking for free memory");
    snprintf(out->model, sizeof out->model, "%s", device->model);
    snprintf(out->near_cpus, sizeof out->near_cpus, "%s", device->near_cpus);
    pthread_mutex_lock(&device->lock);
    uint64_t ours = device->arena_bytes;
    pthread_mutex_unlock(&device->lock);
    out->total_bytes = total;
    out->free_bytes = left;
    out->other_bytes = total - left > ours ? total - left - ours : 0;
}

/* Bytes from an address to where the next piece may begin. */
static uint64_t piece_left(const void *address, uint64_t piece_bytes)
{
    return piece_bytes - (uintptr_t)address % piece_bytes;
}

static int register_piece(void *user, void *base, uint64_t bytes)
{
    (void)user;
    cudaError_t cause =
        cudaHostRegister(base, bytes, cudaHostRegisterPortable | cudaHostRegisterMapped);
    if (cause != cudaSuccess)
        (void)cudaGetLastError();
    return cause;
}

static void unregister_piece(void *user, void *base)
{
    (void)user;
    (void)cudaHostUnregister(base);
}

static const struct pin_calls pin_calls = {register_piece, unregister_piece, NULL};

static strata_status cuda_pin(strata_device *base, void *memory, uint64_t bytes,
                              uint64_t *out_piece_bytes, strata_error *error)
{
    struct cuda_device *device = make_current(base);
    *out_piece_bytes = 0;
    struct pinned *pinned = calloc(1, sizeof *pinned);
    if (pinned == NULL)
        return strata_fail(error, STRATA_E_NOMEM, 0, "cuda device: no memory for a range");
    cudaError_t cause =
        (cudaError_t)strata_pin_pieces(&pinned->range, memory, bytes, &pin_calls);
    if (cause != cudaSuccess) {
        free(pinned);
        return strata_fail(error, STRATA_E_UNSUPPORTED, cause,
                           "cuda device: pinning %" PRIu64 " bytes of host memory, in pieces "
                           "down to 64 MiB: %s: take less of it, or allow unpinned memory",
                           bytes, cudaGetErrorName(cause));
    }
    pthread_mutex_lock(&device->lock);
    pinned->next = device->pinned;
    device->pinned = pinned;
    *out_piece_bytes = pinned->range.piece_bytes;
    if (*out_piece_bytes < device->piece_bytes)
        device->piece_bytes = *out_piece_bytes;
    pthread_mutex_unlock(&device->lock);
    return STRATA_OK;
}

static void cuda_unpin(strata_device *base, void *memory)
{
    struct cuda_device *device = make_current(base);
    pthread_mutex_lock(&device->lock);
    struct pinned **at = &device->pinned;
    while (*at != NULL && (*at)->range.base != memory)
        at = &(*at)->next;
    struct pinned *pinned = *at;
    if (pinned != NULL)
        *at = pinned->next;
    pthread_mutex_unlock(&device->lock);
    if (pinned != NULL)
        strata_unpin_pieces(&pinned->range, &pin_calls);
    free(pinned);
}

static strata_status cuda_shared_create(strata_device *base, uint64_t bytes, void **out,
                                        strata_error *error)
{
    make_current(base);
    *out = NULL;
    /* With unified addressing, which every 64-bit Linux has, the device uses the same address.
     */
    cudaError_t cause = cudaHostAlloc(out, bytes, cudaHostAllocPortable | cudaHostAllocMapped);
    if (cause != cudaSuccess)
        return refuse_cuda(error, STRATA_E_NOMEM, cause, "a little pinned memory");
    memset(*out, 0, bytes);
    return STRATA_OK;
}

static void cuda_shared_destroy(strata_device *base, void *shared)
{
    if (shared == NULL)
        return;
    struct cuda_device *device = make_current(base);
    note_failure(device, cudaFreeHost(shared), "freeing pinned memory");
}

/* Streams and their listeners. */

/* The oldest notice that has not been called; NULL: the stream ends. Its place stays taken. */
static struct notice *notice_next(struct cuda_stream *stream)
{
    pthread_mutex_lock(&stream->lock);
    while (stream->called == stream->queued && !stream->ending)
        pthread_cond_wait(&stream->changed, &stream->lock);
    bool any = stream->called < stream->queued;
    struct notice *notice = any ? &stream->ring[stream->called % NOTICES] : NULL;
    pthread_mutex_unlock(&stream->lock);
    return notice;
}

static void *run_listener(void *argument)
{
    struct cuda_stream *stream = argument;
    struct cuda_device *device = make_current(stream->base.device);
    for (struct notice *notice; (notice = notice_next(stream)) != NULL;) {
        note_failure(device, cudaEventSynchronize(notice->event), "work on a stream");
        notice->fn(notice->user, notice->value, strata_now_ns());
        pthread_mutex_lock(&stream->lock);
        stream->called++;
        pthread_cond_broadcast(&stream->changed);
        pthread_mutex_unlock(&stream->lock);
    }
    return NULL;
}

static cudaError_t make_handles(struct cuda_stream *stream)
{
    const unsigned flags = cudaEventDisableTiming | cudaEventBlockingSync;
    cudaError_t cause = stream->wrapped
                            ? cudaSuccess
                            : cudaStreamCreateWithFlags(&stream->stream, cudaStreamNonBlocking);
    for (uint32_t i = 0; cause == cudaSuccess && i < MARKS; i++)
        cause = cudaEventCreateWithFlags(&stream->marks[i], flags);
    for (uint32_t i = 0; cause == cudaSuccess && i < NOTICES; i++)
        cause = cudaEventCreateWithFlags(&stream->ring[i].event, flags);
    return cause;
}

/* Of a stream that is made in part, those handles that exist. */
static void destroy_handles(struct cuda_stream *stream)
{
    for (uint32_t i = 0; i < NOTICES && stream->ring[i].event != NULL; i++)
        (void)cudaEventDestroy(stream->ring[i].event);
    for (uint32_t i = 0; i < MARKS && stream->marks[i] != NULL; i++)
        (void)cudaEventDestroy(stream->marks[i]);
    if (stream->stream != NULL && !stream->wrapped)
        (void)cudaStreamDestroy(stream->stream);
}

static strata_status start_stream(struct cuda_stream *stream, strata_error *error)
{
    cudaError_t cause = make_handles(stream);
    if (cause != cudaSuccess)
        return refuse_cuda(error, STRATA_E_DEVICE, cause, "a stream and its events");
    int failed = strata_thread_start(&stream->listener, 0, run_listener, stream);
    if (failed != 0)
        return strata_fail(error, STRATA_E_NOMEM, failed, "cuda device: a listener: %s",
                           strerror(failed));
    return STRATA_OK;
}

static void free_stream(struct cuda_stream *stream)
{
    destroy_handles(stream);
    pthread_cond_destroy(&stream->changed);
    pthread_mutex_destroy(&stream->lock);
    free(stream);
}

/* native NULL: make a stream, else wrap this one. */
static strata_status open_stream(strata_device *base, const char *name, cudaStream_t native,
                                 strata_stream **out, strata_error *error)
{
    struct cuda_device *device = make_current(base);
    struct cuda_stream *stream = calloc(1, sizeof *stream);
    if (stream == NULL)
        return strata_fail(error, STRATA_E_NOMEM, 0, "cuda device: no memory for a stream");
    stream->base.device = base;
    stream->stream = native;
    stream->wrapped = native != NULL;
    pthread_mutex_init(&stream->lock, NULL);
    pthread_cond_init(&stream->changed, NULL);
    strata_status status = start_stream(stream, error);
    if (status != STRATA_OK) {
        free_stream(stream);
        return status;
    }
    char short_name[NAME_BYTES];
    snprintf(short_name, sizeof short_name, "%s", name);
    pthread_setname_np(stream->listener, short_name);
    add_to_count(device, &device->stream_count, 1);
    *out = &stream->base;
    return STRATA_OK;
}

static strata_status cuda_stream_create(strata_device *base, const char *name,
                                        strata_stream **out, strata_error *error)
{
    return open_stream(base, name, NULL, out, error);
}

/* Only since 12.8 can CUDA be asked which device a stream belongs to. A stream of another
 * device fails at its first launch. */
static strata_status cuda_stream_wrap(strata_device *base, void *native, strata_stream **out,
                                      strata_error *error)
{
    unsigned flags;
    make_current(base);
    cudaError_t cause = cudaStreamGetFlags((cudaStream_t)native, &flags);
    if (cause != cudaSuccess)
        return refuse_cuda(error, STRATA_E_INVALID, cause, "the stream to be wrapped");
    return open_stream(base, "strata-wrapped", (cudaStream_t)native, out, error);
}

/* Wait also until every notify has been called: the caller may destroy what they use. */
static void cuda_stream_sync(strata_stream *base)
{
    struct cuda_stream *stream = cuda_stream(base);
    struct cuda_device *device = make_current(base->device);
    note_failure(device, cudaStreamSynchronize(stream->stream), "waiting for a stream");
    pthread_mutex_lock(&stream->lock);
    while (stream->called < stream->queued)
        pthread_cond_wait(&stream->changed, &stream->lock);
    pthread_mutex_unlock(&stream->lock);
}

static void cuda_stream_destroy(strata_stream *base)
{
    struct cuda_stream *stream = cuda_stream(base);
    struct cuda_device *device = cuda_device(base->device);
    cuda_stream_sync(base);
    pthread_mutex_lock(&stream->lock);
    stream->ending = true;
    pthread_cond_broadcast(&stream->changed);
    pthread_mutex_unlock(&stream->lock);
    STRATA_CHECK(pthread_join(stream->listener, NULL) == 0);
    free_stream(stream);
    add_to_count(device, &device->stream_count, -1);
}

/* A GPU runs kernels, launched on strata_stream_native(), and no functions of the host. */
static bool cuda_stream_call(strata_stream *stream, strata_call_fn fn, const void *args,
                             size_t args_bytes)
{
    (void)stream;
    (void)fn;
    (void)args;
    (void)args_bytes;
    return false;
}

/* The caller is about to launch. Waiting for a mark that was never recorded returns at once. */
static void *cuda_stream_native(strata_stream *base)
{
    struct cuda_device *device = make_current(base->device);
    struct cuda_stream *stream = cuda_stream(base);
    if (stream->launches++ % MARK_LAUNCHES == 0) {
        cudaEvent_t mark = stream->marks[stream->launches / MARK_LAUNCHES % MARKS];
        note_failure(device, cudaEventSynchronize(mark), "launches on a stream");
        note_failure(device, cudaEventRecord(mark, stream->stream), "marking a launch");
    }
    return stream->stream;
}

static bool cuda_stream_failed(strata_stream *stream, int native, const char *what)
{
    note_failure(cuda_device(stream->device), (cudaError_t)native, what);
    return true;
}

static void cuda_stream_copy(strata_stream *base, void *dst, const void *src, size_t bytes)
{
    struct cuda_device *device = make_current(base->device);
    cudaStream_t stream = cuda_stream(base)->stream;
    uint64_t piece_bytes = device->piece_bytes;
    for (size_t at = 0, piece; at < bytes; at += piece) {
        uint8_t *to = (uint8_t *)dst + at;
        const uint8_t *from = (const uint8_t *)src + at;
        piece = bytes - at;
        if (piece > piece_left(to, piece_bytes))
            piece = piece_left(to, piece_bytes);
        if (piece > piece_left(from, piece_bytes))
            piece = piece_left(from, piece_bytes);
        note_failure(device, cudaMemcpyAsync(to, from, piece, cudaMemcpyDefault, stream),
                     "a copy");
    }
}

static void cuda_stream_zero(strata_stream *base, void *dst, size_t bytes)
{
    if (bytes == 0)
        return;
    struct cuda_device *device = make_current(base->device);
    note_failure(device, cudaMemsetAsync(dst, 0, bytes, cuda_stream(base)->stream), "zeroing");
}

static void cuda_stream_notify(strata_stream *base, strata_notify_fn fn, void *user,
                               uint64_t value)
{
    struct cuda_stream *stream = cuda_stream(base);
    struct cuda_device *device = make_current(base->device);
    pthread_mutex_lock(&stream->lock);
    while (stream->queued - stream->called == NOTICES)
        pthread_cond_wait(&stream->changed, &stream->lock);
    pthread_mutex_unlock(&stream->lock);
    // Only this thread queues, so the place stays free without the lock.
    struct notice *notice = &stream->ring[stream->queued % NOTICES];
    notice->fn = fn;
    notice->user = user;
    notice->value = value;
    note_failure(device, cudaEventRecord(notice->event, stream->stream), "recording a notify");
    pthread_mutex_lock(&stream->lock);
    stream->queued++;
    pthread_cond_broadcast(&stream->changed);
    pthread_mutex_unlock(&stream->lock);
}

/* Events. */

static strata_status cuda_event_create(strata_device *base, strata_event **out,
                                       strata_error *error)
{
    struct cuda_device *device = make_current(base);
    struct cuda_event *event = calloc(1, sizeof *event);
    if (event == NULL)
        return strata_fail(error, STRATA_E_NOMEM, 0, "cuda device: no memory for an event");
    event->base.device = base;
    cudaError_t cause = cudaEventCreateWithFlags(&event->event, cudaEventDisableTiming);
    if (cause != cudaSuccess) {
        free(event);
        return refuse_cuda(error, STRATA_E_DEVICE, cause, "an event");
    }
    add_to_count(device, &device->event_count, 1);
    *out = &event->base;
    return STRATA_OK;
}

/* CUDA keeps what waits that are queued still need. */
static void cuda_event_destroy(strata_event *base)
{
    struct cuda_device *device = make_current(base->device);
    note_failure(device, cudaEventDestroy(cuda_event(base)->event), "destroying an event");
    add_to_count(device, &device->event_count, -1);
    free(cuda_event(base));
}

static void cuda_event_record(strata_event *event, strata_stream *stream)
{
    struct cuda_device *device = make_current(event->device);
    note_failure(device, cudaEventRecord(cuda_event(event)->event, cuda_stream(stream)->stream),
                 "recording an event");
}

static void cuda_stream_wait_event(strata_stream *stream, strata_event *event)
{
    struct cuda_device *device = make_current(event->device);
    note_failure(device,
                 cudaStreamWaitEvent(cuda_stream(stream)->stream, cuda_event(event)->event, 0),
                 "waiting for an event");
}

static void cuda_stream_wait_gate(strata_stream *stream, struct gates *gates, uint32_t gate,
                                  uint64_t value)
{
    (void)stream;
    strata_gate_wait(gates, gate, value);
}

/* Opening. */

static void cuda_close(strata_device *base)
{
    struct cuda_device *device = cuda_device(base);
    STRATA_CHECK(device->stream_count == 0);
    STRATA_CHECK(device->event_count == 0);
    STRATA_CHECK(device->pinned == NULL);
    pthread_mutex_destroy(&device->lock);
    strata_device_end(&device->base);
    free(device);
}

/* Find the GPU, check that it can be used, and make its context. */
static strata_status reach_gpu(struct cuda_device *device, strata_error *error)
{
    int gpu_count = 0;
    cudaError_t cause = cudaGetDeviceCount(&gpu_count);
    if (cause != cudaSuccess)
        return refuse_cuda(error, STRATA_E_UNSUPPORTED, cause,
                           "looking for a GPU and its driver");
    if (device->index >= gpu_count)
        return strata_fail(error, STRATA_E_UNSUPPORTED, 0,
                           "cuda device: GPU %d of %d is not there", device->index, gpu_count);
    /* Threads that wait for the device sleep, since Adam and the I/O need the cores. */
    cause = cudaInitDevice(device->index, cudaDeviceScheduleBlockingSync,
                           cudaInitDeviceFlagsAreValid);
    if (cause == cudaSuccess)
        cause = cudaSetDevice(device->index);
    struct cudaDeviceProp properties;
    if (cause == cudaSuccess)
        cause = cudaGetDeviceProperties(&properties, device->index);
    if (cause != cudaSuccess)
        return refuse_cuda(error, STRATA_E_DEVICE, cause, "making a context");
    snprintf(device->model, sizeof device->model, "%.63s", properties.name);
    char address[16]; /* "0000:3B:00.0" */
    cause = cudaDeviceGetPCIBusId(address, sizeof address, device->index);
    if (cause != cudaSuccess)
        return refuse_cuda(error, STRATA_E_DEVICE, cause, "asking for its PCI address");
    strata_topology_near_pci(address, device->near_cpus, sizeof device->near_cpus);
    if (properties.major < CAPABILITY_MIN)
        return strata_fail(error, STRATA_E_UNSUPPORTED, 0,
                           "cuda device: %s has compute capability %d.%d: 8.0 is the least",
                           device->model, properties.major, properties.minor);
    return STRATA_OK;
}

strata_status strata_device_open_cuda(strata_device **out, uint32_t index, strata_error *error)
{
    if (out == NULL)
        return strata_fail(error, STRATA_E_INVALID, 0, "cuda device: out is NULL");
    *out = NULL;
    struct cuda_device *device = calloc(1, sizeof *device);
    if (device == NULL)
        return strata_fail(error, STRATA_E_NOMEM, 0, "no memory for the cuda device");
    strata_device_begin(&device->base, &strata_device_cuda);
    device->index = (int)index;
    device->piece_bytes = PIN_PIECE_MAX;
    pthread_mutex_init(&device->lock, NULL);
    strata_status status = reach_gpu(device, error);
    if (status != STRATA_OK) {
        cuda_close(&device->base);
        return status;
    }
    *out = &device->base;
    return STRATA_OK;
}

const struct strata_device_ops strata_device_cuda = {
    .name = "cuda",
    .in_ram = false,
    .close = cuda_close,
    .facts = cuda_facts,
    .error = cuda_error,
    .arena_create = cuda_arena_create,
    .arena_destroy = cuda_arena_destroy,
    .pin = cuda_pin,
    .unpin = cuda_unpin,
    .shared_create = cuda_shared_create,
    .shared_destroy = cuda_shared_destroy,
    .stream_create = cuda_stream_create,
    .stream_wrap = cuda_stream_wrap,
    .stream_destroy = cuda_stream_destroy,
    .stream_call = cuda_stream_call,
    .stream_native = cuda_stream_native,
    .stream_failed = cuda_stream_failed,
    .stream_copy = cuda_stream_copy,
    .stream_zero = cuda_stream_zero,
    .stream_sync = cuda_stream_sync,
    .stream_notify = cuda_stream_notify,
    .event_create = cuda_event_create,
    .event_destroy = cuda_event_destroy,
    .event_record = cuda_event_record,
    .stream_wait_event = cuda_stream_wait_event,
    .stream_wait_gate = cuda_stream_wait_gate,
};
