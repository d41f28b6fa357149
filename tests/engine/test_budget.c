/*
 * Budgets are hard: the formula's minimum runs, one byte less is refused before anything is
 * written, and the refusal names tier, need and have.
 */

#include "io/store_file.h"
#include "tests/support/suite_dir.h"
#include "tests/support/toy.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

TestSuite(budget, .init = make_dir, .fini = remove_empty_dir);

static struct toy_run all_on_nvme(void)
{
    struct toy_run run = strata_toy_homes(STRATA_NVME, STRATA_NVME, STRATA_NVME);
    run.clip = 1;
    run.dir = dir.path;
    return run;
}

static strata_plan planned(const struct toy_run *run)
{
    strata_plan plan;
    strata_error error = {0};
    cr_assert_eq(strata_toy_plan(run, &plan, &error), STRATA_OK, "%s", error.message);
    return plan;
}

static struct toy_run at_minimum(void)
{
    struct toy_run run = all_on_nvme();
    run.device_bytes = planned(&run).tiers[STRATA_DEVICE].need_bytes;
    run.host_bytes = planned(&run).tiers[STRATA_HOST].need_bytes;
    run.nvme_bytes = planned(&run).tiers[STRATA_NVME].need_bytes;
    return run;
}

static void refused(const struct toy_run *run, const char *tier, uint64_t need)
{
    char number[24];
    struct toy_result result = strata_toy_run(run);
    cr_expect_eq(result.status, STRATA_E_NOMEM, "%s", strata_status_name(result.status));
    cr_expect(strstr(result.error.message, tier) == result.error.message, "%s",
              result.error.message);
    snprintf(number, sizeof number, "%llu", (unsigned long long)need);
    cr_expect_not_null(strstr(result.error.message, number), "%s: no %s", result.error.message,
                       number);
    snprintf(number, sizeof number, "%llu", (unsigned long long)need - 1);
    cr_expect_not_null(strstr(result.error.message, number), "%s: no %s", result.error.message,
                       number);
    cr_expect_eq(strata_temp_dir_count(dir.path), 0);
}

Test(budget, the_minimum_is_enough)
{
    struct toy_run run = at_minimum();
    struct toy_result result = strata_toy_run(&run);
    cr_assert_eq(result.status, STRATA_OK, "%s", result.error.message);
    cr_expect_leq(result.stats.device_peak_bytes, run.device_bytes);
    cr_expect_leq(result.stats.host_peak_bytes, run.host_bytes);
    cr_expect_leq(result.stats.nvme_bytes, run.nvme_bytes);
}

Test(budget, one_byte_less_of_device_is_refused)
{
    struct toy_run run = at_minimum();
    refused(&(struct toy_run){.params = run.params,
                              .grads = run.grads,
                              .states = run.states,
                              .stash = run.stash,
                              .clip = 1,
                              .dir = dir.path,
                              .device_bytes = run.device_bytes - 1},
            "device", run.device_bytes);
}

Test(budget, one_byte_less_of_host_is_refused)
{
    struct toy_run run = at_minimum();
    uint64_t need = run.host_bytes;
    run.host_bytes--;
    refused(&run, "host", need);
}

Test(budget, one_byte_less_of_nvme_is_refused)
{
    struct toy_run run = at_minimum();
    uint64_t need = run.nvme_bytes;
    run.nvme_bytes--;
    refused(&run, "nvme", need);
}

/* The device's minimum by hand, from the formula of include/strata/plan.h: group 0 alone needs
 * the most of a single group, 7 x 16,384 elements in w + 4 + w bytes. */
Test(budget, device_minimum_is_the_formula)
{
    struct toy_run run = all_on_nvme();
    uint64_t largest = 0;
    struct toy toy;
    strata_toy_make(&toy);
    for (uint32_t g = 0; g < TOY_GROUPS; g++) {
        uint64_t elems = toy.tensors[g][0].shape[0] + toy.tensors[g][1].shape[0];
        uint64_t padded =
            (elems + STRATA_BLOCK_ELEMS - 1) / STRATA_BLOCK_ELEMS * STRATA_BLOCK_ELEMS;
        largest = padded > largest ? padded : largest;
    }
    uint64_t activation = TOY_ACTIVATION * sizeof(float);
    cr_expect_eq(planned(&run).tiers[STRATA_DEVICE].need_bytes,
                 2 * activation + largest * (2 + 4 + 2));
}

Test(budget, every_budget_is_kept_from_the_minimum_up)
{
    struct toy_run least = at_minimum();
    for (uint64_t extra = 0; extra < (12u << 20); extra += 1u << 20) {
        struct toy_run run = {.clip = 1,
                              .steps = 1,
                              .dir = dir.path,
                              .device_bytes = least.device_bytes + extra / 3,
                              .host_bytes = least.host_bytes + extra};
        struct toy_result result = strata_toy_run(&run);
        cr_assert_eq(result.status, STRATA_OK, "%s", result.error.message);
        cr_expect_leq(result.stats.device_peak_bytes, run.device_bytes);
        cr_expect_leq(result.stats.host_peak_bytes, run.host_bytes);
    }
}

