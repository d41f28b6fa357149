/*
 * Where everything lies in scratch.
 *
 * Scratch has its peak in a layer's backward: x, dx, qkv, o, mid, and what a piece of the MLP
 * needs or, in the same bytes, attention. What head and embedding need lies in the same bytes
 * as a layer's.
 *
 * Thread: the caller's.
 */

#include "train/decoder_model.h"

#include "base/round.h"

#define ALIGN_BYTES        256u  /* what a GPU's libraries ask for at most */
#define SCRATCH_UNIT_BYTES 4096u /* a page                                 */

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t slice_rows_max(const struct decoder *decoder)
{
    uint64_t slices = decoder->shape.vocab_slices;
    return strata_units_of(decoder->config.vocab_size, slices);
}

/* Put bytes at *end and say where. */
static uint64_t place(uint64_t *end, uint64_t bytes)
{
    uint64_t at = *end;
    *end += strata_round_up(bytes, ALIGN_BYTES);
    return at;
}

/* Of those that are one product. */
static uint64_t largest_matrix(const struct decoder *decoder)
{
    const struct decoder_config *c = &decoder->config;
    uint64_t rows =
        max_u64(max_u64(decoder_qkv_width(c), 2 * c->ffn_size), slice_rows_max(decoder));
    return rows * c->hidden_size;
}

/* The gradients of q, k and v lie in their places, or apart behind *end. */
static uint64_t place_heads_grad(struct decoder *decoder, uint64_t end)
{
    struct decoder_layout *at = &decoder->layout;
    uint64_t row = decoder_qkv_width(&decoder->config) * decoder->act_bytes;
    at->d_heads = at->heads;
    at->d_qkv = at->qkv;
    if (decoder->ops.table->attention_apart)
        at->d_heads = at->d_qkv = place(&end, decoder->micro_tokens * row);
    return end;
}

static uint64_t place_layer(struct decoder *decoder, uint64_t end)
{
    const struct decoder_config *c = &decoder->config;
    const struct ops_table *ops = decoder->ops.table;
    struct decoder_layout *at = &decoder->layout;
    uint64_t each = decoder->act_bytes;
    uint64_t tokens = decoder->micro_tokens;
    uint64_t rows = min_u64(tokens, ops->layer_rows);
    const struct op_heads heads = {
        .sequences = decoder->shape.micro_batch,
        .seq = decoder->shape.seq,
        .heads = (uint32_t)c->head_count,
        .kv_heads = (uint32_t)c->kv_head_count,
        .head_dim = (uint32_t)c->head_dim,
        .stride = decoder_qkv_width(c),
    };
    at->qkv = place(&end, tokens * decoder_qkv_width(c) * each);
    at->heads = c->qk_norm ? place(&end, tokens * decoder_qkv_width(c) * each) : at->qkv;
    at->o = place(&end, tokens * decoder_q_width(c) * each);
    at->lse = place(&end, ops->attention_apart ? tokens * c->head_count * sizeof(float) : 0);
    at->mid = place(&end, tokens * max_u64(decoder_q_width(c), c->hidden_size) * each);
    at->normed = place(&end, rows * c->hidden_size * each);
    uint64_t attend_end = place_heads_grad(decoder, end);
    at->attend = place(&attend_end,
                       ops->attention_scratch(&heads, decoder->ops.act_dtype) * sizeof(float));
    at->gate_up = place(&end, rows * 2 * c->ffn_size * each);
    at->act = place(&end, rows * c->ffn_size * each);
    return max_u64(end, attend_end);
}

static uint64_t place_head(struct decoder *decoder, uint64_t end)
{
    struct decoder_layout *at = &decoder->layout;
    uint64_t each = decoder->act_bytes;
    uint64_t rows = min_u64(decoder->micro_tokens, decoder->ops.table->head_rows);
    at->y = place(&end, decoder->micro_tokens * decoder->config.hidden_size * each);
    at->logits = place(&end, rows * at->logits_stride * each);
    return end;
}

void strata_decoder_build_layout(struct decoder *decoder)
{
    const struct decoder_config *c = &decoder->config;
    struct decoder_layout *at = &decoder->layout;
    uint64_t tokens = (uint64_t)decoder->shape.batch * decoder->shape.seq;
    uint64_t stream_bytes = decoder->micro_tokens * c->hidden_size * decoder->act_bytes;
    uint64_t end = 0;
    at->logits_stride =
        (slice_rows_max(decoder) + DECODER_ROW_UNIT - 1) / DECODER_ROW_UNIT * DECODER_ROW_UNIT;
    at->rotary = place(&end, decoder->shape.seq * decoder_turned(c) * 4);
    at->inputs = place(&end, tokens * 4);
    at->targets = place(&end, tokens * 4);
    at->order = place(&end, tokens * 4);
    at->starts = place(&end, (tokens + decoder->micro_count) * 4);
    at->stats = place(&end, tokens * sizeof(struct op_row_stat));
    at->loss = place(&end, sizeof(double));
    at->ops = place(&end, decoder->ops.table->scratch(largest_matrix(decoder),
                                                      decoder->shape.compute_dtype));
    at->x = place(&end, stream_bytes);
    at->dx = place(&end, stream_bytes);
    end = max_u64(place_layer(decoder, end), place_head(decoder, end));
    at->bytes = strata_round_up(end, SCRATCH_UNIT_BYTES);
    decoder->model.scratch_bytes = at->bytes;
    decoder->model.stash_bytes = stream_bytes;
}
