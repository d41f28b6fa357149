#ifndef STRATA_TESTS_IO_COMMIT_CHECK_H
#define STRATA_TESTS_IO_COMMIT_CHECK_H

/*
 * What the tests of a durable store share: a run driven to a step, what it must have, and bytes
 * of its files that are read, compared and damaged while it is closed.
 *
 * Thread: one.
 */

#include "tests/support/commit_rig.h"

#include <criterion/criterion.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

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

/* Close it, and go on from this commit. */
static inline void go_on_from(struct commit_rig *rig, uint64_t step)
{
    rig->records.resume_step = step;
    reopen(rig);
}

/* Close it, and go on from the newest commit. */
static inline void go_on_from_newest(struct commit_rig *rig)
{
    go_on_from(rig, UINT64_MAX);
}

/* Run it to this step, close it, and go on. */
static inline void run_and_reopen(struct commit_rig *rig, uint64_t step)
{
    run_to(rig, step);
    reopen(rig);
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

/* At the end of a test: every record has its bytes, and the store is removed. */
static inline void remove_whole(struct commit_rig *rig)
{
    expect_whole(rig);
    strata_commit_rig_remove(rig);
}

/* Open it, find where its parts are, close it. */
static inline void find_places(struct commit_rig *rig, struct commit_places *out)
{
    open_rig(rig);
    strata_commit_rig_find(rig, out);
    strata_commit_rig_close(rig);
}

/* A store that was run to this step and closed, and where its parts are. */
static inline void leave_and_find(struct commit_rig *rig, struct commit_places *out,
                                  uint32_t drive_count, uint32_t keep, uint64_t step)
{
    leave_at(rig, drive_count, keep, step);
    find_places(rig, out);
}

static inline int open_file(const struct commit_rig *rig, uint32_t drive)
{
    char path[PATH_MAX + 32];
    int fd = open(strata_commit_rig_file(rig, drive, path), O_RDWR | O_CLOEXEC);
    cr_assert(fd >= 0, "%s", path);
    return fd;
}

/* Of all its bytes. */
static inline struct hash128 file_hash(const struct commit_rig *rig, uint32_t drive)
{
    struct stat info;
    int fd = open_file(rig, drive);
    cr_assert(fstat(fd, &info) == 0);
    uint8_t *bytes = malloc((size_t)info.st_size);
    cr_assert(bytes != NULL && read(fd, bytes, (size_t)info.st_size) == info.st_size);
    struct hash128 hash = strata_hash(bytes, (size_t)info.st_size, 0);
    free(bytes);
    close(fd);
    return hash;
}

/* Change a bit of a file behind the store's back. */
static inline void damage(const struct commit_rig *rig, uint32_t drive, uint64_t offset)
{
    uint8_t byte;
    int fd = open_file(rig, drive);
    cr_assert(pread(fd, &byte, 1, (off_t)offset) == 1);
    byte ^= 8;
    cr_assert(pwrite(fd, &byte, 1, (off_t)offset) == 1 && fsync(fd) == 0);
    close(fd);
}

/* The same in both copies of a record or table, so many bytes into each. */
static inline void damage_copies(const struct commit_rig *rig, uint32_t drive,
                                 const uint64_t places[STRATA_STORE_COPIES], uint64_t within)
{
    for (uint32_t copy = 0; copy < STRATA_STORE_COPIES; copy++)
        damage(rig, drive, places[copy] + within);
}

#define EXPECT_LIST(rig, ...)                                                                  \
    expect_list((rig), sizeof((uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t),                   \
                (uint64_t[]){__VA_ARGS__})

#endif
