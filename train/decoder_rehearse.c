/*
 * The work of a step without an engine, in memory of the device's own: once, so that libraries
 * and kernels are loaded; or operator by operator, to see what each takes.
 *
 * To be timed, each operator is called by a table of operators that stands before the device's
 * own: it fills all activations again, since some operators work in place and a GPU computes
 * with zeros at a clock that it never has in training, calls the device's operator once, and
 * then several times in a row between two looks at the clock.
 *
 * Thread: the caller's.
 */

#include "train/decoder_run.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/random.h"
#include "base/shape.h"
#include "strata/adam.h"

#include <string.h>

/* Memory for a step, and for the weights and gradients of one group. */
struct rehearsal {
    strata_device *device;
    struct run run;
    void *memory;
    uint64_t bytes;
    uint64_t group_elems; /* of the largest group */
    uint32_t *tokens;     /* a step's, on the host */
};

static uint64_t token_count(const struct decoder *decoder)
{
    return (uint64_t)decoder->shape.batch * decoder->shape.seq;
}

static uint64_t largest_group(const struct decoder *decoder)
{
    uint64_t most = 0;
    for (uint32_t g = 0; g < decoder->model.group_count; g++) {
        uint64_t elems = strata_group_elems(&decoder->groups[g]);
        most = elems > most ? elems : most;
    }
    return most;
}

/* Weights lie behind the gradients, which are wider. No plan asks for less than this: each
 * holds scratch and, in backward, the weights and gradients of a group. */
static strata_status open_rehearsal(struct rehearsal *r, struct decoder *decoder,
                                    strata_device *device, strata_stream *stream,
                                    strata_error *error)
{
    *r = (struct rehearsal){.device = device, .group_elems = largest_group(decoder)};
    uint64_t weight_bytes = strata_dtype_bytes(decoder->shape.compute_dtype);
    r->tokens = calloc(token_count(decoder), sizeof *r->tokens);
    if (r->tokens == NULL)
        return strata_fail(error, STRATA_E_NOMEM, 0, "no memory for the tokens of a step");
    r->bytes = decoder->layout.bytes + r->group_elems * (sizeof(float) + weight_bytes);
    strata_status status = strata_device_take(device, r->bytes, &r->memory, error);
    if (status != STRATA_OK) {
        free(r->tokens);
        return status;
    }
    r->run = strata_run_on(decoder, stream, r->memory);
    r->run.loss_scale = 1;
    float *grad = array_at(&r->run, decoder->layout.bytes);
    r->run.view = (strata_view){.param = grad + r->group_elems, .grad = grad};
    strata_stream_zero(stream, r->memory, r->bytes);
    return STRATA_OK;
}

/* The device's first failure, if there was one. */
static strata_status close_rehearsal(struct rehearsal *r, strata_error *error)
{
    strata_stream_sync(r->run.stream);
    strata_device_give(r->device, r->memory, r->bytes);
    free(r->tokens);
    const strata_error *failure = strata_device_error(r->device);
    if (failure == NULL)
        return STRATA_OK;
    return strata_fail(error, failure->status, failure->native, "%s", failure->message);
}

/* How many tasks of a kind differ in their shapes: slices in their rows, the first and the last
 * layer in their window. */
static uint32_t task_count(const struct decoder *decoder, enum decoder_work work)
{
    switch (work) {
    case DECODER_HEAD:
        return decoder->shape.vocab_slices == 1 ? 1 : 0;
    case DECODER_HEAD_SCAN:
    case DECODER_HEAD_GRAD:
        return decoder->shape.vocab_slices == 1 ? 0 : decoder->shape.vocab_slices;
    case DECODER_EMBED:
    case DECODER_EMBED_GRAD:
        return decoder->shape.vocab_slices;
    case DECODER_LAYER:
    case DECODER_LAYER_GRAD:
        return decoder->config.layer_count > 1 ? 2 : 1;
    case DECODER_NORM:
    case DECODER_LOSS:
    case DECODER_NORM_GRAD:
        break;
    }
    return 1;
}

