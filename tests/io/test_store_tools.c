#define _GNU_SOURCE
/*
 * A store without its run: what list says, what scrub finds, what drop leaves.
 *
 * Damage is done to the files while nobody has them open. Every damaged byte must be found in
 * the tile that it belongs to, and nothing else may be told; where a test damages bytes that no
 * commit names, nothing may be told at all.
 */

#include "base/error.h"
#include "tests/io/commit_check.h"
#include "tests/io/scrub_check.h"
#include "tests/support/io_fault.h"
#include "tests/support/quick_clock.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Whether the drives of the queues that are opened never answer. */
static bool silent_drives;
static struct io_fault_count lost;
static const struct io_fault_plan silence = {.inner = &strata_io_threads,
                                             .count = &lost,
                                             .fault = IO_FAULT_LOST,
                                             .nth = 1,
                                             .times = UINT64_MAX};

strata_status __real_strata_io_queue_open(struct io_queue **out,
                                          const struct io_queue_desc *desc,
                                          strata_error *error);
strata_status __wrap_strata_io_queue_open(struct io_queue **out,
                                          const struct io_queue_desc *desc,
                                          strata_error *error);

strata_status __wrap_strata_io_queue_open(struct io_queue **out,
                                          const struct io_queue_desc *desc, strata_error *error)
{
    struct io_queue_desc other = *desc;
    if (silent_drives) {
        other.ops = &strata_io_fault;
        other.ops_config = &silence;
    }
    return __real_strata_io_queue_open(out, &other, error);
}

static uint64_t tile_count(const struct commit_rig *rig)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < COMMIT_RECORDS; i++)
        count += rig->record_bytes[i] > 0;
    return count;
}

static void expect_sound(const struct commit_rig *rig, uint64_t step)
{
    struct told told;
    strata_scrub_result result;
    strata_error error;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < COMMIT_RECORDS; i++)
        bytes += rig->record_bytes[i];
    cr_expect(scrub(rig, &told, &result, &error) == STRATA_OK, "%s", error.message);
    cr_expect(told.count == 0, "%s", told.lines[0]);
    cr_expect(result.step == step && result.bad == 0);
    cr_expect(result.tiles == tile_count(rig) && result.bytes == bytes);
    cr_expect(result.seconds > 0 && result.backend != NULL);
}

/* Where every record of the last commit is, by number; told by the store's own layout. */
struct where {
    uint32_t drive;
    uint32_t slot;
    uint64_t offset;
};

static void find_records(struct commit_rig *rig, struct where *out)
{
    cr_assert(strata_commit_rig_open(rig, NULL) == STRATA_OK);
    const struct store_line *line = &strata_store_recovery(rig->store)->lines[0];
    for (uint32_t i = 0; i < COMMIT_RECORDS; i++) {
        uint32_t place = strata_store_slot_place(rig->store, i, line->slots[i]);
        out[i] = (struct where){.drive = rig->store->places[place].drive_index,
                                .slot = line->slots[i],
                                .offset = rig->store->places[place].offset};
    }
    strata_commit_rig_close(rig);
}

/* One of the lines is about this record, and names its slot, file and offset. */
static void expect_told(const struct commit_rig *rig, const struct told *told, uint32_t record,
                        const struct where *where)
{
    char begin[64], end[PATH_MAX + 128], path[PATH_MAX + 32];
    snprintf(begin, sizeof begin, "tile %u, slot %u: ", (unsigned)record,
             (unsigned)where->slot);
    snprintf(end, sizeof end, ": %llu bytes at %llu in %s",
             (unsigned long long)rig->record_bytes[record], (unsigned long long)where->offset,
             strata_commit_rig_file(rig, where->drive, path));
    for (uint32_t i = 0; i < told->count; i++)
        if (strncmp(told->lines[i], begin, strlen(begin)) == 0 &&
            strstr(told->lines[i], end) != NULL)
            return;
    cr_expect(false, "nobody told of %s...%s", begin, end);
}

