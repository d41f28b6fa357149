#ifndef STRATA_TRAIN_OPS_CUDA_H
#define STRATA_TRAIN_OPS_CUDA_H

/*
 * What the CUDA operators are made of: kernels (norm_cuda.cu, ops_cuda.cu, vocab_cuda.cu,
 * softmax_cuda.cu) and matrix products (products_cuda.c), put together in ops_cuda.c and
 * attention_cuda.c. Both are launched on a cudaStream_t, given as void *. A kernel's launch
 * returns what it came to: 0 or a cudaError_t.
 *
 * Activations and weights are of one type here, and lie in memory in it.
 *
 * Thread: the one that queues on the stream, with its device current.
 */

#include "train/ops.h"
#include "train/product_shape.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a product may use besides its arrays: the scratch of struct ops. As much as cuBLAS takes
 * by default for an H100. The kernels that need scratch have it too. */
#define CUDA_WORKSPACE_BYTES (UINT64_C(32) << 20)

/* d = scale * op(a) op(b) + addend, batch times. a and b are of dtype; addend and d of d_dtype,
 * and lie alike; sums are fp32 and rounded once. */
struct cuda_product {
    const void *a;
    const void *b;
    const void *addend; /* NULL: none; or d */
    void *d;
    strata_dtype dtype;
    strata_dtype d_dtype;
    struct product_shape shape; /* its c: d and addend */
    uint32_t batch;
    uint64_t a_batch; /* elements from one of the batch to the next */
    uint64_t b_batch;
    uint64_t d_batch;
    float scale;
};

struct cuda_products;

strata_status strata_cuda_products_create(struct cuda_products **out, strata_error *error);
void strata_cuda_products_destroy(struct cuda_products *products);

/* What cuBLAS said to a product. */
struct cuda_refusal {
    int status;       /* a cublasStatus_t; 0: the product is queued */
    const char *name; /* its name, which stays                      */
};

/* workspace: CUDA_WORKSPACE_BYTES of the device. */
struct cuda_refusal strata_cuda_product(struct cuda_products *products, void *stream,
                                        void *workspace, const struct cuda_product *product);

/* What a library said, as a native error: a cublasStatus_t; what cuDNN or its frontend said, 0
 * where a failure has no number. They begin where cudaError_t has ended, so that none is taken
 * for another, and none is 0, which would be no failure. */
#define CUDA_CUBLAS_NATIVE 100000
#define CUDA_CUDNN_NATIVE  200000

/* Queue it for the operators; a refusal becomes the stream's failure. */
void strata_cuda_queue_product(const struct ops *ops, const struct cuda_product *product);

/* The attention that is made of products. */
void strata_cuda_attention(const struct ops *ops, const struct op_attention *args);
void strata_cuda_attention_grad(const struct ops *ops, const struct op_attention_grad *args);
uint64_t strata_cuda_attention_scratch(const struct op_heads *shape);

/* Kernels. dtype: of activations and weights. scratch: CUDA_WORKSPACE_BYTES. */

int strata_cuda_norm(void *stream, const struct op_norm *args, strata_dtype dtype);
int strata_cuda_norm_grad(void *stream, const struct op_norm_grad *args, strata_dtype dtype,
                          void *scratch);
int strata_cuda_bias(void *stream, const struct op_bias *args, strata_dtype dtype);
int strata_cuda_bias_grad(void *stream, const struct op_bias_grad *args, strata_dtype dtype,
                          void *scratch);
int strata_cuda_rotary(void *stream, const struct op_rotary *args, strata_dtype dtype);
int strata_cuda_glu(void *stream, const struct op_glu *args, strata_dtype dtype);
int strata_cuda_glu_grad(void *stream, const struct op_glu_grad *args, strata_dtype dtype);
int strata_cuda_embed(void *stream, const struct op_embed *args, strata_dtype dtype);
int strata_cuda_embed_grad(void *stream, const struct op_embed_grad *args, strata_dtype dtype);
int strata_cuda_entropy_begin(void *stream, struct op_row_stat *stats, uint64_t rows);
int strata_cuda_entropy_scan(void *stream, const struct op_entropy *args, strata_dtype dtype);
int strata_cuda_entropy_grad(void *stream, const struct op_entropy *args, strata_dtype dtype);
int strata_cuda_entropy_loss(void *stream, const struct op_row_stat *stats, uint64_t rows,
                             double *out);

/* Causal scores of `heads` heads: heads x rows x keys, whose row r sees first + r + 1 keys, or
 * the last `window` of those. */
struct cuda_scores {
    float *scores;   /* softmax: in place. Its gradient: the probabilities, only read */
    float *d_scores; /* gradient only: of the probabilities; then, in fp32, of the scores */
    void *rounded;   /* the result in dtype, where that is not fp32                    */
    float *lse;      /* softmax only: of row r of head h at h * lse_stride + r; or NULL */
    uint64_t lse_stride;
    strata_dtype dtype;
    uint32_t heads;
    uint32_t rows;
    uint32_t keys;
    uint32_t first;
    uint32_t window; /* 0: none */
    float scale;     /* gradient only */
};
int strata_cuda_softmax(void *stream, const struct cuda_scores *args);
/* Where dtype is not fp32, d_scores is only read. */
int strata_cuda_softmax_grad(void *stream, const struct cuda_scores *args);

/* heads x seq x head_dim in fp32 to the rows of dst, stride elements apart, in dtype. */
struct cuda_heads {
    const float *src;
    void *dst;
    uint64_t stride;
    uint32_t heads;
    uint32_t seq;
    uint32_t head_dim;
};
int strata_cuda_heads_to_rows(void *stream, const struct cuda_heads *args, strata_dtype dtype);

#ifdef __cplusplus
}
#endif

#endif
