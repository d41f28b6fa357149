/*
 * Filling homes. At create all of them are filled, with the initial weights and zero moments or
 * with what the store's commit holds; between steps those of one tensor, with the values that
 * the caller writes.
 *
 * Tiles are worked on in order, several at a time: their transfers are under way together, and
 * all workers compute one tile after the other, block by block. If a part cannot be made where
 * it rests (on NVMe, or in a device whose memory the host cannot write) it is made in a frame
 * of the plan, since no frame is in use then: in an update frame, or, for a frozen tile on
 * NVMe, in a fetch frame. So no memory is taken that the plan has not counted.
 *
 * Weights do not depend on the order or the worker: each block is a call of the caller's
 * strata_init_fn for elements of its own.
 *
 * A frozen tile has parameters and nothing else. They are its record, which is written once,
 * when the store is new. A resume reads it, at least to verify it.
 *
 * Thread: the engine's caller, and the workers; transfers end on I/O threads, which only send.
 */

#include "base/channel.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/progress.h"
#include "engine/engine_internal.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Tiles under way at once, if there are as many frames: enough to keep a drive busy. */
#define FILL_FLIGHTS 16u

/* A tile that is being filled. */
struct flight {
    struct store_io state;
    struct store_io param;
    uint32_t tile;
    uint32_t pending; /* transfers under way */
    bool busy;
};

struct fill {
    strata_engine *engine;
    bool fresh;
    const struct patch *patch; /* NULL: all bytes are filled */
    uint32_t next;             /* tiles that are left: next .. end - 1 */
    uint32_t end;
    struct flight flights[FILL_FLIGHTS];
    uint32_t busy;
    uint64_t done_bytes;
    struct progress progress;
    strata_error error;
};

/* One tile's work for the workers. */
struct fill_job {
    strata_engine *engine;
    bool fresh;
    const struct patch *patch;
    uint32_t tile;
    uint8_t *state; /* the record, and the parameters: at home or in a frame; NULL: frozen */
    uint8_t *param;
    _Atomic uint64_t bad; /* 1 + an element of the tile that is not finite; 0: there is none */
};

uint64_t strata_first_not_finite(const float *values, uint64_t count)
{
    /* Without the sign, the bits of all values that are not finite are infinity's or more.
     * Comparing integers lets the compiler use vectors. */
    const uint32_t infinity = 0x7f800000u;
    uint32_t largest = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, values + i, sizeof bits);
        bits &= 0x7fffffffu;
        largest = bits > largest ? bits : largest;
    }
    uint64_t first = 0;
    while (largest >= infinity && isfinite(values[first]))
        first++;
    return largest >= infinity ? first : count;
}

static uint8_t tier_of(const strata_engine *engine, strata_part part, uint32_t tile)
{
    return engine->plan.homes[part].tier[tile];
}

/* Can the host make the part where it rests? */
static bool at_home(const strata_engine *engine, strata_part part, uint32_t tile)
{
    uint8_t tier = tier_of(engine, part, tile);
    return tier == STRATA_HOST || (tier == STRATA_DEVICE && engine->desc.device->ops->in_ram);
}

/* The part of a tile that is its record in the store. */
static strata_part record_part(const strata_engine *engine, uint32_t tile)
{
    return strata_plan_is_frozen(&engine->plan, tile) ? STRATA_PARAM : STRATA_STATE;
}

static bool needs_frame(const strata_engine *engine, uint32_t tile)
{
    return !at_home(engine, record_part(engine, tile), tile) ||
           !at_home(engine, STRATA_PARAM, tile);
}

/* The kind of frame that a tile is made in, if it needs one. */
static enum frame_kind frame_kind_of(const strata_engine *engine, uint32_t tile)
{
    bool fetched = strata_plan_is_frozen(&engine->plan, tile) &&
                   tier_of(engine, STRATA_PARAM, tile) == STRATA_NVME;
    return fetched ? FRAME_FETCH : FRAME_UPDATE;
}

static uint8_t *buffer_of(const struct fill *fill, const struct flight *flight,
                          strata_part part)
{
    const strata_engine *engine = fill->engine;
    uint32_t index = (uint32_t)(flight - fill->flights);
    if (at_home(engine, part, flight->tile))
        return strata_address_home(&engine->memory, part, flight->tile);
    if (frame_kind_of(engine, flight->tile) == FRAME_FETCH)
        return strata_address_frame(&engine->memory, FRAME_FETCH, index);
    return strata_address_update_frame(&engine->memory, index, part);
}

