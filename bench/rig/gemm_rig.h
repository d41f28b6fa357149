#ifndef STRATA_BENCH_GEMM_RIG_H
#define STRATA_BENCH_GEMM_RIG_H

/*
 * The rig of offload-bench gemm: the shapes of the trainer's products, pools, matrices and
 * data to update.
 *
 * It serves two comparisons. First, a product runs through the pool as in training (panels,
 * cut by shape) and on as many of OpenBLAS's own threads. Second, a stream of products and a
 * stream of updates, each from a thread of its own as in training, run at once on the whole
 * pool. Before and after that each runs alone on a pool of one worker. They also run one after
 * the other on the whole pool, which shows how much is lost because cores share caches and
 * memory.
 *
 * Thread: one owner.
 */

#include "bench/rig/adam_rig.h"
#include "strata/workers.h"

/* A matrix of a model: out x in, applied to rows of activations. */
struct gemm_shape {
    const char *model;
    const char *matrix;
    uint32_t rows;
    uint32_t in;
    uint32_t out;
};

/* The three products of a matrix. */
enum gemm_pass { PASS_FORWARD, PASS_DX, PASS_DW, PASS_COUNT };

extern const struct gemm_shape strata_bench_gemm_shapes[];
extern const uint32_t strata_bench_gemm_shape_count;

struct gemm_rig {
    strata_workers *pool;   /* owned */
    strata_workers *single; /* owned; one worker */
    struct arena arena;     /* owned */
    float *memory;          /* in the arena: the three matrices of any shape */
    uint64_t floats;
    struct adam_rig updates; /* owned */
    uint32_t threads;
};

/* threads 0: one per core that may be used. */
strata_status strata_bench_gemm_open(struct gemm_rig *rig, uint32_t threads,
                                     strata_error *error);
/* A rig of zeros is fine. */
void strata_bench_gemm_close(struct gemm_rig *rig);

/* Seconds per product of some in a row: pool, or OpenBLAS's threads. */
struct gemm_sample {
    double pool_s;
    double blas_s;
};

struct gemm_sample strata_bench_gemm_compare(struct gemm_rig *rig,
                                             const struct gemm_shape *shape,
                                             enum gemm_pass pass, bool pool_first);

/* Seconds of one stream of products and one of updates. */
struct together_sample {
    double products_s; /* alone, on one worker; the mean of before and after */
    double updates_s;  /* likewise */
    double turns_s;    /* one after the other, each on all */
    double both_s;     /* at once, on all */
};

strata_status strata_bench_gemm_together(struct gemm_rig *rig, struct together_sample *out,
                                         strata_error *error);

#endif
