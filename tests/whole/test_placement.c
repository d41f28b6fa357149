/*
 * The same training run in different places, told apart by nothing: one state hash over homes,
 * budgets down to the minimum, I/O backends, tile sizes and worker threads, for a tied and an
 * untied head. The reference run has everything in the device.
 */

#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "tests/support/kernel.h"
#include "tests/support/program.h"

/* Where the build put the program; a build that does not say leaves it to the environment. */
#ifndef STRATA_TRAIN_PROGRAM
#    define STRATA_TRAIN_PROGRAM NULL
#endif

#define COMMON                                                                                 \
    "--data text --model config.json --seq 32 --batch 4 --micro-batch 2 --steps 3 --lr 1e-3 "  \
    "--seed 7 --vocab-slices 2 --store store --durability none --allow threads-io --json "
#define IN_DEVICE                                                                              \
    "--params device --grads device --states device --stash device --device-mem 64M "          \
    "--host-mem 64M "
#define ON_NVME "--params nvme --grads nvme --states nvme --stash host "
#define MIXED   "--params nvme --grads host --states nvme --stash host "

static struct temp_dir dir;
static const char *program;

static void setup(void)
{
    program = strata_program_path("STRATA_TRAIN_PROGRAM", STRATA_TRAIN_PROGRAM);
    if (program == NULL)
        cr_skip_test("STRATA_TRAIN_PROGRAM names no program");
    strata_workshop_make(&dir);
}

static void teardown(void)
{
    if (program == NULL)
        return;
    cr_expect_eq(strata_workshop_store_count(&dir), 0, "the store is not empty");
    strata_temp_dir_remove(&dir);
}

TestSuite(placement, .init = setup, .fini = teardown);

/* Change a word of config.json to another of the same length. */
static void edit(const char *from, const char *to)
{
    char text[2048];
    cr_assert(strata_workshop_read(&dir, "config.json", text, sizeof text));
    char *word = strstr(text, from);
    cr_assert(word != NULL && strlen(from) == strlen(to));
    memcpy(word, to, strlen(to));
    strata_workshop_write_text(&dir, "config.json", text);
}

/* Run with these options; the parsed document, to be freed. */
static strata_json *run(const char *options)
{
    static struct program_result result;
    char words[1024];
    strata_error error = {0};
    strata_json *document;
    snprintf(words, sizeof words, COMMON "%s", options);
    strata_program_run(&result, &dir, program, words);
    cr_assert_eq(result.code, 0, "%s: exit code %d: %s", options, result.code, result.err);
    cr_assert_eq(strata_json_read_text(&document, result.out, strlen(result.out), &error),
                 STRATA_OK, "%s", error.message);
    return document;
}

static const strata_json *member(const strata_json *object, const char *key)
{
    const strata_json *out;
    strata_error error = {0};
    cr_assert_eq(strata_json_get_object(object, key, &out, &error), STRATA_OK, "%s",
                 error.message);
    return out;
}

static uint64_t number(const strata_json *object, const char *key)
{
    uint64_t out;
    strata_error error = {0};
    cr_assert_eq(strata_json_get_uint(object, key, &out, &error), STRATA_OK, "%s",
                 error.message);
    return out;
}

static void hash_of(const char *options, char out[33])
{
    char words[768];
    const char *hash;
    strata_error error = {0};
    snprintf(words, sizeof words, "%s --hash-state", options);
    strata_json *document = run(words);
    cr_assert_eq(
        strata_json_get_string(member(document, "result"), "state_hash", &hash, &error),
        STRATA_OK, "%s", error.message);
    cr_assert_eq(strlen(hash), 32);
    strcpy(out, hash);
    strata_json_free(document);
}

static void same_as_in_device(const char *options)
{
    char reference[33];
    char other[33];
    hash_of(IN_DEVICE, reference);
    hash_of(options, other);
    cr_expect_str_eq(reference, other, "%s", options);
}

