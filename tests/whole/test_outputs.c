#define _GNU_SOURCE
/*
 * What --log, --trace and -o must not write over, in both programs: the data, the model, a
 * store, a file with other contents, each other; by whatever name, link or path. Each refusal
 * is one line and an exit code, and every file of the workshop has the bytes that it had.
 */

#include "tests/support/program.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <ftw.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RUN                                                                                    \
    "--model config.json --seq 32 --batch 2 --steps 2 --device-mem 16M --host-mem 64M "        \
    "--tile 16384 --io threads --allow buffered-io --quiet "
#define TEXT_RUN "--data text " RUN
/* Any profile that a program reads; it is a document of ours, so only its name protects it. */
#define BOX "{\"program\":\"offload-bench\",\"note\":\"a machine\"}\n"

static struct temp_dir dir;
static struct program_result result;
static uint64_t sum; /* of names and bytes */

static void set_up(void)
{
    strata_workshop_make(&dir);
    cr_assert(chdir(dir.path) == 0);
}

static void tear_down(void)
{
    cr_assert(chdir("/") == 0);
    strata_temp_dir_remove(&dir);
}

TestSuite(outputs, .init = set_up, .fini = tear_down);

/* 64-bit FNV-1a. */
static void add_bytes(const void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        sum = (sum ^ ((const unsigned char *)bytes)[i]) * 0x100000001b3u;
}

/* Entries come in the order of the directory, which stays while nothing is made or removed. */
static int add_file(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    char buffer[65536];
    (void)place;
    add_bytes(path, strlen(path) + 1);
    add_bytes(&info->st_mode, sizeof info->st_mode);
    FILE *file = kind == FTW_F && S_ISREG(info->st_mode) ? fopen(path, "re") : NULL;
    for (size_t got; file != NULL && (got = fread(buffer, 1, sizeof buffer, file)) > 0;)
        add_bytes(buffer, got);
    if (file != NULL)
        fclose(file);
    return 0;
}

/* Of everything in the workshop. */
static uint64_t snapshot(void)
{
    sum = 0xcbf29ce484222325u;
    cr_assert(nftw(".", add_file, 8, FTW_PHYS) == 0);
    return sum;
}

static const char *program(bool bench)
{
    const char *path = bench
                           ? strata_program_path("STRATA_BENCH_PROGRAM", STRATA_BENCH_PROGRAM)
                           : strata_program_path("STRATA_TRAIN_PROGRAM", STRATA_TRAIN_PROGRAM);
    cr_assert_not_null(path, "a program was not built");
    return path;
}

static void expect_refused(bool bench, const char *words, int code, const char *says)
{
    uint64_t before = snapshot();
    strata_program_run(&result, &dir, program(bench), words);
    cr_expect_eq(result.code, code, "exit %d for '%s': %s", result.code, words, result.err);
    cr_expect_not_null(strstr(result.err, says), "'%s': '%s' lacks '%s'", words, result.err,
                       says);
    cr_expect(strchr(result.err, '\n') == result.err + strlen(result.err) - 1,
              "'%s': more than a line: '%s'", words, result.err);
    cr_expect_str_empty(result.out, "'%s': %s", words, result.out);
    cr_expect(snapshot() == before, "'%s' changed something", words);
}

static void run_well(bool bench, const char *words)
{
    strata_program_run(&result, &dir, program(bench), words);
    cr_assert_eq(result.code, 0, "exit %d for '%s': %s", result.code, words, result.err);
}

struct refusal {
    const char *path;
    int code;
    const char *says;
};

/* Each of the options of a run, on each of the paths. */
static void expect_all_refused(const char *run, const struct refusal *refusals, size_t count)
{
    static const char *const options[] = {"--log", "--trace", "-o"};
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < 3; j++) {
            char words[1024];
            snprintf(words, sizeof words, "%s%s %s", run, options[j], refusals[i].path);
            expect_refused(false, words, refusals[i].code, refusals[i].says);
        }
    }
}

#define COUNT(array) (sizeof(array) / sizeof *(array))

Test(outputs, the_data_and_the_model_are_not_written_over)
{
    cr_assert(mkdir("sub", 0700) == 0);
    cr_assert(link("text", "hard") == 0 && symlink("text", "soft") == 0);
    cr_assert(link("config.json", "hard.json") == 0);
    cr_assert(symlink("../config.json", "sub/soft.json") == 0);
    static const struct refusal refusals[] = {
        {"text", 1, "this run reads that file"},
        {"./text", 1, "this run reads that file"},
        {"hard", 1, "this run reads that file"},
        {"soft", 1, "this run reads that file"},
        {"sub/../text", 1, "this run reads that file"},
        {"config.json", 1, "this run reads that file"},
        {"hard.json", 1, "this run reads that file"},
        {"sub/soft.json", 1, "this run reads that file"},
    };
    expect_all_refused(TEXT_RUN "--store store ", refusals, COUNT(refusals));
}

/* Its own kind of content protects nothing that the run reads. */
Test(outputs, data_that_looks_like_a_log_is_not_written_over)
{
    char words[1024];
    strata_workshop_write_text(&dir, "lines.jsonl",
                               WORKSHOP_OLD_LOG WORKSHOP_OLD_LOG WORKSHOP_OLD_LOG);
    snprintf(words, sizeof words, "--data lines.jsonl %s--log ./lines.jsonl", RUN);
    expect_refused(false, words, 1, "this run reads that file");
}

