#define _GNU_SOURCE
/*
 * Going on with a run: only the run that left it may, from any commit that is listed, and what
 * is damaged is found. A refusal changes no byte of any file.
 */

#include "base/error.h"
#include "tests/io/commit_check.h"
#include "tests/support/quick_clock.h"
#include "tests/support/store_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Refused with this status and text; no byte of any file is another, nothing is held. */
static void expect_refusal(struct commit_rig *rig, strata_status status, const char *text)
{
    struct hash128 before[COMMIT_DRIVES_MAX], after;
    char path[PATH_MAX + 32];
    strata_error error = {.status = STRATA_OK};
    int descriptors = strata_open_descriptors();
    for (uint32_t i = 0; i < COMMIT_DRIVES_MAX && rig->drives[i][0] != '\0'; i++)
        if (access(strata_commit_rig_file(rig, i, path), F_OK) == 0)
            before[i] = file_hash(rig, i);
    cr_expect(strata_commit_rig_open(rig, &error) == status, "%d: %s", (int)error.status,
              error.message);
    cr_expect(error.status == status && rig->store == NULL);
    cr_expect(strstr(error.message, text) != NULL, "'%s' instead of '%s'", error.message, text);
    cr_expect(strata_open_descriptors() == descriptors);
    for (uint32_t i = 0; i < COMMIT_DRIVES_MAX && rig->drives[i][0] != '\0'; i++) {
        if (access(strata_commit_rig_file(rig, i, path), F_OK) != 0)
            continue;
        after = file_hash(rig, i);
        cr_expect(after.low == before[i].low && after.high == before[i].high);
    }
}

Test(resume, a_retained_commit_can_be_gone_on_from)
{
    struct commit_rig rig;
    leave_at(&rig, 2, 2, 7);
    go_on_from(&rig, 6);
    EXPECT_LIST(&rig, 6, 4);
    expect_whole(&rig);
    run_to(&rig, 9);
    EXPECT_LIST(&rig, 9, 8, 6);
    go_on_from_newest(&rig);
    EXPECT_LIST(&rig, 9, 8, 6);
    remove_whole(&rig);
}

/* Its slots are written from now on, so nobody may find it any more. */
Test(resume, a_commit_that_was_gone_back_behind_is_given_up_at_once)
{
    struct commit_rig rig;
    leave_at(&rig, 2, 2, 7);
    rig.commit_every = 100;
    go_on_from(&rig, 4);
    EXPECT_LIST(&rig, 4);
    run_to(&rig, 6); /* records without a commit, into what were the slots of 6 and 7 */
    go_on_from_newest(&rig);
    EXPECT_LIST(&rig, 4);
    remove_whole(&rig);
}

Test(resume, a_step_that_is_not_listed_is_refused_with_those_that_are)
{
    struct commit_rig rig;
    leave_at(&rig, 1, 2, 7);
    rig.records.resume_step = 5;
    expect_refusal(&rig, STRATA_E_INVALID, "holds no commit of step 5; it has 7, 6, 4");
    strata_commit_rig_remove(&rig);
}

Test(resume, a_run_is_never_overwritten)
{
    struct commit_rig rig;
    char text[PATH_MAX + 128];
    leave_at(&rig, 2, 0, 3);
    rig.records.resume = false;
    snprintf(text, sizeof text,
             "store %s holds a run at step 3: --resume goes on from it, or give another "
             "directory",
             rig.drives[0]);
    expect_refusal(&rig, STRATA_E_STATE, text);
    rig.records.durable = false; /* not for scratch either */
    rig.records.slots = 1;
    expect_refusal(&rig, STRATA_E_STATE, text);
    rig.records.durable = true;
    rig.records.slots = 2;
    rig.records.resume = true;
    open_rig(&rig);
    EXPECT_LIST(&rig, 3);
    remove_whole(&rig);
}

