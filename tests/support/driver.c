#include "tests/support/driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_GROUPS  6u
#define MAX_USES    64u
#define STEPS       3u
#define MAX_RUNNING 64u

static _Thread_local char complaint[160];

/* What a frame holds; TORN: nothing whole. */
#define TORN UINT64_MAX
struct frame_tokens {
    uint64_t state;
    uint64_t grad;
    uint64_t param;
};

struct random_model {
    strata_tensor_desc tensors[MAX_GROUPS];
    strata_group_desc groups[MAX_GROUPS];
    char names[MAX_GROUPS][16];
    strata_use uses[MAX_USES];
    strata_model_desc desc;
};

/* What the made-up stream still has to do. */
struct stream_entry {
    uint64_t step;
    uint32_t use;
};

struct driver {
    struct driver *peers; /* all ranks, this one included */
    uint32_t ranks;
    struct plan_desc plan_desc;
    struct driver_case what;
    struct offload_plan plan;
    struct schedule *schedule;
    uint64_t random;
    /* the caller and its stream */
    uint64_t base; /* steps before the schedule's first: it has been made anew */
    uint64_t step;
    uint32_t use;
    bool asked;
    bool saved;
    bool settled;
    enum update_mode mode;
    enum verdict verdicts[STEPS];
    struct schedule_desc schedule_desc;
    uint32_t commit_every;
    struct stream_entry queue[MAX_USES * (STEPS + 1)];
    uint32_t queue_first;
    uint32_t queue_last;
    /* lanes */
    struct op running[MAX_RUNNING];
    uint32_t running_count;
    /* what has happened */
    uint64_t *gates;
    uint64_t *norms; /* by tile */
    /* tokens */
    uint64_t truth[STEPS + 1];                       /* the state after so many steps */
    uint64_t *params;                                /* by tile: at home */
    uint64_t *states;                                /* by tile: at home in host or device */
    uint64_t *grads;                                 /* by tile: at home: the step, from 1 */
    uint64_t *content;                               /* by tile and slot */
    struct frame_tokens *frames;                     /* by frame kind and index */
    struct commit_line durable[1 + STRATA_MAX_KEEP]; /* copies of what was made durable */
    uint32_t durable_count;
    bool block_busy[STRATA_MAX_STASH_FRAMES]; /* the device's stash blocks */
    uint64_t *stashed; /* by block of the model: steps in which it has reached the host */
    /* collectives begun: kind and placement of each */
    uint32_t *comm;
    uint32_t comm_count;
    uint64_t moves_left; /* until the crash; UINT64_MAX: none */
    const char *problem;
};

static uint64_t roll(struct driver *d, uint64_t below)
{
    d->random = d->random * 6364136223846793005u + 1442695040888963407u;
    return (d->random >> 33) % below;
}

static void use(struct random_model *m, strata_use_kind kind, uint32_t index, bool grad)
{
    if (m->desc.use_count < MAX_USES)
        m->uses[m->desc.use_count++] = (strata_use){.kind = kind, .index = index, .grad = grad};
}

/* Forward, some extra uses in the middle, backward; some groups held across others. Or no
 * forward, so that a step's first gradients come before its last parameters are wanted. */
static void make_model(struct driver *d, struct random_model *m)
{
    uint32_t groups = 1 + (uint32_t)roll(d, MAX_GROUPS);
    bool forward = roll(d, 4) != 0;
    bool stash = forward && roll(d, 2);
    memset(m, 0, sizeof *m);
    for (uint32_t g = 0; g < groups; g++) {
        snprintf(m->names[g], sizeof m->names[g], "g%u", g);
        m->tensors[g] = (strata_tensor_desc){
            .name = m->names[g], .shape = {1 + roll(d, 6 * STRATA_BLOCK_ELEMS)}, .rank = 1};
        m->groups[g] = (strata_group_desc){
            .name = m->names[g], .tensors = &m->tensors[g], .tensor_count = 1};
    }
    for (uint32_t g = 0; forward && g < groups; g++) {
        if (stash)
            use(m, STRATA_USE_STASH, g, false);
        use(m, STRATA_USE_ACQUIRE, g, false);
        use(m, STRATA_USE_RELEASE, g, false);
    }
    for (uint32_t extra = 1 + (uint32_t)roll(d, 3); extra > 0; extra--) {
        uint32_t g = (uint32_t)roll(d, groups);
        uint32_t inner = (uint32_t)roll(d, groups);
        use(m, STRATA_USE_ACQUIRE, g, roll(d, 2));
        if (inner != g && roll(d, 3) == 0) {
            use(m, STRATA_USE_ACQUIRE, inner, roll(d, 2));
            use(m, STRATA_USE_RELEASE, inner, false);
        }
        use(m, STRATA_USE_RELEASE, g, false);
    }
    for (uint32_t g = groups; g-- > 0;) {
        if (stash)
            use(m, STRATA_USE_UNSTASH, g, false);
        use(m, STRATA_USE_ACQUIRE, g, true);
        use(m, STRATA_USE_RELEASE, g, false);
    }
    m->desc.groups = m->groups;
    m->desc.group_count = groups;
    m->desc.uses = m->uses;
    m->desc.stash_bytes = 4096;
    m->desc.scratch_bytes = 4096;
}

