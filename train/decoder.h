#ifndef STRATA_TRAIN_DECODER_H
#define STRATA_TRAIN_DECODER_H

/*
 * A decoder-only transformer as the engine sees it (groups, tensors, use list, scratch) and its
 * training step, forward and backward by hand. Llama, Mistral, Qwen2 and Qwen3 are one walk
 * with different switches: struct decoder_config.
 *
 * Groups, in order of the forward pass: the embedding's vocabulary slices, one group per layer,
 * the final norm, and, untied, the head's slices. Tied, an embedding slice serves both ends.
 * Tensor names are those of the Hugging Face checkpoint
 * ("model.layers.0.self_attn.q_proj.weight"); slice i of a sliced tensor has the suffix "#i".
 *
 * Weights are [out, in], row-major, in the compute dtype; sums are fp32. Activations and stash
 * are fp32 on the host device, and in the compute dtype on a CUDA device. A layer's backward
 * recomputes its forward from the stashed input, keeping x, q, k, v, o and mid; how many rows
 * MLP and head work on at a time is the device's. Micro-batches run inside an acquired group.
 *
 * Thread: the engine's caller.
 */

#include "strata/engine.h"
#include "train/ops.h"

/* How rotary embedding gets the frequencies of a head's pairs; see decoder_rope.c. */
enum decoder_rope_type {
    DECODER_ROPE_DEFAULT = 0,
    DECODER_ROPE_LLAMA3,
    DECODER_ROPE_LINEAR,
    DECODER_ROPE_YARN
};

struct decoder_rope {
    enum decoder_rope_type type;
    double theta;
    uint64_t turned;           /* elements of a head that are turned; 0: all         */
    double factor;             /* all types but the default                          */
    double original_positions; /* llama3, yarn                                       */
    double low_freq_factor;    /* llama3                                             */
    double high_freq_factor;
    double beta_fast; /* yarn                                               */
    double beta_slow;
    double attention_factor; /* yarn: what cosines and sines are multiplied with   */
    bool whole_pairs;        /* yarn: the range that is blended begins and ends at pairs */
};

/* A family of models is a choice of these. */
struct decoder_config {
    uint64_t vocab_size;
    uint64_t hidden_size;
    uint64_t layer_count;
    uint64_t head_count;
    uint64_t kv_head_count;
    uint64_t head_dim;
    uint64_t ffn_size;
    double rms_eps;
    double initializer_range;
    struct decoder_rope rope;
    bool tied;            /* the head is the embedding                                      */
    bool qkv_bias;        /* on queries, keys and values                                    */
    bool qk_norm;         /* a norm of each query and key head before rotary embedding      */
    uint64_t window;      /* tokens that a row sees, its own included; 0: all up to its own */
    uint64_t full_layers; /* layers before the first that has the window                    */
    enum op_activation activation; /* of the gate */
};

struct decoder_shape {
    uint32_t seq;         /* tokens of a sequence                                             */
    uint32_t batch;       /* sequences of a step                                              */
    uint32_t micro_batch; /* sequences at a time; divides batch                               */
    uint32_t
        vocab_slices; /* 0: as many as give at most 16 Mi elements each                   */
    strata_dtype compute_dtype;
    strata_dtype
        act_dtype; /* host: activations are rounded to it; 0: fp32. CUDA: compute_dtype */
    bool cuda; /* the operators of a CUDA device, and their scratch, instead of the host's */
};

struct decoder;

/*
 * model: a name, a config.json, or a folder that has one. Other families, and keys that change
 * the arithmetic and cannot be carried out, are refused by the key's name. STRATA_E_IO: native
 * ENOENT, ...; STRATA_E_INVALID: the content.
 */
strata_status strata_decoder_config_read(struct decoder_config *out, const char *model,
                                         strata_error *error);

/* Does the folder that --model names hold weights, which are not read? */
bool strata_decoder_has_weights(const char *model);

/*
 * What --model was given, before anything is read. STRATA_E_INVALID: neither a name nor a file,
 * which is a mistake of the command line. A path that is not there is something absent, and the
 * reader says so.
 */
strata_status strata_decoder_config_check(const char *model, strata_error *error);

/* "decoder-125m" ...; false: no such name. */
bool strata_decoder_config_named(struct decoder_config *out, const char *name);
/* The names, separated by spaces. Static storage. */
const char *strata_decoder_names(void);

