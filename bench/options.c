#define _GNU_SOURCE
/*
 * The command line of a subcommand. See options.h.
 *
 * Thread: one at a time.
 */

#include "bench/options.h"

#include "train/outputs.h"
#include "train/trainer.h"

#include <stdio.h>
#include <string.h>

/* True when --help was given: its row is the one of kind OPTION_LEAVE. */
static bool help_given(const struct command_line *line, const void *target)
{
    for (uint32_t i = 0; i < line->row_count; i++) {
        if (line->rows[i].kind == OPTION_LEAVE)
            return *(const bool *)((const char *)target + line->rows[i].field);
    }
    return false;
}

/* The text of an option; NULL if this subcommand has no such option. */
static const char *text_of(const struct command_line *line, const void *target,
                           const char *name)
{
    for (uint32_t i = 0; i < line->row_count; i++) {
        const struct option_row *row = &line->rows[i];
        if (row->kind == OPTION_TEXT && strcmp(row->name, name) == 0)
            return *(const char *const *)((const char *)target + row->field);
    }
    return NULL;
}

static strata_status check_outputs(const struct command_line *line, const void *target,
                                   strata_error *error)
{
    struct outputs outputs = {.model = text_of(line, target, "model"),
                              .box = text_of(line, target, "box"),
                              .trace = text_of(line, target, "trace"),
                              .document = text_of(line, target, "o")};
    return strata_outputs_check(&outputs, error);
}

strata_status strata_bench_take_gpu(const struct gpu **out, const struct option_row *row,
                                    const char *text, strata_error *error)
{
    *out = strata_gpu_named(text);
    if (*out == NULL)
        return strata_option_refuse(row, text, "no such GPU: give one of " GPU_NAMES, error);
    return STRATA_OK;
}

bool strata_bench_options(enum bench_exit *out, const struct command_line *line, void *target,
                          int argc, char **argv)
{
    strata_error error = {.status = STRATA_OK};
    if (strata_command_line_parse(line, target, argc, argv, &error) != STRATA_OK) {
        strata_bench_fail(argv[0], &error);
        *out = BENCH_USAGE;
        return false;
    }
    *out = BENCH_DONE;
    if (help_given(line, target)) {
        strata_command_line_help(line, stdout);
        return false;
    }
    if (check_outputs(line, target, &error) == STRATA_OK)
        return true;
    *out = strata_bench_fail(argv[0], &error);
    return false;
}

enum bench_exit strata_bench_fail(const char *subcommand, const strata_error *error)
{
    fprintf(stderr, "offload-bench %s: %s\n", subcommand, error->message);
    return (enum bench_exit)strata_exit_code(error);
}

enum bench_exit strata_bench_usage(const char *subcommand, const char *word, const char *why)
{
    fprintf(stderr, "offload-bench %s: %.80s: %s: see --help\n", subcommand, word, why);
    return BENCH_USAGE;
}
