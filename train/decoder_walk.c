/*
 * The walk over one training step: which group is acquired when, what is stashed, what is
 * computed.
 *
 *     embedding    every slice answers its tokens
 *     layers       forward; a layer's input is stashed for its backward
 *     norm, head   the head goes over its slices twice: for maxima and sums, then the gradient;
 *                  a head of one slice is gone over once
 *     layers       backward, last first; each recomputes its forward
 *     embedding    every slice gathers the gradient of its tokens
 *
 * All micro-batches of a group run while it is acquired, so a weight moves once per pass
 * whatever the accumulation. With one micro-batch the running activation (and in backward its
 * gradient) stays in scratch from group to group. With several each is carried in a block:
 * taken in before a group's work on it and put away after. Backward goes over slices in reverse
 * order, so that the one that was used last is still in the device.
 *
 * Blocks: input of layer l of micro-batch m, and for several micro-batches also the last
 * layer's output (l = layers), the head's input y and its gradient. A gradient takes the block
 * of the activation that it belongs to, which has been taken back by then.
 *
 * Thread: the caller's.
 */

#include "train/decoder_model.h"

#include "base/error.h"

struct walk {
    const struct decoder *decoder;
    const struct decoder_visitor *visitor;
    uint32_t slices;
    uint32_t layers;
    uint32_t micros;
};

/* Block ids. */

static uint32_t layer_block(const struct walk *w, uint32_t layer, uint32_t micro)
{
    return layer * w->micros + micro;
}

static uint32_t y_block(const struct walk *w, uint32_t micro)
{
    return layer_block(w, w->layers + 1, micro);
}

static uint32_t dy_block(const struct walk *w, uint32_t micro)
{
    return layer_block(w, w->layers + 2, micro);
}

/* Group ids. */

static uint32_t layer_group(const struct walk *w, uint32_t layer)
{
    return w->slices + layer;
}

static uint32_t norm_group(const struct walk *w)
{
    return w->slices + w->layers;
}

static uint32_t head_group(const struct walk *w, uint32_t slice)
{
    return w->decoder->config.tied ? slice : norm_group(w) + 1 + slice;
}

/* One causal product of a layer: a row sees half of the sequence on the average, or a
 * window. */
static double attention_flops(const struct decoder *decoder, uint32_t layer)
{
    double seq = decoder->shape.seq;
    double window = decoder_window(decoder, layer);
    double seen = window == 0.0 ? seq / 2.0 : window - window * window / (2.0 * seq);
    return 2.0 * (double)decoder->micro_tokens * seen *
           (double)decoder_q_width(&decoder->config);
}

/*
 * Two operations per multiply and add. A layer's backward recomputes all but its last product,
 * and attention's scores and output (2 products) for both, then 5 more; causality leaves half
 * of each.
 */
double strata_decoder_flops(const struct decoder *decoder, const struct decoder_task *task)
{
    const struct decoder_config *c = &decoder->config;
    double tokens = (double)decoder->micro_tokens;
    double hidden = (double)c->hidden_size;
    double down = hidden * (double)c->ffn_size;
    double q_width = (double)(c->head_count * c->head_dim);
    double matrices =
        hidden * (2.0 * q_width + 2.0 * (double)(c->kv_head_count * c->head_dim)) + 3.0 * down;
    uint32_t slice = task->index;
    double attention = attention_flops(decoder, task->index);
    switch (task->work) {
    case DECODER_LAYER:
        return 2.0 * tokens * matrices + 2.0 * attention;
    case DECODER_LAYER_GRAD:
        return 2.0 * tokens * (3.0 * matrices - down) + 7.0 * attention;
    case DECODER_HEAD:
    case DECODER_HEAD_SCAN:
    case DECODER_HEAD_GRAD:
        return (task->work == DECODER_HEAD_SCAN ? 2.0 : 6.0) * tokens * hidden *
               (double)(decoder_slice_first(decoder, slice + 1) -
                        decoder_slice_first(decoder, slice));
    case DECODER_NORM:
    case DECODER_NORM_GRAD:
        return 4.0 * tokens * hidden;
    case DECODER_LOSS:
        return 0;
    default:
        return tokens * hidden;
    }
}

static strata_status acquire(const struct walk *w, uint32_t group, bool grad)
{
    strata_use use = {.kind = STRATA_USE_ACQUIRE, .index = group, .grad = grad};
    return w->visitor->use(w->visitor->user, &use, DECODER_NO_ARRAY);
}

