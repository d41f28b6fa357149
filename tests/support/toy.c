#include "tests/support/toy.h"

#include "base/hash.h"
#include "base/random.h"

#include "tests/support/kernel.h"

#include <stdio.h>
#include <string.h>

/* Odd sizes: less than a block, several blocks, several tiles. Group 0 is used at both ends. */
static const uint64_t sizes[TOY_GROUPS][TOY_TENSORS] = {
    {50000, 7}, {16384, 1}, {100, 3}, {40000, 33}, {90001, 16}, {20000, 20000}, {5, 70000},
};

static void add_use(struct toy *toy, strata_use_kind kind, uint32_t index, bool grad)
{
    toy->uses[toy->model.use_count++] =
        (strata_use){.kind = kind, .index = index, .grad = grad};
}

static void add_pair(struct toy *toy, uint32_t group, bool grad)
{
    bool trained = !toy->groups[group].frozen;
    add_use(toy, STRATA_USE_ACQUIRE, group, grad && trained);
    add_use(toy, STRATA_USE_RELEASE, group, grad && trained);
}

static void make_uses(struct toy *toy, uint32_t groups)
{
    for (uint32_t g = 0; g < groups; g++) {
        add_use(toy, STRATA_USE_STASH, g, false);
        add_pair(toy, g, false);
    }
    add_pair(toy, 0, false);
    add_pair(toy, 0, true);
    for (uint32_t g = groups; g-- > 0;) {
        add_use(toy, STRATA_USE_UNSTASH, g, false);
        add_pair(toy, g, true);
    }
}

/* Every second group's activation is put away, and comes back in the end. */
static void make_eval_uses(struct toy *toy, uint32_t groups)
{
    strata_use *use = toy->eval_uses;
    for (uint32_t g = 0; g < groups; g++) {
        if (g % 2 == 0)
            *use++ = (strata_use){.kind = STRATA_USE_STASH, .index = g};
        *use++ = (strata_use){.kind = STRATA_USE_ACQUIRE, .index = g};
        *use++ = (strata_use){.kind = STRATA_USE_RELEASE, .index = g};
    }
    for (uint32_t g = groups; g-- > 0;)
        if (g % 2 == 0)
            *use++ = (strata_use){.kind = STRATA_USE_UNSTASH, .index = g};
    toy->model.eval_uses = toy->eval_uses;
    toy->model.eval_use_count = (uint32_t)(use - toy->eval_uses);
}

static uint64_t size(const struct toy_run *run, uint32_t group, uint32_t tensor)
{
    return sizes[group][tensor] * (run->scale != 0 ? run->scale : 1);
}

static void make(struct toy *toy, const struct toy_run *run)
{
    uint32_t groups = run->groups != 0 ? run->groups : TOY_GROUPS;
    memset(toy, 0, sizeof *toy);
    for (uint32_t g = 0; g < groups; g++) {
        for (uint32_t t = 0; t < TOY_TENSORS; t++) {
            snprintf(toy->names[g][t], sizeof toy->names[g][t], "g%u.t%u", g, t);
            toy->tensors[g][t] = (strata_tensor_desc){.name = toy->names[g][t],
                                                      .shape = {size(run, g, t)},
                                                      .rank = 1,
                                                      .no_decay = t == 1};
        }
        toy->groups[g] = (strata_group_desc){.name = toy->names[g][0],
                                             .tensors = toy->tensors[g],
                                             .tensor_count = TOY_TENSORS,
                                             .frozen = run->frozen >> g & 1};
    }
    toy->model.groups = toy->groups;
    toy->model.group_count = groups;
    toy->model.uses = toy->uses;
    toy->model.scratch_bytes = TOY_ACTIVATION * sizeof(float);
    toy->model.stash_bytes = TOY_ACTIVATION * sizeof(float);
    make_uses(toy, groups);
    if (run->evaluate)
        make_eval_uses(toy, groups);
    toy->adam = strata_adam_defaults();
    if (run->still != 0)
        toy->adam.weight_decay = 0;
}

void strata_toy_make(struct toy *toy)
{
    make(toy, &(struct toy_run){0});
}

struct toy_run strata_toy_homes(strata_tier params, strata_tier grads, strata_tier states)
{
    return (struct toy_run){
        .params = params, .grads = grads, .states = states, .stash = STRATA_HOST};
}

