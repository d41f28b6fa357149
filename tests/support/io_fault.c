/*
 * The failing backend: attempts pass through, chosen ones are marked, and what comes back for a
 * marked id is bent on its way up.
 *
 * Results of its own making and held ones lie in one array with the time each is due, so a wait
 * on the wrapped backend ends when the next one is.
 *
 * Thread: the queue's owner; wake from any.
 */

#include "tests/support/io_fault.h"

#include "base/clock.h"
#include "base/error.h"

#include <errno.h>

#define BLOCK STRATA_IO_ALIGN_BYTES

struct mark {
    struct io_attempt attempt; /* id 0: free */
};

struct held {
    struct io_result result;
    uint64_t due_ns;
};

struct fault {
    struct io_backend base;
    struct io_backend *inner;
    const struct io_fault_plan *plan;
    uint32_t depth;
    bool broken;
    struct mark *marks; /* depth of them */
    struct held *held;  /* twice depth: a result and its double */
    uint32_t held_count;
};

static uint64_t own_bytes(uint32_t depth)
{
    return sizeof(struct fault) +
           (uint64_t)depth * (sizeof(struct mark) + 2 * sizeof(struct held));
}

/* The wrapped backend is not known here; tests do not budget. */
static uint64_t fault_bytes(uint32_t depth)
{
    return own_bytes(depth);
}

static strata_status fault_open(struct io_backend **out, const struct io_backend_desc *desc,
                                strata_error *error)
{
    const struct io_fault_plan *plan = desc->config;
    struct fault *fault = calloc(1, own_bytes(desc->depth));
    if (fault == NULL)
        return strata_fail(error, STRATA_E_NOMEM, ENOMEM, "host: no memory for a fault");
    fault->base.ops = &strata_io_fault;
    fault->plan = plan;
    fault->depth = desc->depth;
    fault->marks = (struct mark *)(fault + 1);
    fault->held = (struct held *)(fault->marks + desc->depth);
    struct io_backend_desc inner = *desc;
    inner.config = NULL;
    strata_status status = plan->inner->open(&fault->inner, &inner, error);
    if (status != STRATA_OK) {
        free(fault);
        return status;
    }
    fault->base.registered = fault->inner->registered;
    fault->base.not_because = fault->inner->not_because;
    *out = &fault->base;
    return STRATA_OK;
}

static void fault_close(struct io_backend *backend)
{
    struct fault *fault = (struct fault *)backend;
    fault->inner->ops->close(fault->inner);
    free(fault);
}

static bool goes_wrong(const struct io_fault_plan *plan, const struct io_attempt *attempt)
{
    if (plan->op != 0 && plan->op != attempt->op)
        return false;
    uint64_t seen = atomic_fetch_add(&plan->count->seen, 1) + 1;
    bool wrong = plan->nth > 0 && seen >= plan->nth && seen - plan->nth < plan->times;
    if (wrong)
        atomic_fetch_add(&plan->count->fired, 1);
    return wrong;
}

static void hold(struct fault *fault, uint64_t id, int64_t result, uint64_t delay_ns)
{
    STRATA_CHECK(fault->held_count < 2 * fault->depth);
    fault->held[fault->held_count++] = (struct held){
        .result = {.id = id, .result = result},
        .due_ns = delay_ns == UINT64_MAX ? UINT64_MAX : strata_now_ns() + delay_ns,
    };
}

static void mark(struct fault *fault, const struct io_attempt *attempt)
{
    uint32_t i = 0;
    while (fault->marks[i].attempt.id != 0)
        i++;
    STRATA_CHECK(i < fault->depth);
    fault->marks[i].attempt = *attempt;
}

/* false: the wrapped backend has no room. */
static bool start_wrong(struct fault *fault, const struct io_attempt *attempt)
{
    const struct io_fault_plan *plan = fault->plan;
    struct io_attempt bent = *attempt;
    switch (plan->fault) {
    case IO_FAULT_ERRNO:
        hold(fault, attempt->id, -plan->native, 0);
        return true;
    case IO_FAULT_ZERO:
        hold(fault, attempt->id, 0, 0);
        return true;
    case IO_FAULT_BROKEN:
        fault->broken = true;
        break;
    case IO_FAULT_SHORT:
        if (bent.length >= 2 * BLOCK)
            bent.length = bent.length / 2 / BLOCK * BLOCK;
        break;
    case IO_FAULT_ODD:
        if (bent.length >= 2 * BLOCK)
            bent.length -= BLOCK;
        break;
    default:
        break;
    }
    if (fault->inner->ops->start(fault->inner, &bent, 1) == 0)
        return false;
    mark(fault, attempt);
    return true;
}

