/*
 * A fluid simulation of the lanes; see simulate.h.
 *
 * A server works one op at a time: the copy lanes, the cpu lane, the comm lane, each drive's
 * reads and each drive's writes, and the caller's stream. Ops that a lane has in flight wait at
 * their server in order, which costs what sharing it would and is simpler. So at most a handful
 * of ops progress at once, however large the model, and an event costs a look at each of them.
 * These looks are a third of the work, so what they need of an op lies apart from the queues.
 *
 * An op's work is seconds as if it were alone. Its rate is what the others leave it, 1 at most.
 * Rates are computed in the order in which things are narrow: the two directions of a drive and
 * of copies, the worker pool's two kinds of work, the cores, host memory. Each scales down what
 * shares it, so nothing gets more than there is. What the narrowest resource leaves unused
 * another op might have taken: the error is a few per cent where three things meet, and none
 * where two do.
 *
 * Thread: one per object.
 */

#include "offload/simulate/simulate.h"

#include "base/error.h"
#include "offload/schedule/address.h"
#include "offload/simulate/bound.h"
#include "offload/simulate/cost.h"

#include <math.h>

/* At a server at once: no lane has more in flight. */
#define QUEUE 16u

/* The copy lanes, the cpu lane, the stream, collectives; then the drives' reads and writes. */
enum { SERVER_H2D, SERVER_D2H, SERVER_CPU, SERVER_STREAM, SERVER_COMM, SERVER_DRIVES };

/* Relative; work this small is done: what is left of a subtraction of equal times. */
#define NOTHING 1e-12

#define SECONDS_A_DAY 86400.0

/* What a server has to do. */
struct job {
    struct op op;
    struct cost cost; /* as a whole */
};

/* What it does at present: its first job. */
struct flow {
    struct cost cost; /* of what is left */
    double rate;      /* work seconds done in a second */
    bool busy;        /* the server has a job; else nothing of this counts */
};

struct server {
    struct job jobs[QUEUE];
    uint32_t first;
    uint32_t count;
    strata_lane lane;
    double begun_s; /* when the first of them began */
};

/* What the stream has to do: an entry of the use list. */
struct stream_entry {
    uint64_t step;
    uint32_t use;
};

/* Where the stream is with the first entry of its queue. */
enum stream_state {
    STREAM_READY, /* before it */
    STREAM_COPYING,
    STREAM_COPIED,
    STREAM_COMPUTING,
    STREAM_DONE
};

struct simulation {
    struct simulate_desc desc;
    struct server *servers;
    struct flow *flows; /* by server */
    uint32_t *busy;     /* the servers that have a job, in their order */
    uint32_t busy_count;
    uint32_t server_count;
    uint64_t *gates;
    double now_s;
    uint64_t random;
    /* the caller, and its stream */
    uint64_t step;
    uint32_t use;
    bool asked;
    struct stream_entry *queue; /* a ring */
    uint32_t queue_capacity;
    uint32_t queue_first;
    uint32_t queue_count;
    enum stream_state stream;
    bool stalled;
    strata_stall stall;
    double stalled_since_s;
    /* figures */
    bool measuring;
    double begin_s; /* of the first step that is measured */
    double end_s;   /* of the latest step */
    strata_forecast sum;
    struct bound_work work;
    struct bound_scratch bound_scratch;
};

static double jitter_factor(struct simulation *sim)
{
    if (sim->desc.jitter == 0)
        return 1;
    sim->random = sim->random * 6364136223846793005u + 1442695040888963407u;
    double unit = (double)(sim->random >> 11) * 0x1p-53;
    return 1 + sim->desc.jitter * (2 * unit - 1);
}

/* The first job of a server begins now. */
static void begin_job(struct simulation *sim, uint32_t server)
{
    struct server *s = &sim->servers[server];
    s->begun_s = sim->now_s;
    sim->flows[server] = (struct flow){.cost = s->jobs[s->first].cost, .busy = true};
}

