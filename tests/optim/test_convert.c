/*
 * Conversions: exhaustive from the 16-bit types, and to them against a rounding that is found
 * by comparing distances to the two neighbours, not by adding bits.
 */

#include "tests/optim/special.h"

/* What a 16-bit value is, by its fields alone. */
static double value_of(strata_dtype dtype, uint16_t half)
{
    int mantissa_bits = dtype == STRATA_BF16 ? 7 : 10;
    int bias = dtype == STRATA_BF16 ? 127 : 15;
    int exponent = (half & 0x7fff) >> mantissa_bits;
    int mantissa = half & ((1 << mantissa_bits) - 1);
    double sign = half & 0x8000 ? -1 : 1;
    if (exponent == 2 * bias + 1)
        return mantissa != 0 ? NAN : sign * INFINITY;
    if (exponent == 0)
        return sign * ldexp(mantissa, 1 - bias - mantissa_bits);
    return sign * ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
}

static uint16_t nan_of(strata_dtype dtype)
{
    return dtype == STRATA_BF16 ? 0x7fc0 : 0x7e00;
}

static void all_values_come_back(strata_dtype dtype)
{
    static uint16_t halves[65536];
    static float wide[65536];
    static uint16_t back[65536];
    for (uint32_t i = 0; i < 65536; i++)
        halves[i] = (uint16_t)i;
    for (int isa = STRATA_ISA_SCALAR; isa <= STRATA_ISA_AVX512; isa++) {
        if (!strata_isa_usable((strata_isa)isa))
            continue;
        strata_convert((strata_isa)isa, wide, STRATA_FP32, halves, dtype, 65536);
        strata_convert((strata_isa)isa, back, dtype, wide, STRATA_FP32, 65536);
        for (uint32_t i = 0; i < 65536; i++) {
            cr_assert(test_same_float(wide[i], (float)value_of(dtype, (uint16_t)i)), "%x", i);
            cr_assert_eq(signbit(wide[i]) != 0, i >= 0x8000);
            cr_assert_eq(back[i], isnan(wide[i]) ? nan_of(dtype) : i, "%x", i);
        }
    }
}

Test(convert, every_bf16_is_widened_exactly_and_comes_back)
{
    all_values_come_back(STRATA_BF16);
}

Test(convert, every_fp16_is_widened_exactly_and_comes_back)
{
    all_values_come_back(STRATA_FP16);
}

/* The nearer of the two neighbours, in double, where all of this is exact; ties to even. */
static uint16_t nearest(strata_dtype dtype, float value)
{
    if (isnan(value))
        return nan_of(dtype);
    uint16_t infinity = dtype == STRATA_BF16 ? 0x7f80 : 0x7c00;
    uint16_t sign = signbit(value) ? 0x8000 : 0;
    double size = fabs((double)value);
    uint16_t low = 0; /* the largest that is not above size */
    for (uint16_t bit = 0x4000; bit != 0; bit >>= 1)
        if ((low | bit) < infinity && value_of(dtype, low | bit) <= size)
            low |= bit;
    double below = value_of(dtype, low);
    double above = low + 1 < infinity ? value_of(dtype, (uint16_t)(low + 1))
                                      : 2 * below - value_of(dtype, (uint16_t)(low - 1));
    if (isinf(size))
        return sign | infinity;
    if (size - below == above - size)
        return sign | (uint16_t)(low + low % 2);
    return sign | (uint16_t)(size - below < above - size ? low : low + 1);
}

static void rounds_to_nearest(strata_dtype dtype)
{
    uint64_t state = 3;
    for (uint32_t i = 0; i < 1000000; i++) {
        float value = test_any_float(&state);
        if (i % 2 == 0) /* where fp16 has its values, its ties and its denormals */
            value = ldexpf((float)(test_next(&state) >> 19) - 4096.0f,
                           -(int)(test_next(&state) % 40));
        uint16_t half;
        strata_convert(STRATA_ISA_SCALAR, &half, dtype, &value, STRATA_FP32, 1);
        cr_assert_eq(half, nearest(dtype, value), "%a: %x, not %x", (double)value, half,
                     nearest(dtype, value));
    }
}

Test(convert, rounds_to_the_nearest_even_bf16)
{
    rounds_to_nearest(STRATA_BF16);
}

Test(convert, rounds_to_the_nearest_even_fp16)
{
    rounds_to_nearest(STRATA_FP16);
}

