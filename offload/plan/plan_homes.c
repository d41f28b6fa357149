/*
 * Deciding homes outside the device.
 *
 * Two rules shape this file. What was asked for by name is done or refused, never replaced.
 * What was left to us (AUTO) goes to the fastest tier with room, parameters first, because a
 * byte of RAM saves most traffic there, then gradients, then states; a part that fits only
 * partly is spread evenly over the tiles, so that no stretch of the step is slower than
 * another.
 *
 * Thread: the engine's caller, at create.
 */

#include "offload/plan/plan_homes.h"

#include "offload/plan/plan_host.h"

/*
 * Which AUTO parts go to host RAM, in which order, and how many frames of each kind are set
 * aside before that. Which way is fastest depends on how compute, drive and copies compare, so
 * all are simulated where the machine is known. Tried and left out, since it gained less than
 * 0.1 %: homes first for the group that a step begins with.
 */
static const struct home_way {
    const char *name;
    uint8_t order[STRATA_PART_COUNT];
    uint8_t count;  /* of the order: the others rest on nvme */
    uint8_t frames; /* set aside, of each kind; 0: all that are of use if they take little of
                       the room, else 2 */
} home_ways[STRATA_HOME_WAYS] = {
    {"weights, gradients, states", {STRATA_PARAM, STRATA_GRAD, STRATA_STATE}, 3, 0},
    {"weights and gradients", {STRATA_PARAM, STRATA_GRAD}, 2, STRATA_MAX_FRAMES},
    {"weights, gradients, states, beside all frames",
     {STRATA_PARAM, STRATA_GRAD, STRATA_STATE},
     3,
     STRATA_MAX_FRAMES},
    {"weights, states, gradients",
     {STRATA_PARAM, STRATA_STATE, STRATA_GRAD},
     3,
     STRATA_MAX_FRAMES},
    {"gradients, states, weights",
     {STRATA_GRAD, STRATA_STATE, STRATA_PARAM},
     3,
     STRATA_MAX_FRAMES},
    {"weights", {STRATA_PARAM}, 1, STRATA_MAX_FRAMES},
};

static void park_with_grads(struct offload_plan *plan)
{
    for (uint32_t i = 0; i < plan->model.tile_count; i++) {
        bool parks = plan->residency.parks[plan->model.tiles[i].group];
        bool nvme = plan->homes[STRATA_GRAD].tier[i] == STRATA_NVME;
        plan->park.tier[i] = parks ? (nvme ? STRATA_NVME : STRATA_HOST) : STRATA_AUTO;
    }
}

/* Give `on_host` tiles of a part, evenly spread, homes in host RAM, and the others on nvme. */
static void spread_part(struct offload_plan *plan, int part, uint64_t on_host)
{
    uint64_t tiles = strata_plan_tiles_with(plan, (strata_part)part);
    for (uint64_t i = 0; i < tiles; i++) {
        bool host = (i + 1) * on_host / tiles > i * on_host / tiles;
        plan->homes[part].tier[i] = host ? STRATA_HOST : STRATA_NVME;
    }
}

/* Is the part's home still to be decided? */
static bool home_is_open(const struct offload_plan *plan, const struct plan_desc *desc,
                         int part)
{
    return desc->want[part] == STRATA_AUTO && plan->homes[part].tier[0] != STRATA_DEVICE;
}

/* Give AUTO parts whose bit is set homes in host RAM, the others on nvme. */
static void settle_whole(struct offload_plan *plan, const struct plan_desc *desc, uint32_t bits)
{
    for (int part = 0; part < STRATA_PART_COUNT; part++)
        if (home_is_open(plan, desc, part))
            spread_part(plan, part,
                        bits >> part & 1 ? strata_plan_tiles_with(plan, (strata_part)part) : 0);
    park_with_grads(plan);
}

/* The most host bytes that a tile's part takes. A gradient is parked where it rests. */
static uint64_t most_host_bytes(const struct offload_plan *plan, int part)
{
    uint64_t elems = plan->model.tile_elems;
    uint64_t most = 0;
    bool parks = false;
    for (uint32_t g = 0; g < plan->model.group_count; g++) {
        uint64_t bytes =
            strata_layout_bytes(&plan->model.groups[g].layout, (strata_part)part, elems);
        most = bytes > most ? bytes : most;
        parks |= part == STRATA_GRAD && plan->residency.parks[g];
    }
    return most + (parks ? strata_layout_sum_bytes(elems) : 0);
}

