/*
 * Adam and AdamW, defined to the bit.
 *
 * For every element, with all values in fp32 and every operation rounded to nearest, ties to
 * even, denormals kept:
 *
 *     g     = widen(grad) * grad_scale
 *     g     = fma(l2, w, g)                            with l2 decay only
 *     m'    = fma(one_minus_beta1, g - m, m)
 *     v'    = fma(one_minus_beta2, g * g, beta2 * v)
 *     denom = fma(sqrt(v'), inv_sqrt_bias2, eps)
 *     w'    = fma(-step_size, m' / denom, w * decay)
 *     param = round(w')
 *
 * fma(a, b, c) is a x b + c rounded once. It stands only where it is written, so the compiler
 * must not contract anything (-ffp-contract=off). g - m, g * g, beta2 * v, w * decay and the
 * quotient are each rounded by themselves. A tensor without decay has decay 1, which changes
 * no w, and no l2 line. widen and round are defined in half.h, and so is the one NaN: a stored
 * w', m', v' or param holds no other.
 *
 * bf16 moments: m = widen(stored m), and m' is stored as (bits of m' + r) >> 16; v likewise
 * with its own r. The line of w' uses m' and v' before they are rounded. r is 16 bits of
 * Philox 4x32-10 with key {seed low, seed high} and counter {b low, b high, tensor, t}.
 * Element e of a tensor uses block b = 16 x (e / 128) + e mod 16 and word (e / 16) mod 4 of
 * it: the lower half of the word in the first 64 of each 128 elements, the upper half in the
 * others. This half is the r of m; the r of v is the same with its two bytes exchanged. So the
 * two have different upper bytes, all values are equally likely, and a vector of 16 blocks
 * serves 128 elements in their order. (Initial weights have 0 in place of t, and t begins at
 * 1.)
 *
 * The scalars are computed once a step, in double, and each is rounded to fp32 once:
 *
 *     one_minus_beta = 1 - beta
 *     step_size      = lr / (1 - beta1^t)
 *     inv_sqrt_bias2 = 1 / sqrt(1 - beta2^t)
 *     decay          = 1 - lr * weight_decay; 1 with l2 decay, where l2 = weight_decay
 *
 * beta^t is computed by squaring, from the lowest bit of t up; pow() differs between C
 * libraries. The order of the operations is PyTorch's (torch.optim.AdamW: decay, moments, bias
 * corrections, quotient), so the two agree up to rounding. PyTorch decays the weight first;
 * the number is the same here, since no other term needs w.
 *
 * adam_element() below is this definition in C, and adam_scalar() runs it over a range. The
 * vector forms come from adam_template.h and must give the same bits; tests check that. They
 * use true square roots and quotients: on data from memory these are as fast as approximations
 * with a Newton step, and on data in cache they are faster.
 *
 * Thread: any; base/workers splits a range over threads.
 */

#include "strata/adam.h"

#include "optim/half.h"
#include "optim/isa.h"
#include "base/random.h"

/* Elements that 16 Philox blocks serve; the vector forms do so many at a time. */
#define GROUP 128u

/* Bits of the largest finite number of each dtype. A moment above the second of them may be
 * rounded to infinity. */
#define LARGEST_FP32_BITS 0x7f7fffffu
#define LARGEST_BF16_BITS 0x7f7f0000u

static inline float adam_element(const strata_adam_step *step, bool decays, float *m, float *v,
                                 float w, float grad)
{
    float g = grad * step->grad_scale;
    if (decays && step->l2 != 0)
        g = __builtin_fmaf(step->l2, w, g);
    *m = __builtin_fmaf(step->one_minus_beta1, g - *m, *m);
    *v = __builtin_fmaf(step->one_minus_beta2, g * g, step->beta2 * *v);
    float denom = __builtin_fmaf(__builtin_sqrtf(*v), step->inv_sqrt_bias2, step->eps);
    return __builtin_fmaf(-step->step_size, *m / denom, w * (decays ? step->decay : 1.0f));
}

/* The r of m; the r of v follows from it. */
static uint32_t random_half(uint32_t t, const strata_adam_range *range, size_t i)
{
    uint64_t element = range->element + i;
    uint64_t block = element / GROUP * 16 + element % 16;
    const uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), range->tensor, t};
    const uint32_t key[2] = {(uint32_t)range->seed, (uint32_t)(range->seed >> 32)};
    uint32_t words[4];
    strata_philox(counter, key, words);
    uint32_t word = words[element / 16 % 4];
    return element % GROUP < GROUP / 2 ? word & 0xffff : word >> 16;
}

static uint32_t larger_bits(uint32_t largest, float x)
{
    uint32_t bits = half_bits(x) & 0x7fffffffu;
    return bits > largest ? bits : largest;
}

/* largest: the largest bits of any m', v' or w' without the sign. Infinity has larger bits
 * than every number, and a NaN larger ones than infinity. */