/* Flight i has frame i of each kind. A tile that needs no frame takes a flight without one if
 * it can. */
static struct flight *free_flight(struct fill *fill, uint32_t tile)
{
    uint32_t frames = fill->engine->plan.frame_count[frame_kind_of(fill->engine, tile)];
    bool frame = needs_frame(fill->engine, tile);
    uint32_t end = frame && frames < FILL_FLIGHTS ? frames : FILL_FLIGHTS;
    for (uint32_t i = end; i-- > 0;)
        if (!fill->flights[i].busy)
            return &fill->flights[i];
    return NULL;
}

/* Initial weights of some elements of one block, padding included. */
static void initial_weights(struct fill_job *job, uint64_t at, uint64_t elems, float *out)
{
    strata_engine *engine = job->engine;
    const struct model *model = &engine->plan.model;
    const struct tile *tile = &model->tiles[job->tile];
    const struct group *group = &model->groups[tile->group];
    for (uint64_t i = 0; i < elems;) {
        uint64_t elem = tile->first + at + i;
        const struct tensor *tensor = strata_model_tensor_at(model, tile->group, elem);
        if (tensor == NULL) {
            memset(out + i, 0, (elems - i) * sizeof *out);
            break;
        }
        uint64_t count = tensor->offset + tensor->elems - elem;
        count = count < elems - i ? count : elems - i;
        engine->desc.init(engine->desc.init_user, tile->group,
                          (uint32_t)(tensor - model->tensors) - group->first_tensor,
                          elem - tensor->offset, count, out + i);
        i += count;
    }
    uint64_t bad = strata_first_not_finite(out, elems);
    if (bad < elems)
        atomic_store_explicit(&job->bad, at + bad + 1, memory_order_relaxed);
}

/* Initial weights of a frozen tile go straight to its parameters, in pieces that a thread's
 * stack has room for. */
static void fill_frozen_block(struct fill_job *job, uint64_t at,
                              const struct group_layout *layout)
{
    float piece[1024];
    const uint64_t elems = sizeof piece / sizeof *piece;
    for (uint64_t end = at + STRATA_BLOCK_ELEMS; at < end; at += elems) {
        initial_weights(job, at, elems, piece);
        strata_convert(STRATA_ISA_BEST,
                       job->param + strata_layout_bytes(layout, STRATA_PARAM, at),
                       layout->param_dtype, piece, STRATA_FP32, elems);
    }
}

/* The elements of the patch that lie in a block of a tile. out_at: the first, in the tile.
 * false: there are none. */
static bool patch_in_block(const struct patch *patch, const struct tile *tile,
                           uint64_t block_at, uint64_t *out_at, uint64_t *out_count,
                           const float **out_values)
{
    uint64_t block = tile->first + block_at;
    uint64_t first = patch->first > block ? patch->first : block;
    uint64_t end = patch->first + patch->count;
    end = end < block + STRATA_BLOCK_ELEMS ? end : block + STRATA_BLOCK_ELEMS;
    if (first >= end)
        return false;
    *out_at = first - tile->first;
    *out_count = end - first;
    *out_values = patch->values + (first - patch->first);
    return true;
}

static void patch_block(const struct fill_job *job, uint64_t block_at)
{
    const strata_engine *engine = job->engine;
    strata_record record = job->patch->record;
    uint64_t at;
    uint64_t count;
    const float *values;
    if (patch_in_block(job->patch, &engine->plan.model.tiles[job->tile], block_at, &at, &count,
                       &values))
        strata_convert(STRATA_ISA_BEST,
                       job->state + strata_engine_value_offset(engine, record, at),
                       strata_engine_value_dtype(engine, record), values, STRATA_FP32, count);
}

static void fill_block(void *user, uint32_t index, uint32_t worker)
{
    (void)worker;
    struct fill_job *job = user;
    const strata_engine *engine = job->engine;
    uint64_t at = (uint64_t)index * STRATA_BLOCK_ELEMS;
    const struct group_layout *layout = strata_plan_layout(&engine->plan, job->tile);
    if (layout->frozen) {
        fill_frozen_block(job, at, layout);
        return;
    }
    uint8_t *block = job->state + strata_layout_bytes(layout, STRATA_STATE, at);
    uint64_t master_bytes = strata_record_place(engine->record_type, 0).m;
    if (job->fresh) {
        initial_weights(job, at, STRATA_BLOCK_ELEMS, (float *)block);
        /* Moments of zero are bytes of zero in every dtype. */
        memset(block + master_bytes, 0, layout->record.block_bytes - master_bytes);
    }
    if (job->patch != NULL)
        patch_block(job, at);
    if (job->patch != NULL && job->patch->record != STRATA_MASTER)
        return;
    strata_convert(STRATA_ISA_BEST, job->param + strata_layout_bytes(layout, STRATA_PARAM, at),
                   layout->param_dtype, block, STRATA_FP32, STRATA_BLOCK_ELEMS);
}

