#define _GNU_SOURCE
/*
 * Bad input to offload-train: whatever is wrong, there is one line on stderr that says so, the
 * exit code of the documentation, no file that was not there before, and no file changed.
 *
 * Each refusal runs with a store and the log of an earlier run in place, which must come out as
 * they went in. The I/O backend is `threads`, so that a machine without io_uring refuses the
 * same.
 *
 * The full and the read-only disk are file systems made of RAM, mounted where only this test's
 * process sees them; where the kernel does not allow that, these tests are skipped and say so.
 */

#include "tests/support/workshop.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

/* A run that pages everything, and ends in a moment when it is not refused. */
#define SMALL                                                                                  \
    "--seq 32 --batch 2 --steps 2 --device-mem 16M --host-mem 64M --params nvme --grads host " \
    "--states nvme --tile 16384 --stash host --io threads --allow buffered-io "                \
    "--durability none "
#define FILES  "--data text --model config.json "
#define OUTPUT "--store store --log old.jsonl "

/* Entries of a workshop that nobody touched: text, config.json, store, old.jsonl. */
#define WORKSHOP_ENTRIES 4

TestSuite(bad_input, .init = make_workshop, .fini = remove_workshop);

static void expect_untouched(int entries)
{
    char log[256];
    cr_assert(strata_workshop_read(&dir, "old.jsonl", log, sizeof log));
    cr_assert_str_eq(log, WORKSHOP_OLD_LOG);
    cr_assert_eq(strata_workshop_store_count(&dir), 0, "something was left in the store");
    cr_assert_eq(strata_temp_dir_count(dir.path), entries, "something was left behind");
}

/* extra: files that the test itself added. */
static void expect_refusal_with(const char *words, int code, const char *says, int extra)
{
    strata_program_run(&result, &dir, strata_train_program(), words);
    cr_assert_eq(result.code, code, "exit %d for '%s': %s", result.code, words, result.err);
    expect_one_line(says);
    expect_untouched(WORKSHOP_ENTRIES + extra);
}

static void expect_refusal(const char *words, int code, const char *says)
{
    expect_refusal_with(words, code, says, 0);
}

Test(bad_input, the_same_run_with_good_input_works)
{
    strata_program_run(&result, &dir, strata_train_program(), FILES SMALL OUTPUT);
    cr_assert_eq(result.code, 0, "%s", result.err);
    cr_assert_eq(strata_workshop_store_count(&dir), 0);
    char log[8192];
    cr_assert(strata_workshop_read(&dir, "old.jsonl", log, sizeof log));
    cr_assert_null(strstr(log, "earlier run"));
    cr_assert_not_null(strstr(log, "\"step\":2"));
}

/* 5.9 TiB in RAM. */
#define HUGE_RUN                                                                               \
    "--data text --model llama-405b --dry-run --device host --params host --grads host "       \
    "--states host --stash host --host-mem 100T --device-mem 200G "

Test(bad_input, more_host_memory_than_the_machine_has_is_refused_unless_allowed)
{
    expect_refusal(HUGE_RUN, 1, "allow overcommit");
    strata_program_run(&result, &dir, strata_train_program(), HUGE_RUN "--allow overcommit");
    cr_assert_eq(result.code, 0, "%s", result.err);
}

Test(bad_input, no_file)
{
    expect_refusal("--data nothing --model config.json " SMALL OUTPUT, 3, "No such file");
    expect_refusal("--data text --model nothing.json " SMALL OUTPUT, 3, "No such file");
    expect_refusal("--data text --model ./nothing " SMALL OUTPUT, 3, "No such file");
    expect_refusal(FILES SMALL "--log old.jsonl --store nothing", 3, "No such file");
    expect_refusal(FILES SMALL "--store store --log nothing/new.jsonl", 3, "No such file");
}

Test(bad_input, a_file_where_a_directory_should_be)
{
    expect_refusal(FILES SMALL "--log old.jsonl --store text", 3, "text");
    expect_refusal("--data store --model config.json " SMALL OUTPUT, 1, "not a regular file");
}

Test(bad_input, an_empty_file)
{
    strata_workshop_write_text(&dir, "empty", "");
    expect_refusal_with("--data empty --model config.json " SMALL OUTPUT, 1, "is empty", 1);
    expect_refusal_with("--data text --model ./empty " SMALL OUTPUT, 1, "empty", 1);
}

Test(bad_input, a_text_shorter_than_one_sequence)
{
    strata_workshop_write_text(&dir, "short", "thirty-two bytes are one too few");
    expect_refusal_with("--data short --model config.json " SMALL OUTPUT, 1, "has 32 tokens",
                        1);
}

