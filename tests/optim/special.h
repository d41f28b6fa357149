#ifndef TESTS_OPTIM_SPECIAL_H
#define TESTS_OPTIM_SPECIAL_H

/*
 * What the tests of the optimizer's kernels share: reproducible values with everything in them
 * that a float can be, the lengths around every vector's edge, and a comparison in which a NaN
 * equals any NaN and everything else only its own bits.
 */

#include "strata/adam.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const size_t test_counts[] = {0,  1,   7,   8,   9,    15,     16,     17,
                                     22, 127, 128, 129, 4099, 100003, 1048576};

#define TEST_COUNTS (sizeof test_counts / sizeof test_counts[0])

/* Elements by which arrays are shifted, so that no vector's address is aligned. */
static const size_t test_shifts[] = {0, 1, 3, 13};

#define TEST_SHIFTS (sizeof test_shifts / sizeof test_shifts[0])

static inline uint32_t test_next(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 32);
}

static inline float test_float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t test_bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* One in eight is special: zeros, denormals, the largest, infinities, NaNs of both kinds. */
static inline float test_any_float(uint64_t *state)
{
    static const uint32_t special[] = {0x00000000, 0x80000000, 0x00000001, 0x807fffff,
                                       0x00400000, 0x7f7fffff, 0xff7fffff, 0x7f800000,
                                       0xff800000, 0x7fc00000, 0x7f800001, 0xffc12345,
                                       0x3f808000, 0x3f818000, 0x7f7f8000, 0x00008000};
    uint32_t word = test_next(state);
    if (word % 8 == 0)
        return test_float_of(special[word / 8 % 16]);
    if (word % 8 == 1)
        return test_float_of(test_next(state)); /* any bits at all */
    return (float)(int32_t)test_next(state) * 0x1p-31f;
}

/* Between -1/4 and 1/4. */
static inline float test_usual(uint64_t *state)
{
    return (float)(int32_t)test_next(state) * 0x1p-33f;
}

/* An array of count elements that begins `shift` elements into its allocation; free(base). */
struct test_array {
    void *base;
    void *at;
};

static inline struct test_array test_array_make(size_t count, size_t elem_bytes, size_t shift)
{
    void *base = malloc((count + shift) * elem_bytes + 1);
    cr_assert(base);
    return (struct test_array){base, (uint8_t *)base + shift * elem_bytes};
}

static inline bool test_same_float(float a, float b)
{
    return (isnan(a) && isnan(b)) || test_bits_of(a) == test_bits_of(b);
}

static inline bool test_same_double(double a, double b)
{
    return (isnan(a) && isnan(b)) || memcmp(&a, &b, sizeof a) == 0;
}

static inline const char *test_isa_name(strata_isa isa)
{
    static const char *const names[] = {"best", "scalar", "avx2", "avx512"};
    return names[isa];
}

/* Skip with the reason where this CPU has not got the set. */
#define TEST_NEEDS_ISA(isa)                                                                    \
    do {                                                                                       \
        if (!strata_isa_usable(isa))                                                           \
            cr_skip_test("this CPU has no %s", test_isa_name(isa));                            \
    } while (0)

#endif
