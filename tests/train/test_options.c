#define _GNU_SOURCE
/*
 * The command line: what is accepted, what it means, and that everything else is refused with a
 * line that names it.
 */

#include "train/options.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_WORDS 64

static struct options options;
static strata_error error;

/* Parse a command line of words separated by single spaces, after "--data text". */
static strata_status parse_words(const char *line, bool with_data)
{
    static char text[8192];
    char *words[MAX_WORDS] = {(char *)"offload-train"};
    int count = 1;
    if (with_data) {
        words[count++] = (char *)"--data";
        words[count++] = (char *)"text";
    }
    cr_assert_lt(strlen(line), sizeof text);
    strcpy(text, line);
    for (char *word = strtok(text, " "); word != NULL && count < MAX_WORDS - 1;
         word = strtok(NULL, " "))
        words[count++] = word;
    error = (strata_error){0};
    return strata_options_parse(&options, count, words, &error);
}

static void accept(const char *line)
{
    cr_assert_eq(parse_words(line, true), STRATA_OK, "%s: %s", line, error.message);
}

static void refuse(const char *line, const char *words)
{
    cr_assert_eq(parse_words(line, true), STRATA_E_INVALID, "%s", line);
    cr_assert_neq(strstr(error.message, words), NULL, "'%s' lacks '%s'", error.message, words);
    cr_assert_null(strchr(error.message, '\n'));
}

Test(options, defaults_are_those_of_the_documentation)
{
    accept("");
    cr_assert_str_eq(options.data, "text");
    cr_assert_eq(options.rate.steps, 100);
    cr_assert_eq(options.seq, 256);
    cr_assert_eq(options.batch, 8);
    cr_assert_eq(options.micro_batch, 8);
    cr_assert_eq(options.seed, 0);
    cr_assert_eq(options.rate.peak, 3e-4);
    cr_assert_eq(options.rate.schedule, RATE_CONSTANT);
    cr_assert_eq(options.rate.warmup, 0);
    cr_assert_eq(options.adam.beta1, 0.9);
    cr_assert_eq(options.adam.beta2, 0.95);
    cr_assert_eq(options.adam.eps, 1e-8);
    cr_assert_eq(options.adam.weight_decay, 0.1);
    cr_assert_eq(options.clip, 1.0);
    cr_assert_eq(options.compute_dtype, STRATA_BF16);
    cr_assert_eq(options.params, STRATA_AUTO);
    cr_assert_eq(options.io, STRATA_IO_URING);
    cr_assert_eq(options.store_dir_count, 0);
    cr_assert_eq(options.device_bytes, 0);
    cr_assert_eq(options.durability, STRATA_SCRATCH);
    cr_assert_eq(options.commit_every, 0);
    cr_assert_eq(options.keep, 0);
    cr_assert_eq(options.keep_every, 1000);
    cr_assert_not(options.resume);
    cr_assert_eq(options.at, OPTIONS_LAST_COMMIT);
}

Test(options, with_a_store_a_run_survives_loss_of_power_unless_told_otherwise)
{
    accept("--store d");
    cr_assert_eq(options.durability, STRATA_DURABLE_POWER);
    accept("--store d --durability power");
    cr_assert_eq(options.durability, STRATA_DURABLE_POWER);
    accept("--store d --durability process");
    cr_assert_eq(options.durability, STRATA_DURABLE_PROCESS);
    accept("--store d --durability none");
    cr_assert_eq(options.durability, STRATA_SCRATCH);
    accept("--durability none");
    cr_assert_eq(options.durability, STRATA_SCRATCH);
}

