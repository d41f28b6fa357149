#ifndef STRATA_OFFLOAD_LAYOUT_H
#define STRATA_OFFLOAD_LAYOUT_H

/*
 * What the bytes of a group are: the types of its parts, how many bytes they take, which parts
 * rest in the device, and how its elements are cut into shards and tiles.
 *
 * Bytes of elements of a group are worked out here, and bytes of an op in
 * offload/schedule/address.h. No other code multiplies by the bytes of a dtype or of a record.
 * So a group with another dtype, another record type or without states needs no second path in
 * plan, schedule and pager.
 *
 * Thread: read only once the plan is begun.
 */

#include "strata/types.h"

/* What a state record holds is the engine's business (optim/record.h). */
struct record_form {
    uint32_t type;
    uint32_t block_bytes; /* of STRATA_BLOCK_ELEMS elements */
};

struct group_layout {
    bool frozen; /* it has parameters and nothing else */
    strata_dtype param_dtype;
    strata_dtype wire_dtype; /* of a finished gradient, once it is rounded */
    struct record_form record;
    /* The finished gradient needs a place of its own behind its buffer: it is of another dtype,
     * or other ranks add to it. */
    bool staged;
    bool in_device[STRATA_PART_COUNT]; /* the part rests in the device, of all tiles */
    uint64_t padded;      /* elements of all shards, each a multiple of STRATA_BLOCK_ELEMS */
    uint64_t shard_elems; /* of one shard; each rank has one */
    uint32_t first_tile;  /* this rank's shard is cut into tiles with consecutive numbers */
    uint32_t tile_count;
};

/* Bytes of a part of so many elements; 0: the group has no such part. A state's bytes lie in
 * whole blocks; of less than a block this is the share. */
static inline uint64_t strata_layout_bytes(const struct group_layout *layout, strata_part part,
                                           uint64_t elems)
{
    if (part != STRATA_PARAM && layout->frozen)
        return 0;
    switch (part) {
    case STRATA_PARAM:
        return elems * strata_dtype_bytes(layout->param_dtype);
    case STRATA_GRAD:
        return elems * strata_dtype_bytes(layout->wire_dtype);
    case STRATA_STATE:
        return elems / STRATA_BLOCK_ELEMS * layout->record.block_bytes +
               elems % STRATA_BLOCK_ELEMS * layout->record.block_bytes / STRATA_BLOCK_ELEMS;
    case STRATA_PART_COUNT:
        break;
    }
    return 0;
}

/* Gradients are added up in fp32: in the device's buffer, and parked between two uses. */
static inline uint64_t strata_layout_sum_bytes(uint64_t elems)
{
    return elems * sizeof(float);
}

/* Does a finished gradient have to be copied out of its buffer, rounded or not, before its
 * tiles go on? */
static inline bool strata_layout_rounds(const struct group_layout *layout)
{
    return layout->wire_dtype != STRATA_FP32 || layout->in_device[STRATA_GRAD];
}

/* Bytes of the device's pool that copies of the whole group, all shards, take. */
static inline uint64_t strata_layout_param_pool_bytes(const struct group_layout *layout)
{
    return layout->in_device[STRATA_PARAM]
               ? 0
               : strata_layout_bytes(layout, STRATA_PARAM, layout->padded);
}

static inline uint64_t strata_layout_grad_pool_bytes(const struct group_layout *layout)
{
    bool staging = layout->staged && !layout->in_device[STRATA_GRAD];
    return strata_layout_sum_bytes(layout->padded) +
           (staging ? strata_layout_bytes(layout, STRATA_GRAD, layout->padded) : 0);
}

#endif
