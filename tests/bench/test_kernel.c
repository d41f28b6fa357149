/*
 * Kernels are judged by their version, whichever of uname's two strings has it.
 */

#include "bench/kernel.h"

#include <criterion/criterion.h>
#include <string.h>

static const char plain[] = "#1 SMP PREEMPT_DYNAMIC";

static struct finding judge(const char *release, const char *version)
{
    struct finding finding = {.name = "kernel"};
    strata_bench_judge_kernel(&finding, release, version);
    return finding;
}

Test(bench_kernel, kernels_whose_direct_io_damages_files_fail)
{
    static const char *const releases[] = {"6.1.64", "6.1.65", "6.1.64-custom", "6.1.65+"};
    for (size_t i = 0; i < sizeof releases / sizeof *releases; i++) {
        struct finding finding = judge(releases[i], plain);
        cr_expect(finding.level == FINDING_FAIL, "%s", releases[i]);
        cr_expect_not_null(strstr(finding.what, "direct I/O on ext4 damages files"));
        cr_expect_neq(finding.mend[0], '\0');
    }
}

Test(bench_kernel, their_neighbours_do_not)
{
    static const char *const releases[] = {"6.1.63",  "6.1.66", "6.1.6",  "6.1.640",
                                           "5.10.64", "6.6.65", "7.1.64", "6.10.64"};
    for (size_t i = 0; i < sizeof releases / sizeof *releases; i++)
        cr_expect(judge(releases[i], plain).level == FINDING_OK, "%s", releases[i]);
}

Test(bench_kernel, debian_has_the_patch_level_in_the_version_not_in_the_release)
{
    static const char release[] = "6.1.0-14-amd64";
    cr_expect(judge(release, "#1 SMP Debian 6.1.64-1 (2023-11-30)").level == FINDING_FAIL);
    cr_expect(judge(release, "#1 SMP Debian 6.1.55-1 (2023-09-29)").level == FINDING_OK);
    cr_expect(judge("6.1.0-15-amd64", "#1 SMP Debian 6.1.66-1 (2023-12-09)").level ==
              FINDING_OK);
}

Test(bench_kernel, a_kernel_with_a_young_io_uring_is_warned_of)
{
    cr_expect(judge("5.9.16", plain).level == FINDING_WARN);
    cr_expect(judge("4.19.0-25-amd64", plain).level == FINDING_WARN);
    cr_expect(judge("unknown", plain).level == FINDING_WARN, "no version at all");
    cr_expect(judge("5.10.0", plain).level == FINDING_OK);
}
