/*
 * The caller's side of a step: where it stands on the use list, what it may do there, and what
 * it queues on its streams. Everything else happens in the pager.
 *
 * The caller's thread runs ahead of the device: it stops only in strata_acquire, strata_stash
 * and strata_unstash, while the device has no room or a gate holds it, and in strata_wait.
 *
 * Thread: the engine's caller.
 */

#include "base/error.h"
#include "engine/state.h"
#include "offload/schedule/op_trace.h"

#include <string.h>

strata_status strata_engine_failed(strata_engine *engine, strata_status status)
{
    if (status != STRATA_OK && engine->error.status == STRATA_OK)
        engine->error = *strata_pager_error(engine->pager);
    return status;
}

const strata_error *strata_engine_error(strata_engine *engine)
{
    return &engine->error;
}

/* A call in the wrong order is a failure like any other: it sticks. */
static strata_status out_of_order(strata_engine *engine, const char *call, const char *why)
{
    return strata_fail(&engine->error, STRATA_E_STATE, 0, "%s in step %llu at use %u: %s", call,
                       (unsigned long long)(engine->steps + 1), engine->use, why);
}

/* Is this the next entry of the use list? If so, it is the caller's, and the list moves on. */
static strata_status take_use(strata_engine *engine, const char *call, strata_use_kind kind,
                              uint32_t index)
{
    if (engine->error.status != STRATA_OK)
        return engine->error.status;
    if (!engine->in_step)
        return out_of_order(engine, call, "no step has begun");
    const struct model *model = &engine->plan.model;
    if (engine->use >= model->use_count)
        return out_of_order(engine, call, "the use list has ended");
    const struct use *use = &model->uses[engine->use];
    if (use->kind != kind || use->index != index)
        return out_of_order(engine, call, "the use list says otherwise");
    engine->use++;
    return STRATA_OK;
}

/* The pager counts the steps of this run. */
static uint64_t local_step(const strata_engine *engine)
{
    return engine->steps - engine->base_step;
}

uint64_t strata_engine_step(const strata_engine *engine)
{
    return engine->steps;
}

strata_status strata_step_begin(strata_engine *engine, double lr)
{
    if (engine->error.status != STRATA_OK)
        return engine->error.status;
    if (engine->in_step)
        return out_of_order(engine, "step begin", "the step before has not ended");
    if (strata_engine_scales(&engine->desc) && local_step(engine) > 0) {
        strata_step_result before;
        STRATA_TRY(strata_engine_failed(
            engine, strata_pager_wait_norm(engine->pager, local_step(engine), &before)));
        engine->loss_scale = before.next_loss_scale;
    }
    engine->in_step = true;
    engine->use = 0;
    strata_pager_begin(engine->pager, local_step(engine), lr);
    return STRATA_OK;
}

double strata_loss_scale(const strata_engine *engine)
{
    return engine->loss_scale;
}

strata_status strata_acquire(strata_engine *engine, uint32_t group, strata_stream *stream,
                             strata_view *out)
{
    uint32_t use = engine->use;
    uint64_t blocked_ns;
    STRATA_TRY(take_use(engine, "acquire", STRATA_USE_ACQUIRE, group));
    STRATA_TRY(strata_engine_failed(
        engine, strata_pager_ask(engine->pager, local_step(engine), use, &blocked_ns)));
    engine->acquire_blocked_ns += blocked_ns;
    strata_pager_queue_acquire(engine->pager, stream, local_step(engine), use);
    *out = strata_pager_view(engine->pager, use);
    return STRATA_OK;
}

strata_status strata_release(strata_engine *engine, uint32_t group, strata_stream *stream)
{
    uint32_t use = engine->use;
    STRATA_TRY(take_use(engine, "release", STRATA_USE_RELEASE, group));
    strata_pager_queue_release(engine->pager, stream, local_step(engine), use);
    return STRATA_OK;
}

static strata_status move_block(strata_engine *engine, strata_use_kind kind, uint32_t block,
                                void *bytes, strata_stream *stream)
{
    uint32_t use = engine->use;
    uint64_t blocked_ns;
    STRATA_TRY(take_use(engine, kind == STRATA_USE_STASH ? "stash" : "unstash", kind, block));
    STRATA_TRY(strata_engine_failed(
        engine, strata_pager_ask(engine->pager, local_step(engine), use, &blocked_ns)));
    engine->acquire_blocked_ns += blocked_ns;
    strata_pager_queue_stash(engine->pager, stream, local_step(engine), use, bytes);
    return STRATA_OK;
}