Test(resume, a_run_of_another_identity_is_refused_by_its_first_difference)
{
    const struct {
        const char *identity;
        const char *text;
    } cases[] = {
        {"model=tiny\nseed=2\n", "has seed 1, this one 2"},
        {"model=large\nseed=2\n", "has model tiny, this one large"},
        {"model=tiny\n", "has seed 1, this one "},
        {"model=tiny\nseed=1\nclip=0.5\n", "has clip , this one 0.5"},
        {"model=tiny\nseed=11\n", "has seed 1, this one 11"},
        {"", "has model tiny, this one "},
    };
    struct commit_rig rig;
    leave_at(&rig, 1, 0, 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rig.records.identity = cases[i].identity;
        expect_refusal(&rig, STRATA_E_INVALID, cases[i].text);
    }
    strata_commit_rig_remove(&rig);
}

Test(resume, an_identity_may_be_as_long_as_a_header_has_room)
{
    struct commit_rig rig;
    char identity[STRATA_IDENTITY_BYTES + 2];
    memset(identity, 'x', sizeof identity);
    identity[STRATA_IDENTITY_BYTES + 1] = '\0';
    make_rig(&rig, 1, 0);
    rig.records.identity = identity;
    expect_refusal(&rig, STRATA_E_INVALID, "identity has 2049 bytes, a store holds 2048");
    identity[STRATA_IDENTITY_BYTES] = '\0';
    open_rig(&rig);
    reopen(&rig);
    EXPECT_LIST(&rig, 0);
    identity[STRATA_IDENTITY_BYTES - 1] = 'y';
    strata_commit_rig_close(&rig);
    expect_refusal(&rig, STRATA_E_INVALID, "has xxxx");
    strata_commit_rig_remove(&rig);
}

Test(resume, records_of_another_layout_are_refused_by_name)
{
    struct commit_rig rig;
    leave_at(&rig, 2, 1, 2);
    rig.desc.tile_elems = 32768;
    expect_refusal(&rig, STRATA_E_INVALID, "16384 elements per tile, this run 32768");
    rig.desc.tile_elems = 16384;
    rig.records.record_type = 2;
    expect_refusal(&rig, STRATA_E_INVALID, "1 as record type, this run 2");
    rig.records.record_type = 1;
    rig.records.count = 7;
    expect_refusal(&rig, STRATA_E_INVALID, "8 records, this run 7");
    rig.records.count = 8;
    strata_commit_rig_keep(&rig, 2, 2);
    expect_refusal(&rig, STRATA_E_INVALID, "3 slots per record, this run 4");
    strata_commit_rig_keep(&rig, 1, 2);
    rig.record_bytes[3] += STRATA_IO_ALIGN_BYTES;
    expect_refusal(&rig, STRATA_E_INVALID, "records of other lengths");
    rig.record_bytes[3] -= STRATA_IO_ALIGN_BYTES;
    open_rig(&rig);
    EXPECT_LIST(&rig, 2, 0);
    strata_commit_rig_remove(&rig);
}

Test(resume, drives_in_another_order_are_refused)
{
    struct commit_rig rig;
    leave_at(&rig, 2, 0, 1);
    rig.dirs[0] = rig.drives[1];
    rig.dirs[1] = rig.drives[0];
    expect_refusal(&rig, STRATA_E_INVALID, "is drive 2 of 2, not 1: name the directories in");
    strata_commit_rig_remove(&rig);
}

