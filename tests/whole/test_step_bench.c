/*
 * offload-bench step on a small model: what its ratios stand on. Times decide nothing here.
 */

#include "tests/support/checks.h"

#include <stdlib.h>
#include <string.h>

/* A sample's steps. Ten move 20 GB in all; four show a sanitizer as much. */
#if defined(__SANITIZE_ADDRESS__)
#    define STEPS "4"
#    define AHEAD 0.25
#else
#    define STEPS "10"
#    define AHEAD 0.1
#endif

/* What is read ahead for the step after a sample counts in whichever of the two it falls: 8 of
 * the 10 groups at most, of the sample's steps. */
static const struct {
    const char *name;
    double tolerance;
} lanes[] = {
    {"nvme_read", AHEAD}, {"nvme_write", 0.01}, {"h2d", AHEAD}, {"d2h", 0.01}, {"cpu", 0.01}};

static double lane_bytes(const strata_json *ways, const char *way, const char *lane)
{
    const strata_json *at;
    strata_error error = {.status = STRATA_OK};
    double bytes = 0;
    cr_assert_eq(strata_json_get_object(ways, way, &at, &error), STRATA_OK);
    cr_assert_eq(strata_json_get_object(at, "lanes", &at, &error), STRATA_OK);
    cr_assert_eq(strata_json_get_object(at, lane, &at, &error), STRATA_OK);
    cr_assert_eq(strata_json_get_number(at, "bytes", &bytes, &error), STRATA_OK);
    return bytes;
}

Test(step_bench, all_ways_but_the_one_without_updates_move_the_same_bytes)
{
    static struct program_result result;
    struct temp_dir dir;
    strata_json *document = NULL;
    const strata_json *cases;
    const strata_json *ways;
    strata_error error = {.status = STRATA_OK};
    const char *path = strata_bench_program();
    strata_workshop_make(&dir);
    strata_program_run(&result, &dir, path,
                       "step --store store --groups 10 --steps " STEPS
                       " --repetitions 1 --case nvme --json");
    int left = strata_workshop_store_count(&dir);
    strata_temp_dir_remove(&dir);
    if (strstr(result.err, "io_uring") != NULL || strstr(result.err, "O_DIRECT") != NULL) {
        strata_skip(result.err);
    }
    cr_assert_eq(result.code, 0, "%s", result.err);
    cr_expect_eq(left, 0, "stores are removed");
    cr_assert_eq(strata_json_read_text(&document, result.out, strlen(result.out), &error),
                 STRATA_OK, "%s", error.message);
    cr_assert_eq(strata_json_get_array(document, "cases", &cases, &error), STRATA_OK);
    cr_assert_eq(strata_json_count(cases), 1);
    cr_assert_eq(strata_json_get_object(strata_json_at(cases, 0), "ways", &ways, &error),
                 STRATA_OK);
    for (size_t i = 0; i < sizeof lanes / sizeof *lanes; i++) {
        const char *lane = lanes[i].name;
        double want = lane_bytes(ways, "overlapped", lane);
        double slack = lanes[i].tolerance * want;
        cr_expect_gt(want, 0, "%s", lane);
        cr_expect_float_eq(lane_bytes(ways, "free", lane), want, slack, "%s", lane);
        cr_expect_float_eq(lane_bytes(ways, "in_turn", lane), want, slack, "%s", lane);
    }
    cr_expect_eq(lane_bytes(ways, "no_updates", "nvme_write"), 0);
    strata_json_free(document);
}
