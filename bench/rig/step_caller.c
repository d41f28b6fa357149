#define _GNU_SOURCE
/*
 * The caller of offload-bench step. See step_caller.h.
 *
 * A product is 128 x 128 x 128. It stays in a core's second-level cache together with what a
 * BLAS packs for it, so computing and the other work take nothing from each other but this
 * core. (A product of 256 does not stay there. Beside a core that streams over memory it took
 * 1 % longer, which is more than all updates delay a step.) Backward products add small values
 * to the gradient's first 16 Ki elements, so no norm exceeds the limit.
 *
 * Thread: one owner; products run on the stream's thread.
 */

#include "bench/rig/step_caller.h"

#include "base/clock.h"
#include "base/error.h"
#include "bench/report.h"
#include "train/product.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#define SIDE       128u
#define SIDE_ELEMS (SIDE * SIDE)

void strata_bench_step_compute(void *args)
{
    const struct step_compute *compute = args;
    const struct step_caller *caller = compute->caller;
    struct product product = {.a = caller->matrices,
                              .b = caller->matrices + SIDE_ELEMS,
                              .c = caller->matrices + 2 * SIDE_ELEMS,
                              .shape = strata_product_linear_dx(SIDE, SIDE, SIDE),
                              .scale = 1e-12f,
                              .beta = 1};
    if (compute->grad != NULL)
        product.c = compute->grad;
    for (uint32_t i = 0; i < compute->products; i++) {
        if (caller->on_pool)
            strata_host_panels(caller->workers, &product);
        else
            strata_host_product(&product);
    }
}

uint32_t strata_bench_step_products(const struct use *use, uint32_t products)
{
    return use->grad ? 3 * products : products;
}

double strata_bench_step_product_s(const struct step_caller *caller)
{
    enum { TIMES = 9, PRODUCTS = 20 };
    double values[TIMES];
    struct step_compute compute = {.caller = caller, .products = PRODUCTS};
    for (int i = 0; i < TIMES; i++) {
        uint64_t start_ns = strata_now_ns();
        strata_stream_call(caller->stream, strata_bench_step_compute, &compute, sizeof compute);
        strata_stream_sync(caller->stream);
        values[i] = 1e-9 * (double)(strata_now_ns() - start_ns) / PRODUCTS;
    }
    return strata_bench_spread(values, TIMES).median;
}

/* Binds the thread that runs it to one core. */
static void bind_here(void *args)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(*(const int *)args, &one);
    (void)sched_setaffinity(0, sizeof one, &one); // the core is one of the process's own
}

/* The device's stream gets the last core, all threads made later get the others. */
static strata_status give_core(struct step_caller *caller, strata_error *error)
{
    cpu_set_t cores;
    int last = CPU_SETSIZE - 1;
    if (sched_getaffinity(0, sizeof cores, &cores) != 0)
        return strata_fail(error, STRATA_E_UNSUPPORTED, errno,
                           "reading the cores of this process: %s", strerror(errno));
    if (caller->on_pool || CPU_COUNT(&cores) < 2)
        return STRATA_OK;
    while (!CPU_ISSET(last, &cores))
        last--;
    CPU_CLR(last, &cores);
    if (sched_setaffinity(0, sizeof cores, &cores) != 0)
        return strata_fail(error, STRATA_E_UNSUPPORTED, errno,
                           "setting the cores of this process: %s", strerror(errno));
    strata_stream_call(caller->stream, bind_here, &last, sizeof last);
    return STRATA_OK;
}

strata_status strata_bench_step_caller_open(struct step_caller *caller, bool on_pool,
                                            strata_error *error)
{
    *caller = (struct step_caller){.on_pool = on_pool};
    caller->matrices = calloc(3 * (size_t)SIDE_ELEMS, sizeof *caller->matrices);
    if (caller->matrices == NULL)
        return strata_fail(error, STRATA_E_NOMEM, ENOMEM,
                           "memory for three matrices: none left");
    for (uint32_t i = 0; i < 2 * SIDE_ELEMS; i++)
        caller->matrices[i] = (float)(i % 251) / 251 - 0.5f;
    strata_host_product_setup();
    STRATA_TRY(strata_device_open_host(&caller->device, error));
    STRATA_TRY(strata_stream_create(&caller->stream, caller->device, "step-compute", error));
    STRATA_TRY(give_core(caller, error));
    strata_workers_desc workers = {.thread_count = 0};
    return strata_workers_create(&caller->workers, &workers, error);
}

void strata_bench_step_caller_close(struct step_caller *caller)
{
    strata_stream_destroy(caller->stream);
    strata_device_close(caller->device);
    strata_workers_destroy(caller->workers);
    free(caller->matrices);
}
