#define _GNU_SOURCE
/*
 * offload-bench matrix: the device's matrix rate, which a training step's is a share of.
 *
 * One large product by the trainer's own operator: n rows of n values times a matrix of 4 n x n
 * weights, in each dtype that weights have. Large enough that the arrays' traffic is small
 * beside the arithmetic.
 *
 * What is multiplied is normally distributed, as in training: a GPU computes with zeros, or
 * with numbers whose exponents are far apart, at a clock that it never has there.
 *
 * Timed: some products in a row, from the first one's launch to the end of the last; not the
 * first of all, in which a library may choose and load its code. On the host device weights of
 * 16 bits are widened in each product, as in training.
 *
 * Thread: one, the stream's and the workers.
 */

#include "bench/commands.h"

#include "base/random.h"
#include "bench/device.h"
#include "bench/options.h"
#include "strata/adam.h"
#include "strata/workers.h"
#include "train/ops.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define DEFAULT_REPETITIONS 7u
#define CUDA_SIZE           8192u
#define HOST_SIZE           1024u
#define WIDTHS              4u /* outputs of the product, in inputs */

/* Products in a row: enough for a millisecond of the fastest device to be many. */
#define PRODUCTS 4u

/* Numbers that arrays are filled with, again and again. */
#define FILL_COUNT ((uint64_t)1 << 20)
#define FILL_SEED  1u

static const strata_dtype dtypes[] = {STRATA_BF16, STRATA_FP16, STRATA_FP32};
enum { DTYPES = sizeof dtypes / sizeof dtypes[0] };

struct matrix_options {
    enum device_kind device;
    uint32_t size;
    uint32_t repetitions;
    struct bench_output output;
};

struct matrix_rig {
    strata_device *device; /* owned, like all of it; NULL: not there */
    strata_stream *stream;
    strata_workers *workers;
    struct ops ops;
    bool ops_open;
    uint64_t size;
    uint64_t bytes; /* of memory */
    uint8_t *memory;
    void *src[DTYPES];
    void *weight[DTYPES];
    void *dst;
};

static strata_status device_status(const struct matrix_rig *rig, strata_error *error)
{
    const strata_error *failure = strata_device_error(rig->device);
    if (failure != NULL)
        *error = *failure;
    return failure != NULL ? failure->status : STRATA_OK;
}

/* The type of activations beside weights of a dtype: the trainer's. */
static strata_dtype act_dtype(const struct matrix_rig *rig, strata_dtype weight_dtype)
{
    return rig->ops.table == &strata_ops_cuda ? weight_dtype : STRATA_FP32;
}

/* Bytes of an activation's element beside weights of a dtype. */
static uint64_t act_bytes(const struct matrix_rig *rig, strata_dtype weight_dtype)
{
    return rig->ops.table->act_bytes(act_dtype(rig, weight_dtype));
}

/* Memory for each dtype's arguments, for one result, and scratch. */
static strata_status take_memory(struct matrix_rig *rig, strata_error *error)
{
    uint64_t square = rig->size * rig->size;
    uint64_t scratch = 0;
    uint64_t dst = WIDTHS * square * sizeof(float);
    rig->bytes = dst;
    for (int i = 0; i < DTYPES; i++) {
        uint64_t bytes = rig->ops.table->scratch(WIDTHS * square, dtypes[i]);
        scratch = bytes > scratch ? bytes : scratch;
        rig->bytes +=
            square * (act_bytes(rig, dtypes[i]) + WIDTHS * strata_dtype_bytes(dtypes[i]));
    }
    rig->bytes += scratch;
    void *memory;
    STRATA_TRY(strata_device_take(rig->device, rig->bytes, &memory, error));
    rig->memory = memory;
    uint8_t *at = memory;
    for (int i = 0; i < DTYPES; i++) {
        rig->src[i] = at;
        at += square * act_bytes(rig, dtypes[i]);
        rig->weight[i] = at;
        at += WIDTHS * square * strata_dtype_bytes(dtypes[i]);
    }
    rig->dst = at;
    rig->ops.scratch = at + dst;
    return STRATA_OK;
}

static strata_status rig_open(struct matrix_rig *rig, const struct matrix_options *options,
                              strata_error *error)
{
    strata_workers_desc workers = {0};
    STRATA_TRY(strata_bench_device_open(&rig->device, options->device, error));
    bool cuda = strcmp(strata_device_name(rig->device), "cuda") == 0;
    rig->size = options->size > 0 ? options->size : cuda ? CUDA_SIZE : HOST_SIZE;
    STRATA_TRY(strata_stream_create(&rig->stream, rig->device, "matrix", error));
    STRATA_TRY(strata_workers_create(&rig->workers, &workers, error));
    rig->ops = (struct ops){.table = cuda ? &strata_ops_cuda : &strata_ops_host,
                            .stream = rig->stream,
                            .workers = rig->workers};
    STRATA_TRY(rig->ops.table->open(&rig->ops, error));
    rig->ops_open = true;
    return take_memory(rig, error);
}

static void rig_close(struct matrix_rig *rig)
{
    strata_stream_destroy(rig->stream);
    if (rig->ops_open)
        rig->ops.table->close(&rig->ops);
    strata_workers_destroy(rig->workers);
    if (rig->device == NULL)
        return;
    strata_device_give(rig->device, rig->memory, rig->bytes);
    strata_device_close(rig->device);
}

