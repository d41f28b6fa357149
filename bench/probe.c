#define _GNU_SOURCE
/*
 * offload-bench probe: this machine as a profile (strata/profile.h), measured with the working
 * set of a training run.
 *
 * The costs of ops come from a run that makes them: a few steps of training in the naive
 * order, in which nothing runs at the same time as anything else, with weights and states on
 * NVMe, and the trace of all steps but the first. So each rate is measured on the real code,
 * with the tiles, the model's shapes and the working set of a run. Only what lanes take from
 * each other is measured separately: memory by copies on all cores, a drive's reads and writes
 * at once by passes over a scratch store.
 *
 * Without a store, weights and states rest in host RAM, and the profile has no drives.
 *
 * Timed: spans of the trace, from the moment the lane takes an op to the op's end. Reported as
 * shares: the rate of updates over memory's, the store's rate over that of the same requests
 * without the store.
 *
 * Thread: one, and the engine's.
 */

#include "bench/commands.h"
#include "bench/probe.h"

#include "offload/simulate/profile.h"

#include "bench/rig/io_rig.h"
#include "bench/options.h"
#include "bench/rig/scratch.h"
#include "base/text.h"
#include "train/trainer.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of a pass over the drive and of the copies in memory: far larger than any cache. */
#define PASS_BYTES ((uint64_t)256 << 20)
#define PASSES     3u
#define PIECES     64u

/* If later reads are so many times as fast as the first, something above the drive caches the
 * file. */
#define CACHED_RATIO 1.4

/* Time from a decision to the start of an op: a message and the waking of a thread. Measured
 * 10 to 60 us with idle cores; the span of an op that waited for its lane's thread includes
 * it. */
#define OP_S 20e-6

/* Share of the cores for updates while the device computes on the cores: the pool's rule. */
#define UPDATE_SHARE 0.5

/* Steps of the run; the first is not counted. In the next two, computing may still take a
 * fifth longer if the store has just been made, which changes the median of six very
 * little. */
#define STEPS 7u

struct probe_options {
    struct probe_desc desc;
    struct bench_output output;
};

/* Sum of seconds and bytes over the spans of one kind. */
struct sum {
    double seconds;
    double bytes;
    double count;
};

enum kind { READS, WRITES, INS, OUTS, WITHIN, UPDATES, NORMS, COMPUTES, KINDS };

/* The beginnings of span names, which offload/schedule/op_trace.c defines. */
static const struct {
    const char *word;
    enum kind kind;
} words[] = {{"read ", READS},          {"write ", WRITES},    {"weights in", INS},
             {"activations in", INS},   {"weights out", OUTS}, {"gradient out", OUTS},
             {"activations out", OUTS}, {"zero ", WITHIN},     {"round ", WITHIN},
             {"update ", UPDATES},      {"norm of", KINDS},    {"norm ", NORMS},
             {"forward", COMPUTES},     {"backward", COMPUTES}};

struct found {
    strata_profile profile;
    struct sum sums[KINDS];
    double compute_s[STEPS]; /* by step; 0 for the first */
    double bare_read_bytes_per_s;
    double cached_ratio; /* later reads over the first; 0: no store */
    double step_s;       /* of a step in the naive order */
};

struct copying {
    uint8_t *from;
    uint8_t *to;
};

static void copy_piece(void *user, uint32_t index, uint32_t worker)
{
    const struct copying *copying = user;
    size_t bytes = PASS_BYTES / PIECES;
    (void)worker;
    memcpy(copying->to + index * bytes, copying->from + index * bytes, bytes);
}

/* Bytes that all workers read and write per second: the best of some passes. 0: out of
 * memory. */
static double memory_rate(strata_workers *workers)
{
    struct copying copying = {.from = malloc(PASS_BYTES), .to = malloc(PASS_BYTES)};
    double best = 0;
    if (copying.from != NULL && copying.to != NULL) {
        memset(copying.from, 1, PASS_BYTES);
        memset(copying.to, 2, PASS_BYTES);
        for (uint32_t i = 0; i < 2 * PASSES; i++) {
            double start = strata_bench_now_s();
            strata_workers_run(workers, STRATA_JOB_PANEL, copy_piece, &copying, PIECES);
            double rate = 2.0 * (double)PASS_BYTES / (strata_bench_now_s() - start);
            best = rate > best ? rate : best;
        }
    }
    free(copying.from);
    free(copying.to);
    return best;
}

