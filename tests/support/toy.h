#ifndef TESTS_SUPPORT_TOY_H
#define TESTS_SUPPORT_TOY_H

/*
 * A made-up model for tests of the engine: a few groups of odd sizes, one of them used at both
 * ends like a tied embedding, activations that are stashed, and arithmetic that notices when a
 * parameter, a gradient or an activation is stale, missing or misplaced. One step is one walk
 * of its use list.
 */

#include "offload/device/device.h"
#include "strata/strata.h"

#define TOY_GROUPS     7u
#define TOY_TENSORS    2u
#define TOY_ACTIVATION 1024u

struct toy {
    strata_tensor_desc tensors[TOY_GROUPS][TOY_TENSORS];
    strata_group_desc groups[TOY_GROUPS];
    char names[TOY_GROUPS][TOY_TENSORS][16];
    strata_use uses[8 * TOY_GROUPS + 8];
    strata_use eval_uses[4 * TOY_GROUPS]; /* in the model only of a run that evaluates */
    strata_model_desc model;
    strata_adam_params adam;
};

#define TOY_NO_STEPS UINT32_MAX

/* What a run is given; zero is a roomy run with everything in the device. */
struct toy_run {
    strata_tier params;
    strata_tier grads;
    strata_tier states;
    strata_tier stash;
    uint64_t device_bytes; /* 0: 64 MiB */
    uint64_t host_bytes;   /* 0: 64 MiB */
    uint64_t nvme_bytes;   /* 0: 64 MiB */
    uint32_t tile_elems;   /* 0: 16,384 */
    uint32_t threads;      /* 0: 1 */
    uint32_t steps;        /* 0: 4; TOY_NO_STEPS: none */
    uint32_t groups;       /* 0: all; the first so many */
    uint32_t scale;        /* 0: 1; tensors are so many times as long */
    uint32_t frozen;       /* bits by group */
    uint32_t still;        /* bits by group: trained, but its gradient stays zero; no decay */
    strata_dtype dtype;    /* 0: bf16 */
    strata_dtype states_dtype;
    double loss_scale;
    uint64_t seed;         /* of the rounding of bf16 states */
    const char *dir;       /* store directory, or NULL */
    const char *other_dir; /* of a second drive, or NULL */
    strata_io_backend io;
    uint32_t allow;
    float clip;
    strata_clip_mode clip_mode;
    float poison;            /* added to one gradient in step 2 */
    uint32_t poisoned_steps; /* 0: 1; from step 2 on */
    bool no_overlap;
    strata_durability durability;
    uint32_t commit_every;
    uint32_t keep;
    uint32_t keep_every;
    bool resume;
    bool resume_at;
    uint64_t resume_step;
    bool commit_at_end;
    bool evaluate;     /* before the first step and after each */
    bool rewrite;      /* after each step: write all records back as they were read */
    uint32_t halve_at; /* after this step halve a part of group 5's records; 0: never */
    const char *identity;
    void (*after_step)(void *user,
                       uint64_t step); /* or NULL; the step has ended, its norm is known */
    void *after_user;
    strata_progress_fn progress;
    void *progress_user;
    const struct strata_device_ops *device_ops; /* NULL: the host device's */
};

struct toy_result {
    strata_status status;
    strata_error error;
    strata_plan plan;
    strata_stats stats;
    uint8_t hash[16];
    double grad_norm; /* of the last step */
    strata_step_result last;
    uint64_t first_step;  /* where the engine stood at first */
    uint64_t frozen_uses; /* of frozen groups, and those of them that saw other bytes than the
                             initial ones */
    uint64_t frozen_wrong;
    uint64_t evaluations;
    uint64_t eval_hash; /* of the parameters that they saw */
    /* Uses that saw other than the rounded master weights. The stream's thread counts too. */
    _Atomic uint64_t eval_wrong;
    uint64_t
        moving_hash; /* of the master weights of groups that are neither frozen nor still */
};

void strata_toy_make(struct toy *toy);

/* A run with these homes and activations in host RAM; all else is zero. */
struct toy_run strata_toy_homes(strata_tier params, strata_tier grads, strata_tier states);
/* The same, with a store in dir that gets a commit every step. */
struct toy_run strata_toy_durable(strata_tier params, strata_tier grads, strata_tier states,
                                  const char *dir);

/* Create an engine, run the steps, hash, destroy. */
struct toy_result strata_toy_run(const struct toy_run *run);

/* The plan alone. */
strata_status strata_toy_plan(const struct toy_run *run, strata_plan *out, strata_error *error);

#endif