/* Give AUTO parts homes in `room` host bytes. */
static void settle_auto(struct offload_plan *plan, const struct plan_desc *desc, uint64_t room)
{
    const struct home_way *way = &home_ways[desc->way];
    for (uint32_t i = 0; i < way->count; i++) {
        int part = way->order[i];
        if (!home_is_open(plan, desc, part))
            continue;
        uint64_t each = most_host_bytes(plan, part);
        uint64_t tiles = strata_plan_tiles_with(plan, (strata_part)part);
        uint64_t fit = room / each < tiles ? room / each : tiles;
        spread_part(plan, part, fit);
        room -= fit * each;
    }
    park_with_grads(plan);
}

/* The homes that the caller named. */
static void settle_named(struct offload_plan *plan, const struct plan_desc *desc)
{
    for (int part = 0; part < STRATA_PART_COUNT; part++)
        if (desc->want[part] == STRATA_HOST || desc->want[part] == STRATA_NVME)
            spread_part(plan, part,
                        desc->want[part] == STRATA_HOST
                            ? strata_plan_tiles_with(plan, (strata_part)part)
                            : 0);
}

/* Do host and nvme have room for the homes as they are? */
static bool homes_fit(struct offload_plan *plan, const struct plan_desc *desc)
{
    if (strata_plan_host_need(plan, desc) > desc->host_bytes)
        return false;
    if (!strata_plan_uses_store(plan) || desc->store == NULL)
        return !strata_plan_uses_store(plan);
    struct store_records records;
    struct store_desc store = strata_plan_store(plan, desc->store, &records);
    return strata_store_file_bytes(&store) <= desc->nvme_bytes;
}

void strata_plan_choose_homes(struct offload_plan *plan, const struct plan_desc *desc)
{
    const uint32_t all = (1u << STRATA_PART_COUNT) - 1;
    const struct home_way *way = &home_ways[desc->way];
    settle_named(plan, desc);
    for (int part = 0; part < STRATA_PART_COUNT; part++)
        plan->open |= desc->store != NULL && home_is_open(plan, desc, part);
    settle_whole(plan, desc, all);
    if (desc->store == NULL || (way->count == STRATA_PART_COUNT && homes_fit(plan, desc)))
        return;
    /* All in host RAM does not fit. Put all AUTO parts on nvme, see how much of the host is
     * left and fill that. First beside all frames that are of use, if they take no more than an
     * eighth of it: with 2 frames for updates instead of 4 a step took up to 1.4 times as long
     * in simulation. Then beside 2 of each kind, the least that overlaps. Then beside one. */
    settle_whole(plan, desc, 0);
    uint64_t taken = strata_plan_host_fixed(plan, desc) + strata_plan_host_home_bytes(plan);
    uint64_t left = taken < desc->host_bytes ? desc->host_bytes - taken : 0;
    const uint64_t frames[] = {strata_plan_some_frames(plan, STRATA_MAX_FRAMES),
                               strata_plan_some_frames(plan, 2),
                               strata_plan_least_frames(plan)};
    bool all_frames = way->frames > 2 || frames[0] <= left / 8;
    for (int i = all_frames ? 0 : 1; i < 3; i++) {
        settle_auto(plan, desc, left > frames[i] ? left - frames[i] : 0);
        if (homes_fit(plan, desc))
            return;
    }
    /* A part that is wholly in the host needs no frames, and frames may be larger than it. */
    for (uint32_t bits = 0; bits < all; bits++) {
        settle_whole(plan, desc, bits);
        if (homes_fit(plan, desc))
            return;
    }
    /* Nothing fits. These homes need the least, and the refusal names it. */
    settle_whole(plan, desc, 0);
    if (strata_plan_host_need(plan, desc) <= desc->host_bytes)
        settle_auto(plan, desc, left > frames[2] ? left - frames[2] : 0);
}

void strata_plan_offer(struct home_choice *choice, uint32_t way, double step_s)
{
    if (choice->offered > 0 && step_s == choice->step_s)
        return;
    bool better = choice->offered++ == 0 || step_s < 0.99 * choice->step_s;
    double other_s = better ? choice->step_s : step_s;
    uint32_t other = better ? choice->way : way;
    if (choice->offered > 1 && (choice->next_s == 0 || other_s < choice->next_s)) {
        choice->next_s = other_s;
        choice->next_way = other;
    }
    if (better) {
        choice->step_s = step_s;
        choice->way = way;
    }
}

void strata_plan_chosen(strata_plan *summary, const struct home_choice *choice)
{
    if (choice->offered < 2)
        return;
    summary->homes = strata_plan_way_name(choice->way);
    summary->next_homes = strata_plan_way_name(choice->next_way);
    summary->next_factor = choice->next_s / choice->step_s;
}

const char *strata_plan_way_name(uint32_t way)
{
    return home_ways[way].name;
}
