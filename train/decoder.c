/*
 * The model as the engine sees it: groups and tensors, the use list, the layout of scratch, the
 * initial weights.
 *
 * Everything follows from the configuration and the shape of a step, nothing from budgets. The
 * use list is what the walk (decoder_walk.c) meets, written down once. Initial weights are
 * numbered by the tensor as if it were not sliced, so the number of slices changes none of
 * them.
 *
 * Scratch has its peak in a layer's backward: x, dx, q, k, v, o, mid, and a piece of the MLP.
 * What head and embedding need lies in the same bytes.
 *
 * Thread: the caller's.
 */

#include "train/decoder_model.h"

#include "base/random.h"
#include "base/error.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define NAME_BYTES         64u
#define SLICE_ELEMS        (UINT64_C(1) << 24) /* what a slice has at most by default     */
#define ALIGN_BYTES        256u                /* what a GPU's libraries ask for at most   */
#define SCRATCH_UNIT_BYTES 4096u               /* a page                                  */
#define TOKENS_MAX         (UINT64_C(1) << 31) /* of a step                               */
#define USES_MAX           (UINT64_C(1) << 26) /* 1.5 GiB of use list: a typing error     */

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Zeroed memory of the object, counted. */
static void *take_zeroed(struct decoder *decoder, uint64_t count, uint64_t each)
{
    decoder->host_bytes += count * each;
    return calloc(count, each);
}

static uint64_t q_width(const struct decoder_config *c)
{
    return c->head_count * c->head_dim;
}

static uint64_t kv_width(const struct decoder_config *c)
{
    return c->kv_head_count * c->head_dim;
}

/* Vocabulary slices. */

uint64_t strata_decoder_slice_first(const struct decoder *decoder, uint32_t slice)
{
    return decoder->config.vocab_size * slice / decoder->shape.vocab_slices;
}

static uint64_t slice_rows_max(const struct decoder *decoder)
{
    uint64_t slices = decoder->shape.vocab_slices;
    return (decoder->config.vocab_size + slices - 1) / slices;
}

static uint32_t default_slices(const struct decoder_config *c)
{
    return (uint32_t)((c->vocab_size * c->hidden_size + SLICE_ELEMS - 1) / SLICE_ELEMS);
}

static strata_status check_shape(const struct decoder_config *config,
                                 const struct decoder_shape *shape, strata_error *error)
{
    if (shape->seq == 0 || shape->batch == 0 || shape->micro_batch == 0)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "seq %u, batch %u, micro-batch %u: each must be at least 1",
                           shape->seq, shape->batch, shape->micro_batch);
    if (shape->batch % shape->micro_batch != 0)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "micro-batch %u does not divide batch %u", shape->micro_batch,
                           shape->batch);
    if ((uint64_t)shape->seq * shape->batch > TOKENS_MAX)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "seq %u x batch %u: more than %llu tokens a step", shape->seq,
                           shape->batch, (unsigned long long)TOKENS_MAX);
    if (shape->vocab_slices > config->vocab_size)
        return strata_fail(error, STRATA_E_INVALID, 0, "%u vocabulary slices of %llu tokens",
                           shape->vocab_slices, (unsigned long long)config->vocab_size);
    if (shape->compute_dtype < STRATA_FP32 || shape->compute_dtype > STRATA_FP16)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "compute dtype %d: only fp32, bf16 and fp16 are known",
                           (int)shape->compute_dtype);
    uint64_t slices = shape->vocab_slices == 0 ? default_slices(config) : shape->vocab_slices;
    uint64_t visits =
        8 * slices + 8 * config->layer_count + 8; /* of a micro-batch to a group, at most */
    if (visits * (shape->batch / shape->micro_batch + 2) > USES_MAX)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "%u micro-batches of %llu layers and %llu vocabulary slices: "
                           "too many events a step",
                           shape->batch / shape->micro_batch,
                           (unsigned long long)config->layer_count, (unsigned long long)slices);
    return STRATA_OK;
}

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
        uint64_t first = strata_decoder_slice_first(b->decoder, i);
        char suffix[16] = "";
        if (slices > 1)
            snprintf(suffix, sizeof suffix, "#%u", i);
        snprintf(b->name, NAME_BYTES, "%s%s", group, suffix);
        begin_group(b);
        snprintf(b->name, NAME_BYTES, "%s%s", tensor, suffix);
        add_tensor(b, strata_decoder_slice_first(b->decoder, i + 1) - first,
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
    add_matrix(b, layer, "self_attn.q_proj", q_width(c), c->hidden_size);
    add_matrix(b, layer, "self_attn.k_proj", kv_width(c), c->hidden_size);
    add_matrix(b, layer, "self_attn.v_proj", kv_width(c), c->hidden_size);
    add_matrix(b, layer, "self_attn.o_proj", c->hidden_size, q_width(c));
    add_layer_norm(b, layer, "post_attention_layernorm");
    add_matrix(b, layer, "mlp.gate_proj", c->ffn_size, c->hidden_size);
    add_matrix(b, layer, "mlp.up_proj", c->ffn_size, c->hidden_size);
    add_matrix(b, layer, "mlp.down_proj", c->hidden_size, c->ffn_size);
    b->group++;
}

