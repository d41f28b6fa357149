#define _GNU_SOURCE
/*
 * Resolving a descriptor: its choices are checked and its defaults filled in, once, in a
 * private copy.
 *
 * Thread: the engine's caller.
 */

#include "base/error.h"
#include "base/round.h"
#include "base/shape.h"
#include "base/topology.h"
#include "engine/engine_internal.h"
#include "io/io.h"
#include "strata/store.h"

#include <float.h>
#include <math.h>

#define MIN_TILE_ELEMS (256u << 10)
#define MAX_TILE_ELEMS (4u << 20)
#define MAX_TILES      16384u

uint32_t strata_default_tile_elems(const strata_model_desc *model)
{
    if (model == NULL)
        return MIN_TILE_ELEMS;
    for (uint32_t tile = MIN_TILE_ELEMS; tile < MAX_TILE_ELEMS; tile *= 2) {
        uint64_t count = 0;
        for (uint32_t g = 0; model->groups != NULL && g < model->group_count; g++)
            count += strata_units_of(strata_group_elems(&model->groups[g]), tile);
        if (count <= MAX_TILES)
            return tile;
    }
    return MAX_TILE_ELEMS;
}

/* The default NVMe budget: nine tenths of the free space, and what a store there occupies. */
static strata_status room_for_store(const strata_engine_desc *desc, uint64_t *out,
                                    strata_error *error)
{
    *out = 0;
    for (uint32_t i = 0; i < desc->store_dir_count; i++) {
        uint64_t free_bytes, own_bytes;
        STRATA_TRY(strata_store_room(desc->store_dirs[i], &free_bytes, &own_bytes, error));
        *out += free_bytes / 10 * 9 + own_bytes;
    }
    return STRATA_OK;
}

static bool is_tier(strata_tier tier)
{
    return (int)tier >= STRATA_AUTO && (int)tier < STRATA_TIER_COUNT;
}

static strata_status check_choices(const strata_engine_desc *desc, strata_error *error)
{
    if (!is_tier(desc->params) || !is_tier(desc->grads) || !is_tier(desc->states) ||
        !is_tier(desc->stash))
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "homes %d, %d, %d, stash %d: auto, device, host or nvme",
                           (int)desc->params, (int)desc->grads, (int)desc->states,
                           (int)desc->stash);
    if (desc->io != STRATA_IO_URING && desc->io != STRATA_IO_THREADS)
        return strata_fail(error, STRATA_E_INVALID, 0, "io backend %d: uring or threads",
                           (int)desc->io);
    if (desc->store_dir_count > STRATA_STORE_MAX_DRIVES)
        return strata_fail(error, STRATA_E_INVALID, 0, "%u store directories: at most %u",
                           desc->store_dir_count, STRATA_STORE_MAX_DRIVES);
    if (desc->io_depth > STRATA_IO_MAX_DEPTH)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "%u requests in flight per drive: at most %u", desc->io_depth,
                           STRATA_IO_MAX_DEPTH);
    return STRATA_OK;
}

static strata_status check_dtypes(const strata_engine_desc *desc, strata_error *error)
{
    bool fp16 = desc->compute_dtype == STRATA_FP16;
    if (desc->compute_dtype != STRATA_FP32 && desc->compute_dtype != STRATA_BF16 && !fp16)
        return strata_fail(error, STRATA_E_INVALID, 0, "compute dtype %d: fp32, bf16 or fp16",
                           (int)desc->compute_dtype);
    if (desc->states_dtype != 0 && desc->states_dtype != STRATA_FP32 &&
        desc->states_dtype != STRATA_BF16)
        return strata_fail(error, STRATA_E_INVALID, 0, "states dtype %d: fp32 or bf16",
                           (int)desc->states_dtype);
    if (desc->loss_scale != 0 && !(fp16 && isnormal(desc->loss_scale) && desc->loss_scale > 0))
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "loss scale %g: a positive number, and for fp16 only",
                           desc->loss_scale);
    return STRATA_OK;
}

/* Refuse parameters that are not finite, and a beta of 1: bias correction divides by 1 - beta.
 */
