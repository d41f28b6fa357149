#define _GNU_SOURCE
/*
 * offload-bench ops: every operator of a decoder's layer: its FLOPs, its bytes, what it takes,
 * its share.
 *
 * With --dry on a GPU of the catalogue that may not be there: the datasheet's bound and the
 * time that is expected, which is the roofline's (bench/roofline.h), which plan takes as the
 * cost of computing. Without, on the device that is there: each operator as the trainer calls
 * it, measured by itself (strata_decoder_time), and beside what is expected of a GPU. An
 * operator of the roofline that the trainer has as a part of another has no time of its own.
 *
 * Thread: the main thread, the device's stream and workers.
 */

#include "bench/commands.h"

#include "bench/catalogue.h"
#include "bench/device.h"
#include "bench/options.h"
#include "bench/roofline.h"
#include "train/decoder.h"

#include "strata/workers.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

struct ops_options {
    const char *model;
    const struct gpu *gpu;
    uint32_t seq;
    uint32_t tokens;
    bool dry;
    enum device_kind device;
    struct bench_output output;
};

struct part {
    const char *title;
    double times; /* of a step of these tokens: a layer's as often as there are layers */
    uint32_t count;
    struct roofline_op ops[ROOFLINE_MAX_OPS];
    double measured_s[ROOFLINE_MAX_OPS]; /* NAN: not measured */
};

#define PARTS    4u
#define ENOUGH_S 0.2 /* that an operator's calls take together */

/* What prints: with or without measured times, with or without a GPU's expected ones. */
struct view {
    bool measured;
    bool expected;
};

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
    for (uint32_t p = 0; p < PARTS; p++)
        for (uint32_t i = 0; i < ROOFLINE_MAX_OPS; i++)
            parts[p].measured_s[i] = NAN;
    parts[ROOFLINE_PASS_COUNT].title = "ends";
    parts[ROOFLINE_PASS_COUNT].times = 1;
    parts[ROOFLINE_PASS_COUNT].count =
        strata_roofline_ends(parts[ROOFLINE_PASS_COUNT].ops, options->gpu, config, shape);
}

/* What an operator takes: measured, where anything is. */
static double op_s(const struct part *part, uint32_t i, struct view view)
{
    if (!view.measured)
        return part->ops[i].time_s;
    return isnan(part->measured_s[i]) ? 0 : part->measured_s[i];
}

static double part_s(const struct part *part, struct view view)
{
    double sum_s = 0;
    for (uint32_t i = 0; i < part->count; i++)
        sum_s += op_s(part, i, view);
    return sum_s;
}

/* Measuring. */

/* Where a measured operator stands: the forward of a layer, or the parts of its backward by
 * their names; the ends. */
static void take_timing(void *user, const struct decoder_timing *timing)
{
    struct part *parts = user;
    for (uint32_t p = 0; p < PARTS; p++) {
        bool right = p == ROOFLINE_PASS_COUNT;
        if (timing->work == DECODER_LAYER)
            right = p == ROOFLINE_FORWARD;
        else if (timing->work == DECODER_LAYER_GRAD)
            right = p == ROOFLINE_AGAIN || p == ROOFLINE_BACKWARD;
        for (uint32_t i = 0; right && i < parts[p].count; i++)
            if (strcmp(parts[p].ops[i].name, timing->name) == 0) {
                double *sum_s = &parts[p].measured_s[i];
                *sum_s = timing->seconds + (isnan(*sum_s) ? 0 : *sum_s);
                return;
            }
    }
}

struct rig {
    strata_device *device; /* owned, like all of it */
    strata_stream *stream;
    strata_workers *workers;
    struct decoder *decoder;
};

static strata_status open_rig(struct rig *rig, const struct ops_options *options,
                              const struct decoder_config *config, strata_error *error)
{
    STRATA_TRY(strata_bench_device_open(&rig->device, options->device, error));
    bool cuda = strcmp(strata_device_name(rig->device), "cuda") == 0;
    struct decoder_config one = *config;
    one.layer_count = 1;
    struct decoder_shape shape = {.seq = options->seq,
                                  .batch = options->tokens / options->seq,
                                  .micro_batch = options->tokens / options->seq,
                                  .vocab_slices = 1,
                                  .compute_dtype = STRATA_BF16,
                                  .cuda = cuda};
    STRATA_TRY(strata_stream_create(&rig->stream, rig->device, "ops", error));
    STRATA_TRY(strata_workers_create(&rig->workers, &(strata_workers_desc){0}, error));
    STRATA_TRY(strata_decoder_create(&rig->decoder, &one, &shape, rig->workers, error));
    return strata_decoder_rehearse(rig->decoder, rig->device, rig->stream, error);
}

