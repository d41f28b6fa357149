#define _GNU_SOURCE
/*
 * Looking at a store that cannot be written to: on a read-only mount, without write permission,
 * a copy that belongs to somebody else. List and scrub say the same as ever; drop says why it
 * cannot.
 *
 * Read-only mounts are in a mount namespace of the test's own, which needs root.
 */

#include "strata/store.h"

#include "base/error.h"
#include "tests/support/commit_rig.h"
#include "tests/support/quick_clock.h"

#include <criterion/criterion.h>

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define OTHER_USER 65534u

/* A store with commits of steps 4 (the last) and 2 (retained), closed. */
static void make_run(struct commit_rig *rig)
{
    strata_error error = {.status = STRATA_OK};
    strata_commit_rig_make(rig, 2, STRATA_IO_URING, false);
    strata_commit_rig_keep(rig, 1, 2);
    cr_assert(strata_commit_rig_open(rig, &error) == STRATA_OK, "%s", error.message);
    while (rig->step < 4)
        cr_assert(strata_commit_rig_step(rig) == STRATA_OK);
    strata_commit_rig_close(rig);
}

static strata_status list_store(const struct commit_rig *rig, strata_store_listing *out,
                                strata_error *error)
{
    *error = (strata_error){.status = STRATA_OK};
    return strata_store_list(out, rig->dirs, 2, error);
}

static void expect_looked_at(const struct commit_rig *rig)
{
    strata_store_listing listing;
    strata_scrub_result result;
    strata_error error;
    strata_scrub_desc desc = {.dirs = rig->dirs, .dir_count = 2};
    cr_expect(list_store(rig, &listing, &error) == STRATA_OK, "%s", error.message);
    cr_expect(listing.commit_count == 2 && listing.commits[0].step == 4);
    cr_expect(strata_store_scrub(&result, &desc, &error) == STRATA_OK, "%s", error.message);
    cr_expect(result.step == 4 && result.bad == 0 && result.tiles == COMMIT_RECORDS);
}

static void expect_drop_refused(const struct commit_rig *rig, int native)
{
    strata_error error = {.status = STRATA_OK};
    cr_expect(strata_store_drop(rig->dirs, 2, 2, &error) == STRATA_E_IO);
    cr_expect(error.native == native, "%d", (int)error.native);
    cr_expect(strstr(error.message, "for writing: ") != NULL, "%s", error.message);
}

/* The rig's directories are read-only for this process; called first, since a skip cleans up
 * nothing. */
static void keep_mounts_private(void)
{
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        cr_skip_test("mounting needs root: %s", strerror(errno));
}

static void mount_read_only(const struct commit_rig *rig)
{
    const char *path = rig->dir.path;
    cr_assert(mount(path, path, NULL, MS_BIND, NULL) == 0, "%s", strerror(errno));
    cr_assert(mount(NULL, path, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL) == 0, "%s",
              strerror(errno));
}

static void unmount(const struct commit_rig *rig)
{
    cr_assert(umount2(rig->dir.path, MNT_DETACH) == 0);
}

Test(store_read_only, list_and_scrub_work_on_a_read_only_mount_and_drop_says_why_not)
{
    struct commit_rig rig;
    keep_mounts_private();
    make_run(&rig);
    mount_read_only(&rig);
    expect_looked_at(&rig);
    expect_drop_refused(&rig, EROFS);
    expect_looked_at(&rig);
    unmount(&rig);
    cr_expect(strata_store_drop(rig.dirs, 2, 2, NULL) == STRATA_OK);
    strata_commit_rig_remove(&rig);
}

