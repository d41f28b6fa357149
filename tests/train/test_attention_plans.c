/*
 * cuDNN builds plans for every model that we name and every GPU that we plan for, and they
 * keep to the workspace that was planned. No GPU takes part: GPUs are descriptions
 * (support/gpus), and the driver is support/fake_cuda.c, which is loaded first and so stands
 * for libcuda.so.1 in this process.
 *
 * Skipped where this build has no cuDNN, or the loader finds none. A plan takes a second of
 * CPU; the usual form builds some of them on each GPU, the long form all.
 */

#include "train/attention_cudnn.h"
#include "train/decoder.h"

#include "tests/support/checks.h"

#include <criterion/criterion.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)

struct heads {
    const char *model;
    uint32_t heads;
    uint32_t kv_heads;
    uint32_t head_dim;
    uint32_t window;
};

/* Models that the program has no names for. */
static const struct heads others[] = {
    {"Mistral 7B", 32, 8, 128, 4096},   {"Qwen2.5 0.5B", 14, 2, 64, 0},
    {"Qwen2.5 1.5B", 12, 2, 128, 0},    {"Qwen2.5 3B", 16, 2, 128, 0},
    {"Qwen2.5 7B", 28, 4, 128, 0},      {"Qwen2.5 14B and 32B", 40, 8, 128, 0},
    {"Qwen2.5 72B", 64, 8, 128, 0},     {"Qwen3 0.6B and 1.7B", 16, 8, 128, 0},
    {"Qwen3 4B and 8B", 32, 8, 128, 0}, {"Qwen3 14B", 40, 8, 128, 0},
    {"Qwen3 32B", 64, 8, 128, 0},       {"a window of a quarter", 8, 8, 64, 256},
};
enum { OTHERS = sizeof others / sizeof others[0], MOST = OTHERS + 16 };

static const uint32_t seqs[] = {1024, 4096, 32768};
enum { SEQS = sizeof seqs / sizeof seqs[0] };

/* A micro-batch, unless a sequence is longer. */
#define TOKENS 16384u

/* Every set of heads once: the named models', then the others'. */
static uint32_t all_heads(struct heads *out)
{
    static const char *const named[] = {"llama-125m", "llama-350m", "llama-1b",  "llama-3b",
                                        "llama-7b",   "llama-8b",   "llama-13b", "llama-33b",
                                        "llama-70b",  "llama-405b"};
    uint32_t count = 0;
    for (size_t i = 0; i < sizeof named / sizeof named[0] + OTHERS; i++) {
        struct heads one;
        if (i < sizeof named / sizeof named[0]) {
            struct decoder_config config;
            cr_assert(strata_decoder_config_named(&config, named[i]), "%s", named[i]);
            one = (struct heads){named[i], (uint32_t)config.head_count,
                                 (uint32_t)config.kv_head_count, (uint32_t)config.head_dim,
                                 (uint32_t)config.window};
        } else {
            one = others[i - sizeof named / sizeof named[0]];
        }
        bool known = false;
        for (uint32_t j = 0; j < count && !known; j++)
            known = out[j].heads == one.heads && out[j].kv_heads == one.kv_heads &&
                    out[j].head_dim == one.head_dim && out[j].window == one.window;
        if (!known)
            out[count++] = one;
    }
    return count;
}

static void read_gpu(char *out, size_t bytes, const char *name)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/support/gpus/%s.json", STRATA_TESTS_DIR, name);
    FILE *file = fopen(path, "r");
    cr_assert_not_null(file, "%s", path);
    size_t got = fread(out, 1, bytes - 1, file);
    fclose(file);
    out[got] = '\0';
}

/* Plans for a GPU that is only described; or the test is skipped. */
static struct attention_cudnn *open_for(const char *gpu, uint32_t sm)
{
    struct attention_cudnn *attention;
    strata_error error = {0};
    char json[4096];
    if (strata_attention_cudnn_absent() != NULL)
        strata_skip(strata_attention_cudnn_absent());
    cr_assert_not_null(dlopen(FAKE_CUDA, RTLD_NOW | RTLD_GLOBAL), "%s", dlerror());
    read_gpu(json, sizeof json, gpu);
    struct attention_target target = {.device_json = json, .sm = sm};
    strata_status status = strata_attention_cudnn_open(&attention, &target, &error);
    if (status == STRATA_E_UNSUPPORTED)
        strata_skip(error.message);
    cr_assert_eq(status, STRATA_OK, "%s", error.message);
    return attention;
}

