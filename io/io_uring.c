#define _GNU_SOURCE
/*
 * The backend on io_uring: one ring per drive.
 *
 * The files are registered with the ring, for the sake of the lock: a lock on a registered file
 * lasts as long as the ring does, and the ring of a process that was killed lasts until its
 * last write has ended. So a process that gets the lock gets a file without writes in flight.
 * Registering also saves a little per request.
 *
 * Buffers that lie in the region are registered with the ring too, in chunks of the largest
 * size that one registration takes. Then the kernel looks up their pages once. It counts them
 * as locked memory, of which a container may allow little. If it refuses, requests carry
 * addresses, as does the rare buffer that lies across two chunks.
 *
 * There is one system call to start a batch and one to wait. No kernel thread polls for
 * requests: it would use up a core that Adam and the loader need. Completions are not polled
 * either: such a ring cannot sync, and requests of megabytes do not gain from it. Waiting for
 * several completions at once gained nothing.
 *
 * Other threads end a wait through an eventfd that the ring polls. The poll is armed again
 * before every wait. A wake that comes in between is not lost: the eventfd is readable when the
 * poll is armed.
 *
 * A buffer belongs to the kernel until its completion has come. If a ring is closed with
 * requests in flight, the kernel ends them; it has pinned their pages.
 *
 * Thread: the queue's owner; wake from any.
 */

#include "io/io.h"

#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <liburing.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* The completion of the poll for wakes has this id; no attempt has it. */
#define WAKE_ID 0

/* The most that the kernel takes as one buffer; the bits above are a chunk's number. */
#define CHUNK_SHIFT 30
#define CHUNK_BYTES ((uint64_t)1 << CHUNK_SHIFT)

#define DISABLED_PATH "/proc/sys/kernel/io_uring_disabled"

struct uring {
    struct io_backend base;
    struct io_uring ring;
    struct io_region region;
    uint32_t in_flight; /* attempts, without the poll for wakes */
    int wake_fd;
    bool wake_armed;
};

/* The kernel's pages behind a ring: requests of 64 bytes, twice as many completions of 16. */
static uint64_t uring_bytes(uint32_t depth)
{
    uint64_t entries = 1;
    while (entries < (uint64_t)depth + 1)
        entries *= 2;
    uint64_t requests = (entries * sizeof(struct io_uring_sqe) + 4095) / 4096 * 4096;
    uint64_t indexes = entries * sizeof(uint32_t);
    uint64_t rings = (256 + indexes + 2 * entries * sizeof(struct io_uring_cqe) + 4095) / 4096;
    return sizeof(struct uring) + requests + rings * 4096;
}

/* kernel.io_uring_disabled; 0 if this kernel has no such setting. */
static int disabled_by_sysctl(void)
{
    FILE *file = fopen(DISABLED_PATH, "re");
    int value = 0;
    if (file == NULL)
        return 0;
    if (fscanf(file, "%d", &value) != 1)
        value = 0;
    fclose(file);
    return value;
}

static strata_status fail_setup(int cause, strata_error *error)
{
    static const char remedy[] = "or run with --io threads or --allow threads-io";
    int disabled = disabled_by_sysctl();
    if (cause == EPERM && disabled != 0)
        return strata_fail(
            error, STRATA_E_UNSUPPORTED, cause,
            "io_uring_setup: %s: kernel.io_uring_disabled is %d; set it to 0, %s",
            strerror(cause), disabled, remedy);
    if (cause == EPERM || cause == EACCES)
        return strata_fail(error, STRATA_E_UNSUPPORTED, cause,
                           "io_uring_setup: %s: most likely the container's seccomp profile "
                           "forbids io_uring; allow it there, %s",
                           strerror(cause), remedy);
    if (cause == ENOSYS)
        return strata_fail(error, STRATA_E_UNSUPPORTED, cause,
                           "io_uring_setup: %s: this kernel has no io_uring; use one from 5.11 "
                           "on, %s",
                           strerror(cause), remedy);
    if (cause == ENOMEM)
        return strata_fail(error, STRATA_E_NOMEM, cause,
                           "host: io_uring_setup: %s: raise the memlock limit, %s",
                           strerror(cause), remedy);
    return strata_fail(error, STRATA_E_IO, cause, "io_uring_setup: %s", strerror(cause));
}

