#ifndef STRATA_TESTS_CHECKS_H
#define STRATA_TESTS_CHECKS_H

/*
 * What several Criterion tests do in the same words: find a program, read a document, skip.
 * In a header of its own, since program.h serves tests without Criterion too.
 *
 * Thread: one.
 */

#include "tests/support/program.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

/* Skip with a reason; a failure where the environment says that nothing may be skipped. */
static inline void strata_skip(const char *why)
{
    const char *strict = getenv("STRATA_TEST_FAIL_ON_SKIP");
    cr_assert(strict == NULL || strcmp(strict, "1") != 0, "%s", why);
    cr_skip("%s", why);
}

static inline const char *strata_train_program(void)
{
    const char *path = strata_program_path("STRATA_TRAIN_PROGRAM", STRATA_TRAIN_PROGRAM);
    cr_assert_not_null(path, "STRATA_TRAIN_PROGRAM does not name the program");
    return path;
}

static inline const char *strata_bench_program(void)
{
    const char *path = strata_program_path("STRATA_BENCH_PROGRAM", STRATA_BENCH_PROGRAM);
    cr_assert_not_null(path, "STRATA_BENCH_PROGRAM does not name the program");
    return path;
}

/* The document in a text; the caller frees it. */
static inline strata_json *strata_parse(const char *text, size_t length)
{
    strata_json *document = NULL;
    strata_error error = {0};
    cr_assert_eq(strata_json_read_text(&document, text, length, &error), STRATA_OK, "%s: '%s'",
                 error.message, text);
    return document;
}

static inline double strata_number(const strata_json *object, const char *key)
{
    double value = 0;
    strata_error error = {0};
    cr_assert_eq(strata_json_get_number(object, key, &value, &error), STRATA_OK, "%s",
                 error.message);
    return value;
}

#endif
