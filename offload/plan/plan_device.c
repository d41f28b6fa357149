/*
 * Deciding what rests in the device, and laying its arena out.
 *
 * A part rests there wholly or not at all. What is left beside homes, scratch and activations
 * is the pool for copies, and whether it is large enough is known only by laying it out
 * (offload/plan/residency.h), so the choices are tried in turn, best first.
 *
 * Thread: the engine's caller, at create.
 */

#include "offload/plan/plan_device.h"

#include "base/error.h"
#include "offload/device/arena.h"

/* What the device would have to hold with these parts at home there. */
struct device_choice {
    bool at_home[STRATA_PART_COUNT];
    bool stash_at_home;
};

/* Write a choice into the layouts, where the residency reads it. */
static void set_choice(struct offload_plan *plan, const struct device_choice *choice)
{
    for (uint32_t g = 0; g < plan->model.group_count; g++)
        for (int part = 0; part < STRATA_PART_COUNT; part++)
            plan->model.groups[g].layout.in_device[part] =
                choice->at_home[part] &&
                (part == STRATA_PARAM || !plan->model.groups[g].layout.frozen);
}

/* Bytes of everything in the device but the pool. */
static uint64_t device_fixed(const struct offload_plan *plan,
                             const struct device_choice *choice)
{
    const struct model *model = &plan->model;
    uint64_t bytes = model->scratch_bytes;
    for (uint32_t g = 0; g < model->group_count; g++)
        for (int part = 0; part < STRATA_PART_COUNT; part++)
            if (choice->at_home[part])
                bytes += strata_layout_bytes(&plan->model.groups[g].layout, (strata_part)part,
                                             model->groups[g].layout.shard_elems);
    if (model->stash_block_count > 0)
        bytes += model->stash_bytes * (choice->stash_at_home ? model->stash_block_count : 1);
    return bytes;
}

static uint64_t largest_group_bytes(const struct offload_plan *plan)
{
    uint64_t most = 0;
    for (uint32_t g = 0; g < plan->model.group_count; g++) {
        uint64_t bytes = strata_layout_bytes(&plan->model.groups[g].layout, STRATA_PARAM,
                                             plan->model.groups[g].layout.padded);
        most = bytes > most ? bytes : most;
    }
    return most;
}

/* What AUTO may put in the device, best first. Gradients without their states save no traffic
 * and come last: they only make room in host RAM. */
static const struct device_choice preferences[] = {
    {{true, true, true}, true},    {{true, true, true}, false},
    {{true, false, false}, true},  {{true, false, false}, false},
    {{false, false, false}, true}, {{false, false, false}, false},
    {{true, true, false}, true},   {{true, true, false}, false},
    {{false, true, false}, true},  {{false, true, false}, false},
};
#define PREFERENCES (sizeof preferences / sizeof preferences[0])

/* The one that takes least of the device. */
#define LEAST 5u

/* A preference, changed where the caller named a home. States that the caller wants in the
 * device take the other parts with them. */
static struct device_choice choice_of(const struct plan_desc *desc, uint32_t preference)
{
    struct device_choice choice = preferences[preference];
    for (int part = 0; part < STRATA_PART_COUNT; part++) {
        if (desc->want[STRATA_STATE] == STRATA_DEVICE)
            choice.at_home[part] = true;
        if (desc->want[part] != STRATA_AUTO)
            choice.at_home[part] = desc->want[part] == STRATA_DEVICE;
    }
    if (desc->want_stash != STRATA_AUTO)
        choice.stash_at_home = desc->want_stash == STRATA_DEVICE;
    return choice;
}

static bool choice_is_legal(const struct device_choice *choice)
{
    return !choice->at_home[STRATA_STATE] ||
           (choice->at_home[STRATA_PARAM] && choice->at_home[STRATA_GRAD]);
}

/* Has the device room for a choice, and for slack bytes besides? */
static bool fits_device(struct offload_plan *plan, const struct device_choice *choice,
                        uint64_t device_bytes, uint64_t slack)
{
    set_choice(plan, choice);
    uint64_t fixed = device_fixed(plan, choice) + slack;
    if (fixed + strata_residency_minimum(&plan->model) > device_bytes)
        return false;
    return strata_residency_build(&plan->residency, &plan->model, device_bytes - fixed);
}

/* The best preference that has room, after desc->skip better ones. A first round demands room
 * for one more group, so that activation blocks at home leave room for a prefetch. If nothing
 * has room: the choice that takes least, whose refusal names the need. */
static struct device_choice choose_device(struct offload_plan *plan,
                                          const struct plan_desc *desc)
{
    uint32_t skip = desc->skip;
    plan->more_choices = true;
    for (int tight = 0; tight < 2; tight++) {
        for (uint32_t i = 0; i < PREFERENCES; i++) {
            struct device_choice choice = choice_of(desc, i);
            bool roomy = choice.at_home[STRATA_PARAM] || !choice.stash_at_home;
            uint64_t slack = roomy || tight ? 0 : largest_group_bytes(plan);
            if ((tight && roomy) || !choice_is_legal(&choice) ||
                !fits_device(plan, &choice, desc->device_bytes, slack))
                continue;
            if (skip-- == 0)
                return choice;
        }
    }
    plan->more_choices = false;
    return choice_of(desc, LEAST);
}

