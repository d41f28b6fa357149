#ifndef STRATA_BASE_TOPOLOGY_H
#define STRATA_BASE_TOPOLOGY_H

/*
 * Which cores this process may use, and the machine facts that limits are checked against: the
 * affinity mask and cores by hwloc, the CPU quota and the memory limit from the cgroup (v1 or
 * v2), memlock from the rlimit, what is free from /proc/meminfo.
 *
 * Thread: any.
 */

#include "strata/status.h"

#include <stdbool.h>

#define STRATA_MAX_CORES 1024

struct topology {
    uint32_t core_count;           /* cores in the affinity mask, one PU each */
    uint32_t pu[STRATA_MAX_CORES]; /* the operating system's index of each core's PU */
    uint32_t numa_count;
    double cpu_quota;                /* cores the cgroup grants; 0: no quota */
    uint64_t memory_limit_bytes;     /* tightest cgroup limit; UINT64_MAX: none */
    uint64_t memory_current_bytes;   /* charged to that cgroup now; 0: unknown */
    uint64_t memory_available_bytes; /* MemAvailable */
    uint64_t memlock_bytes;          /* RLIMIT_MEMLOCK; UINT64_MAX: unlimited or root */
};

strata_status strata_topology_read(struct topology *out, strata_error *error);

/* Bind the calling thread to one PU. false: the kernel refused. */
bool strata_topology_bind(uint32_t pu);

#endif
