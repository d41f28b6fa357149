/* The CUDA operators' kernels on the CPU. The launchers get names of their own from
 * ops_emulated.h. */

#include "tests/train/ops_emulated.h"

#define PART_ROWS 16u

#include "train/ops_cuda.cu"
