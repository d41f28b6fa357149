/*
 * The rotary table: cosines and sines of every position, copied into scratch by each step.
 *
 * Thread: the caller's.
 */

#include "train/decoder_model.h"

#include "base/error.h"

#include <math.h>

/* Turns per position of pair i; llama3 slows the long waves down, and those between in part. */
static double rotary_frequency(const struct decoder_config *c, uint64_t pair)
{
    double frequency = pow(c->rope_theta, -2.0 * (double)pair / (double)c->head_dim);
    if (!c->rope_llama3)
        return frequency;
    double waves = c->rope_original_positions * frequency /
                   (2.0 * acos(-1.0)); /* in the original length */
    if (waves < c->rope_low_freq_factor)
        return frequency / c->rope_factor;
    if (waves > c->rope_high_freq_factor)
        return frequency;
    double smooth = (waves - c->rope_low_freq_factor) /
                    (c->rope_high_freq_factor - c->rope_low_freq_factor);
    return (1.0 - smooth) * frequency / c->rope_factor + smooth * frequency;
}

strata_status strata_decoder_build_rotary(struct decoder *decoder, strata_error *error)
{
    const struct decoder_config *c = &decoder->config;
    uint64_t half = c->head_dim / 2;
    decoder->rotary =
        decoder_take(decoder, decoder->shape.seq * c->head_dim, sizeof *decoder->rotary);
    if (decoder->rotary == NULL)
        return strata_fail(error, STRATA_E_NOMEM, 0,
                           "no memory for the rotary table of %u positions",
                           decoder->shape.seq);
    for (uint64_t i = 0; i < half; i++) {
        double frequency = rotary_frequency(c, i);
        for (uint64_t position = 0; position < decoder->shape.seq; position++) {
            double angle = (double)position * frequency;
            decoder->rotary[position * c->head_dim + i] = (float)cos(angle);
            decoder->rotary[position * c->head_dim + half + i] = (float)sin(angle);
        }
    }
    return STRATA_OK;
}
