#ifndef STRATA_TESTS_IO_COMMIT_CHECK_H
#define STRATA_TESTS_IO_COMMIT_CHECK_H

/*
 * What test_commit.c and test_resume.c share: a run driven to a step, and what it must have.
 *
 * Thread: one.
 */

#include "tests/support/commit_rig.h"

#include <criterion/criterion.h>

static inline void open_rig(struct commit_rig *rig)
{
    strata_error error = {.status = STRATA_OK};
    cr_assert(strata_commit_rig_open(rig, &error) == STRATA_OK, "%s", error.message);
}

static inline void make_rig(struct commit_rig *rig, uint32_t drive_count, uint32_t keep)
{
    strata_commit_rig_make(rig, drive_count, STRATA_IO_URING, false);
    strata_commit_rig_keep(rig, keep, 2);
}

static inline void run_to(struct commit_rig *rig, uint64_t step)
{
    while (rig->step < step)
        cr_assert(strata_commit_rig_step(rig) == STRATA_OK, "%s",
                  strata_store_error(rig->store)->message);
}

static inline void reopen(struct commit_rig *rig)
{
    strata_commit_rig_close(rig);
    open_rig(rig);
}

/* A store that was run to this step and closed. */
static inline void leave_at(struct commit_rig *rig, uint32_t drive_count, uint32_t keep,
                            uint64_t step)
{
    make_rig(rig, drive_count, keep);
    open_rig(rig);
    run_to(rig, step);
    strata_commit_rig_close(rig);
}

static inline void expect_whole(struct commit_rig *rig)
{
    bool same = false;
    cr_expect(strata_commit_rig_check(rig, &same) == STRATA_OK, "%s",
              strata_store_error(rig->store)->message);
    cr_expect(same);
}

static inline void expect_list(const struct commit_rig *rig, uint32_t count,
                               const uint64_t *steps)
{
    cr_expect(rig->listed.count == count, "%d lines", (int)rig->listed.count);
    for (uint32_t i = 0; i < count && i < rig->listed.count; i++)
        cr_expect(rig->listed.steps[i] == steps[i], "line %d: step %d", (int)i,
                  (int)rig->listed.steps[i]);
}

#define EXPECT_LIST(rig, ...)                                                                  \
    expect_list((rig), sizeof((uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t),                   \
                (uint64_t[]){__VA_ARGS__})

#endif
