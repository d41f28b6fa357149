#ifndef STRATA_TRAIN_CONFIG_READER_H
#define STRATA_TRAIN_CONFIG_READER_H

/*
 * The functions that the families' readers of config.json share.
 *
 * A key that would change the arithmetic and is not supported is refused by name, so nobody
 * trains a different model than the file describes. Keys that no reader knows are ignored.
 * Absent keys have the defaults of the transformers library, except the five sizes, which are
 * required. null counts as absent, except for two keys whose comments say so.
 *
 * Every function returns STRATA_OK, or STRATA_E_INVALID with a message that names key and
 * value.
 *
 * Thread: any.
 */

#include "base/json.h"
#include "train/decoder.h"

/* At least 16 times as large as in any existing model, and small enough that no product of
 * sizes in this program exceeds 64 bits. */
#define CONFIG_VOCAB_MAX  (UINT64_C(1) << 24)
#define CONFIG_WIDTH_MAX  (UINT64_C(1) << 20)
#define CONFIG_LAYERS_MAX (UINT64_C(1) << 14)
#define CONFIG_HEADS_MAX  (UINT64_C(1) << 14)
#define CONFIG_WINDOW_MAX (UINT64_C(1) << 31)

/* The document, and the error that a refusal fills. */
struct config_reader {
    const strata_json *doc;
    strata_error *error;
};

/* A whole number from least to most; 256.0 is accepted. _or: *out keeps its value if the key
 * is absent. */
strata_status strata_config_whole(struct config_reader *r, const char *key, uint64_t least,
                                  uint64_t most, uint64_t *out);
strata_status strata_config_whole_or(struct config_reader *r, const char *key, uint64_t least,
                                     uint64_t most, uint64_t *out);

/* A number above 0. */
strata_status strata_config_positive(struct config_reader *r, const char *key, double *out);
strata_status strata_config_positive_or(struct config_reader *r, const char *key, double *out);

strata_status strata_config_bool_or(struct config_reader *r, const char *key, bool *out);

/* The key must be absent or have this value. */
strata_status strata_config_only_false(struct config_reader *r, const char *key);
strata_status strata_config_only_number(struct config_reader *r, const char *key,
                                        double wanted);
strata_status strata_config_only_absent(struct config_reader *r, const char *key);

/*
 * The keys of every family: sizes, heads, norm, activation, tied head, rotary embedding; no
 * family has biases in its MLP. Before the call *out holds the family's defaults of
 * kv_head_count and head_dim (0: as many as heads; hidden_size over heads).
 */
strata_status strata_config_common(struct config_reader *r, struct decoder_config *out);

/* rope_theta with rope_scaling, or rope_parameters, which replaces them in newer files. */
strata_status strata_config_rope(struct config_reader *r, struct decoder_config *out);

/* layer_types, if the file has it: full layers, then layers with a window from full_layers on.
 * Without a window every layer must be full. */
strata_status strata_config_layer_types(struct config_reader *r, struct decoder_config *out);

/* Qwen's three keys for windows, and layer_types. */
strata_status strata_config_qwen_window(struct config_reader *r, struct decoder_config *out);

#endif
