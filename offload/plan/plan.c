/*
 * Deciding homes outside the device, frames and arenas.
 *
 * Two rules shape this file. What was asked for by name is done or refused, never replaced.
 * What was left to us (AUTO) goes to the fastest tier with room, parameters first, because a
 * byte of RAM saves most traffic there, then gradients, then states; a part that fits only
 * partly is spread evenly over the tiles, so that no stretch of the step is slower than
 * another.
 *
 * The need of a tier is what the run cannot do without, given the homes; it is computed before
 * any comparison, so that a refusal can name it. Extra frames are given only from what is left.
 *
 * Thread: the engine's caller, at create.
 */

#include "offload/plan/plan.h"

#include "base/error.h"
#include "offload/device/arena.h"
#include "offload/plan/plan_device.h"
#include "strata/text.h"

#include <string.h>

/* How many frames of each kind make the lanes overlap: one filling, one in use, one draining;
 * for fetches and updates a queue that keeps a drive busy. An update's also hold the states
 * that are read while forward goes into backward and no gradient is there yet: with 4 of them
 * a step of 3B on a desktop takes 7 % longer. */
static const uint32_t wanted_frames[FRAME_KIND_COUNT] = {8, 4, 8, 2, 2};

/*
 * What of AUTO goes to host RAM first, and how many frames of each kind are spared before that.
 * Which is fastest depends on how compute, drive and copies compare, so where the machine is
 * known all are simulated. Tried and left out, for less than 0.1 %: the group first that a step
 * begins with.
 */
