/*
 * A tiny Llama against PyTorch: loss, gradients, and the weights after ten AdamW steps.
 *
 * The golden files are made by tools/make_golden.py, whose top describes them. They hold no
 * initial weights; both sides make them from the same integer hash.
 *
 * A gradient is not handed out by the engine. With beta1 = 0 and no clipping the first moment
 * after one step is the gradient, and that can be read.
 */

#include "base/shape.h"
#include "tests/support/decoder_rig.h"
#include "tests/support/golden.h"

#define MAGIC 0x444c4753u

/* The file's head, field by field in its order. */
struct golden_sizes {
    uint32_t magic, version, tied, vocab, hidden, layers, heads, kv_heads, head_dim, ffn, seq,
        batch;
    uint32_t steps, llama3;
};

struct golden_numbers {
    double rms_eps, theta, factor, low, high, original;
    double lr, beta1, beta2, eps, weight_decay, clip;
};

struct golden {
    struct golden_sizes sizes;
    struct golden_numbers numbers;
    uint32_t *tokens;
    double *losses;
    double *norms;
    float *grads;
    float *weights;
};

/* Elements of all tensors together. */
static uint64_t elems_of(const struct golden_sizes *s)
{
    uint64_t q = (uint64_t)s->heads * s->head_dim, kv = (uint64_t)s->kv_heads * s->head_dim;
    uint64_t layer = s->hidden * (2 * q + 2 * kv + 3 * (uint64_t)s->ffn + 2);
    return (uint64_t)s->vocab * s->hidden * (s->tied ? 1 : 2) + s->layers * layer + s->hidden;
}

static struct golden golden_read(const char *name)
{
    struct golden g;
    FILE *file = open_golden(name);
    cr_assert_eq(fread(&g.sizes, sizeof g.sizes, 1, file), 1);
    cr_assert_eq(g.sizes.magic, MAGIC);
    cr_assert_eq(g.sizes.version, 1);
    cr_assert_eq(fread(&g.numbers, sizeof g.numbers, 1, file), 1);
    uint64_t tokens = (uint64_t)g.sizes.steps * g.sizes.batch * g.sizes.seq + 1;
    g.tokens = read_array(file, tokens, sizeof *g.tokens);
    g.losses = read_array(file, g.sizes.steps, sizeof *g.losses);
    g.norms = read_array(file, g.sizes.steps, sizeof *g.norms);
    g.grads = read_array(file, elems_of(&g.sizes), sizeof *g.grads);
    g.weights = read_array(file, elems_of(&g.sizes), sizeof *g.weights);
    cr_assert_eq(fgetc(file), EOF, "the golden file is longer than it should be");
    fclose(file);
    return g;
}

static void golden_free(struct golden *g)
{
    free(g->tokens);
    free(g->losses);
    free(g->norms);
    free(g->grads);
    free(g->weights);
}

/* A tensor of a group in the order of the file, which does not know slices. */
struct place {
    uint32_t tensor; /* its number                                        */
    uint64_t first;  /* of the whole tensor's elements, the slice's first */
    uint64_t at;     /* of the file's elements, the slice's first         */
};

static struct place place_of(const strata_model_desc *model, uint32_t group, uint32_t tensor)
{
    struct place place = {0};
    const char *previous = model->groups[0].tensors[0].name;
    uint64_t start = 0;
    for (uint32_t g = 0; g < model->group_count; g++) {
        for (uint32_t t = 0; t < model->groups[g].tensor_count; t++) {
            const strata_tensor_desc *desc = &model->groups[g].tensors[t];
            if (!same_tensor(previous, desc->name)) {
                place.tensor++;
                start = place.at;
            }
            place.first = place.at - start;
            if (g == group && t == tensor)
                return place;
            place.at += strata_tensor_elems(desc);
            previous = desc->name;
        }
    }
    cr_assert_fail("group %u has no tensor %u", group, tensor);
    return place;
}

/* user: the rig, which has the model. */
static void init_hashed(void *user, uint32_t group, uint32_t tensor, uint64_t first,
                        uint64_t count, float *out)
{
    const strata_model_desc *model =
        strata_decoder_model(((const struct decoder_rig *)user)->decoder);
    struct place place = place_of(model, group, tensor);
    bool norm = model->groups[group].tensors[tensor].rank == 1;
    for (uint64_t i = 0; i < count; i++)
        out[i] = hashed_weight(place.tensor, (uint32_t)(place.first + first + i), norm);
}

/* How the tested code is asked to cut the same step. */
struct cut {
    uint32_t micro_batch;
    uint32_t vocab_slices;
};

