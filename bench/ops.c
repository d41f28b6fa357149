#define _GNU_SOURCE
/*
 * offload-bench ops: every operator of a decoder's layer on a GPU that may not be there: its
 * FLOPs, its bytes, the datasheet's bound, the time that is expected of it, its share.
 *
 * Nothing is measured: the times are the roofline's (bench/roofline.h), which plan takes as the
 * cost of computing.
 *
 * Thread: the main thread.
 */

#include "bench/commands.h"

#include "bench/catalogue.h"
#include "bench/options.h"
#include "bench/roofline.h"
#include "train/decoder.h"

#include <stddef.h>
#include <stdio.h>

struct ops_options {
    const char *model;
    const struct gpu *gpu;
    uint32_t seq;
    uint32_t tokens;
    bool dry;
    struct bench_output output;
};

struct part {
    const char *title;
    double times; /* of a step of these tokens: a layer's as often as there are layers */
    uint32_t count;
    struct roofline_op ops[ROOFLINE_MAX_OPS];
};

#define PARTS 4u

static void list_parts(struct part parts[PARTS], const struct ops_options *options,
                       const struct decoder_config *config)
{
    static const char *const titles[] = {"forward", "again", "backward"};
    struct roofline_shape shape = {.tokens = options->tokens, .seq = options->seq};
    for (int pass = 0; pass < ROOFLINE_PASS_COUNT; pass++) {
        parts[pass].title = titles[pass];
        parts[pass].times = (double)config->layer_count;
        parts[pass].count = strata_roofline_layer(parts[pass].ops, options->gpu, config, shape,
                                                  (enum roofline_pass)pass);
    }
    parts[ROOFLINE_PASS_COUNT].title = "ends";
    parts[ROOFLINE_PASS_COUNT].times = 1;
    parts[ROOFLINE_PASS_COUNT].count =
        strata_roofline_ends(parts[ROOFLINE_PASS_COUNT].ops, options->gpu, config, shape);
}

static double part_s(const struct part *part)
{
    double sum_s = 0;
    for (uint32_t i = 0; i < part->count; i++)
        sum_s += part->ops[i].time_s;
    return sum_s;
}

static void print_part(FILE *out, const struct part *part, double step_s)
{
    fprintf(out, "\n%-16s%12s%10s%12s%12s%9s\n", part->title, "GFLOP", "MB", "bound us",
            "expected us", "of step");
    for (uint32_t i = 0; i < part->count; i++) {
        const struct roofline_op *op = &part->ops[i];
        char flops[24] = "-";
        if (op->flops > 0)
            snprintf(flops, sizeof flops, "%.1f", 1e-9 * op->flops);
        fprintf(out, "%-16s%12s%10.1f%12.1f%12.1f%7.2f %%\n", op->name, flops, 1e-6 * op->bytes,
                1e6 * op->bound_s, 1e6 * op->time_s, 100 * part->times * op->time_s / step_s);
    }
    fprintf(out, "%-16s%12s%10s%12s%12.1f%7.2f %%\n", "together", "", "", "",
            1e6 * part_s(part), 100 * part->times * part_s(part) / step_s);
}

static strata_json *part_json(const struct part *part)
{
    strata_json *list = strata_json_array();
    for (uint32_t i = 0; i < part->count; i++) {
        const struct roofline_op *op = &part->ops[i];
        strata_json *one = strata_json_object();
        strata_json_set_string(one, "name", op->name);
        strata_json_set_number(one, "flops", op->flops);
        strata_json_set_number(one, "bytes", op->bytes);
        strata_json_set_number(one, "bound_s", op->bound_s);
        strata_json_set_number(one, "expected_s", op->time_s);
        strata_json_append(list, one);
    }
    return list;
}

