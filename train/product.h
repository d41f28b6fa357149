#ifndef STRATA_TRAIN_PRODUCT_H
#define STRATA_TRAIN_PRODUCT_H

/*
 * Matrix products on the host device, in fp32.
 *
 * Thread: any.
 */

#include "strata/workers.h"

/* c (rows x cols) = scale * op(a) (rows x depth) op(b) (depth x cols) + beta * c, row-major. */
struct product {
    const float *a;
    const float *b;
    float *c;
    uint64_t rows;
    uint64_t cols;
    uint64_t depth;
    uint64_t a_stride; /* elements from one row to the next, as it lies in memory */
    uint64_t b_stride;
    uint64_t c_stride;
    bool a_transposed;
    bool b_transposed;
    float scale;
    float beta;
};

/* Once, before the first: OpenBLAS starts no threads of its own. */
void strata_host_product_setup(void);

/* The whole product, on the calling thread alone. */
void strata_host_product(const struct product *product);

/* The whole product on OpenBLAS's own threads, whose number decides bits: to compare with. */
void strata_host_product_threaded(const struct product *product, uint32_t threads);

/* The product cut into panels by its shape, each a job of the pool. */
void strata_host_panels(strata_workers *workers, const struct product *product);

#endif
