#define _GNU_SOURCE
/*
 * What a run tells: the live line fits any terminal, a log line is one JSON document that gives
 * the numbers back bit by bit.
 */

#include "train/log.h"
#include "train/report.h"
#include "tests/support/checks.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct trainer_step sample(void)
{
    struct trainer_step step = {.step = 41,
                                .loss = 3.0000000000000004,
                                .grad_norm = 0.1,
                                .loss_scale = 1024,
                                .updates = 40,
                                .lr = 1e-3,
                                .seconds = 0.5,
                                .exposed_s = 0.125,
                                .tokens_per_s = 1024,
                                .total = {.device_peak_bytes = 16777216,
                                          .host_peak_bytes = 100663296,
                                          .nvme_bytes = 318767104}};
    for (int lane = 0; lane < STRATA_LANE_COUNT; lane++)
        step.lanes[lane] = (strata_lane_stats){.busy_ns = 100000000ull * (uint64_t)lane,
                                               .bytes = 1000ull * (uint64_t)lane};
    return step;
}

static struct report drawing(bool blocks)
{
    return (struct report){.live = true, .blocks = blocks, .steps = 80, .mean_s = 0.5};
}

/* Columns of a text: bytes that begin a character. */
static uint32_t columns_of(const char *text)
{
    uint32_t columns = 0;
    for (; *text != '\0'; text++)
        columns += ((unsigned char)*text & 0xc0) != 0x80;
    return columns;
}

Test(report, the_live_line_fits_every_width)
{
    struct trainer_step step = sample();
    for (int blocks = 0; blocks < 2; blocks++) {
        struct report report = drawing(blocks != 0);
        for (uint32_t width = 1; width <= 300; width++) {
            char text[1024];
            size_t length = strata_report_live_text(&report, &step, width, text, sizeof text);
            cr_assert_eq(length, strlen(text));
            cr_assert_lt(columns_of(text), width, "%u columns: '%s'", width, text);
        }
    }
}

Test(report, eighty_columns_show_everything)
{
    struct trainer_step step = sample();
    for (int blocks = 0; blocks < 2; blocks++) {
        struct report report = drawing(blocks != 0);
        char text[1024];
        strata_report_live_text(&report, &step, 80, text, sizeof text);
        const char *const parts[] = {"step 41/80", "loss 3.0000", "1024 tok/s", "rd",
                                     "wr",         "h2d",         "d2h",        "cpu",
                                     "dev",        "0:20 left"};
        for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
            cr_assert_not_null(strstr(text, parts[i]), "'%s' lacks '%s'", text, parts[i]);
    }
}

/* The line of the host tier in the plan's table. */
static void host_line(const strata_plan *plan, char *out, size_t bytes)
{
    char line[256];
    FILE *file = tmpfile();
    cr_assert_not_null(file);
    strata_report_tiers(file, plan);
    rewind(file);
    out[0] = '\0';
    while (fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, "host", 4) == 0)
            snprintf(out, bytes, "%s", line);
    fclose(file);
}

Test(report, the_plans_table_says_how_much_of_the_weights_is_frozen)
{
    strata_plan plan = {0};
    char line[256];
    strata_plan_tier *host = &plan.tiers[STRATA_HOST];
    host->limit_bytes = (uint64_t)1 << 30;
    host->home_bytes[STRATA_PARAM] = 96 << 20;
    host->home_bytes[STRATA_GRAD] = 32 << 20;
    host_line(&plan, line, sizeof line);
    cr_expect_not_null(strstr(line, "   weights 96.0 MiB, gradients 32.0 MiB\n"), "%s", line);
    host->frozen_bytes = 64 << 20;
    host_line(&plan, line, sizeof line);
    cr_expect_not_null(
        strstr(line, "   weights 96.0 MiB (64.0 MiB frozen), gradients 32.0 MiB\n"), "%s",
        line);
}

Test(report, bars_show_the_share_of_the_step)
{
    struct trainer_step step = sample();
    struct report report = drawing(false);
    char text[1024];
    /* Lane n was busy n x 0.1 s of 0.5 s. */
    strata_report_live_text(&report, &step, 200, text, sizeof text);
    cr_assert_not_null(strstr(text, " rd|        |"), "%s", text);
    cr_assert_not_null(strstr(text, " d2h|####:   |"), "%s", text);
    cr_assert_not_null(strstr(text, " dev|########|"), "%s", text);
}