static void add_busy(struct simulation *sim, uint32_t server)
{
    uint32_t i = sim->busy_count++;
    for (; i > 0 && sim->busy[i - 1] > server; i--)
        sim->busy[i] = sim->busy[i - 1];
    sim->busy[i] = server;
}

static void push_job(struct simulation *sim, uint32_t server, const struct op *op,
                     struct cost cost)
{
    struct server *s = &sim->servers[server];
    STRATA_CHECK(s->count < QUEUE);
    cost.work_s *= jitter_factor(sim);
    s->jobs[(s->first + s->count++) % QUEUE] = (struct job){.op = *op, .cost = cost};
    if (s->count == 1) {
        begin_job(sim, server);
        add_busy(sim, server);
    }
    if (!sim->measuring)
        return;
    sim->work.lane_s[s->lane] += cost.work_s;
    sim->work.core_s += cost.work_s * cost.cores;
    sim->work.dram_bytes += cost.work_s * cost.dram;
}

/* Drives take tiles in turn, as the store deals out places of equal length. */
static uint32_t server_of(const struct simulation *sim, const struct op *op)
{
    uint32_t thing = op->tile != STRATA_NONE ? op->tile : op->stash_event;
    uint32_t drives = sim->desc.profile->drives; /* 0: no op is on one */
    uint32_t drive = thing == STRATA_NONE || drives == 0 ? 0 : thing % drives;
    switch (op->lane) {
    case STRATA_LANE_NVME_READ:
        return SERVER_DRIVES + drive;
    case STRATA_LANE_NVME_WRITE:
        return SERVER_DRIVES + drives + drive;
    case STRATA_LANE_H2D:
        return SERVER_H2D;
    case STRATA_LANE_D2H:
        return SERVER_D2H;
    case STRATA_LANE_COMM:
        return SERVER_COMM;
    case STRATA_LANE_CPU:
        return SERVER_CPU;
    case STRATA_LANE_COMPUTE:
    case STRATA_LANE_COUNT:
        break;
    }
    STRATA_CHECK(false); /* no op is of another lane */
    return SERVER_CPU;
}

/* Rates. */

static void share_pair(const struct simulation *sim, uint32_t a, uint32_t b, double both)
{
    if (!sim->flows[a].busy || !sim->flows[b].busy)
        return;
    sim->flows[a].rate *= both / 2;
    sim->flows[b].rate *= both / 2;
}

/* The same workers compute for the device and update. Where memory bounds updates, a share of
 * the cores gives them more than that share of their rate. */
static void share_workers(const struct simulation *sim)
{
    struct flow *compute = &sim->flows[SERVER_STREAM];
    struct flow *update = &sim->flows[SERVER_CPU];
    if (!sim->desc.profile->host_device || sim->stream != STREAM_COMPUTING || !compute->busy ||
        !update->busy)
        return;
    double share = sim->desc.profile->update_share;
    compute->rate *= 1 - share;
    update->rate *= fmin(1, share * sim->desc.profile->cores / update->cost.cores);
}

/* Threads that mostly sleep, as those of drives do, run when they wake; the others share. */
static void share_cores(const struct simulation *sim)
{
    double left = sim->desc.profile->cores;
    double wanted = 0;
    for (uint32_t i = 0; i < sim->busy_count; i++) {
        const struct flow *flow = &sim->flows[sim->busy[i]];
        if (sim->busy[i] >= SERVER_DRIVES)
            left -= flow->cost.cores * flow->rate;
        else
            wanted += flow->cost.cores * flow->rate;
    }
    /* However many drives there are, they do not starve the rest. */
    double least = 0.25 * sim->desc.profile->cores;
    left = left > least ? left : least;
    for (uint32_t i = 0; i < SERVER_DRIVES && wanted > left; i++) {
        struct flow *flow = &sim->flows[i];
        if (flow->busy && flow->cost.cores > 0)
            flow->rate *= left / wanted;
    }
}

