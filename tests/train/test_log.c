#define _GNU_SOURCE
/*
 * A commit waits for its step's line in the log, and the line is on the drive before it counts.
 *
 * fdatasync is wrapped: it notes how long the file was when it was flushed.
 */

#include "train/log.h"

#include "tests/support/temp_dir.h"

#include <criterion/criterion.h>

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct temp_dir dir;
static char path[PATH_MAX + 16];
static struct log log_of;
static strata_error error;

static _Atomic int flushes;
static _Atomic off_t flushed_bytes;
static _Atomic int flush_errno; /* 0: it works */

int __wrap_fdatasync(int fd);

int __wrap_fdatasync(int fd)
{
    struct stat info;
    cr_assert(fstat(fd, &info) == 0);
    flushed_bytes = info.st_size;
    flushes++;
    errno = flush_errno;
    return flush_errno != 0 ? -1 : 0;
}

static void set_up(void)
{
    strata_temp_dir_make(&dir);
    snprintf(path, sizeof path, "%s/log.jsonl", dir.path);
}

static void tear_down(void)
{
    strata_log_close(&log_of);
    strata_temp_dir_remove(&dir);
}

TestSuite(log_flush, .init = set_up, .fini = tear_down);

static void start_log(const char *name)
{
    error = (strata_error){.status = STRATA_OK};
    cr_assert(strata_log_check(&log_of, name, &error) == STRATA_OK, "%s", error.message);
    cr_assert(strata_log_flush(&log_of, 0, &error) == STRATA_OK, "%s", error.message);
    cr_assert(flushes == 0, "nothing is there yet");
    cr_assert(strata_log_start(&log_of, &error) == STRATA_OK, "%s", error.message);
}

static void write_step(uint64_t step)
{
    const struct trainer_step done = {.step = step};
    cr_assert(strata_log_step(&log_of, &done, NULL, &error) == STRATA_OK, "%s", error.message);
}

static off_t file_bytes(void)
{
    struct stat info;
    cr_assert(stat(path, &info) == 0);
    return info.st_size;
}

/* A committing thread. */
struct commit {
    pthread_t thread;
    uint64_t step;
    strata_status status;
    strata_error error;
    _Atomic bool done;
};

static void *flush_log(void *user)
{
    struct commit *commit = user;
    commit->status = strata_log_flush(&log_of, commit->step, &commit->error);
    commit->done = true;
    return NULL;
}

static void begin_commit(struct commit *out, uint64_t step)
{
    *out = (struct commit){.step = step};
    cr_assert(pthread_create(&out->thread, NULL, flush_log, out) == 0);
}

static void end_commit(struct commit *commit)
{
    cr_assert(pthread_join(commit->thread, NULL) == 0);
}

Test(log_flush, a_commit_waits_for_its_line_and_flushes_it)
{
    struct commit commit;
    start_log(path);
    write_step(1);
    begin_commit(&commit, 2);
    usleep(20000);
    cr_expect(!commit.done && flushes == 0);
    write_step(2);
    end_commit(&commit);
    cr_expect(commit.status == STRATA_OK && flushes == 1);
    cr_expect(flushed_bytes == file_bytes() && flushed_bytes > 0);
    /* A line that is there is not waited for. */
    cr_expect(strata_log_flush(&log_of, 2, &error) == STRATA_OK && flushes == 2);
}

Test(log_flush, a_run_that_goes_on_waits_for_its_first_step)
{
    struct commit commit;
    start_log(path);
    write_step(1);
    write_step(2);
    strata_log_close(&log_of);
    cr_assert(strata_log_check(&log_of, path, &error) == STRATA_OK);
    cr_assert(strata_log_resume(&log_of, 2, &error) == STRATA_OK);
    cr_expect(strata_log_flush(&log_of, 2, &error) == STRATA_OK);
    begin_commit(&commit, 3);
    write_step(3);
    end_commit(&commit);
    cr_expect(commit.status == STRATA_OK && flushed_bytes == file_bytes());
}

Test(log_flush, no_commit_waits_for_a_line_that_will_not_come)
{
    struct commit commit;
    start_log(path);
    write_step(1);
    begin_commit(&commit, 2);
    strata_log_end(&log_of);
    end_commit(&commit);
    cr_expect(commit.status == STRATA_E_STATE && flushes == 0);
    cr_expect(strata_log_flush(&log_of, 1, &error) == STRATA_OK, "it has that one");
}

Test(log_flush, a_flush_that_fails_is_told)
{
    start_log(path);
    write_step(1);
    flush_errno = EIO;
    cr_expect(strata_log_flush(&log_of, 1, &error) == STRATA_E_IO && error.native == EIO);
    cr_expect(strstr(error.message, path) != NULL, "%s", error.message);
}

Test(log_flush, what_is_no_file_is_not_flushed)
{
    start_log("/dev/null");
    write_step(1);
    cr_expect(strata_log_flush(&log_of, 1, &error) == STRATA_OK && flushes == 0);
}
