/*
 * offload-bench plan and offload-train --dry-run are two programs with one planner: for the
 * same model and budgets they name the same bytes, or refuse both.
 */

#include <criterion/criterion.h>

#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "tests/support/program.h"

/* A box as offload-bench probe writes one: two cores, and a drive or none. */
static const char box[] =
    "{\"name\": \"box\", \"host_device\": true, \"cores\": 2, \"drives\": %d,\n"
    " \"flops_per_s\": 150e9, \"dram_bytes_per_s\": 20e9, \"update_bytes_per_s\": 15e9,\n"
    " \"norm_bytes_per_s\": 10e9, \"h2d_bytes_per_s\": 6e9, \"d2h_bytes_per_s\": 6e9,\n"
    " \"duplex\": 1.5, \"device_bytes_per_s\": 10e9, \"op_s\": 50e-6,\n"
    " \"update_share\": 0.5, \"drive_read_bytes_per_s\": 1.5e9,\n"
    " \"drive_write_bytes_per_s\": 1e9, \"mix\": 1.0, \"drive_cpu_s_per_byte\": 1e-10,\n"
    " \"drive_op_s\": 200e-6}\n";

/* From what holds nearly all to what holds too little, with a store and without. */
static const struct budget {
    const char *model;
    const char *device;
    const char *host;
    bool store;
} budgets[] = {
    {"config.json", "64M", "64M", true},    {"config.json", "4M", "24M", true},
    {"config.json", "2M", "12M", true},     {"config.json", "64M", "64M", false},
    {"config.json", "1M", "4M", true},      {"llama-125m", "2G", "4G", true},
    {"llama-125m", "400M", "1G", true},     {"llama-125m", "300M", "100M", true},
    {"llama-125m", "300M", "40M", true},    {"llama-125m", "200M", "20M", true},
    {"llama-125m", "400M", "2500M", false}, {"llama-125m", "100M", "1G", true},
};

static struct temp_dir dir;
static struct program_result result;

static const char *program(const char *variable, const char *built)
{
    const char *found = strata_program_path(variable, built);
    if (found == NULL)
        cr_skip_test("%s names no program", variable);
    return found;
}

static strata_json *document(void)
{
    strata_json *json = NULL;
    strata_error error = {0};
    cr_assert_eq(strata_json_read_text(&json, result.out, strlen(result.out), &error),
                 STRATA_OK, "%s: %s %s", error.message, result.out, result.err);
    return json;
}

static const strata_json *within(const strata_json *json, const char *name)
{
    const strata_json *object;
    cr_assert_eq(strata_json_get_object(json, name, &object, NULL), STRATA_OK, "%s", name);
    return object;
}

static unsigned long long bytes_of(const strata_json *tiers, const char *tier, const char *name)
{
    uint64_t bytes;
    if (!strata_json_has(tiers, tier))
        return 0;
    cr_assert_eq(strata_json_get_uint(within(tiers, tier), name, &bytes, NULL), STRATA_OK);
    return bytes;
}

static void compare(const strata_json *bench, const strata_json *train, const char *words)
{
    static const char *const names[] = {"limit_bytes", "used_bytes"};
    static const char *const tiers[] = {"device", "host", "nvme"};
    uint64_t every[2];
    cr_assert_eq(strata_json_get_uint(bench, "commit_every", &every[0], NULL), STRATA_OK);
    cr_assert_eq(strata_json_get_uint(train, "commit_every", &every[1], NULL), STRATA_OK);
    cr_expect_eq(every[0], every[1], "%s", words);
    for (int tier = 0; tier < 3; tier++)
        for (int name = 0; name < 2; name++)
            cr_expect_eq(bytes_of(within(bench, "tiers"), tiers[tier], names[name]),
                         bytes_of(within(train, "tiers"), tiers[tier], names[name]),
                         "%s of %s: %s", names[name], tiers[tier], words);
}

/* 1: it fits, and both say the same; 0: it does not, and both refuse. */
static int ask_both(const struct budget *budget)
{
    static const char same[] = "--json --seq 64 --batch 4 --micro-batch 2 --box box.json";
    char words[512];
    char text[1024];
    snprintf(text, sizeof text, box, budget->store);
    strata_workshop_write_text(&dir, "box.json", text);
    snprintf(words, sizeof words, "plan %s --model %s --device-mem %s --ram %s", same,
             budget->model, budget->device, budget->host);
    strata_program_run(&result, &dir, program("STRATA_BENCH_PROGRAM", STRATA_BENCH_PROGRAM),
                       words);
    strata_json *bench = document();
    snprintf(words, sizeof words,
             "%s --dry-run --device host --threads 2 --data text --model %s --device-mem %s "
             "--host-mem %s%s",
             same, budget->model, budget->device, budget->host,
             budget->store ? " --store store --nvme-mem 3840000000000" : "");
    strata_program_run(&result, &dir, program("STRATA_TRAIN_PROGRAM", STRATA_TRAIN_PROGRAM),
                       words);
    bool fits = false;
    const strata_json *answer = within(bench, "answer");
    cr_assert_eq(strata_json_get_bool(answer, "fits", &fits, NULL), STRATA_OK);
    cr_expect_eq(result.code, fits ? 0 : 1, "%s: %s", words, result.err);
    if (fits && result.code == 0) {
        strata_json *train = document();
        compare(answer, within(train, "plan"), words);
        strata_json_free(train);
    }
    strata_json_free(bench);
    return fits;
}

Test(plan, both_programs_name_the_same_bytes)
{
    const int count = sizeof budgets / sizeof budgets[0];
    int fit = 0;
    strata_workshop_make(&dir);
    for (int i = 0; i < count; i++)
        fit += ask_both(&budgets[i]);
    cr_expect(fit >= 4 && fit < count, "%d of %d fit", fit, count);
    cr_expect_eq(strata_workshop_store_count(&dir), 0);
    strata_temp_dir_remove(&dir);
}
