#define _GNU_SOURCE
/*
 * Ops on real lanes. See lanes.h.
 *
 * An op has a slot of a table from its start until strata_lanes_finish(). The slot is the
 * pager's, except the store_io in it, which is lent to the store until its done call. So the
 * threads of the lanes pass nothing on but a slot's number.
 *
 * Statistics: an op counts from the moment it was queued, or from the end of the op before it
 * on the lane if that is later, to its end.
 *
 * Thread: the pager; on_...() callbacks: the lane's own.
 */

#include "offload/pager/lanes.h"

#include "base/clock.h"
#include "base/error.h"
#include "offload/pager/update_hashes.h"

#include <stddef.h>
#include <stdlib.h>

/* More than all lanes' depths together. */
#define SLOTS 32u

struct slot {
    struct op op;
    struct store_io io;
    uint64_t queued_ns;
    uint64_t bytes;
};

struct lanes {
    struct lanes_desc desc;
    struct cpu_lane *cpu;
    struct update_hashes *hashes;
    struct committer *committer; /* NULL: nothing is durable */
    strata_stream *h2d;
    strata_stream *d2h;
    struct slot slots[SLOTS];
    uint32_t free_slots[SLOTS];
    uint32_t free_count;
    strata_lane_stats stats[STRATA_LANE_COUNT];
    uint64_t end_ns[STRATA_LANE_COUNT];
    uint64_t computing_since_ns;
};

static const struct step_facts *facts_of(const struct lanes *l, uint64_t step)
{
    return strata_schedule_facts(l->desc.schedule, step);
}

/* Ends of ops, on the lanes' threads. */

static void report_end(const struct lanes *l, const struct lane_done *done)
{
    l->desc.done(l->desc.done_user, done);
}

static void on_stream(void *user, uint64_t slot, uint64_t now_ns)
{
    report_end(user, &(struct lane_done){.slot = (uint32_t)slot, .end_ns = now_ns});
}

static void on_store(void *user, struct store_io *io)
{
    struct lanes *l = user;
    struct slot *slot = (struct slot *)((uint8_t *)io - offsetof(struct slot, io));
    report_end(l, &(struct lane_done){.slot = (uint32_t)(slot - l->slots),
                                      .status = io->status,
                                      .start_ns = io->start_ns,
                                      .end_ns = io->end_ns});
}

static void on_commit(void *user, uint32_t slot, strata_status status)
{
    report_end(user,
               &(struct lane_done){.slot = slot, .status = status, .end_ns = strata_now_ns()});
}

static void on_cpu(void *user, const struct cpu_result *result)
{
    struct lanes *l = user;
    strata_status status = result->status;
    if (status == STRATA_OK)
        status =
            strata_update_hashes_verify(l->hashes, &l->slots[result->slot].op, l->desc.store);
    report_end(l, &(struct lane_done){.slot = result->slot,
                                      .status = status,
                                      .start_ns = result->start_ns,
                                      .end_ns = result->end_ns,
                                      .verdict = result->verdict,
                                      .total = result->total});
}

/* Starting ops. */

/* How many updates are in the state record that an op moves. */
static uint64_t record_updates(const struct lanes *l, const struct op *op)
{
    if (op->kind == OP_NVME_READ)
        return facts_of(l, op->step)->applied;
    /* An update's own record may be written before its step's norm is judged. */
    if (op->work & UPDATE_APPLY)
        return facts_of(l, op->step)->applied + 1;
    return facts_of(l, op->step + 1)->applied;
}

static void start_transfer(struct lanes *l, struct slot *slot)
{
    const struct op *op = &slot->op;
    bool write = op->kind == OP_NVME_WRITE;
    struct transfer transfer = strata_address_transfer(&l->desc.memory, op);
    slot->io = (struct store_io){
        .write = write,
        .place = transfer.place,
        .updates = op->what == WHAT_STATE ? record_updates(l, op) : 0,
        .buffer = transfer.buffer,
        .done = on_store,
        .user = l,
    };
    strata_update_hashes_start(l->hashes, op, &slot->io);
    strata_store_start(l->desc.store, &slot->io);
}