static void queue_everything(const struct run *run)
{
    uint32_t last_layer = (uint32_t)run->decoder->config.layer_count - 1;
    for (enum decoder_work work = DECODER_EMBED; work <= DECODER_EMBED_GRAD; work++)
        for (uint32_t i = 0; i < task_count(run->decoder, work); i++) {
            bool layer = work == DECODER_LAYER || work == DECODER_LAYER_GRAD;
            uint32_t index = layer && i > 0 ? last_layer : i;
            strata_decoder_queue(
                run, &(struct decoder_task){.work = work, .index = index, .first = true});
        }
}

strata_status strata_decoder_rehearse(struct decoder *decoder, strata_device *device,
                                      strata_stream *stream, strata_error *error)
{
    STRATA_TRY(decoder->ops.table->open(&decoder->ops, error));
    if (!decoder->shape.cuda)
        return STRATA_OK;
    struct rehearsal r;
    STRATA_TRY(open_rehearsal(&r, decoder, device, stream, error));
    strata_decoder_queue_inputs(&r.run, r.tokens, r.tokens);
    queue_everything(&r.run);
    return close_rehearsal(&r, error);
}

const char *strata_decoder_lack(const struct decoder *decoder)
{
    return decoder->ops.table->lack(&decoder->ops);
}

/* Timing. */

#define FILL_COUNT                                                                             \
    ((uint64_t)1 << 20) /* numbers that arrays are filled with, again and again */
#define FILL_SEED  1u
#define CALLS_MAX  16u
#define TOKEN_STEP 7919u /* from a token to the next: most are different, as in a text */

#define WEIGHT_DEVIATION 0.02f

/* The table comes first: operators know their timer by it. */
struct timer {
    struct ops_table table;
    const struct ops_table *device;
    struct rehearsal *rehearsal;
    enum decoder_work work;
    double enough_s;   /* that an operator's calls take together, at most CALLS_MAX of them */
    void *weights;     /* FILL_COUNT of them, in the weights' type */
    void *activations; /* the same as activations lie in memory    */
    void (*take)(void *user, const struct decoder_timing *timing);
    void *user;
};

static void fill(const struct timer *t, void *to, uint64_t bytes, const void *pattern,
                 uint64_t pattern_bytes)
{
    for (uint64_t at = 0; at < bytes; at += pattern_bytes) {
        uint64_t piece = bytes - at < pattern_bytes ? bytes - at : pattern_bytes;
        strata_stream_copy(t->rehearsal->run.stream, (char *)to + at, pattern, piece);
    }
}

/* All that begins at x in scratch are activations. */
static void fill_activations(const struct timer *t)
{
    const struct run *run = &t->rehearsal->run;
    const struct decoder_layout *at = &run->decoder->layout;
    fill(t, array_at(run, at->x), at->bytes - at->x, t->activations,
         FILL_COUNT * run->decoder->act_bytes);
}

/* The layer's tensor whose weight or gradient an operator was given. */
static enum decoder_layer_tensor tensor_at(const struct timer *t, const void *array, bool grad)
{
    const struct run *run = &t->rehearsal->run;
    const struct decoder *decoder = run->decoder;
    const char *base = grad ? (const char *)run->view.grad : run->view.param;
    uint64_t each = grad ? sizeof(float) : strata_dtype_bytes(decoder->shape.compute_dtype);
    uint64_t offset = (uint64_t)((const char *)array - base) / each;
    uint32_t tensor = 0;
    while (tensor < DECODER_DOWN && !(decoder->layer_offset[tensor] == offset &&
                                      (offset > 0 || tensor == DECODER_INPUT_NORM)))
        tensor++;
    return tensor;
}

struct names {
    const char *forward;
    const char *grad; /* dx, where a product's are two */
    const char *dw;
};

