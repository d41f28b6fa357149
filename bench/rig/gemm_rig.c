#define _GNU_SOURCE
/*
 * What offload-bench gemm measures with. See gemm_rig.h.
 *
 * OpenBLAS's own threads spin for some milliseconds after a product and would take cores from
 * the pool; the pool's workers sleep after 20 us. So there is a pause between the two.
 *
 * The products of a sample run in a row, as in a layer, until about SAMPLE_FLOPS are done. So
 * the time also contains how soon a product follows the one before it.
 *
 * Everything lies in an arena, on huge pages, as it does in the engine.
 *
 * The updates are those of adam_rig.h: more data than any cache holds, the fused way, bf16
 * gradients and weights, fp32 states.
 *
 * Thread: one owner; the streams of strata_bench_gemm_together() are two threads.
 */

#include "bench/rig/gemm_rig.h"

#include "bench/report.h"
#include "train/product.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* Rows are those of the trainer's pieces, or of a whole micro-batch where the trainer does not
 * cut it. */
const struct gemm_shape strata_bench_gemm_shapes[] = {
    {"demo", "q", 256, 256, 256},          {"demo", "k, v", 256, 256, 128},
    {"demo", "o", 512, 256, 256},          {"demo", "gate, up", 256, 256, 704},
    {"demo", "down", 256, 704, 256},       {"demo", "head", 256, 256, 256},
    {"350m", "q, k, v", 256, 1024, 1024},  {"350m", "o", 2048, 1024, 1024},
    {"350m", "gate, up", 256, 1024, 2736}, {"350m", "down", 256, 2736, 1024},
    {"350m", "head", 256, 1024, 12576},
};
const uint32_t strata_bench_gemm_shape_count =
    sizeof strata_bench_gemm_shapes / sizeof *strata_bench_gemm_shapes;

#define SAMPLE_FLOPS 4e9 /* ten milliseconds on two cores with AVX-512 */
#define PAUSE_NS     20000000L

#define UPDATE_ELEMS  (UINT64_C(1) << 24)
#define UPDATE_PASSES 16u /* a quarter of a second on one core */

static uint64_t floats_of(const struct gemm_shape *shape)
{
    uint64_t rows = shape->rows, in = shape->in, out = shape->out;
    return rows * in + rows * out + in * out;
}

/* x (rows x in), y (rows x out) and w (out x in) lie one behind the other. */
static struct product product_of(const struct gemm_rig *rig, const struct gemm_shape *shape,
                                 enum gemm_pass pass)
{
    uint64_t rows = shape->rows, in = shape->in, out = shape->out;
    float *x = rig->memory;
    float *y = x + rows * in;
    float *w = y + rows * out;
    switch (pass) {
    case PASS_FORWARD:
        return (struct product){x, w, y, strata_product_linear(rows, in, out), 1, 0};
    case PASS_DX:
        return (struct product){y, w, x, strata_product_linear_dx(rows, in, out), 1, 0};
    default:
        return (struct product){y, x, w, strata_product_linear_dw(rows, in, out), 1, 0};
    }
}

static const struct adam_kind updates_kind = {STRATA_BF16, STRATA_FP32, STRATA_ISA_BEST};

strata_status strata_bench_gemm_open(struct gemm_rig *rig, uint32_t threads,
                                     strata_error *error)
{
    *rig = (struct gemm_rig){0};
    for (uint32_t i = 0; i < strata_bench_gemm_shape_count; i++)
        if (floats_of(&strata_bench_gemm_shapes[i]) > rig->floats)
            rig->floats = floats_of(&strata_bench_gemm_shapes[i]);
    strata_status status = strata_arena_create(&rig->arena, rig->floats * sizeof *rig->memory,
                                               "the benchmark's matrices", error);
    if (status == STRATA_OK)
        status = strata_bench_adam_open(&rig->updates, UPDATE_ELEMS, error);
    if (status != STRATA_OK)
        return status;
    strata_bench_adam_reset(&rig->updates, &updates_kind);
    rig->memory = (float *)rig->arena.base;
    for (uint64_t i = 0; i < rig->floats; i++)
        rig->memory[i] = (float)(i % 251) / 251 - 0.5f;
    strata_workers_desc all = {.thread_count = threads};
    strata_workers_desc one = {.thread_count = 1};
    status = strata_workers_create(&rig->pool, &all, error);
    if (status == STRATA_OK)
        status = strata_workers_create(&rig->single, &one, error);
    if (status == STRATA_OK)
        rig->threads = strata_workers_count(rig->pool);
    return status;
}

