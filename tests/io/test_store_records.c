#define _GNU_SOURCE
/*
 * The commit records: what is nobody's, what is damage, and what one bad sector costs.
 *
 * What a crash can leave is in test_crash.c, and is gone on from. Here are states that no crash
 * leaves. They are refused by a resume, by a plain start, by list and by scrub, and no byte of
 * any file is changed; unless one copy is bad and the other is not: then nothing is lost.
 *
 * Built with the linker's --wrap for pread(), which fails at chosen places.
 */

#include "strata/store.h"

#include "tests/io/commit_check.h"
#include "tests/io/scrub_check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Reads that begin at one of these places fail, whichever the file. */
static uint64_t unreadable[16];
static uint32_t unreadable_count;

extern ssize_t __real_pread(int fd, void *buffer, size_t bytes, off_t offset);
ssize_t __wrap_pread(int fd, void *buffer, size_t bytes, off_t offset);

ssize_t __wrap_pread(int fd, void *buffer, size_t bytes, off_t offset)
{
    for (uint32_t i = 0; i < unreadable_count; i++)
        if ((uint64_t)offset == unreadable[i]) {
            errno = EIO;
            return -1;
        }
    return __real_pread(fd, buffer, bytes, offset);
}

enum content { ZEROS, NOISE, KINDS };

static void put_block(const struct commit_rig *rig, uint32_t drive, uint64_t offset,
                      const void *block)
{
    int fd = open_file(rig, drive);
    cr_assert(pwrite(fd, block, STRATA_STORE_BLOCK_BYTES, (off_t)offset) ==
              STRATA_STORE_BLOCK_BYTES);
    close(fd);
}

static void overwrite(const struct commit_rig *rig, uint64_t offset, enum content content)
{
    uint8_t block[STRATA_STORE_BLOCK_BYTES] = {0};
    uint64_t state = offset;
    for (size_t i = 0; i < sizeof block && content == NOISE; i += sizeof state) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        memcpy(block + i, &state, sizeof state);
    }
    put_block(rig, 0, offset, block);
}

static strata_status list(const struct commit_rig *rig, strata_store_listing *out,
                          strata_error *error)
{
    *error = (strata_error){.status = STRATA_OK};
    return strata_store_list(out, rig->dirs, rig->desc.dir_count, error);
}

/* Damage: refused by all, with this text, and left as it is. */
static void expect_damage(struct commit_rig *rig, const char *text)
{
    strata_store_listing listing;
    strata_scrub_result result;
    struct told told;
    strata_error error = {.status = STRATA_OK};
    struct hash128 before = file_hash(rig, 0);
    for (int resume = 0; resume < 2; resume++) {
        rig->records.resume = resume == 1;
        cr_expect(strata_commit_rig_open(rig, &error) == STRATA_E_CORRUPT, "%s: %s", text,
                  error.message);
        cr_expect(strstr(error.message, text) != NULL, "%s: %s", text, error.message);
    }
    cr_expect(list(rig, &listing, &error) == STRATA_E_CORRUPT, "%s", text);
    cr_expect(strstr(error.message, text) != NULL, "%s: %s", text, error.message);
    cr_expect(scrub(rig, &told, &result, &error) == STRATA_E_CORRUPT, "%s", text);
    struct hash128 after = file_hash(rig, 0);
    cr_expect(before.low == after.low && before.high == after.high, "%s", text);
}

static void expect_damage_at(struct commit_rig *rig, uint64_t offset)
{
    char text[96];
    snprintf(text, sizeof text,
             "no commit record is whole, and this is no new store: 4096 "
             "bytes at %llu",
             (unsigned long long)offset);
    expect_damage(rig, text);
}

/* A store whose first commit never was, and where its commit records would be. */
static void make_new(struct commit_rig *rig, struct commit_places *out)
{
    make_rig(rig, 1, 0);
    cr_assert(strata_store_open(&rig->store, &rig->desc, NULL) == STRATA_OK);
    strata_commit_rig_find(rig, out);
    strata_commit_rig_close(rig);
    strata_commit_rig_leave_uncommitted(rig);
}

Test(store_records, a_new_store_is_nobodys_though_its_first_record_is_torn)
{
    struct commit_rig rig;
    struct commit_places places;
    for (int content = 0; content < KINDS; content++)
        for (int both = 0; both < 2; both++) {
            make_new(&rig, &places);
            overwrite(&rig, places.records[0], (enum content)content);
            if (both)
                overwrite(&rig, places.records[STRATA_STORE_RECORD_COUNT],
                          (enum content)content);
            strata_error error;
            strata_store_listing listing;
            cr_expect(list(&rig, &listing, &error) == STRATA_OK, "%s", error.message);
            cr_expect(listing.commit_count == 0);
            open_rig(&rig);
            cr_expect(strata_store_recovery(rig.store)->line_count == 0);
            strata_commit_rig_remove(&rig);
        }
}

