#ifndef STRATA_TRAIN_PRODUCT_H
#define STRATA_TRAIN_PRODUCT_H

/*
 * Matrix products on the host device, in fp32.
 *
 * Thread: any.
 */

#include "strata/workers.h"
#include "train/product_shape.h"

/* c = scale * op(a) op(b) + beta * c */
struct product {
    const float *a;
    const float *b;
    float *c;
    struct product_shape shape;
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