static strata_status register_files(struct uring *uring, const struct io_backend_desc *desc,
                                    strata_error *error)
{
    int *fds = calloc(desc->file_count, sizeof *fds);
    if (fds == NULL)
        return strata_fail(error, STRATA_E_NOMEM, ENOMEM,
                           "host: no memory for %" PRIu32 " files", desc->file_count);
    for (uint32_t i = 0; i < desc->file_count; i++)
        fds[i] = desc->files[i].fd;
    int rc = io_uring_register_files(&uring->ring, fds, desc->file_count);
    free(fds);
    if (rc < 0)
        return strata_fail(error, STRATA_E_IO, -rc, "io_uring: registering %s: %s",
                           desc->files[0].path, strerror(-rc));
    return STRATA_OK;
}

/* A refusal by the kernel is no failure; it is noted in the base. */
static strata_status register_region(struct uring *uring, const struct io_region *region,
                                     strata_error *error)
{
    uint64_t count = (region->bytes + CHUNK_BYTES - 1) >> CHUNK_SHIFT;
    if (count == 0)
        return STRATA_OK;
    struct iovec *chunks = calloc(count, sizeof *chunks);
    if (chunks == NULL)
        return strata_fail(error, STRATA_E_NOMEM, ENOMEM,
                           "host: no memory to register %" PRIu64 " bytes", region->bytes);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t left = region->bytes - i * CHUNK_BYTES;
        chunks[i].iov_base = (uint8_t *)region->base + i * CHUNK_BYTES;
        chunks[i].iov_len = left < CHUNK_BYTES ? left : CHUNK_BYTES;
    }
    int rc = io_uring_register_buffers(&uring->ring, chunks, (unsigned)count);
    free(chunks);
    uring->region = *region;
    uring->base.registered = rc == 0;
    uring->base.not_because = -rc;
    return STRATA_OK;
}

static strata_status uring_open(struct io_backend **out, const struct io_backend_desc *desc,
                                strata_error *error)
{
    struct uring *uring = calloc(1, sizeof *uring);
    if (uring == NULL)
        return strata_fail(error, STRATA_E_NOMEM, ENOMEM, "host: no memory for an I/O ring");
    uring->base.ops = &strata_io_uring;
    strata_status status;
    int rc = io_uring_queue_init(desc->depth + 1, &uring->ring, 0);
    if (rc < 0) {
        status = fail_setup(-rc, error);
        goto free_uring;
    }
    /* Waits with a timeout in one call; without it a timeout would be a request of its own. */
    if (!(uring->ring.features & IORING_FEAT_EXT_ARG)) {
        status = fail_setup(ENOSYS, error);
        goto exit_ring;
    }
    status = register_files(uring, desc, error);
    if (status != STRATA_OK)
        goto exit_ring;
    uring->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (uring->wake_fd < 0) {
        status = strata_fail(error, STRATA_E_IO, errno, "eventfd: %s", strerror(errno));
        goto exit_ring;
    }
    status = register_region(uring, &desc->region, error);
    if (status != STRATA_OK)
        goto close_wake;
    *out = &uring->base;
    return STRATA_OK;

close_wake:
    close(uring->wake_fd);
exit_ring:
    io_uring_queue_exit(&uring->ring);
free_uring:
    free(uring);
    return status;
}

static void uring_close(struct io_backend *backend)
{
    struct uring *uring = (struct uring *)backend;
    /* The kernel frees a ring some time after its exit. Until then it would hold the space of a
     * file that was removed, and count our memory as locked. With requests in flight these
     * calls would wait for them. */
    if (uring->in_flight == 0) {
        (void)io_uring_unregister_files(&uring->ring);
        if (uring->base.registered)
            (void)io_uring_unregister_buffers(&uring->ring);
    }
    io_uring_queue_exit(&uring->ring);
    close(uring->wake_fd);
    free(uring);
}

/* The chunk that a buffer lies in; -1: in none, or in two. */
static int chunk_of(const struct uring *uring, const struct io_attempt *attempt)
{
    uint64_t at = (uint64_t)((uintptr_t)attempt->buffer - (uintptr_t)uring->region.base);
    uint64_t bytes = uring->region.bytes;
    if (!uring->base.registered || at >= bytes || attempt->length > bytes - at)
        return -1;
    uint64_t last = at + attempt->length - 1;
    return at >> CHUNK_SHIFT == last >> CHUNK_SHIFT ? (int)(at >> CHUNK_SHIFT) : -1;
}

