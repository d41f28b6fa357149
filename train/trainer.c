#define _GNU_SOURCE
/*
 * A training run. See trainer.h.
 *
 * A step's loss is read after the stream has been synchronised, which is also what makes the
 * token buffers free for the next step. The updates of step t go on while step t + 1 computes;
 * only the norm is waited for, because the log line carries it.
 *
 * The time of a step runs from the reading of its tokens to the moment its loss and norm are
 * known. Exposed time is the part of it in which the compute lane was idle. The lane's counter
 * may be a moment behind the clock, so a small negative remainder counts as zero.
 *
 * The model's identity is a hash of a text with all of the config's numbers, not of the struct:
 * that has padding, and a field more would make every older store a stranger.
 *
 * Thread: one per object, the engine's caller.
 */

#include "train/trainer.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "base/error.h"
#include "train/log.h"

/* Spans kept for --trace: some 16 steps of the demo, in 4 MiB. */
/* Cores that a GPU's launches and the pager have to themselves: a worker there would make them
 * wait. */
#define LAUNCHING_CORES 2u

#define TRACE_EVENTS 65536u

struct trainer {
    const struct options *options;
    struct progress_call progress;
    struct decoder_config config;
    struct data *data;
    strata_workers *workers;
    struct decoder *decoder;
    struct decoder_init init;
    strata_device *device;
    bool on_gpu;
    strata_stream *stream;
    strata_engine_desc desc;
    strata_plan plan;
    strata_profile profile; /* of --box */
    strata_engine *engine;
    char identity[TRAINER_IDENTITY_BYTES];
    uint64_t steps_done; /* earlier runs' included */
    strata_stats before; /* at the end of the latest step */
};

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static struct data_desc describe_data(const struct trainer *trainer)
{
    return (struct data_desc){.path = trainer->options->data,
                              .seq = trainer->options->seq,
                              .batch = trainer->options->batch,
                              .vocab_size = trainer->config.vocab_size,
                              .progress = trainer->progress};
}

/* Asked for or not, a GPU that answers with an error is a failure; one that is not there is so
 * only when it was asked for. */
static strata_status open_device(struct trainer *trainer, strata_error *error)
{
    enum device_choice choice = trainer->options->device;
    strata_error why = {.status = STRATA_OK};
    if (choice != DEVICE_HOST) {
        strata_status status = strata_device_open_cuda(&trainer->device, 0, &why);
        trainer->on_gpu = status == STRATA_OK;
        if (trainer->on_gpu)
            return STRATA_OK;
        if (choice == DEVICE_CUDA || status != STRATA_E_UNSUPPORTED)
            return strata_fail(error, status, why.native, "%s%s",
                               choice == DEVICE_CUDA ? "--device cuda: " : "", why.message);
    }
    return strata_device_open_host(&trainer->device, error);
}

static strata_status open_decoder(struct trainer *trainer, strata_error *error)
{
    const struct options *options = trainer->options;
    struct decoder_shape shape = {.seq = options->seq,
                                  .batch = options->batch,
                                  .micro_batch = options->micro_batch,
                                  .vocab_slices = options->vocab_slices,
                                  .compute_dtype = options->compute_dtype,
                                  .cuda = trainer->on_gpu};
    STRATA_TRY(strata_decoder_create(&trainer->decoder, &trainer->config, &shape,
                                     trainer->workers, error));
    trainer->init = (struct decoder_init){.decoder = trainer->decoder, .seed = options->seed};
    return STRATA_OK;
}

static strata_status open_box(struct trainer *trainer, strata_error *error)
{
    if (trainer->options->box == NULL)
        return STRATA_OK;
    return strata_profile_read_file(&trainer->profile, trainer->options->box, error);
}

uint64_t strata_trainer_host_bytes(const struct decoder *decoder, uint32_t seq, uint32_t batch)
{
    struct data_desc data = {.seq = seq, .batch = batch};
    return strata_decoder_host_bytes(decoder) + strata_data_host_bytes(&data) + LOG_LINE_BYTES;
}

