#include "tests/support/driver_internal.h"

#include <stdio.h>
#include <string.h>

static _Thread_local char complaint[160];

static void start_ops(struct driver *d)
{
    struct op op;
    while (strata_schedule_next(d->schedule, &op)) {
        if (op.kind == OP_OPEN) {
            uint64_t *gate = &d->gates[strata_schedule_gate_of(&d->plan, &op)];
            HOLDS(*gate < op.gate_value);
            *gate = op.gate_value;
            continue;
        }
        strata_driver_check(d, &op);
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
        if (d->gates[residency->use_param[entry.use]] < entry.gate_value ||
            (grad != STRATA_NONE && d->gates[grad] < entry.gate_value))
            return false;
        const struct group *group = &d->plan.model.groups[u->index];
        for (uint32_t i = 0; i < group->layout.tile_count; i++)
            HOLDS(d->params[group->layout.first_tile + i] ==
                  strata_driver_truth(d, group->layout.first_tile + i, d->base + entry.steps));
    } else if (u->kind == STRATA_USE_RELEASE) {
        strata_schedule_released(d->schedule, entry.turn, entry.use);
    } else if (d->plan.stash != STRATA_DEVICE) {
        if (u->kind == STRATA_USE_UNSTASH &&
            d->gates[strata_schedule_stash_gate(&d->plan, u->stash_event)] < entry.gate_value)
            return false;
        uint32_t block = strata_driver_block(d, entry.turn, u->stash_event);
        HOLDS(d->block_busy[block] == (u->kind == STRATA_USE_UNSTASH));
        d->block_busy[block] = u->kind == STRATA_USE_STASH;
        strata_schedule_copied(d->schedule, entry.turn, u->stash_event);
    }
    d->queue_first++;
    return true;
}

/* Records on NVMe are written anew with what they hold, to slots that no commit names. */
static void rewrite(struct driver *d)
{
    for (uint32_t tile = 0; tile < d->plan.model.trained_tile_count; tile++) {
        if (d->plan.homes[STRATA_STATE].tier[tile] != STRATA_NVME)
            continue;
        uint32_t slot = strata_schedule_rewrite(d->schedule, tile);
        HOLDS(slot == strata_schedule_slot(d->schedule, tile));
        for (uint32_t i = 0; i < d->durable_count; i++)
            HOLDS(d->durable[i].slots[tile] != slot);
        *strata_driver_content(d, tile, slot) = d->truth[d->base + d->step];
    }
}

/* Before a step, now and then: an evaluation begins, or the way to a commit or a rewrite. */
static bool pause_begins(struct driver *d)
{
    d->paused = true;
    if (d->pauses_left == 0 || strata_driver_roll(d, 2))
        return false;
    d->pauses_left--;
    if (d->plan.model.eval_use_count == 0 || strata_driver_roll(d, 3) == 0) {
        d->rest = UPDATING;
        return true;
    }
    strata_schedule_hold(d->schedule, d->step);
    strata_schedule_evaluate(d->schedule);
    d->holds++;
    d->eval_steps[d->evaluations++] = d->step;
    d->evaluating = true;
    d->use = d->plan.model.use_count;
    return true;
}

/* On the way to a commit or a rewrite: states up to the last step; then nothing under way. */
static bool rest_moves(struct driver *d)
{
    if (d->rest == UPDATING) {
        if (strata_schedule_updated(d->schedule) < d->step)
            return false;
        strata_schedule_settle(d->schedule);
        d->rest = SETTLING;
        return true;
    }
    if (d->rest == SETTLING) {
        if (!strata_schedule_settled(d->schedule))
            return false;
        if (d->schedule_desc.slots.durable && strata_driver_roll(d, 2)) {
            strata_schedule_save(d->schedule);
            d->rest = COMMITTING;
            return true;
        }
        strata_schedule_hold(d->schedule, d->step);
        d->holds++;
        d->rest = HOLDING;
        return true;
    }
    if (d->rest == COMMITTING) {
        if (strata_schedule_committed(d->schedule) < d->base + d->step)
            return false;
        d->rest = NO_REST;
        return true;
    }
    if (!strata_schedule_resting(d->schedule))
        return false;
    HOLDS(d->running_count == 0);
    rewrite(d);
    strata_schedule_go_on(d->schedule);
    d->rest = NO_REST;
    return true;
}