strata_status strata_stash(strata_engine *engine, uint32_t block, const void *src,
                           strata_stream *stream)
{
    /* Only read: the direction of the copy is the use's. */
    return move_block(engine, STRATA_USE_STASH, block, (void *)(uintptr_t)src, stream);
}

strata_status strata_unstash(strata_engine *engine, uint32_t block, void *dst,
                             strata_stream *stream)
{
    return move_block(engine, STRATA_USE_UNSTASH, block, dst, stream);
}

strata_status strata_step_end(strata_engine *engine)
{
    if (engine->error.status != STRATA_OK)
        return engine->error.status;
    if (!engine->in_step)
        return out_of_order(engine, "step end", "no step has begun");
    if (engine->use < engine->plan.model.use_count)
        return out_of_order(engine, "step end", "the use list has not ended");
    engine->in_step = false;
    engine->steps++;
    return STRATA_OK;
}

strata_status strata_wait(strata_engine *engine, uint64_t step, strata_step_result *out)
{
    if (engine->error.status != STRATA_OK)
        return engine->error.status;
    if (step == 0) {
        if (engine->in_step)
            return out_of_order(engine, "wait for all updates", "the step has not ended");
        return strata_engine_failed(
            engine,
            strata_pager_wait_updates(engine->pager, local_step(engine), &engine->applied));
    }
    if (step > engine->steps || step + 1 < engine->steps || step <= engine->base_step)
        return strata_fail(&engine->error, STRATA_E_INVALID, 0,
                           "wait for step %llu: the norms of the last two of %llu "
                           "steps are kept",
                           (unsigned long long)step, (unsigned long long)engine->steps);
    strata_step_result result;
    strata_status status = strata_engine_failed(
        engine, strata_pager_wait_norm(engine->pager, step - engine->base_step, &result));
    if (status == STRATA_OK && out != NULL)
        *out = result;
    return status;
}

strata_status strata_commit(strata_engine *engine)
{
    if (engine->desc.durability == STRATA_SCRATCH)
        return out_of_order(engine, "commit", "the engine is not durable");
    STRATA_TRY(strata_wait(engine, 0, NULL));
    return strata_engine_failed(engine, strata_pager_commit(engine->pager, engine->steps));
}

void *strata_scratch(strata_engine *engine)
{
    return engine->memory.device + engine->plan.scratch_at;
}

uint64_t strata_tensor_offset(const strata_engine *engine, uint32_t group, uint32_t tensor)
{
    const struct model *model = &engine->plan.model;
    STRATA_CHECK(group < model->group_count && tensor < model->groups[group].tensor_count);
    return model->tensors[model->groups[group].first_tensor + tensor].offset;
}

void strata_engine_stats(strata_engine *engine, strata_stats *out)
{
    const strata_plan *plan = &engine->plan.summary;
    *out = (strata_stats){
        .steps = engine->steps,
        .device_peak_bytes = plan->tiers[STRATA_DEVICE].used_bytes,
        .host_peak_bytes = plan->tiers[STRATA_HOST].used_bytes,
        .nvme_bytes = plan->tiers[STRATA_NVME].used_bytes,
        .acquire_blocked_ns = engine->acquire_blocked_ns,
        .huge_pages = engine->host.huge && engine->device_huge,
        .pinned = engine->pinned || engine->plan.host_arena_bytes == 0,
    };
    struct pager_stats stats;
    strata_pager_stats(engine->pager, &stats);
    memcpy(out->lanes, stats.lanes, sizeof out->lanes);
    memcpy(out->stall_ns, stats.stall_ns, sizeof out->stall_ns);
    out->updates = stats.applied;
    out->tiles_ahead = stats.counts.ahead;
    out->tiles_redone = stats.counts.redone;
    if (engine->store != NULL) {
        out->io_name = strata_store_backend_name(engine->store);
        out->io_direct = strata_store_is_direct(engine->store);
        out->io_registered = strata_store_is_registered(engine->store);
    }
}

strata_status strata_engine_trace(strata_engine *engine, const char *path, strata_error *error)
{
    if (engine->trace == NULL)
        return strata_fail(error, STRATA_E_STATE, 0,
                           "trace: the engine was made without room for one (trace_events)");
    uint32_t drives = engine->store != NULL ? engine->desc.store_dir_count : 0;
    return strata_trace_save(engine->trace, &engine->plan, drives, "measured", path, error);
}
