/*
 * The choice between variants of the optimizer's kernels. All variants give the same bits, so
 * the choice affects only speed, and two machines of one run may choose differently.
 *
 * Thread: any.
 */

#include "optim/isa.h"

#include "base/cpu.h"
#include "base/error.h"

bool strata_isa_usable(strata_isa isa)
{
    switch (isa) {
    case STRATA_ISA_BEST:
    case STRATA_ISA_SCALAR:
        return true;
    case STRATA_ISA_AVX2:
        return strata_cpu_has_avx2();
    case STRATA_ISA_AVX512:
        return strata_cpu_has_avx512();
    }
    return false;
}

strata_isa strata_isa_resolve(strata_isa isa)
{
    STRATA_CHECK(strata_isa_usable(isa));
    if (isa != STRATA_ISA_BEST)
        return isa;
    if (strata_isa_usable(STRATA_ISA_AVX512))
        return STRATA_ISA_AVX512;
    return strata_isa_usable(STRATA_ISA_AVX2) ? STRATA_ISA_AVX2 : STRATA_ISA_SCALAR;
}
