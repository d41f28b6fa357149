#define _GNU_SOURCE

/*
 * Limits of the control groups, read from the files the kernel shows.
 *
 * Three facts shape this file.
 *
 * Version 1 has one tree of groups per controller, version 2 has one tree for all, and a
 * machine may have both at once. /proc/self/cgroup names our group in each tree;
 * /proc/self/mountinfo says where the tree is mounted. Every matching pair of lines is
 * followed from our group up to the mount, and the tightest limit counts.
 *
 * A container often sees only a part of the tree. The root of its mount is then a group
 * itself, and our group's name begins with the name of that root. This prefix is cut off. If
 * it does not match (the process was moved there from outside), the mount's own root is used:
 * it is the nearest group that is visible.
 *
 * "No limit" has three spellings: "max", -1, and in version 1's memory files a number near
 * 2^63.
 *
 * Thread: any.
 */

#include "base/cgroup.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Version 1 rounds "no limit" down to whole pages below 2^63; nothing has 2^62 bytes. */
#define NO_LIMIT_BYTES (UINT64_C(1) << 62)

/* A longer path is skipped, like one that does not exist. */
#define PATH_BYTES 4096

/* A group in one tree: the directory of the mount, then the directories down to the group. */
struct walk {
    char path[PATH_BYTES];
    size_t mount_length; /* length of the mount's directory, where the way up ends */
    bool version2;
    bool has_cpu; /* version 1: the tree has this controller; version 2: always */
    bool has_memory;
};

/* Read the first number of a file, and the second if out_second is not NULL. "max" is 2^64
 * - 1. */
static bool read_numbers(const struct walk *walk, const char *name, uint64_t *out,
                         uint64_t *out_second)
{
    char path[PATH_BYTES + 64];
    snprintf(path, sizeof path, "%s/%s", walk->path, name);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    char first[32];
    unsigned long long second = 0;
    int count = fscanf(file, "%31s %llu", first, &second);
    fclose(file);
    if (count < (out_second ? 2 : 1))
        return false;
    if (out_second)
        *out_second = second;
    if (strcmp(first, "max") == 0) {
        *out = UINT64_MAX;
        return true;
    }
    char *end;
    errno = 0;
    *out = strtoull(first, &end, 10); /* -1, version 1's word for none, becomes 2^64 - 1 */
    return errno == 0 && *end == '\0';
}

static void tighten_cpu_quota(const struct walk *walk, struct cgroup_limits *limits)
{
    uint64_t quota = UINT64_MAX;
    uint64_t period = 0;
    bool found = walk->version2 ? read_numbers(walk, "cpu.max", &quota, &period)
                                : read_numbers(walk, "cpu.cfs_quota_us", &quota, NULL) &&
                                      read_numbers(walk, "cpu.cfs_period_us", &period, NULL);
    if (!found || quota == UINT64_MAX || quota == 0 || period == 0)
        return;
    double cores = (double)quota / (double)period;
    if (limits->cpu_quota == 0 || cores < limits->cpu_quota)
        limits->cpu_quota = cores;
}

/* One line of memory.stat: a name and a number. 0: no such line. */
static uint64_t read_stat(const struct walk *walk, const char *name)
{
    char path[PATH_BYTES + 64];
    char found[64];
    unsigned long long value;
    uint64_t out = 0;
    snprintf(path, sizeof path, "%s/memory.stat", walk->path);
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    while (out == 0 && fscanf(file, "%63s %llu", found, &value) == 2)
        if (strcmp(found, name) == 0)
            out = value;
    fclose(file);
    return out;
}

/* Cached pages of files, which the kernel frees before it kills a process. In version 1 the
 * sums that include the groups below have names of their own. */
static uint64_t reclaimable_bytes(const struct walk *walk)
{
    return walk->version2
               ? read_stat(walk, "inactive_file") + read_stat(walk, "active_file")
               : read_stat(walk, "total_inactive_file") + read_stat(walk, "total_active_file");
}

static uint64_t unused_bytes(uint64_t limit, uint64_t used)
{
    return limit > used ? limit - used : 0;
}

static void tighten_memory_limit(const struct walk *walk, struct cgroup_limits *limits)
{
    uint64_t limit;
    uint64_t used = 0;
    if (!read_numbers(walk, walk->version2 ? "memory.max" : "memory.limit_in_bytes", &limit,
                      NULL) ||
        limit >= NO_LIMIT_BYTES)
        return;
    if (!read_numbers(walk, walk->version2 ? "memory.current" : "memory.usage_in_bytes", &used,
                      NULL))
        used = 0;
    used = unused_bytes(used, reclaimable_bytes(walk));
    bool tighter = unused_bytes(limit, used) <
                   unused_bytes(limits->memory_bytes, limits->memory_used_bytes);
    if (!tighter && limits->memory_bytes != UINT64_MAX)
        return;
    limits->memory_bytes = limit;
    limits->memory_used_bytes = used;
}

