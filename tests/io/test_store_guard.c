#define _GNU_SOURCE
/*
 * A store's file is the run's alone, has its space, and is still there when a commit counts.
 *
 * Reserving is wrapped, so that a test sees what is reserved and can have a full disk.
 */

#include "base/error.h"
#include "tests/support/commit_rig.h"

#include <criterion/criterion.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_PATH_BYTES (PATH_MAX + 64)

/* What was asked of fallocate. */
static struct {
    uint32_t count;
    off_t offset;
    off_t bytes;
    bool full; /* the disk: every call fails */
} reserved;

int __real_fallocate(int fd, int mode, off_t offset, off_t bytes);
int __wrap_fallocate(int fd, int mode, off_t offset, off_t bytes);

int __wrap_fallocate(int fd, int mode, off_t offset, off_t bytes)
{
    reserved.count++;
    reserved.offset = offset;
    reserved.bytes = bytes;
    if (reserved.full) {
        errno = ENOSPC;
        return -1;
    }
    return __real_fallocate(fd, mode, offset, bytes);
}

static void forget_reserved(bool full)
{
    memset(&reserved, 0, sizeof reserved);
    reserved.full = full;
}

static void expect_open(struct commit_rig *rig)
{
    strata_error error = {.status = STRATA_OK};
    cr_assert(strata_commit_rig_open(rig, &error) == STRATA_OK, "%s", error.message);
}

/* A store with a run of three steps on it, closed. */
static void make_run(struct commit_rig *rig, uint32_t drives)
{
    strata_commit_rig_make(rig, drives, STRATA_IO_URING, false);
    expect_open(rig);
    while (rig->step < 3)
        cr_assert(strata_commit_rig_step(rig) == STRATA_OK);
    strata_commit_rig_close(rig);
}

static void expect_run_of(struct commit_rig *rig, uint64_t step)
{
    bool same = false;
    expect_open(rig);
    cr_expect(rig->step == step, "step %d", (int)rig->step);
    cr_expect(strata_commit_rig_check(rig, &same) == STRATA_OK && same);
    strata_commit_rig_close(rig);
}

static void expect_refusal(struct commit_rig *rig, int native, const char *text)
{
    strata_error error = {.status = STRATA_OK};
    cr_expect(strata_commit_rig_open(rig, &error) == STRATA_E_IO, "%s", error.message);
    cr_expect(error.native == native, "%d", (int)error.native);
    cr_expect(strstr(error.message, text) != NULL, "'%s' lacks '%s'", error.message, text);
    cr_expect(strchr(error.message, '\n') == NULL);
}

static off_t length_of(const char *path)
{
    struct stat info;
    cr_assert(stat(path, &info) == 0);
    return info.st_size;
}

Test(store_guard, a_store_that_goes_on_reserves_nothing_again)
{
    struct commit_rig rig;
    make_run(&rig, 2);
    forget_reserved(true);
    expect_run_of(&rig, 3);
    cr_expect(reserved.count == 0, "%u calls", reserved.count);
    rig.scratch_bytes[0] -= STRATA_IO_ALIGN_BYTES; /* it is cut */
    expect_run_of(&rig, 3);
    cr_expect(reserved.count == 0, "%u calls", reserved.count);
    strata_commit_rig_remove(&rig);
}

Test(store_guard, only_what_a_file_lacks_is_reserved)
{
    struct commit_rig rig;
    char path[FILE_PATH_BYTES];
    make_run(&rig, 1);
    off_t before = length_of(strata_commit_rig_file(&rig, 0, path));
    rig.scratch_bytes[1] += 5 * STRATA_IO_ALIGN_BYTES;
    forget_reserved(true);
    expect_refusal(&rig, ENOSPC, "reserving 20480 bytes for ");
    forget_reserved(false);
    expect_run_of(&rig, 3);
    cr_expect(reserved.count == 1 && reserved.offset == before);
    cr_expect(reserved.bytes == 5 * (off_t)STRATA_IO_ALIGN_BYTES);
    cr_expect(length_of(path) == before + reserved.bytes);
    strata_commit_rig_remove(&rig);
}

Test(store_guard, a_copy_with_holes_gets_its_space_back)
{
    struct commit_rig rig;
    struct stat info;
    char path[FILE_PATH_BYTES];
    make_run(&rig, 1);
    off_t bytes = length_of(strata_commit_rig_file(&rig, 0, path));
    int fd = open(path, O_RDWR | O_CLOEXEC);
    cr_assert(fd >= 0);
    int rc = __real_fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                              bytes - (off_t)STRATA_IO_ALIGN_BYTES, STRATA_IO_ALIGN_BYTES);
    close(fd);
    if (rc != 0) {
        strata_commit_rig_remove(&rig);
        cr_skip_test("this file system has no holes");
    }
    forget_reserved(false);
    expect_run_of(&rig, 3);
    cr_expect(reserved.count == 1 && reserved.offset == 0 && reserved.bytes == bytes);
    cr_assert(stat(path, &info) == 0);
    cr_expect(info.st_blocks * 512 >= info.st_size);
    strata_commit_rig_remove(&rig);
}