static void fill_array(struct matrix_rig *rig, void *array, strata_dtype dtype, uint64_t count)
{
    static float normal[FILL_COUNT];
    static float pattern[FILL_COUNT];
    uint64_t each = strata_dtype_bytes(dtype);
    strata_random_normal(FILL_SEED, 0, 0, FILL_COUNT, 1.0f, normal);
    (void)strata_convert(STRATA_ISA_BEST, pattern, dtype, normal, STRATA_FP32, FILL_COUNT);
    for (uint64_t at = 0; at < count; at += FILL_COUNT) {
        uint64_t piece = count - at < FILL_COUNT ? count - at : FILL_COUNT;
        strata_stream_copy(rig->stream, (uint8_t *)array + at * each, pattern, piece * each);
    }
    strata_stream_sync(rig->stream);
}

static void fill_arrays(struct matrix_rig *rig)
{
    uint64_t square = rig->size * rig->size;
    for (int i = 0; i < DTYPES; i++) {
        fill_array(rig, rig->src[i], act_dtype(rig, dtypes[i]), square);
        fill_array(rig, rig->weight[i], dtypes[i], WIDTHS * square);
    }
}

/* Seconds of some products of a dtype. */
static double time_products(struct matrix_rig *rig, int dtype, uint32_t count)
{
    struct op_linear product = {.src = rig->src[dtype],
                                .weight = rig->weight[dtype],
                                .dst = rig->dst,
                                .rows = rig->size,
                                .in = rig->size,
                                .out = WIDTHS * rig->size};
    rig->ops.weight_dtype = dtypes[dtype];
    rig->ops.act_dtype = act_dtype(rig, dtypes[dtype]);
    double start = strata_bench_now_s();
    for (uint32_t i = 0; i < count; i++)
        strata_op_linear(&rig->ops, &product);
    strata_stream_sync(rig->stream);
    return strata_bench_now_s() - start;
}

/* FLOP/s of each dtype; within a repetition all have their turn. */
static strata_status measure(struct matrix_rig *rig, uint32_t repetitions,
                             struct bench_spread out[DTYPES], strata_error *error)
{
    double values[DTYPES][BENCH_MAX_SAMPLES];
    double cube = (double)rig->size * (double)rig->size * (double)rig->size;
    fill_arrays(rig);
    for (uint32_t r = 0; r < repetitions; r++)
        for (int i = 0; i < DTYPES; i++) {
            (void)time_products(rig, i, 1);
            values[i][r] = 2.0 * WIDTHS * cube * PRODUCTS / time_products(rig, i, PRODUCTS);
        }
    for (int i = 0; i < DTYPES; i++)
        out[i] = strata_bench_spread(values[i], repetitions);
    return device_status(rig, error);
}

static enum bench_exit report(const struct matrix_rig *rig,
                              const struct matrix_options *options,
                              const struct bench_spread rates[DTYPES])
{
    FILE *out = options->output.json ? stderr : stdout;
    strata_device_facts facts;
    strata_device_facts_of(rig->device, &facts);
    strata_json *document = strata_bench_document("matrix");
    strata_json_set_string(document, "device", strata_device_name(rig->device));
    strata_json_set_string(document, "model", facts.model);
    strata_json_set_uint(document, "size", rig->size);
    strata_json_set_uint(document, "repetitions", options->repetitions);
    fprintf(out, "%s device %s, %u rows of %u by %u x %u, TFLOP/s\n",
            strata_device_name(rig->device), facts.model, (uint32_t)rig->size,
            (uint32_t)rig->size, (uint32_t)(WIDTHS * rig->size), (uint32_t)rig->size);
    for (int i = 0; i < DTYPES; i++) {
        char key[32];
        const char *name = strata_dtype_name(dtypes[i]);
        snprintf(key, sizeof key, "%s_flops_per_s", name);
        strata_bench_set_spread(document, key, &rates[i]);
        fprintf(out, "%-5s %9.3f (%.3f..%.3f)\n", name, 1e-12 * rates[i].median,
                1e-12 * rates[i].least, 1e-12 * rates[i].most);
    }
    return strata_bench_finish(&options->output, document);
}

#define FIELD(member) offsetof(struct matrix_options, member)

static const struct option_row rows[] = {
    DEVICE_ROW,
    RANGE("size", OPTION_COUNT, "N", size, 16, 32769,
          "rows, and values of a row (8192; host device 1024)"),
    REPETITIONS_ROW("of every dtype (7)"),
    OUTPUT_ROWS,
};

static const struct command_line line = COMMAND_LINE("matrix", NULL);

enum bench_exit strata_bench_matrix(int argc, char **argv)
{
    struct matrix_options options = {.repetitions = DEFAULT_REPETITIONS};
    enum bench_exit result;
    if (!strata_bench_options(&result, &line, &options, argc, argv))
        return result;
    strata_error error = {.status = STRATA_OK};
    struct matrix_rig rig = {0};
    struct bench_spread rates[DTYPES];
    strata_status status = rig_open(&rig, &options, &error);
    if (status == STRATA_OK)
        status = measure(&rig, options.repetitions, rates, &error);
    result = status == STRATA_OK ? report(&rig, &options, rates)
                                 : strata_bench_fail("matrix", &error);
    rig_close(&rig);
    return result;
}
