#ifndef STRATA_TESTS_OPS_EMULATED_H
#define STRATA_TESTS_OPS_EMULATED_H

/*
 * Other names for what the CUDA operators are made of, so that the emulated ones lie beside the
 * build's own.
 */

#define strata_cuda_norm              emulated_cuda_norm
#define strata_cuda_norm_grad         emulated_cuda_norm_grad
#define strata_cuda_bias              emulated_cuda_bias
#define strata_cuda_bias_grad         emulated_cuda_bias_grad
#define strata_cuda_rotary            emulated_cuda_rotary
#define strata_cuda_glu               emulated_cuda_glu
#define strata_cuda_glu_grad          emulated_cuda_glu_grad
#define strata_cuda_embed             emulated_cuda_embed
#define strata_cuda_embed_grad        emulated_cuda_embed_grad
#define strata_cuda_entropy_begin     emulated_cuda_entropy_begin
#define strata_cuda_entropy_scan      emulated_cuda_entropy_scan
#define strata_cuda_entropy_grad      emulated_cuda_entropy_grad
#define strata_cuda_entropy_loss      emulated_cuda_entropy_loss
#define strata_cuda_softmax           emulated_cuda_softmax
#define strata_cuda_softmax_grad      emulated_cuda_softmax_grad
#define strata_cuda_heads_to_rows     emulated_cuda_heads_to_rows
#define strata_cuda_products_create   emulated_cuda_products_create
#define strata_cuda_products_destroy  emulated_cuda_products_destroy
#define strata_cuda_product           emulated_cuda_product
#define strata_cuda_queue_product     emulated_cuda_queue_product
#define strata_cuda_attention         emulated_cuda_attention
#define strata_cuda_attention_grad    emulated_cuda_attention_grad
#define strata_cuda_attention_scratch emulated_cuda_attention_scratch
#define strata_fused_attention_open   emulated_fused_attention_open
#define strata_ops_cuda               strata_ops_emulated

#include "strata/status.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Different shapes among the products so far. */
uint32_t strata_emulated_shape_count(void);

/* Products and kernels so far. */
uint32_t strata_emulated_product_count(void);
uint32_t strata_emulated_kernel_count(void);

/* Refuse products from now on, as cuBLAS does. */
void strata_emulated_refuse(void);

/* The first failure of a stream that the operators have told of. */
const strata_error *strata_emulated_failure(void);

#ifdef __cplusplus
}
#endif

#endif