struct toy_run strata_toy_durable(strata_tier params, strata_tier grads, strata_tier states,
                                  const char *dir)
{
    struct toy_run run = strata_toy_homes(params, grads, states);
    run.dir = dir;
    run.durability = STRATA_DURABLE_PROCESS;
    run.commit_every = 1;
    return run;
}

static void init(void *user, uint32_t group, uint32_t tensor, uint64_t first, uint64_t count,
                 float *out)
{
    (void)user;
    strata_random_normal(42, group * TOY_TENSORS + tensor, first, count, 0.5f, out);
}

struct compute_args {
    const void *param;
    float *grad;
    float *activation;
    uint64_t elems;
    float poison;
    float loss_scale;
    strata_dtype dtype;
    uint32_t group;
    struct toy_result *frozen; /* NULL: it is trained */
};

static float value(const struct compute_args *args, uint64_t i)
{
    float out;
    strata_convert(STRATA_ISA_SCALAR, &out, STRATA_FP32,
                   (const uint8_t *)args->param + i * strata_dtype_bytes(args->dtype),
                   args->dtype, 1);
    return out;
}

/* Are a frozen group's bytes its initial weights, rounded? */
static void check_frozen(const struct compute_args *args, const uint64_t *lengths)
{
    uint64_t bytes = strata_dtype_bytes(args->dtype);
    const uint8_t *param = args->param;
    bool right = true;
    for (uint32_t t = 0; t < TOY_TENSORS; t++) {
        for (uint64_t i = 0, count; i < lengths[t]; i += count) {
            float initial[512];
            float rounded[512];
            count = lengths[t] - i < 512 ? lengths[t] - i : 512;
            init(NULL, args->group, t, i, count, initial);
            strata_convert(STRATA_ISA_BEST, rounded, args->dtype, initial, STRATA_FP32, count);
            right = right && memcmp(param, rounded, count * bytes) == 0;
            param += count * bytes;
        }
    }
    args->frozen->frozen_uses++;
    args->frozen->frozen_wrong += !right;
}

/* The backward of a group that has no gradient leaves the activation as it is. */
static void look(void *user)
{
    const struct compute_args *args = user;
    if (args->frozen != NULL)
        check_frozen(args, sizes[args->group]);
}

static void forward(void *user)
{
    const struct compute_args *args = user;
    look(user);
    for (uint64_t i = 0; i < TOY_ACTIVATION; i++)
        args->activation[i] = 0.5f * args->activation[i] + value(args, i * 131 % args->elems);
}

static void backward(void *user)
{
    const struct compute_args *args = user;
    for (uint64_t i = 0; i < args->elems; i++)
        args->grad[i] = 0.5f * args->grad[i] +
                        args->loss_scale * (0.01f * value(args, i) +
                                            0.001f * args->activation[i % TOY_ACTIVATION]);
    args->grad[args->elems / 2] += args->poison;
}

/* What an evaluation computes of a group, and of an activation that went and came. */
struct eval_args {
    const void *param;
    float *activation;
    uint64_t bytes;
    uint64_t mark;
    struct toy_result *result;
};

static void note_param(void *user)
{
    const struct eval_args *args = user;
    args->result->eval_hash =
        strata_hash(args->param, args->bytes, args->result->eval_hash + args->mark).low;
}

static void mark_block(void *user)
{
    const struct eval_args *args = user;
    for (uint64_t i = 0; i < TOY_ACTIVATION; i++)
        args->activation[i] = (float)(args->mark * TOY_ACTIVATION + i);
}

static void check_block(void *user)
{
    const struct eval_args *args = user;
    bool right = true;
    for (uint64_t i = 0; i < TOY_ACTIVATION; i++)
        right = right && args->activation[i] == (float)(args->mark * TOY_ACTIVATION + i);
    args->result->eval_wrong += !right;
}

struct walk {
    strata_engine *engine;
    strata_stream *stream;
    const struct toy *toy;
    const struct toy_run *run;
    struct toy_result *result;
    uint64_t step;
    bool backward; /* a block has been taken back in this step */
};

