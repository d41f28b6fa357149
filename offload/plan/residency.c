/*
 * Laying out the device's pool over one step, as if the step ran once with nothing else to do.
 *
 * Positions of the use list are the clock. At an acquire the group's parameters are either
 * still there or get a place; with a gradient the buffer likewise. A place is chosen among the
 * corners of recent placements: no overlap with what is held, then the victim whose next use is
 * farthest, then the place that was left longest ago. If parameters that stayed stand in the
 * way of their own gradient buffer, they are given up and both are placed side by side: with
 * one group held at a time, the formula's minimum is therefore always enough.
 *
 * Thread: the engine's caller, at create.
 */

#include "offload/plan/residency.h"

#include "base/error.h"

/* How many of the latest placements offer their corners, and count as recently left. Older ones
 * were left so long ago that the difference does not matter to a prefetch. */
#define RECENT 64u

uint64_t strata_residency_minimum(const struct model *model)
{
    uint64_t held = 0;
    uint64_t most = 0;
    for (uint32_t u = 0; u < model->use_count + model->eval_use_count; u++) {
        const struct use *use = &model->uses[u];
        if (use->kind != STRATA_USE_ACQUIRE && use->kind != STRATA_USE_RELEASE)
            continue;
        const struct group_layout *group = &model->groups[use->index].layout;
        uint64_t bytes = strata_layout_param_pool_bytes(group);
        if (use->grad)
            bytes += strata_layout_grad_pool_bytes(group);
        held = use->kind == STRATA_USE_ACQUIRE ? held + bytes : held - bytes;
        most = held > most ? held : most;
    }
    return most;
}

strata_status strata_residency_create(struct residency *out, struct tables *tables,
                                      const struct model *model, strata_error *error)
{
    *out = (struct residency){0};
    /* An acquire makes at most two placements, and has a release. */
    uint32_t uses = model->use_count + model->eval_use_count;
    out->placements = strata_tables_take(tables, uses, sizeof *out->placements);
    out->use_param = strata_tables_take(tables, uses, sizeof *out->use_param);
    out->use_grad = strata_tables_take(tables, uses, sizeof *out->use_grad);
    out->parks = strata_tables_take(tables, model->group_count, sizeof *out->parks);
    out->stay = strata_tables_take(tables, uses, sizeof *out->stay);
    out->there = strata_tables_take(tables, uses, sizeof *out->there);
    out->param_now = strata_tables_take(tables, model->group_count, sizeof *out->param_now);
    out->grad_now = strata_tables_take(tables, model->group_count, sizeof *out->grad_now);
    return strata_tables_check(tables, error);
}

/* The layout in progress, of one list. stay[i] says what placement i is doing at the current
 * position. */
enum stay { GONE, STAYS, HELD };

struct layout {
    struct residency *residency;
    const struct model *model;
    uint64_t capacity;
    uint32_t first;  /* placement of the list */
    uint32_t end;    /* of those that are made */
    uint8_t *stay;   /* enum stay by placement */
    uint32_t *there; /* those that are not GONE */
    uint32_t there_count;
    uint32_t *param_now; /* by group: its placement, STRATA_NONE: not there */
    uint32_t *grad_now;
};

static bool placement_overlaps(const struct placement *a, uint64_t offset, uint64_t bytes)
{
    return a->offset < offset + bytes && offset < a->offset + a->bytes;
}

/* The next acquire that wants what a placement holds; STRATA_NONE: none in this step. */
static uint32_t next_use(const struct layout *layout, uint32_t placement)
{
    const struct placement *p = &layout->residency->placements[placement];
    const struct use *last = &layout->model->uses[layout->model->uses[p->last_use].partner];
    return p->kind == PLACEMENT_PARAM ? last->next : last->next_grad;
}

struct candidate {
    uint64_t offset;
    uint32_t victim_use; /* soonest next use among those that would have to go */
    uint32_t left_use;   /* latest release among those it comes after */
};

static uint32_t first_recent(const struct layout *layout)
{
    bool more = layout->end - layout->first > RECENT;
    return more ? layout->end - RECENT : layout->first;
}

/* Fill in what a placement at this offset would push out. false: something held is in the way.
 */
static bool weigh_offset(const struct layout *layout, uint64_t offset, uint64_t bytes,
                         struct candidate *out)
{
    const struct residency *residency = layout->residency;
    *out = (struct candidate){.offset = offset, .victim_use = STRATA_NONE};
    for (uint32_t k = 0; k < layout->there_count; k++) {
        uint32_t i = layout->there[k];
        const struct placement *p = &residency->placements[i];
        if (p->bytes == 0 || !placement_overlaps(p, offset, bytes))
            continue;
        if (layout->stay[i] == HELD)
            return false;
        if (next_use(layout, i) < out->victim_use)
            out->victim_use = next_use(layout, i);
    }
    for (uint32_t i = first_recent(layout); i < layout->end; i++) {
        const struct placement *p = &residency->placements[i];
        if (p->bytes != 0 && placement_overlaps(p, offset, bytes) &&
            p->last_use + 1 > out->left_use)
            out->left_use = p->last_use + 1;
    }
    return true;
}