static void describe_engine(struct trainer *trainer)
{
    const struct options *options = trainer->options;
    trainer->desc = (strata_engine_desc){
        .device = trainer->device,
        .workers = trainer->workers,
        .model = strata_decoder_model(trainer->decoder),
        .compute_dtype = options->compute_dtype,
        .loss_scale = options->loss_scale,
        .states_dtype = options->states_dtype,
        .seed = options->seed,
        .adam = &options->adam,
        .init = strata_decoder_init_weights,
        .init_user = &trainer->init,
        .clip = (float)options->clip,
        .clip_mode = options->clip_mode,
        .device_bytes = options->device_bytes,
        .host_bytes = options->host_bytes,
        .nvme_bytes = options->nvme_bytes,
        .reserved_host_bytes =
            strata_trainer_host_bytes(trainer->decoder, options->seq, options->batch),
        .params = options->params,
        .grads = options->grads,
        .states = options->states,
        .stash = options->stash,
        .store_dirs = options->store_dir_count > 0 ? options->store_dirs : NULL,
        .store_dir_count = options->store_dir_count,
        .durability = options->durability,
        .commit_every = options->commit_every,
        .keep = options->keep,
        .keep_every = options->keep_every,
        .io_deadline_s = options->deadline_s,
        .resume = options->resume,
        .resume_at = options->at != OPTIONS_LAST_COMMIT,
        .resume_step = options->at,
        .io = options->io,
        .allow = options->allow,
        .tile_elems = options->tile_elems,
        .profile = options->box != NULL ? &trainer->profile : NULL,
        .trace_events = options->trace != NULL ? TRACE_EVENTS : 0,
        .no_overlap = options->no_overlap,
    };
}

static strata_status open_all(struct trainer *trainer, strata_error *error)
{
    STRATA_TRY(strata_decoder_config_read(&trainer->config, trainer->options->model, error));
    struct data_desc data = describe_data(trainer);
    STRATA_TRY(strata_data_open(&trainer->data, &data, error));
    STRATA_TRY(open_device(trainer, error));
    strata_device_facts facts;
    strata_device_facts_of(trainer->device, &facts);
    bool gpu = strcmp(strata_device_name(trainer->device), "cuda") == 0;
    strata_workers_desc workers = {.thread_count = trainer->options->threads,
                                   .near_cpus =
                                       facts.near_cpus[0] != '\0' ? facts.near_cpus : NULL,
                                   .spared = gpu ? LAUNCHING_CORES : 0};
    STRATA_TRY(strata_workers_create(&trainer->workers, &workers, error));
    STRATA_TRY(open_decoder(trainer, error));
    STRATA_TRY(open_box(trainer, error));
    describe_engine(trainer);
    return strata_engine_plan(&trainer->plan, &trainer->desc, error);
}

strata_status strata_trainer_create(struct trainer **out, const struct options *options,
                                    const struct progress_call *progress, strata_error *error)
{
    *out = NULL;
    struct trainer *trainer = calloc(1, sizeof *trainer);
    if (trainer == NULL)
        return strata_fail(error, STRATA_E_NOMEM, ENOMEM, "memory for the trainer: none left");
    trainer->options = options;
    if (progress != NULL)
        trainer->progress = *progress;
    strata_status status = open_all(trainer, error);
    if (status != STRATA_OK) {
        strata_trainer_destroy(trainer);
        return status;
    }
    *out = trainer;
    return STRATA_OK;
}

/* 64-bit FNV-1a. */
static uint64_t hash_text(const char *text)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (; *text != '\0'; text++)
        hash = (hash ^ (unsigned char)*text) * 0x100000001b3u;
    return hash;
}

/* The switches beyond those of the first Llamas. Nothing where all are off: what such a model
 * is called has not changed since stores were written that knew no others. */
static void append_switches(char *text, size_t bytes, const struct decoder_config *config)
{
    const struct decoder_rope *rope = &config->rope;
    bool yarn = rope->type == DECODER_ROPE_YARN;
    if (!config->qkv_bias && !config->qk_norm && config->window == 0 && rope->turned == 0 &&
        config->activation == OP_SILU && !yarn)
        return;
    size_t used = strlen(text);
    snprintf(text + used, bytes - used,
             " bias %d heads' norms %d window %" PRIu64 " from %" PRIu64
             " activation %d turned %" PRIu64 " yarn %.17g %.17g %.17g %d",
             config->qkv_bias, config->qk_norm, config->window, config->full_layers,
             config->activation, rope->turned, rope->beta_fast, rope->beta_slow,
             rope->attention_factor, rope->whole_pairs);
}

/* Everything that makes the model what it is. The slices show in the count of groups. */
static uint64_t hash_model(const struct trainer *trainer)
{
    const struct decoder_config *config = &trainer->config;
    const struct decoder_rope *rope = &config->rope;
    char text[1024];
    snprintf(text, sizeof text,
             "llama vocab %" PRIu64 " hidden %" PRIu64 " layers %" PRIu64 " heads %" PRIu64
             " kv %" PRIu64 " head_dim %" PRIu64 " ffn %" PRIu64
             " eps %.17g theta %.17g range %.17g tied %d rope %d %.17g %.17g %.17g %.17g "
             "groups %u dtype %s",
             config->vocab_size, config->hidden_size, config->layer_count, config->head_count,
             config->kv_head_count, config->head_dim, config->ffn_size, config->rms_eps,
             rope->theta, config->initializer_range, config->tied, rope->type, rope->factor,
             rope->low_freq_factor, rope->high_freq_factor, rope->original_positions,
             strata_decoder_model(trainer->decoder)->group_count,
             strata_dtype_name(trainer->options->compute_dtype));
    append_switches(text, sizeof text, config);
    return hash_text(text);
}