Test(options, every_field_is_filled_from_its_option)
{
    accept("--model m.json --device host --threads 2 --device-mem 16M --host-mem 96M "
           "--nvme-mem 1.5G "
           "--store a,b/c --io threads --allow threads-io,unpinned --params nvme --grads host "
           "--states "
           "nvme --stash device --tile 32768");
    cr_assert_str_eq(options.model, "m.json");
    cr_assert_eq(options.threads, 2);
    cr_assert_eq(options.device_bytes, 16u << 20);
    cr_assert_eq(options.host_bytes, 96u << 20);
    cr_assert_eq(options.nvme_bytes, 3ull << 29);
    cr_assert_eq(options.store_dir_count, 2);
    cr_assert_str_eq(options.store_dirs[0], "a");
    cr_assert_str_eq(options.store_dirs[1], "b/c");
    cr_assert_eq(options.io, STRATA_IO_THREADS);
    cr_assert_eq(options.allow, (uint32_t)(STRATA_ALLOW_THREADS_IO | STRATA_ALLOW_UNPINNED));
    cr_assert_eq(options.params, STRATA_NVME);
    cr_assert_eq(options.grads, STRATA_HOST);
    cr_assert_eq(options.states, STRATA_NVME);
    cr_assert_eq(options.stash, STRATA_DEVICE);
    cr_assert_eq(options.tile_elems, 32768);
    accept("--vocab-slices 3 --no-overlap --steps 80 --seq 128 --batch 4 --micro-batch 2 "
           "--seed 7 --lr 1e-3 "
           "--lr-schedule cosine --lr-min 1e-5 --warmup 10 --beta1 0 --beta2 0.5 --eps 0 "
           "--weight-decay 0");
    cr_assert_eq(options.vocab_slices, 3);
    cr_assert(options.no_overlap);
    cr_assert_eq(options.rate.steps, 80);
    cr_assert_eq(options.seq, 128);
    cr_assert_eq(options.batch, 4);
    cr_assert_eq(options.micro_batch, 2);
    cr_assert_eq(options.seed, 7);
    cr_assert_eq(options.rate.peak, 1e-3);
    cr_assert_eq(options.rate.schedule, RATE_COSINE);
    cr_assert_eq(options.rate.least, 1e-5);
    cr_assert_eq(options.rate.warmup, 10);
    cr_assert_eq(options.adam.beta1, 0.0);
    cr_assert_eq(options.adam.beta2, 0.5);
    cr_assert_eq(options.adam.eps, 0.0);
    cr_assert_eq(options.adam.weight_decay, 0.0);
    accept("--store d --commit-every 7 --keep 3 --keep-every 50 --resume --at 100");
    cr_assert_eq(options.commit_every, 7);
    cr_assert_eq(options.keep, 3);
    cr_assert_eq(options.keep_every, 50);
    cr_assert(options.resume);
    cr_assert_eq(options.at, 100);
    accept("--store d --resume --at 0");
    cr_assert_eq(options.at, 0);
    accept("--store d --commit-every 7 --commit-every auto");
    cr_assert_eq(options.commit_every, 0);
    accept("--clip 0 --clip-mode deferred --compute-dtype fp32 --log l.jsonl --hash-state "
           "--dry-run --json --quiet --states-dtype bf16");
    cr_assert_eq(options.clip, 0.0);
    cr_assert_eq(options.states_dtype, STRATA_BF16);
    accept("--compute-dtype fp16");
    cr_assert_eq(options.loss_scale, 0.0);
    accept("--compute-dtype fp16 --loss-scale 0.5");
    cr_assert_eq(options.compute_dtype, STRATA_FP16);
    cr_assert_eq(options.loss_scale, 0.5);
    accept("--compute-dtype fp16 --loss-scale 0.5 --loss-scale dynamic");
    cr_assert_eq(options.loss_scale, 0.0);
    accept("--clip 0 --clip-mode deferred --compute-dtype fp32 --log l.jsonl --hash-state "
           "--dry-run --json --quiet --states-dtype bf16");
    cr_assert_eq(options.compute_dtype, STRATA_FP32);
    cr_assert_str_eq(options.log, "l.jsonl");
    cr_assert(options.hash_state);
    cr_assert(options.dry_run);
    cr_assert(options.json);
    cr_assert(options.quiet);
}

Test(options, a_value_may_follow_an_equals_sign_and_the_last_one_counts)
{
    accept("--steps=5 --steps 6 --store=a --store=b");
    cr_assert_eq(options.rate.steps, 6);
    cr_assert_eq(options.store_dir_count, 1);
    cr_assert_str_eq(options.store_dirs[0], "b");
}

Test(options, unknown_options_and_arguments_are_refused_by_name)
{
    refuse("--foo", "unknown option --foo");
    refuse("--foo=1", "unknown option --foo=1");
    refuse("-x", "unknown option -x");
    refuse("text2", "unknown argument text2");
    refuse("--steps 5 -- text2", "unknown argument text2");
}

Test(options, options_of_later_versions_are_unknown)
{
    const char *const later[] = {"--save d", "--eval-data f", "--sample x", "--export d"};
    for (size_t i = 0; i < sizeof later / sizeof later[0]; i++)
        refuse(later[i], "unknown option");
    refuse("--clip-mode sometimes", "not a choice");
    refuse("--compute-dtype fp8", "not a choice");
    refuse("--loss-scale 2", "is for --compute-dtype fp16");
    refuse("--loss-scale 0 --compute-dtype fp16", "give dynamic or a number");
    refuse("--states-dtype int8", "not a choice");
}