static strata_status release(const struct walk *w, uint32_t group)
{
    strata_use use = {.kind = STRATA_USE_RELEASE, .index = group};
    return w->visitor->use(w->visitor->user, &use, DECODER_NO_ARRAY);
}

static strata_status stash(const struct walk *w, uint32_t block, enum decoder_array array)
{
    strata_use use = {.kind = STRATA_USE_STASH, .index = block};
    return w->visitor->use(w->visitor->user, &use, array);
}

static strata_status unstash(const struct walk *w, uint32_t block, enum decoder_array array)
{
    strata_use use = {.kind = STRATA_USE_UNSTASH, .index = block};
    return w->visitor->use(w->visitor->user, &use, array);
}

/* Bring in what a micro-batch left at the group before; one micro-batch left it in place. */
static strata_status carry_in(const struct walk *w, uint32_t block, enum decoder_array array)
{
    return w->micros == 1 ? STRATA_OK : unstash(w, block, array);
}

static strata_status carry_out(const struct walk *w, uint32_t block, enum decoder_array array)
{
    return w->micros == 1 ? STRATA_OK : stash(w, block, array);
}

static void work(const struct walk *w, const struct decoder_task *task)
{
    w->visitor->work(w->visitor->user, task);
}

static strata_status walk_embed(const struct walk *w)
{
    for (uint32_t slice = 0; slice < w->slices; slice++) {
        STRATA_TRY(acquire(w, slice, false));
        for (uint32_t micro = 0; micro < w->micros; micro++) {
            uint32_t block = layer_block(w, 0, micro);
            if (slice > 0)
                STRATA_TRY(carry_in(w, block, DECODER_X));
            work(w, &(struct decoder_task){DECODER_EMBED, slice, micro, slice == 0});
            STRATA_TRY(carry_out(w, block, DECODER_X));
        }
        STRATA_TRY(release(w, slice));
    }
    return STRATA_OK;
}

static strata_status walk_layer(const struct walk *w, uint32_t layer)
{
    STRATA_TRY(acquire(w, layer_group(w, layer), false));
    for (uint32_t micro = 0; micro < w->micros; micro++) {
        STRATA_TRY(carry_in(w, layer_block(w, layer, micro), DECODER_X));
        STRATA_TRY(stash(w, layer_block(w, layer, micro), DECODER_X));
        work(w, &(struct decoder_task){DECODER_LAYER, layer, micro, true});
        STRATA_TRY(carry_out(w, layer_block(w, layer + 1, micro), DECODER_X));
    }
    return release(w, layer_group(w, layer));
}

static strata_status walk_norm(const struct walk *w)
{
    STRATA_TRY(acquire(w, norm_group(w), false));
    for (uint32_t micro = 0; micro < w->micros; micro++) {
        STRATA_TRY(carry_in(w, layer_block(w, w->layers, micro), DECODER_X));
        STRATA_TRY(carry_out(w, layer_block(w, w->layers, micro), DECODER_X));
        work(w, &(struct decoder_task){DECODER_NORM, 0, micro, true});
        STRATA_TRY(carry_out(w, y_block(w, micro), DECODER_Y));
    }
    return release(w, norm_group(w));
}

/* One slice: its logits are there as a whole, so the gradient follows at once. */
static strata_status walk_whole_head(const struct walk *w)
{
    STRATA_TRY(acquire(w, head_group(w, 0), true));
    for (uint32_t micro = 0; micro < w->micros; micro++) {
        STRATA_TRY(carry_in(w, y_block(w, micro), DECODER_Y));
        work(w, &(struct decoder_task){DECODER_HEAD, 0, micro, true});
        STRATA_TRY(carry_out(w, dy_block(w, micro), DECODER_DX));
    }
    STRATA_TRY(release(w, head_group(w, 0)));
    work(w, &(struct decoder_task){DECODER_LOSS, 0, 0, true});
    return STRATA_OK;
}

