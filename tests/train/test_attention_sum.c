/*
 * The sum of a key head's gradients, emulated, against a plain one in the same order: to the
 * bit, in rows with gaps, which stay as they are.
 */

#define strata_cuda_attention_sum emulated_cuda_attention_sum

#include "train/attention_sum.h"

#include "strata/adam.h"

#include "base/random.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define GAP    24u
#define UNUSED 0x5a5a

static float widened(uint16_t value, strata_dtype dtype)
{
    float out;
    cr_assert_eq(strata_convert(STRATA_ISA_SCALAR, &out, STRATA_FP32, &value, dtype, 1),
                 STRATA_OK);
    return out;
}

static uint16_t narrowed(float value, strata_dtype dtype)
{
    uint16_t out;
    cr_assert_eq(strata_convert(STRATA_ISA_SCALAR, &out, dtype, &value, STRATA_FP32, 1),
                 STRATA_OK);
    return out;
}

/* Parts of random numbers; the caller frees them. */
static uint16_t *random_parts(uint32_t count, strata_dtype dtype)
{
    float *numbers = malloc(count * sizeof *numbers);
    uint16_t *parts = malloc(count * sizeof *parts);
    cr_assert(numbers != NULL && parts != NULL);
    strata_random_normal(7, 0, 0, count, 1, numbers);
    for (uint32_t i = 0; i < count; i++)
        parts[i] = narrowed(numbers[i], dtype);
    free(numbers);
    return parts;
}

static void expect_sum(strata_dtype dtype, uint32_t part_count, uint32_t seq, uint32_t head_dim)
{
    uint32_t stride = head_dim + GAP;
    uint32_t each = seq * head_dim;
    uint16_t *parts = random_parts(part_count * each, dtype);
    uint16_t *dst = malloc(seq * stride * sizeof *dst);
    cr_assert_not_null(dst);
    for (uint32_t i = 0; i < seq * stride; i++)
        dst[i] = UNUSED;
    struct attention_sum args = {dst, parts, dtype, part_count, seq, head_dim, stride};
    cr_assert_eq(strata_cuda_attention_sum(NULL, &args), 0);
    for (uint32_t row = 0; row < seq; row++) {
        for (uint32_t i = 0; i < stride; i++) {
            float sum = 0;
            for (uint32_t p = 0; p < part_count && i < head_dim; p++)
                sum += widened(parts[p * each + row * head_dim + i], dtype);
            uint16_t wanted = i < head_dim ? narrowed(sum, dtype) : UNUSED;
            cr_assert_eq(dst[row * stride + i], wanted, "row %u, element %u", row, i);
        }
    }
    free(dst);
    free(parts);
}

Test(attention_sum, is_the_plain_sum_to_the_bit)
{
    static const strata_dtype dtypes[] = {STRATA_BF16, STRATA_FP16};
    for (int d = 0; d < 2; d++) {
        expect_sum(dtypes[d], 2, 1, 8);
        expect_sum(dtypes[d], 8, 33, 64);
        expect_sum(dtypes[d], 3, 17, 128); /* more than one block */
        expect_sum(dtypes[d], 1, 32, 64);  /* exactly one */
    }
}