static strata_tier some_tier(struct driver *d)
{
    static const strata_tier tiers[] = {STRATA_AUTO, STRATA_HOST, STRATA_NVME, STRATA_NVME,
                                        STRATA_DEVICE};
    /* Shards that rest in the device would have to be gathered there: not planned yet. */
    return tiers[roll(d, d->ranks > 1 ? 4 : 5)];
}

static bool plan_once(struct driver *d, struct plan_desc *desc, const struct driver_case *what,
                      strata_error *error)
{
    if (strata_plan_begin(&d->plan, desc, error) != STRATA_OK)
        return false;
    struct schedule_desc schedule = d->schedule_desc;
    schedule.plan = &d->plan;
    schedule.mode = what->mode;
    schedule.no_overlap = what->no_overlap;
    return strata_schedule_create(&d->schedule, &d->plan.tables, &schedule, error) ==
               STRATA_OK &&
           strata_plan_finish(&d->plan, desc, error) == STRATA_OK;
}

/* Tighten the budgets to what the plan says it needs, or to somewhat more: device first, its
 * layout sizes the tables. */
static bool make_plan(struct driver *d, struct plan_desc *desc, const struct driver_case *what,
                      strata_error *error)
{
    uint64_t device_spare = what->minimum ? 0 : roll(d, 4u << 20);
    uint64_t host_spare = what->minimum ? 0 : roll(d, 24u << 20);
    for (int tighten = 0; tighten < 3; tighten++) {
        if (!plan_once(d, desc, what, error)) {
            /* Where several groups are held at once the formula may not be enough in one piece.
             */
            bool apart = tighten == 1 && error->status == STRATA_E_NOMEM;
            strata_plan_free(&d->plan);
            if (!apart)
                return false;
            *error = (strata_error){0};
            desc->device_bytes *= 2;
            tighten--;
            continue;
        }
        if (tighten == 2)
            return true;
        if (tighten == 0)
            desc->device_bytes = d->plan.summary.tiers[STRATA_DEVICE].need_bytes + device_spare;
        else
            desc->host_bytes = d->plan.summary.tiers[STRATA_HOST].need_bytes + host_spare;
        strata_plan_free(&d->plan);
    }
    return false;
}

#define HOLDS(condition)                                                                       \
    do {                                                                                       \
        if (!(condition) && d->problem == NULL)                                                \
            d->problem = #condition;                                                           \
    } while (0)

/* Where in the store an op reads or writes; UINT64_MAX: it is no transfer. */
static uint64_t place_of(const struct driver *d, const struct op *op)
{
    if (op->kind != OP_NVME_READ && op->kind != OP_NVME_WRITE)
        return UINT64_MAX;
    if (op->what == WHAT_STATE)
        return strata_plan_record_place(&d->plan, op->tile, op->slot);
    if (op->what == WHAT_PARK)
        return d->plan.park.at[op->tile];
    if (op->what == WHAT_STASH)
        return d->plan.stash_at +
               d->plan.model.uses[d->plan.model.stash_uses[op->stash_event]].index;
    return d->plan.homes[op->what == WHAT_GRAD ? STRATA_GRAD : STRATA_PARAM].at[op->tile];
}

