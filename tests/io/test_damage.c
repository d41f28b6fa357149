#define _GNU_SOURCE
/*
 * Every block of a small store damaged in turn, and the run gone on with.
 *
 * A run over two drives is left at step 5, with a retained commit; or killed in the step after
 * that. Its files are kept as they were after each step. Then one block of 4 KiB after the
 * other is overwritten: with zeros, with noise, or with what stood there after an earlier step.
 * Whatever block it was, one of two things happens. The run goes on from step 5, every byte of
 * its commits is right, and it ends as the run that nobody disturbed. Or it is refused, with a
 * line that names the file and the place, and no byte of any file is changed. It never begins
 * anew, nothing is removed, and what is damaged is never gone on with.
 *
 * A tile stands once, so a damaged one is refused when the open reads it, as an engine does.
 * The header stands once, too. All else stands twice or is not needed.
 *
 * The short form takes some 500 of the cases, spread over all of them; the long form takes all.
 */

#include "tests/io/commit_check.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DRIVES  2u
#define LEFT_AT 5u
#define ENDS_AT 8u
#define CASES   250u /* of each of two runs */

/* A drive's file as it was after a step. */
struct image {
    uint8_t *bytes;
    uint64_t length;
};

struct damage_test {
    struct commit_rig rig;
    struct image images[LEFT_AT + 1][DRIVES]; /* by step */
    uint32_t went_on;
    uint32_t refused;
};

/* What a block is overwritten with: zeros, noise, or what stood there after a step. */
enum { WITH_ZEROS, WITH_NOISE, WITH_STEP_0, CONTENTS = WITH_STEP_0 + LEFT_AT };

static void read_image(const struct commit_rig *rig, uint32_t drive, struct image *out)
{
    char path[PATH_MAX + 32];
    struct stat info;
    int fd = open(strata_commit_rig_file(rig, drive, path), O_RDONLY | O_CLOEXEC);
    cr_assert(fd >= 0 && fstat(fd, &info) == 0);
    out->length = (uint64_t)info.st_size;
    out->bytes = malloc(out->length);
    cr_assert(out->bytes != NULL &&
              pread(fd, out->bytes, out->length, 0) == (ssize_t)out->length);
    close(fd);
}

static void write_image(const struct commit_rig *rig, uint32_t drive, const struct image *image)
{
    char path[PATH_MAX + 32];
    int fd =
        open(strata_commit_rig_file(rig, drive, path), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    cr_assert(fd >= 0 && pwrite(fd, image->bytes, image->length, 0) == (ssize_t)image->length &&
              ftruncate(fd, (off_t)image->length) == 0);
    close(fd);
}

static bool is_image(const struct commit_rig *rig, uint32_t drive, const struct image *image)
{
    struct image now;
    read_image(rig, drive, &now);
    bool same = now.length == image->length && memcmp(now.bytes, image->bytes, now.length) == 0;
    free(now.bytes);
    return same;
}

/* killed: a part of the next step was written, over slots that the commit before had. */
static void make_run(struct damage_test *test, bool killed)
{
    struct commit_rig *rig = &test->rig;
    strata_commit_rig_make(rig, DRIVES, STRATA_IO_THREADS, true);
    strata_commit_rig_keep(rig, 1, 2);
    for (uint32_t step = 0; step <= LEFT_AT; step++) {
        open_rig(rig);
        run_to(rig, step);
        strata_commit_rig_close(rig);
        for (uint32_t drive = 0; drive < DRIVES; drive++)
            read_image(rig, drive, &test->images[step][drive]);
    }
    if (!killed)
        return;
    rig->commit_every = 100;
    open_rig(rig);
    run_to(rig, LEFT_AT + 1);
    strata_commit_rig_close(rig);
    rig->commit_every = 1;
    for (uint32_t drive = 0; drive < DRIVES; drive++) {
        free(test->images[LEFT_AT][drive].bytes);
        read_image(rig, drive, &test->images[LEFT_AT][drive]);
    }
}

static void end_run(struct damage_test *test)
{
    for (uint32_t step = 0; step <= LEFT_AT; step++)
        for (uint32_t i = 0; i < DRIVES; i++)
            free(test->images[step][i].bytes);
    strata_commit_rig_remove(&test->rig);
}

static void fill_block(const struct damage_test *test, uint32_t drive, uint64_t offset,
                       uint32_t content, uint8_t *out)
{
    uint64_t state = offset + drive + 1;
    memset(out, 0, STRATA_STORE_BLOCK_BYTES);
    for (size_t i = 0; i < STRATA_STORE_BLOCK_BYTES && content == WITH_NOISE; i += 8) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        memcpy(out + i, &state, sizeof state);
    }
    if (content >= WITH_STEP_0)
        memcpy(out, test->images[content - WITH_STEP_0][drive].bytes + offset,
               STRATA_STORE_BLOCK_BYTES);
}

