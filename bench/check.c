#define _GNU_SOURCE
/*
 * offload-bench check: what this machine and this container allow, and what to change.
 *
 * Each finding is OK, WARN (it works, but slower or with more risk than necessary) or FAIL
 * (offload-train would refuse, or should not be trusted), with the command that fixes it.
 *
 * Whatever can be tried is tried. A ring is set up by the bare system call, because only that
 * shows a seccomp filter. A file is written and read with O_DIRECT, because a file system may
 * accept the flag at open and refuse the transfer. The rest is read from /proc, /sys and the
 * environment.
 *
 * The test file is unlinked as soon as it is open, so nothing is left even if the program is
 * killed.
 *
 * Thread: one.
 */

#include "bench/commands.h"

#include "bench/kernel.h"
#include "bench/options.h"

#include <ctype.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "strata/adam.h"
#include "base/text.h"
#include "train/attention_cudnn.h"
#include "train/cudnn_library.h"

/* Two functions of OpenBLAS; only the operators include its header. */
extern char *openblas_get_corename(void);
extern char *openblas_get_config(void);

/* With less, the frames of a small run cannot be registered as buffers. */
#define LEAST_MEMLOCK (64ull << 20)
/* With less, code, stacks and a pool of frames leave too little memory to train. */
#define LEAST_MEMORY (1ull << 30)
/* The test file: one request of the smallest size that the store makes. */
#define TEST_BYTES (1u << 20)
/* Every buffer, offset and length of the store is a multiple of this. */
#define STORE_ALIGN 4096u

struct check {
    const char *store; /* NULL: not given */
    struct bench_output output;
};

/* The first bytes of a small file without its last newline; empty if it cannot be read. */
static const char *read_text(const char *path, char *buffer, size_t bytes)
{
    buffer[0] = '\0';
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return buffer;
    size_t got = fread(buffer, 1, bytes - 1, file);
    fclose(file);
    buffer[got] = '\0';
    while (got > 0 && buffer[got - 1] == '\n')
        buffer[--got] = '\0';
    return buffer;
}

static void check_kernel(const struct check *check, struct finding *out)
{
    (void)check;
    struct utsname name;
    if (uname(&name) != 0)
        strata_bench_find(out, FINDING_WARN, "uname -a", "unknown: uname: %s", strerror(errno));
    else
        strata_bench_judge_kernel(out, name.release, name.version);
}

/* A user may not raise this limit; Debian and Ubuntu set it to 8 MiB. */
#define RAISE_MEMLOCK                                                                          \
    "as root: ulimit -l unlimited; for a user: memlock in /etc/security/limits.conf; for a "   \
    "container: --ulimit memlock=-1"

static const char *uring_mend(int code, const char *disabled)
{
    if (code == EPERM && (disabled[0] == '1' || disabled[0] == '2'))
        return "sysctl -w kernel.io_uring_disabled=0, or train with --io threads";
    if (code == EPERM)
        return "start the container with --security-opt seccomp=unconfined or a profile that "
               "allows io_uring, or "
               "train with --io threads";
    if (code == ENOMEM)
        return RAISE_MEMLOCK;
    return "use a kernel with io_uring, or train with --io threads";
}

static void check_uring(const struct check *check, struct finding *out)
{
    (void)check;
    struct io_uring_params params = {0};
    char disabled[16];
    read_text("/proc/sys/kernel/io_uring_disabled", disabled, sizeof disabled);
    long ring = syscall(SYS_io_uring_setup, 4, &params);
    int code = errno;
    if (ring >= 0) {
        close((int)ring);
        strata_bench_find(out, FINDING_OK, "", "usable, features 0x%x", params.features);
        return;
    }
    strata_bench_find(out, FINDING_FAIL, uring_mend(code, disabled), "io_uring_setup: %s%s%s",
                      strerror(code),
                      disabled[0] != '\0' ? "; kernel.io_uring_disabled is " : "", disabled);
}