static const struct home_way {
    const char *name;
    uint8_t order[STRATA_PART_COUNT];
    uint8_t count;  /* of the order: the others rest on nvme */
    uint8_t frames; /* 0: all that are of use where they are small beside what they make room
                       for, else 2 */
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

static const char *const tier_words[STRATA_TIER_COUNT] = {"", "device", "host", "nvme"};

static uint64_t round_up(uint64_t value, uint64_t unit)
{
    return (value + unit - 1) / unit * unit;
}

uint64_t strata_plan_part_bytes(const struct offload_plan *plan, strata_part part,
                                uint32_t tile)
{
    return (uint64_t)plan->model.tiles[tile].elems * (part == STRATA_STATE ? plan->s : plan->w);
}

bool strata_plan_update_needs_frame(const struct offload_plan *plan, uint32_t tile)
{
    return !plan->states_on_device && (plan->homes[STRATA_STATE].tier[tile] == STRATA_NVME ||
                                       plan->homes[STRATA_PARAM].tier[tile] != STRATA_HOST ||
                                       plan->homes[STRATA_GRAD].tier[tile] != STRATA_HOST);
}

bool strata_plan_states_on_nvme(const struct offload_plan *plan)
{
    for (uint32_t i = 0; i < plan->model.tile_count; i++)
        if (plan->homes[STRATA_STATE].tier[i] != STRATA_NVME)
            return false;
    return true;
}

bool strata_plan_folds(const struct offload_plan *plan, uint32_t tile)
{
    return plan->fold && plan->homes[STRATA_STATE].tier[tile] == STRATA_HOST &&
           plan->homes[STRATA_GRAD].tier[tile] == STRATA_HOST;
}

strata_status strata_plan_refuse(strata_error *error, strata_tier tier, uint64_t need,
                                 uint64_t have)
{
    char need_text[16];
    char have_text[16];
    return strata_fail(error, STRATA_E_NOMEM, 0,
                       "%s memory: this run needs at least %llu bytes (%s), the limit is %llu "
                       "(%s): raise --%s-mem (default: a part of what is free) or move "
                       "something to another tier",
                       tier_words[tier], (unsigned long long)need,
                       strata_format_size(need, need_text, sizeof need_text),
                       (unsigned long long)have,
                       strata_format_size(have, have_text, sizeof have_text), tier_words[tier]);
}

static strata_status take_homes(struct offload_plan *plan, strata_error *error)
{
    struct tables *tables = &plan->tables;
    uint32_t tiles = plan->model.tile_count;
    for (int part = 0; part < STRATA_PART_COUNT; part++) {
        plan->homes[part].tier =
            strata_tables_take(tables, tiles, sizeof *plan->homes[part].tier);
        plan->homes[part].at = strata_tables_take(tables, tiles, sizeof *plan->homes[part].at);
    }
    plan->park.tier = strata_tables_take(tables, tiles, sizeof *plan->park.tier);
    plan->park.at = strata_tables_take(tables, tiles, sizeof *plan->park.at);
    plan->param_home =
        strata_tables_take(tables, plan->model.group_count, sizeof *plan->param_home);
    plan->grad_home =
        strata_tables_take(tables, plan->model.group_count, sizeof *plan->grad_home);
    plan->place_bytes = strata_tables_take(
        tables, (uint64_t)tiles * 3 + plan->model.stash_block_count, sizeof *plan->place_bytes);
    plan->record_bytes = strata_tables_take(tables, tiles, sizeof *plan->record_bytes);
    return strata_tables_check(tables, error);
}

strata_status strata_plan_begin(struct offload_plan *out, const struct plan_desc *desc,
                                strata_error *error)
{
    *out = (struct offload_plan){.durable = desc->slots.durable,
                                 .slots = strata_slots_per_tile(&desc->slots),
                                 .compute_dtype = desc->compute_dtype,
                                 .w = strata_dtype_bytes(desc->compute_dtype),
                                 .s = desc->state_elem_bytes};
    strata_status status = strata_model_build(&out->model, &out->tables, desc->model,
                                              desc->tile_elems, desc->shard, error);
    if (status == STRATA_OK)
        status = take_homes(out, error);
    if (status == STRATA_OK)
        status = strata_residency_create(&out->residency, &out->tables, &out->model, error);
    if (status == STRATA_OK)
        status = strata_plan_fill_device(out, desc, error);
    if (status != STRATA_OK)
        strata_plan_free(out);
    return status;
}

void strata_plan_free(struct offload_plan *plan)
{
    strata_tables_free(&plan->tables);
}

/* Which kinds of chains the homes call for. */
static void kinds_in_use(const struct offload_plan *plan, bool out[FRAME_KIND_COUNT])
{
    memset(out, 0, FRAME_KIND_COUNT * sizeof *out);
    for (uint32_t i = 0; i < plan->model.tile_count; i++) {
        out[FRAME_FETCH] |= plan->homes[STRATA_PARAM].tier[i] == STRATA_NVME;
        out[FRAME_GRAD] |=
            plan->homes[STRATA_GRAD].tier[i] == STRATA_NVME ||
            (strata_plan_folds(plan, i) && plan->homes[STRATA_PARAM].tier[i] == STRATA_HOST);
        out[FRAME_UPDATE] |= strata_plan_update_needs_frame(plan, i) ||
                             (plan->durable && plan->states_on_device);
        out[FRAME_PARK] |= plan->park.tier[i] == STRATA_NVME;
    }
    out[FRAME_STASH] = plan->stash == STRATA_NVME && plan->model.stash_block_count > 0;
}

static void set_strides(struct offload_plan *plan)
{
    uint64_t tile = 0;
    for (uint32_t i = 0; i < plan->model.tile_count; i++)
        tile = plan->model.tiles[i].elems > tile ? plan->model.tiles[i].elems : tile;
    plan->frame_elems = tile;
    const uint64_t bytes[FRAME_KIND_COUNT] = {plan->w * tile, plan->w * tile,
                                              (plan->s + 2 * (uint64_t)plan->w) * tile,
                                              4 * tile, plan->model.stash_bytes};
    for (int kind = 0; kind < FRAME_KIND_COUNT; kind++)
        plan->frame_stride[kind] = round_up(bytes[kind], STRATA_HUGE_PAGE_BYTES);
}

static uint64_t stash_host_bytes(const struct offload_plan *plan)
{
    return plan->stash == STRATA_HOST ? plan->model.stash_bytes * plan->model.stash_block_count
                                      : 0;
}

/* Host bytes of what rests there: parts, parked gradients, stash. */
static uint64_t host_home_bytes(const struct offload_plan *plan)
{
    uint64_t bytes = stash_host_bytes(plan);
    for (uint32_t i = 0; i < plan->model.tile_count; i++) {
        for (int part = 0; part < STRATA_PART_COUNT; part++)
            if (plan->homes[part].tier[i] == STRATA_HOST)
                bytes += strata_plan_part_bytes(plan, (strata_part)part, i);
        if (plan->park.tier[i] == STRATA_HOST)
            bytes += 4 * (uint64_t)plan->model.tiles[i].elems;
    }
    return bytes;
}

static void park_with_grads(struct offload_plan *plan)
{
    for (uint32_t i = 0; i < plan->model.tile_count; i++) {
        bool parks = plan->residency.parks[plan->model.tiles[i].group];
        bool nvme = plan->homes[STRATA_GRAD].tier[i] == STRATA_NVME;
        plan->park.tier[i] = parks ? (nvme ? STRATA_NVME : STRATA_HOST) : STRATA_AUTO;
    }
}

/* Spread `on_host` tiles of a part evenly; the others go to nvme. */
static void spread(struct offload_plan *plan, int part, uint64_t on_host)
{
    uint64_t tiles = plan->model.tile_count;
    for (uint64_t i = 0; i < tiles; i++) {
        bool host = (i + 1) * on_host / tiles > i * on_host / tiles;
        plan->homes[part].tier[i] = host ? STRATA_HOST : STRATA_NVME;
    }
}

static bool is_open(const struct offload_plan *plan, const struct plan_desc *desc, int part)
{
    return desc->want[part] == STRATA_AUTO && plan->homes[part].tier[0] != STRATA_DEVICE;
}

/* AUTO parts whose bit is set wholly to the host, the others to nvme. */
static void settle_whole(struct offload_plan *plan, const struct plan_desc *desc, uint32_t bits)
{
    for (int part = 0; part < STRATA_PART_COUNT; part++)
        if (is_open(plan, desc, part))
            spread(plan, part, bits >> part & 1 ? plan->model.tile_count : 0);
    park_with_grads(plan);
}

/* Host bytes of a tile's part at most. Where a gradient rests it is parked, too. */
static uint64_t most_host_bytes(const struct offload_plan *plan, int part)
{
    uint64_t each = part == STRATA_STATE ? plan->s : plan->w;
    bool parks = false;
    for (uint32_t g = 0; part == STRATA_GRAD && g < plan->model.group_count; g++)
        parks |= plan->residency.parks[g];
    return (each + (parks ? 4 : 0)) * plan->model.tile_elems;
}

/* Give AUTO parts homes in `room` host bytes. */
static void settle_auto(struct offload_plan *plan, const struct plan_desc *desc, uint64_t room)
{
    const struct home_way *way = &home_ways[desc->way];
    for (uint32_t i = 0; i < way->count; i++) {
        int part = way->order[i];
        if (!is_open(plan, desc, part))
            continue;
        uint64_t each = most_host_bytes(plan, part);
        uint64_t fit =
            room / each < plan->model.tile_count ? room / each : plan->model.tile_count;
        spread(plan, part, fit);
        room -= fit * each;
    }
    park_with_grads(plan);
}

static void settle_named(struct offload_plan *plan, const struct plan_desc *desc)
{
    for (int part = 0; part < STRATA_PART_COUNT; part++)
        if (desc->want[part] == STRATA_HOST || desc->want[part] == STRATA_NVME)
            spread(plan, part, desc->want[part] == STRATA_HOST ? plan->model.tile_count : 0);
}

static uint64_t least_frames(const struct offload_plan *plan)
{
    bool used[FRAME_KIND_COUNT];
    uint64_t bytes = 0;
    kinds_in_use(plan, used);
    for (int kind = 0; kind < FRAME_KIND_COUNT; kind++)
        bytes += used[kind] ? plan->frame_stride[kind] : 0;
    return bytes;
}

/* Frames of the kinds that reading from and writing to NVMe takes: at most so many of each. */
static uint64_t some_frames(const struct offload_plan *plan, uint32_t most)
{
    uint64_t bytes = 0;
    for (int kind = 0; kind < FRAME_PARK; kind++)
        bytes += (wanted_frames[kind] < most ? wanted_frames[kind] : most) *
                 plan->frame_stride[kind];
    return bytes;
}

static void number_places(struct offload_plan *plan)
{
    plan->place_count = 0;
    for (uint32_t i = 0; i < plan->model.tile_count; i++) {
        for (int part = STRATA_PARAM; part <= STRATA_GRAD; part++) {
            if (plan->homes[part].tier[i] != STRATA_NVME)
                continue;
            plan->homes[part].at[i] = plan->place_count;
            plan->place_bytes[plan->place_count++] =
                strata_plan_part_bytes(plan, (strata_part)part, i);
        }
        if (plan->park.tier[i] == STRATA_NVME) {
            plan->park.at[i] = plan->place_count;
            plan->place_bytes[plan->place_count++] = 4 * (uint64_t)plan->model.tiles[i].elems;
        }
        bool record = plan->durable || plan->homes[STRATA_STATE].tier[i] == STRATA_NVME;
        plan->record_bytes[i] = record ? strata_plan_part_bytes(plan, STRATA_STATE, i) : 0;
    }
    if (plan->stash != STRATA_NVME)
        return;
    plan->stash_at = plan->place_count;
    for (uint32_t i = 0; i < plan->model.stash_block_count; i++)
        plan->place_bytes[plan->place_count++] = plan->model.stash_bytes;
}

uint32_t strata_plan_record_place(const struct offload_plan *plan, uint32_t tile, uint32_t slot)
{
    return plan->place_count + tile * plan->slots + slot;
}

bool strata_plan_uses_store(const struct offload_plan *plan)
{
    bool used = plan->place_count > 0;
    for (uint32_t i = 0; i < plan->model.tile_count && !used; i++)
        used = plan->record_bytes[i] > 0;
    return used;
}

struct store_desc strata_plan_store(const struct offload_plan *plan,
                                    const struct store_desc *base,
                                    struct store_records *records)
{
    struct store_desc store = *base;
    *records = *base->records;
    records->bytes = plan->record_bytes;
    records->count = plan->model.tile_count;
    records->slots = plan->slots;
    store.records = records;
    store.place_bytes = plan->place_bytes;
    store.place_count = plan->place_count;
    store.tile_elems = plan->model.tile_elems;
    return store;
}

/* Host bytes besides homes and frames: tables, the store's, the caller's. */
static uint64_t host_fixed(struct offload_plan *plan, const struct plan_desc *desc)
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

static uint64_t host_need(struct offload_plan *plan, const struct plan_desc *desc)
{
    return host_fixed(plan, desc) + host_home_bytes(plan) + least_frames(plan);
}

/* Do host and nvme have room for the homes as they are? */
static bool homes_fit(struct offload_plan *plan, const struct plan_desc *desc)
{
    if (host_need(plan, desc) > desc->host_bytes)
        return false;
    if (!strata_plan_uses_store(plan) || desc->store == NULL)
        return !strata_plan_uses_store(plan);
    struct store_records records;
    struct store_desc store = strata_plan_store(plan, desc->store, &records);
    return strata_store_file_bytes(&store) <= desc->nvme_bytes;
}

/* Homes outside the device. */
static void choose_homes(struct offload_plan *plan, const struct plan_desc *desc)
{
    const uint32_t all = (1u << STRATA_PART_COUNT) - 1;
    const struct home_way *way = &home_ways[desc->way];
    settle_named(plan, desc);
    for (int part = 0; part < STRATA_PART_COUNT; part++)
        plan->open |= desc->store != NULL && is_open(plan, desc, part);
    settle_whole(plan, desc, all);
    if (desc->store == NULL || (way->count == STRATA_PART_COUNT && homes_fit(plan, desc)))
        return;
    /* All in host RAM does not fit: see what is left beside everything AUTO on nvme. All frames
     * that are of use come first where they are small beside the homes that make room: with
     * 2 for updates instead of 4 a step took up to 1.4 times as long in simulation. Then the
     * least that overlaps, then the fewest. */
    settle_whole(plan, desc, 0);
    uint64_t taken = host_fixed(plan, desc) + host_home_bytes(plan);
    uint64_t left = taken < desc->host_bytes ? desc->host_bytes - taken : 0;
    const uint64_t frames[] = {some_frames(plan, STRATA_MAX_FRAMES), some_frames(plan, 2),
                               least_frames(plan)};
    bool all_frames = way->frames > 2 || frames[0] <= left / 8;
    for (int i = all_frames ? 0 : 1; i < 3; i++) {
        settle_auto(plan, desc, left > frames[i] ? left - frames[i] : 0);
        if (homes_fit(plan, desc))
            return;
    }
    /* A part that is wholly in the host needs no frames, which may take more than it. */
    for (uint32_t bits = 0; bits < all; bits++) {
        settle_whole(plan, desc, bits);
        if (homes_fit(plan, desc))
            return;
    }
    /* Nothing fits: the refusal is to name the least of the tier that lacks it. */
    settle_whole(plan, desc, 0);
    if (host_need(plan, desc) <= desc->host_bytes)
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

static void give_frames(struct offload_plan *plan, uint64_t room)
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

static void place_host(struct offload_plan *plan)
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
            tier->home_bytes[part] += strata_plan_part_bytes(plan, (strata_part)part, i);
        }
    }
    for (uint32_t i = 0; i < plan->model.tile_count; i++) {
        if (plan->park.tier[i] != STRATA_HOST)
            continue;
        plan->park.at[i] = at;
        at += 4 * (uint64_t)plan->model.tiles[i].elems;
        tier->home_bytes[STRATA_GRAD] += 4 * (uint64_t)plan->model.tiles[i].elems;
    }
    if (plan->stash == STRATA_HOST)
        plan->stash_at = at;
    tier->stash_bytes = stash_host_bytes(plan);
    plan->host_arena_bytes = at + tier->stash_bytes;
}

