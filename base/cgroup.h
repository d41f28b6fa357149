#ifndef STRATA_BASE_CGROUP_H
#define STRATA_BASE_CGROUP_H

/*
 * What the control groups that this process is in grant it: CPU time and memory, of version 1
 * and version 2 alike. A limit holds for everything below it, so every group from the process's
 * own up to the root of the mount counts, and the tightest is reported. For memory that is the
 * one with the least left, which need not be the one with the smallest limit: a group higher up
 * is shared with others.
 *
 * Thread: any.
 */

#include <stdint.h>

struct cgroup_limits {
    double cpu_quota;           /* cores; 0: no quota                                     */
    uint64_t memory_bytes;      /* limit of the group with the least left; UINT64_MAX: none */
    uint64_t memory_used_bytes; /* charged to that group, less the page cache that the kernel
                                   takes back by itself; 0: none or unknown */
};

/*
 * proc_dir: "/proc/self", or in tests a directory with the files cgroup and mountinfo. What
 * cannot be read sets no limit: a kernel without control groups has none of these files.
 */
void strata_cgroup_read(const char *proc_dir, struct cgroup_limits *out);

#endif