static strata_status walk_head_scan(const struct walk *w)
{
    for (uint32_t slice = 0; slice < w->slices; slice++) {
        STRATA_TRY(acquire(w, head_group(w, slice), false));
        for (uint32_t micro = 0; micro < w->micros; micro++) {
            STRATA_TRY(carry_in(w, y_block(w, micro), DECODER_Y));
            STRATA_TRY(carry_out(w, y_block(w, micro), DECODER_Y));
            work(w, &(struct decoder_task){DECODER_HEAD_SCAN, slice, micro, slice == 0});
        }
        STRATA_TRY(release(w, head_group(w, slice)));
    }
    work(w, &(struct decoder_task){DECODER_LOSS, 0, 0, true});
    return STRATA_OK;
}

static strata_status walk_head_grad(const struct walk *w)
{
    for (uint32_t slice = w->slices; slice-- > 0;) {
        bool first = slice == w->slices - 1;
        STRATA_TRY(acquire(w, head_group(w, slice), true));
        for (uint32_t micro = 0; micro < w->micros; micro++) {
            STRATA_TRY(carry_in(w, y_block(w, micro), DECODER_Y));
            if (!first)
                STRATA_TRY(carry_in(w, dy_block(w, micro), DECODER_DX));
            if (slice > 0)
                STRATA_TRY(carry_out(w, y_block(w, micro), DECODER_Y));
            work(w, &(struct decoder_task){DECODER_HEAD_GRAD, slice, micro, first});
            STRATA_TRY(carry_out(w, dy_block(w, micro), DECODER_DX));
        }
        STRATA_TRY(release(w, head_group(w, slice)));
    }
    return STRATA_OK;
}

static strata_status walk_norm_grad(const struct walk *w)
{
    STRATA_TRY(acquire(w, norm_group(w), true));
    for (uint32_t micro = 0; micro < w->micros; micro++) {
        uint32_t block = layer_block(w, w->layers, micro);
        STRATA_TRY(carry_in(w, block, DECODER_X));
        STRATA_TRY(carry_in(w, dy_block(w, micro), DECODER_DX));
        work(w, &(struct decoder_task){DECODER_NORM_GRAD, 0, micro, true});
        STRATA_TRY(carry_out(w, block, DECODER_DX));
    }
    return release(w, norm_group(w));
}

static strata_status walk_layer_grad(const struct walk *w, uint32_t layer)
{
    STRATA_TRY(acquire(w, layer_group(w, layer), true));
    for (uint32_t micro = 0; micro < w->micros; micro++) {
        uint32_t block = layer_block(w, layer, micro);
        STRATA_TRY(carry_in(w, layer_block(w, layer + 1, micro), DECODER_DX));
        STRATA_TRY(unstash(w, block, DECODER_X));
        work(w, &(struct decoder_task){DECODER_LAYER_GRAD, layer, micro, true});
        STRATA_TRY(carry_out(w, block, DECODER_DX));
    }
    return release(w, layer_group(w, layer));
}

static strata_status walk_embed_grad(const struct walk *w)
{
    for (uint32_t slice = w->slices; slice-- > 0;) {
        STRATA_TRY(acquire(w, slice, true));
        for (uint32_t micro = 0; micro < w->micros; micro++) {
            uint32_t block = layer_block(w, 0, micro);
            STRATA_TRY(carry_in(w, block, DECODER_DX));
            if (slice > 0)
                STRATA_TRY(carry_out(w, block, DECODER_DX));
            work(w, &(struct decoder_task){DECODER_EMBED_GRAD, slice, micro,
                                           slice == w->slices - 1});
        }
        STRATA_TRY(release(w, slice));
    }
    return STRATA_OK;
}

strata_status strata_decoder_walk(const struct decoder *decoder,
                                  const struct decoder_visitor *visitor)
{
    struct walk w = {decoder, visitor, decoder->shape.vocab_slices,
                     (uint32_t)decoder->config.layer_count, decoder->micro_count};
    STRATA_TRY(walk_embed(&w));
    for (uint32_t layer = 0; layer < w.layers; layer++)
        STRATA_TRY(walk_layer(&w, layer));
    STRATA_TRY(walk_norm(&w));
    if (w.slices == 1) {
        STRATA_TRY(walk_whole_head(&w));
    } else {
        STRATA_TRY(walk_head_scan(&w));
        STRATA_TRY(walk_head_grad(&w));
    }
    STRATA_TRY(walk_norm_grad(&w));
    for (uint32_t layer = w.layers; layer-- > 0;)
        STRATA_TRY(walk_layer_grad(&w, layer));
    return walk_embed_grad(&w);
}