static void expect_steps(const struct commit_rig *rig, const uint64_t *steps, uint32_t count)
{
    strata_store_listing listing;
    strata_error error = {.status = STRATA_OK};
    cr_assert(strata_store_list(&listing, rig->dirs, rig->desc.dir_count, &error) == STRATA_OK,
              "%s", error.message);
    cr_assert(listing.commit_count == count, "%u commits", (unsigned)listing.commit_count);
    for (uint32_t i = 0; i < count; i++) {
        cr_expect(listing.commits[i].step == steps[i]);
        cr_expect(listing.commits[i].retained == (i > 0));
    }
}

Test(store_tools, list_names_the_commits_and_whose_they_are)
{
    struct commit_rig rig;
    strata_store_listing listing;
    leave_at(&rig, 2, 3, 7);
    expect_steps(&rig, (uint64_t[]){7, 6, 4, 2}, 4);
    cr_assert(strata_store_list(&listing, rig.dirs, 2, NULL) == STRATA_OK);
    cr_expect_str_eq(listing.identity, rig.records.identity);
    cr_expect(listing.keep == 3 && listing.tiles == COMMIT_RECORDS);
    strata_commit_rig_remove(&rig);
}

Test(store_tools, a_directory_that_is_missing_or_empty_is_absent)
{
    struct commit_rig rig;
    strata_store_listing listing;
    strata_error error = {.status = STRATA_OK};
    strata_commit_rig_make(&rig, 1, STRATA_IO_URING, false);
    cr_expect(strata_store_list(&listing, rig.dirs, 1, &error) == STRATA_E_IO);
    cr_expect(error.native == ENOENT && strstr(error.message, "holds no store") != NULL);
    error.status = STRATA_OK;
    const char *nowhere = "/nowhere/at/all";
    cr_expect(strata_store_list(&listing, &nowhere, 1, &error) == STRATA_E_IO);
    cr_expect(error.native == ENOENT && strstr(error.message, nowhere) != NULL);
    cr_expect(strata_store_list(&listing, &nowhere, 0, NULL) == STRATA_E_INVALID);
    strata_commit_rig_remove(&rig);
}

Test(store_tools, drives_are_named_all_and_in_order)
{
    struct commit_rig rig;
    strata_store_listing listing;
    leave_at(&rig, 3, 0, 1);
    const char *turned[] = {rig.dirs[0], rig.dirs[2], rig.dirs[1]};
    const char *twice[] = {rig.dirs[0], rig.dirs[1], rig.dirs[1]};
    cr_expect(strata_store_list(&listing, rig.dirs, 2, NULL) == STRATA_E_INVALID);
    cr_expect(strata_store_list(&listing, &rig.dirs[1], 1, NULL) == STRATA_E_INVALID);
    cr_expect(strata_store_list(&listing, turned, 3, NULL) == STRATA_E_INVALID);
    cr_expect(strata_store_list(&listing, twice, 3, NULL) != STRATA_OK);
    expect_steps(&rig, (uint64_t[]){1}, 1);
    strata_commit_rig_remove(&rig);
}

Test(store_tools, a_store_without_a_commit_has_nothing_to_list_verify_or_drop)
{
    struct commit_rig rig;
    struct told told;
    strata_scrub_result result;
    strata_error error = {.status = STRATA_OK};
    strata_commit_rig_make(&rig, 1, STRATA_IO_URING, false);
    strata_commit_rig_leave_uncommitted(&rig);
    expect_steps(&rig, NULL, 0);
    cr_expect(scrub(&rig, &told, &result, &error) == STRATA_E_STATE);
    cr_expect(strata_store_drop(rig.dirs, 1, 0, NULL) == STRATA_E_STATE);
    strata_commit_rig_remove(&rig);
}

