#define _GNU_SOURCE
/*
 * The command line of offload-train. See options.h; train/command_line.h has the words of the
 * table. What concerns two options at once stands in check_together().
 *
 * Thread: one at a time.
 */

#include "train/options.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "train/command_line.h"
#include "base/error.h"
#include "train/decoder.h"

/* What the library retains at most. */
#define OPTIONS_MAX_KEEP 16

static const struct choice device_choices[] = {
    {"host", DEVICE_HOST}, {"cuda", DEVICE_CUDA}, {NULL, 0}};
static const struct choice tier_choices[] = {{"auto", STRATA_AUTO},
                                             {"device", STRATA_DEVICE},
                                             {"host", STRATA_HOST},
                                             {"nvme", STRATA_NVME},
                                             {NULL, 0}};
static const struct choice io_choices[] = {
    {"uring", STRATA_IO_URING}, {"threads", STRATA_IO_THREADS}, {NULL, 0}};
static const struct choice allow_choices[] = {{"threads-io", STRATA_ALLOW_THREADS_IO},
                                              {"buffered-io", STRATA_ALLOW_BUFFERED_IO},
                                              {"unpinned", STRATA_ALLOW_UNPINNED},
                                              {"overcommit", STRATA_ALLOW_OVERCOMMIT},
                                              {NULL, 0}};
/* Plus one, because 0 is "not given". */
static const struct choice durability_choices[] = {{"power", STRATA_DURABLE_POWER + 1},
                                                   {"process", STRATA_DURABLE_PROCESS + 1},
                                                   {"none", STRATA_SCRATCH + 1},
                                                   {NULL, 0}};
static const struct choice schedule_choices[] = {
    {"constant", RATE_CONSTANT}, {"linear", RATE_LINEAR}, {"cosine", RATE_COSINE}, {NULL, 0}};
static const struct choice clip_choices[] = {{"auto", STRATA_CLIP_AUTO},
                                             {"deferred", STRATA_CLIP_DEFERRED},
                                             {"speculative", STRATA_CLIP_SPECULATIVE},
                                             {NULL, 0}};
static const struct choice compute_choices[] = {
    {"fp32", STRATA_FP32}, {"bf16", STRATA_BF16}, {"fp16", STRATA_FP16}, {NULL, 0}};
static const struct choice state_choices[] = {
    {"fp32", STRATA_FP32}, {"bf16", STRATA_BF16}, {NULL, 0}};

/* What is done instead of training, by the option's own name. */
static const struct choice command_choices[] = {
    {"list", STORE_LIST}, {"scrub", STORE_SCRUB}, {"drop", STORE_DROP}, {NULL, 0}};

static strata_status take_allow(void *target, const struct option_row *row, const char *text,
                                strata_error *error)
{
    struct options *options = target;
    options->allow = 0;
    for (const char *at = text;; at++) {
        size_t length = strcspn(at, ",");
        const struct choice *choice = strata_choice_find(allow_choices, at, length);
        if (choice == NULL)
            return strata_option_refuse(
                row, text,
                "give threads-io, buffered-io, unpinned or overcommit, separated by commas",
                error);
        options->allow |= choice->value;
        at += length;
        if (*at == '\0')
            return STRATA_OK;
    }
}

static strata_status set_dirs(struct options *options, const struct option_row *row,
                              const char *text, strata_error *error)
{
    if (strlen(text) >= sizeof options->store_text)
        return strata_option_refuse(row, text,
                                    "too long: give at most 4095 bytes of directories", error);
    strcpy(options->store_text, text);
    options->store_dir_count = 0;
    for (char *at = options->store_text;; at++) {
        char *dir = at;
        at += strcspn(at, ",");
        bool last = *at == '\0';
        *at = '\0';
        if (*dir == '\0')
            return strata_option_refuse(
                row, text, "an empty name: give directories separated by commas", error);
        if (options->store_dir_count == OPTIONS_MAX_STORE_DIRS)
            return strata_option_refuse(row, text, "too many: give at most 16 directories",
                                        error);
        for (uint32_t i = 0; i < options->store_dir_count; i++) {
            if (strcmp(options->store_dirs[i], dir) == 0)
                return strata_option_refuse(row, text,
                                            "a directory twice: give each drive's once", error);
        }
        options->store_dirs[options->store_dir_count++] = dir;
        if (last)
            return STRATA_OK;
    }
}

