#define _GNU_SOURCE
/*
 * A test's directory. An absolute path, since a test may change its working directory.
 *
 * Thread: any.
 */

#include "tests/support/temp_dir.h"

#include "base/error.h"

#include <dirent.h>
#include <string.h>
#include <unistd.h>

void strata_temp_dir_make(struct temp_dir *out)
{
    char here[PATH_MAX / 2];
    const char *base = getenv("TMPDIR");
    if (base == NULL || base[0] == '\0' || strlen(base) > sizeof here) {
        STRATA_CHECK(getcwd(here, sizeof here) != NULL);
        base = here;
    }
    snprintf(out->path, sizeof out->path, "%s/strata-test-XXXXXX", base);
    STRATA_CHECK(mkdtemp(out->path) != NULL);
}

void strata_temp_dir_make_in_memory(struct temp_dir *out)
{
    snprintf(out->path, sizeof out->path, "/dev/shm/strata-test-XXXXXX");
    if (mkdtemp(out->path) == NULL)
        strata_temp_dir_make(out);
}

static void remove_entries(const char *path, int levels)
{
    DIR *dir = opendir(path);
    if (dir == NULL)
        return;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char child[PATH_MAX];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        int length = snprintf(child, sizeof child, "%s/%s", path, entry->d_name);
        if (length < 0 || (size_t)length >= sizeof child || unlink(child) == 0)
            continue;
        if (levels > 0)
            remove_entries(child, levels - 1);
        rmdir(child);
    }
    closedir(dir);
}

void strata_temp_dir_remove(const struct temp_dir *dir)
{
    remove_entries(dir->path, 1);
    rmdir(dir->path);
}

int strata_temp_dir_count(const char *path)
{
    DIR *dir = opendir(path);
    STRATA_CHECK(dir != NULL);
    int count = 0;
    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count - 2;
}
