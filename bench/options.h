#ifndef STRATA_BENCH_OPTIONS_H
#define STRATA_BENCH_OPTIONS_H

/*
 * The command line of a subcommand: a table (train/command_line.h), with the rows that all of
 * them have.
 *
 * Thread: one at a time.
 */

#include "bench/catalogue.h"
#include "bench/report.h"
#include "train/command_line.h"

/* Where the document goes. For a target whose struct bench_output is called output. */
#define OUTPUT_ROWS                                                                            \
    FLAG("json", output.json, "one JSON document on stdout, the rest on stderr"),              \
        VALUE("o", OPTION_TEXT, "FILE", output.file, "write the document to a file"),          \
        LEAVE("help", output.help, "this text")

/* How many samples. For a target whose uint32_t is called repetitions. */
#define REPETITIONS_ROW(help_)                                                                 \
    RANGE("repetitions", OPTION_COUNT, "N", repetitions, 1, BENCH_MAX_SAMPLES + 1, help_)

/* The command line of a file whose table is called rows. tail_: after the options, or NULL. */
#define COMMAND_LINE(subcommand, tail_)                                                        \
    {                                                                                          \
        .head = "usage: offload-bench " subcommand " [options]\n\n", .tail = tail_,            \
        .rows = rows, .row_count = sizeof rows / sizeof rows[0]                                \
    }

/*
 * Fill target from the command line; argv[0] is the subcommand's own name. false: the program
 * is to end with *out: help was asked for and printed, or something cannot be meant, which was
 * said on stderr.
 */
bool strata_bench_options(enum bench_exit *out, const struct command_line *line, void *target,
                          int argc, char **argv);

/* The value of an option that names a GPU of the catalogue. */
strata_status strata_bench_take_gpu(const struct gpu **out, const struct option_row *row,
                                    const char *text, strata_error *error);

/* Say on stderr what went wrong; the code that offload-train ends with for such an error. */
enum bench_exit strata_bench_fail(const char *subcommand, const strata_error *error);

/* Say on stderr why a word cannot be meant, where no row could know; BENCH_USAGE. */
enum bench_exit strata_bench_usage(const char *subcommand, const char *word, const char *why);

#endif