Test(report, a_lane_busier_than_the_step_and_a_step_of_no_time_draw_full_bars_at_most)
{
    struct trainer_step step = sample();
    struct report report = drawing(true);
    char text[1024];
    step.seconds = 1e-9;
    strata_report_live_text(&report, &step, 200, text, sizeof text);
    cr_assert_lt(columns_of(text), 200);
    step.seconds = 0;
    strata_report_live_text(&report, &step, 200, text, sizeof text);
    cr_assert_lt(columns_of(text), 200);
}

Test(log, a_line_gives_every_number_back)
{
    struct trainer_step step = sample();
    char line[LOG_LINE_BYTES];
    size_t length = strata_log_format(line, sizeof line, &step, NULL);
    cr_assert_eq(line[length - 1], '\n');
    cr_assert_eq(strchr(line, '\n') - line, (ptrdiff_t)length - 1);
    strata_json *document = strata_parse(line, length);
    cr_assert_eq(strata_number(document, "step"), 41);
    cr_assert_eq(strata_number(document, "loss"), step.loss);
    cr_assert_eq(strata_number(document, "grad_norm"), step.grad_norm);
    cr_assert_eq(strata_number(document, "loss_scale"), 1024);
    cr_assert_eq(strata_number(document, "updates"), 40);
    cr_assert_eq(strata_number(document, "lr"), step.lr);
    cr_assert_eq(strata_number(document, "tokens_per_s"), 1024);
    cr_assert_eq(strata_number(document, "step_s"), 0.5);
    cr_assert_eq(strata_number(document, "exposed_s"), 0.125);
    cr_assert_eq(strata_number(document, "device_peak_bytes"), 16777216);
    cr_assert_eq(strata_number(document, "host_peak_bytes"), 100663296);
    cr_assert_eq(strata_number(document, "nvme_bytes"), 318767104);
    cr_assert_not(strata_json_has(document, "state_hash"));
    const strata_json *lanes = NULL;
    cr_assert_eq(strata_json_get_object(document, "lanes", &lanes, NULL), STRATA_OK);
    for (int lane = 0; lane < STRATA_LANE_COUNT; lane++) {
        const strata_json *one = NULL;
        cr_assert_eq(
            strata_json_get_object(lanes, strata_lane_name((strata_lane)lane), &one, NULL),
            STRATA_OK);
        cr_assert_float_eq(strata_number(one, "busy_s"), 0.1 * lane, 1e-9);
        cr_assert_eq(strata_number(one, "bytes"), 1000.0 * lane);
    }
    strata_json_free(document);
}

Test(log, a_skipped_step_has_no_norm)
{
    struct trainer_step step = sample();
    char line[LOG_LINE_BYTES];
    step.skipped = true;
    step.grad_norm = INFINITY;
    size_t length = strata_log_format(line, sizeof line, &step, NULL);
    strata_json *document = strata_parse(line, length);
    cr_assert_not_null(strstr(line, "\"grad_norm\":null,\"skipped\":true,"), "%s", line);
    strata_json_free(document);
}

Test(log, the_longest_line_fits_its_buffer)
{
    struct trainer_step step = sample();
    step.step = UINT64_MAX;
    step.updates = UINT64_MAX;
    step.loss = step.grad_norm = step.lr = step.loss_scale = -1.2345678901234567e-300;
    step.seconds = step.exposed_s = step.tokens_per_s = -1.23456789e-300;
    step.total.device_peak_bytes = step.total.host_peak_bytes = step.total.nvme_bytes =
        UINT64_MAX;
    for (int lane = 0; lane < STRATA_LANE_COUNT; lane++)
        step.lanes[lane] = (strata_lane_stats){.busy_ns = UINT64_MAX, .bytes = UINT64_MAX};
    char line[LOG_LINE_BYTES];
    size_t length =
        strata_log_format(line, sizeof line, &step, "0123456789abcdef0123456789abcdef");
    cr_assert_lt(length, sizeof line - 1);
    cr_assert_not_null(strstr(line, "\"state_hash\":\"0123456789abcdef0123456789abcdef\"}\n"));
}

Test(log, a_buffer_that_is_too_small_is_never_overrun)
{
    struct trainer_step step = sample();
    char line[LOG_LINE_BYTES];
    for (size_t bytes = 1; bytes < 700; bytes++) {
        memset(line, '~', sizeof line);
        size_t length = strata_log_format(line, bytes, &step, NULL);
        cr_assert_lt(length, bytes);
        cr_assert_eq(line[bytes], '~');
    }
}

