#ifndef STRATA_TRAIN_RATE_H
#define STRATA_TRAIN_RATE_H

/*
 * The learning rate of a step: a warm-up, then either constant or falling to a least rate at
 * the last step.
 *
 * Steps count from 1. The warm-up rises in equal amounts from peak / warmup at step 1 to peak
 * at step warmup. After it a linear or cosine schedule falls and reaches `least` at step
 * `steps`. Without a warm-up the first step has the peak.
 *
 * Thread: plain data.
 */

#include <stdint.h>

enum rate_schedule { RATE_CONSTANT = 1, RATE_LINEAR, RATE_COSINE };

struct rate {
    enum rate_schedule schedule;
    double peak;
    double least;    /* ignored when constant     */
    uint64_t warmup; /* steps; 0: none            */
    uint64_t steps;  /* the step that has `least` */
};

/* The rate of step 1, 2, ...; after the last step it stays constant. */
double strata_rate_at(const struct rate *rate, uint64_t step);

#endif