static strata_status walk_use(struct walk *walk, const strata_use *use)
{
    float *activation = strata_scratch(walk->engine);
    strata_view view;
    strata_status status = STRATA_OK;
    switch (use->kind) {
    case STRATA_USE_STASH:
        return strata_stash(walk->engine, use->index, activation, walk->stream);
    case STRATA_USE_UNSTASH:
        walk->backward = true;
        return strata_unstash(walk->engine, use->index, activation, walk->stream);
    case STRATA_USE_ACQUIRE:
        status = strata_acquire(walk->engine, use->index, walk->stream, &view);
        break;
    default:
        return strata_release(walk->engine, use->index, walk->stream);
    }
    if (status != STRATA_OK)
        return status;
    uint64_t poisoned_end =
        2 + (walk->run->poisoned_steps != 0 ? walk->run->poisoned_steps : 1);
    bool poisoned = walk->step >= 2 && walk->step < poisoned_end && use->index == 3;
    struct compute_args args = {
        .param = view.param,
        .grad = view.grad,
        .activation = activation,
        .elems = size(walk->run, use->index, 0) + size(walk->run, use->index, 1),
        .poison = poisoned ? walk->run->poison : 0,
        .loss_scale = (float)strata_loss_scale(walk->engine),
        .dtype = walk->run->dtype,
        .group = use->index,
        .frozen = walk->run->frozen >> use->index & 1 ? walk->result : NULL,
    };
    bool adds = use->grad && !(walk->run->still >> use->index & 1);
    strata_stream_call(walk->stream,
                       adds             ? backward
                       : walk->backward ? look
                                        : forward,
                       &args, sizeof args);
    return STRATA_OK;
}

static strata_status walk_step(struct walk *walk)
{
    strata_status status = strata_step_begin(walk->engine, 0.01 * (double)walk->step);
    walk->backward = false;
    for (uint32_t u = 0; status == STRATA_OK && u < walk->toy->model.use_count; u++)
        status = walk_use(walk, &walk->toy->uses[u]);
    return status == STRATA_OK ? strata_step_end(walk->engine) : status;
}

/* What the evaluation's hash is if every use sees the rounded master weights. */
static strata_status expect_masters(struct walk *walk, uint64_t *hash)
{
    static float masters[1u << 18];
    static float rounded[1u << 18];
    uint64_t elem_bytes = strata_dtype_bytes(walk->run->dtype);
    strata_status status = STRATA_OK;
    for (uint32_t g = 0; status == STRATA_OK && g < walk->toy->model.group_count; g++) {
        uint64_t elems = 0;
        for (uint32_t t = 0; status == STRATA_OK && t < TOY_TENSORS; t++) {
            uint64_t count = size(walk->run, g, t);
            if (walk->run->frozen >> g & 1)
                init(NULL, g, t, 0, count, masters + elems);
            else
                status = strata_engine_read(walk->engine, g, t, STRATA_MASTER, 0, count,
                                            masters + elems);
            elems += count;
        }
        strata_convert(STRATA_ISA_BEST, rounded, walk->run->dtype, masters, STRATA_FP32, elems);
        *hash = strata_hash(rounded, elems * elem_bytes, *hash + g).low;
    }
    return status;
}

static strata_status eval_use(struct walk *walk, const strata_use *use, float *activation)
{
    struct eval_args args = {
        .activation = activation, .mark = use->index, .result = walk->result};
    strata_view view;
    strata_status status;
    switch (use->kind) {
    case STRATA_USE_STASH:
        strata_stream_call(walk->stream, mark_block, &args, sizeof args);
        return strata_stash(walk->engine, use->index, activation, walk->stream);
    case STRATA_USE_UNSTASH:
        status = strata_unstash(walk->engine, use->index, activation, walk->stream);
        strata_stream_call(walk->stream, check_block, &args, sizeof args);
        return status;
    case STRATA_USE_ACQUIRE:
        status = strata_acquire(walk->engine, use->index, walk->stream, &view);
        if (status != STRATA_OK)
            return status;
        walk->result->eval_wrong += view.grad != NULL;
        args.param = view.param;
        args.bytes = (size(walk->run, use->index, 0) + size(walk->run, use->index, 1)) *
                     strata_dtype_bytes(walk->run->dtype);
        strata_stream_call(walk->stream, note_param, &args, sizeof args);
        return STRATA_OK;
    default:
        return strata_release(walk->engine, use->index, walk->stream);
    }
}

/* Twice in a row every other time. Its activation is not the training's. */
static strata_status evaluate(struct walk *walk)
{
    static float activation[TOY_ACTIVATION];
    strata_status status = STRATA_OK;
    for (uint64_t i = 0; status == STRATA_OK && i < 1 + walk->step % 2; i++) {
        /* Looking at the weights waits for everything; mostly the next step just begins. */
        bool looks = walk->step % 3 == 0;
        if (looks)
            strata_stream_sync(walk->stream);
        uint64_t expected = looks ? walk->result->eval_hash : 0;
        status = strata_eval_begin(walk->engine);
        for (uint32_t u = 0; status == STRATA_OK && u < walk->toy->model.eval_use_count; u++)
            status = eval_use(walk, &walk->toy->eval_uses[u], activation);
        if (status == STRATA_OK)
            status = strata_eval_end(walk->engine);
        if (status == STRATA_OK && looks) {
            status = expect_masters(walk, &expected);
            strata_stream_sync(walk->stream);
            walk->result->eval_wrong += walk->result->eval_hash != expected;
        }
        walk->result->evaluations++;
    }
    return status;
}