/* An open file in dir whose name is already removed; -1 with errno. */
static int open_test_file(const char *dir, int flags)
{
    char path[4096];
    int length = snprintf(path, sizeof path, "%s/.strata-check-%d", dir, (int)getpid());
    if (length >= (int)sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    int file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
    if (file >= 0)
        unlink(path);
    return file;
}

/* Write a pattern and read it back. NULL: it worked; else a text that says what failed. */
static const char *try_transfer(int file, uint8_t *buffer)
{
    for (uint32_t i = 0; i < TEST_BYTES; i++)
        buffer[i] = (uint8_t)(i * 2654435761u >> 24);
    ssize_t moved = pwrite(file, buffer, TEST_BYTES, 0);
    if (moved != TEST_BYTES)
        return moved < 0 ? strerror(errno) : "a short write";
    memset(buffer, 0, TEST_BYTES);
    moved = pread(file, buffer, TEST_BYTES, 0);
    if (moved != TEST_BYTES)
        return moved < 0 ? strerror(errno) : "a short read";
    for (uint32_t i = 0; i < TEST_BYTES; i++) {
        if (buffer[i] != (uint8_t)(i * 2654435761u >> 24))
            return "other bytes came back than were written";
    }
    return NULL;
}

/* The alignment that the file system reports; 0: it reports none. */
static uint32_t asked_alignment(int file)
{
#ifdef STATX_DIOALIGN
    struct statx facts = {0};
    if (statx(file, "", AT_EMPTY_PATH, STATX_DIOALIGN, &facts) == 0 &&
        (facts.stx_mask & STATX_DIOALIGN) != 0)
        return facts.stx_dio_offset_align > facts.stx_dio_mem_align ? facts.stx_dio_offset_align
                                                                    : facts.stx_dio_mem_align;
#else
    (void)file;
#endif
    return 0;
}

/* trouble: what failed, or NULL; code: its errno, or 0. */
static void judge_direct(struct finding *out, const char *dir, int file, const char *trouble,
                         int code)
{
    uint32_t alignment = asked_alignment(file);
    char says[48] = "alignment not told";
    if (alignment > 0)
        snprintf(says, sizeof says, "alignment %u", alignment);
    if (trouble != NULL)
        strata_bench_find(
            out, FINDING_FAIL,
            code == ENOSPC
                ? "free space there, or choose another directory"
                : "choose a directory on ext4 or xfs, or train with --allow buffered-io",
            "%.60s: write and read of 1 MiB: %s", dir, trouble);
    else if (alignment > STORE_ALIGN)
        strata_bench_find(out, FINDING_FAIL,
                          "choose another drive, or train with --allow buffered-io",
                          "%.60s: %s, the store has %u", dir, says, STORE_ALIGN);
    else
        strata_bench_find(out, FINDING_OK, "", "%.60s: 1 MiB written and read back; %s", dir,
                          says);
}

static void check_direct(const struct check *check, struct finding *out)
{
    if (check->store == NULL) {
        strata_bench_find(out, FINDING_WARN, "offload-bench check --store DIR",
                          "not tried: it depends on the directory");
        return;
    }
    int file = open_test_file(check->store, O_DIRECT);
    if (file < 0) {
        const char *mend =
            errno == EINVAL
                ? "choose a directory on ext4 or xfs, or train with --allow buffered-io"
                : "choose a directory that this user may write to";
        strata_bench_find(out, FINDING_FAIL, mend, "%.60s: opening a file with O_DIRECT: %s",
                          check->store, strerror(errno));
        return;
    }
    void *buffer = NULL;
    if (posix_memalign(&buffer, STORE_ALIGN, TEST_BYTES) != 0) {
        strata_bench_find(out, FINDING_FAIL, "end other programs",
                          "memory for a test of 1 MiB: none left");
    } else {
        errno = 0;
        const char *trouble = try_transfer(file, buffer);
        judge_direct(out, check->store, file, trouble, errno);
        free(buffer);
    }
    close(file);
}

/* statfs's numbers of the file systems that have a remark. */
static const struct {
    long type;
    const char *name;
    bool ram;
} file_systems[] = {
    {0xef53, "ext4", false},     {0x58465342, "xfs", false},  {0x9123683e, "btrfs", false},
    {0x01021994, "tmpfs", true}, {0x858458f6, "ramfs", true}, {0x794c7630, "overlayfs", false},
    {0x6969, "nfs", false},      {0x2fc12fc1, "zfs", false},  {0xf2f52010, "f2fs", false}};

static void check_space(const struct check *check, struct finding *out)
{
    struct statfs facts;
    struct statvfs space;
    if (check->store == NULL) {
        strata_bench_find(out, FINDING_WARN, "offload-bench check --store DIR",
                          "not looked at: it depends on the directory");
        return;
    }
    if (statfs(check->store, &facts) != 0 || statvfs(check->store, &space) != 0) {
        strata_bench_find(out, FINDING_FAIL, "choose a directory that this user may read",
                          "%.60s: statfs: %s", check->store, strerror(errno));
        return;
    }
    const char *name = "another file system";
    bool ram = false;
    for (size_t i = 0; i < sizeof file_systems / sizeof file_systems[0]; i++) {
        if (facts.f_type == file_systems[i].type) {
            name = file_systems[i].name;
            ram = file_systems[i].ram;
        }
    }
    char free_text[16];
    uint64_t free_bytes = (uint64_t)space.f_bavail * space.f_frsize;
    strata_format_size(free_bytes, free_text, sizeof free_text);
    if (free_bytes < TEST_BYTES)
        strata_bench_find(out, FINDING_FAIL, "free space there, or choose another directory",
                          "%.60s: %s, %s free", check->store, name, free_text);
    else if (ram)
        strata_bench_find(out, FINDING_WARN, "give --store a directory on a drive",
                          "%.60s is %s: its bytes are RAM, and counted twice", check->store,
                          name);
    else
        strata_bench_find(out, FINDING_OK, "", "%.60s: %s, %s free", check->store, name,
                          free_text);
}

static void check_memlock(const struct check *check, struct finding *out)
{
    (void)check;
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0) {
        strata_bench_find(out, FINDING_WARN, "ulimit -l", "unknown: getrlimit: %s",
                          strerror(errno));
        return;
    }
    char size[16];
    if (limit.rlim_cur == RLIM_INFINITY || geteuid() == 0)
        strata_bench_find(out, FINDING_OK, "", "%s",
                          geteuid() == 0 ? "no limit for root" : "no limit");
    else if (limit.rlim_cur < LEAST_MEMLOCK)
        strata_bench_find(out, FINDING_WARN, RAISE_MEMLOCK,
                          "%s: too little to register buffers",
                          strata_format_size(limit.rlim_cur, size, sizeof size));
    else
        strata_bench_find(out, FINDING_OK, "", "%s",
                          strata_format_size(limit.rlim_cur, size, sizeof size));
}