static double median3(double a, double b, double c)
{
    double low = a < b ? a : b;
    double high = a < b ? b : a;
    return c < low ? low : c > high ? high : c;
}

static strata_status probe_drive_rates(struct found *found, const char *dir,
                                       strata_error *error)
{
    struct io_rig rig;
    struct io_sample samples[IO_KIND_COUNT][PASSES];
    struct io_sample first;
    struct io_sample bare = {0};
    strata_status status = strata_bench_rig_open(&rig, dir, PASS_BYTES, error);
    if (status == STRATA_OK)
        status = strata_bench_rig_pass(&rig, KIND_READ, WAY_BARE, &first, error);
    for (uint32_t i = 0; i < PASSES; i++)
        for (int kind = 0; kind < IO_KIND_COUNT && status == STRATA_OK; kind++)
            status = strata_bench_rig_pass(&rig, (enum io_kind)kind, WAY_STORE,
                                           &samples[kind][i], error);
    if (status == STRATA_OK)
        status = strata_bench_rig_pass(&rig, KIND_READ, WAY_BARE, &bare, error);
    double bytes = (double)rig.place_count * (double)RIG_PLACE_BYTES;
    strata_bench_rig_close(&rig);
    if (status != STRATA_OK)
        return status;
    double seconds[IO_KIND_COUNT];
    for (int kind = 0; kind < IO_KIND_COUNT; kind++)
        seconds[kind] = median3(samples[kind][0].seconds, samples[kind][1].seconds,
                                samples[kind][2].seconds);
    strata_profile *profile = &found->profile;
    profile->drives = 1;
    profile->drive_op_s = 5 * OP_S;
    /* Half of the bytes are read, half written. */
    profile->mix = (seconds[KIND_READ] + seconds[KIND_WRITE]) / 2 / seconds[KIND_MIXED];
    profile->mix = profile->mix < 0.1 ? 0.1 : profile->mix > 2 ? 2 : profile->mix;
    profile->drive_cpu_s_per_byte =
        median3(samples[KIND_READ][0].cpu_s, samples[KIND_READ][1].cpu_s,
                samples[KIND_READ][2].cpu_s) /
        bytes;
    found->bare_read_bytes_per_s = bytes / bare.seconds;
    found->cached_ratio = first.seconds / bare.seconds;
    return STRATA_OK;
}

static void add_span(struct found *found, const char *name, uint64_t step, double seconds,
                     double bytes)
{
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strncmp(name, words[i].word, strlen(words[i].word)) != 0)
            continue;
        if (words[i].kind == KINDS)
            return;
        struct sum *sum = &found->sums[words[i].kind];
        sum->seconds += seconds;
        sum->bytes += bytes;
        sum->count++;
        if (words[i].kind == COMPUTES && step < STEPS)
            found->compute_s[step] += seconds;
        return;
    }
}

static strata_status add_event(struct found *found, const strata_json *event,
                               strata_error *error)
{
    const char *kind;
    const char *name;
    const strata_json *facts;
    uint64_t step;
    double bytes;
    double duration;
    strata_status status = strata_json_get_string(event, "ph", &kind, error);
    if (status != STRATA_OK || strcmp(kind, "X") != 0)
        return status;
    status = strata_json_get_string(event, "name", &name, error);
    if (status == STRATA_OK)
        status = strata_json_get_object(event, "args", &facts, error);
    if (status == STRATA_OK)
        status = strata_json_get_uint(facts, "step", &step, error);
    if (status == STRATA_OK)
        status = strata_json_get_number(facts, "bytes", &bytes, error);
    if (status == STRATA_OK)
        status = strata_json_get_number(event, "dur", &duration, error);
    /* The first step is not counted: caches are cold, and memory is touched for the first
     * time. */
    if (status == STRATA_OK && step > 0)
        add_span(found, name, step, 1e-6 * duration, bytes);
    return status;
}

