#define _GNU_SOURCE
/*
 * What offload-bench gemm measures with. See gemm_rig.h.
 *
 * OpenBLAS's own threads go on spinning for some milliseconds after a product and would take
 * their core from the pool; the pool's sleep after 20 us. So there is a pause between the two.
 *
 * Products of one sample are made in a row, as a layer makes them, until about SAMPLE_FLOPS are
 * done: what is timed is also how soon the next product follows the one before.
 *
 * The state that is updated is larger than any cache and is gone over as the engine does it:
 * tile by tile, one job each, in items of CHUNK_ELEMS; gradients and weights in bf16.
 *
 * Thread: one owner; the streams of strata_bench_gemm_together() are two threads.
 */

#include "bench/gemm_rig.h"

#include "train/product.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Rows are the trainer's pieces, and whole micro-batches where it does not cut. */
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

#define STATE_ELEMS   (UINT64_C(1) << 24)
#define TILE_ELEMS    (UINT64_C(1) << 20)
#define CHUNK_ELEMS   (UINT64_C(1) << 16) /* as the engine cuts a tile */
#define STATE_BYTES   (STATE_ELEMS * 16)  /* master, m, v in fp32; gradient, weight in bf16 */
#define UPDATE_PASSES 8u

static strata_status no_memory(strata_error *error, const char *what, int code)
{
    *error = (strata_error){.status = STRATA_E_NOMEM, .native = code};
    snprintf(error->message, sizeof error->message, "%s: %s", what, strerror(code));
    return STRATA_E_NOMEM;
}

static uint64_t floats_of(const struct gemm_shape *shape)
{
    uint64_t rows = shape->rows, in = shape->in, out = shape->out;
    return rows * in + rows * out + in * out;
}

/* x (rows x in), y (rows x out) and w (out x in) lie one after the other. */
static struct product product_of(const struct gemm_rig *rig, const struct gemm_shape *shape,
                                 enum gemm_pass pass)
{
    uint64_t rows = shape->rows, in = shape->in, out = shape->out;
    float *x = rig->memory;
    float *y = x + rows * in;
    float *w = y + rows * out;
    switch (pass) {
    case PASS_FORWARD:
        return (struct product){.a = x,
                                .b = w,
                                .c = y,
                                .rows = rows,
                                .cols = out,
                                .depth = in,
                                .a_stride = in,
                                .b_stride = in,
                                .c_stride = out,
                                .b_transposed = true,
                                .scale = 1};
    case PASS_DX:
        return (struct product){.a = y,
                                .b = w,
                                .c = x,
                                .rows = rows,
                                .cols = in,
                                .depth = out,
                                .a_stride = out,
                                .b_stride = in,
                                .c_stride = in,
                                .scale = 1};
    default:
        return (struct product){.a = y,
                                .b = x,
                                .c = w,
                                .rows = out,
                                .cols = in,
                                .depth = rows,
                                .a_stride = out,
                                .b_stride = in,
                                .c_stride = in,
                                .a_transposed = true,
                                .scale = 1};
    }
}

strata_status strata_bench_gemm_open(struct gemm_rig *rig, uint32_t threads,
                                     strata_error *error)
{
    *rig = (struct gemm_rig){0};
    for (uint32_t i = 0; i < strata_bench_gemm_shape_count; i++)
        if (floats_of(&strata_bench_gemm_shapes[i]) > rig->floats)
            rig->floats = floats_of(&strata_bench_gemm_shapes[i]);
    rig->memory = malloc(rig->floats * sizeof(float));
    rig->state = malloc(STATE_BYTES);
    if (rig->memory == NULL || rig->state == NULL)
        return no_memory(error, "memory for the matrices", ENOMEM);
    for (uint64_t i = 0; i < rig->floats; i++)
        rig->memory[i] = (float)(i % 251) / 251 - 0.5f;
    memset(rig->state, 0, STATE_BYTES);
    strata_workers_desc all = {.thread_count = threads};
    strata_workers_desc one = {.thread_count = 1};
    strata_status status = strata_workers_create(&rig->pool, &all, error);
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
    free(rig->state);
    free(rig->memory);
}