strata_status strata_trainer_identity(struct trainer *trainer, char *buffer,
                                      strata_error *error)
{
    const struct options *options = trainer->options;
    struct data_identity data;
    STRATA_TRY(strata_data_identify(trainer->data, &data, error));
    /* A constant rate does not know where the run ends. */
    char steps[24] = "any";
    if (options->rate.schedule != RATE_CONSTANT)
        snprintf(steps, sizeof steps, "%" PRIu64, options->rate.steps);
    snprintf(buffer, TRAINER_IDENTITY_BYTES,
             "model=%016" PRIx64 "\ndata=%" PRIu64 " bytes, %016" PRIx64
             "\nbatch=%u\nseq=%u\nseed=%" PRIu64 "\nstates=%s\nsteps=%s\n",
             hash_model(trainer), data.bytes, data.hash, options->batch, options->seq,
             options->seed, strata_dtype_name(options->states_dtype), steps);
    return STRATA_OK;
}

void strata_trainer_before_commit(struct trainer *trainer, strata_before_commit_fn call,
                                  void *user)
{
    trainer->desc.before_commit = call;
    trainer->desc.before_commit_user = user;
}

strata_status strata_trainer_start(struct trainer *trainer, strata_log_fn log, void *log_user,
                                   strata_error *error)
{
    trainer->desc.log = log;
    trainer->desc.progress = trainer->progress.fn;
    trainer->desc.progress_user = trainer->progress.user;
    trainer->desc.log_user = log_user;
    if (trainer->options->durability != STRATA_SCRATCH) {
        STRATA_TRY(strata_trainer_identity(trainer, trainer->identity, error));
        trainer->desc.identity = trainer->identity;
    }
    STRATA_TRY(strata_stream_create(&trainer->stream, trainer->device, "compute", error));
    STRATA_TRY(
        strata_decoder_rehearse(trainer->decoder, trainer->device, trainer->stream, error));
    const char *lack = strata_decoder_lack(trainer->decoder);
    if (lack != NULL && log != NULL)
        log(log_user, lack);
    STRATA_TRY(strata_engine_create(&trainer->engine, &trainer->desc, error));
    trainer->plan = *strata_engine_plan_of(trainer->engine);
    trainer->steps_done = strata_engine_step(trainer->engine);
    strata_engine_stats(trainer->engine, &trainer->before);
    return STRATA_OK;
}

/* Hand an engine's failure to the caller, with the engine's story. */
static strata_status engine_failed(struct trainer *trainer, strata_status status,
                                   strata_error *error)
{
    const strata_error *story = strata_engine_error(trainer->engine);
    if (story->status != STRATA_OK)
        return strata_fail(error, story->status, story->native, "%s", story->message);
    return strata_fail(error, status, 0, "step %llu: %s",
                       (unsigned long long)trainer->steps_done + 1, strata_status_name(status));
}

/* Forward, backward and update of one step; returns when its loss and norm are known. */
static strata_status run_step(struct trainer *trainer, bool last, double lr,
                              strata_step_result *out, strata_error *error)
{
    const uint32_t *inputs;
    const uint32_t *targets;
    STRATA_TRY(strata_data_batch(trainer->data, trainer->steps_done, &inputs, &targets, error));
    strata_status status = strata_step_begin(trainer->engine, lr);
    if (status == STRATA_OK)
        status = strata_decoder_step(trainer->decoder, trainer->engine, trainer->stream, inputs,
                                     targets);
    if (status == STRATA_OK)
        status = strata_step_end(trainer->engine);
    /* Whatever happened, the stream may still read the tokens. */
    strata_stream_sync(trainer->stream);
    if (status == STRATA_OK)
        status = strata_wait(trainer->engine, trainer->steps_done + 1, out);
    if (status == STRATA_OK && last) {
        strata_step_result all;
        status = strata_wait(trainer->engine, 0, &all);
    }
    return status == STRATA_OK ? STRATA_OK : engine_failed(trainer, status, error);
}