static void share_memory(const struct simulation *sim)
{
    double wanted = 0;
    for (uint32_t i = 0; i < sim->busy_count; i++) {
        const struct flow *flow = &sim->flows[sim->busy[i]];
        wanted += flow->cost.dram * flow->rate;
    }
    double there = sim->desc.profile->dram_bytes_per_s;
    for (uint32_t i = 0; i < sim->busy_count && wanted > there; i++) {
        struct flow *flow = &sim->flows[sim->busy[i]];
        if (flow->cost.dram > 0)
            flow->rate *= there / wanted;
    }
}

static void set_rates(const struct simulation *sim)
{
    const strata_profile *profile = sim->desc.profile;
    for (uint32_t i = 0; i < sim->busy_count; i++)
        sim->flows[sim->busy[i]].rate = 1;
    for (uint32_t d = 0; d < profile->drives; d++)
        share_pair(sim, SERVER_DRIVES + d, SERVER_DRIVES + profile->drives + d, profile->mix);
    share_pair(sim, SERVER_H2D, SERVER_D2H, profile->duplex);
    share_workers(sim);
    share_cores(sim);
    share_memory(sim);
}

/* Time. */

static void pass_time(struct simulation *sim, double dt)
{
    sim->now_s += dt;
    bool busy[STRATA_LANE_COUNT] = {false};
    for (uint32_t i = 0; i < sim->busy_count; i++) {
        struct flow *flow = &sim->flows[sim->busy[i]];
        flow->cost.work_s -= dt * flow->rate;
        busy[sim->servers[sim->busy[i]].lane] = true;
    }
    for (int lane = 0; sim->measuring && lane < STRATA_LANE_COUNT; lane++)
        if (busy[lane])
            sim->sum.busy_s[lane] += dt;
}

/* The first job of a server has ended. */
static void note_span(const struct simulation *sim, uint32_t index, const struct op *op)
{
    if (sim->desc.trace == NULL)
        return;
    uint64_t start_ns = (uint64_t)(1e9 * sim->servers[index].begun_s);
    uint64_t end_ns = (uint64_t)(1e9 * sim->now_s);
    uint32_t drives = sim->desc.profile->drives;
    if (index != SERVER_STREAM)
        strata_trace_op(sim->desc.trace, sim->desc.plan, op,
                        index < SERVER_DRIVES ? 0 : (index - SERVER_DRIVES) % drives, start_ns,
                        end_ns);
    else if (sim->stream == STREAM_COMPUTING)
        strata_trace_compute(sim->desc.trace, sim->desc.plan, sim->queue[sim->queue_first].use,
                             sim->queue[sim->queue_first].step, start_ns, end_ns);
}

/* The server's first job has ended. */
static void end_job(struct simulation *sim, uint32_t index)
{
    struct server *server = &sim->servers[index];
    struct op *op = &server->jobs[server->first].op; /* it stays: nothing is pushed in here */
    note_span(sim, index, op);
    server->first = (server->first + 1) % QUEUE;
    server->count--;
    sim->flows[index].busy = false;
    if (server->count > 0)
        begin_job(sim, index);
    if (index == SERVER_STREAM) {
        sim->stream = sim->stream == STREAM_COPYING ? STREAM_COPIED : STREAM_DONE;
        return;
    }
    if (op->kind == OP_TOTAL)
        op->verdict = sim->desc.verdict == VERDICT_NONE ? VERDICT_WITHIN : sim->desc.verdict;
    strata_schedule_done(sim->desc.schedule, op);
}

static void end_jobs(struct simulation *sim)
{
    uint32_t kept = 0;
    double nothing_s = NOTHING * (1 + sim->now_s);
    for (uint32_t i = 0; i < sim->busy_count; i++) {
        uint32_t server = sim->busy[i];
        if (sim->flows[server].cost.work_s <= nothing_s)
            end_job(sim, server);
        if (sim->flows[server].busy)
            sim->busy[kept++] = server;
    }
    sim->busy_count = kept;
}

