#ifndef STRATA_TRAIN_OPTIONS_H
#define STRATA_TRAIN_OPTIONS_H

/*
 * The command line of offload-train, and the exit codes it answers with.
 *
 * The options and their help stand in one table (train/command_line.h).
 *
 *     struct options options;
 *     strata_error error = {0};
 *     if (strata_options_parse(&options, argc, argv, &error) != STRATA_OK) ...
 *
 * Thread: one at a time; getopt keeps its place in globals.
 */

#include <stdio.h>

#include "strata/engine.h"
#include "train/rate.h"

/* The exit codes that a shell sees. A run ended by signal n has 128 + n. */
enum exit_code {
    EXIT_DONE = 0,
    /* A file's content, a budget, a store in use, I/O, a loss that is not finite. */
    EXIT_FAILED = 1,
    /* The command line alone is wrong: unknown name, value out of range. */
    EXIT_USAGE = 2,
    /* Something on the command line does not exist: file, directory, device, io_uring. */
    EXIT_ABSENT = 3,
    /* A drive did not answer within --deadline. */
    EXIT_LATE = 5
};

#define OPTIONS_MAX_STORE_DIRS 16

/* auto: a GPU if this build has CUDA and one answers, else the host device. */
enum device_choice { DEVICE_AUTO = 0, DEVICE_HOST, DEVICE_CUDA };

/* No step was given; no run has so many steps. */
#define OPTIONS_LAST_COMMIT UINT64_MAX

/* The command for a store, instead of training; store_dirs are its directories. */
enum store_command { STORE_NONE = 0, STORE_LIST, STORE_SCRUB, STORE_DROP };

/* Borrows the text of argv for its whole life. Do not copy the struct: store_dirs point into
 * it. */
struct options {
    const char *data;
    const char *model;
    enum device_choice device;
    uint32_t threads; /* 0: the library's default, also for every size below */
    uint64_t device_bytes;
    uint64_t host_bytes;
    uint64_t nvme_bytes;
    const char *store_dirs[OPTIONS_MAX_STORE_DIRS];
    uint32_t store_dir_count;     /* 0: no store                                           */
    uint32_t durability_word;     /* as given: 0: not given, else                          */
    strata_durability durability; /* resolved: power with a store, unless it was given */
    uint32_t commit_every;        /* 0: auto; on resume what the store has                    */
    uint32_t keep;
    uint32_t keep_every;
    uint32_t deadline_s;
    bool resume;
    uint64_t at; /* a step, or OPTIONS_LAST_COMMIT                                          */
    strata_io_backend io;
    uint32_t allow; /* STRATA_ALLOW_... bits                                                */
    strata_tier params;
    strata_tier grads;
    strata_tier states;
    strata_tier stash;
    strata_clip_mode clip_mode;
    uint32_t tile_elems;
    uint32_t vocab_slices;
    bool no_overlap;
    uint32_t seq;
    uint32_t batch;
    uint32_t micro_batch; /* resolved: batch unless it was given                            */
    uint64_t seed;
    struct rate rate; /* its steps are the run's                                            */
    strata_adam_params adam;
    double clip;
    strata_dtype compute_dtype;
    double loss_scale; /* 0: dynamic with fp16, none with others                            */
    strata_dtype states_dtype;
    const char *log;
    const char *trace;
    const char *box; /* a machine's profile, or NULL */
    bool hash_state;
    bool dry_run;
    enum store_command command;
    bool json;
    const char *document; /* the file that the JSON document goes to, or NULL */
    bool quiet;
    bool help;    /* print the help and exit; nothing else was checked */
    bool version; /* likewise                                          */
    char store_text[4096];
};

/*
 * Fill out from the defaults and the command line, and check everything that the command line
 * alone can show.
 *
 * STRATA_E_INVALID:     an unknown option, a value that cannot be meant, options that exclude
 *                       each other.
 */
strata_status strata_options_parse(struct options *out, int argc, char **argv,
                                   strata_error *error);

/* Every option with its default. */
void strata_options_help(FILE *out);

/*
 * The exit code of a failure after the command line was accepted. If a value does not agree
 * with a file, the file counts as wrong here: the command line alone was right.
 */
enum exit_code strata_exit_code(const strata_error *error);

#endif
