#ifndef STRATA_OPTIM_LOSS_SCALE_H
#define STRATA_OPTIM_LOSS_SCALE_H

/*
 * What the loss is multiplied with so that gradients fit fp16, found by trying.
 *
 * A step whose gradient is not finite is skipped, and the scale halved. Where updates go well
 * for long, a larger scale is tried: it doubles whenever the count of applied updates reaches a
 * multiple of LOSS_SCALE_GROWTH_UPDATES. Others count from the last skipped step; counting all
 * updates costs a step now and then, and needs no number of its own: scale and updates, which
 * every commit holds, say all that a resume has to know.
 *
 * Scales are powers of two, so that multiplying by one and dividing again changes no bit.
 *
 * Thread: any.
 */

#include <stdbool.h>
#include <stdint.h>

/* As high as others begin; if it is too high, the first steps halve it. */
#define LOSS_SCALE_FIRST 65536.0
/* A gradient that overflows without a scale is no matter of scale. */
#define LOSS_SCALE_LEAST          1.0
#define LOSS_SCALE_GROWTH_UPDATES 2000u

/* After an update has been applied, the updates-th. */
static inline double strata_loss_scale_grow(double scale, uint64_t updates)
{
    return updates % LOSS_SCALE_GROWTH_UPDATES == 0 ? 2 * scale : scale;
}

/* May a step be skipped for its scale? */
static inline bool strata_loss_scale_can_shrink(double scale)
{
    return scale / 2 >= LOSS_SCALE_LEAST;
}

static inline double strata_loss_scale_shrink(double scale)
{
    return scale / 2;
}

#endif
