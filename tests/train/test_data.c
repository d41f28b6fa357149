#define _GNU_SOURCE
/*
 * The data reader: which tokens a step gets, and which files are refused, with what words.
 */

#include "train/data.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[64];

static void write_file(const void *bytes, size_t count)
{
    sprintf(path, "/tmp/strata-data-%d", (int)getpid());
    int file = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    cr_assert_geq(file, 0);
    cr_assert_eq(write(file, bytes, count), (ssize_t)count);
    close(file);
}

static void remove_file(void)
{
    if (path[0] != '\0')
        unlink(path);
}

/* A shard of the given kind with tokens 0, 1, 2, ...; count_in_header may lie. */
static void write_shard(uint32_t magic, uint32_t version, uint32_t width, uint32_t count,
                        uint32_t count_in_header)
{
    uint8_t *bytes = calloc(1, 1024 + (size_t)count * width);
    const uint32_t words[3] = {magic, version, count_in_header};
    for (int word = 0; word < 3; word++) {
        for (int byte = 0; byte < 4; byte++)
            bytes[4 * word + byte] = (uint8_t)(words[word] >> (8 * byte));
    }
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t byte = 0; byte < width; byte++)
            bytes[1024 + i * width + byte] = (uint8_t)(i >> (8 * byte));
    }
    write_file(bytes, 1024 + (size_t)count * width);
    free(bytes);
}

static struct data_desc describe(uint32_t seq, uint32_t batch, uint64_t vocab_size)
{
    return (struct data_desc){
        .path = path, .seq = seq, .batch = batch, .vocab_size = vocab_size};
}

static void expect_refusal(struct data_desc desc, strata_status status, const char *words)
{
    struct data *data = (struct data *)&desc;
    strata_error error = {0};
    cr_assert_eq(strata_data_open(&data, &desc, &error), status, "%s", error.message);
    cr_assert_null(data);
    cr_assert_neq(strstr(error.message, words), NULL, "'%s' lacks '%s'", error.message, words);
    cr_assert_null(strchr(error.message, '\n'));
}

TestSuite(data, .fini = remove_file);

/* Each look at the clock is a second after the one before, once this is set. */
static bool clock_runs;

uint64_t __real_strata_now_ns(void);
uint64_t __wrap_strata_now_ns(void);

uint64_t __wrap_strata_now_ns(void)
{
    static uint64_t seconds;
    return clock_runs ? ++seconds * 1000000000u : __real_strata_now_ns();
}

struct seen {
    uint32_t calls;
    uint64_t done;
    char what[40];
};

static void see(void *user, const char *what, uint64_t done, uint64_t total)
{
    struct seen *seen = user;
    cr_expect_gt(done, seen->done);
    cr_expect_leq(done, total);
    seen->calls++;
    seen->done = done;
    snprintf(seen->what, sizeof seen->what, "%s", what);
}

Test(data, reading_the_whole_file_says_how_far_it_is)
{
    enum { COUNT = 3 * 262144 + 5 };
    static char bytes[COUNT];
    struct seen seen = {0};
    struct data_identity identity;
    struct data *data;
    strata_error error = {0};
    memset(bytes, 'x', COUNT);
    write_file(bytes, COUNT);
    struct data_desc desc = describe(3, 2, 200); // so that every token is looked at
    desc.progress = (struct progress_call){.fn = see, .user = &seen};
    clock_runs = true;
    cr_assert_eq(strata_data_open(&data, &desc, &error), STRATA_OK, "%s", error.message);
    cr_expect_eq(seen.calls, 4);
    cr_expect_eq(seen.done, COUNT);
    cr_expect_str_eq(seen.what, "checking the data");
    seen = (struct seen){0};
    cr_assert_eq(strata_data_identify(data, &identity, &error), STRATA_OK, "%s", error.message);
    cr_expect_eq(seen.calls, 4);
    cr_expect_eq(seen.done, COUNT);
    cr_expect_str_eq(seen.what, "hashing the data");
    clock_runs = false;
    strata_data_close(data);
}

