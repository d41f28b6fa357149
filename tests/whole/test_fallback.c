#define _GNU_SOURCE
/*
 * A whole run where the machine lacks something: io_uring, locked memory, huge pages, O_DIRECT.
 *
 * What is required and missing is refused with one line and exit 3, and leaves nothing behind;
 * with --allow, or where it is not required, the run says what it did without and ends with the
 * very state of a run that lacked nothing. Each lack is made for one process: by a filter of
 * system calls, a limit, a flag of the process, a file system mounted where only it is seen.
 * Where the kernel does not let a test make the lack, or has the lack itself, the test is
 * skipped and says so.
 */

#include "tests/support/kernel.h"
#include "tests/support/workshop.h"

#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* All that can rests on the drive, so that every lack is felt. The limit of nvme is named,
 * since a file system made of RAM may not know how much of it is free. */
#define RUN                                                                                    \
    "--data text --model config.json --seq 32 --batch 2 --steps 3 --lr 1e-3 --tile 16384 "     \
    "--device-mem 16M --host-mem 64M --params nvme --grads host --states nvme --stash host "   \
    "--nvme-mem 64M --store store --hash-state --log log "

/* What a child does that cannot become what the test wants it to be. */
#define CANNOT 98

/* nobody, by the number that it has everywhere. */
#define NOBODY 65534

TestSuite(fallback, .init = make_workshop, .fini = remove_workshop);

/* Run the program in a child that has been taken something; NULL: that lacks nothing. */
static void run_without(bool (*take_away)(void), const char *words)
{
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        if (take_away != NULL && !take_away())
            _exit(CANNOT);
        _exit(strata_program_wait(strata_program_start(&dir, strata_train_program(), words)));
    }
    result.code = strata_program_wait(child);
    strata_workshop_read(&dir, "out.txt", result.out, sizeof result.out);
    strata_workshop_read(&dir, "err.txt", result.err, sizeof result.err);
    strata_workshop_remove(&dir, "out.txt");
    strata_workshop_remove(&dir, "err.txt");
}

/* What a run in the device's memory ends with, which needs none of the things that may lack. */
static void run_plain(char out[33])
{
    run_without(NULL, "--data text --model config.json --seq 32 --batch 2 --steps 3 --lr 1e-3 "
                      "--tile 16384 --device-mem 64M --host-mem 64M --hash-state");
    cr_assert_eq(result.code, 0, "%s", result.err);
    printed_hash(out);
}

/* The latest run ended well, with that state, and said so much of how. */
static void expect_run(const char *hash, const char *says)
{
    char is[33];
    cr_assert_eq(result.code, 0, "exit %d: %s", result.code, result.err);
    cr_assert_not_null(strstr(result.out, says), "'%s' lacks '%s'", result.out, says);
    printed_hash(is);
    cr_assert_str_eq(is, hash);
}

/* The latest run was refused for a lack, with one line, and left nothing. */
static void expect_refusal(const char *what, const char *remedy)
{
    cr_assert_eq(result.code, 3, "exit %d: %s", result.code, result.err);
    expect_one_line(what);
    cr_assert_not_null(strstr(result.err, remedy), "'%s' lacks '%s'", result.err, remedy);
    cr_assert_eq(strata_workshop_store_count(&dir), 0, "something was left in the store");
    cr_assert(!strata_workshop_has(&dir, "log"), "a log was begun");
}

static void remove_run(void)
{
    strata_workshop_remove(&dir, "store/strata.tiles");
    strata_workshop_remove(&dir, "log");
}

/* A run that lacks nothing: without it a test of one lack would show another. */
static void need_all(void)
{
    if (!strata_io_uring_permitted())
        strata_skip("no io_uring here: it is forbidden, or this kernel has none");
    run_without(NULL, RUN);
    if (result.code == 3 && strstr(result.err, "O_DIRECT") != NULL)
        strata_skip("no O_DIRECT on the file system of the tests");
    cr_assert_eq(result.code, 0, "%s", result.err);
    cr_assert_not_null(strstr(result.out, "store  uring, O_DIRECT"), "%s", result.out);
    remove_run();
}

static bool take_io_uring(void)
{
    return strata_forbid_io_uring() == 0;
}

Test(fallback, a_forbidden_io_uring_is_refused_unless_threads_are_allowed)
{
    char hash[33];
    need_all();
    run_plain(hash);
    run_without(take_io_uring, RUN);
    if (result.code == CANNOT)
        strata_skip("no filter of system calls can be installed here");
    expect_refusal("io_uring_setup: Operation not permitted", "--allow threads-io");
    run_without(take_io_uring, RUN "--allow buffered-io,unpinned");
    expect_refusal("io_uring_setup: Operation not permitted", "--allow threads-io");
    run_without(take_io_uring, RUN "--allow threads-io");
    expect_run(hash, "store  threads, O_DIRECT");
    cr_assert_not_null(strstr(result.out, "note   store: I/O by threads: io_uring_setup"));
}

