#define _GNU_SOURCE
/*
 * A driver of the lanes without a schedule. See step_unordered.h.
 *
 * It handles an op as the pager does (offload/pager/lanes.c), without the parts that only an
 * order needs: gates, steps and verdicts. When an op ends it sends a message, and the next op
 * of its lane is started.
 *
 * One dependency must stay: a place of the store has one transfer at a time. If the next place
 * to be read is still being written, its lane waits for the end of the write.
 *
 * Thread: one owner; messages come from the I/O thread, the cpu lane and the streams.
 */

#include "bench/rig/step_unordered.h"

#include "base/channel.h"
#include "base/clock.h"
#include "bench/report.h"
#include "offload/simulate/simulate.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS 32u /* more than all depths together */

/* Uses that are queued on the caller's stream at once, so that it is never idle. */
#define COMPUTE_DEPTH 4u

/* Steps of the simulation that lists the ops: the first ones are unlike the others, and the
 * last one's updates run in the step after it. */
enum { WARM_STEPS = 2, STEPS = 3, LISTED_STEP = WARM_STEPS + 1 };

struct list {
    struct op *ops; /* owned */
    uint32_t count;
    uint32_t capacity;
    uint64_t next; /* index over all steps */
    uint32_t in_flight;
    uint64_t end_ns; /* end of the op that ended last */
    uint64_t busy_ns;
    uint64_t bytes;
};

struct slot {
    struct step_unordered *run;
    struct op op;
    strata_lane lane;
    struct store_io io;
    struct hash128 *digests; /* set where the store would hash the bytes that it read */
    uint64_t bytes;
    uint64_t queued_ns;
};

struct message {
    uint32_t slot;
    strata_status status;
    uint64_t start_ns; /* 0: the time when it was queued */
    uint64_t end_ns;
};

struct step_unordered {
    const struct step_caller *caller;
    strata_engine *engine;
    struct lane_functions functions;
    struct channel *events;
    struct cpu_lane *cpu;
    struct update_hashes *hashes;
    strata_stream *h2d;
    strata_stream *d2h;
    struct list lists[STRATA_LANE_COUNT];
    struct slot slots[SLOTS];
    uint32_t free_slots[SLOTS];
    uint32_t free_count;
    struct hash128 *digests; /* of all slots */
    uint64_t digest_count;   /* of one */
    bool *busy;              /* by place: a transfer is under way */
    uint32_t products;
    bool no_memory; /* a list could not grow */
    bool failed;
};

static void note_op(void *user, const struct op *op)
{
    struct step_unordered *run = user;
    struct list *list = &run->lists[op->lane];
    if (op->step != LISTED_STEP || op->kind == OP_COMMIT || run->no_memory)
        return;
    if (list->count == list->capacity) {
        uint32_t capacity = list->capacity > 0 ? 2 * list->capacity : 64;
        struct op *more = realloc(list->ops, capacity * sizeof *more);
        run->no_memory = more == NULL;
        if (run->no_memory)
            return;
        list->ops = more;
        list->capacity = capacity;
    }
    list->ops[list->count++] = *op;
}

/* The caller's uses, as ops of its lane: the computing between acquire and release. */
static void note_uses(struct step_unordered *run)
{
    const struct offload_plan *plan = &run->engine->plan;
    for (uint32_t u = 0; u < plan->model.use_count; u++) {
        if (plan->model.uses[u].kind != STRATA_USE_ACQUIRE)
            continue;
        struct op op = {.step = LISTED_STEP,
                        .lane = STRATA_LANE_COMPUTE,
                        .tile = u, /* in this lane: the index of the use */
                        .placement = plan->residency.use_grad[u]};
        note_op(run, &op);
    }
}

/* The schedule makes the order; the rates of this machine only decide between ops that are
 * nearly equal. */
static const strata_profile any_machine = {.name = "any",
                                           .host_device = true,
                                           .cores = 2,
                                           .drives = 1,
                                           .flops_per_s = 1e11,
                                           .dram_bytes_per_s = 2e10,
                                           .update_bytes_per_s = 2e10,
                                           .norm_bytes_per_s = 1e10,
                                           .h2d_bytes_per_s = 5e9,
                                           .d2h_bytes_per_s = 5e9,
                                           .duplex = 2,
                                           .device_bytes_per_s = 1e10,
                                           .drive_read_bytes_per_s = 2e9,
                                           .drive_write_bytes_per_s = 2e9,
                                           .mix = 1,
                                           .update_share = 0.5};

