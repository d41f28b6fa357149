#define _GNU_SOURCE
/*
 * The schedule on real lanes.
 *
 * Everything that happens is a message: the caller asks something, a stream has reached a
 * point, an op of a lane has ended. The pager takes one message, reports it to the schedule,
 * and starts the ops that the schedule returns (offload/pager/lanes.h). So there is no lock
 * here, and the threads share nothing but messages and the flag `failed`.
 *
 * After a failure no op is started, but messages are taken as before: ops under way end, and
 * the caller learns of the failure with its next answer.
 *
 * Thread: the pager; functions declared in the header: the engine's caller.
 */

#include "offload/pager/pager.h"

#include "base/channel.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/thread.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* A full channel only makes a stream or the caller wait for the pager, which waits for none. */
#define EVENTS 1024u

enum message_kind {
    MESSAGE_STOP, /* start no more ops and let all streams through their gates */
    MESSAGE_EXIT, /* end once no op is under way */
    MESSAGE_BEGIN,
    MESSAGE_ASK,
    MESSAGE_EVALUATE,
    MESSAGE_REST,
    MESSAGE_GO_ON,
    MESSAGE_WAIT_NORM,
    MESSAGE_WAIT_UPDATES,
    MESSAGE_COMMIT,
    MESSAGE_STATS,
    MESSAGE_COMPUTING,
    MESSAGE_RELEASED,
    MESSAGE_COPIED,
    MESSAGE_DONE
};

struct message {
    enum message_kind kind;
    uint32_t index; /* use, stash event */
    uint64_t step;  /* or turn */
    uint64_t end_ns;
    double lr;
    struct lane_done done;     /* MESSAGE_DONE */
    struct pager_stats *stats; /* MESSAGE_STATS: where to put them; lent until the answer */
};

struct answer {
    strata_status status;
    uint64_t applied; /* MESSAGE_WAIT_UPDATES */
    strata_step_result total;
};

struct pager {
    struct pager_desc desc;
    struct channel *events;  /* struct message: to the pager */
    struct channel *answers; /* struct answer: to the caller */
    struct lanes *lanes;
    struct gates *gates;
    pthread_t thread;
    bool thread_started;
    struct message waiting; /* the caller's question that has no answer yet */
    bool caller_waits;
    bool stopping;
    bool exiting;
    strata_stream
        *streams[STRATA_MAX_STREAMS]; /* those the caller uses; only its thread looks here */
    uint32_t stream_count;
    uint64_t holds; /* of the schedule so far; the caller's thread's */
    uint64_t stall_ns[STRATA_STALL_COUNT];
    strata_stall stall; /* why the device waits for its next acquire, if it does */
    bool released;      /* a use was released, and `stall` is not set for the next one yet */
    uint64_t released_turn;
    uint32_t released_use;
    strata_error error; /* written once, by the pager */
    /* The pager stores it with release, after `error` and before it opens any gate because of
     * it. The caller loads it with acquire after it waited at a gate. */
    _Atomic bool failed;
};

/* Failing. */

static void open_all_gates(struct pager *p)
{
    uint32_t count = strata_schedule_gate_count(p->desc.lanes.memory.plan);
    for (uint32_t i = 0; i < count; i++)
        strata_gate_open(p->gates, i, STRATA_GATE_OPEN);
}

static void fail_pager(struct pager *p, const strata_error *error)
{
    if (p->error.status != STRATA_OK)
        return;
    p->error = *error;
    atomic_store_explicit(&p->failed, true, memory_order_release);
    open_all_gates(p);
}

static bool halted(const struct pager *p)
{
    return p->stopping || p->error.status != STRATA_OK;
}

/* Messages that others send. A stream's notify carries one number: kind, index and step,
 * packed.
 */

static uint64_t pack_message(enum message_kind kind, uint32_t index, uint64_t step)
{
    return (uint64_t)kind << 56 | (uint64_t)(index & 0xffffff) << 32 | (step & 0xffffffff);
}

static void on_stream(void *user, uint64_t value, uint64_t now_ns)
{
    struct pager *p = user;
    struct message message = {
        .kind = (enum message_kind)(value >> 56),
        .index = value >> 32 & 0xffffff,
        .step = value & 0xffffffff,
        .end_ns = now_ns,
    };
    strata_channel_send(p->events, &message);
}

static void on_lane(void *user, const struct lane_done *done)
{
    struct pager *p = user;
    strata_channel_send(p->events, &(struct message){.kind = MESSAGE_DONE, .done = *done});
}

