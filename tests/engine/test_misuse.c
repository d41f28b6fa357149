/*
 * Misuse of the engine's functions: each call that makes no sense is refused with a status and
 * a story of what was expected, changes nothing, and the run goes on from there to the same
 * weights as a run without it. Of the other headers: tests/offload/test_device_misuse.c.
 */

#include "strata/store.h"
#include "tests/engine/engine_rig.h"

#include <criterion/criterion.h>

#include <float.h>
#include <math.h>
#include <string.h>

#define STREAMS 16 /* that one engine may be used with */

static void init(void *user, uint32_t group, uint32_t tensor, uint64_t first, uint64_t count,
                 float *out)
{
    (void)user;
    for (uint64_t i = 0; i < count; i++)
        out[i] = 0.01f * (float)((group * 7 + tensor * 3 + first + i) % 19);
}

TestSuite(misuse, .init = open_engine_rig, .fini = close_engine_rig);

static strata_engine_desc describe(void)
{
    return describe_engine(init);
}

static void create(void)
{
    create_engine(init);
}

static strata_status make_use(const strata_use *use)
{
    strata_view view;
    switch (use->kind) {
    case STRATA_USE_ACQUIRE:
        return strata_acquire(engine, use->index, stream, &view);
    case STRATA_USE_RELEASE:
        return strata_release(engine, use->index, stream);
    case STRATA_USE_STASH:
        return strata_stash(engine, use->index, strata_scratch(engine), stream);
    default:
        return strata_unstash(engine, use->index, strata_scratch(engine), stream);
    }
}

/* A step; before each call, and after the last, whatever misuse the test has. */
static void walk(void (*misuse)(uint32_t use))
{
    cr_assert_eq(strata_step_begin(engine, 0.1), STRATA_OK);
    for (uint32_t u = 0; u < toy.model.use_count; u++) {
        if (misuse != NULL)
            misuse(u);
        cr_assert_eq(make_use(&toy.uses[u]), STRATA_OK, "%s",
                     strata_engine_error(engine)->message);
    }
    if (misuse != NULL)
        misuse(toy.model.use_count);
    cr_assert_eq(strata_step_end(engine), STRATA_OK);
}

/* The call was refused, and the story has the word. */
static void refused(strata_status got, strata_status want, const char *word)
{
    cr_expect_eq(got, want, "%s instead of %s for %s", strata_status_name(got),
                 strata_status_name(want), word);
    const strata_error *story = strata_engine_error(engine);
    cr_expect_eq(story->status, want);
    cr_expect_not_null(strstr(story->message, word), "%s: no %s", story->message, word);
}

static void expect_same_run(void (*misuse)(uint32_t use))
{
    uint8_t clean[16], misused[16];
    create();
    walk(NULL);
    cr_assert_eq(strata_engine_hash(engine, clean), STRATA_OK);
    strata_engine_destroy(engine);
    create();
    walk(misuse);
    cr_assert_eq(strata_engine_hash(engine, misused), STRATA_OK);
    cr_expect_arr_eq(clean, misused, sizeof clean);
}

static void call_wrong_uses(uint32_t use)
{
    strata_view view = {.param = &view};
    float block[4];
    static const strata_use none = {.kind = STRATA_USE_ACQUIRE, .index = UINT32_MAX};
    const strata_use *next = use < toy.model.use_count ? &toy.uses[use] : &none;
    if (next->kind != STRATA_USE_ACQUIRE || next->index != 5) {
        refused(strata_acquire(engine, 5, stream, &view), STRATA_E_STATE, "acquire 5");
        cr_expect_null(view.param);
    }
    if (next->kind != STRATA_USE_RELEASE)
        refused(strata_release(engine, next->index, stream), STRATA_E_STATE, "release");
    if (next->kind != STRATA_USE_STASH)
        refused(strata_stash(engine, 0, block, stream), STRATA_E_STATE, "stash 0");
    if (next->kind != STRATA_USE_UNSTASH)
        refused(strata_unstash(engine, UINT32_MAX, block, stream), STRATA_E_STATE, "unstash");
    if (use < toy.model.use_count)
        refused(strata_step_end(engine), STRATA_E_STATE, "still to come");
    refused(strata_step_begin(engine, 0.1), STRATA_E_STATE, "not ended");
}

