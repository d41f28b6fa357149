#define _GNU_SOURCE
/*
 * offload-bench step: how much time overlap saves. One step of one model runs in four ways: by
 * the schedule, with all dependencies of its ops removed, without updates, and in the naive
 * order (rig/step_rig.h).
 *
 * Three cases: the device computes for less time than all the rest of the step takes alone,
 * for the same time, and for more. All the rest alone is the way without dependencies and
 * without computing. In each case a repetition runs every way, one right after the other, and
 * repetitions take turns in which goes first. Ratios are medians of the ratios within a
 * repetition, since drives and neighbours change within minutes.
 *
 * Timed: steps in the middle of a run; the first and the last of a sample are left out. Not
 * timed: making engines and stores, and a sample of each way before the first repetition.
 *
 * The exposed share of the updates is the time of a step less the time of the same step
 * without updates, over the time in which the cpu lane was busy with them. A part of it is
 * waiting. The rest is that the device's cores share caches and memory with the updates, so
 * the device computes more slowly.
 *
 * Thread: one, and the engines'.
 */

#include "bench/commands.h"

#include "bench/options.h"
#include "bench/rig/step_rig.h"
#include "base/text.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#define DEFAULT_REPETITIONS 5u
#define DEFAULT_GROUPS      64u /* between a model of 7 billion parameters and one of 70 */
#define GROUP_ELEMS         (UINT64_C(1) << 20)
#define DEFAULT_STEPS       6u /* of a sample: 4 between the first and the last */
#define CALIBRATIONS        3u

struct step_options {
    const char *dir;
    uint32_t only;     /* case; CASE_COUNT: all */
    const char *trace; /* NULL: none */
    uint32_t groups;
    uint32_t steps;
    uint32_t repetitions;
    bool on_pool;
    struct bench_output output;
};

/* Time of computing over the time of everything else. In the balanced case hiding one behind
 * the other is hardest and saves most. */
static const struct step_case {
    const char *name;
    double compute;
} cases[] = {{"nvme", 0.4}, {"balanced", 1}, {"compute", 3}};
enum { CASE_COUNT = sizeof cases / sizeof cases[0] };

static const char *const way_names[STEP_WAY_COUNT] = {"overlapped", "free", "no_updates",
                                                      "in_turn"};

/* Of one case. */
struct case_result {
    uint32_t products;
    double compute_s; /* computing alone, by the calibration */
    struct step_sample samples[STEP_WAY_COUNT][BENCH_MAX_SAMPLES];
    struct bench_spread step_s[STEP_WAY_COUNT];
    struct bench_spread over_free;    /* overlapped over free */
    struct bench_spread in_turn_over; /* in turn over overlapped */
    struct bench_spread exposed;      /* as a share of the updates' busy time */
    struct bench_spread waited;       /* the part of it that is waiting */
};

static double median_busy(const struct case_result *result, enum step_way way, strata_lane lane,
                          uint32_t count)
{
    double values[BENCH_MAX_SAMPLES];
    for (uint32_t i = 0; i < count; i++)
        values[i] = result->samples[way][i].busy_s[lane];
    return strata_bench_spread(values, count).median;
}

static double median_bytes(const struct case_result *result, enum step_way way,
                           strata_lane lane, uint32_t count)
{
    double values[BENCH_MAX_SAMPLES];
    for (uint32_t i = 0; i < count; i++)
        values[i] = result->samples[way][i].bytes[lane];
    return strata_bench_spread(values, count).median;
}

/* The time of a step in which the device does not compute. */
static double idle_s(const struct step_sample *sample)
{
    return sample->step_s - sample->busy_s[STRATA_LANE_COMPUTE];
}

static void evaluate_step_case(struct case_result *result, uint32_t count)
{
    double values[4][BENCH_MAX_SAMPLES];
    for (int way = 0; way < STEP_WAY_COUNT; way++) {
        for (uint32_t i = 0; i < count; i++)
            values[0][i] = result->samples[way][i].step_s;
        result->step_s[way] = strata_bench_spread(values[0], count);
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct step_sample *overlapped = &result->samples[STEP_OVERLAPPED][i];
        const struct step_sample *without = &result->samples[STEP_NO_UPDATES][i];
        double updates_s = overlapped->busy_s[STRATA_LANE_CPU];
        values[0][i] = overlapped->step_s / result->samples[STEP_UNORDERED][i].step_s;
        values[1][i] = result->samples[STEP_IN_TURN][i].step_s / overlapped->step_s;
        values[2][i] = (overlapped->step_s - without->step_s) / updates_s;
        values[3][i] = (idle_s(overlapped) - idle_s(without)) / updates_s;
    }
    result->over_free = strata_bench_spread(values[0], count);
    result->in_turn_over = strata_bench_spread(values[1], count);
    result->exposed = strata_bench_spread(values[2], count);
    result->waited = strata_bench_spread(values[3], count);
}