void strata_bench_gemm_close(struct gemm_rig *rig)
{
    strata_workers_destroy(rig->single);
    strata_workers_destroy(rig->pool);
    strata_bench_adam_close(&rig->updates);
    strata_arena_destroy(&rig->arena);
}

/* Seconds of a product, on the pool, or on OpenBLAS's threads if pool is NULL. */
static double time_product_row(const struct gemm_rig *rig, const struct product *product,
                               strata_workers *pool)
{
    const struct product_shape *shape = &product->shape;
    double flops = 2.0 * (double)shape->rows * (double)shape->cols * (double)shape->depth;
    uint32_t times = 1 + (uint32_t)(SAMPLE_FLOPS / flops);
    double start_s = 0;
    nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
    /* The first product wakes the threads and is not counted. */
    for (uint32_t i = 0; i <= times; i++) {
        if (i == 1)
            start_s = strata_bench_now_s();
        if (pool != NULL)
            strata_host_panels(pool, product);
        else
            strata_host_product_threaded(product, rig->threads);
    }
    return (strata_bench_now_s() - start_s) / times;
}

struct gemm_sample strata_bench_gemm_compare(struct gemm_rig *rig,
                                             const struct gemm_shape *shape,
                                             enum gemm_pass pass, bool pool_first)
{
    struct product product = product_of(rig, shape, pass);
    struct gemm_sample sample = {0};
    for (int i = 0; i < 2; i++) {
        if ((i == 0) == pool_first)
            sample.pool_s = time_product_row(rig, &product, rig->pool);
        else
            sample.blas_s = time_product_row(rig, &product, NULL);
    }
    return sample;
}

struct stream {
    struct gemm_rig *rig;
    strata_workers *workers;
    uint32_t products;
};

static void *run_products(void *user)
{
    const struct stream *stream = user;
    static const struct gemm_shape shape = {"350m", "q, k, v", 256, 1024, 1024};
    struct product product = product_of(stream->rig, &shape, PASS_FORWARD);
    for (uint32_t i = 0; i < stream->products; i++)
        strata_host_panels(stream->workers, &product);
    return NULL;
}

static void *run_updates(void *user)
{
    const struct stream *stream = user;
    for (uint32_t i = 0; i < UPDATE_PASSES; i++)
        strata_bench_adam_pass(&stream->rig->updates, stream->workers, &updates_kind,
                               ADAM_FUSED, UPDATE_ELEMS, 1);
    return NULL;
}

static double time_work_stream(struct stream *stream, strata_workers *workers,
                               void *(*run)(void *))
{
    stream->workers = workers;
    double start_s = strata_bench_now_s();
    run(stream);
    return strata_bench_now_s() - start_s;
}

static strata_status time_both(struct stream *products, struct stream *updates,
                               strata_workers *pool, double *out_s, strata_error *error)
{
    products->workers = pool;
    double start_s = strata_bench_now_s();
    pthread_t thread;
    int failed = pthread_create(&thread, NULL, run_products, products);
    if (failed != 0)
        return strata_fail(error, STRATA_E_NOMEM, failed, "thread for a stream of products: %s",
                           strerror(failed));
    time_work_stream(updates, pool, run_updates);
    pthread_join(thread, NULL);
    *out_s = strata_bench_now_s() - start_s;
    return STRATA_OK;
}

strata_status strata_bench_gemm_together(struct gemm_rig *rig, struct together_sample *out,
                                         strata_error *error)
{
    struct stream products = {.rig = rig, .products = 1};
    struct stream updates = {.rig = rig};
    out->updates_s = time_work_stream(&updates, rig->single, run_updates) / 2;
    /* Choose the number of products so that both streams take about as long. */
    time_work_stream(&products, rig->single, run_products);
    double one_s = time_work_stream(&products, rig->single, run_products);
    products.products = 1 + (uint32_t)(2 * out->updates_s / one_s);
    out->products_s = time_work_stream(&products, rig->single, run_products) / 2;
    out->turns_s = time_work_stream(&products, rig->pool, run_products) +
                   time_work_stream(&updates, rig->pool, run_updates);
    strata_status status = time_both(&products, &updates, rig->pool, &out->both_s, error);
    if (status != STRATA_OK)
        return status;
    /* Measure each alone again: the speed of memory and cores changes within a sample, too. */
    out->products_s += time_work_stream(&products, rig->single, run_products) / 2;
    out->updates_s += time_work_stream(&updates, rig->single, run_updates) / 2;
    return STRATA_OK;
}