/* Does any way to name what is left to AUTO fit these budgets? */
static bool feasible(const struct toy_run *run)
{
    for (int i = 0; i < 81; i++) {
        struct toy_run named = *run;
        strata_plan plan;
        strata_error error = {0};
        named.params = (strata_tier)(1 + i % 3);
        named.grads = (strata_tier)(1 + i / 3 % 3);
        named.states = (strata_tier)(1 + i / 9 % 3);
        named.stash = (strata_tier)(1 + i / 27);
        if (run->stash != STRATA_AUTO && run->stash != named.stash)
            continue;
        if (strata_toy_plan(&named, &plan, &error) == STRATA_OK)
            return true;
    }
    return false;
}

Test(budget, auto_refuses_only_what_nobody_could_place)
{
    for (uint64_t i = 0; i < 150; i++) {
        uint8_t bytes[8];
        uint64_t state = (i + 1) * 6364136223846793005u;
        memcpy(bytes, &state, sizeof bytes);
        struct toy_run run = {.clip = 1,
                              .dir = dir.path,
                              .dtype = bytes[4] % 2 ? STRATA_FP32 : STRATA_BF16,
                              .stash = (strata_tier)(bytes[5] % 3),
                              .device_bytes = (1u << 20) + bytes[6] * 24000u,
                              .host_bytes = (3u << 20) + bytes[7] * 28000u,
                              .nvme_bytes = bytes[3] % 3 ? 64u << 20 : (4u + i % 5) << 20};
        strata_plan plan;
        strata_error error = {0};
        strata_status status = strata_toy_plan(&run, &plan, &error);
        cr_assert(status == STRATA_OK || !feasible(&run), "case %llu: %s",
                  (unsigned long long)i, error.message);
    }
}

Test(budget, nvme_without_a_store_is_refused)
{
    struct toy_run run = {.states = STRATA_NVME};
    struct toy_result result = strata_toy_run(&run);
    cr_expect_eq(result.status, STRATA_E_INVALID);
    cr_expect_not_null(strstr(result.error.message, "store"), "%s", result.error.message);
}

Test(budget, too_little_host_without_a_store_names_host)
{
    struct toy_run run = {.host_bytes = 1u << 20, .device_bytes = 4u << 20};
    struct toy_result result = strata_toy_run(&run);
    cr_expect_eq(result.status, STRATA_E_NOMEM);
    cr_expect_not_null(strstr(result.error.message, "host memory"), "%s", result.error.message);
}

Test(budget, states_in_the_device_need_the_rest_there)
{
    struct toy_run run = {.states = STRATA_DEVICE, .params = STRATA_HOST};
    struct toy_result result = strata_toy_run(&run);
    cr_expect_eq(result.status, STRATA_E_INVALID, "%s", result.error.message);
}

Test(budget, a_missing_store_directory_is_an_io_error)
{
    struct toy_run run = {.dir = "/nowhere/at/all"};
    struct toy_result result = strata_toy_run(&run);
    cr_expect_eq(result.status, STRATA_E_IO);
    cr_expect_eq(result.error.native, 2);
}

/* 16 kept commits, the last one, the next one and a slot to write ahead to: 19 in all. */
Test(budget, sixteen_commits_are_kept_and_seventeen_refused)
{
    struct toy_run run = {.clip = 1,
                          .dir = dir.path,
                          .states = STRATA_NVME,
                          .durability = STRATA_DURABLE_PROCESS,
                          .commit_every = 2,
                          .keep = 16,
                          .keep_every = 2,
                          .nvme_bytes = 256u << 20};
    uint64_t nineteen = planned(&run).tiers[STRATA_NVME].need_bytes;
    struct toy_run one_each = run;
    one_each.commit_every = 1;
    cr_expect_lt(planned(&one_each).tiers[STRATA_NVME].need_bytes, nineteen,
                 "no slot is planned for writing ahead");
    struct toy_result result = strata_toy_run(&run);
    cr_expect_eq(result.status, STRATA_OK, "%s", result.error.message);
    char path[PATH_MAX + 16];
    snprintf(path, sizeof path, "%s/" STRATA_STORE_FILE_NAME, dir.path);
    cr_expect_eq(unlink(path), 0);
    run.keep = 17;
    result = strata_toy_run(&run);
    cr_expect_eq(result.status, STRATA_E_INVALID);
    cr_expect_str_eq(result.error.message, "keep 17 commits: at most 16");
}
