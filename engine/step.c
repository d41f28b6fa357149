/*
 * The caller's side of a step and of an evaluation: which use is next on the list, which call
 * is allowed there, and what is queued on the caller's streams. The pager does everything else.
 *
 * The caller's thread runs ahead of the device. It waits only in strata_acquire, strata_stash
 * and strata_unstash, while the device has no room or a gate is closed, and in strata_wait.
 *
 * Thread: the engine's caller.
 */

#include "base/error.h"
#include "engine/engine_internal.h"
#include "offload/schedule/op_trace.h"

#include <stdio.h>
#include <string.h>

strata_status strata_engine_failed(strata_engine *engine, strata_status status)
{
    if (status != STRATA_OK && engine->error.status == STRATA_OK)
        engine->error = *strata_pager_error(engine->pager);
    return status;
}

strata_error *strata_engine_refusal(strata_engine *engine)
{
    engine->refusal = (strata_error){.status = STRATA_OK};
    return &engine->refusal;
}

const strata_error *strata_engine_error(strata_engine *engine)
{
    static const strata_error no_engine = {.status = STRATA_E_INVALID,
                                           .message = "the engine is NULL"};
    if (engine == NULL)
        return &no_engine;
    return engine->error.status != STRATA_OK ? &engine->error : &engine->refusal;
}

/* Every call begins with this: is there an engine, and has it not failed? */
static strata_status check_engine(const strata_engine *engine)
{
    return engine != NULL ? engine->error.status : STRATA_E_INVALID;
}

strata_status strata_engine_between_steps(strata_engine *engine, const char *call)
{
    STRATA_TRY(check_engine(engine));
    if (engine->place == BETWEEN_STEPS)
        return STRATA_OK;
    if (engine->place == IN_EVALUATION)
        return strata_fail(strata_engine_refusal(engine), STRATA_E_STATE, 0,
                           "%s: between steps only: an evaluation has begun and not ended",
                           call);
    return strata_fail(strata_engine_refusal(engine), STRATA_E_STATE, 0,
                       "%s: between steps only: step %llu has begun and not ended", call,
                       (unsigned long long)(engine->steps + 1));
}

static const char *const use_names[] = {
    [STRATA_USE_ACQUIRE] = "acquire",
    [STRATA_USE_RELEASE] = "release",
    [STRATA_USE_STASH] = "stash",
    [STRATA_USE_UNSTASH] = "unstash",
};

/* The use list that is walked. */
static struct use_list list_of(const strata_engine *engine)
{
    return strata_model_list(&engine->plan.model, engine->place == IN_EVALUATION);
}

/* The walk's name in messages. */
struct walk_name {
    char text[32];
};

static struct walk_name walk_name_of(const strata_engine *engine)
{
    struct walk_name name = {"an evaluation"};
    if (engine->place != IN_EVALUATION)
        snprintf(name.text, sizeof name.text, "step %llu",
                 (unsigned long long)(engine->steps + 1));
    return name;
}

/* Is this call the next entry of the use list? If not, it is refused and nothing changes. */
static strata_status check_use(strata_engine *engine, strata_use_kind kind, uint32_t index)
{
    STRATA_TRY(check_engine(engine));
    const char *call = use_names[kind];
    struct use_list list = list_of(engine);
    if (engine->place == BETWEEN_STEPS)
        return strata_fail(strata_engine_refusal(engine), STRATA_E_STATE, 0,
                           "%s %u: %s has not begun", call, index, walk_name_of(engine).text);
    if (engine->use == list.end)
        return strata_fail(strata_engine_refusal(engine), STRATA_E_STATE, 0,
                           "%s %u in %s: the use list has ended after %u entries", call, index,
                           walk_name_of(engine).text, list.end - list.first);
    const struct use *use = &engine->plan.model.uses[engine->use];
    if (use->kind != kind || use->index != index)
        return strata_fail(strata_engine_refusal(engine), STRATA_E_STATE, 0,
                           "%s %u in %s: entry %u of the use list is %s %u", call, index,
                           walk_name_of(engine).text, engine->use - list.first,
                           use_names[use->kind], use->index);
    return STRATA_OK;
}

/* Has the list that is walked ended? */
static strata_status check_end(strata_engine *engine, const char *call)
{
    struct use_list list = list_of(engine);
    if (engine->use == list.end)
        return STRATA_OK;
    const struct use *use = &engine->plan.model.uses[engine->use];
    return strata_fail(strata_engine_refusal(engine), STRATA_E_STATE, 0,
                       "%s: %s %u, entry %u of the use list's %u, is still to come", call,
                       use_names[use->kind], use->index, engine->use - list.first,
                       list.end - list.first);
}