Test(store_tools, a_store_in_use_is_refused)
{
    struct commit_rig rig;
    struct told told;
    strata_store_listing listing;
    strata_scrub_result result;
    strata_error error = {.status = STRATA_OK};
    leave_at(&rig, 1, 1, 3);
    cr_assert(strata_commit_rig_open(&rig, NULL) == STRATA_OK);
    clock_hurries = true; /* a refusal comes after ten seconds of waiting for the owner */
    cr_expect(strata_store_list(&listing, rig.dirs, 1, &error) == STRATA_E_STATE);
    cr_expect(strstr(error.message, "in use") != NULL, "%s", error.message);
    cr_expect(scrub(&rig, &told, &result, &error) == STRATA_E_STATE);
    cr_expect(strata_store_drop(rig.dirs, 1, 2, NULL) == STRATA_E_STATE);
    clock_hurries = false;
    strata_commit_rig_close(&rig);
    expect_steps(&rig, (uint64_t[]){3, 2}, 2);
    strata_commit_rig_remove(&rig);
}

Test(store_tools, a_scrub_ends_at_its_deadline)
{
    struct commit_rig rig;
    strata_scrub_result result;
    strata_error error = {.status = STRATA_OK};
    leave_at(&rig, 2, 1, 3);
    strata_scrub_desc desc = {.dirs = rig.dirs, .dir_count = 2, .io_deadline_s = 1};
    silent_drives = true;
    cr_expect(strata_store_scrub(&result, &desc, &error) == STRATA_E_TIMEOUT);
    cr_expect_not_null(strstr(error.message, "no answer for 1 s"), "%s", error.message);
    silent_drives = false;
    expect_sound(&rig, 3);
    strata_commit_rig_remove(&rig);
}

Test(store_tools, scrub_reads_every_tile_of_the_last_commit)
{
    for (uint32_t drives = 1; drives <= COMMIT_DRIVES_MAX; drives++) {
        struct commit_rig rig;
        leave_at(&rig, drives, drives - 1, 5);
        expect_sound(&rig, 5);
        strata_commit_rig_remove(&rig);
    }
}

Test(store_tools, scrub_tells_every_damaged_tile_with_file_and_offset)
{
    struct commit_rig rig;
    struct where where[COMMIT_RECORDS];
    struct told told;
    strata_scrub_result result;
    strata_error error;
    leave_at(&rig, 2, 1, 5);
    find_records(&rig, where);
    uint32_t flipped = 0;
    for (uint32_t i = 0; i < COMMIT_RECORDS; i++) {
        if (rig.record_bytes[i] == 0)
            continue;
        damage(&rig, where[i].drive, where[i].offset + i * 977 % rig.record_bytes[i]);
        flipped++;
        cr_expect(scrub(&rig, &told, &result, &error) == STRATA_E_CORRUPT);
        cr_expect(told.count == flipped && result.bad == flipped);
        cr_expect(result.tiles == tile_count(&rig), "it stopped early");
        for (uint32_t j = 0; j <= i; j++)
            if (rig.record_bytes[j] > 0)
                expect_told(&rig, &told, j, &where[j]);
    }
    cr_expect(strstr(error.message, "step 5") != NULL, "%s", error.message);
    strata_commit_rig_remove(&rig);
}

Test(store_tools, damage_where_no_last_commit_is_means_nothing)
{
    struct commit_rig rig;
    struct where where[COMMIT_RECORDS];
    leave_at(&rig, 1, 1, 5);
    find_records(&rig, where);
    for (uint32_t i = 0; i < COMMIT_RECORDS; i++) {
        uint64_t slot0 = where[i].offset - where[i].slot * rig.record_bytes[i];
        for (uint32_t slot = 0; slot < rig.records.slots; slot++)
            if (slot != where[i].slot && rig.record_bytes[i] > 0)
                damage(&rig, 0, slot0 + slot * rig.record_bytes[i] + 5);
    }
    expect_sound(&rig, 5);
    strata_commit_rig_remove(&rig);
}

/* Longer than a request, shorter than the ring, longer than the ring; and not a multiple. */
static void make_long_run(struct commit_rig *rig)
{
    static const uint64_t longest = 70u << 20;
    strata_commit_rig_make(rig, 2, STRATA_IO_URING, false);
    rig->desc.request_bytes = 0;
    rig->record_bytes[0] = (9u << 20) + 4096;
    rig->record_bytes[1] = longest;
    rig->record_bytes[4] = 4u << 20;
    rig->record_bytes[5] = 8u << 20;
    free(rig->buffer);
    free(rig->expected);
    rig->buffer = aligned_alloc(STRATA_IO_ALIGN_BYTES, longest);
    rig->expected = malloc(longest);
    cr_assert(rig->buffer != NULL && rig->expected != NULL);
    cr_assert(strata_commit_rig_open(rig, NULL) == STRATA_OK);
    strata_commit_rig_close(rig);
}

