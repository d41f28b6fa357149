#ifndef STRATA_BENCH_ADAM_RIG_H
#define STRATA_BENCH_ADAM_RIG_H

/*
 * The update of many parameters at once, in one of several ways, on memory laid out as the
 * engine's: gradients and parameters as flat arrays, states as a record (optim/record.h), in
 * chunks of four norm blocks on the workers.
 *
 *     bare    no arithmetic: the same bytes in and out, which is the bound
 *     fused   one pass, as the engine does it
 *     cast    gradients widened to an array of fp32, the update in fp32, weights rounded: three
 *             passes
 *     scale   gradients multiplied in memory by the clip's factor, then the fused pass
 *     inside  the record's hash checked and the hashes of record and parameters made in the
 *             fused pass, block by block
 *     apart   the same hashes as passes before and after it
 *
 * All ways but bare leave valid states of a training, so no way has easier arithmetic than
 * real training.
 *
 * Thread: one, and the workers.
 */

#include "base/hash.h"
#include "offload/device/arena.h"
#include "optim/record.h"
#include "strata/adam.h"
#include "strata/workers.h"

enum adam_way {
    ADAM_BARE,
    ADAM_FUSED,
    ADAM_CAST,
    ADAM_SCALE,
    ADAM_INSIDE,
    ADAM_APART,
    ADAM_WAY_COUNT
};

/* What is updated, and by which instructions. */
struct adam_kind {
    strata_dtype dtype;  /* of gradients and parameters */
    strata_dtype states; /* of the moments */
    strata_isa isa;
};

struct adam_rig {
    struct arena memory;
    uint64_t elems; /* whole blocks */
    uint8_t *grad;
    float *wide; /* gradients in fp32, for cast */
    uint8_t *param;
    uint8_t *record;
    struct hash128 *read_digests;
    struct hash128 *record_digests;
    struct hash128 *param_digests;
    uint64_t t; /* number of updates so far */
};

/* Memory for elems parameters, rounded up to blocks; gradients are filled. */
strata_status strata_bench_adam_open(struct adam_rig *out, uint64_t elems, strata_error *error);
void strata_bench_adam_close(struct adam_rig *rig);

/* New weights and moments of 0, as this kind stores them. */
void strata_bench_adam_reset(struct adam_rig *rig, const struct adam_kind *kind);

/* Bytes that the fused pass moves for a parameter, in and out. */
uint32_t strata_bench_adam_bytes(const struct adam_kind *kind);

/* One pass over the first elems, or over all. grad_scale: for fused and the ways like it. */
void strata_bench_adam_pass(struct adam_rig *rig, strata_workers *workers,
                            const struct adam_kind *kind, enum adam_way way, uint64_t elems,
                            float grad_scale);

#endif
