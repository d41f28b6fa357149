#define _GNU_SOURCE
/*
 * What a step moves to and from the drive: by our count, and what it writes by the kernel's.
 *
 * Two runs that differ in their steps alone: what they have in common, the creation of the
 * files and the first commit, cancels out. The kernel adds a child's bytes to its parent's when
 * it has been waited for (/proc/self/io), so nothing that the program does escapes. Reads are
 * not compared: the program's own pages are among them when memory is short. A file system made
 * of RAM does no I/O that could be counted; there the test is skipped.
 */

#include "tests/support/program.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "strata/json.h"

/* No clipping: a step moves what it must, once. */
#define RUN                                                                                    \
    "--data text --model config.json --seq 32 --batch 2 --device-mem 16M --host-mem 64M "      \
    "--tile 16384 --clip 0 --params nvme --grads host --states nvme --stash host "             \
    "--store store --commit-every 1 --json "

#define TILES 9.0
#define FEW   2
#define MANY  12

static struct temp_dir dir;
static struct program_result result;

static void set_up(void)
{
    strata_workshop_make(&dir);
}

static void tear_down(void)
{
    strata_temp_dir_remove(&dir);
}

TestSuite(traffic, .init = set_up, .fini = tear_down, .timeout = 120);

static void skip(const char *why)
{
    const char *strict = getenv("STRATA_TEST_FAIL_ON_SKIP");
    cr_assert(strict == NULL || strcmp(strict, "1") != 0, "%s", why);
    cr_skip("%s", why);
}

/* Bytes this process and the children it waited for have had written. */
static double by_kernel(void)
{
    char line[80];
    uint64_t bytes = 0;
    FILE *file = fopen("/proc/self/io", "re");
    if (file == NULL)
        skip("this kernel does not count I/O by process");
    while (fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "write_bytes: %" SCNu64, &bytes) == 1)
            break;
    fclose(file);
    return (double)bytes;
}

static double lane_bytes(const strata_json *document, const char *lane)
{
    const char *const path[] = {"result", "lanes", lane};
    const strata_json *at = document;
    strata_error error = {.status = STRATA_OK};
    double bytes = 0;
    for (size_t i = 0; i < sizeof path / sizeof *path; i++)
        cr_assert_eq(strata_json_get_object(at, path[i], &at, &error), STRATA_OK, "%s",
                     error.message);
    cr_assert_eq(strata_json_get_number(at, "bytes", &bytes, &error), STRATA_OK, "%s",
                 error.message);
    return bytes;
}

/* Of a run: bytes written as the kernel counted them, and both directions as we did. */
struct traffic {
    double kernel_written;
    double written;
    double read;
};

static struct traffic run(int steps)
{
    struct traffic traffic;
    char words[512];
    strata_json *document = NULL;
    strata_error error = {.status = STRATA_OK};
    const char *path = strata_program_path("STRATA_TRAIN_PROGRAM", STRATA_TRAIN_PROGRAM);
    cr_assert_not_null(path, "STRATA_TRAIN_PROGRAM does not name the program");
    snprintf(words, sizeof words, RUN "--steps %d", steps);
    double before = by_kernel();
    strata_program_run(&result, &dir, path, words);
    traffic.kernel_written = by_kernel() - before;
    if (result.code == 3)
        skip("no io_uring or no O_DIRECT here");
    cr_assert_eq(result.code, 0, "%s", result.err);
    cr_assert_eq(strata_json_read_text(&document, result.out, strlen(result.out), &error),
                 STRATA_OK, "%s", error.message);
    traffic.written = lane_bytes(document, "nvme_write");
    traffic.read = lane_bytes(document, "nvme_read");
    strata_json_free(document);
    strata_workshop_remove(&dir, "store/strata.tiles");
    return traffic;
}

Test(traffic, a_step_moves_what_it_must_and_hardly_more)
{
    struct traffic few = run(FEW);
    struct traffic many = run(MANY);
    if (few.kernel_written == 0)
        skip("the file system of the tests does no I/O");
    double counted = many.written - few.written;
    double written = many.kernel_written - few.kernel_written;
    double state = (MANY - FEW) * TILES * 16384 * 12;
    double weights = (MANY - FEW) * TILES * 16384 * 2;
    double read = many.read - few.read;
    printf("write amplification %.4f; read %.4f of what must be\n", written / counted,
           read / (state + weights));
    /* 12 bytes of state and 2 of weights for each parameter, padded, once a step: there is room
     * in the device for weights to stay from forward to backward. What the last step reads
     * ahead for one that does not come makes a few tiles of difference. */
    cr_expect_eq(counted, state + weights, "%.0f", counted);
    cr_expect_float_eq(read, state + weights, 0.01 * (state + weights), "%.0f", read);
    cr_expect(written >= counted && written <= 1.01 * counted, "%.4f", written / counted);
}