Test(convert, rounds_known_fp16_cases)
{
    static const struct {
        float value;
        uint16_t half;
    } cases[] = {
        {65504.0f, 0x7bff},        {65519.99f, 0x7bff}, /* the largest that is not infinite */
        {65520.0f, 0x7c00},        {-1e30f, 0xfc00},          {0x1p-14f, 0x0400},
        {0x1p-24f, 0x0001}, /* denormals */
        {0x1p-25f, 0x0000}, /* a tie */
        {0x1.8p-24f, 0x0002},      {0x1.000002p-25f, 0x0001}, {-0x1p-126f, 0x8000},
        {-0.0f, 0x8000},           {1.0f + 0x1p-11f, 0x3c00}, /* ties */
        {1.0f + 0x3p-11f, 0x3c02},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int isa = STRATA_ISA_SCALAR; isa <= STRATA_ISA_AVX512; isa++) {
            float values[64];
            uint16_t halves[64];
            if (!strata_isa_usable((strata_isa)isa))
                continue;
            for (size_t j = 0; j < 64; j++)
                values[j] = cases[i].value;
            strata_convert((strata_isa)isa, halves, STRATA_FP16, values, STRATA_FP32, 64);
            cr_assert_eq(halves[9], cases[i].half, "%a gives %04x", (double)cases[i].value,
                         halves[9]);
        }
}

Test(convert, rounds_known_bf16_cases)
{
    static const struct {
        uint32_t bits;
        uint16_t half;
    } cases[] = {
        {0x3f808000, 0x3f80}, /* a tie goes down to even */
        {0x3f818000, 0x3f82}, /* a tie goes up to even */
        {0x3f808001, 0x3f81}, /* just above a tie */
        {0x7f7fffff, 0x7f80}, /* the largest float is beyond the largest bf16 */
        {0x7f7f7fff, 0x7f7f}, /* and this one is not */
        {0x00000001, 0x0000}, {0x00008001, 0x0001}, /* denormals */
        {0x80000000, 0x8000}, {0xff800000, 0xff80}, {0x7f800001, 0x7fc0}, {0xffffffff, 0x7fc0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        float value = test_float_of(cases[i].bits);
        uint16_t half;
        strata_convert(STRATA_ISA_BEST, &half, STRATA_BF16, &value, STRATA_FP32, 1);
        cr_assert_eq(half, cases[i].half, "%08x gives %04x", cases[i].bits, half);
    }
}

static void compare_variant(strata_isa isa, strata_dtype dtype)
{
    for (size_t n = 0; n < TEST_COUNTS; n++)
        for (size_t shift = 0; shift < TEST_SHIFTS; shift++) {
            size_t count = test_counts[n];
            struct test_array src = test_array_make(count, 4, test_shifts[shift]);
            struct test_array a = test_array_make(count, 4, 0);
            struct test_array b =
                test_array_make(count, 4, test_shifts[TEST_SHIFTS - 1 - shift]);
            uint64_t seed = n;
            for (size_t i = 0; i < count; i++)
                ((float *)src.at)[i] = test_any_float(&seed);
            strata_convert(STRATA_ISA_SCALAR, a.at, dtype, src.at, STRATA_FP32, count);
            strata_convert(isa, b.at, dtype, src.at, STRATA_FP32, count);
            cr_assert_eq(memcmp(a.at, b.at, count * 2), 0, "%s, %zu", test_isa_name(isa),
                         count);
            /* The same bytes again, as twice as many halves, cut to count. */
            strata_convert(STRATA_ISA_SCALAR, a.at, STRATA_FP32, src.at, dtype, count);
            strata_convert(isa, b.at, STRATA_FP32, src.at, dtype, count);
            cr_assert_eq(memcmp(a.at, b.at, count * 4), 0, "%s, %zu", test_isa_name(isa),
                         count);
            free(src.base);
            free(a.base);
            free(b.base);
        }
}

Test(convert, avx2_gives_the_bits_of_scalar)
{
    TEST_NEEDS_ISA(STRATA_ISA_AVX2);
    compare_variant(STRATA_ISA_AVX2, STRATA_BF16);
    compare_variant(STRATA_ISA_AVX2, STRATA_FP16);
}

Test(convert, avx512_gives_the_bits_of_scalar)
{
    TEST_NEEDS_ISA(STRATA_ISA_AVX512);
    compare_variant(STRATA_ISA_AVX512, STRATA_BF16);
    compare_variant(STRATA_ISA_AVX512, STRATA_FP16);
}

Test(convert, same_dtype_is_a_copy)
{
    float src[3] = {1.5f, -0.0f, NAN};
    float dst[4] = {0, 0, 0, 7};
    strata_convert(STRATA_ISA_BEST, dst, STRATA_FP32, src, STRATA_FP32, 3);
    cr_assert_eq(memcmp(dst, src, sizeof src), 0);
    cr_assert_eq(dst[3], 7.0f);
    uint16_t half_src[2] = {0x7f81, 0x1234};
    uint16_t half_dst[2] = {0};
    strata_convert(STRATA_ISA_BEST, half_dst, STRATA_BF16, half_src, STRATA_BF16, 2);
    cr_assert_eq(memcmp(half_dst, half_src, sizeof half_src), 0);
}

Test(convert, best_and_scalar_are_always_usable)
{
    cr_assert(strata_isa_usable(STRATA_ISA_BEST));
    cr_assert(strata_isa_usable(STRATA_ISA_SCALAR));
    cr_assert(strata_isa_usable(STRATA_ISA_AVX2) || !strata_isa_usable(STRATA_ISA_AVX512));
}