Test(resume, a_drive_that_is_not_named_or_has_lost_its_file_is_missed)
{
    struct commit_rig rig;
    char path[PATH_MAX + 32], moved[PATH_MAX + 32];
    leave_at(&rig, 3, 0, 1);
    rig.desc.dir_count = 2;
    expect_refusal(&rig, STRATA_E_INVALID, "has 3 drives, 2 directories are named");
    rig.dirs[0] = rig.drives[1];
    rig.desc.dir_count = 1;
    for (int resume = 0; resume <= 1; resume++) {
        rig.records.resume = resume == 1;
        expect_refusal(&rig, STRATA_E_INVALID, "holds drive 2 of 3 of a store whose first");
    }
    rig.dirs[0] = rig.drives[0];
    rig.desc.dir_count = 3;
    snprintf(moved, sizeof moved, "%s/moved", rig.drives[1]);
    cr_assert(rename(strata_commit_rig_file(&rig, 1, path), moved) == 0);
    expect_refusal(&rig, STRATA_E_INVALID, "drive 2 of 3 of the store in");
    cr_assert(rename(moved, path) == 0);
    open_rig(&rig);
    remove_whole(&rig);
}

Test(resume, a_drive_of_another_store_is_refused)
{
    struct commit_rig rig, other;
    char path[PATH_MAX + 32], other_path[PATH_MAX + 32];
    leave_at(&rig, 2, 0, 1);
    leave_at(&other, 2, 0, 1);
    rig.dirs[1] = other.drives[0]; /* a first drive, of a run of its own */
    expect_refusal(&rig, STRATA_E_INVALID, "holds a drive of another store than");
    rig.dirs[1] = other.drives[1]; /* its first is not here: it may be precious */
    expect_refusal(&rig, STRATA_E_INVALID, "whose first drive is not named");
    rig.dirs[1] = rig.drives[1];
    cr_assert(rename(strata_commit_rig_file(&other, 1, other_path),
                     strata_commit_rig_file(&rig, 1, path)) == 0);
    expect_refusal(&rig, STRATA_E_INVALID, "whose first drive is not named");
    strata_commit_rig_remove(&rig);
    strata_commit_rig_remove(&other);
}

Test(resume, scratch_places_may_change_from_run_to_run)
{
    const uint64_t bytes[][2] = {{12288, 12288}, {262144, 4096}, {4096, 4096}, {65536, 65536}};
    struct commit_rig rig;
    leave_at(&rig, 2, 1, 3);
    for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++) {
        uint64_t sum = 0;
        memcpy(rig.scratch_bytes, bytes[i], sizeof rig.scratch_bytes);
        rig.desc.place_count = i == 2 ? 0 : 2;
        rig.desc.limit_bytes = strata_store_file_bytes(&rig.desc);
        open_rig(&rig);
        for (uint32_t drive = 0; drive < 2; drive++) {
            char path[PATH_MAX + 32];
            struct stat info;
            cr_assert(stat(strata_commit_rig_file(&rig, drive, path), &info) == 0);
            cr_expect(info.st_blocks * 512 >= info.st_size && (info.st_mode & 07777) == 0600);
            sum += (uint64_t)info.st_size;
        }
        /* To the byte, but for what unequal shares might have taken. */
        cr_expect(sum <= rig.desc.limit_bytes &&
                  rig.desc.limit_bytes - sum <= 2 * (2 + rig.desc.records->keep) *
                                                    strata_store_spare_blocks(&rig.desc) *
                                                    STRATA_STORE_BLOCK_BYTES);
        expect_whole(&rig);
        uint8_t *scratch = aligned_alloc(STRATA_IO_ALIGN_BYTES, bytes[i][0]);
        cr_assert(scratch != NULL);
        memset(scratch, (int)i, bytes[i][0]);
        for (int write = 1; write >= 0 && rig.desc.place_count > 0; write--)
            cr_expect(strata_store_transfer(rig.store, write, 0, 0, scratch) == STRATA_OK);
        free(scratch);
        run_to(&rig, rig.step + 1);
        reopen(&rig);
        expect_whole(&rig);
        strata_commit_rig_close(&rig);
    }
    strata_commit_rig_remove(&rig);
}

