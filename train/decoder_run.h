#ifndef STRATA_TRAIN_DECODER_RUN_H
#define STRATA_TRAIN_DECODER_RUN_H

/*
 * A step that is being queued: what its files share, and the work that decoder_layer.c and
 * decoder_vocab.c queue for it.
 *
 * Nothing here computes: everything is queued, in order, on one stream, so a buffer may be
 * queued to be overwritten as soon as its last reader is queued.
 *
 * Thread: the caller's.
 */

#include "train/decoder_model.h"

struct run {
    struct decoder *decoder;
    strata_engine *engine;
    strata_stream *stream;
    char *scratch;
    double loss_scale;
    struct ops ops;
    strata_view view; /* of the group that is held */
};

/* Arrays in scratch. */

static inline void *array_at(const struct run *run, uint64_t offset)
{
    return run->scratch + offset;
}

/* What lies `elems` elements into an activation. */
static inline void *elems_after(const struct run *run, const void *array, uint64_t elems)
{
    return (char *)(uintptr_t)array + elems * run->decoder->act_bytes;
}

static inline uint32_t *tokens_at(const struct run *run, uint64_t offset, uint32_t micro)
{
    return (uint32_t *)(void *)(run->scratch + offset) + micro * run->decoder->micro_tokens;
}

/* Each micro-batch has one more than tokens. */
static inline uint32_t *starts_at(const struct run *run, uint32_t micro)
{
    return tokens_at(run, run->decoder->layout.starts, micro) + micro;
}

static inline struct op_row_stat *stats_at(const struct run *run, uint32_t micro)
{
    return (struct op_row_stat *)(void *)(run->scratch + run->decoder->layout.stats) +
           micro * run->decoder->micro_tokens;
}

static inline double *loss_at(const struct run *run)
{
    return (double *)(void *)(run->scratch + run->decoder->layout.loss);
}

/* The weight and the gradient that lie `offset` elements into the group that is held. */

static inline const void *weight_at(const struct run *run, uint64_t offset)
{
    return (const char *)run->view.param + offset * strata_dtype_bytes(run->ops.weight_dtype);
}

static inline float *grad_at(const struct run *run, uint64_t offset)
{
    return run->view.grad + offset;
}

/* Rows of the piece that starts at `first`, at most `most`. */
static inline uint64_t rows_from(const struct run *run, uint64_t first, uint64_t most)
{
    uint64_t left = run->decoder->micro_tokens - first;
    return left < most ? left : most;
}

/* The norms of the model's width: these fill in the weight and its sizes. */

static inline void norm(const struct run *run, uint64_t offset, struct op_norm how)
{
    how.weight = weight_at(run, offset);
    how.width = run->decoder->config.hidden_size;
    how.eps = (float)run->decoder->config.rms_eps;
    strata_op_norm(&run->ops, &how);
}

static inline void norm_grad(const struct run *run, uint64_t offset, struct op_norm_grad how)
{
    how.weight = weight_at(run, offset);
    how.dweight = grad_at(run, offset);
    how.width = run->decoder->config.hidden_size;
    how.eps = (float)run->decoder->config.rms_eps;
    strata_op_norm_grad(&run->ops, &how);
}

/* Nothing is held yet. */
struct run strata_run_on(struct decoder *decoder, strata_stream *stream, void *scratch);

/* A step's inputs, once before its work; some of its work, whose group is held. */
void strata_decoder_queue_inputs(const struct run *run, const uint32_t *inputs,
                                 const uint32_t *targets);
void strata_decoder_queue(const struct run *run, const struct decoder_task *task);

/* A layer, whose group is held: x becomes its output; or dx becomes the gradient of x. */
void strata_layer_forward(const struct run *run, uint32_t layer);
void strata_layer_backward(const struct run *run, uint32_t layer);

/* Work on one vocabulary slice, whose matrix is the whole group that is held. */
void strata_vocab_embed(const struct run *run, const struct decoder_task *task);
void strata_vocab_embed_grad(const struct run *run, const struct decoder_task *task);
void strata_vocab_head_scan(const struct run *run, const struct decoder_task *task);
/* DECODER_HEAD_GRAD; or DECODER_HEAD, which scans each piece first. */
void strata_vocab_head_grad(const struct run *run, const struct decoder_task *task);

#endif