static void check_huge_pages(const struct check *check, struct finding *out)
{
    (void)check;
    char text[64];
    read_text("/sys/kernel/mm/transparent_hugepage/enabled", text, sizeof text);
    if (text[0] == '\0' || strstr(text, "[never]") != NULL)
        strata_bench_find(out, FINDING_WARN,
                          "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
                          "%s: I/O costs about five times the CPU without them",
                          text[0] == '\0' ? "not in this kernel" : text);
    else
        strata_bench_find(out, FINDING_OK, "", "%s", text);
}

/* The path of a controller's group in /proc/self/cgroup; v2: controller is "". */
static bool own_cgroup(const char *controller, char *out, size_t bytes)
{
    char line[4096];
    bool found = false;
    FILE *file = fopen("/proc/self/cgroup", "re");
    if (file == NULL)
        return false;
    while (!found && fgets(line, sizeof line, file) != NULL) {
        char *names = strchr(line, ':');
        char *path = names != NULL ? strchr(names + 1, ':') : NULL;
        if (path == NULL)
            continue;
        *path++ = '\0';
        names++;
        path[strcspn(path, "\n")] = '\0';
        for (char *name = strsep(&names, ","); name != NULL && !found;
             name = strsep(&names, ","))
            found = strcmp(name, controller) == 0;
        if (found)
            snprintf(out, bytes, "%s", path);
    }
    fclose(file);
    return found;
}