Test(store_tools, tiles_of_many_requests_are_hashed_in_order)
{
    struct commit_rig rig;
    struct where where[COMMIT_RECORDS];
    struct told told;
    strata_scrub_result result;
    strata_error error;
    make_long_run(&rig);
    expect_sound(&rig, 0);
    find_records(&rig, where);
    damage(&rig, where[1].drive, where[1].offset + rig.record_bytes[1] - 1);
    damage(&rig, where[0].drive, where[0].offset + (5u << 20));
    cr_expect(scrub(&rig, &told, &result, &error) == STRATA_E_CORRUPT);
    cr_expect(told.count == 2 && result.bad == 2);
    expect_told(&rig, &told, 0, &where[0]);
    expect_told(&rig, &told, 1, &where[1]);
    strata_commit_rig_remove(&rig);
}

Test(store_tools, a_damaged_table_is_told_and_the_commit_before_is_verified)
{
    struct commit_rig rig;
    struct commit_places places;
    struct told told;
    strata_scrub_result result;
    strata_error error;
    leave_and_find(&rig, &places, 1, 0, 5);
    for (uint32_t copy = 0; copy < 2; copy++) {
        damage(&rig, 0, places.tables[0][0][copy] + 100);
        cr_expect(scrub(&rig, &told, &result, &error) == STRATA_E_CORRUPT);
        cr_expect(told.count == copy + 1 && result.bad == copy + 1);
        cr_expect(result.step == (copy == 0 ? 5 : 4), "one copy is enough to verify it");
    }
    cr_expect(result.tiles == tile_count(&rig));
    cr_expect(strstr(told.lines[0], "tile table of step 5") != NULL, "%s", told.lines[0]);
    strata_commit_rig_remove(&rig);
}

static void put(const struct commit_rig *rig, const void *block, uint64_t offset)
{
    int fd = open_file(rig, 0);
    cr_assert(pwrite(fd, block, STRATA_STORE_BLOCK_BYTES, (off_t)offset) ==
              STRATA_STORE_BLOCK_BYTES);
    cr_assert(fsync(fd) == 0);
    close(fd);
}

static void get(const struct commit_rig *rig, void *block, uint64_t offset)
{
    int fd = open_file(rig, 0);
    cr_assert(pread(fd, block, STRATA_STORE_BLOCK_BYTES, (off_t)offset) ==
              STRATA_STORE_BLOCK_BYTES);
    close(fd);
}

/* Somebody made a table with right hashes and wrong lengths. */
static void forge_length(const struct commit_rig *rig, const struct commit_places *places,
                         uint64_t bytes)
{
    _Alignas(8) uint8_t table[STRATA_STORE_BLOCK_BYTES];
    uint8_t hashes[1][16];
    struct commit_record record;
    get(rig, &record, places->newest[0]);
    get(rig, table, places->tables[0][0][0]);
    cr_assert(places->table_bytes[0] == sizeof table);
    ((struct table_entry *)(table + sizeof(struct table_head)))[2].bytes = bytes;
    strata_store_table_finish((struct table_head *)table, sizeof table);
    memcpy(hashes, table + sizeof table - 16, 16);
    strata_store_put_hash(record.lines[0].tables_hash, strata_hash(hashes, 16, 0));
    strata_store_record_finish(&record);
    for (uint32_t copy = 0; copy < 2; copy++) {
        put(rig, table, places->tables[0][0][copy]);
        put(rig, &record, places->newest[copy]);
    }
}

