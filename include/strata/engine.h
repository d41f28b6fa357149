#ifndef STRATA_ENGINE_H
#define STRATA_ENGINE_H

/*
 * The training step of a model that does not fit the device.
 *
 * The engine owns parameters, gradients and optimizer states and keeps each where the plan
 * says: in the device, in host RAM or on NVMe. The caller owns the arithmetic of forward and
 * backward. In the order of the use list it acquires a group, queues work on its stream, and
 * releases it:
 *
 *     strata_step_begin(engine, lr);
 *     for each use of the use list:
 *         strata_acquire(engine, group, stream, &view);      // pointers valid until release
 *         ... queue work that reads view.param and adds to view.grad ...
 *         strata_release(engine, group, stream);
 *     strata_step_end(engine);                               // returns at once
 *     strata_wait(engine, step, &result);                    // when the norm is wanted
 *
 * acquire returns when the group's place in the device is settled, and has made the stream wait
 * for the bytes; the caller runs ahead. (On a CUDA device it waits for the bytes itself, while
 * the stream has work of the group before.) At a group's first gradient use in a step the
 * gradient buffer is zero; at a later one it holds what the earlier ones left. After its last
 * use the gradient is complete: it is rounded once to the compute dtype, the norm is taken of
 * that, and AdamW runs on the host while the device goes on.
 *
 * Between steps the caller may evaluate: it walks the evaluation's use list, forward only, with
 * the weights of the step that has ended:
 *
 *     strata_eval_begin(engine);
 *     ... acquire, compute, release; stash and unstash as well ...
 *     strata_eval_end(engine);
 *
 * What is promised: for one model, seed and data, the budgets, homes, tile size, thread count,
 * I/O backend, no_overlap and evaluations change no bit of the master weights and moments.
 * Budgets are never crossed; all memory is taken at create, and a step calls no allocator.
 *
 * Errors: the first failure of the machine (a drive, the device, a norm that is not finite)
 * sticks. Every later call returns its status until destroy. A call that makes no sense is
 * refused with STRATA_E_INVALID (an argument) or STRATA_E_STATE (its place in the order of
 * calls). It changes nothing, nothing sticks, and the run goes on as if it had not been made.
 * strata_engine_error() has the story of both. An engine that is NULL is STRATA_E_INVALID too.
 *
 * Thread: one caller's thread per engine, for all functions here.
 */

#include "strata/adam.h"
#include "strata/device.h"
#include "strata/plan.h"
#include "strata/profile.h"
#include "strata/types.h"
#include "strata/workers.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct strata_engine strata_engine;

/*
 * Initial master weights: elements first .. first + count - 1 of tensor `tensor` of group
 * `group`. Called at create only, from the caller's thread and any worker's, from several at
 * once, each for other elements. Every element is asked for once, in no particular order. What
 * is not finite is refused (STRATA_E_INVALID). A frozen group's are rounded to the compute
 * dtype, and stay so.
 */
typedef void (*strata_init_fn)(void *user, uint32_t group, uint32_t tensor, uint64_t first,
                               uint64_t count, float *out);

/* Clipping needs the norm of the whole gradient. When does an update begin? Same bits. */
typedef enum strata_clip_mode {
    /* ahead, but deferred for states in host RAM where commits come every step: each commit
     * would have to wait for the fold */
    STRATA_CLIP_AUTO = 0,
    STRATA_CLIP_DEFERRED, /* once the norm is known: least wear, and memory */
    /*
     * Ahead of the norm, as if it were within the limit, and again where it is not: where there
     * is a state to go back to. On NVMe that is the slot before, and between commits takes one
     * slot more. In host RAM it is the state itself, kept one gradient behind, if gradients
     * rest there too. States in the device, and without durability on NVMe, are deferred.
     */
    STRATA_CLIP_SPECULATIVE
} strata_clip_mode;

/*
 * What the caller keeps beside the store, a log for one, made durable before the commit of this
 * step counts: whoever goes on from there finds it. May wait for it; not for the engine. A
 * failure is the engine's, and the commit is not made.
 *
 * Thread: one of the engine's, or the caller's during create and commit; one call at a time.
 */
typedef strata_status (*strata_before_commit_fn)(void *user, uint64_t step,
                                                 strata_error *error);