/* The line names the file, and where in it; a header that is none any more has no place. */
static void expect_named(const struct damage_test *test, uint32_t drive, uint64_t offset,
                         const char *line)
{
    char path[PATH_MAX + 32];
    (void)strata_commit_rig_file(&test->rig, drive, path);
    cr_expect(strstr(line, path) != NULL, "drive %d, %d: %s", (int)drive, (int)offset, line);
    cr_expect(strstr(line, " at ") != NULL || offset == 0, "drive %d, %d: %s", (int)drive,
              (int)offset, line);
}

/* The damaged files are as they were when the open was tried. */
static void expect_untouched(struct damage_test *test, struct image *damaged)
{
    for (uint32_t i = 0; i < DRIVES; i++)
        cr_expect(is_image(&test->rig, i, &damaged[i]));
}

static void go_on(struct damage_test *test, uint32_t drive, uint64_t offset)
{
    struct commit_rig *rig = &test->rig;
    bool same = false;
    EXPECT_LIST(rig, 5, 4);
    if (strata_commit_rig_check(rig, &same) != STRATA_OK) {
        expect_named(test, drive, offset, strata_store_error(rig->store)->message);
        strata_commit_rig_close(rig);
        test->refused++;
        return;
    }
    cr_expect(same, "drive %d, %d: other bytes", (int)drive, (int)offset);
    run_to(rig, ENDS_AT);
    reopen(rig);
    EXPECT_LIST(rig, 8, 6);
    expect_whole(rig);
    strata_commit_rig_close(rig);
    test->went_on++;
}

static void damage_one(struct damage_test *test, uint32_t drive, uint64_t offset,
                       uint32_t content)
{
    struct image damaged[DRIVES];
    strata_error error = {.status = STRATA_OK};
    uint8_t kept[STRATA_STORE_BLOCK_BYTES];
    memcpy(damaged, test->images[LEFT_AT], sizeof damaged);
    uint8_t *block = damaged[drive].bytes + offset;
    memcpy(kept, block, sizeof kept);
    fill_block(test, drive, offset, content, block);
    for (uint32_t i = 0; i < DRIVES; i++)
        write_image(&test->rig, i, &damaged[i]);
    strata_status status = strata_commit_rig_open(&test->rig, &error);
    if (status == STRATA_OK) {
        go_on(test, drive, offset);
    } else {
        cr_expect(status == STRATA_E_CORRUPT || (status == STRATA_E_UNSUPPORTED && offset == 0),
                  "drive %d, %d: %s", (int)drive, (int)offset, error.message);
        expect_named(test, drive, offset, error.message);
        expect_untouched(test, damaged);
        test->refused++;
    }
    memcpy(block, kept, sizeof kept);
}

static void damage_all(bool killed)
{
    struct damage_test test = {.went_on = 0};
    uint64_t blocks[DRIVES], all = 0;
    make_run(&test, killed);
    for (uint32_t i = 0; i < DRIVES; i++) {
        blocks[i] = test.images[LEFT_AT][i].length / STRATA_STORE_BLOCK_BYTES;
        all += blocks[i] * CONTENTS;
    }
    uint64_t stride = getenv("STRATA_TEST_LONG") != NULL || all < CASES ? 1 : all / CASES;
    /* An odd stride meets all blocks and all contents. */
    for (uint64_t i = killed; i < all; i += stride | 1) {
        uint64_t block = i / CONTENTS;
        uint32_t drive = block >= blocks[0];
        damage_one(&test, drive, (block - drive * blocks[0]) * STRATA_STORE_BLOCK_BYTES,
                   (uint32_t)(i % CONTENTS));
    }
    printf("damage: %u went on, %u refused, of %u blocks in %u ways\n", test.went_on,
           test.refused, (unsigned)(blocks[0] + blocks[1]), (unsigned)CONTENTS);
    cr_expect(test.went_on > 50 && test.refused > 50);
    end_run(&test);
}

Test(damage, a_damaged_block_is_refused_by_its_place_or_costs_nothing)
{
    damage_all(false);
    damage_all(true);
}

/* All that is neither tile nor header, whatever the form. */
Test(damage, each_record_table_and_receipt_may_be_damaged_at_no_cost)
{
    struct damage_test test = {.went_on = 0};
    struct commit_places places;
    make_run(&test, true);
    open_rig(&test.rig);
    strata_commit_rig_find(&test.rig, &places);
    strata_commit_rig_close(&test.rig);
    for (uint32_t content = 0; content < CONTENTS; content++) {
        for (uint32_t i = 0; i < STRATA_STORE_RECORD_BLOCKS; i++)
            damage_one(&test, 0, places.records[i], content);
        for (uint32_t i = 1; i <= STRATA_STORE_RECEIPT_COUNT; i++)
            damage_one(&test, 0, i * STRATA_STORE_BLOCK_BYTES, content);
        for (uint32_t drive = 0; drive < DRIVES; drive++)
            for (uint32_t copy = 0; copy < STRATA_STORE_COPIES; copy++)
                damage_one(&test, drive, places.tables[drive][0][copy], content);
    }
    cr_expect(test.refused == 0, "%d refused", (int)test.refused);
    end_run(&test);
}