/* Until the next job ends. false: there is none. */
static bool advance(struct simulation *sim)
{
    double dt = -1;
    set_rates(sim);
    for (uint32_t i = 0; i < sim->busy_count; i++) {
        const struct flow *flow = &sim->flows[sim->busy[i]];
        if (dt < 0 || flow->cost.work_s < dt * flow->rate)
            dt = flow->cost.work_s / flow->rate;
    }
    if (dt < 0)
        return false;
    pass_time(sim, dt);
    end_jobs(sim);
    return true;
}

static void start_ops(struct simulation *sim)
{
    struct op op;
    while (strata_schedule_next(sim->desc.schedule, &op)) {
        if (op.kind == OP_OPEN) {
            sim->gates[strata_schedule_gate_of(sim->desc.plan, &op)] = op.gate_value;
            continue;
        }
        sim->sum.ops++;
        if (sim->desc.note != NULL)
            sim->desc.note(sim->desc.note_user, &op);
        if (sim->measuring)
            sim->sum.bytes[op.lane] += strata_address_lane_bytes(sim->desc.plan, &op);
        push_job(sim, server_of(sim, &op), &op,
                 strata_cost_of(sim->desc.plan, sim->desc.profile, &op));
    }
}

/* The stream. */

static bool gates_open(const struct simulation *sim, struct stream_entry entry)
{
    const struct offload_plan *plan = sim->desc.plan;
    const struct use *use = &plan->model.uses[entry.use];
    if (use->kind == STRATA_USE_UNSTASH)
        return plan->stash == STRATA_DEVICE ||
               sim->gates[strata_schedule_stash_gate(plan, use->stash_event)] > entry.step;
    if (use->kind != STRATA_USE_ACQUIRE)
        return true;
    uint32_t grad = plan->residency.use_grad[entry.use];
    return sim->gates[plan->residency.use_param[entry.use]] > entry.step &&
           (grad == STRATA_NONE || sim->gates[grad] > entry.step);
}

/* What the stream's own jobs are pushed with. */
static const struct op no_op = {.kind = OP_OPEN};

/* First an activation block is copied within the device, if the entry is of one. */
static void begin_copy(struct simulation *sim, struct stream_entry entry)
{
    strata_use_kind kind = sim->desc.plan->model.uses[entry.use].kind;
    if (kind == STRATA_USE_ACQUIRE || kind == STRATA_USE_RELEASE) {
        sim->stream = STREAM_COPIED;
        return;
    }
    push_job(sim, SERVER_STREAM, &no_op,
             strata_cost_of_block(sim->desc.plan, sim->desc.profile));
    sim->stream = STREAM_COPYING;
}

/* Then comes what the caller computes before the next entry. */
static void begin_compute(struct simulation *sim, struct stream_entry entry)
{
    const struct simulate_desc *desc = &sim->desc;
    struct cost cost =
        strata_cost_of_compute(desc->plan, desc->profile, desc->compute_s, entry.use);
    if (cost.work_s <= 0) {
        sim->stream = STREAM_DONE;
        return;
    }
    push_job(sim, SERVER_STREAM, &no_op, cost);
    sim->stream = STREAM_COMPUTING;
}

/* A step is measured from the end of the work of the one before to that of its own. */
static void end_step(struct simulation *sim, uint64_t steps)
{
    sim->measuring =
        steps >= sim->desc.warm_steps && steps < sim->desc.warm_steps + sim->desc.steps;
    if (steps == sim->desc.warm_steps)
        sim->begin_s = sim->now_s;
    sim->end_s = sim->now_s;
}

/* Report an entry to the schedule: the stream got there. */
static void report_entry(struct simulation *sim, struct stream_entry entry)
{
    const struct use *use = &sim->desc.plan->model.uses[entry.use];
    if (use->kind == STRATA_USE_RELEASE)
        strata_schedule_released(sim->desc.schedule, entry.step, entry.use);
    else if (use->kind != STRATA_USE_ACQUIRE && sim->desc.plan->stash != STRATA_DEVICE)
        strata_schedule_copied(sim->desc.schedule, entry.step, use->stash_event);
}

