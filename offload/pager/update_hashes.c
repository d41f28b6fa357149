/*
 * Hashes in the update's pass; see update_hashes.h. Each update frame has arrays for the
 * largest tile, in one block of memory behind the struct.
 */

#include "offload/pager/update_hashes.h"

#include "base/error.h"

#include <stdlib.h>

/* What belongs to one update frame. */
struct frame {
    struct update_digests digests;
    struct store_io state_io; /* as the reads ended */
    struct store_io grad_io;
};

struct update_hashes {
    const struct offload_plan *plan;
    struct frame frames[STRATA_MAX_FRAMES];
    struct hash128 digests[]; /* of all frames */
};

/* How many digests the largest tile's part has. A tile is whole norm blocks, and these are
 * whole pieces in every dtype. */
static uint64_t most_pieces(const struct offload_plan *plan, strata_part part)
{
    uint64_t most = 0;
    for (uint32_t g = 0; g < plan->model.group_count; g++) {
        uint64_t bytes =
            strata_layout_bytes(&plan->model.groups[g].layout, part, plan->model.tile_elems);
        uint64_t pieces = strata_hash_piece_count(bytes);
        most = pieces > most ? pieces : most;
    }
    return most;
}

/* Digests of a frame: a state that is read, one that is written, a gradient, parameters. */
static uint64_t frame_digests(const struct offload_plan *plan)
{
    return 2 * most_pieces(plan, STRATA_STATE) + most_pieces(plan, STRATA_GRAD) +
           most_pieces(plan, STRATA_PARAM);
}

uint64_t strata_update_hashes_bytes(const struct offload_plan *plan)
{
    return sizeof(struct update_hashes) +
           STRATA_MAX_FRAMES * frame_digests(plan) * sizeof(struct hash128);
}

strata_status strata_update_hashes_create(struct update_hashes **out,
                                          const struct offload_plan *plan, strata_error *error)
{
    struct update_hashes *hashes = calloc(1, strata_update_hashes_bytes(plan));
    *out = hashes;
    if (hashes == NULL)
        return strata_fail(error, STRATA_E_NOMEM, 0, "no memory for the updates' hashes");
    hashes->plan = plan;
    uint64_t state = most_pieces(plan, STRATA_STATE);
    uint64_t grad = most_pieces(plan, STRATA_GRAD);
    for (uint32_t i = 0; i < STRATA_MAX_FRAMES; i++) {
        struct hash128 *at = hashes->digests + i * frame_digests(plan);
        hashes->frames[i].digests = (struct update_digests){.state_read = at,
                                                            .state = at + state,
                                                            .grad_read = at + 2 * state,
                                                            .param = at + 2 * state + grad};
    }
    return STRATA_OK;
}

void strata_update_hashes_destroy(struct update_hashes *hashes)
{
    free(hashes);
}

static bool on_nvme(const struct update_hashes *hashes, strata_part part, uint32_t tile)
{
    return hashes->plan->homes[part].tier[tile] == STRATA_NVME;
}

/* Does the op belong to an update that goes through a frame and runs on the workers? */
static bool framed(const struct update_hashes *hashes, const struct op *op)
{
    return op->frame != STRATA_NONE && op->frame_kind == FRAME_UPDATE &&
           !strata_plan_state_in_device(hashes->plan, op->tile);
}

struct update_digests strata_update_hashes_of(const struct update_hashes *hashes,
                                              const struct op *op)
{
    struct update_digests none = {0};
    if (op->kind != OP_UPDATE || !framed(hashes, op))
        return none;
    struct update_digests digests = hashes->frames[op->frame].digests;
    /* Rebuilding parameters from the master weights reads no gradient. */
    if (!on_nvme(hashes, STRATA_GRAD, op->tile) || (op->work & UPDATE_REBUILD))
        digests.grad_read = NULL;
    if (!on_nvme(hashes, STRATA_STATE, op->tile))
        digests.state_read = digests.state = NULL;
    if (!on_nvme(hashes, STRATA_PARAM, op->tile))
        digests.param = NULL;
    return digests;
}

void strata_update_hashes_start(struct update_hashes *hashes, const struct op *op,
                                struct store_io *io)
{
    bool state = op->what == WHAT_STATE && on_nvme(hashes, STRATA_STATE, op->tile);
    bool flat = op->what == WHAT_PARAM || op->what == WHAT_GRAD;
    if (!framed(hashes, op) || !(state || flat))
        return;
    const struct update_digests *digests = &hashes->frames[op->frame].digests;
    io->own_hash = true;
    if (io->write)
        io->digests = state ? digests->state : digests->param;
}

void strata_update_hashes_done(struct update_hashes *hashes, const struct op *op,
                               const struct store_io *io)
{
    if (!io->own_hash || io->write)
        return;
    struct frame *frame = &hashes->frames[op->frame];
    if (op->what == WHAT_STATE)
        frame->state_io = *io;
    else
        frame->grad_io = *io;
}

strata_status strata_update_hashes_verify(struct update_hashes *hashes, const struct op *op,
                                          struct store *store)
{
    struct update_digests digests = strata_update_hashes_of(hashes, op);
    const struct frame *frame = &hashes->frames[op->frame != STRATA_NONE ? op->frame : 0];
    if (digests.state_read != NULL)
        STRATA_TRY(strata_store_verify(store, &frame->state_io, digests.state_read));
    if (digests.grad_read != NULL)
        STRATA_TRY(strata_store_verify(store, &frame->grad_io, digests.grad_read));
    return STRATA_OK;
}