Test(resume, a_store_that_is_closed_without_a_commit_leaves_nothing)
{
    struct commit_rig rig;
    make_rig(&rig, 2, 0);
    cr_assert(strata_store_open(&rig.store, &rig.desc, NULL) == STRATA_OK);
    strata_commit_rig_close(&rig);
    cr_expect(strata_temp_dir_count(rig.drives[0]) == 0);
    cr_expect(strata_temp_dir_count(rig.drives[1]) == 0);
    strata_commit_rig_remove(&rig);
}

Test(resume, a_store_without_a_commit_is_nobodys)
{
    struct commit_rig rig;
    char path[PATH_MAX + 32];
    make_rig(&rig, 2, 0);
    for (int round = 0; round < 3; round++) {
        strata_commit_rig_leave_uncommitted(&rig);
        cr_expect(access(strata_commit_rig_file(&rig, 0, path), F_OK) == 0);
        rig.records.resume = round == 0;
    }
    /* Killed between the first drive's name and the second's. */
    cr_assert(unlink(strata_commit_rig_file(&rig, 1, path)) == 0);
    rig.records.resume = true;
    open_rig(&rig);
    run_and_reopen(&rig, 1);
    remove_whole(&rig);
}

/* Offsets from the beginning of a block that are tried: its ends, and all over. */
static uint64_t next_offset(uint64_t at)
{
    return at < 128 || at >= STRATA_STORE_BLOCK_BYTES - 20 ? at + 1 : at + 101;
}

/* The place of a copy of the first drive's table of this number. */
static uint64_t rig_table(const struct commit_places *places, uint32_t table, uint32_t copy)
{
    uint64_t first = copy == 0 ? (1 + STRATA_STORE_RECEIPT_COUNT) * STRATA_STORE_BLOCK_BYTES
                               : places->back_tables;
    return first + table * places->table_bytes[0];
}

Test(resume, a_damaged_copy_of_the_commit_record_loses_nothing_and_the_log_says_so)
{
    struct commit_rig rig;
    struct commit_places places;
    char line[512], text[PATH_MAX + 128], path[PATH_MAX + 32];
    leave_and_find(&rig, &places, 2, 0, 6);
    strata_store_keep_line(&rig.desc, line);
    for (uint64_t at = 0; at < STRATA_STORE_BLOCK_BYTES; at = next_offset(at)) {
        uint64_t place = places.newest[at % 2];
        snprintf(text, sizeof text,
                 "a copy of a commit record, 4096 bytes at %d in %s, is not what was written",
                 (int)place, strata_commit_rig_file(&rig, 0, path));
        line[0] = '\0';
        damage(&rig, 0, place + at);
        open_rig(&rig);
        cr_expect(rig.step == 6, "byte %d: step %d", (int)at, (int)rig.step);
        cr_expect(strstr(line, text) != NULL, "byte %d: '%s'", (int)at, line);
        strata_commit_rig_close(&rig);
        /* It has been written again. */
        line[0] = '\0';
        open_rig(&rig);
        cr_expect(rig.step == 6 && line[0] == '\0', "byte %d: '%s'", (int)at, line);
        strata_commit_rig_close(&rig);
    }
    open_rig(&rig);
    remove_whole(&rig);
}

Test(resume, a_commit_whose_record_is_lost_is_missed_and_an_older_one_is_gone_on_from_if_asked)
{
    struct commit_rig rig;
    struct commit_places places;
    leave_and_find(&rig, &places, 2, 0, 6);
    damage_copies(&rig, 0, places.newest, 700);
    expect_refusal(&rig, STRATA_E_CORRUPT,
                   ": step 6 is lost, its commit record is whole in "
                   "neither copy, 4096 bytes at ");
    expect_refusal(&rig, STRATA_E_CORRUPT,
                   "; --resume --at 5 goes on from the newest that is whole");
    rig.records.resume = false;
    expect_refusal(&rig, STRATA_E_STATE, "holds a run at step 5");
    rig.records.resume = true;
    rig.records.resume_step = 3;
    expect_refusal(&rig, STRATA_E_CORRUPT, "; --resume --at 5 goes on");
    go_on_from(&rig, 5);
    EXPECT_LIST(&rig, 5);
    expect_whole(&rig);
    go_on_from_newest(&rig); /* nobody misses it any more */
    EXPECT_LIST(&rig, 5);
    run_and_reopen(&rig, 9);
    EXPECT_LIST(&rig, 9);
    remove_whole(&rig);
}

