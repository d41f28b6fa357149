#define _GNU_SOURCE
/*
 * Requests in flight against the files of one drive.
 *
 * Four facts shape this file.
 *
 * A transfer may be short without being an error: because of a signal, of a device that splits
 * it, or of the file system. So a request is done only when every byte has moved. The rest of a
 * short one goes back to the backend, from the last whole block on, because direct transfers
 * start at blocks. An attempt that moved less than a block is an error, since it might be
 * repeated without end.
 *
 * A result may come too late, or twice. Once a request is given up its owner may reuse it, so a
 * result must not name a request. Every attempt has an id of its own, which names a slot here,
 * and a result whose id is not the slot's is counted and dropped.
 *
 * Nothing may hang. A request older than the deadline ends with a failure, whose message names
 * what else was in flight. Its slot stays taken until its result has come, since the kernel
 * still uses the buffer. The time in which the process is stopped does not count, since the
 * threads of the backend are stopped too: a run that is suspended for an hour goes on after it.
 *
 * Nothing is allocated after open: one block holds the queue and its tables.
 *
 * Thread: the queue's owner ("I/O" in the table of threads), for everything but wake.
 */

#include "io/io.h"

#include "base/clock.h"
#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

/* An id is a count of attempts, above so many bits for the slot. No queue makes 2^52 attempts.
 */
#define SLOT_BITS 12
_Static_assert(STRATA_IO_MAX_DEPTH == 1u << SLOT_BITS, "an id names a slot");

/* After so many results EAGAIN or EINTR in a row the machine is short of memory, and a pause
 * helps more than another attempt. */
#define PATIENT_STALLS 8
#define PAUSE_NS       1000000

/* While requests are in flight the queue looks at their age so many times a deadline. */
#define LOOKS 16

struct slot {
    uint64_t id;        /* of the attempt in flight; 0: free                      */
    struct io_req *req; /* NULL: given up, its result is awaited and then dropped */
};

struct io_queue {
    struct io_backend *backend;
    const struct io_file *files; /* borrowed */
    uint32_t file_count;
    uint32_t depth;
    uint64_t deadline_ns;
    uint64_t looked_ns; /* when queue_clock_ns() was called last */
    uint64_t aged_ns;   /* what it returned */
    uint64_t attempt_count;
    struct slot *slots;   /* depth of them */
    uint32_t *free_slots; /* a stack */
    uint32_t free_count;
    struct io_attempt *attempts; /* room for one start */
    struct io_result *results;   /* room for one reap */
    struct io_req *waiting;      /* not yet with the backend, in order of arrival */
    struct io_req **waiting_end;
    struct io_req *finished; /* to be reaped, in the order in which they ended */
    struct io_req **finished_end;
    struct io_queue_counts counts;
    strata_error error;
};

static const char *op_name(enum io_op op)
{
    switch (op) {
    case IO_READ:
        return "read";
    case IO_WRITE:
        return "write";
    case IO_SYNC:
        return "sync";
    }
    return "transfer";
}

static uint64_t own_bytes(uint32_t depth)
{
    return sizeof(struct io_queue) +
           (uint64_t)depth * (sizeof(struct slot) + sizeof(struct io_attempt) +
                              sizeof(struct io_result) + sizeof(uint32_t));
}

static uint64_t look_interval_ns(const struct io_queue *queue)
{
    return queue->deadline_ns / LOOKS + 1;
}

/* The clock that requests age by. Between two calls it moves by two intervals at most, so a
 * process that was stopped does not find its requests overdue. */
static uint64_t queue_clock_ns(struct io_queue *queue)
{
    uint64_t now_ns = strata_now_ns();
    uint64_t passed_ns = now_ns - queue->looked_ns;
    uint64_t most_ns = 2 * look_interval_ns(queue);
    queue->looked_ns = now_ns;
    queue->aged_ns += passed_ns < most_ns ? passed_ns : most_ns;
    return queue->aged_ns;
}

static void append_req(struct io_req ***end, struct io_req *req)
{
    req->next = NULL;
    **end = req;
    *end = &req->next;
}

static void finish_req(struct io_queue *queue, struct io_req *req, strata_status status,
                       int32_t native)
{
    req->status = status;
    req->native = native;
    append_req(&queue->finished_end, req);
}