/* Sectors of 512 bytes land each by itself. */
Test(store_records, any_part_of_the_first_record_over_the_pattern_is_nobodys)
{
    struct commit_rig rig;
    struct commit_places places;
    uint8_t record[STRATA_STORE_BLOCK_BYTES];
    char path[PATH_MAX + 32];
    make_rig(&rig, 1, 0);
    open_rig(&rig);
    strata_commit_rig_find(&rig, &places);
    int fd = open(strata_commit_rig_file(&rig, 0, path), O_RDONLY | O_CLOEXEC);
    cr_assert(fd >= 0 &&
              pread(fd, record, sizeof record, (off_t)places.newest[0]) == sizeof record);
    close(fd);
    strata_commit_rig_remove(&rig);
    for (uint32_t mask = 0; mask < 255; mask += 17) {
        make_new(&rig, &places);
        fd = open(strata_commit_rig_file(&rig, 0, path), O_WRONLY | O_CLOEXEC);
        for (uint32_t copy = 0; copy < 2; copy++)
            for (uint32_t sector = 0; sector < 8; sector++)
                if ((mask ^ copy * 60) >> sector & 1)
                    cr_assert(pwrite(fd, record + 512 * sector, 512,
                                     (off_t)(places.records[4 * copy] + 512 * sector)) == 512);
        close(fd);
        open_rig(&rig);
        cr_expect(strata_store_recovery(rig.store)->line_count == 0, "mask %#x", mask);
        strata_commit_rig_remove(&rig);
    }
}

Test(store_records, where_the_pattern_of_a_new_store_is_gone_nothing_is_made_anew)
{
    struct commit_rig rig;
    struct commit_places places;
    for (uint32_t block = 0; block < STRATA_STORE_RECORD_BLOCKS; block++) {
        if (block % STRATA_STORE_RECORD_COUNT == 0)
            continue;
        make_new(&rig, &places);
        overwrite(&rig, places.records[block], (enum content)(block % KINDS));
        expect_damage_at(&rig, places.records[block]);
        strata_commit_rig_remove(&rig);
    }
}

/* All records of a run are gone, whatever its age: it is damaged, not nobody's. */
Test(store_records, a_run_whose_commit_records_are_all_gone_is_never_taken_for_nobodys)
{
    for (uint64_t steps = 0; steps < 6; steps++)
        for (int content = 0; content < KINDS; content++) {
            struct commit_rig rig;
            struct commit_places places;
            leave_and_find(&rig, &places, 1, 0, steps);
            for (uint32_t i = 0; i < STRATA_STORE_RECORD_BLOCKS; i++)
                overwrite(&rig, places.records[i], (enum content)content);
            expect_damage_at(&rig, places.records[1]);
            strata_commit_rig_remove(&rig);
        }
}

/* An old copy of the file's records: the pattern. Receipts and tables know better. */
Test(store_records, a_run_whose_records_are_those_of_a_new_store_again_is_damaged)
{
    for (int receipts = 0; receipts < 2; receipts++) {
        struct commit_rig rig;
        struct commit_places places;
        leave_at(&rig, 1, 0, 3);
        open_rig(&rig);
        strata_commit_rig_find(&rig, &places);
        struct empty_record empty = {.block = 0};
        for (uint32_t i = 0; i < STRATA_STORE_RECORD_BLOCKS; i++) {
            memcpy(empty.store_id, rig.store->store_id, sizeof empty.store_id);
            empty.block = i;
            strata_store_empty_finish(&empty);
            put_block(&rig, 0, places.records[i], &empty);
        }
        strata_commit_rig_close(&rig);
        for (uint64_t i = 0; i < STRATA_STORE_RECEIPT_COUNT && !receipts; i++)
            overwrite(&rig, (1 + i) * STRATA_STORE_BLOCK_BYTES, NOISE);
        expect_damage_at(&rig, places.records[0]);
        strata_commit_rig_remove(&rig);
    }
}