static void check_frame(struct driver *d, const struct op *op)
{
    if (op->frame == STRATA_NONE)
        return;
    HOLDS(op->frame < d->plan.frame_count[op->frame_kind]);
    for (uint32_t i = 0; i < d->running_count; i++) {
        const struct op *other = &d->running[i];
        if (other->frame == op->frame && other->chain != op->chain)
            HOLDS(other->frame_kind != op->frame_kind);
    }
}

static struct frame_tokens *frame_of(struct driver *d, const struct op *op)
{
    static _Thread_local struct frame_tokens none;
    if (op->frame == STRATA_NONE) {
        none = (struct frame_tokens){TORN, TORN, TORN};
        return &none;
    }
    return &d->frames[op->frame_kind * STRATA_MAX_FRAMES + op->frame];
}

static void check_placement(struct driver *d, const struct op *op)
{
    if (op->placement == STRATA_NONE)
        return;
    const struct placement *p = &d->plan.residency.placements[op->placement];
    for (uint32_t i = 0; i < d->running_count; i++) {
        const struct op *other = &d->running[i];
        if (other->placement == STRATA_NONE || other->placement == op->placement)
            continue;
        /* Only ops that touch the device's pool: norms and writes of a gradient that has left
         * do not. */
        bool touches = other->lane == STRATA_LANE_H2D ||
                       (other->lane == STRATA_LANE_D2H && other->kind != OP_NORM);
        const struct placement *q = &d->plan.residency.placements[other->placement];
        if (touches && (op->lane == STRATA_LANE_H2D || op->lane == STRATA_LANE_D2H) &&
            op->kind != OP_NORM)
            HOLDS(!(p->offset < q->offset + q->bytes && q->offset < p->offset + p->bytes));
    }
}

static uint64_t *content(struct driver *d, uint32_t tile, uint32_t slot)
{
    return &d->content[tile * strata_slots_per_tile(&d->schedule_desc.slots) + slot];
}

/* A write of a state record must spare what durable commits name. */
static void check_record(struct driver *d, const struct op *op)
{
    if (op->what != WHAT_STATE || (op->kind != OP_NVME_READ && op->kind != OP_NVME_WRITE))
        return;
    HOLDS(op->slot < strata_slots_per_tile(&d->schedule_desc.slots));
    if (op->kind == OP_NVME_READ)
        return;
    for (uint32_t i = 0; i < d->durable_count; i++)
        HOLDS(d->durable[i].slots[op->tile] != op->slot);
    struct commit_line lines[1 + STRATA_MAX_KEEP];
    for (uint32_t i = 0; i < d->running_count; i++) {
        if (d->running[i].kind != OP_COMMIT)
            continue;
        uint32_t count = strata_schedule_commit_lines(d->schedule, lines);
        HOLDS(count > 0 && lines[0].slots[op->tile] != op->slot);
    }
    *content(d, op->tile, op->slot) = TORN;
}

/* A commit must name whole records of its own step. */
static void check_commit(struct driver *d, const struct op *op)
{
    if (op->kind != OP_COMMIT)
        return;
    struct commit_line lines[1 + STRATA_MAX_KEEP];
    uint32_t count = strata_schedule_commit_lines(d->schedule, lines);
    HOLDS(count >= 1 && count <= 1 + d->schedule_desc.slots.keep);
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t tile = 0; tile < d->plan.model.tile_count; tile++)
            HOLDS(*content(d, tile, lines[i].slots[tile]) == d->truth[lines[i].step]);
}

static void note_commit(struct driver *d)
{
    struct commit_line lines[1 + STRATA_MAX_KEEP];
    d->durable_count = strata_schedule_commit_lines(d->schedule, lines);
    for (uint32_t i = 0; i < d->durable_count; i++) {
        d->durable[i].step = lines[i].step;
        memcpy(d->durable[i].slots, lines[i].slots, d->plan.model.tile_count);
    }
}

/* All ranks begin the same collectives in the same order. */
static void check_comm(struct driver *d, const struct op *op)
{
    if (op->lane != STRATA_LANE_COMM)
        return;
    uint32_t at = d->comm_count++;
    d->comm[at] = (uint32_t)op->kind << 24 | (op->placement & 0xffffff);
    for (uint32_t i = 0; i < d->ranks; i++)
        HOLDS(d->peers[i].comm_count <= at || d->peers[i].comm[at] == d->comm[at]);
}

