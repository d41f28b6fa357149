/* See decoder_rig.h. Thread: the test's. */

#include "tests/support/decoder_rig.h"

#include "base/error.h"

#include <string.h>

/* More than any model of these tests takes with everything in one tier. */
#define PLENTY_BYTES (UINT64_C(512) << 20)

static strata_status open_machine(struct decoder_rig *rig, uint32_t threads,
                                  strata_error *error)
{
    strata_workers_desc desc = {.thread_count = threads != 0 ? threads : 2, .unbound = true};
    STRATA_TRY(strata_device_open_host(&rig->device, error));
    STRATA_TRY(strata_stream_create(&rig->stream, rig->device, "compute", error));
    return strata_workers_create(&rig->workers, &desc, error);
}

strata_status strata_test_decoder_open(struct decoder_rig *rig,
                                       const struct decoder_rig_desc *desc, strata_error *error)
{
    memset(rig, 0, sizeof *rig);
    STRATA_TRY(open_machine(rig, desc->threads, error));
    STRATA_TRY(
        strata_decoder_create(&rig->decoder, &desc->config, &desc->shape, rig->workers, error));
    STRATA_TRY(strata_decoder_rehearse(rig->decoder, rig->device, rig->stream, error));
    rig->init = (struct decoder_init){.decoder = rig->decoder, .seed = 1};
    strata_engine_desc engine = {
        .device = rig->device,
        .workers = rig->workers,
        .model = strata_decoder_model(rig->decoder),
        .compute_dtype = desc->shape.compute_dtype,
        .adam = &desc->adam,
        .init = desc->init != NULL ? desc->init : strata_decoder_init_weights,
        .init_user = desc->init != NULL ? desc->init_user : &rig->init,
        .clip = desc->clip,
        .device_bytes = desc->device_bytes != 0 ? desc->device_bytes : PLENTY_BYTES,
        .host_bytes = desc->host_bytes != 0 ? desc->host_bytes : PLENTY_BYTES,
        .stash = desc->stash,
    };
    return strata_engine_create(&rig->engine, &engine, error);
}

void strata_test_decoder_close(struct decoder_rig *rig)
{
    strata_engine_destroy(rig->engine);
    strata_decoder_destroy(rig->decoder);
    strata_workers_destroy(rig->workers);
    strata_stream_destroy(rig->stream);
    strata_device_close(rig->device);
}

strata_status strata_test_decoder_step(struct decoder_rig *rig, double lr,
                                       const uint32_t *tokens, double *out_loss,
                                       strata_step_result *out)
{
    STRATA_TRY(strata_step_begin(rig->engine, lr));
    STRATA_TRY(strata_decoder_step(rig->decoder, rig->engine, rig->stream, tokens, tokens + 1));
    STRATA_TRY(strata_step_end(rig->engine));
    rig->steps++;
    strata_stream_sync(rig->stream);
    *out_loss = strata_decoder_loss(rig->decoder, rig->engine, rig->stream);
    return strata_wait(rig->engine, rig->steps, out);
}