static enum bench_exit report(const struct ops_options *options,
                              const struct decoder_config *config)
{
    FILE *out = options->output.json ? stderr : stdout;
    const struct gpu *gpu = options->gpu;
    struct part parts[PARTS];
    double step_s = 0;
    list_parts(parts, options, config);
    for (uint32_t i = 0; i < PARTS; i++)
        step_s += parts[i].times * part_s(&parts[i]);
    double model_flops = options->tokens * strata_roofline_model_flops(config, options->seq);
    double share = model_flops / step_s / gpu->flops_per_s;
    fprintf(
        out,
        "%s, %u tokens of a micro-batch in sequences of %u, on one %s; nothing is measured\n"
        "assumed  products %.0f TFLOP/s over seconds, memory %.2f TB/s%s\n",
        options->model, options->tokens, options->seq, gpu->title,
        1e-12 * gpu->product_flops_per_s, 1e-12 * gpu->stream_bytes_per_s,
        gpu->assumed ? " (not measured on this GPU: shares of its datasheet)" : "");
    strata_json *document = strata_bench_document("ops");
    strata_json_set_string(document, "model", options->model);
    strata_json_set_string(document, "gpu", gpu->name);
    strata_json_set_uint(document, "tokens", options->tokens);
    strata_json_set_uint(document, "seq", options->seq);
    strata_json_set_bool(document, "assumed", gpu->assumed);
    for (uint32_t i = 0; i < PARTS; i++) {
        print_part(out, &parts[i], step_s);
        strata_json_set(document, parts[i].title, part_json(&parts[i]));
    }
    fprintf(
        out,
        "\nin all   %.3f s for forward, backward and what it repeats of %u layers and the "
        "ends; %.1f %% of the datasheet's %.1f TFLOP/s, counting what the model needs once\n",
        step_s, (unsigned)config->layer_count, 100 * share, 1e-12 * gpu->flops_per_s);
    strata_json_set_number(document, "compute_s", step_s);
    strata_json_set_number(document, "model_flops", model_flops);
    strata_json_set_number(document, "share_of_peak", share);
    bool written = strata_bench_write(&options->output, document);
    strata_json_free(document);
    return written ? BENCH_DONE : BENCH_FAILED;
}

static strata_status take_gpu(void *target, const struct option_row *row, const char *text,
                              strata_error *error)
{
    return strata_bench_take_gpu(&((struct ops_options *)target)->gpu, row, text, error);
}

#define FIELD(member) offsetof(struct ops_options, member)
#define BELOW_COUNT   ((1u << 24) + 1)

static const struct option_row rows[] = {
    VALUE("model", OPTION_TEXT, "NAME|FILE|DIR", model,
          "a name, or a Hugging Face config (llama-7b)"),
    RANGE("seq", OPTION_COUNT, "N", seq, 1, BELOW_COUNT, "tokens of a sequence (4096)"),
    RANGE("tokens", OPTION_COUNT, "N", tokens, 1, BELOW_COUNT,
          "of a micro-batch, the rows of its products (16384)"),
    OWN("gpu", "NAME", take_gpu, "one of the catalogue (h200)"),
    FLAG("dry", dry, "required: operators are estimated, and measured by no version yet"),
    OUTPUT_ROWS,
};

static const struct command_line line = COMMAND_LINE("ops --dry", "\nGPUs: " GPU_NAMES "\n");

enum bench_exit strata_bench_ops(int argc, char **argv)
{
    struct ops_options options = {
        .model = "llama-7b", .gpu = strata_gpu_named("h200"), .seq = 4096, .tokens = 16384};
    struct decoder_config config;
    enum bench_exit result;
    strata_error error = {0};
    if (!strata_bench_options(&result, &line, &options, argc, argv))
        return result;
    if (!options.dry)
        return strata_bench_usage("ops", "--dry",
                                  "is required: operators are estimated, not measured, here");
    if (options.tokens % options.seq != 0)
        return strata_bench_usage("ops", "--tokens", "must be whole sequences of --seq tokens");
    if (strata_decoder_config_check(options.model, &error) != STRATA_OK) {
        strata_bench_fail("ops", &error);
        return BENCH_USAGE;
    }
    if (strata_decoder_config_read(&config, options.model, &error) != STRATA_OK)
        return strata_bench_fail("ops", &error);
    return report(&options, &config);
}
