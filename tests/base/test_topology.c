#define _GNU_SOURCE

/*
 * The machine's facts. Cores are tested on machines that hwloc makes up from a line of text;
 * limits on trees of files that look like those of the kernel.
 */

#include "base/topology.h"

#include "base/cgroup.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct topology read_near(const char *near)
{
    struct topology topology;
    strata_error error = {0};
    cr_assert_eq(strata_topology_read(&topology, near, &error), STRATA_OK, "%s", error.message);
    return topology;
}

static struct topology read_here(void)
{
    return read_near(NULL);
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

Test(topology, second_pus_come_after_the_first_of_all_cores)
{
    struct topology topology = read_made_up("package:2 numa:1 core:4 pu:2");
    cr_assert_eq(topology.core_count, 8);
    cr_assert_eq(topology.numa_count, 2);
    cr_assert_eq(topology.pu_count, 16);
    for (uint32_t i = 0; i < 8; i++) {
        cr_assert_eq(topology.pu[i], 2 * i);
        cr_assert_eq(topology.pu[8 + i], 2 * i + 1);
    }
}

/* As most firmware numbers them: PU i and PU 8 + i are one core's. */
Test(topology, cores_are_told_by_their_place_and_not_by_their_number)
{
    struct topology topology = read_made_up(
        "package:2 numa:1 core:4 pu:2(indexes=0,8,1,9,2,10,3,11,4,12,5,13,6,14,7,15)");
    cr_assert_eq(topology.core_count, 8);
    for (uint32_t i = 0; i < 16; i++)
        cr_assert_eq(topology.pu[i], i);
}

/* The mask is this thread's own, on a machine whose PUs 0 and 1 are what the text says. */
static struct topology read_masked(const char *machine)
{
    cpu_set_t mask;
    CPU_ZERO(&mask);
    CPU_SET(0, &mask);
    CPU_SET(1, &mask);
    if (sched_setaffinity(0, sizeof mask, &mask) != 0 ||
        sched_getaffinity(0, sizeof mask, &mask) != 0 || CPU_COUNT(&mask) != 2)
        cr_skip_test("CPUs 0 and 1 may not be used");
    cr_assert_eq(setenv("HWLOC_THISSYSTEM", "1", 1), 0);
    return read_made_up(machine);
}

Test(topology, two_pus_of_one_core_in_the_mask_are_one_core)
{
    struct topology topology = read_masked("package:2 numa:1 core:4 pu:2");
    cr_assert_eq(topology.core_count, 1);
    cr_assert_eq(topology.pu_count, 2);
    cr_assert_eq(topology.numa_count, 1);
    cr_assert_eq(topology.pu[1], 1);
}

Test(topology, one_pu_of_each_socket_in_the_mask_is_two_cores_on_two_nodes)
{
    struct topology topology =
        read_masked("package:2 numa:1 core:2 pu:2(indexes=2,0,3,4,5,1,6,7)");
    cr_assert_eq(topology.core_count, 2);
    cr_assert_eq(topology.pu_count, 2);
    cr_assert_eq(topology.numa_count, 2);
    cr_assert_eq(topology.pu[0], 0);
    cr_assert_eq(topology.pu[1], 1);
}

/* A file as hwloc writes it: two cores of two PUs and one of one, as in hybrid processors. */
Test(topology, cores_of_two_kinds_come_from_a_file)
{
    static const char machine[] =
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
        "<!DOCTYPE topology SYSTEM \"hwloc2.dtd\">\n"
        "<topology version=\"2.0\">\n"
        "<object type=\"Machine\" os_index=\"0\" cpuset=\"0x1f\" complete_cpuset=\"0x1f\""
        " allowed_cpuset=\"0x1f\" nodeset=\"0x1\" complete_nodeset=\"0x1\""
        " allowed_nodeset=\"0x1\" gp_index=\"1\">\n"
        "<object type=\"NUMANode\" os_index=\"0\" cpuset=\"0x1f\" complete_cpuset=\"0x1f\""
        " nodeset=\"0x1\" complete_nodeset=\"0x1\" gp_index=\"2\""
        " local_memory=\"1073741824\"/>\n"
        "%s</object>\n</topology>\n";
    static const uint32_t sets[] = {0x3, 0x1, 0x2, 0xc, 0x4, 0x8, 0x10, 0x10};
    static const bool is_core[] = {true, false, false, true, false, false, true, false};
    char objects[4096] = "";
    for (uint32_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        char *end = objects + strlen(objects);
        bool last = i == 7 || is_core[i + 1];
        int pu = __builtin_ctz(sets[i]);
        snprintf(end, sizeof objects - (size_t)(end - objects),
                 "<object type=\"%s\" os_index=\"%d\" cpuset=\"0x%x\" complete_cpuset=\"0x%x\""
                 " nodeset=\"0x1\" complete_nodeset=\"0x1\" gp_index=\"%u\"%s>%s\n",
                 is_core[i] ? "Core" : "PU", pu, sets[i], sets[i], i + 3, is_core[i] ? "" : "/",
                 last && !is_core[i] ? "</object>" : "");
    }
    char path[] = "/tmp/strata-machine-XXXXXX";
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    FILE *file = fdopen(fd, "w");
    fprintf(file, machine, objects);
    fclose(file);
    cr_assert_eq(setenv("HWLOC_XMLFILE", path, 1), 0);
    struct topology topology = read_here();
    unlink(path);
    static const uint32_t pus[] = {0, 2, 4, 1, 3};
    cr_assert_eq(topology.core_count, 3);
    cr_assert_eq(topology.pu_count, 5);
    cr_assert_arr_eq(topology.pu, pus, sizeof pus);
}

/* Package 1 of two: PUs 8 to 15, two of each core. */
Test(topology, near_a_device_only_its_nodes_cores_count)
{
    cr_assert_eq(setenv("HWLOC_SYNTHETIC", "package:2 numa:1 core:4 pu:2", 1), 0);
    struct topology topology = read_near("8-15");
    cr_assert_eq(topology.core_count, 4);
    cr_assert_eq(topology.pu_count, 8);
    cr_assert_eq(topology.numa_count, 1);
    for (uint32_t i = 0; i < 4; i++)
        cr_assert_eq(topology.pu[i], 8 + 2 * i);
    /* The mask has none of them: what is far is better than nothing. */
    cr_assert_eq(read_near("100-107").core_count, 8);
}

/* Whatever PCI device this machine has: its CPUs are a list that is understood. */
Test(topology, a_pci_devices_cpus_are_a_list)
{
    char near[256] = "x";
    strata_topology_near_pci("FFFF:00:00.0", near, sizeof near);
    cr_assert_str_eq(near, "");
    DIR *devices = opendir("/sys/bus/pci/devices");
    struct dirent *entry = NULL;
    while (devices != NULL && (entry = readdir(devices)) != NULL && entry->d_name[0] == '.')
        ;
    if (entry == NULL)
        cr_skip_test("this machine shows no PCI devices");
    strata_topology_near_pci(entry->d_name, near, sizeof near);
    cr_expect_gt(read_near(near).core_count, 0);
    cr_expect_null(strchr(near, '\n'));
    /* No room for the end of the line: no list, rather than a part of it. */
    char few[2] = "x";
    strata_topology_near_pci(entry->d_name, few, 1);
    cr_expect_str_eq(few, "");
    closedir(devices);
}

Test(topology, a_list_of_cpus_that_is_none_is_refused)
{
    struct topology topology;
    strata_error error = {0};
    cr_assert_eq(strata_topology_read(&topology, "node 1", &error), STRATA_E_INVALID);
    cr_assert(strstr(error.message, "node 1 is no list of CPUs"), "%s", error.message);
}

Test(topology, threads_are_one_per_core_within_the_quota_and_never_none)
{
    static const struct {
        double quota;
        uint32_t threads;
    } cases[] = {{0, 8}, {0.2, 1}, {1, 1}, {1.5, 1}, {3.5, 3}, {8, 8}, {64, 8}};
    struct topology topology = read_made_up("package:2 numa:1 core:4 pu:2");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        topology.cpu_quota = cases[i].quota;
        cr_assert_eq(strata_topology_threads(&topology), cases[i].threads);
    }
}

