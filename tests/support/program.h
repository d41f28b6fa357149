#ifndef STRATA_TESTS_PROGRAM_H
#define STRATA_TESTS_PROGRAM_H

/*
 * Running one of the programs as a user does, and looking at what it left behind.
 *
 * A workshop is a directory with what a small run needs: text, config.json (two layers, 256
 * tokens), an empty directory store, and old.jsonl, a log of an earlier run. Programs run in
 * it.
 *
 * Where the programs lie is said by the environment or, where that is silent, by the build:
 * STRATA_TRAIN_PROGRAM and STRATA_BENCH_PROGRAM are variables and compile definitions alike.
 *
 * Thread: one.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/support/temp_dir.h"

#ifndef STRATA_TRAIN_PROGRAM
#    define STRATA_TRAIN_PROGRAM NULL
#endif
#ifndef STRATA_BENCH_PROGRAM
#    define STRATA_BENCH_PROGRAM NULL
#endif

struct program_result {
    int code;        /* exit code; 128 + n after signal n */
    char out[65536]; /* stdout, cut there                 */
    char err[16384]; /* stderr                            */
};

/* What old.jsonl holds. */
#define WORKSHOP_OLD_LOG "{\"step\":1,\"note\":\"of an earlier run\"}\n"

void strata_workshop_make(struct temp_dir *out);

/* Write a file of the workshop. */
void strata_workshop_write(const struct temp_dir *dir, const char *name, const void *bytes,
                           size_t count);
void strata_workshop_write_text(const struct temp_dir *dir, const char *name, const char *text);
/* Its content as text, into buffer; false: no such file. */
bool strata_workshop_read(const struct temp_dir *dir, const char *name, char *buffer,
                          size_t bytes);
void strata_workshop_remove(const struct temp_dir *dir, const char *name);
bool strata_workshop_has(const struct temp_dir *dir, const char *name);
/* Entries of the directory store. */
int strata_workshop_store_count(const struct temp_dir *dir);

/*
 * A file system of its own on the directory store, seen by this process and its children only:
 * one made of RAM, or ext4 of so many bytes in a file of the workshop. NULL, or why there is
 * none to be had.
 */
const char *strata_workshop_mount(const struct temp_dir *dir, const char *type,
                                  const char *options);
const char *strata_workshop_mount_disk(const struct temp_dir *dir, unsigned long bytes);
void strata_workshop_unmount(const struct temp_dir *dir);

/* The program's path: the variable's, else built (may be NULL). NULL: not to be found here. */
const char *strata_program_path(const char *variable, const char *built);

/* Start it in the directory; words are separated by single spaces. Returns its process. */
pid_t strata_program_start(const struct temp_dir *dir, const char *program, const char *words);
/* Wait for a process that was started. Its output lies in the workshop: out.txt, err.txt. */
int strata_program_wait(pid_t process);
/* Wait until a file of the workshop has so many lines, or the process has ended, however long
 * that takes; returns how many it then has. The process is still to be waited for. */
uint64_t strata_program_wait_lines(const struct temp_dir *dir, pid_t process, const char *name,
                                   uint64_t lines);
/* Wait until a running process catches the signal. */
void strata_program_wait_catches(pid_t process, int number);
/* Start and wait. */
void strata_program_run(struct program_result *out, const struct temp_dir *dir,
                        const char *program, const char *words);

#endif
