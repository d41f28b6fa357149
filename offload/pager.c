#define _GNU_SOURCE
/*
 * The schedule on real lanes.
 *
 * Everything that happens is a message: the caller asks, a stream got somewhere, a transfer or
 * a job is done. The pager takes one, tells the schedule, and starts what the schedule gives
 * out. So there is no lock here and nothing is shared: a slot of the running table belongs to
 * the pager, except the store_io in it, which is lent to the store until its done message.
 *
 * A failure stops the giving-out, not the taking: ops under way end as they would, and the
 * caller learns of it with its next answer.
 *
 * Lane statistics: an op counts from when it was queued or the one before it on the lane ended,
 * whichever came later, to its end.
 *
 * Thread: the pager; functions declared in the header: the engine's caller.
 */

#include "offload/pager.h"

#include "base/channel.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/thread.h"
#include "offload/op_trace.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* More than all lanes' depths together. */
#define SLOTS 32u
/* A full channel only makes a stream or the caller wait for the pager, which waits for none. */
#define EVENTS 1024u
/* Steps whose learning rate, norm and count of updates are kept. strata_wait wants the last two
 * that have ended, and the norm of the one in progress may be known before its end. A caller
 * that begins step n + 4 has been granted the last gradient of n + 3, so the norm of n + 2 is
 * known, so every tile has weights of step n + 2 and with them step n in its state. */
#define STEPS 4u

enum message_kind {
    MESSAGE_STOP, /* start nothing more, hold no stream back */
    MESSAGE_EXIT, /* no more messages but of ops under way */
    MESSAGE_BEGIN,
    MESSAGE_ASK,
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
    uint32_t index; /* use, stash event, slot */
    uint64_t step;
    uint64_t start_ns;
    uint64_t end_ns;
    double lr;
    strata_status status;
    enum verdict verdict; /* of a norm job */
    strata_step_result total;
    struct pager_stats *stats; /* MESSAGE_STATS: where to put them; lent until the answer */
};

struct answer {
    strata_status status;
    uint64_t applied; /* MESSAGE_WAIT_UPDATES */
    strata_step_result total;
};

/* A step of the last few. */
struct step {
    double lr;
    uint64_t applied;  /* updates before it; known with the verdict on the one before */
    double loss_scale; /* likewise; what a commit before it holds */
    bool known;        /* result is its own */
    strata_step_result result;
};

struct slot {
    struct op op;
    struct store_io io;
    uint64_t queued_ns;
    uint64_t bytes;
};

struct pager {
    struct pager_desc desc;
    struct channel *events;  /* struct message: to the pager */
    struct channel *answers; /* struct answer: to the caller */
    struct cpu_lane *cpu;
    struct update_hashes *hashes;
    struct committer *committer; /* NULL: nothing is durable */
    strata_stream *h2d;
    strata_stream *d2h;
    struct gates *gates;
    pthread_t thread;
    bool thread_started;
    struct slot slots[SLOTS];
    uint32_t free_slots[SLOTS];
    uint32_t free_count;
    struct step steps[STEPS];
    struct message waiting; /* the caller's question that has no answer yet */
    bool caller_waits;
    bool stopping;
    bool exiting;
    strata_stream
        *streams[STRATA_MAX_STREAMS]; /* the caller's, as they came; the caller's thread's */
    uint32_t stream_count;
    strata_lane_stats lanes[STRATA_LANE_COUNT];
    uint64_t lane_end_ns[STRATA_LANE_COUNT];
    uint64_t computing_since_ns;
    uint64_t stall_ns[STRATA_STALL_COUNT];
    strata_stall stall; /* why the device stands still, if it does */
    strata_error error;
};

/* Failing. */

static void open_all_gates(struct pager *p)
{
    uint32_t count = strata_schedule_gate_count(p->desc.memory.plan);
    for (uint32_t i = 0; i < count; i++)
        strata_gate_open(p->gates, i, STRATA_GATE_OPEN);
}

