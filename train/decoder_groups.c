/*
 * Groups and tensors of the model, and its initial weights.
 *
 * Initial weights are numbered by the tensor as if it were not sliced, so the number of slices
 * changes none of them.
 *
 * Thread: the caller's.
 */

#include "train/decoder_model.h"

#include "base/error.h"
#include "base/random.h"

#include <stdio.h>

#define NAME_BYTES 64u

/* Groups and tensors. A builder knows the next free entry of each array. */

struct builder {
    struct decoder *decoder;
    strata_group_desc *group;
    strata_tensor_desc *tensor;
    char *name;
};

/* The name just printed at b->name. */
static const char *keep_name(struct builder *b)
{
    const char *name = b->name;
    b->name += NAME_BYTES;
    return name;
}

static void add_tensor(struct builder *b, uint64_t rows, uint64_t cols)
{
    b->group->tensor_count++;
    *b->tensor++ = (strata_tensor_desc){.name = keep_name(b), .shape = {rows, cols}, .rank = 2};
}

/* A norm's weight or a bias: neither is decayed. */
static void add_vector(struct builder *b, uint64_t count)
{
    b->group->tensor_count++;
    *b->tensor++ = (strata_tensor_desc){
        .name = keep_name(b), .shape = {count}, .rank = 1, .no_decay = true};
}

static void begin_group(struct builder *b)
{
    b->group->name = keep_name(b);
    b->group->tensors = b->tensor;
}

static void add_slices(struct builder *b, const char *group, const char *tensor)
{
    uint32_t slices = b->decoder->shape.vocab_slices;
    for (uint32_t i = 0; i < slices; i++, b->group++) {
        uint64_t first = decoder_slice_first(b->decoder, i);
        char suffix[16] = "";
        if (slices > 1)
            snprintf(suffix, sizeof suffix, "#%u", i);
        snprintf(b->name, NAME_BYTES, "%s%s", group, suffix);
        begin_group(b);
        snprintf(b->name, NAME_BYTES, "%s%s", tensor, suffix);
        add_tensor(b, decoder_slice_first(b->decoder, i + 1) - first,
                   b->decoder->config.hidden_size);
    }
}

/* A tensor of a layer. cols 0: a vector, which begins as all `value`. */
struct layer_part {
    const char *name;
    uint64_t rows;
    uint64_t cols;
    float value;
    bool absent;
};

static struct layer_part layer_part(const struct decoder_config *c,
                                    enum decoder_layer_tensor tensor)
{
    uint64_t hidden = c->hidden_size, ffn = c->ffn_size;
    uint64_t q = decoder_q_width(c), kv = decoder_kv_width(c);
    const struct layer_part parts[DECODER_LAYER_TENSORS] = {
        [DECODER_INPUT_NORM] = {"input_layernorm.weight", hidden, 0, 1.0f, false},
        [DECODER_Q] = {"self_attn.q_proj.weight", q, hidden, 0.0f, false},
        [DECODER_K] = {"self_attn.k_proj.weight", kv, hidden, 0.0f, false},
        [DECODER_V] = {"self_attn.v_proj.weight", kv, hidden, 0.0f, false},
        [DECODER_Q_BIAS] = {"self_attn.q_proj.bias", q, 0, 0.0f, !c->qkv_bias},
        [DECODER_K_BIAS] = {"self_attn.k_proj.bias", kv, 0, 0.0f, !c->qkv_bias},
        [DECODER_V_BIAS] = {"self_attn.v_proj.bias", kv, 0, 0.0f, !c->qkv_bias},
        [DECODER_Q_NORM] = {"self_attn.q_norm.weight", c->head_dim, 0, 1.0f, !c->qk_norm},
        [DECODER_K_NORM] = {"self_attn.k_norm.weight", c->head_dim, 0, 1.0f, !c->qk_norm},
        [DECODER_O] = {"self_attn.o_proj.weight", hidden, q, 0.0f, false},
        [DECODER_POST_NORM] = {"post_attention_layernorm.weight", hidden, 0, 1.0f, false},
        [DECODER_GATE] = {"mlp.gate_proj.weight", ffn, hidden, 0.0f, false},
        [DECODER_UP] = {"mlp.up_proj.weight", ffn, hidden, 0.0f, false},
        [DECODER_DOWN] = {"mlp.down_proj.weight", hidden, ffn, 0.0f, false},
    };
    return parts[tensor];
}

