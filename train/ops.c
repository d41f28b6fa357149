/*
 * The operators' one entrance: what is called is the table's. And the order of tokens, which
 * is the same for every device.
 *
 * Thread: the one that queues on the stream.
 */

#include "train/ops.h"

#include <string.h>

void strata_op_norm(const struct ops *ops, const struct op_norm *args)
{
    ops->table->norm(ops, args);
}

void strata_op_norm_grad(const struct ops *ops, const struct op_norm_grad *args)
{
    ops->table->norm_grad(ops, args);
}

void strata_op_linear(const struct ops *ops, const struct op_linear *args)
{
    ops->table->linear(ops, args);
}

void strata_op_linear_dx(const struct ops *ops, const struct op_linear *args)
{
    ops->table->linear_dx(ops, args);
}

void strata_op_linear_dw(const struct ops *ops, const struct op_linear_dw *args)
{
    ops->table->linear_dw(ops, args);
}

void strata_op_bias(const struct ops *ops, const struct op_bias *args)
{
    ops->table->bias(ops, args);
}

void strata_op_bias_grad(const struct ops *ops, const struct op_bias_grad *args)
{
    ops->table->bias_grad(ops, args);
}

void strata_op_rotary(const struct ops *ops, const struct op_rotary *args)
{
    ops->table->rotary(ops, args);
}

void strata_op_attention(const struct ops *ops, const struct op_attention *args)
{
    ops->table->attention(ops, args);
}

void strata_op_attention_grad(const struct ops *ops, const struct op_attention_grad *args)
{
    ops->table->attention_grad(ops, args);
}

void strata_op_glu(const struct ops *ops, const struct op_glu *args)
{
    ops->table->glu(ops, args);
}

void strata_op_glu_grad(const struct ops *ops, const struct op_glu_grad *args)
{
    ops->table->glu_grad(ops, args);
}

void strata_op_embed(const struct ops *ops, const struct op_embed *args)
{
    ops->table->embed(ops, args);
}

void strata_op_embed_grad(const struct ops *ops, const struct op_embed_grad *args)
{
    ops->table->embed_grad(ops, args);
}

void strata_op_entropy_begin(const struct ops *ops, struct op_row_stat *stats, uint64_t rows)
{
    ops->table->entropy_begin(ops, stats, rows);
}

void strata_op_entropy_scan(const struct ops *ops, const struct op_entropy *args)
{
    ops->table->entropy_scan(ops, args);
}

void strata_op_entropy_grad(const struct ops *ops, const struct op_entropy *args)
{
    ops->table->entropy_grad(ops, args);
}

void strata_op_entropy_loss(const struct ops *ops, const struct op_row_stat *stats,
                            uint64_t rows, double *out)
{
    ops->table->entropy_loss(ops, stats, rows, out);
}

uint64_t strata_op_order_tokens(const uint32_t *tokens, uint64_t rows, uint64_t vocab_size,
                                uint32_t *order, uint32_t *starts, uint32_t *room)
{
    uint64_t distinct = 0;
    uint32_t at = 0;
    memset(room, 0, vocab_size * sizeof *room);
    for (uint64_t row = 0; row < rows; row++)
        if (tokens[row] < vocab_size)
            room[tokens[row]]++;
    for (uint64_t token = 0; token < vocab_size; token++) {
        uint32_t count = room[token];
        if (count == 0)
            continue;
        starts[distinct++] = at;
        room[token] = at;
        at += count;
    }
    starts[distinct] = at;
    for (uint64_t row = 0; row < rows; row++)
        if (tokens[row] < vocab_size)
            order[room[tokens[row]]++] = (uint32_t)row;
    return distinct;
}