static void fail(struct pager *p, const strata_error *error)
{
    if (p->error.status != STRATA_OK)
        return;
    p->error = *error;
    open_all_gates(p);
}

static bool halted(const struct pager *p)
{
    return p->stopping || p->error.status != STRATA_OK;
}

/* Messages that others send. Streams' notifies carry one number: kind, index and step packed.
 */

static uint64_t pack(enum message_kind kind, uint32_t index, uint64_t step)
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

static void on_store(void *user, struct store_io *io)
{
    struct pager *p = user;
    struct slot *slot = (struct slot *)((uint8_t *)io - offsetof(struct slot, io));
    struct message message = {.kind = MESSAGE_DONE,
                              .index = (uint32_t)(slot - p->slots),
                              .status = io->status,
                              .start_ns = io->start_ns,
                              .end_ns = io->end_ns};
    strata_channel_send(p->events, &message);
}

static void on_commit(void *user, uint32_t slot, strata_status status)
{
    struct pager *p = user;
    struct message message = {
        .kind = MESSAGE_DONE, .index = slot, .status = status, .end_ns = strata_now_ns()};
    strata_channel_send(p->events, &message);
}

static void on_cpu(void *user, const struct cpu_result *result)
{
    struct pager *p = user;
    strata_status status = result->status;
    if (status == STRATA_OK)
        status =
            strata_update_hashes_verify(p->hashes, &p->slots[result->slot].op, p->desc.store);
    struct message message = {.kind = MESSAGE_DONE,
                              .index = result->slot,
                              .status = status,
                              .start_ns = result->start_ns,
                              .end_ns = result->end_ns,
                              .verdict = result->verdict,
                              .total = result->total};
    strata_channel_send(p->events, &message);
}

/* Starting ops. */

static struct step *step_of(struct pager *p, uint64_t step)
{
    return &p->steps[step % STEPS];
}

/* Updates that the state record an op moves has seen. */
static uint64_t record_updates(struct pager *p, const struct op *op)
{
    if (op->kind == OP_NVME_READ)
        return step_of(p, op->step)->applied;
    /* An update's own may be written before the verdict on its step. */
    if (op->work & UPDATE_APPLY)
        return step_of(p, op->step)->applied + 1;
    return step_of(p, op->step + 1)->applied;
}

static void start_transfer(struct pager *p, struct slot *slot)
{
    const struct op *op = &slot->op;
    bool write = op->kind == OP_NVME_WRITE;
    struct transfer transfer = strata_address_transfer(&p->desc.memory, op);
    slot->io = (struct store_io){
        .write = write,
        .place = transfer.place,
        .step = op->what == WHAT_STATE ? record_updates(p, op) : 0,
        .buffer = transfer.buffer,
        .done = on_store,
        .user = p,
    };
    strata_update_hashes_start(p->hashes, op, &slot->io);
    strata_store_start(p->desc.store, &slot->io);
}

static void start_commit(struct pager *p, struct slot *slot)
{
    struct commit_job job = {.slot = (uint32_t)(slot - p->slots)};
    job.line_count = strata_schedule_commit_lines(p->desc.schedule, job.lines);
    const struct step *next = step_of(p, job.lines[0].step - p->desc.base_step);
    job.updates = next->applied;
    job.loss_scale = next->loss_scale;
    strata_committer_start(p->committer, &job);
}

/* Queue the op's work on its copy stream. */
static void start_copy(struct pager *p, struct slot *slot)
{
    const struct strata_device_ops *device = p->desc.device->ops;
    const struct op *op = &slot->op;
    const struct offload_plan *plan = p->desc.memory.plan;
    strata_stream *stream = op->lane == STRATA_LANE_H2D ? p->h2d : p->d2h;
    if (op->kind == OP_ZERO) {
        uint32_t group = plan->residency.placements[op->placement].group;
        device->stream_zero(stream, strata_address_placement(&p->desc.memory, op->placement),
                            4 * plan->model.groups[group].padded);
    } else {
        struct ends ends = strata_address_ends(&p->desc.memory, op);
        if (op->kind == OP_H2D)
            device->stream_copy(stream, ends.device, ends.host, ends.bytes);
        else
            device->stream_copy(stream, ends.host, ends.device, ends.bytes);
    }
    device->stream_notify(stream, on_stream, p,
                          pack(MESSAGE_DONE, (uint32_t)(slot - p->slots), 0));
}

