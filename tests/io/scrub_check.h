#ifndef STRATA_TESTS_IO_SCRUB_CHECK_H
#define STRATA_TESTS_IO_SCRUB_CHECK_H

/*
 * A scrub of a rig's store, and the lines that it said.
 *
 * Thread: one.
 */

#include "strata/store.h"

#include "tests/support/commit_rig.h"

#include <criterion/criterion.h>

#include <stdio.h>

#define MAX_LINES 16

struct told {
    char lines[MAX_LINES][256];
    uint32_t count;
};

static inline void take_line(void *user, const char *line)
{
    struct told *told = user;
    cr_assert(told->count < MAX_LINES);
    snprintf(told->lines[told->count++], sizeof *told->lines, "%s", line);
}

static inline strata_status scrub(const struct commit_rig *rig, struct told *told,
                                  strata_scrub_result *out, strata_error *error)
{
    strata_scrub_desc desc = {.dirs = rig->dirs,
                              .dir_count = rig->desc.dir_count,
                              .on_bad = take_line,
                              .on_bad_user = told};
    *told = (struct told){.count = 0};
    *error = (strata_error){.status = STRATA_OK};
    return strata_store_scrub(out, &desc, error);
}

#endif