Test(data, sequence_b_of_step_s_follows_the_formula_and_wraps)
{
    enum { SEQ = 3, BATCH = 4, COUNT = 7 };
    write_file("abcdefg", COUNT);
    struct data_desc desc = describe(SEQ, BATCH, 256);
    struct data *data;
    strata_error error = {0};
    cr_assert_eq(strata_data_open(&data, &desc, &error), STRATA_OK, "%s", error.message);
    cr_assert_eq(strata_data_token_count(data), COUNT);
    for (uint64_t step = 0; step < 20; step++) {
        const uint32_t *inputs;
        const uint32_t *targets;
        cr_assert_eq(strata_data_batch(data, step, &inputs, &targets, &error), STRATA_OK);
        for (uint64_t b = 0; b < BATCH; b++) {
            for (uint64_t t = 0; t < SEQ; t++) {
                uint64_t i = (step * BATCH + b) * SEQ + t;
                cr_assert_eq(inputs[b * SEQ + t], 'a' + i % COUNT);
                cr_assert_eq(targets[b * SEQ + t], 'a' + (i + 1) % COUNT);
            }
        }
    }
    strata_data_close(data);
}

/* What a file of these bytes is taken for. */
static struct data_identity identify(const char *bytes, size_t count)
{
    struct data_identity out = {0};
    struct data *data;
    strata_error error = {0};
    write_file(bytes, count);
    struct data_desc desc = describe(3, 2, 256);
    cr_assert_eq(strata_data_open(&data, &desc, &error), STRATA_OK, "%s", error.message);
    cr_assert_eq(strata_data_identify(data, &out, &error), STRATA_OK, "%s", error.message);
    strata_data_close(data);
    remove_file();
    return out;
}

Test(data, its_identity_is_its_size_and_fnv1a_over_its_words)
{
    struct data_identity found = identify("abcdefghij", 10);
    uint64_t hash = (0xcbf29ce484222325u ^ 0x6867666564636261u) * 0x100000001b3u;
    hash = (hash ^ 0x6a69u) * 0x100000001b3u;
    cr_assert_eq(found.bytes, 10);
    cr_assert_eq(found.hash, hash);
}

Test(data, a_change_of_any_byte_changes_the_identity)
{
    /* More than one buffer, and no whole words. */
    enum { COUNT = 262144 + 13 };
    static char bytes[COUNT];
    memset(bytes, 'x', COUNT);
    const uint64_t hash = identify(bytes, COUNT).hash;
    const size_t places[] = {0, 7, 8, 262143, 262144, COUNT - 1};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        bytes[places[i]] ^= 0x40;
        cr_assert_neq(identify(bytes, COUNT).hash, hash, "byte %zu", places[i]);
        bytes[places[i]] ^= 0x40;
    }
    cr_assert_eq(identify(bytes, COUNT).hash, hash);
}

Test(data, a_late_step_is_as_right_as_an_early_one)
{
    write_file("abcdefghijk", 11);
    struct data_desc desc = describe(1 << 10, 1 << 10, 256);
    desc.seq = 10;
    struct data *data;
    cr_assert_eq(strata_data_open(&data, &desc, NULL), STRATA_OK);
    const uint64_t step = 2147483646;
    const uint32_t *inputs;
    const uint32_t *targets;
    cr_assert_eq(strata_data_batch(data, step, &inputs, &targets, NULL), STRATA_OK);
    cr_assert_eq(inputs[0], 'a' + step % 11 * (10240 % 11) % 11);
    strata_data_close(data);
}

Test(data, both_kinds_of_shard_are_read)
{
    const struct {
        uint32_t magic, version, width;
        const char *kind;
    } kinds[] = {{20240520, 1, 2, "16-bit tokens"}, {20240801, 7, 4, "32-bit tokens"}};
    for (int kind = 0; kind < 2; kind++) {
        write_shard(kinds[kind].magic, kinds[kind].version, kinds[kind].width, 1000, 1000);
        struct data_desc desc = describe(16, 2, 1000);
        struct data *data;
        strata_error error = {0};
        cr_assert_eq(strata_data_open(&data, &desc, &error), STRATA_OK, "%s", error.message);
        cr_assert_eq(strata_data_token_count(data), 1000);
        cr_assert_str_eq(strata_data_kind(data), kinds[kind].kind);
        const uint32_t *inputs;
        const uint32_t *targets;
        cr_assert_eq(strata_data_batch(data, 31, &inputs, &targets, &error), STRATA_OK);
        for (uint32_t i = 0; i < 32; i++) {
            cr_assert_eq(inputs[i], (31 * 32 + i) % 1000);
            cr_assert_eq(targets[i], (31 * 32 + i + 1) % 1000);
        }
        strata_data_close(data);
        remove_file();
    }
}

