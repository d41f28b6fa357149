/*
 * The CUDA operators on a GPU, by the tests of the host's. Their arrays are pinned host memory,
 * which kernels read and write where the host does; scratch is the device's own.
 */

#define OPS_TABLE strata_ops_cuda
#define ON_GPU    1

#include "tests/train/test_ops_cuda.c"
#include "tests/train/test_ops_twins.c"
