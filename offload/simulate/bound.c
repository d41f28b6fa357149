/*
 * Bounds; see bound.h.
 *
 * A way is what lies between a gradient and the next use of the weights it changes, of all the
 * group's tiles that go it: its own length, and what it asks of each resource. A group has one
 * from its gradient's completion; where updates wait for the norm that one ends at home, and a
 * second one begins at the norm.
 *
 * The length of a way is that of a row of stages that tiles go through one after the other: no
 * shorter than one tile through all of them, nor than all tiles through one and one tile
 * through the others.
 *
 * Thread: any.
 */

#include "offload/simulate/bound.h"

#include "offload/simulate/cost.h"

#include <math.h>

enum resource { RESOURCE_D2H, RESOURCE_CPU, RESOURCE_DRIVES, RESOURCE_H2D, RESOURCE_COUNT };

/* Of a tile. Reading its state is none of them: it need not wait for the gradient. */
enum stage {
    STAGE_GRAD_OUT,
    STAGE_NORM,
    STAGE_GRAD_WRITE,
    STAGE_GRAD_READ,
    STAGE_UPDATE,
    STAGE_PARAM_WRITE,
    STAGE_PARAM_READ,
    STAGE_PARAM_IN,
    STAGE_COUNT
};

/* The first stage that waits for the norm where an update does. */
#define STAGE_NORMED STAGE_GRAD_READ

struct bound_way {
    uint32_t from; /* release that it begins at */
    uint32_t to;   /* acquire of the next step that it is to be over by */
    double own_s;
    double d2h_s;
    double cpu_s;
    double read_s; /* of drives; without states */
    double write_s;
    double h2d_s;
    double state_read_s; /* of drives; of states alone */
    double state_write_s;
    /* The least that a tile takes; without what it takes of a resource. */
    double least_s;
    double least_without_s[RESOURCE_COUNT];
};

struct bound_scratch strata_bound_take(struct tables *tables, const struct offload_plan *plan)
{
    struct bound_scratch scratch;
    /* Two of each group, and the norm's. */
    scratch.ways =
        strata_tables_take(tables, 2 * plan->model.group_count + 1, sizeof *scratch.ways);
    scratch.stream_s =
        strata_tables_take(tables, plan->model.use_count + 1, sizeof *scratch.stream_s);
    return scratch;
}

double strata_bound_of_lanes(const strata_profile *profile, const struct bound_work *work,
                             strata_lane *out_lane)
{
    double bounds[STRATA_LANE_COUNT];
    for (int lane = 0; lane < STRATA_LANE_COUNT; lane++)
        bounds[lane] = work->lane_s[lane];
    double read_s = bounds[STRATA_LANE_NVME_READ];
    double write_s = bounds[STRATA_LANE_NVME_WRITE];
    bool writes = read_s < write_s;
    bounds[writes ? STRATA_LANE_NVME_WRITE : STRATA_LANE_NVME_READ] =
        strata_cost_of_drives(profile, read_s, write_s);
    bounds[writes ? STRATA_LANE_NVME_READ : STRATA_LANE_NVME_WRITE] = 0;
    bool computes =
        profile->host_device && bounds[STRATA_LANE_COMPUTE] > bounds[STRATA_LANE_CPU];
    double *shared = &bounds[computes ? STRATA_LANE_COMPUTE : STRATA_LANE_CPU];
    *shared = fmax(*shared, work->core_s / profile->cores);
    bounds[STRATA_LANE_CPU] =
        fmax(bounds[STRATA_LANE_CPU], work->dram_bytes / profile->dram_bytes_per_s);
    double most_s = 0;
    for (int lane = 0; lane < STRATA_LANE_COUNT; lane++) {
        if (bounds[lane] <= most_s)
            continue;
        most_s = bounds[lane];
        *out_lane = (strata_lane)lane;
    }
    return most_s;
}

/* Ways. */

static double op_s(const struct simulate_desc *desc, struct op op)
{
    return strata_cost_of(desc->plan, desc->profile, &op).work_s;
}

static double move_s(const struct simulate_desc *desc, enum op_kind kind, enum op_what what,
                     uint32_t tile)
{
    return op_s(desc, (struct op){.kind = kind, .what = what, .tile = tile});
}

