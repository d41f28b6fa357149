#ifndef STRATA_TESTS_SUPPORT_GOLDEN_H
#define STRATA_TESTS_SUPPORT_GOLDEN_H

/*
 * What the tests against PyTorch's values share: reading a golden file, the initial weights
 * that both sides make, and the comparisons.
 *
 * A gradient is not handed out by the engine. With beta1 = 0 and no clipping the first moment
 * after one step is the gradient, and that can be read.
 *
 * Thread: the test's.
 */

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOSS_TOLERANCE     1e-5 /* relative                                            */
#define NORM_TOLERANCE     1e-4 /* relative                                            */
#define GRADIENT_TOLERANCE 1e-4 /* of the difference, relative to the gradient's norm  */
#define WEIGHT_TOLERANCE   1e-5 /* absolute                                            */

static inline void *read_array(FILE *file, uint64_t count, uint64_t each)
{
    void *out = malloc(count * each);
    cr_assert_not_null(out);
    cr_assert_eq(fread(out, each, count, file), count, "the golden file ends early");
    return out;
}

/* Not from __FILE__, which is relative to wherever a compiler's cache ran. */
static inline FILE *open_golden(const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/train/golden_%s.bin", STRATA_TESTS_DIR, name);
    FILE *file = fopen(path, "rb");
    cr_assert_not_null(file, "%s cannot be opened", path);
    return file;
}

/* The same bits as weight() of the script. */
static inline float hashed_weight(uint32_t tensor, uint32_t elem, bool norm)
{
    uint32_t x = elem + tensor * 0x9e3779b1u;
    x *= 0x85ebca6bu;
    x ^= x >> 15;
    x *= 0xc2b2ae35u;
    x ^= x >> 13;
    float u = (float)(x >> 8) / 8388608.0f - 1.0f;
    if (norm)
        return 1.0f + u * 0.25f;
    return u * 0.2f;
}

/* Slices of one tensor differ in what follows the #. */
static inline bool same_tensor(const char *a, const char *b)
{
    size_t length = strcspn(a, "#");
    return length == strcspn(b, "#") && strncmp(a, b, length) == 0;
}

static inline void expect_relative(const char *what, uint32_t step, double got, double want,
                                   double tolerance)
{
    cr_assert(fabs(got - want) <= tolerance * fabs(want),
              "%s of step %u is %.9g, PyTorch's is %.9g", what, step + 1, got, want);
}

static inline void compare_gradient(const char *name, const float *got, const float *want,
                                    uint64_t count)
{
    double difference = 0.0, norm = 0.0;
    for (uint64_t i = 0; i < count; i++) {
        difference += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        norm += (double)want[i] * want[i];
    }
    cr_assert(sqrt(difference) <= GRADIENT_TOLERANCE * sqrt(norm),
              "%s: gradient is off by %.3g, its norm is %.3g", name, sqrt(difference),
              sqrt(norm));
}

static inline void compare_weight(const char *name, const float *got, const float *want,
                                  uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        cr_assert(fabs((double)got[i] - want[i]) <= WEIGHT_TOLERANCE,
                  "%s: element %llu is %.9g, PyTorch's is %.9g", name, (unsigned long long)i,
                  got[i], want[i]);
}

#endif