Test(outputs, nothing_in_the_models_folder_is_written)
{
    cr_assert(mkdir("model", 0700) == 0 && symlink("model", "link") == 0);
    cr_assert(rename("config.json", "model/config.json") == 0);
    static const struct refusal refusals[] = {
        {"model/config.json", 1, "it lies in the model's folder"},
        {"model/new", 1, "it lies in the model's folder"},
        {"link/new", 1, "it lies in the model's folder"},
    };
    expect_all_refused("--data text --model model --seq 32 --batch 2 --steps 2 --quiet ",
                       refusals, COUNT(refusals));
}

Test(outputs, a_store_is_not_written_over)
{
    run_well(false, TEXT_RUN "--store store");
    cr_assert(link("store/strata.tiles", "hard") == 0);
    cr_assert(symlink("store/strata.tiles", "soft") == 0 && symlink("store", "link") == 0);
    static const struct refusal refusals[] = {
        {"store/strata.tiles", 1, "a store's files have that name"},
        {"store/../store/strata.tiles.new", 1, "a store's files have that name"},
        {"link/strata.tiles", 1, "a store's files have that name"},
        {"soft", 1, "a store's files have that name"},
        {"hard", 1, "it is a store's file"},
        {"store", 1, "it is a directory"},
    };
    expect_all_refused(TEXT_RUN "--store store --resume ", refusals, COUNT(refusals));
    expect_all_refused(TEXT_RUN, refusals, COUNT(refusals));
    expect_refused(false, "--list store -o store/strata.tiles", 1, "have that name");
    expect_refused(false, "--scrub store -o hard", 1, "it is a store's file");
    expect_refused(false, "--list store -o store", 1, "it is a directory");
    cr_assert(unlink("hard") == 0);
    run_well(false, "--scrub store -o scrub.json");
}

Test(outputs, what_is_not_ours_is_left_alone)
{
    strata_workshop_write_text(&dir, "thesis", "somebody's thesis\n");
    cr_assert(symlink("nowhere", "dangling") == 0);
    static const struct refusal refusals[] = {
        {"thesis", 1, "and is left alone"},
        {"dangling", 1, "symbolic link to what is not there"},
        {"absent/new", 3, "No such file or directory"},
        {"text/new", 3, "Not a directory"},
        {".", 1, "it is a directory"},
    };
    expect_all_refused("--data config.json " RUN "--store store ", refusals, COUNT(refusals));
    expect_refused(false, "--data config.json " RUN "--store store --resume --log thesis", 1,
                   "is not a log of Strata");
    /* A log is no place for a document, nor the other way round. */
    expect_refused(false, TEXT_RUN "-o old.jsonl", 1, "is not a document of Strata");
    expect_refused(false, TEXT_RUN "--trace old.jsonl", 1, "is not a trace of Strata");
}

Test(outputs, two_of_them_do_not_go_to_one_file)
{
    cr_assert(symlink(".", "here") == 0);
    expect_refused(false, TEXT_RUN "--log new --trace ./new", 1, "another output goes there");
    expect_refused(false, TEXT_RUN "--log here/new -o new", 1, "another output goes there");
    expect_refused(false, TEXT_RUN "--trace new -o here/here/new", 1,
                   "another output goes there");
}

Test(outputs, the_programs_own_files_are_replaced)
{
    for (int i = 0; i < 2; i++)
        run_well(false, TEXT_RUN "--log old.jsonl --trace trace.json -o run.json");
    run_well(false, TEXT_RUN "--log /dev/null --trace /dev/null -o /dev/null");
    run_well(false, TEXT_RUN "-o /dev/stdout");
    cr_expect(strncmp(result.out, "{\"program\":\"offload-train\"", 26) == 0, "%s", result.out);
    run_well(true, "plan --model config.json --seq 32 --batch 2 -o run.json");
    run_well(true, "plan --model config.json --seq 32 --batch 2 --trace trace.json");
}

Test(outputs, a_bench_writes_over_nothing_that_it_reads_or_that_is_not_ours)
{
    strata_workshop_write_text(&dir, "box.json", BOX);
    cr_assert(link("box.json", "hard.json") == 0);
#define PLAN "plan --model config.json --seq 32 --batch 2 --box box.json "
    expect_refused(true, PLAN "-o box.json", 1, "this run reads that file");
    expect_refused(true, PLAN "-o hard.json", 1, "this run reads that file");
    expect_refused(true, PLAN "-o config.json", 1, "this run reads that file");
    expect_refused(true, PLAN "--trace config.json", 1, "this run reads that file");
    expect_refused(true, PLAN "-o text", 1, "is not a document of Strata");
    expect_refused(true, PLAN "--trace new -o ./new", 1, "another output goes there");
    expect_refused(true, "check -o text", 1, "is not a document of Strata");
    expect_refused(true, "check -o store", 1, "it is a directory");
    expect_refused(true, "adam -o text", 1, "is not a document of Strata");
    expect_refused(true, "probe --store store -o store/strata.tiles", 1, "have that name");
    expect_refused(true, "io --store store -o text", 1, "is not a document of Strata");
    expect_refused(true, "step --store store --trace text", 1, "is not a trace of Strata");
    expect_refused(true, "run " TEXT_RUN "--steps 3 --store store -o text", 1,
                   "this run reads that file");
    expect_refused(true, "run " TEXT_RUN "--steps 3 --store store -o old.jsonl", 1,
                   "is not a document of Strata");
    expect_refused(true, "run " TEXT_RUN "--steps 3 --store store --box box.json -o hard.json",
                   1, "this run reads that file");
}
