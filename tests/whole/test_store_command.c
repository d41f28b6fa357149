#define _GNU_SOURCE
/*
 * offload-train --list, --scrub, --drop and offload-bench io, as a user meets them: what they
 * print where, and their exit codes. What they find is tested in io/test_store_tools.c.
 */

#include "tests/support/workshop.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#define RUN                                                                                    \
    "--data text --model config.json --seq 32 --batch 2 --device-mem 16M --host-mem 64M "      \
    "--tile 16384 --io threads --allow buffered-io --store store --commit-every 1 --keep 2 "   \
    "--keep-every 2 --quiet "

TestSuite(store_command, .init = make_workshop, .fini = remove_workshop);

/* Exit code, one line on stderr that says this, nothing on stdout. */
static void refused(const char *words, int code, const char *says)
{
    train(words, code);
    cr_expect_not_null(strstr(result.err, says), "%s", result.err);
    cr_expect(strchr(result.err, '\n') == result.err + strlen(result.err) - 1);
    cr_expect_str_empty(result.out);
}

static strata_json *document(void)
{
    return strata_parse(result.out, strlen(result.out));
}

static uint64_t whole(const strata_json *object, const char *key)
{
    uint64_t value = 0;
    strata_error error = {0};
    cr_assert_eq(strata_json_get_uint(object, key, &value, &error), STRATA_OK, "%s",
                 error.message);
    return value;
}

/* The steps that --list --json names, as "7 6 4". */
static const char *listed(char *out, size_t bytes)
{
    const strata_json *commits;
    train("--list store --json", 0);
    strata_json *json = document();
    cr_assert_eq(strata_json_get_array(json, "commits", &commits, NULL), STRATA_OK);
    size_t used = 0;
    for (size_t i = 0; i < strata_json_count(commits); i++) {
        const strata_json *one = strata_json_at(commits, i);
        bool retained = false;
        cr_assert_eq(strata_json_get_bool(one, "retained", &retained, NULL), STRATA_OK);
        cr_expect(retained == (i > 0));
        used += (size_t)snprintf(out + used, bytes - used, "%s%llu", i > 0 ? " " : "",
                                 (unsigned long long)whole(one, "step"));
    }
    strata_json_free(json);
    return out;
}

static void flip_at(const char *name, long offset)
{
    char path[PATH_MAX + 64];
    snprintf(path, sizeof path, "%s/%s", dir.path, name);
    FILE *file = fopen(path, "r+be");
    cr_assert_not_null(file);
    cr_assert(fseek(file, offset, SEEK_SET) == 0);
    int byte = fgetc(file);
    cr_assert(fseek(file, offset, SEEK_SET) == 0 && fputc(byte ^ 1, file) != EOF);
    cr_assert(fclose(file) == 0);
}

Test(store_command, list_scrub_and_drop_do_what_they_say)
{
    char steps[64];
    train(RUN "--steps 7", 0);
    cr_expect_str_eq(listed(steps, sizeof steps), "7 6 4");
    train("--list store", 0);
    cr_expect_not_null(strstr(result.out, "7  the last"), "%s", result.out);
    cr_expect_not_null(strstr(result.out, "\ncommits every 1 step\n"), "%s", result.out);
    cr_expect_not_null(strstr(result.out, "seed=0"), "%s", result.out);
    train("--scrub store", 0);
    cr_expect_not_null(strstr(result.out, "step 7: "), "%s", result.out);
    cr_expect_not_null(strstr(result.out, " 0 damaged"), "%s", result.out);
    train("--drop store --at 6", 0);
    cr_expect_str_eq(listed(steps, sizeof steps), "7 4");
    train(RUN "--steps 9 --resume", 0);
    cr_expect_str_eq(listed(steps, sizeof steps), "9 8 4");
    train("--scrub store --quiet", 0);
    cr_expect_str_empty(result.out);
}

