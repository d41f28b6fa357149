#ifndef STRATA_BENCH_ROOFLINE_H
#define STRATA_BENCH_ROOFLINE_H

/*
 * What the operators of a decoder take on a GPU of the catalogue, before anything has run
 * there.
 *
 * A product is cut into tiles, and tiles run in waves over the multiprocessors: a wave that is
 * not full takes as long as one that is. It takes at least the time of its bytes. Other
 * operators take the time of their bytes, attention that of its FLOPs at a rate for its length.
 * Each begins with the gap between two kernels of one stream.
 *
 * The operators are those of a trainer that keeps bf16 between kernels, has a whole micro-batch
 * as rows of its products, makes q, k and v one product and gate and up another, adds the
 * residual in a product's epilogue, and has a deterministic gradient of attention. Rates and
 * their sources: catalogue.c, roofline.c.
 *
 * Thread: any; plain data.
 */

#include "bench/catalogue.h"
#include "train/decoder.h"

enum roofline_pass { ROOFLINE_FORWARD, ROOFLINE_AGAIN, ROOFLINE_BACKWARD, ROOFLINE_PASS_COUNT };

struct roofline_op {
    const char *name;
    double flops;   /* two for a multiply and an add */
    double bytes;   /* that have to be read and written at least */
    double bound_s; /* at the datasheet's rates, whichever is longer */
    double time_s;
};

#define ROOFLINE_MAX_OPS 16u

/* Rows of the products and the length of the sequences that they are of. */
struct roofline_shape {
    uint64_t tokens; /* of a micro-batch */
    uint64_t seq;
};

/* Of one layer, the mean of all where some have a window. AGAIN: what its backward repeats,
 * having kept its input alone. Returns how many. */
uint32_t strata_roofline_layer(struct roofline_op out[ROOFLINE_MAX_OPS], const struct gpu *gpu,
                               const struct decoder_config *config, struct roofline_shape shape,
                               enum roofline_pass pass);

/* Embedding, final norm, head and loss with their gradients, for the tokens of the shape. */
uint32_t strata_roofline_ends(struct roofline_op out[ROOFLINE_MAX_OPS], const struct gpu *gpu,
                              const struct decoder_config *config, struct roofline_shape shape);

/*
 * Seconds of computing after each entry of the use list of a decoder with this configuration
 * and shape of micro-batches, before the next. A layer's backward repeats all but its last
 * product; the head's logits are made twice, for the loss and for the gradient, slice by slice.
 * *out is owned, free().
 */
strata_status strata_roofline_uses(double **out, const struct gpu *gpu,
                                   const struct decoder_config *config,
                                   const struct decoder *decoder, struct roofline_shape shape,
                                   strata_error *error);

/* Model FLOPs of a token, forward and backward, nothing counted twice: six for each weight of a
 * product (the look-up is none), and six for each pair of a causal attention. */
double strata_roofline_model_flops(const struct decoder_config *config, uint64_t seq);

#endif