/* May this op start now? */
static void check_start(struct driver *d, const struct op *op)
{
    check_frame(d, op);
    check_placement(d, op);
    for (uint32_t i = 0; i < d->running_count && place_of(d, op) != UINT64_MAX; i++)
        HOLDS(place_of(d, op) != place_of(d, &d->running[i]));
    bool fetch = op->what == WHAT_PARAM && op->placement != STRATA_NONE;
    if (fetch && op->tile != STRATA_NONE)
        HOLDS(d->params[op->tile] == d->truth[d->base + op->step]);
    if (op->kind == OP_UPDATE) {
        HOLDS(op->work != 0);
        HOLDS(d->mode != UPDATES_DEFERRED || strata_schedule_normed(d->schedule) > op->step);
    }
    if (op->kind == OP_NORM)
        HOLDS(d->norms[op->tile] == d->base + op->step);
    if (op->kind == OP_TOTAL || op->kind == OP_SHARE)
        for (uint32_t i = 0; i < d->plan.model.tile_count; i++)
            HOLDS(d->norms[i] == d->base + op->step + 1);
}

static uint32_t block_of(const struct driver *d, uint64_t step, uint32_t event)
{
    return (uint32_t)((step * d->plan.model.stash_event_count + event) % d->plan.stash_frames);
}

static uint64_t mix(uint64_t state, uint64_t step, enum verdict verdict)
{
    uint64_t token = (state ^ (step * 4 + verdict + 1)) * 0x9e3779b97f4a7c15u;
    return token ^ token >> 29;
}

/* The state after this step's gradient with the scale that is known, or guessed, by now. */
static uint64_t updated(const struct driver *d, uint64_t state, uint64_t step)
{
    bool known =
        d->mode == UPDATES_AT_ONCE || d->base + strata_schedule_normed(d->schedule) > step;
    enum verdict verdict = known ? d->verdicts[step] : VERDICT_WITHIN;
    return verdict == VERDICT_SKIP ? TORN : mix(state, step, verdict);
}

static void note_update(struct driver *d, const struct op *op)
{
    struct frame_tokens *frame = frame_of(d, op);
    bool device = d->plan.states_on_device;
    bool nvme = !device && d->plan.homes[STRATA_STATE].tier[op->tile] == STRATA_NVME;
    bool in_place = device || d->plan.homes[STRATA_PARAM].tier[op->tile] == STRATA_HOST;
    bool grad_there = device || d->plan.homes[STRATA_GRAD].tier[op->tile] == STRATA_HOST;
    uint64_t *state = nvme ? &frame->state : &d->states[op->tile];
    uint64_t *param = in_place ? &d->params[op->tile] : &frame->param;
    uint64_t *grad =
        grad_there && !(op->work & UPDATE_TAKE) ? &d->grads[op->tile] : &frame->grad;
    uint64_t step = d->base + op->step;
    uint64_t fold_step = d->base + op->fold_step;
    HOLDS(*state != TORN);
    if (op->work & UPDATE_FOLD) {
        HOLDS(d->grads[op->tile] == fold_step + 1);
        *state = updated(d, *state, fold_step);
    }
    if (op->work & (UPDATE_APPLY | UPDATE_WEIGHTS)) {
        HOLDS(*grad == step + 1);
        HOLDS(*state == d->truth[step]);
        *param = updated(d, *state, step);
    }
    if (op->work & UPDATE_APPLY)
        *state = updated(d, *state, step);
    if (op->work & UPDATE_REBUILD)
        *param = *state;
    if (op->work & UPDATE_TAKE) {
        HOLDS(frame->grad == step + 1);
        d->grads[op->tile] = frame->grad;
    }
}

static void note_read(struct driver *d, const struct op *op)
{
    struct frame_tokens *frame = frame_of(d, op);
    if (op->what == WHAT_STATE)
        frame->state = *content(d, op->tile, op->slot);
    else if (op->what == WHAT_GRAD)
        frame->grad = d->grads[op->tile];
}