static void read_limits_upwards(struct walk *walk, struct cgroup_limits *limits)
{
    for (;;) {
        if (walk->has_cpu)
            tighten_cpu_quota(walk, limits);
        if (walk->has_memory)
            tighten_memory_limit(walk, limits);
        char *last = strrchr(walk->path, '/');
        if (!last || (size_t)(last - walk->path) < walk->mount_length)
            return;
        *last = '\0';
    }
}

/* True when word is in list, whose words are separated by commas. */
static bool list_has(const char *list, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = list; (at = strstr(at, word)); at += length) {
        bool starts = at == list || at[-1] == ',';
        if (starts && (at[length] == ',' || at[length] == '\0'))
            return true;
    }
    return false;
}

/* The name of our group below a mount whose root is the group `root`; "" for the root
 * itself. */
static const char *below_root(const char *group, const char *root)
{
    if (strcmp(root, "/") == 0)
        return strcmp(group, "/") == 0 ? "" : group;
    size_t length = strlen(root);
    if (strncmp(group, root, length) == 0 && (group[length] == '/' || group[length] == '\0'))
        return group + length;
    return "";
}

/*
 * Cut one line of mountinfo: "36 25 0:31 root mount options ... - type source super-options".
 * false: not a cgroup mount.
 */
static bool parse_mount(char *line, char **out_root, char **out_mount, struct walk *out_tree)
{
    char *tail = strstr(line, " - ");
    if (!tail)
        return false;
    *tail = '\0';
    tail += 3;
    line[strcspn(line, "\n")] = '\0';
    tail[strcspn(tail, "\n")] = '\0';
    char *save;
    char *type = strtok_r(tail, " ", &save);
    strtok_r(NULL, " ", &save);
    char *options = strtok_r(NULL, " ", &save);
    if (!type || !options)
        return false;
    out_tree->version2 = strcmp(type, "cgroup2") == 0;
    if (!out_tree->version2 && strcmp(type, "cgroup") != 0)
        return false;
    out_tree->has_cpu = out_tree->version2 || list_has(options, "cpu");
    out_tree->has_memory = out_tree->version2 || list_has(options, "memory");
    char *field = strtok_r(line, " ", &save);
    for (int i = 0; i < 3 && field; i++)
        field = strtok_r(NULL, " ", &save);
    *out_root = field;
    *out_mount = strtok_r(NULL, " ", &save);
    return *out_root && *out_mount;
}

/* Find our group's line for a tree: "0::/group" for version 2, "4:cpu,cpuacct:/group" for 1. */
static bool find_group(const char *proc_dir, const struct walk *tree, char out[PATH_BYTES])
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/cgroup", proc_dir);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    char line[PATH_BYTES];
    bool found = false;
    while (!found && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(++controllers, ':') : NULL;
        if (!group)
            continue;
        *group++ = '\0';
        found = tree->version2 ? *controllers == '\0'
                               : (tree->has_cpu && list_has(controllers, "cpu")) ||
                                     (tree->has_memory && list_has(controllers, "memory"));
        if (found)
            snprintf(out, PATH_BYTES, "%s", group);
    }
    fclose(file);
    return found;
}

static void read_tree(const char *proc_dir, char *mount_line, struct cgroup_limits *limits)
{
    struct walk walk = {0};
    char *root;
    char *mount;
    char group[PATH_BYTES];
    if (!parse_mount(mount_line, &root, &mount, &walk))
        return;
    if (!(walk.has_cpu || walk.has_memory) || !find_group(proc_dir, &walk, group))
        return;
    walk.mount_length = strlen(mount);
    int length = snprintf(walk.path, sizeof walk.path, "%s%s", mount, below_root(group, root));
    if (length > 0 && (size_t)length < sizeof walk.path)
        read_limits_upwards(&walk, limits);
}

void strata_cgroup_read(const char *proc_dir, struct cgroup_limits *out)
{
    *out = (struct cgroup_limits){.memory_bytes = UINT64_MAX};
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/mountinfo", proc_dir);
    FILE *file = fopen(path, "re");
    if (!file)
        return;
    char *line = NULL;
    size_t line_bytes = 0;
    while (getline(&line, &line_bytes, file) > 0)
        read_tree(proc_dir, line, out);
    free(line);
    fclose(file);
}
