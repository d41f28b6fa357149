/*
 * Master weights and moments between steps: the state hash, reading them, and writing them, for
 * which fill.c does the work.
 *
 * Hashing and reading go through elements in an order that is given: tensor by tensor, or one
 * tensor's range. A walk cuts that order into spans, each of one tile. Records on NVMe come
 * through the update frames, which are free between steps. They are read ahead in the order of
 * the walk, as many as there are frames, so that the walk does not wait for one read at a time.
 * A record in a device that the host does not reach comes through a block's bounce.
 *
 * Thread: the engine's caller, while no update is under way; transfers end on I/O threads,
 * which only send.
 */

#include "base/channel.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/progress.h"
#include "engine/engine_internal.h"

#include <float.h>
#include <string.h>

/* Records that are read ahead at most. Frames beyond that are not used. */
#define READ_AHEAD 16u

/* Elements of one tile that a walk takes in a row. */
struct span {
    uint32_t tile;
    strata_record record;
    uint64_t first; /* element of the tile */
    uint64_t count;
};

/* Where a walk is: a tensor, a record, an element of the tensor. */
struct cursor {
    uint32_t tensor;
    int record;
    uint64_t at;
    uint64_t spans; /* before this one */
};

/* An update frame with a record in it, or on its way. */
struct read {
    struct store_io io;
    uint32_t tile; /* STRATA_NONE: none */
    bool arrived;
    uint64_t last_use; /* the last span known to need it */
};

typedef void (*take_fn)(void *user, const float *values, uint64_t count);

struct walk {
    strata_engine *engine;
    /* The order: all records of each tensor up to end_tensor - 1; or one range, the elements of
     * one record of one tensor up to `to` - 1. */
    uint32_t end_tensor;
    bool one_range;
    uint64_t to;
    struct cursor now;
    struct cursor ahead;
    struct channel *arrivals; /* struct store_io *; NULL: nothing rests on NVMe */
    struct read reads[READ_AHEAD];
    uint32_t read_count;
    uint32_t under_way;
    take_fn take;
    void *take_user;
    uint64_t taken_bytes;
    struct progress progress;
};

strata_status strata_engine_device_status(const strata_engine *engine, strata_error *out)
{
    const strata_error *failure = strata_device_error(engine->desc.device);
    if (failure == NULL)
        return STRATA_OK;
    return strata_fail(out, failure->status, failure->native, "%s", failure->message);
}

static uint8_t state_tier(const strata_engine *engine, uint32_t tile)
{
    return engine->plan.homes[STRATA_STATE].tier[tile];
}

/* The walk. */

/* The group of a tensor; groups hold consecutive ones. */
static uint32_t group_of(const struct model *model, uint32_t tensor)
{
    uint32_t g = 0;
    while (tensor >= model->groups[g].first_tensor + model->groups[g].tensor_count)
        g++;
    return g;
}

/* The span at a cursor, which then moves past it. false: the walk has ended. */
static bool next_span(const struct walk *walk, struct cursor *cursor, struct span *out)
{
    const struct model *model = &walk->engine->plan.model;
    /* Frozen groups have no states. */
    while (cursor->tensor < walk->end_tensor &&
           model->groups[group_of(model, cursor->tensor)].layout.frozen)
        cursor->tensor++;
    if (cursor->tensor == walk->end_tensor)
        return false;
    const struct tensor *tensor = &model->tensors[cursor->tensor];
    const struct group *group = &model->groups[group_of(model, cursor->tensor)];
    uint64_t end = walk->one_range ? walk->to : tensor->elems;
    /* All tiles of a group but the last have one length. */
    uint64_t elem = tensor->offset + cursor->at;
    uint32_t tile = group->layout.first_tile + (uint32_t)(elem / model->tile_elems);
    uint64_t tile_end = model->tiles[tile].first + model->tiles[tile].elems;
    uint64_t count = end - cursor->at;
    count = count < tile_end - elem ? count : tile_end - elem;
    *out = (struct span){.tile = tile,
                         .record = (strata_record)cursor->record,
                         .first = elem - model->tiles[tile].first,
                         .count = count};
    cursor->spans++;
    cursor->at += count;
    if (cursor->at < end)
        return true;
    cursor->at = 0;
    bool last_record = walk->one_range || cursor->record == STRATA_MOMENT2;
    cursor->record = last_record ? STRATA_MASTER : cursor->record + 1;
    cursor->tensor += last_record;
    return true;
}

/* Reading ahead. */

static void read_ended(void *user, struct store_io *io)
{
    strata_channel_send(user, &io);
}

static struct read *read_of(struct walk *walk, uint32_t tile)
{
    for (uint32_t i = 0; i < walk->read_count; i++)
        if (walk->reads[i].tile == tile)
            return &walk->reads[i];
    return NULL;
}