static void note_copy_out(struct driver *d, const struct op *op)
{
    struct frame_tokens *frame = frame_of(d, op);
    if (op->what == WHAT_GRAD && op->placement == STRATA_NONE)
        frame->grad = d->grads[op->tile];
    else if (op->what == WHAT_GRAD && op->frame != STRATA_NONE)
        frame->grad = d->base + op->step + 1;
    else if (op->what == WHAT_GRAD)
        d->grads[op->tile] = d->base + op->step + 1;
    else if (op->what == WHAT_STATE)
        frame->state = d->states[op->tile];
    if (op->what != WHAT_STASH)
        return;
    d->block_busy[block_of(d, op->step, op->stash_event)] = false;
    if (d->plan.stash == STRATA_HOST)
        d->stashed[d->plan.model.uses[d->plan.model.stash_uses[op->stash_event]].index]++;
}

static void note_written(struct driver *d, const struct op *op)
{
    const struct frame_tokens *frame = frame_of(d, op);
    bool framed =
        d->plan.states_on_device ||
        (op->what == WHAT_STATE && d->plan.homes[STRATA_STATE].tier[op->tile] == STRATA_NVME);
    if (op->what == WHAT_STATE)
        *content(d, op->tile, op->slot) = framed ? frame->state : d->states[op->tile];
    else if (op->what == WHAT_PARAM)
        d->params[op->tile] = frame->param;
    else if (op->what == WHAT_GRAD)
        d->grads[op->tile] = frame->grad;
    else if (op->what == WHAT_STASH)
        d->stashed[d->plan.model.uses[d->plan.model.stash_uses[op->stash_event]].index]++;
}

static void note_done(struct driver *d, struct op *op)
{
    switch (op->kind) {
    case OP_UPDATE:
        note_update(d, op);
        break;
    case OP_NVME_READ:
        note_read(d, op);
        break;
    case OP_NVME_WRITE:
        note_written(d, op);
        break;
    case OP_D2H:
        note_copy_out(d, op);
        break;
    case OP_H2D:
        if (op->what == WHAT_PARAM && op->placement == STRATA_NONE)
            d->params[op->tile] = frame_of(d, op)->param;
        break;
    case OP_NORM:
        if (d->plan.homes[STRATA_GRAD].tier[op->tile] == STRATA_DEVICE)
            d->grads[op->tile] = d->base + op->step + 1;
        d->norms[op->tile]++;
        if (roll(d, 4) == 0 && d->verdicts[d->base + op->step] != VERDICT_WITHIN)
            op->verdict = d->verdicts[d->base + op->step];
        break;
    case OP_TOTAL:
        op->verdict = d->verdicts[d->base + op->step];
        break;
    case OP_COMMIT:
        note_commit(d);
        break;
    default:
        break;
    }
}

static void check_stash(struct driver *d, const struct op *op)
{
    if (op->stash_event == STRATA_NONE || (op->kind != OP_D2H && op->kind != OP_H2D))
        return;
    uint32_t block = block_of(d, op->step, op->stash_event);
    const struct use *u = &d->plan.model.uses[d->plan.model.stash_uses[op->stash_event]];
    if (op->kind == OP_D2H) {
        HOLDS(d->block_busy[block]);
        return;
    }
    HOLDS(!d->block_busy[block]);
    HOLDS(d->stashed[u->index] == op->step + 1);
    d->block_busy[block] = true;
}

static void start_ops(struct driver *d)
{
    struct op op;
    while (strata_schedule_next(d->schedule, &op)) {
        if (op.kind == OP_OPEN) {
            uint32_t gate = op.placement != STRATA_NONE
                                ? op.placement
                                : d->plan.residency.count + op.stash_event;
            HOLDS(d->gates[gate] == op.step);
            d->gates[gate] = op.step + 1;
            continue;
        }
        check_start(d, &op);
        check_stash(d, &op);
        check_comm(d, &op);
        check_record(d, &op);
        check_commit(d, &op);
        HOLDS(d->running_count < MAX_RUNNING);
        if (d->problem != NULL)
            return;
        d->running[d->running_count++] = op;
    }
}

