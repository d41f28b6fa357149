#define _GNU_SOURCE
/*
 * offload-bench plan: what a machine that may not exist would make of a model: does it fit, how
 * fast is a step, what bounds it, what it wears out, what to buy next.
 *
 * Every answer is a simulation of the schedule that would run (offload/simulate/forecast.h):
 * the question itself, each row of a sweep, and each purchase that is weighed, one thing at a
 * time. Nothing is measured here and nothing of the size of the model is allocated.
 *
 * The host's tables are small beside any RAM one would plan with, and so is what the trainer
 * reserves; neither is counted here. offload-train --dry-run counts them to the byte.
 *
 * Thread: one, and some that answer rows beside it.
 */

#include "bench/commands.h"

#include "offload/simulate/profile.h"

#include "bench/catalogue.h"
#include "bench/options.h"
#include "offload/simulate/forecast.h"
#include "base/text.h"
#include "train/llama.h"
#include "train/report.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Tiles of a rank at most; beyond, larger ones are planned with, which changes no figure that
 * is printed and keeps a plan of any model within seconds and 200 MB. */
#define MAX_TILES 24576u

/* Tokens of a micro-batch unless it was given: enough to fill a GPU's matrix units. */
#define MICRO_TOKENS 16384u

#define SWEEP_ROWS 7

/* Rows that are answered at once: each takes some 30 MB for the largest models. */
#define ASKERS 4u

enum sweep { SWEEP_NONE, SWEEP_BATCH, SWEEP_RAM, SWEEP_NVME };

/* Rates in GB/s. */
struct drives {
    uint32_t count;
    double read_rate;
    double write_rate;
};

struct plan_options {
    const char *model;
    const char *box;
    const char *trace; /* NULL: none */
    uint32_t seq;
    uint32_t batch;
    uint32_t micro_batch; /* 0: chosen */
    uint32_t vocab_slices;
    enum sweep sweep;
    /* What the box, or the catalogue, is changed by; 0 and NULL: not given. */
    const struct gpu *gpu;
    uint32_t gpus;
    uint64_t device_bytes;
    uint64_t ram_bytes;
    struct drives drives;
    struct machine machine; /* what comes of it all */
    struct bench_output output;
};

struct answer {
    bool fits;
    char why_not[256];
    strata_plan plan;
    strata_forecast forecast;
    double tokens_per_s;
    double write_bytes; /* of a step, on all drives */
};

/* Asking. */

static uint32_t micro_batch(const struct plan_options *options, uint32_t batch)
{
    uint32_t micro = options->micro_batch;
    if (micro != 0)
        return batch % micro == 0 ? micro : 1;
    for (micro = batch; micro > 1; micro--)
        if (batch % micro == 0 && (uint64_t)micro * options->seq <= MICRO_TOKENS)
            break;
    return micro;
}

static uint32_t tile_elems(const strata_model_desc *model, uint32_t ranks)
{
    uint32_t tile = strata_default_tile_elems(model);
    uint64_t elems = 0;
    for (uint32_t g = 0; g < model->group_count; g++)
        for (uint32_t t = 0; t < model->groups[g].tensor_count; t++) {
            uint64_t product = 1;
            for (uint32_t i = 0; i < model->groups[g].tensors[t].rank; i++)
                product *= model->groups[g].tensors[t].shape[i];
            elems += product;
        }
    while (elems / ranks / tile > MAX_TILES && tile < 1u << 28)
        tile *= 2;
    return tile;
}