Test(bad_input, a_token_beyond_the_vocabulary)
{
    uint8_t shard[1024 + 2 * 100] = {0};
    const uint32_t words[3] = {20240520, 1, 100};
    memcpy(shard, words, sizeof words);
    shard[1024 + 2 * 70 + 1] = 1; /* token 70 is 256 */
    strata_workshop_write(&dir, "shard.bin", shard, sizeof shard);
    expect_refusal_with("--data shard.bin --model config.json " SMALL OUTPUT, 1,
                        "token 70 of shard.bin is 256", 1);
}

Test(bad_input, a_shard_that_was_cut_short)
{
    uint8_t shard[1024 + 2 * 99] = {0};
    const uint32_t words[3] = {20240520, 1, 100};
    memcpy(shard, words, sizeof words);
    strata_workshop_write(&dir, "shard.bin", shard, sizeof shard);
    expect_refusal_with("--data shard.bin --model config.json " SMALL OUTPUT, 1,
                        "names 100 tokens", 1);
}

Test(bad_input, unknown_options_and_names)
{
    expect_refusal(FILES SMALL OUTPUT "--frobnicate", 2, "unknown option --frobnicate");
    expect_refusal(FILES SMALL OUTPUT "--resume", 2, "--resume: this run makes and reads no");
    expect_refusal(FILES SMALL OUTPUT "--export store", 2, "unknown option --export");
    expect_refusal("--data text --model llama-9b " SMALL OUTPUT, 2, "llama-9b");
    expect_refusal(FILES SMALL OUTPUT "--params disk", 2, "--params disk");
    expect_refusal(SMALL OUTPUT, 2, "--data");
}

Test(bad_input, a_size_without_a_number)
{
    expect_refusal(FILES SMALL OUTPUT "--device-mem M", 2, "--device-mem");
    expect_refusal(FILES SMALL OUTPUT "--host-mem lots", 2, "--host-mem");
    expect_refusal(FILES SMALL OUTPUT "--steps many", 2, "--steps many");
}

Test(bad_input, a_device_that_is_not_there)
{
    expect_refusal(FILES SMALL OUTPUT "--device cuda", 3, "--device cuda");
}

static void write_config(const char *hidden, const char *heads, const char *kv_heads,
                         const char *architecture)
{
    char text[1024];
    snprintf(
        text, sizeof text,
        "{\"architectures\": [\"%s\"], \"model_type\": \"llama\", \"hidden_act\": \"silu\",\n"
        " \"hidden_size\": %s, \"num_hidden_layers\": 2, \"num_attention_heads\": %s,\n"
        " \"num_key_value_heads\": %s, \"intermediate_size\": 128, \"vocab_size\": 256}\n",
        architecture, hidden, heads, kv_heads);
    strata_workshop_write_text(&dir, "other.json", text);
}

Test(bad_input, a_config_of_another_architecture)
{
    write_config("64", "4", "2", "GPT2LMHeadModel");
    expect_refusal_with("--data text --model other.json " SMALL OUTPUT, 1, "architectures", 1);
}

Test(bad_input, a_config_with_sizes_that_do_not_divide)
{
    write_config("66", "4", "2", "LlamaForCausalLM");
    expect_refusal_with("--data text --model other.json " SMALL OUTPUT, 1, "66", 1);
    write_config("64", "4", "3", "LlamaForCausalLM");
    expect_refusal_with("--data text --model other.json " SMALL OUTPUT, 1, "3", 1);
}

Test(bad_input, a_config_that_is_not_json_or_lacks_a_size)
{
    strata_workshop_write_text(&dir, "other.json", "{\"hidden_size\": 64,\n");
    expect_refusal_with("--data text --model other.json " SMALL OUTPUT, 1, "other.json", 1);
    strata_workshop_write_text(&dir, "other.json",
                               "{\"architectures\": [\"LlamaForCausalLM\"]}\n");
    expect_refusal_with("--data text --model other.json " SMALL OUTPUT, 1, "other.json", 1);
}

Test(bad_input, batches_that_do_not_divide)
{
    expect_refusal(FILES SMALL OUTPUT "--batch 6 --micro-batch 4", 2, "does not divide");
}

/* The least a tier can do with, as the plan itself says. */
static uint64_t needed(const char *tier)
{
    strata_json *document = NULL;
    strata_error error = {0};
    const strata_json *plan = NULL;
    const strata_json *tiers = NULL;
    const strata_json *one = NULL;
    uint64_t need = 0;
    strata_program_run(&result, &dir, strata_train_program(),
                       FILES SMALL "--store store --dry-run --json");
    cr_assert_eq(result.code, 0, "%s", result.err);
    cr_assert_eq(strata_json_read_text(&document, result.out, strlen(result.out), &error),
                 STRATA_OK, "%s", error.message);
    cr_assert_eq(strata_json_get_object(document, "plan", &plan, &error), STRATA_OK, "%s",
                 error.message);
    cr_assert_eq(strata_json_get_object(plan, "tiers", &tiers, &error), STRATA_OK, "%s",
                 error.message);
    cr_assert_eq(strata_json_get_object(tiers, tier, &one, &error), STRATA_OK, "%s",
                 error.message);
    cr_assert_eq(strata_json_get_uint(one, "need_bytes", &need, &error), STRATA_OK, "%s",
                 error.message);
    strata_json_free(document);
    return need;
}