/* Queue the report that the stream has done the slot's op. */
static void notify_end(struct lanes *l, strata_stream *stream, const struct slot *slot)
{
    l->desc.device->ops->stream_notify(stream, on_stream, l, (uint64_t)(slot - l->slots));
}

/* Queue the op's work on its copy stream. */
static void start_copy(struct lanes *l, struct slot *slot)
{
    const struct strata_device_ops *device = l->desc.device->ops;
    const struct op *op = &slot->op;
    const struct offload_plan *plan = l->desc.memory.plan;
    strata_stream *stream = op->lane == STRATA_LANE_H2D ? l->h2d : l->d2h;
    if (op->kind == OP_ZERO) {
        device->stream_zero(stream, strata_address_placement(&l->desc.memory, op->placement),
                            strata_address_work_bytes(plan, op));
    } else {
        struct ends ends = strata_address_ends(&l->desc.memory, op);
        if (op->kind == OP_H2D)
            device->stream_copy(stream, ends.device, ends.host, ends.bytes);
        else
            device->stream_copy(stream, ends.host, ends.device, ends.bytes);
    }
    notify_end(l, stream, slot);
}

static void start_round(struct lanes *l, struct slot *slot)
{
    const struct offload_plan *plan = l->desc.memory.plan;
    uint32_t placement = slot->op.placement;
    const float *src = (const float *)strata_address_placement(&l->desc.memory, placement);
    l->desc.functions->round(l->desc.functions_user, l->d2h,
                             plan->residency.placements[placement].group,
                             strata_address_rounded(&l->desc.memory, placement), src);
    notify_end(l, l->d2h, slot);
}

/* A step's gradient with what applying it takes. Before the norm is known the scale is a guess.
 */
static struct update_grad update_grad_of(struct lanes *l, uint64_t step, const void *grad)
{
    const struct step_facts *of = facts_of(l, step);
    bool known = step < strata_schedule_normed(l->desc.schedule);
    return (struct update_grad){
        .grad = grad,
        .t = of->applied + 1,
        .lr = of->lr,
        .scale = known ? of->result.grad_scale : l->desc.functions->guess(of->loss_scale),
    };
}

static struct update_job update_job(struct lanes *l, const struct op *op)
{
    const struct memory *memory = &l->desc.memory;
    bool take = op->work & UPDATE_TAKE;
    struct update_job job = {
        .tile = op->tile,
        .work = op->work,
        .grad = update_grad_of(l, op->step,
                               take ? strata_address_grad_frame(memory, op)
                                    : strata_address_update(memory, op, STRATA_GRAD)),
        .state = strata_address_update(memory, op, STRATA_STATE),
        .param = strata_address_update(memory, op, STRATA_PARAM),
    };
    job.digests = strata_update_hashes_of(l->hashes, op);
    if (op->work & (UPDATE_FOLD | UPDATE_TAKE))
        job.grad_home = strata_address_home(memory, STRATA_GRAD, op->tile);
    if (op->work & UPDATE_FOLD)
        job.fold = update_grad_of(l, op->fold_step, job.grad_home);
    return job;
}

static const void *norm_input(const struct lanes *l, const struct op *op)
{
    if (op->frame != STRATA_NONE)
        return strata_address_grad_frame(&l->desc.memory, op);
    return strata_address_home(&l->desc.memory, STRATA_GRAD, op->tile);
}

static void start_on_device(struct lanes *l, struct slot *slot)
{
    const struct op *op = &slot->op;
    const struct lane_functions *functions = l->desc.functions;
    if (op->kind == OP_UPDATE) {
        struct update_job job = update_job(l, op);
        functions->device_update(l->desc.functions_user, l->d2h, &job);
    } else {
        functions->device_norm(l->desc.functions_user, l->d2h, op->tile, norm_input(l, op));
    }
    notify_end(l, l->d2h, slot);
}