Test(misuse, calls_that_are_not_next_on_the_list_change_nothing)
{
    expect_same_run(call_wrong_uses);
}

static void call_between_steps_only(uint32_t use)
{
    uint8_t hash[16];
    float value;
    (void)use;
    refused(strata_wait(engine, 0, NULL), STRATA_E_STATE, "between steps");
    refused(strata_commit(engine), STRATA_E_STATE, "between steps");
    refused(strata_engine_hash(engine, hash), STRATA_E_STATE, "between steps");
    refused(strata_engine_read(engine, 0, 0, STRATA_MASTER, 0, 1, &value), STRATA_E_STATE,
            "between steps");
}

Test(misuse, what_belongs_between_steps_changes_nothing_within_one)
{
    expect_same_run(call_between_steps_only);
}

static void call_with_null(uint32_t use)
{
    strata_view view;
    if (use == toy.model.use_count)
        return;
    uint32_t index = toy.uses[use].index;
    switch (toy.uses[use].kind) {
    case STRATA_USE_ACQUIRE:
        refused(strata_acquire(engine, index, NULL, &view), STRATA_E_INVALID, "stream");
        refused(strata_acquire(engine, index, stream, NULL), STRATA_E_INVALID, "out is NULL");
        break;
    case STRATA_USE_RELEASE:
        refused(strata_release(engine, index, NULL), STRATA_E_INVALID, "stream");
        break;
    case STRATA_USE_STASH:
        refused(strata_stash(engine, index, NULL, stream), STRATA_E_INVALID, "NULL");
        refused(strata_stash(engine, index, &view, NULL), STRATA_E_INVALID, "stream");
        break;
    default:
        refused(strata_unstash(engine, index, NULL, stream), STRATA_E_INVALID, "NULL");
        refused(strata_unstash(engine, index, &view, NULL), STRATA_E_INVALID, "stream");
    }
}

Test(misuse, null_arguments_of_a_step_change_nothing)
{
    expect_same_run(call_with_null);
}

Test(misuse, a_stream_of_another_device_is_refused)
{
    strata_device *other;
    strata_stream *foreign;
    cr_assert_eq(strata_device_open_host(&other, &error), STRATA_OK);
    cr_assert_eq(strata_stream_create(&foreign, other, "foreign", &error), STRATA_OK);
    create();
    cr_assert_eq(strata_step_begin(engine, 0.1), STRATA_OK);
    refused(strata_stash(engine, 0, strata_scratch(engine), foreign), STRATA_E_INVALID,
            "another device");
    cr_expect_eq(make_use(&toy.uses[0]), STRATA_OK);
    strata_stream_destroy(foreign);
    strata_device_close(other);
}

Test(misuse, sixteen_streams_serve_one_engine_and_a_seventeenth_is_refused)
{
    strata_stream *streams[STREAMS + 1];
    strata_view view;
    for (int i = 0; i <= STREAMS; i++)
        cr_assert_eq(strata_stream_create(&streams[i], device, "many", &error), STRATA_OK);
    create();
    cr_assert_eq(strata_step_begin(engine, 0.1), STRATA_OK);
    cr_assert_eq(toy.uses[0].kind, STRATA_USE_STASH);
    for (uint32_t u = 0; u < STREAMS; u++) {
        const strata_use *use = &toy.uses[u];
        strata_status status =
            use->kind == STRATA_USE_ACQUIRE
                ? strata_acquire(engine, use->index, streams[u], &view)
            : use->kind == STRATA_USE_RELEASE
                ? strata_release(engine, use->index, streams[u])
                : strata_stash(engine, use->index, strata_scratch(engine), streams[u]);
        cr_assert_eq(status, STRATA_OK, "%s", strata_engine_error(engine)->message);
    }
    const strata_use *next = &toy.uses[STREAMS];
    cr_assert_eq(next->kind, STRATA_USE_ACQUIRE);
    refused(strata_acquire(engine, next->index, streams[STREAMS], &view), STRATA_E_INVALID,
            "beyond the 16");
    cr_expect_eq(strata_acquire(engine, next->index, streams[0], &view), STRATA_OK);
    strata_engine_destroy(engine);
    engine = NULL;
    for (int i = 0; i <= STREAMS; i++)
        strata_stream_destroy(streams[i]);
}

