#ifndef STRATA_TESTS_WORKSHOP_H
#define STRATA_TESTS_WORKSHOP_H

/*
 * The frame of a test that runs a program in a workshop (program.h) and looks at what it said.
 *
 *     TestSuite(name, .init = make_workshop, .fini = remove_workshop);
 *
 * Thread: one.
 */

#include "tests/support/checks.h"

static struct temp_dir dir;
static struct program_result result; /* of the latest run */

static inline void make_workshop(void)
{
    strata_workshop_make(&dir);
}

static inline void remove_workshop(void)
{
    strata_temp_dir_remove(&dir);
}

/* Run a program; it must end with this code. */
static inline void train(const char *words, int code)
{
    strata_program_run(&result, &dir, strata_train_program(), words);
    cr_assert_eq(result.code, code, "exit %d for '%s': %s", result.code, words, result.err);
}

static inline void bench(const char *words, int code)
{
    strata_program_run(&result, &dir, strata_bench_program(), words);
    cr_assert_eq(result.code, code, "exit %d for '%s': %s", result.code, words, result.err);
}

/* The latest run said one line on stderr, offload-train's, that has these words. */
static inline void expect_one_line(const char *says)
{
    char *end = strchr(result.err, '\n');
    cr_assert(strncmp(result.err, "offload-train: ", 15) == 0 && end != NULL && end[1] == '\0',
              "not one line: '%s'", result.err);
    cr_assert_not_null(strstr(result.err, says), "'%s' lacks '%s'", result.err, says);
}

/* The hash that the latest run printed. */
static inline const char *printed_hash(char out[33])
{
    const char *line = strstr(result.out, "\nstate  ");
    cr_assert_not_null(line, "no state hash in '%s'", result.out);
    memcpy(out, line + 8, 32);
    out[32] = '\0';
    return out;
}

#endif