static strata_status read_trace(struct found *found, const char *path, strata_error *error)
{
    strata_json *json;
    const strata_json *events;
    strata_status status = strata_json_read_file(&json, path, error);
    if (status != STRATA_OK)
        return status;
    status = strata_json_get_array(json, "traceEvents", &events, error);
    for (size_t i = 0; status == STRATA_OK && i < strata_json_count(events); i++)
        status = add_event(found, strata_json_at(events, i), error);
    strata_json_free(json);
    return status;
}

/* The FLOPs of one step, counted from the use list. */
static strata_status count_flops(const struct trainer *trainer, double *out,
                                 strata_error *error)
{
    const struct options *options = strata_trainer_options(trainer);
    struct decoder_shape shape = {.seq = options->seq,
                                  .batch = options->batch,
                                  .micro_batch = options->micro_batch,
                                  .compute_dtype = options->compute_dtype};
    struct decoder *decoder;
    strata_status status =
        strata_decoder_create(&decoder, strata_trainer_config(trainer), &shape, NULL, error);
    if (status != STRATA_OK)
        return status;
    const strata_model_desc *model = strata_decoder_model(decoder);
    *out = 0;
    for (uint32_t i = 0; i < model->use_count; i++)
        *out += model->uses[i].flops;
    strata_decoder_destroy(decoder);
    return STRATA_OK;
}

static double rate_of(const struct found *found, enum kind kind, double otherwise)
{
    const struct sum *sum = &found->sums[kind];
    return sum->seconds > 0 && sum->bytes > 0 ? sum->bytes / sum->seconds : otherwise;
}

static strata_status run_probe_steps(struct found *found, const struct options *options,
                                     strata_error *error)
{
    struct trainer *trainer;
    struct trainer_step step;
    double flops = 0;
    strata_status status = strata_trainer_create(&trainer, options, NULL, error);
    if (status == STRATA_OK)
        status = strata_trainer_start(trainer, NULL, NULL, error);
    for (uint32_t i = 1; i <= STEPS && status == STRATA_OK; i++) {
        status = strata_trainer_step(trainer, i == STEPS, &step, error);
        if (i > 1)
            found->step_s += step.seconds / (STEPS - 1);
    }
    if (status == STRATA_OK)
        status = strata_trainer_trace(trainer, error);
    if (status == STRATA_OK)
        status = count_flops(trainer, &flops, error);
    if (status == STRATA_OK)
        found->profile.cores = strata_trainer_thread_count(trainer);
    strata_trainer_destroy(trainer);
    if (status == STRATA_OK)
        status = read_trace(found, options->trace, error);
    if (status == STRATA_OK)
        found->profile.flops_per_s =
            flops / strata_bench_spread(found->compute_s + 1, STEPS - 1).median;
    return status;
}

/* The stores of a copy also read the lines that they overwrite, and these bytes are not
 * counted. So an update may reach a higher rate than a copy; the highest rate is taken as
 * memory's. An op that ran alone is then forecast to take as long as it took. */
static double memory_at_best(const struct found *found)
{
    double memory = found->profile.dram_bytes_per_s;
    return fmax(memory, fmax(rate_of(found, UPDATES, memory), rate_of(found, NORMS, memory)));
}

static void settle_rates(struct found *found)
{
    strata_profile *profile = &found->profile;
    double memory = memory_at_best(found);
    profile->dram_bytes_per_s = memory;
    profile->host_device = true;
    profile->update_bytes_per_s = rate_of(found, UPDATES, memory);
    profile->norm_bytes_per_s = rate_of(found, NORMS, memory);
    profile->h2d_bytes_per_s = rate_of(found, INS, memory / 4);
    profile->d2h_bytes_per_s = rate_of(found, OUTS, memory / 4);
    profile->device_bytes_per_s = rate_of(found, WITHIN, memory / 2);
    /* The two directions are two threads, which share only cores and memory. */
    profile->duplex = 2;
    profile->op_s = OP_S;
    profile->update_share = UPDATE_SHARE;
    profile->update_cores = fmin(profile->update_cores, profile->cores);
    if (profile->drives > 0) {
        profile->drive_read_bytes_per_s = rate_of(found, READS, memory / 8);
        profile->drive_write_bytes_per_s = rate_of(found, WRITES, memory / 8);
    }
}

static void print_rate(FILE *out, const char *what, double rate, double bound,
                       const char *bound_name)
{
    fprintf(out, "%-12s%9.2f GB/s", what, 1e-9 * rate);
    if (bound > 0)
        fprintf(out, "%7.0f %% of %s", 100 * rate / bound, bound_name);
    fputc('\n', out);
}