/* Seconds of each stage. in: the group's weights are copied in for their first use. */
static void time_stages(const struct simulate_desc *desc, uint32_t tile, bool in,
                        double out[STAGE_COUNT])
{
    const struct offload_plan *plan = desc->plan;
    uint8_t grad = plan->homes[STRATA_GRAD].tier[tile];
    bool writes = plan->homes[STRATA_PARAM].tier[tile] == STRATA_NVME;
    uint32_t work = strata_plan_folds(plan, tile) ? UPDATE_FOLD | UPDATE_WEIGHTS | UPDATE_TAKE
                                                  : UPDATE_APPLY;
    struct op norm = {.kind = OP_NORM, .tile = tile, .on_device = grad == STRATA_DEVICE};
    struct op update = {.kind = OP_UPDATE,
                        .tile = tile,
                        .work = work,
                        .on_device = strata_plan_state_in_device(plan, tile)};
    out[STAGE_GRAD_OUT] = grad != STRATA_DEVICE ? move_s(desc, OP_D2H, WHAT_GRAD, tile) : 0;
    out[STAGE_NORM] = op_s(desc, norm);
    out[STAGE_GRAD_WRITE] =
        grad == STRATA_NVME ? move_s(desc, OP_NVME_WRITE, WHAT_GRAD, tile) : 0;
    out[STAGE_GRAD_READ] =
        grad == STRATA_NVME ? move_s(desc, OP_NVME_READ, WHAT_GRAD, tile) : 0;
    out[STAGE_UPDATE] = op_s(desc, update);
    out[STAGE_PARAM_WRITE] = writes ? move_s(desc, OP_NVME_WRITE, WHAT_PARAM, tile) : 0;
    out[STAGE_PARAM_READ] = writes ? move_s(desc, OP_NVME_READ, WHAT_PARAM, tile) : 0;
    out[STAGE_PARAM_IN] = in ? move_s(desc, OP_H2D, WHAT_PARAM, tile) : 0;
}

/* One tile more goes the way, through stages [first, end). in_device: it is updated there. */
static void add_tile(struct bound_way *way, bool in_device, const double stages[STAGE_COUNT],
                     int first, int end)
{
    double of[RESOURCE_COUNT] = {0};
    double all_s = 0;
    for (int stage = first; stage < end; stage++) {
        bool write = stage == STAGE_GRAD_WRITE || stage == STAGE_PARAM_WRITE;
        bool read = stage == STAGE_GRAD_READ || stage == STAGE_PARAM_READ;
        bool out = stage == STAGE_GRAD_OUT || in_device;
        enum resource resource = write || read             ? RESOURCE_DRIVES
                                 : stage == STAGE_PARAM_IN ? RESOURCE_H2D
                                 : out                     ? RESOURCE_D2H
                                                           : RESOURCE_CPU;
        of[resource] += stages[stage];
        all_s += stages[stage];
        way->read_s += read ? stages[stage] : 0;
        way->write_s += write ? stages[stage] : 0;
    }
    way->d2h_s += of[RESOURCE_D2H];
    way->cpu_s += of[RESOURCE_CPU];
    way->h2d_s += of[RESOURCE_H2D];
    way->least_s = fmin(way->least_s, all_s);
    for (int r = 0; r < RESOURCE_COUNT; r++)
        way->least_without_s[r] = fmin(way->least_without_s[r], all_s - of[r]);
}

static struct bound_way begin_way(uint32_t from, uint32_t to)
{
    struct bound_way way = {.from = from, .to = to, .least_s = INFINITY};
    for (int r = 0; r < RESOURCE_COUNT; r++)
        way.least_without_s[r] = INFINITY;
    return way;
}

/* lead_s: before the first tile's first stage. false: nothing goes this way. */
static bool end_way(const struct simulate_desc *desc, struct bound_way *way, double lead_s)
{
    const double all_s[RESOURCE_COUNT] = {
        way->d2h_s, way->cpu_s, strata_cost_of_drives(desc->profile, way->read_s, way->write_s),
        way->h2d_s};
    if (isinf(way->least_s))
        return false;
    way->own_s = way->least_s;
    for (int r = 0; r < RESOURCE_COUNT; r++)
        way->own_s = fmax(way->own_s, way->least_without_s[r] + all_s[r]);
    way->own_s += lead_s;
    return true;
}