static strata_status build_groups(struct decoder *decoder, strata_error *error)
{
    uint32_t slices = decoder->shape.vocab_slices;
    uint32_t layers = (uint32_t)decoder->config.layer_count;
    uint32_t ends = decoder->config.tied ? slices : 2 * slices;
    uint32_t group_count = ends + layers + 1;
    uint32_t tensor_count = ends + layers * DECODER_LAYER_TENSORS + 1;
    decoder->groups = take_zeroed(decoder, group_count, sizeof *decoder->groups);
    decoder->tensors = take_zeroed(decoder, tensor_count, sizeof *decoder->tensors);
    decoder->names = take_zeroed(decoder, (uint64_t)group_count + tensor_count, NAME_BYTES);
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
    return STRATA_OK;
}

static uint64_t tensor_elems(const strata_tensor_desc *tensor)
{
    return tensor->rank == 1 ? tensor->shape[0] : tensor->shape[0] * tensor->shape[1];
}

/* Every layer has its tensors at the same places: those of the first. */
static void find_layer_offsets(struct decoder *decoder)
{
    const strata_group_desc *layer = &decoder->groups[decoder->shape.vocab_slices];
    uint64_t offset = 0;
    for (uint32_t i = 0; i < DECODER_LAYER_TENSORS; i++) {
        decoder->layer_offset[i] = offset;
        offset += tensor_elems(&layer->tensors[i]);
    }
}

/* The use list: what the walk meets. Counted on the first walk, written on the second. */

struct recorder {
    const struct decoder *decoder;
    strata_use *uses; /* NULL: count only */
    uint32_t count;
};

static strata_status record_use(void *user, const strata_use *use, enum decoder_array array)
{
    (void)array;
    struct recorder *recorder = user;
    if (recorder->uses != NULL)
        recorder->uses[recorder->count] = *use;
    recorder->count++;
    return STRATA_OK;
}

static void record_work(void *user, const struct decoder_task *task)
{
    struct recorder *recorder = user;
    if (recorder->uses != NULL)
        recorder->uses[recorder->count - 1].flops +=
            strata_decoder_flops(recorder->decoder, task);
}

static strata_status build_uses(struct decoder *decoder, strata_error *error)
{
    struct recorder recorder = {.decoder = decoder};
    const struct decoder_visitor visitor = {record_use, record_work, &recorder};
    STRATA_TRY(strata_decoder_walk(decoder, &visitor));
    decoder->uses = take_zeroed(decoder, recorder.count, sizeof *decoder->uses);
    if (decoder->uses == NULL)
        return strata_fail(error, STRATA_E_NOMEM, 0, "no memory for a use list of %u events",
                           recorder.count);
    recorder = (struct recorder){.decoder = decoder, .uses = decoder->uses};
    STRATA_TRY(strata_decoder_walk(decoder, &visitor));
    decoder->model.uses = decoder->uses;
    decoder->model.use_count = recorder.count;
    return STRATA_OK;
}

/* Rotary table. */

