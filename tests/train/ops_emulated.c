/*
 * The CUDA operators as ops_cuda.c puts them together, on emulated kernels and with products in
 * plain loops. Everything is done when a call returns; the stream takes no part.
 */

#include "tests/train/ops_emulated.h"

#include "strata/device.h"

#include <stdio.h>

static strata_error failure;

const strata_error *strata_emulated_failure(void)
{
    return &failure;
}

/* In place of the device's, which knows no native errors. */
static strata_status emulated_stream_failed(strata_stream *stream, int native, const char *what)
{
    (void)stream;
    if (native == 0 || failure.status != STRATA_OK)
        return STRATA_OK;
    failure.status = STRATA_E_DEVICE;
    failure.native = native;
    snprintf(failure.message, sizeof failure.message, "%s", what);
    return STRATA_E_DEVICE;
}
#define strata_stream_failed emulated_stream_failed

#define BLOCK_ROWS_MAX 16u
#define KEY_COUNTS     2u

#include "train/attention_cuda.c"
#include "train/ops_cuda.c"

#include "strata/adam.h"

#include <criterion/criterion.h>

strata_status strata_cuda_products_create(struct cuda_products **out, strata_error *error)
{
    (void)error;
    *out = NULL;
    return STRATA_OK;
}

void strata_cuda_products_destroy(struct cuda_products *products)
{
    (void)products;
}

/* cuDNN would want a GPU. */
struct fused_attention *strata_fused_attention_open(strata_dtype act_dtype)
{
    (void)act_dtype;
    return NULL;
}

static double value_of(const void *array, strata_dtype dtype, uint64_t i)
{
    float value;
    uint32_t bytes = strata_dtype_bytes(dtype);
    if (dtype == STRATA_FP32)
        return ((const float *)array)[i];
    strata_convert(STRATA_ISA_SCALAR, &value, STRATA_FP32, (const uint8_t *)array + i * bytes,
                   dtype, 1);
    return value;
}

static void put_value(void *array, strata_dtype dtype, uint64_t i, double sum)
{
    float value = (float)sum;
    uint32_t bytes = strata_dtype_bytes(dtype);
    strata_convert(STRATA_ISA_SCALAR, (uint8_t *)array + i * bytes, dtype, &value, STRATA_FP32,
                   1);
}

static void one_product(const struct cuda_product *p, uint32_t index)
{
    const struct product_shape *s = &p->shape;
    for (uint64_t row = 0; row < s->rows; row++)
        for (uint64_t col = 0; col < s->cols; col++) {
            double sum = 0;
            for (uint64_t k = 0; k < s->depth; k++) {
                uint64_t a = s->a_transposed ? k * s->a_stride + row : row * s->a_stride + k;
                uint64_t b = s->b_transposed ? col * s->b_stride + k : k * s->b_stride + col;
                sum += value_of(p->a, p->dtype, index * p->a_batch + a) *
                       value_of(p->b, p->dtype, index * p->b_batch + b);
            }
            uint64_t at = index * p->d_batch + row * s->c_stride + col;
            double before = p->addend != NULL ? value_of(p->addend, p->d_dtype, at) : 0;
            put_value(p->d, p->d_dtype, at, p->scale * sum + before);
        }
}

/* What cuBLASLt would be asked about; strides follow from it. */
#define SHAPES_MAX 64u
static struct product_shape shapes[SHAPES_MAX];
static uint32_t shape_count;
static uint32_t product_count;
static bool refuses;

uint32_t strata_emulated_shape_count(void)
{
    return shape_count;
}

uint32_t strata_emulated_product_count(void)
{
    return product_count;
}

void strata_emulated_refuse(void)
{
    refuses = true;
}

static void remember(const struct product_shape *shape)
{
    for (uint32_t i = 0; i < shape_count; i++)
        if (shapes[i].rows == shape->rows && shapes[i].cols == shape->cols &&
            shapes[i].depth == shape->depth && shapes[i].a_transposed == shape->a_transposed &&
            shapes[i].b_transposed == shape->b_transposed)
            return;
    cr_assert_lt(shape_count, SHAPES_MAX);
    shapes[shape_count++] = *shape;
}

struct cuda_refusal strata_cuda_product(struct cuda_products *products, void *stream,
                                        void *workspace, const struct cuda_product *product)
{
    (void)products;
    (void)stream;
    (void)workspace;
    if (refuses)
        return (struct cuda_refusal){15, "CUBLAS_STATUS_NOT_SUPPORTED"};
    remember(&product->shape);
    product_count++;
    for (uint32_t i = 0; i < product->batch; i++)
        one_product(product, i);
    return (struct cuda_refusal){0, NULL};
}