static struct names product_names(enum decoder_layer_tensor tensor)
{
    switch (tensor) {
    case DECODER_Q:
        return (struct names){"qkv", "qkv dx", "qkv dw"};
    case DECODER_O:
        return (struct names){"o", "o dx", "o dw"};
    case DECODER_GATE:
        return (struct names){"gate-up", "gate-up dx", "gate-up dw"};
    default:
        return (struct names){"down", "down dx", "down dw"};
    }
}

static struct names norm_names(enum decoder_layer_tensor tensor)
{
    switch (tensor) {
    case DECODER_INPUT_NORM:
        return (struct names){"norm 1", "norm 1 grad", NULL};
    case DECODER_POST_NORM:
        return (struct names){"norm 2", "norm 2 grad", NULL};
    default:
        return (struct names){"qk norm", "qk norm grad", NULL};
    }
}

static bool of_layer(const struct timer *t)
{
    return t->work == DECODER_LAYER || t->work == DECODER_LAYER_GRAD;
}

static struct names names_of_product(const struct timer *t, const void *array, bool grad)
{
    if (!of_layer(t))
        return (struct names){"logits", "head dx", "head dw"};
    return product_names(tensor_at(t, array, grad));
}

static struct names names_of_norm(const struct timer *t, const void *weight)
{
    if (!of_layer(t))
        return (struct names){"norm", "norm grad", NULL};
    return norm_names(tensor_at(t, weight, false));
}

static const struct timer *timer_of(const struct ops *ops)
{
    return (const struct timer *)(const void *)ops->table;
}

typedef void call_operator(const struct ops_table *device, const struct ops *ops,
                           const void *args);

/* What some calls in a row take. */
static double time_calls(const struct ops *ops, call_operator *call, const void *args,
                         uint32_t calls)
{
    uint64_t begin_ns = strata_now_ns();
    for (uint32_t i = 0; i < calls; i++)
        call(timer_of(ops)->device, ops, args);
    strata_stream_sync(ops->stream);
    return 1e-9 * (double)(strata_now_ns() - begin_ns);
}

static void time_operator(const struct ops *ops, const char *name, call_operator *call,
                          const void *args)
{
    const struct timer *t = timer_of(ops);
    fill_activations(t);
    strata_stream_sync(ops->stream);
    double once_s = time_calls(ops, call, args, 1);
    uint32_t calls =
        once_s * CALLS_MAX < t->enough_s ? CALLS_MAX : (uint32_t)(t->enough_s / once_s) + 1;
    struct decoder_timing timing = {.work = t->work, .name = name};
    timing.seconds = time_calls(ops, call, args, calls) / calls;
    t->take(t->user, &timing);
}

