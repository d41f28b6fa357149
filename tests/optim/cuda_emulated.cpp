/* The optimizer's CUDA kernels on the CPU, under names of their own. */

#define strata_cuda_optim_load  emulated_cuda_optim_load
#define strata_cuda_adam        emulated_cuda_adam
#define strata_cuda_norm_blocks emulated_cuda_norm_blocks
#define strata_cuda_rebuild     emulated_cuda_rebuild
#define strata_cuda_convert     emulated_cuda_convert

#include "optim/cuda.cu"

extern "C" unsigned emulated_cuda_launches(void);
unsigned emulated_cuda_launches(void)
{
    return emulator::launches;
}
