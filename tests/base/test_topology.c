#define _GNU_SOURCE

/*
 * The machine's facts. Cores are tested on machines that hwloc makes up from a line of text;
 * limits on trees of files that look like those of the kernel.
 */

#include "base/topology.h"

#include "base/cgroup.h"

#include <criterion/criterion.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct topology read_here(void)
{
    struct topology topology;
    strata_error error = {0};
    cr_assert_eq(strata_topology_read(&topology, &error), STRATA_OK, "%s", error.message);
    return topology;
}

Test(topology, this_machine_makes_sense)
{
    struct topology topology = read_here();
    cpu_set_t mask;
    cr_assert_eq(sched_getaffinity(0, sizeof mask, &mask), 0);
    cr_assert_geq(topology.core_count, 1);
    cr_assert_leq(topology.core_count, CPU_COUNT(&mask));
    for (uint32_t i = 0; i < topology.core_count; i++) {
        cr_assert(CPU_ISSET(topology.pu[i], &mask));
        for (uint32_t j = 0; j < i; j++)
            cr_assert_neq(topology.pu[i], topology.pu[j]);
    }
    cr_assert_geq(topology.numa_count, 1);
    cr_assert_gt(topology.memory_available_bytes, 1 << 20);
    cr_assert_gt(topology.memory_limit_bytes, 1 << 20);
    cr_assert_geq(topology.cpu_quota, 0);
}

Test(topology, only_the_affinity_masks_cores_count)
{
    struct topology before = read_here();
    uint32_t last = before.pu[before.core_count - 1];
    cr_assert(strata_topology_bind(last));
    struct topology after = read_here();
    cr_assert_eq(after.core_count, 1);
    cr_assert_eq(after.pu[0], last);
    cr_assert_eq(after.numa_count, 1);
}

Test(topology, a_pu_that_is_not_there_is_refused)
{
    cr_assert_not(strata_topology_bind(100000));
}

/* hwloc takes this machine from the environment; for one it makes up, the mask is
 * everything. */
static struct topology read_made_up(const char *machine)
{
    cr_assert_eq(setenv("HWLOC_SYNTHETIC", machine, 1), 0);
    return read_here();
}

Test(topology, one_pu_of_every_core_counts)
{
    struct topology topology = read_made_up("numa:2 core:4 pu:2");
    cr_assert_eq(topology.core_count, 8);
    cr_assert_eq(topology.numa_count, 2);
    for (uint32_t i = 0; i < 8; i++)
        cr_assert_eq(topology.pu[i], 2 * i);
}

Test(topology, a_machine_larger_than_the_table_is_cut)
{
    struct topology topology = read_made_up("numa:8 core:256 pu:2");
    cr_assert_eq(topology.core_count, STRATA_MAX_CORES);
    cr_assert_eq(topology.numa_count, 8);
}

Test(topology, pus_without_cores_count_themselves)
{
    struct topology topology = read_made_up("numa:1 pu:3");
    cr_assert_eq(topology.core_count, 3);
}

/* Give CAP_IPC_LOCK up, which a process may always do. */
static void drop_ipc_lock(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    cr_assert_eq(syscall(SYS_capget, &header, data), 0);
    data[0].effective &= ~(1u << CAP_IPC_LOCK);
    cr_assert_eq(syscall(SYS_capset, &header, data), 0);
}

Test(topology, memlock_is_the_limit_unless_the_capability_lifts_it)
{
    struct rlimit limit = {.rlim_cur = 1 << 20, .rlim_max = 1 << 20};
    cr_assert_eq(setrlimit(RLIMIT_MEMLOCK, &limit), 0);
    uint64_t before = read_here().memlock_bytes;
    cr_assert(before == UINT64_MAX || before == 1 << 20);
    drop_ipc_lock();
    cr_assert_eq(read_here().memlock_bytes, 1 << 20);
}

/* ---- control groups, from files ---- */

static char tree[] = "/tmp/strata-cgroup-XXXXXX";

static void tree_make(void)
{
    cr_assert(mkdtemp(tree));
}

static void tree_remove(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", tree);
    cr_assert_eq(system(command), 0);
}

/* Write one file of the tree; "@" in the text stands for the tree's own path. */
static void put(const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", tree, name);
    for (char *at = path + strlen(tree) + 1; (at = strchr(at, '/')); at++) {
        *at = '\0';
        mkdir(path, 0700);
        *at = '/';
    }
    FILE *file = fopen(path, "w");
    cr_assert(file, "%s", path);
    for (; *text; text++)
        if (*text == '@')
            fputs(tree, file);
        else
            fputc(*text, file);
    fclose(file);
}

static struct cgroup_limits limits(void)
{
    struct cgroup_limits out;
    strata_cgroup_read(tree, &out);
    return out;
}

TestSuite(cgroup, .init = tree_make, .fini = tree_remove);