/* A transfer has failed. Only here is a message made for it. */
static void fail_req(struct io_queue *queue, struct io_req *req, int32_t native,
                     const char *why)
{
    const char *path = queue->files[req->file_index].path;
    if (req->op == IO_SYNC)
        (void)strata_fail(&queue->error, STRATA_E_IO, native, "sync of %s: %s", path, why);
    else
        (void)strata_fail(&queue->error, STRATA_E_IO, native,
                          "%s of %" PRIu32 " bytes at %" PRIu64 " in %s: %s after %" PRIu32
                          " bytes",
                          op_name(req->op), req->length, req->offset, path, why, req->moved);
    finish_req(queue, req, STRATA_E_IO, native);
}

/* The result of an attempt is known: the request goes back to the backend, or it is done. */
static void judge_result(struct io_queue *queue, struct io_req *req, int64_t result)
{
    bool transfer = req->op != IO_SYNC;
    if (transfer && (result == -EAGAIN || result == -EINTR)) {
        queue->counts.retried++;
        req->stalls++;
        append_req(&queue->waiting_end, req);
        return;
    }
    if (result < 0) {
        fail_req(queue, req, (int32_t)-result, strerror((int)-result));
        return;
    }
    if (!transfer) {
        finish_req(queue, req, STRATA_OK, 0);
        return;
    }
    uint32_t left = req->length - req->moved;
    if (result >= left) {
        req->moved = req->length;
        finish_req(queue, req, STRATA_OK, 0);
        return;
    }
    uint32_t whole = (uint32_t)result / STRATA_IO_ALIGN_BYTES * STRATA_IO_ALIGN_BYTES;
    if (whole == 0) {
        char why[64];
        snprintf(why, sizeof why, "moved %" PRId64 " of the last %" PRIu32, result, left);
        fail_req(queue, req, 0, why);
        return;
    }
    req->moved += whole;
    req->stalls = 0;
    queue->counts.resumed++;
    append_req(&queue->waiting_end, req);
}

static void take_result(struct io_queue *queue, const struct io_result *result)
{
    uint32_t index = result->id & ((1u << SLOT_BITS) - 1);
    struct slot *slot = index < queue->depth ? &queue->slots[index] : NULL;
    if (slot == NULL || result->id == 0 || slot->id != result->id) {
        queue->counts.stale++;
        return;
    }
    struct io_req *req = slot->req;
    *slot = (struct slot){0};
    queue->free_slots[queue->free_count++] = index;
    if (req != NULL)
        judge_result(queue, req, result->result);
    else
        queue->counts.stale++;
}

/* A slot and an id for the next attempt at a request. */
static void prepare_attempt(struct io_queue *queue, struct io_req *req, struct io_attempt *out)
{
    uint32_t index = queue->free_slots[--queue->free_count];
    uint64_t id = ++queue->attempt_count << SLOT_BITS | index;
    queue->slots[index] = (struct slot){.id = id, .req = req};
    *out = (struct io_attempt){
        .id = id,
        .op = req->op,
        .file_index = req->file_index,
        .length = req->length - req->moved,
        .buffer = (char *)req->buffer + req->moved,
        .offset = req->offset + req->moved,
    };
}

/* Write what is in flight, by slot, as far as there is room in the line. */
static void describe_in_flight(const struct io_queue *queue, uint64_t now_ns, char *out,
                               size_t bytes)
{
    size_t used = 0;
    for (uint32_t i = 0; i < queue->depth && used < bytes; i++) {
        const struct io_req *req = queue->slots[i].req;
        if (req == NULL)
            continue;
        int length =
            snprintf(out + used, bytes - used, "%s%s %" PRIu32 " at %" PRIu64 " (%.3g s)",
                     used > 0 ? ", " : "", op_name(req->op), req->length, req->offset,
                     (double)(now_ns - req->start_ns) * 1e-9);
        used += (size_t)length;
    }
}

static void note_timeout(struct io_queue *queue, const struct io_req *req, uint64_t now_ns)
{
    if (queue->error.status != STRATA_OK)
        return;
    char dump[sizeof queue->error.message] = "";
    describe_in_flight(queue, now_ns, dump, sizeof dump);
    (void)strata_fail(&queue->error, STRATA_E_TIMEOUT, ETIMEDOUT,
                      "%s of %" PRIu32 " bytes at %" PRIu64
                      " in %s: no answer for %.3g s; %" PRIu32 " in flight: %s",
                      op_name(req->op), req->length, req->offset,
                      queue->files[req->file_index].path, (double)queue->deadline_ns * 1e-9,
                      queue->depth - queue->free_count, dump);
}