/* Starting ops. */

static void start_commit(struct pager *p, const struct op *op)
{
    struct commit_job job = {0};
    strata_error error = {.status = STRATA_OK};
    const struct lanes_desc *lanes = &p->desc.lanes;
    if (lanes->functions->may_commit(lanes->functions_user, &error) != STRATA_OK) {
        fail_pager(p, &error);
        return;
    }
    job.line_count = strata_schedule_commit_lines(p->desc.schedule, job.lines);
    const struct step_facts *next =
        strata_schedule_facts(p->desc.schedule, job.lines[0].step - p->desc.lanes.base_step);
    job.updates = next->applied;
    job.loss_scale = next->loss_scale;
    strata_lanes_commit(p->lanes, op, &job);
}

static void open_gate(struct pager *p, const struct op *op)
{
    uint32_t gate = strata_schedule_gate_of(p->desc.lanes.memory.plan, op);
    strata_gate_open(p->gates, gate, op->gate_value);
}

static void start_op(struct pager *p, const struct op *op)
{
    if (op->kind == OP_OPEN)
        open_gate(p, op);
    else if (op->kind == OP_COMMIT)
        start_commit(p, op);
    else
        strata_lanes_start(p->lanes, op);
}

/* Taking messages. */

/* Keep the norm of a step, and judge by it the scale that updates ahead of it guessed. */
static enum verdict take_total(struct pager *p, uint64_t step, const strata_step_result *total)
{
    struct step_facts *of = strata_schedule_facts(p->desc.schedule, step);
    of->result = *total;
    strata_schedule_facts(p->desc.schedule, step + 1)->applied = of->applied + !total->skipped;
    strata_schedule_facts(p->desc.schedule, step + 1)->loss_scale = total->next_loss_scale;
    if (total->skipped)
        return VERDICT_SKIP;
    bool guessed = total->grad_scale == p->desc.lanes.functions->guess(total->loss_scale);
    return guessed ? VERDICT_WITHIN : VERDICT_OVER;
}

static void finish_op(struct pager *p, const struct lane_done *done)
{
    struct op op;
    const strata_error *failure = strata_lanes_finish(p->lanes, done, &op);
    if (failure != NULL)
        fail_pager(p, failure);
    if (halted(p))
        return;
    if (op.kind == OP_TOTAL)
        op.verdict = take_total(p, op.step, &done->total);
    strata_schedule_done(p->desc.schedule, &op);
    /* The caller asked for a commit while an earlier one was being made. */
    if (op.kind == OP_COMMIT && p->caller_waits && p->waiting.kind == MESSAGE_COMMIT)
        strata_schedule_save(p->desc.schedule);
}

/* After a release, once the schedule has handled it: note what the next acquire lacks. */
static void note_missing(struct pager *p)
{
    const struct model *model = &p->desc.lanes.memory.plan->model;
    uint64_t turn = p->released_turn;
    uint32_t use = p->released_use;
    struct use_list list = strata_model_list(model, strata_model_is_eval(model, use));
    if (!p->released)
        return;
    p->released = false;
    do {
        turn += use + 1 == list.end;
        use = use + 1 == list.end ? list.first : use + 1;
    } while (model->uses[use].kind != STRATA_USE_ACQUIRE);
    p->stall = strata_schedule_missing(p->desc.schedule, turn, use);
}