static strata_status check_adam(const strata_adam_params *adam, strata_error *error)
{
    const double betas[] = {adam->beta1, adam->beta2};
    for (uint32_t i = 0; i < 2; i++)
        if (!(betas[i] >= 0 && betas[i] < 1))
            return strata_fail(error, STRATA_E_INVALID, 0, "beta%u %g: from 0 to below 1",
                               i + 1, betas[i]);
    if (!(adam->eps >= 0 && adam->eps <= (double)FLT_MAX))
        return strata_fail(error, STRATA_E_INVALID, 0, "eps %g: from 0 to %g", adam->eps,
                           (double)FLT_MAX);
    if (!(fabs(adam->weight_decay) <= (double)FLT_MAX))
        return strata_fail(error, STRATA_E_INVALID, 0, "weight decay %g: a number up to %g",
                           adam->weight_decay, (double)FLT_MAX);
    return STRATA_OK;
}

/* The factors that strata_adam_prepare() makes of the rate must fit fp32 at every step. The
 * bias correction of the first step makes them largest. */
strata_status strata_engine_check_rate(const strata_adam_params *adam, double lr,
                                       strata_error *error)
{
    double largest = fabs(lr) / (1 - adam->beta1);
    double decay = fabs(lr * adam->weight_decay);
    if (largest <= (double)FLT_MAX && decay <= (double)FLT_MAX)
        return STRATA_OK;
    return strata_fail(error, STRATA_E_INVALID, 0,
                       "learning rate %g: with beta1 %g and weight decay %g it is no number "
                       "that fp32 holds",
                       lr, adam->beta1, adam->weight_decay);
}

static strata_status check_desc(const strata_engine_desc *desc, strata_error *error)
{
    if (desc->device == NULL || desc->workers == NULL || desc->model == NULL ||
        desc->adam == NULL || desc->init == NULL)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "an engine needs a device, workers, a model, adam and init");
    STRATA_TRY(check_dtypes(desc, error));
    STRATA_TRY(check_adam(desc->adam, error));
    if ((int)desc->clip_mode < STRATA_CLIP_AUTO || desc->clip_mode > STRATA_CLIP_SPECULATIVE)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "clip mode %d: auto, deferred or speculative", (int)desc->clip_mode);
    if (!(desc->clip >= 0 && desc->clip <= FLT_MAX))
        return strata_fail(error, STRATA_E_INVALID, 0, "clip %g: not a norm",
                           (double)desc->clip);
    if (desc->durability != STRATA_SCRATCH && desc->store_dir_count == 0)
        return strata_fail(error, STRATA_E_INVALID, 0, "durability needs a store directory");
    if (desc->keep > STRATA_MAX_KEEP)
        return strata_fail(error, STRATA_E_INVALID, 0, "keep %u commits: at most %u",
                           desc->keep, STRATA_MAX_KEEP);
    STRATA_TRY(check_choices(desc, error));
    if (desc->store_dir_count > 0 && desc->store_dirs == NULL)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "store_dirs is NULL, store_dir_count is %u", desc->store_dir_count);
    return STRATA_OK;
}

static uint64_t left_of(uint64_t bytes, uint64_t taken)
{
    return bytes > taken ? bytes - taken : 0;
}

/* The default budgets. The host device's memory is RAM too, so with it they share what is free.
 */
static strata_status resolve_memory(strata_engine_desc *out, strata_error *error)
{
    bool shared = out->device->ops->in_ram;
    if (out->device_bytes == 0) {
        strata_device_facts facts;
        strata_device_facts_of(out->device, &facts);
        uint64_t available = facts.free_bytes;
        if (shared && out->host_bytes == 0)
            available /= 2;
        else if (shared)
            available = left_of(available, out->host_bytes);
        out->device_bytes = available / 10 * 9;
    }
    if (out->host_bytes == 0) {
        struct topology topology;
        STRATA_TRY(strata_topology_read(&topology, NULL, error));
        uint64_t left = left_of(topology.memory_limit_bytes, topology.memory_current_bytes);
        uint64_t available = topology.memory_available_bytes;
        available = left < available ? left : available;
        out->host_bytes = left_of(available, shared ? out->device_bytes : 0) / 2;
    }
    return STRATA_OK;
}

strata_status strata_engine_resolve(strata_engine_desc *out, const strata_engine_desc *desc,
                                    strata_error *error)
{
    STRATA_TRY(check_desc(desc, error));
    *out = *desc;
    STRATA_TRY(resolve_memory(out, error));
    uint64_t room;
    STRATA_TRY(room_for_store(desc, &room, error));
    if (out->nvme_bytes == 0)
        out->nvme_bytes = room;
    if (out->tile_elems == 0)
        out->tile_elems = strata_default_tile_elems(desc->model);
    if (out->keep_every == 0)
        out->keep_every = 1000;
    return STRATA_OK;
}