static strata_status list_ops(struct step_unordered *run, strata_error *error)
{
    strata_engine *engine = run->engine;
    struct tables *tables = &engine->plan.tables;
    struct schedule_desc with = {
        .plan = &engine->plan, .mode = engine->mode, .slots = {.durable = true}};
    struct simulate_desc desc = {.plan = &engine->plan,
                                 .profile = &any_machine,
                                 .commit_every = 1,
                                 .warm_steps = WARM_STEPS,
                                 .steps = STEPS,
                                 .note = note_op,
                                 .note_user = run};
    struct simulation *simulation;
    strata_forecast forecast;
    STRATA_TRY(strata_schedule_create(&desc.schedule, tables, &with, error));
    STRATA_TRY(strata_simulation_create(&simulation, tables, &desc, error));
    STRATA_TRY(strata_simulation_run(simulation, &forecast, error));
    note_uses(run);
    if (!run->no_memory)
        return STRATA_OK;
    return strata_fail(error, STRATA_E_NOMEM, ENOMEM, "memory for the list of ops: none left");
}

static void end_op(struct slot *slot, strata_status status, uint64_t start_ns, uint64_t end_ns)
{
    struct message message = {.slot = (uint32_t)(slot - slot->run->slots),
                              .status = status,
                              .start_ns = start_ns,
                              .end_ns = end_ns};
    strata_channel_send(slot->run->events, &message);
}

static void unordered_on_store(void *user, struct store_io *io)
{
    struct slot *slot = user;
    if (slot->digests != NULL)
        strata_hash_pieces(io->buffer, slot->bytes, slot->digests);
    end_op(slot, io->status, io->start_ns, io->end_ns);
}

static void unordered_on_cpu(void *user, const struct cpu_result *result)
{
    struct step_unordered *run = user;
    end_op(&run->slots[result->slot], result->status, result->start_ns, result->end_ns);
}

static void unordered_on_stream(void *user, uint64_t value, uint64_t now_ns)
{
    struct step_unordered *run = user;
    end_op(&run->slots[value], STRATA_OK, 0, now_ns);
}

/* Computes the sum of the norms; a sum that is not finite does not matter here. */
static strata_status total_norms(void *user, strata_step_result *result, strata_error *error)
{
    strata_error ignored = {.status = STRATA_OK};
    (void)error;
    (void)strata_lane_total(user, result, &ignored);
    return STRATA_OK;
}

/* False: the place is busy. A read is hashed by its update, or where the store would hash
 * it. */
static bool start_unordered_transfer(struct step_unordered *run, struct slot *slot)
{
    struct transfer transfer = strata_address_transfer(&run->engine->memory, &slot->op);
    if (run->busy[transfer.place])
        return false;
    run->busy[transfer.place] = true;
    slot->io = (struct store_io){.write = slot->op.kind == OP_NVME_WRITE,
                                 .place = transfer.place,
                                 .buffer = transfer.buffer,
                                 .done = unordered_on_store,
                                 .user = slot};
    strata_update_hashes_start(run->hashes, &slot->op, &slot->io);
    slot->digests = NULL;
    if (!slot->io.write && !slot->io.own_hash) {
        slot->io.own_hash = true;
        slot->digests = run->digests + (slot - run->slots) * run->digest_count;
    }
    strata_store_start(run->engine->store, &slot->io);
    return true;
}

static struct update_job unordered_update_job(const struct step_unordered *run,
                                              const struct op *op)
{
    const struct memory *memory = &run->engine->memory;
    return (struct update_job){
        .tile = op->tile,
        .work = op->work,
        .grad = {.grad = strata_address_update(memory, op, STRATA_GRAD), .t = 1, .scale = 1},
        .state = strata_address_update(memory, op, STRATA_STATE),
        .param = strata_address_update(memory, op, STRATA_PARAM),
        .digests = strata_update_hashes_of(run->hashes, op)};
}

static void start_cpu(struct step_unordered *run, struct slot *slot)
{
    const struct op *op = &slot->op;
    struct cpu_job job = {.kind = CPU_TOTAL,
                          .slot = (uint32_t)(slot - run->slots),
                          .loss_scale = 1,
                          .step = op->step + 1};
    if (op->kind == OP_UPDATE) {
        job.kind = CPU_UPDATE;
        job.update = unordered_update_job(run, op);
    } else if (op->kind == OP_NORM) {
        job.kind = CPU_NORM;
        job.update.tile = op->tile;
        job.update.grad.grad = strata_address_home(&run->engine->memory, STRATA_GRAD, op->tile);
    }
    strata_cpu_lane_start(run->cpu, &job);
}

