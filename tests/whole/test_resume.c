#define _GNU_SOURCE
/*
 * A run in parts: what is done stays done, the end is that of a run in one piece, and a store
 * that belongs to another run is left as it is.
 *
 * The parts are told apart from the whole by one state hash. Runs that are refused find a store
 * with a commit and a log, and both must come out byte by byte as they went in.
 */

#include "tests/support/workshop.h"

#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COMMON                                                                                 \
    "--data text --model config.json --seq 32 --batch 2 --lr 1e-3 --tile 16384 --hash-state "  \
    "--allow threads-io,buffered-io "
#define RUN       COMMON "--device-mem 16M --host-mem 64M --io threads --store store "
#define IN_DEVICE "--params device --grads device --states device --stash device "
#define IN_HOST   "--params host --grads host --states host --stash host "
#define ON_NVME   "--params nvme --grads host --states nvme --stash host "

/* More than a stopped run gets done, and few enough for a sanitizer. */
#define WHOLE_STEPS 100

TestSuite(resume, .init = make_workshop, .fini = remove_workshop);

/* One line, from the program, that has these words. */
static void refused(const char *words, const char *says)
{
    train(words, 1);
    expect_one_line(says);
}

static void start_over(void)
{
    strata_workshop_remove(&dir, "store/strata.tiles");
    strata_workshop_remove(&dir, "log");
}

/* The hash of an undisturbed run, which commits nothing. */
static void whole(const char *more, unsigned steps, char out[33])
{
    char words[1024];
    snprintf(words, sizeof words, RUN "--durability none --steps %u %s", steps, more);
    train(words, 0);
    printed_hash(out);
}

static uint64_t step_of(const char *line, size_t bytes, bool *out_hash)
{
    strata_json *document = NULL;
    strata_error error = {0};
    uint64_t step = 0;
    cr_assert_eq(strata_json_read_text(&document, line, bytes, &error), STRATA_OK, "%s",
                 error.message);
    cr_assert_eq(strata_json_get_uint(document, "step", &step, &error), STRATA_OK, "%s",
                 error.message);
    *out_hash = strata_json_has(document, "state_hash");
    strata_json_free(document);
    return step;
}

/* The log has steps 1, 2, ... up to this one, once each, and a hash in the last line. */
static void expect_log_up_to(uint64_t steps)
{
    static char text[1 << 20];
    bool hash = false;
    uint64_t lines = 0;
    cr_assert(strata_workshop_read(&dir, "log", text, sizeof text));
    for (char *line = text; *line != '\0';) {
        char *end = strchr(line, '\n');
        cr_assert_not_null(end, "the log ends within a line");
        cr_assert_eq(step_of(line, (size_t)(end - line), &hash), ++lines);
        line = end + 1;
    }
    cr_assert_eq(lines, steps, "%d lines of %d steps", (int)lines, (int)steps);
    cr_assert(hash);
}

/* Start a run and return once it has logged a step. */
static pid_t start_until_a_step(const char *words)
{
    pid_t process = strata_program_start(&dir, strata_train_program(), words);
    cr_assert_geq(strata_program_wait_lines(&dir, process, "log", 1), 1);
    return process;
}

/* Start a run, send the signal once it has logged a step; returns the step of its last line. */
static uint64_t stop_after_a_step(const char *words, int number)
{
    static char text[1 << 20];
    bool hash = false;
    pid_t process = start_until_a_step(words);
    kill(process, number);
    cr_assert_eq(strata_program_wait(process), 128 + number, "signal %d", number);
    cr_assert(strata_workshop_read(&dir, "log", text, sizeof text));
    char *end = strrchr(text, '\n');
    cr_assert_not_null(end);
    *end = '\0';
    char *line = strrchr(text, '\n');
    line = line != NULL ? line + 1 : text;
    uint64_t step = step_of(line, strlen(line), &hash);
    cr_assert(hash, "the last line of a stopped run has no hash");
    return step;
}

static void stop_and_go_on(const char *homes, int every, int number, const char *expected)
{
    char words[1024];
    char hash[33];
    char begins[80];
    start_over();
    snprintf(words, sizeof words, RUN "--log log --steps %d --commit-every %d %s", WHOLE_STEPS,
             every, homes);
    uint64_t step = stop_after_a_step(words, number);
    strcat(words, "--resume");
    train(words, 0);
    snprintf(begins, sizeof begins, "\nresume goes on from the commit of step %d\n", (int)step);
    cr_assert_not_null(strstr(result.out, begins), "'%s' lacks '%s'", result.out, begins);
    cr_assert_str_eq(printed_hash(hash), expected, "%s", words);
    expect_log_up_to(WHOLE_STEPS);
}

