#define _GNU_SOURCE

/*
 * The part of the machine that this process may use. Only this file includes hwloc's header.
 *
 * Three facts shape this file.
 *
 * A thread made here inherits the mask of the calling thread, so this mask is read, not the
 * machine's list of cores. A core counts once, whether the mask holds one of its PUs or both:
 * two threads on one core share its vector units, and one thread of our kernels fills them. So
 * the second PUs are listed after the first PUs of all cores, for callers that want more
 * threads than cores.
 *
 * Locked memory is not limited for a process with CAP_IPC_LOCK. Root need not have it: in a
 * container it usually does not. So the capability is looked up, not the user.
 *
 * MemAvailable is the kernel's estimate of the memory that can be had without swapping.
 * MemFree leaves out the page cache, which holds most of the memory on a machine that has read
 * much.
 *
 * Thread: any.
 */

#include "base/topology.h"

#include "base/cgroup.h"
#include "base/error.h"

#include <errno.h>
#include <hwloc.h>
#include <linux/capability.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>

/* The number after a name at the start of a line in a file of /proc, such as
 * "MemAvailable:". */
static bool read_field(const char *path, const char *name, const char *format,
                       unsigned long long *out)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    char line[256];
    bool found = false;
    size_t length = strlen(name);
    while (!found && fgets(line, sizeof line, file))
        found = strncmp(line, name, length) == 0 && sscanf(line + length, format, out) == 1;
    fclose(file);
    return found;
}

static uint64_t memlock_bytes(void)
{
    unsigned long long capabilities = 0;
    if (read_field("/proc/self/status", "CapEff:", "%llx", &capabilities) &&
        (capabilities >> CAP_IPC_LOCK & 1) != 0)
        return UINT64_MAX;
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0)
        return 0;
    return limit.rlim_cur == RLIM_INFINITY ? UINT64_MAX : limit.rlim_cur;
}

/* PU number `which` among those in both sets; -1: there are fewer. */
static int nth_pu(hwloc_const_cpuset_t core, hwloc_const_cpuset_t mask, uint32_t which)
{
    int pu = -1;
    while ((pu = hwloc_bitmap_next(core, pu)) >= 0)
        if (hwloc_bitmap_isset(mask, (unsigned)pu) && which-- == 0)
            break;
    return pu;
}

/* Add PU number `which`, counted within the mask, of every object of the type that has so
 * many. Returns how many were added. */
static uint32_t list_pus(struct topology *out, hwloc_topology_t machine, hwloc_obj_type_t type,
                         hwloc_const_cpuset_t mask, uint32_t which)
{
    uint32_t before = out->pu_count;
    hwloc_obj_t core = NULL;
    while ((core = hwloc_get_next_obj_by_type(machine, type, core)) &&
           out->pu_count < STRATA_MAX_PUS) {
        int pu = nth_pu(core->cpuset, mask, which);
        if (pu >= 0)
            out->pu[out->pu_count++] = (uint32_t)pu;
    }
    return out->pu_count - before;
}

static uint32_t count_nodes(hwloc_topology_t machine, hwloc_const_cpuset_t mask)
{
    uint32_t count = 0;
    hwloc_obj_t node = NULL;
    while ((node = hwloc_get_next_obj_by_type(machine, HWLOC_OBJ_NUMANODE, node)))
        count += hwloc_bitmap_intersects(node->cpuset, mask) ? 1 : 0;
    return count > 0 ? count : 1;
}

/* Keep only the near PUs in the mask, unless it has none of them. */
static strata_status keep_near(hwloc_bitmap_t mask, const char *near, strata_error *error)
{
    hwloc_bitmap_t list = hwloc_bitmap_alloc();
    if (!list)
        return strata_fail(error, STRATA_E_NOMEM, errno, "topology: out of memory");
    strata_status status = STRATA_OK;
    if (hwloc_bitmap_list_sscanf(list, near) != 0)
        status = strata_fail(error, STRATA_E_INVALID, 0,
                             "topology: %.80s is no list of CPUs such as 0-15,32-47", near);
    else if (hwloc_bitmap_intersects(mask, list))
        hwloc_bitmap_and(mask, mask, list);
    hwloc_bitmap_free(list);
    return status;
}