static strata_status check_stream(strata_engine *engine, const char *call,
                                  strata_stream *stream)
{
    if (stream == NULL)
        return strata_fail(strata_engine_refusal(engine), STRATA_E_INVALID, 0,
                           "%s: the stream is NULL", call);
    if (stream->device != engine->desc.device)
        return strata_fail(strata_engine_refusal(engine), STRATA_E_INVALID, 0,
                           "%s: the stream is of another device than the engine", call);
    if (!strata_pager_take_stream(engine->pager, stream))
        return strata_fail(strata_engine_refusal(engine), STRATA_E_INVALID, 0,
                           "%s: a stream beyond the %u that one engine may be used with", call,
                           STRATA_MAX_STREAMS);
    return STRATA_OK;
}

/* The pager counts steps from the beginning of this run. */
static uint64_t local_step(const strata_engine *engine)
{
    return engine->steps - engine->base_step;
}

/* The number of the walk that is under way, as the pager counts: its step or its evaluation. */
static uint64_t current_turn(const strata_engine *engine)
{
    return engine->place == IN_EVALUATION ? engine->evaluations : local_step(engine);
}

uint64_t strata_engine_step(const strata_engine *engine)
{
    return engine != NULL ? engine->steps : 0;
}

strata_status strata_step_begin(strata_engine *engine, double lr)
{
    STRATA_TRY(strata_engine_between_steps(engine, "step begin"));
    STRATA_TRY(strata_engine_check_rate(&engine->adam, lr, strata_engine_refusal(engine)));
    if (strata_engine_scales(&engine->desc) && local_step(engine) > 0) {
        strata_step_result before;
        STRATA_TRY(strata_engine_failed(
            engine, strata_pager_wait_norm(engine->pager, local_step(engine), &before)));
        engine->loss_scale = before.next_loss_scale;
    }
    engine->place = IN_STEP;
    engine->use = 0;
    return strata_pager_begin(engine->pager, local_step(engine), lr);
}

strata_status strata_eval_begin(strata_engine *engine)
{
    STRATA_TRY(strata_engine_between_steps(engine, "evaluation begin"));
    const struct model *model = &engine->plan.model;
    if (model->eval_use_count == 0)
        return strata_fail(strata_engine_refusal(engine), STRATA_E_STATE, 0,
                           "evaluation begin: the model has no use list of an evaluation");
    engine->place = IN_EVALUATION;
    engine->use = model->use_count;
    strata_pager_evaluate(engine->pager, local_step(engine));
    return STRATA_OK;
}

strata_status strata_eval_end(strata_engine *engine)
{
    STRATA_TRY(check_engine(engine));
    if (engine->place != IN_EVALUATION)
        return strata_fail(strata_engine_refusal(engine), STRATA_E_STATE, 0,
                           "evaluation end: no evaluation has begun");
    STRATA_TRY(check_end(engine, "evaluation end"));
    engine->place = BETWEEN_STEPS;
    engine->evaluations++;
    strata_pager_go_on(engine->pager);
    return STRATA_OK;
}

double strata_loss_scale(const strata_engine *engine)
{
    return engine != NULL ? engine->loss_scale : 1;
}

strata_status strata_acquire(strata_engine *engine, uint32_t group, strata_stream *stream,
                             strata_view *out)
{
    uint64_t blocked_ns;
    if (out != NULL)
        *out = (strata_view){.param = NULL};
    STRATA_TRY(check_use(engine, STRATA_USE_ACQUIRE, group));
    if (out == NULL)
        return strata_fail(strata_engine_refusal(engine), STRATA_E_INVALID, 0,
                           "acquire %u: out is NULL", group);
    STRATA_TRY(check_stream(engine, "acquire", stream));
    uint32_t use = engine->use++;
    STRATA_TRY(strata_engine_failed(
        engine, strata_pager_ask(engine->pager, current_turn(engine), use, &blocked_ns)));
    engine->acquire_blocked_ns += blocked_ns;
    STRATA_TRY(strata_engine_failed(
        engine, strata_pager_queue_acquire(engine->pager, stream, current_turn(engine), use)));
    *out = strata_pager_view(engine->pager, use);
    return STRATA_OK;
}

strata_status strata_release(strata_engine *engine, uint32_t group, strata_stream *stream)
{
    STRATA_TRY(check_use(engine, STRATA_USE_RELEASE, group));
    STRATA_TRY(check_stream(engine, "release", stream));
    uint32_t use = engine->use++;
    strata_pager_queue_release(engine->pager, stream, current_turn(engine), use);
    return STRATA_OK;
}

