#ifndef STRATA_OFFLOAD_MODEL_H
#define STRATA_OFFLOAD_MODEL_H

/*
 * The model as one rank's engine keeps it: groups, tensors and uses copied, and the tiles cut.
 *
 * A group's tensors lie one after the other; its end is padded so that each rank's shard, an
 * equal part of it, is whole norm blocks. A tile is tile_elems elements of the shard, its last
 * one what is left, still whole blocks. Tiles are numbered through the model in group order,
 * those of trained groups first, those of frozen ones last. Norm blocks are the trained tiles'.
 *
 * There are two use lists: a step's, and an evaluation's, which may be empty. Uses are numbered
 * through both, the step's first; so are what the lists have of each kind (stash events, and in
 * the residency placements).
 *
 * Thread: read only once built.
 */

#include "offload/plan/layout.h"
#include "offload/plan/tables.h"
#include "strata/types.h"

#define STRATA_NONE UINT32_MAX

struct tensor {
    const char *name;
    uint64_t elems;
    uint64_t offset; /* elements before it in the group */
    bool no_decay;
};

struct tile {
    uint32_t group;
    uint32_t elems;       /* a multiple of STRATA_BLOCK_ELEMS */
    uint64_t first;       /* elements before it in the group */
    uint64_t first_block; /* trained: norm blocks before it in the model */
};

struct group {
    const char *name;
    uint64_t elems;
    uint32_t first_tensor;
    uint32_t tensor_count;
    /* The model fills in what is frozen, the shards and the tiles; the plan the rest. */
    struct group_layout layout;
};

/* A use, with what follows from its place in the list. */
struct use {
    strata_use_kind kind;
    uint32_t index;   /* group, or stash block */
    bool grad;        /* acquire and release: with the gradient buffer */
    double flops;     /* computed before the next entry */
    uint32_t partner; /* of an acquire its release, of a stash its unstash, and back */
    uint32_t next; /* acquire: the next acquire of the group in this list, STRATA_NONE: none */
    uint32_t next_grad;   /* acquire: the next one with grad */
    uint32_t stash_event; /* (un)stash: how many of them are before it */
};

struct model {
    struct group *groups;
    struct tensor *tensors;
    struct tile *tiles;
    struct use *uses;
    uint32_t *stash_uses; /* by stash event: which use */
    uint32_t group_count;
    uint32_t tensor_count;
    uint32_t tile_count;
    uint32_t trained_tile_count; /* the first ones */
    uint32_t use_count;          /* of the step's list; the evaluation's come after them */
    uint32_t eval_use_count;
    uint32_t stash_event_count; /* of the step's list, as above */
    uint32_t eval_stash_event_count;
    uint32_t stash_block_count;
    uint32_t tile_elems;
    uint64_t stash_bytes;      /* of one block, rounded up to 4096 */
    uint64_t stash_copy_bytes; /* of one block, as the caller has it */
    uint64_t scratch_bytes;
    uint64_t elems;
    uint64_t trained_elems;
    uint64_t padded; /* elements of all tiles */
    uint64_t block_count;
    uint32_t ranks;
};

/* Is this a use of an evaluation? */
static inline bool strata_model_is_eval(const struct model *model, uint32_t use)
{
    return use >= model->use_count;
}

/* The uses of one of the two lists: first .. end - 1. */
struct use_list {
    uint32_t first;
    uint32_t end;
};

static inline struct use_list strata_model_list(const struct model *model, bool eval)
{
    return eval ? (struct use_list){model->use_count, model->use_count + model->eval_use_count}
                : (struct use_list){0, model->use_count};
}

/* Which shard of each group is this rank's; ranks 0 counts as 1. */
struct shard {
    uint32_t ranks;
    uint32_t rank;
};

/* Copy and check the descriptor, and cut groups into tiles. INVALID: the message says what is
 * wrong with it. */
strata_status strata_model_build(struct model *out, struct tables *tables,
                                 const strata_model_desc *desc, uint32_t tile_elems,
                                 struct shard shard, strata_error *error);

/* The tensor that an element of a group belongs to; NULL: it is padding. */
const struct tensor *strata_model_tensor_at(const struct model *model, uint32_t group,
                                            uint64_t elem);

#endif
