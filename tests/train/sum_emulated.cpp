/* The sum of a key head's gradients on the CPU, under a name of its own. */

#define strata_cuda_attention_sum emulated_cuda_attention_sum

#include "train/attention_sum.cu"