Test(fallback, threads_asked_for_need_no_io_uring)
{
    char hash[33];
    need_all();
    run_plain(hash);
    run_without(take_io_uring, RUN "--io threads");
    if (result.code == CANNOT)
        strata_skip("no filter of system calls can be installed here");
    expect_run(hash, "store  threads, O_DIRECT");
    cr_assert_null(strstr(result.out, "note   store: I/O by threads"));
}

/* Not even a page may be locked, and no privilege makes up for it. */
static bool take_locked_memory(void)
{
    const struct rlimit none = {0, 0};
    if (setrlimit(RLIMIT_MEMLOCK, &none) != 0)
        return false;
    if (geteuid() == 0 &&
        (setgroups(0, NULL) != 0 || setgid(NOBODY) != 0 || setuid(NOBODY) != 0))
        return false;
    return access(strata_train_program(), X_OK) == 0 && access(dir.path, W_OK | X_OK) == 0;
}

/* nobody gets the workshop, where root runs the tests. */
static bool give_away(void)
{
    static const char *const names[] = {"", "/store", "/text", "/config.json"};
    char path[PATH_MAX + 16];
    for (size_t i = 0; geteuid() == 0 && i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s%s", dir.path, names[i]);
        if (chown(path, NOBODY, NOBODY) != 0)
            return false;
    }
    return true;
}

Test(fallback, a_user_who_may_lock_no_memory_gets_the_same_state)
{
    char hash[33];
    need_all();
    run_plain(hash);
    if (!give_away())
        strata_skip("the tests' files cannot be given to another user");
    bool rings = true;
    run_without(take_locked_memory, RUN);
    if (result.code == CANNOT)
        strata_skip(
            "the program and the tests' folder are not open to a user without privileges");
    /* Kernels before 5.12 count a ring as locked memory: then it is refused, by name. */
    if (result.code != 0) {
        cr_assert_not_null(strstr(result.err, "raise the memlock limit"), "%s", result.err);
        remove_run();
        rings = false;
        run_without(take_locked_memory, RUN "--io threads");
    }
    expect_run(hash, ", O_DIRECT, registered buffers: no");
    remove_run();
    run_without(take_locked_memory, rings ? RUN "--json" : RUN "--io threads --json");
    cr_assert_eq(result.code, 0, "%s", result.err);
    cr_assert_not_null(strstr(result.out, "\"io_registered\":false"), "%s", result.out);
}

static bool take_huge_pages(void)
{
    return prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0;
}

Test(fallback, without_huge_pages_a_run_says_so_and_gets_the_same_state)
{
    char hash[33];
    need_all();
    run_plain(hash);
    run_without(take_huge_pages, RUN);
    if (result.code == CANNOT)
        strata_skip("this kernel cannot deny huge pages to one process");
    expect_run(hash, "huge pages: no");
    cr_assert_not_null(strstr(result.out, "note   huge pages were not to be had"), "%s",
                       result.out);
    remove_run();
    run_without(take_huge_pages, RUN "--json");
    cr_assert_eq(result.code, 0, "%s", result.err);
    cr_assert_not_null(strstr(result.out, "\"huge_pages\":false"), "%s", result.out);
}

/* A file system without O_DIRECT. */
static void mount_store(const char *type)
{
    const char *why = strata_workshop_mount(&dir, type, NULL);
    if (why != NULL)
        strata_skip(why);
}

/* tmpfs knows O_DIRECT from Linux 6.6 on; ramfs never did. */
static void expect_buffered(const char *type)
{
    char hash[33];
    need_all();
    run_plain(hash);
    mount_store(type);
    run_without(NULL, RUN);
    if (result.code == 0) {
        strata_workshop_unmount(&dir);
        strata_skip("this kernel has O_DIRECT on that file system");
    }
    expect_refusal("no O_DIRECT", "--allow buffered-io");
    run_without(NULL, RUN "--allow threads-io,unpinned");
    expect_refusal("no O_DIRECT", "--allow buffered-io");
    run_without(NULL, RUN "--allow buffered-io");
    expect_run(hash, "store  uring, page cache");
    cr_assert_not_null(strstr(result.out, "note   store: no O_DIRECT"), "%s", result.out);
    strata_workshop_unmount(&dir);
}

Test(fallback, no_o_direct_on_tmpfs_is_refused_unless_allowed)
{
    expect_buffered("tmpfs");
}

Test(fallback, no_o_direct_on_ramfs_is_refused_unless_allowed)
{
    expect_buffered("ramfs");
}

/* Everything at once: what is allowed, and what is not required. */
static bool take_all_but_o_direct(void)
{
    return take_huge_pages() && take_io_uring();
}

Test(fallback, all_lacks_together_give_the_same_state)
{
    char hash[33];
    run_plain(hash);
    mount_store("ramfs");
    run_without(take_all_but_o_direct, RUN "--allow threads-io,buffered-io");
    if (result.code == CANNOT) {
        strata_workshop_unmount(&dir);
        strata_skip("no filter of system calls, or no way to deny huge pages here");
    }
    expect_run(hash, "store  threads, page cache, registered buffers: no; huge pages: no");
    strata_workshop_unmount(&dir);
}