/* The stream's next entry, if its gates are open. */
static bool stream_moves(struct driver *d)
{
    if (d->queue_first == d->queue_last)
        return false;
    struct stream_entry entry = d->queue[d->queue_first];
    const struct use *u = &d->plan.model.uses[entry.use];
    const struct residency *residency = &d->plan.residency;
    if (u->kind == STRATA_USE_ACQUIRE) {
        uint32_t grad = residency->use_grad[entry.use];
        if (d->gates[residency->use_param[entry.use]] <= entry.step ||
            (grad != STRATA_NONE && d->gates[grad] <= entry.step))
            return false;
        const struct group *group = &d->plan.model.groups[u->index];
        for (uint32_t i = 0; i < group->tile_count; i++)
            HOLDS(d->params[group->first_tile + i] == d->truth[d->base + entry.step]);
    } else if (u->kind == STRATA_USE_RELEASE) {
        strata_schedule_released(d->schedule, entry.step, entry.use);
    } else if (d->plan.stash != STRATA_DEVICE) {
        if (u->kind == STRATA_USE_UNSTASH &&
            d->gates[residency->count + u->stash_event] <= entry.step)
            return false;
        uint32_t block = block_of(d, entry.step, u->stash_event);
        HOLDS(d->block_busy[block] == (u->kind == STRATA_USE_UNSTASH));
        d->block_busy[block] = u->kind == STRATA_USE_STASH;
        strata_schedule_copied(d->schedule, entry.step, u->stash_event);
    }
    d->queue_first++;
    return true;
}

static bool caller_moves(struct driver *d)
{
    if (d->base + d->step == STEPS)
        return false;
    const struct use *u = &d->plan.model.uses[d->use];
    if (u->kind != STRATA_USE_RELEASE) {
        bool news = !d->asked;
        if (news)
            strata_schedule_ask(d->schedule, d->step, d->use);
        d->asked = true;
        if (!strata_schedule_granted(d->schedule, d->step, d->use))
            return news;
    }
    d->asked = false;
    d->queue[d->queue_last++] = (struct stream_entry){d->step, d->use};
    if (++d->use == d->plan.model.use_count) {
        d->use = 0;
        d->step++;
    }
    return true;
}

/* A collective ends once all ranks have begun it. */
static bool comm_may_end(const struct driver *d, const struct op *op)
{
    if (op->lane != STRATA_LANE_COMM)
        return true;
    for (uint32_t i = 0; i < d->ranks; i++)
        if (d->peers[i].comm_count < d->comm_count)
            return false;
    return true;
}

static bool lane_moves(struct driver *d)
{
    if (d->running_count == 0)
        return false;
    uint32_t i = (uint32_t)roll(d, d->running_count);
    if (!comm_may_end(d, &d->running[i]))
        i = (i + 1) % d->running_count; /* a rank has one collective at a time */
    if (!comm_may_end(d, &d->running[i]))
        return false;
    struct op op = d->running[i];
    d->running[i] = d->running[--d->running_count];
    note_done(d, &op);
    strata_schedule_done(d->schedule, &op);
    return true;
}

/* At the end states are brought up to the last step, which is committed if it is not yet.
 * false: there is nothing to do. */
static bool save_rest(struct driver *d)
{
    if (!strata_schedule_settled(d->schedule)) {
        HOLDS(!d->settled);
        d->settled = true;
        strata_schedule_settle(d->schedule);
        start_ops(d);
        return d->problem == NULL;
    }
    if (!d->schedule_desc.slots.durable)
        return false;
    if (strata_schedule_committed(d->schedule) == STEPS)
        return false;
    HOLDS(!d->saved);
    d->saved = true;
    strata_schedule_save(d->schedule);
    start_ops(d);
    return d->problem == NULL;
}

static void begin(struct driver *d)
{
    if (d->schedule_desc.slots.durable)
        strata_schedule_recover(d->schedule, d->durable, d->durable_count, d->commit_every);
    strata_schedule_start(d->schedule);
    start_ops(d);
}

static bool plan_again(struct driver *d)
{
    strata_error error = {0};
    strata_plan_free(&d->plan);
    return plan_once(d, &d->plan_desc, &d->what, &error);
}

/* The process ends at once, and another goes on from what is durable. What was being written is
 * torn already. */
static void crash(struct driver *d)
{
    HOLDS(plan_again(d));
    if (d->problem != NULL)
        return;
    d->base = d->durable[0].step;
    d->step = d->use = d->queue_first = d->queue_last = d->running_count = 0;
    d->asked = d->saved = d->settled = false;
    d->block_busy[0] = d->block_busy[1] = false;
    memset(d->gates, 0, strata_schedule_gate_count(&d->plan) * sizeof *d->gates);
    memset(d->stashed, 0, d->plan.model.stash_block_count * sizeof *d->stashed);
    for (uint32_t i = 0; i < d->plan.model.tile_count; i++) {
        for (uint32_t line = 0; line < d->durable_count; line++)
            HOLDS(*content(d, i, d->durable[line].slots[i]) == d->truth[d->durable[line].step]);
        d->norms[i] = d->base;
        d->params[i] = d->states[i] = d->truth[d->base];
        d->grads[i] = TORN;
    }
    begin(d);
}