static bool is_better_candidate(const struct candidate *a, const struct candidate *b)
{
    if (a->victim_use != b->victim_use)
        return a->victim_use > b->victim_use;
    if (a->left_use != b->left_use)
        return a->left_use < b->left_use;
    return a->offset < b->offset;
}

/* The best place for so many bytes among the corners of recent placements and of the pool. */
static bool choose_offset(const struct layout *layout, uint64_t bytes, uint64_t *out_offset)
{
    const struct residency *residency = layout->residency;
    struct candidate best = {0};
    bool found = false;
    for (uint32_t i = first_recent(layout); i <= layout->end; i++) {
        uint64_t corners[2] = {0, layout->capacity - bytes};
        if (i < layout->end) {
            const struct placement *p = &residency->placements[i];
            corners[0] = p->offset + p->bytes;
            corners[1] = p->offset >= bytes ? p->offset - bytes : 0;
        }
        for (uint32_t c = 0; c < 2; c++) {
            struct candidate candidate;
            if (corners[c] + bytes > layout->capacity ||
                !weigh_offset(layout, corners[c], bytes, &candidate))
                continue;
            if (!found || is_better_candidate(&candidate, &best))
                best = candidate;
            found = true;
        }
    }
    *out_offset = best.offset;
    return found;
}

/* Take a placement off the list of those that are there. */
static void remove_placement(struct layout *layout, uint32_t placement)
{
    uint32_t k = 0;
    while (layout->there[k] != placement)
        k++;
    layout->there[k] = layout->there[--layout->there_count];
    layout->stay[placement] = GONE;
}

/* A placement is over. A gradient that is wanted again is parked. */
static void end_stay(struct layout *layout, uint32_t placement)
{
    struct placement *p = &layout->residency->placements[placement];
    uint32_t *now = p->kind == PLACEMENT_PARAM ? layout->param_now : layout->grad_now;
    if (p->kind == PLACEMENT_GRAD && next_use(layout, placement) != STRATA_NONE) {
        p->park_out = true;
        layout->residency->parks[p->group] = true;
    }
    remove_placement(layout, placement);
    now[p->group] = STRATA_NONE;
}

/* Add a placement. What stayed in its place has to go. */
static void begin_stay(struct layout *layout, struct placement placement)
{
    struct residency *residency = layout->residency;
    /* Backwards, since end_stay() moves the last entry into the place that it frees. */
    for (uint32_t k = layout->there_count; k-- > 0;) {
        uint32_t i = layout->there[k];
        if (layout->stay[i] == STAYS && residency->placements[i].bytes != 0 &&
            placement_overlaps(&residency->placements[i], placement.offset, placement.bytes))
            end_stay(layout, i);
    }
    uint32_t *now = placement.kind == PLACEMENT_PARAM ? layout->param_now : layout->grad_now;
    uint32_t index = layout->end++;
    residency->placements[index] = placement;
    layout->stay[index] = HELD;
    layout->there[layout->there_count++] = index;
    now[placement.group] = index;
    if (placement.offset + placement.bytes > residency->pool_bytes)
        residency->pool_bytes = placement.offset + placement.bytes;
    if (placement.kind == PLACEMENT_PARAM && !placement.home)
        residency->load_count++;
}

static struct placement make_placement(const struct layout *layout, enum placement_kind kind,
                                       uint32_t acquire, uint64_t offset)
{
    const struct use *use = &layout->model->uses[acquire];
    const struct group_layout *of = &layout->model->groups[use->index].layout;
    bool param = kind == PLACEMENT_PARAM;
    return (struct placement){
        .kind = kind,
        .group = use->index,
        .first_use = acquire,
        .last_use = use->partner,
        .home = param && of->in_device[STRATA_PARAM],
        .offset = offset,
        .bytes = param ? strata_layout_param_pool_bytes(of) : strata_layout_grad_pool_bytes(of),
    };
}

/* What stays is used again, up to this release. */
static void hold_placement(struct layout *layout, uint32_t placement, uint32_t release)
{
    layout->stay[placement] = HELD;
    layout->residency->placements[placement].last_use = release;
}

/* Give up the group's own parameters and place them and the gradient buffer side by side. */
static bool place_pair(struct layout *layout, uint32_t acquire, bool park_in)
{
    struct placement param = make_placement(layout, PLACEMENT_PARAM, acquire, 0);
    struct placement grad = make_placement(layout, PLACEMENT_GRAD, acquire, 0);
    uint64_t offset;
    if (param.bytes + grad.bytes > layout->capacity ||
        !choose_offset(layout, param.bytes + grad.bytes, &offset))
        return false;
    param.offset = offset;
    grad.offset = offset + param.bytes;
    grad.park_in = park_in;
    begin_stay(layout, param);
    begin_stay(layout, grad);
    return true;
}

