/*
 * The sum of squares of one norm block, defined to the bit.
 *
 * Sixteen partial sums in double begin at 0. Element i is widened and squared, the square is
 * rounded to double and added to sum i mod 16, in order of i. At the end the sums are added, 0
 * to 15. The square of an fp32 is exact in double (48 bits of mantissa, exponents well inside
 * the range), so fusing square and addition makes no difference.
 *
 * Sixteen sums keep the widest vectors busy, as two registers of eight doubles; narrower ones
 * use four registers of four.
 *
 * Thread: any.
 */

#include "strata/adam.h"

#include "optim/half.h"
#include "optim/isa.h"

#include <math.h>

#define SUMS 16

/* Adds elements first to count - 1 to sums. */
static void norm_scalar(double sums[SUMS], const void *grad, strata_dtype dtype, size_t first,
                        size_t count)
{
    for (size_t i = first; i < count; i++) {
        double value = (double)half_load(grad, dtype, i);
        sums[i % SUMS] += value * value;
    }
}

#if defined(__x86_64__)

#    include "optim/simd_avx2.h"
#    include "optim/norm_template.h"
#    include "optim/simd_end.h"

#    include "optim/simd_avx512.h"
#    include "optim/norm_template.h"
#    include "optim/simd_end.h"

#else

/* Never called: strata_isa_usable() returns false. */
static size_t norm_avx2(double sums[SUMS], const void *grad, strata_dtype dtype, size_t count)
{
    norm_scalar(sums, grad, dtype, 0, count);
    return count;
}

#    define norm_avx512 norm_avx2

#endif

double strata_norm_block(strata_isa isa, const void *grad, strata_dtype dtype, size_t count)
{
    if (count > STRATA_BLOCK_ELEMS || !strata_isa_usable(isa) ||
        strata_dtype_bytes(dtype) == 0 || (grad == NULL && count > 0))
        return NAN;
    double sums[SUMS] = {0};
    size_t done = 0;
    isa = strata_isa_resolve(isa);
    if (isa == STRATA_ISA_AVX512)
        done = norm_avx512(sums, grad, dtype, count);
    else if (isa == STRATA_ISA_AVX2)
        done = norm_avx2(sums, grad, dtype, count);
    norm_scalar(sums, grad, dtype, done, count);
    double total = sums[0];
    for (uint32_t i = 1; i < SUMS; i++)
        total += sums[i];
    return total;
}