static void adam_scalar(const strata_adam_step *step, const strata_adam_range *range,
                        size_t first, size_t end, uint32_t *largest)
{
    bool small = range->moment_dtype == STRATA_BF16;
    strata_dtype moments = small ? STRATA_BF16 : STRATA_FP32;
    for (size_t i = first; i < end; i++) {
        float m = half_load(range->m, moments, i);
        float v = half_load(range->v, moments, i);
        float w = adam_element(step, !range->no_decay, &m, &v, range->master[i],
                               half_load(range->grad, range->grad_dtype, i));
        *largest = larger_bits(larger_bits(larger_bits(*largest, m), v), w);
        half_store(range->master, STRATA_FP32, i, w);
        if (small) {
            uint32_t r = random_half(step->t, range, i);
            half_put(range->m, i, bf16_round_random(m, r));
            half_put(range->v, i, bf16_round_random(v, (r << 8 & 0xff00) | r >> 8));
        } else {
            half_store(range->m, STRATA_FP32, i, m);
            half_store(range->v, STRATA_FP32, i, v);
        }
        if (range->param)
            half_store(range->param, range->param_dtype, i, w);
    }
}

/* The properties of a range that choose the code; constants in each loop that is compiled. */
struct adam_form {
    strata_dtype grad;
    strata_dtype param; /* 0: not written */
    strata_dtype moments;
    bool l2;
    bool stream;
};

#if defined(__x86_64__)

/* Bytes from element i of param to the next address that a vector may be streamed to. */
static size_t adam_misfit(const strata_adam_range *range, size_t vector_bytes, size_t i)
{
    uintptr_t at = (uintptr_t)range->param + i * strata_dtype_bytes(range->param_dtype);
    return (size_t)(-at & (vector_bytes - 1));
}

static size_t adam_vector_bytes(struct adam_form form, uint32_t vector_elems)
{
    return form.param != 0 ? vector_elems * strata_dtype_bytes(form.param) : 1;
}

/* The first element of the vector loop: the start of a group of the tensor, or an element
 * whose param may be streamed. */
static size_t adam_first(const strata_adam_range *range, struct adam_form form,
                         uint32_t vector_elems)
{
    size_t first = 0;
    if (form.moments == STRATA_BF16)
        first = (size_t)(-range->element & (GROUP - 1));
    else if (range->stream_param && form.param != 0)
        first = adam_misfit(range, adam_vector_bytes(form, vector_elems), 0) /
                strata_dtype_bytes(form.param);
    return first < range->count ? first : range->count;
}

static bool adam_streams(const strata_adam_range *range, struct adam_form form,
                         uint32_t vector_elems, size_t first)
{
    return range->stream_param && form.param != 0 &&
           adam_misfit(range, adam_vector_bytes(form, vector_elems), first) == 0;
}

#    include "optim/simd_avx2.h"
#    include "optim/adam_template.h"
#    include "optim/simd_end.h"

#    include "optim/simd_avx512.h"
#    include "optim/adam_template.h"
#    include "optim/simd_end.h"

#else

/* Never called: strata_isa_usable() returns false. */
static uint32_t adam_avx2(const strata_adam_step *step, const strata_adam_range *range)
{
    uint32_t largest = 0;
    adam_scalar(step, range, 0, range->count, &largest);
    return largest;
}

#    define adam_avx512 adam_avx2

#endif

static double power_by_squaring(double base, uint64_t exponent)
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
    if (params == NULL || t == 0)
        return (strata_adam_step){.t = 0};
    double beta1 = params->beta1;
    double beta2 = params->beta2;
    double weight_decay = params->weight_decay;
    return (strata_adam_step){
        .one_minus_beta1 = (float)(1.0 - beta1),
        .beta2 = (float)beta2,
        .one_minus_beta2 = (float)(1.0 - beta2),
        .eps = (float)params->eps,
        .step_size = (float)(lr / (1.0 - power_by_squaring(beta1, t))),
        .inv_sqrt_bias2 = (float)(1.0 / __builtin_sqrt(1.0 - power_by_squaring(beta2, t))),
        .decay = params->l2_decay ? 1.0f : (float)(1.0 - lr * weight_decay),
        .l2 = params->l2_decay ? (float)weight_decay : 0.0f,
        .grad_scale = grad_scale,
        .t = (uint32_t)t,
    };
}

/* inv_sqrt_bias2 is 0 in a step that was not prepared, and at least 1 in one that was. */
static bool makes_sense(strata_isa isa, const strata_adam_step *step,
                        const strata_adam_range *range)
{
    if (!strata_isa_usable(isa) || step == NULL || range == NULL || step->inv_sqrt_bias2 == 0)
        return false;
    if (range->moment_dtype != 0 && range->moment_dtype != STRATA_FP32 &&
        range->moment_dtype != STRATA_BF16)
        return false;
    if (strata_dtype_bytes(range->grad_dtype) == 0 ||
        (range->param != NULL && strata_dtype_bytes(range->param_dtype) == 0))
        return false;
    return range->count == 0 || (range->grad != NULL && range->master != NULL &&
                                 range->m != NULL && range->v != NULL);
}

strata_status strata_adam_update(strata_isa isa, const strata_adam_step *step,
                                 const strata_adam_range *range)
{
    if (!makes_sense(isa, step, range))
        return STRATA_E_INVALID;
    uint32_t largest = 0;
    switch (strata_isa_resolve(isa)) {
    case STRATA_ISA_BEST:
    case STRATA_ISA_SCALAR:
        adam_scalar(step, range, 0, range->count, &largest);
        break;
    case STRATA_ISA_AVX2:
        largest = adam_avx2(step, range);
        break;
    case STRATA_ISA_AVX512:
        largest = adam_avx512(step, range);
        break;
    }
    bool small = range->moment_dtype == STRATA_BF16;
    return largest <= (small ? LARGEST_BF16_BITS : LARGEST_FP32_BITS) ? STRATA_OK
                                                                      : STRATA_E_NUMERIC;
}