/* A lock needs no permission to write, and holds through any mount of the file system. */
Test(store_read_only, a_store_in_use_is_refused_on_a_read_only_mount_too)
{
    struct commit_rig rig;
    strata_store_listing listing;
    strata_error error;
    keep_mounts_private();
    make_run(&rig);
    cr_assert(strata_commit_rig_open(&rig, NULL) == STRATA_OK);
    mount_read_only(&rig);
    clock_hurries = true; /* a refusal comes after ten seconds of waiting for the owner */
    cr_expect(list_store(&rig, &listing, &error) == STRATA_E_STATE, "%s", error.message);
    clock_hurries = false;
    cr_expect(strstr(error.message, "in use") != NULL, "%s", error.message);
    unmount(&rig);
    strata_commit_rig_close(&rig);
    strata_commit_rig_remove(&rig);
}

static void give_to(const struct commit_rig *rig, uid_t user, mode_t file_mode, mode_t dir_mode)
{
    char path[PATH_MAX + 32];
    cr_assert(chmod(rig->dir.path, 0711) == 0);
    for (uint32_t i = 0; i < 2; i++) {
        strata_commit_rig_file(rig, i, path);
        cr_assert(chmod(path, file_mode) == 0 && chown(path, user, (gid_t)-1) == 0);
        cr_assert(chmod(rig->drives[i], dir_mode) == 0);
        cr_assert(chown(rig->drives[i], user, (gid_t)-1) == 0);
    }
}

static void need_root(void)
{
    if (geteuid() != 0)
        cr_skip_test("giving a file away, and becoming another user, needs root");
}

Test(store_read_only, no_permission_to_write_is_needed_to_look)
{
    struct commit_rig rig;
    need_root();
    make_run(&rig);
    give_to(&rig, OTHER_USER, 0400, 0500);
    cr_assert(seteuid(OTHER_USER) == 0);
    expect_looked_at(&rig);
    expect_drop_refused(&rig, EACCES);
    cr_assert(seteuid(0) == 0);
    strata_commit_rig_remove(&rig);
}

/* A copy for others to look at: root may, and its owner; modes and names do not matter. */
Test(store_read_only, root_may_look_at_the_store_of_anybody)
{
    struct commit_rig rig;
    char path[PATH_MAX + 32], other[PATH_MAX + 32];
    need_root();
    make_run(&rig);
    give_to(&rig, OTHER_USER, 0644, 0755);
    snprintf(other, sizeof other, "%s/other", rig.dir.path);
    cr_assert(link(strata_commit_rig_file(&rig, 0, path), other) == 0);
    expect_looked_at(&rig);
    cr_assert(seteuid(OTHER_USER) == 0);
    expect_looked_at(&rig);
    cr_assert(seteuid(0) == 0);
    strata_error error = {.status = STRATA_OK};
    cr_expect(strata_store_drop(rig.dirs, 2, 2, &error) == STRATA_E_IO);
    cr_expect(error.native == EPERM);
    cr_expect(strstr(error.message, "belongs to user 65534") != NULL, "%s", error.message);
    strata_commit_rig_remove(&rig);
}

Test(store_read_only, another_user_may_not_look_at_what_is_not_theirs)
{
    struct commit_rig rig;
    strata_store_listing listing;
    strata_error error;
    need_root();
    make_run(&rig);
    give_to(&rig, OTHER_USER, 0644, 0755);
    cr_assert(seteuid(OTHER_USER - 1) == 0);
    cr_expect(list_store(&rig, &listing, &error) == STRATA_E_IO && error.native == EPERM);
    cr_expect(strstr(error.message, "belongs to user 65534") != NULL, "%s", error.message);
    cr_assert(seteuid(0) == 0);
    strata_commit_rig_remove(&rig);
}

/* What somebody left in the directory is no matter of who only looks. */
Test(store_read_only, a_file_in_the_making_is_not_looked_at)
{
    struct commit_rig rig;
    char making[PATH_MAX + 32];
    make_run(&rig);
    snprintf(making, sizeof making, "%s/" STRATA_STORE_NEW_NAME, rig.drives[0]);
    cr_assert(symlink("/nowhere", making) == 0);
    expect_looked_at(&rig);
    strata_commit_rig_remove(&rig);
}
