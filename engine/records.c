/*
 * Master weights and moments between steps: the first values at create or those of a commit,
 * the state hash, reading them out. All of it goes block by block or tile by tile through
 * memory that the plan has counted: a record on NVMe comes through the first update frame, one
 * in the device through a block's bounce.
 *
 * Thread: the engine's caller, while no update is under way.
 */

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/progress.h"
#include "engine/state.h"

#include <string.h>

static uint8_t tier_of(const strata_engine *engine, strata_part part, uint32_t tile)
{
    return engine->plan.homes[part].tier[tile];
}

static uint8_t *frame_state(const strata_engine *engine)
{
    return strata_address_update_frame(&engine->memory, 0, STRATA_STATE);
}

static uint8_t *home_of(const strata_engine *engine, strata_part part, uint32_t tile)
{
    return strata_address_home(&engine->memory, part, tile);
}

static uint8_t *frame_param(const strata_engine *engine)
{
    return strata_address_update_frame(&engine->memory, 0, STRATA_PARAM);
}

/* What queued copies came to, once they have been waited for. */
static strata_status device_status(strata_engine *engine, strata_error *out)
{
    const strata_error *failure = strata_device_error(engine->desc.device);
    if (failure == NULL)
        return STRATA_OK;
    return strata_fail(out, failure->status, failure->native, "%s", failure->message);
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
    strata_convert(STRATA_ISA_BEST, engine->bounce_bytes, engine->plan.compute_dtype, master,
                   STRATA_FP32, STRATA_BLOCK_ELEMS);
    if (tier == STRATA_DEVICE)
        copy_now(engine, params, engine->bounce_bytes, STRATA_BLOCK_ELEMS * w);
    else
        memcpy(params, engine->bounce_bytes, STRATA_BLOCK_ELEMS * w);
}

/* Where a whole record can be put together in host RAM: at home, or in the update frame. NULL:
 * it rests in the device and nothing else needs a frame. */
static uint8_t *record_buffer(const strata_engine *engine, uint32_t tile)
{
    if (tier_of(engine, STRATA_STATE, tile) == STRATA_HOST)
        return home_of(engine, STRATA_STATE, tile);
    return engine->plan.frame_count[FRAME_UPDATE] > 0 ? frame_state(engine) : NULL;
}

/* The initial weights, and moments of zero, whose bytes are zeros in every dtype. */
static void initial_record(strata_engine *engine, uint32_t tile)
{
    uint64_t elems = engine->plan.model.tiles[tile].elems;
    uint64_t block_bytes = strata_record_block_bytes(engine->record_type);
    const uint64_t master_bytes = STRATA_BLOCK_ELEMS * sizeof(float);
    uint8_t *record = record_buffer(engine, tile);
    uint8_t *device = record == NULL ? home_of(engine, STRATA_STATE, tile) : NULL;
    for (uint64_t at = 0; at < elems; at += STRATA_BLOCK_ELEMS) {
        uint64_t offset = at / STRATA_BLOCK_ELEMS * block_bytes;
        initial_block(engine, tile, at);
        if (record != NULL) {
            memcpy(record + offset, engine->bounce, master_bytes);
            memset(record + offset + master_bytes, 0, block_bytes - master_bytes);
        } else {
            copy_now(engine, device + offset, engine->bounce, master_bytes);
            strata_stream_zero(engine->stream, device + offset + master_bytes,
                               block_bytes - master_bytes);
        }
        put_params(engine, tile, at, engine->bounce);
    }
    strata_stream_sync(engine->stream);
}

/* Read the record that the commit names, and make the parameters from its master weights. */
static strata_status committed_record(strata_engine *engine, uint32_t tile)
{
    const struct commit_line *line = &engine->first_line;
    uint8_t *record = record_buffer(engine, tile);
    STRATA_TRY(strata_store_transfer(
        engine->store, false, strata_plan_record_place(&engine->plan, tile, line->slots[tile]),
        engine->base_updates, record));
    for (uint64_t at = 0; at < engine->plan.model.tiles[tile].elems; at += STRATA_BLOCK_ELEMS) {
        struct record_place place = strata_record_place(engine->record_type, at);
        put_params(engine, tile, at, (const float *)(record + place.master));
    }
    return STRATA_OK;
}

/* The record and the parameters are in host RAM: bring them to where they rest. */
static strata_status send_home(strata_engine *engine, uint32_t tile, bool fresh)
{
    const struct offload_plan *plan = &engine->plan;
    uint8_t *record = record_buffer(engine, tile);
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
    struct progress progress;
    uint64_t done = 0;
    const struct progress_call call = {engine->desc.progress, engine->desc.progress_user};
    strata_progress_begin(&progress, &call, fresh ? "initial weights" : "resuming",
                          engine->plan.model.block_count *
                              (uint64_t)strata_record_block_bytes(engine->record_type),
                          strata_now_ns());
    for (uint32_t i = 0; status == STRATA_OK && i < engine->plan.model.tile_count; i++) {
        if (fresh)
            initial_record(engine, i);
        else
            status = committed_record(engine, i);
        if (status == STRATA_OK)
            status = send_home(engine, i, fresh);
        done += strata_plan_part_bytes(&engine->plan, STRATA_STATE, i);
        strata_progress_at(&progress, done, strata_now_ns());
    }
    if (status == STRATA_OK)
        return device_status(engine, error);
    if (error != NULL)
        *error = *strata_store_error(engine->store);
    return status;
}

