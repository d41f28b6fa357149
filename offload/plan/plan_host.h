#ifndef STRATA_OFFLOAD_PLAN_HOST_H
#define STRATA_OFFLOAD_PLAN_HOST_H

/* What homes take of the host, in bytes, and the layout of its arena. Every function goes by
 * the homes as they are when it is called. */

#include "offload/plan/plan.h"

/* Work out the bytes of a frame of each kind. The functions below need them. */
void strata_plan_set_strides(struct offload_plan *plan);

/* Host bytes of what rests there: parts, parked gradients, stash. */
uint64_t strata_plan_host_home_bytes(const struct offload_plan *plan);

/* One frame of each kind that the homes call for. */
uint64_t strata_plan_least_frames(const struct offload_plan *plan);

/* Frames of the kinds that reading from and writing to NVMe takes: at most so many of each. */
uint64_t strata_plan_some_frames(const struct offload_plan *plan, uint32_t most);

/* Host bytes besides homes and frames: tables, the store's, the caller's. Numbers the store's
 * places. */
uint64_t strata_plan_host_fixed(struct offload_plan *plan, const struct plan_desc *desc);

/* The least that the run can do with. */
uint64_t strata_plan_host_need(struct offload_plan *plan, const struct plan_desc *desc);

/* Give frames beyond the least, in `room` bytes, to the kinds in use in turn. */
void strata_plan_give_frames(struct offload_plan *plan, uint64_t room);

/* Lay the host's arena out and sum up what rests there. */
void strata_plan_place_host(struct offload_plan *plan);

#endif
