#ifndef STRATA_OPTIM_KERNEL_H
#define STRATA_OPTIM_KERNEL_H

/*
 * KERNEL_INLINE declares a small function that CUDA's kernels call too, so one definition is
 * compiled for both.
 */

#ifdef __CUDACC__
#    define KERNEL_INLINE __host__ __device__ static inline
#else
#    define KERNEL_INLINE static inline
#endif

#endif