static strata_status read_cores(struct topology *out, const char *near, strata_error *error)
{
    strata_status status = STRATA_E_NOMEM;
    hwloc_topology_t machine = NULL;
    hwloc_cpuset_t mask = hwloc_bitmap_alloc();
    if (!mask || hwloc_topology_init(&machine) != 0) {
        strata_fail(error, status, errno, "topology: out of memory");
        goto done;
    }
    status = STRATA_E_UNSUPPORTED;
    if (hwloc_topology_load(machine) != 0) {
        strata_fail(error, status, errno, "topology: hwloc cannot read this machine: %s",
                    strerror(errno));
        goto done;
    }
    if (hwloc_get_cpubind(machine, mask, HWLOC_CPUBIND_THREAD) != 0) {
        strata_fail(error, status, errno, "topology: the affinity mask cannot be read: %s",
                    strerror(errno));
        goto done;
    }
    if (near) {
        strata_status result = keep_near(mask, near, error);
        if (result != STRATA_OK) {
            status = result;
            goto done;
        }
    }
    hwloc_obj_type_t type = HWLOC_OBJ_CORE;
    if (hwloc_get_nbobjs_by_type(machine, type) <= 0)
        type = HWLOC_OBJ_PU; /* some virtual machines describe PUs without cores */
    out->core_count = list_pus(out, machine, type, mask, 0);
    for (uint32_t which = 1; list_pus(out, machine, type, mask, which) > 0;)
        which++;
    if (out->core_count == 0) {
        strata_fail(error, status, 0, "topology: no usable core in the affinity mask");
        goto done;
    }
    out->numa_count = count_nodes(machine, mask);
    status = STRATA_OK;

done:
    if (machine)
        hwloc_topology_destroy(machine);
    hwloc_bitmap_free(mask);
    return status;
}

strata_status strata_topology_read(struct topology *out, const char *near, strata_error *error)
{
    memset(out, 0, sizeof *out);
    STRATA_TRY(read_cores(out, near, error));
    struct cgroup_limits limits;
    strata_cgroup_read("/proc/self", &limits);
    out->cpu_quota = limits.cpu_quota;
    out->memory_limit_bytes = limits.memory_bytes;
    out->memory_current_bytes = limits.memory_used_bytes;
    out->memlock_bytes = memlock_bytes();
    unsigned long long available_kib = 0;
    if (!read_field("/proc/meminfo", "MemAvailable:", "%llu", &available_kib))
        return strata_fail(error, STRATA_E_UNSUPPORTED, 0,
                           "topology: no MemAvailable in /proc/meminfo: is /proc mounted?");
    out->memory_available_bytes = (uint64_t)available_kib * 1024;
    return STRATA_OK;
}

void strata_topology_near_pci(const char *address, char *out, size_t bytes)
{
    /* Not by hwloc: it may have been built without support for PCI devices. */
    char path[128];
    int length =
        snprintf(path, sizeof path, "/sys/bus/pci/devices/%.32s/local_cpulist", address);
    for (int i = 0; i < length; i++)
        path[i] = path[i] >= 'A' && path[i] <= 'F' ? (char)(path[i] - 'A' + 'a') : path[i];
    out[0] = '\0';
    FILE *file = fopen(path, "re");
    if (!file)
        return;
    size_t got = fread(out, 1, bytes, file);
    fclose(file);
    /* A list that was cut off would name the wrong CPUs. */
    if (got == 0 || got == bytes || out[got - 1] != '\n')
        got = 1;
    out[got - 1] = '\0';
}

uint32_t strata_topology_threads(const struct topology *topology)
{
    double quota = topology->cpu_quota;
    if (quota <= 0 || quota >= topology->core_count)
        return topology->core_count;
    return quota < 1 ? 1 : (uint32_t)quota;
}

bool strata_topology_bind(uint32_t pu)
{
    /* By the system call: hwloc would load the whole topology to set one bit. */
    cpu_set_t *set = CPU_ALLOC(pu + 1);
    if (!set)
        return false;
    size_t bytes = CPU_ALLOC_SIZE(pu + 1);
    CPU_ZERO_S(bytes, set);
    CPU_SET_S(pu, bytes, set);
    bool bound = sched_setaffinity(0, bytes, set) == 0;
    CPU_FREE(set);
    return bound;
}