static strata_status refuse_weight(const strata_engine *engine, uint32_t tile, uint64_t at,
                                   strata_error *error)
{
    const struct tile *of = &engine->plan.model.tiles[tile];
    const struct tensor *tensor =
        strata_model_tensor_at(&engine->plan.model, of->group, of->first + at);
    return strata_fail(error, STRATA_E_INVALID, 0,
                       "initial weights: element %llu of tensor %s is not finite",
                       (unsigned long long)(of->first + at - tensor->offset), tensor->name);
}

static void transfer_ended(void *user, struct store_io *io)
{
    strata_channel_send(user, &io);
}

static void start_transfer(struct fill *fill, struct flight *flight, struct store_io *io,
                           const struct store_io *what)
{
    *io = *what;
    io->done = transfer_ended;
    io->user = fill->engine->arrivals;
    flight->pending++;
    strata_store_start(fill->engine->store, io);
}

/* The slot that a tile's record is written to; STRATA_NONE: it is not written. */
static uint32_t slot_to_write(const struct fill *fill, uint32_t tile)
{
    strata_engine *engine = fill->engine;
    if (fill->patch != NULL)
        return tier_of(engine, STRATA_STATE, tile) == STRATA_NVME
                   ? strata_schedule_rewrite(engine->schedule, tile)
                   : STRATA_NONE;
    return fill->fresh && engine->plan.record_bytes[tile] > 0 ? 0 : STRATA_NONE;
}

/* Copy what was made in a frame to where it rests, and write what the store does not have yet.
 */
static void send_home(struct fill *fill, struct flight *flight)
{
    strata_engine *engine = fill->engine;
    uint32_t tile = flight->tile;
    uint32_t slot = slot_to_write(fill, tile);
    bool weights = fill->patch == NULL || fill->patch->record == STRATA_MASTER;
    for (int part = STRATA_PARAM; part < STRATA_PART_COUNT; part++) {
        if (part == STRATA_GRAD || tier_of(engine, part, tile) != STRATA_DEVICE ||
            at_home(engine, part, tile) || (part == STRATA_PARAM && !weights))
            continue;
        strata_stream_copy(engine->stream, strata_address_home(&engine->memory, part, tile),
                           buffer_of(fill, flight, part),
                           strata_plan_part_bytes(&engine->plan, part, tile));
        strata_stream_sync(engine->stream);
    }
    if (slot != STRATA_NONE)
        start_transfer(
            fill, flight, &flight->state,
            &(struct store_io){.write = true,
                               .place = strata_plan_record_place(&engine->plan, tile, slot),
                               .updates = engine->applied,
                               .buffer = buffer_of(fill, flight, record_part(engine, tile))});
    bool own_place = !strata_plan_is_frozen(&engine->plan, tile);
    if (weights && own_place && tier_of(engine, STRATA_PARAM, tile) == STRATA_NVME)
        start_transfer(
            fill, flight, &flight->param,
            &(struct store_io){.write = true,
                               .place = (uint32_t)engine->plan.homes[STRATA_PARAM].at[tile],
                               .buffer = buffer_of(fill, flight, STRATA_PARAM)});
}

static void end_flight(struct fill *fill, struct flight *flight)
{
    if (flight->pending > 0)
        return;
    flight->busy = false;
    fill->busy--;
    fill->done_bytes += strata_plan_part_bytes(
        &fill->engine->plan, record_part(fill->engine, flight->tile), flight->tile);
    strata_progress_at(&fill->progress, fill->done_bytes, strata_now_ns());
}