static void close_rig(struct rig *rig)
{
    strata_stream_destroy(rig->stream);
    strata_decoder_destroy(rig->decoder);
    strata_workers_destroy(rig->workers);
    if (rig->device != NULL)
        strata_device_close(rig->device);
}

/* The GPU of the catalogue that is the device; NULL: none is. */
static const struct gpu *gpu_of(strata_device *device)
{
    strata_device_facts facts;
    strata_device_facts_of(device, &facts);
    return strata_gpu_of_model(facts.model);
}

/* A number of a table's column; "-" for what there is none of. */
static void print_cell(FILE *out, int width, double value)
{
    if (isnan(value) || value <= 0)
        fprintf(out, "%*s", width, "-");
    else
        fprintf(out, "%*.1f", width, value);
}

static void print_part(FILE *out, const struct part *part, struct view view, double step_s)
{
    fprintf(out, "\n%-16s%12s%10s", part->title, "GFLOP", "MB");
    if (view.expected)
        fprintf(out, "%12s%12s", "bound us", "expected us");
    if (view.measured)
        fprintf(out, "%14s", "measured us");
    fprintf(out, "%9s\n", "of step");
    for (uint32_t i = 0; i < part->count; i++) {
        const struct roofline_op *op = &part->ops[i];
        fprintf(out, "%-16s", op->name);
        print_cell(out, 12, 1e-9 * op->flops);
        print_cell(out, 10, 1e-6 * op->bytes);
        if (view.expected) {
            print_cell(out, 12, 1e6 * op->bound_s);
            print_cell(out, 12, 1e6 * op->time_s);
        }
        if (view.measured)
            print_cell(out, 14, 1e6 * part->measured_s[i]);
        fprintf(out, "%7.2f %%\n", 100 * part->times * op_s(part, i, view) / step_s);
    }
    fprintf(out, "%-16s%*.1f%7.2f %%\n", "together",
            22 + (view.expected ? 24 : 0) + (view.measured ? 14 : 0), 1e6 * part_s(part, view),
            100 * part->times * part_s(part, view) / step_s);
}

static strata_json *part_json(const struct part *part, struct view view)
{
    strata_json *list = strata_json_array();
    for (uint32_t i = 0; i < part->count; i++) {
        const struct roofline_op *op = &part->ops[i];
        strata_json *one = strata_json_object();
        strata_json_set_string(one, "name", op->name);
        strata_json_set_number(one, "flops", op->flops);
        strata_json_set_number(one, "bytes", op->bytes);
        if (view.expected) {
            strata_json_set_number(one, "bound_s", op->bound_s);
            strata_json_set_number(one, "expected_s", op->time_s);
        }
        if (view.measured && !isnan(part->measured_s[i]))
            strata_json_set_number(one, "measured_s", part->measured_s[i]);
        strata_json_append(list, one);
    }
    return list;
}

static void print_head(FILE *out, const struct ops_options *options, struct view view,
                       const char *measured_on)
{
    const struct gpu *gpu = options->gpu;
    fprintf(out, "%s, %u tokens of a micro-batch in sequences of %u, on one %s; %s\n",
            options->model, options->tokens, options->seq,
            view.measured ? measured_on : gpu->title,
            view.measured ? "each operator measured by itself" : "nothing is measured");
    if (view.expected)
        fprintf(out, "assumed  products %.0f TFLOP/s over seconds, memory %.2f TB/s%s\n",
                1e-12 * gpu->product_flops_per_s, 1e-12 * gpu->stream_bytes_per_s,
                gpu->assumed ? " (not measured on this GPU: shares of its datasheet)" : "");
}

static void print_foot(FILE *out, const struct ops_options *options, struct view view,
                       const struct decoder_config *config, double step_s, double model_flops)
{
    const struct gpu *gpu = options->gpu;
    fprintf(out,
            "\nin all   %.3f s for forward, backward and what it repeats of %u layers and the "
            "ends; ",
            step_s, (unsigned)config->layer_count);
    if (view.expected)
        fprintf(out, "%.1f %% of the datasheet's %.1f TFLOP/s",
                100 * model_flops / step_s / gpu->flops_per_s, 1e-12 * gpu->flops_per_s);
    else
        fprintf(out, "%.3f TFLOP/s", 1e-12 * model_flops / step_s);
    fprintf(out, ", counting what the model needs once\n");
}