/* A store to train with, or one that something else is done with. */
static strata_status take_store(void *target, const struct option_row *row, const char *text,
                                strata_error *error)
{
    struct options *options = target;
    const struct choice *command =
        strata_choice_find(command_choices, row->name, strlen(row->name));
    if (options->command != STORE_NONE || (command != NULL && options->store_dir_count > 0))
        return strata_option_refuse(
            row, text, "one of --store, --list, --scrub and --drop at a time", error);
    if (command != NULL)
        options->command = (enum store_command)command->value;
    return set_dirs(options, row, text, error);
}

#define FIELD(member) offsetof(struct options, member)
#define TWO_TO_31     2147483648.0
/* The optimizer computes in fp32, where larger numbers are infinite. */
#define FP32_BOUND 3.4e38

static const struct option_row rows[] = {
    SECTION("what to train"),
    VALUE("data", OPTION_TEXT, "FILE", data,
          "any file (bytes are tokens) or a token shard; required"),
    VALUE("model", OPTION_TEXT, "NAME|FILE|DIR", model,
          "a name, a config.json or a folder with one (llama-125m)"),
    CHOICE("compute-dtype", "fp32|bf16|fp16", compute_choices, compute_dtype,
           "weights and gradients between uses (bf16)"),
    RANGE_OR("dynamic", "loss-scale", OPTION_NUMBER, "dynamic|X", loss_scale, 1e-30, 1e30,
             "with fp16: the loss is multiplied with it (dynamic)"),
    CHOICE("states-dtype", "fp32|bf16", state_choices, states_dtype,
           "moments; bf16: 8 bytes of states a parameter, not 12 (fp32)"),
    RANGE("vocab-slices", OPTION_COUNT, "N", vocab_slices, 1, 1048576,
          "cut embedding and head by rows (at most 16 Mi elements each)"),
    RANGE("seed", OPTION_LONG, "N", seed, 0, INFINITY, "of the initial weights (0)"),

    SECTION("the machine"),
    CHOICE("device", "host|cuda", device_choices, device,
           "made of RAM, or a GPU (cuda if one answers)"),
    RANGE("threads", OPTION_COUNT, "N", threads, 1, 4097,
          "workers (one per usable core, two fewer with a GPU)"),
    VALUE("device-mem", OPTION_SIZE, "SIZE", device_bytes,
          "hard limit of the device (from what is free; see --dry-run)"),
    VALUE("host-mem", OPTION_SIZE, "SIZE", host_bytes,
          "hard limit of host RAM (from what is free; see --dry-run)"),
    VALUE("nvme-mem", OPTION_SIZE, "SIZE", nvme_bytes,
          "hard limit of the store (9/10 of what is free; all it has)"),
    OWN("store", "DIR[,DIR...]", take_store,
        "directories of the NVMe tier, one per drive (no such tier)"),
    CHOICE("io", "uring|threads", io_choices, io, "how the store is read and written (uring)"),
    OWN("allow", "LIST", take_allow,
        "accept: threads-io, buffered-io, unpinned, overcommit (none)"),

    SECTION("where things rest"),
    CHOICE("params", "auto|device|host|nvme", tier_choices, params,
           "weights (auto: the fastest tier with room)"),
    CHOICE("grads", "auto|device|host|nvme", tier_choices, grads, "gradients (auto)"),
    CHOICE("states", "auto|device|host|nvme", tier_choices, states, "optimizer states (auto)"),
    CHOICE("stash", "auto|device|host|nvme", tier_choices, stash,
           "activations between forward and backward (auto)"),
    RANGE("tile", OPTION_COUNT, "ELEMS", tile_elems, STRATA_BLOCK_ELEMS, 1073741825.0,
          "unit of paging, a multiple of 16384 (from the model's size)"),
    FLAG("no-overlap", no_overlap, "nothing ahead of its use; the same bits"),

    SECTION("what survives"),
    CHOICE("durability", "power|process|none", durability_choices, durability_word,
           "what a commit outlives: loss of power, the process (power)"),
    RANGE_OR("auto", "commit-every", OPTION_COUNT, "auto|K", commit_every, 1, TWO_TO_31,
             "steps between commits (auto: 1 or 10, kept by --resume)"),
    RANGE("keep", OPTION_COUNT, "N", keep, 0, OPTIONS_MAX_KEEP + 1,
          "commits that stay besides the last (0)"),
    RANGE("keep-every", OPTION_COUNT, "M", keep_every, 1, TWO_TO_31,
          "those whose step is a multiple of M (1000)"),
    RANGE("deadline", OPTION_COUNT, "SECONDS", deadline_s, 1, 86401,
          "a silent drive ends a run or a scrub after that (120)"),
    FLAG("resume", resume, "go on from the last commit; without one, from step 0"),
    RANGE("at", OPTION_LONG, "STEP", at, 0, TWO_TO_31,
          "with --resume: from that commit; gives up later ones"),

    SECTION("a store without training"),
    OWN("list", "DIR[,DIR...]", take_store, "the commits it holds, and of what run"),
    OWN("scrub", "DIR[,DIR...]", take_store, "verify every tile of its last commit"),
    OWN("drop", "DIR[,DIR...]", take_store, "with --at STEP: give up that retained commit"),

    SECTION("the run"),
    RANGE("steps", OPTION_LONG, "N", rate.steps, 1, TWO_TO_31,
          "optimizer steps in total, resumed ones included (100)"),
    RANGE("seq", OPTION_COUNT, "N", seq, 1, TWO_TO_31, "tokens of a sequence (256)"),
    RANGE("batch", OPTION_COUNT, "N", batch, 1, TWO_TO_31, "sequences of a step (8)"),
    RANGE("micro-batch", OPTION_COUNT, "N", micro_batch, 1, TWO_TO_31,
          "sequences at a time, divides the batch (the batch)"),

    SECTION("the optimizer, AdamW"),
    RANGE("lr", OPTION_NUMBER, "X", rate.peak, 0, FP32_BOUND, "learning rate (3e-4)"),
    CHOICE("lr-schedule", "constant|linear|cosine", schedule_choices, rate.schedule,
           "after the warm-up (constant)"),
    RANGE("lr-min", OPTION_NUMBER, "X", rate.least, 0, FP32_BOUND,
          "linear and cosine: rate of the last step (0)"),
    RANGE("warmup", OPTION_LONG, "N", rate.warmup, 0, TWO_TO_31,
          "steps in which the rate rises from lr/N to lr (0)"),
    RANGE("beta1", OPTION_NUMBER, "X", adam.beta1, 0, 1, "of the first moment (0.9)"),
    RANGE("beta2", OPTION_NUMBER, "X", adam.beta2, 0, 1, "of the second moment (0.95)"),
    RANGE("eps", OPTION_NUMBER, "X", adam.eps, 0, FP32_BOUND, "added to the root (1e-8)"),
    RANGE("weight-decay", OPTION_NUMBER, "X", adam.weight_decay, 0, FP32_BOUND,
          "of matrices and embeddings, not of norms (0.1)"),
    RANGE("clip", OPTION_NUMBER, "X", clip, 0, FP32_BOUND,
          "largest global gradient norm, 0: off (1)"),
    CHOICE("clip-mode", "auto|deferred|speculative", clip_choices, clip_mode,
           "update after the norm, or ahead of it and redo (auto)"),

    SECTION("what comes out"),
    VALUE("log", OPTION_TEXT, "FILE.jsonl", log,
          "one line of JSON a step; replaced, or continued by --resume"),
    VALUE("box", OPTION_TEXT, "FILE.json", box,
          "a machine by offload-bench probe: the plan tells the step"),
    VALUE("trace", OPTION_TEXT, "FILE.json", trace,
          "what ran when, as a Chrome trace; written at the end"),
    FLAG("hash-state", hash_state, "the log's last line carries a hash of weights and moments"),
    FLAG("dry-run", dry_run, "print the plan and stop"),
    FLAG("json", json, "one JSON document on stdout, tables on stderr"),
    VALUE("o", OPTION_TEXT, "FILE", document, "write the JSON document to a file"),
    FLAG("quiet", quiet, "print errors only, and what --json asks for"),
    LEAVE("help", help, "this text"),
    LEAVE("version", version, "the version"),
};