/* Seconds of all work but computing, with no waiting: each case computes a multiple of it. */
static strata_status calibrate_rest(struct step_rig *rig, uint32_t steps, double *out_rest_s,
                                    strata_error *error)
{
    double values[CALIBRATIONS];
    for (uint32_t i = 0; i < CALIBRATIONS; i++) {
        struct step_sample sample;
        STRATA_TRY(strata_bench_step_sample(rig, STEP_UNORDERED, 0, steps, &sample, error));
        values[i] = sample.step_s;
    }
    *out_rest_s = strata_bench_spread(values, CALIBRATIONS).median;
    return STRATA_OK;
}

static strata_status measure_step_case(struct case_result *out, struct step_rig *rig,
                                       const struct step_options *options, double target_s,
                                       strata_error *error)
{
    double product_s = strata_bench_step_product_s(&rig->caller);
    double each = 4.0 * options->groups * product_s; /* one product forward, three back */
    out->products = target_s > each ? (uint32_t)(target_s / each + 0.5) : 1;
    out->compute_s = out->products * each;
    struct step_sample ignored;
    for (int way = 0; way < STEP_WAY_COUNT; way++)
        STRATA_TRY(strata_bench_step_sample(rig, (enum step_way)way, out->products, 3, &ignored,
                                            error));
    for (uint32_t r = 0; r < options->repetitions; r++)
        for (uint32_t i = 0; i < STEP_WAY_COUNT; i++) {
            uint32_t way = (r + i) % STEP_WAY_COUNT;
            STRATA_TRY(strata_bench_step_sample(rig, (enum step_way)way, out->products,
                                                options->steps, &out->samples[way][r], error));
        }
    evaluate_step_case(out, options->repetitions);
    return STRATA_OK;
}

static void print_spread(FILE *out, const char *what, const struct bench_spread *spread)
{
    fprintf(out, "%-44s %6.3f (%.3f..%.3f)\n", what, spread->median, spread->least,
            spread->most);
}

static void print_step_case(FILE *out, const char *name, const struct case_result *result,
                            uint32_t count)
{
    fprintf(out, "\n%s: %.3f s of computing, %u products a group in forward\n%-12s%9s%20s",
            name, result->compute_s, result->products, "way", "step", "");
    for (int lane = 0; lane < STRATA_LANE_COUNT; lane++)
        if (lane != STRATA_LANE_COMM)
            fprintf(out, "%11s", strata_lane_name((strata_lane)lane));
    fputc('\n', out);
    for (int way = 0; way < STEP_WAY_COUNT; way++) {
        const struct bench_spread *step = &result->step_s[way];
        fprintf(out, "%-12s%7.3f s (%6.3f..%6.3f) ", way_names[way], step->median, step->least,
                step->most);
        for (int lane = 0; lane < STRATA_LANE_COUNT; lane++)
            if (lane != STRATA_LANE_COMM)
                fprintf(out, "%9.3f s",
                        median_busy(result, (enum step_way)way, (strata_lane)lane, count));
        fputc('\n', out);
    }
    print_spread(out, "overlapped over free", &result->over_free);
    print_spread(out, "in turn over overlapped", &result->in_turn_over);
    print_spread(out, "not hidden, of the updates' busy time", &result->exposed);
    print_spread(out, "of that, waiting", &result->waited);
}

static strata_json *json_way(const struct case_result *result, enum step_way way,
                             uint32_t count)
{
    strata_json *one = strata_json_object();
    strata_bench_set_spread(one, "step_s", &result->step_s[way]);
    strata_json *lanes = strata_json_object();
    for (int lane = 0; lane < STRATA_LANE_COUNT; lane++) {
        strata_json *figures = strata_json_object();
        strata_json_set_number(figures, "busy_s",
                               median_busy(result, way, (strata_lane)lane, count));
        strata_json_set_number(figures, "bytes",
                               median_bytes(result, way, (strata_lane)lane, count));
        strata_json_set(lanes, strata_lane_name((strata_lane)lane), figures);
    }
    strata_json_set(one, "lanes", lanes);
    return one;
}

static strata_json *json_step_case(const char *name, const struct case_result *result,
                                   uint32_t count)
{
    strata_json *one = strata_json_object();
    strata_json_set_string(one, "name", name);
    strata_json_set_number(one, "compute_s", result->compute_s);
    strata_json_set_uint(one, "products", result->products);
    strata_json *ways = strata_json_object();
    for (int way = 0; way < STEP_WAY_COUNT; way++)
        strata_json_set(ways, way_names[way], json_way(result, (enum step_way)way, count));
    strata_json_set(one, "ways", ways);
    strata_bench_set_spread(one, "overlapped_over_free", &result->over_free);
    strata_bench_set_spread(one, "in_turn_over_overlapped", &result->in_turn_over);
    strata_bench_set_spread(one, "not_hidden_of_updates", &result->exposed);
    strata_bench_set_spread(one, "waiting_of_updates", &result->waited);
    return one;
}

