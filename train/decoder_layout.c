/*
 * Where everything lies in scratch.
 *
 * Scratch has its peak in a layer's backward: x, dx, q, k, v, o, mid, and a piece of the MLP.
 * What head and embedding need lies in the same bytes.
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

static uint64_t largest_matrix(const struct decoder *decoder)
{
    const struct decoder_config *c = &decoder->config;
    uint64_t rows = max_u64(max_u64(decoder_q_width(c), c->ffn_size), slice_rows_max(decoder));
    return rows * c->hidden_size;
}

/* Of what enters a product: MLP and head go by pieces, the attention's output as a whole. */
static uint64_t largest_activation(const struct decoder *decoder)
{
    const struct decoder_config *c = &decoder->config;
    uint64_t rows = min_u64(decoder->micro_tokens, STRATA_OP_PIECE_ROWS);
    uint64_t wide = max_u64(c->ffn_size, decoder->layout.logits_stride);
    uint64_t narrow = max_u64(decoder_q_width(c), c->hidden_size);
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
    at->q = place(&end, tokens * decoder_q_width(c) * 4);
    at->k = place(&end, tokens * decoder_kv_width(c) * 4);
    at->v = place(&end, tokens * decoder_kv_width(c) * 4);
    at->q_raw = c->qk_norm ? place(&end, tokens * decoder_q_width(c) * 4) : at->q;
    at->k_raw = c->qk_norm ? place(&end, tokens * decoder_kv_width(c) * 4) : at->k;
    at->o = place(&end, tokens * decoder_q_width(c) * 4);
    at->mid = place(&end, tokens * max_u64(decoder_q_width(c), c->hidden_size) * 4);
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
    at->logits = place(&end, rows * at->logits_stride * 4);
    return end;
}

void strata_decoder_build_layout(struct decoder *decoder)
{
    const struct decoder_config *c = &decoder->config;
    struct decoder_layout *at = &decoder->layout;
    uint64_t tokens = (uint64_t)decoder->shape.batch * decoder->shape.seq;
    uint64_t end = 0;
    at->logits_stride =
        (slice_rows_max(decoder) + DECODER_ROW_UNIT - 1) / DECODER_ROW_UNIT * DECODER_ROW_UNIT;
    at->rotary = place(&end, decoder->shape.seq * decoder_turned(c) * 4);
    at->inputs = place(&end, tokens * 4);
    at->targets = place(&end, tokens * 4);
    at->stats = place(&end, tokens * sizeof(struct op_row_stat));
    at->loss = place(&end, sizeof(double));
    struct op_sizes sizes = {largest_matrix(decoder), largest_activation(decoder)};
    at->ops = place(&end, decoder->ops.table->scratch(&sizes, decoder->shape.compute_dtype));
    at->x = place(&end, decoder->micro_tokens * c->hidden_size * 4);
    at->dx = place(&end, decoder->micro_tokens * c->hidden_size * 4);
    end = max_u64(place_layer(decoder, end), place_head(decoder, end));
    at->bytes = strata_round_up(end, SCRATCH_UNIT_BYTES);
    decoder->model.scratch_bytes = at->bytes;
    decoder->model.stash_bytes = decoder->micro_tokens * c->hidden_size * 4;
}
