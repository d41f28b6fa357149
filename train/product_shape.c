/*
 * The products of linear layers and of attention; see product_shape.h.
 *
 * Thread: any.
 */

#include "train/product_shape.h"

struct product_shape strata_product_linear(uint64_t rows, uint64_t in, uint64_t out)
{
    return (struct product_shape){
        .rows = rows,
        .cols = out,
        .depth = in,
        .a_stride = in,
        .b_stride = in,
        .c_stride = out,
        .b_transposed = true,
    };
}

struct product_shape strata_product_linear_dx(uint64_t rows, uint64_t in, uint64_t out)
{
    return (struct product_shape){
        .rows = rows,
        .cols = in,
        .depth = out,
        .a_stride = out,
        .b_stride = in,
        .c_stride = in,
    };
}

struct product_shape strata_product_linear_dw(uint64_t rows, uint64_t in, uint64_t out)
{
    return (struct product_shape){
        .rows = out,
        .cols = in,
        .depth = rows,
        .a_stride = out,
        .b_stride = in,
        .c_stride = in,
        .a_transposed = true,
    };
}

struct product_shape strata_product_scores(const struct product_rows *of)
{
    return (struct product_shape){
        .rows = of->rows,
        .cols = of->keys,
        .depth = of->head_dim,
        .a_stride = of->q_stride,
        .b_stride = of->kv_stride,
        .c_stride = of->keys,
        .b_transposed = true,
    };
}

struct product_shape strata_product_values(const struct product_rows *of)
{
    return (struct product_shape){
        .rows = of->rows,
        .cols = of->head_dim,
        .depth = of->keys,
        .a_stride = of->keys,
        .b_stride = of->kv_stride,
        .c_stride = of->q_stride,
    };
}

struct product_shape strata_product_keys(const struct product_rows *of)
{
    return (struct product_shape){
        .rows = of->keys,
        .cols = of->head_dim,
        .depth = of->rows,
        .a_stride = of->keys,
        .b_stride = of->q_stride,
        .c_stride = of->head_dim,
        .a_transposed = true,
    };
}