/* Where a tile's state record can be read by the host. NULL: it is in the device. */
static strata_status state_of(strata_engine *engine, uint32_t tile, const uint8_t **out)
{
    *out = NULL;
    uint8_t tier = tier_of(engine, STRATA_STATE, tile);
    if (tier == STRATA_HOST)
        *out = home_of(engine, STRATA_STATE, tile);
    if (tier != STRATA_NVME)
        return STRATA_OK;
    uint8_t *frame = frame_state(engine);
    *out = frame;
    if (engine->cached_tile == tile)
        return STRATA_OK;
    engine->cached_tile = STRATA_NONE;
    uint32_t slot = strata_schedule_slot(engine->schedule, tile);
    strata_status status = strata_store_transfer(
        engine->store, false, strata_plan_record_place(&engine->plan, tile, slot),
        engine->applied, frame);
    if (status != STRATA_OK) {
        engine->error = *strata_store_error(engine->store);
        return status;
    }
    engine->cached_tile = tile;
    return STRATA_OK;
}

typedef void (*piece_fn)(void *user, const float *piece, uint64_t elems);

struct range {
    const struct group *group;
    strata_record record;
    uint64_t first; /* element of the group */
    uint64_t count;
};

static uint64_t offset_of(enum record_type type, strata_record record, uint64_t elem)
{
    struct record_place place = strata_record_place(type, elem);
    return record == STRATA_MASTER    ? place.master
           : record == STRATA_MOMENT1 ? place.m
                                      : place.v;
}

/* Hand out elements of a tile, from first, which lie in one block, as fp32. */
static strata_status for_piece(strata_engine *engine, uint32_t tile, strata_record record,
                               uint64_t first, uint64_t count, piece_fn fn, void *user)
{
    const uint8_t *state;
    strata_dtype dtype =
        record == STRATA_MASTER ? STRATA_FP32 : strata_record_moments(engine->record_type);
    uint64_t offset = offset_of(engine->record_type, record, first);
    STRATA_TRY(state_of(engine, tile, &state));
    const void *piece = engine->bounce_bytes;
    if (state != NULL)
        piece = state + offset;
    else
        copy_now(engine, engine->bounce_bytes, home_of(engine, STRATA_STATE, tile) + offset,
                 count * strata_dtype_bytes(dtype));
    STRATA_TRY(device_status(engine, &engine->error));
    strata_convert(STRATA_ISA_BEST, engine->bounce, STRATA_FP32, piece, dtype, count);
    fn(user, engine->bounce, count);
    return STRATA_OK;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static strata_status for_range(strata_engine *engine, const struct range *range, piece_fn fn,
                               void *user)
{
    const struct model *model = &engine->plan.model;
    uint64_t end = range->first + range->count;
    for (uint64_t at = range->first; at < end;) {
        /* Tiles are whole blocks and all but the last have one length. */
        uint32_t index = range->group->first_tile + (uint32_t)(at / model->tile_elems);
        uint64_t stop = least(end, (at / STRATA_BLOCK_ELEMS + 1) * STRATA_BLOCK_ELEMS);
        STRATA_TRY(for_piece(engine, index, range->record, at - model->tiles[index].first,
                             stop - at, fn, user));
        at = stop;
    }
    return STRATA_OK;
}

static void hash_piece(void *user, const float *piece, uint64_t elems)
{
    strata_hash_add(user, piece, elems * sizeof *piece);
}

strata_status strata_engine_hash(strata_engine *engine, uint8_t out[16])
{
    STRATA_TRY(strata_engine_between_steps(engine, "hash"));
    if (out == NULL)
        return strata_fail(strata_engine_refusal(engine), STRATA_E_INVALID, 0,
                           "hash: out is NULL");
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

/* Which tensor is meant, and does it have these elements? */
static strata_status find_elements(const struct tensor **out, strata_engine *engine,
                                   const char *call, uint32_t group, uint32_t tensor,
                                   strata_record record, uint64_t first, uint64_t count)
{
    const struct model *model = &engine->plan.model;
    if (group >= model->group_count)
        return strata_fail(strata_engine_refusal(engine), STRATA_E_INVALID, 0,
                           "%s: group %u: the model has %u", call, group, model->group_count);
    if (tensor >= model->groups[group].tensor_count)
        return strata_fail(strata_engine_refusal(engine), STRATA_E_INVALID, 0,
                           "%s: tensor %u of group %s: it has %u", call, tensor,
                           model->groups[group].name, model->groups[group].tensor_count);
    if ((int)record < STRATA_MASTER || record > STRATA_MOMENT2)
        return strata_fail(strata_engine_refusal(engine), STRATA_E_INVALID, 0,
                           "%s: record %d: master, moment 1 or moment 2", call, (int)record);
    const struct tensor *t = &model->tensors[model->groups[group].first_tensor + tensor];
    if (first > t->elems || count > t->elems - first)
        return strata_fail(strata_engine_refusal(engine), STRATA_E_INVALID, 0,
                           "%s: %llu elements from %llu on: tensor %s has %llu", call,
                           (unsigned long long)count, (unsigned long long)first, t->name,
                           (unsigned long long)t->elems);
    *out = t;
    return STRATA_OK;
}

strata_status strata_engine_read(strata_engine *engine, uint32_t group, uint32_t tensor,
                                 strata_record record, uint64_t first, uint64_t count,
                                 float *out)
{
    const struct tensor *t = NULL;
    STRATA_TRY(strata_engine_between_steps(engine, "read"));
    STRATA_TRY(find_elements(&t, engine, "read", group, tensor, record, first, count));
    if (out == NULL && count > 0)
        return strata_fail(strata_engine_refusal(engine), STRATA_E_INVALID, 0,
                           "read: out is NULL");
    STRATA_TRY(strata_wait(engine, 0, NULL));
    const struct model *model = &engine->plan.model;
    engine->cached_tile = STRATA_NONE;
    struct range range = {&model->groups[group], record, t->offset + first, count};
    return for_range(engine, &range, copy_piece, &out);
}