typedef struct strata_engine_desc {
    strata_device *device;          /* required; the engine keeps it from being closed */
    strata_workers *workers;        /* required; likewise */
    const strata_model_desc *model; /* required; copied */
    strata_dtype compute_dtype;     /* required; parameters and gradients outside the device */
    /* fp16: 0: dynamic, see strata_loss_scale(); else fixed. Other dtypes: 0 */
    double loss_scale;
    strata_dtype states_dtype;      /* 0: fp32; of both moments; or bf16, see strata/adam.h */
    uint64_t seed;                  /* of the rounding of bf16 moments */
    const strata_adam_params *adam; /* required; copied; betas from 0 to below 1 */
    strata_init_fn init;            /* required */
    void *init_user;
    float clip; /* largest global gradient norm; 0: no clipping */
    strata_clip_mode clip_mode;
    /* 0: nine tenths of what is free at create, on the host device of what host_bytes leaves or
     * of half */
    uint64_t device_bytes;
    /* 0: half of what is free at create within the cgroup, less the host device's bytes */
    uint64_t host_bytes;
    uint64_t nvme_bytes; /* 0: nine tenths of what is free, and what the store there has */
    uint64_t reserved_host_bytes; /* 0: none; host bytes of the caller's own, counted in host */
    /* STRATA_AUTO: the fastest tier with room; parameters first, then gradients, then states.
     * With a profile, host RAM is divided as is fastest in a simulation of several ways */
    strata_tier params;
    strata_tier grads;
    strata_tier states;
    strata_tier stash;             /* STRATA_AUTO: the fastest tier with room */
    const char *const *store_dirs; /* NULL: no NVMe tier; copied; one directory per drive */
    uint32_t store_dir_count;
    strata_durability durability; /* STRATA_SCRATCH: nothing survives */
    /* 0: as the resumed store has it; in a new one 1 when all states rest on NVMe, else 10 */
    uint32_t commit_every;
    uint32_t keep;        /* 0: only the last commit; others that stay, 16 at most */
    uint32_t keep_every;  /* 0: 1000; a commit stays when its step is a multiple */
    bool resume;          /* go on from the store's last commit; none there: begin anew */
    bool resume_at;       /* go on from resume_step's commit, and drop newer ones */
    uint64_t resume_step; /* with resume_at: a step that the store lists */
    const char *identity; /* NULL: none; "name=value" lines a resume must match; copied */
    strata_io_backend io;
    uint32_t allow;                /* STRATA_ALLOW_... bits */
    uint32_t io_depth;             /* 0: 32 requests in flight per drive */
    uint32_t io_deadline_s;        /* 0: 120; a transfer that takes longer: STRATA_E_TIMEOUT */
    uint32_t tile_elems;           /* 0: see strata_default_tile_elems(); multiple of 16,384 */
    const strata_profile *profile; /* NULL: no forecast in the plan; borrowed until created */
    uint32_t trace_events; /* 0: none; kept for strata_engine_trace(), counted in host */
    bool no_overlap;       /* the naive order: no prefetch, no update under compute */
    strata_log_fn log;     /* NULL: silent */
    void *log_user;
    /* NULL: none; see strata/types.h. Called by create, hash and read, and kept for them */
    strata_before_commit_fn before_commit; /* NULL: nothing is kept beside the store */
    void *before_commit_user;
    strata_progress_fn progress;
    void *progress_user;
} strata_engine_desc;

/* The default tile: the smallest power of two from 262,144 to 4,194,304 that gives at most
 * 16,384 tiles. NULL has none. */
STRATA_API uint32_t strata_default_tile_elems(const strata_model_desc *model);

/*
 * Decide everything, take nothing. out is plain data. The refusals are those of create.
 *
 * STRATA_E_NOMEM:   a budget is too small; the message names tier, need and have.
 * STRATA_E_INVALID: the model, its use list or a descriptor's field makes no sense.
 */
STRATA_API STRATA_NODISCARD strata_status strata_engine_plan(strata_plan *out,
                                                             const strata_engine_desc *desc,
                                                             strata_error *error);

/*
 * Plan, take all memory, make the store, write the initial weights.
 *
 * On success *out owns it until strata_engine_destroy(). On failure *out is NULL, nothing is
 * held, nothing is left behind, and error (which may be NULL) says why in one line.
 *
 * STRATA_E_NOMEM, STRATA_E_INVALID: as strata_engine_plan().
 * STRATA_E_IO:          a store directory cannot be used; native is the errno.
 * STRATA_E_STATE:       the store is in use by another process, or holds a run and resume is
 * not set. STRATA_E_UNSUPPORTED: io_uring or O_DIRECT is not to be had and not allowed to lack.
 */
STRATA_API STRATA_NODISCARD strata_status strata_engine_create(strata_engine **out,
                                                               const strata_engine_desc *desc,
                                                               strata_error *error);