static void print_found(FILE *out, const struct found *found)
{
    const strata_profile *p = &found->profile;
    fprintf(out, "%u cores; the naive order's step takes %.3f s\n\n", p->cores, found->step_s);
    print_rate(out, "memory", p->dram_bytes_per_s, 0, "");
    print_rate(out, "update", p->update_bytes_per_s, p->dram_bytes_per_s, "memory");
    print_rate(out, "norm", p->norm_bytes_per_s, p->dram_bytes_per_s, "memory");
    print_rate(out, "h2d", p->h2d_bytes_per_s, p->dram_bytes_per_s / 2, "a copy by all cores");
    print_rate(out, "d2h", p->d2h_bytes_per_s, p->dram_bytes_per_s / 2, "a copy by all cores");
    print_rate(out, "in device", p->device_bytes_per_s, p->dram_bytes_per_s, "memory");
    fprintf(out, "%-12s%9.2f GFLOP/s, all of a step's work\n", "compute",
            1e-9 * p->flops_per_s);
    if (p->drives == 0)
        return;
    print_rate(out, "nvme_read", p->drive_read_bytes_per_s, found->bare_read_bytes_per_s,
               "long passes without the store");
    print_rate(out, "nvme_write", p->drive_write_bytes_per_s, 0, "");
    fprintf(out, "%-12s%9.2f; 1: reads and writes take turns, 2: each has its own\n", "mix",
            p->mix);
    if (found->cached_ratio > CACHED_RATIO)
        fprintf(out,
                "later reads are %.1f times as fast as the first: something above the drive "
                "remembers, and with a larger working set it will be slower\n",
                found->cached_ratio);
}

static bool write_profile(const struct bench_output *output, const strata_profile *profile)
{
    strata_json *json = strata_profile_to_json(profile);
    bool good = strata_bench_write(output, json);
    strata_json_free(json);
    return good;
}

/* The run's command line. */
static strata_status describe_run(struct options *out, const struct probe_desc *desc,
                                  const char *data, const char *trace, strata_error *error)
{
    const struct {
        const char *name;
        const char *value; /* NULL: the option is left out */
    } given[] = {{"--data", data},
                 {"--trace", trace},
                 {"--model", desc->model},
                 {"--seq", desc->seq},
                 {"--batch", desc->batch},
                 {"--micro-batch", desc->micro_batch},
                 {"--threads", desc->threads},
                 {"--compute-dtype", desc->compute_dtype},
                 {"--states-dtype", desc->states_dtype},
                 {"--clip", "0"},
                 {"--stash", "device"},
                 {"--grads", "host"},
                 {"--store", desc->store},
                 {"--durability", desc->store != NULL ? "none" : NULL},
                 {"--params", desc->store != NULL ? "nvme" : "host"},
                 {"--states", desc->store != NULL ? "nvme" : "host"}};
    char *argv[2 + 2 * (sizeof given / sizeof given[0]) + 1];
    int argc = 0;
    argv[argc++] = (char *)(uintptr_t) "probe";
    argv[argc++] = (char *)(uintptr_t) "--no-overlap";
    for (size_t i = 0; i < sizeof given / sizeof given[0]; i++) {
        if (given[i].value == NULL)
            continue;
        argv[argc++] = (char *)(uintptr_t)given[i].name;
        argv[argc++] = (char *)(uintptr_t)given[i].value;
    }
    argv[argc] = NULL;
    return strata_options_parse(out, argc, argv, error);
}

static strata_status memory_rate_of(double *out, uint32_t *threads, strata_error *error)
{
    strata_workers *workers;
    strata_workers_desc desc = {.thread_count = *threads};
    STRATA_TRY(strata_workers_create(&workers, &desc, error));
    *threads = strata_workers_count(workers);
    *out = memory_rate(workers);
    strata_workers_destroy(workers);
    return STRATA_OK;
}

/* Half of the workers get more than half of the memory bandwidth of all, at some times nearly
 * all of it. */