static strata_json *json_step_setting(const struct step_options *options,
                                      const struct step_rig *rig, double rest_s)
{
    strata_json *object = strata_json_object();
    strata_json_set_uint(object, "params", options->groups * GROUP_ELEMS);
    strata_json_set_uint(object, "groups", options->groups);
    strata_json_set_uint(object, "threads", strata_workers_count(rig->caller.workers));
    strata_json_set_string(object, "device_computes_on", options->on_pool ? "pool" : "core");
    strata_json_set_uint(object, "steps", options->steps);
    strata_json_set_uint(object, "repetitions", options->repetitions);
    strata_json_set_number(object, "all_but_compute_s", rest_s);
    return object;
}

static strata_status run_cases(struct step_rig *rig, const struct step_options *options,
                               strata_json *document, strata_error *error)
{
    FILE *out = options->output.json ? stderr : stdout;
    struct case_result *result = calloc(1, sizeof *result);
    strata_json *list = strata_json_array();
    double rest_s = 0;
    strata_status status = result != NULL ? calibrate_rest(rig, options->steps, &rest_s, error)
                                          : strata_fail(error, STRATA_E_NOMEM, ENOMEM,
                                                        "memory for the samples: none "
                                                        "left");
    char size[16];
    fprintf(out,
            "%u groups, %s of states; %u workers, the device computes on %s; all but computing "
            "takes %.3f s a step\n",
            options->groups,
            strata_format_size(12 * GROUP_ELEMS * options->groups, size, sizeof size),
            strata_workers_count(rig->caller.workers),
            options->on_pool ? "them" : "a core of its own", rest_s);
    for (int i = 0; i < CASE_COUNT && status == STRATA_OK; i++) {
        if (options->only != CASE_COUNT && options->only != (uint32_t)i)
            continue;
        status = measure_step_case(result, rig, options, cases[i].compute * rest_s, error);
        if (status != STRATA_OK)
            break;
        print_step_case(out, cases[i].name, result, options->repetitions);
        strata_json_append(list, json_step_case(cases[i].name, result, options->repetitions));
    }
    strata_json_set(document, "setting", json_step_setting(options, rig, rest_s));
    strata_json_set(document, "cases", list);
    free(result);
    return status;
}

static enum bench_exit run_step_bench(const struct step_options *options)
{
    struct step_rig rig;
    strata_error error = {.status = STRATA_OK};
    struct step_desc desc = {.dir = options->dir,
                             .groups = options->groups,
                             .group_elems = GROUP_ELEMS,
                             .on_pool = options->on_pool,
                             .trace = options->trace != NULL,
                             .max_steps =
                                 CASE_COUNT * (3 + options->steps * options->repetitions)};
    strata_json *document = strata_bench_document("step");
    strata_status status = strata_bench_step_open(&rig, &desc, &error);
    if (status == STRATA_OK)
        status = run_cases(&rig, options, document, &error);
    if (status == STRATA_OK && options->trace != NULL)
        status = strata_engine_trace(rig.ways[STEP_OVERLAPPED].engine, options->trace, &error);
    strata_bench_step_close(&rig);
    if (status == STRATA_OK)
        return strata_bench_finish(&options->output, document);
    strata_json_free(document);
    return strata_bench_fail("step", &error);
}

#define FIELD(member) offsetof(struct step_options, member)

static const struct choice case_choices[] = {
    {"all", CASE_COUNT}, {"nvme", 0}, {"balanced", 1}, {"compute", 2}, {0}};

static const struct option_row rows[] = {
    VALUE("store", OPTION_TEXT, "DIR", dir, "where the stores are made, and removed (.)"),
    CHOICE("case", "all|nvme|balanced|compute", case_choices, only,
           "what bounds the step (all)"),
    RANGE("groups", OPTION_COUNT, "N", groups, 2, 10001, "of 1 Mi parameters each (64)"),
    RANGE("steps", OPTION_COUNT, "N", steps, 3, BENCH_MAX_SAMPLES + 1,
          "of a sample; the first and the last do not count (6)"),
    REPETITIONS_ROW("of each way (5)"),
    FLAG("pool", on_pool, "the device computes on the workers, not on a core of its own"),
    VALUE("trace", OPTION_TEXT, "FILE", trace,
          "the overlapped way's steps as a Chrome trace (none)"),
    OUTPUT_ROWS,
};

static const struct command_line line = COMMAND_LINE("step", NULL);

enum bench_exit strata_bench_step(int argc, char **argv)
{
    struct step_options options = {.dir = ".",
                                   .only = CASE_COUNT,
                                   .groups = DEFAULT_GROUPS,
                                   .steps = DEFAULT_STEPS,
                                   .repetitions = DEFAULT_REPETITIONS};
    enum bench_exit result;
    if (!strata_bench_options(&result, &line, &options, argc, argv))
        return result;
    return run_step_bench(&options);
}