Test(resume, after_a_signal_ends_as_an_undisturbed_run_wherever_things_rest)
{
    const char *const homes[] = {IN_DEVICE, IN_HOST, ON_NVME};
    char expected[33];
    whole(ON_NVME, WHOLE_STEPS, expected);
    for (int i = 0; i < 3; i++) {
        stop_and_go_on(homes[i], 1, SIGTERM, expected);
        stop_and_go_on(homes[i], 3, SIGINT, expected);
    }
}

/* Both signals come before the step under way can end: the run stands still meanwhile. */
Test(resume, a_second_signal_ends_it_at_once_and_the_last_commit_stands)
{
    static char text[1 << 20];
    char expected[33];
    char hash[33];
    char words[1024];
    whole(IN_HOST, WHOLE_STEPS, expected);
    snprintf(words, sizeof words, RUN IN_HOST "--log log --commit-every 1 --steps %d ",
             WHOLE_STEPS);
    pid_t process = start_until_a_step(words);
    cr_assert(kill(process, SIGSTOP) == 0 && kill(process, SIGINT) == 0 &&
              kill(process, SIGTERM) == 0 && kill(process, SIGCONT) == 0);
    int code = strata_program_wait(process);
    cr_assert(code == 128 + SIGINT || code == 128 + SIGTERM, "exit %d", code);
    cr_assert(strata_workshop_read(&dir, "log", text, sizeof text));
    cr_assert_null(strstr(text, "state_hash"), "it ended as after one signal: %s", text);
    strcat(words, "--resume");
    train(words, 0);
    cr_assert_str_eq(printed_hash(hash), expected);
    expect_log_up_to(WHOLE_STEPS);
}

Test(resume, everything_that_decides_no_bit_may_have_changed)
{
    const char *const parts[] = {
        RUN ON_NVME "--steps 2 --threads 1",
        RUN IN_DEVICE "--steps 4 --resume --threads 2 --commit-every 3 --log log",
        COMMON IN_HOST "--device-mem 3M --host-mem 48M --io uring --store store --steps 5 "
                       "--resume --no-overlap",
        RUN "--params nvme --grads nvme --states nvme --stash host --steps 7 --resume "
            "--durability process",
        RUN "--steps 8 --resume --nvme-mem 1G --micro-batch 2"};
    char expected[33];
    char hash[33];
    whole(IN_DEVICE, 8, expected);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        train(parts[i], 0);
    cr_assert_str_eq(printed_hash(hash), expected);
}

Test(resume, the_learning_rate_goes_by_step)
{
#define FALLING ON_NVME "--warmup 4 --lr-schedule cosine --lr-min 1e-5 "
    char expected[33];
    char hash[33];
    char words[1024];
    whole(FALLING, WHOLE_STEPS, expected);
    snprintf(words, sizeof words, RUN FALLING "--log log --steps %d ", WHOLE_STEPS);
    stop_after_a_step(words, SIGTERM);
    strcat(words, "--resume");
    train(words, 0);
    cr_assert_str_eq(printed_hash(hash), expected);
}

/* What a refused run must leave as it is. */
struct left {
    char store[16 << 20];
    char log[65536];
    size_t store_bytes;
};