Test(resume, a_damaged_copy_of_a_tile_table_loses_nothing_and_the_log_says_so)
{
    struct commit_rig rig;
    struct commit_places places;
    char line[512];
    leave_and_find(&rig, &places, 2, 0, 6);
    strata_store_keep_line(&rig.desc, line);
    for (uint64_t at = 0; at < STRATA_STORE_BLOCK_BYTES; at = next_offset(at)) {
        uint64_t table = places.tables[at / 2 % 2][0][at % 2];
        line[0] = '\0';
        damage(&rig, at / 2 % 2, table + at);
        open_rig(&rig);
        cr_expect(rig.step == 6, "byte %d: step %d", (int)at, (int)rig.step);
        cr_expect(strstr(line, "the tile table of step 6, 4096 bytes at ") != NULL, "%s", line);
        cr_expect(strstr(line, "its other copy is whole") != NULL, "%s", line);
        strata_commit_rig_close(&rig);
        damage(&rig, at / 2 % 2, table + at);
    }
    open_rig(&rig);
    remove_whole(&rig);
}

Test(resume, a_commit_without_a_whole_table_is_missed_and_an_older_one_is_gone_on_from_if_asked)
{
    struct commit_rig rig;
    struct commit_places places;
    leave_and_find(&rig, &places, 2, 0, 6);
    damage_copies(&rig, 1, places.tables[1][0], 70);
    expect_refusal(&rig, STRATA_E_CORRUPT, "the tile table of step 6, 4096 bytes at ");
    expect_refusal(&rig, STRATA_E_CORRUPT,
                   "; --resume --at 5 goes on from the newest that is whole");
    go_on_from(&rig, 5);
    EXPECT_LIST(&rig, 5);
    rig.records.resume_step = UINT64_MAX;
    run_and_reopen(&rig, 9);
    EXPECT_LIST(&rig, 9);
    remove_whole(&rig);
}

/* Three records newer than the one gone on with, all without tables: none of them is in its
 * way, and it stays until the next commit is durable. */
Test(resume, the_record_gone_on_with_is_not_the_next_to_be_written)
{
    struct commit_rig rig;
    struct commit_places places;
    make_rig(&rig, 1, 1);
    rig.keep_every = 3;
    open_rig(&rig);
    run_to(&rig, 6); /* generations 4 to 7 are on the drive, 4 for step 3, which is retained */
    EXPECT_LIST(&rig, 6, 3);
    strata_commit_rig_find(&rig, &places);
    strata_commit_rig_close(&rig);
    /* All tables but those of step 3. */
    for (uint32_t copy = 0; copy < 2; copy++)
        for (uint32_t table = 0; table < 3; table++) {
            uint64_t offset = rig_table(&places, table, copy);
            if (offset != places.tables[0][1][copy])
                damage(&rig, 0, offset + 80);
        }
    go_on_from(&rig, 3);
    EXPECT_LIST(&rig, 3);
    cr_expect(rig.store->generation == 8, "listed again at once");
    run_to(&rig, 4);
    bool stays = false;
    for (uint32_t i = 0; i < STRATA_STORE_RECORD_COUNT; i++)
        stays = stays || rig.store->record_generation[i] == 8;
    cr_expect(stays && rig.store->generation == 9);
    strata_commit_rig_remove(&rig);
}

