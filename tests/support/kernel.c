#define _GNU_SOURCE
/*
 * Asking the kernel, and taking away. See kernel.h.
 *
 * The filter is four instructions, so it needs no library. It looks at the number of the call
 * only: a program for another instruction set, where the number means something else, is not
 * what is started here.
 *
 * Thread: any.
 */

#include "tests/support/kernel.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

bool strata_io_uring_permitted(void)
{
    struct io_uring_params params;
    memset(&params, 0, sizeof params);
    long fd = syscall(SYS_io_uring_setup, 1, &params);
    if (fd < 0)
        return errno != EPERM && errno != EACCES && errno != ENOSYS;
    close((int)fd);
    return true;
}

strata_io_backend strata_backend_here(strata_io_backend wanted)
{
    const char *strict = getenv("STRATA_TEST_FAIL_ON_SKIP");
    bool replace = strict == NULL || strcmp(strict, "1") != 0;
    if (wanted != STRATA_IO_URING || !replace || strata_io_uring_permitted())
        return wanted;
    fprintf(stderr, "no io_uring is to be had here: this test uses threads\n");
    return STRATA_IO_THREADS;
}

const struct io_ops *strata_io_ops_here(strata_io_backend wanted)
{
    return strata_backend_here(wanted) == STRATA_IO_THREADS ? &strata_io_threads
                                                            : &strata_io_uring;
}

int strata_forbid_io_uring(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        return errno;
    return 0;
}
