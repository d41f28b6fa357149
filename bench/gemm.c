#define _GNU_SOURCE
/*
 * offload-bench gemm: the cost of the worker pool. The trainer's matrix products run in turn
 * through the pool and on OpenBLAS's own threads; then products and updates run at once
 * (rig/gemm_rig.h).
 *
 * Timed: products in a row, from the call of the first one that counts to the return of the
 * last; streams, from their first job to their last. Not timed: filling the matrices, starting
 * threads, the first product of a row, the first sample of streams. Within a repetition both
 * ways are measured one right after the other and take turns in going first; ratios are
 * medians over repetitions.
 *
 * Thread: one, and the workers of the pool.
 */

#include "bench/commands.h"

#include "bench/rig/gemm_rig.h"
#include "bench/options.h"

#include <stddef.h>
#include <stdio.h>

#define DEFAULT_REPETITIONS 7u
#define MAX_THREADS         4096

extern char *openblas_get_corename(void);

struct gemm_options {
    uint32_t threads;
    uint32_t repetitions;
    struct bench_output output;
};

/* Rates in GFLOP/s. */
struct gemm_result {
    struct bench_spread pool;
    struct bench_spread blas;
    struct bench_spread share; /* pool over blas */
};

struct together_result {
    struct bench_spread products_s;
    struct bench_spread updates_s;
    struct bench_spread both_s;
    struct bench_spread turns_s;
    struct bench_spread ratio; /* both over an even share: the sum divided by the threads */
    struct bench_spread over_turns; /* both at once over one after the other, on all workers */
};

static const char *const pass_names[PASS_COUNT] = {"forward", "dx", "dw"};

static struct gemm_result compare_product(struct gemm_rig *rig, const struct gemm_shape *shape,
                                          enum gemm_pass pass, uint32_t repetitions)
{
    double values[3][BENCH_MAX_SAMPLES];
    double gflop = 2e-9 * shape->rows * shape->in * shape->out;
    for (uint32_t i = 0; i < repetitions; i++) {
        struct gemm_sample sample = strata_bench_gemm_compare(rig, shape, pass, i % 2 == 0);
        values[0][i] = gflop / sample.pool_s;
        values[1][i] = gflop / sample.blas_s;
        values[2][i] = sample.blas_s / sample.pool_s;
    }
    return (struct gemm_result){.pool = strata_bench_spread(values[0], repetitions),
                                .blas = strata_bench_spread(values[1], repetitions),
                                .share = strata_bench_spread(values[2], repetitions)};
}

static strata_status measure_together(struct gemm_rig *rig, uint32_t repetitions,
                                      struct together_result *out, strata_error *error)
{
    double values[6][BENCH_MAX_SAMPLES];
    struct together_sample sample;
    strata_status status = strata_bench_gemm_together(rig, &sample, error);
    for (uint32_t i = 0; i < repetitions && status == STRATA_OK; i++) {
        status = strata_bench_gemm_together(rig, &sample, error);
        values[0][i] = sample.products_s;
        values[1][i] = sample.updates_s;
        values[2][i] = sample.both_s;
        values[3][i] = sample.both_s * rig->threads / (sample.products_s + sample.updates_s);
        values[4][i] = sample.turns_s;
        values[5][i] = sample.both_s / sample.turns_s;
    }
    *out = (struct together_result){.products_s = strata_bench_spread(values[0], repetitions),
                                    .updates_s = strata_bench_spread(values[1], repetitions),
                                    .both_s = strata_bench_spread(values[2], repetitions),
                                    .ratio = strata_bench_spread(values[3], repetitions),
                                    .turns_s = strata_bench_spread(values[4], repetitions),
                                    .over_turns = strata_bench_spread(values[5], repetitions)};
    return status;
}

static strata_json *json_product(const struct gemm_shape *shape, int pass,
                                 const struct gemm_result *result)
{
    strata_json *one = strata_json_object();
    strata_json_set_string(one, "model", shape->model);
    strata_json_set_string(one, "matrix", shape->matrix);
    strata_json_set_string(one, "pass", pass_names[pass]);
    strata_json_set_uint(one, "rows", shape->rows);
    strata_json_set_uint(one, "in", shape->in);
    strata_json_set_uint(one, "out", shape->out);
    strata_bench_set_spread(one, "pool_gflop_per_s", &result->pool);
    strata_bench_set_spread(one, "openblas_gflop_per_s", &result->blas);
    strata_bench_set_spread(one, "share_of_openblas", &result->share);
    return one;
}

