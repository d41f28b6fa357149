#ifndef STRATA_TESTS_OPS_EMULATED_H
#define STRATA_TESTS_OPS_EMULATED_H

/*
 * Other names for what the CUDA operators are made of, so that the emulated ones lie beside the
 * build's own.
 */

#define strata_cuda_narrow            emulated_cuda_narrow
#define strata_cuda_norm              emulated_cuda_norm
#define strata_cuda_norm_grad         emulated_cuda_norm_grad
#define strata_cuda_norm_grad_scratch emulated_cuda_norm_grad_scratch
#define strata_cuda_bias              emulated_cuda_bias
#define strata_cuda_bias_grad         emulated_cuda_bias_grad
#define strata_cuda_bias_grad_scratch emulated_cuda_bias_grad_scratch
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
#define strata_ops_cuda               strata_ops_emulated

#include <stdint.h>

/* Different shapes among the products so far. */
uint32_t strata_emulated_shape_count(void);

#endif
