/*
 * The model as the engine sees it: the object, the checks of a step's shape, the use list.
 *
 * Everything follows from the configuration and the shape of a step, nothing from budgets. The
 * use list is what the walk (decoder_walk.c) meets, written down once.
 *
 * Thread: the caller's.
 */

#include "train/decoder_model.h"

#include "base/error.h"
#include "base/round.h"

#define SLICE_ELEMS (UINT64_C(1) << 24) /* what a slice has at most by default */
#define TOKENS_MAX  (UINT64_C(1) << 31) /* of a step                           */
#define USES_MAX    (UINT64_C(1) << 26) /* 1.5 GiB of use list: a typing error */

static uint32_t default_slices(const struct decoder_config *c)
{
    return (uint32_t)strata_units_of(c->vocab_size * c->hidden_size, SLICE_ELEMS);
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
    if (shape->act_dtype != 0 && shape->act_dtype != STRATA_FP32 &&
        shape->act_dtype != shape->compute_dtype)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "activations of %s with weights of %s: fp32 or the weights' type",
                           strata_dtype_name(shape->act_dtype),
                           strata_dtype_name(shape->compute_dtype));
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
    decoder->uses = decoder_take(decoder, recorder.count, sizeof *decoder->uses);
    if (decoder->uses == NULL)
        return strata_fail(error, STRATA_E_NOMEM, 0, "no memory for a use list of %u events",
                           recorder.count);
    recorder = (struct recorder){.decoder = decoder, .uses = decoder->uses};
    STRATA_TRY(strata_decoder_walk(decoder, &visitor));
    decoder->model.uses = decoder->uses;
    decoder->model.use_count = recorder.count;
    return STRATA_OK;
}

/* What is computed, for those who ask what it costs. */

struct work_lister {
    const struct decoder *decoder;
    uint32_t uses;
    void (*take)(void *user, const struct decoder_work_item *item);
    void *user;
};

static strata_status count_use(void *user, const strata_use *use, enum decoder_array array)
{
    (void)use;
    (void)array;
    ((struct work_lister *)user)->uses++;
    return STRATA_OK;
}

static void list_work(void *user, const struct decoder_task *task)
{
    struct work_lister *lister = user;
    struct decoder_work_item item = {
        .work = task->work, .use = lister->uses - 1, .vocab_share = 1};
    bool of_slice = task->work == DECODER_EMBED || task->work == DECODER_EMBED_GRAD ||
                    task->work == DECODER_HEAD || task->work == DECODER_HEAD_SCAN ||
                    task->work == DECODER_HEAD_GRAD;
    if (of_slice)
        item.vocab_share = (double)(decoder_slice_first(lister->decoder, task->index + 1) -
                                    decoder_slice_first(lister->decoder, task->index)) /
                           (double)lister->decoder->config.vocab_size;
    lister->take(lister->user, &item);
}

void strata_decoder_each_work(const struct decoder *decoder,
                              void (*take)(void *user, const struct decoder_work_item *item),
                              void *user)
{
    struct work_lister lister = {.decoder = decoder, .take = take, .user = user};
    const struct decoder_visitor visitor = {count_use, list_work, &lister};
    strata_status status = strata_decoder_walk(decoder, &visitor);
    (void)status; /* the visitor refuses nothing */
}

/* The object. */

static strata_dtype act_dtype_of(const struct decoder_shape *shape)
{
    if (shape->cuda)
        return shape->compute_dtype;
    return shape->act_dtype != 0 ? shape->act_dtype : STRATA_FP32;
}

static strata_status build_order(struct decoder *decoder, strata_error *error)
{
    uint64_t tokens = (uint64_t)decoder->shape.batch * decoder->shape.seq;
    uint64_t micros = decoder->micro_count;
    decoder->order = decoder_take(decoder, tokens, sizeof *decoder->order);
    decoder->starts = decoder_take(decoder, tokens + micros, sizeof *decoder->starts);
    decoder->distinct = decoder_take(decoder, micros, sizeof *decoder->distinct);
    decoder->room = decoder_take(decoder, decoder->config.vocab_size, sizeof *decoder->room);
    if (decoder->order == NULL || decoder->starts == NULL || decoder->distinct == NULL ||
        decoder->room == NULL)
        return strata_fail(error, STRATA_E_NOMEM, 0, "no memory to order %llu tokens",
                           (unsigned long long)tokens);
    return STRATA_OK;
}

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
                                .weight_dtype = shape->compute_dtype,
                                .act_dtype = act_dtype_of(shape)};
    decoder->act_bytes = decoder->ops.table->act_bytes(decoder->ops.act_dtype);
    decoder->host_bytes = sizeof *decoder;
    if (shape->vocab_slices == 0)
        decoder->shape.vocab_slices = default_slices(config);
    decoder->micro_count = shape->batch / shape->micro_batch;
    decoder->micro_tokens = (uint64_t)shape->micro_batch * shape->seq;
    strata_status status = strata_decoder_build_groups(decoder, error);
    if (status == STRATA_OK)
        status = build_uses(decoder, error);
    if (status == STRATA_OK)
        status = strata_decoder_build_rotary(decoder, error);
    if (status == STRATA_OK)
        status = build_order(decoder, error);
    if (status != STRATA_OK) {
        strata_decoder_destroy(decoder);
        return status;
    }
    strata_decoder_build_layout(decoder);
    *out = decoder;
    return STRATA_OK;
}

void strata_decoder_destroy(struct decoder *decoder)
{
    if (decoder == NULL)
        return;
    decoder->ops.table->close(&decoder->ops);
    free(decoder->room);
    free(decoder->distinct);
    free(decoder->starts);
    free(decoder->order);
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