static struct decoder_rig_desc desc_of(const struct golden *g, struct cut cut,
                                       struct decoder_rig *rig)
{
    const struct golden_sizes *s = &g->sizes;
    const struct golden_numbers *n = &g->numbers;
    return (struct decoder_rig_desc){
        .config = {.vocab_size = s->vocab,
                   .hidden_size = s->hidden,
                   .layer_count = s->layers,
                   .head_count = s->heads,
                   .kv_head_count = s->kv_heads,
                   .head_dim = s->head_dim,
                   .ffn_size = s->ffn,
                   .rms_eps = n->rms_eps,
                   .initializer_range = 0.02,
                   .tied = s->tied != 0,
                   .rope = {.type = s->llama3 != 0 ? DECODER_ROPE_LLAMA3 : DECODER_ROPE_DEFAULT,
                            .theta = n->theta,
                            .factor = n->factor,
                            .low_freq_factor = n->low,
                            .high_freq_factor = n->high,
                            .original_positions = n->original}},
        .shape = {.seq = s->seq,
                  .batch = s->batch,
                  .micro_batch = cut.micro_batch,
                  .vocab_slices = cut.vocab_slices,
                  .compute_dtype = STRATA_FP32},
        .adam = {(float)n->beta1, (float)n->beta2, (float)n->eps, (float)n->weight_decay},
        .clip = (float)n->clip,
        .init = init_hashed,
        .init_user = rig,
    };
}

/* One record of a tensor against count values of the file. */
typedef void (*compare_fn)(const char *name, const float *got, const float *want,
                           uint64_t count);

static void compare_all(struct decoder_rig *rig, strata_record record, const float *want,
                        compare_fn compare)
{
    const strata_model_desc *model = strata_decoder_model(rig->decoder);
    for (uint32_t g = 0; g < model->group_count; g++) {
        for (uint32_t t = 0; t < model->groups[g].tensor_count; t++) {
            const strata_tensor_desc *desc = &model->groups[g].tensors[t];
            uint64_t count = strata_tensor_elems(desc);
            float *got = malloc(count * sizeof *got);
            cr_assert_not_null(got);
            cr_assert_eq(strata_engine_read(rig->engine, g, t, record, 0, count, got),
                         STRATA_OK);
            compare(desc->name, got, want + place_of(model, g, t).at, count);
            free(got);
        }
    }
}

static void open_rig(struct decoder_rig *rig, const struct decoder_rig_desc *desc)
{
    strata_error error = {0};
    cr_assert(strata_test_decoder_open(rig, desc, &error) == STRATA_OK, "%s", error.message);
}

static void check_gradients(const char *name, struct cut cut)
{
    struct golden g = golden_read(name);
    struct decoder_rig rig;
    struct decoder_rig_desc desc = desc_of(&g, cut, &rig);
    double loss;
    strata_step_result result;
    desc.adam.beta1 = 0.0f;
    desc.clip = 0.0f;
    open_rig(&rig, &desc);
    cr_assert_eq(strata_test_decoder_step(&rig, 0.0, g.tokens, &loss, &result), STRATA_OK);
    expect_relative("loss", 0, loss, g.losses[0], LOSS_TOLERANCE);
    expect_relative("norm", 0, result.grad_norm, g.norms[0], NORM_TOLERANCE);
    compare_all(&rig, STRATA_MOMENT1, g.grads, compare_gradient);
    strata_test_decoder_close(&rig);
    golden_free(&g);
}

static void check_steps(const char *name, struct cut cut)
{
    struct golden g = golden_read(name);
    struct decoder_rig rig;
    struct decoder_rig_desc desc = desc_of(&g, cut, &rig);
    open_rig(&rig, &desc);
    for (uint32_t step = 0; step < g.sizes.steps; step++) {
        double loss;
        strata_step_result result;
        const uint32_t *tokens = g.tokens + (uint64_t)step * g.sizes.batch * g.sizes.seq;
        cr_assert_eq(strata_test_decoder_step(&rig, g.numbers.lr, tokens, &loss, &result),
                     STRATA_OK);
        expect_relative("loss", step, loss, g.losses[step], LOSS_TOLERANCE);
        expect_relative("norm", step, result.grad_norm, g.norms[step], NORM_TOLERANCE);
    }
    compare_all(&rig, STRATA_MASTER, g.weights, compare_weight);
    strata_test_decoder_close(&rig);
    golden_free(&g);
}

Test(golden, tied_loss_and_gradients_are_those_of_pytorch)
{
    check_gradients("tied", (struct cut){.micro_batch = 4, .vocab_slices = 1});
}

Test(golden, untied_loss_and_gradients_with_llama3_rope_are_those_of_pytorch)
{
    check_gradients("untied", (struct cut){.micro_batch = 4, .vocab_slices = 1});
}

Test(golden, slices_and_micro_batches_leave_the_gradients_right)
{
    check_gradients("tied", (struct cut){.micro_batch = 1, .vocab_slices = 3});
    check_gradients("untied", (struct cut){.micro_batch = 2, .vocab_slices = 5});
}

Test(golden, tied_weights_after_ten_steps_are_those_of_pytorch)
{
    check_steps("tied", (struct cut){.micro_batch = 4, .vocab_slices = 1});
}

Test(golden, untied_weights_after_ten_steps_are_those_of_pytorch)
{
    check_steps("untied", (struct cut){.micro_batch = 2, .vocab_slices = 2});
}