Test(store_records, the_only_commit_of_a_run_is_missed_when_both_its_copies_are_gone)
{
    struct commit_rig rig;
    struct commit_places places;
    leave_and_find(&rig, &places, 1, 0, 0);
    for (uint32_t copy = 0; copy < 2; copy++)
        overwrite(&rig, places.newest[copy], ZEROS);
    expect_damage_at(&rig, places.records[0]);
    strata_commit_rig_remove(&rig);
}

/* What a creation leaves that lost its power between the names of two drives. */
Test(store_records, a_creation_that_was_cut_short_between_two_drives_is_made_anew)
{
    struct commit_rig rig;
    strata_store_listing listing;
    strata_error error;
    char path[PATH_MAX + 32];
    make_rig(&rig, 2, 0);
    strata_commit_rig_leave_uncommitted(&rig);
    cr_assert(unlink(strata_commit_rig_file(&rig, 1, path)) == 0);
    cr_expect(list(&rig, &listing, &error) == STRATA_OK, "%s", error.message);
    cr_expect(listing.commit_count == 0 && listing.tiles == COMMIT_RECORDS);
    open_rig(&rig);
    run_and_reopen(&rig, 1);
    EXPECT_LIST(&rig, 1);
    strata_commit_rig_close(&rig);
    /* With a commit a missing drive is missed. */
    cr_assert(unlink(strata_commit_rig_file(&rig, 1, path)) == 0);
    cr_expect(list(&rig, &listing, &error) == STRATA_E_INVALID);
    cr_expect(strata_commit_rig_open(&rig, &error) == STRATA_E_INVALID);
    strata_commit_rig_remove(&rig);
}

/* What list says of a run whose newest commit is lost: what is left, and that it is lost. */
Test(store_records, a_lost_commit_is_told_by_list_and_scrub_which_say_what_is_left)
{
    struct commit_rig rig;
    struct commit_places places;
    strata_store_listing listing;
    strata_scrub_result result;
    struct told told;
    strata_error error;
    leave_and_find(&rig, &places, 2, 1, 5);
    for (uint32_t copy = 0; copy < 2; copy++)
        overwrite(&rig, places.newest[copy], NOISE);
    cr_expect(list(&rig, &listing, &error) == STRATA_E_CORRUPT);
    cr_expect(strstr(error.message, "step 5 is lost") != NULL, "%s", error.message);
    cr_expect(strstr(error.message, "--resume --at 4 goes on") != NULL, "%s", error.message);
    cr_expect(listing.commit_count == 2 && listing.commits[0].step == 4);
    cr_expect(scrub(&rig, &told, &result, &error) == STRATA_E_CORRUPT);
    cr_expect(told.count == 1 && result.bad == 1 && result.step == 4);
    cr_expect(strstr(told.lines[0], "step 5 is lost") != NULL, "%s", told.lines[0]);
    cr_expect(strata_store_drop(rig.dirs, 2, 2, &error) == STRATA_E_CORRUPT);
    strata_commit_rig_remove(&rig);
}

/* A sector that cannot be read: list and resume go on, scrub names it and goes on. */
static void expect_no_loss(struct commit_rig *rig, uint64_t offset, const char *what)
{
    strata_store_listing listing;
    strata_scrub_result result;
    struct told told;
    strata_error error;
    unreadable[0] = offset;
    unreadable_count = 1;
    cr_expect(list(rig, &listing, &error) == STRATA_OK, "%s: %s", what, error.message);
    cr_expect(listing.commit_count == 2 && listing.commits[0].step == 5, "%s", what);
    cr_expect(scrub(rig, &told, &result, &error) == STRATA_E_CORRUPT, "%s", what);
    cr_expect(told.count == 1 && result.bad == 1 && result.step == 5, "%s: %d lines", what,
              (int)told.count);
    cr_expect(strstr(told.lines[0], "Input/output error") != NULL, "%s: %s", what,
              told.lines[0]);
    cr_expect(result.tiles == COMMIT_RECORDS, "%s", what);
    cr_assert(strata_commit_rig_open(rig, &error) == STRATA_OK, "%s: %s", what, error.message);
    EXPECT_LIST(rig, 5, 4);
    expect_whole(rig);
    strata_commit_rig_close(rig);
    unreadable_count = 0;
}

Test(store_records, an_unreadable_sector_of_any_record_or_table_loses_nothing)
{
    struct commit_rig rig;
    struct commit_places places;
    char what[64];
    leave_and_find(&rig, &places, 1, 1, 5);
    for (uint32_t i = 0; i < STRATA_STORE_RECORD_BLOCKS; i++) {
        snprintf(what, sizeof what, "record block %d", (int)i);
        expect_no_loss(&rig, places.records[i], what);
    }
    for (uint32_t copy = 0; copy < STRATA_STORE_COPIES; copy++) {
        snprintf(what, sizeof what, "table copy %d", (int)copy);
        expect_no_loss(&rig, places.tables[0][0][copy], what);
    }
    strata_commit_rig_remove(&rig);
}