static void start_round(struct pager *p, struct slot *slot)
{
    const struct offload_plan *plan = p->desc.memory.plan;
    uint32_t placement = slot->op.placement;
    const float *src = (const float *)strata_address_placement(&p->desc.memory, placement);
    p->desc.functions->round(
        p->desc.functions_user, p->d2h, strata_address_rounded(&p->desc.memory, placement), src,
        plan->model.groups[plan->residency.placements[placement].group].padded);
    p->desc.device->ops->stream_notify(p->d2h, on_stream, p,
                                       pack(MESSAGE_DONE, (uint32_t)(slot - p->slots), 0));
}

static struct update_grad grad_of(struct pager *p, uint64_t step, const void *grad)
{
    const struct step *of = step_of(p, step);
    uint64_t number = p->desc.base_step + step + 1;
    return (struct update_grad){
        .grad = grad,
        .t = of->applied + 1,
        .lr = of->lr,
        .scale = of->known ? of->result.grad_scale
                           : p->desc.functions->guess(p->desc.functions_user, number),
    };
}

static struct update_job update_job(struct pager *p, const struct op *op)
{
    const struct memory *memory = &p->desc.memory;
    bool take = op->work & UPDATE_TAKE;
    struct update_job job = {
        .tile = op->tile,
        .work = op->work,
        .grad = grad_of(p, op->step,
                        take ? strata_address_grad_frame(memory, op)
                             : strata_address_update(memory, op, STRATA_GRAD)),
        .state = strata_address_update(memory, op, STRATA_STATE),
        .param = strata_address_update(memory, op, STRATA_PARAM),
    };
    job.digests = strata_update_hashes_of(p->hashes, op);
    if (op->work & (UPDATE_FOLD | UPDATE_TAKE))
        job.grad_home = strata_address_home(memory, STRATA_GRAD, op->tile);
    if (op->work & UPDATE_FOLD)
        job.fold = grad_of(p, op->fold_step, job.grad_home);
    return job;
}

static const void *norm_input(const struct pager *p, const struct op *op)
{
    if (op->frame != STRATA_NONE)
        return strata_address_grad_frame(&p->desc.memory, op);
    return strata_address_home(&p->desc.memory, STRATA_GRAD, op->tile);
}

static void start_on_device(struct pager *p, struct slot *slot)
{
    const struct op *op = &slot->op;
    const struct lane_functions *functions = p->desc.functions;
    if (op->kind == OP_UPDATE) {
        struct update_job job = update_job(p, op);
        functions->device_update(p->desc.functions_user, p->d2h, &job);
    } else {
        functions->device_norm(p->desc.functions_user, p->d2h, op->tile, norm_input(p, op));
    }
    p->desc.device->ops->stream_notify(p->d2h, on_stream, p,
                                       pack(MESSAGE_DONE, (uint32_t)(slot - p->slots), 0));
}

static void start_on_cpu(struct pager *p, struct slot *slot)
{
    const struct op *op = &slot->op;
    struct cpu_job job = {.slot = (uint32_t)(slot - p->slots),
                          .step = p->desc.base_step + op->step + 1};
    if (op->kind == OP_UPDATE) {
        job.kind = CPU_UPDATE;
        job.update = update_job(p, op);
    } else if (op->kind == OP_NORM) {
        job.kind = CPU_NORM;
        job.update.tile = op->tile;
        job.update.grad.grad = norm_input(p, op);
    } else {
        job.kind = CPU_TOTAL;
    }
    strata_cpu_lane_start(p->cpu, &job);
}

