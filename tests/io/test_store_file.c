#define _GNU_SOURCE
/*
 * How a store comes into being and goes: what is refused, what is left alone, what is removed.
 *
 * Every refusal is followed by a look at the directories: they are as they were.
 *
 * File systems that are full, read-only or without O_DIRECT are mounted in a mount namespace of
 * the test's own, which needs root; they vanish with the test's process.
 */

#include "base/error.h"
#include "tests/support/allocations.h"
#include "tests/support/kernel.h"
#include "tests/support/quick_clock.h"
#include "tests/support/store_rig.h"

#include <criterion/criterion.h>

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static strata_status open_store(struct store_rig *rig, strata_error *error)
{
    *error = (strata_error){.status = STRATA_OK};
    return strata_store_open(&rig->store, &rig->desc, error);
}

static void expect_open(struct store_rig *rig)
{
    strata_error error;
    bool same;
    cr_assert(open_store(rig, &error) == STRATA_OK, "%s", error.message);
    cr_expect(strata_store_rig_write(rig, 0, 0) == STRATA_OK);
    cr_expect(strata_store_rig_read(rig, 0, 0, &same) == STRATA_OK && same);
}

/* Refused, with this status and a message that has this text; nothing is held. */
static strata_error expect_refusal(struct store_rig *rig, strata_status status,
                                   const char *text)
{
    strata_error error;
    int descriptors = strata_open_descriptors();
    cr_expect(open_store(rig, &error) == status, "%d: %s", (int)error.status, error.message);
    cr_expect(error.status == status && rig->store == NULL);
    cr_expect(strstr(error.message, text) != NULL, "%s", error.message);
    cr_expect(strata_open_descriptors() == descriptors);
    return error;
}

static void expect_empty(const struct store_rig *rig)
{
    for (uint32_t i = 0; i < rig->desc.dir_count; i++)
        cr_expect(strata_temp_dir_count(rig->drives[i]) == 0);
}

