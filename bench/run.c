#define _GNU_SOURCE
/*
 * offload-bench run: a training run as offload-train would make it, forecast and then measured,
 * lane by lane.
 *
 * The command line is offload-train's, so the run that is compared is the one that a user
 * plans; only its data may be left out. Without --box the machine is probed first, with the
 * run's own working set. The run is a new one, in a directory of its own inside each of
 * --store, which is removed at the end, so no existing file is touched.
 *
 * Measured: every step but the first, in which caches are cold, and the last, which waits for
 * its own updates. The times of steps and lanes are medians; bytes are means, since bytes that
 * are copied ahead count in one step or in the next.
 *
 * Thread: one, and the engine's.
 */

#include "bench/commands.h"

#include "offload/simulate/profile.h"

#include "bench/options.h"
#include "bench/probe.h"
#include "bench/rig/scratch.h"
#include "base/text.h"
#include "train/document.h"
#include "train/outputs.h"
#include "train/trainer.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_STEPS "8"
#define LEAST_STEPS   3u

struct run {
    struct options train;
    struct scratch scratch[OPTIONS_MAX_STORE_DIRS]; /* [0] also has the small files */
    char data[sizeof(struct scratch) + 16];
    char box[sizeof(struct scratch) + 16];
    uint64_t param_count;
    strata_forecast predicted;
    strata_forecast measured; /* without bound_s, bottleneck and ops */
    uint32_t samples;
};

/* The figures of each step, one column per quantity. */
struct samples {
    double step_s[BENCH_MAX_SAMPLES];
    double exposed_s[BENCH_MAX_SAMPLES];
    double busy_s[STRATA_LANE_COUNT][BENCH_MAX_SAMPLES];
    double bytes[STRATA_LANE_COUNT]; /* of all */
    double stall_s[STRATA_STALL_COUNT][BENCH_MAX_SAMPLES];
};

/* Only a new run from its start can be measured. */
static enum bench_exit check_options(const struct options *train)
{
    const struct {
        const char *name;
        bool given;
    } others[] = {{"--resume", train->resume},
                  {"--list, --scrub, --drop", train->command != STORE_NONE},
                  {"--dry-run", train->dry_run},
                  {"--hash-state", train->hash_state},
                  {"--log", train->log != NULL}};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (others[i].given)
            return strata_bench_usage("run", others[i].name,
                                      "is for offload-train alone: leave it out");
    if (train->rate.steps < LEAST_STEPS || train->rate.steps > BENCH_MAX_SAMPLES)
        return strata_bench_usage("run", "--steps",
                                  "the first and the last are left out: give 3 to 99");
    return BENCH_DONE;
}

/* The user's words follow ours and override them; the name of the data is set later. */
static enum bench_exit parse_run_options(struct run *run, int argc, char **argv)
{
    const char *const ours[] = {"run", "--steps", DEFAULT_STEPS, "--data", run->data};
    enum { OURS = sizeof ours / sizeof ours[0], THEIRS = 256 };
    char *words[OURS + THEIRS];
    strata_error error = {.status = STRATA_OK};
    if (argc > THEIRS)
        return strata_bench_usage("run", argv[THEIRS], "too many words");
    for (int i = 0; i < OURS; i++)
        words[i] = (char *)(uintptr_t)ours[i];
    memcpy(words + OURS, argv + 1, (size_t)argc * sizeof *words); // argv ends with NULL
    snprintf(run->data, sizeof run->data, "data");
    if (strata_options_parse(&run->train, OURS + argc - 1, words, &error) != STRATA_OK) {
        strata_bench_fail("run", &error);
        return BENCH_USAGE;
    }
    return run->train.help || run->train.version ? BENCH_DONE : check_options(&run->train);
}

/* Data that this program makes lies in a scratch directory. */
static strata_status check_run_outputs(const struct run *run, strata_error *error)
{
    const struct options *train = &run->train;
    struct outputs outputs = {.data = train->data != run->data ? train->data : NULL,
                              .model = train->model,
                              .box = train->box,
                              .trace = train->trace,
                              .document = train->document};
    return strata_outputs_check(&outputs, error);
}

static void print_run_help(void)
{
    fputs("usage: offload-bench run [options]\n"
          "A short run of training in scratch directories inside those of --store: what the\n"
          "plan says of a step, and what it took, lane by lane. Options are offload-train's,\n"
          "as its --help says. Without --data it trains on random bytes; without --box this\n"
          "machine is probed first; without --steps there are " DEFAULT_STEPS ".\n",
          stdout);
}