Test(topology, a_machine_larger_than_the_table_is_cut)
{
    struct topology topology = read_made_up("numa:8 core:256 pu:2");
    cr_assert_eq(topology.core_count, STRATA_MAX_PUS);
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

static void put_in(const char *group, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", group, name);
    if (text != NULL)
        put(path, text);
}

/* A group of version 2: what it may have, what it has, its cores. NULL: no such file. */
static void put_group(const char *group, const char *memory, const char *used, const char *cpu)
{
    put_in(group, "memory.max", memory);
    put_in(group, "memory.current", used);
    put_in(group, "cpu.max", cpu);
}

/* The same of version 1, whose controllers have a tree each. */
static void put_memory_group(const char *group, const char *memory, const char *used)
{
    put_in(group, "memory.limit_in_bytes", memory);
    put_in(group, "memory.usage_in_bytes", used);
}

static void put_cpu_group(const char *group, const char *quota, const char *period)
{
    put_in(group, "cpu.cfs_quota_us", quota);
    put_in(group, "cpu.cfs_period_us", period);
}

static struct cgroup_limits limits(void)
{
    struct cgroup_limits out;
    strata_cgroup_read(tree, &out);
    return out;
}

static void expect_limits(uint64_t memory_bytes, uint64_t used_bytes, double cpu_quota)
{
    struct cgroup_limits found = limits();
    cr_expect_eq(found.memory_bytes, memory_bytes);
    cr_expect_eq(found.memory_used_bytes, used_bytes);
    cr_expect_eq(found.cpu_quota, cpu_quota);
}

TestSuite(cgroup, .init = tree_make, .fini = tree_remove);

Test(cgroup, version_2_takes_the_tightest_on_the_way_up)
{
    put("mountinfo", "22 20 0:20 / /proc rw - proc proc rw\n"
                     "36 25 0:31 / @/fs rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n");
    put("cgroup", "0::/a/b/c\n");
    put_group("fs/a/b/c", "max\n", NULL, "max 100000\n");
    put_group("fs/a/b", "1073741824\n", "1000\n", "350000 100000\n");
    put_group("fs/a", "2147483648\n", "5000\n", "800000 200000\n");
    expect_limits(1073741824, 1000, 3.5);
}

/* What the kernel takes back by itself is not in use. */
Test(cgroup, page_cache_is_not_in_use)
{
    put("mountinfo", "36 25 0:31 / @/fs rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
                     "31 25 0:27 / @/one rw - cgroup cgroup rw,memory\n");
    put("cgroup", "0::/a\n4:memory:/b\n");
    put_group("fs/a", "100000\n", "90000\n", NULL);
    put("fs/a/memory.stat", "anon 1000\nfile 85000\ninactive_file 50000\nactive_file 30000\n"
                            "inactive_anon 700\n");
    cr_assert_eq(limits().memory_used_bytes, 10000);
    put_memory_group("one/b", "90000\n", "80000\n");
    put("one/b/memory.stat", "inactive_file 1\ntotal_inactive_file 20000\n"
                             "total_active_file 3000\n");
    expect_limits(90000, 57000, 0);
}

/* More cache than is charged, and more charged than is granted, leave no negative numbers. */
Test(cgroup, a_group_over_its_limit_has_nothing_left)
{
    put("mountinfo", "36 25 0:31 / @/fs rw - cgroup2 cgroup2 rw\n");
    put("cgroup", "0::/a\n");
    put_group("fs/a", "1000\n", "5000\n", NULL);
    put("fs/a/memory.stat", "inactive_file 9000\n");
    cr_assert_eq(limits().memory_used_bytes, 0);
    put("fs/a/memory.stat", "inactive_file 100\n");
    cr_assert_eq(limits().memory_used_bytes, 4900);
    cr_assert_eq(limits().memory_bytes, 1000);
}

/* The largest limit may be the tightest: others use the group higher up as well. */
Test(cgroup, the_tightest_group_is_the_one_with_the_least_left)
{
    put("mountinfo", "36 25 0:31 / @/fs rw - cgroup2 cgroup2 rw\n");
    put("cgroup", "0::/a/b\n");
    put_group("fs/a/b", "10000\n", "1000\n", NULL);
    put_group("fs/a", "50000\n", "49000\n", NULL);
    expect_limits(50000, 49000, 0);
}

Test(cgroup, version_1_has_a_tree_for_each_controller)
{
    put("mountinfo", "30 25 0:26 / @/fs/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
                     "31 25 0:27 / @/fs/memory rw - cgroup cgroup rw,memory\n"
                     "32 25 0:28 / @/fs/cpuset rw - cgroup cgroup rw,cpuset\n");
    put("cgroup", "5:cpuset:/s\n4:memory:/m/x\n3:cpu,cpuacct:/c\n1:name=systemd:/z\n");
    put("fs/cpuset/s/cpu.cfs_quota_us", "1\n"); /* of another controller: not ours to read */
    put_cpu_group("fs/cpu,cpuacct/c", "150000\n", "100000\n");
    put_memory_group("fs/memory/m/x", "9223372036854771712\n", "7\n");
    put_memory_group("fs/memory", "4096\n", "8\n");
    expect_limits(4096, 8, 1.5);
}

Test(cgroup, no_limit_has_three_spellings)
{
    put("mountinfo", "30 25 0:26 / @/cpu rw - cgroup cgroup rw,cpu\n"
                     "31 25 0:27 / @/memory rw - cgroup cgroup rw,memory\n"
                     "33 25 0:29 / @/two rw - cgroup2 none rw\n");
    put("cgroup", "4:memory:/\n3:cpu:/\n0::/\n");
    put_cpu_group("cpu", "-1\n", "100000\n");
    put_memory_group("memory", "9223372036854771712\n", NULL);
    put_group("two", "max\n", NULL, "max 100000\n");
    expect_limits(UINT64_MAX, 0, 0);
}

/* A container's mount shows its own part of the tree; what a process in this group may have. */
static uint64_t memory_in_container(const char *group)
{
    put("mountinfo", "31 25 0:27 /docker/1f2e @/memory ro - cgroup cgroup rw,memory\n");
    put("cgroup", group);
    put_memory_group("memory", "16384\n", NULL);
    return limits().memory_bytes;
}

Test(cgroup, a_container_sees_its_own_part_of_the_tree)
{
    put_memory_group("memory/inner", "8192\n", NULL);
    cr_assert_eq(memory_in_container("4:memory:/docker/1f2e/inner\n"), 8192);
}

Test(cgroup, a_name_that_does_not_fit_the_mount_falls_back_to_its_root)
{
    put_memory_group("memory/ff", "1\n", NULL);
    cr_assert_eq(memory_in_container("4:memory:/docker/1f2eff\n"), 16384);
}

Test(cgroup, broken_or_missing_files_set_no_limit)
{
    cr_assert_eq(limits().memory_bytes, UINT64_MAX);
    put("mountinfo", "\n- \nx - cgroup2\n33 25 0:29 / @/two rw - cgroup2 none rw\n");
    put("cgroup", "\nnonsense\n0:\n0::/deep/er\n");
    put_group("two/deep", "12x\n", NULL, "100000\n");
    put_group("two", "\n", NULL, "5 0\n");
    struct cgroup_limits found = limits();
    cr_assert_eq(found.memory_bytes, UINT64_MAX);
    cr_assert_eq(found.cpu_quota, 0);
}