static void take_message(struct pager *p, const struct message *message)
{
    switch (message->kind) {
    case MESSAGE_STOP:
        p->stopping = true;
        open_all_gates(p);
        break;
    case MESSAGE_EXIT:
        p->exiting = true;
        break;
    case MESSAGE_BEGIN:
        strata_schedule_facts(p->desc.schedule, message->step)->lr = message->lr;
        break;
    case MESSAGE_ASK:
        if (!halted(p))
            strata_schedule_ask(p->desc.schedule, message->step, message->index);
        break;
    case MESSAGE_EVALUATE:
        if (!halted(p)) {
            strata_schedule_hold(p->desc.schedule, message->step);
            strata_schedule_evaluate(p->desc.schedule);
        }
        break;
    case MESSAGE_REST:
        if (!halted(p))
            strata_schedule_hold(p->desc.schedule, message->step);
        break;
    case MESSAGE_GO_ON:
        if (!halted(p))
            strata_schedule_go_on(p->desc.schedule);
        break;
    case MESSAGE_COMPUTING:
        /* The stream is past the gates of an acquire. What it waited for is what was missing
         * when the use before it ended. */
        p->stall_ns[p->stall] += strata_lanes_computing(p->lanes, message->end_ns);
        break;
    case MESSAGE_RELEASED:
        strata_lanes_computed(p->lanes, message->step, message->index, message->end_ns);
        if (halted(p))
            break;
        strata_schedule_released(p->desc.schedule, message->step, message->index);
        p->released = true;
        p->released_turn = message->step;
        p->released_use = message->index;
        break;
    case MESSAGE_COPIED:
        if (!halted(p))
            strata_schedule_copied(p->desc.schedule, message->step, message->index);
        break;
    case MESSAGE_DONE:
        finish_op(p, &message->done);
        break;
    case MESSAGE_COMMIT:
        if (!halted(p))
            strata_schedule_save(p->desc.schedule);
        break;
    default:
        break;
    }
    bool asks = message->kind == MESSAGE_ASK || message->kind == MESSAGE_WAIT_NORM ||
                message->kind == MESSAGE_WAIT_UPDATES || message->kind == MESSAGE_COMMIT ||
                message->kind == MESSAGE_REST || message->kind == MESSAGE_STATS;
    if (asks) {
        p->waiting = *message;
        p->caller_waits = true;
    }
}

/* Can the question that the caller waits with be answered? */
static bool answerable(const struct pager *p)
{
    const struct message *question = &p->waiting;
    switch (question->kind) {
    case MESSAGE_ASK:
        return strata_schedule_granted(p->desc.schedule, question->step, question->index);
    case MESSAGE_WAIT_NORM:
        return strata_schedule_normed(p->desc.schedule) >= question->step;
    case MESSAGE_WAIT_UPDATES:
        return strata_schedule_updated(p->desc.schedule) >= question->step &&
               strata_schedule_settled(p->desc.schedule);
    case MESSAGE_COMMIT:
        return strata_schedule_committed(p->desc.schedule) >= question->step;
    case MESSAGE_REST:
        return strata_schedule_resting(p->desc.schedule);
    default:
        return true;
    }
}

static uint64_t applied_updates(struct pager *p)
{
    return strata_schedule_facts(p->desc.schedule, strata_schedule_updated(p->desc.schedule))
        ->applied;
}

static void take_stats(struct pager *p, struct pager_stats *out)
{
    memcpy(out->lanes, strata_lanes_stats(p->lanes), sizeof out->lanes);
    memcpy(out->stall_ns, p->stall_ns, sizeof p->stall_ns);
    out->applied = applied_updates(p);
    out->counts = strata_schedule_counts(p->desc.schedule);
}

/* A caller that waits for all updates wants the states themselves, not a gradient behind. */
static void settle_states(struct pager *p)
{
    bool wanted = p->caller_waits && p->waiting.kind == MESSAGE_WAIT_UPDATES;
    if (wanted && !halted(p) && strata_schedule_updated(p->desc.schedule) >= p->waiting.step)
        strata_schedule_settle(p->desc.schedule);
}

static void answer_caller(struct pager *p)
{
    if (!p->caller_waits || !(halted(p) || answerable(p)))
        return;
    struct answer answer = {.status = p->error.status};
    if (p->waiting.kind == MESSAGE_WAIT_NORM && answer.status == STRATA_OK)
        answer.total = strata_schedule_facts(p->desc.schedule, p->waiting.step - 1)->result;
    if (p->waiting.kind == MESSAGE_STATS)
        take_stats(p, p->waiting.stats);
    answer.applied = applied_updates(p);
    p->caller_waits = false;
    strata_channel_send(p->answers, &answer);
}

/* A device that has failed still sends its notifies, so the failure has to be looked for. */
static void look_at_device(struct pager *p)
{
    const strata_error *failure = p->desc.lanes.device->ops->error(p->desc.lanes.device);
    if (failure != NULL)
        fail_pager(p, failure);
}

static void *run_pager(void *user)
{
    struct pager *p = user;
    for (;;) {
        struct op op;
        settle_states(p);
        while (!halted(p) && strata_schedule_next(p->desc.schedule, &op))
            start_op(p, &op);
        note_missing(p);
        answer_caller(p);
        if (p->exiting && strata_lanes_idle(p->lanes))
            return NULL;
        struct message message;
        if (!strata_channel_receive(p->events, &message, UINT64_MAX))
            continue;
        look_at_device(p);
        take_message(p, &message);
    }
}

/* The caller's side. */

static strata_status ask_and_wait(struct pager *p, struct message question, struct answer *out)
{
    strata_channel_send(p->events, &question);
    while (!strata_channel_receive(p->answers, out, UINT64_MAX))
        ;
    return out->status;
}

