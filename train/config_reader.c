/* See config_reader.h. Thread: any. */

#include "train/config_reader.h"

#include "base/error.h"

#include <math.h>
#include <string.h>

strata_status strata_config_whole(struct config_reader *r, const char *key, uint64_t least,
                                  uint64_t most, uint64_t *out)
{
    double value;
    STRATA_TRY(strata_json_get_number(r->doc, key, &value, r->error));
    if (value != floor(value))
        return strata_fail(r->error, STRATA_E_INVALID, 0, "%s is %g: must be a whole number",
                           key, value);
    if (!(value >= (double)least))
        return strata_fail(r->error, STRATA_E_INVALID, 0, "%s is %.0f: must be at least %llu",
                           key, value, (unsigned long long)least);
    if (!(value <= (double)most))
        return strata_fail(r->error, STRATA_E_INVALID, 0, "%s is %.0f: at most %llu", key,
                           value, (unsigned long long)most);
    *out = (uint64_t)value;
    return STRATA_OK;
}

strata_status strata_config_whole_or(struct config_reader *r, const char *key, uint64_t least,
                                     uint64_t most, uint64_t *out)
{
    return strata_json_has(r->doc, key) ? strata_config_whole(r, key, least, most, out)
                                        : STRATA_OK;
}

strata_status strata_config_positive(struct config_reader *r, const char *key, double *out)
{
    STRATA_TRY(strata_json_get_number(r->doc, key, out, r->error));
    if (!(*out > 0.0) || !isfinite(*out))
        return strata_fail(r->error, STRATA_E_INVALID, 0, "%s is %g: must be above 0", key,
                           *out);
    return STRATA_OK;
}

strata_status strata_config_positive_or(struct config_reader *r, const char *key, double *out)
{
    return strata_json_has(r->doc, key) ? strata_config_positive(r, key, out) : STRATA_OK;
}

strata_status strata_config_bool_or(struct config_reader *r, const char *key, bool *out)
{
    return strata_json_has(r->doc, key) ? strata_json_get_bool(r->doc, key, out, r->error)
                                        : STRATA_OK;
}

strata_status strata_config_only_false(struct config_reader *r, const char *key)
{
    bool value = false;
    STRATA_TRY(strata_config_bool_or(r, key, &value));
    if (value)
        return strata_fail(r->error, STRATA_E_INVALID, 0,
                           "%s is true: only false can be carried out here", key);
    return STRATA_OK;
}

strata_status strata_config_only_number(struct config_reader *r, const char *key, double wanted)
{
    double value;
    if (!strata_json_has(r->doc, key))
        return STRATA_OK;
    STRATA_TRY(strata_json_get_number(r->doc, key, &value, r->error));
    if (value != wanted)
        return strata_fail(r->error, STRATA_E_INVALID, 0,
                           "%s is %g: only %g can be carried out here", key, value, wanted);
    return STRATA_OK;
}

strata_status strata_config_only_absent(struct config_reader *r, const char *key)
{
    if (!strata_json_has(r->doc, key))
        return STRATA_OK;
    return strata_fail(r->error, STRATA_E_INVALID, 0,
                       "%s is set: it cannot be carried out here; give a model without it",
                       key);
}

static strata_status read_activation(struct config_reader *r, struct decoder_config *out)
{
    static const struct {
        const char *name;
        enum op_activation activation;
    } known[] = {{"silu", OP_SILU},
                 {"swish", OP_SILU},
                 {"gelu", OP_GELU},
                 {"gelu_new", OP_GELU_TANH},
                 {"gelu_pytorch_tanh", OP_GELU_TANH}};
    const char *name;
    out->activation = OP_SILU;
    if (!strata_json_has(r->doc, "hidden_act"))
        return STRATA_OK;
    STRATA_TRY(strata_json_get_string(r->doc, "hidden_act", &name, r->error));
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(known[i].name, name) != 0)
            continue;
        out->activation = known[i].activation;
        return STRATA_OK;
    }
    return strata_fail(
        r->error, STRATA_E_INVALID, 0,
        "hidden_act is \"%.64s\": only silu, gelu and gelu_pytorch_tanh are known", name);
}

static strata_status read_head_dim(struct config_reader *r, struct decoder_config *out)
{
    STRATA_TRY(strata_config_whole_or(r, "head_dim", 1, CONFIG_WIDTH_MAX, &out->head_dim));
    if (out->head_dim == 0 && out->hidden_size % out->head_count != 0)
        return strata_fail(r->error, STRATA_E_INVALID, 0,
                           "hidden_size is %llu: not a multiple of num_attention_heads, %llu",
                           (unsigned long long)out->hidden_size,
                           (unsigned long long)out->head_count);
    if (out->head_dim == 0)
        out->head_dim = out->hidden_size / out->head_count;
    if (out->head_dim % 2 != 0)
        return strata_fail(r->error, STRATA_E_INVALID, 0,
                           "head_dim is %llu: must be even, rotary embedding turns pairs",
                           (unsigned long long)out->head_dim);
    if (out->head_dim * out->head_count > CONFIG_WIDTH_MAX)
        return strata_fail(r->error, STRATA_E_INVALID, 0,
                           "head_dim is %llu: times num_attention_heads, %llu, at most %llu",
                           (unsigned long long)out->head_dim,
                           (unsigned long long)out->head_count,
                           (unsigned long long)CONFIG_WIDTH_MAX);
    return STRATA_OK;
}