static void open_gate(struct pager *p, const struct op *op)
{
    uint32_t gate = op->placement != STRATA_NONE
                        ? op->placement
                        : p->desc.memory.plan->residency.count + op->stash_event;
    strata_gate_open(p->gates, gate, op->step + 1);
}

static void start(struct pager *p, const struct op *op)
{
    if (op->kind == OP_OPEN) {
        open_gate(p, op);
        return;
    }
    STRATA_CHECK(p->free_count > 0);
    struct slot *slot = &p->slots[p->free_slots[--p->free_count]];
    *slot = (struct slot){.op = *op,
                          .queued_ns = strata_now_ns(),
                          .bytes = strata_address_lane_bytes(p->desc.memory.plan, op)};
    if (op->kind == OP_NVME_READ || op->kind == OP_NVME_WRITE)
        start_transfer(p, slot);
    else if (op->kind == OP_COMMIT)
        start_commit(p, slot);
    else if (op->kind == OP_ROUND)
        start_round(p, slot);
    else if (op->on_device)
        start_on_device(p, slot);
    else if (op->lane == STRATA_LANE_CPU)
        start_on_cpu(p, slot);
    else
        start_copy(p, slot);
}

/* Taking messages. */

static void account(struct pager *p, strata_lane lane, const struct slot *slot,
                    const struct message *message)
{
    strata_lane_stats *stats = &p->lanes[lane];
    uint64_t start_ns = message->start_ns != 0 ? message->start_ns : slot->queued_ns;
    if (start_ns < p->lane_end_ns[lane])
        start_ns = p->lane_end_ns[lane];
    if (message->end_ns > start_ns) {
        stats->busy_ns += message->end_ns - start_ns;
        p->lane_end_ns[lane] = message->end_ns;
    }
    stats->bytes += slot->bytes;
    stats->ops++;
    if (p->desc.trace == NULL || message->end_ns < start_ns)
        return;
    bool placed = slot->op.kind == OP_NVME_READ || slot->op.kind == OP_NVME_WRITE;
    uint32_t drive = placed ? strata_store_drive_of(p->desc.store, slot->io.place) : 0;
    strata_trace_op(p->desc.trace, p->desc.memory.plan, &slot->op, drive, start_ns,
                    message->end_ns);
}

/* Keep the norm of a step, and say what it means for what was guessed. */
static enum verdict take_total(struct pager *p, uint64_t step, const strata_step_result *total)
{
    struct step *of = step_of(p, step);
    of->result = *total;
    of->known = true;
    step_of(p, step + 1)->applied = of->applied + !total->skipped;
    step_of(p, step + 1)->loss_scale = total->next_loss_scale;
    if (total->skipped)
        return VERDICT_SKIP;
    bool guessed =
        total->grad_scale == p->desc.functions->guess(p->desc.functions_user, total->step);
    return guessed ? VERDICT_WITHIN : VERDICT_OVER;
}

static void op_done(struct pager *p, const struct message *message)
{
    struct slot *slot = &p->slots[message->index];
    struct op op = slot->op;
    account(p, op.lane, slot, message);
    p->free_slots[p->free_count++] = message->index;
    if (message->status != STRATA_OK) {
        /* An update fails when the store finds that what it read is damaged. */
        bool io = op.lane == STRATA_LANE_NVME_READ || op.lane == STRATA_LANE_NVME_WRITE ||
                  op.kind == OP_UPDATE;
        fail(p, io ? strata_store_error(p->desc.store) : strata_cpu_lane_error(p->cpu));
    }
    if (halted(p))
        return;
    if (op.kind == OP_NVME_READ)
        strata_update_hashes_done(p->hashes, &op, &slot->io);
    op.verdict =
        op.kind == OP_TOTAL ? take_total(p, op.step, &message->total) : message->verdict;
    strata_schedule_done(p->desc.schedule, &op);
    /* A commit that was asked for while an earlier one was being made. */
    if (op.kind == OP_COMMIT && p->caller_waits && p->waiting.kind == MESSAGE_COMMIT)
        strata_schedule_save(p->desc.schedule);
}

