/*
 * AdamW, defined to the bit.
 *
 * For every element, with all values in fp32 and every operation rounded to nearest, ties to
 * even, denormals kept:
 *
 *     g     = widen(grad) * grad_scale
 *     m'    = fma(one_minus_beta1, g - m, m)
 *     v'    = fma(one_minus_beta2, g * g, beta2 * v)
 *     denom = fma(sqrt(v'), inv_sqrt_bias2, eps)
 *     w'    = fma(-step_size, m' / denom, w * decay)
 *     param = round(w')
 *
 * fma(a, b, c) is a x b + c rounded once; it stands where it is written and nowhere else, so
 * the compiler may not contract anything (-ffp-contract=off). g - m, g * g, beta2 * v, w *
 * decay and the quotient are rounded by themselves. widen is exact; round is to nearest even,
 * NaN becoming 0x7fc0. A tensor without decay has decay 1, which changes no w. Which NaN comes
 * out where one comes out is not defined, save in param.
 *
 * The scalars are made once a step, in double, each rounded to fp32 once:
 *
 *     one_minus_beta = 1 - beta, of the fp32 beta
 *     step_size      = lr / (1 - beta1^t)
 *     inv_sqrt_bias2 = 1 / sqrt(1 - beta2^t)
 *     decay          = 1 - lr * weight_decay
 *
 * beta^t comes from squaring, t's bits from the lowest up; pow() differs between C libraries.
 * The order of the operations is PyTorch's (torch.optim.AdamW: decay, moments, bias
 * corrections, quotient), so the two agree to rounding; there the weight decays first, and here
 * it is the same number, since no other term needs w.
 *
 * adam_element() below is this page in C, and adam_scalar() runs it over a range. The vector
 * forms come from adam_template.h and must give the same bits, which the tests hold them to.
 * They use true square roots and quotients: from memory they are as fast as approximations with
 * a Newton step, in cache faster.
 *
 * Thread: any; who splits a range over threads is base/workers.
 */

#include "strata/adam.h"

#include "base/error.h"
#include "optim/bf16.h"
#include "optim/isa.h"

static inline float adam_element(const strata_adam_step *step, float decay, float *m, float *v,
                                 float master, float grad)
{
    float g = grad * step->grad_scale;
    *m = __builtin_fmaf(step->one_minus_beta1, g - *m, *m);
    *v = __builtin_fmaf(step->one_minus_beta2, g * g, step->beta2 * *v);
    float denom = __builtin_fmaf(__builtin_sqrtf(*v), step->inv_sqrt_bias2, step->eps);
    return __builtin_fmaf(-step->step_size, *m / denom, master * decay);
}

static void adam_scalar(const strata_adam_step *step, const strata_adam_range *range,
                        size_t first)
{
    float decay = range->no_decay ? 1.0f : step->decay;
    for (size_t i = first; i < range->count; i++) {
        float grad = range->grad_dtype == STRATA_BF16 ? bf16_widen(bf16_load(range->grad, i))
                                                      : ((const float *)range->grad)[i];
        float w = adam_element(step, decay, &range->m[i], &range->v[i], range->master[i], grad);
        range->master[i] = w;
        if (range->param && range->param_dtype == STRATA_BF16)
            bf16_store(range->param, i, bf16_round(w));
        else if (range->param)
            ((float *)range->param)[i] = w;
    }
}

#if defined(__x86_64__)

#    include "optim/simd_avx2.h"
#    include "optim/adam_template.h"
#    include "optim/simd_end.h"

#    include "optim/simd_avx512.h"
#    include "optim/adam_template.h"
#    include "optim/simd_end.h"

#else

/* Never reached: strata_isa_usable() says no. */
static void adam_avx2(const strata_adam_step *step, const strata_adam_range *range)
{
    adam_scalar(step, range, 0);
}

static void adam_avx512(const strata_adam_step *step, const strata_adam_range *range)
{
    adam_scalar(step, range, 0);
}

#endif

static double power(double base, uint64_t exponent)
{
    double result = 1.0;
    for (; exponent > 0; exponent >>= 1) {
        if (exponent & 1)
            result *= base;
        base *= base;
    }
    return result;
}

strata_adam_params strata_adam_defaults(void)
{
    return (strata_adam_params){.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1};
}

strata_adam_step strata_adam_prepare(const strata_adam_params *params, uint64_t t, double lr,
                                     float grad_scale)
{
    STRATA_CHECK(t >= 1);
    double beta1 = params->beta1;
    double beta2 = params->beta2;
    return (strata_adam_step){
        .one_minus_beta1 = (float)(1.0 - beta1),
        .beta2 = (float)beta2,
        .one_minus_beta2 = (float)(1.0 - beta2),
        .eps = (float)params->eps,
        .step_size = (float)(lr / (1.0 - power(beta1, t))),
        .inv_sqrt_bias2 = (float)(1.0 / __builtin_sqrt(1.0 - power(beta2, t))),
        .decay = (float)(1.0 - lr * params->weight_decay),
        .grad_scale = grad_scale,
    };
}

void strata_adam_update(strata_isa isa, const strata_adam_step *step,
                        const strata_adam_range *range)
{
    STRATA_CHECK(range->grad_dtype == STRATA_FP32 || range->grad_dtype == STRATA_BF16);
    STRATA_CHECK(!range->param || range->param_dtype == STRATA_FP32 ||
                 range->param_dtype == STRATA_BF16);
    switch (strata_isa_resolve(isa)) {
    case STRATA_ISA_BEST:
    case STRATA_ISA_SCALAR:
        adam_scalar(step, range, 0);
        break;
    case STRATA_ISA_AVX2:
        adam_avx2(step, range);
        break;
    case STRATA_ISA_AVX512:
        adam_avx512(step, range);
        break;
    }
}
