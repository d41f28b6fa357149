#ifndef STRATA_ADAM_H
#define STRATA_ADAM_H

/*
 * AdamW and Adam on the CPU, defined to the bit. The definition, one page, is at the top of
 * optim/adam.c; every variant (scalar, AVX2, AVX-512) gives the same bits on every input,
 * whatever the alignment, the tail or the split over threads.
 *
 * One pass reads gradient, master weight and both moments, and writes master, moments and the
 * weight in the compute dtype; what scales the gradient (clipping, a loss scale) is a factor in
 * that pass. Loshchilov, Hutter: "Decoupled weight decay regularization", ICLR 2019, algorithm
 * 2; with l2_decay algorithm 1, which is Adam.
 *
 * Moments are fp32, or bf16 rounded stochastically: computed in fp32, and rounded up or down
 * with probabilities that keep the mean. To nearest, a moment whose change is less than half a
 * last place would stand still for good: v after its gradients have shrunk, with the usual
 * betas. The random bits follow from seed, tensor, element and update alone.
 *
 * Usable without the engine. Thread: any; kernels touch nothing but their arrays.
 */

#include <stddef.h>

#include "strata/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Always given in full: 0 is a legitimate value of every one of them. */
typedef struct strata_adam_params {
    double beta1; /* double, so that 1 - beta is what was meant: 1 - 0.999f is 1.3e-5 off */
    double beta2;
    double eps;
    double weight_decay;
    bool l2_decay; /* the decay is added to the gradient (Adam), not taken off the weight */
} strata_adam_params;

/* AdamW with beta1 0.9, beta2 0.95, eps 1e-8, weight decay 0.1. */
STRATA_API strata_adam_params strata_adam_defaults(void);

/* What one update needs, made once per step by strata_adam_prepare(). */
typedef struct strata_adam_step {
    float one_minus_beta1;
    float beta2;
    float one_minus_beta2;
    float eps;
    float step_size;      /* lr / (1 - beta1^t) */
    float inv_sqrt_bias2; /* 1 / sqrt(1 - beta2^t) */
    float decay;          /* 1 - lr x weight decay; 1 with l2_decay */
    float l2;             /* weight decay with l2_decay, else 0 */
    float grad_scale;     /* clip over loss scale */
    uint32_t t;           /* modulo 2^32: what the rounding of bf16 moments is keyed by */
} strata_adam_step;

/*
 * t: how many updates have been applied, this one included; from 1. grad_scale multiplies every
 * gradient element first. Powers by squaring in double; one square root and divisions in
 * double. t 0 or no params: a step that strata_adam_update() refuses.
 */
STRATA_API strata_adam_step strata_adam_prepare(const strata_adam_params *params, uint64_t t,
                                                double lr, float grad_scale);

/* The arrays of one range. Any alignment that the element type has. */
typedef struct strata_adam_range {
    const void *grad; /* count elements of grad_dtype */
    float *master;
    void *m; /* count elements of moment_dtype each */
    void *v;
    void *param; /* NULL: not written; else count elements of param_dtype */
    strata_dtype grad_dtype;
    strata_dtype param_dtype;
    strata_dtype moment_dtype; /* 0: STRATA_FP32; or STRATA_BF16 */
    size_t count;
    bool no_decay;     /* leave out the decay */
    bool stream_param; /* param goes past the caches: nobody reads it soon */
    uint64_t seed;     /* bf16 moments: what their rounding is keyed by */
    uint32_t tensor;
    uint64_t element; /* the first one's number in its tensor */
} strata_adam_range;

typedef enum strata_isa {
    STRATA_ISA_BEST = 0,
    STRATA_ISA_SCALAR,
    STRATA_ISA_AVX2,
    STRATA_ISA_AVX512
} strata_isa;

/* Is the variant compiled in and does this CPU have it? */
STRATA_API bool strata_isa_usable(strata_isa isa);

/*
 * Update one range with the variant given.
 *
 * STRATA_E_NUMERIC: the range is updated, and a weight or moment in it has become infinite or
 * NaN, or with bf16 moments larger than the largest bf16. STRATA_E_INVALID: a variant that is
 * not usable, no step or one that was not prepared, no such dtype, an array that is NULL; then
 * nothing has changed.
 */
STRATA_API strata_status strata_adam_update(strata_isa isa, const strata_adam_step *step,
                                            const strata_adam_range *range);

/* Convert between fp32 and any dtype: down by nearest-even, NaN as 0x7fc0 (bf16) or 0x7e00
 * (fp16); up exactly. STRATA_E_INVALID: none of both is fp32 and they differ, no such dtype, an
 * array that is NULL, or a variant that is not usable. */
STRATA_API strata_status strata_convert(strata_isa isa, void *dst, strata_dtype dst_dtype,
                                        const void *src, strata_dtype src_dtype, size_t count);

/*
 * The sum of squares of one norm block: 16 partial sums in double, element i into sum i mod 16,
 * added 0 to 15. count is at most STRATA_BLOCK_ELEMS; NaN for more, for no such dtype, for a
 * variant that is not usable and for NULL.
 */
STRATA_API double strata_norm_block(strata_isa isa, const void *grad, strata_dtype dtype,
                                    size_t count);

#ifdef __cplusplus
}
#endif

#endif
