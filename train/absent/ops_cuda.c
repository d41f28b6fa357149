/*
 * In place of the kernels and of products_cuda.c where there is no CUDA toolkit. Opening the
 * operators fails, so nobody gets to the others; ops_cuda.c and attention_cuda.c are there,
 * since a plan for a GPU can be made anywhere.
 *
 * Thread: none.
 */

#include "train/ops_cuda.h"

#include <stdlib.h>

#include "base/error.h"

strata_status strata_cuda_products_create(struct cuda_products **out, strata_error *error)
{
    *out = NULL;
    return strata_fail(error, STRATA_E_UNSUPPORTED, 0,
                       "cuda operators: this build has no CUDA");
}

void strata_cuda_products_destroy(struct cuda_products *products)
{
    (void)products;
}

/* What they would be launched with is of no interest. */
#pragma GCC diagnostic ignored "-Wunused-parameter"

struct cuda_refusal strata_cuda_product(struct cuda_products *products, void *stream,
                                        void *workspace, const struct cuda_product *product)
{
    abort();
}

#define NEVER(name, ...)                                                                       \
    int name(__VA_ARGS__)                                                                      \
    {                                                                                          \
        abort();                                                                               \
    }

NEVER(strata_cuda_norm, void *stream, const struct op_norm *args, strata_dtype dtype)
NEVER(strata_cuda_norm_grad, void *stream, const struct op_norm_grad *args, strata_dtype dtype,
      void *scratch)
NEVER(strata_cuda_bias, void *stream, const struct op_bias *args, strata_dtype dtype)
NEVER(strata_cuda_bias_grad, void *stream, const struct op_bias_grad *args, strata_dtype dtype,
      void *scratch)
NEVER(strata_cuda_rotary, void *stream, const struct op_rotary *args, strata_dtype dtype)
NEVER(strata_cuda_glu, void *stream, const struct op_glu *args, strata_dtype dtype)
NEVER(strata_cuda_glu_grad, void *stream, const struct op_glu_grad *args, strata_dtype dtype)
NEVER(strata_cuda_embed, void *stream, const struct op_embed *args, strata_dtype dtype)
NEVER(strata_cuda_embed_grad, void *stream, const struct op_embed_grad *args,
      strata_dtype dtype)
NEVER(strata_cuda_entropy_begin, void *stream, struct op_row_stat *stats, uint64_t rows)
NEVER(strata_cuda_entropy_scan, void *stream, const struct op_entropy *args, strata_dtype dtype)
NEVER(strata_cuda_entropy_grad, void *stream, const struct op_entropy *args, strata_dtype dtype)
NEVER(strata_cuda_entropy_loss, void *stream, const struct op_row_stat *stats, uint64_t rows,
      double *out)
NEVER(strata_cuda_softmax, void *stream, const struct cuda_scores *args)
NEVER(strata_cuda_softmax_grad, void *stream, const struct cuda_scores *args)
NEVER(strata_cuda_heads_to_rows, void *stream, const struct cuda_heads *args,
      strata_dtype dtype)
