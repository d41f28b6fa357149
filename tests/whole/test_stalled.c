#define _GNU_SOURCE
/*
 * A drive that stops to answer ends the run at its deadline, with exit code 5 and one line.
 *
 * The drive is a file system in a file, mounted where only this test's process sees it. Frozen,
 * it lets no write through, which is how a drive that hangs looks to a program. The run's
 * threads wait in the kernel until it is thawed: so the line is awaited first, then the end.
 *
 * The file lies in memory where it can: on a busy machine a real drive could meet the deadline
 * before it is frozen.
 */

#include "tests/support/program.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RUN                                                                                    \
    "--data text --model config.json --seq 32 --batch 2 --device-mem 16M --host-mem 64M "      \
    "--tile 16384 --allow threads-io --store store --commit-every 1 --quiet "                  \
    "--log log.jsonl --deadline 10 "

/* As many steps as it takes, each of them long. */
#define BENCH_RUN                                                                              \
    "run --model config.json --seq 512 --batch 64 --micro-batch 8 --steps 99 --store store "   \
    "--params host --grads host --states nvme --io threads --deadline 10 "                     \
    "--box " STRATA_TESTS_DIR "/support/profiles/two_cores.json"

static struct temp_dir dir;
static struct program_result result;

static void set_up(void)
{
    if (access("/dev/shm", W_OK | X_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 1);
    strata_workshop_make(&dir);
}

static void tear_down(void)
{
    strata_workshop_unmount(&dir);
    strata_temp_dir_remove(&dir);
}

TestSuite(stalled, .init = set_up, .fini = tear_down);

static void mount_disk(void)
{
    const char *why = strata_workshop_mount_disk(&dir, 256u << 20);
    const char *strict = getenv("STRATA_TEST_FAIL_ON_SKIP");
    cr_assert(why == NULL || strict == NULL || strcmp(strict, "1") != 0, "%s", why);
    if (why != NULL)
        cr_skip("%s", why);
}

static void ask_disk(unsigned long request)
{
    char path[PATH_MAX + 8];
    snprintf(path, sizeof path, "%s/store", dir.path);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert(fd >= 0 && ioctl(fd, request, 0) == 0);
    close(fd);
}

static bool has_ended(pid_t process)
{
    siginfo_t info = {.si_pid = 0};
    cr_assert(waitid(P_PID, (id_t)process, &info, WEXITED | WNOHANG | WNOWAIT) == 0);
    return info.si_pid != 0;
}

/* Until this file of the workshop has something in it, which the process must write. */
static void await_text(pid_t process, const char *name, char *out, size_t bytes)
{
    for (bool ended = false;;) {
        if (strata_workshop_read(&dir, name, out, bytes) && out[0] != '\0')
            return;
        cr_assert(!ended, "it ended early");
        ended = has_ended(process);
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
}

/* Until the process has a thread of this name. */
static void await_thread(pid_t process, const char *name)
{
    char pattern[64];
    for (bool found = false; !found;) {
        cr_assert(!has_ended(process), "it ended early");
        glob_t names = {.gl_pathc = 0};
        snprintf(pattern, sizeof pattern, "/proc/%d/task/*/comm", (int)process);
        (void)glob(pattern, 0, NULL, &names);
        for (size_t i = 0; i < names.gl_pathc && !found; i++) {
            char comm[32] = "";
            FILE *file = fopen(names.gl_pathv[i], "re");
            found = file != NULL && fgets(comm, sizeof comm, file) != NULL &&
                    strncmp(comm, name, strlen(name)) == 0;
            if (file != NULL)
                fclose(file);
        }
        globfree(&names);
    }
}

static void expect_one_line_and_5(pid_t process)
{
    await_text(process, "err.txt", result.err, sizeof result.err);
    ask_disk(FITHAW);
    cr_expect_eq(strata_program_wait(process), 5);
    cr_expect_not_null(strstr(result.err, "no answer for 10 s"), "%s", result.err);
    cr_expect(strchr(result.err, '\n') == result.err + strlen(result.err) - 1, "%s",
              result.err);
}

static void expect_ended(const char *io, int signal_number)
{
    char words[512];
    const char *path = strata_program_path("STRATA_TRAIN_PROGRAM", STRATA_TRAIN_PROGRAM);
    cr_assert_not_null(path, "STRATA_TRAIN_PROGRAM does not name the program");
    snprintf(words, sizeof words, RUN "--steps 100000000 --io %s", io);
    pid_t process = strata_program_start(&dir, path, words);
    await_text(process, "log.jsonl", result.out, sizeof result.out);
    ask_disk(FIFREEZE);
    if (signal_number != 0)
        kill(process, signal_number);
    expect_one_line_and_5(process);
    strata_program_run(&result, &dir, path, RUN "--steps 1 --resume");
    cr_expect_eq(result.code, 0, "%s", result.err);
}

Test(stalled, a_drive_that_hangs_ends_the_run_at_its_deadline)
{
    mount_disk();
    expect_ended("threads", 0);
}

Test(stalled, with_io_uring_too)
{
    mount_disk();
    expect_ended("uring", 0);
}

Test(stalled, ctrl_c_does_not_wait_for_the_drive)
{
    mount_disk();
    expect_ended("threads", SIGINT);
}

Test(stalled, a_bench_run_ends_at_its_deadline_too)
{
    const char *path = strata_program_path("STRATA_BENCH_PROGRAM", STRATA_BENCH_PROGRAM);
    cr_assert_not_null(path, "STRATA_BENCH_PROGRAM does not name the program");
    mount_disk();
    pid_t process = strata_program_start(&dir, path, BENCH_RUN);
    await_thread(process, "strata-pager");
    ask_disk(FIFREEZE);
    expect_one_line_and_5(process);
}
