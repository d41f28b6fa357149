/*
 * Master weights and moments between steps: the first values at create or those of a commit,
 * the state hash, reading them out. All of it goes block by block or tile by tile through
 * memory that the plan has counted: a record on NVMe comes through the first update frame, one
 * in the device through a block's bounce.
 *
 * Thread: the engine's caller, while no update is under way.
 */

#include "base/error.h"
#include "base/hash.h"
#include "engine/state.h"

#include <string.h>

static uint8_t tier_of(const strata_engine *engine, strata_part part, uint32_t tile)
{
    return engine->plan.homes[part].tier[tile];
}

static float *frame_state(const strata_engine *engine)
{
    return (float *)strata_address_update_frame(&engine->memory, 0, STRATA_STATE);
}

static uint8_t *home_of(const strata_engine *engine, strata_part part, uint32_t tile)
{
    return strata_address_home(&engine->memory, part, tile);
}

static uint8_t *frame_param(const strata_engine *engine)
{
    return strata_address_update_frame(&engine->memory, 0, STRATA_PARAM);
}

static void copy_now(strata_engine *engine, void *dst, const void *src, size_t bytes)
{
    strata_stream_copy(engine->stream, dst, src, bytes);
    strata_stream_sync(engine->stream);
}

/* The initial values of one block of a tile, padding included, into the bounce. */
static void initial_block(strata_engine *engine, uint32_t tile, uint64_t at)
{
    const struct model *model = &engine->plan.model;
    uint32_t g = model->tiles[tile].group;
    const struct group *group = &model->groups[g];
    uint64_t first = model->tiles[tile].first + at;
    uint64_t end = first + STRATA_BLOCK_ELEMS;
    memset(engine->bounce, 0, STRATA_BLOCK_ELEMS * sizeof *engine->bounce);
    for (uint32_t t = 0; t < group->tensor_count; t++) {
        const struct tensor *tensor = &model->tensors[group->first_tensor + t];
        uint64_t from = tensor->offset > first ? tensor->offset : first;
        uint64_t to =
            tensor->offset + tensor->elems < end ? tensor->offset + tensor->elems : end;
        if (from < to)
            engine->desc.init(engine->desc.init_user, g, t, from - tensor->offset, to - from,
                              engine->bounce + (from - first));
    }
}

/* Parameters of one block from its master weights, to where they rest or the frame. */
static void put_params(strata_engine *engine, uint32_t tile, uint64_t at, const float *master)
{
    uint64_t w = engine->plan.w;
    uint8_t tier = tier_of(engine, STRATA_PARAM, tile);
    uint8_t *params =
        (tier == STRATA_NVME ? frame_param(engine) : home_of(engine, STRATA_PARAM, tile)) +
        at * w;
    strata_convert(STRATA_ISA_BEST, engine->bounce_param, engine->plan.compute_dtype, master,
                   STRATA_FP32, STRATA_BLOCK_ELEMS);
    if (tier == STRATA_DEVICE)
        copy_now(engine, params, engine->bounce_param, STRATA_BLOCK_ELEMS * w);
    else
        memcpy(params, engine->bounce_param, STRATA_BLOCK_ELEMS * w);
}

/* Where a whole record can be put together in host RAM: at home, or in the update frame. NULL:
 * it rests in the device and nothing else needs a frame. */
static float *record_buffer(const strata_engine *engine, uint32_t tile)
{
    if (tier_of(engine, STRATA_STATE, tile) == STRATA_HOST)
        return (float *)home_of(engine, STRATA_STATE, tile);
    return engine->plan.frame_count[FRAME_UPDATE] > 0 ? frame_state(engine) : NULL;
}

