/*
 * CPU features by the compiler's own words, which also ask whether the operating system saves
 * the wide registers; a CPU that has AVX-512 in a system that does not save it has not got it.
 *
 * Thread: any.
 */

#include "base/cpu.h"

#if defined(__x86_64__)

#    include <cpuid.h>

/* Not by the compiler's words: clang 14 has none for it. Its registers are AVX's. */
static bool has_f16c(void)
{
    unsigned int a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

bool strata_cpu_has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

bool strata_cpu_has_avx512(void)
{
    return strata_cpu_has_avx2() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw");
}

#else

bool strata_cpu_has_avx2(void)
{
    return false;
}

bool strata_cpu_has_avx512(void)
{
    return false;
}

#endif
