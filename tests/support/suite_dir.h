#ifndef STRATA_TESTS_SUITE_DIR_H
#define STRATA_TESTS_SUITE_DIR_H

/*
 * A directory that each test of a suite has for itself.
 *
 *     TestSuite(name, .init = make_dir, .fini = remove_dir);
 *
 * Thread: one.
 */

#include "tests/support/temp_dir.h"

#include <criterion/criterion.h>

static struct temp_dir dir;

static inline void make_dir(void)
{
    strata_temp_dir_make(&dir);
}

static inline void remove_dir(void)
{
    strata_temp_dir_remove(&dir);
}

/* Where a test must leave nothing behind. */
static inline void remove_empty_dir(void)
{
    cr_expect_eq(strata_temp_dir_count(dir.path), 0, "something was left behind");
    remove_dir();
}

#endif