/* What the lanes did since the previous step ended. */
static void fill_lanes(struct trainer *trainer, struct trainer_step *out)
{
    strata_engine_stats(trainer->engine, &out->total);
    for (int lane = 0; lane < STRATA_LANE_COUNT; lane++) {
        const strata_lane_stats *now = &out->total.lanes[lane];
        const strata_lane_stats *then = &trainer->before.lanes[lane];
        out->lanes[lane] = (strata_lane_stats){.bytes = now->bytes - then->bytes,
                                               .busy_ns = now->busy_ns - then->busy_ns,
                                               .ops = now->ops - then->ops};
    }
    for (int stall = 0; stall < STRATA_STALL_COUNT; stall++)
        out->stall_s[stall] =
            1e-9 * (double)(out->total.stall_ns[stall] - trainer->before.stall_ns[stall]);
    trainer->before = out->total;
}

strata_status strata_trainer_step(struct trainer *trainer, bool last, struct trainer_step *out,
                                  strata_error *error)
{
    const struct options *options = trainer->options;
    const uint64_t step = trainer->steps_done + 1;
    double lr = strata_rate_at(&options->rate, step);
    strata_step_result result = {0};
    double start = now_s();
    STRATA_TRY(run_step(trainer, last, lr, &result, error));
    double seconds = now_s() - start;
    double loss = strata_decoder_loss(trainer->decoder, trainer->engine, trainer->stream);
    if (!isfinite(loss) || !(isfinite(result.grad_norm) || result.skipped))
        return strata_fail(
            error, STRATA_E_NUMERIC, 0,
            "step %llu: its loss is %g and its gradient norm %g: try a smaller --lr",
            (unsigned long long)step, loss, result.grad_norm);
    trainer->steps_done = step;
    *out =
        (struct trainer_step){.step = step,
                              .loss = loss,
                              .grad_norm = result.grad_norm,
                              .loss_scale = result.loss_scale,
                              .updates = result.updates,
                              .skipped = result.skipped,
                              .lr = lr,
                              .seconds = seconds,
                              .tokens_per_s = (double)options->batch * options->seq / seconds};
    fill_lanes(trainer, out);
    double exposed = seconds - 1e-9 * (double)out->lanes[STRATA_LANE_COMPUTE].busy_ns;
    out->exposed_s = exposed > 0 ? exposed : 0;
    return STRATA_OK;
}

strata_status strata_trainer_commit(struct trainer *trainer, strata_error *error)
{
    if (trainer->options->durability == STRATA_SCRATCH)
        return STRATA_OK;
    strata_status status = strata_commit(trainer->engine);
    return status == STRATA_OK ? STRATA_OK : engine_failed(trainer, status, error);
}

strata_status strata_trainer_hash(struct trainer *trainer, uint8_t out[16], strata_error *error)
{
    strata_status status = strata_engine_hash(trainer->engine, out);
    return status == STRATA_OK ? STRATA_OK : engine_failed(trainer, status, error);
}

strata_status strata_trainer_trace(struct trainer *trainer, strata_error *error)
{
    if (trainer->options->trace == NULL)
        return STRATA_OK;
    return strata_engine_trace(trainer->engine, trainer->options->trace, error);
}

void strata_trainer_destroy(struct trainer *trainer)
{
    if (trainer == NULL)
        return;
    if (trainer->stream != NULL)
        strata_stream_sync(trainer->stream);
    strata_engine_destroy(trainer->engine);
    strata_stream_destroy(trainer->stream);
    strata_device_close(trainer->device);
    strata_decoder_destroy(trainer->decoder);
    strata_workers_destroy(trainer->workers);
    strata_data_close(trainer->data);
    free(trainer);
}

const struct options *strata_trainer_options(const struct trainer *trainer)
{
    return trainer->options;
}

const struct decoder_config *strata_trainer_config(const struct trainer *trainer)
{
    return &trainer->config;
}

const struct data *strata_trainer_data(const struct trainer *trainer)
{
    return trainer->data;
}

const strata_plan *strata_trainer_plan(const struct trainer *trainer)
{
    return &trainer->plan;
}

const char *strata_trainer_device_name(const struct trainer *trainer)
{
    return strata_device_name(trainer->device);
}

void strata_trainer_device_facts(const struct trainer *trainer, strata_device_facts *out)
{
    strata_device_facts_of(trainer->device, out);
}

uint32_t strata_trainer_thread_count(const struct trainer *trainer)
{
    return strata_workers_count(trainer->workers);
}

uint64_t strata_trainer_steps_done(const struct trainer *trainer)
{
    return trainer->steps_done;
}

void strata_trainer_stats(struct trainer *trainer, strata_stats *out)
{
    strata_engine_stats(trainer->engine, out);
}
