#ifndef STRATA_OPTIM_LOSS_SCALE_H
#define STRATA_OPTIM_LOSS_SCALE_H

/*
 * The factor of the loss that makes gradients fit fp16, found by trial.
 *
 * A step whose gradient is not finite is skipped, and the scale is halved. The scale is
 * doubled whenever the count of applied updates reaches a multiple of
 * LOSS_SCALE_GROWTH_UPDATES. Other trainers count from the last skipped step. Counting all
 * updates costs a skipped step now and then, but needs no counter of its own: a resume knows
 * all from the scale and the updates, which every commit holds.
 *
 * Scales are powers of two, so multiplying by one and dividing again changes no bit.
 *
 * Thread: any.
 */

#include <stdbool.h>
#include <stdint.h>

/* The usual first scale; if it is too high, the first steps halve it. */
#define LOSS_SCALE_FIRST 65536.0
/* With scale 1 an overflow has another cause than the scale. */
#define LOSS_SCALE_LEAST          1.0
#define LOSS_SCALE_GROWTH_UPDATES 2000u

/* The scale after an update; updates counts all applied ones. */
static inline double strata_loss_scale_grow(double scale, uint64_t updates)
{
    return updates % LOSS_SCALE_GROWTH_UPDATES == 0 ? 2 * scale : scale;
}

/* True when a smaller scale is left to try. */
static inline bool strata_loss_scale_can_shrink(double scale)
{
    return scale / 2 >= LOSS_SCALE_LEAST;
}

static inline double strata_loss_scale_shrink(double scale)
{
    return scale / 2;
}

#endif