Test(store_command, damage_is_told_and_the_exit_code_is_1)
{
    const strata_json *damage;
    train(RUN "--steps 2", 0);
    train("--scrub store --json", 0);
    strata_json *json = document();
    uint64_t tiles = whole(json, "tiles");
    cr_expect(whole(json, "bad") == 0 && tiles > 1);
    strata_json_free(json);
    /* All slots of the first tiles, whichever the last commit names. */
    for (long at = 100000; at < 1500000; at += 65536)
        flip_at("store/strata.tiles", at);
    train("--scrub store --json", 1);
    json = document();
    cr_assert_eq(strata_json_get_array(json, "damage", &damage, NULL), STRATA_OK);
    cr_expect(strata_json_count(damage) == whole(json, "bad") && whole(json, "bad") > 0);
    cr_expect_eq(whole(json, "tiles"), tiles, "it stopped early");
    strata_json_free(json);
    cr_expect_not_null(strstr(result.err, "damaged  tile "), "%s", result.err);
    cr_expect_not_null(strstr(result.err, "store/strata.tiles"), "%s", result.err);
    train("--scrub store --quiet", 1);
    cr_expect_str_empty(result.out);
    cr_expect_not_null(strstr(result.err, "damaged  tile "));
}

Test(store_command, what_is_absent_is_3_and_what_cannot_be_meant_2)
{
    refused("--list nowhere", 3, "No such file or directory");
    refused("--scrub store", 3, "holds no store");
    refused("--drop nowhere --at 2", 3, "No such file or directory");
    refused("--drop store", 2, "which commit?");
    refused("--list store --at 2", 2, "--at 2");
    refused("--list store --scrub store", 2, "at a time");
    refused("--store store --drop store --at 2", 2, "at a time");
    refused("--list store --data text", 2, "train nothing");
}

Test(store_command, the_last_commit_stays)
{
    train(RUN "--steps 3", 0);
    refused("--drop store --at 3", 1, "cannot be dropped");
    refused("--drop store --at 1", 1, "holds no commit of step 1");
    train("--scrub store --quiet", 0);
}

Test(store_command, a_bench_of_io_leaves_one_document_and_no_file)
{
    const strata_json *read, *share;
    double median = 0;
    const char *path = strata_program_path("STRATA_BENCH_PROGRAM", STRATA_BENCH_PROGRAM);
    cr_assert_not_null(path, "STRATA_BENCH_PROGRAM does not name the program");
    strata_program_run(&result, &dir, path,
                       "io --store store --size 48M --repetitions 2 --json -o io.json");
    if (result.code == 3)
        cr_skip_test("no io_uring or no O_DIRECT here");
    cr_assert_eq(result.code, 0, "%s", result.err);
    strata_json *json = document();
    cr_assert_eq(strata_json_get_object(json, "read", &read, NULL), STRATA_OK);
    cr_assert_eq(strata_json_get_object(read, "share_of_bare", &share, NULL), STRATA_OK);
    cr_assert_eq(strata_json_get_number(share, "median", &median, NULL), STRATA_OK);
    cr_expect(median > 0);
    strata_json_free(json);
    cr_expect_not_null(strstr(result.err, "mix factor"), "%s", result.err);
    cr_expect(strata_workshop_has(&dir, "io.json"));
    cr_expect_eq(strata_workshop_store_count(&dir), 0);
    strata_program_run(&result, &dir, path, "io --store nowhere --size 48M");
    cr_expect_eq(result.code, 3);
    strata_program_run(&result, &dir, path, "io --size 0");
    cr_expect_eq(result.code, 2);
}

Test(store_command, a_store_on_a_read_only_disk_can_be_looked_at)
{
    char path[PATH_MAX + 8], steps[64];
    const char *why = strata_workshop_mount(&dir, "tmpfs", "size=64m");
    const char *strict = getenv("STRATA_TEST_FAIL_ON_SKIP");
    cr_assert(why == NULL || strict == NULL || strcmp(strict, "1") != 0, "%s", why);
    if (why != NULL)
        cr_skip("%s", why);
    train(RUN "--steps 3", 0);
    snprintf(path, sizeof path, "%s/store", dir.path);
    cr_assert(mount(NULL, path, NULL, MS_REMOUNT | MS_RDONLY, NULL) == 0, "%s",
              strerror(errno));
    cr_expect_str_eq(listed(steps, sizeof steps), "3 2 0");
    train("--scrub store", 0);
    cr_expect_not_null(strstr(result.out, " 0 damaged"), "%s", result.out);
    refused("--drop store --at 2", 1, "for writing: Read-only file system");
    strata_workshop_unmount(&dir);
}