static size_t read_store(char *out, size_t bytes)
{
    char path[PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/store/strata.tiles", dir.path);
    FILE *file = fopen(path, "re");
    cr_assert_not_null(file);
    size_t got = fread(out, 1, bytes, file);
    fclose(file);
    cr_assert(got > 0 && got < bytes);
    return got;
}

static void remember(struct left *out)
{
    out->store_bytes = read_store(out->store, sizeof out->store);
    cr_assert(strata_workshop_read(&dir, "log", out->log, sizeof out->log));
}

static void expect_unchanged(const struct left *before)
{
    static struct left now;
    remember(&now);
    cr_assert_str_eq(now.log, before->log, "the log changed");
    cr_assert(now.store_bytes == before->store_bytes &&
                  memcmp(now.store, before->store, now.store_bytes) == 0,
              "the store changed");
}

/* Change a word of a file to another of the same length. */
static void edit(const char *name, const char *from, const char *to)
{
    static char text[32768];
    cr_assert(strata_workshop_read(&dir, name, text, sizeof text));
    char *word = strstr(text, from);
    cr_assert(word != NULL && strlen(from) == strlen(to), "no '%s' in %s", from, name);
    memcpy(word, to, strlen(to));
    strata_workshop_write_text(&dir, name, text);
}

Test(resume, what_belongs_to_the_run_and_differs_is_refused_by_name)
{
#define LINEAR RUN ON_NVME "--log log --lr-schedule linear "
    static struct left before;
    const struct {
        const char *change;
        const char *says;
    } items[] = {{"--batch 4", "has batch 2, this one 4"},
                 {"--seq 16", "has seq 32, this one 16"},
                 {"--seed 5", "has seed 0, this one 5"},
                 {"--steps 9", "has steps 8, this one 9"},
                 {"--lr-schedule constant", "has steps 8, this one any"},
                 {"--compute-dtype fp32", "has model "},
                 {"--vocab-slices 2", "has model "},
                 {"--states-dtype bf16", "has states fp32, this one bf16"},
                 {"--tile 32768", "16384 elements per tile, this run 32768"},
                 {"--keep 1", "2 slots per record, this run 3"}};
    char words[1024];
    char hash[33];
    char expected[33];
    whole(ON_NVME "--lr-schedule linear", 8, expected);
    snprintf(words, sizeof words, LINEAR "--steps %d", WHOLE_STEPS);
    train(LINEAR "--steps 8", 0);
    remember(&before);
    for (size_t i = 0; i < sizeof items / sizeof items[0]; i++) {
        snprintf(words, sizeof words, LINEAR "--steps 8 --resume %s", items[i].change);
        refused(words, items[i].says);
        expect_unchanged(&before);
    }
    edit("text", "b", "z");
    refused(LINEAR "--steps 8 --resume", "has data 20000 bytes, ");
    edit("text", "z", "b");
    edit("config.json", "10000.0", "20000.0");
    refused(LINEAR "--steps 8 --resume", "has model ");
    edit("config.json", "20000.0", "10000.0");
    expect_unchanged(&before);
    train(LINEAR "--steps 8 --resume", 0);
    cr_assert_str_eq(printed_hash(hash), expected);
}

Test(resume, a_constant_rate_does_not_bind_the_count_of_steps)
{
    char expected[33];
    char hash[33];
    whole(ON_NVME, 9, expected);
    train(RUN ON_NVME "--steps 5", 0);
    train(RUN ON_NVME "--steps 9 --resume", 0);
    cr_assert_str_eq(printed_hash(hash), expected);
}

Test(resume, a_store_with_a_commit_is_never_begun_anew)
{
    static struct left before;
    train(RUN ON_NVME "--steps 4 --log log", 0);
    remember(&before);
    refused(RUN ON_NVME "--steps 8 --log log", "holds a run at step 4: --resume goes on");
    expect_unchanged(&before);
    refused(RUN ON_NVME "--steps 8 --log log --durability none", "holds a run at step 4");
    expect_unchanged(&before);
}

Test(resume, a_store_in_use_is_refused_until_its_owner_is_gone)
{
    pid_t owner = start_until_a_step(RUN ON_NVME "--steps 1000000 --log log --quiet");
    /* It keeps its lock. The others wait some seconds for that, in which it would train on. */
    cr_assert_eq(kill(owner, SIGSTOP), 0);
    refused(RUN ON_NVME "--steps 8 --resume", "in use");
    refused(RUN ON_NVME "--steps 8", "in use");
    kill(owner, SIGKILL);
    cr_assert_eq(strata_program_wait(owner), 128 + SIGKILL);
    train(RUN ON_NVME "--log log --resume --steps 1", 0);
    cr_assert_not_null(strstr(result.out, "resume "), "%s", result.out);
}

Test(resume, at_goes_back_to_a_commit_that_is_listed)
{
#define KEEPING RUN ON_NVME "--log log --steps 9 --keep 3 --keep-every 2 "
    static struct left before;
    char expected[33];
    char hash[33];
    train(KEEPING, 0);
    printed_hash(expected);
    remember(&before);
    refused(KEEPING "--resume --at 5", "no commit of step 5; it has 9, 8, 6, 4");
    refused(KEEPING "--resume --at 2", "no commit of step 2");
    expect_unchanged(&before);
    train(KEEPING "--resume --at 6", 0);
    cr_assert_not_null(strstr(result.out, "goes on from the commit of step 6\n"));
    cr_assert_str_eq(printed_hash(hash), expected);
    expect_log_up_to(9);
    train(KEEPING "--resume --at 4 --steps 5", 0);
    expect_log_up_to(5);
    /* What came after step 4 was given up. */
    refused(KEEPING "--resume --at 8", "no commit of step 8");
    train(KEEPING "--resume", 0);
    cr_assert_str_eq(printed_hash(hash), expected);
    expect_log_up_to(9);
}

Test(resume, step_0_is_a_commit_like_any_other)
{
#define FROM_0 RUN ON_NVME "--log log --keep 1 --keep-every 100 "
    char expected[33];
    char hash[33];
    train(FROM_0 "--steps 5", 0);
    printed_hash(expected);
    train(FROM_0 "--steps 5 --resume --at 0", 0);
    cr_assert_not_null(
        strstr(result.out, "\nresume starts at step 0: that commit was asked for\n"), "%s",
        result.out);
    cr_assert_str_eq(printed_hash(hash), expected);
    expect_log_up_to(5);
    train("--drop store --at 0", 0);
    refused(FROM_0 "--steps 5 --resume --at 0", "no commit of step 0; it has 5");
}

Test(resume, commits_come_as_often_as_before_unless_another_number_is_given)
{
    train(RUN IN_HOST "--steps 1", 0);
    cr_assert_not_null(strstr(result.out, "commits every 10 steps in store\n"));
    train(RUN ON_NVME "--steps 2 --resume", 0);
    cr_assert_not_null(strstr(result.out, "; commits as often as before in store\n"));
    cr_assert_not_null(strstr(result.out, "\ncommits every 10 steps\n"), "%s", result.out);
    train(RUN ON_NVME "--steps 3 --resume --commit-every 4", 0);
    cr_assert_not_null(strstr(result.out, "; commits every 4 steps in store\n"));
    train(RUN IN_HOST "--steps 4 --resume --commit-every auto", 0);
    cr_assert_not_null(strstr(result.out, "\ncommits every 4 steps\n"), "%s", result.out);
}

Test(resume, with_no_step_left_only_a_line_is_written)
{
    static struct left before;
    static struct left after;
    char line[128];
    char hash[33];
    train(RUN ON_NVME "--steps 4 --log log", 0);
    printed_hash(hash);
    remember(&before);
    for (int steps = 3; steps <= 4; steps++) {
        char words[512];
        snprintf(words, sizeof words, RUN ON_NVME "--steps %d --log log --resume", steps);
        train(words, 0);
        remember(&after);
        snprintf(line, sizeof line, "{\"step\":4,\"state_hash\":\"%s\"}\n", hash);
        cr_assert_eq(strncmp(after.log, before.log, strlen(before.log)), 0);
        cr_assert_str_eq(after.log + strlen(before.log), line);
        before = after;
    }
    train("--data text --model config.json --seq 32 --batch 2 --tile 16384 --io threads "
          "--allow buffered-io --device-mem 16M --host-mem 64M --store store --resume "
          "--steps 4 --log log --quiet",
          0);
    remember(&after);
    cr_assert_str_eq(after.log + strlen(before.log), "{\"step\":4}\n");
    train(RUN ON_NVME "--steps 4 --resume --json", 0);
    cr_assert_not_null(strstr(result.out, hash));
}

Test(resume, the_log_is_cut_after_its_last_whole_line_and_goes_on)
{
    static char text[65536];
    train(RUN ON_NVME "--steps 4 --log log", 0);
    cr_assert(strata_workshop_read(&dir, "log", text, sizeof text));
    /* As after a crash: the commit of step 4 stands, later steps were logged, one is torn. */
    strcat(text, "{\"step\":5,\"loss\":1}\n{\"step\":6,\"lo");
    strata_workshop_write_text(&dir, "log", text);
    train(RUN ON_NVME "--steps 7 --log log --resume", 0);
    char *seventh = strstr(text, "{\"step\":5");
    *seventh = '\0';
    static char after[65536];
    cr_assert(strata_workshop_read(&dir, "log", after, sizeof after));
    cr_assert_eq(strncmp(after, text, strlen(text)), 0, "%s", after);
    cr_assert_null(strstr(after, "\"loss\":1}"));
    strata_workshop_write_text(&dir, "log", after + strlen(text));
    train(RUN ON_NVME "--steps 7 --log fresh --resume", 0);
    cr_assert(strata_workshop_has(&dir, "fresh"));
}

Test(resume, where_there_is_no_commit_it_begins_at_step_0_and_says_so)
{
    char expected[33];
    char hash[33];
    whole(ON_NVME, 3, expected);
    strata_workshop_write_text(&dir, "log", WORKSHOP_OLD_LOG);
    train(RUN ON_NVME "--steps 3 --log log --resume", 0);
    cr_assert_not_null(
        strstr(result.out, "\nresume starts at step 0: there is no later commit"), "%s",
        result.out);
    cr_assert_str_eq(printed_hash(hash), expected);
    expect_log_up_to(3);
    train(COMMON "--device-mem 16M --host-mem 64M --steps 3 --resume", 0);
    cr_assert_not_null(strstr(result.out, "\nresume starts at step 0: no --store is given"),
                       "%s", result.out);
    cr_assert_str_eq(printed_hash(hash), expected);
}