static void end_entry(struct simulation *sim, struct stream_entry entry)
{
    sim->queue_first = (sim->queue_first + 1) % sim->queue_capacity;
    sim->queue_count--;
    sim->stream = STREAM_READY;
    if (entry.use + 1 == sim->desc.plan->model.use_count)
        end_step(sim, entry.step + 1);
}

static void note_stall(struct simulation *sim, uint64_t step, uint32_t use)
{
    if (sim->stalled)
        return;
    sim->stalled = true;
    sim->stalled_since_s = sim->now_s;
    sim->stall = strata_schedule_missing(sim->desc.schedule, step, use);
}

static void end_stall(struct simulation *sim)
{
    if (sim->stalled && sim->measuring)
        sim->sum.stall_s[sim->stall] += sim->now_s - sim->stalled_since_s;
    sim->stalled = false;
}

static bool stream_moves(struct simulation *sim)
{
    if (sim->queue_count == 0)
        return false;
    struct stream_entry entry = sim->queue[sim->queue_first];
    switch (sim->stream) {
    case STREAM_READY:
        if (!gates_open(sim, entry)) {
            note_stall(sim, entry.step, entry.use);
            return false;
        }
        end_stall(sim);
        begin_copy(sim, entry);
        return true;
    case STREAM_COPIED:
        report_entry(sim, entry);
        begin_compute(sim, entry);
        return true;
    case STREAM_DONE:
        end_entry(sim, entry);
        return true;
    case STREAM_COPYING:
    case STREAM_COMPUTING:
        break;
    }
    return false;
}

/* The caller. */

/* Between two steps; false: the caller waits. */
static bool next_step(struct simulation *sim)
{
    const struct schedule *schedule = sim->desc.schedule;
    uint64_t over = sim->desc.begins == STEP_AFTER_UPDATES ? strata_schedule_updated(schedule)
                                                           : strata_schedule_normed(schedule);
    if (sim->desc.begins != STEP_AT_ONCE && (sim->queue_count > 0 || over <= sim->step)) {
        if (sim->queue_count == 0)
            note_stall(sim, sim->step + 1, 0);
        return false;
    }
    sim->use = 0;
    sim->step++;
    return true;
}

static bool caller_moves(struct simulation *sim)
{
    const struct model *model = &sim->desc.plan->model;
    if (sim->queue_count == sim->queue_capacity ||
        sim->step == sim->desc.warm_steps + sim->desc.steps)
        return false;
    if (sim->use == model->use_count)
        return next_step(sim);
    if (model->uses[sim->use].kind != STRATA_USE_RELEASE) {
        bool news = !sim->asked;
        if (news)
            strata_schedule_ask(sim->desc.schedule, sim->step, sim->use);
        sim->asked = true;
        if (!strata_schedule_granted(sim->desc.schedule, sim->step, sim->use)) {
            if (sim->queue_count == 0)
                note_stall(sim, sim->step, sim->use);
            return news;
        }
    }
    sim->asked = false;
    uint32_t last = (sim->queue_first + sim->queue_count++) % sim->queue_capacity;
    sim->queue[last] = (struct stream_entry){sim->step, sim->use++};
    return true;
}

/* The whole. */

double strata_drive_days(const strata_profile *profile, const strata_forecast *forecast)
{
    double written = (double)forecast->bytes[STRATA_LANE_NVME_WRITE];
    double rated = profile->drives * profile->drive_endurance_bytes;
    return written > 0 ? rated / written * forecast->step_s / SECONDS_A_DAY : 0;
}