/* Turns per position of pair i; llama3 slows the long waves down, and those between in part. */
static double rotary_frequency(const struct decoder_config *c, uint64_t pair)
{
    double frequency = pow(c->rope_theta, -2.0 * (double)pair / (double)c->head_dim);
    if (!c->rope_llama3)
        return frequency;
    double waves = c->rope_original_positions * frequency /
                   (2.0 * acos(-1.0)); /* in the original length */
    if (waves < c->rope_low_freq_factor)
        return frequency / c->rope_factor;
    if (waves > c->rope_high_freq_factor)
        return frequency;
    double smooth = (waves - c->rope_low_freq_factor) /
                    (c->rope_high_freq_factor - c->rope_low_freq_factor);
    return (1.0 - smooth) * frequency / c->rope_factor + smooth * frequency;
}

static strata_status build_rotary(struct decoder *decoder, strata_error *error)
{
    const struct decoder_config *c = &decoder->config;
    uint64_t half = c->head_dim / 2;
    decoder->rotary =
        take_zeroed(decoder, decoder->shape.seq * c->head_dim, sizeof *decoder->rotary);
    if (decoder->rotary == NULL)
        return strata_fail(error, STRATA_E_NOMEM, 0,
                           "no memory for the rotary table of %u positions",
                           decoder->shape.seq);
    for (uint64_t i = 0; i < half; i++) {
        double frequency = rotary_frequency(c, i);
        for (uint64_t position = 0; position < decoder->shape.seq; position++) {
            double angle = (double)position * frequency;
            decoder->rotary[position * c->head_dim + i] = (float)cos(angle);
            decoder->rotary[position * c->head_dim + half + i] = (float)sin(angle);
        }
    }
    return STRATA_OK;
}

/* Scratch. */

