#ifndef STRATA_TRAIN_CONFIG_READER_H
#define STRATA_TRAIN_CONFIG_READER_H

/*
 * What the readers of the families' config.json share.
 *
 * Strict where it decides the numbers: a key that would change the arithmetic and is not
 * carried out is refused by its name, so nobody trains something else than the file says. Keys
 * that nobody reads are passed over. Absent keys have the defaults of the transformers library,
 * except the five sizes, which must be there. null is absent, but for two keys that say so.
 *
 * Everything returns STRATA_OK or STRATA_E_INVALID with a line that names key and value.
 *
 * Thread: any.
 */

#include "base/json.h"
#include "train/decoder.h"

/* Larger than any model there is by a factor of 16 or more, and small enough that no product of
 * sizes in this program leaves 64 bits. */
#define CONFIG_VOCAB_MAX  (UINT64_C(1) << 24)
#define CONFIG_WIDTH_MAX  (UINT64_C(1) << 20)
#define CONFIG_LAYERS_MAX (UINT64_C(1) << 14)
#define CONFIG_HEADS_MAX  (UINT64_C(1) << 14)
#define CONFIG_WINDOW_MAX (UINT64_C(1) << 31)

/* The document and where its story goes. */
struct config_reader {
    const strata_json *doc;
    strata_error *error;
};

/* A whole number from least to most; 256.0 is one. _or: *out keeps its value where the key is
 * absent. */
strata_status strata_config_whole(struct config_reader *r, const char *key, uint64_t least,
                                  uint64_t most, uint64_t *out);
strata_status strata_config_whole_or(struct config_reader *r, const char *key, uint64_t least,
                                     uint64_t most, uint64_t *out);

/* A number above 0. */
strata_status strata_config_positive(struct config_reader *r, const char *key, double *out);
strata_status strata_config_positive_or(struct config_reader *r, const char *key, double *out);

strata_status strata_config_bool_or(struct config_reader *r, const char *key, bool *out);

/* Absent, or nothing else than this. */
strata_status strata_config_only_false(struct config_reader *r, const char *key);
strata_status strata_config_only_number(struct config_reader *r, const char *key,
                                        double wanted);
strata_status strata_config_only_absent(struct config_reader *r, const char *key);

/*
 * What every family has: sizes, heads, norm, activation, tied head, rotary embedding; none has
 * biases in its MLP. Beforehand *out holds the family's defaults of kv_head_count and head_dim
 * (0: as many as heads; hidden_size over heads).
 */
strata_status strata_config_common(struct config_reader *r, struct decoder_config *out);

/* rope_theta with rope_scaling, or rope_parameters, which newer files have in their place. */
strata_status strata_config_rope(struct config_reader *r, struct decoder_config *out);

/* layer_types where there is one: full layers, then layers with a window from full_layers on.
 * Without a window every layer must be full. */
strata_status strata_config_layer_types(struct config_reader *r, struct decoder_config *out);

/* Qwen's three keys for windows, and layer_types. */
strata_status strata_config_qwen_window(struct config_reader *r, struct decoder_config *out);

#endif