/* The stream got past the gates of an acquire: what it waited for is what was missing when the
 * use before ended. */
static void computing_begins(struct pager *p, uint64_t now_ns)
{
    uint64_t since = p->lane_end_ns[STRATA_LANE_COMPUTE];
    if (since != 0 && now_ns > since)
        p->stall_ns[p->stall] += now_ns - since;
    p->computing_since_ns = now_ns;
}

static void computing_ended(struct pager *p, const struct message *message)
{
    strata_lane_stats *stats = &p->lanes[STRATA_LANE_COMPUTE];
    uint64_t since = p->computing_since_ns;
    uint64_t end_ns = message->end_ns;
    if (since < p->lane_end_ns[STRATA_LANE_COMPUTE])
        since = p->lane_end_ns[STRATA_LANE_COMPUTE];
    if (end_ns > since)
        stats->busy_ns += end_ns - since;
    if (end_ns > since && p->desc.trace != NULL)
        strata_trace_compute(p->desc.trace, p->desc.memory.plan, message->index, message->step,
                             since, end_ns);
    p->lane_end_ns[STRATA_LANE_COMPUTE] = end_ns;
    stats->ops++;
}

/* After a release: what is the next acquire short of, if anything? */
static void note_missing(struct pager *p, uint64_t step, uint32_t use)
{
    const struct model *model = &p->desc.memory.plan->model;
    do {
        step += use + 1 == model->use_count;
        use = (use + 1) % model->use_count;
    } while (model->uses[use].kind != STRATA_USE_ACQUIRE);
    p->stall = strata_schedule_missing(p->desc.schedule, step, use);
}

static void take(struct pager *p, const struct message *message)
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
        step_of(p, message->step)->lr = message->lr;
        step_of(p, message->step)->known = false;
        break;
    case MESSAGE_ASK:
        if (!halted(p))
            strata_schedule_ask(p->desc.schedule, message->step, message->index);
        break;
    case MESSAGE_COMPUTING:
        computing_begins(p, message->end_ns);
        break;
    case MESSAGE_RELEASED:
        computing_ended(p, message);
        if (halted(p))
            break;
        strata_schedule_released(p->desc.schedule, message->step, message->index);
        note_missing(p, message->step, message->index);
        break;
    case MESSAGE_COPIED:
        if (!halted(p))
            strata_schedule_copied(p->desc.schedule, message->step, message->index);
        break;
    case MESSAGE_DONE:
        op_done(p, message);
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
                message->kind == MESSAGE_STATS;
    if (asks) {
        p->waiting = *message;
        p->caller_waits = true;
    }
}

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
    default:
        return true;
    }
}

static uint64_t applied(struct pager *p)
{
    return step_of(p, strata_schedule_updated(p->desc.schedule))->applied;
}

static void take_stats(struct pager *p, struct pager_stats *out)
{
    memcpy(out->lanes, p->lanes, sizeof p->lanes);
    memcpy(out->stall_ns, p->stall_ns, sizeof p->stall_ns);
    out->applied = applied(p);
    out->counts = strata_schedule_counts(p->desc.schedule);
}

/* Whoever waits for all updates wants the states themselves, none a gradient behind. */
static void settle(struct pager *p)
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
        answer.total = step_of(p, p->waiting.step - 1)->result;
    if (p->waiting.kind == MESSAGE_STATS)
        take_stats(p, p->waiting.stats);
    answer.applied = applied(p);
    p->caller_waits = false;
    strata_channel_send(p->answers, &answer);
}

/* The device keeps its failures; its notifies come all the same. */
static void look_at_device(struct pager *p)
{
    const strata_error *failure = p->desc.device->ops->error(p->desc.device);
    if (failure != NULL)
        fail(p, failure);
}