/* Write all records back as they are. */
static strata_status rewrite(struct walk *walk)
{
    static float values[1u << 18];
    strata_status status = STRATA_OK;
    for (uint32_t g = 0; g < walk->toy->model.group_count; g++)
        for (uint32_t t = 0; t < TOY_TENSORS && !(walk->run->frozen >> g & 1); t++)
            for (int r = STRATA_MASTER; status == STRATA_OK && r <= STRATA_MOMENT2; r++) {
                uint64_t count = size(walk->run, g, t);
                status =
                    strata_engine_read(walk->engine, g, t, (strata_record)r, 0, count, values);
                if (status == STRATA_OK)
                    status = strata_engine_write(walk->engine, g, t, (strata_record)r, 0, count,
                                                 values);
            }
    return status;
}

/* Elements of several tiles and of parts of blocks. */
static strata_status halve(struct walk *walk)
{
    enum { FIRST = 777, COUNT = 18001 };
    static float values[COUNT];
    strata_status status = STRATA_OK;
    for (int r = STRATA_MASTER; status == STRATA_OK && r <= STRATA_MOMENT2; r++) {
        status = strata_engine_read(walk->engine, 5, 1, (strata_record)r, FIRST, COUNT, values);
        for (uint32_t i = 0; i < COUNT; i++)
            values[i] *= 0.5f;
        if (status == STRATA_OK)
            status =
                strata_engine_write(walk->engine, 5, 1, (strata_record)r, FIRST, COUNT, values);
    }
    return status;
}

/* What stands between a step and the next. */
static strata_status between_steps(struct walk *walk)
{
    strata_status status = STRATA_OK;
    if (walk->run->evaluate)
        status = evaluate(walk);
    if (status == STRATA_OK && walk->run->rewrite)
        status = rewrite(walk);
    if (status == STRATA_OK && walk->run->halve_at != 0 && walk->step == walk->run->halve_at)
        status = halve(walk);
    return status;
}

static strata_engine_desc describe(const struct toy *toy, const struct toy_run *run,
                                   const char *const *dirs)
{
    return (strata_engine_desc){
        .model = &toy->model,
        .adam = &toy->adam,
        .init = init,
        .compute_dtype = run->dtype,
        .states_dtype = run->states_dtype,
        .loss_scale = run->loss_scale,
        .seed = run->seed,
        .params = run->params,
        .grads = run->grads,
        .states = run->states,
        .stash = run->stash,
        .device_bytes = run->device_bytes != 0 ? run->device_bytes : 64u << 20,
        .host_bytes = run->host_bytes != 0 ? run->host_bytes : 64u << 20,
        .nvme_bytes = run->nvme_bytes != 0 ? run->nvme_bytes : 64u << 20,
        .tile_elems = run->tile_elems != 0 ? run->tile_elems : STRATA_BLOCK_ELEMS,
        .store_dirs = run->dir != NULL ? dirs : NULL,
        .store_dir_count = run->dir == NULL         ? 0
                           : run->other_dir == NULL ? 1
                                                    : 2,
        .io = strata_backend_here(run->io),
        .allow = run->allow,
        .clip = run->clip,
        .clip_mode = run->clip_mode,
        .no_overlap = run->no_overlap,
        .durability = run->durability,
        .commit_every = run->commit_every,
        .keep = run->keep,
        .keep_every = run->keep_every,
        .resume = run->resume,
        .resume_at = run->resume_at,
        .resume_step = run->resume_step,
        .identity = run->identity,
        .progress = run->progress,
        .progress_user = run->progress_user,
    };
}

static strata_status hash_moving(struct walk *walk, struct toy_result *result)
{
    static float masters[1u << 17];
    for (uint32_t g = 0; g < walk->toy->model.group_count; g++) {
        if ((walk->run->frozen | walk->run->still) >> g & 1)
            continue;
        for (uint32_t t = 0; t < TOY_TENSORS; t++) {
            uint64_t count = sizes[g][t];
            strata_status status =
                strata_engine_read(walk->engine, g, t, STRATA_MASTER, 0, count, masters);
            if (status != STRATA_OK)
                return status;
            result->moving_hash =
                strata_hash(masters, count * sizeof *masters, result->moving_hash).low;
        }
    }
    return STRATA_OK;
}

