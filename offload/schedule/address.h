#ifndef STRATA_OFFLOAD_ADDRESS_H
#define STRATA_OFFLOAD_ADDRESS_H

/*
 * From the plan's numbers to addresses: where in the two arenas a home, a frame, a placement or
 * an activation block begins. The only place that does this arithmetic.
 *
 * Thread: any; it only reads.
 */

#include "offload/schedule/schedule.h"

struct memory {
    const struct offload_plan *plan; /* borrowed */
    uint8_t *host;                   /* arenas, borrowed; host may be NULL when it is empty */
    uint8_t *device;
};

/* Where a part of a tile rests, in the device or in host RAM. */
uint8_t *strata_address_home(const struct memory *memory, strata_part part, uint32_t tile);

uint8_t *strata_address_frame(const struct memory *memory, enum frame_kind kind,
                              uint32_t index);

/* Within an update frame: the state record, then the gradient, then the new parameters. */
uint8_t *strata_address_update_frame(const struct memory *memory, uint32_t index,
                                     strata_part part);

/* What the update of op's tile reads or writes: at home, or in the chain's frame. */
uint8_t *strata_address_update(const struct memory *memory, const struct op *op,
                               strata_part part);

/* A gradient in the frame of op's chain. */
uint8_t *strata_address_grad_frame(const struct memory *memory, const struct op *op);

uint8_t *strata_address_placement(const struct memory *memory, uint32_t placement);

/* Where a placement's finished gradient is rounded to: home, or the staging behind it. */
uint8_t *strata_address_rounded(const struct memory *memory, uint32_t placement);

/* A stash event's device block on the way in a turn of its list, and its block at home. */
uint8_t *strata_address_stash_frame(const struct memory *memory, uint64_t turn, uint32_t event);
uint8_t *strata_address_stash_home(const struct memory *memory, uint32_t event);

/* What a transfer op reads or writes: a place of the store, and where in host RAM. */
struct transfer {
    uint32_t place;
    uint8_t *buffer;
};
struct transfer strata_address_transfer(const struct memory *memory, const struct op *op);

/* Bytes that a transfer or copy moves: of its tile, or of an activation block. */
uint64_t strata_address_bytes(const struct offload_plan *plan, const struct op *op);

/* Bytes of memory that an op which computes touches; 0 of the others. */
uint64_t strata_address_work_bytes(const struct offload_plan *plan, const struct op *op);

/* Bytes an op counts on its lane: those it moves, or those of host memory it works on. What
 * stays in the device counts none. */
uint64_t strata_address_lane_bytes(const struct offload_plan *plan, const struct op *op);

/* The two ends of a copy op. */
struct ends {
    uint8_t *device;
    uint8_t *host;
    uint64_t bytes;
};
struct ends strata_address_ends(const struct memory *memory, const struct op *op);

#endif
