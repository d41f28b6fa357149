#ifndef STRATA_BASE_CGROUP_H
#define STRATA_BASE_CGROUP_H

/*
 * The CPU time and the memory that control groups of version 1 and 2 leave to this process. A
 * limit holds for all groups below it, so every group from the process's own up to the root of
 * the mount counts, and the tightest limit is reported. For memory this is the group with the
 * least memory left. It need not have the smallest limit, because other processes share the
 * groups higher up.
 *
 * Thread: any.
 */

#include <stdint.h>

struct cgroup_limits {
    double cpu_quota;           /* cores; 0: no quota                                       */
    uint64_t memory_bytes;      /* limit of the group with the least left; UINT64_MAX: none */
    uint64_t memory_used_bytes; /* charged to that group, less the page cache that the kernel
                                   takes back by itself; 0: none or unknown */
};

/*
 * proc_dir: "/proc/self", or in tests a directory with the files cgroup and mountinfo. A file
 * that cannot be read sets no limit: a kernel without control groups has none of these files.
 */
void strata_cgroup_read(const char *proc_dir, struct cgroup_limits *out);

#endif