static double now_s(void)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_MONOTONIC, &now); // It fails for clocks that do not exist only.
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* On the pool, or, where that is NULL, on OpenBLAS's threads. */
static double time_products(const struct gemm_rig *rig, const struct product *product,
                            strata_workers *pool)
{
    double flops = 2.0 * (double)product->rows * (double)product->cols * (double)product->depth;
    uint32_t times = 1 + (uint32_t)(SAMPLE_FLOPS / flops);
    double start_s = 0;
    nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
    /* The first wakes the threads and is not counted. */
    for (uint32_t i = 0; i <= times; i++) {
        if (i == 1)
            start_s = now_s();
        if (pool != NULL)
            strata_host_panels(pool, product);
        else
            strata_host_product_threaded(product, rig->threads);
    }
    return (now_s() - start_s) / times;
}

struct gemm_sample strata_bench_gemm_compare(struct gemm_rig *rig,
                                             const struct gemm_shape *shape,
                                             enum gemm_pass pass, bool pool_first)
{
    struct product product = product_of(rig, shape, pass);
    struct gemm_sample sample = {0};
    for (int i = 0; i < 2; i++) {
        if ((i == 0) == pool_first)
            sample.pool_s = time_products(rig, &product, rig->pool);
        else
            sample.blas_s = time_products(rig, &product, NULL);
    }
    return sample;
}

/* Products and updates at once. */

struct stream {
    const struct gemm_rig *rig;
    strata_workers *workers;
    uint32_t products;
    uint64_t first; /* of the tile that is updated */
    strata_adam_step step;
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

static void update_chunk(void *user, uint32_t index, uint32_t worker)
{
    (void)worker;
    const struct stream *stream = user;
    uint64_t at = stream->first + index * CHUNK_ELEMS;
    float *floats = (float *)stream->rig->state;
    uint16_t *halves = (uint16_t *)(floats + 3 * STATE_ELEMS);
    struct strata_adam_range range = {
        .grad = halves + at,
        .master = floats + at,
        .m = floats + STATE_ELEMS + at,
        .v = floats + 2 * STATE_ELEMS + at,
        .param = halves + STATE_ELEMS + at,
        .grad_dtype = STRATA_BF16,
        .param_dtype = STRATA_BF16,
        .count = CHUNK_ELEMS,
    };
    strata_adam_update(STRATA_ISA_BEST, &stream->step, &range);
}

static void *run_updates(void *user)
{
    struct stream *stream = user;
    for (uint32_t i = 0; i < UPDATE_PASSES; i++)
        for (stream->first = 0; stream->first < STATE_ELEMS; stream->first += TILE_ELEMS)
            strata_workers_run(stream->workers, STRATA_JOB_UPDATE, update_chunk, stream,
                               (uint32_t)(TILE_ELEMS / CHUNK_ELEMS));
    return NULL;
}

static double time_stream(struct stream *stream, strata_workers *workers, void *(*run)(void *))
{
    stream->workers = workers;
    double start_s = now_s();
    run(stream);
    return now_s() - start_s;
}

strata_status strata_bench_gemm_together(struct gemm_rig *rig, struct together_sample *out,
                                         strata_error *error)
{
    strata_adam_params params = strata_adam_defaults();
    struct stream products = {.rig = rig, .products = 1};
    struct stream updates = {.rig = rig, .step = strata_adam_prepare(&params, 1, 1e-4, 1)};
    out->updates_s = time_stream(&updates, rig->single, run_updates);
    /* As many products as take as long: neither stream hides in the other. */
    time_stream(&products, rig->single, run_products);
    double one_s = time_stream(&products, rig->single, run_products);
    products.products = 1 + (uint32_t)(out->updates_s / one_s);
    out->products_s = time_stream(&products, rig->single, run_products);

    products.workers = rig->pool;
    double start_s = now_s();
    pthread_t thread;
    int failed = pthread_create(&thread, NULL, run_products, &products);
    if (failed != 0)
        return no_memory(error, "thread for a stream of products", failed);
    time_stream(&updates, rig->pool, run_updates);
    pthread_join(thread, NULL);
    out->both_s = now_s() - start_s;
    return STRATA_OK;
}