static strata_status probe_memory(struct found *found, strata_error *error)
{
    strata_profile *profile = &found->profile;
    uint32_t all = 0;
    STRATA_TRY(memory_rate_of(&profile->dram_bytes_per_s, &all, error));
    uint32_t half = all / 2;
    double half_rate;
    if (half == 0)
        return STRATA_OK;
    STRATA_TRY(memory_rate_of(&half_rate, &half, error));
    if (half_rate > 0)
        profile->update_cores = half * fmax(1, profile->dram_bytes_per_s / half_rate);
    return STRATA_OK;
}

/* The run's scratch files lie beside its store, or in the current directory. */
static strata_status probe_lanes(struct found *found, const struct probe_desc *desc,
                                 strata_error *error)
{
    struct scratch scratch;
    char data[sizeof scratch.path + 8];
    char trace[sizeof scratch.path + 8];
    struct options train;
    STRATA_TRY(
        strata_bench_scratch_make(&scratch, desc->store != NULL ? desc->store : ".", error));
    snprintf(data, sizeof data, "%s/data", scratch.path);
    snprintf(trace, sizeof trace, "%s/trace", scratch.path);
    strata_status status = strata_bench_scratch_data(data, error);
    if (status == STRATA_OK)
        status = describe_run(&train, desc, data, trace, error);
    if (status == STRATA_OK)
        status = run_probe_steps(found, &train, error);
    strata_bench_scratch_remove(&scratch);
    return status;
}

static strata_status probe_profile(struct found *found, const struct probe_desc *desc,
                                   strata_error *error)
{
    *found = (struct found){.profile = {.name = "this machine"}};
    STRATA_TRY(probe_memory(found, error));
    if (desc->store != NULL)
        STRATA_TRY(probe_drive_rates(found, desc->store, error));
    STRATA_TRY(probe_lanes(found, desc, error));
    settle_rates(found);
    return STRATA_OK;
}

strata_status strata_bench_probe_machine(strata_profile *out, const struct probe_desc *desc,
                                         strata_error *error)
{
    struct found found;
    STRATA_TRY(probe_profile(&found, desc, error));
    *out = found.profile;
    return STRATA_OK;
}

#define FIELD(member) offsetof(struct probe_options, member)

static const struct option_row rows[] = {
    VALUE("store", OPTION_TEXT, "DIR", desc.store, "measure this drive too (none)"),
    VALUE("model", OPTION_TEXT, "NAME|FILE|DIR", desc.model,
          "the working set: what a run will train (llama-125m)"),
    VALUE("seq", OPTION_TEXT, "N", desc.seq, "tokens of a sequence (128)"),
    VALUE("batch", OPTION_TEXT, "N", desc.batch, "sequences of a step (2)"),
    VALUE("micro-batch", OPTION_TEXT, "N", desc.micro_batch, "sequences at a time (the batch)"),
    VALUE("threads", OPTION_TEXT, "N", desc.threads,
          "workers (one per core this process may use)"),
    VALUE("compute-dtype", OPTION_TEXT, "fp32|bf16|fp16", desc.compute_dtype,
          "weights and gradients between uses (bf16)"),
    VALUE("states-dtype", OPTION_TEXT, "fp32|bf16", desc.states_dtype, "moments (fp32)"),
    OUTPUT_ROWS,
};

static const struct command_line line = {
    .head = "usage: offload-bench probe [options]\n"
            "The document is a profile, for plan --box and offload-train --box.\n\n",
    .rows = rows,
    .row_count = sizeof rows / sizeof rows[0]};

enum bench_exit strata_bench_probe(int argc, char **argv)
{
    struct probe_options options = {
        .desc = {.model = "llama-125m", .seq = "128", .batch = "2"}};
    enum bench_exit result;
    if (!strata_bench_options(&result, &line, &options, argc, argv))
        return result;
    struct found found;
    struct options train;
    strata_error error = {0};
    /* Check the command line before anything is measured. Nothing opens files by these names
     * yet. */
    if (describe_run(&train, &options.desc, "data", "trace", &error) != STRATA_OK) {
        strata_bench_fail("probe", &error);
        return BENCH_USAGE;
    }
    if (probe_profile(&found, &options.desc, &error) != STRATA_OK)
        return strata_bench_fail("probe", &error);
    print_found(options.output.json ? stderr : stdout, &found);
    return write_profile(&options.output, &found.profile) ? BENCH_DONE : BENCH_FAILED;
}