static uint64_t need(const strata_json *document, const char *tier)
{
    return number(member(member(member(document, "plan"), "tiers"), tier), "need_bytes");
}

/* The options with both budgets at what the plan says it needs: the device first, because its
 * layout sizes the host's tables. */
static void at_minimum(const char *options, char *out, size_t bytes)
{
    char words[512];
    snprintf(words, sizeof words, "%s --device-mem 64M --host-mem 64M --dry-run", options);
    strata_json *document = run(words);
    uint64_t device = need(document, "device");
    strata_json_free(document);
    snprintf(words, sizeof words, "%s --device-mem %llu --host-mem 64M --dry-run", options,
             (unsigned long long)device);
    document = run(words);
    snprintf(out, bytes, "%s --device-mem %llu --host-mem %llu", options,
             (unsigned long long)device, (unsigned long long)need(document, "host"));
    uint64_t loads = number(member(document, "plan"), "param_loads");
    uint64_t uses = number(member(document, "plan"), "param_uses");
    cr_expect_geq(10 * loads, 8 * uses, "at the minimum acquires page: %llu of %llu",
                  (unsigned long long)loads, (unsigned long long)uses);
    strata_json_free(document);
}

static void every_place(void)
{
    char tight[512];
    /* More layers than are in the device at once, so that every acquire but a few pages. */
    edit("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 8");
    same_as_in_device("--params host --grads host --states host --stash host --device-mem 16M "
                      "--host-mem 64M");
    same_as_in_device(ON_NVME "--device-mem 16M --host-mem 64M");
    at_minimum(ON_NVME, tight, sizeof tight);
    same_as_in_device(tight);
    at_minimum(MIXED, tight, sizeof tight);
    same_as_in_device(tight);
    same_as_in_device("--device-mem 12M --host-mem 32M");
}

Test(placement, untied_everywhere_the_same)
{
    every_place();
}

Test(placement, tied_everywhere_the_same)
{
    edit("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true ");
    every_place();
}

/* A machine whose drive is so slow that little else matters. */
static const char box[] =
    "{\"name\": \"slow drive\", \"host_device\": true, \"cores\": 2, \"drives\": 1,"
    " \"flops_per_s\": 1e11, \"dram_bytes_per_s\": 2e10, \"update_bytes_per_s\": 1e10,"
    " \"norm_bytes_per_s\": 1e10, \"h2d_bytes_per_s\": 5e9, \"d2h_bytes_per_s\": 5e9,"
    " \"duplex\": 1.5, \"device_bytes_per_s\": 1e10, \"drive_read_bytes_per_s\": 1e8,"
    " \"drive_write_bytes_per_s\": 1e8, \"mix\": 1, \"drive_cpu_s_per_byte\": 1e-10,"
    " \"op_s\": 5e-5, \"drive_op_s\": 2e-4, \"update_share\": 0.2,"
    " \"drive_endurance_bytes\": 1e12}";

static double seconds(const strata_json *object, const char *key)
{
    double out;
    strata_error error = {0};
    cr_assert_eq(strata_json_get_number(object, key, &out, &error), STRATA_OK, "%s",
                 error.message);
    return out;
}

Test(placement, homes_chosen_for_a_machine_the_same)
{
    const char *homes;
    const char *next;
    strata_error error = {0};
    edit("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 8");
    strata_workshop_write_text(&dir, "box.json", box);
    strata_json *document = run("--device-mem 2M --host-mem 11M --box box.json --dry-run");
    const strata_json *plan = member(document, "plan");
    cr_assert_eq(strata_json_get_string(plan, "homes", &homes, &error), STRATA_OK, "%s",
                 error.message);
    cr_assert_eq(strata_json_get_string(plan, "next_homes", &next, &error), STRATA_OK, "%s",
                 error.message);
    cr_expect_str_neq(homes, next);
    cr_expect_geq(1.0101 * seconds(plan, "next_factor"), 1);
    strata_json_free(document);
    same_as_in_device("--device-mem 2M --host-mem 11M --box box.json");
}

