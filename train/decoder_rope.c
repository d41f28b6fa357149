/*
 * The rotary table: cosines and sines of every position, copied into scratch by each step.
 *
 * Pair i of the d elements that are turned has the frequency f = theta^(-2 i / d), in radians a
 * position. Trained further on longer texts, a model has other frequencies:
 *
 *     linear   f / factor
 *     llama3   long waves, with less than low_freq_factor turns in original_positions,
 *              f / factor; short ones, with more than high_freq_factor, f; blended between
 *     yarn     f up to the pair that makes beta_fast turns in original_positions, f / factor
 *              from the one that makes beta_slow on, blended between by the pair's number;
 *              cosines and sines times attention_factor
 *
 * These are the transformers library's definitions (modeling_rope_utils.py), in double.
 *
 * Thread: the caller's.
 */

#include "train/decoder_model.h"

#include "base/error.h"

#include <math.h>

static double two_pi(void)
{
    return 2.0 * acos(-1.0);
}

static double llama3_frequency(const struct decoder_rope *rope, double frequency)
{
    double waves = rope->original_positions * frequency / two_pi(); /* in the original length */
    if (waves < rope->low_freq_factor)
        return frequency / rope->factor;
    if (waves > rope->high_freq_factor)
        return frequency;
    double smooth =
        (waves - rope->low_freq_factor) / (rope->high_freq_factor - rope->low_freq_factor);
    return (1.0 - smooth) * frequency / rope->factor + smooth * frequency;
}

/* The number of the pair that makes so many turns in the original length, as a fraction. */
static double yarn_pair(const struct decoder_rope *rope, uint64_t turned, double turns)
{
    return (double)turned * log(rope->original_positions / (turns * two_pi())) /
           (2.0 * log(rope->theta));
}

static double yarn_frequency(const struct decoder_rope *rope, uint64_t turned, uint64_t pair,
                             double frequency)
{
    double low = yarn_pair(rope, turned, rope->beta_fast);
    double high = yarn_pair(rope, turned, rope->beta_slow);
    if (rope->whole_pairs) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0.0);
    high = fmin(high, (double)turned - 1.0);
    if (low == high)
        high += 0.001; /* as the library does: the blend is a step then */
    double slowed = fmin(fmax(((double)pair - low) / (high - low), 0.0), 1.0);
    return frequency / rope->factor * slowed + frequency * (1.0 - slowed);
}

static double rotary_frequency(const struct decoder_rope *rope, uint64_t turned, uint64_t pair)
{
    double frequency = pow(rope->theta, -2.0 * (double)pair / (double)turned);
    switch (rope->type) {
    case DECODER_ROPE_LLAMA3:
        return llama3_frequency(rope, frequency);
    case DECODER_ROPE_LINEAR:
        return frequency / rope->factor;
    case DECODER_ROPE_YARN:
        return yarn_frequency(rope, turned, pair, frequency);
    case DECODER_ROPE_DEFAULT:
        break;
    }
    return frequency;
}

strata_status strata_decoder_build_rotary(struct decoder *decoder, strata_error *error)
{
    const struct decoder_rope *rope = &decoder->config.rope;
    uint64_t turned = decoder_turned(&decoder->config);
    uint64_t half = turned / 2;
    double scale = rope->type == DECODER_ROPE_YARN ? rope->attention_factor : 1.0;
    decoder->rotary =
        decoder_take(decoder, decoder->shape.seq * turned, sizeof *decoder->rotary);
    if (decoder->rotary == NULL)
        return strata_fail(error, STRATA_E_NOMEM, 0,
                           "no memory for the rotary table of %u positions",
                           decoder->shape.seq);
    for (uint64_t i = 0; i < half; i++) {
        double frequency = rotary_frequency(rope, turned, i);
        for (uint64_t position = 0; position < decoder->shape.seq; position++) {
            double angle = (double)position * frequency;
            decoder->rotary[position * turned + i] = (float)(scale * cos(angle));
            decoder->rotary[position * turned + half + i] = (float)(scale * sin(angle));
        }
    }
    return STRATA_OK;
}
