/*
 * A tiny model of every family against the transformers library: loss, gradients, and the
 * weights after ten AdamW steps.
 *
 * The golden files are made by tools/make_golden_families.py, whose top describes them. Each
 * holds a config.json, which is read here as a user's would be.
 */

#define _GNU_SOURCE

#include "base/shape.h"
#include "tests/support/decoder_rig.h"
#include "tests/support/golden.h"

#include <sys/mman.h>
#include <unistd.h>

#define MAGIC      0x324c4753u
#define NAME_BYTES 64u

struct head {
    uint32_t magic, version, seq, batch, steps, tensors, config_bytes;
};

struct numbers {
    double lr, beta1, beta2, eps, weight_decay, clip;
};

struct tensor {
    char name[NAME_BYTES];
    uint64_t count;
    float *grad;
    float *weight;
};

struct golden {
    struct head head;
    struct numbers numbers;
    char *config;
    uint32_t *tokens;
    double *losses;
    double *norms;
    struct tensor *tensors;
};

static void read_tensors(struct golden *g, FILE *file)
{
    g->tensors = calloc(g->head.tensors, sizeof *g->tensors);
    cr_assert_not_null(g->tensors);
    for (uint32_t i = 0; i < g->head.tensors; i++) {
        struct tensor *tensor = &g->tensors[i];
        cr_assert_eq(fread(tensor->name, sizeof tensor->name, 1, file), 1);
        cr_assert_eq(fread(&tensor->count, sizeof tensor->count, 1, file), 1);
        tensor->grad = read_array(file, tensor->count, sizeof *tensor->grad);
    }
    for (uint32_t i = 0; i < g->head.tensors; i++)
        g->tensors[i].weight =
            read_array(file, g->tensors[i].count, sizeof *g->tensors[i].weight);
}

static struct golden golden_read(const char *name)
{
    struct golden g;
    FILE *file = open_golden(name);
    cr_assert_eq(fread(&g.head, sizeof g.head, 1, file), 1);
    cr_assert_eq(g.head.magic, MAGIC);
    cr_assert_eq(g.head.version, 1);
    cr_assert_eq(fread(&g.numbers, sizeof g.numbers, 1, file), 1);
    g.config = read_array(file, g.head.config_bytes, 1);
    g.tokens = read_array(file, (uint64_t)g.head.steps * g.head.batch * g.head.seq + 1,
                          sizeof *g.tokens);
    g.losses = read_array(file, g.head.steps, sizeof *g.losses);
    g.norms = read_array(file, g.head.steps, sizeof *g.norms);
    read_tensors(&g, file);
    cr_assert_eq(fgetc(file), EOF, "the golden file is longer than it should be");
    fclose(file);
    return g;
}

static void golden_free(struct golden *g)
{
    for (uint32_t i = 0; i < g->head.tensors; i++) {
        free(g->tensors[i].grad);
        free(g->tensors[i].weight);
    }
    free(g->tensors);
    free(g->norms);
    free(g->losses);
    free(g->tokens);
    free(g->config);
}

static struct decoder_config config_of(const struct golden *g)
{
    char path[64];
    struct decoder_config config;
    strata_error error = {0};
    int fd = memfd_create("config.json", MFD_CLOEXEC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, g->config, g->head.config_bytes), (ssize_t)g->head.config_bytes);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    cr_assert(strata_decoder_config_read(&config, path, &error) == STRATA_OK, "%s",
              error.message);
    close(fd);
    return config;
}

/* Where a tensor of the model, maybe a slice of one, lies in the file. */
struct place {
    uint32_t tensor;
    uint64_t first; /* of the tensor's elements */
};

static struct place place_of(const struct golden *g, const strata_model_desc *model,
                             uint32_t group, uint32_t tensor)
{
    const strata_tensor_desc *desc = &model->groups[group].tensors[tensor];
    struct place place = {0};
    while (place.tensor < g->head.tensors &&
           !same_tensor(g->tensors[place.tensor].name, desc->name))
        place.tensor++;
    cr_assert_lt(place.tensor, g->head.tensors, "PyTorch has no tensor %s", desc->name);
    /* A slice is a group of its own. */
    for (uint32_t before = 0; before < group; before++)
        if (same_tensor(model->groups[before].tensors[0].name, desc->name))
            place.first += strata_tensor_elems(&model->groups[before].tensors[0]);
    cr_assert_leq(place.first + strata_tensor_elems(desc), g->tensors[place.tensor].count, "%s",
                  desc->name);
    return place;
}

/* How the tested code is asked to cut the same step. */
struct cut {
    uint32_t micro_batch;
    uint32_t vocab_slices;
};

struct run {
    struct golden golden;
    struct decoder_rig rig;
    struct decoder_rig_desc desc;
};

static void init_hashed(void *user, uint32_t group, uint32_t tensor, uint64_t first,
                        uint64_t count, float *out)
{
    const struct run *run = user;
    const strata_model_desc *model = strata_decoder_model(run->rig.decoder);
    const strata_tensor_desc *desc = &model->groups[group].tensors[tensor];
    struct place place = place_of(&run->golden, model, group, tensor);
    for (uint64_t i = 0; i < count; i++) {
        out[i] =
            hashed_weight(place.tensor, (uint32_t)(place.first + first + i), desc->rank == 1);
        if (strstr(desc->name, ".bias") != NULL)
            out[i] -= 1.0f;
    }
}