static void start_unordered_copy(struct step_unordered *run, struct slot *slot)
{
    const struct strata_device_ops *device = run->caller->device->ops;
    const struct memory *memory = &run->engine->memory;
    const struct op *op = &slot->op;
    strata_stream *stream = op->lane == STRATA_LANE_H2D ? run->h2d : run->d2h;
    if (op->kind == OP_ZERO) {
        device->stream_zero(stream, strata_address_placement(memory, op->placement),
                            strata_address_work_bytes(memory->plan, op));
    } else if (op->kind == OP_ROUND) {
        run->functions.round(run->engine, stream,
                             memory->plan->residency.placements[op->placement].group,
                             strata_address_rounded(memory, op->placement),
                             (const float *)strata_address_placement(memory, op->placement));
    } else {
        struct ends ends = strata_address_ends(memory, op);
        bool in = op->kind == OP_H2D;
        device->stream_copy(stream, in ? ends.device : ends.host, in ? ends.host : ends.device,
                            ends.bytes);
    }
    device->stream_notify(stream, unordered_on_stream, run, (uint64_t)(slot - run->slots));
}

static void start_compute(struct step_unordered *run, struct slot *slot)
{
    const struct memory *memory = &run->engine->memory;
    const struct use *use = &memory->plan->model.uses[slot->op.tile];
    struct step_compute compute = {.caller = run->caller,
                                   .products = strata_bench_step_products(use, run->products)};
    if (slot->op.placement != STRATA_NONE)
        compute.grad = (float *)strata_address_placement(memory, slot->op.placement);
    strata_stream_call(run->caller->stream, strata_bench_step_compute, &compute,
                       sizeof compute);
    run->caller->device->ops->stream_notify(run->caller->stream, unordered_on_stream, run,
                                            (uint64_t)(slot - run->slots));
}

static bool start_listed_op(struct step_unordered *run, struct slot *slot)
{
    switch (slot->lane) {
    case STRATA_LANE_NVME_READ:
    case STRATA_LANE_NVME_WRITE:
        return start_unordered_transfer(run, slot);
    case STRATA_LANE_CPU:
        start_cpu(run, slot);
        return true;
    case STRATA_LANE_COMPUTE:
        start_compute(run, slot);
        return true;
    case STRATA_LANE_H2D:
    case STRATA_LANE_D2H:
        start_unordered_copy(run, slot);
        return true;
    case STRATA_LANE_COMM: /* with one rank there are no collectives */
    case STRATA_LANE_COUNT:
        break;
    }
    STRATA_CHECK(false);
    return false;
}

/* Starts as many ops of a lane as may run at once. */
static void feed_lane(struct step_unordered *run, strata_lane lane, uint32_t steps)
{
    struct list *list = &run->lists[lane];
    uint32_t depth = lane == STRATA_LANE_COMPUTE ? COMPUTE_DEPTH : strata_lane_depth[lane];
    while (!run->failed && list->next < (uint64_t)steps * list->count &&
           list->in_flight < depth) {
        struct slot *slot = &run->slots[run->free_slots[run->free_count - 1]];
        slot->run = run;
        slot->op = list->ops[list->next % list->count];
        slot->lane = lane;
        slot->queued_ns = strata_now_ns();
        slot->bytes = lane == STRATA_LANE_COMPUTE
                          ? 0
                          : strata_address_lane_bytes(&run->engine->plan, &slot->op);
        if (!start_listed_op(run, slot))
            return;
        run->free_count--;
        list->next++;
        list->in_flight++;
    }
}

static void take_end_message(struct step_unordered *run, const struct message *message)
{
    struct slot *slot = &run->slots[message->slot];
    struct list *list = &run->lists[slot->lane];
    uint64_t start_ns = message->start_ns != 0 ? message->start_ns : slot->queued_ns;
    if (start_ns < list->end_ns)
        start_ns = list->end_ns;
    if (message->end_ns > start_ns)
        list->busy_ns += message->end_ns - start_ns;
    if (message->end_ns > list->end_ns)
        list->end_ns = message->end_ns;
    list->bytes += slot->bytes;
    list->in_flight--;
    run->free_slots[run->free_count++] = message->slot;
    if (slot->lane == STRATA_LANE_NVME_READ || slot->lane == STRATA_LANE_NVME_WRITE)
        run->busy[slot->io.place] = false;
    if (message->status != STRATA_OK)
        run->failed = true;
}