static strata_status read_heads(struct config_reader *r, struct decoder_config *out)
{
    STRATA_TRY(
        strata_config_whole(r, "num_attention_heads", 1, CONFIG_HEADS_MAX, &out->head_count));
    /* null means as many as heads; if the key is absent, the family's default holds. */
    if (strata_json_is_null(r->doc, "num_key_value_heads") || out->kv_head_count == 0)
        out->kv_head_count = out->head_count;
    STRATA_TRY(strata_config_whole_or(r, "num_key_value_heads", 1, CONFIG_HEADS_MAX,
                                      &out->kv_head_count));
    if (out->head_count % out->kv_head_count != 0)
        return strata_fail(
            r->error, STRATA_E_INVALID, 0,
            "num_attention_heads is %llu: not a multiple of num_key_value_heads, %llu",
            (unsigned long long)out->head_count, (unsigned long long)out->kv_head_count);
    return read_head_dim(r, out);
}

strata_status strata_config_common(struct config_reader *r, struct decoder_config *out)
{
    out->rms_eps = 1e-6;
    out->rope.theta = 10000.0;
    STRATA_TRY(strata_config_only_false(r, "mlp_bias"));
    STRATA_TRY(strata_config_only_number(r, "attention_dropout", 0.0));
    STRATA_TRY(strata_config_only_absent(r, "quantization_config"));
    STRATA_TRY(strata_config_whole(r, "vocab_size", 1, CONFIG_VOCAB_MAX, &out->vocab_size));
    STRATA_TRY(strata_config_whole(r, "hidden_size", 1, CONFIG_WIDTH_MAX, &out->hidden_size));
    STRATA_TRY(
        strata_config_whole(r, "num_hidden_layers", 1, CONFIG_LAYERS_MAX, &out->layer_count));
    STRATA_TRY(
        strata_config_whole(r, "intermediate_size", 1, CONFIG_WIDTH_MAX, &out->ffn_size));
    STRATA_TRY(read_heads(r, out));
    STRATA_TRY(strata_config_positive_or(r, "rms_norm_eps", &out->rms_eps));
    out->initializer_range = 0.02;
    STRATA_TRY(strata_config_positive_or(r, "initializer_range", &out->initializer_range));
    STRATA_TRY(strata_config_bool_or(r, "tie_word_embeddings", &out->tied));
    STRATA_TRY(read_activation(r, out));
    return strata_config_rope(r, out);
}

/* Sets whether layer `index` of layer_types has a window. */
static strata_status read_layer_type(struct config_reader *r, const strata_json *list,
                                     uint64_t index, bool *out)
{
    const char *name = strata_json_text_of(strata_json_at(list, index));
    *out = name != NULL && strcmp(name, "sliding_attention") == 0;
    if (*out || (name != NULL && strcmp(name, "full_attention") == 0))
        return STRATA_OK;
    return strata_fail(r->error, STRATA_E_INVALID, 0,
                       "layer_types: layer %llu is \"%.64s\": only full_attention and "
                       "sliding_attention are known",
                       (unsigned long long)index, name != NULL ? name : "no text");
}

strata_status strata_config_layer_types(struct config_reader *r, struct decoder_config *out)
{
    const strata_json *list;
    if (!strata_json_has(r->doc, "layer_types"))
        return STRATA_OK;
    STRATA_TRY(strata_json_get_array(r->doc, "layer_types", &list, r->error));
    if (strata_json_count(list) != out->layer_count)
        return strata_fail(r->error, STRATA_E_INVALID, 0,
                           "layer_types has %zu layers: num_hidden_layers is %llu",
                           strata_json_count(list), (unsigned long long)out->layer_count);
    uint64_t first = out->layer_count;
    for (uint64_t i = 0; i < out->layer_count; i++) {
        bool windowed;
        STRATA_TRY(read_layer_type(r, list, i, &windowed));
        if (windowed && out->window == 0)
            return strata_fail(r->error, STRATA_E_INVALID, 0,
                               "layer_types: layer %llu is sliding_attention, but no "
                               "sliding_window is in use",
                               (unsigned long long)i);
        if (!windowed && first < i)
            return strata_fail(r->error, STRATA_E_INVALID, 0,
                               "layer_types: layer %llu is full_attention after one with a "
                               "window: only windows from one layer on to the last are known",
                               (unsigned long long)i);
        if (windowed && first > i)
            first = i;
    }
    out->full_layers = first;
    return STRATA_OK;
}

strata_status strata_config_qwen_window(struct config_reader *r, struct decoder_config *out)
{
    bool use = false;
    uint64_t window = 4096, full_layers = 28;
    STRATA_TRY(strata_config_bool_or(r, "use_sliding_window", &use));
    STRATA_TRY(strata_config_whole_or(r, "sliding_window", 1, CONFIG_WINDOW_MAX, &window));
    STRATA_TRY(
        strata_config_whole_or(r, "max_window_layers", 0, CONFIG_LAYERS_MAX, &full_layers));
    if (use && !strata_json_is_null(r->doc, "sliding_window")) {
        out->window = window;
        out->full_layers = full_layers;
    }
    return strata_config_layer_types(r, out);
}