/* The caller has queued a use. */
static void end_use(struct driver *d)
{
    const struct model *model = &d->plan.model;
    d->asked = false;
    d->use++;
    if (d->evaluating && d->use == model->use_count + model->eval_use_count) {
        strata_schedule_go_on(d->schedule);
        d->evaluating = false;
        d->use = 0;
    } else if (!d->evaluating && d->use == model->use_count) {
        d->use = 0;
        d->step++;
        d->paused = false;
    }
}

static bool caller_moves(struct driver *d)
{
    if (d->rest != NO_REST)
        return rest_moves(d);
    if (d->use == 0 && !d->paused && !d->asked && pause_begins(d))
        return true;
    if (d->base + d->step == STEPS && !d->evaluating)
        return false;
    const struct use *u = &d->plan.model.uses[d->use];
    uint64_t turn = d->evaluating ? d->evaluations - 1 : d->step;
    if (u->kind != STRATA_USE_RELEASE) {
        bool news = !d->asked;
        if (news)
            strata_schedule_ask(d->schedule, turn, d->use);
        d->asked = true;
        if (!strata_schedule_granted(d->schedule, turn, d->use))
            return news;
    }
    d->queue[d->queue_last++] =
        (struct stream_entry){.turn = turn,
                              .gate_value = turn + 1 + (d->evaluating ? 0 : d->holds),
                              .steps = d->step,
                              .use = d->use};
    end_use(d);
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
    uint32_t i = (uint32_t)strata_driver_roll(d, d->running_count);
    if (!comm_may_end(d, &d->running[i]))
        i = (i + 1) % d->running_count; /* a rank has one collective at a time */
    if (!comm_may_end(d, &d->running[i]))
        return false;
    struct op op = d->running[i];
    d->running[i] = d->running[--d->running_count];
    strata_driver_note_done(d, &op);
    strata_schedule_done(d->schedule, &op);
    /* A commit that was asked for while an earlier one was being made. */
    if (op.kind == OP_COMMIT && d->rest == COMMITTING)
        strata_schedule_save(d->schedule);
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
    return strata_driver_plan(d, &d->plan_desc, &d->what, &error);
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
    d->asked = d->saved = d->settled = d->paused = d->evaluating = false;
    d->rest = NO_REST;
    d->evaluations = d->holds = 0;
    memset(d->block_busy, 0, sizeof d->block_busy);
    memset(d->gates, 0, strata_schedule_gate_count(&d->plan) * sizeof *d->gates);
    memset(d->stashed, 0, 2 * MAX_USES * sizeof *d->stashed);
    for (uint32_t i = 0; i < d->plan.model.tile_count; i++) {
        for (uint32_t line = 0; line < d->durable_count; line++)
            HOLDS(*strata_driver_content(d, i, d->durable[line].slots[i]) ==
                  strata_driver_truth(d, i, d->durable[line].step));
        d->norms[i] = d->base;
        d->params[i] = d->states[i] = strata_driver_truth(d, i, d->base);
        d->grads[i] = TORN;
    }
    begin(d);
}

/* One move of a rank, whoever can. */
static bool move(struct driver *d)
{
    uint32_t first = (uint32_t)strata_driver_roll(d, 3);
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
    HOLDS(d->rest == NO_REST && !d->evaluating);
    HOLDS(d->base + strata_schedule_normed(d->schedule) == STEPS);
    HOLDS(d->base + strata_schedule_updated(d->schedule) == STEPS);
    return d->problem != NULL || !save_rest(d);
}

static void check_end(struct driver *d)
{
    for (uint32_t i = 0; i < d->plan.model.tile_count; i++) {
        HOLDS(d->params[i] == strata_driver_truth(d, i, STEPS));
        if (strata_plan_is_frozen(&d->plan, i))
            continue;
        HOLDS(d->norms[i] == STEPS);
        bool host = strata_plan_state_in_device(&d->plan, i) ||
                    d->plan.homes[STRATA_STATE].tier[i] == STRATA_HOST;
        uint64_t state =
            host ? d->states[i]
                 : *strata_driver_content(d, i, strata_schedule_slot(d->schedule, i));
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
        if (!strata_driver_make(d, &model, &store, &error))
            break;
    }
    if (made == count)
        run(ranks, count);
    else
        problem = error.message;
    for (uint32_t i = 0; i < made; i++) {
        problem = problem == NULL ? ranks[i].problem : problem;
        strata_driver_free(&ranks[i]);
    }
    if (problem != NULL)
        snprintf(complaint, sizeof complaint, "seed %llu: %.120s",
                 (unsigned long long)what->seed, problem);
    return problem != NULL ? complaint : NULL;
}
