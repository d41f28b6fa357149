/*
 * What a plan takes of the host: homes, frames and tables, and where in the arena they lie.
 *
 * Homes are decided elsewhere (offload/plan/plan_homes.c), which asks here what they would
 * take, often before they are final. So sizes are worked out from the homes each time, and only
 * strata_plan_place_host() writes addresses.
 *
 * Thread: the engine's caller, at create.
 */

#include "offload/plan/plan_host.h"

#include "base/round.h"
#include "offload/device/arena.h"

#include <string.h>

/* How many frames of each kind make the lanes overlap: one filling, one in use, one draining;
 * for fetches and updates a queue that keeps a drive busy. An update's also hold the states
 * that are read while forward goes into backward and no gradient is there yet: with 4 of them
 * a step of 3B on a desktop takes 7 % longer. */
static const uint32_t wanted_frames[FRAME_KIND_COUNT] = {8, 4, 8, 2, 2};

static uint64_t max_of(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Bytes of a tile of a gradient that is parked before it is finished. */
static uint64_t park_bytes(const struct offload_plan *plan, uint32_t tile)
{
    return strata_layout_sum_bytes(plan->model.tiles[tile].elems);
}

/* Which kinds of chains the homes call for, and so which kinds of frames. */
static void kinds_in_use(const struct offload_plan *plan, bool out[FRAME_KIND_COUNT])
{
    memset(out, 0, FRAME_KIND_COUNT * sizeof *out);
    for (uint32_t i = 0; i < plan->model.tile_count; i++) {
        uint8_t param = plan->homes[STRATA_PARAM].tier[i];
        out[FRAME_FETCH] |= param == STRATA_NVME;
        /* On NVMe it is fetched and nothing else. In the device it is saved and brought back
         * through an update's frame. */
        if (strata_plan_is_frozen(plan, i)) {
            out[FRAME_UPDATE] |= plan->durable && param == STRATA_DEVICE;
            continue;
        }
        out[FRAME_GRAD] |= plan->homes[STRATA_GRAD].tier[i] == STRATA_NVME ||
                           (strata_plan_folds(plan, i) && param == STRATA_HOST);
        out[FRAME_UPDATE] |= strata_plan_update_needs_frame(plan, i) ||
                             (plan->durable && strata_plan_state_in_device(plan, i));
        out[FRAME_PARK] |= plan->park.tier[i] == STRATA_NVME;
    }
    out[FRAME_STASH] = plan->stash == STRATA_NVME && plan->model.stash_block_count > 0;
}

/* A frame holds the largest tile's part. */
void strata_plan_set_strides(struct offload_plan *plan)
{
    uint64_t most[STRATA_PART_COUNT] = {0};
    uint64_t most_sum = 0;
    for (uint32_t i = 0; i < plan->model.tile_count; i++) {
        for (int part = 0; part < STRATA_PART_COUNT; part++)
            most[part] = max_of(most[part], strata_plan_part_bytes(plan, (strata_part)part, i));
        if (!strata_plan_is_frozen(plan, i))
            most_sum = max_of(most_sum, park_bytes(plan, i));
    }
    plan->update_frame_at[STRATA_STATE] = 0;
    plan->update_frame_at[STRATA_GRAD] = most[STRATA_STATE];
    plan->update_frame_at[STRATA_PARAM] = most[STRATA_STATE] + most[STRATA_GRAD];
    const uint64_t bytes[FRAME_KIND_COUNT] = {
        [FRAME_FETCH] = most[STRATA_PARAM],
        [FRAME_GRAD] = most[STRATA_GRAD],
        [FRAME_UPDATE] = plan->update_frame_at[STRATA_PARAM] + most[STRATA_PARAM],
        [FRAME_PARK] = most_sum,
        [FRAME_STASH] = plan->model.stash_bytes,
    };
    for (int kind = 0; kind < FRAME_KIND_COUNT; kind++)
        plan->frame_stride[kind] = strata_round_up(bytes[kind], STRATA_HUGE_PAGE_BYTES);
}

static uint64_t stash_host_bytes(const struct offload_plan *plan)
{
    return plan->stash == STRATA_HOST ? plan->model.stash_bytes * plan->model.stash_block_count
                                      : 0;
}

/* Host bytes of what rests there: parts, parked gradients, stash. */
uint64_t strata_plan_host_home_bytes(const struct offload_plan *plan)
{
    uint64_t bytes = stash_host_bytes(plan);
    for (uint32_t i = 0; i < plan->model.tile_count; i++) {
        for (int part = 0; part < STRATA_PART_COUNT; part++)
            if (plan->homes[part].tier[i] == STRATA_HOST)
                bytes += strata_plan_part_bytes(plan, (strata_part)part, i);
        if (plan->park.tier[i] == STRATA_HOST)
            bytes += park_bytes(plan, i);
    }
    return bytes;
}

uint64_t strata_plan_least_frames(const struct offload_plan *plan)
{
    bool used[FRAME_KIND_COUNT];
    uint64_t bytes = 0;
    kinds_in_use(plan, used);
    for (int kind = 0; kind < FRAME_KIND_COUNT; kind++)
        bytes += used[kind] ? plan->frame_stride[kind] : 0;
    return bytes;
}

/* Frames of the kinds that reading from and writing to NVMe takes: at most so many of each. */
uint64_t strata_plan_some_frames(const struct offload_plan *plan, uint32_t most)
{
    uint64_t bytes = 0;
    for (int kind = 0; kind < FRAME_PARK; kind++)
        bytes += (wanted_frames[kind] < most ? wanted_frames[kind] : most) *
                 plan->frame_stride[kind];
    return bytes;
}

/* Number the store's places of a tile: its parameters, its gradient, its parked gradient. */
static void number_tile(struct offload_plan *plan, uint32_t tile)
{
    for (int part = STRATA_PARAM; part <= STRATA_GRAD; part++) {
        if (plan->homes[part].tier[tile] != STRATA_NVME)
            continue;
        plan->homes[part].at[tile] = plan->place_count;
        plan->place_bytes[plan->place_count++] =
            strata_plan_part_bytes(plan, (strata_part)part, tile);
    }
    if (plan->park.tier[tile] == STRATA_NVME) {
        plan->park.at[tile] = plan->place_count;
        plan->place_bytes[plan->place_count++] = park_bytes(plan, tile);
    }
}

/* The records come after all scratch places. A frozen tile's record is its parameters, and
 * their home too if they rest in the store. */
static void number_records(struct offload_plan *plan)
{
    for (uint32_t i = 0; i < plan->model.tile_count; i++) {
        strata_part part = strata_plan_is_frozen(plan, i) ? STRATA_PARAM : STRATA_STATE;
        bool nvme = plan->homes[part].tier[i] == STRATA_NVME;
        plan->record_bytes[i] =
            plan->durable || nvme ? strata_plan_part_bytes(plan, part, i) : 0;
        if (part == STRATA_PARAM && nvme)
            plan->homes[STRATA_PARAM].at[i] = strata_plan_record_place(plan, i, 0);
    }
}

static void number_places(struct offload_plan *plan)
{
    plan->place_count = 0;
    for (uint32_t i = 0; i < plan->model.trained_tile_count; i++)
        number_tile(plan, i);
    if (plan->stash == STRATA_NVME) {
        plan->stash_at = plan->place_count;
        for (uint32_t i = 0; i < plan->model.stash_block_count; i++)
            plan->place_bytes[plan->place_count++] = plan->model.stash_bytes;
    }
    number_records(plan);
}

/* Host bytes besides homes and frames: tables, the store's, the caller's. */
uint64_t strata_plan_host_fixed(struct offload_plan *plan, const struct plan_desc *desc)
{
    uint64_t bytes = plan->tables.bytes + desc->reserved_host_bytes;
    number_places(plan);
    if (desc->store != NULL && strata_plan_uses_store(plan)) {
        struct store_records records;
        struct store_desc store = strata_plan_store(plan, desc->store, &records);
        bytes += strata_store_table_bytes(&store);
    }
    return bytes;
}

uint64_t strata_plan_host_need(struct offload_plan *plan, const struct plan_desc *desc)
{
    return strata_plan_host_fixed(plan, desc) + strata_plan_host_home_bytes(plan) +
           strata_plan_least_frames(plan);
}

void strata_plan_give_frames(struct offload_plan *plan, uint64_t room)
{
    bool used[FRAME_KIND_COUNT];
    kinds_in_use(plan, used);
    for (int kind = 0; kind < FRAME_KIND_COUNT; kind++)
        plan->frame_count[kind] = used[kind] ? 1 : 0;
    bool gave = true;
    while (gave) {
        gave = false;
        for (int kind = 0; kind < FRAME_KIND_COUNT; kind++) {
            bool more = used[kind] && plan->frame_count[kind] < wanted_frames[kind];
            if (!more || plan->frame_stride[kind] > room)
                continue;
            room -= plan->frame_stride[kind];
            plan->frame_count[kind]++;
            gave = true;
        }
    }
}

void strata_plan_place_host(struct offload_plan *plan)
{
    uint64_t at = 0;
    strata_plan_tier *tier = &plan->summary.tiers[STRATA_HOST];
    for (int kind = 0; kind < FRAME_KIND_COUNT; kind++) {
        plan->frames_at[kind] = at;
        at += plan->frame_stride[kind] * plan->frame_count[kind];
    }
    tier->frame_bytes = at;
    for (int part = 0; part < STRATA_PART_COUNT; part++) {
        for (uint32_t i = 0; i < plan->model.tile_count; i++) {
            if (plan->homes[part].tier[i] != STRATA_HOST)
                continue;
            plan->homes[part].at[i] = at;
            at += strata_plan_part_bytes(plan, (strata_part)part, i);
            strata_plan_count_home(plan, (strata_part)part, i);
        }
    }
    for (uint32_t i = 0; i < plan->model.tile_count; i++) {
        if (plan->park.tier[i] != STRATA_HOST)
            continue;
        plan->park.at[i] = at;
        at += park_bytes(plan, i);
        tier->home_bytes[STRATA_GRAD] += park_bytes(plan, i);
    }
    if (plan->stash == STRATA_HOST)
        plan->stash_at = at;
    tier->stash_bytes = stash_host_bytes(plan);
    plan->host_arena_bytes = at + tier->stash_bytes;
}
