#ifndef STRATA_BENCH_REPORT_H
#define STRATA_BENCH_REPORT_H

/*
 * The results of a subcommand, as lines for people and as one JSON document, and the spread of
 * samples.
 *
 * With --json the document goes to stdout and the lines to stderr; with -o FILE the document
 * also goes to that file.
 *
 * Thread: plain data, one owner.
 */

#include "base/json.h"
#include "strata/plan.h"
#include "strata/status.h"
#include "base/error.h"

/* Exit codes of offload-bench. */
enum bench_exit {
    BENCH_DONE = 0,
    BENCH_FAILED = 1,
    BENCH_USAGE = 2,
    BENCH_ABSENT = 3,
    BENCH_BELOW = 4, /* a result is below the threshold that was asked for */
    BENCH_LATE = 5   /* a drive did not answer */
};

enum finding_level { FINDING_OK, FINDING_WARN, FINDING_FAIL };

struct finding {
    const char *name; /* borrowed, static                                        */
    enum finding_level level;
    char what[160]; /* what was found                                        */
    char mend[200]; /* the command that changes it; empty: nothing to change */
};

struct bench_output {
    bool json;
    const char *file; /* NULL: none; borrowed */
    bool help;        /* instead of a run     */
};

/* The spread of several samples. */
struct bench_spread {
    double median;
    double least;
    double most;
};

/* The most samples of a spread. */
#define BENCH_MAX_SAMPLES 99u
struct bench_spread strata_bench_spread(const double *values, uint32_t count);
/* An object with "median", "min" and "max". */
void strata_bench_set_spread(strata_json *object, const char *key,
                             const struct bench_spread *spread);

/* Set level, what and mend, with the format of printf. mend may be "". */
void strata_bench_find(struct finding *out, enum finding_level level, const char *mend,
                       const char *format, ...) STRATA_PRINTF(4, 5);

/* A document with the beginning that all share: program, version and subcommand. The caller
 * frees it. */
strata_json *strata_bench_document(const char *subcommand);

/* The cost of a step, forecast or measured: step_s, exposed_s, lanes and waits. */
void strata_bench_set_step(strata_json *object, const strata_forecast *step);

/* Seconds of the monotonic clock; of CPU time of the calling thread; and of the whole
 * process. */
double strata_bench_now_s(void);
double strata_bench_thread_cpu_s(void);
double strata_bench_process_cpu_s(void);

/*
 * Write a document to the places in output, which may be none. False: it could not be written,
 * or was NULL for lack of memory; stderr says so.
 */
bool strata_bench_write(const struct bench_output *output, const strata_json *document);
/* The same at a subcommand's end: frees the document; BENCH_DONE or BENCH_FAILED. */
enum bench_exit strata_bench_finish(const struct bench_output *output, strata_json *document);

/*
 * Write the lines and the document. Returns BENCH_DONE; or BENCH_FAILED if a finding is FAIL
 * or if the document could not be written, which stderr says.
 */
enum bench_exit strata_bench_report(const struct bench_output *output, const char *subcommand,
                                    const struct finding *findings, uint32_t count);

#endif
