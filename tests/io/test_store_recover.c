#define _GNU_SOURCE
/*
 * A tile table that is whole, of this store, drive, generation and step, is still not enough: a
 * commit that was lost before its record landed may have left one like it. What tells the two
 * apart is the hash over all drives' tables in the commit record.
 */

#include "tests/support/commit_rig.h"

#include <criterion/criterion.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void open_rig(struct commit_rig *rig)
{
    strata_error error = {.status = STRATA_OK};
    cr_assert(strata_commit_rig_open(rig, &error) == STRATA_OK, "%s", error.message);
}

/* The table of the last commit on the second drive, with one entry changed and sealed again. */
static void replace_table(const struct commit_rig *rig, uint64_t offset)
{
    static union {
        struct table_head head;
        uint8_t bytes[STRATA_STORE_BLOCK_BYTES];
    } table;
    char path[PATH_MAX + 32];
    int fd = open(strata_commit_rig_file(rig, 1, path), O_RDWR | O_CLOEXEC);
    cr_assert(fd >= 0 && pread(fd, &table, sizeof table, (off_t)offset) == sizeof table);
    struct table_entry *entry = (struct table_entry *)(&table.head + 1);
    entry->slot ^= 1;
    strata_store_table_finish(&table.head, sizeof table);
    cr_assert(pwrite(fd, &table, sizeof table, (off_t)offset) == sizeof table);
    cr_assert(close(fd) == 0);
}

/* A run to step 6 over two drives, closed. */
static void leave_at_6(struct commit_rig *rig, struct commit_places *places)
{
    strata_commit_rig_make(rig, 2, STRATA_IO_THREADS, false);
    open_rig(rig);
    while (rig->step < 6)
        cr_assert(strata_commit_rig_step(rig) == STRATA_OK);
    strata_commit_rig_find(rig, places);
    strata_commit_rig_close(rig);
}

Test(store_recover, a_whole_table_that_is_not_the_committed_one_is_not_used)
{
    struct commit_rig rig;
    struct commit_places places;
    bool same = false;
    strata_error error = {.status = STRATA_OK};
    leave_at_6(&rig, &places);
    for (uint32_t copy = 0; copy < STRATA_STORE_COPIES; copy++)
        replace_table(&rig, places.tables[1][0][copy]);
    cr_expect(strata_commit_rig_open(&rig, &error) == STRATA_E_CORRUPT);
    cr_expect(strstr(error.message, "are not those committed") != NULL, "%s", error.message);
    rig.records.resume_step = 5;
    open_rig(&rig);
    cr_expect(rig.step == 5, "step %d", (int)rig.step);
    cr_expect(strata_commit_rig_check(&rig, &same) == STRATA_OK && same);
    strata_commit_rig_remove(&rig);
}

Test(store_recover, where_one_copy_is_another_whole_table_the_other_copy_is_used)
{
    for (uint32_t copy = 0; copy < STRATA_STORE_COPIES; copy++) {
        struct commit_rig rig;
        struct commit_places places;
        bool same = false;
        leave_at_6(&rig, &places);
        replace_table(&rig, places.tables[1][0][copy]);
        open_rig(&rig);
        cr_expect(rig.step == 6, "step %d", (int)rig.step);
        cr_expect(strata_commit_rig_check(&rig, &same) == STRATA_OK && same);
        strata_commit_rig_remove(&rig);
    }
}
