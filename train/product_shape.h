#ifndef STRATA_TRAIN_PRODUCT_SHAPE_H
#define STRATA_TRAIN_PRODUCT_SHAPE_H

/*
 * The shape of a matrix product, on whatever device: c (rows x cols) = op(a) (rows x depth)
 * op(b) (depth x cols), all row-major.
 *
 * Thread: any.
 */

#include <stdbool.h>
#include <stdint.h>

struct product_shape {
    uint64_t rows;
    uint64_t cols;
    uint64_t depth;
    uint64_t a_stride; /* elements from one row to the next, as it lies in memory */
    uint64_t b_stride;
    uint64_t c_stride;
    bool a_transposed;
    bool b_transposed;
};

/* A layer's three, with weights out x in and rows tokens, nothing with gaps:
 * linear:    y (rows x out) of x and the weights
 * linear_dx: dx (rows x in) of dy and the weights
 * linear_dw: dweight (out x in) of dy and x
 */
struct product_shape strata_product_linear(uint64_t rows, uint64_t in, uint64_t out);
struct product_shape strata_product_linear_dx(uint64_t rows, uint64_t in, uint64_t out);
struct product_shape strata_product_linear_dw(uint64_t rows, uint64_t in, uint64_t out);

/* Attention's three, of some query rows of a head and the keys that they see. The head's rows
 * lie q_stride or kv_stride apart, scores and the sums below have no gaps.
 * scores: rows x keys of q and the keys, or of o's gradient and the values
 * values: what scores make of keys or values: rows of o, or of q's gradient
 * keys:   what scores make of rows of q or of o's gradient: keys x head_dim
 */
struct product_rows {
    uint64_t rows;
    uint64_t keys;
    uint64_t head_dim;
    uint64_t q_stride;
    uint64_t kv_stride;
};
struct product_shape strata_product_scores(const struct product_rows *of);
struct product_shape strata_product_values(const struct product_rows *of);
struct product_shape strata_product_keys(const struct product_rows *of);

#endif