static strata_status make_scratch(struct run *run, strata_error *error)
{
    struct options *train = &run->train;
    uint32_t count = train->store_dir_count;
    for (uint32_t i = 0; i < count || i == 0; i++)
        STRATA_TRY(strata_bench_scratch_make(&run->scratch[i],
                                             count > 0 ? train->store_dirs[i] : ".", error));
    if (train->data != run->data)
        return STRATA_OK;
    snprintf(run->data, sizeof run->data, "%s/data", run->scratch[0].path);
    return strata_bench_scratch_data(run->data, error);
}

/* Before the run, so that the measured directory does not hold its store yet. */
static strata_status probe_run_machine(struct run *run, strata_error *error)
{
    struct options *train = &run->train;
    if (train->box != NULL)
        return STRATA_OK;
    char numbers[4][16];
    const uint32_t values[] = {train->seq, train->batch, train->micro_batch, train->threads};
    for (int i = 0; i < 4; i++)
        snprintf(numbers[i], sizeof numbers[i], "%u", values[i]);
    struct probe_desc desc = {.store = train->store_dir_count > 0 ? run->scratch[0].path : NULL,
                              .model = train->model,
                              .seq = numbers[0],
                              .batch = numbers[1],
                              .micro_batch = numbers[2],
                              .threads = train->threads > 0 ? numbers[3] : NULL,
                              .compute_dtype = strata_dtype_name(train->compute_dtype),
                              .states_dtype = strata_dtype_name(train->states_dtype)};
    strata_profile profile;
    fputs("probing this machine\n", stderr);
    STRATA_TRY(strata_bench_probe_machine(&profile, &desc, error));
    profile.drives = train->store_dir_count;
    strata_json *json = strata_profile_to_json(&profile);
    snprintf(run->box, sizeof run->box, "%s/box", run->scratch[0].path);
    strata_status status = strata_document_write(json, false, run->box, error);
    strata_json_free(json);
    train->box = run->box;
    return status;
}

static void keep_step_sample(struct samples *out, uint32_t at, const struct trainer_step *step)
{
    out->step_s[at] = step->seconds;
    out->exposed_s[at] = step->exposed_s;
    for (int lane = 0; lane < STRATA_LANE_COUNT; lane++) {
        out->busy_s[lane][at] = 1e-9 * (double)step->lanes[lane].busy_ns;
        out->bytes[lane] += (double)step->lanes[lane].bytes;
    }
    for (int stall = 0; stall < STRATA_STALL_COUNT; stall++)
        out->stall_s[stall][at] = step->stall_s[stall];
}

static void settle_medians(struct run *run, const struct samples *samples)
{
    uint32_t count = run->samples;
    strata_forecast *out = &run->measured;
    out->step_s = strata_bench_spread(samples->step_s, count).median;
    out->exposed_s = strata_bench_spread(samples->exposed_s, count).median;
    for (int lane = 0; lane < STRATA_LANE_COUNT; lane++) {
        out->busy_s[lane] = strata_bench_spread(samples->busy_s[lane], count).median;
        out->bytes[lane] = (uint64_t)(samples->bytes[lane] / count);
    }
    for (int stall = 0; stall < STRATA_STALL_COUNT; stall++)
        out->stall_s[stall] = strata_bench_spread(samples->stall_s[stall], count).median;
}

static strata_status train_and_sample(struct run *run, struct trainer *trainer,
                                      strata_error *error)
{
    struct samples samples = {.bytes = {0}};
    struct trainer_step step;
    uint64_t steps = run->train.rate.steps;
    run->param_count = strata_trainer_plan(trainer)->param_count;
    run->predicted = strata_trainer_plan(trainer)->forecast;
    STRATA_TRY(strata_trainer_start(trainer, NULL, NULL, error));
    for (uint64_t i = 1; i <= steps; i++) {
        STRATA_TRY(strata_trainer_step(trainer, i == steps, &step, error));
        if (i > 1 && i < steps)
            keep_step_sample(&samples, run->samples++, &step);
    }
    settle_medians(run, &samples);
    return strata_trainer_trace(trainer, error);
}

static strata_status measure_run(struct run *run, strata_error *error)
{
    struct trainer *trainer = NULL;
    STRATA_TRY(make_scratch(run, error));
    STRATA_TRY(probe_run_machine(run, error));
    for (uint32_t i = 0; i < run->train.store_dir_count; i++)
        run->train.store_dirs[i] = run->scratch[i].path;
    strata_status status = strata_trainer_create(&trainer, &run->train, NULL, error);
    if (status == STRATA_OK)
        status = train_and_sample(run, trainer, error);
    /* Freeing anything that a drive still uses would wait for that drive; its scratch files
     * stay. */
    if (status == STRATA_E_TIMEOUT)
        _exit((int)strata_bench_fail("run", error));
    strata_trainer_destroy(trainer);
    return status;
}