Test(misuse, steps_whose_norm_is_not_kept_are_refused)
{
    strata_step_result result;
    create();
    refused(strata_wait(engine, 1, &result), STRATA_E_INVALID, "wait for step 1");
    for (int i = 0; i < 3; i++)
        walk(NULL);
    refused(strata_wait(engine, 1, &result), STRATA_E_INVALID, "wait for step 1");
    refused(strata_wait(engine, 4, &result), STRATA_E_INVALID, "wait for step 4");
    refused(strata_wait(engine, UINT64_MAX, &result), STRATA_E_INVALID, "wait for step");
    cr_expect_eq(strata_wait(engine, 2, &result), STRATA_OK);
    cr_expect_eq(strata_wait(engine, 3, &result), STRATA_OK);
    cr_expect_eq(result.step, 3);
    cr_expect_eq(strata_wait(engine, 0, NULL), STRATA_OK);
}

Test(misuse, a_commit_without_durability_is_refused)
{
    create();
    walk(NULL);
    refused(strata_commit(engine), STRATA_E_STATE, "without durability");
    walk(NULL);
    cr_expect_eq(strata_wait(engine, 0, NULL), STRATA_OK);
}

Test(misuse, steps_out_of_order_are_refused)
{
    create();
    refused(strata_step_end(engine), STRATA_E_STATE, "not begun");
    refused(make_use(&toy.uses[0]), STRATA_E_STATE, "not begun");
    walk(NULL);
}

Test(misuse, a_rate_that_is_no_number_is_refused)
{
    const double rates[] = {NAN, INFINITY, -INFINITY, 1e39, (double)FLT_MAX / 9};
    create();
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++)
        refused(strata_step_begin(engine, rates[i]), STRATA_E_INVALID, "learning rate");
    cr_expect_eq(strata_step_begin(engine, (double)FLT_MAX / 11), STRATA_OK);
}

Test(misuse, elements_that_a_model_does_not_have_are_refused)
{
    float value = 7;
    uint64_t elems = toy.tensors[2][1].shape[0];
    create();
    refused(strata_engine_read(engine, TOY_GROUPS, 0, STRATA_MASTER, 0, 1, &value),
            STRATA_E_INVALID, "group 7");
    refused(strata_engine_read(engine, 2, TOY_TENSORS, STRATA_MASTER, 0, 1, &value),
            STRATA_E_INVALID, "tensor 2 of group g2.t0");
    refused(strata_engine_read(engine, 2, 1, (strata_record)3, 0, 1, &value), STRATA_E_INVALID,
            "record 3");
    refused(strata_engine_read(engine, 2, 1, (strata_record)-1, 0, 1, &value), STRATA_E_INVALID,
            "record -1");
    refused(strata_engine_read(engine, 2, 1, STRATA_MASTER, elems, 1, &value), STRATA_E_INVALID,
            "g2.t1 has 3");
    refused(strata_engine_read(engine, 2, 1, STRATA_MASTER, 1, UINT64_MAX, &value),
            STRATA_E_INVALID, "g2.t1 has 3");
    refused(strata_engine_read(engine, 2, 1, STRATA_MASTER, 0, 1, NULL), STRATA_E_INVALID,
            "NULL");
    cr_expect_eq(value, 7);
    cr_expect_eq(strata_engine_read(engine, 2, 1, STRATA_MASTER, elems - 1, 1, &value),
                 STRATA_OK);
    cr_expect_eq(strata_engine_read(engine, 2, 1, STRATA_MASTER, elems, 0, NULL), STRATA_OK);
    cr_expect_eq(strata_tensor_offset(engine, 0, 1), toy.tensors[0][0].shape[0]);
    cr_expect_eq(strata_tensor_offset(engine, TOY_GROUPS, 0), UINT64_MAX);
    cr_expect_eq(strata_tensor_offset(engine, 0, TOY_TENSORS), UINT64_MAX);
}

Test(misuse, a_trace_or_hash_to_nowhere_is_refused)
{
    create();
    refused(strata_engine_hash(engine, NULL), STRATA_E_INVALID, "NULL");
    cr_expect_eq(strata_engine_trace(engine, NULL, &error), STRATA_E_INVALID);
    cr_expect_not_null(strstr(error.message, "path"));
    error = (strata_error){0};
    cr_expect_eq(strata_engine_trace(engine, "/nowhere/trace", &error), STRATA_E_STATE);
    strata_engine_stats(engine, NULL);
    walk(NULL);
}

