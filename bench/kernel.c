/*
 * Kernels that damage or endanger a store. See kernel.h.
 *
 * 6.1.64 and 6.1.65 have a change to ext4's direct writes without another change that it
 * needs, so a direct write may leave wrong bytes in the file (Debian bug 1057843).
 *
 * Thread: any.
 */

#include "bench/kernel.h"

#include <stdio.h>
#include <string.h>

void strata_bench_judge_kernel(struct finding *out, const char *release, const char *version)
{
    /* Debian's release, such as 6.1.0-15-amd64, does not show the patch level; its version
     * does. */
    const char *debian = strstr(version, "Debian ");
    unsigned major = 0;
    unsigned minor = 0;
    unsigned patch = 0;
    sscanf(debian != NULL ? debian + strlen("Debian ") : release, "%u.%u.%u", &major, &minor,
           &patch);
    if (major == 6 && minor == 1 && (patch == 64 || patch == 65))
        strata_bench_find(
            out, FINDING_FAIL, "apt-get update && apt-get dist-upgrade, then reboot",
            "%.60s is 6.1.%u: direct I/O on ext4 damages files (Debian bug 1057843)", release,
            patch);
    else if (major < 5 || (major == 5 && minor < 10))
        strata_bench_find(out, FINDING_WARN, "install a kernel of 5.10 or later",
                          "%.60s: io_uring was young before 5.10", release);
    else
        strata_bench_find(out, FINDING_OK, "", "%.60s", release);
}
