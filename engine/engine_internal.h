#ifndef STRATA_ENGINE_INTERNAL_H
#define STRATA_ENGINE_INTERNAL_H

/*
 * struct strata_engine, and the calls that the files of this folder make to one another.
 *
 *     resolve.c         checks a descriptor and fills in its defaults
 *     identity.c        what a resumed run must have in common with its store
 *     planning.c        the plan of a run, and of a what-if
 *     engine.c          create and destroy
 *     fill.c            the first state of every tile; values that the caller writes
 *     step.c            the caller's side of a step, of an evaluation and of a commit
 *     lane_functions.c  norms, updates and rounding, which compute for the pager
 *     records.c         the state hash; reading and writing master weights and moments
 *
 * Thread: the engine's caller; lane_functions.c says what runs elsewhere.
 */

#include "offload/device/arena.h"
#include "base/trace.h"
#include "offload/pager/pager.h"
#include "offload/plan/planner.h"
#include "optim/record.h"
#include "strata/engine.h"

/* Transfers that may be on their way between steps: two for each tile that is filled at once,
 * and more than are read ahead. */
#define ARRIVALS 32u

struct strata_engine {
    strata_engine_desc
        desc; /* resolved; pointers into the caller's memory are not used after create */
    strata_adam_params adam;
    bool holds; /* the device and the workers */
    struct offload_plan plan;
    struct schedule *schedule;
    struct pager *pager;
    struct trace *trace; /* NULL: none */
    struct store *store; /* NULL: nothing rests on NVMe */
    struct arena host;
    struct memory memory; /* both arenas under the plan */
    bool device_huge;
    strata_stream *stream; /* copies between steps */
    bool pinned;           /* the host arena, for the device's copies */
    double *block_sums;    /* by norm block; written on the cpu lane or by the device */
    /* Behind the sums: not 0 once a kernel of the device has made a value that is not finite.
     */
    const volatile uint32_t *device_spoiled;
    /* A tile in which an update made a weight or moment that is not finite; STRATA_NONE: there
     * is none. Set by the cpu lane or a stream's thread, read by the pager before a commit; the
     * message that the update is done orders them. */
    _Atomic uint32_t spoiled_tile;
    /* The same for an update ahead of the norm, which may be undone; the cpu lane's. */
    uint32_t maybe_spoiled_tile;
    double partial_sum; /* of the step's blocks so far; the cpu lane's */
    uint64_t updates;   /* applied by the norms made so far; the cpu lane's */
    double loss_scale;  /* of the step that has begun; the caller's */
    uint8_t *scratch;   /* a record's block for each worker; NULL: updates never fold */
    float *bounce;      /* one norm block on its way to or from the device */
    void *bounce_bytes; /* the same in the dtype that rests there */
    struct hash_state *hash;
    struct channel *arrivals; /* of transfers between steps; NULL: no store */
    enum place { BETWEEN_STEPS, IN_STEP, IN_EVALUATION } place; /* where the caller is */
    uint64_t evaluations;                                       /* that have ended */
    uint64_t steps;        /* done, earlier runs' included */
    uint64_t base_step;    /* done before this run */
    uint64_t base_updates; /* applied before this run */
    uint64_t applied;      /* updates, as of the last wait for all of them */
    enum update_mode mode;
    enum record_type record_type;
    struct found_store found; /* the store to be resumed, for the planner */
    struct store_sight seen;  /* the same, as it was seen; open compares it */
    bool looked;              /* found and seen have been filled in */
    char
        identity[STRATA_IDENTITY_BYTES + 1]; /* the store's: the caller's, and what is frozen */
    struct store_records records;            /* the store's descriptor's */
    struct commit_line first_line;           /* what the run begins with */
    uint32_t use;                            /* next on the list that is walked */
    uint64_t acquire_blocked_ns;
    strata_error error;   /* the first failure, once a call has returned it */
    strata_error refusal; /* of the latest call that was refused */
};

/* The type of a record's values, the bytes of some of them in one block, and where an element's
 * value is in its tile's record. */
