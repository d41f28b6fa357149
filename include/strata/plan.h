#ifndef STRATA_PLAN_H
#define STRATA_PLAN_H

/*
 * The plan: everything decided before the first byte moves. From the model, the budgets and the
 * homes that were asked for it says where each part of each tile rests, how many frames there
 * are, and to the byte how much of each tier the run will take.
 *
 * With w the bytes of the compute dtype, s those of an element's state record (12, or 8 with
 * bf16 moments), G the padded elements of a group and T of a tile, the least a run can do with
 * is
 *
 *     device   what rests there + scratch + one activation block when stash leaves the device
 *              + the largest sum, over the points of the use list, over the groups held:
 *                w G, and 4 G more with a gradient, and w G more when the wire is not fp32
 *     host     what rests there + tables + norm sums + reserved_host_bytes
 *              + one chain of each kind in use: fetch w T, gradient w T, update (s + 2 w) T,
 *                parked 4 T, an activation block on its way to NVMe, each rounded up to
 *              2 MiB. States are kept a gradient behind (clip_mode) where there is room for
 *              one more chain of gradients
 *     nvme     what rests there, with a header of 4 KiB a file
 *
 * Of a frozen group G counts w alone, and no chain but the fetch of its parameters. Where they
 * rest in the device of a durable run, an update's frame saves them and brings them back.
 *
 * A budget below that is refused with the tier, the need and what there is. Where several
 * groups are held at once the device may need more than the sum, because a group lies in one
 * piece.
 *
 * Thread: plain data.
 */

#include "strata/types.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct strata_plan_tier {
    uint64_t limit_bytes; /* the budget */
    uint64_t need_bytes;  /* the least this run can do with, given the homes */
    uint64_t used_bytes;  /* what the run takes: never more than the limit */
    uint64_t home_bytes[STRATA_PART_COUNT]; /* what rests there, by part */
    uint64_t frozen_bytes;                  /* of the parameters, those of frozen groups */
    uint64_t stash_bytes;                   /* activation blocks that rest there */
    uint64_t frame_bytes;                   /* device: pool of group copies; host: frames */
    uint64_t table_bytes;                   /* host: tables, norm sums, reserved */
    uint64_t scratch_bytes;                 /* device: lent to the caller */
} strata_plan_tier;

/* Why the device's work stood still before an acquire or an unstash. */
typedef enum strata_stall {
    STRATA_STALL_ROOM = 0, /* no room in the device: something has not left it yet */
    STRATA_STALL_FETCH,    /* bytes on their way to the device */
    STRATA_STALL_UPDATE,   /* the group's update of the step before */
    STRATA_STALL_NORM,     /* the norm of the step before */
    STRATA_STALL_COUNT
} strata_stall;

/* "room", "fetch", "update", "norm". Static storage. Thread: any. */
STRATA_API const char *strata_stall_name(strata_stall stall);

/* What a step will cost, by simulation: seconds and bytes of a step in the stride of a run. */
typedef struct strata_forecast {
    double step_s; /* 0: not known, no profile was given */
    /* What no order of ops can beat: what the busiest resource has to do, and the longest
     * chain from a step's weights over the update that changes them to the next step's. */
    double bound_s;
    strata_lane bottleneck; /* the lane that the bound is of */
    double chain_s;
    double exposed_s; /* the device does not compute */
    double busy_s[STRATA_LANE_COUNT];
    double stall_s[STRATA_STALL_COUNT];
    uint64_t bytes[STRATA_LANE_COUNT]; /* as strata_lane_stats counts them */
    /* Until the drives have been written what they are rated for, at this pace; 0: the rating
     * is not known, or nothing is written. A step writes bytes[STRATA_LANE_NVME_WRITE]. */
    double drive_days;
    uint64_t ops; /* of the whole simulation */
} strata_forecast;

typedef struct strata_plan {
    uint64_t param_count;  /* elements that are trained, padding left out */
    uint64_t frozen_count; /* elements of frozen groups, likewise */
    uint64_t padded_elems;
    uint64_t state_bytes; /* parameters, gradients and states together: (2 w + s) per element,
                             of frozen groups w */
    uint32_t group_count;
    uint32_t tile_count;
    uint32_t tile_elems;
    uint32_t fetch_frames; /* host frames of each kind */
    uint32_t grad_frames;
    uint32_t update_frames;
    uint32_t park_frames;
    uint32_t param_loads; /* group copies brought to the device in a step */
    uint32_t param_uses;  /* acquires in a step */
    /* Steps from one commit to the next; 0: nothing is durable. Of a resumed run without a
     * number of its own it is right once the engine is made. */
    uint32_t commit_every;
    strata_forecast forecast; /* step_s 0: no profile was given */
    /* Homes left to AUTO, where a profile was given and there was a choice: what goes to host
     * RAM, and what came next in the simulation, with its step over this one's. Commits that
     * come every few steps are not in it. Static storage; NULL: no choice. */
    const char *homes;
    const char *next_homes;
    double next_factor;
    strata_plan_tier tiers[STRATA_TIER_COUNT]; /* by strata_tier; entry 0 is unused */
} strata_plan;

#ifdef __cplusplus
}
#endif

#endif
