/*
 * What the driver runs: a random model, in half of the cases with frozen groups, a plan with
 * random homes and budgets, and how each step's norm turns out. All from the seed.
 */

#include "tests/support/driver_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t strata_driver_roll(struct driver *d, uint64_t below)
{
    d->random = d->random * 6364136223846793005u + 1442695040888963407u;
    return (d->random >> 33) % below;
}

static void use(struct random_model *m, strata_use_kind kind, uint32_t index, bool grad)
{
    bool trained = kind == STRATA_USE_ACQUIRE && !m->groups[index].frozen;
    if (m->desc.use_count < MAX_USES)
        m->uses[m->desc.use_count++] =
            (strata_use){.kind = kind, .index = index, .grad = grad && trained};
}

static void eval_use(struct random_model *m, strata_use_kind kind, uint32_t index)
{
    m->eval_uses[m->desc.eval_use_count++] = (strata_use){.kind = kind, .index = index};
}

/* Forward through some of the groups, some held across others; blocks are taken back at once or
 * at the end. */
static void make_evaluation(struct driver *d, struct random_model *m, bool stash)
{
    uint32_t groups = m->desc.group_count;
    bool at_once = strata_driver_roll(d, 2);
    for (uint32_t g = 0; g < groups; g++) {
        uint32_t inner = (uint32_t)strata_driver_roll(d, groups);
        if (stash)
            eval_use(m, STRATA_USE_STASH, g);
        if (strata_driver_roll(d, 4) != 0 || g == 0) {
            eval_use(m, STRATA_USE_ACQUIRE, g);
            if (inner != g && strata_driver_roll(d, 3) == 0) {
                eval_use(m, STRATA_USE_ACQUIRE, inner);
                eval_use(m, STRATA_USE_RELEASE, inner);
            }
            eval_use(m, STRATA_USE_RELEASE, g);
        }
        if (stash && at_once)
            eval_use(m, STRATA_USE_UNSTASH, g);
    }
    for (uint32_t g = groups; stash && !at_once && g-- > 0;)
        eval_use(m, STRATA_USE_UNSTASH, g);
    m->desc.eval_uses = m->eval_uses;
}

/* Forward, some extra uses in the middle, backward; some groups held across others. Or no
 * forward, so that a step's first gradients come before its last parameters are wanted. */
static void make_model(struct driver *d, struct random_model *m)
{
    uint32_t groups = 1 + (uint32_t)strata_driver_roll(d, MAX_GROUPS);
    bool forward = strata_driver_roll(d, 4) != 0;
    bool stash = forward && strata_driver_roll(d, 2);
    memset(m, 0, sizeof *m);
    for (uint32_t g = 0; g < groups; g++) {
        snprintf(m->names[g], sizeof m->names[g], "g%u", g);
        m->tensors[g] =
            (strata_tensor_desc){.name = m->names[g],
                                 .shape = {1 + strata_driver_roll(d, 6 * STRATA_BLOCK_ELEMS)},
                                 .rank = 1};
        m->groups[g] = (strata_group_desc){
            .name = m->names[g], .tensors = &m->tensors[g], .tensor_count = 1};
    }
    /* One group at least is trained. */
    uint32_t trained = (uint32_t)strata_driver_roll(d, groups);
    bool some_frozen = strata_driver_roll(d, 2);
    for (uint32_t g = 0; g < groups; g++)
        m->groups[g].frozen = some_frozen && g != trained && strata_driver_roll(d, 2);
    for (uint32_t g = 0; forward && g < groups; g++) {
        if (stash)
            use(m, STRATA_USE_STASH, g, false);
        use(m, STRATA_USE_ACQUIRE, g, false);
        use(m, STRATA_USE_RELEASE, g, false);
    }
    for (uint32_t extra = 1 + (uint32_t)strata_driver_roll(d, 3); extra > 0; extra--) {
        uint32_t g = (uint32_t)strata_driver_roll(d, groups);
        uint32_t inner = (uint32_t)strata_driver_roll(d, groups);
        use(m, STRATA_USE_ACQUIRE, g, strata_driver_roll(d, 2));
        if (inner != g && strata_driver_roll(d, 3) == 0) {
            use(m, STRATA_USE_ACQUIRE, inner, strata_driver_roll(d, 2));
            use(m, STRATA_USE_RELEASE, inner, false);
        }
        use(m, STRATA_USE_RELEASE, g, false);
        /* A block is carried: it comes back and leaves again. */
        if (stash && strata_driver_roll(d, 2)) {
            use(m, STRATA_USE_UNSTASH, inner, false);
            use(m, STRATA_USE_STASH, inner, false);
        }
    }
    for (uint32_t g = groups; g-- > 0;) {
        if (stash)
            use(m, STRATA_USE_UNSTASH, g, false);
        use(m, STRATA_USE_ACQUIRE, g, true);
        use(m, STRATA_USE_RELEASE, g, false);
    }
    m->desc.groups = m->groups;
    m->desc.group_count = groups;
    if (d->ranks == 1 && strata_driver_roll(d, 2))
        make_evaluation(d, m, strata_driver_roll(d, 2));
    m->desc.uses = m->uses;
    m->desc.stash_bytes = 4096;
    m->desc.scratch_bytes = 4096;
}