static strata_status run_steps(struct walk *walk, struct toy_result *result)
{
    uint32_t steps = walk->run->steps != 0 ? walk->run->steps : 4;
    steps = steps == TOY_NO_STEPS ? 0 : steps;
    strata_step_result last = {0};
    walk->step = strata_engine_step(walk->engine);
    strata_status before = walk->run->evaluate ? evaluate(walk) : STRATA_OK;
    if (before != STRATA_OK)
        return before;
    for (walk->step = strata_engine_step(walk->engine) + 1; walk->step <= steps; walk->step++) {
        strata_status status = walk_step(walk);
        if (status == STRATA_OK)
            status = between_steps(walk);
        if (status == STRATA_OK && (walk->step == steps || walk->run->after_step != NULL))
            status = strata_wait(walk->engine, walk->step, &last);
        if (status != STRATA_OK)
            return status;
        if (walk->run->after_step != NULL)
            walk->run->after_step(walk->run->after_user, walk->step);
    }
    result->grad_norm = last.grad_norm;
    result->last = last;
    if (walk->run->commit_at_end) {
        strata_status status = strata_commit(walk->engine);
        if (status != STRATA_OK)
            return status;
    }
    if (walk->run->frozen != 0 || walk->run->still != 0) {
        strata_status status = hash_moving(walk, result);
        if (status != STRATA_OK)
            return status;
    }
    return strata_engine_hash(walk->engine, result->hash);
}

struct toy_result strata_toy_run(const struct toy_run *wanted)
{
    struct toy toy;
    struct toy_run run = *wanted;
    struct toy_result result = {0};
    strata_device *device = NULL;
    strata_workers *workers = NULL;
    struct walk walk = {.toy = &toy, .run = &run, .result = &result};
    const char *dirs[2] = {run.dir, run.other_dir};
    make(&toy, &run);
    run.dtype = run.dtype != 0 ? run.dtype : STRATA_BF16;
    strata_engine_desc desc = describe(&toy, &run, dirs);
    strata_workers_desc threads = {.thread_count = run.threads != 0 ? run.threads : 1};
    result.status = strata_device_open_host(&device, &result.error);
    if (result.status == STRATA_OK)
        result.status = strata_workers_create(&workers, &threads, &result.error);
    if (device != NULL && run.device_ops != NULL)
        device->ops = run.device_ops;
    if (result.status == STRATA_OK)
        result.status = strata_stream_create(&walk.stream, device, "compute", &result.error);
    desc.device = device;
    desc.workers = workers;
    if (result.status == STRATA_OK)
        result.status = strata_engine_create(&walk.engine, &desc, &result.error);
    if (result.status == STRATA_OK) {
        memset(strata_scratch(walk.engine), 0, TOY_ACTIVATION * sizeof(float));
        result.plan = *strata_engine_plan_of(walk.engine);
        result.first_step = strata_engine_step(walk.engine);
        result.status = run_steps(&walk, &result);
        strata_engine_stats(walk.engine, &result.stats);
        result.error = *strata_engine_error(walk.engine);
    }
    strata_engine_destroy(walk.engine);
    strata_stream_destroy(walk.stream);
    strata_workers_destroy(workers);
    strata_device_close(device);
    return result;
}

strata_status strata_toy_plan(const struct toy_run *wanted, strata_plan *out,
                              strata_error *error)
{
    struct toy toy;
    struct toy_run run = *wanted;
    strata_device *device = NULL;
    strata_workers *workers = NULL;
    const char *dirs[2] = {run.dir, run.other_dir};
    make(&toy, &run);
    run.dtype = run.dtype != 0 ? run.dtype : STRATA_BF16;
    strata_engine_desc desc = describe(&toy, &run, dirs);
    strata_status status = strata_device_open_host(&device, error);
    if (status == STRATA_OK)
        status =
            strata_workers_create(&workers, &(strata_workers_desc){.thread_count = 1}, error);
    desc.device = device;
    desc.workers = workers;
    if (status == STRATA_OK)
        status = strata_engine_plan(out, &desc, error);
    strata_workers_destroy(workers);
    strata_device_close(device);
    return status;
}
