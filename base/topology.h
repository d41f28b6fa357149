#ifndef STRATA_BASE_TOPOLOGY_H
#define STRATA_BASE_TOPOLOGY_H

/*
 * Which cores this process may use, and the facts that limits are checked against: the mask
 * and the cores by hwloc, the CPU quota and the memory limit from the cgroup (v1 or v2), the
 * limit of locked memory from the rlimit, the available memory from /proc/meminfo.
 *
 * Thread: any.
 */

#include "strata/status.h"

#include <stdbool.h>
#include <stddef.h>

#define STRATA_MAX_PUS 1024

struct topology {
    uint32_t core_count; /* cores with a PU in the affinity mask */
    uint32_t pu_count;   /* PUs in the mask */
    /* The operating system's indexes: the first PU of every core, then the second PUs. */
    uint32_t pu[STRATA_MAX_PUS];
    uint32_t numa_count;
    double cpu_quota;              /* cores the cgroup grants; 0: no quota */
    uint64_t memory_limit_bytes;   /* of the cgroup with the least left; UINT64_MAX: none */
    uint64_t memory_current_bytes; /* used in this cgroup, without the page cache; 0: unknown */
    uint64_t memory_available_bytes; /* MemAvailable */
    uint64_t memlock_bytes;          /* RLIMIT_MEMLOCK; UINT64_MAX: unlimited or root */
};

/*
 * near: NULL, or a list of CPUs such as "0-15,32-47", in the format of local_cpulist in sysfs.
 * With a list, only the CPUs of the mask that are in it count, unless there are none.
 *
 * STRATA_E_INVALID: near is no such list.
 */
strata_status strata_topology_read(struct topology *out, const char *near, strata_error *error);

/* The CPUs of a PCI device's NUMA node, as a list for near. address: such as "0000:3B:00.0",
 * in upper or lower case. out: empty if the kernel does not know, or if bytes are too few. */
void strata_topology_near_pci(const char *address, char *out, size_t bytes);

/* How many threads compute by default: one per core, at most the quota, at least one. */
uint32_t strata_topology_threads(const struct topology *topology);

/* Bind the calling thread to one PU. false: the kernel refused. */
bool strata_topology_bind(uint32_t pu);

#endif