static const struct command_line line = {
    .head = "usage: offload-train --data FILE [options]\n"
            "Train a transformer that is larger than the device's memory.\n"
            "Sizes take K, M, G, T (powers of 1024). Defaults are in parentheses.\n",
    .tail = "\nexit codes: 0 done; 1 failed; 2 usage; 3 something is absent; 5 deadline; "
            "128 + n after signal n\n",
    .rows = rows,
    .row_count = sizeof rows / sizeof rows[0],
};

/* For what concerns two options at once. */
static strata_status bad(strata_error *error, const char *name, const char *text,
                         const char *why)
{
    return strata_fail(error, STRATA_E_INVALID, 0, "--%s %.80s: %s", name, text, why);
}

static strata_status check_homes(const struct options *options, strata_error *error)
{
    const struct {
        const char *name;
        strata_tier tier;
    } homes[] = {
        {"params", options->params}, {"grads", options->grads}, {"states", options->states}};
    for (size_t i = 0; i < sizeof homes / sizeof homes[0]; i++) {
        if (homes[i].tier == STRATA_NVME && options->store_dir_count == 0)
            return bad(error, homes[i].name, "nvme", "there is no such tier: give --store DIR");
    }
    /* A state in the device is updated there, and reads and writes nothing elsewhere. */
    if (options->states == STRATA_DEVICE &&
        (options->params > STRATA_DEVICE || options->grads > STRATA_DEVICE))
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "--states device: wants weights and gradients there too: leave "
                           "--params and --grads at auto or device");
    if (options->nvme_bytes > 0 && options->store_dir_count == 0)
        return strata_fail(
            error, STRATA_E_INVALID, 0,
            "--nvme-mem: a limit for a tier that is not there: give --store DIR");
    return STRATA_OK;
}

