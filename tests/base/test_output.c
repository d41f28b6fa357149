#define _GNU_SOURCE
/*
 * Outputs: what they may go over, and that they get there whole or not at all.
 */

#include "base/output.h"

#include "tests/support/temp_dir.h"

#include <criterion/criterion.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define DOCUMENT "{\"program\":\"offload-bench\",\"version\":\"1\"}\n"
#define TRACE                                                                                  \
    "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"events_left_out\":0},\"traceEvents\":[]}"
#define LOG "{\"step\":1,\"loss\":5}\n"

static struct temp_dir dir;
static strata_error error;
static struct output_guard guard;

/* Names are relative to the test's directory. */
static void set_up(void)
{
    strata_temp_dir_make(&dir);
    cr_assert(chdir(dir.path) == 0);
    guard.count = 0;
}

static void tear_down(void)
{
    cr_assert(chdir("/") == 0);
    strata_temp_dir_remove(&dir);
}

TestSuite(output, .init = set_up, .fini = tear_down);

static void put(const char *name, const char *text)
{
    FILE *file = fopen(name, "we");
    cr_assert(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
}

static void expect_text(const char *name, const char *text)
{
    char buffer[4096] = "";
    FILE *file = fopen(name, "re");
    cr_assert_not_null(file, "no %s", name);
    buffer[fread(buffer, 1, sizeof buffer - 1, file)] = '\0';
    fclose(file);
    cr_expect_str_eq(buffer, text);
}

static strata_status check(const char *path, enum output_kind kind)
{
    error = (strata_error){.status = STRATA_OK};
    return strata_output_check(&guard, "-o", path, kind, &error);
}

static void expect_taken(const char *path, enum output_kind kind)
{
    cr_expect(check(path, kind) == STRATA_OK, "%s", error.message);
    guard.count = 0;
}

static void expect_refused(const char *path, enum output_kind kind, strata_status status,
                           const char *text)
{
    cr_expect(check(path, kind) == status, "%s: %d: %s", path, (int)error.status,
              error.message);
    cr_expect(strstr(error.message, text) != NULL, "'%s' lacks '%s'", error.message, text);
    cr_expect(strncmp(error.message, "-o ", 3) == 0 && strchr(error.message, '\n') == NULL);
}

Test(output, a_new_file_an_empty_one_and_one_of_its_kind_are_taken)
{
    static const char *const texts[] = {
        [OUTPUT_DOCUMENT] = DOCUMENT, [OUTPUT_TRACE] = TRACE, [OUTPUT_LOG] = LOG};
    put("empty", "");
    for (int kind = 0; kind <= OUTPUT_LOG; kind++) {
        expect_taken("new", (enum output_kind)kind);
        expect_taken("./new", (enum output_kind)kind);
        expect_taken("empty", (enum output_kind)kind);
        for (int other = 0; other <= OUTPUT_LOG; other++) {
            put("file", texts[other]);
            if (other == kind)
                expect_taken("file", (enum output_kind)kind);
            else
                expect_refused("file", (enum output_kind)kind, STRATA_E_INVALID,
                               "is left alone");
            expect_text("file", texts[other]);
        }
    }
}

Test(output, a_document_that_was_formatted_is_still_ours)
{
    put("pretty", "{\n    \"program\": \"offload-train\",\n    \"version\": \"1\"\n}\n");
    expect_taken("pretty", OUTPUT_DOCUMENT);
    put("pretty", "{\"program\":\"another\"}\n");
    expect_refused("pretty", OUTPUT_DOCUMENT, STRATA_E_INVALID, "is left alone");
}

/* All but the last byte of a beginning, and one byte that differs. */
Test(output, a_log_that_lost_all_but_its_beginning_is_ours_and_what_differs_is_not)
{
    put("log", "{\"st");
    expect_taken("log", OUTPUT_LOG);
    put("log", "{\"sT");
    expect_refused("log", OUTPUT_LOG, STRATA_E_INVALID, "is not a log of Strata");
    put("log", "{\"program\":\"offload");
    expect_refused("log", OUTPUT_DOCUMENT, STRATA_E_INVALID, "is not a document of Strata");
}

Test(output, what_is_read_is_known_by_every_name)
{
    put("data", DOCUMENT);
    cr_assert(mkdir("sub", 0700) == 0);
    cr_assert(link("data", "hard") == 0 && symlink("data", "soft") == 0);
    cr_assert(symlink("../data", "sub/soft") == 0 && symlink(".", "here") == 0);
    strata_output_protect(&guard, "data", "this run reads it");
    strata_output_protect(&guard, "absent", "this run reads it");
    strata_output_protect(&guard, NULL, "this run reads it");
    cr_assert(guard.count == 1);
    const char *const names[] = {"data",     "./data",      "hard",           "soft",
                                 "sub/soft", "sub/../data", "here/here/soft", "here/hard"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        expect_refused(names[i], OUTPUT_DOCUMENT, STRATA_E_INVALID, "this run reads it");
    char absolute[PATH_MAX + 8];
    snprintf(absolute, sizeof absolute, "%s/data", dir.path);
    expect_refused(absolute, OUTPUT_DOCUMENT, STRATA_E_INVALID, "this run reads it");
    expect_text("data", DOCUMENT);
}

Test(output, everything_in_a_protected_folder_is)
{
    cr_assert(mkdir("model", 0700) == 0 && mkdir("model/deep", 0700) == 0);
    cr_assert(mkdir("model2", 0700) == 0 && symlink("model/deep", "link") == 0);
    put("model/old", DOCUMENT);
    cr_assert(link("model/old", "outside") == 0);
    strata_output_protect(&guard, "./model", "it lies in the folder");
    const char *const names[] = {"model/new", "model/old", "model/deep/new", "link/new",
                                 "model/../model/new"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        expect_refused(names[i], OUTPUT_DOCUMENT, STRATA_E_INVALID, "it lies in the folder");
    cr_expect(check("model2/new", OUTPUT_DOCUMENT) == STRATA_OK, "%s", error.message);
    cr_expect(check("model.new", OUTPUT_DOCUMENT) == STRATA_OK, "%s", error.message);
}

Test(output, two_outputs_do_not_go_to_one_file)
{
    cr_assert(symlink(".", "here") == 0);
    cr_expect(check("new", OUTPUT_LOG) == STRATA_OK);
    expect_refused("./new", OUTPUT_DOCUMENT, STRATA_E_INVALID, "another output goes there");
    expect_refused("here/new", OUTPUT_TRACE, STRATA_E_INVALID, "another output goes there");
    cr_expect(check("new2", OUTPUT_TRACE) == STRATA_OK);
    put("old", "");
    cr_assert(link("old", "again") == 0);
    cr_expect(check("old", OUTPUT_LOG) == STRATA_OK);
    expect_refused("again", OUTPUT_DOCUMENT, STRATA_E_INVALID, "another output goes there");
    cr_expect(check("/dev/null", OUTPUT_LOG) == STRATA_OK);
    cr_expect(check("/dev/null", OUTPUT_DOCUMENT) == STRATA_OK);
}

Test(output, a_stores_file_is_refused_by_name_and_by_content)
{
    put("strata.tiles", "");
    put("other", "STRATA\r\nand so on");
    put("elsewhere", "");
    cr_assert(symlink("strata.tiles", "soft") == 0);
    for (int kind = 0; kind <= OUTPUT_LOG; kind++) {
        expect_refused("strata.tiles", (enum output_kind)kind, STRATA_E_INVALID,
                       "a store's files have that name");
        expect_refused("strata.tiles.new", (enum output_kind)kind, STRATA_E_INVALID,
                       "a store's files have that name");
        expect_refused("soft", (enum output_kind)kind, STRATA_E_INVALID,
                       "a store's files have that name");
        expect_refused("other", (enum output_kind)kind, STRATA_E_INVALID,
                       "it is a store's file");
    }
    expect_text("other", "STRATA\r\nand so on");
}

Test(output, what_is_no_file_is_refused)
{
    cr_assert(mkdir("folder", 0700) == 0 && symlink("nowhere", "dangling") == 0);
    expect_refused("folder", OUTPUT_LOG, STRATA_E_IO, "it is a directory");
    cr_expect(error.native == EISDIR);
    expect_refused("folder/", OUTPUT_LOG, STRATA_E_IO, "it is a directory");
    expect_refused("dangling", OUTPUT_LOG, STRATA_E_INVALID, "symbolic link to what is not");
    expect_refused("absent/", OUTPUT_LOG, STRATA_E_IO, "no such directory");
    expect_refused("absent/new", OUTPUT_LOG, STRATA_E_IO, "No such file or directory");
    cr_expect(error.native == ENOENT);
    put("file", "");
    expect_refused("file/new", OUTPUT_LOG, STRATA_E_IO, "Not a directory");
    cr_expect(access("nowhere", F_OK) != 0 && access("absent", F_OK) != 0);
}

Test(output, a_directory_that_cannot_be_written_to_is_refused)
{
    cr_assert(mkdir("folder", 0755) == 0);
    put("folder/old", DOCUMENT);
    cr_assert(chmod("folder", 0555) == 0 && chmod("folder/old", 0644) == 0);
    bool root = geteuid() == 0;
    /* access() goes by the real user. */
    cr_assert(chmod(".", 0755) == 0);
    cr_assert(!root || setresuid(65534, 65534, 0) == 0);
    expect_refused("folder/new", OUTPUT_LOG, STRATA_E_IO, "its directory: Permission denied");
    cr_expect(error.native == EACCES);
    expect_refused("folder/old", OUTPUT_DOCUMENT, STRATA_E_IO, "its directory: ");
    cr_assert(!root || setresuid(0, 0, 0) == 0);
    cr_assert(chmod("folder", 0755) == 0);
}

static strata_status write_text(const char *path, const char *text)
{
    struct output out;
    error = (strata_error){.status = STRATA_OK};
    strata_status status = strata_output_open(&out, path, OUTPUT_DOCUMENT, &error);
    if (status != STRATA_OK)
        return status;
    fputs(text, out.stream);
    return strata_output_close(&out, &error);
}

Test(output, a_file_is_replaced_when_it_is_whole)
{
    struct output out;
    struct stat info;
    put("old", DOCUMENT);
    cr_assert(chmod("old", 0640) == 0 && symlink("old", "soft") == 0);
    cr_assert(strata_output_open(&out, "soft", OUTPUT_DOCUMENT, NULL) == STRATA_OK);
    fputs(DOCUMENT DOCUMENT, out.stream);
    cr_assert(fflush(out.stream) == 0);
    expect_text("old", DOCUMENT);
    cr_assert(strata_output_close(&out, NULL) == STRATA_OK);
    expect_text("old", DOCUMENT DOCUMENT);
    cr_assert(lstat("soft", &info) == 0 && S_ISLNK(info.st_mode));
    cr_assert(stat("old", &info) == 0 && (info.st_mode & 07777) == 0640);
    cr_expect(strata_temp_dir_count(".") == 2);
    umask(027);
    cr_assert(write_text("new", DOCUMENT) == STRATA_OK, "%s", error.message);
    cr_assert(stat("new", &info) == 0 && (info.st_mode & 07777) == 0640);
    cr_expect(strata_temp_dir_count(".") == 3);
}

/* A limit on a file's length stands for a full disk. */
Test(output, what_cannot_be_written_whole_leaves_the_old_file)
{
    static char much[100000];
    struct rlimit limit = {.rlim_cur = 20000, .rlim_max = RLIM_INFINITY};
    memset(much, 'x', sizeof much - 1);
    put("old", DOCUMENT);
    cr_assert(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    cr_assert(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    strata_status old = write_text("old", much);
    cr_expect(old == STRATA_E_IO && error.native == EFBIG, "%s", error.message);
    cr_expect(write_text("new", much) == STRATA_E_IO);
    limit.rlim_cur = RLIM_INFINITY;
    cr_assert(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    expect_text("old", DOCUMENT);
    cr_expect(access("new", F_OK) != 0);
    cr_expect(strata_temp_dir_count(".") == 1);
}

Test(output, a_file_that_came_meanwhile_is_left_alone)
{
    expect_taken("new", OUTPUT_DOCUMENT);
    put("new", "somebody's thesis");
    cr_expect(write_text("new", DOCUMENT) == STRATA_E_INVALID);
    cr_expect(strstr(error.message, "is left alone") != NULL, "%s", error.message);
    expect_text("new", "somebody's thesis");
    cr_expect(strata_temp_dir_count(".") == 1);
}

Test(output, a_name_as_long_as_names_can_be_is_written)
{
    char name[NAME_MAX + 2];
    memset(name, 'n', sizeof name);
    name[NAME_MAX] = '\0';
    expect_taken(name, OUTPUT_DOCUMENT);
    cr_expect(write_text(name, DOCUMENT) == STRATA_OK, "%s", error.message);
    expect_text(name, DOCUMENT);
    name[NAME_MAX] = 'n';
    name[NAME_MAX + 1] = '\0';
    expect_refused(name, OUTPUT_DOCUMENT, STRATA_E_IO, "File name too long");
}

Test(output, pipes_and_devices_are_written_to_as_they_are)
{
    char buffer[256] = "", name[32];
    int ends[2];
    cr_assert(pipe(ends) == 0);
    snprintf(name, sizeof name, "/dev/fd/%d", ends[1]);
    expect_taken(name, OUTPUT_DOCUMENT);
    cr_expect(write_text(name, DOCUMENT) == STRATA_OK, "%s", error.message);
    cr_expect(read(ends[0], buffer, sizeof buffer) == sizeof DOCUMENT - 1);
    cr_expect_str_eq(buffer, DOCUMENT);
    expect_taken("/dev/null", OUTPUT_DOCUMENT);
    cr_expect(write_text("/dev/null", DOCUMENT) == STRATA_OK, "%s", error.message);
    cr_expect(access("/dev/null", F_OK) == 0);
}

/* In a child: stdout is a file, with text in it already. */
Test(output, stdout_in_a_file_goes_on_where_it_is)
{
    pid_t child = fork();
    cr_assert(child >= 0);
    if (child == 0) {
        int fd = open("shell", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0 || dup2(fd, STDOUT_FILENO) < 0)
            _exit(1);
        printf("a table\n");
        if (check("/dev/stdout", OUTPUT_DOCUMENT) != STRATA_OK ||
            write_text("/dev/stdout", DOCUMENT) != STRATA_OK)
            _exit(2);
        printf("the end\n");
        _exit(fflush(stdout) == 0 ? 0 : 3);
    }
    int status = -1;
    cr_assert(waitpid(child, &status, 0) == child && status == 0, "%d", status);
    expect_text("shell", "a table\n" DOCUMENT "the end\n");
}
