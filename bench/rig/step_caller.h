#ifndef STRATA_BENCH_STEP_CALLER_H
#define STRATA_BENCH_STEP_CALLER_H

/*
 * The caller of offload-bench step: its device, and computing that is a given number of matrix
 * products.
 *
 * The device is the host device, but one core belongs to it: its stream's thread computes
 * there, as a GPU would, and all other work has the other cores. Or, if asked to, it computes
 * on the worker pool as the trainer does.
 *
 * Thread: one owner.
 */

#include "offload/plan/model.h"
#include "strata/device.h"
#include "strata/workers.h"

struct step_caller {
    strata_device *device;
    strata_stream *stream;
    strata_workers *workers;
    float *matrices; /* two factors and a product, for forward */
    bool on_pool;    /* the device computes on the workers */
};

/* Copied into a stream's call. */
struct step_compute {
    const struct step_caller *caller;
    float *grad; /* NULL: forward */
    uint32_t products;
};

/* Figures of one step in the middle of a run. */
struct step_sample {
    double step_s;
    double busy_s[STRATA_LANE_COUNT];
    double bytes[STRATA_LANE_COUNT];
};

/* All threads made from now on get the cores that do not belong to the device. After a
 * failure, close frees what was opened. */
strata_status strata_bench_step_caller_open(struct step_caller *caller, bool on_pool,
                                            strata_error *error);
/* A caller of zeros is fine. */
void strata_bench_step_caller_close(struct step_caller *caller);

/* The stream function of a use; args: struct step_compute. */
void strata_bench_step_compute(void *args);

/* The number of products for one use of a group. */
uint32_t strata_bench_step_products(const struct use *use, uint32_t products);

/* Seconds of one product: the median of some, with no other work running. */
double strata_bench_step_product_s(const struct step_caller *caller);

#endif