static void prepare_sqe(const struct uring *uring, struct io_uring_sqe *sqe,
                        const struct io_attempt *attempt)
{
    int file = (int)attempt->file_index;
    int chunk = chunk_of(uring, attempt);
    switch (attempt->op) {
    case IO_READ:
        io_uring_prep_read(sqe, file, attempt->buffer, attempt->length, attempt->offset);
        break;
    case IO_WRITE:
        io_uring_prep_write(sqe, file, attempt->buffer, attempt->length, attempt->offset);
        break;
    case IO_SYNC:
        io_uring_prep_fsync(sqe, file, IORING_FSYNC_DATASYNC);
        break;
    }
    if (attempt->op != IO_SYNC && chunk >= 0) {
        sqe->opcode = attempt->op == IO_READ ? IORING_OP_READ_FIXED : IORING_OP_WRITE_FIXED;
        sqe->buf_index = (uint16_t)chunk;
    }
    io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
    io_uring_sqe_set_data64(sqe, attempt->id);
}

static uint32_t uring_start(struct io_backend *backend, const struct io_attempt *attempts,
                            uint32_t count)
{
    struct uring *uring = (struct uring *)backend;
    uint32_t started = 0;
    for (; started < count; started++) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
        if (sqe == NULL)
            break;
        prepare_sqe(uring, sqe, &attempts[started]);
    }
    uring->in_flight += started;
    /* Requests that the kernel does not take now stay in the ring and go with the next call. */
    (void)io_uring_submit(&uring->ring);
    return started;
}

/* Copy out the results that have come. A wake is no result, but it ends the wait. */
static uint32_t collect_results(struct uring *uring, struct io_result *out, uint32_t capacity,
                                bool *out_woken)
{
    uint32_t count = 0;
    struct io_uring_cqe *cqe;
    while (count < capacity && io_uring_peek_cqe(&uring->ring, &cqe) == 0) {
        uint64_t id = io_uring_cqe_get_data64(cqe);
        int32_t result = cqe->res;
        io_uring_cqe_seen(&uring->ring, cqe);
        if (id != WAKE_ID) {
            uring->in_flight--;
            out[count++] = (struct io_result){.id = id, .result = result};
            continue;
        }
        uint64_t wakes;
        ssize_t got = read(uring->wake_fd, &wakes, sizeof wakes);
        STRATA_CHECK(got == sizeof wakes || errno == EAGAIN);
        uring->wake_armed = false;
        *out_woken = true;
    }
    return count;
}

static void arm_wake(struct uring *uring)
{
    if (uring->wake_armed)
        return;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
    if (sqe == NULL)
        return; // The ring is full of requests: their completions end the wait.
    io_uring_prep_poll_add(sqe, uring->wake_fd, POLLIN);
    io_uring_sqe_set_data64(sqe, WAKE_ID);
    uring->wake_armed = true;
}

static int32_t uring_reap(struct io_backend *backend, struct io_result *out, uint32_t capacity,
                          uint64_t timeout_ns)
{
    struct uring *uring = (struct uring *)backend;
    bool woken = false;
    uint32_t count = collect_results(uring, out, capacity, &woken);
    /* A wake that came before this call ends it too: its message has not been seen yet. */
    if (count > 0 || woken)
        return (int32_t)count;
    arm_wake(uring);
    struct __kernel_timespec ts = {
        .tv_sec = (int64_t)(timeout_ns / 1000000000u),
        .tv_nsec = (long long)(timeout_ns % 1000000000u),
    };
    struct io_uring_cqe *cqe = NULL;
    int rc = io_uring_submit_and_wait_timeout(&uring->ring, &cqe, 1,
                                              timeout_ns == UINT64_MAX ? NULL : &ts, NULL);
    /* After a timeout, a signal or a moment's lack of memory the queue looks again. */
    if (rc < 0 && rc != -ETIME && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY)
        return rc;
    return (int32_t)collect_results(uring, out, capacity, &woken);
}

static void uring_wake(struct io_backend *backend)
{
    struct uring *uring = (struct uring *)backend;
    uint64_t one = 1;
    ssize_t put;
    do
        put = write(uring->wake_fd, &one, sizeof one);
    while (put < 0 && errno == EINTR);
    /* EAGAIN: the counter is full, so a wake is pending already. */
    STRATA_CHECK(put == sizeof one || errno == EAGAIN);
}

const struct io_ops strata_io_uring = {
    .name = "uring",
    .bytes = uring_bytes,
    .open = uring_open,
    .close = uring_close,
    .start = uring_start,
    .reap = uring_reap,
    .wake = uring_wake,
};
