/*
 * CPU features by the compiler's own words, which also ask whether the operating system saves
 * the wide registers; a CPU that has AVX-512 in a system that does not save it has not got it.
 *
 * Thread: any.
 */

#include "base/cpu.h"

#if defined(__x86_64__)

#    include <cpuid.h>
#    include <stdatomic.h>

/* Not by the compiler's words: clang 14 has none for it. Its registers are AVX's. The answer is
 * kept, because asking costs some 10 us where a hypervisor gives it; whoever comes first finds
 * the same one. */
static bool has_f16c(void)
{
    enum { UNKNOWN, NO, YES };
    static atomic_int known = UNKNOWN;
    int answer = atomic_load_explicit(&known, memory_order_relaxed);
    if (answer == UNKNOWN) {
        unsigned int a, b, c, d;
        bool has = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
        answer = has ? YES : NO;
        atomic_store_explicit(&known, answer, memory_order_relaxed);
    }
    return answer == YES;
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
