/*
 * The trace: what is added is what a reader of the file finds.
 */

#include "base/trace.h"

#include "base/json.h"
#include "tests/support/suite_dir.h"

#include <stdio.h>
#include <string.h>

static char path[PATH_MAX + 16];

static void set_up(void)
{
    make_dir();
    snprintf(path, sizeof path, "%s/trace.json", dir.path);
}

TestSuite(trace, .init = set_up, .fini = remove_dir);

static const char *group_name(void *user, uint32_t group)
{
    (void)user;
    return group == 0 ? "a \"quoted\\ name" : "b";
}

/* The trace as a document; freed by the caller. */
static strata_json *written(const struct trace *trace)
{
    static const char *const rows[] = {"cpu", "drive 0 read"};
    struct trace_desc desc = {
        .rows = rows, .row_count = 2, .title = "test", .group_name = group_name};
    strata_json *json = NULL;
    strata_error error = {0};
    cr_assert_eq(strata_trace_write(trace, path, &desc, &error), STRATA_OK, "%s",
                 error.message);
    cr_assert_eq(strata_json_read_file(&json, path, &error), STRATA_OK, "%s", error.message);
    return json;
}

/* Events whose member has this text. */
static uint32_t count_of(const strata_json *json, const char *key, const char *text)
{
    const strata_json *events;
    uint32_t count = 0;
    cr_assert_eq(strata_json_get_array(json, "traceEvents", &events, NULL), STRATA_OK);
    for (size_t i = 0; i < strata_json_count(events); i++) {
        const char *value;
        if (strata_json_has(strata_json_at(events, i), key) &&
            strata_json_get_string(strata_json_at(events, i), key, &value, NULL) == STRATA_OK &&
            strcmp(value, text) == 0)
            count++;
    }
    return count;
}

Test(trace, spans_rows_and_arrows_are_in_the_file)
{
    struct trace *trace;
    cr_assert_eq(strata_trace_create(&trace, 8, NULL), STRATA_OK);
    const enum trace_role roles[] = {TRACE_GRADIENT, TRACE_UPDATE, TRACE_USE, TRACE_PLAIN};
    for (uint32_t i = 0; i < 4; i++) {
        struct trace_event event = {.what = "op",
                                    .start_ns = 1000 * (i + 1),
                                    .end_ns = 1000 * (i + 2),
                                    .row = i % 2,
                                    .group = 0,
                                    .tile = 7,
                                    .role = roles[i]};
        strata_trace_add(trace, &event);
    }
    strata_json *json = written(trace);
    cr_expect_eq(count_of(json, "ph", "X"), 4);
    cr_expect_eq(count_of(json, "name", "op a \"quoted\\ name #7"), 4);
    cr_expect_eq(count_of(json, "ph", "s"), 2, "an arrow to the update, one from it");
    cr_expect_eq(count_of(json, "ph", "f"), 2);
    cr_expect_eq(count_of(json, "name", "thread_name"), 2);
    strata_json_free(json);
    strata_trace_destroy(trace);
}

Test(trace, what_does_not_fit_is_counted)
{
    struct trace *trace;
    const strata_json *other;
    uint64_t left_out;
    cr_assert_eq(strata_trace_create(&trace, 2, NULL), STRATA_OK);
    for (uint32_t i = 0; i < 5; i++)
        strata_trace_add(trace, &(struct trace_event){.what = "op",
                                                      .start_ns = i,
                                                      .end_ns = i + 1,
                                                      .group = UINT32_MAX,
                                                      .tile = UINT32_MAX});
    strata_json *json = written(trace);
    cr_expect_eq(count_of(json, "ph", "X"), 2);
    cr_assert_eq(strata_json_get_object(json, "otherData", &other, NULL), STRATA_OK);
    cr_assert_eq(strata_json_get_uint(other, "events_left_out", &left_out, NULL), STRATA_OK);
    cr_expect_eq(left_out, 3);
    strata_json_free(json);
    strata_trace_destroy(trace);
}