/* The release at which a group's gradient is complete, and the first acquire; NONE: it is
 * frozen. */
static uint32_t completion(const struct offload_plan *plan, uint32_t group, uint32_t *out_first)
{
    const struct residency *residency = &plan->residency;
    uint32_t at = STRATA_NONE;
    *out_first = STRATA_NONE;
    for (uint32_t p = 0; p < residency->count; p++) {
        const struct placement *placement = &residency->placements[p];
        if (placement->group != group)
            continue;
        if (placement->kind == PLACEMENT_PARAM && *out_first == STRATA_NONE)
            *out_first = p;
        if (placement->kind == PLACEMENT_GRAD && !placement->park_out)
            at = p;
    }
    return at;
}

/* The ways of a group, 0 to 2 of them. last: the release with which all gradients are complete;
 * norm_s: from there until the norm is known. */
static uint32_t ways_of_group(const struct simulate_desc *desc, uint32_t g, uint32_t last,
                              double norm_s, struct bound_way out[2])
{
    const struct offload_plan *plan = desc->plan;
    const struct group_layout *layout = &plan->model.groups[g].layout;
    const struct placement *placements = plan->residency.placements;
    uint32_t first;
    uint32_t complete = completion(plan, g, &first);
    if (complete == STRATA_NONE)
        return 0;
    uint32_t to = desc->begins == STEP_AFTER_UPDATES ? 0 : placements[first].first_use;
    bool rounds = strata_layout_rounds(layout);
    double round_s =
        rounds ? op_s(desc, (struct op){.kind = OP_ROUND, .placement = complete}) : 0;
    out[0] = begin_way(placements[complete].last_use, to);
    out[1] = begin_way(last, to);
    for (uint32_t i = layout->first_tile; i < layout->first_tile + layout->tile_count; i++) {
        double stages[STAGE_COUNT];
        bool waits = strata_schedule_awaits_norm(desc->schedule, i);
        bool in_device = strata_plan_state_in_device(plan, i);
        time_stages(desc, i, !placements[first].home, stages);
        add_tile(&out[0], in_device, stages, 0, waits ? STAGE_NORMED : STAGE_COUNT);
        if (waits)
            add_tile(&out[1], in_device, stages, STAGE_NORMED, STAGE_COUNT);
        if (plan->homes[STRATA_STATE].tier[i] != STRATA_NVME)
            continue;
        out[waits].state_read_s += move_s(desc, OP_NVME_READ, WHAT_STATE, i);
        out[waits].state_write_s += move_s(desc, OP_NVME_WRITE, WHAT_STATE, i);
    }
    uint32_t count = end_way(desc, &out[0], round_s);
    out[0].d2h_s += round_s;
    return count + end_way(desc, &out[1], norm_s);
}

/* From the last gradient's completion to the norm of the step. */
static struct bound_way norm_way(const struct simulate_desc *desc)
{
    const struct residency *residency = &desc->plan->residency;
    struct bound_way way = begin_way(0, 0);
    uint32_t last = STRATA_NONE;
    for (uint32_t p = 0; p < residency->count; p++) {
        const struct placement *placement = &residency->placements[p];
        if (placement->kind != PLACEMENT_GRAD || placement->park_out ||
            (last != STRATA_NONE && placement->last_use < way.from))
            continue;
        last = p;
        way.from = placement->last_use;
    }
    if (last == STRATA_NONE)
        return way;
    uint32_t g = residency->placements[last].group;
    const struct group_layout *layout = &desc->plan->model.groups[g].layout;
    for (uint32_t i = layout->first_tile; i < layout->first_tile + layout->tile_count; i++) {
        double stages[STAGE_COUNT];
        time_stages(desc, i, false, stages);
        add_tile(&way, strata_plan_state_in_device(desc->plan, i), stages, 0, STAGE_GRAD_WRITE);
    }
    double round_s = layout->wire_dtype != STRATA_FP32
                         ? op_s(desc, (struct op){.kind = OP_ROUND, .placement = last})
                         : 0;
    double total_s = op_s(desc, (struct op){.kind = OP_TOTAL});
    way.own_s = end_way(desc, &way, round_s + total_s) ? way.own_s : 0;
    return way;
}

/* Circles. */

