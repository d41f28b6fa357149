#ifndef TESTS_SUPPORT_DRIVER_INTERNAL_H
#define TESTS_SUPPORT_DRIVER_INTERNAL_H

/*
 * What the driver's four files share: the state of one rank.
 *
 * driver.c moves the caller, the stream and the lanes; driver_model.c makes what they run;
 * driver_checks.c says whether an op may start; driver_tokens.c says what an op leaves behind.
 */

#include "tests/support/driver.h"

#define MAX_GROUPS  6u
#define MAX_USES    64u
#define STEPS       3u
#define PAUSES      3u /* between steps, at most */
#define MAX_RUNNING 64u

/* What a frame holds; TORN: nothing whole. */
#define TORN UINT64_MAX
/* What the parameters of a frozen tile are. */
#define FROZEN 0xf00d
struct frame_tokens {
    uint64_t state;
    uint64_t grad;
    uint64_t param;
};

struct random_model {
    strata_tensor_desc tensors[MAX_GROUPS];
    strata_group_desc groups[MAX_GROUPS];
    char names[MAX_GROUPS][16];
    strata_use uses[MAX_USES];
    strata_use eval_uses[MAX_USES];
    strata_model_desc desc;
};

/* What the made-up stream still has to do. */
struct stream_entry {
    uint64_t turn;
    uint64_t gate_value; /* of what it waits for */
    uint64_t steps;      /* whose updates its weights have seen */
    uint32_t use;
};

struct driver {
    struct driver *peers; /* all ranks, this one included */
    uint32_t ranks;
    struct plan_desc plan_desc;
    struct driver_case what;
    struct offload_plan plan;
    struct schedule *schedule;
    uint64_t random;
    /* the caller and its stream */
    uint64_t base; /* steps before the schedule's first: it has been made anew */
    uint64_t step;
    uint32_t use;
    bool asked;
    bool paused;                 /* what comes before the next step is decided */
    uint32_t pauses_left;        /* of those that may still come */
    bool evaluating;             /* the use is of the evaluation's list */
    uint64_t evaluations;        /* begun since the schedule was made */
    uint64_t eval_steps[PAUSES]; /* by evaluation: steps whose updates it wants to see */
    enum {
        NO_REST,
        UPDATING,
        SETTLING,
        COMMITTING,
        HOLDING
    } rest; /* on the way to a commit, a rewrite */
    uint64_t holds;
    bool saved;
    bool settled;
    enum update_mode mode;
    enum verdict verdicts[STEPS];
    struct schedule_desc schedule_desc;
    uint32_t commit_every;
    struct stream_entry queue[MAX_USES * (STEPS + 1 + PAUSES)];
    uint32_t queue_first;
    uint32_t queue_last;
    /* lanes */
    struct op running[MAX_RUNNING];
    uint32_t running_count;
    /* what has happened */
    uint64_t *gates;
    uint64_t *norms; /* by tile */
    /* tokens */
    uint64_t truth[STEPS + 1];                       /* the state after so many steps */
    uint64_t *params;                                /* by tile: at home */
    uint64_t *states;                                /* by tile: at home in host or device */
    uint64_t *grads;                                 /* by tile: at home: the step, from 1 */
    uint64_t *content;                               /* by tile and slot */
    struct frame_tokens *frames;                     /* by frame kind and index */
    struct commit_line durable[1 + STRATA_MAX_KEEP]; /* copies of what was made durable */
    uint32_t durable_count;
    bool block_busy[STRATA_MAX_STASH_FRAMES]; /* the device's stash blocks */
    uint64_t *stashed; /* by stash event: turns in which its block has reached the host */
    /* collectives begun: kind and placement of each */
    uint32_t *comm;
    uint32_t comm_count;
    uint64_t moves_left; /* until the crash; UINT64_MAX: none */
    const char *problem;
};

/* The first condition that fails is the problem that is reported. */
#define HOLDS(condition)                                                                       \
    do {                                                                                       \
        if (!(condition) && d->problem == NULL)                                                \
            d->problem = #condition;                                                           \
    } while (0)

/* A number below the limit, from the rank's own sequence. */
uint64_t strata_driver_roll(struct driver *d, uint64_t below);

/* Everything of one rank; the seed makes model, plan and verdicts the same on all. */
bool strata_driver_make(struct driver *d, struct random_model *model, struct store_desc *store,
                        strata_error *error);
void strata_driver_free(struct driver *d);

/* Plan with these budgets and create the schedule. */
bool strata_driver_plan(struct driver *d, struct plan_desc *desc,
                        const struct driver_case *what, strata_error *error);

/* May this op start now? Where it may not, d->problem says why. */
void strata_driver_check(struct driver *d, const struct op *op);

/* What this op has done to homes, slots and frames. A norm and a total get their verdict. */
void strata_driver_note_done(struct driver *d, struct op *op);

/* The token in this slot of the tile's record. */
uint64_t *strata_driver_content(struct driver *d, uint32_t tile, uint32_t slot);

/* What a tile's parameters are after so many steps, and what a commit of them has of it. */
uint64_t strata_driver_truth(const struct driver *d, uint32_t tile, uint64_t step);

/* How many steps' updates have the parameters seen that an op of this kind moves? */
uint64_t strata_driver_steps_seen(const struct driver *d, const struct op *op);

/* The device's block that this stash event of the turn uses. */
uint32_t strata_driver_block(const struct driver *d, uint64_t turn, uint32_t event);

/* The state's token after a step with this verdict. */
uint64_t strata_driver_mix(uint64_t state, uint64_t step, enum verdict verdict);

#endif