/* Lay the pool out in what is left, or find out how large it must be and refuse. */
static strata_status lay_out_pool(struct offload_plan *plan, const struct device_choice *choice,
                                  uint64_t fixed, uint64_t limit, strata_error *error)
{
    set_choice(plan, choice);
    uint64_t minimum = strata_residency_minimum(&plan->model);
    strata_plan_tier *tier = &plan->summary.tiers[STRATA_DEVICE];
    tier->need_bytes = fixed + minimum;
    if (fixed + minimum > limit)
        return strata_plan_refuse(error, STRATA_DEVICE, fixed + minimum, limit);
    if (strata_residency_build(&plan->residency, &plan->model, limit - fixed))
        return STRATA_OK;
    uint64_t capacity = limit - fixed;
    do
        capacity += STRATA_HUGE_PAGE_BYTES;
    while (capacity < 4 * (limit - fixed + STRATA_HUGE_PAGE_BYTES) &&
           !strata_residency_build(&plan->residency, &plan->model, capacity));
    return strata_plan_refuse(error, STRATA_DEVICE, fixed + capacity, limit);
}

static void place_device_homes(struct offload_plan *plan, const struct plan_desc *desc,
                               const struct device_choice *choice)
{
    uint64_t at = 0;
    for (int part = 0; part < STRATA_PART_COUNT; part++) {
        if (!choice->at_home[part])
            continue;
        for (uint32_t i = 0; i < strata_plan_tiles_with(plan, (strata_part)part); i++) {
            plan->homes[part].tier[i] = STRATA_DEVICE;
            plan->homes[part].at[i] = at;
            at += strata_plan_part_bytes(plan, (strata_part)part, i);
            strata_plan_count_home(plan, (strata_part)part, i);
        }
    }
    plan->scratch_at = at;
    at += plan->model.scratch_bytes;
    plan->stash = choice->stash_at_home ? STRATA_DEVICE : STRATA_HOST;
    if (!choice->stash_at_home && desc->want_stash == STRATA_NVME)
        plan->stash = STRATA_NVME;
    uint64_t block = plan->model.stash_bytes;
    if (choice->stash_at_home) {
        plan->stash_at = at;
        plan->summary.tiers[STRATA_DEVICE].stash_bytes = block * plan->model.stash_block_count;
    } else {
        plan->stash_frames_at = at;
        plan->summary.tiers[STRATA_DEVICE].stash_bytes = block * plan->stash_frames;
    }
    at += plan->summary.tiers[STRATA_DEVICE].stash_bytes;
    plan->pool_at = at;
    plan->device_arena_bytes = at + plan->residency.pool_bytes;
}

/*
 * Blocks besides the first for activations on their way. A second lets the copy of one overlap
 * the use of the next. Where blocks are carried from group to group, as several micro-batches
 * are, they come and go all the time and want a queue: with 2 instead of 8 a step that could be
 * bound by compute took up to 1.3 times as long in simulation. A sixteenth of the device at
 * most is worth that.
 */
static uint32_t more_stash_frames(struct offload_plan *plan, const struct device_choice *choice,
                                  uint64_t device_bytes)
{
    bool carried = plan->model.stash_event_count > 2 * plan->model.stash_block_count;
    for (uint32_t more = carried ? STRATA_MAX_STASH_FRAMES - 1 : 1; more > 0; more /= 2) {
        uint64_t bytes = more * plan->model.stash_bytes;
        if (bytes <= device_bytes / 16 &&
            fits_device(plan, choice, device_bytes, bytes + largest_group_bytes(plan)))
            return more;
    }
    return 0;
}

strata_status strata_plan_fill_device(struct offload_plan *plan, const struct plan_desc *desc,
                                      strata_error *error)
{
    struct device_choice choice = choose_device(plan, desc);
    if (!choice_is_legal(&choice))
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "states in the device need parameters and gradients there too");
    uint64_t fixed = device_fixed(plan, &choice);
    plan->stash_frames = plan->model.stash_block_count > 0 && !choice.stash_at_home ? 1 : 0;
    if (plan->stash_frames == 1)
        plan->stash_frames += more_stash_frames(plan, &choice, desc->device_bytes);
    uint64_t more = plan->stash_frames > 1 ? plan->stash_frames - 1 : 0;
    fixed += more * plan->model.stash_bytes;
    STRATA_TRY(lay_out_pool(plan, &choice, fixed, desc->device_bytes, error));
    plan->summary.tiers[STRATA_DEVICE].need_bytes -= more * plan->model.stash_bytes;
    place_device_homes(plan, desc, &choice);
    strata_plan_tier *tier = &plan->summary.tiers[STRATA_DEVICE];
    tier->limit_bytes = desc->device_bytes;
    tier->used_bytes = plan->device_arena_bytes;
    tier->frame_bytes = plan->residency.pool_bytes;
    tier->scratch_bytes = plan->model.scratch_bytes;
    return STRATA_OK;
}