static strata_status move_block(strata_engine *engine, strata_use_kind kind, uint32_t block,
                                void *bytes, strata_stream *stream)
{
    uint64_t blocked_ns;
    STRATA_TRY(check_use(engine, kind, block));
    if (bytes == NULL)
        return strata_fail(strata_engine_refusal(engine), STRATA_E_INVALID, 0,
                           "%s %u: the block is NULL", use_names[kind], block);
    STRATA_TRY(check_stream(engine, use_names[kind], stream));
    uint32_t use = engine->use++;
    STRATA_TRY(strata_engine_failed(
        engine, strata_pager_ask(engine->pager, current_turn(engine), use, &blocked_ns)));
    engine->acquire_blocked_ns += blocked_ns;
    return strata_engine_failed(
        engine,
        strata_pager_queue_stash(engine->pager, stream, current_turn(engine), use, bytes));
}

strata_status strata_stash(strata_engine *engine, uint32_t block, const void *src,
                           strata_stream *stream)
{
    /* The copy only reads src: the kind of the use gives the direction. */
    return move_block(engine, STRATA_USE_STASH, block, (void *)(uintptr_t)src, stream);
}

strata_status strata_unstash(strata_engine *engine, uint32_t block, void *dst,
                             strata_stream *stream)
{
    return move_block(engine, STRATA_USE_UNSTASH, block, dst, stream);
}

strata_status strata_step_end(strata_engine *engine)
{
    STRATA_TRY(check_engine(engine));
    if (engine->place != IN_STEP)
        return strata_fail(strata_engine_refusal(engine), STRATA_E_STATE, 0,
                           "step end: step %llu has not begun",
                           (unsigned long long)(engine->steps + 1));
    STRATA_TRY(check_end(engine, "step end"));
    engine->place = BETWEEN_STEPS;
    engine->steps++;
    return STRATA_OK;
}

strata_status strata_wait(strata_engine *engine, uint64_t step, strata_step_result *out)
{
    STRATA_TRY(check_engine(engine));
    if (step == 0) {
        STRATA_TRY(strata_engine_between_steps(engine, "wait for all updates"));
        return strata_engine_failed(
            engine,
            strata_pager_wait_updates(engine->pager, local_step(engine), &engine->applied));
    }
    if (step > engine->steps || step + 1 < engine->steps || step <= engine->base_step)
        return strata_fail(strata_engine_refusal(engine), STRATA_E_INVALID, 0,
                           "wait for step %llu: %llu steps have ended, %llu of them in this "
                           "run, and the norms of its last two are kept",
                           (unsigned long long)step, (unsigned long long)engine->steps,
                           (unsigned long long)local_step(engine));
    strata_step_result result;
    strata_status status = strata_engine_failed(
        engine, strata_pager_wait_norm(engine->pager, step - engine->base_step, &result));
    if (status == STRATA_OK && out != NULL)
        *out = result;
    return status;
}

strata_status strata_commit(strata_engine *engine)
{
    STRATA_TRY(strata_engine_between_steps(engine, "commit"));
    if (engine->desc.durability == STRATA_SCRATCH)
        return strata_fail(strata_engine_refusal(engine), STRATA_E_STATE, 0,
                           "commit: the engine was made without durability");
    STRATA_TRY(strata_wait(engine, 0, NULL));
    return strata_engine_failed(engine, strata_pager_commit(engine->pager, engine->steps));
}

void *strata_scratch(strata_engine *engine)
{
    return engine != NULL ? engine->memory.device + engine->plan.scratch_at : NULL;
}

uint64_t strata_tensor_offset(const strata_engine *engine, uint32_t group, uint32_t tensor)
{
    if (engine == NULL)
        return UINT64_MAX;
    const struct model *model = &engine->plan.model;
    if (group >= model->group_count || tensor >= model->groups[group].tensor_count)
        return UINT64_MAX;
    return model->tensors[model->groups[group].first_tensor + tensor].offset;
}

void strata_engine_stats(strata_engine *engine, strata_stats *out)
{
    if (out != NULL)
        *out = (strata_stats){.steps = 0};
    if (engine == NULL || out == NULL)
        return;
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
    if (engine == NULL || path == NULL)
        return strata_fail(error, STRATA_E_INVALID, 0, "trace: the %s is NULL",
                           engine == NULL ? "engine" : "path");
    if (engine->trace == NULL)
        return strata_fail(error, STRATA_E_STATE, 0,
                           "trace: the engine was made without room for one (trace_events)");
    uint32_t drives = engine->store != NULL ? engine->desc.store_dir_count : 0;
    return strata_trace_save(engine->trace, &engine->plan, drives, "measured", path, error);
}
