/*
 * The two halves of making a plan, and the questions that others ask a finished one.
 *
 * The device's half is offload/plan/plan_device.c. Homes outside the device are decided by
 * offload/plan/plan_homes.c, and offload/plan/plan_host.c counts what they take and lays the
 * host's arena out. The need of a tier is what the run cannot do without, given the homes. It
 * is computed before it is compared with the budget, so that a refusal can name it. Frames
 * beyond the need come from what the budget has left.
 *
 * Thread: the engine's caller, at create.
 */

#include "offload/plan/plan.h"

#include "base/error.h"
#include "offload/plan/plan_device.h"
#include "base/text.h"
#include "offload/plan/plan_homes.h"
#include "offload/plan/plan_host.h"

static const char *const tier_words[STRATA_TIER_COUNT] = {"", "device", "host", "nvme"};

uint64_t strata_plan_part_bytes(const struct offload_plan *plan, strata_part part,
                                uint32_t tile)
{
    return strata_layout_bytes(strata_plan_layout(plan, tile), part,
                               plan->model.tiles[tile].elems);
}

void strata_plan_count_home(struct offload_plan *plan, strata_part part, uint32_t tile)
{
    strata_plan_tier *tier = &plan->summary.tiers[plan->homes[part].tier[tile]];
    uint64_t bytes = strata_plan_part_bytes(plan, part, tile);
    tier->home_bytes[part] += bytes;
    if (strata_plan_is_frozen(plan, tile))
        tier->frozen_bytes += bytes;
}

bool strata_plan_update_needs_frame(const struct offload_plan *plan, uint32_t tile)
{
    return !strata_plan_state_in_device(plan, tile) &&
           (plan->homes[STRATA_STATE].tier[tile] == STRATA_NVME ||
            plan->homes[STRATA_PARAM].tier[tile] != STRATA_HOST ||
            plan->homes[STRATA_GRAD].tier[tile] != STRATA_HOST);
}

bool strata_plan_states_on_nvme(const struct offload_plan *plan)
{
    for (uint32_t i = 0; i < plan->model.trained_tile_count; i++)
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
    plan->place_bytes = strata_tables_take(
        tables, (uint64_t)tiles * 3 + plan->model.stash_block_count, sizeof *plan->place_bytes);
    plan->record_bytes = strata_tables_take(tables, tiles, sizeof *plan->record_bytes);
    return strata_tables_check(tables, error);
}

static void set_types(struct offload_plan *plan, const struct plan_desc *desc)
{
    for (uint32_t g = 0; g < plan->model.group_count; g++) {
        struct group_layout *layout = &plan->model.groups[g].layout;
        layout->param_dtype = layout->wire_dtype = desc->compute_dtype;
        layout->record = desc->record;
        layout->staged = desc->compute_dtype != STRATA_FP32 || plan->model.ranks > 1;
    }
}

strata_status strata_plan_begin(struct offload_plan *out, const struct plan_desc *desc,
                                strata_error *error)
{
    *out = (struct offload_plan){.durable = desc->slots.durable,
                                 .slots = strata_slots_per_tile(&desc->slots)};
    strata_status status = strata_model_build(&out->model, &out->tables, desc->model,
                                              desc->tile_elems, desc->shard, error);
    if (status == STRATA_OK)
        set_types(out, desc);
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
    records->fixed_count = plan->model.tile_count - plan->model.trained_tile_count;
    records->slots = plan->slots;
    store.records = records;
    store.place_bytes = plan->place_bytes;
    store.place_count = plan->place_count;
    store.tile_elems = plan->model.tile_elems;
    return store;
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
                strata_plan_count_home(plan, (strata_part)part, i);
    if (plan->stash == STRATA_NVME)
        tier->stash_bytes = plan->model.stash_bytes * plan->model.stash_block_count;
    if (tier->need_bytes > tier->limit_bytes)
        return strata_plan_refuse(error, STRATA_NVME, tier->need_bytes, tier->limit_bytes);
    return STRATA_OK;
}

static void summarise(struct offload_plan *plan)
{
    strata_plan *summary = &plan->summary;
    summary->param_count = plan->model.trained_elems;
    summary->frozen_count = plan->model.elems - plan->model.trained_elems;
    summary->padded_elems = plan->model.padded;
    for (uint32_t g = 0; g < plan->model.group_count; g++)
        for (int part = 0; part < STRATA_PART_COUNT; part++)
            summary->state_bytes += strata_layout_bytes(
                &plan->model.groups[g].layout, (strata_part)part, plan->model.groups[g].elems);
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
    strata_plan_set_strides(plan);
    strata_plan_choose_homes(plan, desc);
    strata_plan_tier *host = &plan->summary.tiers[STRATA_HOST];
    host->limit_bytes = desc->host_bytes;
    host->need_bytes = strata_plan_host_need(plan, desc);
    STRATA_TRY(plan_nvme(plan, desc, error));
    if (host->need_bytes > host->limit_bytes)
        return strata_plan_refuse(error, STRATA_HOST, host->need_bytes, host->limit_bytes);
    /* Keeping states a gradient behind takes frames that a run can do without. */
    plan->fold = desc->fold;
    plan->fold = plan->fold && strata_plan_host_need(plan, desc) <= host->limit_bytes;
    strata_plan_give_frames(plan, host->limit_bytes - strata_plan_host_need(plan, desc));
    strata_plan_place_host(plan);
    host->table_bytes = strata_plan_host_fixed(plan, desc);
    host->used_bytes = host->table_bytes + plan->host_arena_bytes;
    summarise(plan);
    return STRATA_OK;
}
