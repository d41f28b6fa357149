#ifndef STRATA_OFFLOAD_RESIDENCY_H
#define STRATA_OFFLOAD_RESIDENCY_H

/*
 * Which group is where in the device, and when: the layout of the device's pool over one step.
 *
 * The use list is known, so the pool is laid out before the first step, the way a compiler
 * assigns registers. A placement is a stay: one group's parameters, or its gradient buffer, at
 * a fixed place of the pool from one acquire to a later release. Parameters that are used again
 * in the step stay if there is room, and when there is not, the one whose next use is farthest
 * goes (Belady's rule). Among equal victims the one that was left longest ago goes, which gives
 * the next fetch the most time. Every step repeats the same placements.
 *
 * Time decides only *when* a placement opens: placements open in order, each as soon as those
 * that overlap it and opened before have closed. So no order of completions can make two
 * placements wait for each other, and each step loads as often as the plan says.
 *
 * The evaluation's list has placements of its own, laid out in the same pool as if nothing else
 * were there. They come after the step's.
 *
 * Thread: read only once built.
 */

#include "offload/plan/model.h"

enum placement_kind { PLACEMENT_PARAM, PLACEMENT_GRAD };

struct placement {
    enum placement_kind kind;
    uint32_t group;
    uint32_t first_use; /* the acquire it opens for */
    uint32_t last_use;  /* the release after which it may close */
    bool home;          /* parameters that rest in the device: no pool bytes, never loaded */
    bool park_in;       /* gradient: comes back from where it was parked; else zeroed */
    bool park_out;      /* gradient: parked after last_use; else it is complete */
    uint64_t offset;    /* bytes into the pool */
    uint64_t bytes;
};

struct residency {
    struct placement *placements; /* in order of first_use */
    uint32_t *use_param;          /* by use (acquire or release): its placement */
    uint32_t *use_grad;           /* the same for the gradient, STRATA_NONE without */
    bool *parks;                  /* by group: its gradient is parked in between */
    uint32_t count;               /* of the step's list */
    uint32_t eval_count;          /* of the evaluation's */
    uint32_t load_count;          /* parameter placements that a step loads */
    uint64_t pool_bytes;          /* highest byte any placement touches */
    /* work space of strata_residency_build() */
    uint8_t *stay;       /* by placement */
    uint32_t *there;     /* placements that are held or stay, in no order */
    uint32_t *param_now; /* by group */
    uint32_t *grad_now;
};

/* The formula's pool: the largest sum over the points of the use list of what is held. */
uint64_t strata_residency_minimum(const struct model *model);

/* Take the arrays that build fills and works with; once. */
strata_status strata_residency_create(struct residency *out, struct tables *tables,
                                      const struct model *model, strata_error *error);

/* Lay out a pool of capacity bytes. false: what is held at some point does not fit in one
 * piece. */
bool strata_residency_build(struct residency *residency, const struct model *model,
                            uint64_t capacity);

#endif
