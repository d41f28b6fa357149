#define _GNU_SOURCE
/*
 * A run whose store is taken away under it ends at its next commit, with exit code 1 and a line
 * that says why. It must not go on and report steps as committed that nobody can go back to.
 */

#include "tests/support/workshop.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RUN                                                                                    \
    "--data text --model config.json --seq 32 --batch 2 --device-mem 16M --host-mem 64M "      \
    "--tile 16384 --io threads --allow buffered-io --store store --commit-every 1 --quiet "    \
    "--log log.jsonl "

TestSuite(store_gone, .init = make_workshop, .fini = remove_workshop);

/* A run that would go on for days; returns once it has made a step. */
static pid_t start_run(void)
{
    pid_t process = strata_program_start(&dir, strata_train_program(), RUN "--steps 100000000");
    cr_assert_geq(strata_program_wait_lines(&dir, process, "log.jsonl", 1), 1);
    return process;
}

static void store_path(const char *name, char *out)
{
    snprintf(out, PATH_MAX + 64, "%s/store/%s", dir.path, name);
}

static void expect_ended(pid_t process, const char *says)
{
    cr_assert_eq(strata_program_wait(process), 1);
    cr_assert(strata_workshop_read(&dir, "err.txt", result.err, sizeof result.err));
    cr_expect_not_null(strstr(result.err, says), "%s", result.err);
    cr_expect(strchr(result.err, '\n') == result.err + strlen(result.err) - 1, "%s",
              result.err);
}

Test(store_gone, a_store_that_is_removed_ends_the_run)
{
    char path[PATH_MAX + 64];
    pid_t process = start_run();
    store_path("strata.tiles", path);
    cr_assert(unlink(path) == 0);
    expect_ended(process, "was removed or replaced while this run wrote to it");
    cr_expect_eq(strata_workshop_store_count(&dir), 0);
}

Test(store_gone, a_store_that_is_moved_away_ends_the_run_and_goes_on_when_it_is_back)
{
    char path[PATH_MAX + 64], other[PATH_MAX + 64], log[64] = "";
    pid_t process = start_run();
    store_path("strata.tiles", path);
    store_path("elsewhere", other);
    cr_assert(rename(path, other) == 0);
    expect_ended(process, "was moved away while this run wrote to it");
    cr_assert(rename(other, path) == 0);
    strata_program_run(&result, &dir, strata_train_program(), RUN "--steps 1 --resume");
    cr_expect_eq(result.code, 0, "%s", result.err);
    cr_expect(strata_workshop_read(&dir, "log.jsonl", log, sizeof log) && log[0] != '\0');
}

Test(store_gone, a_store_that_others_may_write_to_ends_the_run)
{
    char path[PATH_MAX + 64];
    pid_t process = start_run();
    store_path("strata.tiles", path);
    cr_assert(chmod(path, 0620) == 0);
    expect_ended(process, "others may use it: chmod 600");
    strata_program_run(&result, &dir, strata_train_program(), RUN "--steps 1 --resume");
    cr_expect_eq(result.code, 1);
    cr_expect_not_null(strstr(result.err, "others may use it"), "%s", result.err);
    cr_assert(chmod(path, 0600) == 0);
    strata_program_run(&result, &dir, strata_train_program(), RUN "--steps 1 --resume");
    cr_expect_eq(result.code, 0, "%s", result.err);
}