static void print_product(FILE *out, const struct gemm_shape *shape, int pass,
                          const struct gemm_result *result)
{
    fprintf(out, "%-5s %-9s %-8s %5u %5u %6u %8.0f %9.0f    %5.3f (%5.3f..%5.3f)\n",
            shape->model, shape->matrix, pass_names[pass], shape->rows, shape->in, shape->out,
            result->pool.median, result->blas.median, result->share.median, result->share.least,
            result->share.most);
}

/* Measures every product of every shape; prints each line as soon as it is known. */
static strata_json *measure_products(struct gemm_rig *rig, const struct gemm_options *options,
                                     FILE *out)
{
    strata_json *list = strata_json_array();
    fputs("model matrix    product   rows    in    out   pool GF/s  OpenBLAS   pool / "
          "OpenBLAS\n",
          out);
    for (uint32_t i = 0; i < strata_bench_gemm_shape_count; i++) {
        for (int pass = 0; pass < PASS_COUNT; pass++) {
            const struct gemm_shape *shape = &strata_bench_gemm_shapes[i];
            struct gemm_result result =
                compare_product(rig, shape, (enum gemm_pass)pass, options->repetitions);
            print_product(out, shape, pass, &result);
            strata_json_append(list, json_product(shape, pass, &result));
        }
    }
    return list;
}

static strata_json *json_together(const struct together_result *result)
{
    strata_json *object = strata_json_object();
    strata_bench_set_spread(object, "products_alone_s", &result->products_s);
    strata_bench_set_spread(object, "updates_alone_s", &result->updates_s);
    strata_bench_set_spread(object, "turns_s", &result->turns_s);
    strata_bench_set_spread(object, "both_s", &result->both_s);
    strata_bench_set_spread(object, "over_even_share", &result->ratio);
    strata_bench_set_spread(object, "over_turns", &result->over_turns);
    return object;
}

static void print_together(FILE *out, const struct together_result *result, uint32_t threads)
{
    fprintf(out,
            "\nproducts alone on one worker %.3f s, updates likewise %.3f s; on %u one after "
            "the other %.3f s, both at once %.3f s\n"
            "over an even share of the work: %.3f (%.3f..%.3f); 1: nothing is lost\n"
            "over one after the other:       %.3f (%.3f..%.3f)\n",
            result->products_s.median, result->updates_s.median, threads,
            result->turns_s.median, result->both_s.median, result->ratio.median,
            result->ratio.least, result->ratio.most, result->over_turns.median,
            result->over_turns.least, result->over_turns.most);
}

static strata_json *json_gemm_setting(const struct gemm_options *options,
                                      const struct gemm_rig *rig)
{
    strata_json *object = strata_json_object();
    strata_json_set_uint(object, "threads", rig->threads);
    strata_json_set_uint(object, "repetitions", options->repetitions);
    strata_json_set_string(object, "openblas_core_type", openblas_get_corename());
    return object;
}

static enum bench_exit measure_gemm(struct gemm_rig *rig, const struct gemm_options *options)
{
    FILE *out = options->output.json ? stderr : stdout;
    strata_error error = {.status = STRATA_OK};
    fprintf(out, "%u threads, OpenBLAS for %s; %u repetitions, median (least..most)\n\n",
            rig->threads, openblas_get_corename(), options->repetitions);
    strata_json *products = measure_products(rig, options, out);
    struct together_result both;
    if (measure_together(rig, options->repetitions, &both, &error) != STRATA_OK) {
        strata_json_free(products);
        return strata_bench_fail("gemm", &error);
    }
    print_together(out, &both, rig->threads);
    strata_json *document = strata_bench_document("gemm");
    strata_json_set(document, "setting", json_gemm_setting(options, rig));
    strata_json_set(document, "products", products);
    strata_json_set(document, "together", json_together(&both));
    return strata_bench_finish(&options->output, document);
}

#define FIELD(member) offsetof(struct gemm_options, member)

static const struct option_row rows[] = {
    RANGE("threads", OPTION_COUNT, "N", threads, 1, MAX_THREADS + 1,
          "workers, and OpenBLAS's threads (one per core)"),
    REPETITIONS_ROW("of everything (7)"),
    OUTPUT_ROWS,
};

static const struct command_line line = COMMAND_LINE("gemm", NULL);

enum bench_exit strata_bench_gemm(int argc, char **argv)
{
    struct gemm_options options = {.repetitions = DEFAULT_REPETITIONS};
    enum bench_exit result;
    if (!strata_bench_options(&result, &line, &options, argc, argv))
        return result;
    strata_error error = {.status = STRATA_OK};
    struct gemm_rig rig;
    strata_status status = strata_bench_gemm_open(&rig, options.threads, &error);
    result =
        status == STRATA_OK ? measure_gemm(&rig, &options) : strata_bench_fail("gemm", &error);
    strata_bench_gemm_close(&rig);
    return result;
}
