#ifndef STRATA_BASE_CPU_H
#define STRATA_BASE_CPU_H

/*
 * What this CPU can do beyond the instructions that the compiler assumes. On anything but x86
 * the answers are no, and the scalar code runs.
 *
 * Thread: any.
 */

#include <stdbool.h>

bool strata_cpu_has_avx2(void);   /* with FMA and F16C             */
bool strata_cpu_has_avx512(void); /* F and BW, and the two of AVX2 */

#endif