static bool is_overdue(const struct io_queue *queue, const struct io_req *req, uint64_t now_ns)
{
    return now_ns - req->start_ns >= queue->deadline_ns;
}

/* Give up requests that are too old: those in flight, and those that wait for a slot. */
static void expire_overdue(struct io_queue *queue)
{
    uint64_t now_ns = queue_clock_ns(queue);
    for (uint32_t i = 0; i < queue->depth; i++) {
        struct io_req *req = queue->slots[i].req;
        if (req == NULL || !is_overdue(queue, req, now_ns))
            continue;
        note_timeout(queue, req, now_ns);
        queue->slots[i].req = NULL;
        finish_req(queue, req, STRATA_E_TIMEOUT, ETIMEDOUT);
    }
    struct io_req *req = queue->waiting;
    queue->waiting = NULL;
    queue->waiting_end = &queue->waiting;
    while (req != NULL) {
        struct io_req *next = req->next;
        if (is_overdue(queue, req, now_ns)) {
            note_timeout(queue, req, now_ns);
            finish_req(queue, req, STRATA_E_TIMEOUT, ETIMEDOUT);
        } else {
            append_req(&queue->waiting_end, req);
        }
        req = next;
    }
}

/* The backend itself failed: everything in flight is given up at once. */
static void give_up_all(struct io_queue *queue, int32_t native)
{
    for (uint32_t i = 0; i < queue->depth; i++) {
        struct io_req *req = queue->slots[i].req;
        if (req == NULL)
            continue;
        queue->slots[i].req = NULL;
        fail_req(queue, req, native, "the I/O backend failed");
    }
}

/* The time until the oldest request becomes overdue, or has to be looked at again. */
static uint64_t ns_until_look(struct io_queue *queue)
{
    uint64_t oldest_ns = UINT64_MAX;
    for (uint32_t i = 0; i < queue->depth; i++) {
        const struct io_req *req = queue->slots[i].req;
        if (req != NULL && req->start_ns < oldest_ns)
            oldest_ns = req->start_ns;
    }
    for (const struct io_req *req = queue->waiting; req != NULL; req = req->next)
        if (req->start_ns < oldest_ns)
            oldest_ns = req->start_ns;
    if (oldest_ns == UINT64_MAX)
        return UINT64_MAX;
    uint64_t age_ns = queue_clock_ns(queue) - oldest_ns;
    uint64_t left_ns = age_ns >= queue->deadline_ns ? 0 : queue->deadline_ns - age_ns;
    return left_ns < look_interval_ns(queue) ? left_ns : look_interval_ns(queue);
}

static int32_t collect_results(struct io_queue *queue, uint64_t timeout_ns)
{
    int32_t count =
        queue->backend->ops->reap(queue->backend, queue->results, queue->depth, timeout_ns);
    for (int32_t i = 0; i < count; i++)
        take_result(queue, &queue->results[i]);
    return count;
}

static void lay_out_tables(struct io_queue *queue, uint32_t depth)
{
    queue->slots = (struct slot *)(queue + 1);
    queue->attempts = (struct io_attempt *)(queue->slots + depth);
    queue->results = (struct io_result *)(queue->attempts + depth);
    queue->free_slots = (uint32_t *)(queue->results + depth);
    for (uint32_t i = 0; i < depth; i++)
        queue->free_slots[i] = depth - 1 - i;
    queue->free_count = depth;
    queue->waiting_end = &queue->waiting;
    queue->finished_end = &queue->finished;
}

uint64_t strata_io_queue_bytes(const struct io_ops *ops, uint32_t depth)
{
    return own_bytes(depth) + ops->bytes(depth);
}

strata_status strata_io_queue_open(struct io_queue **out, const struct io_queue_desc *desc,
                                   strata_error *error)
{
    STRATA_CHECK(desc->depth >= 1 && desc->depth <= STRATA_IO_MAX_DEPTH);
    STRATA_CHECK(desc->file_count >= 1 && desc->deadline_ns > 0);
    *out = NULL;
    struct io_queue *queue = calloc(1, own_bytes(desc->depth));
    if (queue == NULL)
        return strata_fail(error, STRATA_E_NOMEM, ENOMEM, "host: no memory for an I/O queue");
    queue->files = desc->files;
    queue->file_count = desc->file_count;
    queue->depth = desc->depth;
    queue->deadline_ns = desc->deadline_ns;
    queue->looked_ns = queue->aged_ns = strata_now_ns();
    lay_out_tables(queue, desc->depth);
    struct io_backend_desc backend = {
        .files = desc->files,
        .file_count = desc->file_count,
        .depth = desc->depth,
        .region = desc->region,
        .config = desc->ops_config,
    };
    strata_status status = desc->ops->open(&queue->backend, &backend, error);
    if (status != STRATA_OK) {
        free(queue);
        return status;
    }
    *out = queue;
    return STRATA_OK;
}

