/*
 * Asking the planner; see plan_ask.h.
 *
 * Nothing as large as the model is allocated. A few threads answer rows at once: each row is a
 * plan and a simulation with memory of its own.
 *
 * Thread: the caller's, and some that answer rows.
 */

#include "bench/plan_ask.h"

#include "base/error.h"
#include "base/shape.h"
#include "bench/report.h"
#include "bench/roofline.h"
#include "engine/planning.h"
#include "io/store.h"
#include "train/trainer.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

/* The most tiles of a rank. A model that needs more is planned with larger tiles. That changes
 * no printed figure and keeps the plan of any model within seconds and 200 MB. */
#define MAX_TILES 24576u

/* Tokens of a micro-batch by default: enough to fill a GPU's matrix units. */
#define MICRO_TOKENS 16384u

/* Rows that are answered at once. Each takes some 30 MB for the largest models. */
#define ASKERS 4u

static uint32_t micro_batch(const struct question *question, uint32_t batch)
{
    uint32_t micro = question->micro_batch;
    if (micro != 0)
        return batch % micro == 0 ? micro : 1;
    for (micro = batch; micro > 1; micro--)
        if (batch % micro == 0 && (uint64_t)micro * question->seq <= MICRO_TOKENS)
            break;
    return micro;
}

static uint32_t tile_elems(const strata_model_desc *model, uint32_t ranks)
{
    uint32_t tile = strata_default_tile_elems(model);
    uint64_t elems = 0;
    for (uint32_t g = 0; g < model->group_count; g++)
        elems += strata_group_elems(&model->groups[g]);
    while (elems / ranks / tile > MAX_TILES && tile < 1u << 28)
        tile *= 2;
    return tile;
}

strata_status strata_plan_ask_model(struct answer *out, const strata_model_desc *model,
                                    uint64_t reserved_bytes, const double *compute_s,
                                    const struct question *question, strata_error *error)
{
    const char *dirs[STRATA_STORE_MAX_DRIVES];
    const struct machine *machine = &question->machine;
    strata_profile profile = strata_machine_rank(machine);
    uint32_t drives =
        machine->drives < STRATA_STORE_MAX_DRIVES ? machine->drives : STRATA_STORE_MAX_DRIVES;
    for (uint32_t i = 0; i < drives; i++)
        dirs[i] = ".";
    strata_engine_desc desc = {
        .model = model,
        .compute_dtype = STRATA_BF16,
        .clip = 1,
        .device_bytes = machine->device_bytes,
        .host_bytes = machine->ram_bytes / machine->gpus,
        .nvme_bytes = (uint64_t)(machine->drive_bytes * machine->drives / machine->gpus),
        .reserved_host_bytes = reserved_bytes,
        .store_dirs = dirs,
        .store_dir_count = drives,
        .durability = drives > 0 ? STRATA_DURABLE_POWER : STRATA_SCRATCH,
        .keep_every = 1000,
        .tile_elems = tile_elems(model, machine->gpus),
        .profile = &profile,
    };
    struct what_if with = {.workers = profile.cores,
                           .ranks = machine->gpus,
                           .trace_path = question->trace,
                           .compute_s = compute_s};
    STRATA_TRY(strata_engine_what_if(&out->plan, &desc, &with, error));
    out->forecast = out->plan.forecast;
    return STRATA_OK;
}

static void rate_answer(struct answer *answer, const struct question *question,
                        const struct decoder_config *config)
{
    const strata_forecast *forecast = &answer->forecast;
    const struct machine *machine = &question->machine;
    answer->tokens_per_s = (double)question->batch * question->seq / forecast->step_s;
    if (machine->gpu != NULL)
        answer->share_of_peak = answer->tokens_per_s *
                                strata_roofline_model_flops(config, question->seq) /
                                (machine->gpus * machine->gpu->flops_per_s);
    answer->write_bytes =
        (double)forecast->bytes[STRATA_LANE_NVME_WRITE] * question->machine.gpus;
}

