#ifndef STRATA_TRAIN_OPS_CUDA_H
#define STRATA_TRAIN_OPS_CUDA_H

/*
 * What the CUDA operators are made of: kernels (ops_cuda.cu) and matrix products
 * (products_cuda.c), put together in ops_cuda.c. Both are launched on a cudaStream_t, given as
 * void *. A kernel's launch returns what it came to: 0 or a cudaError_t.
 *
 * Thread: the one that queues on the stream, with its device current.
 */

#include "train/ops.h"
#include "train/product_shape.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a product may use besides its arrays; the scratch of struct ops begins with it. As much
 * as cuBLAS takes by default for an H100. */
#define CUDA_WORKSPACE_BYTES (UINT64_C(32) << 20)

/* c = scale * op(a) op(b) + beta * c, batch times. a and b are of dtype; c and all sums are
 * fp32. */
struct cuda_product {
    const void *a;
    const void *b;
    float *c;
    strata_dtype dtype;
    struct product_shape shape;
    uint32_t batch;
    uint64_t a_batch; /* elements from one of the batch to the next */
    uint64_t b_batch;
    uint64_t c_batch;
    float scale;
    float beta;
};

struct cuda_products;

strata_status strata_cuda_products_create(struct cuda_products **out, strata_error *error);
void strata_cuda_products_destroy(struct cuda_products *products);
/* workspace: CUDA_WORKSPACE_BYTES of the device. Returns what cuBLAS said, as a name that
 * stays; NULL: the product is queued. */
const char *strata_cuda_product(struct cuda_products *products, void *stream, void *workspace,
                                const struct cuda_product *product);

/* Kernels. weight_dtype: of the weights among the arguments. */

int strata_cuda_narrow(void *stream, void *dst, strata_dtype dtype, const float *src,
                       uint64_t count);
int strata_cuda_norm(void *stream, const struct op_norm *args, strata_dtype weight_dtype);
/* scratch: strata_cuda_norm_grad_scratch(rows, width) bytes, aligned for doubles. */
int strata_cuda_norm_grad(void *stream, const struct op_norm_grad *args,
                          strata_dtype weight_dtype, void *scratch);
uint64_t strata_cuda_norm_grad_scratch(uint64_t rows, uint64_t width);
int strata_cuda_bias(void *stream, const struct op_bias *args, strata_dtype weight_dtype);
/* scratch: strata_cuda_bias_grad_scratch(rows, width) bytes, aligned for doubles. */
int strata_cuda_bias_grad(void *stream, const struct op_bias_grad *args, void *scratch);
uint64_t strata_cuda_bias_grad_scratch(uint64_t rows, uint64_t width);
int strata_cuda_rotary(void *stream, const struct op_rotary *args);
int strata_cuda_glu(void *stream, const struct op_glu *args);
int strata_cuda_glu_grad(void *stream, const struct op_glu_grad *args);
int strata_cuda_embed(void *stream, const struct op_embed *args, strata_dtype weight_dtype);
int strata_cuda_embed_grad(void *stream, const struct op_embed_grad *args);
int strata_cuda_entropy_begin(void *stream, struct op_row_stat *stats, uint64_t rows);
int strata_cuda_entropy_scan(void *stream, const struct op_entropy *args);
int strata_cuda_entropy_grad(void *stream, const struct op_entropy *args);
int strata_cuda_entropy_loss(void *stream, const struct op_row_stat *stats, uint64_t rows,
                             double *out);

/* Causal scores of `heads` heads: heads x rows x keys, whose row r sees first + r + 1 keys, or
 * the last `window` of those. */
struct cuda_scores {
    float *scores;   /* softmax: in place. Its gradient: the probabilities, only read */
    float *d_scores; /* gradient only: of the probabilities, then of the scores        */
    void *half;      /* NULL; or a copy of the result in dtype                         */
    strata_dtype dtype;
    uint64_t heads;
    uint64_t rows;
    uint64_t keys;
    uint64_t first;
    uint64_t window; /* 0: none */
    float scale;     /* gradient only */
};
int strata_cuda_softmax(void *stream, const struct cuda_scores *args);
int strata_cuda_softmax_grad(void *stream, const struct cuda_scores *args);

/* heads x seq x head_dim to seq x (heads x head_dim). */
int strata_cuda_heads_to_rows(void *stream, float *dst, const float *src, uint64_t heads,
                              uint64_t seq, uint64_t head_dim);

#ifdef __cplusplus
}
#endif

#endif