static void *page(void *user)
{
    struct pager *p = user;
    for (;;) {
        struct op op;
        settle(p);
        while (!halted(p) && strata_schedule_next(p->desc.schedule, &op))
            start(p, &op);
        answer_caller(p);
        if (p->exiting && p->free_count == SLOTS)
            return NULL;
        struct message message;
        if (!strata_channel_receive(p->events, &message, UINT64_MAX))
            continue;
        look_at_device(p);
        take(p, &message);
    }
}

/* The caller's side. */

static strata_status ask(struct pager *p, struct message question, struct answer *out)
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

strata_status strata_pager_ask(struct pager *p, uint64_t step, uint32_t use,
                               uint64_t *out_blocked_ns)
{
    struct answer answer;
    uint64_t start_ns = strata_now_ns();
    strata_status status =
        ask(p, (struct message){.kind = MESSAGE_ASK, .step = step, .index = use}, &answer);
    *out_blocked_ns = strata_now_ns() - start_ns;
    return status;
}

static void remember(struct pager *p, strata_stream *stream)
{
    for (uint32_t i = 0; i < p->stream_count; i++)
        if (p->streams[i] == stream)
            return;
    STRATA_CHECK(p->stream_count < STRATA_MAX_STREAMS);
    p->streams[p->stream_count++] = stream;
}

void strata_pager_queue_acquire(struct pager *p, strata_stream *stream, uint64_t step,
                                uint32_t use)
{
    const struct strata_device_ops *device = p->desc.device->ops;
    const struct residency *residency = &p->desc.memory.plan->residency;
    device->stream_wait_gate(stream, p->gates, residency->use_param[use], step + 1);
    if (residency->use_grad[use] != STRATA_NONE)
        device->stream_wait_gate(stream, p->gates, residency->use_grad[use], step + 1);
    remember(p, stream);
    device->stream_notify(stream, on_stream, p, pack(MESSAGE_COMPUTING, use, step));
}

void strata_pager_queue_release(struct pager *p, strata_stream *stream, uint64_t step,
                                uint32_t use)
{
    remember(p, stream);
    p->desc.device->ops->stream_notify(stream, on_stream, p, pack(MESSAGE_RELEASED, use, step));
}

void strata_pager_queue_stash(struct pager *p, strata_stream *stream, uint64_t step,
                              uint32_t use, void *bytes)
{
    const struct strata_device_ops *device = p->desc.device->ops;
    const struct offload_plan *plan = p->desc.memory.plan;
    uint32_t event = plan->model.uses[use].stash_event;
    bool out = plan->model.uses[use].kind == STRATA_USE_STASH;
    bool at_home = plan->stash == STRATA_DEVICE;
    remember(p, stream);
    uint8_t *there = at_home ? strata_address_stash_home(&p->desc.memory, event)
                             : strata_address_stash_frame(&p->desc.memory, step, event);
    if (!out && !at_home)
        device->stream_wait_gate(stream, p->gates, plan->residency.count + event, step + 1);
    device->stream_copy(stream, out ? (void *)there : bytes, out ? bytes : (void *)there,
                        plan->model.stash_copy_bytes);
    if (at_home)
        return;
    device->stream_notify(stream, on_stream, p, pack(MESSAGE_COPIED, event, step));
}

strata_view strata_pager_view(const struct pager *p, uint32_t use)
{
    const struct residency *residency = &p->desc.memory.plan->residency;
    strata_view view = {
        .param = strata_address_placement(&p->desc.memory, residency->use_param[use])};
    if (residency->use_grad[use] != STRATA_NONE)
        view.grad =
            (float *)strata_address_placement(&p->desc.memory, residency->use_grad[use]);
    return view;
}

strata_status strata_pager_wait_norm(struct pager *p, uint64_t steps, strata_step_result *out)
{
    struct answer answer;
    strata_status status =
        ask(p, (struct message){.kind = MESSAGE_WAIT_NORM, .step = steps}, &answer);
    *out = answer.total;
    return status;
}