strata_status strata_plan_ask(struct answer *out, const struct question *question,
                              strata_error *error)
{
    struct decoder_config config;
    struct decoder *decoder;
    const struct machine *machine = &question->machine;
    *out = (struct answer){0};
    STRATA_TRY(strata_decoder_config_read(&config, question->model, error));
    struct decoder_shape shape = {.seq = question->seq,
                                  .batch = question->batch / machine->gpus,
                                  .vocab_slices = question->vocab_slices,
                                  .compute_dtype = STRATA_BF16};
    shape.micro_batch = micro_batch(question, shape.batch);
    STRATA_TRY(strata_decoder_create(&decoder, &config, &shape, NULL, error));
    uint64_t reserved = strata_trainer_host_bytes(decoder, shape.seq, shape.batch);
    const strata_model_desc *model = strata_decoder_model(decoder);
    strata_error why = {0};
    double *compute_s = NULL;
    strata_status status = STRATA_OK;
    if (machine->gpu != NULL)
        status = strata_roofline_uses(
            &compute_s, machine->gpu, &config, decoder,
            (struct roofline_shape){(uint64_t)shape.micro_batch * shape.seq, shape.seq}, &why);
    if (status == STRATA_OK)
        status = strata_plan_ask_model(out, model, reserved, compute_s, question, &why);
    free(compute_s);
    strata_decoder_destroy(decoder);
    out->fits = status == STRATA_OK;
    if (out->fits)
        rate_answer(out, question, &config);
    snprintf(out->why_not, sizeof out->why_not, "%s", why.message);
    bool no_room =
        status == STRATA_E_NOMEM || (status == STRATA_E_INVALID && machine->drives == 0);
    if (status != STRATA_OK && !no_room) {
        *error = why;
        return status;
    }
    return STRATA_OK;
}

struct rows {
    struct row *list;
    uint32_t count;
    _Atomic uint32_t next;
};

static void *ask_some(void *arg)
{
    struct rows *rows = arg;
    for (uint32_t i = rows->next++; i < rows->count; i = rows->next++) {
        struct row *row = &rows->list[i];
        row->status = strata_plan_ask(&row->answer, &row->question, &row->error);
    }
    return NULL;
}

strata_status strata_plan_ask_all(struct row *list, uint32_t count, strata_error *error)
{
    struct rows rows = {.list = list, .count = count};
    pthread_t threads[ASKERS - 1];
    uint32_t started = 0;
    while (started < ASKERS - 1 &&
           pthread_create(&threads[started], NULL, ask_some, &rows) == 0)
        started++;
    ask_some(&rows); // all of them if no thread could be started
    for (uint32_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    for (uint32_t i = 0; i < count; i++) {
        if (list[i].status != STRATA_OK) {
            *error = list[i].error;
            return list[i].status;
        }
    }
    return STRATA_OK;
}

strata_json *strata_plan_answer_json(const struct answer *answer)
{
    strata_json *object = strata_json_object();
    strata_json_set_bool(object, "fits", answer->fits);
    if (!answer->fits) {
        strata_json_set_string(object, "why_not", answer->why_not);
        return object;
    }
    const strata_forecast *forecast = &answer->forecast;
    strata_json_set_uint(object, "param_count", answer->plan.param_count);
    strata_bench_set_step(object, forecast);
    strata_json_set_number(object, "bound_s", forecast->bound_s);
    strata_json_set_string(object, "bottleneck", strata_lane_name(forecast->bottleneck));
    strata_json_set_number(object, "chain_s", forecast->chain_s);
    strata_json_set_number(object, "tokens_per_s", answer->tokens_per_s);
    if (answer->share_of_peak > 0)
        strata_json_set_number(object, "share_of_peak", answer->share_of_peak);
    if (answer->plan.homes != NULL) {
        strata_json_set_string(object, "homes", answer->plan.homes);
        strata_json_set_string(object, "next_homes", answer->plan.next_homes);
        strata_json_set_number(object, "next_factor", answer->plan.next_factor);
    }
    strata_json_set_uint(object, "commit_every", answer->plan.commit_every);
    strata_json_set_number(object, "write_bytes_per_step", answer->write_bytes);
    strata_json_set_number(object, "days_to_rated_endurance", forecast->drive_days);
    strata_json *tiers = strata_json_object();
    for (int tier = STRATA_DEVICE; tier < STRATA_TIER_COUNT; tier++) {
        strata_json *one = strata_json_object();
        strata_json_set_uint(one, "limit_bytes", answer->plan.tiers[tier].limit_bytes);
        strata_json_set_uint(one, "used_bytes", answer->plan.tiers[tier].used_bytes);
        strata_json_set(tiers, strata_tier_name((strata_tier)tier), one);
    }
    strata_json_set(object, "tiers", tiers);
    return object;
}
