/* The sum of squares of a norm block: the defined order, the same bits from every variant. */

#include "tests/optim/special.h"

/* The definition again, in its own words: sixteen columns, then a sum over them. */
static double by_columns(const float *values, size_t count)
{
    double total = 0;
    for (size_t column = 0; column < 16; column++) {
        double sum = 0;
        for (size_t i = column; i < count; i += 16)
            sum += (double)values[i] * (double)values[i];
        total += sum;
    }
    return total;
}

static void compare(strata_isa isa, bool special)
{
    for (size_t n = 0; n < TEST_COUNTS; n++)
        for (size_t shift = 0; shift < TEST_SHIFTS; shift++) {
            size_t count = test_counts[n] < STRATA_BLOCK_ELEMS ? test_counts[n] : 16384;
            struct test_array grad = test_array_make(count, 4, test_shifts[shift]);
            struct test_array half = test_array_make(count, 2, test_shifts[shift]);
            struct test_array wide = test_array_make(count, 4, 0);
            uint64_t seed = n;
            for (size_t i = 0; i < count; i++)
                ((float *)grad.at)[i] = special ? test_any_float(&seed)
                                                : (float)(int32_t)test_next(&seed) * 0x1p-25f;
            strata_convert(STRATA_ISA_SCALAR, half.at, STRATA_BF16, grad.at, STRATA_FP32,
                           count);
            strata_convert(STRATA_ISA_SCALAR, wide.at, STRATA_FP32, half.at, STRATA_BF16,
                           count);
            double fp32 = strata_norm_block(isa, grad.at, STRATA_FP32, count);
            double bf16 = strata_norm_block(isa, half.at, STRATA_BF16, count);
            cr_assert(test_same_double(fp32, by_columns(grad.at, count)), "%s fp32 %zu: %a",
                      test_isa_name(isa), count, fp32);
            cr_assert(test_same_double(bf16, by_columns(wide.at, count)), "%s bf16 %zu: %a",
                      test_isa_name(isa), count, bf16);
            strata_convert(STRATA_ISA_SCALAR, half.at, STRATA_FP16, grad.at, STRATA_FP32,
                           count);
            strata_convert(STRATA_ISA_SCALAR, wide.at, STRATA_FP32, half.at, STRATA_FP16,
                           count);
            double fp16 = strata_norm_block(isa, half.at, STRATA_FP16, count);
            cr_assert(test_same_double(fp16, by_columns(wide.at, count)), "%s fp16 %zu: %a",
                      test_isa_name(isa), count, fp16);
            free(grad.base);
            free(half.base);
            free(wide.base);
        }
}

Test(norm, scalar_follows_the_definition)
{
    compare(STRATA_ISA_SCALAR, false);
    compare(STRATA_ISA_SCALAR, true);
}

Test(norm, avx2_follows_the_definition)
{
    TEST_NEEDS_ISA(STRATA_ISA_AVX2);
    compare(STRATA_ISA_AVX2, false);
    compare(STRATA_ISA_AVX2, true);
}

Test(norm, avx512_follows_the_definition)
{
    TEST_NEEDS_ISA(STRATA_ISA_AVX512);
    compare(STRATA_ISA_AVX512, false);
    compare(STRATA_ISA_AVX512, true);
}

/* The order shows: a plain sum from first to last rounds otherwise. */
Test(norm, the_order_matters_so_the_tests_above_can_fail)
{
    float values[4099];
    uint64_t seed = 1;
    double plain = 0;
    for (size_t i = 0; i < 4099; i++) {
        values[i] = (float)(int32_t)test_next(&seed) * 0x1p-25f;
        plain += (double)values[i] * (double)values[i];
    }
    double block = strata_norm_block(STRATA_ISA_BEST, values, STRATA_FP32, 4099);
    cr_assert_neq(plain, block);
    cr_assert_float_eq(plain, block, 1e-12 * plain);
}

Test(norm, squares_neither_overflow_nor_vanish)
{
    float large[2] = {3e38f, 3e38f};
    float small[2] = {1e-45f, 1e-45f};
    cr_assert_float_eq(strata_norm_block(STRATA_ISA_BEST, large, STRATA_FP32, 2) / 1.8e77, 1,
                       1e-6);
    cr_assert_gt(strata_norm_block(STRATA_ISA_BEST, small, STRATA_FP32, 2), 0.0);
}

Test(norm, a_single_infinity_or_nan_shows)
{
    float grad[100] = {0};
    grad[77] = INFINITY;
    cr_assert(isinf(strata_norm_block(STRATA_ISA_BEST, grad, STRATA_FP32, 100)));
    grad[78] = NAN;
    cr_assert(isnan(strata_norm_block(STRATA_ISA_BEST, grad, STRATA_FP32, 100)));
}