Test(data, more_tokens_than_the_read_buffer_holds)
{
    enum { COUNT = 700001 };
    uint8_t *bytes = malloc(COUNT);
    for (uint32_t i = 0; i < COUNT; i++)
        bytes[i] = (uint8_t)(i * 2654435761u >> 24);
    write_file(bytes, COUNT);
    struct data_desc desc = describe(300000, 2, 256);
    struct data *data;
    cr_assert_eq(strata_data_open(&data, &desc, NULL), STRATA_OK);
    const uint32_t *inputs;
    const uint32_t *targets;
    cr_assert_eq(strata_data_batch(data, 1, &inputs, &targets, NULL), STRATA_OK);
    for (uint32_t i = 0; i < 600000; i++) {
        cr_assert_eq(inputs[i], bytes[(600000 + i) % COUNT]);
        cr_assert_eq(targets[i], bytes[(600001 + i) % COUNT]);
    }
    strata_data_close(data);
    free(bytes);
}

Test(data, the_shortest_file_that_fits_is_taken_and_one_token_less_is_not)
{
    write_file("abcde", 5);
    struct data_desc desc = describe(4, 1, 256);
    struct data *data;
    cr_assert_eq(strata_data_open(&data, &desc, NULL), STRATA_OK);
    strata_data_close(data);
    expect_refusal(describe(5, 1, 256), STRATA_E_INVALID,
                   "has 5 tokens: a sequence of 5 needs 6");
}

Test(data, a_token_beyond_the_vocabulary_is_refused_with_its_position)
{
    write_shard(20240520, 1, 2, 1000, 1000);
    expect_refusal(describe(16, 1, 999), STRATA_E_CORRUPT, "token 999 of");
    expect_refusal(describe(16, 1, 10), STRATA_E_CORRUPT, "token 10 of");
    remove_file();
    write_file("abc~abc", 7);
    expect_refusal(describe(4, 1, '~'), STRATA_E_CORRUPT, "token 3 of");
}

Test(data, missing_files_directories_and_pipes_are_refused)
{
    strcpy(path, "/tmp/strata-no-such-file");
    expect_refusal(describe(4, 1, 256), STRATA_E_IO, "No such file");
    strcpy(path, "/tmp");
    expect_refusal(describe(4, 1, 256), STRATA_E_INVALID, "not a regular file");
    sprintf(path, "/tmp/strata-pipe-%d", (int)getpid());
    cr_assert_eq(mkfifo(path, 0600), 0);
    expect_refusal(describe(4, 1, 256), STRATA_E_INVALID, "not a regular file");
}

Test(data, an_empty_file_is_refused)
{
    write_file("", 0);
    expect_refusal(describe(4, 1, 256), STRATA_E_INVALID, "is empty");
}

Test(data, a_damaged_shard_is_refused)
{
    write_shard(20240520, 2, 2, 100, 100);
    expect_refusal(describe(4, 1, 256), STRATA_E_INVALID, "version 2");
    remove_file();
    write_shard(20240520, 1, 2, 100, 101);
    expect_refusal(describe(4, 1, 256), STRATA_E_INVALID, "names 101 tokens");
    cr_assert_eq(truncate(path, 1024 + 199), 0);
    expect_refusal(describe(4, 1, 256), STRATA_E_INVALID, "size of 1223 bytes");
    cr_assert_eq(truncate(path, 500), 0);
    expect_refusal(describe(4, 1, 256), STRATA_E_INVALID, "shorter than its header");
}

Test(data, a_file_that_shrinks_in_use_is_an_error_and_not_a_crash)
{
    char text[5000];
    memset(text, 'x', sizeof text);
    write_file(text, sizeof text);
    struct data_desc desc = describe(100, 10, 256);
    struct data *data;
    cr_assert_eq(strata_data_open(&data, &desc, NULL), STRATA_OK);
    cr_assert_eq(truncate(path, 1500), 0);
    const uint32_t *inputs;
    const uint32_t *targets;
    strata_error error = {0};
    cr_assert_eq(strata_data_batch(data, 0, &inputs, &targets, &error), STRATA_OK);
    cr_assert_eq(strata_data_batch(data, 1, &inputs, &targets, &error), STRATA_E_IO);
    cr_assert_neq(strstr(error.message, "cut short"), NULL, "%s", error.message);
    strata_data_close(data);
}

Test(data, a_token_that_became_too_large_is_caught_when_it_is_used)
{
    write_file("aaaaaaaa", 8);
    struct data_desc desc = describe(4, 1, 'b');
    struct data *data;
    cr_assert_eq(strata_data_open(&data, &desc, NULL), STRATA_OK);
    FILE *file = fopen(path, "r+");
    fputs("aazz", file);
    fclose(file);
    const uint32_t *inputs;
    const uint32_t *targets;
    cr_assert_eq(strata_data_batch(data, 0, &inputs, &targets, NULL), STRATA_E_CORRUPT);
    strata_data_close(data);
}