Test(log, no_path_means_no_log)
{
    struct log log = {0};
    struct trainer_step step = sample();
    cr_assert_eq(strata_log_check(&log, NULL, NULL), STRATA_OK);
    cr_assert_eq(strata_log_start(&log, NULL), STRATA_OK);
    cr_assert_eq(strata_log_step(&log, &step, NULL, NULL), STRATA_OK);
    strata_log_close(&log);
}

static char log_path[64];

static void name_log(void)
{
    sprintf(log_path, "/tmp/strata-log-%d", (int)getpid());
}

static void remove_log(void)
{
    unlink(log_path);
}

TestSuite(continued_log, .init = name_log, .fini = remove_log);

/* A log of this text, continued at a step; then a line for step 9 is added. */
static void cut(const char *text, uint64_t step, const char *expected)
{
    struct log log = {.path = log_path, .file = -1};
    strata_error error = {0};
    static char left[16384];
    FILE *file = fopen(log_path, "we");
    cr_assert_not_null(file);
    fputs(text, file);
    fclose(file);
    log.file = open(log_path, O_WRONLY | O_APPEND | O_CLOEXEC);
    cr_assert_eq(strata_log_resume(&log, step, &error), STRATA_OK, "%s", error.message);
    cr_assert_eq(strata_log_nothing_left(&log, 9, NULL, &error), STRATA_OK);
    strata_log_close(&log);
    file = fopen(log_path, "re");
    left[fread(left, 1, sizeof left - 1, file)] = '\0';
    fclose(file);
    size_t kept = strlen(expected);
    cr_assert(strncmp(left, expected, kept) == 0 && strcmp(left + kept, "{\"step\":9}\n") == 0,
              "step %d of '%s': '%s'", (int)step, text, left);
}

#define ONE   "{\"step\":1,\"loss\":5}\n"
#define TWO   "{\"step\": 2, \"loss\": 4}\n"
#define THREE "{\"step\":3,\"loss\":3}\n"

Test(continued_log, ends_after_the_last_whole_line_at_or_before_the_step)
{
    cut(ONE TWO THREE, 3, ONE TWO THREE);
    cut(ONE TWO THREE, 7, ONE TWO THREE);
    cut(ONE TWO THREE, 2, ONE TWO);
    cut(ONE TWO THREE, 1, ONE);
    cut(ONE TWO THREE, 0, "");
    cut("", 3, "");
    /* The line of step 2 is missing: it was never written. */
    cut(ONE THREE, 2, ONE);
}

Test(continued_log, loses_what_was_torn)
{
    cut(ONE TWO "{\"step\":3,\"lo", 3, ONE TWO);
    cut(ONE TWO "{\"step\":3,\"loss\":3}", 3, ONE TWO);
    cut(ONE TWO "{\"step\":3,\"lo\n", 3, ONE TWO);
    cut("{\"step\":1", 3, "");
    cut(ONE "no line of a log\n" TWO "\n\n", 3, ONE "no line of a log\n" TWO);
}

Test(continued_log, passes_over_a_line_longer_than_its_buffer)
{
    static char text[3 * LOG_LINE_BYTES + 256];
    for (size_t longer = LOG_LINE_BYTES - 2; longer < 3 * LOG_LINE_BYTES; longer += 511) {
        char *at = stpcpy(text, ONE TWO);
        memset(at, '{', longer);
        strcpy(at + longer, "\n");
        cut(text, 5, ONE TWO);
        strcpy(at + longer, "\n" THREE);
        cut(text, 2, ONE TWO);
    }
}

Test(continued_log, is_made_where_there_is_none)
{
    struct log log = {.path = log_path, .file = -1};
    strata_error error = {0};
    cr_assert_eq(strata_log_resume(&log, 5, &error), STRATA_OK, "%s", error.message);
    cr_assert_eq(strata_log_nothing_left(&log, 5, "0123456789abcdef0123456789abcdef", NULL),
                 STRATA_OK);
    strata_log_close(&log);
    char text[256] = "";
    FILE *file = fopen(log_path, "re");
    cr_assert_not_null(file);
    cr_assert_not_null(fgets(text, sizeof text, file));
    fclose(file);
    cr_assert_str_eq(text,
                     "{\"step\":5,\"state_hash\":\"0123456789abcdef0123456789abcdef\"}\n");
}