strata_status strata_pager_begin(struct pager *p, uint64_t step, double lr)
{
    strata_channel_send(p->events,
                        &(struct message){.kind = MESSAGE_BEGIN, .step = step, .lr = lr});
    return STRATA_OK;
}

strata_status strata_pager_ask(struct pager *p, uint64_t turn, uint32_t use,
                               uint64_t *out_blocked_ns)
{
    struct answer answer;
    uint64_t start_ns = strata_now_ns();
    strata_status status = ask_and_wait(
        p, (struct message){.kind = MESSAGE_ASK, .step = turn, .index = use}, &answer);
    *out_blocked_ns = strata_now_ns() - start_ns;
    return status;
}

void strata_pager_evaluate(struct pager *p, uint64_t steps)
{
    p->holds++;
    strata_channel_send(p->events, &(struct message){.kind = MESSAGE_EVALUATE, .step = steps});
}

strata_status strata_pager_rest(struct pager *p, uint64_t steps)
{
    struct answer answer;
    p->holds++;
    return ask_and_wait(p, (struct message){.kind = MESSAGE_REST, .step = steps}, &answer);
}

void strata_pager_go_on(struct pager *p)
{
    strata_channel_send(p->events, &(struct message){.kind = MESSAGE_GO_ON});
}

bool strata_pager_take_stream(struct pager *p, strata_stream *stream)
{
    for (uint32_t i = 0; i < p->stream_count; i++)
        if (p->streams[i] == stream)
            return true;
    if (p->stream_count == STRATA_MAX_STREAMS)
        return false;
    strata_stream_hold(stream);
    p->streams[p->stream_count++] = stream;
    return true;
}

/* Where streams wait at gates by blocking the thread that queues (device.h), that thread is
 * past the gate now. A failure opens gates too; then the bytes have not come. */
static strata_status status_after_gate(const struct pager *p)
{
    return atomic_load_explicit(&p->failed, memory_order_acquire) ? p->error.status : STRATA_OK;
}

strata_status strata_pager_queue_acquire(struct pager *p, strata_stream *stream, uint64_t turn,
                                         uint32_t use)
{
    const struct strata_device_ops *device = p->desc.lanes.device->ops;
    const struct residency *residency = &p->desc.lanes.memory.plan->residency;
    uint64_t value = strata_schedule_gate_value(p->desc.lanes.memory.plan, use, turn, p->holds);
    device->stream_wait_gate(stream, p->gates, residency->use_param[use], value);
    if (residency->use_grad[use] != STRATA_NONE)
        device->stream_wait_gate(stream, p->gates, residency->use_grad[use], value);
    STRATA_TRY(status_after_gate(p));
    device->stream_notify(stream, on_stream, p, pack_message(MESSAGE_COMPUTING, use, turn));
    return STRATA_OK;
}

void strata_pager_queue_release(struct pager *p, strata_stream *stream, uint64_t turn,
                                uint32_t use)
{
    p->desc.lanes.device->ops->stream_notify(stream, on_stream, p,
                                             pack_message(MESSAGE_RELEASED, use, turn));
}

strata_status strata_pager_queue_stash(struct pager *p, strata_stream *stream, uint64_t turn,
                                       uint32_t use, void *bytes)
{
    const struct strata_device_ops *device = p->desc.lanes.device->ops;
    const struct offload_plan *plan = p->desc.lanes.memory.plan;
    uint32_t event = plan->model.uses[use].stash_event;
    bool out = plan->model.uses[use].kind == STRATA_USE_STASH;
    bool at_home = plan->stash == STRATA_DEVICE;
    uint8_t *there = at_home ? strata_address_stash_home(&p->desc.lanes.memory, event)
                             : strata_address_stash_frame(&p->desc.lanes.memory, turn, event);
    if (!out && !at_home)
        device->stream_wait_gate(stream, p->gates, strata_schedule_stash_gate(plan, event),
                                 strata_schedule_gate_value(plan, use, turn, p->holds));
    STRATA_TRY(status_after_gate(p));
    device->stream_copy(stream, out ? (void *)there : bytes, out ? bytes : (void *)there,
                        plan->model.stash_copy_bytes);
    if (!at_home)
        device->stream_notify(stream, on_stream, p, pack_message(MESSAGE_COPIED, event, turn));
    return STRATA_OK;
}