/* A frame whose record no span needs any more. */
static struct read *free_read(struct walk *walk)
{
    for (uint32_t i = 0; i < walk->read_count; i++) {
        struct read *read = &walk->reads[i];
        if (read->tile == STRATA_NONE || (read->arrived && read->last_use < walk->now.spans))
            return read;
    }
    return NULL;
}

static void start_read(struct walk *walk, struct read *read, uint32_t tile)
{
    strata_engine *engine = walk->engine;
    uint32_t slot = strata_schedule_slot(engine->schedule, tile);
    *read = (struct read){
        .tile = tile,
        .io = {.place = strata_plan_record_place(&engine->plan, tile, slot),
               .updates = engine->applied,
               .buffer = strata_address_update_frame(
                   &engine->memory, (uint32_t)(read - walk->reads), STRATA_STATE),
               .done = read_ended,
               .user = walk->arrivals},
    };
    walk->under_way++;
    strata_store_start(engine->store, &read->io);
}

/* Start as many reads as there are frames for, in the order of the walk. */
static void read_ahead(struct walk *walk)
{
    struct span span;
    struct cursor next = walk->ahead;
    while (next_span(walk, &next, &span)) {
        if (state_tier(walk->engine, span.tile) == STRATA_NVME) {
            struct read *read = read_of(walk, span.tile);
            if (read == NULL && (read = free_read(walk)) == NULL)
                return;
            if (read->tile != span.tile)
                start_read(walk, read, span.tile);
            read->last_use = next.spans - 1;
        }
        walk->ahead = next;
    }
}

static strata_status take_arrival(struct walk *walk)
{
    struct store_io *io;
    while (!strata_channel_receive(walk->arrivals, &io, UINT64_MAX))
        continue;
    walk->under_way--;
    struct read *read = walk->reads;
    while (io != &read->io)
        read++;
    read->arrived = true;
    if (io->status != STRATA_OK && walk->engine->error.status == STRATA_OK)
        walk->engine->error = *strata_store_error(walk->engine->store);
    return io->status;
}

/* Taking. */

/* Find a span's record in memory that the host can read. NULL: it is in a device's memory. */
static strata_status find_record(struct walk *walk, const struct span *span,
                                 const uint8_t **out)
{
    const strata_engine *engine = walk->engine;
    uint8_t tier = state_tier(engine, span->tile);
    *out = NULL;
    if (tier == STRATA_HOST || (tier == STRATA_DEVICE && engine->desc.device->ops->in_ram))
        *out = strata_address_home(&engine->memory, STRATA_STATE, span->tile);
    if (tier != STRATA_NVME)
        return STRATA_OK;
    const struct read *read = read_of(walk, span->tile);
    while (!read->arrived)
        STRATA_TRY(take_arrival(walk));
    *out = read->io.buffer;
    return STRATA_OK;
}

/* Hand out elements of a tile which lie in one block, as fp32. */
static strata_status take_piece(struct walk *walk, const struct span *piece,
                                const uint8_t *record)
{
    strata_engine *engine = walk->engine;
    strata_dtype dtype = strata_engine_value_dtype(engine, piece->record);
    uint64_t offset = strata_engine_value_offset(engine, piece->record, piece->first);
    const void *values = engine->bounce_bytes;
    if (record != NULL) {
        values = record + offset;
    } else {
        const uint8_t *home = strata_address_home(&engine->memory, STRATA_STATE, piece->tile);
        strata_stream_copy(engine->stream, engine->bounce_bytes, home + offset,
                           strata_engine_value_bytes(engine, piece->record, piece->count));
        strata_stream_sync(engine->stream);
        STRATA_TRY(strata_engine_device_status(engine, &engine->error));
    }
    if (dtype != STRATA_FP32) {
        strata_convert(STRATA_ISA_BEST, engine->bounce, STRATA_FP32, values, dtype,
                       piece->count);
        values = engine->bounce;
    }
    walk->take(walk->take_user, values, piece->count);
    return STRATA_OK;
}

static strata_status take_span(struct walk *walk, const struct span *span)
{
    const uint8_t *record;
    STRATA_TRY(find_record(walk, span, &record));
    struct span piece = *span;
    for (uint64_t end = span->first + span->count; piece.first < end;
         piece.first += piece.count) {
        uint64_t left = STRATA_BLOCK_ELEMS - piece.first % STRATA_BLOCK_ELEMS;
        piece.count = left < end - piece.first ? left : end - piece.first;
        STRATA_TRY(take_piece(walk, &piece, record));
    }
    walk->taken_bytes += span->count * sizeof(float);
    strata_progress_at(&walk->progress, walk->taken_bytes, strata_now_ns());
    return STRATA_OK;
}

static strata_status take_spans(struct walk *walk)
{
    struct span span;
    for (;;) {
        /* The frame of the span before is free now. */
        read_ahead(walk);
        struct cursor next = walk->now;
        if (!next_span(walk, &next, &span))
            return STRATA_OK;
        STRATA_TRY(take_span(walk, &span));
        walk->now = next;
    }
}

