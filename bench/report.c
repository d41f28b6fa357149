#define _GNU_SOURCE
/*
 * What a subcommand found, as text and as JSON. See report.h.
 *
 * Thread: one owner.
 */

#include "bench/report.h"

#include "train/document.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

static const char *const level_names[] = {"OK", "WARN", "FAIL"};

void strata_bench_find(struct finding *out, enum finding_level level, const char *mend,
                       const char *format, ...)
{
    out->level = level;
    snprintf(out->mend, sizeof out->mend, "%s", mend);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(out->what, sizeof out->what, format, arguments);
    va_end(arguments);
}

struct bench_spread strata_bench_spread(const double *values, uint32_t count)
{
    double sorted[BENCH_MAX_SAMPLES];
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = i;
        for (; at > 0 && sorted[at - 1] > values[i]; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = values[i];
    }
    double middle =
        count % 2 == 1 ? sorted[count / 2] : (sorted[count / 2 - 1] + sorted[count / 2]) / 2;
    return (struct bench_spread){
        .median = middle, .least = sorted[0], .most = sorted[count - 1]};
}

void strata_bench_set_spread(strata_json *object, const char *key,
                             const struct bench_spread *spread)
{
    strata_json *one = strata_json_object();
    strata_json_set_number(one, "median", spread->median);
    strata_json_set_number(one, "min", spread->least);
    strata_json_set_number(one, "max", spread->most);
    strata_json_set(object, key, one);
}

static void print_lines(FILE *out, const struct finding *findings, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        fprintf(out, "%-5s %-12s %s\n", level_names[findings[i].level], findings[i].name,
                findings[i].what);
        if (findings[i].mend[0] != '\0')
            fprintf(out, "%-18s -> %s\n", "", findings[i].mend);
    }
}

strata_json *strata_bench_document(const char *subcommand)
{
    strata_json *document = strata_json_object();
    strata_json_set_string(document, "program", "offload-bench");
    strata_json_set_string(document, "version", strata_version());
    strata_json_set_string(document, "subcommand", subcommand);
    return document;
}

void strata_bench_set_step(strata_json *object, const strata_forecast *step)
{
    strata_json_set_number(object, "step_s", step->step_s);
    strata_json_set_number(object, "exposed_s", step->exposed_s);
    strata_json *lanes = strata_json_object();
    for (int lane = 0; lane < STRATA_LANE_COUNT; lane++) {
        strata_json *one = strata_json_object();
        strata_json_set_number(one, "busy_s", step->busy_s[lane]);
        strata_json_set_uint(one, "bytes", step->bytes[lane]);
        strata_json_set(lanes, strata_lane_name((strata_lane)lane), one);
    }
    strata_json_set(object, "lanes", lanes);
    strata_json *waits = strata_json_object();
    for (int stall = 0; stall < STRATA_STALL_COUNT; stall++)
        strata_json_set_number(waits, strata_stall_name((strata_stall)stall),
                               step->stall_s[stall]);
    strata_json_set(object, "waits", waits);
}

/* CPU time too is read from a clock, in nanoseconds: rusage may count in ticks. */
static double seconds_of(clockid_t clock)
{
    struct timespec now = {0};
    (void)clock_gettime(clock, &now); // It fails only for clocks that do not exist.
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

double strata_bench_now_s(void)
{
    return seconds_of(CLOCK_MONOTONIC);
}

double strata_bench_thread_cpu_s(void)
{
    return seconds_of(CLOCK_THREAD_CPUTIME_ID);
}

double strata_bench_process_cpu_s(void)
{
    return seconds_of(CLOCK_PROCESS_CPUTIME_ID);
}

static strata_json *make_findings_document(const char *subcommand,
                                           const struct finding *findings, uint32_t count)
{
    strata_json *document = strata_bench_document(subcommand);
    strata_json *list = strata_json_array();
    for (uint32_t i = 0; i < count; i++) {
        strata_json *one = strata_json_object();
        strata_json_set_string(one, "name", findings[i].name);
        strata_json_set_string(one, "level", level_names[findings[i].level]);
        strata_json_set_string(one, "what", findings[i].what);
        if (findings[i].mend[0] != '\0')
            strata_json_set_string(one, "mend", findings[i].mend);
        strata_json_append(list, one);
    }
    strata_json_set(document, "findings", list);
    return document;
}

bool strata_bench_write(const struct bench_output *output, const strata_json *document)
{
    strata_error error = {.status = STRATA_OK};
    if (strata_document_write(document, output->json, output->file, &error) == STRATA_OK)
        return true;
    fprintf(stderr, "offload-bench: %s\n", error.message);
    return false;
}

enum bench_exit strata_bench_finish(const struct bench_output *output, strata_json *document)
{
    bool good = strata_bench_write(output, document);
    strata_json_free(document);
    return good ? BENCH_DONE : BENCH_FAILED;
}

enum bench_exit strata_bench_report(const struct bench_output *output, const char *subcommand,
                                    const struct finding *findings, uint32_t count)
{
    enum bench_exit result = BENCH_DONE;
    for (uint32_t i = 0; i < count; i++) {
        if (findings[i].level == FINDING_FAIL)
            result = BENCH_FAILED;
    }
    print_lines(output->json ? stderr : stdout, findings, count);
    strata_json *document = make_findings_document(subcommand, findings, count);
    return strata_bench_finish(output, document) == BENCH_DONE ? result : BENCH_FAILED;
}