static strata_status forecast(struct answer *out, const strata_model_desc *model,
                              const struct machine *machine, strata_tier stash,
                              const char *trace, strata_error *error)
{
    const char *dirs[64];
    uint32_t drives = machine->drives < 64 ? machine->drives : 64;
    strata_profile profile = strata_machine_rank(machine);
    bool durable = drives > 0;
    struct store_records records = {.durable = durable, .slots = durable ? 3 : 1};
    struct store_desc store = {.dirs = dirs, .dir_count = drives, .records = &records};
    for (uint32_t i = 0; i < drives; i++)
        dirs[i] = ".";
    struct forecast_desc desc = {
        .plan = {.model = model,
                 .compute_dtype = STRATA_BF16,
                 .record = {1, 12 * STRATA_BLOCK_ELEMS},
                 .tile_elems = tile_elems(model, machine->gpus),
                 .device_bytes = machine->device_bytes,
                 .host_bytes = machine->ram_bytes / machine->gpus,
                 .nvme_bytes =
                     (uint64_t)(machine->drive_bytes * machine->drives / machine->gpus),
                 .want_stash = stash,
                 .fold = true,
                 .slots = {.durable = durable, .ahead = durable},
                 .store = drives > 0 ? &store : NULL},
        .mode = UPDATES_AHEAD,
        .ranks = machine->gpus,
        .compare_homes = true,
        .trace_path = trace,
        .simulate = {.profile = &profile, .begins = STEP_AFTER_NORM},
    };
    return strata_forecast_make(&out->forecast, &out->plan, &desc, error);
}

static void rate(struct answer *answer, const struct plan_options *options, uint32_t batch,
                 const struct machine *machine)
{
    const strata_forecast *forecast = &answer->forecast;
    answer->tokens_per_s = (double)batch * options->seq / forecast->step_s;
    answer->write_bytes = (double)forecast->bytes[STRATA_LANE_NVME_WRITE] * machine->gpus;
}

/* batch: sequences of a step, of all GPUs. A model that makes no sense ends in error; one that
 * does not fit is an answer. */
static strata_status ask(struct answer *out, const struct plan_options *options,
                         const struct machine *machine, uint32_t batch, strata_error *error)
{
    struct llama_config config;
    struct llama *llama;
    strata_status status = STRATA_OK;
    *out = (struct answer){0};
    STRATA_TRY(strata_llama_config_read(&config, options->model, error));
    struct llama_shape shape = {.seq = options->seq,
                                .batch = batch / machine->gpus,
                                .vocab_slices = options->vocab_slices,
                                .compute_dtype = STRATA_BF16};
    shape.micro_batch = micro_batch(options, shape.batch);
    status = strata_llama_create(&llama, &config, &shape, NULL, error);
    if (status != STRATA_OK)
        return status;
    /* The trace is of the question itself. */
    const char *trace = machine == &options->machine ? options->trace : NULL;
    strata_error why = {0};
    status = forecast(out, strata_llama_model(llama), machine, STRATA_AUTO, trace, &why);
    if (status == STRATA_E_NOMEM && machine->drives > 0) {
        strata_error again = {0};
        if (forecast(out, strata_llama_model(llama), machine, STRATA_NVME, trace, &again) ==
            STRATA_OK)
            status = STRATA_OK;
    }
    strata_llama_destroy(llama);
    out->fits = status == STRATA_OK;
    if (out->fits)
        rate(out, options, batch, machine);
    snprintf(out->why_not, sizeof out->why_not, "%s", why.message);
    bool no_room =
        status == STRATA_E_NOMEM || (status == STRATA_E_INVALID && machine->drives == 0);
    if (status != STRATA_OK && !no_room) {
        *error = why;
        return status;
    }
    return STRATA_OK;
}

/* A row of a table: the question with something changed. */
struct row {
    const struct plan_options *options;
    char what[80];
    struct machine machine;
    uint32_t batch;
    struct answer answer;
    strata_status status;
    strata_error error;
};

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
        row->status = ask(&row->answer, row->options, &row->machine, row->batch, &row->error);
    }
    return NULL;
}