static void run_open(struct run *run, const char *name, struct cut cut)
{
    run->golden = golden_read(name);
    const struct head *head = &run->golden.head;
    const struct numbers *n = &run->golden.numbers;
    run->desc = (struct decoder_rig_desc){
        .config = config_of(&run->golden),
        .shape = {.seq = head->seq,
                  .batch = head->batch,
                  .micro_batch = cut.micro_batch,
                  .vocab_slices = cut.vocab_slices,
                  .compute_dtype = STRATA_FP32},
        .adam = {(float)n->beta1, (float)n->beta2, (float)n->eps, (float)n->weight_decay},
        .clip = (float)n->clip,
        .init = init_hashed,
        .init_user = run,
    };
}

static void start(struct run *run)
{
    strata_error error = {0};
    cr_assert(strata_test_decoder_open(&run->rig, &run->desc, &error) == STRATA_OK, "%s",
              error.message);
}

static void run_close(struct run *run)
{
    strata_test_decoder_close(&run->rig);
    golden_free(&run->golden);
}

static void one_step(struct run *run, uint32_t step, double lr)
{
    const struct golden *g = &run->golden;
    double loss;
    strata_step_result result;
    const uint32_t *tokens = g->tokens + (uint64_t)step * g->head.batch * g->head.seq;
    cr_assert_eq(strata_test_decoder_step(&run->rig, lr, tokens, &loss, &result), STRATA_OK);
    expect_relative("loss", step, loss, g->losses[step], LOSS_TOLERANCE);
    expect_relative("norm", step, result.grad_norm, g->norms[step], NORM_TOLERANCE);
}

/* A record of every tensor against the file; all of the file's tensors are met. */
static void compare_all(struct run *run, strata_record record)
{
    const struct golden *g = &run->golden;
    const strata_model_desc *model = strata_decoder_model(run->rig.decoder);
    uint64_t seen = 0, all = 0;
    for (uint32_t i = 0; i < g->head.tensors; i++)
        all += g->tensors[i].count;
    for (uint32_t group = 0; group < model->group_count; group++) {
        for (uint32_t t = 0; t < model->groups[group].tensor_count; t++) {
            const strata_tensor_desc *desc = &model->groups[group].tensors[t];
            uint64_t count = strata_tensor_elems(desc);
            struct place place = place_of(g, model, group, t);
            const struct tensor *want = &g->tensors[place.tensor];
            float *got = malloc(count * sizeof *got);
            cr_assert_not_null(got);
            cr_assert_eq(strata_engine_read(run->rig.engine, group, t, record, 0, count, got),
                         STRATA_OK);
            if (record == STRATA_MASTER)
                compare_weight(desc->name, got, want->weight + place.first, count);
            else
                compare_gradient(desc->name, got, want->grad + place.first, count);
            free(got);
            seen += count;
        }
    }
    cr_assert_eq(seen, all);
}

static void check(const char *name, struct cut cut)
{
    static struct run run;
    run_open(&run, name, cut);
    run.desc.adam.beta1 = 0.0f;
    run.desc.clip = 0.0f;
    start(&run);
    one_step(&run, 0, 0.0);
    compare_all(&run, STRATA_MOMENT1);
    run_close(&run);
    run_open(&run, name, cut);
    start(&run);
    for (uint32_t step = 0; step < run.golden.head.steps; step++)
        one_step(&run, step, run.golden.numbers.lr);
    compare_all(&run, STRATA_MASTER);
    run_close(&run);
}

static void check_cuts(const char *name)
{
    check(name, (struct cut){.micro_batch = 3, .vocab_slices = 1});
    check(name, (struct cut){.micro_batch = 1, .vocab_slices = 5});
}

Test(golden_families, llama_with_linear_rope_and_gelu_is_the_librarys)
{
    check_cuts("llama_linear_gelu");
}

Test(golden_families, tied_llama_with_llama3_rope_is_the_librarys)
{
    check_cuts("llama_llama3_tied");
}

Test(golden_families, mistral_with_a_window_and_heads_of_their_own_width_is_the_librarys)
{
    check_cuts("mistral");
}

Test(golden_families, tied_mistral_without_a_window_is_the_librarys)
{
    check_cuts("mistral_whole_tied");
}

Test(golden_families, tied_qwen2_with_its_biases_is_the_librarys)
{
    check_cuts("qwen2_tied");
}

Test(golden_families, qwen2_with_windows_from_a_layer_on_and_yarn_is_the_librarys)
{
    check_cuts("qwen2_window_yarn");
}

Test(golden_families, qwen3_with_norms_of_its_heads_is_the_librarys)
{
    check_cuts("qwen3");
}

Test(golden_families, tied_qwen3_with_windows_and_fractional_yarn_is_the_librarys)
{
    check_cuts("qwen3_window_tied");
}
