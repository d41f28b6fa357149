#ifndef STRATA_TRAIN_TRAINER_H
#define STRATA_TRAIN_TRAINER_H

/*
 * A training run, step by step: options in, numbers out. It opens everything in an order in
 * which what costs nothing is refused first, and it prints nothing.
 *
 *     strata_trainer_create(&trainer, &options, NULL, &error);      config, data, plan
 *     strata_trainer_start(trainer, log, user, &error);       memory, store, weights
 *     for (step = strata_trainer_steps_done(trainer) + 1; ...; step++)
 *         strata_trainer_step(trainer, step == last, &report, &error);
 *     strata_trainer_commit(trainer, &error);
 *     strata_trainer_destroy(trainer);
 *
 * A run that goes on needs nothing but the count of steps done: the position in the data and
 * the learning rate follow from it. What must not have changed meanwhile goes into the store as
 * the run's identity, and a store with another one is refused.
 *
 * Thread: one per object.
 */

#include "train/data.h"
#include "train/decoder.h"
#include "train/options.h"

struct trainer;

/* What the longest identity takes: seven lines of a name and two numbers. */
#define TRAINER_IDENTITY_BYTES 512

/* What one step came to. */
struct trainer_step {
    uint64_t step; /* from 1 */
    double loss;
    double grad_norm; /* not finite when the step was skipped */
    double loss_scale;
    uint64_t updates; /* applied, this step's and earlier runs' included */
    bool skipped;     /* its gradient overflowed: it changed the loss scale and nothing else */
    double lr;
    double seconds;
    double exposed_s; /* seconds in which the device did not compute */
    double tokens_per_s;
    double stall_s[STRATA_STALL_COUNT];         /* why the device stood still between uses  */
    strata_lane_stats lanes[STRATA_LANE_COUNT]; /* of this step alone         */
    strata_stats total;                         /* since the start            */
};

/* Host bytes that a trainer takes besides its engine: the model's object, buffers of tokens, a
 * line of the log. batch: of this process. */
uint64_t strata_trainer_host_bytes(const struct decoder *decoder, uint32_t seq, uint32_t batch);

/*
 * Read the model's config, open the data, make the plan. Takes the memory of the objects
 * themselves and starts the workers; no tier is touched. options is borrowed until destroy.
 * *out is owned.
 *
 * progress is called for what takes long, here and in start, commit and hash; NULL: never.
 * Copied.
 *
 * STRATA_E_INVALID: what a file says cannot be meant, or does not go with the options.
 * The other refusals are those of strata_engine_plan(), the config reader and the data reader.
 */
strata_status strata_trainer_create(struct trainer **out, const struct options *options,
                                    const struct progress_call *progress, strata_error *error);

/*
 * What a resume must find unchanged, as "name=value" lines: the model (its config, its slices,
 * the compute dtype), the data (size and hash), batch, seq, seed, and, unless the rate is
 * constant, the count of steps. buffer has TRAINER_IDENTITY_BYTES. Reads the whole data.
 */
strata_status strata_trainer_identity(struct trainer *trainer, char *buffer,
                                      strata_error *error);

/*
 * Take all memory; make the store and write the initial weights, or go on from a commit. log:
 * the engine's, or NULL.
 *
 * STRATA_E_STATE, STRATA_E_INVALID: a store with a commit, and --resume was not given; or it is
 * that of another run. The refusals are those of strata_engine_create() and
 * strata_data_identify().
 */
strata_status strata_trainer_start(struct trainer *trainer, strata_log_fn log, void *log_user,
                                   strata_error *error);

/* Before start: see strata_engine_desc.before_commit. */
void strata_trainer_before_commit(struct trainer *trainer, strata_before_commit_fn call,
                                  void *user);

/*
 * Train one step. `last` waits for every update as well, so that the last step pays for its
 * own. Allocates nothing.
 *
 * STRATA_E_NUMERIC: a norm or a loss that is not finite.
 */
strata_status strata_trainer_step(struct trainer *trainer, bool last, struct trainer_step *out,
                                  strata_error *error);

/* Wait for every update, and make the latest step durable where commits are made at all. */
strata_status strata_trainer_commit(struct trainer *trainer, strata_error *error);

/* The engine's state hash; after start, between steps. */
strata_status strata_trainer_hash(struct trainer *trainer, uint8_t out[16],
                                  strata_error *error);

/* Write the trace, if --trace was given; between steps. */
strata_status strata_trainer_trace(struct trainer *trainer, strata_error *error);

/* Waits for what is under way and gives everything back. NULL is fine. */
void strata_trainer_destroy(struct trainer *trainer);

/* All lent until destroy. */
const struct options *strata_trainer_options(const struct trainer *trainer);
const struct decoder_config *strata_trainer_config(const struct trainer *trainer);
const struct data *strata_trainer_data(const struct trainer *trainer);
const strata_plan *strata_trainer_plan(const struct trainer *trainer);
const char *strata_trainer_device_name(const struct trainer *trainer);
void strata_trainer_device_facts(const struct trainer *trainer, strata_device_facts *out);
uint32_t strata_trainer_thread_count(const struct trainer *trainer);
/* Earlier runs' included: where a resumed run stands. */
uint64_t strata_trainer_steps_done(const struct trainer *trainer);
/* After start. */
void strata_trainer_stats(struct trainer *trainer, strata_stats *out);

#endif