static char *new_path(const struct commit_rig *rig, uint32_t drive, char *out)
{
    snprintf(out, FILE_PATH_BYTES, "%s/" STRATA_STORE_NEW_NAME, rig->drives[drive]);
    return out;
}

static void put_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    cr_assert(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

Test(store_guard, a_file_that_others_may_use_is_refused)
{
    static const mode_t modes[] = {0640, 0620, 0604, 0602, 0610, 0666, 0777};
    struct commit_rig rig;
    char path[FILE_PATH_BYTES], making[FILE_PATH_BYTES];
    make_run(&rig, 2);
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        strata_commit_rig_file(&rig, 1, path);
        cr_assert(chmod(path, modes[i]) == 0);
        expect_refusal(&rig, EPERM, "others may use it: chmod 600");
        cr_assert(chmod(path, 0600) == 0);
        put_text(new_path(&rig, 1, making), "half a store");
        cr_assert(chmod(making, modes[i]) == 0);
        expect_refusal(&rig, EPERM, STRATA_STORE_NEW_NAME " has mode ");
        cr_expect(length_of(making) == 12);
        cr_assert(unlink(making) == 0);
    }
    cr_assert(chmod(path, 0700) == 0);
    expect_run_of(&rig, 3);
    strata_commit_rig_remove(&rig);
}

Test(store_guard, a_file_of_another_user_is_refused)
{
    struct commit_rig rig;
    char path[FILE_PATH_BYTES], making[FILE_PATH_BYTES];
    if (geteuid() != 0)
        cr_skip_test("giving a file away needs root");
    make_run(&rig, 2);
    strata_commit_rig_file(&rig, 1, path);
    cr_assert(chown(path, 65534, (gid_t)-1) == 0);
    expect_refusal(&rig, EPERM, "belongs to user 65534, this process to user 0");
    cr_assert(chown(path, 0, (gid_t)-1) == 0);
    put_text(new_path(&rig, 0, making), "half a store");
    cr_assert(chown(making, 65534, (gid_t)-1) == 0);
    expect_refusal(&rig, EPERM, STRATA_STORE_NEW_NAME " belongs to user 65534");
    cr_expect(length_of(making) == 12);
    cr_assert(unlink(making) == 0);
    expect_run_of(&rig, 3);
    strata_commit_rig_remove(&rig);
}

Test(store_guard, a_file_with_a_second_name_is_refused)
{
    struct commit_rig rig;
    char path[FILE_PATH_BYTES], making[FILE_PATH_BYTES], other[FILE_PATH_BYTES];
    make_run(&rig, 2);
    snprintf(other, sizeof other, "%s/other", rig.dir.path);
    cr_assert(link(strata_commit_rig_file(&rig, 0, path), other) == 0);
    expect_refusal(&rig, EPERM, "has 2 names (hard links)");
    cr_assert(unlink(other) == 0);
    put_text(new_path(&rig, 1, making), "half a store");
    cr_assert(link(making, other) == 0);
    expect_refusal(&rig, EPERM, STRATA_STORE_NEW_NAME " has 2 names (hard links)");
    cr_assert(unlink(other) == 0);
    expect_run_of(&rig, 3);
    cr_expect(access(making, F_OK) != 0, "what a creation left was kept");
    strata_commit_rig_remove(&rig);
}

/* An empty file is nobody's and would be removed; not where others may use it. */
Test(store_guard, an_empty_file_that_others_may_use_is_not_removed)
{
    struct commit_rig rig;
    char path[FILE_PATH_BYTES];
    strata_commit_rig_make(&rig, 1, STRATA_IO_URING, false);
    put_text(strata_commit_rig_file(&rig, 0, path), "");
    cr_assert(chmod(path, 0666) == 0);
    expect_refusal(&rig, EPERM, "others may use it");
    cr_expect(access(path, F_OK) == 0);
    cr_assert(chmod(path, 0600) == 0);
    expect_run_of(&rig, 0);
    strata_commit_rig_remove(&rig);
}

/* What somebody does to a file while the run writes to it, and what takes it back. */
enum meddling {
    REMOVE,
    REPLACE,
    MOVE,
    CUT,
    EMPTY,
    GROW,
    LINK,
    OPEN_TO_OTHERS,
    GIVE_AWAY,
    MEDDLINGS
};

struct meddled {
    char path[FILE_PATH_BYTES];
    char other[FILE_PATH_BYTES];
    off_t bytes;
};

