#define _GNU_SOURCE
/*
 * libcudnn that is missing, too old, half there, mixed, of another machine or no library at
 * all: one line that names it and says what to do. The libraries are made up
 * (support/fake_cudnn.c) and lie in a directory of the test's own.
 */

#include "train/cudnn_library.h"

#include "tests/support/checks.h"
#include "tests/support/suite_dir.h"

#include <criterion/criterion.h>
#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

TestSuite(cudnn_library, .init = make_dir, .fini = remove_dir);

/* The last one is of later versions only. */
static const char *const parts[] = {
    "libcudnn_graph.so.9", "libcudnn_heuristic.so.9", "libcudnn_engines_precompiled.so.9",
    "libcudnn_engines_runtime_compiled.so.9", "libcudnn_engines_tensor_ir.so.9"};
enum { PATH_BYTES = sizeof dir.path + 64 };
enum { PARTS = sizeof parts / sizeof parts[0] };

static void path_of(char *out, size_t bytes, const char *name)
{
    snprintf(out, bytes, "%s/%s", dir.path, name);
}

static void copy(const char *from, const char *name)
{
    char to[PATH_BYTES], block[65536];
    path_of(to, sizeof to, name);
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    cr_assert(in != NULL && out != NULL, "%s to %s", from, to);
    for (size_t got; (got = fread(block, 1, sizeof block, in)) > 0;)
        cr_assert_eq(fwrite(block, 1, got, out), got);
    fclose(in);
    cr_assert_eq(fclose(out), 0);
}

static void lay_parts(void)
{
    for (int i = 0; i < PARTS - 1; i++)
        copy(FAKE_CUDNN_NEW, parts[i]);
}

/* Another machine's number in the file's header. */
static void change_machine(const char *name)
{
    char path[PATH_BYTES];
    ElfW(Ehdr) header;
    path_of(path, sizeof path, name);
    int file = open(path, O_RDWR);
    cr_assert_eq(pread(file, &header, sizeof header, 0), (ssize_t)sizeof header);
    header.e_machine = header.e_machine == EM_AARCH64 ? EM_X86_64 : EM_AARCH64;
    cr_assert_eq(pwrite(file, &header, sizeof header, 0), (ssize_t)sizeof header);
    close(file);
}

/* One line, which names the file and the remedy; words: what else it says. */
static void expect_refused(const char *file, const char *words)
{
    struct cudnn_library library;
    strata_error error = {0};
    cr_assert_eq(strata_cudnn_open(&library, dir.path, &error), STRATA_E_UNSUPPORTED);
    cr_expect_null(library.handle);
    cr_expect_not_null(strstr(error.message, file), "%s", error.message);
    cr_expect_not_null(strstr(error.message, words), "%s", error.message);
    cr_expect_not_null(strstr(error.message, "tools/get_cudnn.sh"), "%s", error.message);
    cr_expect_null(strchr(error.message, '\n'));
}

Test(cudnn_library, whole_and_new_is_opened)
{
    struct cudnn_library library;
    strata_error error = {0};
    copy(FAKE_CUDNN_NEW, CUDNN_LIBRARY);
    lay_parts();
    cr_assert_eq(strata_cudnn_open(&library, dir.path, &error), STRATA_OK, "%s", error.message);
    cr_expect_eq(library.version, CUDNN_OLDEST);
    cr_expect_str_eq(library.version_text, "9.19.0");
    cr_expect_not_null(strstr(library.path, dir.path), "%s", library.path);
    strata_cudnn_close(&library);
    cr_expect_null(library.handle);
}

/* A part that links the driver, where there is none. */
Test(cudnn_library, a_part_may_want_the_driver)
{
    struct cudnn_library library;
    strata_error error = {0};
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY);
    copy(FAKE_CUDNN_LATER, CUDNN_LIBRARY);
    lay_parts();
    copy(FAKE_CUDNN_DRIVER, parts[PARTS - 1]);
    cr_assert_eq(strata_cudnn_open(&library, dir.path, &error), STRATA_OK, "%s", error.message);
    cr_expect_str_eq(library.version_text, "9.24.0");
    cr_expect_eq(library.parts[PARTS - 1] != NULL, driver != NULL);
    strata_cudnn_close(&library);
    if (driver != NULL)
        dlclose(driver);
}

Test(cudnn_library, missing_is_said)
{
    expect_refused(CUDNN_LIBRARY, "no ");
}

Test(cudnn_library, one_version_too_old_is_said)
{
    copy(FAKE_CUDNN_OLD, CUDNN_LIBRARY);
    lay_parts();
    expect_refused(CUDNN_LIBRARY, "is 9.18.99, 9.19.0 or newer is needed");
}

Test(cudnn_library, half_there_is_said_for_each_part)
{
    for (int missing = 0; missing < PARTS; missing++) {
        char path[PATH_BYTES];
        copy(FAKE_CUDNN_LATER, CUDNN_LIBRARY);
        lay_parts();
        copy(FAKE_CUDNN_NEW, parts[PARTS - 1]);
        path_of(path, sizeof path, parts[missing]);
        cr_assert_eq(unlink(path), 0);
        expect_refused(parts[missing], "is half there");
    }
}

Test(cudnn_library, mixed_versions_are_said)
{
    copy(FAKE_CUDNN_MIXED, CUDNN_LIBRARY);
    lay_parts();
    expect_refused(CUDNN_LIBRARY, "different versions");
}

Test(cudnn_library, another_machine_is_said)
{
    copy(FAKE_CUDNN_NEW, CUDNN_LIBRARY);
    lay_parts();
    change_machine(parts[1]);
    expect_refused(parts[1], "is made for ");
    change_machine(CUDNN_LIBRARY);
    expect_refused(CUDNN_LIBRARY, "is made for ");
}

Test(cudnn_library, what_is_no_library_is_said)
{
    char path[PATH_BYTES];
    path_of(path, sizeof path, CUDNN_LIBRARY);
    FILE *file = fopen(path, "w");
    fputs("version https://example.org/pointer\n", file);
    fclose(file);
    expect_refused(CUDNN_LIBRARY, "is no shared library");
}

/* What offload-bench check says of cuDNN where LD_LIBRARY_PATH is the test's directory. */
static void checked(struct program_result *out)
{
    cr_assert_eq(setenv("LD_LIBRARY_PATH", dir.path, 1), 0);
    strata_program_run(out, &dir, strata_bench_program(), "check");
}

Test(cudnn_library, check_names_what_the_loader_finds)
{
    struct program_result result;
    copy(FAKE_CUDNN_OLD, CUDNN_LIBRARY);
    lay_parts();
    checked(&result);
    cr_expect_not_null(strstr(result.out, "is 9.18.99, 9.19.0 or newer is needed"), "%s",
                       result.out);
    copy(FAKE_CUDNN_NEW, CUDNN_LIBRARY);
    checked(&result);
    cr_expect_not_null(strstr(result.out, "9.19.0"), "%s", result.out);
}

/* The loader passes over it. */
Test(cudnn_library, check_names_another_machine_s_library)
{
    struct program_result result;
    copy(FAKE_CUDNN_NEW, CUDNN_LIBRARY);
    change_machine(CUDNN_LIBRARY);
    checked(&result);
    if (strstr(result.out, "libcudnn 9.") != NULL)
        strata_skip("the system has cuDNN");
    cr_expect_not_null(strstr(result.out, "is made for "), "%s", result.out);
}
