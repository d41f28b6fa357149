/* The CUDA operators' kernels on the CPU. The launchers get names of their own from
 * ops_emulated.h. */

#include "tests/train/ops_emulated.h"

#include "train/norm_cuda.cu"
#include "train/ops_cuda.cu"
#include "train/softmax_cuda.cu"
#include "train/vocab_cuda.cu"

extern "C" uint32_t strata_emulated_kernel_count(void)
{
    return emulator::launches;
}
