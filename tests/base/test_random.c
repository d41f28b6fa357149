/*
 * Philox against its published answers, and the normal values against the distribution itself:
 * the C library's erfc is an independent way from a value back to its probability.
 */

#include "base/cpu.h"
#include "base/random.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The known answers that the authors of Random123 publish with it for philox4x32-10. */
Test(random, philox_gives_the_published_answers)
{
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } cases[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < 3; i++) {
        uint32_t out[4];
        strata_philox(cases[i].counter, cases[i].key, out);
        cr_assert_eq(memcmp(out, cases[i].out, sizeof out), 0, "case %zu: %08x %08x %08x %08x",
                     i, out[0], out[1], out[2], out[3]);
    }
}

/* Element e is word e mod 4 of block e / 4, and its value the point with that word's
 * probability. */
static void expect_quantiles(uint64_t first)
{
    enum { N = 100000 };
    float *values = malloc(N * sizeof *values);
    cr_assert(values);
    strata_random_normal(0x123456789abcdef0, 7, first, N, 1.0f, values);
    for (uint32_t i = 0; i < N; i++) {
        uint64_t block = (first + i) / 4;
        uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), 7, 0};
        uint32_t key[2] = {0x9abcdef0, 0x12345678};
        uint32_t words[4];
        strata_philox(counter, key, words);
        double p = ((double)words[(first + i) % 4] + 0.5) / 4294967296.0;
        double z = (double)values[i];
        double back = 0.5 * erfc(-z / sqrt(2.0));
        /* One rounding to fp32 moves the value by at most 2^-24 of itself, and the probability
         * by the density times that. */
        double density = 0.3989422804014327 * exp(-z * z / 2);
        double allowed = density * fabs(z) * 0x1p-24 * 1.01 + 4e-16;
        cr_assert(fabs(back - p) <= allowed, "element %u: p %.17g, back %.17g, value %g", i, p,
                  back, z);
    }
    free(values);
}

Test(random, a_value_is_the_quantile_of_its_word)
{
    expect_quantiles(0);
    expect_quantiles((UINT64_C(1) << 34) -
                     50001); /* where the block's number takes a second word */
    expect_quantiles(UINT64_C(0xfedcba9876543));
}

Test(random, any_range_gives_the_same_elements)
{
    enum { N = 1000 };
    float all[N];
    strata_random_normal(42, 3, 0, N, 0.02f, all);
    for (uint64_t first = 0; first < 20; first++)
        for (uint64_t count = 0; count < 30; count++) {
            float part[30];
            strata_random_normal(42, 3, first, count, 0.02f, part);
            cr_assert_eq(memcmp(part, all + first, count * sizeof part[0]), 0);
        }
}

Test(random, seeds_and_streams_differ)
{
    float a[4];
    float b[4];
    float c[4];
    float d[4];
    strata_random_normal(1, 1, 0, 4, 1.0f, a);
    strata_random_normal(2, 1, 0, 4, 1.0f, b);
    strata_random_normal(1, 2, 0, 4, 1.0f, c);
    strata_random_normal(1 + (UINT64_C(1) << 32), 1, 0, 4, 1.0f, d);
    for (size_t i = 0; i < 4; i++)
        cr_assert(a[i] != b[i] && a[i] != c[i] && a[i] != d[i] && b[i] != c[i]);
}

/* A million values: each moment within five standard errors of the distribution's. */
Test(random, moments_and_tails_are_those_of_the_normal_distribution)
{
    enum { N = 1 << 20 };
    float *values = malloc(N * sizeof *values);
    cr_assert(values);
    strata_random_normal(2024, 11, 0, N, 0.5f, values);
    double sum = 0;
    double square = 0;
    double cube = 0;
    double fourth = 0;
    double lag = 0;
    uint32_t beyond[5] = {0};
    for (size_t i = 0; i < N; i++) {
        double z = (double)values[i] / 0.5;
        sum += z;
        square += z * z;
        cube += z * z * z;
        fourth += z * z * z * z;
        lag += i > 0 ? z * (double)values[i - 1] / 0.5 : 0;
        for (int s = 1; s <= 4; s++)
            beyond[s] += fabs(z) > s;
    }
    double error = 1 / sqrt((double)N);
    cr_assert_lt(fabs(sum / N), 5 * error);
    cr_assert_lt(fabs(square / N - 1), 5 * sqrt(2.0) * error);
    cr_assert_lt(fabs(cube / N), 5 * sqrt(15.0) * error);
    cr_assert_lt(fabs(fourth / N - 3), 5 * sqrt(96.0) * error);
    cr_assert_lt(fabs(lag / N), 5 * error);
    for (int s = 1; s <= 4; s++) {
        double p = erfc(s / sqrt(2.0));
        double spread = sqrt(N * p * (1 - p));
        cr_assert_lt(fabs(beyond[s] - N * p), 5 * spread, "beyond %d: %u of %g", s, beyond[s],
                     N * p);
    }
    free(values);
}

/*
 * Written down once: whatever changes a bit of these (a compiler, another order of operations)
 * would start every training from other weights. Over 100,000 values: the first one, and three
 * sums, the last of the tails alone.
 */
Test(random, bits_are_those_of_the_first_version)
{
    enum { N = 100000 };
    float *values = malloc(N * sizeof *values);
    cr_assert(values);
    strata_random_normal(0, 0, 0, N, 1.0f, values);
    uint32_t bits[4] = {0};
    for (uint32_t i = 0; i < N; i++) {
        uint32_t word;
        memcpy(&word, &values[i], sizeof word);
        bits[0] = i == 0 ? word : bits[0];
        bits[1] ^= word;
        bits[2] += word * (i | 1);
        bits[3] += fabsf(values[i]) > 1.44f ? word : 0;
    }
    free(values);
    static const uint32_t expected[4] = {0xbe82fa50, 0xf3c341f7, 0xa036f5cf, 0xba46e4a7};
    for (size_t i = 0; i < 4; i++)
        cr_expect_eq(bits[i], expected[i], "%zu: %08x", i, bits[i]);
}

/* Every beginning within a block and within a batch, every length up to more than a batch. */
Test(random, plain_code_and_avx2_give_the_same_bits)
{
    enum { LONGEST = 700 };
    float plain[LONGEST], avx2[LONGEST];
    if (!strata_cpu_has_avx2())
        cr_skip_test("this CPU has no AVX2");
    for (uint64_t i = 0; i < 3000; i++) {
        uint64_t first = i * 1000003 + (i % 5 == 0 ? UINT64_C(1) << 34 : 0);
        uint64_t count = i % LONGEST;
        strata_random_normal_by(false, i, (uint32_t)i, first, count, 1.5f, plain);
        strata_random_normal_by(true, i, (uint32_t)i, first, count, 1.5f, avx2);
        cr_assert_arr_eq(plain, avx2, count * sizeof *plain, "from %llu, %llu of them",
                         (unsigned long long)first, (unsigned long long)count);
    }
}