/*
 * Call read for a file of our group and of every group above it that is mounted: the limits of
 * all of them hold. In a container the path may be the host's, where nothing is mounted; then
 * the root is the container's own group.
 */
static void each_cgroup(const char *controller, const char *root, const char *file,
                        void (*read)(const char *text, void *user), void *user)
{
    char path[4096];
    if (!own_cgroup(controller, path, sizeof path))
        return;
    for (;;) {
        char name[8300];
        char text[64];
        snprintf(name, sizeof name, "%s%s/%s", root, strcmp(path, "/") == 0 ? "" : path, file);
        read_text(name, text, sizeof text);
        if (text[0] != '\0')
            read(text, user);
        char *slash = strrchr(path, '/');
        if (slash == NULL || path[0] == '\0' || strcmp(path, "/") == 0)
            return;
        slash[slash == path ? 1 : 0] = '\0';
    }
}

static void read_memory_limit(const char *text, void *user)
{
    uint64_t *least = user;
    if (!isdigit((unsigned char)text[0]))
        return;
    uint64_t limit = strtoull(text, NULL, 10);
    *least = limit < *least ? limit : *least;
}

/* "quota period" in microseconds, or "max period". */
static void read_cpu_limit(const char *text, void *user)
{
    double *least = user;
    double quota = 0;
    double period = 0;
    if (sscanf(text, "%lf %lf", &quota, &period) == 2 && quota > 0 && period > 0 &&
        quota / period < *least)
        *least = quota / period;
}

/* v1 has quota and period in two files; the period is almost always the default, 100 ms. */
static void read_cpu_limit_v1(const char *text, void *user)
{
    double *least = user;
    double quota = strtod(text, NULL);
    if (quota > 0 && quota / 100000.0 < *least)
        *least = quota / 100000.0;
}

static uint64_t available_memory(void)
{
    char line[128];
    unsigned long long kib = 0;
    FILE *file = fopen("/proc/meminfo", "re");
    if (file == NULL)
        return 0;
    while (fgets(line, sizeof line, file) != NULL &&
           sscanf(line, "MemAvailable: %llu", &kib) != 1)
        continue;
    fclose(file);
    return (uint64_t)kib << 10;
}

static void check_memory(const struct check *check, struct finding *out)
{
    (void)check;
    /* v1 writes "no limit" as the largest multiple of a page below 2^63. */
    uint64_t limit = 1ull << 62;
    each_cgroup("", "/sys/fs/cgroup", "memory.max", read_memory_limit, &limit);
    each_cgroup("memory", "/sys/fs/cgroup/memory", "memory.limit_in_bytes", read_memory_limit,
                &limit);
    uint64_t available = available_memory();
    char limit_text[16] = "none";
    char available_text[16];
    if (limit < 1ull << 62)
        strata_format_size(limit, limit_text, sizeof limit_text);
    strata_format_size(available, available_text, sizeof available_text);
    if (limit < LEAST_MEMORY || available < LEAST_MEMORY)
        strata_bench_find(out, FINDING_WARN,
                          "end other programs, or start the container with a larger --memory",
                          "%s available, cgroup limit %s: enough for toy models only",
                          available_text, limit_text);
    else
        strata_bench_find(out, FINDING_OK, "", "%s available, cgroup limit %s", available_text,
                          limit_text);
}

static void check_cores(const struct check *check, struct finding *out)
{
    (void)check;
    cpu_set_t set;
    CPU_ZERO(&set);
    int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
    double quota = 1e9;
    each_cgroup("", "/sys/fs/cgroup", "cpu.max", read_cpu_limit, &quota);
    each_cgroup("cpu", "/sys/fs/cgroup/cpu", "cpu.cfs_quota_us", read_cpu_limit_v1, &quota);
    long present = sysconf(_SC_NPROCESSORS_ONLN);
    if (quota < cores)
        strata_bench_find(out, FINDING_WARN, "start the container with a larger --cpus",
                          "%d of %ld CPUs allowed, but a cgroup quota of %.2g", cores, present,
                          quota);
    else if (cores < present)
        strata_bench_find(out, FINDING_WARN,
                          "taskset or the container's --cpuset-cpus widens it",
                          "%d of %ld CPUs allowed", cores, present);
    else
        strata_bench_find(out, FINDING_OK, "", "%d CPUs, no quota below that", cores);
}