static strata_status make_tile(struct fill *fill, struct flight *flight)
{
    strata_engine *engine = fill->engine;
    bool frozen = strata_plan_is_frozen(&engine->plan, flight->tile);
    struct fill_job job = {.engine = engine,
                           .fresh = fill->fresh,
                           .patch = fill->patch,
                           .tile = flight->tile,
                           .state = frozen ? NULL : buffer_of(fill, flight, STRATA_STATE),
                           .param = buffer_of(fill, flight, STRATA_PARAM)};
    uint32_t blocks = engine->plan.model.tiles[flight->tile].elems / STRATA_BLOCK_ELEMS;
    /* A frozen tile's parameters are as they were read. */
    if (frozen && !fill->fresh)
        blocks = 0;
    STRATA_TRY(
        strata_workers_run(engine->desc.workers, STRATA_JOB_PANEL, fill_block, &job, blocks));
    uint64_t bad = atomic_load_explicit(&job.bad, memory_order_relaxed);
    if (bad > 0)
        return refuse_weight(engine, flight->tile, bad - 1, &fill->error);
    send_home(fill, flight);
    return STRATA_OK;
}

static strata_status begin_tile(struct fill *fill, struct flight *flight, uint32_t tile)
{
    const strata_engine *engine = fill->engine;
    *flight = (struct flight){.tile = tile, .busy = true};
    fill->busy++;
    bool at_home = fill->patch != NULL && tier_of(engine, STRATA_STATE, tile) != STRATA_NVME;
    if (!fill->fresh && !at_home) {
        uint32_t slot = fill->patch != NULL ? strata_schedule_slot(engine->schedule, tile)
                                            : engine->first_line.slots[tile];
        start_transfer(
            fill, flight, &flight->state,
            &(struct store_io){.place = strata_plan_record_place(&engine->plan, tile, slot),
                               .updates = engine->applied,
                               .buffer = buffer_of(fill, flight, record_part(engine, tile))});
        return STRATA_OK;
    }
    strata_status status = make_tile(fill, flight);
    end_flight(fill, flight);
    return status;
}

/* Wait until a transfer has ended, and go on with its tile. */
static strata_status take_ended(struct fill *fill)
{
    struct store_io *io;
    while (!strata_channel_receive(fill->engine->arrivals, &io, UINT64_MAX))
        continue;
    struct flight *flight = fill->flights;
    while (io != &flight->state && io != &flight->param)
        flight++;
    flight->pending--;
    strata_status status = io->status;
    if (status != STRATA_OK)
        (void)strata_fail(&fill->error, status, strata_store_error(fill->engine->store)->native,
                          "%s", strata_store_error(fill->engine->store)->message);
    else if (!io->write && fill->error.status == STRATA_OK)
        status = make_tile(fill, flight);
    end_flight(fill, flight);
    return status;
}

/* Initial weights for a device whose memory the host cannot write, where no update needs a
 * frame: they are copied block by block. */
static strata_status fill_by_blocks(struct fill *fill, uint32_t tile)
{
    strata_engine *engine = fill->engine;
    const struct group_layout *layout = strata_plan_layout(&engine->plan, tile);
    uint64_t param_bytes = strata_layout_bytes(layout, STRATA_PARAM, STRATA_BLOCK_ELEMS);
    uint64_t master_bytes = strata_record_place(engine->record_type, 0).m;
    uint8_t *param = strata_address_home(&engine->memory, STRATA_PARAM, tile);
    struct fill_job job = {.engine = engine, .fresh = true, .tile = tile};
    for (uint64_t at = 0; at < engine->plan.model.tiles[tile].elems; at += STRATA_BLOCK_ELEMS) {
        initial_weights(&job, at, STRATA_BLOCK_ELEMS, engine->bounce);
        strata_convert(STRATA_ISA_BEST, engine->bounce_bytes, layout->param_dtype,
                       engine->bounce, STRATA_FP32, STRATA_BLOCK_ELEMS);
        if (!layout->frozen) {
            uint8_t *block = strata_address_home(&engine->memory, STRATA_STATE, tile) +
                             strata_layout_bytes(layout, STRATA_STATE, at);
            strata_stream_copy(engine->stream, block, engine->bounce, master_bytes);
            strata_stream_zero(engine->stream, block + master_bytes,
                               layout->record.block_bytes - master_bytes);
        }
        strata_stream_copy(engine->stream,
                           param + strata_layout_bytes(layout, STRATA_PARAM, at),
                           engine->bounce_bytes, param_bytes);
        strata_stream_sync(engine->stream);
    }
    fill->done_bytes += strata_plan_part_bytes(&engine->plan, record_part(engine, tile), tile);
    strata_progress_at(&fill->progress, fill->done_bytes, strata_now_ns());
    uint64_t bad = atomic_load_explicit(&job.bad, memory_order_relaxed);
    return bad > 0 ? refuse_weight(engine, tile, bad - 1, &fill->error) : STRATA_OK;
}

/* Write the patch to such a device: only its elements are copied, and the weights made of them.
 */