bool strata_io_queue_close(struct io_queue *queue)
{
    if (queue == NULL)
        return true;
    /* Results are dropped from here on: all that matters is that the buffers become free. */
    for (uint32_t i = 0; i < queue->depth; i++)
        queue->slots[i].req = NULL;
    uint64_t begin_ns = strata_now_ns();
    while (queue->free_count < queue->depth) {
        uint64_t waited_ns = strata_now_ns() - begin_ns;
        if (waited_ns >= queue->deadline_ns ||
            collect_results(queue, queue->deadline_ns - waited_ns) < 0)
            break;
    }
    bool quiet = queue->free_count == queue->depth;
    queue->backend->ops->close(queue->backend);
    free(queue);
    return quiet;
}

bool strata_io_queue_registered(const struct io_queue *queue, int32_t *out_cause)
{
    *out_cause = queue->backend->not_because;
    return queue->backend->registered;
}

void strata_io_queue_start(struct io_queue *queue, struct io_req *req)
{
    STRATA_CHECK(req->file_index < queue->file_count);
    STRATA_CHECK(req->op == IO_SYNC ||
                 (req->length > 0 && req->length % STRATA_IO_ALIGN_BYTES == 0 &&
                  req->offset % STRATA_IO_ALIGN_BYTES == 0 &&
                  (uintptr_t)req->buffer % STRATA_IO_ALIGN_BYTES == 0));
    req->status = STRATA_OK;
    req->native = 0;
    req->moved = 0;
    req->stalls = 0;
    req->start_ns = queue_clock_ns(queue);
    append_req(&queue->waiting_end, req);
}

/* In order, while there are slots and the backend takes them. */
void strata_io_queue_push(struct io_queue *queue)
{
    uint32_t count = 0;
    bool stalled = false;
    struct io_req *req = queue->waiting;
    for (; req != NULL && queue->free_count > 0; req = req->next) {
        stalled = stalled || req->stalls >= PATIENT_STALLS;
        prepare_attempt(queue, req, &queue->attempts[count++]);
    }
    if (count == 0)
        return;
    if (stalled)
        nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
    uint32_t started = queue->backend->ops->start(queue->backend, queue->attempts, count);
    STRATA_CHECK(started <= count);
    for (uint32_t i = 0; i < started; i++)
        queue->waiting = queue->waiting->next;
    if (queue->waiting == NULL)
        queue->waiting_end = &queue->waiting;
    /* In reverse, so that the stack of free slots is as it was before. */
    for (uint32_t i = count; i > started; i--) {
        uint32_t index = queue->attempts[i - 1].id & ((1u << SLOT_BITS) - 1);
        queue->slots[index] = (struct slot){0};
        queue->free_slots[queue->free_count++] = index;
    }
}

struct io_req *strata_io_queue_reap(struct io_queue *queue, uint64_t timeout_ns)
{
    if (queue->finished == NULL) {
        strata_io_queue_push(queue);
        uint64_t limit_ns = ns_until_look(queue);
        int32_t count = collect_results(queue, limit_ns < timeout_ns ? limit_ns : timeout_ns);
        if (count < 0)
            give_up_all(queue, -count);
        expire_overdue(queue);
    }
    struct io_req *req = queue->finished;
    if (req == NULL)
        return NULL;
    queue->finished = req->next;
    if (queue->finished == NULL)
        queue->finished_end = &queue->finished;
    req->next = NULL;
    return req;
}

void strata_io_queue_wake(struct io_queue *queue)
{
    queue->backend->ops->wake(queue->backend);
}

const strata_error *strata_io_queue_error(const struct io_queue *queue)
{
    return &queue->error;
}

void strata_io_queue_counts(const struct io_queue *queue, struct io_queue_counts *out)
{
    *out = queue->counts;
}