/* The vector instructions of a CPU or of an OpenBLAS core type, in rising order. */
enum cpu_class { CLASS_OTHER, CLASS_SSE, CLASS_AVX, CLASS_AVX2, CLASS_AVX512 };

static enum cpu_class own_class(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        return CLASS_AVX512;
    if (__builtin_cpu_supports("avx2"))
        return CLASS_AVX2;
    return __builtin_cpu_supports("avx") ? CLASS_AVX : CLASS_SSE;
#else
    return CLASS_OTHER;
#endif
}

static bool has_bf16(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx512bf16");
#else
    return false;
#endif
}

static void check_cpu(const struct check *check, struct finding *out)
{
    (void)check;
    bool avx2 = strata_isa_usable(STRATA_ISA_AVX2);
    bool avx512 = strata_isa_usable(STRATA_ISA_AVX512);
    if (own_class() >= CLASS_AVX2 && (avx2 || avx512))
        strata_bench_find(out, FINDING_OK, "", "AVX2%s%s; the optimizer uses %s",
                          own_class() >= CLASS_AVX512 ? ", AVX-512" : "",
                          has_bf16() ? ", bf16" : "", avx512 ? "AVX-512" : "AVX2");
    else
        strata_bench_find(out, FINDING_WARN, "use a CPU with AVX2",
                          "no AVX2: the optimizer runs its scalar code");
}

static enum cpu_class core_type_class(const char *name)
{
    static const struct {
        const char *name;
        enum cpu_class class;
    } cores[] = {{"sandybridge", CLASS_AVX},   {"bulldozer", CLASS_AVX},
                 {"piledriver", CLASS_AVX},    {"steamroller", CLASS_AVX},
                 {"haswell", CLASS_AVX2},      {"excavator", CLASS_AVX2},
                 {"zen", CLASS_AVX2},          {"skylakex", CLASS_AVX512},
                 {"cooperlake", CLASS_AVX512}, {"sapphirerapids", CLASS_AVX512}};
    for (size_t i = 0; i < sizeof cores / sizeof cores[0]; i++) {
        if (strcasecmp(name, cores[i].name) == 0)
            return cores[i].class;
    }
    return CLASS_SSE;
}

static void check_openblas(const struct check *check, struct finding *out)
{
    (void)check;
    const char *core = openblas_get_corename();
    const char *forced = getenv("OPENBLAS_CORETYPE");
    char version[24] = "";
    sscanf(openblas_get_config(), "OpenBLAS %23s", version);
    if (own_class() == CLASS_OTHER || core_type_class(core) >= own_class())
        strata_bench_find(out, FINDING_OK, "", "%s, core type %s", version, core);
    else if (forced != NULL && *forced != '\0')
        strata_bench_find(
            out, FINDING_WARN, "unset OPENBLAS_CORETYPE",
            "core type %s, forced by OPENBLAS_CORETYPE=%.30s: less than this CPU has", core,
            forced);
    else if (own_class() == CLASS_AVX512 && strcasecmp(core, "zen") == 0)
        strata_bench_find(out, FINDING_OK, "", "%s, core type %s", version, core);
    else
        strata_bench_find(out, FINDING_WARN,
                          "install a newer OpenBLAS, or set OPENBLAS_CORETYPE",
                          "%s, core type %s: less than this CPU has", version, core);
}

static void check_numa(const struct check *check, struct finding *out)
{
    (void)check;
    char nodes[64];
    read_text("/sys/devices/system/node/online", nodes, sizeof nodes);
    if (strpbrk(nodes, "-,") != NULL)
        strata_bench_find(out, FINDING_WARN,
                          "numactl --cpunodebind=0 --membind=0 offload-train ...",
                          "nodes %s: a run that spans them pays for remote memory", nodes);
    else
        strata_bench_find(out, FINDING_OK, "", "%s",
                          nodes[0] != '\0' ? "one node" : "not in this kernel");
}

