/*
 * Embedding and head, slice by slice of the vocabulary.
 *
 * Thread: the caller's.
 */

#include "train/decoder_run.h"

static uint64_t slice_rows(const struct run *run, uint32_t slice)
{
    return decoder_slice_first(run->decoder, slice + 1) -
           decoder_slice_first(run->decoder, slice);
}

/* Rows of the piece of logits that begins at `first`. */
static uint64_t piece_of(const struct run *run, uint64_t first)
{
    return rows_from(run, first, run->ops.table->head_rows);
}

void strata_vocab_embed(const struct run *run, const struct decoder_task *task)
{
    const struct decoder_layout *at = &run->decoder->layout;
    strata_op_embed(&run->ops, &(struct op_embed){
                                   .tokens = tokens_at(run, at->inputs, task->micro),
                                   .weight = weight_at(run, 0),
                                   .out = array_at(run, at->x),
                                   .rows = run->decoder->micro_tokens,
                                   .width = run->decoder->config.hidden_size,
                                   .first = decoder_slice_first(run->decoder, task->index),
                                   .slice_rows = slice_rows(run, task->index),
                               });
}

void strata_vocab_embed_grad(const struct run *run, const struct decoder_task *task)
{
    const struct decoder *decoder = run->decoder;
    const struct decoder_layout *at = &decoder->layout;
    strata_op_embed_grad(&run->ops, &(struct op_embed_grad){
                                        .tokens = tokens_at(run, at->inputs, task->micro),
                                        .order = tokens_at(run, at->order, task->micro),
                                        .starts = starts_at(run, task->micro),
                                        .distinct = decoder->distinct[task->micro],
                                        .dy = array_at(run, at->dx),
                                        .dweight = grad_at(run, 0),
                                        .rows = decoder->micro_tokens,
                                        .width = decoder->config.hidden_size,
                                        .first = decoder_slice_first(decoder, task->index),
                                        .slice_rows = slice_rows(run, task->index),
                                    });
}

/* The logits of a piece of y, and what the passes need to go over them. */
static struct op_entropy head_logits(const struct run *run, const struct decoder_task *task,
                                     uint64_t first)
{
    const struct decoder *decoder = run->decoder;
    struct op_entropy entropy = {
        .logits = array_at(run, decoder->layout.logits),
        .targets = tokens_at(run, decoder->layout.targets, task->micro) + first,
        .stats = stats_at(run, task->micro) + first,
        .rows = piece_of(run, first),
        .first = decoder_slice_first(decoder, task->index),
        .slice_rows = slice_rows(run, task->index),
        .stride = decoder->layout.logits_stride,
        .scale = (float)(run->loss_scale / ((double)decoder->shape.batch * decoder->shape.seq)),
    };
    strata_op_linear(&run->ops, &(struct op_linear){
                                    .src = elems_after(run, array_at(run, decoder->layout.y),
                                                       first * decoder->config.hidden_size),
                                    .weight = weight_at(run, 0),
                                    .dst = entropy.logits,
                                    .rows = entropy.rows,
                                    .in = decoder->config.hidden_size,
                                    .out = entropy.slice_rows,
                                    .out_stride = entropy.stride,
                                });
    return entropy;
}

void strata_vocab_head_scan(const struct run *run, const struct decoder_task *task)
{
    for (uint64_t first = 0; first < run->decoder->micro_tokens;
         first += piece_of(run, first)) {
        struct op_entropy entropy = head_logits(run, task, first);
        strata_op_entropy_scan(&run->ops, &entropy);
    }
}

/* From the gradient of a piece's logits, in their place, to dx and the slice's dweight. */
static void logits_grad(const struct run *run, const struct decoder_task *task, uint64_t first,
                        const struct op_entropy *entropy)
{
    const struct decoder *decoder = run->decoder;
    uint64_t hidden = decoder->config.hidden_size;
    void *dx = elems_after(run, array_at(run, decoder->layout.dx), first * hidden);
    strata_op_linear_dw(
        &run->ops, &(struct op_linear_dw){
                       .x = elems_after(run, array_at(run, decoder->layout.y), first * hidden),
                       .dy = entropy->logits,
                       .dweight = grad_at(run, 0),
                       .rows = entropy->rows,
                       .in = hidden,
                       .out = entropy->slice_rows,
                       .out_stride = entropy->stride,
                   });
    strata_op_linear_dx(&run->ops, &(struct op_linear){
                                       .src = entropy->logits,
                                       .weight = weight_at(run, 0),
                                       .addend = task->first ? NULL : dx,
                                       .dst = dx,
                                       .rows = entropy->rows,
                                       .in = hidden,
                                       .out = entropy->slice_rows,
                                       .out_stride = entropy->stride,
                                   });
}

void strata_vocab_head_grad(const struct run *run, const struct decoder_task *task)
{
    for (uint64_t first = 0; first < run->decoder->micro_tokens;
         first += piece_of(run, first)) {
        struct op_entropy entropy = head_logits(run, task, first);
        if (task->work == DECODER_HEAD)
            strata_op_entropy_scan(&run->ops, &entropy);
        strata_op_entropy_grad(&run->ops, &entropy);
        logits_grad(run, task, first, &entropy);
    }
}
