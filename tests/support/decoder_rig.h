#ifndef STRATA_TESTS_SUPPORT_DECODER_RIG_H
#define STRATA_TESTS_SUPPORT_DECODER_RIG_H

/*
 * A Llama with everything under it, on the host device: what tests of whole steps start from.
 *
 * Thread: the test's.
 */

#include "train/decoder.h"

struct decoder_rig_desc {
    struct decoder_config config;
    struct decoder_shape shape;
    strata_adam_params adam;
    float clip;
    uint32_t threads;    /* 0: 2                                             */
    strata_init_fn init; /* NULL: the model's own, of seed 1                 */
    void *init_user;
    uint64_t device_bytes; /* 0: enough for everything                         */
    uint64_t host_bytes;   /* 0: enough for everything                         */
    strata_tier stash;     /* STRATA_AUTO: as the plan likes                   */
};

struct decoder_rig {
    strata_device *device;
    strata_stream *stream;
    strata_workers *workers;
    struct decoder *decoder;
    struct decoder_init init;
    strata_engine *engine;
    uint64_t steps; /* done */
};

/* *rig is owned until strata_test_decoder_close(), after a failure too. */
strata_status strata_test_decoder_open(struct decoder_rig *rig,
                                       const struct decoder_rig_desc *desc,
                                       strata_error *error);
void strata_test_decoder_close(struct decoder_rig *rig);

/* One whole step; *out_loss and *out (may be NULL) are of this step. */
strata_status strata_test_decoder_step(struct decoder_rig *rig, double lr,
                                       const uint32_t *tokens, double *out_loss,
                                       strata_step_result *out);

#endif