static uint64_t commits_every(const char *drive)
{
    static char text[sizeof box];
    memcpy(text, box, sizeof box);
    char *rate = strstr(text, "drive_write_bytes_per_s\": 1e8");
    memcpy(strstr(rate, "1e8"), drive, 3);
    strata_workshop_write_text(&dir, "box.json", text);
    strata_json *document = run("--states host --store store --durability power "
                                "--device-mem 16M --host-mem 64M --box box.json --dry-run");
    uint64_t every = number(member(document, "plan"), "commit_every");
    strata_json_free(document);
    return every;
}

Test(placement, states_in_ram_are_committed_the_less_often_the_slower_the_drive_is)
{
    cr_expect_gt(commits_every("1e8"), commits_every("1e9"));
    cr_expect_gt(commits_every("1e9"), 1);
}

Test(placement, wear_is_what_a_step_writes_at_its_pace)
{
    strata_workshop_write_text(&dir, "box.json", box);
    strata_json *document =
        run(ON_NVME "--device-mem 16M --host-mem 64M --box box.json --dry-run");
    const strata_json *forecast = member(member(document, "plan"), "forecast");
    double steps = 1e12 / (double)number(forecast, "write_bytes");
    double days = steps * seconds(forecast, "step_s") / 86400;
    cr_expect_float_eq(seconds(forecast, "drive_days"), days, 1e-6 * days);
    strata_json_free(document);
}

Test(placement, uring_and_threads_the_same)
{
    const char *strict = getenv("STRATA_TEST_FAIL_ON_SKIP");
    if (!strata_io_uring_permitted() && (strict == NULL || strcmp(strict, "1") != 0))
        cr_skip_test("no io_uring here: it is forbidden, or this kernel has none");
    same_as_in_device(ON_NVME "--device-mem 16M --host-mem 64M --io uring");
    same_as_in_device(ON_NVME "--device-mem 16M --host-mem 64M --io threads");
}

Test(placement, three_tile_sizes_the_same)
{
    same_as_in_device(ON_NVME "--device-mem 16M --host-mem 64M --tile 16384");
    same_as_in_device(ON_NVME "--device-mem 16M --host-mem 64M --tile 49152");
    same_as_in_device(ON_NVME "--device-mem 16M --host-mem 64M --tile 1048576");
}

Test(placement, one_and_two_workers_the_same)
{
    same_as_in_device(MIXED "--device-mem 16M --host-mem 64M --threads 1");
    same_as_in_device(MIXED "--device-mem 16M --host-mem 64M --threads 2");
}

Test(placement, naive_order_the_same)
{
    same_as_in_device(ON_NVME "--device-mem 16M --host-mem 64M --no-overlap");
}

Test(placement, fp32_the_same)
{
    char reference[33];
    char other[33];
    hash_of(IN_DEVICE "--compute-dtype fp32", reference);
    hash_of(ON_NVME "--device-mem 16M --host-mem 64M --compute-dtype fp32", other);
    cr_expect_str_eq(reference, other);
}

Test(placement, bf16_states_the_same)
{
    char reference[33];
    char other[33];
    char fp32[33];
    hash_of(IN_DEVICE, fp32);
    hash_of(IN_DEVICE "--states-dtype bf16", reference);
    hash_of(ON_NVME "--device-mem 16M --host-mem 64M --states-dtype bf16", other);
    cr_expect_str_eq(reference, other);
    cr_expect_str_neq(reference, fp32);
}

Test(placement, fp16_the_same)
{
    char reference[33];
    char other[33];
    hash_of(IN_DEVICE "--compute-dtype fp16", reference);
    hash_of(ON_NVME "--device-mem 16M --host-mem 64M --compute-dtype fp16", other);
    cr_expect_str_eq(reference, other);
}

Test(placement, another_seed_is_another_hash)
{
    char reference[33];
    char other[33];
    hash_of(IN_DEVICE, reference);
    hash_of(IN_DEVICE "--seed 8", other);
    cr_expect_str_neq(reference, other);
}