/* Put bytes at *end and say where. */
static uint64_t place(uint64_t *end, uint64_t bytes)
{
    uint64_t at = *end;
    *end += (bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
    return at;
}

static uint64_t largest_matrix(const struct decoder *decoder)
{
    const struct decoder_config *c = &decoder->config;
    uint64_t rows = max_u64(max_u64(q_width(c), c->ffn_size), slice_rows_max(decoder));
    return rows * c->hidden_size;
}

/* Of what enters a product: MLP and head go by pieces, the attention's output as a whole. */
static uint64_t largest_activation(const struct decoder *decoder)
{
    const struct decoder_config *c = &decoder->config;
    uint64_t rows = min_u64(decoder->micro_tokens, STRATA_OP_PIECE_ROWS);
    uint64_t wide = max_u64(c->ffn_size, slice_rows_max(decoder));
    uint64_t narrow = max_u64(q_width(c), c->hidden_size);
    return max_u64(rows * wide, decoder->micro_tokens * narrow);
}

static uint64_t place_layer(struct decoder *decoder, uint64_t end)
{
    const struct decoder_config *c = &decoder->config;
    struct decoder_layout *at = &decoder->layout;
    uint64_t tokens = decoder->micro_tokens;
    uint64_t rows = min_u64(tokens, STRATA_OP_PIECE_ROWS);
    const struct op_heads heads = {
        .sequences = decoder->shape.micro_batch,
        .seq = decoder->shape.seq,
        .heads = (uint32_t)c->head_count,
        .kv_heads = (uint32_t)c->kv_head_count,
        .head_dim = (uint32_t)c->head_dim,
    };
    at->q = place(&end, tokens * q_width(c) * 4);
    at->k = place(&end, tokens * kv_width(c) * 4);
    at->v = place(&end, tokens * kv_width(c) * 4);
    at->o = place(&end, tokens * q_width(c) * 4);
    at->mid = place(&end, tokens * max_u64(q_width(c), c->hidden_size) * 4);
    uint64_t attend_end = end;
    at->attend = place(&attend_end, decoder->ops.table->attention_scratch(&heads) * 4);
    at->normed = place(&end, rows * c->hidden_size * 4);
    at->gate = place(&end, rows * c->ffn_size * 4);
    at->up = place(&end, rows * c->ffn_size * 4);
    at->act = place(&end, rows * c->ffn_size * 4);
    return max_u64(end, attend_end);
}

static uint64_t place_head(struct decoder *decoder, uint64_t end)
{
    struct decoder_layout *at = &decoder->layout;
    uint64_t rows = min_u64(decoder->micro_tokens, STRATA_OP_PIECE_ROWS);
    at->y = place(&end, decoder->micro_tokens * decoder->config.hidden_size * 4);
    at->logits = place(&end, rows * slice_rows_max(decoder) * 4);
    return end;
}

static void build_layout(struct decoder *decoder)
{
    const struct decoder_config *c = &decoder->config;
    struct decoder_layout *at = &decoder->layout;
    uint64_t tokens = (uint64_t)decoder->shape.batch * decoder->shape.seq;
    uint64_t end = 0;
    at->rotary = place(&end, decoder->shape.seq * c->head_dim * 4);
    at->inputs = place(&end, tokens * 4);
    at->targets = place(&end, tokens * 4);
    at->stats = place(&end, tokens * sizeof(struct op_row_stat));
    at->loss = place(&end, sizeof(double));
    struct op_sizes sizes = {largest_matrix(decoder), largest_activation(decoder)};
    at->ops = place(&end, decoder->ops.table->scratch(&sizes, decoder->shape.compute_dtype));
    at->x = place(&end, decoder->micro_tokens * c->hidden_size * 4);
    at->dx = place(&end, decoder->micro_tokens * c->hidden_size * 4);
    end = max_u64(place_layer(decoder, end), place_head(decoder, end));
    at->bytes = (end + SCRATCH_UNIT_BYTES - 1) / SCRATCH_UNIT_BYTES * SCRATCH_UNIT_BYTES;
    decoder->model.scratch_bytes = at->bytes;
    decoder->model.stash_bytes = decoder->micro_tokens * c->hidden_size * 4;
}

/* The object. */

strata_status strata_decoder_create(struct decoder **out, const struct decoder_config *config,
                                    const struct decoder_shape *shape, strata_workers *workers,
                                    strata_error *error)
{
    *out = NULL;
    STRATA_TRY(check_shape(config, shape, error));
    struct decoder *decoder = calloc(1, sizeof *decoder);
    if (decoder == NULL)
        return strata_fail(error, STRATA_E_NOMEM, 0, "no memory for the model's description");
    decoder->config = *config;
    decoder->shape = *shape;
    decoder->ops = (struct ops){.table = shape->cuda ? &strata_ops_cuda : &strata_ops_host,
                                .workers = workers,
                                .weight_dtype = shape->compute_dtype};
    decoder->host_bytes = sizeof *decoder;
    if (shape->vocab_slices == 0)
        decoder->shape.vocab_slices = default_slices(config);
    decoder->micro_count = shape->batch / shape->micro_batch;
    decoder->micro_tokens = (uint64_t)shape->micro_batch * shape->seq;
    strata_status status = build_groups(decoder, error);
    if (status == STRATA_OK)
        status = build_uses(decoder, error);
    if (status == STRATA_OK)
        status = build_rotary(decoder, error);
    if (status != STRATA_OK) {
        strata_decoder_destroy(decoder);
        return status;
    }
    find_layer_offsets(decoder);
    build_layout(decoder);
    *out = decoder;
    return STRATA_OK;
}

void strata_decoder_destroy(struct decoder *decoder)
{
    if (decoder == NULL)
        return;
    decoder->ops.table->close(&decoder->ops);
    free(decoder->rotary);
    free(decoder->uses);
    free(decoder->names);
    free(decoder->tensors);
    free(decoder->groups);
    free(decoder);
}

const strata_model_desc *strata_decoder_model(const struct decoder *decoder)
{
    return &decoder->model;
}

uint64_t strata_decoder_host_bytes(const struct decoder *decoder)
{
    return decoder->host_bytes;
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
        return (struct whole_tensor){0, strata_decoder_slice_first(decoder, group) * width,
                                     false};
    if (group < slices + layers)
        return (struct whole_tensor){1 + (group - slices) * DECODER_LAYER_TENSORS + tensor, 0,
                                     tensor == DECODER_INPUT_NORM ||
                                         tensor == DECODER_POST_NORM};
    if (group == slices + layers)
        return (struct whole_tensor){1 + layers * DECODER_LAYER_TENSORS, 0, true};
    uint32_t slice = group - slices - layers - 1;
    return (struct whole_tensor){2 + layers * DECODER_LAYER_TENSORS,
                                 strata_decoder_slice_first(decoder, slice) * width, false};
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