Test(misuse, no_engine_is_an_answer_and_no_crash)
{
    strata_view view;
    strata_stats stats = {.steps = 9};
    uint8_t hash[16];
    float value = 0;
    cr_expect_eq(strata_step_begin(NULL, 0.1), STRATA_E_INVALID);
    cr_expect_eq(strata_acquire(NULL, 0, stream, &view), STRATA_E_INVALID);
    cr_expect_eq(strata_release(NULL, 0, stream), STRATA_E_INVALID);
    cr_expect_eq(strata_stash(NULL, 0, &view, stream), STRATA_E_INVALID);
    cr_expect_eq(strata_unstash(NULL, 0, &view, stream), STRATA_E_INVALID);
    cr_expect_eq(strata_eval_begin(NULL), STRATA_E_INVALID);
    cr_expect_eq(strata_eval_end(NULL), STRATA_E_INVALID);
    cr_expect_eq(strata_engine_write(NULL, 0, 0, STRATA_MASTER, 0, 1, &value),
                 STRATA_E_INVALID);
    cr_expect_eq(strata_step_end(NULL), STRATA_E_INVALID);
    cr_expect_eq(strata_wait(NULL, 0, NULL), STRATA_E_INVALID);
    cr_expect_eq(strata_commit(NULL), STRATA_E_INVALID);
    cr_expect_eq(strata_engine_hash(NULL, hash), STRATA_E_INVALID);
    cr_expect_eq(strata_engine_read(NULL, 0, 0, STRATA_MASTER, 0, 1, &value), STRATA_E_INVALID);
    cr_expect_eq(strata_engine_trace(NULL, "trace", NULL), STRATA_E_INVALID);
    strata_engine_stats(NULL, &stats);
    cr_expect_eq(stats.steps, 0);
    cr_expect_eq(strata_engine_error(NULL)->status, STRATA_E_INVALID);
    cr_expect_null(strata_engine_plan_of(NULL));
    cr_expect_null(strata_scratch(NULL));
    cr_expect_eq(strata_engine_step(NULL), 0);
    cr_expect_eq(strata_loss_scale(NULL), 1);
    cr_expect_eq(strata_tensor_offset(NULL, 0, 0), UINT64_MAX);
    cr_expect_gt(strata_default_tile_elems(NULL), 0);
    strata_engine_destroy(NULL);
}

static void refused_desc(const strata_engine_desc *desc, const char *word)
{
    strata_plan plan;
    error = (strata_error){0};
    cr_expect_eq(strata_engine_create(&engine, desc, &error), STRATA_E_INVALID, "%s", word);
    cr_expect_null(engine);
    cr_expect_not_null(strstr(error.message, word), "%s: no %s", error.message, word);
    cr_expect_eq(strata_engine_plan(&plan, desc, NULL), STRATA_E_INVALID);
}

Test(misuse, descriptors_without_what_is_required_are_refused)
{
    strata_engine_desc desc;
    strata_plan plan;
    refused_desc(NULL, "descriptor");
    desc = describe();
    cr_expect_eq(strata_engine_create(NULL, &desc, NULL), STRATA_E_INVALID);
    cr_expect_eq(strata_engine_plan(NULL, &desc, NULL), STRATA_E_INVALID);
    desc.device = NULL;
    refused_desc(&desc, "device");
    desc = describe();
    desc.workers = NULL;
    refused_desc(&desc, "workers");
    desc = describe();
    desc.model = NULL;
    refused_desc(&desc, "model");
    desc = describe();
    desc.adam = NULL;
    refused_desc(&desc, "adam");
    desc = describe();
    desc.init = NULL;
    refused_desc(&desc, "init");
    desc = describe();
    cr_expect_eq(strata_engine_plan(&plan, &desc, &error), STRATA_OK, "%s", error.message);
}