strata_status strata_bench_unordered_sample(struct step_unordered *run, uint32_t products,
                                            uint32_t steps, struct step_sample *out,
                                            strata_error *error)
{
    uint64_t start_ns = strata_now_ns();
    uint64_t end_ns = start_ns;
    run->products = products;
    for (int lane = 0; lane < STRATA_LANE_COUNT; lane++) {
        struct list *list = &run->lists[lane];
        list->next = list->busy_ns = list->bytes = 0;
        list->end_ns = start_ns;
    }
    do {
        for (int lane = 0; lane < STRATA_LANE_COUNT; lane++)
            if (lane != STRATA_LANE_COMPUTE || products > 0)
                feed_lane(run, (strata_lane)lane, steps);
        struct message message;
        if (strata_channel_receive(run->events, &message, UINT64_MAX))
            take_end_message(run, &message);
    } while (run->free_count < SLOTS);
    if (run->failed) {
        const strata_error *why = strata_store_error(run->engine->store);
        *error = why->status != STRATA_OK ? *why : *strata_cpu_lane_error(run->cpu);
        return error->status;
    }
    for (int lane = 0; lane < STRATA_LANE_COUNT; lane++) {
        struct list *list = &run->lists[lane];
        end_ns = list->end_ns > end_ns ? list->end_ns : end_ns;
        out->busy_s[lane] = 1e-9 * (double)list->busy_ns / steps;
        out->bytes[lane] = (double)list->bytes / steps;
    }
    out->step_s = 1e-9 * (double)(end_ns - start_ns) / steps;
    return STRATA_OK;
}

static strata_status open_unordered_lanes(struct step_unordered *run, strata_error *error)
{
    const struct offload_plan *plan = &run->engine->plan;
    struct cpu_lane_desc cpu = {.functions = &run->functions,
                                .functions_user = run->engine,
                                .done = unordered_on_cpu,
                                .done_user = run};
    run->functions = strata_engine_lanes_host;
    run->functions.total = total_norms;
    STRATA_TRY(strata_channel_create(&run->events, SLOTS, sizeof(struct message), error));
    STRATA_TRY(strata_update_hashes_create(&run->hashes, plan, error));
    STRATA_TRY(strata_cpu_lane_create(&run->cpu, &cpu, error));
    STRATA_TRY(strata_stream_create(&run->h2d, run->caller->device, "bench-h2d", error));
    STRATA_TRY(strata_stream_create(&run->d2h, run->caller->device, "bench-d2h", error));
    run->digest_count = strata_hash_piece_count(strata_layout_bytes(
        &plan->model.groups[0].layout, STRATA_STATE, plan->model.tile_elems));
    run->digests = calloc(SLOTS * run->digest_count, sizeof *run->digests);
    run->busy = calloc(strata_plan_record_place(plan, plan->model.tile_count, 0) + 1,
                       sizeof *run->busy);
    if (run->digests != NULL && run->busy != NULL)
        return STRATA_OK;
    return strata_fail(error, STRATA_E_NOMEM, ENOMEM,
                       "memory for the unordered lanes: none left");
}

strata_status strata_bench_unordered_open(struct step_unordered **out,
                                          const struct step_caller *caller,
                                          strata_engine *engine, strata_error *error)
{
    struct step_unordered *run = calloc(1, sizeof *run);
    *out = run;
    if (run == NULL)
        return strata_fail(error, STRATA_E_NOMEM, ENOMEM,
                           "memory for the unordered lanes: none left");
    run->caller = caller;
    run->engine = engine;
    for (uint32_t i = 0; i < SLOTS; i++)
        run->free_slots[run->free_count++] = i;
    strata_pager_destroy(engine->pager);
    engine->pager = NULL;
    STRATA_TRY(open_unordered_lanes(run, error));
    return list_ops(run, error);
}

void strata_bench_unordered_close(struct step_unordered *run)
{
    if (run == NULL)
        return;
    strata_cpu_lane_destroy(run->cpu);
    strata_update_hashes_destroy(run->hashes);
    strata_stream_destroy(run->d2h);
    strata_stream_destroy(run->h2d);
    strata_channel_destroy(run->events);
    for (int lane = 0; lane < STRATA_LANE_COUNT; lane++)
        free(run->lists[lane].ops);
    free(run->digests);
    free(run->busy);
    free(run);
}