static void initial_record(strata_engine *engine, uint32_t tile)
{
    uint64_t elems = engine->plan.model.tiles[tile].elems;
    float *record = record_buffer(engine, tile);
    float *device = record == NULL ? (float *)home_of(engine, STRATA_STATE, tile) : NULL;
    for (uint64_t at = 0; at < elems; at += STRATA_BLOCK_ELEMS) {
        initial_block(engine, tile, at);
        if (record != NULL)
            memcpy(record + at, engine->bounce, STRATA_BLOCK_ELEMS * sizeof *record);
        else
            copy_now(engine, device + at, engine->bounce, STRATA_BLOCK_ELEMS * sizeof *device);
        put_params(engine, tile, at, engine->bounce);
    }
    if (record != NULL) {
        memset(record + elems, 0, 2 * elems * sizeof *record);
        return;
    }
    strata_stream_zero(engine->stream, device + elems, 2 * elems * sizeof *device);
    strata_stream_sync(engine->stream);
}

/* Read the record that the commit names, and make the parameters from its master weights. */
static strata_status committed_record(strata_engine *engine, uint32_t tile)
{
    const struct commit_line *line = &engine->first_line;
    float *record = record_buffer(engine, tile);
    STRATA_TRY(strata_store_transfer(
        engine->store, false, strata_plan_record_place(&engine->plan, tile, line->slots[tile]),
        engine->base_updates, record));
    for (uint64_t at = 0; at < engine->plan.model.tiles[tile].elems; at += STRATA_BLOCK_ELEMS)
        put_params(engine, tile, at, record + at);
    return STRATA_OK;
}

/* The record and the parameters are in host RAM: bring them to where they rest. */
static strata_status send_home(strata_engine *engine, uint32_t tile, bool fresh)
{
    const struct offload_plan *plan = &engine->plan;
    float *record = record_buffer(engine, tile);
    if (record != NULL && tier_of(engine, STRATA_STATE, tile) == STRATA_DEVICE)
        copy_now(engine, home_of(engine, STRATA_STATE, tile), record,
                 strata_plan_part_bytes(plan, STRATA_STATE, tile));
    if (fresh && plan->record_bytes[tile] > 0)
        STRATA_TRY(strata_store_transfer(engine->store, true,
                                         strata_plan_record_place(plan, tile, 0), 0, record));
    if (tier_of(engine, STRATA_PARAM, tile) == STRATA_NVME)
        STRATA_TRY(strata_store_transfer(engine->store, true,
                                         (uint32_t)plan->homes[STRATA_PARAM].at[tile], 0,
                                         frame_param(engine)));
    return STRATA_OK;
}

strata_status strata_records_init(strata_engine *engine, bool fresh, strata_error *error)
{
    strata_status status = STRATA_OK;
    for (uint32_t i = 0; status == STRATA_OK && i < engine->plan.model.tile_count; i++) {
        if (fresh)
            initial_record(engine, i);
        else
            status = committed_record(engine, i);
        if (status == STRATA_OK)
            status = send_home(engine, i, fresh);
    }
    if (status == STRATA_OK && fresh && engine->plan.durable)
        status = strata_commit_lines(engine->store, &engine->first_line, 1, 0);
    if (status != STRATA_OK && error != NULL)
        *error = *strata_store_error(engine->store);
    return status;
}

/* Where a tile's state record can be read by the host. NULL: it is in the device. */
static strata_status state_of(strata_engine *engine, uint32_t tile, float **out)
{
    *out = NULL;
    uint8_t tier = tier_of(engine, STRATA_STATE, tile);
    if (tier == STRATA_HOST)
        *out = (float *)home_of(engine, STRATA_STATE, tile);
    if (tier != STRATA_NVME)
        return STRATA_OK;
    *out = frame_state(engine);
    if (engine->cached_tile == tile)
        return STRATA_OK;
    engine->cached_tile = STRATA_NONE;
    uint32_t slot = strata_schedule_slot(engine->schedule, tile);
    strata_status status = strata_store_transfer(
        engine->store, false, strata_plan_record_place(&engine->plan, tile, slot),
        engine->applied, *out);
    if (status != STRATA_OK) {
        engine->error = *strata_store_error(engine->store);
        return status;
    }
    engine->cached_tile = tile;
    return STRATA_OK;
}

