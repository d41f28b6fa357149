/*
 * CPU features, asked for by the compiler's builtins. They also ask whether the operating
 * system saves the wide registers; without that, AVX-512 counts as missing although the CPU
 * has it.
 *
 * Thread: any.
 */

#include "base/cpu.h"

#if defined(__x86_64__)

#    include <cpuid.h>
#    include <stdatomic.h>

/* Asked by cpuid: clang 14 has no builtin for F16C. It uses AVX's registers, so the AVX2
 * builtin has checked those. The answer is kept because cpuid takes some 10 us under a
 * hypervisor; threads that ask at the same time store the same answer. */
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