Test(bad_input, a_budget_one_byte_too_small)
{
    static const char *const tiers[] = {"device", "host", "nvme"};
    for (int i = 0; i < 3; i++) {
        char words[1024];
        uint64_t need = needed(tiers[i]);
        snprintf(words, sizeof words, FILES SMALL OUTPUT "--%s-mem %llu", tiers[i],
                 (unsigned long long)need - 1);
        expect_refusal(words, 1, tiers[i]);
        char number[32];
        snprintf(number, sizeof number, "%llu", (unsigned long long)need);
        cr_assert_not_null(strstr(result.err, number), "'%s' lacks the need of %s", result.err,
                           number);
        /* With that one byte it runs. */
        snprintf(words, sizeof words, FILES SMALL "--store store --%s-mem %llu", tiers[i],
                 (unsigned long long)need);
        strata_program_run(&result, &dir, strata_train_program(), words);
        cr_assert_eq(result.code, 0, "%s", result.err);
    }
}

static void mount_store(const char *options)
{
    const char *why = strata_workshop_mount(&dir, "tmpfs", options);
    if (why != NULL)
        strata_skip(why);
}

Test(bad_input, a_store_on_a_full_disk)
{
    mount_store("size=1m");
    /* By its free space, before anything is written; and when a larger limit is claimed. */
    expect_refusal(FILES SMALL OUTPUT, 1, "nvme");
    expect_refusal(FILES SMALL OUTPUT "--nvme-mem 1G", 1, "store");
    strata_workshop_unmount(&dir);
}

Test(bad_input, a_store_on_a_read_only_disk)
{
    char path[PATH_MAX + 8];
    snprintf(path, sizeof path, "%s/store", dir.path);
    mount_store("size=64m");
    cr_assert_eq(mount(NULL, path, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0, "%s",
                 strerror(errno));
    expect_refusal(FILES SMALL OUTPUT, 1, "Read-only");
    strata_workshop_unmount(&dir);
}

/* A run that goes on until it is told to stop; returns once it has made steps. */
static pid_t start_long_run(void)
{
    pid_t process = strata_program_start(
        &dir, strata_train_program(),
        FILES SMALL "--store store --log long.jsonl --steps 1000000 --quiet");
    cr_assert_geq(strata_program_wait_lines(&dir, process, "long.jsonl", 1), 1);
    return process;
}

Test(bad_input, a_store_in_use)
{
    pid_t holder = start_long_run();
    int files = strata_workshop_store_count(&dir);
    strata_program_run(&result, &dir, strata_train_program(), FILES SMALL OUTPUT);
    cr_assert_eq(result.code, 1, "%s", result.err);
    expect_one_line("in use");
    cr_assert_eq(strata_workshop_store_count(&dir), files);
    char log[256];
    cr_assert(strata_workshop_read(&dir, "old.jsonl", log, sizeof log));
    cr_assert_str_eq(log, WORKSHOP_OLD_LOG);
    /* The one that holds it goes on, and ends as it should. */
    uint64_t lines = strata_program_wait_lines(&dir, holder, "long.jsonl", 1);
    cr_assert_geq(strata_program_wait_lines(&dir, holder, "long.jsonl", lines + 2), lines + 2);
    kill(holder, SIGINT);
    cr_assert_eq(strata_program_wait(holder), 128 + SIGINT);
    cr_assert_eq(strata_workshop_store_count(&dir), 0);
}

Test(bad_input, a_store_left_by_a_killed_run_is_made_anew)
{
    pid_t holder = start_long_run();
    kill(holder, SIGKILL);
    cr_assert_eq(strata_program_wait(holder), 128 + SIGKILL);
    strata_program_run(&result, &dir, strata_train_program(), FILES SMALL OUTPUT);
    cr_assert_eq(result.code, 0, "%s", result.err);
    cr_assert_eq(strata_workshop_store_count(&dir), 0);
}

Test(bad_input, a_foreign_file_with_the_stores_name_is_left_alone)
{
    const char *const runs[] = {FILES SMALL OUTPUT, FILES SMALL OUTPUT "--durability power",
                                FILES SMALL OUTPUT "--durability power --resume"};
    char text[64];
    strata_workshop_write_text(&dir, "store/strata.tiles", "a file of somebody else's\n");
    for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++) {
        strata_program_run(&result, &dir, strata_train_program(), runs[i]);
        cr_assert_eq(result.code, 3, "%d: %s", result.code, result.err);
        expect_one_line("strata.tiles");
        cr_assert(strata_workshop_read(&dir, "store/strata.tiles", text, sizeof text));
        cr_assert_str_eq(text, "a file of somebody else's\n");
        cr_assert_eq(strata_workshop_store_count(&dir), 1);
    }
}