typedef void (*piece_fn)(void *user, const float *piece, uint64_t elems);

/* Hand out one record's elements of a tile, from first, in pieces. */
static strata_status for_tile(strata_engine *engine, uint32_t tile, uint64_t first,
                              uint64_t count, piece_fn fn, void *user)
{
    float *state;
    STRATA_TRY(state_of(engine, tile, &state));
    if (state != NULL) {
        fn(user, state + first, count);
        return STRATA_OK;
    }
    const float *device = (const float *)home_of(engine, STRATA_STATE, tile) + first;
    for (uint64_t done = 0; done < count; done += STRATA_BLOCK_ELEMS) {
        uint64_t piece = count - done < STRATA_BLOCK_ELEMS ? count - done : STRATA_BLOCK_ELEMS;
        copy_now(engine, engine->bounce, device + done, piece * sizeof *device);
        fn(user, engine->bounce, piece);
    }
    return STRATA_OK;
}

struct range {
    const struct group *group;
    strata_record record;
    uint64_t first; /* element of the group */
    uint64_t count;
};

static strata_status for_range(strata_engine *engine, const struct range *range, piece_fn fn,
                               void *user)
{
    const struct model *model = &engine->plan.model;
    for (uint32_t i = 0; i < range->group->tile_count; i++) {
        uint32_t index = range->group->first_tile + i;
        const struct tile *tile = &model->tiles[index];
        uint64_t from = range->first > tile->first ? range->first : tile->first;
        uint64_t to = range->first + range->count;
        to = to < tile->first + tile->elems ? to : tile->first + tile->elems;
        if (from < to)
            STRATA_TRY(for_tile(engine, index,
                                (uint64_t)range->record * tile->elems + from - tile->first,
                                to - from, fn, user));
    }
    return STRATA_OK;
}

static void hash_piece(void *user, const float *piece, uint64_t elems)
{
    strata_hash_add(user, piece, elems * sizeof *piece);
}

strata_status strata_engine_hash(strata_engine *engine, uint8_t out[16])
{
    STRATA_TRY(strata_wait(engine, 0, NULL));
    engine->cached_tile = STRATA_NONE;
    strata_hash_reset(engine->hash);
    const struct model *model = &engine->plan.model;
    for (uint32_t g = 0; g < model->group_count; g++) {
        const struct group *group = &model->groups[g];
        for (uint32_t t = 0; t < group->tensor_count; t++) {
            const struct tensor *tensor = &model->tensors[group->first_tensor + t];
            for (int record = STRATA_MASTER; record <= STRATA_MOMENT2; record++) {
                struct range range = {group, (strata_record)record, tensor->offset,
                                      tensor->elems};
                STRATA_TRY(for_range(engine, &range, hash_piece, engine->hash));
            }
        }
    }
    strata_hash_digest(engine->hash, out);
    return STRATA_OK;
}

static void copy_piece(void *user, const float *piece, uint64_t elems)
{
    float **out = user;
    memcpy(*out, piece, elems * sizeof *piece);
    *out += elems;
}

strata_status strata_engine_read(strata_engine *engine, uint32_t group, uint32_t tensor,
                                 strata_record record, uint64_t first, uint64_t count,
                                 float *out)
{
    STRATA_TRY(strata_wait(engine, 0, NULL));
    const struct model *model = &engine->plan.model;
    STRATA_CHECK(group < model->group_count && tensor < model->groups[group].tensor_count);
    const struct tensor *t = &model->tensors[model->groups[group].first_tensor + tensor];
    STRATA_CHECK(record >= STRATA_MASTER && record <= STRATA_MOMENT2 && first <= t->elems &&
                 count <= t->elems - first);
    engine->cached_tile = STRATA_NONE;
    struct range range = {&model->groups[group], record, t->offset + first, count};
    return for_range(engine, &range, copy_piece, &out);
}