/* Walk; nothing else of the engine is under way. The caller has filled in what and where. */
static strata_status run_walk(struct walk *walk, const char *what, uint64_t total_bytes)
{
    strata_engine *engine = walk->engine;
    const struct progress_call call = {engine->desc.progress, engine->desc.progress_user};
    uint32_t frames = engine->plan.frame_count[FRAME_UPDATE];
    walk->ahead = walk->now;
    walk->read_count = frames < READ_AHEAD ? frames : READ_AHEAD;
    for (uint32_t i = 0; i < walk->read_count; i++)
        walk->reads[i].tile = STRATA_NONE;
    walk->arrivals = engine->arrivals;
    strata_progress_begin(&walk->progress, &call, what, total_bytes, strata_now_ns());
    strata_status status = take_spans(walk);
    while (walk->under_way > 0)
        (void)take_arrival(walk);
    return status;
}

static void hash_values(void *user, const float *values, uint64_t count)
{
    strata_hash_add(user, values, count * sizeof *values);
}

strata_status strata_engine_hash(strata_engine *engine, uint8_t out[16])
{
    STRATA_TRY(strata_engine_between_steps(engine, "hash"));
    if (out == NULL)
        return strata_fail(strata_engine_refusal(engine), STRATA_E_INVALID, 0,
                           "hash: out is NULL");
    STRATA_TRY(strata_wait(engine, 0, NULL));
    strata_hash_reset(engine->hash);
    struct walk walk = {.engine = engine,
                        .end_tensor = engine->plan.model.tensor_count,
                        .take = hash_values,
                        .take_user = engine->hash};
    STRATA_TRY(
        run_walk(&walk, "hashing", 3 * engine->plan.model.trained_elems * sizeof(float)));
    strata_hash_digest(engine->hash, out);
    return STRATA_OK;
}

static void copy_values(void *user, const float *values, uint64_t count)
{
    float **out = user;
    memcpy(*out, values, count * sizeof *values);
    *out += count;
}

/* Find the tensor, and check that it has these elements. */
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
    if (model->groups[group].layout.frozen)
        return strata_fail(strata_engine_refusal(engine), STRATA_E_INVALID, 0,
                           "%s: group %s is frozen: it has no master weights and no moments",
                           call, model->groups[group].name);
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
    if (count == 0)
        return STRATA_OK;
    uint32_t index = (uint32_t)(t - engine->plan.model.tensors);
    struct walk walk = {.engine = engine,
                        .end_tensor = index + 1,
                        .one_range = true,
                        .to = first + count,
                        .now = {.tensor = index, .record = (int)record, .at = first},
                        .take = copy_values,
                        .take_user = &out};
    return run_walk(&walk, "reading", count * sizeof *out);
}

/* The largest value of a type that records are kept in; beyond it bf16 rounds to infinity. */
static float largest_value(strata_dtype dtype)
{
    return dtype == STRATA_BF16 ? 0x1.fep127f : FLT_MAX;
}

/* Refuse the first value that the record must not hold, if there is one. */
static strata_status check_values(strata_engine *engine, const struct tensor *tensor,
                                  strata_record record, uint64_t first, uint64_t count,
                                  const float *values)
{
    float most = largest_value(strata_engine_value_dtype(engine, record));
    float least = record == STRATA_MOMENT2 ? 0 : -most;
    uint64_t i = 0;
    while (i < count && values[i] >= least && values[i] <= most)
        i++;
    if (i == count)
        return STRATA_OK;
    bool negative = values[i] < least && values[i] >= -most;
    return strata_fail(strata_engine_refusal(engine), STRATA_E_INVALID, 0,
                       "write: element %llu of tensor %s would be %g: %s",
                       (unsigned long long)(first + i), tensor->name, (double)values[i],
                       negative ? "a second moment is not below zero"
                                : "not a finite number in the record's type");
}

strata_status strata_engine_write(strata_engine *engine, uint32_t group, uint32_t tensor,
                                  strata_record record, uint64_t first, uint64_t count,
                                  const float *values)
{
    const struct tensor *t = NULL;
    STRATA_TRY(strata_engine_between_steps(engine, "write"));
    STRATA_TRY(find_elements(&t, engine, "write", group, tensor, record, first, count));
    if (values == NULL && count > 0)
        return strata_fail(strata_engine_refusal(engine), STRATA_E_INVALID, 0,
                           "write: values is NULL");
    STRATA_TRY(check_values(engine, t, record, first, count, values));
    STRATA_TRY(strata_wait(engine, 0, NULL));
    if (count == 0)
        return STRATA_OK;
    uint64_t local_step = engine->steps - engine->base_step;
    STRATA_TRY(strata_engine_failed(engine, strata_pager_rest(engine->pager, local_step)));
    struct patch patch = {.group = group,
                          .record = record,
                          .first = t->offset + first,
                          .count = count,
                          .values = values};
    strata_status status = strata_engine_patch(engine, &patch, &engine->error);
    strata_pager_go_on(engine->pager);
    return status;
}