Test(options, a_deadline_is_from_a_second_to_a_day)
{
    accept("--store d --deadline 1");
    cr_expect_eq(options.deadline_s, 1);
    accept("--store d --deadline 86400");
    cr_expect_eq(options.deadline_s, 86400);
    accept("--store d");
    cr_expect_eq(options.deadline_s, 0, "the engine's default");
    refuse("--store d --deadline 0", "--deadline 0");
    refuse("--store d --deadline 86401", "--deadline 86401");
}

Test(options, names_are_not_shortened)
{
    refuse("--step 5", "did you mean --steps?");
    refuse("--hash", "did you mean --hash-state?");
    refuse("--lr-m=1", "did you mean --lr-min?");
}

Test(options, a_slip_of_the_fingers_is_understood_and_refused)
{
    refuse("--modle=x", "unknown option --modle=x: did you mean --model?");
    refuse("--stpes 5", "did you mean --steps?");
    refuse("--micro-bach 1", "did you mean --micro-batch?");
    refuse("--dtype bf16", "unknown option --dtype: see --help");
}

Test(options, a_missing_value_and_a_surplus_one_are_refused)
{
    refuse("--steps", "--steps: wants a value");
    refuse("--json=yes", "--json=yes: takes no value");
}

Test(options, a_size_without_a_number_is_refused)
{
    refuse("--device-mem M", "--device-mem");
    refuse("--host-mem 12Q", "--host-mem");
    refuse("--host-mem -1", "--host-mem");
    refuse("--device-mem 0", "--device-mem 0");
}

Test(options, numbers_out_of_range_are_refused)
{
    const char *const lines[] = {"--steps 0",
                                 "--steps -1",
                                 "--steps 1e3",
                                 "--steps 2147483648",
                                 "--seq 0",
                                 "--batch 0",
                                 "--micro-batch 0",
                                 "--threads 0",
                                 "--tile 0",
                                 "--tile 16385",
                                 "--vocab-slices 0",
                                 "--seed 18446744073709551616",
                                 "--seed +1",
                                 "--lr nan",
                                 "--lr inf",
                                 "--lr -1",
                                 "--lr 1x",
                                 "--beta1 1",
                                 "--beta2 1.5",
                                 "--eps -1",
                                 "--clip -1",
                                 "--warmup -1",
                                 "--weight-decay 1e39",
                                 "--clip 1e39",
                                 "--io aio",
                                 "--device gpu",
                                 "--params disk",
                                 "--lr-schedule step",
                                 "--allow all",
                                 "--allow ,",
                                 "--durability maybe --store d",
                                 "--commit-every 0 --store d",
                                 "--commit-every often --store d",
                                 "--keep 17 --store d",
                                 "--keep-every 0 --store d",
                                 "--at -1 --resume --store d",
                                 "--store a,",
                                 "--store a,a"};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        char name[32];
        cr_assert_eq(sscanf(lines[i], "%31s", name), 1);
        refuse(lines[i], name);
    }
    accept("--seed 18446744073709551615 --steps 2147483647 --tile 16384");
    cr_assert_eq(options.seed, UINT64_MAX);
}

/* Every range of the table: what is just inside it, and what is just outside. What concerns two
 * options at once is looked at later, so a strange option behind ends the parsing before. */
