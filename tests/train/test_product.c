/*
 * Products in panels: every element once, and the same bits from every number of workers.
 *
 * What a product should be is the whole of it on one thread, whose sums have another order. A
 * sum of n terms in fp32 in any order is within n x 2^-24 of the sum of their magnitudes of the
 * true one (Higham, "Accuracy and Stability of Numerical Algorithms", 3.1, to first order), so
 * two of them are within twice that of each other; a term left out is far more.
 */

#include "train/product.h"

#include "tests/support/temp_dir.h"

#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Odd ones; tall; wide; large enough for rows and columns of panels. */
static const uint32_t shapes[][3] = {
    {1, 1, 1},       {3, 5, 7},       {17, 33, 1},     {64, 64, 64},
    {31, 257, 100},  {700, 40, 300},  {40, 700, 300},  {1100, 90, 130},
    {90, 1100, 130}, {256, 704, 256}, {130, 90, 1100}, {600, 2432, 400},
};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

static float *numbers(uint64_t count)
{
    float *out = malloc(count * sizeof *out);
    cr_assert_not_null(out);
    for (uint64_t i = 0; i < count; i++)
        out[i] = (float)(i * 7919 % 251) / 251 - 0.5f;
    return out;
}

/* The sums of the magnitudes of the terms of each element; owned. */
static float *magnitudes(const struct product *product)
{
    const struct product_shape *shape = &product->shape;
    uint64_t a_count = shape->rows * shape->depth, b_count = shape->depth * shape->cols;
    uint64_t c_count = shape->rows * shape->cols;
    float *a = numbers(a_count), *b = numbers(b_count), *c = numbers(c_count);
    for (uint64_t i = 0; i < a_count; i++)
        a[i] = fabsf(a[i]);
    for (uint64_t i = 0; i < b_count; i++)
        b[i] = fabsf(b[i]);
    for (uint64_t i = 0; i < c_count; i++)
        c[i] = fabsf(c[i]);
    struct product of_magnitudes = *product;
    of_magnitudes.a = a;
    of_magnitudes.b = b;
    of_magnitudes.c = c;
    strata_host_product(&of_magnitudes);
    free(b);
    free(a);
    return c;
}

static void compare(strata_workers *const pools[3], const uint32_t shape[3], bool a_transposed,
                    bool b_transposed)
{
    uint64_t rows = shape[0], cols = shape[1], depth = shape[2];
    float *a = numbers(rows * depth);
    float *b = numbers(depth * cols);
    float *whole = numbers(rows * cols);
    float *cut[3];
    struct product product = {.a = a, .b = b, .c = whole, .scale = 1, .beta = 1};
    product.shape = (struct product_shape){
        .rows = rows,
        .cols = cols,
        .depth = depth,
        .a_stride = a_transposed ? rows : depth,
        .b_stride = b_transposed ? depth : cols,
        .c_stride = cols,
        .a_transposed = a_transposed,
        .b_transposed = b_transposed,
    };
    strata_host_product(&product);
    float *terms = magnitudes(&product);
    for (uint32_t i = 0; i < 3; i++) {
        product.c = cut[i] = numbers(rows * cols);
        strata_host_panels(pools[i], &product);
        cr_assert_arr_eq(cut[i], cut[0], rows * cols * sizeof **cut, "%u workers", i + 1);
    }
    for (uint64_t i = 0; i < rows * cols; i++)
        cr_assert_leq(fabsf(cut[0][i] - whole[i]), 0x1p-23f * (float)(depth + 1) * terms[i],
                      "%llu of %llu x %llu x %llu: %g, %g", (unsigned long long)i,
                      (unsigned long long)rows, (unsigned long long)cols,
                      (unsigned long long)depth, (double)cut[0][i], (double)whole[i]);
    for (uint32_t i = 0; i < 3; i++)
        free(cut[i]);
    free(terms);
    free(whole);
    free(b);
    free(a);
}

Test(product, panels_give_every_element_and_the_same_bits_on_1_2_and_3_workers)
{
    strata_workers *pools[3];
    strata_host_product_setup();
    for (uint32_t i = 0; i < 3; i++) {
        strata_workers_desc desc = {.thread_count = i + 1, .unbound = true};
        cr_assert_eq(strata_workers_create(&pools[i], &desc, NULL), STRATA_OK);
    }
    for (int s = 0; s < SHAPES; s++)
        for (int transposed = 0; transposed < 4; transposed++)
            compare(pools, shapes[s], transposed & 1, transposed & 2);
    for (uint32_t i = 0; i < 3; i++)
        strata_workers_destroy(pools[i]);
}

/* The process's threads after a product: a team stays as long as the thread that it is of. */
static void *multiply(void *out_threads)
{
    enum { EDGE = 512 };
    float *a = numbers(EDGE * EDGE);
    float *c = numbers(EDGE * EDGE);
    struct product product = {.a = a, .b = a, .c = c, .scale = 1};
    product.shape = strata_product_linear(EDGE, EDGE, EDGE);
    strata_host_product(&product);
    *(int *)out_threads = strata_temp_dir_count("/proc/self/task");
    free(c);
    free(a);
    return NULL;
}

/* On a new thread, because OpenMP's setting is a thread's own. */
Test(product, a_whole_product_starts_no_threads)
{
    strata_host_product_setup();
    int before = strata_temp_dir_count("/proc/self/task");
    int after = 0;
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, multiply, &after), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_assert_eq(after, before + 1, "%d threads, then %d", before, after);
}