/* One operator of the table: NAME is an expression of timer and args. */
#define TIMED(op, type, NAME)                                                                  \
    static void call_##op(const struct ops_table *device, const struct ops *ops,               \
                          const void *args)                                                    \
    {                                                                                          \
        device->op(ops, args);                                                                 \
    }                                                                                          \
    static void time_##op(const struct ops *ops, const struct type *args)                      \
    {                                                                                          \
        const struct timer *timer = timer_of(ops);                                             \
        (void)timer;                                                                           \
        time_operator(ops, NAME, call_##op, args);                                             \
    }

TIMED(norm, op_norm, names_of_norm(timer, args->weight).forward)
TIMED(norm_grad, op_norm_grad, names_of_norm(timer, args->weight).grad)
TIMED(linear, op_linear, names_of_product(timer, args->weight, false).forward)
TIMED(linear_dx, op_linear, names_of_product(timer, args->weight, false).grad)
TIMED(linear_dw, op_linear_dw, names_of_product(timer, args->dweight, true).dw)
TIMED(bias, op_bias, "qkv bias")
TIMED(bias_grad, op_bias_grad, "qkv dbias")
TIMED(rotary, op_rotary, args->inverse ? "rope grad" : "rope")
TIMED(attention, op_attention, "attention")
TIMED(attention_grad, op_attention_grad, "attention grad")
TIMED(glu, op_glu, "swiglu")
TIMED(glu_grad, op_glu_grad, "swiglu grad")
TIMED(embed, op_embed, "look-up")
TIMED(embed_grad, op_embed_grad, "look-up grad")
TIMED(entropy_scan, op_entropy, "loss")
TIMED(entropy_grad, op_entropy, "loss")

/* The rest of the table is the device's, and not timed. */
static void set_table(struct timer *t)
{
    t->table = *t->device;
    t->table.norm = time_norm;
    t->table.norm_grad = time_norm_grad;
    t->table.linear = time_linear;
    t->table.linear_dx = time_linear_dx;
    t->table.linear_dw = time_linear_dw;
    t->table.bias = time_bias;
    t->table.bias_grad = time_bias_grad;
    t->table.rotary = time_rotary;
    t->table.attention = time_attention;
    t->table.attention_grad = time_attention_grad;
    t->table.glu = time_glu;
    t->table.glu_grad = time_glu_grad;
    t->table.embed = time_embed;
    t->table.embed_grad = time_embed_grad;
    t->table.entropy_scan = time_entropy_scan;
    t->table.entropy_grad = time_entropy_grad;
}

/* FILL_COUNT normally distributed numbers of a type, as a pattern to fill arrays with. */
static void *make_pattern(strata_dtype dtype, float deviation)
{
    float *wide = malloc(FILL_COUNT * sizeof *wide);
    void *out = malloc(FILL_COUNT * sizeof *wide);
    if (wide != NULL && out != NULL) {
        strata_random_normal(FILL_SEED, 0, 0, FILL_COUNT, deviation, wide);
        (void)strata_convert(STRATA_ISA_BEST, out, dtype, wide, STRATA_FP32, FILL_COUNT);
    }
    free(wide);
    return out;
}

static void time_everything(struct timer *t)
{
    struct run *run = &t->rehearsal->run;
    uint64_t vocab = run->decoder->config.vocab_size;
    uint64_t weight_bytes = strata_dtype_bytes(run->decoder->shape.compute_dtype);
    for (uint64_t i = 0; i < token_count(run->decoder); i++)
        t->rehearsal->tokens[i] = (uint32_t)(i * TOKEN_STEP % vocab);
    strata_decoder_queue_inputs(run, t->rehearsal->tokens, t->rehearsal->tokens);
    fill(t, (void *)(uintptr_t)run->view.param, t->rehearsal->group_elems * weight_bytes,
         t->weights, FILL_COUNT * weight_bytes);
    run->ops.table = &t->table;
    for (t->work = DECODER_EMBED; t->work <= DECODER_EMBED_GRAD; t->work++)
        if (task_count(run->decoder, t->work) > 0)
            strata_decoder_queue(run, &(struct decoder_task){.work = t->work, .first = true});
}

strata_status strata_decoder_time(struct decoder *decoder, strata_device *device,
                                  strata_stream *stream, double enough_s,
                                  void (*take)(void *user, const struct decoder_timing *timing),
                                  void *user, strata_error *error)
{
    struct rehearsal r;
    STRATA_TRY(open_rehearsal(&r, decoder, device, stream, error));
    bool narrow = decoder->act_bytes < sizeof(float);
    struct timer t = {
        .device = decoder->ops.table,
        .rehearsal = &r,
        .enough_s = enough_s,
        .weights = make_pattern(decoder->shape.compute_dtype, WEIGHT_DEVIATION),
        .activations = make_pattern(narrow ? decoder->ops.act_dtype : STRATA_FP32, 1),
        .take = take,
        .user = user,
    };
    set_table(&t);
    bool memory = t.weights != NULL && t.activations != NULL;
    if (memory)
        time_everything(&t);
    strata_status status = close_rehearsal(&r, error);
    free(t.weights);
    free(t.activations);
    if (!memory)
        return strata_fail(error, STRATA_E_NOMEM, 0, "no memory for the numbers to fill with");
    return status;
}