static void start_on_cpu(struct lanes *l, struct slot *slot)
{
    const struct op *op = &slot->op;
    struct cpu_job job = {.slot = (uint32_t)(slot - l->slots),
                          .loss_scale = facts_of(l, op->step)->loss_scale,
                          .step = l->desc.base_step + op->step + 1,
                          .updates = facts_of(l, op->step)->applied};
    if (op->kind == OP_UPDATE) {
        job.kind = CPU_UPDATE;
        job.update = update_job(l, op);
    } else if (op->kind == OP_NORM) {
        job.kind = CPU_NORM;
        job.update.tile = op->tile;
        job.update.grad.grad = norm_input(l, op);
    } else {
        job.kind = CPU_TOTAL;
    }
    strata_cpu_lane_start(l->cpu, &job);
}

static struct slot *take_slot(struct lanes *l, const struct op *op)
{
    STRATA_CHECK(l->free_count > 0);
    struct slot *slot = &l->slots[l->free_slots[--l->free_count]];
    *slot = (struct slot){.op = *op,
                          .queued_ns = strata_now_ns(),
                          .bytes = strata_address_lane_bytes(l->desc.memory.plan, op)};
    return slot;
}

void strata_lanes_start(struct lanes *l, const struct op *op)
{
    struct slot *slot = take_slot(l, op);
    switch (op->kind) {
    case OP_NVME_READ:
    case OP_NVME_WRITE:
        start_transfer(l, slot);
        break;
    case OP_H2D:
    case OP_D2H:
    case OP_ZERO:
        start_copy(l, slot);
        break;
    case OP_ROUND:
        start_round(l, slot);
        break;
    case OP_NORM:
    case OP_UPDATE:
        if (op->on_device)
            start_on_device(l, slot);
        else
            start_on_cpu(l, slot);
        break;
    case OP_TOTAL:
        start_on_cpu(l, slot);
        break;
    case OP_GATHER:
    case OP_REDUCE:
    case OP_SHARE: /* an engine has one rank */
    case OP_COMMIT:
    case OP_OPEN:
        STRATA_CHECK(false);
    }
}

void strata_lanes_commit(struct lanes *l, const struct op *op, struct commit_job *job)
{
    const struct slot *slot = take_slot(l, op);
    job->slot = (uint32_t)(slot - l->slots);
    strata_committer_start(l->committer, job);
}

/* Ending ops. */

static void count_op(struct lanes *l, strata_lane lane, const struct slot *slot,
                     const struct lane_done *done)
{
    strata_lane_stats *stats = &l->stats[lane];
    uint64_t start_ns = done->start_ns != 0 ? done->start_ns : slot->queued_ns;
    if (start_ns < l->end_ns[lane])
        start_ns = l->end_ns[lane];
    if (done->end_ns > start_ns) {
        stats->busy_ns += done->end_ns - start_ns;
        l->end_ns[lane] = done->end_ns;
    }
    stats->bytes += slot->bytes;
    stats->ops++;
    if (l->desc.trace == NULL || done->end_ns < start_ns)
        return;
    bool placed = slot->op.kind == OP_NVME_READ || slot->op.kind == OP_NVME_WRITE;
    uint32_t drive = placed ? strata_store_drive_of(l->desc.store, slot->io.place) : 0;
    strata_trace_op(l->desc.trace, l->desc.memory.plan, &slot->op, drive, start_ns,
                    done->end_ns);
}

const strata_error *strata_lanes_finish(struct lanes *l, const struct lane_done *done,
                                        struct op *out)
{
    struct slot *slot = &l->slots[done->slot];
    *out = slot->op;
    out->verdict = done->verdict;
    count_op(l, out->lane, slot, done);
    l->free_slots[l->free_count++] = done->slot;
    if (done->status != STRATA_OK) {
        /* An update fails only if what it read from the store turns out damaged. */
        bool io = out->lane == STRATA_LANE_NVME_READ || out->lane == STRATA_LANE_NVME_WRITE ||
                  out->kind == OP_UPDATE;
        return io ? strata_store_error(l->desc.store) : strata_cpu_lane_error(l->cpu);
    }
    if (out->kind == OP_NVME_READ)
        strata_update_hashes_done(l->hashes, out, &slot->io);
    return NULL;
}