struct circles {
    const strata_profile *profile;
    const struct bound_way *ways; /* those that begin last first */
    const double *stream_s;
    uint32_t count;
    /* States that frames have room for, read before the first of a set's gradients is there and
     * written after the last of its weights. */
    double framed_read_s;
    double framed_write_s;
};

/* What all resources need for a set of ways. */
static double set_s(const struct circles *circles, const struct bound_way *sum)
{
    double read_s = sum->read_s + fmax(0, sum->state_read_s - circles->framed_read_s);
    double write_s = sum->write_s + fmax(0, sum->state_write_s - circles->framed_write_s);
    double drives_s = strata_cost_of_drives(circles->profile, read_s, write_s);
    return fmax(fmax(sum->d2h_s, sum->cpu_s), fmax(sum->h2d_s, drives_s));
}

/* The longest circle through the acquire `to`: over the ways that begin after it and are to be
 * over by it or an earlier one. */
static double circle_s(const struct circles *circles, uint32_t to)
{
    struct bound_way sum = {0};
    double most_s = 0;
    for (uint32_t i = 0; i < circles->count && circles->ways[i].from > to; i++) {
        const struct bound_way *way = &circles->ways[i];
        if (way->to > to)
            continue;
        sum.d2h_s += way->d2h_s;
        sum.cpu_s += way->cpu_s;
        sum.read_s += way->read_s;
        sum.write_s += way->write_s;
        sum.h2d_s += way->h2d_s;
        sum.state_read_s += way->state_read_s;
        sum.state_write_s += way->state_write_s;
        double stream_s = circles->stream_s[way->from] - circles->stream_s[to];
        most_s = fmax(most_s, stream_s + fmax(way->own_s, set_s(circles, &sum)));
    }
    return most_s;
}

static double longest_circle_s(const struct simulate_desc *desc,
                               const struct bound_scratch *scratch, uint32_t count)
{
    const struct offload_plan *plan = desc->plan;
    uint32_t largest = 0;
    for (uint32_t i = 0; i < plan->model.trained_tile_count; i++)
        if (plan->model.tiles[i].elems > plan->model.tiles[largest].elems)
            largest = i;
    double frames = plan->frame_count[FRAME_UPDATE];
    struct circles circles = {
        .profile = desc->profile,
        .ways = scratch->ways,
        .stream_s = scratch->stream_s,
        .count = count,
        .framed_read_s = frames * move_s(desc, OP_NVME_READ, WHAT_STATE, largest),
        .framed_write_s = frames * move_s(desc, OP_NVME_WRITE, WHAT_STATE, largest),
    };
    double most_s = 0;
    for (uint32_t i = 0; i < count; i++)
        most_s = fmax(most_s, circle_s(&circles, scratch->ways[i].to));
    return most_s;
}

static void time_stream(const struct simulate_desc *desc, double *out)
{
    const struct model *model = &desc->plan->model;
    double sum_s = 0;
    for (uint32_t u = 0; u < model->use_count; u++) {
        strata_use_kind kind = model->uses[u].kind;
        out[u] = sum_s;
        if (kind == STRATA_USE_STASH || kind == STRATA_USE_UNSTASH)
            sum_s += strata_cost_of_block(desc->plan, desc->profile).work_s;
        sum_s += strata_cost_of_compute(desc->plan, desc->profile, desc->compute_s, u).work_s;
    }
    out[model->use_count] = sum_s;
}

static void insert_way(struct bound_way *ways, uint32_t count, struct bound_way way)
{
    for (; count > 0 && ways[count - 1].from < way.from; count--)
        ways[count] = ways[count - 1];
    ways[count] = way;
}

double strata_bound_of_chains(const struct simulate_desc *desc,
                              const struct bound_scratch *scratch)
{
    const struct model *model = &desc->plan->model;
    struct bound_way norm = norm_way(desc);
    uint32_t count = 0;
    time_stream(desc, scratch->stream_s);
    if (desc->begins != STEP_AT_ONCE)
        insert_way(scratch->ways, count++, norm);
    for (uint32_t g = 0; g < model->group_count; g++) {
        struct bound_way ways[2];
        uint32_t found = ways_of_group(desc, g, norm.from, norm.own_s, ways);
        for (uint32_t i = 0; i < found; i++)
            insert_way(scratch->ways, count++, ways[i]);
    }
    return longest_circle_s(desc, scratch, count);
}