static void print_row(FILE *out, const char *what, double predicted, double measured)
{
    fprintf(out, "%-12s%10.3f s%10.3f s", what, predicted, measured);
    if (measured >= 1e-3)
        fprintf(out, "%+8.0f %%", 100 * (predicted - measured) / measured);
    else
        fprintf(out, "%10s", "-");
}

static void print_lane(FILE *out, const struct run *run, int lane)
{
    const strata_forecast *predicted = &run->predicted;
    const strata_forecast *measured = &run->measured;
    char sizes[2][16];
    print_row(out, strata_lane_name((strata_lane)lane), predicted->busy_s[lane],
              measured->busy_s[lane]);
    if (predicted->bytes[lane] > 0 || measured->bytes[lane] > 0)
        fprintf(out, "%14s%14s",
                strata_format_size(predicted->bytes[lane], sizes[0], sizeof sizes[0]),
                strata_format_size(measured->bytes[lane], sizes[1], sizeof sizes[1]));
    fputc('\n', out);
}

static void print_run_result(FILE *out, const struct run *run)
{
    const strata_forecast *predicted = &run->predicted;
    const strata_forecast *measured = &run->measured;
    char what[32];
    fprintf(out,
            "%llu parameters, %u sequences of %u tokens a step, medians of %u steps; bound by "
            "%s, which alone takes %.3f s\n\n",
            (unsigned long long)run->param_count, run->train.batch, run->train.seq,
            run->samples, strata_lane_name(predicted->bottleneck), predicted->bound_s);
    fprintf(out, "%-12s%12s%12s%10s%14s%14s\n", "", "predicted", "measured", "error",
            "predicted", "measured");
    print_row(out, "step", predicted->step_s, measured->step_s);
    fputc('\n', out);
    print_row(out, "idle device", predicted->exposed_s, measured->exposed_s);
    fputs("\n\n", out);
    for (int lane = 0; lane < STRATA_LANE_COUNT; lane++)
        if (predicted->busy_s[lane] > 0 || measured->busy_s[lane] > 0)
            print_lane(out, run, lane);
    fputc('\n', out);
    for (int stall = 0; stall < STRATA_STALL_COUNT; stall++) {
        snprintf(what, sizeof what, "wait %s", strata_stall_name((strata_stall)stall));
        print_row(out, what, predicted->stall_s[stall], measured->stall_s[stall]);
        fputc('\n', out);
    }
}

static strata_json *make_run_document(const struct run *run)
{
    strata_json *document = strata_bench_document("run");
    strata_json_set_string(document, "model", run->train.model);
    strata_json_set_uint(document, "param_count", run->param_count);
    strata_json_set_uint(document, "seq", run->train.seq);
    strata_json_set_uint(document, "batch", run->train.batch);
    strata_json_set_uint(document, "steps_measured", run->samples);
    strata_json_set_string(document, "bottleneck", strata_lane_name(run->predicted.bottleneck));
    strata_json_set_number(document, "bound_s", run->predicted.bound_s);
    strata_json *predicted = strata_json_object();
    strata_bench_set_step(predicted, &run->predicted);
    strata_json_set(document, "predicted", predicted);
    strata_json *measured = strata_json_object();
    strata_bench_set_step(measured, &run->measured);
    strata_json_set(document, "measured", measured);
    strata_json_set_number(document, "step_error",
                           run->predicted.step_s / run->measured.step_s - 1);
    return document;
}

static enum bench_exit report_run(const struct run *run)
{
    struct bench_output output = {.json = run->train.json, .file = run->train.document};
    if (!run->train.quiet)
        print_run_result(output.json ? stderr : stdout, run);
    return strata_bench_finish(&output, make_run_document(run));
}

enum bench_exit strata_bench_run(int argc, char **argv)
{
    struct run run = {.samples = 0};
    strata_error error = {.status = STRATA_OK};
    enum bench_exit refused = parse_run_options(&run, argc, argv);
    if (refused != BENCH_DONE)
        return refused;
    if (run.train.help)
        print_run_help();
    if (run.train.version)
        printf("offload-bench %s\n", strata_version());
    if (run.train.help || run.train.version)
        return BENCH_DONE;
    strata_status status = check_run_outputs(&run, &error);
    if (status == STRATA_OK)
        status = measure_run(&run, &error);
    for (uint32_t i = 0; i < OPTIONS_MAX_STORE_DIRS; i++)
        strata_bench_scratch_remove(&run.scratch[i]);
    if (status != STRATA_OK)
        return strata_bench_fail("run", &error);
    return report_run(&run);
}