static strata_status patch_by_blocks(struct fill *fill, uint32_t tile)
{
    strata_engine *engine = fill->engine;
    const struct patch *patch = fill->patch;
    const struct tile *of = &engine->plan.model.tiles[tile];
    strata_dtype dtype = strata_engine_value_dtype(engine, patch->record);
    const struct group_layout *layout = strata_plan_layout(&engine->plan, tile);
    uint8_t *state = strata_address_home(&engine->memory, STRATA_STATE, tile);
    uint8_t *param = strata_address_home(&engine->memory, STRATA_PARAM, tile);
    for (uint64_t block = 0; block < of->elems; block += STRATA_BLOCK_ELEMS) {
        uint64_t at;
        uint64_t count;
        const float *values;
        if (!patch_in_block(patch, of, block, &at, &count, &values))
            continue;
        strata_convert(STRATA_ISA_BEST, engine->bounce, dtype, values, STRATA_FP32, count);
        strata_stream_copy(
            engine->stream, state + strata_engine_value_offset(engine, patch->record, at),
            engine->bounce, strata_engine_value_bytes(engine, patch->record, count));
        if (patch->record == STRATA_MASTER) {
            strata_convert(STRATA_ISA_BEST, engine->bounce_bytes, layout->param_dtype, values,
                           STRATA_FP32, count);
            strata_stream_copy(
                engine->stream, param + strata_layout_bytes(layout, STRATA_PARAM, at),
                engine->bounce_bytes, strata_layout_bytes(layout, STRATA_PARAM, count));
        }
        strata_stream_sync(engine->stream);
    }
    return STRATA_OK;
}

/* Begin the next tile. Without a free flight or frame, or a tile, wait for a transfer. */
static strata_status fill_next_tile(struct fill *fill)
{
    const strata_engine *engine = fill->engine;
    if (fill->next == fill->end)
        return take_ended(fill);
    bool out_of_reach = !at_home(engine, STRATA_STATE, fill->next) &&
                        tier_of(engine, STRATA_STATE, fill->next) == STRATA_DEVICE;
    if (fill->patch != NULL && out_of_reach)
        return patch_by_blocks(fill, fill->next++);
    uint32_t frames = engine->plan.frame_count[frame_kind_of(engine, fill->next)];
    if (needs_frame(engine, fill->next) && frames == 0)
        return fill_by_blocks(fill, fill->next++);
    struct flight *flight = free_flight(fill, fill->next);
    return flight != NULL ? begin_tile(fill, flight, fill->next++) : take_ended(fill);
}

/* Fill the tiles that are left. After a failure only the transfers under way are waited for. */
static strata_status run_fill(struct fill *fill, const char *what, strata_error *error)
{
    strata_engine *engine = fill->engine;
    const struct progress_call call = {engine->desc.progress, engine->desc.progress_user};
    uint64_t bytes = 0;
    for (uint32_t i = fill->next; i < fill->end; i++)
        bytes += strata_plan_part_bytes(&engine->plan, record_part(engine, i), i);
    strata_progress_begin(&fill->progress, &call, what, bytes, strata_now_ns());
    strata_status status = STRATA_OK;
    while (status == STRATA_OK && (fill->busy > 0 || fill->next < fill->end))
        status = fill_next_tile(fill);
    while (fill->busy > 0)
        (void)take_ended(fill);
    if (status == STRATA_OK)
        status = strata_engine_device_status(engine, &fill->error);
    if (status != STRATA_OK)
        return strata_fail(error, status, fill->error.native, "%s", fill->error.message);
    return STRATA_OK;
}

strata_status strata_engine_fill(strata_engine *engine, bool fresh, strata_error *error)
{
    struct fill fill = {.engine = engine, .fresh = fresh, .end = engine->plan.model.tile_count};
    return run_fill(&fill, fresh ? "initial weights" : "resuming", error);
}

strata_status strata_engine_patch(strata_engine *engine, const struct patch *patch,
                                  strata_error *error)
{
    /* All tiles of a group but the last have one length. */
    const struct model *model = &engine->plan.model;
    uint32_t first_tile = model->groups[patch->group].layout.first_tile;
    struct fill fill = {
        .engine = engine,
        .patch = patch,
        .next = first_tile + (uint32_t)(patch->first / model->tile_elems),
        .end =
            first_tile + (uint32_t)((patch->first + patch->count - 1) / model->tile_elems) + 1,
    };
    return run_fill(&fill, "writing", error);
}