strata_view strata_pager_view(const struct pager *p, uint32_t use)
{
    const struct residency *residency = &p->desc.lanes.memory.plan->residency;
    strata_view view = {
        .param = strata_address_placement(&p->desc.lanes.memory, residency->use_param[use])};
    if (residency->use_grad[use] != STRATA_NONE)
        view.grad =
            (float *)strata_address_placement(&p->desc.lanes.memory, residency->use_grad[use]);
    return view;
}

strata_status strata_pager_wait_norm(struct pager *p, uint64_t steps, strata_step_result *out)
{
    struct answer answer;
    strata_status status =
        ask_and_wait(p, (struct message){.kind = MESSAGE_WAIT_NORM, .step = steps}, &answer);
    *out = answer.total;
    return status;
}

strata_status strata_pager_wait_updates(struct pager *p, uint64_t steps, uint64_t *out_applied)
{
    struct answer answer;
    strata_status status =
        ask_and_wait(p, (struct message){.kind = MESSAGE_WAIT_UPDATES, .step = steps}, &answer);
    *out_applied = answer.applied;
    return status;
}

strata_status strata_pager_commit(struct pager *p, uint64_t step)
{
    struct answer answer;
    return ask_and_wait(p, (struct message){.kind = MESSAGE_COMMIT, .step = step}, &answer);
}

void strata_pager_stats(struct pager *p, struct pager_stats *out)
{
    struct answer answer;
    /* The figures are in the answer even if its status is the engine's failure. */
    strata_status status =
        ask_and_wait(p, (struct message){.kind = MESSAGE_STATS, .stats = out}, &answer);
    (void)status;
}

const strata_error *strata_pager_error(const struct pager *p)
{
    return &p->error;
}

/* Life. */

uint64_t strata_pager_table_bytes(const struct offload_plan *plan)
{
    return sizeof(struct pager) + strata_channel_bytes(EVENTS, sizeof(struct message)) +
           strata_channel_bytes(1, sizeof(struct answer)) + strata_lanes_table_bytes(plan) +
           strata_schedule_gate_count(plan) * sizeof(uint64_t);
}

static strata_status open_all(struct pager *p, strata_error *error)
{
    p->desc.lanes.schedule = p->desc.schedule;
    p->desc.lanes.done = on_lane;
    p->desc.lanes.done_user = p;
    STRATA_TRY(strata_channel_create(&p->events, EVENTS, sizeof(struct message), error));
    STRATA_TRY(strata_channel_create(&p->answers, 1, sizeof(struct answer), error));
    STRATA_TRY(strata_gates_create(
        &p->gates, strata_schedule_gate_count(p->desc.lanes.memory.plan), error));
    return strata_lanes_create(&p->lanes, &p->desc.lanes, error);
}

strata_status strata_pager_create(struct pager **out, const struct pager_desc *desc,
                                  strata_error *error)
{
    *out = NULL;
    struct pager *p = calloc(1, sizeof *p);
    if (p == NULL)
        return strata_fail(error, STRATA_E_NOMEM, 0, "no memory for the pager");
    p->desc = *desc;
    strata_status status = open_all(p, error);
    if (status != STRATA_OK) {
        strata_pager_destroy(p);
        return status;
    }
    strata_schedule_start(p->desc.schedule);
    int failed = strata_thread_start(&p->thread, 0, run_pager, p);
    if (failed != 0) {
        status =
            strata_fail(error, STRATA_E_NOMEM, failed, "pager thread: %s", strerror(failed));
        strata_pager_destroy(p);
        return status;
    }
    p->thread_started = true;
    pthread_setname_np(p->thread, "strata-pager");
    *out = p;
    return STRATA_OK;
}

void strata_pager_destroy(struct pager *p)
{
    if (p == NULL)
        return;
    if (p->thread_started) {
        strata_channel_send(p->events, &(struct message){.kind = MESSAGE_STOP});
        /* All gates are open, so the caller's streams become idle. Then no work of theirs
         * touches the device's memory and no notify of theirs uses this pager. */
        for (uint32_t i = 0; i < p->stream_count; i++)
            strata_stream_sync(p->streams[i]);
        strata_channel_send(p->events, &(struct message){.kind = MESSAGE_EXIT});
        pthread_join(p->thread, NULL);
    }
    for (uint32_t i = 0; i < p->stream_count; i++)
        strata_stream_release(p->streams[i]);
    strata_lanes_destroy(p->lanes);
    strata_gates_destroy(p->gates);
    strata_channel_destroy(p->answers);
    strata_channel_destroy(p->events);
    free(p);
}
