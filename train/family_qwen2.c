/*
 * Qwen2 and Qwen2.5: Llama with biases on queries, keys and values. If asked for, layers from
 * a certain one on have a window.
 *
 * Thread: any.
 */

#include "train/family.h"

#include "base/error.h"

static strata_status read_config(struct config_reader *r, struct decoder_config *out)
{
    out->kv_head_count = 32;
    out->qkv_bias = true;
    STRATA_TRY(strata_config_only_false(r, "use_mrope"));
    STRATA_TRY(strata_config_common(r, out));
    return strata_config_qwen_window(r, out);
}

const struct decoder_family strata_family_qwen2 = {
    .architecture = "Qwen2ForCausalLM",
    .model_type = "qwen2",
    .read = read_config,
};