static void expect_plans(struct attention_cudnn *attention, const char *gpu,
                         const struct heads *heads, uint32_t seq)
{
    struct attention_shape shape = {.sequences = seq < TOKENS ? TOKENS / seq : 1,
                                    .seq = seq,
                                    .heads = heads->heads,
                                    .kv_heads = heads->kv_heads,
                                    .head_dim = heads->head_dim,
                                    .window = heads->window,
                                    .dtype = STRATA_BF16};
    struct attention_calls calls;
    struct attention_needs needs;
    strata_error error = {0};
    cr_assert_eq(strata_attention_calls(&calls, &shape, &error), STRATA_OK, "%s",
                 error.message);
    cr_assert_eq(strata_attention_cudnn_needs(attention, &shape, &needs, &error), STRATA_OK,
                 "%s, %s, %u tokens: %s", gpu, heads->model, seq, error.message);
    cr_expect_leq(needs.call_bytes, calls.call_bytes, "%s, %s, %u tokens", gpu, heads->model,
                  seq);
    cr_expect_leq(needs.forward_bytes, calls.workspace_bytes, "%s, %s, %u tokens", gpu,
                  heads->model, seq);
    uint64_t limit = seq <= 16384 ? ATTENTION_CALL_BYTES : ATTENTION_SCORES_BYTES_MAX;
    cr_expect_leq(needs.call_bytes, limit + MIB, "%s, %s, %u tokens: %llu bytes", gpu,
                  heads->model, seq, (unsigned long long)needs.call_bytes);
}

/* Of all pairs of heads and lengths, every nth. */
static void expect_all(const char *gpu, uint32_t sm)
{
    struct heads heads[MOST];
    struct attention_cudnn *attention = open_for(gpu, sm);
    uint32_t step = getenv("STRATA_TEST_LONG") != NULL ? 1 : 25;
    uint32_t pairs = all_heads(heads) * SEQS;
    for (uint32_t i = sm % step; i < pairs; i += step)
        expect_plans(attention, gpu, &heads[i / SEQS], seqs[i % SEQS]);
    strata_attention_cudnn_close(attention);
}

Test(attention_plans, a100_has_all)
{
    expect_all("a100", 80);
}

Test(attention_plans, rtx4090_has_all)
{
    expect_all("rtx4090", 89);
}

Test(attention_plans, h100_has_all)
{
    expect_all("h100", 90);
}

Test(attention_plans, h200_has_all)
{
    expect_all("h200", 90);
}

/* Fewer keys than a tile, an odd number of tokens, fp16, rows with gaps. */
Test(attention_plans, odd_shapes_have_plans)
{
    struct attention_cudnn *attention = open_for("h200", 90);
    static const struct attention_shape shapes[] = {
        {.sequences = 3, .seq = 65, .heads = 4, .kv_heads = 2, .head_dim = 8},
        {.sequences = 1,
         .seq = 1001,
         .heads = 2,
         .kv_heads = 1,
         .head_dim = 72,
         .o_stride = 512},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct attention_shape shape = shapes[i];
        strata_error error = {0};
        shape.dtype = i == 0 ? STRATA_FP16 : STRATA_BF16;
        cr_expect_eq(strata_attention_cudnn_prepare(attention, &shape, &error), STRATA_OK,
                     "%u tokens: %s", shape.seq, error.message);
    }
    strata_attention_cudnn_close(attention);
}

Test(attention_plans, a_description_runs_nothing)
{
    struct attention_cudnn *attention = open_for("h200", 90);
    struct attention_forward forward = {.shape = {.sequences = 1,
                                                  .seq = 128,
                                                  .heads = 1,
                                                  .kv_heads = 1,
                                                  .head_dim = 64,
                                                  .dtype = STRATA_BF16}};
    strata_error error = {0};
    cr_expect_eq(strata_attention_cudnn_forward(attention, NULL, &forward, &error),
                 STRATA_E_STATE);
    cr_expect_not_null(strstr(error.message, "described"), "%s", error.message);
    strata_attention_cudnn_close(attention);
}

Test(attention_plans, what_is_no_description_is_refused)
{
    strata_attention_cudnn_close(open_for("h200", 90));
    struct attention_cudnn *attention;
    struct attention_target target = {.device_json = "{\"deviceName\":\"none\"}", .sm = 90};
    strata_error error = {0};
    cr_expect_eq(strata_attention_cudnn_open(&attention, &target, &error),
                 STRATA_E_UNSUPPORTED);
    cr_expect_null(attention);
    cr_expect_not_null(strstr(error.message, "a device's description"), "%s", error.message);
}
