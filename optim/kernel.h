#ifndef STRATA_OPTIM_KERNEL_H
#define STRATA_OPTIM_KERNEL_H

/*
 * KERNEL_INLINE: how a small function is declared that CUDA's kernels run as well. So what is
 * defined once is compiled for both.
 */

#ifdef __CUDACC__
#    define KERNEL_INLINE __host__ __device__ static inline
#else
#    define KERNEL_INLINE static inline
#endif

#endif
