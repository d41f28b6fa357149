#ifndef STRATA_BENCH_OPTIONS_H
#define STRATA_BENCH_OPTIONS_H

/*
 * The command line of a subcommand: a table (train/command_line.h) with the rows that all
 * subcommands share.
 *
 * Thread: one at a time.
 */

#include "bench/catalogue.h"
#include "bench/report.h"
#include "train/command_line.h"

/* The options that say where the document goes. For a target with a field `struct bench_output
 * output`. */
#define OUTPUT_ROWS                                                                            \
    FLAG("json", output.json, "one JSON document on stdout, the rest on stderr"),              \
        VALUE("o", OPTION_TEXT, "FILE", output.file, "write the document to a file"),          \
        LEAVE("help", output.help, "this text")

/* The number of samples. For a target with a field `uint32_t repetitions`. */
#define REPETITIONS_ROW(help_)                                                                 \
    RANGE("repetitions", OPTION_COUNT, "N", repetitions, 1, BENCH_MAX_SAMPLES + 1, help_)

/* The command line of a file whose table is called rows. tail_: after the options, or NULL. */
#define COMMAND_LINE(subcommand, tail_)                                                        \
    {                                                                                          \
        .head = "usage: offload-bench " subcommand " [options]\n\n", .tail = tail_,            \
        .rows = rows, .row_count = sizeof rows / sizeof rows[0]                                \
    }

/*
 * Fill target from the command line; argv[0] is the subcommand's own name. False: the program
 * must end with *out, because help was printed or the command line is wrong; stderr says how.
 */
bool strata_bench_options(enum bench_exit *out, const struct command_line *line, void *target,
                          int argc, char **argv);

/* The value of an option that names a GPU of the catalogue. */
strata_status strata_bench_take_gpu(const struct gpu **out, const struct option_row *row,
                                    const char *text, strata_error *error);

/* Print the error on stderr; returns the exit code of offload-train for it. */
enum bench_exit strata_bench_fail(const char *subcommand, const strata_error *error);

/* Print on stderr why a word is wrong, where no row can check it; returns BENCH_USAGE. */
enum bench_exit strata_bench_usage(const char *subcommand, const char *word, const char *why);

#endif