strata_status strata_pager_wait_updates(struct pager *p, uint64_t steps, uint64_t *out_applied)
{
    struct answer answer;
    strata_status status =
        ask(p, (struct message){.kind = MESSAGE_WAIT_UPDATES, .step = steps}, &answer);
    *out_applied = answer.applied;
    return status;
}

strata_status strata_pager_commit(struct pager *p, uint64_t step)
{
    struct answer answer;
    return ask(p, (struct message){.kind = MESSAGE_COMMIT, .step = step}, &answer);
}

void strata_pager_stats(struct pager *p, struct pager_stats *out)
{
    struct answer answer;
    /* An answer that carries the engine's failure carries the figures all the same. */
    strata_status status =
        ask(p, (struct message){.kind = MESSAGE_STATS, .stats = out}, &answer);
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
           strata_channel_bytes(1, sizeof(struct answer)) + strata_cpu_lane_bytes() +
           strata_update_hashes_bytes(plan) +
           strata_schedule_gate_count(plan) * sizeof(uint64_t);
}

static strata_status create_lanes(struct pager *p, strata_error *error)
{
    const struct strata_device_ops *device = p->desc.device->ops;
    STRATA_TRY(strata_channel_create(&p->events, EVENTS, sizeof(struct message), error));
    STRATA_TRY(strata_channel_create(&p->answers, 1, sizeof(struct answer), error));
    STRATA_TRY(
        strata_gates_create(&p->gates, strata_schedule_gate_count(p->desc.memory.plan), error));
    STRATA_TRY(device->stream_create(p->desc.device, "strata-h2d", &p->h2d, error));
    STRATA_TRY(device->stream_create(p->desc.device, "strata-d2h", &p->d2h, error));
    struct cpu_lane_desc cpu = {.functions = p->desc.functions,
                                .functions_user = p->desc.functions_user,
                                .done = on_cpu,
                                .done_user = p};
    STRATA_TRY(strata_update_hashes_create(&p->hashes, p->desc.memory.plan, error));
    STRATA_TRY(strata_cpu_lane_create(&p->cpu, &cpu, error));
    if (!p->desc.memory.plan->durable)
        return STRATA_OK;
    return strata_committer_create(&p->committer, p->desc.store, on_commit, p, error);
}

strata_status strata_pager_create(struct pager **out, const struct pager_desc *desc,
                                  strata_error *error)
{
    *out = NULL;
    struct pager *p = calloc(1, sizeof *p);
    if (p == NULL)
        return strata_fail(error, STRATA_E_NOMEM, 0, "no memory for the pager");
    p->desc = *desc;
    p->steps[0].applied = desc->base_updates;
    p->steps[0].loss_scale = desc->base_loss_scale;
    for (uint32_t i = 0; i < SLOTS; i++)
        p->free_slots[p->free_count++] = i;
    strata_status status = create_lanes(p, error);
    if (status != STRATA_OK) {
        strata_pager_destroy(p);
        return status;
    }
    strata_schedule_start(p->desc.schedule);
    int failed = strata_thread_start(&p->thread, 0, page, p);
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
    const struct strata_device_ops *device = p->desc.device->ops;
    if (p->thread_started) {
        strata_channel_send(p->events, &(struct message){.kind = MESSAGE_STOP});
        /* No gate holds the caller's streams any more. Once they are idle, no work of theirs
         * touches the device's memory and no notify speaks of this pager. */
        for (uint32_t i = 0; i < p->stream_count; i++)
            strata_stream_sync(p->streams[i]);
        strata_channel_send(p->events, &(struct message){.kind = MESSAGE_EXIT});
        pthread_join(p->thread, NULL);
    }
    strata_committer_destroy(p->committer);
    strata_cpu_lane_destroy(p->cpu);
    strata_update_hashes_destroy(p->hashes);
    if (p->d2h != NULL)
        device->stream_destroy(p->d2h);
    if (p->h2d != NULL)
        device->stream_destroy(p->h2d);
    strata_gates_destroy(p->gates);
    strata_channel_destroy(p->answers);
    strata_channel_destroy(p->events);
    free(p);
}
