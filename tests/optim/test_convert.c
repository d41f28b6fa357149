/*
 * Conversions: exhaustive from bf16, and to bf16 against a rounding that is found by comparing
 * distances to the two neighbours, not by adding bits.
 */

#include "tests/optim/special.h"

Test(convert, every_bf16_is_widened_exactly_and_comes_back)
{
    uint16_t halves[65536];
    float wide[65536];
    uint16_t back[65536];
    for (uint32_t i = 0; i < 65536; i++)
        halves[i] = (uint16_t)i;
    for (int isa = STRATA_ISA_SCALAR; isa <= STRATA_ISA_AVX512; isa++) {
        if (!strata_isa_usable((strata_isa)isa))
            continue;
        strata_convert((strata_isa)isa, wide, STRATA_FP32, halves, STRATA_BF16, 65536);
        strata_convert((strata_isa)isa, back, STRATA_BF16, wide, STRATA_FP32, 65536);
        for (uint32_t i = 0; i < 65536; i++) {
            cr_assert_eq(test_bits_of(wide[i]), i << 16);
            cr_assert_eq(back[i], isnan(wide[i]) ? 0x7fc0 : i, "%x", i);
        }
    }
}

/* The nearer of the two neighbours, in double, where all of this is exact; ties to even. */
static uint16_t nearest(float value)
{
    if (isnan(value))
        return 0x7fc0;
    uint16_t down = (uint16_t)(test_bits_of(value) >> 16); /* toward zero */
    uint16_t up = (uint16_t)(down + 1);
    if (isinf(value))
        return down;
    double size = fabs((double)value);
    double below = fabs((double)test_float_of((uint32_t)down << 16));
    double above = fabs((double)test_float_of((uint32_t)up << 16));
    if (isinf(above))
        above = 0x1p128; /* where the next one would be */
    if (size - below != above - size)
        return size - below < above - size ? down : up;
    return down % 2 == 0 ? down : up;
}

Test(convert, rounds_to_the_nearest_even_bf16)
{
    uint64_t state = 3;
    for (uint32_t i = 0; i < 1000000; i++) {
        float value = test_any_float(&state);
        uint16_t half;
        strata_convert(STRATA_ISA_SCALAR, &half, STRATA_BF16, &value, STRATA_FP32, 1);
        cr_assert_eq(half, nearest(value), "%a: %x, not %x", (double)value, half,
                     nearest(value));
    }
}

Test(convert, rounds_known_cases)
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

static void compare_variant(strata_isa isa)
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
            strata_convert(STRATA_ISA_SCALAR, a.at, STRATA_BF16, src.at, STRATA_FP32, count);
            strata_convert(isa, b.at, STRATA_BF16, src.at, STRATA_FP32, count);
            cr_assert_eq(memcmp(a.at, b.at, count * 2), 0, "%s, %zu", test_isa_name(isa),
                         count);
            /* The same bytes again, as twice as many bf16, cut to count. */
            strata_convert(STRATA_ISA_SCALAR, a.at, STRATA_FP32, src.at, STRATA_BF16, count);
            strata_convert(isa, b.at, STRATA_FP32, src.at, STRATA_BF16, count);
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
    compare_variant(STRATA_ISA_AVX2);
}

Test(convert, avx512_gives_the_bits_of_scalar)
{
    TEST_NEEDS_ISA(STRATA_ISA_AVX512);
    compare_variant(STRATA_ISA_AVX512);
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