/* One move of a rank, whoever can. */
static bool move(struct driver *d)
{
    uint32_t first = (uint32_t)roll(d, 3);
    bool moved = false;
    for (uint32_t i = 0; i < 3 && !moved; i++) {
        uint32_t who = (first + i) % 3;
        moved = who == 0 ? caller_moves(d) : who == 1 ? stream_moves(d) : lane_moves(d);
    }
    start_ops(d);
    if (moved && --d->moves_left == 0)
        crash(d);
    return moved;
}

/* Nothing moves any more: the steps are done, or something is left to do at the end. */
static bool ends(struct driver *d)
{
    HOLDS(d->base + d->step == STEPS && d->queue_first == d->queue_last);
    HOLDS(d->base + strata_schedule_normed(d->schedule) == STEPS);
    HOLDS(d->base + strata_schedule_updated(d->schedule) == STEPS);
    return d->problem != NULL || !save_rest(d);
}

static void check_end(struct driver *d)
{
    for (uint32_t i = 0; i < d->plan.model.tile_count; i++) {
        HOLDS(d->norms[i] == STEPS && d->params[i] == d->truth[STEPS]);
        bool host =
            d->plan.states_on_device || d->plan.homes[STRATA_STATE].tier[i] == STRATA_HOST;
        uint64_t state =
            host ? d->states[i] : *content(d, i, strata_schedule_slot(d->schedule, i));
        HOLDS(state == d->truth[STEPS]);
    }
}

static void run(struct driver *ranks, uint32_t count)
{
    uint32_t stuck = 0;
    uint32_t ended = 0;
    for (uint32_t i = 0; i < count; i++)
        begin(&ranks[i]);
    for (uint32_t i = 0; ended < count; i = (i + 1) % count) {
        stuck = move(&ranks[i]) ? 0 : stuck + 1;
        if (ranks[i].problem != NULL)
            return;
        if (stuck < count)
            continue;
        ended = 0;
        for (uint32_t r = 0; r < count; r++)
            ended += ends(&ranks[r]);
        for (uint32_t r = 0; r < count; r++)
            if (ranks[r].problem != NULL)
                return;
        stuck = 0;
    }
    for (uint32_t i = 0; i < count; i++)
        check_end(&ranks[i]);
}

/* How each step's norm turns out, and what a state then is. */
static void make_verdicts(struct driver *d)
{
    uint64_t calm = roll(d, 2);
    for (uint32_t i = 0; i < STEPS; i++) {
        uint64_t which = roll(d, calm ? 6 : 3);
        d->verdicts[i] = which == 0 ? VERDICT_OVER : which == 1 ? VERDICT_SKIP : VERDICT_WITHIN;
        if (d->mode == UPDATES_AT_ONCE)
            d->verdicts[i] = VERDICT_WITHIN;
        bool skip = d->verdicts[i] == VERDICT_SKIP;
        d->truth[i + 1] = skip ? d->truth[i] : mix(d->truth[i], i, d->verdicts[i]);
    }
}

static struct plan_desc some_plan(struct driver *d, const struct random_model *model)
{
    struct plan_desc desc = {
        .model = &model->desc,
        .compute_dtype = roll(d, 2) ? STRATA_BF16 : STRATA_FP32,
        .state_elem_bytes = roll(d, 2) ? 12 : 8,
        .tile_elems = STRATA_BLOCK_ELEMS * (1 + (uint32_t)roll(d, 3)),
        .device_bytes = 16u << 20,
        .host_bytes = 64u << 20,
        .nvme_bytes = 256u << 20,
        .want = {some_tier(d), some_tier(d), some_tier(d)},
        .want_stash = (strata_tier)(STRATA_DEVICE + roll(d, 3)),
        .fold = d->mode == UPDATES_AHEAD && !d->what.no_overlap && roll(d, 4) != 0,
        .shard = {.ranks = d->ranks, .rank = (uint32_t)(d - d->peers)},
    };
    d->schedule_desc.slots.durable = roll(d, 3) != 0;
    d->schedule_desc.slots.ahead = roll(d, 2);
    d->schedule_desc.slots.keep = (uint32_t)roll(d, 3);
    d->schedule_desc.slots.keep_every = 1 + (uint32_t)roll(d, 2);
    d->commit_every = (uint32_t)roll(d, 4);
    desc.slots = d->schedule_desc.slots;
    if (desc.want[STRATA_STATE] == STRATA_DEVICE)
        desc.want[STRATA_PARAM] = desc.want[STRATA_GRAD] = STRATA_DEVICE;
    return desc;
}