Test(store_tools, lengths_that_the_store_was_not_made_for_are_refused)
{
    static const uint64_t lengths[] = {4096 * 2, UINT64_MAX - 4095, 1u << 30};
    struct commit_rig rig;
    struct told told;
    strata_scrub_result result;
    strata_error error;
    struct commit_places places;
    leave_and_find(&rig, &places, 1, 0, 2);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        forge_length(&rig, &places, lengths[i]);
        cr_expect(scrub(&rig, &told, &result, &error) == STRATA_E_CORRUPT);
        cr_expect(strstr(error.message, "name lengths") != NULL, "%s", error.message);
        cr_expect(result.tiles == 0);
    }
    forge_length(&rig, &places, rig.record_bytes[2]);
    expect_sound(&rig, 2);
    strata_commit_rig_remove(&rig);
}

Test(store_tools, list_and_scrub_change_no_byte)
{
    struct commit_rig rig;
    struct hash128 before[2];
    leave_at(&rig, 2, 2, 6);
    for (uint32_t i = 0; i < 2; i++)
        before[i] = file_hash(&rig, i);
    expect_sound(&rig, 6);
    expect_steps(&rig, (uint64_t[]){6, 4, 2}, 3);
    for (uint32_t i = 0; i < 2; i++) {
        struct hash128 after = file_hash(&rig, i);
        cr_expect(after.low == before[i].low && after.high == before[i].high);
    }
    strata_commit_rig_remove(&rig);
}

Test(store_tools, a_dropped_commit_is_gone_and_the_others_are_whole)
{
    struct commit_rig rig;
    bool same;
    leave_at(&rig, 2, 4, 9);
    expect_steps(&rig, (uint64_t[]){9, 8, 6, 4, 2}, 5);
    cr_assert(strata_store_drop(rig.dirs, 2, 6, NULL) == STRATA_OK);
    expect_steps(&rig, (uint64_t[]){9, 8, 4, 2}, 4);
    cr_assert(strata_store_drop(rig.dirs, 2, 2, NULL) == STRATA_OK);
    cr_assert(strata_store_drop(rig.dirs, 2, 8, NULL) == STRATA_OK);
    expect_steps(&rig, (uint64_t[]){9, 4}, 2);
    expect_sound(&rig, 9);
    cr_assert(strata_commit_rig_open(&rig, NULL) == STRATA_OK);
    cr_expect(strata_store_recovery(rig.store)->line_count == 2);
    cr_assert(strata_commit_rig_check(&rig, &same) == STRATA_OK);
    cr_expect(same);
    for (int i = 0; i < 6; i++)
        cr_assert(strata_commit_rig_step(&rig) == STRATA_OK);
    strata_commit_rig_close(&rig);
    expect_steps(&rig, (uint64_t[]){15, 14, 12, 10, 4}, 5);
    cr_assert(strata_store_drop(rig.dirs, 2, 4, NULL) == STRATA_OK);
    expect_steps(&rig, (uint64_t[]){15, 14, 12, 10}, 4);
    strata_commit_rig_remove(&rig);
}

Test(store_tools, what_cannot_be_dropped_is_told)
{
    struct commit_rig rig;
    strata_error error = {.status = STRATA_OK};
    leave_at(&rig, 1, 2, 6);
    cr_expect(strata_store_drop(rig.dirs, 1, 6, &error) == STRATA_E_INVALID);
    cr_expect(strstr(error.message, "step 6 is the last commit") != NULL, "%s", error.message);
    error.status = STRATA_OK;
    cr_expect(strata_store_drop(rig.dirs, 1, 3, &error) == STRATA_E_INVALID);
    cr_expect(strstr(error.message, "no commit of step 3") != NULL, "%s", error.message);
    expect_steps(&rig, (uint64_t[]){6, 4, 2}, 3);
    strata_commit_rig_remove(&rig);
}

Test(store_tools, nothing_is_dropped_while_the_last_commit_is_damaged)
{
    struct commit_rig rig;
    struct commit_places places;
    leave_and_find(&rig, &places, 1, 2, 6);
    damage_copies(&rig, 0, places.tables[0][0], 100);
    cr_expect(strata_store_drop(rig.dirs, 1, 4, NULL) == STRATA_E_CORRUPT);
    expect_steps(&rig, (uint64_t[]){6, 4, 2}, 3);
    strata_commit_rig_remove(&rig);
}