/* What asks for commits, where there will be none. */
static strata_status check_not_durable(const struct options *options, strata_error *error)
{
    const char *mend = options->store_dir_count > 0 ? "leave out --durability none"
                                                    : "give --store DIR, where they go";
    const struct {
        const char *name;
        bool given;
    } commits[] = {{"commit-every", options->commit_every > 0},
                   {"keep", options->keep > 0},
                   {"at", options->at != OPTIONS_LAST_COMMIT},
                   {"resume", options->resume && options->store_dir_count > 0}};
    for (size_t i = 0; i < sizeof commits / sizeof commits[0]; i++) {
        if (commits[i].given)
            return strata_fail(error, STRATA_E_INVALID, 0,
                               "--%s: this run makes and reads no commits: %s", commits[i].name,
                               mend);
    }
    return STRATA_OK;
}

static strata_status check_durability(struct options *options, strata_error *error)
{
    bool store = options->store_dir_count > 0;
    options->durability = store ? STRATA_DURABLE_POWER : STRATA_SCRATCH;
    if (options->durability_word > 0)
        options->durability = (strata_durability)(options->durability_word - 1);
    if (options->at != OPTIONS_LAST_COMMIT && !options->resume)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "--at %llu: says where to resume: give --resume as well",
                           (unsigned long long)options->at);
    if (options->durability == STRATA_SCRATCH)
        return check_not_durable(options, error);
    if (!store)
        return bad(error, "durability",
                   options->durability == STRATA_DURABLE_POWER ? "power" : "process",
                   "there is no place for commits: give --store DIR");
    return STRATA_OK;
}

