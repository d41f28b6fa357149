#define _GNU_SOURCE
/*
 * What a step moves to and from the drive: by our count, and by the kernel's.
 *
 * Two runs that differ in their steps alone: what they have in common, the creation of the
 * files and the first commit, cancels out. The kernel adds a child's bytes to its parent's when
 * it has been waited for (/proc/self/io), so nothing that the program does escapes. What the
 * kernel reads has the program's own pages in it where they are not in memory: a run before
 * brings them there, and of several tries the nearest counts. A file system made of RAM does no
 * I/O that could be counted; there the test is skipped.
 */

#include "tests/support/workshop.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* No clipping: a step moves what it must, once. */
#define RUN                                                                                    \
    "--data text --model config.json --seq 32 --batch 2 --tile 16384 --clip 0 "                \
    "--params nvme --states nvme --store store --commit-every 1 --json "

#define TILE_ELEMS 16384.0
#define TILES      9.0
#define FEW        2
#define MANY       12
#define STEPS      (MANY - FEW)
#define TRIES      3
/* Of a commit, besides the states (docs/formats.md): a tile table and a commit record, both
 * twice, and a receipt, of a block each in a model of so few tiles. We do not count them. */
#define COMMIT_BYTES (5 * 4096.0)

TestSuite(traffic, .init = make_workshop, .fini = remove_workshop);

/* Bytes that this process and the children it waited for had the drive move. */
static double by_kernel(const char *word)
{
    char line[80];
    char format[40];
    uint64_t bytes = 0;
    FILE *file = fopen("/proc/self/io", "re");
    if (file == NULL)
        strata_skip("this kernel does not count I/O by process");
    snprintf(format, sizeof format, "%s: %%" SCNu64, word);
    while (fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, format, &bytes) == 1)
            break;
    fclose(file);
    return (double)bytes;
}

static const strata_json *at_path(const strata_json *document, const char *const *path)
{
    strata_error error = {.status = STRATA_OK};
    for (; *path != NULL; path++)
        cr_assert_eq(strata_json_get_object(document, *path, &document, &error), STRATA_OK,
                     "%s", error.message);
    return document;
}

/* Of a run: bytes as the kernel counted them, and as we did. */
struct traffic {
    double kernel_written;
    double kernel_read;
    double written;
    double read;
};

/* The program's JSON for these options; the caller frees it. */
static strata_json *run_program(const char *options)
{
    char words[512];
    snprintf(words, sizeof words, RUN "%s", options);
    strata_program_run(&result, &dir, strata_train_program(), words);
    if (result.code == 3)
        strata_skip("no io_uring or no O_DIRECT here");
    cr_assert_eq(result.code, 0, "%s", result.err);
    strata_workshop_remove(&dir, "store/strata.tiles");
    return strata_parse(result.out, strlen(result.out));
}

static struct traffic run(const char *options, int steps)
{
    const char *const read_path[] = {"result", "lanes", "nvme_read", NULL};
    const char *const write_path[] = {"result", "lanes", "nvme_write", NULL};
    char words[256];
    snprintf(words, sizeof words, "%s --steps %d", options, steps);
    struct traffic before = {.kernel_written = by_kernel("write_bytes"),
                             .kernel_read = by_kernel("read_bytes")};
    strata_json *document = run_program(words);
    struct traffic traffic = {
        .kernel_written = by_kernel("write_bytes") - before.kernel_written,
        .kernel_read = by_kernel("read_bytes") - before.kernel_read,
        .written = strata_number(at_path(document, write_path), "bytes"),
        .read = strata_number(at_path(document, read_path), "bytes"),
    };
    strata_json_free(document);
    return traffic;
}

/* What the steps moved that one run has and the other has not. */
static struct traffic measure(const char *options)
{
    struct traffic nearest = {.kernel_read = INFINITY};
    (void)run(options, FEW);
    for (int i = 0; i < TRIES; i++) {
        struct traffic few = run(options, FEW);
        struct traffic many = run(options, MANY);
        if (few.kernel_written == 0)
            strata_skip("the file system of the tests does no I/O");
        struct traffic between = {
            .kernel_written = many.kernel_written - few.kernel_written - STEPS * COMMIT_BYTES,
            .kernel_read = many.kernel_read - few.kernel_read,
            .written = many.written - few.written,
            .read = many.read - few.read,
        };
        if (fabs(between.kernel_read - between.read) < fabs(nearest.kernel_read - nearest.read))
            nearest = between;
        if (fabs(nearest.kernel_read - nearest.read) <= 0.01 * nearest.read)
            break;
    }
    return nearest;
}

static void expect_by_kernel(const struct traffic *moved)
{
    printf("by the kernel's count: written %.4f, read %.4f of ours\n",
           moved->kernel_written / moved->written, moved->kernel_read / moved->read);
    /* Names and lengths of files are written too, in the one run more than in the other. */
    cr_expect(moved->kernel_written >= 0.99 * moved->written &&
                  moved->kernel_written <= 1.01 * moved->written,
              "%.4f", moved->kernel_written / moved->written);
    cr_expect(moved->kernel_read >= 0.99 * moved->read &&
                  moved->kernel_read <= 1.01 * moved->read,
              "%.4f", moved->kernel_read / moved->read);
}

Test(traffic, a_step_moves_what_it_must_and_hardly_more)
{
    struct traffic moved = measure("--device-mem 16M --host-mem 64M --grads host --stash host");
    /* 12 bytes of state and 2 of weights for each parameter, padded, once a step: there is room
     * in the device for weights to stay from forward to backward. What the last step reads
     * ahead for one that does not come makes a few tiles of difference. */
    double must = STEPS * TILES * TILE_ELEMS * (12 + 2);
    cr_expect_eq(moved.written, must, "%.0f", moved.written);
    cr_expect_float_eq(moved.read, must, 0.01 * must, "%.0f", moved.read);
    expect_by_kernel(&moved);
}

/* What the plan for so much of the device says of a tier. */
static double planned(const char *tier, const char *name, double device_bytes)
{
    const char *const path[] = {"plan", "tiers", tier, NULL};
    char words[256];
    snprintf(words, sizeof words,
             "--dry-run --grads nvme --stash nvme --device-mem %.0f --host-mem 64M",
             device_bytes);
    strata_json *document = run_program(words);
    double number = strata_number(at_path(document, path), name);
    strata_json_free(document);
    return number;
}

/* All homes on the drive, and not a byte more of device and host than the plan needs. */
Test(traffic, at_the_minimum_budget_each_use_but_those_at_the_turn_reads_its_weights)
{
    char words[256];
    double device = planned("device", "need_bytes", 16 << 20);
    double host = planned("host", "need_bytes", device);
    double stash = planned("nvme", "stash_bytes", device);
    snprintf(words, sizeof words, "--grads nvme --stash nvme --device-mem %.0f --host-mem %.0f",
             device, host);
    struct traffic moved = measure(words);
    /* States and gradients both ways, activations out and in, weights written once and read
     * twice; but where forward turns, head and norm, of a tile each, are still there. */
    double tile = TILE_ELEMS * 2;
    double written = STEPS * (TILES * TILE_ELEMS * (12 + 2 + 2) + stash);
    double read = written + STEPS * (TILES - 2) * tile;
    cr_expect_eq(moved.written, written, "%.0f of %.0f", moved.written, written);
    cr_expect_float_eq(moved.read, read, 0.01 * read, "%.0f of %.0f", moved.read, read);
    expect_by_kernel(&moved);
}