/* Rows do not depend on one another. The first one's failure, if there are any. */
static strata_status ask_all(struct row *list, uint32_t count, strata_error *error)
{
    struct rows rows = {.list = list, .count = count};
    pthread_t threads[ASKERS - 1];
    uint32_t started = 0;
    while (started < ASKERS - 1 &&
           pthread_create(&threads[started], NULL, ask_some, &rows) == 0)
        started++;
    ask_some(&rows); // all of them, if no thread was to be had
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

/* Telling. */

static void print_machine(FILE *out, const struct machine *machine)
{
    char device[16];
    char ram[16];
    fprintf(out, "machine  %u x %s with %s, %s of RAM", machine->gpus,
            machine->gpu != NULL ? machine->gpu->title : machine->host.name,
            strata_format_size(machine->device_bytes, device, sizeof device),
            strata_format_size(machine->ram_bytes, ram, sizeof ram));
    if (machine->drives > 0)
        fprintf(out, ", %u drive%s of %.3g/%.3g GB/s", machine->drives,
                machine->drives > 1 ? "s" : "", 1e-9 * machine->host.drive_read_bytes_per_s,
                1e-9 * machine->host.drive_write_bytes_per_s);
    fputc('\n', out);
}

static void print_lanes(FILE *out, const struct answer *answer)
{
    const strata_forecast *forecast = &answer->forecast;
    char size[16];
    fprintf(out, "\n%-12s%11s%12s%8s\n", "lane", "bytes", "busy", "share");
    for (int lane = 0; lane < STRATA_LANE_COUNT; lane++)
        fprintf(out, "%-12s%11s%10.3f s%6.1f %%\n", strata_lane_name((strata_lane)lane),
                forecast->bytes[lane] > 0
                    ? strata_format_size(forecast->bytes[lane], size, sizeof size)
                    : "-",
                forecast->busy_s[lane], 100 * forecast->busy_s[lane] / forecast->step_s);
    fputs("waits", out);
    for (int stall = 0; stall < STRATA_STALL_COUNT; stall++)
        fprintf(out, "%s %s %.3f s", stall > 0 ? "," : "      ",
                strata_stall_name((strata_stall)stall), forecast->stall_s[stall]);
    fputc('\n', out);
}

static void print_answer(FILE *out, const struct plan_options *options,
                         const struct answer *answer)
{
    const strata_forecast *forecast = &answer->forecast;
    char size[16];
    print_machine(out, &options->machine);
    fprintf(out, "step     %u sequences of %u tokens\n", options->batch, options->seq);
    if (!answer->fits) {
        fprintf(out, "fits     no: %s\n", answer->why_not);
        return;
    }
    fputs("fits     yes\n", out);
    fputs(options->machine.gpus > 1 ? "\nof each GPU:\n" : "\n", out);
    strata_report_tiers(out, &answer->plan);
    if (answer->plan.homes != NULL)
        fprintf(
            out,
            "homes    to RAM: %s (fastest in simulation); next best: %s, %.3f times as long\n",
            answer->plan.homes, answer->plan.next_homes, answer->plan.next_factor);
    print_lanes(out, answer);
    fprintf(out,
            "\nstep     %.3f s, %.0f tokens/s; bound by %s, which alone takes %.3f s; the "
            "longest chain takes %.3f s; the device idles %.3f s\n",
            forecast->step_s, answer->tokens_per_s, strata_lane_name(forecast->bottleneck),
            forecast->bound_s, forecast->chain_s, forecast->exposed_s);
    if (answer->plan.commit_every > 0)
        fprintf(out, "commits  one in %u step%s\n", answer->plan.commit_every,
                answer->plan.commit_every > 1 ? "s" : "");
    if (forecast->drive_days > 0)
        fprintf(out,
                "wear     %s written a step; the drives' rated endurance lasts %.0f days\n",
                strata_format_size((uint64_t)answer->write_bytes, size, sizeof size),
                forecast->drive_days);
}

static strata_json *json_answer(const struct answer *answer)
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

static void append_answer(strata_json *array, const struct row *row)
{
    strata_json *one = json_answer(&row->answer);
    strata_json_set_string(one, "what", row->what);
    strata_json_append(array, one);
}

/* Purchases: one thing more or better, all else as it is. */

#define MAX_PURCHASES 4u

static struct row *add_purchase(struct row *list, uint32_t *count,
                                const struct plan_options *options)
{
    struct row *row = &list[(*count)++];
    *row =
        (struct row){.options = options, .machine = options->machine, .batch = options->batch};
    return row;
}

static uint32_t purchases(struct row *list, const struct plan_options *options)
{
    const struct machine *now = &options->machine;
    uint32_t count = 0;
    char size[16];
    struct row *row = add_purchase(list, &count, options);
    row->machine.drives = now->drives > 0 ? 2 * now->drives : 1;
    snprintf(row->what, sizeof row->what, "%u drive%s instead of %u", row->machine.drives,
             row->machine.drives > 1 ? "s" : "", now->drives);
    row = add_purchase(list, &count, options);
    row->machine.ram_bytes *= 2;
    snprintf(row->what, sizeof row->what, "%s of RAM",
             strata_format_size(row->machine.ram_bytes, size, sizeof size));
    if (now->gpu == NULL)
        return count;
    if (options->batch % (2 * now->gpus) == 0) {
        row = add_purchase(list, &count, options);
        row->machine.gpus *= 2;
        snprintf(row->what, sizeof row->what, "%u GPUs instead of %u", row->machine.gpus,
                 now->gpus);
    }
    const struct gpu *better = strata_gpu_after(now->gpu);
    if (better != NULL) {
        row = add_purchase(list, &count, options);
        row->machine.gpu = better;
        row->machine.device_bytes = (uint64_t)(0.9 * better->memory_bytes);
        snprintf(row->what, sizeof row->what, "%s instead of %s", better->title,
                 now->gpu->title);
    }
    return count;
}

static strata_status weigh(FILE *out, strata_json *document, const struct plan_options *options,
                           const struct answer *now, strata_error *error)
{
    struct row list[MAX_PURCHASES];
    uint32_t count = purchases(list, options);
    const struct row *best = NULL;
    STRATA_TRY(ask_all(list, count, error));
    strata_json *array = strata_json_array();
    fprintf(out, "\n%-40s%14s%10s\n", "one thing more", "tokens/s", "factor");
    for (uint32_t i = 0; i < count; i++) {
        const struct answer *then = &list[i].answer;
        double factor = now->fits && then->fits ? then->tokens_per_s / now->tokens_per_s : 0;
        if (then->fits && (best == NULL || then->tokens_per_s > best->answer.tokens_per_s))
            best = &list[i];
        if (then->fits)
            fprintf(out, "%-40s%14.0f%10.2f\n", list[i].what, then->tokens_per_s, factor);
        else
            fprintf(out, "%-40s%14s\n", list[i].what, "does not fit");
        append_answer(array, &list[i]);
    }
    strata_json_set(document, "purchases", array);
    if (best != NULL && best->answer.tokens_per_s > 1.02 * now->tokens_per_s) {
        fprintf(out, "next best purchase: %s\n", best->what);
        strata_json_set_string(document, "next_best_purchase", best->what);
    } else {
        fputs("next best purchase: none of these; a larger batch, or nothing\n", out);
    }
    return STRATA_OK;
}

/* Sweeps. */

/* From an eighth to eight times, the middle row is what was asked for; drives from 1 on. */
static struct row sweep_row(const struct plan_options *options, int index)
{
    struct row row = {.options = options, .machine = options->machine, .batch = options->batch};
    double factor = 1;
    for (int i = index; i < SWEEP_ROWS / 2; i++)
        factor /= 2;
    for (int i = SWEEP_ROWS / 2; i < index; i++)
        factor *= 2;
    char size[16];
    if (options->sweep == SWEEP_BATCH) {
        uint32_t each = (uint32_t)(factor * options->batch / row.machine.gpus + 0.5);
        row.batch = (each > 0 ? each : 1) * row.machine.gpus;
        snprintf(row.what, sizeof row.what, "batch %u", row.batch);
    } else if (options->sweep == SWEEP_RAM) {
        row.machine.ram_bytes = (uint64_t)(factor * (double)row.machine.ram_bytes);
        snprintf(row.what, sizeof row.what, "RAM %s",
                 strata_format_size(row.machine.ram_bytes, size, sizeof size));
    } else {
        row.machine.drives = (uint32_t)(index + 1);
        snprintf(row.what, sizeof row.what, "%u drives", row.machine.drives);
    }
    return row;
}

static strata_status sweep(FILE *out, strata_json *document, const struct plan_options *options,
                           strata_error *error)
{
    struct row list[SWEEP_ROWS];
    for (int i = 0; i < SWEEP_ROWS; i++)
        list[i] = sweep_row(options, i);
    STRATA_TRY(ask_all(list, SWEEP_ROWS, error));
    strata_json *array = strata_json_array();
    fprintf(out, "\n%-20s%12s%14s   %s\n", "sweep", "step", "tokens/s", "bound by");
    for (int i = 0; i < SWEEP_ROWS; i++) {
        const struct answer *answer = &list[i].answer;
        if (answer->fits)
            fprintf(out, "%-20s%10.3f s%14.0f   %s\n", list[i].what, answer->forecast.step_s,
                    answer->tokens_per_s, strata_lane_name(answer->forecast.bottleneck));
        else
            fprintf(out, "%-20s%12s%14s   %.60s\n", list[i].what, "-", "-", answer->why_not);
        append_answer(array, &list[i]);
    }
    strata_json_set(document, "sweep", array);
    return STRATA_OK;
}

static enum bench_exit report(const struct plan_options *options)
{
    FILE *out = options->output.json ? stderr : stdout;
    strata_error error = {0};
    struct answer answer;
    if (ask(&answer, options, &options->machine, options->batch, &error) != STRATA_OK)
        return strata_bench_fail("plan", &error);
    print_answer(out, options, &answer);
    strata_json *document = strata_bench_document("plan");
    strata_profile rank = strata_machine_rank(&options->machine);
    strata_json_set(document, "rank", strata_profile_to_json(&rank));
    strata_json_set(document, "answer", json_answer(&answer));
    strata_status status = options->sweep != SWEEP_NONE
                               ? sweep(out, document, options, &error)
                               : weigh(out, document, options, &answer, &error);
    enum bench_exit result = status != STRATA_OK ? strata_bench_fail("plan", &error)
                             : answer.fits       ? BENCH_DONE
                                                 : BENCH_FAILED;
    if (status == STRATA_OK && !strata_bench_write(&options->output, document))
        result = BENCH_FAILED;
    strata_json_free(document);
    return result;
}

/* The command line. */

#define GPU_NAMES "a100-40 a100 h100 h200 b200 l40s rtx3090 rtx4090 rtx5090"

/* "N x R[/W]" */
static strata_status take_drives(void *target, const struct option_row *row, const char *text,
                                 strata_error *error)
{
    struct drives drives = {0};
    int used = 0;
    bool meant = sscanf(text, "%u x %lf/%lf%n", &drives.count, &drives.read_rate,
                        &drives.write_rate, &used) == 3 &&
                 text[used] == '\0';
    if (!meant) {
        used = 0;
        meant = sscanf(text, "%u x %lf%n", &drives.count, &drives.read_rate, &used) == 2 &&
                text[used] == '\0';
        drives.write_rate = drives.read_rate;
    }
    if (!meant || drives.count == 0 || drives.count > 64 || !(drives.read_rate > 0) ||
        !(drives.write_rate > 0))
        return strata_option_refuse(row, text,
                                    "give \"N x R[/W]\" in GB/s, such as \"4 x 7/6\"", error);
    ((struct plan_options *)target)->drives = drives;
    return STRATA_OK;
}

static strata_status take_gpu(void *target, const struct option_row *row, const char *text,
                              strata_error *error)
{
    const struct gpu *gpu = strata_gpu_named(text);
    if (gpu == NULL)
        return strata_option_refuse(row, text, "no such GPU: give one of " GPU_NAMES, error);
    ((struct plan_options *)target)->gpu = gpu;
    return STRATA_OK;
}

static const struct choice sweep_choices[] = {
    {"batch", SWEEP_BATCH}, {"ram", SWEEP_RAM}, {"nvme", SWEEP_NVME}, {NULL, 0}};

#define FIELD(member) offsetof(struct plan_options, member)
#define BELOW_COUNT   ((1u << 24) + 1)

static const struct option_row rows[] = {
    VALUE("model", OPTION_TEXT, "NAME|FILE|DIR", model,
          "a name, or a Hugging Face config (llama-7b)"),
    RANGE("seq", OPTION_COUNT, "N", seq, 1, BELOW_COUNT, "tokens of a sequence (2048)"),
    RANGE("batch", OPTION_COUNT, "N", batch, 1, BELOW_COUNT,
          "sequences of a step, over all GPUs (16)"),
    RANGE("micro-batch", OPTION_COUNT, "N", micro_batch, 1, BELOW_COUNT,
          "sequences at a time (16384 tokens of a GPU)"),
    RANGE("vocab-slices", OPTION_COUNT, "N", vocab_slices, 1, BELOW_COUNT,
          "cut embedding and head by rows (by size)"),
    VALUE("box", OPTION_TEXT, "FILE", box, "a measured machine: offload-bench probe"),
    OWN("gpu", "NAME", take_gpu, "the box's device, else one rtx4090"),
    RANGE("gpus", OPTION_COUNT, "N", gpus, 1, BELOW_COUNT, "how many of --gpu (1)"),
    VALUE("device-mem", OPTION_SIZE, "SIZE", device_bytes,
          "of each (nine tenths of the GPU's)"),
    VALUE("ram", OPTION_SIZE, "SIZE", ram_bytes, "of the machine (128G, a server's 512G)"),
    OWN("nvme", "\"N x R[/W]\"", take_drives, "drives and their rates in GB/s (none)"),
    CHOICE("sweep", "batch|ram|nvme", sweep_choices, sweep,
           "the same question for seven values"),
    VALUE("trace", OPTION_TEXT, "FILE", trace, "the simulated steps as a Chrome trace"),
    OUTPUT_ROWS,
};

static const struct command_line line = {.head = "usage: offload-bench plan [options]\n\n",
                                         .tail = "\nGPUs: " GPU_NAMES "\n",
                                         .rows = rows,
                                         .row_count = sizeof rows / sizeof rows[0]};

/* The box, or the catalogue's machine, and what the command line changes. */
static enum bench_exit settle_machine(struct plan_options *options)
{
    strata_error error = {0};
    const struct drives *drives = &options->drives;
    struct machine *machine = &options->machine;
    *machine =
        strata_machine_with(options->gpu != NULL ? options->gpu : strata_gpu_named("rtx4090"));
    if (options->box != NULL) {
        if (strata_profile_read_file(&machine->host, options->box, &error) != STRATA_OK)
            return strata_bench_fail("plan", &error);
        machine->gpu = options->gpu;
        machine->drives = machine->host.drives;
    }
    if (options->gpus > 0 && machine->gpu == NULL)
        return strata_bench_usage("plan", "--gpus", "of which? give --gpu NAME");
    if (options->gpus > 0)
        machine->gpus = options->gpus;
    if (options->ram_bytes > 0)
        machine->ram_bytes = options->ram_bytes;
    if (options->device_bytes > 0)
        machine->device_bytes = options->device_bytes;
    if (drives->count > 0) {
        machine->drives = drives->count;
        machine->host.drive_read_bytes_per_s = 1e9 * drives->read_rate;
        machine->host.drive_write_bytes_per_s = 1e9 * drives->write_rate;
    }
    if (options->batch % machine->gpus != 0)
        return strata_bench_usage("plan", "--batch", "the GPUs do not divide it");
    return BENCH_DONE;
}

enum bench_exit strata_bench_plan(int argc, char **argv)
{
    struct plan_options options = {.model = "llama-7b", .seq = 2048, .batch = 16};
    enum bench_exit result;
    if (!strata_bench_options(&result, &line, &options, argc, argv))
        return result;
    strata_error error = {0};
    if (strata_llama_config_check(options.model, &error) != STRATA_OK) {
        strata_bench_fail("plan", &error);
        return BENCH_USAGE;
    }
    result = settle_machine(&options);
    return result == BENCH_DONE ? report(&options) : result;
}