static inline strata_dtype strata_engine_value_dtype(const strata_engine *engine,
                                                     strata_record record)
{
    return record == STRATA_MASTER ? STRATA_FP32 : strata_record_moments(engine->record_type);
}

static inline uint64_t strata_engine_value_bytes(const strata_engine *engine,
                                                 strata_record record, uint64_t count)
{
    return count * strata_dtype_bytes(strata_engine_value_dtype(engine, record));
}

static inline uint64_t strata_engine_value_offset(const strata_engine *engine,
                                                  strata_record record, uint64_t elem)
{
    struct record_place place = strata_record_place(engine->record_type, elem);
    return record == STRATA_MASTER    ? place.master
           : record == STRATA_MOMENT1 ? place.m
                                      : place.v;
}

/* lane_functions.c: the cpu lane's functions, the same for every device. */
enum verdict strata_lane_norm(void *user, uint32_t tile, const void *grad, double loss_scale);
void strata_lane_update(void *user, const struct update_job *job);
strata_status strata_lane_total(void *user, strata_step_result *result, strata_error *error);
float strata_lane_guess(double loss_scale);
strata_status strata_lane_may_commit(void *user, strata_error *error);
/* These, and functions that the host device's streams run. */
extern const struct lane_functions strata_engine_lanes_host;

/* lane_functions_cuda.c: the same cpu functions, and kernels on the device. load: load all code
 * of the kernels, so that no launch in a step has to wait for it. */
strata_status strata_lanes_load(strata_device *device, strata_error *error);
extern const struct lane_functions strata_engine_lanes_cuda;

/* fill.c: fill every home, with the initial weights and zero moments (fresh; with a durable
 * store they are also written to slot 0), or from the slots that first_line names. */
strata_status strata_engine_fill(strata_engine *engine, bool fresh, strata_error *error);
/* Elements of one record of a trained group, first .. first + count - 1 in its flat order, and
 * what they are to be. */
struct patch {
    uint32_t group;
    strata_record record;
    uint64_t first;
    uint64_t count;
    const float *values;
};
/* fill.c: write them where they rest, and the weights that follow from master weights. The
 * pager must be at rest. */
strata_status strata_engine_patch(strata_engine *engine, const struct patch *patch,
                                  strata_error *error);
/* The first of these values that is infinite or NaN; count: none. */
uint64_t strata_first_not_finite(const float *values, uint64_t count);

/* records.c: the device's failure, after queued copies have been waited for. */
strata_status strata_engine_device_status(const strata_engine *engine, strata_error *out);

/* identity.c: fill in engine->identity. */
strata_status strata_engine_identify(strata_engine *engine, strata_error *error);

/* resolve.c: check desc, and copy it with all defaults filled in. Pointers are borrowed. */
strata_status strata_engine_resolve(strata_engine_desc *out, const strata_engine_desc *desc,
                                    strata_error *error);

/* planning.c: plan, tables and schedule of a resolved descriptor. */
strata_status strata_engine_make_plan(strata_engine *engine, strata_error *error);
/* Refuse if this machine has less memory than the plan takes. */
strata_status strata_engine_check_machine(const strata_engine *engine, strata_error *error);
/* The store's descriptor before the plan fills in its sizes. */
struct store_desc strata_engine_store_desc(const strata_engine *engine);
/* Is the loss scale dynamic? */
bool strata_engine_scales(const strata_engine_desc *desc);

/* INVALID: with this learning rate an update overflows fp32 by itself. */
strata_status strata_engine_check_rate(const strata_adam_params *adam, double lr,
                                       strata_error *error);

/* step.c: keep the pager's failure as the engine's, if status is one, and return status. */
strata_status strata_engine_failed(strata_engine *engine, strata_status status);
/* The place, emptied, for the message of a call that is refused and changes nothing. */
strata_error *strata_engine_refusal(strata_engine *engine);
/* OK: there is an engine, it has not failed, and it is in no step and no evaluation. */
strata_status strata_engine_between_steps(strata_engine *engine, const char *call);

#endif