/*
 * Waits for what is under way, the caller's streams included, and gives everything back. In a
 * step that was left unfinished, what is queued still runs, on whatever bytes are there.
 * A device, workers and streams that were closed or destroyed before the engine go with it.
 * NULL is fine.
 */
STRATA_API void strata_engine_destroy(strata_engine *engine);

/* The descriptor with every default resolved. What it borrowed for create is NULL. Lent until
 * destroy. NULL: NULL. */
STRATA_API const strata_engine_desc *strata_engine_desc_of(const strata_engine *engine);

/* The plan as carried out. Lent until destroy. NULL: NULL. */
STRATA_API const strata_plan *strata_engine_plan_of(const strata_engine *engine);

/* The first failure, which sticks; while there is none, why the latest call that was refused
 * was. Status OK: neither. Lent until destroy; a refusal until the next one. */
STRATA_API const strata_error *strata_engine_error(strata_engine *engine);

/* The caller's part of the device arena, model.scratch_bytes long, 4096-aligned. Lent until
 * destroy. NULL: NULL. */
STRATA_API void *strata_scratch(strata_engine *engine);

/* Steps that are done, earlier runs' included: where a resumed engine stands. NULL: 0. */
STRATA_API uint64_t strata_engine_step(const strata_engine *engine);

/*
 * Begin the next step; steps count from 1. lr: the learning rate of this step's update. With a
 * dynamic loss scale it waits until the norm of the step before is known, which may change it.
 *
 * STRATA_E_INVALID: lr is not a number, or so large that with the optimizer's parameters it is
 * beyond fp32. STRATA_E_STATE: the step before has not ended.
 */
STRATA_API STRATA_NODISCARD strata_status strata_step_begin(strata_engine *engine, double lr);

/*
 * What the loss's gradient is to be multiplied with in the step that has begun; 1 unless the
 * compute dtype is fp16, whose small gradients would vanish and whose large ones overflow. A
 * dynamic scale begins at 65,536. A step whose gradient is not finite changes nothing but the
 * scale, which is halved; at every 2,000th applied update it doubles. The update divides it
 * out again.
 */
STRATA_API double strata_loss_scale(const strata_engine *engine);

/*
 * The next use on the list, which must be an acquire of this group. Pointers are lent until the
 * group's release. Blocks while the device has no room for it; on a CUDA device, also until its
 * bytes are there. Where it fails, out has no pointers.
 *
 * STRATA_E_STATE, here and in the calls below: no step has begun, or the use list has something
 * else next; the story says what. STRATA_E_INVALID: out or the stream is NULL, the stream is of
 * another device, or the 17th that this engine is used with.
 */
STRATA_API STRATA_NODISCARD strata_status strata_acquire(strata_engine *engine, uint32_t group,
                                                         strata_stream *stream,
                                                         strata_view *out);

/* Ends the use; counts from the work queued on the stream so far. */
STRATA_API STRATA_NODISCARD strata_status strata_release(strata_engine *engine, uint32_t group,
                                                         strata_stream *stream);

/* Where a tensor begins in the group's flat order, in elements; UINT64_MAX: there is none such.
 * Thread: any. */
STRATA_API uint64_t strata_tensor_offset(const strata_engine *engine, uint32_t group,
                                         uint32_t tensor);

/*
 * Put an activation block of model.stash_bytes away: queued on the stream, src is free again
 * once the stream got there. unstash brings it back to dst. Block ids are those of the use
 * list.
 */
STRATA_API STRATA_NODISCARD strata_status strata_stash(strata_engine *engine, uint32_t block,
                                                       const void *src, strata_stream *stream);
STRATA_API STRATA_NODISCARD strata_status strata_unstash(strata_engine *engine, uint32_t block,
                                                         void *dst, strata_stream *stream);

/* The use list is done. Returns at once; norm and update become known later. STRATA_E_STATE: no
 * step has begun, or the list has something left. */
STRATA_API STRATA_NODISCARD strata_status strata_step_end(strata_engine *engine);

/*
 * Begin an evaluation, and end it: in between the next use is that of model.eval_uses. The
 * weights are those after the step that has ended, and views have no gradient. Neither call
 * waits for the device. The device's room is the evaluation's: what was there for the next step
 * is brought again afterwards.
 *
 * STRATA_E_STATE: a step or an evaluation has not ended; the model has no eval_uses; to end: no
 * evaluation has begun, or its list has something left.
 */
STRATA_API STRATA_NODISCARD strata_status strata_eval_begin(strata_engine *engine);
STRATA_API STRATA_NODISCARD strata_status strata_eval_end(strata_engine *engine);