/* Groups, use list, scratch; no weights. *out is owned until strata_decoder_destroy(). */
strata_status strata_decoder_create(struct decoder **out, const struct decoder_config *config,
                                    const struct decoder_shape *shape, strata_workers *workers,
                                    strata_error *error);
void strata_decoder_destroy(struct decoder *decoder);

/* Lent until destroy. */
const strata_model_desc *strata_decoder_model(const struct decoder *decoder);

/* What is computed between two entries of the use list. */
enum decoder_work {
    DECODER_EMBED,      /* x: rows whose token lies in the slice      */
    DECODER_LAYER,      /* x becomes the layer's output               */
    DECODER_NORM,       /* y from x                                   */
    DECODER_HEAD,       /* one slice: stats, then dx, from y          */
    DECODER_HEAD_SCAN,  /* several: stats from y, slice by slice      */
    DECODER_HEAD_GRAD,  /* then dx (+)= the slice's part              */
    DECODER_LOSS,       /* once: the loss from all stats              */
    DECODER_NORM_GRAD,  /* dx from dx and x                           */
    DECODER_LAYER_GRAD, /* dx from dx and x                           */
    DECODER_EMBED_GRAD  /* the slice's gradient from dx               */
};

/* Some of it: after which entry of the use list, and which part of the vocabulary, 1 where the
 * work is not a slice's. */
struct decoder_work_item {
    enum decoder_work work;
    uint32_t use;
    double vocab_share;
};

/* Everything that a step computes, for all micro-batches, in order. */
void strata_decoder_each_work(const struct decoder *decoder,
                              void (*take)(void *user, const struct decoder_work_item *item),
                              void *user);

/* Host bytes of the object itself, for reserved_host_bytes. */
uint64_t strata_decoder_host_bytes(const struct decoder *decoder);

/* Initial weights: normal with initializer_range, norms 1. user is a struct decoder_init. */
struct decoder_init {
    const struct decoder *decoder;
    uint64_t seed;
};
void strata_decoder_init_weights(void *user, uint32_t group, uint32_t tensor, uint64_t first,
                                 uint64_t count, float *out);

/*
 * Open the operators, and go through all of them once in memory of the device's own that is
 * given back, less than any plan asks for. So the libraries have taken what they take of the
 * device before the engine does, and no kernel has yet to be loaded when streams wait for each
 * other. Once, before the first step; the host device needs it as little as it hurts.
 *
 * STRATA_E_UNSUPPORTED: a library is missing. STRATA_E_NOMEM, STRATA_E_DEVICE: the device's.
 */
strata_status strata_decoder_rehearse(struct decoder *decoder, strata_device *device,
                                      strata_stream *stream, strata_error *error);

/* What the operators lack that others have, such as fused attention, as one line; NULL:
 * nothing. After strata_decoder_rehearse(). Lent until destroy. */
const char *strata_decoder_lack(const struct decoder *decoder);

/*
 * What each operator of a layer and of the ends takes, in memory of the device's own that is
 * given back: as strata_decoder_rehearse(), which comes first, but with normally distributed
 * numbers, and each operator by itself: the mean of as many calls in a row as take enough_s, at
 * most 16. take: once for each, in the order of a step, on the calling thread. An operator that
 * goes over pieces, or over queries and then keys, is met several times.
 */
struct decoder_timing {
    enum decoder_work work;
    const char *name; /* static: "qkv", "qkv dx", "norm 1 grad", "logits", ... */
    double seconds;
};
strata_status strata_decoder_time(struct decoder *decoder, strata_device *device,
                                  strata_stream *stream, double enough_s,
                                  void (*take)(void *user, const struct decoder_timing *timing),
                                  void *user, strata_error *error);

/*
 * Queue one step's forward and backward on the stream: the caller has begun the step and ends
 * it, and the stream has been synchronised since the step before. inputs, targets: batch x seq
 * token ids, lent until it is again. The
 * mean cross entropy over batch x seq tokens is in strata_decoder_loss() once the stream has
 * been synchronised, until the next step.
 */
strata_status strata_decoder_step(struct decoder *decoder, strata_engine *engine,
                                  strata_stream *stream, const uint32_t *inputs,
                                  const uint32_t *targets);
double strata_decoder_loss(const struct decoder *decoder, strata_engine *engine,
                           strata_stream *stream);

#endif
