#ifndef STRATA_TESTS_TEMP_DIR_H
#define STRATA_TESTS_TEMP_DIR_H

/*
 * A directory for one test, on the file system of the build and not in /tmp, which may be made
 * of RAM and then has neither a drive's alignment nor its errors. TMPDIR, where set, is taken
 * instead.
 *
 * Thread: any.
 */

#include <limits.h>

struct temp_dir {
    char path[PATH_MAX];
};

/* Aborts where it cannot: a test without its directory has nothing to say. */
void strata_temp_dir_make(struct temp_dir *out);

/* On a file system made of RAM where there is one, for tests of what is above the drive. */
void strata_temp_dir_make_in_memory(struct temp_dir *out);

/* With everything in it, at most two levels deep. */
void strata_temp_dir_remove(const struct temp_dir *dir);

/* Entries in it, "." and ".." left out. */
int strata_temp_dir_count(const char *path);

#endif