static void add_layer(struct builder *b, uint32_t layer)
{
    snprintf(b->name, NAME_BYTES, "layer %u", layer);
    begin_group(b);
    for (uint32_t i = 0; i < DECODER_LAYER_TENSORS; i++) {
        struct layer_part part = layer_part(&b->decoder->config, i);
        if (part.absent)
            continue;
        snprintf(b->name, NAME_BYTES, "model.layers.%u.%s", layer, part.name);
        if (part.cols == 0)
            add_vector(b, part.rows);
        else
            add_tensor(b, part.rows, part.cols);
    }
    b->group++;
}

/* Every layer has its tensors at the same places. */
static void find_layer_places(struct decoder *decoder)
{
    uint64_t offset = 0;
    for (uint32_t i = 0; i < DECODER_LAYER_TENSORS; i++) {
        struct layer_part part = layer_part(&decoder->config, i);
        if (part.absent)
            continue;
        decoder->layer_offset[i] = offset;
        decoder->layer_place[i] = decoder->layer_tensors++;
        offset += part.cols == 0 ? part.rows : part.rows * part.cols;
    }
}

strata_status strata_decoder_build_groups(struct decoder *decoder, strata_error *error)
{
    uint32_t slices = decoder->shape.vocab_slices;
    uint32_t layers = (uint32_t)decoder->config.layer_count;
    uint32_t ends = decoder->config.tied ? slices : 2 * slices;
    find_layer_places(decoder);
    uint32_t group_count = ends + layers + 1;
    uint32_t tensor_count = ends + layers * decoder->layer_tensors + 1;
    decoder->groups = decoder_take(decoder, group_count, sizeof *decoder->groups);
    decoder->tensors = decoder_take(decoder, tensor_count, sizeof *decoder->tensors);
    decoder->names = decoder_take(decoder, (uint64_t)group_count + tensor_count, NAME_BYTES);
    if (decoder->groups == NULL || decoder->tensors == NULL || decoder->names == NULL)
        return strata_fail(error, STRATA_E_NOMEM, 0, "no memory for the names of %u tensors",
                           tensor_count);
    struct builder b = {decoder, decoder->groups, decoder->tensors, decoder->names};
    add_slices(&b, "embedding", "model.embed_tokens.weight");
    for (uint32_t layer = 0; layer < layers; layer++)
        add_layer(&b, layer);
    snprintf(b.name, NAME_BYTES, "norm");
    begin_group(&b);
    snprintf(b.name, NAME_BYTES, "model.norm.weight");
    add_vector(&b, decoder->config.hidden_size);
    b.group++;
    if (!decoder->config.tied)
        add_slices(&b, "head", "lm_head.weight");
    decoder->model.groups = decoder->groups;
    decoder->model.group_count = group_count;
    return STRATA_OK;
}

/* Initial weights. */

/* A tensor's number, and its first row's, as if embedding and head were not sliced. */
struct whole_tensor {
    uint32_t index;
    uint64_t first_elem;
    bool constant;
    float value; /* of a constant */
};

static struct whole_tensor whole_layer_tensor(const struct decoder *decoder, uint32_t layer,
                                              uint32_t place)
{
    struct whole_tensor whole = {.index = 1 + layer * decoder->layer_tensors + place};
    for (uint32_t i = 0; i < DECODER_LAYER_TENSORS; i++) {
        struct layer_part part = layer_part(&decoder->config, i);
        if (part.absent || decoder->layer_place[i] != place)
            continue;
        whole.constant = part.cols == 0;
        whole.value = part.value;
    }
    return whole;
}

static struct whole_tensor whole_tensor_of(const struct decoder *decoder, uint32_t group,
                                           uint32_t tensor)
{
    uint32_t slices = decoder->shape.vocab_slices;
    uint32_t layers = (uint32_t)decoder->config.layer_count;
    uint32_t after = 1 + layers * decoder->layer_tensors;
    uint64_t width = decoder->config.hidden_size;
    if (group < slices)
        return (struct whole_tensor){.first_elem = decoder_slice_first(decoder, group) * width};
    if (group < slices + layers)
        return whole_layer_tensor(decoder, group - slices, tensor);
    if (group == slices + layers)
        return (struct whole_tensor){.index = after, .constant = true, .value = 1.0f};
    uint32_t slice = group - slices - layers - 1;
    return (struct whole_tensor){.index = after + 1,
                                 .first_elem = decoder_slice_first(decoder, slice) * width};
}

void strata_decoder_init_weights(void *user, uint32_t group, uint32_t tensor, uint64_t first,
                                 uint64_t count, float *out)
{
    const struct decoder_init *init = user;
    struct whole_tensor whole = whole_tensor_of(init->decoder, group, tensor);
    if (whole.constant) {
        for (uint64_t i = 0; i < count; i++)
            out[i] = whole.value;
        return;
    }
    strata_random_normal(init->seed, whole.index, whole.first_elem + first, count,
                         (float)init->decoder->config.initializer_range, out);
}