/*
 * Wait until the norm of a step is known. With step 0: until every update of every step is
 * done; that is for between steps. out may be NULL.
 *
 * STRATA_E_NUMERIC: the norm is not finite, and no smaller loss scale is left to try; the
 * message names step, group, tensor. STRATA_E_INVALID: a step that has not ended, or whose norm
 * is not kept: those of the last two steps of this run are.
 */
STRATA_API STRATA_NODISCARD strata_status strata_wait(strata_engine *engine, uint64_t step,
                                                      strata_step_result *out);

/*
 * Make the latest step durable now, whatever commit_every says; waits for it. Between steps.
 * STRATA_E_STATE: the engine is not durable.
 */
STRATA_API STRATA_NODISCARD strata_status strata_commit(strata_engine *engine);

typedef struct strata_stats {
    uint64_t steps;              /* steps ended */
    uint64_t updates;            /* updates applied to every tile */
    uint64_t device_peak_bytes;  /* never above the device budget */
    uint64_t host_peak_bytes;    /* never above the host budget */
    uint64_t nvme_bytes;         /* of the store's files */
    uint64_t tiles_ahead;        /* updates computed ahead of the norm, tile by tile */
    uint64_t tiles_redone;       /* those of them that the norm undid */
    uint64_t acquire_blocked_ns; /* the caller's thread, waiting for room */
    uint64_t stall_ns[STRATA_STALL_COUNT]; /* the device stood still between uses, by cause */
    strata_lane_stats lanes[STRATA_LANE_COUNT];
    const char *io_name; /* "uring", "threads"; NULL without a store */
    bool io_direct;      /* O_DIRECT */
    bool io_registered;  /* the host arena is registered with io_uring */
    bool huge_pages;     /* all arenas lie on huge pages */
    bool pinned;         /* copies go at full speed: true but with STRATA_ALLOW_UNPINNED */
} strata_stats;

/*
 * Write what the lanes did as a Chrome trace (chrome://tracing, ui.perfetto.dev): the first
 * trace_events spans of this run, one row for each lane and drive.
 *
 * A trace that is there already is replaced once the new one is whole.
 *
 * STRATA_E_STATE: trace_events was 0. STRATA_E_INVALID: path is NULL, or that of a store's
 * file, or of one that is no trace: it is left alone. STRATA_E_IO: the file. None is the
 * engine's failure.
 */
STRATA_API STRATA_NODISCARD strata_status strata_engine_trace(strata_engine *engine,
                                                              const char *path,
                                                              strata_error *error);

/* Since create. */
STRATA_API void strata_engine_stats(strata_engine *engine, strata_stats *out);

/*
 * XXH3-128 over fp32 values, tensor by tensor in declaration order, of each the master weights,
 * then m, then v, real elements only, after all pending updates; big-endian ("canonical")
 * bytes. The same for every tile size, tier, budget and thread count. Frozen groups, which have
 * none of these, are left out. Between steps only (STRATA_E_STATE).
 */
STRATA_API STRATA_NODISCARD strata_status strata_engine_hash(strata_engine *engine,
                                                             uint8_t out[16]);

typedef enum strata_record { STRATA_MASTER = 0, STRATA_MOMENT1, STRATA_MOMENT2 } strata_record;

/* Copy elements of a tensor's master, m or v out, after all pending updates. Between steps
 * only. STRATA_E_INVALID: there are no such elements, or the group is frozen; the story says
 * what there is. */
STRATA_API STRATA_NODISCARD strata_status strata_engine_read(strata_engine *engine,
                                                             uint32_t group, uint32_t tensor,
                                                             strata_record record,
                                                             uint64_t first, uint64_t count,
                                                             float *out);

/*
 * Replace elements of a tensor's master, m or v, after all pending updates, and with master
 * weights the parameters that are computed with. Between steps only. The same values as
 * strata_engine_read() gives change no bit. values: fp32; moments of another dtype are rounded
 * to it. What it writes to NVMe goes where no commit needs the bytes: a commit that is made
 * keeps what it has, and the next step's has what was written.
 *
 * STRATA_E_INVALID, and nothing has changed: as strata_engine_read(); a value is not finite in
 * the record's type, or a second moment below zero.
 */
STRATA_API STRATA_NODISCARD strata_status strata_engine_write(strata_engine *engine,
                                                              uint32_t group, uint32_t tensor,
                                                              strata_record record,
                                                              uint64_t first, uint64_t count,
                                                              const float *values);

#ifdef __cplusplus
}
#endif

#endif
