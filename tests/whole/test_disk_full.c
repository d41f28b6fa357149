#define _GNU_SOURCE
/*
 * A disk that is really full: ext4 of a few megabytes behind a loop device or, where there is
 * none to be had, a file system made of RAM.
 *
 * What does not fit is refused before anything is written, and leaves nothing. A run whose
 * disk fills up stops with one line that names the file and the reason; its last commit is
 * whole, and once there is room again it goes on to the very state of a run that had it all
 * along. A store has its space from the beginning, so a full disk reaches it only where
 * somebody made holes in its files.
 */

#include "io/store_format.h"
#include "tests/support/workshop.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* The store lies beside what fills the disk. Gradients are written anew in every step. */
#define RUN                                                                                    \
    "--data text --model config.json --seq 32 --batch 2 --lr 1e-3 --tile 16384 --hash-state "  \
    "--device-mem 16M --host-mem 64M --params host --grads nvme --states nvme --stash host "   \
    "--allow threads-io,buffered-io --store store/drive "

#define DISK_BYTES (48ul << 20)

static void path_of(const char *name, char out[PATH_MAX + 64])
{
    snprintf(out, PATH_MAX + 64, "%s/%s", dir.path, name);
}

static void set_up(void)
{
    char path[PATH_MAX + 64], options[32];
    strata_workshop_make(&dir);
    const char *why = strata_workshop_mount_disk(&dir, DISK_BYTES);
    snprintf(options, sizeof options, "size=%lu", DISK_BYTES);
    if (why != NULL)
        why = strata_workshop_mount(&dir, "tmpfs", options);
    if (why != NULL)
        strata_skip(why);
    path_of("store/drive", path);
    cr_assert(mkdir(path, 0700) == 0);
}

static void tear_down(void)
{
    strata_workshop_unmount(&dir);
    strata_temp_dir_remove(&dir);
}

TestSuite(disk_full, .init = set_up, .fini = tear_down);

static uint64_t free_bytes(void)
{
    struct statvfs space;
    cr_assert(statvfs(dir.path, &space) == 0);
    char path[PATH_MAX + 64];
    path_of("store", path);
    cr_assert(statvfs(path, &space) == 0);
    return (uint64_t)space.f_bavail * space.f_frsize;
}

/* Leave so much room, or a block or two less. */
static void fill_disk(uint64_t room)
{
    char path[PATH_MAX + 64];
    path_of("store/filler", path);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    cr_assert(fd >= 0);
    for (uint64_t bytes = 0, left; (left = free_bytes()) > room;) {
        uint64_t more = left - room > 65536 ? (left - room) / 2 : 4096;
        if (fallocate(fd, 0, (off_t)bytes, (off_t)more) != 0)
            break;
        bytes += more;
    }
    close(fd);
    cr_assert(free_bytes() <= room + 4096, "%lu bytes are free", (unsigned long)free_bytes());
}

static void make_room(void)
{
    strata_workshop_remove(&dir, "store/filler");
}

/* What a run ends with that commits nothing and is not disturbed. */
static void whole(const char *steps, char out[33])
{
    char words[1024];
    snprintf(words, sizeof words, RUN "--durability none --steps %s", steps);
    train(words, 0);
    printed_hash(out);
}

/* The commit that stands is whole, and the run goes on from it to the expected state. */
static void expect_going_on(const char *words, const char *expected)
{
    char hash[33];
    train("--scrub store/drive --quiet", 0);
    make_room();
    train(words, 0);
    printed_hash(hash);
    cr_assert_str_eq(hash, expected);
}

Test(disk_full, a_store_that_does_not_fit_is_refused_and_leaves_nothing)
{
    char path[PATH_MAX + 64];
    path_of("store/drive", path);
    fill_disk(1u << 20);
    train(RUN "--steps 2 --log log", 1);
    expect_one_line("nvme");
    train(RUN "--steps 2 --log log --nvme-mem 1G", 1);
    expect_one_line("nvme: need ");
    cr_assert_eq(strata_temp_dir_count(path), 0);
    cr_assert(!strata_workshop_has(&dir, "log"));
    make_room();
    train(RUN "--steps 2 --log log", 0);
}

Test(disk_full, a_log_that_finds_no_room_ends_the_run_and_it_goes_on)
{
#define LOGGED RUN "--log store/log --resume --steps 60 "
    static char text[1 << 20];
    char expected[33];
    whole("60", expected);
    train(RUN "--log store/log --steps 2", 0);
    fill_disk(16384);
    train(LOGGED "--quiet", 1);
    expect_one_line("of log store/log: No space left on device");
    expect_going_on(LOGGED, expected);
    /* Every step is there, in order. */
    const char *at = text;
    cr_assert(strata_workshop_read(&dir, "store/log", text, sizeof text));
    for (int step = 1; step <= 60; step++) {
        char begin[32];
        snprintf(begin, sizeof begin, "{\"step\":%d,", step);
        cr_assert_eq(strncmp(at, begin, strlen(begin)), 0, "step %d is not in the log", step);
        at = strchr(at, '\n') + 1;
    }
    cr_assert_str_eq(at, "");
}

/* Make holes of the scratch places of the store's file. */
static void punch_scratch(void)
{
    struct store_header header;
    struct stat stat;
    char path[PATH_MAX + 64];
    path_of("store/drive/strata.tiles", path);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    cr_assert(fd >= 0 && pread(fd, &header, sizeof header, 0) == sizeof header &&
              fstat(fd, &stat) == 0);
    off_t from = (off_t)header.durable_bytes;
    cr_assert(from < stat.st_size);
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, from, stat.st_size - from) !=
        0)
        strata_skip("this file system punches no holes");
    close(fd);
}

Test(disk_full, a_store_with_holes_is_refused_and_goes_on)
{
    char expected[33];
    whole("4", expected);
    train(RUN "--steps 2", 0);
    punch_scratch();
    fill_disk(0);
    train(RUN "--steps 4 --resume", 1);
    expect_one_line("nvme");
    expect_going_on(RUN "--steps 4 --resume", expected);
}

/* The run stands still while its file gets holes and the disk is filled, so that nothing of
 * them is written in between. What it then does first is a write that finds no room, or the
 * read of a gradient that is gone. */
Test(disk_full, a_hole_under_a_run_ends_it_and_it_goes_on)
{
#define LONG_RUN RUN "--log log --steps 120 "
    char expected[33];
    whole("120", expected);
    pid_t process = strata_program_start(&dir, strata_train_program(), LONG_RUN);
    cr_assert_geq(strata_program_wait_lines(&dir, process, "log", 1), 1);
    cr_assert(kill(process, SIGSTOP) == 0);
    punch_scratch();
    fill_disk(0);
    cr_assert(kill(process, SIGCONT) == 0);
    cr_assert_eq(strata_program_wait(process), 1);
    strata_workshop_read(&dir, "err.txt", result.err, sizeof result.err);
    cr_assert(strstr(result.err, "store/drive/strata.tiles: No space left on device") != NULL ||
                  strstr(result.err, "store/drive/strata.tiles: the hash differs") != NULL,
              "%s", result.err);
    expect_going_on(LONG_RUN "--resume", expected);
}
