#define _GNU_SOURCE
/*
 * Running one of the programs. See program.h.
 *
 * Output goes to files, not pipes: a program that says more than a pipe holds must not wait for
 * a reader that waits for it. They are removed again, so that a test sees only what the program
 * left.
 *
 * Thread: one.
 */

#include "tests/support/program.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_WORDS 96

static const char config[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_act\": "
    "\"silu\",\n"
    " \"hidden_size\": 64, \"num_hidden_layers\": 2, \"num_attention_heads\": 4,\n"
    " \"num_key_value_heads\": 2, \"intermediate_size\": 128, \"vocab_size\": 256,\n"
    " \"rms_norm_eps\": 1e-5, \"rope_theta\": 10000.0, \"initializer_range\": 0.02,\n"
    " \"tie_word_embeddings\": false}\n";

static void path_of(const struct temp_dir *dir, const char *name, char *out)
{
    int length = snprintf(out, PATH_MAX, "%s/%s", dir->path, name);
    STRATA_CHECK(length > 0 && length < PATH_MAX);
}

void strata_workshop_write(const struct temp_dir *dir, const char *name, const void *bytes,
                           size_t count)
{
    char path[PATH_MAX];
    path_of(dir, name, path);
    FILE *file = fopen(path, "we");
    STRATA_CHECK(file != NULL);
    STRATA_CHECK(fwrite(bytes, 1, count, file) == count);
    STRATA_CHECK(fclose(file) == 0);
}

void strata_workshop_write_text(const struct temp_dir *dir, const char *name, const char *text)
{
    strata_workshop_write(dir, name, text, strlen(text));
}

void strata_workshop_make(struct temp_dir *out)
{
    char path[PATH_MAX];
    char text[20000];
    strata_temp_dir_make(out);
    path_of(out, "store", path);
    STRATA_CHECK(mkdir(path, 0700) == 0);
    /* Words of a small alphabet, so that there is something to learn. */
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = i % 6 == 5 ? ' ' : (char)('a' + (i * i / 7 + i / 6) % 11);
    strata_workshop_write(out, "text", text, sizeof text);
    strata_workshop_write_text(out, "config.json", config);
    strata_workshop_write_text(out, "old.jsonl", WORKSHOP_OLD_LOG);
}

bool strata_workshop_read(const struct temp_dir *dir, const char *name, char *buffer,
                          size_t bytes)
{
    char path[PATH_MAX];
    path_of(dir, name, path);
    FILE *file = fopen(path, "re");
    buffer[0] = '\0';
    if (file == NULL)
        return false;
    buffer[fread(buffer, 1, bytes - 1, file)] = '\0';
    fclose(file);
    return true;
}

void strata_workshop_remove(const struct temp_dir *dir, const char *name)
{
    char path[PATH_MAX];
    path_of(dir, name, path);
    unlink(path);
}

bool strata_workshop_has(const struct temp_dir *dir, const char *name)
{
    char path[PATH_MAX];
    path_of(dir, name, path);
    return access(path, F_OK) == 0;
}

int strata_workshop_store_count(const struct temp_dir *dir)
{
    char path[PATH_MAX];
    path_of(dir, "store", path);
    return strata_temp_dir_count(path);
}

static bool hide_mounts(void)
{
    return (unshare(CLONE_NEWNS) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0) &&
           mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

static const char no_namespace[] =
    "no mount namespace of our own: this needs root or user namespaces";

const char *strata_workshop_mount(const struct temp_dir *dir, const char *type,
                                  const char *options)
{
    char path[PATH_MAX];
    path_of(dir, "store", path);
    if (!hide_mounts())
        return no_namespace;
    return mount(type, path, type, 0, options) == 0
               ? NULL
               : "no file system made of RAM can be mounted here";
}

const char *strata_workshop_mount_disk(const struct temp_dir *dir, unsigned long bytes)
{
    char words[2 * PATH_MAX];
    if (!hide_mounts())
        return no_namespace;
    snprintf(words, sizeof words,
             "cd '%s' && truncate -s %lu disk && mkfs.ext4 -q -F -m 0 disk && "
             "mount -o loop disk store && chmod 700 store",
             dir->path, bytes);
    return system(words) == 0 ? NULL : "no ext4, or no loop device, can be had here";
}

void strata_workshop_unmount(const struct temp_dir *dir)
{
    char path[PATH_MAX];
    path_of(dir, "store", path);
    umount(path);
}

const char *strata_program_path(const char *variable, const char *built)
{
    const char *path = getenv(variable);
    if (path == NULL || path[0] == '\0')
        path = built;
    return path != NULL && access(path, X_OK) == 0 ? path : NULL;
}

/* In the child: never returns. Words of the command line become argv. */
static void become(const struct temp_dir *dir, const char *program, const char *words)
{
    static char text[8192];
    char *argv[MAX_WORDS] = {(char *)program};
    int count = 1;
    signal(SIGINT, SIG_DFL); /* a shell's background jobs begin with it ignored */
    if (strlen(words) >= sizeof text || chdir(dir->path) != 0)
        _exit(99);
    strcpy(text, words);
    for (char *word = strtok(text, " "); word != NULL && count < MAX_WORDS - 1;
         word = strtok(NULL, " "))
        argv[count++] = word;
    int out = open("out.txt", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int err = open("err.txt", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (out < 0 || err < 0 || dup2(out, STDOUT_FILENO) < 0 || dup2(err, STDERR_FILENO) < 0)
        _exit(99);
    execv(program, argv);
    _exit(99);
}

pid_t strata_program_start(const struct temp_dir *dir, const char *program, const char *words)
{
    pid_t process = fork();
    STRATA_CHECK(process >= 0);
    if (process == 0)
        become(dir, program, words);
    return process;
}

int strata_program_wait(pid_t process)
{
    int status = 0;
    while (waitpid(process, &status, 0) < 0)
        STRATA_CHECK(errno == EINTR);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static uint64_t count_lines(const char *path)
{
    uint64_t lines = 0;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    for (int byte = 0; (byte = fgetc(file)) != EOF;)
        lines += byte == '\n';
    fclose(file);
    return lines;
}

static bool has_ended(pid_t process)
{
    siginfo_t info = {.si_pid = 0};
    STRATA_CHECK(waitid(P_PID, (id_t)process, &info, WEXITED | WNOHANG | WNOWAIT) == 0);
    return info.si_pid != 0;
}

static void pause_a_little(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

uint64_t strata_program_wait_lines(const struct temp_dir *dir, pid_t process, const char *name,
                                   uint64_t lines)
{
    char path[PATH_MAX];
    path_of(dir, name, path);
    while (count_lines(path) < lines && !has_ended(process))
        pause_a_little();
    return count_lines(path);
}

/* The mask of caught signals in /proc/PID/status. */
static uint64_t caught_signals(pid_t process)
{
    char path[64];
    char line[256];
    uint64_t mask = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)process);
    FILE *file = fopen(path, "re");
    STRATA_CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "SigCgt: %" SCNx64, &mask) == 1)
            break;
    fclose(file);
    return mask;
}

void strata_program_wait_catches(pid_t process, int number)
{
    while ((caught_signals(process) >> (number - 1) & 1) == 0 && !has_ended(process))
        pause_a_little();
}

void strata_program_run(struct program_result *out, const struct temp_dir *dir,
                        const char *program, const char *words)
{
    out->code = strata_program_wait(strata_program_start(dir, program, words));
    strata_workshop_read(dir, "out.txt", out->out, sizeof out->out);
    strata_workshop_read(dir, "err.txt", out->err, sizeof out->err);
    strata_workshop_remove(dir, "out.txt");
    strata_workshop_remove(dir, "err.txt");
}
