/*
 * Every family through the programs: trained in the device and through every tier with one
 * state hash, planned by offload-bench, resumed, and told apart from its neighbours by a store.
 * Whether the numbers are right is test_golden_families.c's question.
 */

#include <criterion/criterion.h>

#include <stdio.h>
#include <string.h>

#include "tests/support/program.h"

#define COMMON                                                                                 \
    "--data text --model family.json --device host --seq 32 --batch 4 --micro-batch 2 "        \
    "--lr 1e-3 --seed 7 --allow threads-io --json --hash-state "
#define IN_DEVICE                                                                              \
    "--params device --grads device --states device --stash device --device-mem 64M "          \
    "--host-mem 64M "
#define ON_NVME "--params nvme --grads nvme --states nvme --stash host "

static struct temp_dir dir;
static struct program_result result;
static const char *program;
static const char *bench;

static void setup(void)
{
    program = strata_program_path("STRATA_TRAIN_PROGRAM", STRATA_TRAIN_PROGRAM);
    bench = strata_program_path("STRATA_BENCH_PROGRAM", STRATA_BENCH_PROGRAM);
    if (program == NULL || bench == NULL)
        cr_skip_test("STRATA_TRAIN_PROGRAM or STRATA_BENCH_PROGRAM names no program");
    strata_workshop_make(&dir);
}

static void teardown(void)
{
    if (program != NULL && bench != NULL)
        strata_temp_dir_remove(&dir);
}

TestSuite(families, .init = setup, .fini = teardown);

static void write_config(const char *family, const char *more)
{
    char text[1024];
    snprintf(text, sizeof text,
             "{\"model_type\": \"%s\", \"vocab_size\": 256, \"hidden_size\": 64, "
             "\"num_hidden_layers\": 3, \"num_attention_heads\": 4, "
             "\"num_key_value_heads\": 2, \"intermediate_size\": 160, "
             "\"head_dim\": 20%s}",
             family, more);
    strata_workshop_write_text(&dir, "family.json", text);
}

static void run(const char *words)
{
    char all[1024];
    snprintf(all, sizeof all, "%s%s", COMMON, words);
    strata_program_run(&result, &dir, program, all);
}

/* The hash that the last run gave, 32 digits. */
static const char *hash(void)
{
    static const char key[] = "\"state_hash\":\"";
    cr_assert_eq(result.code, 0, "%s", result.err);
    const char *found = strstr(result.out, key);
    cr_assert_not_null(found, "no hash in '%s'", result.out);
    return found + strlen(key);
}

static void check_family(const char *family, const char *more)
{
    char wanted[33] = "";
    write_config(family, more);
    run("--steps 3 " IN_DEVICE);
    memcpy(wanted, hash(), 32);
    run("--steps 3 --store store --durability none --device-mem 4M --host-mem 12M " ON_NVME);
    cr_assert_eq(memcmp(wanted, hash(), 32), 0, "%s: other bits through every tier", family);
    run("--steps 2 --store store");
    cr_assert_eq(result.code, 0, "%s", result.err);
    run("--steps 3 --store store --resume");
    cr_assert_eq(memcmp(wanted, hash(), 32), 0, "%s: other bits after a resume", family);
    strata_program_run(&result, &dir, bench,
                       "plan --model family.json --gpu h100 --ram 64G --seq 64 --batch 4");
    cr_assert_eq(result.code, 0, "%s", result.err);
}

Test(families, mistral_trains_in_any_place)
{
    check_family("mistral", ", \"sliding_window\": 9");
}

Test(families, qwen2_trains_in_any_place)
{
    check_family("qwen2", ", \"use_sliding_window\": true, \"sliding_window\": 9, "
                          "\"max_window_layers\": 1, \"tie_word_embeddings\": true");
}

Test(families, qwen3_trains_in_any_place)
{
    check_family("qwen3", ", \"hidden_act\": \"gelu\"");
}

Test(families, a_store_tells_one_familys_run_from_anothers)
{
    static const struct {
        const char *family;
        const char *more;
    } others[] = {{"qwen3", ", \"sliding_window\": 9"},
                  {"mistral", ", \"sliding_window\": 8"},
                  {"mistral", ", \"sliding_window\": null"},
                  {"mistral", ", \"sliding_window\": 9, \"hidden_act\": \"gelu\""}};
    write_config("mistral", ", \"sliding_window\": 9");
    run("--steps 1 --store store");
    cr_assert_eq(result.code, 0, "%s", result.err);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        write_config(others[i].family, others[i].more);
        run("--steps 2 --store store --resume");
        cr_assert_eq(result.code, 1, "case %zu: %s", i, result.err);
        cr_assert_not_null(strstr(result.err, "model"), "case %zu: %s", i, result.err);
    }
    write_config("mistral", ", \"sliding_window\": 9");
    run("--steps 2 --store store --resume");
    cr_assert_eq(result.code, 0, "%s", result.err);
}
