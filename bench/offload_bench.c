#define _GNU_SOURCE
/*
 * offload-bench: measures what a machine can do for training models that are larger than its
 * device's memory. Each subcommand has a file of its own; this one finds it.
 *
 * Thread: the main thread.
 */

#include <stdio.h>
#include <string.h>

#include "bench/commands.h"

static const struct subcommand {
    const char *name;
    enum bench_exit (*run)(int argc, char **argv);
    const char *help;
} subcommands[] = {
    {"check", strata_bench_check,
     "what this machine and this container allow, and what to change"},
    {"adam", strata_bench_adam,
     "the optimizer's update beside what memory allows, and beside separate passes"},
    {"copy", strata_bench_copy,
     "copies to and from the device, the pager's way beside one bare copy"},
    {"gemm", strata_bench_gemm,
     "matrix products through the worker pool, beside OpenBLAS's threads and updates"},
    {"io", strata_bench_io,
     "the store's reads and writes beside a bare loop with the same requests"},
    {"matrix", strata_bench_matrix,
     "the device's matrix rate, by a large product of the trainer's"},
    {"ops", strata_bench_ops,
     "every operator of a layer on a GPU that may not be there: FLOPs, bytes, expected time"},
    {"plan", strata_bench_plan,
     "what a machine, there or not, would make of a model, and what to buy next"},
    {"probe", strata_bench_probe,
     "this machine as a profile, for plan and offload-train --box"},
    {"run", strata_bench_run, "a run of training, forecast and measured, lane by lane"},
    {"step", strata_bench_step,
     "what overlap is worth: a step beside its ops with no order, and in the naive one"},
};

enum { SUBCOMMAND_COUNT = sizeof subcommands / sizeof subcommands[0] };

static void print_help(FILE *out)
{
    fputs("usage: offload-bench SUBCOMMAND [options]\n\n", out);
    for (int i = 0; i < SUBCOMMAND_COUNT; i++)
        fprintf(out, "  %-8s %s\n", subcommands[i].name, subcommands[i].help);
    fputs("\n  --help, --version; offload-bench SUBCOMMAND --help\n"
          "\nexit codes: 0 done; 1 a check failed; 2 usage; 3 something is absent; 4 below a "
          "threshold that was asked for; 5 a drive did not answer\n",
          out);
}

static void print_names(FILE *out)
{
    for (int i = 0; i < SUBCOMMAND_COUNT; i++)
        fprintf(out, "%s%s", i > 0 ? ", " : "", subcommands[i].name);
}

int main(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : "";
    for (int i = 0; i < SUBCOMMAND_COUNT; i++) {
        if (strcmp(word, subcommands[i].name) == 0)
            return (int)subcommands[i].run(argc - 1, argv + 1);
    }
    if (strcmp(word, "--help") == 0) {
        print_help(stdout);
        return BENCH_DONE;
    }
    if (strcmp(word, "--version") == 0) {
        printf("offload-bench %s\n", strata_version());
        return BENCH_DONE;
    }
    if (*word == '\0')
        fputs("offload-bench: no subcommand: give one of ", stderr);
    else
        fprintf(stderr, "offload-bench: unknown subcommand %.80s: give one of ", word);
    print_names(stderr);
    fputc('\n', stderr);
    return BENCH_USAGE;
}