static enum bench_exit report(const struct ops_options *options,
                              const struct decoder_config *config, struct part parts[PARTS],
                              struct view view, const char *measured_on)
{
    FILE *out = options->output.json ? stderr : stdout;
    double step_s = 0;
    for (uint32_t i = 0; i < PARTS; i++)
        step_s += parts[i].times * part_s(&parts[i], view);
    double model_flops = options->tokens * strata_roofline_model_flops(config, options->seq);
    print_head(out, options, view, measured_on);
    strata_json *document = strata_bench_document("ops");
    strata_json_set_string(document, "model", options->model);
    if (view.measured)
        strata_json_set_string(document, "device", measured_on);
    if (view.expected) {
        strata_json_set_string(document, "gpu", options->gpu->name);
        strata_json_set_bool(document, "assumed", options->gpu->assumed);
    }
    strata_json_set_uint(document, "tokens", options->tokens);
    strata_json_set_uint(document, "seq", options->seq);
    for (uint32_t i = 0; i < PARTS; i++) {
        print_part(out, &parts[i], view, step_s);
        strata_json_set(document, parts[i].title, part_json(&parts[i], view));
    }
    print_foot(out, options, view, config, step_s, model_flops);
    strata_json_set_number(document, "compute_s", step_s);
    strata_json_set_number(document, "model_flops", model_flops);
    if (view.expected)
        strata_json_set_number(document, "share_of_peak",
                               model_flops / step_s / options->gpu->flops_per_s);
    bool written = strata_bench_write(&options->output, document);
    strata_json_free(document);
    return written ? BENCH_DONE : BENCH_FAILED;
}

static enum bench_exit measure(struct ops_options *options, const struct decoder_config *config)
{
    struct rig rig = {0};
    struct part parts[PARTS];
    strata_error error = {0};
    strata_status status = open_rig(&rig, options, config, &error);
    if (status == STRATA_OK) {
        const struct gpu *gpu = gpu_of(rig.device);
        struct view view = {.measured = true, .expected = gpu != NULL};
        strata_device_facts facts;
        strata_device_facts_of(rig.device, &facts);
        options->gpu = gpu != NULL ? gpu : options->gpu;
        list_parts(parts, options, config);
        status = strata_decoder_time(rig.decoder, rig.device, rig.stream, ENOUGH_S, take_timing,
                                     parts, &error);
        if (status == STRATA_OK) {
            const char *on = facts.model[0] != '\0' ? facts.model : "host device";
            enum bench_exit result = report(options, config, parts, view, on);
            close_rig(&rig);
            return result;
        }
    }
    close_rig(&rig);
    return strata_bench_fail("ops", &error);
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
    FLAG("dry", dry, "measure nothing: what is expected of a GPU that need not be there"),
    OWN("gpu", "NAME", take_gpu, "--dry: one of the catalogue (h200)"),
    DEVICE_ROW,
    OUTPUT_ROWS,
};

static const struct command_line line = COMMAND_LINE("ops", "\nGPUs: " GPU_NAMES "\n");

enum bench_exit strata_bench_ops(int argc, char **argv)
{
    struct ops_options options = {.model = "llama-7b", .seq = 4096, .tokens = 16384};
    struct decoder_config config;
    enum bench_exit result;
    strata_error error = {0};
    if (!strata_bench_options(&result, &line, &options, argc, argv))
        return result;
    if (options.gpu != NULL && !options.dry)
        return strata_bench_usage("ops", "--gpu", "goes with --dry: what is measured is here");
    if (options.device != DEVICE_EITHER && options.dry)
        return strata_bench_usage("ops", "--device", "is measured: leave out --dry");
    if (options.gpu == NULL)
        options.gpu = strata_gpu_named("h200");
    if (options.tokens % options.seq != 0)
        return strata_bench_usage("ops", "--tokens", "must be whole sequences of --seq tokens");
    if (strata_decoder_config_check(options.model, &error) != STRATA_OK) {
        strata_bench_fail("ops", &error);
        return BENCH_USAGE;
    }
    if (strata_decoder_config_read(&config, options.model, &error) != STRATA_OK)
        return strata_bench_fail("ops", &error);
    if (!options.dry)
        return measure(&options, &config);
    struct part parts[PARTS];
    list_parts(parts, &options, &config);
    return report(&options, &config, parts, (struct view){.expected = true}, NULL);
}