static void meddle(struct meddled *at, enum meddling how)
{
    at->bytes = length_of(at->path);
    switch (how) {
    case REMOVE:
        cr_assert(unlink(at->path) == 0);
        break;
    case REPLACE:
        put_text(at->other, "another file");
        cr_assert(rename(at->other, at->path) == 0);
        break;
    case MOVE:
        cr_assert(rename(at->path, at->other) == 0);
        break;
    case CUT:
        cr_assert(truncate(at->path, at->bytes - 1) == 0);
        break;
    case EMPTY: /* and long again, as a write at its end makes it */
        cr_assert(truncate(at->path, 0) == 0 && truncate(at->path, at->bytes) == 0);
        break;
    case GROW:
        cr_assert(truncate(at->path, at->bytes + 1) == 0);
        break;
    case LINK:
        cr_assert(link(at->path, at->other) == 0);
        break;
    case OPEN_TO_OTHERS:
        cr_assert(chmod(at->path, 0620) == 0);
        break;
    default:
        cr_assert(chown(at->path, 65534, (gid_t)-1) == 0);
        break;
    }
}

/* false: the file is gone. */
static bool undo(const struct meddled *at, enum meddling how)
{
    switch (how) {
    case REMOVE:
    case REPLACE:
    case EMPTY:
        return false;
    case MOVE:
        return rename(at->other, at->path) == 0;
    case CUT:
    case GROW:
        return true; /* a resume mends it */
    case LINK:
        return unlink(at->other) == 0;
    case OPEN_TO_OTHERS:
        return chmod(at->path, 0600) == 0;
    default:
        return chown(at->path, 0, (gid_t)-1) == 0;
    }
}

static void expect_commit_refused(enum meddling how, uint32_t drive, const char *text)
{
    struct commit_rig rig;
    struct meddled at;
    strata_commit_rig_make(&rig, 2, STRATA_IO_URING, false);
    /* At the end of both files, where no step writes: what is cut stays cut. */
    rig.scratch_bytes[0] = rig.scratch_bytes[1] = 64 * STRATA_IO_ALIGN_BYTES;
    strata_commit_rig_file(&rig, drive, at.path);
    snprintf(at.other, sizeof at.other, "%s/other", rig.dir.path);
    expect_open(&rig);
    while (rig.step < 4)
        cr_assert(strata_commit_rig_step(&rig) == STRATA_OK);
    meddle(&at, how);
    cr_expect(strata_commit_rig_step(&rig) == STRATA_E_IO, "meddling %d", (int)how);
    const strata_error *error = strata_store_error(rig.store);
    cr_expect(strstr(error->message, text) != NULL, "%s", error->message);
    cr_expect(strstr(error->message, rig.drives[drive]) != NULL, "%s", error->message);
    cr_expect(rig.listed.steps[0] == 4, "it counts as committed");
    strata_commit_rig_close(&rig);
    if (undo(&at, how))
        expect_run_of(&rig, 4);
    strata_commit_rig_remove(&rig);
}

Test(store_guard, a_file_that_is_meddled_with_ends_the_run_at_the_next_commit)
{
    static const char *const texts[] = {
        [REMOVE] = "was removed or replaced while this run wrote to it",
        [REPLACE] = "was removed or replaced while this run wrote to it",
        [MOVE] = "was moved away while this run wrote to it",
        [CUT] = "was cut or grown while this run wrote to it",
        [EMPTY] = "was cut while this run wrote to it: it has space for ",
        [GROW] = "was cut or grown while this run wrote to it",
        [LINK] = "has 2 names",
        [OPEN_TO_OTHERS] = "others may use it",
        [GIVE_AWAY] = "belongs to user 65534"};
    for (int how = 0; how < MEDDLINGS; how++)
        for (uint32_t drive = 0; drive < 2; drive++)
            if (how != GIVE_AWAY || geteuid() == 0)
                expect_commit_refused((enum meddling)how, drive, texts[how]);
}

/* What the owner was asked before commits. */
struct owner {
    uint64_t steps[16];
    uint32_t count;
    uint64_t fails_at;
};

static strata_status answer(void *user, uint64_t step, strata_error *error)
{
    struct owner *owner = user;
    cr_assert(owner->count < 16);
    owner->steps[owner->count++] = step;
    if (step != owner->fails_at)
        return STRATA_OK;
    return strata_fail(error, STRATA_E_IO, EDQUOT, "the log of step 3 is not to be had");
}

Test(store_guard, a_commit_does_not_count_before_its_owner_is_ready)
{
    struct commit_rig rig;
    struct owner owner = {.fails_at = 3};
    strata_commit_rig_make(&rig, 2, STRATA_IO_URING, false);
    rig.records.before_commit = answer;
    rig.records.before_commit_user = &owner;
    expect_open(&rig);
    cr_assert(strata_commit_rig_step(&rig) == STRATA_OK);
    cr_assert(strata_commit_rig_step(&rig) == STRATA_OK);
    cr_expect(strata_commit_rig_step(&rig) == STRATA_E_IO);
    const strata_error *error = strata_store_error(rig.store);
    cr_expect(error->native == EDQUOT);
    cr_expect_str_eq(error->message, "the log of step 3 is not to be had");
    cr_expect(owner.count == 4);
    for (uint32_t i = 0; i < owner.count; i++)
        cr_expect(owner.steps[i] == i);
    strata_commit_rig_close(&rig);
    rig.records.before_commit = NULL;
    expect_run_of(&rig, 2);
    strata_commit_rig_remove(&rig);
}