/* Somebody may still save it by hand: it is refused, not made anew. */
Test(resume, a_run_without_a_good_table_is_refused_not_made_anew)
{
    struct commit_rig rig;
    struct commit_places places;
    leave_and_find(&rig, &places, 2, 0, 3);
    for (uint32_t copy = 0; copy < 2; copy++)
        for (uint32_t table = 0; table < 2; table++)
            damage(&rig, 0, rig_table(&places, table, copy) + 70);
    expect_refusal(&rig, STRATA_E_CORRUPT, "the tile table of step 3, 4096 bytes at ");
    expect_refusal(&rig, STRATA_E_CORRUPT, "; no commit is whole");
    rig.records.resume = false;
    expect_refusal(&rig, STRATA_E_STATE, "holds a run at step 3");
    strata_commit_rig_remove(&rig);
}

Test(resume, a_retained_commit_with_a_damaged_table_is_given_up_and_the_log_says_so)
{
    struct commit_rig rig;
    char line[512] = "";
    leave_at(&rig, 2, 1, 5);
    struct commit_places places;
    find_places(&rig, &places);
    damage_copies(&rig, 0, places.tables[0][1], 64);
    strata_store_keep_line(&rig.desc, line);
    open_rig(&rig);
    EXPECT_LIST(&rig, 5);
    cr_expect(strstr(line, "a retained commit is given up") != NULL, "%s", line);
    expect_whole(&rig);
    run_and_reopen(&rig, 8);
    EXPECT_LIST(&rig, 8, 6);
    expect_whole(&rig);
    strata_commit_rig_close(&rig);
    rig.records.resume_step = 4;
    expect_refusal(&rig, STRATA_E_INVALID, "it has 8, 6");
    strata_commit_rig_remove(&rig);
}

Test(resume, a_file_that_was_cut_is_refused)
{
    struct commit_rig rig;
    char path[PATH_MAX + 32];
    leave_at(&rig, 2, 0, 2);
    cr_assert(truncate(strata_commit_rig_file(&rig, 1, path), 16384) == 0);
    expect_refusal(&rig, STRATA_E_CORRUPT, "has 16384 bytes, its header says");
    strata_commit_rig_remove(&rig);
}

Test(resume, a_durable_store_in_use_is_refused_and_goes_on)
{
    struct commit_rig rig, second;
    strata_error error = {.status = STRATA_OK};
    make_rig(&rig, 2, 0);
    open_rig(&rig);
    second = rig;
    clock_hurries = true; /* a refusal comes after ten seconds of waiting for the owner */
    cr_expect(strata_commit_rig_open(&second, &error) == STRATA_E_STATE);
    clock_hurries = false;
    cr_expect(strstr(error.message, "is in use by another process") != NULL);
    run_and_reopen(&rig, 2);
    remove_whole(&rig);
}

/* A child holds this lock when the opener comes, and says so before it lets go of it. */
static void expect_wait(const char *path, struct commit_rig *rig)
{
    int told[2];
    char byte;
    cr_assert(pipe(told) == 0);
    pid_t child = fork();
    cr_assert(child >= 0);
    if (child == 0) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || flock(fd, LOCK_EX) != 0 || write(told[1], "a", 1) != 1)
            _exit(1);
        sleep(1);
        _exit(write(told[1], "b", 1) != 1);
    }
    close(told[1]);
    cr_assert(read(told[0], &byte, 1) == 1, "%s cannot be locked", path);
    open_rig(rig);
    EXPECT_LIST(rig, 2);
    cr_expect(poll(&(struct pollfd){.fd = told[0], .events = POLLIN}, 1, 0) == 1 &&
                  read(told[0], &byte, 1) == 1,
              "the opener did not wait");
    cr_assert(waitpid(child, NULL, 0) == child);
    close(told[0]);
    strata_commit_rig_close(rig);
}