static void take_memory(struct driver *d)
{
    uint32_t tiles = d->plan.model.tile_count;
    d->gates = calloc(strata_schedule_gate_count(&d->plan), sizeof *d->gates);
    d->stashed = calloc(d->plan.model.stash_block_count + 1, sizeof *d->stashed);
    d->comm = calloc((d->plan.residency.count + 1) * (size_t)(STEPS + 1), sizeof *d->comm);
    d->norms = calloc(4 * (size_t)tiles, sizeof *d->norms);
    d->params = d->norms + tiles;
    d->states = d->params + tiles;
    d->grads = d->states + tiles;
    d->frames = malloc(FRAME_KIND_COUNT * STRATA_MAX_FRAMES * sizeof *d->frames);
    memset(d->frames, 0xff, FRAME_KIND_COUNT * STRATA_MAX_FRAMES * sizeof *d->frames);
    d->content = calloc((size_t)tiles * (3 + STRATA_MAX_KEEP), sizeof *d->content);
    uint8_t *durable = calloc((size_t)tiles * (1 + STRATA_MAX_KEEP), 1);
    for (uint32_t i = 0; i <= STRATA_MAX_KEEP; i++)
        d->durable[i].slots = durable + (size_t)i * tiles;
    d->durable_count = d->schedule_desc.slots.durable ? 1 : 0;
}

static void free_memory(struct driver *d)
{
    free(d->gates);
    free(d->stashed);
    free(d->comm);
    free(d->norms);
    free(d->frames);
    free(d->content);
    free(d->durable[0].slots);
    strata_plan_free(&d->plan);
}

/* Everything of one rank; the seed makes model, plan and verdicts the same on all. */
static bool make_rank(struct driver *d, struct random_model *model, struct store_desc *store,
                      strata_error *error)
{
    d->random = d->what.seed * 2 + 1;
    d->mode = d->what.mode;
    d->moves_left = UINT64_MAX;
    make_model(d, model);
    make_verdicts(d);
    d->plan_desc = some_plan(d, model);
    d->plan_desc.store = store;
    if (!make_plan(d, &d->plan_desc, &d->what, error))
        return false;
    take_memory(d);
    if (d->ranks == 1 && d->schedule_desc.slots.durable && roll(d, 2))
        d->moves_left = 1 + roll(d, 400);
    d->random += (uint64_t)(d - d->peers) << 32;
    return true;
}

const char *strata_drive(const struct driver_case *what)
{
    static _Thread_local struct random_model model;
    struct driver ranks[DRIVER_MAX_RANKS];
    struct store_records records = {0};
    struct store_desc store = {
        .dirs = (const char *const[]){"."}, .dir_count = 1, .records = &records};
    strata_error error = {0};
    uint32_t count = what->ranks > 0 ? what->ranks : 1;
    uint32_t made = 0;
    const char *problem = NULL;
    memset(ranks, 0, count * sizeof *ranks);
    for (; made < count && error.status == STRATA_OK; made++) {
        struct driver *d = &ranks[made];
        d->peers = ranks;
        d->ranks = count;
        d->what = *what;
        if (!make_rank(d, &model, &store, &error))
            break;
    }
    if (made == count)
        run(ranks, count);
    else
        problem = error.message;
    for (uint32_t i = 0; i < made; i++) {
        problem = problem == NULL ? ranks[i].problem : problem;
        free_memory(&ranks[i]);
    }
    if (problem != NULL)
        snprintf(complaint, sizeof complaint, "seed %llu: %.120s",
                 (unsigned long long)what->seed, problem);
    return problem != NULL ? complaint : NULL;
}
