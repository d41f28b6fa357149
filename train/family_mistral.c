/*
 * Mistral: Llama with a window in every layer, and heads whose width need not follow from
 * hidden_size (Nemo).
 *
 * Thread: any.
 */

#include "train/family.h"

#include "base/error.h"

static strata_status read_config(struct config_reader *r, struct decoder_config *out)
{
    out->kv_head_count = 8;
    /* null means no window; a file without the key has the library's default. */
    out->window = strata_json_is_null(r->doc, "sliding_window") ? 0 : 4096;
    STRATA_TRY(strata_config_whole_or(r, "sliding_window", 1, CONFIG_WINDOW_MAX, &out->window));
    STRATA_TRY(strata_config_only_false(r, "attention_bias"));
    STRATA_TRY(strata_config_common(r, out));
    return strata_config_layer_types(r, out);
}

const struct decoder_family strata_family_mistral = {
    .architecture = "MistralForCausalLM",
    .model_type = "mistral",
    .read = read_config,
};