/* Nothing is trained: only the directories count, and which commit. */
static strata_status check_command(const struct options *options, strata_error *error)
{
    if (options->command == STORE_DROP && options->at == OPTIONS_LAST_COMMIT)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "--drop: which commit? give --at STEP, one that --list names");
    if (options->command != STORE_DROP && options->at != OPTIONS_LAST_COMMIT)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "--at %llu: goes with --resume or --drop: leave it out",
                           (unsigned long long)options->at);
    if (options->data != NULL || options->resume)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "--list, --scrub and --drop train nothing: leave out --%s",
                           options->data != NULL ? "data" : "resume");
    return STRATA_OK;
}

static strata_status check_together(struct options *options, strata_error *error)
{
    if (options->command != STORE_NONE)
        return check_command(options, error);
    if (options->data == NULL)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "no data to train on: give --data FILE, or see --help");
    if (options->tile_elems % STRATA_BLOCK_ELEMS != 0)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "--tile %u: not a multiple of %u: give one, such as 262144",
                           options->tile_elems, STRATA_BLOCK_ELEMS);
    if (options->loss_scale != 0 && options->compute_dtype != STRATA_FP16)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "--loss-scale %g: is for --compute-dtype fp16: leave it out",
                           options->loss_scale);
    if (options->micro_batch == 0)
        options->micro_batch = options->batch;
    if (options->batch % options->micro_batch != 0)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "--micro-batch %u: does not divide the batch of %u: give a divisor",
                           options->micro_batch, options->batch);
    /* So that token numbers of a step fit 31 bits, and those of a run 63. */
    if ((uint64_t)options->batch * options->seq >= (1u << 31))
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "--batch %u --seq %u: 2^31 tokens a step or more: give less",
                           options->batch, options->seq);
    if (options->rate.schedule != RATE_CONSTANT && options->rate.least > options->rate.peak)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "--lr-min %g: above the rate of %g: give at most that",
                           options->rate.least, options->rate.peak);
    STRATA_TRY(strata_decoder_config_check(options->model, error));
    STRATA_TRY(check_homes(options, error));
    return check_durability(options, error);
}

static void fill_defaults(struct options *options)
{
    *options = (struct options){
        .model = "llama-125m",
        .seq = 256,
        .batch = 8,
        .rate = {.schedule = RATE_CONSTANT, .peak = 3e-4, .steps = 100},
        .adam = strata_adam_defaults(),
        .clip = 1.0,
        .compute_dtype = STRATA_BF16,
        .states_dtype = STRATA_FP32,
        .keep_every = 1000,
        .at = OPTIONS_LAST_COMMIT,
    };
}

strata_status strata_options_parse(struct options *out, int argc, char **argv,
                                   strata_error *error)
{
    fill_defaults(out);
    STRATA_TRY(strata_command_line_parse(&line, out, argc, argv, error));
    return out->help || out->version ? STRATA_OK : check_together(out, error);
}

void strata_options_help(FILE *out)
{
    strata_command_line_help(&line, out);
}

enum exit_code strata_exit_code(const strata_error *error)
{
    switch (error->status) {
    case STRATA_OK:
        return EXIT_DONE;
    case STRATA_E_UNSUPPORTED:
        return EXIT_ABSENT;
    case STRATA_E_TIMEOUT:
        return EXIT_LATE;
    case STRATA_E_IO:
        if (error->native == ENOENT || error->native == ENOTDIR || error->native == ENODEV ||
            error->native == ENXIO)
            return EXIT_ABSENT;
        return EXIT_FAILED;
    default:
        return EXIT_FAILED;
    }
}