static strata_tier some_tier(struct driver *d)
{
    static const strata_tier tiers[] = {STRATA_AUTO, STRATA_HOST, STRATA_NVME, STRATA_NVME,
                                        STRATA_DEVICE};
    /* Shards that rest in the device would have to be gathered there: not planned yet. */
    return tiers[strata_driver_roll(d, d->ranks > 1 ? 4 : 5)];
}

static struct plan_desc some_plan(struct driver *d, const struct random_model *model)
{
    struct plan_desc desc = {
        .model = &model->desc,
        .compute_dtype = strata_driver_roll(d, 2) ? STRATA_BF16 : STRATA_FP32,
        .record = {1, STRATA_BLOCK_ELEMS * (strata_driver_roll(d, 2) ? 12u : 8u)},
        .tile_elems = STRATA_BLOCK_ELEMS * (1 + (uint32_t)strata_driver_roll(d, 3)),
        .device_bytes = 16u << 20,
        .host_bytes = 64u << 20,
        .nvme_bytes = 256u << 20,
        .want = {some_tier(d), some_tier(d), some_tier(d)},
        .want_stash = (strata_tier)(STRATA_DEVICE + strata_driver_roll(d, 3)),
        .fold =
            d->mode == UPDATES_AHEAD && !d->what.no_overlap && strata_driver_roll(d, 4) != 0,
        .shard = {.ranks = d->ranks, .rank = (uint32_t)(d - d->peers)},
    };
    d->schedule_desc.slots.durable = strata_driver_roll(d, 3) != 0;
    d->schedule_desc.slots.ahead = strata_driver_roll(d, 2);
    d->schedule_desc.slots.keep = (uint32_t)strata_driver_roll(d, 3);
    d->schedule_desc.slots.keep_every = 1 + (uint32_t)strata_driver_roll(d, 2);
    d->commit_every = (uint32_t)strata_driver_roll(d, 4);
    desc.slots = d->schedule_desc.slots;
    if (desc.want[STRATA_STATE] == STRATA_DEVICE)
        desc.want[STRATA_PARAM] = desc.want[STRATA_GRAD] = STRATA_DEVICE;
    return desc;
}

bool strata_driver_plan(struct driver *d, struct plan_desc *desc,
                        const struct driver_case *what, strata_error *error)
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
    uint64_t device_spare = what->minimum ? 0 : strata_driver_roll(d, 4u << 20);
    uint64_t host_spare = what->minimum ? 0 : strata_driver_roll(d, 24u << 20);
    for (int tighten = 0; tighten < 3; tighten++) {
        if (!strata_driver_plan(d, desc, what, error)) {
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

/* How each step's norm turns out, and what a state then is. */
static void make_verdicts(struct driver *d)
{
    uint64_t calm = strata_driver_roll(d, 2);
    for (uint32_t i = 0; i < STEPS; i++) {
        uint64_t which = strata_driver_roll(d, calm ? 6 : 3);
        d->verdicts[i] = which == 0 ? VERDICT_OVER : which == 1 ? VERDICT_SKIP : VERDICT_WITHIN;
        if (d->mode == UPDATES_AT_ONCE)
            d->verdicts[i] = VERDICT_WITHIN;
        bool skip = d->verdicts[i] == VERDICT_SKIP;
        d->truth[i + 1] =
            skip ? d->truth[i] : strata_driver_mix(d->truth[i], i, d->verdicts[i]);
    }
}

static void take_memory(struct driver *d)
{
    uint32_t tiles = d->plan.model.tile_count;
    d->gates = calloc(strata_schedule_gate_count(&d->plan), sizeof *d->gates);
    d->stashed = calloc(2 * MAX_USES, sizeof *d->stashed);
    d->comm = calloc((d->plan.residency.count + 1) * (size_t)(STEPS + 1), sizeof *d->comm);
    d->norms = calloc(4 * (size_t)tiles, sizeof *d->norms);
    d->params = d->norms + tiles;
    d->states = d->params + tiles;
    d->grads = d->states + tiles;
    d->frames = malloc(FRAME_KIND_COUNT * STRATA_MAX_FRAMES * sizeof *d->frames);
    memset(d->frames, 0xff, FRAME_KIND_COUNT * STRATA_MAX_FRAMES * sizeof *d->frames);
    d->content = calloc((size_t)tiles * (3 + STRATA_MAX_KEEP), sizeof *d->content);
    for (uint32_t i = d->plan.model.trained_tile_count; i < tiles; i++)
        d->params[i] = *strata_driver_content(d, i, 0) = FROZEN;
    uint8_t *durable = calloc((size_t)tiles * (1 + STRATA_MAX_KEEP), 1);
    for (uint32_t i = 0; i <= STRATA_MAX_KEEP; i++)
        d->durable[i].slots = durable + (size_t)i * tiles;
    d->durable_count = d->schedule_desc.slots.durable ? 1 : 0;
}

void strata_driver_free(struct driver *d)
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

bool strata_driver_make(struct driver *d, struct random_model *model, struct store_desc *store,
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
    if (d->ranks == 1 && d->schedule_desc.slots.durable && strata_driver_roll(d, 2))
        d->moves_left = 1 + strata_driver_roll(d, 400);
    if (d->ranks == 1)
        d->pauses_left = (uint32_t)strata_driver_roll(d, PAUSES + 1);
    d->random += (uint64_t)(d - d->peers) << 32;
    return true;
}