static void put_file(const struct store_rig *rig, uint32_t drive, const void *bytes,
                     size_t length)
{
    char path[PATH_MAX + 32];
    int fd = open(strata_store_rig_file(rig, drive, path),
                  O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    cr_assert(fd >= 0 && write(fd, bytes, length) == (ssize_t)length);
    close(fd);
}

static size_t get_file(const struct store_rig *rig, uint32_t drive, void *out, size_t length)
{
    char path[PATH_MAX + 32];
    int fd = open(strata_store_rig_file(rig, drive, path), O_RDONLY | O_CLOEXEC);
    cr_assert(fd >= 0);
    ssize_t got = read(fd, out, length);
    cr_assert(got >= 0);
    close(fd);
    return (size_t)got;
}

static off_t file_size(const struct store_rig *rig, uint32_t drive)
{
    char path[PATH_MAX + 32];
    struct stat info;
    cr_assert(stat(strata_store_rig_file(rig, drive, path), &info) == 0);
    return info.st_size;
}

Test(store_file, files_are_private_full_size_and_allocated)
{
    struct store_rig rig;
    uint64_t sum = 0;
    strata_store_rig_make(&rig, 3, STRATA_IO_URING);
    umask(0);
    expect_open(&rig);
    for (uint32_t i = 0; i < 3; i++) {
        char path[PATH_MAX + 32];
        struct stat info;
        cr_assert(stat(strata_store_rig_file(&rig, i, path), &info) == 0);
        cr_expect((info.st_mode & 07777) == 0600 && S_ISREG(info.st_mode));
        cr_expect(info.st_blocks * 512 >= info.st_size, "it has holes");
        sum += (uint64_t)info.st_size;
    }
    cr_expect(sum == strata_store_file_bytes(&rig.desc));
    cr_expect(strata_store_is_direct(rig.store));
    strata_store_rig_remove(&rig);
}

/* Reserved blocks read as zeros until they are written; creation writes no zero block. */
Test(store_file, every_block_is_written_at_creation)
{
    for (int backend = STRATA_IO_URING; backend <= STRATA_IO_THREADS; backend++) {
        static const uint8_t zeros[STRATA_IO_ALIGN_BYTES];
        struct store_rig rig;
        strata_store_rig_make(&rig, 2, (strata_io_backend)backend);
        cr_assert(strata_store_open(&rig.store, &rig.desc, NULL) == STRATA_OK);
        for (uint32_t i = 0; i < 2; i++) {
            size_t bytes = (size_t)file_size(&rig, i);
            uint8_t *content = malloc(bytes);
            cr_assert(content != NULL && get_file(&rig, i, content, bytes) == bytes);
            for (size_t at = 0; at < bytes; at += sizeof zeros)
                cr_expect(memcmp(content + at, zeros, sizeof zeros) != 0);
            free(content);
        }
        strata_store_rig_remove(&rig);
    }
}

Test(store_file, drives_get_equal_shares_of_the_bytes)
{
    struct store_rig rig;
    strata_store_rig_make(&rig, 3, STRATA_IO_URING);
    expect_open(&rig);
    off_t least = file_size(&rig, 0), most = least;
    for (uint32_t i = 1; i < 3; i++) {
        off_t bytes = file_size(&rig, i);
        least = bytes < least ? bytes : least;
        most = bytes > most ? bytes : most;
    }
    cr_expect(most - least <= (off_t)RIG_LARGEST_BYTES);
    strata_store_rig_remove(&rig);
}

Test(store_file, the_headers_of_one_store_agree)
{
    struct store_rig rig;
    struct store_header headers[2];
    strata_error error = {.status = STRATA_OK};
    strata_store_rig_make(&rig, 2, STRATA_IO_THREADS);
    expect_open(&rig);
    for (uint32_t i = 0; i < 2; i++) {
        cr_expect(get_file(&rig, i, &headers[i], sizeof headers[i]) == sizeof headers[i]);
        cr_expect(strata_store_header_check(&headers[i], "f", &error) == STRATA_OK);
        cr_expect(memcmp(headers[i].magic, "STRATA\r\n", 8) == 0);
        cr_expect(headers[i].drive_index == i && headers[i].drive_count == 2);
        cr_expect(headers[i].tile_elems == 16384 && headers[i].durable == 0);
        cr_expect(headers[i].durable_bytes == STRATA_STORE_BLOCK_BYTES);
    }
    cr_expect(memcmp(headers[0].store_id, headers[1].store_id, 16) == 0);
    strata_store_rig_remove(&rig);
}

Test(store_file, every_bit_of_a_header_is_checked)
{
    struct store_rig rig;
    struct store_header header;
    strata_store_rig_make(&rig, 1, STRATA_IO_URING);
    expect_open(&rig);
    cr_assert(get_file(&rig, 0, &header, sizeof header) == sizeof header);
    for (size_t i = 0; i < 8 * sizeof header; i += i < 8 * 128 ? 1 : 97) {
        ((uint8_t *)&header)[i / 8] ^= (uint8_t)(1u << i % 8);
        cr_expect(strata_store_header_check(&header, "f", NULL) != STRATA_OK, "bit %d", (int)i);
        ((uint8_t *)&header)[i / 8] ^= (uint8_t)(1u << i % 8);
    }
    cr_expect(strata_store_header_check(&header, "f", NULL) == STRATA_OK);
    strata_store_rig_remove(&rig);
}

Test(store_file, scratch_has_no_name_and_close_gives_everything_back)
{
    struct store_rig rig;
    strata_store_rig_make(&rig, 2, STRATA_IO_URING);
    int descriptors = strata_open_descriptors();
    for (int i = 0; i < 3; i++) {
        expect_open(&rig);
        expect_empty(&rig);
        strata_store_close(rig.store);
        rig.store = NULL;
        expect_empty(&rig);
        cr_expect(strata_open_descriptors() == descriptors);
    }
    strata_store_close(NULL);
    strata_store_rig_remove(&rig);
}

Test(store_file, a_store_in_use_is_refused_and_goes_on)
{
    struct store_rig rig, second;
    strata_store_rig_make(&rig, 2, STRATA_IO_URING);
    expect_open(&rig);
    second = rig;
    second.store = NULL;
    clock_hurries = true; /* a refusal comes after ten seconds of waiting for the owner */
    strata_error error =
        expect_refusal(&second, STRATA_E_STATE, "is in use by another process");
    clock_hurries = false;
    cr_expect(strstr(error.message, rig.dirs[0]) != NULL);
    bool same;
    cr_expect(strata_store_rig_read(&rig, 0, 0, &same) == STRATA_OK && same);
    strata_store_close(rig.store);
    rig.store = NULL;
    expect_open(&rig);
    strata_store_rig_remove(&rig);
}

/* Its second drive is the first one's only drive: what it did to its own is taken back. */
Test(store_file, a_refusal_at_the_second_drive_leaves_the_first_clean)
{
    struct store_rig rig, second;
    strata_store_rig_make(&rig, 1, STRATA_IO_URING);
    strata_store_rig_make(&second, 2, STRATA_IO_URING);
    expect_open(&rig);
    second.dirs[1] = rig.drives[0];
    clock_hurries = true; /* a refusal comes after ten seconds of waiting for the owner */
    (void)expect_refusal(&second, STRATA_E_STATE, rig.drives[0]);
    clock_hurries = false;
    expect_empty(&second);
    strata_store_rig_remove(&second);
    strata_store_rig_remove(&rig);
}

Test(store_file, a_killed_owner_leaves_nothing_behind)
{
    for (int backend = STRATA_IO_URING; backend <= STRATA_IO_THREADS; backend++) {
        struct store_rig rig;
        int channel[2];
        char ready;
        strata_store_rig_make(&rig, 2, (strata_io_backend)backend);
        cr_assert(pipe(channel) == 0);
        pid_t child = fork();
        cr_assert(child >= 0);
        if (child == 0) {
            strata_error error;
            if (open_store(&rig, &error) == STRATA_OK && write(channel[1], "r", 1) == 1)
                for (uint32_t round = 0;; round++)
                    (void)strata_store_rig_write(&rig, 5, round);
            _exit(1);
        }
        cr_assert(read(channel[0], &ready, 1) == 1);
        cr_assert(kill(child, SIGKILL) == 0);
        expect_empty(&rig);
        expect_open(&rig); /* at once: the child may not even be dead yet */
        cr_assert(waitpid(child, NULL, 0) == child);
        close(channel[0]);
        close(channel[1]);
        strata_store_rig_remove(&rig);
    }
}

/* Content does not matter: a file in the making has a name that is nobody's. */
Test(store_file, what_a_killed_creation_left_is_removed)
{
    struct store_rig rig;
    char path[PATH_MAX + 64];
    strata_store_rig_make(&rig, 1, STRATA_IO_URING);
    snprintf(path, sizeof path, "%s/" STRATA_STORE_NEW_NAME, rig.drives[0]);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    cr_assert(fd >= 0 && write(fd, "half a store", 12) == 12);
    close(fd);
    put_file(&rig, 0, "", 0);
    expect_open(&rig);
    expect_empty(&rig);
    strata_store_rig_remove(&rig);
}

Test(store_file, a_file_that_is_not_ours_is_left_alone)
{
    struct store_rig rig;
    char bytes[64];
    strata_store_rig_make(&rig, 2, STRATA_IO_URING);
    put_file(&rig, 1, "somebody's thesis", 17);
    (void)expect_refusal(&rig, STRATA_E_UNSUPPORTED, "is not a store's file; it is left alone");
    cr_expect(get_file(&rig, 1, bytes, sizeof bytes) == 17);
    cr_expect(memcmp(bytes, "somebody's thesis", 17) == 0);
    cr_expect(strata_temp_dir_count(rig.drives[0]) == 0);
    strata_store_rig_remove(&rig);
}

/* A header as another version or a damaged disk would leave it. */
static void expect_header_refused(uint32_t version, uint32_t slots, bool seal,
                                  strata_status status, const char *text)
{
    struct store_rig rig;
    struct store_header header, after;
    strata_store_rig_make(&rig, 1, STRATA_IO_URING);
    expect_open(&rig);
    cr_assert(get_file(&rig, 0, &header, sizeof header) == sizeof header);
    strata_store_close(rig.store);
    rig.store = NULL;
    header.version = version;
    header.slots = slots;
    if (seal)
        strata_store_seal(&header, sizeof header);
    put_file(&rig, 0, &header, sizeof header);
    (void)expect_refusal(&rig, status, text);
    cr_expect(get_file(&rig, 0, &after, sizeof after) == sizeof after);
    cr_expect(memcmp(&header, &after, sizeof header) == 0);
    strata_store_rig_remove(&rig);
}

Test(store_file, another_version_and_damage_are_left_alone)
{
    expect_header_refused(1, 1, true, STRATA_E_UNSUPPORTED, "is of store version 1");
    expect_header_refused(STRATA_STORE_VERSION + 1, 1, true, STRATA_E_UNSUPPORTED,
                          "is of store version ");
    expect_header_refused(STRATA_STORE_VERSION, 7, false, STRATA_E_CORRUPT,
                          "is not what was written");
    expect_header_refused(STRATA_STORE_VERSION, 0, true, STRATA_E_CORRUPT,
                          "is not what was written");
}

Test(store_file, a_symbolic_link_is_not_followed)
{
    struct store_rig rig;
    char path[PATH_MAX + 32], target[PATH_MAX + 32];
    char bytes[16];
    strata_store_rig_make(&rig, 1, STRATA_IO_URING);
    snprintf(target, sizeof target, "%s/target", rig.dir.path);
    int fd = open(target, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    cr_assert(fd >= 0 && write(fd, "precious", 8) == 8);
    close(fd);
    cr_assert(symlink(target, strata_store_rig_file(&rig, 0, path)) == 0);
    strata_error error = expect_refusal(&rig, STRATA_E_IO, "symbolic link");
    cr_expect(error.native == ELOOP);
    /* Nor one where a file in the making goes. */
    char making[PATH_MAX + 40];
    snprintf(making, sizeof making, "%s/%s", rig.drives[0], STRATA_STORE_NEW_NAME);
    cr_assert(rename(path, making) == 0);
    error = expect_refusal(&rig, STRATA_E_IO, "symbolic link");
    cr_expect(error.native == ELOOP);
    cr_assert(rename(making, path) == 0);
    cr_expect(get_file(&rig, 0, bytes, sizeof bytes) == 8 && memcmp(bytes, "precious", 8) == 0);
    strata_store_rig_remove(&rig);
}

Test(store_file, a_pipe_is_refused_without_waiting)
{
    struct store_rig rig;
    char path[PATH_MAX + 32];
    strata_store_rig_make(&rig, 1, STRATA_IO_URING);
    cr_assert(mkfifo(strata_store_rig_file(&rig, 0, path), 0600) == 0);
    (void)expect_refusal(&rig, STRATA_E_UNSUPPORTED, "is not a regular file");
    strata_store_rig_remove(&rig);
}

Test(store_file, a_directory_that_is_not_there_is_refused)
{
    struct store_rig rig;
    strata_store_rig_make(&rig, 2, STRATA_IO_URING);
    cr_assert(rmdir(rig.drives[1]) == 0);
    strata_error error = expect_refusal(&rig, STRATA_E_IO, "No such file or directory");
    cr_expect(error.native == ENOENT && strstr(error.message, rig.drives[1]) != NULL);
    cr_expect(strata_temp_dir_count(rig.drives[0]) == 0);
    rig.dirs[1] = "/dev/null";
    cr_expect(expect_refusal(&rig, STRATA_E_IO, "/dev/null").native == ENOTDIR);
    strata_store_rig_remove(&rig);
}

Test(store_file, a_directory_that_may_not_be_written_is_refused)
{
    struct store_rig rig;
    bool root = geteuid() == 0;
    strata_store_rig_make(&rig, 1, STRATA_IO_URING);
    cr_assert(chmod(rig.dir.path, 0711) == 0 && chmod(rig.drives[0], 0555) == 0);
    cr_assert(!root || seteuid(65534) == 0);
    strata_error error = expect_refusal(&rig, STRATA_E_IO, rig.drives[0]);
    cr_expect(error.native == EACCES);
    cr_assert(!root || seteuid(0) == 0);
    expect_empty(&rig);
    strata_store_rig_remove(&rig);
}

/* Said of that directory alone; it is the user's own, so its mode stays. */
Test(store_file, a_directory_that_others_may_write_to_is_told_and_left_as_it_is)
{
    const mode_t modes[] = {0700, 0755, 0720, 0702, 01777};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        struct store_rig rig;
        struct stat info;
        char line[512] = "";
        strata_store_rig_make(&rig, 2, STRATA_IO_URING);
        cr_assert(chmod(rig.drives[1], modes[i]) == 0);
        strata_store_keep_line(&rig.desc, line);
        expect_open(&rig);
        bool told = strstr(line, "others may write to ") != NULL;
        cr_expect(told == ((modes[i] & 022) != 0), "%o: %s", (unsigned)modes[i], line);
        cr_expect(!told || strstr(line, rig.drives[1]) != NULL, "%s", line);
        cr_assert(stat(rig.drives[1], &info) == 0);
        cr_expect((info.st_mode & 07777) == modes[i]);
        strata_store_rig_remove(&rig);
    }
}

Test(store_file, a_directory_named_twice_is_refused)
{
    struct store_rig rig;
    char again[PATH_MAX + 16];
    strata_store_rig_make(&rig, 2, STRATA_IO_URING);
    snprintf(again, sizeof again, "%s/.", rig.drives[0]);
    rig.dirs[1] = again;
    (void)expect_refusal(&rig, STRATA_E_INVALID, "are the same");
    cr_expect(strata_temp_dir_count(rig.drives[0]) == 0);
    strata_store_rig_remove(&rig);
}

Test(store_file, one_byte_under_the_need_is_refused_before_anything_is_written)
{
    struct store_rig rig;
    char text[128];
    strata_store_rig_make(&rig, 2, STRATA_IO_URING);
    uint64_t need = strata_store_file_bytes(&rig.desc);
    rig.desc.limit_bytes = need - 1;
    snprintf(text, sizeof text, "nvme: need %llu bytes for the store's files, have %llu",
             (unsigned long long)need, (unsigned long long)need - 1);
    (void)expect_refusal(&rig, STRATA_E_NOMEM, text);
    expect_empty(&rig);
    rig.desc.limit_bytes = need;
    expect_open(&rig);
    strata_store_rig_remove(&rig);
}

/* Mounts are this process's own from now on. Called first, for a skip cleans up nothing. */
static void keep_mounts_private(void)
{
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        cr_skip_test("mounting needs root: %s", strerror(errno));
}

/* A rig of one drive whose directory is a file system of this type, for this process only. */
static void mount_rig(struct store_rig *rig, const char *type, unsigned long flags,
                      const char *options)
{
    keep_mounts_private();
    strata_store_rig_make(rig, 1, STRATA_IO_URING);
    cr_assert(mount("none", rig->drives[0], type, flags, options) == 0, "%s", strerror(errno));
}

static void unmount_drive(struct store_rig *rig)
{
    strata_store_close(rig->store);
    rig->store = NULL;
    cr_expect(umount2(rig->drives[0], MNT_DETACH) == 0);
    strata_store_rig_remove(rig);
}

Test(store_file, a_full_disk_is_refused_before_anything_is_written)
{
    struct store_rig rig;
    mount_rig(&rig, "tmpfs", 0, "size=256k");
    rig.desc.allow = STRATA_ALLOW_BUFFERED_IO;
    strata_error error = expect_refusal(&rig, STRATA_E_NOMEM, "nvme: need ");
    cr_expect(strstr(error.message, "have 262144 free") != NULL, "%s", error.message);
    expect_empty(&rig);
    unmount_drive(&rig);
}

/* Somebody else's scratch is on the full disk; it counts as free, being nobody's. */
Test(store_file, abandoned_scratch_counts_as_free_space)
{
    struct store_rig rig;
    struct store_header header;
    mount_rig(&rig, "tmpfs", 0, "size=2300k");
    rig.desc.allow = STRATA_ALLOW_BUFFERED_IO;
    expect_open(&rig);
    cr_assert(get_file(&rig, 0, &header, sizeof header) == sizeof header);
    off_t bytes = file_size(&rig, 0);
    cr_assert(bytes > 1200 << 10, "two would fit");
    strata_store_close(rig.store);
    rig.store = NULL;
    uint8_t *scratch = calloc(1, (size_t)bytes);
    cr_assert(scratch != NULL);
    memcpy(scratch, &header, sizeof header);
    put_file(&rig, 0, scratch, (size_t)bytes);
    free(scratch);
    expect_open(&rig);
    unmount_drive(&rig);
}

Test(store_file, a_disk_without_room_for_a_name_is_refused)
{
    struct store_rig rig;
    mount_rig(&rig, "tmpfs", 0, "size=8m,nr_inodes=1");
    rig.desc.allow = STRATA_ALLOW_BUFFERED_IO;
    strata_error error = expect_refusal(&rig, STRATA_E_IO, "creation of ");
    cr_expect(error.native == ENOSPC);
    unmount_drive(&rig);
}

Test(store_file, a_read_only_disk_is_refused)
{
    struct store_rig rig;
    mount_rig(&rig, "tmpfs", MS_RDONLY, NULL);
    strata_error error = expect_refusal(&rig, STRATA_E_IO, rig.drives[0]);
    cr_expect(error.native == EROFS);
    unmount_drive(&rig);
}

Test(store_file, a_file_system_without_o_direct_needs_to_be_allowed)
{
    struct store_rig rig;
    char line[512] = "";
    mount_rig(&rig, "ramfs", 0, NULL);
    (void)expect_refusal(&rig, STRATA_E_UNSUPPORTED, "--allow buffered-io");
    expect_empty(&rig);
    rig.desc.allow = STRATA_ALLOW_BUFFERED_IO;
    strata_store_keep_line(&rig.desc, line);
    expect_open(&rig);
    cr_expect(!strata_store_is_direct(rig.store));
    cr_expect(strstr(line, "page cache") != NULL);
    unmount_drive(&rig);
}

Test(store_file, a_forbidden_io_uring_is_refused_with_its_remedy)
{
    struct store_rig rig;
    char line[512] = "";
    strata_store_rig_make(&rig, 2, STRATA_IO_URING);
    rig.desc.backend = STRATA_IO_URING;
    cr_assert(strata_forbid_io_uring() == 0);
    strata_error error = expect_refusal(&rig, STRATA_E_UNSUPPORTED, "--allow threads-io");
    cr_expect(strstr(error.message, "--io threads") != NULL);
    cr_expect(error.native == EPERM);
    expect_empty(&rig);
    rig.desc.allow = STRATA_ALLOW_THREADS_IO;
    strata_store_keep_line(&rig.desc, line);
    expect_open(&rig);
    cr_expect(strcmp(strata_store_backend_name(rig.store), "threads") == 0);
    cr_expect(strstr(line, "store: I/O by threads: io_uring_setup") != NULL, "%s", line);
    strata_store_rig_remove(&rig);
}

/*
 * Everything open takes, temporary blocks included, against what the budget was told. The
 * larger backend is what is told, rings are kernel pages, and threads cost the C library a
 * little each.
 */
Test(store_file, open_takes_the_memory_it_said)
{
    if (!strata_allocations_count())
        cr_skip_test("counting allocations needs the address sanitizer");
    for (int backend = STRATA_IO_URING; backend <= STRATA_IO_THREADS; backend++) {
        struct store_rig rig;
        strata_store_rig_make(&rig, 3, (strata_io_backend)backend);
        uint64_t told = strata_store_table_bytes(&rig.desc);
        strata_allocations_reset();
        cr_assert(strata_store_open(&rig.store, &rig.desc, NULL) == STRATA_OK);
        uint64_t taken = strata_allocations_bytes();
        cr_expect(taken <= told + 8192, "%d of %d", (int)taken, (int)told);
        cr_expect(taken + 3 * 20000 >= told, "%d of %d", (int)taken, (int)told);
        /* And nothing once every thread is up, whose start costs the sanitizer some. */
        uint32_t failed = 0;
        for (uint32_t i = 0; i < RIG_PLACES; i++)
            failed += strata_store_rig_write(&rig, i, 0) != STRATA_OK;
        strata_allocations_reset();
        for (uint32_t i = 0; i < 100; i++)
            failed += strata_store_rig_write(&rig, i % RIG_PLACES, i) != STRATA_OK;
        taken = strata_allocations_bytes();
        cr_expect(failed == 0 && taken == 0, "%d", (int)taken);
        strata_store_rig_remove(&rig);
    }
}
