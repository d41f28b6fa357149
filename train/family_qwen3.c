/*
 * Qwen3, dense: Llama with a norm of each query and key head before the rotary embedding. If
 * asked for, layers from a certain one on have a window.
 *
 * Thread: any.
 */

#include "train/family.h"

#include "base/error.h"

static strata_status read_config(struct config_reader *r, struct decoder_config *out)
{
    out->kv_head_count = 32;
    out->head_dim = 128;
    out->qk_norm = true;
    STRATA_TRY(strata_config_only_false(r, "attention_bias"));
    STRATA_TRY(strata_config_only_false(r, "use_mrope"));
    STRATA_TRY(strata_config_common(r, out));
    return strata_config_qwen_window(r, out);
}

const struct decoder_family strata_family_qwen3 = {
    .architecture = "Qwen3ForCausalLM",
    .model_type = "qwen3",
    .read = read_config,
};