static bool place_one(struct layout *layout, enum placement_kind kind, uint32_t acquire,
                      bool park_in)
{
    struct placement placement = make_placement(layout, kind, acquire, 0);
    if (placement.bytes > layout->capacity)
        return false;
    if (placement.bytes != 0 && !choose_offset(layout, placement.bytes, &placement.offset))
        return false;
    placement.park_in = park_in;
    begin_stay(layout, placement);
    return true;
}

/* A place for the gradient buffer. If the group's own parameters are in its way, both move. */
static bool lay_out_grad(struct layout *layout, uint32_t u, bool param_was_there)
{
    uint32_t group = layout->model->uses[u].index;
    bool parked = layout->residency->parks[group];
    if (layout->grad_now[group] != STRATA_NONE) {
        hold_placement(layout, layout->grad_now[group], layout->model->uses[u].partner);
        return true;
    }
    if (place_one(layout, PLACEMENT_GRAD, u, parked))
        return true;
    uint32_t param = layout->param_now[group];
    if (layout->residency->placements[param].home)
        return false;
    if (!param_was_there) {
        /* It was placed for this acquire and nobody has used it: take it back. */
        layout->end--;
        layout->residency->load_count--;
        remove_placement(layout, param);
        layout->param_now[group] = STRATA_NONE;
    } else {
        layout->residency->placements[param].last_use = layout->model->uses[u].partner;
        layout->stay[param] = STAYS;
        /* Its stay ended with the release of the group before this acquire. */
        for (uint32_t v = layout->residency->placements[param].first_use; v < u; v++)
            if (layout->model->uses[v].kind == STRATA_USE_RELEASE &&
                layout->model->uses[v].index == group)
                layout->residency->placements[param].last_use = v;
        end_stay(layout, param);
    }
    return place_pair(layout, u, parked);
}

static bool lay_out_acquire(struct layout *layout, uint32_t u)
{
    struct residency *residency = layout->residency;
    const struct use *use = &layout->model->uses[u];
    bool there = layout->param_now[use->index] != STRATA_NONE;
    if (there)
        hold_placement(layout, layout->param_now[use->index], use->partner);
    else if (!place_one(layout, PLACEMENT_PARAM, u, false))
        return false;
    if (use->grad && !lay_out_grad(layout, u, there))
        return false;
    residency->use_param[u] = residency->use_param[use->partner] =
        layout->param_now[use->index];
    residency->use_grad[u] = residency->use_grad[use->partner] =
        use->grad ? layout->grad_now[use->index] : STRATA_NONE;
    return true;
}

/* A use has ended. What has no later use in this step goes. */
static void end_use(struct layout *layout, uint32_t placement)
{
    layout->stay[placement] = STAYS;
    if (next_use(layout, placement) == STRATA_NONE)
        end_stay(layout, placement);
}

static void lay_out_release(struct layout *layout, uint32_t u)
{
    const struct use *use = &layout->model->uses[u];
    end_use(layout, layout->param_now[use->index]);
    if (use->grad)
        end_use(layout, layout->grad_now[use->index]);
}

static bool lay_out_list(struct layout *layout, struct use_list list)
{
    const struct model *model = layout->model;
    layout->first = layout->end;
    for (uint32_t g = 0; g < model->group_count; g++)
        layout->param_now[g] = layout->grad_now[g] = STRATA_NONE;
    for (uint32_t u = list.first; u < list.end; u++) {
        if (model->uses[u].kind == STRATA_USE_ACQUIRE && !lay_out_acquire(layout, u))
            return false;
        if (model->uses[u].kind == STRATA_USE_RELEASE)
            lay_out_release(layout, u);
    }
    return true;
}

bool strata_residency_build(struct residency *residency, const struct model *model,
                            uint64_t capacity)
{
    residency->load_count = 0;
    residency->pool_bytes = 0;
    struct layout layout = {
        .residency = residency,
        .model = model,
        .capacity = capacity,
        .stay = residency->stay,
        .there = residency->there,
        .param_now = residency->param_now,
        .grad_now = residency->grad_now,
    };
    for (uint32_t g = 0; g < model->group_count; g++)
        residency->parks[g] = false;
    if (!lay_out_list(&layout, strata_model_list(model, false)))
        return false;
    residency->count = layout.end;
    uint32_t load_count = residency->load_count;
    if (!lay_out_list(&layout, strata_model_list(model, true)))
        return false;
    residency->eval_count = layout.end - residency->count;
    residency->load_count = load_count;
    return true;
}
