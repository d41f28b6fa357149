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
#include "base/shape.h"

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

static void add_norm(struct builder *b)
{
    b->group->tensor_count++;
    *b->tensor++ = (strata_tensor_desc){.name = keep_name(b),
                                        .shape = {b->decoder->config.hidden_size},
                                        .rank = 1,
                                        .no_decay = true};
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

static void add_matrix(struct builder *b, uint32_t layer, const char *name, uint64_t rows,
                       uint64_t cols)
{
    snprintf(b->name, NAME_BYTES, "model.layers.%u.%s.weight", layer, name);
    add_tensor(b, rows, cols);
}

static void add_layer_norm(struct builder *b, uint32_t layer, const char *name)
{
    snprintf(b->name, NAME_BYTES, "model.layers.%u.%s.weight", layer, name);
    add_norm(b);
}

/* In the order of enum decoder_layer_tensor. */
static void add_layer(struct builder *b, uint32_t layer)
{
    const struct decoder_config *c = &b->decoder->config;
    snprintf(b->name, NAME_BYTES, "layer %u", layer);
    begin_group(b);
    add_layer_norm(b, layer, "input_layernorm");
    add_matrix(b, layer, "self_attn.q_proj", decoder_q_width(c), c->hidden_size);
    add_matrix(b, layer, "self_attn.k_proj", decoder_kv_width(c), c->hidden_size);
    add_matrix(b, layer, "self_attn.v_proj", decoder_kv_width(c), c->hidden_size);
    add_matrix(b, layer, "self_attn.o_proj", c->hidden_size, decoder_q_width(c));
    add_layer_norm(b, layer, "post_attention_layernorm");
    add_matrix(b, layer, "mlp.gate_proj", c->ffn_size, c->hidden_size);
    add_matrix(b, layer, "mlp.up_proj", c->ffn_size, c->hidden_size);
    add_matrix(b, layer, "mlp.down_proj", c->hidden_size, c->ffn_size);
    b->group++;
}

/* Every layer has its tensors at the same places: those of the first. */
static void find_layer_offsets(struct decoder *decoder)
{
    const strata_group_desc *layer = &decoder->groups[decoder->shape.vocab_slices];
    uint64_t offset = 0;
    for (uint32_t i = 0; i < DECODER_LAYER_TENSORS; i++) {
        decoder->layer_offset[i] = offset;
        offset += strata_tensor_elems(&layer->tensors[i]);
    }
}

strata_status strata_decoder_build_groups(struct decoder *decoder, strata_error *error)
{
    uint32_t slices = decoder->shape.vocab_slices;
    uint32_t layers = (uint32_t)decoder->config.layer_count;
    uint32_t ends = decoder->config.tied ? slices : 2 * slices;
    uint32_t group_count = ends + layers + 1;
    uint32_t tensor_count = ends + layers * DECODER_LAYER_TENSORS + 1;
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
    add_norm(&b);
    b.group++;
    if (!decoder->config.tied)
        add_slices(&b, "head", "lm_head.weight");
    decoder->model.groups = decoder->groups;
    decoder->model.group_count = group_count;
    find_layer_offsets(decoder);
    return STRATA_OK;
}

/* Initial weights. */

/* A tensor's number, and its first row's, as if embedding and head were not sliced. */
struct whole_tensor {
    uint32_t index;
    uint64_t first_elem;
    bool norm;
};

static struct whole_tensor whole_tensor_of(const struct decoder *decoder, uint32_t group,
                                           uint32_t tensor)
{
    uint32_t slices = decoder->shape.vocab_slices;
    uint32_t layers = (uint32_t)decoder->config.layer_count;
    uint64_t width = decoder->config.hidden_size;
    if (group < slices)
        return (struct whole_tensor){0, decoder_slice_first(decoder, group) * width, false};
    if (group < slices + layers)
        return (struct whole_tensor){1 + (group - slices) * DECODER_LAYER_TENSORS + tensor, 0,
                                     tensor == DECODER_INPUT_NORM ||
                                         tensor == DECODER_POST_NORM};
    if (group == slices + layers)
        return (struct whole_tensor){1 + layers * DECODER_LAYER_TENSORS, 0, true};
    uint32_t slice = group - slices - layers - 1;
    return (struct whole_tensor){2 + layers * DECODER_LAYER_TENSORS,
                                 decoder_slice_first(decoder, slice) * width, false};
}

void strata_decoder_init_weights(void *user, uint32_t group, uint32_t tensor, uint64_t first,
                                 uint64_t count, float *out)
{
    const struct decoder_init *init = user;
    struct whole_tensor whole = whole_tensor_of(init->decoder, group, tensor);
    if (whole.norm) {
        for (uint64_t i = 0; i < count; i++)
            out[i] = 1.0f;
        return;
    }
    strata_random_normal(init->seed, whole.index, whole.first_elem + first, count,
                         (float)init->decoder->config.initializer_range, out);
}
