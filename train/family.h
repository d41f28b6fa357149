#ifndef STRATA_TRAIN_FAMILY_H
#define STRATA_TRAIN_FAMILY_H

/*
 * A family of decoders: the switches of the decoder that its config.json sets. The table in
 * decoder_config.c lists all families; a new family is a new file and a line there.
 *
 * Thread: any.
 */

#include "train/config_reader.h"

struct decoder_family {
    const char *architecture; /* its name in `architectures` of a config.json */
    const char *model_type;
    /* *out is zeroed before the call. */
    strata_status (*read)(struct config_reader *r, struct decoder_config *out);
};

extern const struct decoder_family strata_family_llama;
extern const struct decoder_family strata_family_mistral;
extern const struct decoder_family strata_family_qwen2;
extern const struct decoder_family strata_family_qwen3;

#endif