static const struct {
    const char *name;
    const char *inside[2];
    const char *outside[2];
} ranges[] = {
    {"loss-scale", {"1e-30", "9.99e29"}, {"9e-31", "1e30"}},
    {"vocab-slices", {"1", "1048575"}, {"0", "1048576"}},
    {"seed", {"0", "18446744073709551615"}, {"-1", "18446744073709551616"}},
    {"threads", {"1", "4096"}, {"0", "4097"}},
    {"tile", {"16384", "1073741824"}, {"16383", "1073741825"}},
    {"commit-every", {"1", "2147483647"}, {"0", "2147483648"}},
    {"keep", {"0", "16"}, {"-1", "17"}},
    {"keep-every", {"1", "2147483647"}, {"0", "2147483648"}},
    {"at", {"0", "2147483647"}, {"-1", "2147483648"}},
    {"steps", {"1", "2147483647"}, {"0", "2147483648"}},
    {"seq", {"1", "2147483647"}, {"0", "2147483648"}},
    {"batch", {"1", "2147483647"}, {"0", "2147483648"}},
    {"micro-batch", {"1", "2147483647"}, {"0", "2147483648"}},
    {"warmup", {"0", "2147483647"}, {"-1", "2147483648"}},
    {"lr", {"0", "3.39e38"}, {"-1e-30", "3.4e38"}},
    {"lr-min", {"0", "3.39e38"}, {"-1e-30", "3.4e38"}},
    {"beta1", {"0", "0.9999999"}, {"-1e-30", "1"}},
    {"beta2", {"0", "0.9999999"}, {"-1e-30", "1"}},
    {"eps", {"0", "3.39e38"}, {"-1e-30", "3.4e38"}},
    {"weight-decay", {"0", "3.39e38"}, {"-1e-30", "3.4e38"}},
    {"clip", {"0", "3.39e38"}, {"-1e-30", "3.4e38"}},
    {"device-mem", {"1", "9223372036854775807"}, {"0", "9223372036854775808"}},
    {"host-mem", {"1", "9223372036854775807"}, {"0", "9223372036854775808"}},
    {"nvme-mem", {"1", "9223372036854775807"}, {"0", "9223372036854775808"}},
};

Test(options, every_limit_is_taken_at_its_edge_and_refused_one_past_it)
{
    char line[128], word[64];
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        for (int side = 0; side < 2; side++) {
            snprintf(line, sizeof line, "--%s %s --strange", ranges[i].name,
                     ranges[i].inside[side]);
            refuse(line, "unknown option --strange");
            snprintf(line, sizeof line, "--%s %s --strange", ranges[i].name,
                     ranges[i].outside[side]);
            snprintf(word, sizeof word, "--%s", ranges[i].name);
            refuse(line, word);
            cr_expect_not_null(strstr(error.message, ranges[i].outside[side]), "%s",
                               error.message);
        }
    }
}

/* The help has a line for each option with a number or a size; none may lack its case above. */
Test(options, every_option_with_a_range_has_a_case)
{
    char *text = NULL;
    size_t bytes = 0;
    uint32_t found = 0;
    FILE *out = open_memstream(&text, &bytes);
    strata_options_help(out);
    fclose(out);
    for (char *line = text; line != NULL; line = strchr(line + 1, '\n')) {
        char name[40], value[40];
        if (sscanf(line, "\n  --%39s %39s", name, value) != 2 ||
            (strcmp(value, "N") != 0 && strcmp(value, "M") != 0 && strcmp(value, "X") != 0 &&
             strcmp(value, "SIZE") != 0 && strcmp(value, "STEP") != 0 &&
             strcmp(value, "ELEMS") != 0 && strcmp(value, "auto|K") != 0 &&
             strcmp(value, "dynamic|X") != 0))
            continue;
        size_t i = 0;
        while (i < sizeof ranges / sizeof ranges[0] && strcmp(ranges[i].name, name) != 0)
            i++;
        cr_expect_lt(i, sizeof ranges / sizeof ranges[0], "--%s has no case", name);
        found++;
    }
    cr_expect_eq(found, sizeof ranges / sizeof ranges[0]);
    free(text);
}

Test(options, the_list_of_directories_ends_at_sixteen_and_at_4095_bytes)
{
    char list[8192] = "--store ";
    for (int i = 0; i < OPTIONS_MAX_STORE_DIRS; i++)
        sprintf(list + strlen(list), "%sd%d", i > 0 ? "," : "", i);
    accept(list);
    cr_expect_eq(options.store_dir_count, OPTIONS_MAX_STORE_DIRS);
    strcat(list, ",more");
    refuse(list, "too many: give at most 16 directories");
    memset(list + 8, 'x', 4095);
    list[8 + 4095] = '\0';
    accept(list);
    strcat(list, "x");
    refuse(list, "at most 4095 bytes of directories");
}

Test(options, options_that_do_not_go_together_are_refused)
{
    refuse("--batch 6 --micro-batch 4", "does not divide");
    refuse("--params nvme", "give --store");
    refuse("--grads nvme", "give --store");
    refuse("--states nvme", "give --store");
    refuse("--nvme-mem 1G", "give --store");
    refuse("--states device --params host", "--states device");
    refuse("--states device --grads nvme --store d", "--states device");
    accept("--states device --params device");
    refuse("--batch 65536 --seq 32768", "2^31 tokens");
    refuse("--lr 1e-4 --lr-schedule linear --lr-min 1e-3", "above the rate");
    accept("--lr 1e-4 --lr-min 1e-3");
}