Test(misuse, numbers_of_the_optimizer_at_their_limits)
{
    strata_engine_desc desc = describe();
    const double below_one = nextafter(1, 0);
    struct {
        strata_adam_params adam;
        const char *word; /* NULL: fine */
    } cases[] = {
        {{.beta1 = NAN}, "beta1"},
        {{.beta1 = 1}, "beta1"},
        {{.beta1 = -1e-9}, "beta1"},
        {{.beta2 = 1}, "beta2"},
        {{.beta2 = INFINITY}, "beta2"},
        {{.eps = -1e-9}, "eps"},
        {{.eps = NAN}, "eps"},
        {{.eps = INFINITY}, "eps"},
        {{.weight_decay = NAN}, "weight decay"},
        {{.weight_decay = -INFINITY}, "weight decay"},
        {{.beta1 = below_one, .beta2 = below_one, .eps = (double)FLT_MAX}, NULL},
        {{.beta1 = 0}, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        desc.adam = &cases[i].adam;
        if (cases[i].word != NULL)
            refused_desc(&desc, cases[i].word);
        else
            cr_expect_eq(strata_engine_plan(&(strata_plan){0}, &desc, &error), STRATA_OK, "%s",
                         error.message);
    }
}

Test(misuse, a_clip_or_loss_scale_that_is_no_number_is_refused)
{
    strata_engine_desc desc = describe();
    desc.clip = NAN;
    refused_desc(&desc, "clip");
    desc.clip = INFINITY;
    refused_desc(&desc, "clip");
    desc = describe();
    desc.compute_dtype = STRATA_FP16;
    desc.loss_scale = NAN;
    refused_desc(&desc, "loss scale");
    desc.loss_scale = INFINITY;
    refused_desc(&desc, "loss scale");
}

Test(misuse, a_device_and_workers_that_go_first_stay_until_the_engine_is_gone)
{
    create();
    walk(NULL);
    strata_workers_destroy(workers);
    strata_workers_destroy(workers);
    strata_device_close(device);
    strata_device_close(device);
    walk(NULL);
    strata_stream_destroy(stream);
    strata_stream_destroy(stream);
    walk(NULL);
    cr_expect_eq(strata_wait(engine, 0, NULL), STRATA_OK);
    strata_engine_desc desc = describe();
    strata_engine *late;
    error = (strata_error){0};
    cr_expect_eq(strata_engine_create(&late, &desc, &error), STRATA_E_STATE);
    cr_expect_not_null(strstr(error.message, "closed"), "%s", error.message);
    strata_engine_destroy(engine);
    engine = NULL;
    stream = NULL;
    workers = NULL;
    device = NULL;
}

Test(misuse, of_a_stores_functions_is_refused)
{
    strata_store_listing listing;
    strata_scrub_result result;
    strata_scrub_desc scrub = {.dirs = NULL, .dir_count = 1};
    const char *dirs[] = {"/nowhere", NULL};
    cr_expect_eq(strata_store_list(NULL, dirs, 1, NULL), STRATA_E_INVALID);
    cr_expect_eq(strata_store_list(&listing, NULL, 1, &error), STRATA_E_INVALID);
    cr_expect_eq(strata_store_list(&listing, dirs, 2, &error), STRATA_E_INVALID);
    cr_expect_eq(strata_store_list(&listing, dirs, 0, &error), STRATA_E_INVALID);
    cr_expect_not_null(strstr(error.message, "NULL"), "%s", error.message);
    cr_expect_eq(strata_store_scrub(NULL, &scrub, NULL), STRATA_E_INVALID);
    cr_expect_eq(strata_store_scrub(&result, NULL, NULL), STRATA_E_INVALID);
    cr_expect_eq(strata_store_scrub(&result, &scrub, NULL), STRATA_E_INVALID);
    cr_expect_eq(strata_store_drop(NULL, 1, 1, NULL), STRATA_E_INVALID);
}

Test(misuse, of_a_profiles_functions_is_refused)
{
    strata_profile profile;
    cr_expect_eq(strata_profile_check(NULL, NULL), STRATA_E_INVALID);
    cr_expect_eq(strata_profile_read_file(NULL, "/nowhere", NULL), STRATA_E_INVALID);
    cr_expect_eq(strata_profile_read_file(&profile, NULL, &error), STRATA_E_INVALID);
    cr_expect_not_null(strstr(error.message, "path"), "%s", error.message);
}

Test(misuse, doubled_tensor_names_are_refused)
{
    toy.tensors[4][1].name = toy.tensors[1][0].name;
    strata_engine_desc desc = describe();
    refused_desc(&desc, toy.tensors[1][0].name);
}