/* Its directory is locked until it is gone, its file until its writes are. */
Test(resume, an_opener_waits_for_a_dead_owner_and_for_its_writes)
{
    struct commit_rig rig;
    char path[PATH_MAX + 32];
    leave_at(&rig, 1, 0, 2);
    expect_wait(rig.drives[0], &rig);
    expect_wait(strata_commit_rig_file(&rig, 0, path), &rig);
    strata_commit_rig_remove(&rig);
}

static void post(void *user, struct store_io *io)
{
    (void)io;
    sem_post(user);
}

/* Write every slot that the commit does not name, all at once, again and again. */
static void write_for_ever(struct commit_rig *rig, int told)
{
    struct store_io ios[COMMIT_RECORDS];
    sem_t done;
    if (strata_commit_rig_open(rig, NULL) != STRATA_OK || sem_init(&done, 0, 0) != 0 ||
        write(told, "", 1) != 1)
        _exit(2);
    memset(rig->buffer, 0, COMMIT_LARGEST_BYTES);
    for (uint64_t step = 1;; step++) {
        *(uint64_t *)rig->buffer = step;
        for (uint32_t i = 0; i < COMMIT_RECORDS; i++) {
            ios[i] = (struct store_io){
                .write = true,
                .place = strata_store_slot_place(rig->store, i, 1),
                .updates = step,
                .buffer = rig->buffer,
                .done = post,
                .user = &done,
            };
            strata_store_start(rig->store, &ios[i]);
        }
        for (uint32_t i = 0; i < COMMIT_RECORDS; i++)
            sem_wait(&done);
    }
}

/* The lock on the file; the process is dead, what it had in flight may not be. */
static void take_lock(int fd)
{
    while (flock(fd, LOCK_EX | LOCK_NB) != 0)
        usleep(50);
}

Test(resume, once_a_killed_owners_lock_is_free_nothing_is_written_any_more)
{
    struct commit_rig rig;
    char path[PATH_MAX + 32];
    leave_at(&rig, 1, 0, 0);
    for (int round = 0; round < 20; round++) {
        int told[2];
        char byte;
        cr_assert(pipe(told) == 0);
        pid_t child = fork();
        cr_assert(child >= 0);
        if (child == 0)
            write_for_ever(&rig, told[1]);
        cr_assert(read(told[0], &byte, 1) == 1);
        usleep(1000 + 700 * round);
        int fd = open(strata_commit_rig_file(&rig, 0, path), O_RDWR | O_CLOEXEC);
        cr_assert(fd >= 0 && kill(child, SIGKILL) == 0);
        take_lock(fd);
        struct hash128 before = file_hash(&rig, 0);
        usleep(20000);
        struct hash128 after = file_hash(&rig, 0);
        cr_expect(before.low == after.low && before.high == after.high, "round %d", round);
        close(fd);
        cr_assert(waitpid(child, NULL, 0) == child);
        close(told[0]);
        close(told[1]);
    }
    open_rig(&rig);
    EXPECT_LIST(&rig, 0);
    remove_whole(&rig);
}

/* Scratch that does not fit is refused before the run is touched; with less it goes on. */
Test(resume, a_full_disk_leaves_the_run_as_it_is)
{
    struct commit_rig rig;
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        cr_skip_test("mounting needs root: %s", strerror(errno));
    make_rig(&rig, 1, 0);
    cr_assert(mount("none", rig.drives[0], "tmpfs", 0, "size=512k") == 0);
    open_rig(&rig);
    run_to(&rig, 3);
    strata_commit_rig_close(&rig);
    rig.scratch_bytes[0] = 1u << 20;
    expect_refusal(&rig, STRATA_E_NOMEM, "nvme: need ");
    rig.scratch_bytes[0] = 131072;
    open_rig(&rig);
    EXPECT_LIST(&rig, 3);
    expect_whole(&rig);
    strata_commit_rig_close(&rig);
    cr_expect(umount2(rig.drives[0], MNT_DETACH) == 0);
    strata_commit_rig_remove(&rig);
}