Test(options, commits_without_a_place_for_them_are_refused)
{
    refuse("--durability power", "--durability power: there is no place for commits: give");
    refuse("--durability process", "--durability process: there is no place");
    refuse("--commit-every 2", "--commit-every: this run makes and reads no commits: give");
    refuse("--keep 2", "--keep: this run makes and reads no commits: give --store");
    refuse("--at 2 --resume", "--at: this run makes and reads no commits: give --store");
    refuse("--commit-every 2 --store d --durability none", "leave out --durability none");
    refuse("--resume --store d --durability none", "--resume: this run makes and reads no");
    refuse("--at 2 --store d", "--at 2: says where to resume: give --resume");
    /* Nothing is durable, and there is nothing to go on from: it begins at step 0. */
    accept("--resume");
    accept("--commit-every auto --durability none --store d");
}

Test(options, data_is_required)
{
    cr_assert_eq(parse_words("--steps 5", false), STRATA_E_INVALID);
    cr_assert_neq(strstr(error.message, "--data"), NULL);
}

Test(options, either_device_can_be_asked_for)
{
    accept("");
    cr_assert_eq(options.device, DEVICE_AUTO);
    accept("--device host");
    cr_assert_eq(options.device, DEVICE_HOST);
    accept("--device cuda");
    cr_assert_eq(options.device, DEVICE_CUDA);
}

Test(options, help_and_version_need_nothing_else)
{
    cr_assert_eq(parse_words("--help", false), STRATA_OK);
    cr_assert(options.help);
    cr_assert_eq(parse_words("--version --foo", false), STRATA_OK);
    cr_assert(options.version);
    cr_assert_eq(parse_words("--foo --help", false), STRATA_E_INVALID);
}

Test(options, help_names_every_option_in_100_columns)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    strata_options_help(out);
    fclose(out);
    const char *const names[] = {
        "data",         "model",  "device",    "threads",       "device-mem",   "host-mem",
        "nvme-mem",     "store",  "io",        "allow",         "params",       "grads",
        "states",       "stash",  "tile",      "vocab-slices",  "no-overlap",   "steps",
        "seq",          "batch",  "seed",      "micro-batch",   "lr",           "lr-min",
        "lr-schedule",  "warmup", "beta1",     "beta2",         "eps",          "clip",
        "weight-decay", "log",    "clip-mode", "compute-dtype", "hash-state",   "dry-run",
        "json",         "quiet",  "help",      "version",       "durability",   "keep",
        "commit-every", "resume", "at",        "keep-every",    "states-dtype", "loss-scale"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char pattern[40];
        snprintf(pattern, sizeof pattern, "\n  --%s ", names[i]);
        cr_assert_neq(strstr(text, pattern), NULL, "--%s is not in the help", names[i]);
    }
    for (const char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1)
        cr_assert_leq(strcspn(line, "\n"), 100, "%.*s", 110, line);
    free(text);
}

Test(options, exit_codes_follow_what_went_wrong)
{
    const struct {
        strata_error error;
        enum exit_code code;
    } cases[] = {
        {{.status = STRATA_OK}, EXIT_DONE},
        {{.status = STRATA_E_INVALID}, EXIT_FAILED},
        {{.status = STRATA_E_NOMEM}, EXIT_FAILED},
        {{.status = STRATA_E_STATE}, EXIT_FAILED},
        {{.status = STRATA_E_CORRUPT}, EXIT_FAILED},
        {{.status = STRATA_E_NUMERIC}, EXIT_FAILED},
        {{.status = STRATA_E_IO, .native = ENOSPC}, EXIT_FAILED},
        {{.status = STRATA_E_IO, .native = EROFS}, EXIT_FAILED},
        {{.status = STRATA_E_IO, .native = EACCES}, EXIT_FAILED},
        {{.status = STRATA_E_IO, .native = ENOENT}, EXIT_ABSENT},
        {{.status = STRATA_E_IO, .native = ENOTDIR}, EXIT_ABSENT},
        {{.status = STRATA_E_UNSUPPORTED}, EXIT_ABSENT},
        {{.status = STRATA_E_TIMEOUT}, EXIT_LATE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        cr_assert_eq(strata_exit_code(&cases[i].error), cases[i].code, "case %zu", i);
}
