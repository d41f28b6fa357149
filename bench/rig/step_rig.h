#ifndef STRATA_BENCH_STEP_RIG_H
#define STRATA_BENCH_STEP_RIG_H

/*
 * The rig of offload-bench step: one made-up model, an engine for each way to run its step,
 * and a caller whose computing is a given number of matrix products.
 *
 * Weights and states rest on NVMe and are committed every step, gradients in host RAM.
 *
 * The ways: overlapped, with updates ahead of the norm; unordered, the same ops with no
 * waiting for one another (step_unordered.h; the output calls it free); without updates, as if
 * every gradient had overflowed; in turn, the naive order.
 *
 * Thread: one owner.
 */

#include "bench/rig/scratch.h"
#include "bench/rig/step_caller.h"
#include "bench/rig/step_unordered.h"
#include "engine/engine_internal.h"

enum step_way {
    STEP_OVERLAPPED,
    STEP_UNORDERED,
    STEP_NO_UPDATES,
    STEP_IN_TURN,
    STEP_WAY_COUNT
};

struct step_desc {
    const char *dir; /* borrowed until close */
    uint32_t groups;
    uint64_t group_elems;
    bool on_pool;       /* the device computes on the workers */
    uint32_t max_steps; /* most steps of a sample, for the trace */
    bool trace;         /* of the overlapped way */
};

struct step_rig {
    struct step_desc desc;
    struct step_caller caller;
    struct strata_tensor_desc *tensors;
    struct strata_group_desc *groups;
    struct strata_use *uses;
    char (*names)[16];
    strata_model_desc model;
    strata_adam_params adam;
    struct lane_functions skipping; /* of the way without updates */
    struct step_engine {
        strata_engine *engine;
        struct scratch dir;
        struct step_unordered *unordered; /* STEP_UNORDERED */
    } ways[STEP_WAY_COUNT];
};

/* After a failure, close frees what was opened. */
strata_status strata_bench_step_open(struct step_rig *rig, const struct step_desc *desc,
                                     strata_error *error);
/* A rig of zeros is fine. */
void strata_bench_step_close(struct step_rig *rig);

/*
 * Run a way for some steps, with `products` for each group in forward and three times as many
 * in backward. Measured from the end of the first step's computing to that of the last step
 * but one: steps - 2 steps.
 */
strata_status strata_bench_step_sample(struct step_rig *rig, enum step_way way,
                                       uint32_t products, uint32_t steps,
                                       struct step_sample *out, strata_error *error);

#endif
