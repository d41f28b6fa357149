#define _GNU_SOURCE
/*
 * The memory limits hold for the process, not only in its own books: what the kernel says was
 * resident at most, and a run inside a cgroup of host + device + 64 MiB. 64 MiB is what code,
 * stacks and OpenBLAS may come to. Sanitizers keep memory of their own, so this is for other
 * builds.
 */

#include <criterion/criterion.h>

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/program.h"

/* Where the build put the program; a build that does not say leaves it to the environment. */
#ifndef STRATA_TRAIN_PROGRAM
#    define STRATA_TRAIN_PROGRAM NULL
#endif

#define MIB          ((uint64_t)1 << 20)
#define DEVICE_BYTES (8 * MIB)
#define HOST_BYTES   (48 * MIB)
#define OTHERS_BYTES (64 * MIB)

/* 12 layers of 430 thousand parameters: 82 MiB of training state, more than both limits
 * together. */
static const char config[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_act\": "
    "\"silu\",\n"
    " \"hidden_size\": 192, \"num_hidden_layers\": 12, \"num_attention_heads\": 4,\n"
    " \"num_key_value_heads\": 2, \"intermediate_size\": 544, \"vocab_size\": 256,\n"
    " \"rms_norm_eps\": 1e-5, \"rope_theta\": 10000.0, \"initializer_range\": 0.02,\n"
    " \"tie_word_embeddings\": false}\n";

static const char options[] =
    "--data text --model config.json --device host --device-mem 8M --host-mem 48M --store "
    "store --durability none "
    "--params nvme --grads host --states nvme --seq 64 --batch 2 --steps 8 --quiet";

static struct temp_dir dir;
static const char *program = ""; /* until it is known to be there */

static void setup(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    cr_skip_test("sanitizers keep memory of their own");
#endif
    const char *found = strata_program_path("STRATA_TRAIN_PROGRAM", STRATA_TRAIN_PROGRAM);
    if (found == NULL)
        cr_skip_test("STRATA_TRAIN_PROGRAM names no program");
    program = found;
    strata_workshop_make(&dir);
    strata_workshop_write_text(&dir, "config.json", config);
}

static void teardown(void)
{
    if (program[0] != '\0')
        strata_temp_dir_remove(&dir);
}

TestSuite(memory, .init = setup, .fini = teardown);

static void say_why(int status)
{
    char text[512];
    strata_workshop_read(&dir, "err.txt", text, sizeof text);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status 0x%x: %s", status, text);
}

Test(memory, resident_memory_stays_within_both_limits_and_64_mib)
{
    int status;
    struct rusage usage;
    pid_t process = strata_program_start(&dir, program, options);
    cr_assert_eq(wait4(process, &status, 0, &usage), process);
    say_why(status);
    uint64_t peak = (uint64_t)usage.ru_maxrss * 1024;
    cr_log_info("peak resident memory: %llu bytes", (unsigned long long)peak);
    cr_expect_leq(peak, DEVICE_BYTES + HOST_BYTES + OTHERS_BYTES);
    /* And the arenas were really there: the limits are not kept by doing nothing. */
    cr_expect_geq(peak, HOST_BYTES / 2);
}

static bool write_file(const char *path, const char *text)
{
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    bool done = write(file, text, strlen(text)) == (ssize_t)strlen(text);
    close(file);
    return done;
}

/* A cgroup of its own below the root, v2 or v1, with the limit set; its directory. */
static bool make_cgroup(char *out, size_t bytes, uint64_t limit_bytes)
{
    static const char *const parents[2] = {"/sys/fs/cgroup", "/sys/fs/cgroup/memory"};
    static const char *const files[2] = {"memory.max", "memory.limit_in_bytes"};
    char path[300];
    char limit[32];
    snprintf(limit, sizeof limit, "%llu", (unsigned long long)limit_bytes);
    for (int version = 0; version < 2; version++) {
        snprintf(out, bytes, "%s/strata-test-%d", parents[version], (int)getpid());
        if (mkdir(out, 0700) != 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", out, files[version]);
        if (write_file(path, limit))
            return true;
        rmdir(out);
    }
    return false;
}

/* The program's exit code in a cgroup of so many bytes, and what it wrote to stderr. */
static int run_in_cgroup(uint64_t limit_bytes, char *err, size_t err_bytes)
{
    char group[200];
    char words[1024];
    if (!make_cgroup(group, sizeof group, limit_bytes))
        cr_skip_test("no cgroup with a memory limit can be made here");
    strata_workshop_write_text(
        &dir, "enter.sh", "echo $$ > \"$1\"/cgroup.procs || exit 98\nshift\nexec \"$@\"\n");
    snprintf(words, sizeof words, "enter.sh %s %s %s", group, program, options);
    int code = strata_program_wait(strata_program_start(&dir, "/bin/sh", words));
    strata_workshop_read(&dir, "err.txt", err, err_bytes);
    for (int tries = 0; rmdir(group) != 0 && tries < 50; tries++)
        usleep(20000);
    return code;
}

Test(memory, a_cgroup_of_both_limits_and_64_mib_is_enough)
{
    char text[512];
    int code = run_in_cgroup(DEVICE_BYTES + HOST_BYTES + OTHERS_BYTES, text, sizeof text);
    cr_expect_eq(code, 0, "exit code %d: %s", code, text);
}

/* The arenas fit, 52 MiB, but not beside their tables and what the process has in use by then:
 * that was a process killed in the middle of its first step. */
Test(memory, a_cgroup_without_room_for_the_process_itself_is_refused)
{
    char text[512];
    int code = run_in_cgroup(DEVICE_BYTES + HOST_BYTES - 2 * MIB, text, sizeof text);
    cr_expect_eq(code, 1, "exit code %d: %s", code, text);
    cr_expect_not_null(strstr(text, "host memory: this run takes "), "%s", text);
    cr_expect_not_null(strstr(text, ", the cgroup has "), "%s", text);
}