static void check_gpu(const struct check *check, struct finding *out)
{
    (void)check;
    bool node = access("/dev/nvidia0", F_OK) == 0;
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (driver != NULL)
        dlclose(driver);
    if (node && driver == NULL)
        strata_bench_find(out, FINDING_WARN,
                          "install the NVIDIA driver, or start the container with --gpus all",
                          "/dev/nvidia0 is there, libcuda.so.1 is not");
    else if (node)
        strata_bench_find(out, FINDING_OK, "", "NVIDIA GPU and driver found");
    else
        strata_bench_find(out, FINDING_OK, "", "none; training runs on the host device");
}

/* Checks this build, and the library that the loader finds. Without cuDNN only a machine with
 * a GPU lacks anything. */
static void check_cudnn(const struct check *check, struct finding *out)
{
    (void)check;
    struct cudnn_library library;
    strata_error error = {0};
    char found[sizeof error.message];
    const char *absent = strata_attention_cudnn_absent();
    bool whole = absent == NULL;
    if (strata_cudnn_open(&library, NULL, &error) == STRATA_OK) {
        snprintf(found, sizeof found, "libcudnn %s", library.version_text);
        strata_cudnn_close(&library);
    } else {
        whole = false;
        snprintf(found, sizeof found, "%s", error.message);
        char *remedy = strstr(found, ": get cuDNN");
        if (remedy != NULL)
            *remedy = '\0';
    }
    bool missed = !whole && access("/dev/nvidia0", F_OK) == 0;
    strata_bench_find(out, missed ? FINDING_WARN : FINDING_OK,
                      missed ? "tools/get_cudnn.sh, then build again; until then attention on "
                               "the GPU is several times slower"
                             : "",
                      "%s; %s%s", found, absent != NULL ? "not built in: " : "built in",
                      absent != NULL ? absent : "");
}

static const struct {
    const char *name;
    void (*run)(const struct check *check, struct finding *out);
} checks[] = {
    {"kernel", check_kernel},     {"io_uring", check_uring},  {"direct-io", check_direct},
    {"store", check_space},       {"memlock", check_memlock}, {"huge-pages", check_huge_pages},
    {"memory", check_memory},     {"cores", check_cores},     {"cpu", check_cpu},
    {"openblas", check_openblas}, {"numa", check_numa},       {"gpu", check_gpu},
    {"cudnn", check_cudnn},
};

enum { CHECK_COUNT = sizeof checks / sizeof checks[0] };

#define FIELD(member) offsetof(struct check, member)

static const struct option_row rows[] = {
    VALUE("store", OPTION_TEXT, "DIR", store,
          "try direct I/O there, with a file of 1 MiB that is removed at once"),
    OUTPUT_ROWS,
};

static const struct command_line line = COMMAND_LINE("check", NULL);

/* If the store's directory does not exist, nothing can be tried: this is an error, not a
 * finding. */
static enum bench_exit check_store_directory(const struct check *check)
{
    struct stat facts;
    if (check->store == NULL)
        return BENCH_DONE;
    int code = stat(check->store, &facts) != 0 ? errno : S_ISDIR(facts.st_mode) ? 0 : ENOTDIR;
    if (code == 0)
        return BENCH_DONE;
    fprintf(stderr, "offload-bench check: store %.150s: %s: give a directory that exists\n",
            check->store, strerror(code));
    return code == ENOENT || code == ENOTDIR ? BENCH_ABSENT : BENCH_FAILED;
}

enum bench_exit strata_bench_check(int argc, char **argv)
{
    struct check check = {0};
    enum bench_exit result;
    if (!strata_bench_options(&result, &line, &check, argc, argv))
        return result;
    result = check_store_directory(&check);
    if (result != BENCH_DONE)
        return result;
    struct finding findings[CHECK_COUNT];
    for (int i = 0; i < CHECK_COUNT; i++) {
        findings[i] = (struct finding){.name = checks[i].name};
        checks[i].run(&check, &findings[i]);
    }
    return strata_bench_report(&check.output, "check", findings, CHECK_COUNT);
}