static void fill_forecast(const struct simulation *sim, strata_forecast *out)
{
    double each = 1.0 / sim->desc.steps;
    *out = sim->sum;
    out->step_s = (sim->end_s - sim->begin_s) * each;
    for (int lane = 0; lane < STRATA_LANE_COUNT; lane++) {
        out->busy_s[lane] *= each;
        out->bytes[lane] = (uint64_t)((double)out->bytes[lane] * each);
    }
    for (int stall = 0; stall < STRATA_STALL_COUNT; stall++)
        out->stall_s[stall] *= each;
    out->drive_days = strata_drive_days(sim->desc.profile, out);
    out->exposed_s = out->step_s - out->busy_s[STRATA_LANE_COMPUTE];
    struct bound_work work = sim->work;
    for (int lane = 0; lane < STRATA_LANE_COUNT; lane++)
        work.lane_s[lane] *= each;
    work.core_s *= each;
    work.dram_bytes *= each;
    out->bound_s = strata_bound_of_lanes(sim->desc.profile, &work, &out->bottleneck);
    out->chain_s = strata_bound_of_chains(&sim->desc, &sim->bound_scratch);
}

static bool all_steps_ended(const struct simulation *sim)
{
    return sim->step == sim->desc.warm_steps + sim->desc.steps && sim->queue_count == 0;
}

strata_status strata_simulation_run(struct simulation *sim, strata_forecast *out,
                                    strata_error *error)
{
    strata_schedule_start(sim->desc.schedule);
    while (!all_steps_ended(sim)) {
        start_ops(sim);
        while (caller_moves(sim) || stream_moves(sim))
            start_ops(sim);
        if (!all_steps_ended(sim) && !advance(sim))
            return strata_fail(error, STRATA_E_STATE, 0,
                               "simulation: step %llu of the schedule stands still at use %u",
                               (unsigned long long)sim->step, sim->use);
    }
    fill_forecast(sim, out);
    return STRATA_OK;
}

static void recover(struct simulation *sim, struct tables *tables)
{
    struct commit_line line = {
        .slots = strata_tables_take(tables, sim->desc.plan->model.tile_count, 1)};
    if (line.slots != NULL)
        strata_schedule_recover(sim->desc.schedule, &line, 1, sim->desc.commit_every);
}

strata_status strata_simulation_create(struct simulation **out, struct tables *tables,
                                       const struct simulate_desc *desc, strata_error *error)
{
    *out = NULL;
    STRATA_TRY(strata_profile_check(desc->profile, error));
    if (desc->profile->drives == 0 && strata_plan_uses_store(desc->plan))
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "profile: no drives, and something rests on nvme");
    if (desc->profile->comm_bytes_per_s <= 0 && desc->plan->model.ranks > 1)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "profile: comm_bytes_per_s is not given, and there are %u ranks",
                           desc->plan->model.ranks);
    struct simulation *sim = strata_tables_take(tables, 1, sizeof *sim);
    STRATA_TRY(strata_tables_check(tables, error));
    sim->desc = *desc;
    sim->random = desc->seed * 2 + 1;
    sim->server_count = SERVER_DRIVES + 2 * desc->profile->drives;
    sim->servers = strata_tables_take(tables, sim->server_count, sizeof *sim->servers);
    sim->flows = strata_tables_take(tables, sim->server_count, sizeof *sim->flows);
    sim->busy = strata_tables_take(tables, sim->server_count, sizeof *sim->busy);
    sim->gates =
        strata_tables_take(tables, strata_schedule_gate_count(desc->plan), sizeof *sim->gates);
    sim->queue_capacity = 2 * desc->plan->model.use_count;
    sim->queue = strata_tables_take(tables, sim->queue_capacity, sizeof *sim->queue);
    sim->bound_scratch = strata_bound_take(tables, desc->plan);
    if (desc->plan->durable)
        recover(sim, tables);
    STRATA_TRY(strata_tables_check(tables, error));
    static const strata_lane lanes[] = {STRATA_LANE_H2D, STRATA_LANE_D2H, STRATA_LANE_CPU,
                                        STRATA_LANE_COMPUTE, STRATA_LANE_COMM};
    for (uint32_t i = 0; i < sim->server_count; i++) {
        bool drive = i >= SERVER_DRIVES;
        bool read = i < SERVER_DRIVES + desc->profile->drives;
        sim->servers[i].lane = !drive ? lanes[i]
                               : read ? STRATA_LANE_NVME_READ
                                      : STRATA_LANE_NVME_WRITE;
    }
    *out = sim;
    return STRATA_OK;
}
