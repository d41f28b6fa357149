#ifndef STRATA_TRAIN_FAMILY_H
#define STRATA_TRAIN_FAMILY_H

/*
 * A family of decoders: which of the decoder's switches its config.json sets, and how. The
 * table in decoder_config.c holds them all; another family is another file and a line there.
 *
 * Thread: any.
 */

#include "train/config_reader.h"

struct decoder_family {
    const char *architecture; /* as `architectures` of a config.json says it */
    const char *model_type;
    /* *out is zeroed beforehand. */
    strata_status (*read)(struct config_reader *r, struct decoder_config *out);
};

extern const struct decoder_family strata_family_llama;
extern const struct decoder_family strata_family_mistral;
extern const struct decoder_family strata_family_qwen2;
extern const struct decoder_family strata_family_qwen3;

#endif
