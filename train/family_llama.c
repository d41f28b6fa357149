/*
 * Llama, of all versions up to 3.3.
 *
 * Thread: any.
 */

#include "train/family.h"

#include "base/error.h"

static strata_status read_config(struct config_reader *r, struct decoder_config *out)
{
    STRATA_TRY(strata_config_only_false(r, "attention_bias"));
    STRATA_TRY(strata_config_only_number(r, "pretraining_tp", 1.0));
    STRATA_TRY(strata_config_only_absent(r, "sliding_window"));
    STRATA_TRY(strata_config_common(r, out));
    /* For this family the transformers library requires this even if head_dim is given. */
    if (out->hidden_size % out->head_count != 0)
        return strata_fail(r->error, STRATA_E_INVALID, 0,
                           "hidden_size is %llu: not a multiple of num_attention_heads, %llu",
                           (unsigned long long)out->hidden_size,
                           (unsigned long long)out->head_count);
    return strata_config_layer_types(r, out);
}

const struct decoder_family strata_family_llama = {
    .architecture = "LlamaForCausalLM",
    .model_type = "llama",
    .read = read_config,
};