uint64_t strata_lanes_computing(struct lanes *l, uint64_t now_ns)
{
    uint64_t since = l->end_ns[STRATA_LANE_COMPUTE];
    l->computing_since_ns = now_ns;
    return since != 0 && now_ns > since ? now_ns - since : 0;
}

void strata_lanes_computed(struct lanes *l, uint64_t step, uint32_t use, uint64_t now_ns)
{
    strata_lane_stats *stats = &l->stats[STRATA_LANE_COMPUTE];
    uint64_t since = l->computing_since_ns;
    if (since < l->end_ns[STRATA_LANE_COMPUTE])
        since = l->end_ns[STRATA_LANE_COMPUTE];
    if (now_ns > since)
        stats->busy_ns += now_ns - since;
    if (now_ns > since && l->desc.trace != NULL)
        strata_trace_compute(l->desc.trace, l->desc.memory.plan, use, step, since, now_ns);
    l->end_ns[STRATA_LANE_COMPUTE] = now_ns;
    stats->ops++;
}

bool strata_lanes_idle(const struct lanes *l)
{
    return l->free_count == SLOTS;
}

const strata_lane_stats *strata_lanes_stats(const struct lanes *l)
{
    return l->stats;
}

/* Life. */

uint64_t strata_lanes_table_bytes(const struct offload_plan *plan)
{
    return sizeof(struct lanes) + strata_cpu_lane_bytes() + strata_update_hashes_bytes(plan);
}

static strata_status open_lanes(struct lanes *l, strata_error *error)
{
    const struct strata_device_ops *device = l->desc.device->ops;
    STRATA_TRY(device->stream_create(l->desc.device, "strata-h2d", &l->h2d, error));
    STRATA_TRY(device->stream_create(l->desc.device, "strata-d2h", &l->d2h, error));
    struct cpu_lane_desc cpu = {.functions = l->desc.functions,
                                .functions_user = l->desc.functions_user,
                                .done = on_cpu,
                                .done_user = l};
    STRATA_TRY(strata_update_hashes_create(&l->hashes, l->desc.memory.plan, error));
    STRATA_TRY(strata_cpu_lane_create(&l->cpu, &cpu, error));
    if (!l->desc.memory.plan->durable)
        return STRATA_OK;
    return strata_committer_create(&l->committer, l->desc.store, on_commit, l, error);
}

strata_status strata_lanes_create(struct lanes **out, const struct lanes_desc *desc,
                                  strata_error *error)
{
    *out = NULL;
    struct lanes *l = calloc(1, sizeof *l);
    if (l == NULL)
        return strata_fail(error, STRATA_E_NOMEM, 0, "no memory for the lanes");
    l->desc = *desc;
    struct step_facts *first = strata_schedule_facts(desc->schedule, 0);
    first->applied = desc->base_updates;
    first->loss_scale = desc->base_loss_scale;
    for (uint32_t i = 0; i < SLOTS; i++)
        l->free_slots[l->free_count++] = i;
    strata_status status = open_lanes(l, error);
    if (status != STRATA_OK) {
        strata_lanes_destroy(l);
        return status;
    }
    *out = l;
    return STRATA_OK;
}

void strata_lanes_destroy(struct lanes *l)
{
    if (l == NULL)
        return;
    const struct strata_device_ops *device = l->desc.device->ops;
    strata_committer_destroy(l->committer);
    strata_cpu_lane_destroy(l->cpu);
    strata_update_hashes_destroy(l->hashes);
    if (l->d2h != NULL)
        device->stream_destroy(l->d2h);
    if (l->h2d != NULL)
        device->stream_destroy(l->h2d);
    free(l);
}
