#ifndef STRATA_TRAIN_DECODER_MODEL_H
#define STRATA_TRAIN_DECODER_MODEL_H

/*
 * The object itself, the walk over a step, and where everything lies in scratch.
 *
 * There is one walk. decoder.c goes along it to write the use list, decoder_step.c to acquire,
 * stash and queue the work. So the two cannot differ.
 *
 * Thread: the engine's caller.
 */

#include "train/decoder.h"

#include <stdlib.h>

/* Tensors of a layer, in the order in which they lie in its group. Biases and head norms are
 * there only where the configuration has them. */
enum decoder_layer_tensor {
    DECODER_INPUT_NORM = 0,
    DECODER_Q,
    DECODER_K,
    DECODER_V,
    DECODER_Q_BIAS,
    DECODER_K_BIAS,
    DECODER_V_BIAS,
    DECODER_Q_NORM,
    DECODER_K_NORM,
    DECODER_O,
    DECODER_POST_NORM,
    DECODER_GATE,
    DECODER_UP,
    DECODER_DOWN,
    DECODER_LAYER_TENSORS
};

/* Rows of logits begin at multiples of so many elements, 16 bytes of a 16-bit type: without
 * that the matrix library has only its slow kernels for them, and slices have any number of
 * rows. */
#define DECODER_ROW_UNIT 8u

/*
 * Device scratch, in bytes from its start. The first part lives through the step, x and dx are
 * the running activation and its gradient; what follows belongs to one phase at a time and
 * shares its bytes: layers above, head and embedding below.
 */
struct decoder_layout {
    uint64_t rotary; /* seq x turned floats                                           */
    uint64_t inputs; /* batch x seq token ids                                         */
    uint64_t targets;
    uint64_t order;  /* inputs by token, for each micro-batch: struct op_embed_grad   */
    uint64_t starts; /* micro-batch tokens + 1 numbers for each                       */
    uint64_t stats;  /* batch x seq struct op_row_stat                                */
    uint64_t loss;   /* one double                                                    */
    uint64_t ops;    /* the operators' own                                            */
    uint64_t x;      /* micro-batch tokens x hidden                                   */
    uint64_t dx;
    uint64_t qkv;           /* layer: tokens x (q, k and v)                                  */
    uint64_t heads;         /* the same once the heads are normed; without norms, qkv        */
    uint64_t o;             /* tokens x q                                                    */
    uint64_t lse;           /* tokens x heads floats, where attention keeps them             */
    uint64_t mid;           /* after attention; then the gradient of o                       */
    uint64_t normed;        /* a piece x hidden, and its gradient                            */
    uint64_t gate_up;       /* a piece x 2 ffn                                               */
    uint64_t act;           /* a piece x ffn                                                 */
    uint64_t d_heads;       /* gradients of heads and qkv: in their places; or apart, in the */
    uint64_t d_qkv;         /* place of gate_up and act                                      */
    uint64_t attend;        /* attention's own scratch, in the place of gate_up and act too  */
    uint64_t y;             /* head: tokens x hidden, the normed x                           */
    uint64_t logits;        /* a piece x the largest slice, rounded up to the stride         */
    uint64_t logits_stride; /* elements, a multiple of DECODER_ROW_UNIT                */
    uint64_t bytes;
};

struct decoder {
    struct decoder_config config;
    struct decoder_shape shape;
    struct ops ops;          /* workers borrowed; scratch and stream are those of a step */
    strata_model_desc model; /* points into what follows; owned */
    strata_group_desc *groups;
    strata_tensor_desc *tensors;
    char *names;
    strata_use *uses;
    float *rotary;   /* the table, copied into scratch by each step */
    uint32_t *order; /* of a step's inputs, as in scratch */
    uint32_t *starts;
    uint32_t *distinct; /* tokens of each micro-batch */
    uint32_t *room;     /* to order them in */
    struct decoder_layout layout;
    /* By enum decoder_layer_tensor, for those that are there: elements from a layer's start,
     * and the place in the group. */
    uint64_t layer_offset[DECODER_LAYER_TENSORS];
    uint32_t layer_place[DECODER_LAYER_TENSORS];
    uint32_t layer_tensors; /* of a layer */
    uint64_t host_bytes;
    uint32_t micro_count;
    uint64_t micro_tokens;
    uint64_t act_bytes; /* of an element of an activation */
};

struct decoder_task {
    enum decoder_work work;
    uint32_t index; /* the vocabulary slice or the layer                      */
    uint32_t micro; /* which micro-batch                                      */
    bool first;     /* the first of the slices that this work goes over       */
};

enum decoder_array { DECODER_NO_ARRAY = 0, DECODER_X, DECODER_DX, DECODER_Y };

struct decoder_visitor {
    /* The next entry of the use list; array: what is stashed or taken back. */
    strata_status (*use)(void *user, const strata_use *use, enum decoder_array array);
    void (*work)(void *user, const struct decoder_task *task);
    void *user;
};

/* Go along one training step. Stops at the first status that is not OK and returns it. */
strata_status strata_decoder_walk(const struct decoder *decoder,
                                  const struct decoder_visitor *visitor);

/* Floating-point operations of a piece of work. */
double strata_decoder_flops(const struct decoder *decoder, const struct decoder_task *task);

/* The first token of a vocabulary slice; slice = count: the vocabulary's end. */
static inline uint64_t decoder_slice_first(const struct decoder *decoder, uint32_t slice)
{
    return decoder->config.vocab_size * slice / decoder->shape.vocab_slices;
}

static inline uint64_t decoder_q_width(const struct decoder_config *c)
{
    return c->head_count * c->head_dim;
}

static inline uint64_t decoder_kv_width(const struct decoder_config *c)
{
    return c->kv_head_count * c->head_dim;
}

static inline uint64_t decoder_qkv_width(const struct decoder_config *c)
{
    return decoder_q_width(c) + 2 * decoder_kv_width(c);
}

static inline uint64_t decoder_turned(const struct decoder_config *c)
{
    return c->rope.turned != 0 ? c->rope.turned : c->head_dim;
}

/* The window of a layer's attention; 0: none, or one that no row fills. */
static inline uint32_t decoder_window(const struct decoder *decoder, uint32_t layer)
{
    const struct decoder_config *c = &decoder->config;
    bool windowed = layer >= c->full_layers && c->window < decoder->shape.seq;
    return windowed ? (uint32_t)c->window : 0;
}

/* Zeroed memory of the object, counted. strata_decoder_destroy() frees it. */
static inline void *decoder_take(struct decoder *decoder, uint64_t count, uint64_t each)
{
    decoder->host_bytes += count * each;
    return calloc(count, each);
}

/* The parts of strata_decoder_create(), in this order after the object itself is there. */
strata_status strata_decoder_build_groups(struct decoder *decoder, strata_error *error);
strata_status strata_decoder_build_rotary(struct decoder *decoder, strata_error *error);
void strata_decoder_build_layout(struct decoder *decoder);

#endif