static uint32_t fault_start(struct io_backend *backend, const struct io_attempt *attempts,
                            uint32_t count)
{
    struct fault *fault = (struct fault *)backend;
    for (uint32_t i = 0; i < count; i++) {
        bool started = goes_wrong(fault->plan, &attempts[i])
                           ? start_wrong(fault, &attempts[i])
                           : fault->inner->ops->start(fault->inner, &attempts[i], 1) == 1;
        if (!started)
            return i;
    }
    return count;
}

/* The marked attempt this is the result of, taken off the list; id 0: it was not marked. */
static struct io_attempt take_mark(struct fault *fault, uint64_t id)
{
    for (uint32_t i = 0; i < fault->depth; i++) {
        struct io_attempt attempt = fault->marks[i].attempt;
        if (attempt.id == id) {
            fault->marks[i].attempt.id = 0;
            return attempt;
        }
    }
    return (struct io_attempt){.id = 0};
}

/* Bend a result; false: it is kept back. */
static bool bend(struct fault *fault, struct io_result *result)
{
    const struct io_fault_plan *plan = fault->plan;
    struct io_attempt attempt = take_mark(fault, result->id);
    if (attempt.id == 0)
        return true;
    switch (plan->fault) {
    case IO_FAULT_ODD:
        if (result->result > 0 && result->result < attempt.length)
            result->result += 100;
        return true;
    case IO_FAULT_LATE:
        hold(fault, result->id, result->result, plan->delay_ns);
        return false;
    case IO_FAULT_HELD:
        hold(fault, result->id, result->result, UINT64_MAX);
        return false;
    case IO_FAULT_TWICE:
        hold(fault, result->id, result->result, plan->delay_ns);
        return true;
    case IO_FAULT_LOST:
        return false;
    case IO_FAULT_FLIP:
        if (attempt.op == IO_READ)
            ((unsigned char *)attempt.buffer)[attempt.length / 3] ^= 4;
        return true;
    default:
        return true;
    }
}

static bool is_due(const struct fault *fault, const struct held *held, uint64_t now_ns)
{
    return held->due_ns == UINT64_MAX ? fault->plan->count->release : held->due_ns <= now_ns;
}

static uint32_t take_due(struct fault *fault, struct io_result *out, uint32_t capacity)
{
    uint64_t now_ns = strata_now_ns();
    uint32_t count = 0;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < fault->held_count; i++) {
        if (count < capacity && is_due(fault, &fault->held[i], now_ns))
            out[count++] = fault->held[i].result;
        else
            fault->held[kept++] = fault->held[i];
    }
    fault->held_count = kept;
    return count;
}

static uint64_t until_due(const struct fault *fault, uint64_t timeout_ns)
{
    uint64_t now_ns = strata_now_ns();
    for (uint32_t i = 0; i < fault->held_count; i++) {
        uint64_t due_ns = fault->held[i].due_ns;
        uint64_t left_ns = due_ns > now_ns ? due_ns - now_ns : 0;
        timeout_ns = left_ns < timeout_ns ? left_ns : timeout_ns;
    }
    return timeout_ns;
}

static int32_t fault_reap(struct io_backend *backend, struct io_result *out, uint32_t capacity,
                          uint64_t timeout_ns)
{
    struct fault *fault = (struct fault *)backend;
    if (fault->broken)
        return -fault->plan->native;
    uint32_t count = take_due(fault, out, capacity);
    if (count > 0)
        return (int32_t)count;
    int32_t got =
        fault->inner->ops->reap(fault->inner, out, capacity, until_due(fault, timeout_ns));
    for (int32_t i = 0; i < got; i++)
        if (bend(fault, &out[i]))
            out[count++] = out[i];
    return got < 0 ? got : (int32_t)count;
}

static void fault_wake(struct io_backend *backend)
{
    struct fault *fault = (struct fault *)backend;
    fault->inner->ops->wake(fault->inner);
}

const struct io_ops strata_io_fault = {
    .name = "fault",
    .bytes = fault_bytes,
    .open = fault_open,
    .close = fault_close,
    .start = fault_start,
    .reap = fault_reap,
    .wake = fault_wake,
};