static strata_status plan_nvme(struct offload_plan *plan, const struct plan_desc *desc,
                               strata_error *error)
{
    strata_plan_tier *tier = &plan->summary.tiers[STRATA_NVME];
    if (!strata_plan_uses_store(plan))
        return STRATA_OK;
    if (desc->store == NULL)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "something is to rest on nvme but no store directory is given "
                           "(--store DIR)");
    struct store_records records;
    struct store_desc store = strata_plan_store(plan, desc->store, &records);
    tier->limit_bytes = desc->nvme_bytes;
    tier->need_bytes = tier->used_bytes = strata_store_file_bytes(&store);
    for (int part = 0; part < STRATA_PART_COUNT; part++)
        for (uint32_t i = 0; i < plan->model.tile_count; i++)
            if (plan->homes[part].tier[i] == STRATA_NVME)
                tier->home_bytes[part] += strata_plan_part_bytes(plan, (strata_part)part, i);
    if (plan->stash == STRATA_NVME)
        tier->stash_bytes = plan->model.stash_bytes * plan->model.stash_block_count;
    if (tier->need_bytes > tier->limit_bytes)
        return strata_plan_refuse(error, STRATA_NVME, tier->need_bytes, tier->limit_bytes);
    return STRATA_OK;
}

static void summarise(struct offload_plan *plan)
{
    strata_plan *summary = &plan->summary;
    summary->param_count = plan->model.elems;
    summary->padded_elems = plan->model.padded;
    summary->state_bytes = plan->model.elems * (2 * (uint64_t)plan->w + plan->s);
    summary->group_count = plan->model.group_count;
    summary->tile_count = plan->model.tile_count;
    summary->tile_elems = plan->model.tile_elems;
    summary->fetch_frames = plan->frame_count[FRAME_FETCH];
    summary->grad_frames = plan->frame_count[FRAME_GRAD];
    summary->update_frames = plan->frame_count[FRAME_UPDATE];
    summary->park_frames = plan->frame_count[FRAME_PARK];
    summary->param_loads = plan->residency.load_count;
    for (uint32_t u = 0; u < plan->model.use_count; u++)
        summary->param_uses += plan->model.uses[u].kind == STRATA_USE_ACQUIRE;
}

strata_status strata_plan_finish(struct offload_plan *plan, const struct plan_desc *desc,
                                 strata_error *error)
{
    set_strides(plan);
    choose_homes(plan, desc);
    strata_plan_tier *host = &plan->summary.tiers[STRATA_HOST];
    host->limit_bytes = desc->host_bytes;
    host->need_bytes = host_need(plan, desc);
    STRATA_TRY(plan_nvme(plan, desc, error));
    if (host->need_bytes > host->limit_bytes)
        return strata_plan_refuse(error, STRATA_HOST, host->need_bytes, host->limit_bytes);
    /* Keeping states a gradient behind takes frames that a run can do without. */
    plan->fold = desc->fold;
    plan->fold = plan->fold && host_need(plan, desc) <= host->limit_bytes;
    give_frames(plan, host->limit_bytes - host_need(plan, desc));
    place_host(plan);
    host->table_bytes = host_fixed(plan, desc);
    host->used_bytes = host->table_bytes + plan->host_arena_bytes;
    summarise(plan);
    return STRATA_OK;
}