Test(cgroup, version_2_takes_the_tightest_on_the_way_up)
{
    put("mountinfo", "22 20 0:20 / /proc rw - proc proc rw\n"
                     "36 25 0:31 / @/fs rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n");
    put("cgroup", "0::/a/b/c\n");
    put("fs/a/b/c/memory.max", "max\n");
    put("fs/a/b/c/cpu.max", "max 100000\n");
    put("fs/a/b/memory.max", "1073741824\n");
    put("fs/a/b/memory.current", "1000\n");
    put("fs/a/b/cpu.max", "350000 100000\n");
    put("fs/a/memory.max", "2147483648\n");
    put("fs/a/memory.current", "5000\n");
    put("fs/a/cpu.max", "800000 200000\n");
    struct cgroup_limits found = limits();
    cr_assert_eq(found.memory_bytes, 1073741824);
    cr_assert_eq(found.memory_used_bytes, 1000);
    cr_assert_eq(found.cpu_quota, 3.5);
}

Test(cgroup, version_1_has_a_tree_for_each_controller)
{
    put("mountinfo", "30 25 0:26 / @/fs/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
                     "31 25 0:27 / @/fs/memory rw - cgroup cgroup rw,memory\n"
                     "32 25 0:28 / @/fs/cpuset rw - cgroup cgroup rw,cpuset\n");
    put("cgroup", "5:cpuset:/s\n4:memory:/m/x\n3:cpu,cpuacct:/c\n1:name=systemd:/z\n");
    put("fs/cpuset/s/cpu.cfs_quota_us", "1\n"); /* of another controller: not ours to read */
    put("fs/cpu,cpuacct/c/cpu.cfs_quota_us", "150000\n");
    put("fs/cpu,cpuacct/c/cpu.cfs_period_us", "100000\n");
    put("fs/memory/m/x/memory.limit_in_bytes", "9223372036854771712\n");
    put("fs/memory/m/x/memory.usage_in_bytes", "7\n");
    put("fs/memory/memory.limit_in_bytes", "4096\n");
    put("fs/memory/memory.usage_in_bytes", "8\n");
    struct cgroup_limits found = limits();
    cr_assert_eq(found.memory_bytes, 4096);
    cr_assert_eq(found.memory_used_bytes, 8);
    cr_assert_eq(found.cpu_quota, 1.5);
}

Test(cgroup, no_limit_has_three_spellings)
{
    put("mountinfo", "30 25 0:26 / @/cpu rw - cgroup cgroup rw,cpu\n"
                     "31 25 0:27 / @/memory rw - cgroup cgroup rw,memory\n"
                     "33 25 0:29 / @/two rw - cgroup2 none rw\n");
    put("cgroup", "4:memory:/\n3:cpu:/\n0::/\n");
    put("cpu/cpu.cfs_quota_us", "-1\n");
    put("cpu/cpu.cfs_period_us", "100000\n");
    put("memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("two/memory.max", "max\n");
    put("two/cpu.max", "max 100000\n");
    struct cgroup_limits found = limits();
    cr_assert_eq(found.memory_bytes, UINT64_MAX);
    cr_assert_eq(found.memory_used_bytes, 0);
    cr_assert_eq(found.cpu_quota, 0);
}

Test(cgroup, a_container_sees_its_own_part_of_the_tree)
{
    put("mountinfo", "31 25 0:27 /docker/1f2e @/memory ro - cgroup cgroup rw,memory\n");
    put("cgroup", "4:memory:/docker/1f2e/inner\n");
    put("memory/inner/memory.limit_in_bytes", "8192\n");
    put("memory/memory.limit_in_bytes", "16384\n");
    cr_assert_eq(limits().memory_bytes, 8192);
}

Test(cgroup, a_name_that_does_not_fit_the_mount_falls_back_to_its_root)
{
    put("mountinfo", "31 25 0:27 /docker/1f2e @/memory ro - cgroup cgroup rw,memory\n");
    put("cgroup", "4:memory:/docker/1f2eff\n");
    put("memory/ff/memory.limit_in_bytes", "1\n");
    put("memory/memory.limit_in_bytes", "16384\n");
    cr_assert_eq(limits().memory_bytes, 16384);
}

Test(cgroup, broken_or_missing_files_set_no_limit)
{
    cr_assert_eq(limits().memory_bytes, UINT64_MAX);
    put("mountinfo", "\n- \nx - cgroup2\n33 25 0:29 / @/two rw - cgroup2 none rw\n");
    put("cgroup", "\nnonsense\n0:\n0::/deep/er\n");
    put("two/deep/memory.max", "12x\n");
    put("two/deep/cpu.max", "100000\n");
    put("two/memory.max", "\n");
    put("two/cpu.max", "5 0\n");
    struct cgroup_limits found = limits();
    cr_assert_eq(found.memory_bytes, UINT64_MAX);
    cr_assert_eq(found.cpu_quota, 0);
}