Test(store_records, an_unreadable_receipt_loses_nothing)
{
    struct commit_rig rig;
    strata_error error;
    leave_at(&rig, 1, 1, 5);
    for (uint64_t i = 0; i < STRATA_STORE_RECEIPT_COUNT; i++) {
        unreadable[0] = (1 + i) * STRATA_STORE_BLOCK_BYTES;
        unreadable_count = 1;
        cr_assert(strata_commit_rig_open(&rig, &error) == STRATA_OK, "%s", error.message);
        EXPECT_LIST(&rig, 5, 4);
        strata_commit_rig_close(&rig);
    }
    unreadable_count = 0;
    strata_commit_rig_remove(&rig);
}

Test(store_records, a_run_none_of_whose_records_can_be_read_is_refused_not_made_anew)
{
    struct commit_rig rig;
    struct commit_places places;
    leave_and_find(&rig, &places, 1, 0, 3);
    memcpy(unreadable, places.records, sizeof places.records);
    unreadable_count = STRATA_STORE_RECORD_BLOCKS;
    expect_damage(&rig, "Input/output error");
    unreadable_count = 0;
    rig.records.resume = true;
    open_rig(&rig);
    EXPECT_LIST(&rig, 3);
    remove_whole(&rig);
}

Test(store_records, the_copies_of_a_record_are_half_of_the_slots_apart)
{
    struct commit_rig rig;
    struct commit_places places;
    make_rig(&rig, 1, 2);
    open_rig(&rig);
    strata_commit_rig_find(&rig, &places);
    const struct drive_layout *layout = &rig.store->drives[0].layout;
    uint64_t slots = layout->tables_offset[1] - layout->slots_offset;
    for (uint32_t i = 0; i < STRATA_STORE_RECORD_COUNT; i++) {
        uint64_t apart = places.records[i + STRATA_STORE_RECORD_COUNT] - places.records[i];
        /* As near as the lengths of the records let it be. */
        cr_expect(apart > slots / 3, "record %d: %d of %d bytes", (int)i, (int)apart,
                  (int)slots);
    }
    strata_commit_rig_remove(&rig);
}

Test(store_records, as_many_commits_as_may_be_are_retained_with_a_slot_for_updates_ahead)
{
    struct commit_rig rig;
    uint64_t steps[1 + STRATA_STORE_MAX_KEEP];
    make_rig(&rig, 1, STRATA_STORE_MAX_KEEP);
    rig.records.slots = STRATA_STORE_MAX_SLOTS;
    rig.keep_every = 1;
    open_rig(&rig);
    run_to(&rig, 20);
    for (uint32_t i = 0; i < 1 + STRATA_STORE_MAX_KEEP; i++)
        steps[i] = 20 - i;
    expect_list(&rig, 1 + STRATA_STORE_MAX_KEEP, steps);
    reopen(&rig);
    expect_list(&rig, 1 + STRATA_STORE_MAX_KEEP, steps);
    remove_whole(&rig);
}

Test(store_records, a_run_with_more_tiles_than_a_store_may_have_is_refused)
{
    struct commit_rig rig;
    strata_error error = {.status = STRATA_OK};
    make_rig(&rig, 1, 0);
    rig.records.count = STRATA_STORE_MAX_RECORDS + 1; /* refused before the lengths are read */
    cr_expect(strata_store_open(&rig.store, &rig.desc, &error) == STRATA_E_INVALID);
    cr_expect(strstr(error.message, "a store has 67108864 tiles at most, this run 67108865") !=
                  NULL,
              "%s", error.message);
    strata_commit_rig_remove(&rig);
}

Test(store_records, an_identity_that_a_terminal_would_obey_makes_no_store)
{
    struct commit_rig rig;
    strata_error error = {.status = STRATA_OK};
    make_rig(&rig, 1, 0);
    rig.records.identity = "model=\x1b[2J\n";
    cr_expect(strata_store_open(&rig.store, &rig.desc, &error) == STRATA_E_INVALID);
    cr_expect(strstr(error.message, "identity has control characters") != NULL, "%s",
              error.message);
    cr_expect(strata_temp_dir_count(rig.drives[0]) == 0);
    strata_commit_rig_remove(&rig);
}
