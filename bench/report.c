#define _GNU_SOURCE
/*
 * What a subcommand found, as text and as JSON. See report.h.
 *
 * Thread: one owner.
 */

#include "bench/report.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

/* Also of CPU by the clock, to the nanosecond: rusage may count in ticks. */
static double seconds_of(clockid_t clock)
{
    struct timespec now = {0};
    (void)clock_gettime(clock, &now); // It fails for clocks that do not exist only.
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

static strata_json *make_document(const char *subcommand, const struct finding *findings,
                                  uint32_t count)
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

static bool write_text(const char *path, const char *text)
{
    FILE *out = path != NULL ? fopen(path, "we") : stdout;
    bool good = out != NULL && fprintf(out, "%s\n", text) > 0 && fflush(out) == 0;
    int code = errno;
    if (path != NULL && out != NULL && fclose(out) != 0 && good) {
        code = errno;
        good = false;
    }
    if (!good)
        fprintf(stderr, "offload-bench: write of %s: %s\n",
                path != NULL ? path : "the document to stdout", strerror(code));
    return good;
}

bool strata_bench_write(const struct bench_output *output, const strata_json *document)
{
    if (!output->json && output->file == NULL)
        return true;
    char *text = strata_json_write(document);
    if (text == NULL) {
        fprintf(stderr, "offload-bench: memory for the JSON document: none left\n");
        return false;
    }
    bool good = !output->json || write_text(NULL, text);
    if (output->file != NULL && !write_text(output->file, text))
        good = false;
    free(text);
    return good;
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
    strata_json *document = make_document(subcommand, findings, count);
    if (!strata_bench_write(output, document))
        result = BENCH_FAILED;
    strata_json_free(document);
    return result;
}
