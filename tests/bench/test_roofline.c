/*
 * The roofline of a decoder's operators against a model of kernels that reproduces ten
 * published step times within 9 %; what it must obey whatever its constants; the uses of a
 * step.
 */

#include "bench/roofline.h"

#include <criterion/criterion.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double sum_ms(const struct roofline_op *ops, uint32_t count)
{
    double sum_s = 0;
    for (uint32_t i = 0; i < count; i++)
        sum_s += ops[i].time_s;
    return 1e3 * sum_s;
}

static double layer_ms(const char *gpu, const struct decoder_config *config,
                       struct roofline_shape shape, enum roofline_pass pass)
{
    struct roofline_op ops[ROOFLINE_MAX_OPS];
    return sum_ms(ops, strata_roofline_layer(ops, strata_gpu_named(gpu), config, shape, pass));
}

static void expect_near(double value, double expected, const char *what, const char *gpu)
{
    cr_expect(fabs(value / expected - 1) < 0.01, "%s on %s: %.4f ms, not %.4f", what, gpu,
              value, expected);
}

Test(roofline, times_are_those_of_the_model_of_kernels)
{
    static const struct {
        const char *gpu;
        const char *model;
        struct roofline_shape shape;
        double pass_ms[ROOFLINE_PASS_COUNT];
        double ends_ms;
    } cases[] = {
        {"h200", "llama-7b", {16384, 4096}, {10.9971, 8.7123, 24.2319}, 20.6403},
        {"h200", "llama-7b", {8192, 4096}, {5.5328, 4.3896, 12.2431}, 10.3350},
        {"h200", "llama-70b", {16384, 4096}, {42.3714, 31.0436, 89.7182}, 155.4916},
        {"h200", "llama-8b", {16384, 8192}, {12.6778, 9.7150, 29.6865}, 79.5008},
        {"h100", "llama-7b", {16384, 4096}, {11.3149, 8.9390, 24.7220}, 21.6143},
        {"h100", "llama-70b", {16384, 4096}, {43.0249, 31.4685, 90.9680}, 160.7973},
        {"rtx4090", "llama-7b", {16384, 4096}, {46.6506, 36.9102, 102.2593}, 88.2397},
        {"rtx4090", "llama-70b", {16384, 4096}, {181.4533, 133.2607, 382.0699}, 672.5627},
        {"rtx4090", "llama-8b", {16384, 8192}, {53.4058, 40.7681, 124.0432}, 343.7400},
    };
    static const char *const names[] = {"forward", "again", "backward"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct decoder_config config;
        struct roofline_op ops[ROOFLINE_MAX_OPS];
        const char *gpu = cases[i].gpu;
        cr_assert(strata_decoder_config_named(&config, cases[i].model));
        for (int pass = 0; pass < ROOFLINE_PASS_COUNT; pass++)
            expect_near(layer_ms(gpu, &config, cases[i].shape, (enum roofline_pass)pass),
                        cases[i].pass_ms[pass], names[pass], gpu);
        expect_near(sum_ms(ops, strata_roofline_ends(ops, strata_gpu_named(gpu), &config,
                                                     cases[i].shape)),
                    cases[i].ends_ms, "ends", gpu);
    }
}

/* No operator is faster than what it can reach, on any GPU, with any number of rows. */
Test(roofline, no_operator_beats_its_bound)
{
    static const char *const gpus[] = {"rtx3090", "rtx4090", "rtx5090", "l40s", "a100-40",
                                       "a100",    "h100",    "h200",    "b200"};
    struct decoder_config config;
    cr_assert(strata_decoder_config_named(&config, "llama-1b"));
    for (size_t g = 0; g < sizeof gpus / sizeof *gpus; g++)
        for (uint64_t tokens = 1; tokens <= 65536; tokens *= 4)
            for (int pass = 0; pass < ROOFLINE_PASS_COUNT; pass++) {
                const struct gpu *gpu = strata_gpu_named(gpus[g]);
                struct roofline_op ops[ROOFLINE_MAX_OPS];
                uint32_t count = strata_roofline_layer(ops, gpu, &config,
                                                       (struct roofline_shape){tokens, tokens},
                                                       (enum roofline_pass)pass);
                for (uint32_t i = 0; i < count; i++) {
                    double reach_s = fmax(ops[i].flops / gpu->product_flops_per_s,
                                          ops[i].bytes / gpu->stream_bytes_per_s);
                    cr_expect(ops[i].time_s >= reach_s, "%s: %s of %u tokens: %g s, %g",
                              gpus[g], ops[i].name, (unsigned)tokens, ops[i].time_s, reach_s);
                }
            }
}

/* A step's uses take what its layers and ends take together, the logits twice. */
Test(roofline, the_uses_of_a_step_add_up)
{
    struct decoder_config config;
    struct decoder *decoder;
    strata_error error = {0};
    double *compute_s;
    cr_assert(strata_decoder_config_named(&config, "llama-1b"));
    struct decoder_shape shape = {
        .seq = 1024, .batch = 8, .micro_batch = 4, .compute_dtype = STRATA_BF16};
    cr_assert_eq(strata_decoder_create(&decoder, &config, &shape, NULL, &error), STRATA_OK);
    const struct gpu *gpu = strata_gpu_named("h100");
    struct roofline_shape of = {.tokens = 4096, .seq = 1024};
    cr_assert_eq(strata_roofline_uses(&compute_s, gpu, &config, decoder, of, &error),
                 STRATA_OK);
    double all_s = 0;
    for (uint32_t u = 0; u < strata_decoder_model(decoder)->use_count; u++)
        all_s += compute_s[u];
    struct roofline_op ops[ROOFLINE_MAX_OPS];
    uint32_t count = strata_roofline_ends(ops, gpu, &config, of);
    double expected_ms = sum_ms(ops, count);
    for (uint32_t i = 0; i < count; i++)
        expected_ms += strcmp(ops[i].name, "logits") == 0 ? 1e3 * ops[i].time_s : 0;
    for (int pass = 0; pass < ROOFLINE_PASS_COUNT; pass++)
        expected_ms += (double)config.layer_count *
                       layer_ms("h100", &config, of, (enum roofline_pass)pass);
    expected_ms *= 2; /* micro-batches */
    cr_expect(fabs(1e3 * all_s / expected_ms - 1) < 1e-9, "%g ms, not %g", 1e3 * all_s,
              expected_ms);
    free(compute_s);
    strata_decoder_destroy(decoder);
}

/* The definition: 6 for each weight of a product, 6 for each pair of a causal attention. */
Test(roofline, model_flops_count_each_product_once)
{
    struct decoder_config config;
    cr_assert(strata_decoder_config_named(&config, "llama-7b"));
    double layer = 4096.0 * 4 * 4096 + 3.0 * 4096 * 11008 + 2 * 4096;
    double expected = 6 * (32 * layer + 32000.0 * 4096) + 6.0 * 32 * 4096 * 2048;
    cr_expect_eq(strata_roofline_model_flops(&config, 2048), expected);
}

/* A window costs attention what its rows no longer see; head norms and biases have operators of
 * their own. */
Test(roofline, a_familys_switches_count)
{
    struct decoder_config plain;
    struct roofline_shape shape = {8192, 8192};
    cr_assert(strata_decoder_config_named(&plain, "llama-7b"));
    struct decoder_config windowed = plain;
    windowed.window = 4096;
    double pairs = 6.0 * 32 * 4096 * 8192;
    double all = strata_roofline_model_flops(&plain, 8192);
    /* Of the triangle of 8,192 rows a quarter lies outside of a window of half that. */
    cr_expect_float_eq(strata_roofline_model_flops(&windowed, 8192), all - pairs / 4,
                       1e-9 * all);
    cr_expect_lt(layer_ms("h100", &windowed, shape, ROOFLINE_FORWARD),
                 layer_ms("h100", &plain, shape, ROOFLINE_FORWARD));
    windowed.full_layers = 16;
    cr_expect_float_eq(strata_roofline_model_flops(&windowed, 8192), all - pairs / 8,
                       1e-9 * all);
    windowed.full_layers = 40; /* of 32: none has the window */
    cr_expect_eq(strata_roofline_model_flops(&windowed, 8192), all);
    windowed.window = 16384;
    cr_expect_eq(strata_roofline_model_flops(&windowed, 8192), all);
    struct roofline_op ops[ROOFLINE_MAX_OPS];
    struct decoder_config qwen = plain;
    const struct gpu *gpu = strata_gpu_named("h100");
    uint32_t before = strata_roofline_layer(ops, gpu, &plain, shape, ROOFLINE_BACKWARD);
    qwen.qkv_bias = qwen.qk_norm = true;
    uint32_t after = strata_roofline_layer(ops, gpu, &qwen, shape, ROOFLINE_BACKWARD);
    cr_expect_eq(after, before + 2);
    cr_expect_leq(after, ROOFLINE_MAX_OPS);
}

Test(roofline, a_gpu_of_the_catalogue_is_found_by_its_drivers_name)
{
    static const char *const names[][2] = {
        {"NVIDIA H200", "h200"},
        {"NVIDIA H100 80GB HBM3", "h100"},
        {"NVIDIA A100-SXM4-80GB", "a100"},
        {"NVIDIA A100-PCIE-40GB", "a100-40"},
        {"NVIDIA GeForce RTX 4090", "rtx4090"},
        {"NVIDIA L40S", "l40s"},
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const struct gpu *gpu = strata_gpu_of_model(names[i][0]);
        cr_assert_not_null(gpu, "%s", names[i][0]);
        cr_assert_str_eq(gpu->name, names[i][1]);
    }
    cr_assert_null(strata_gpu_of_model("NVIDIA GeForce GTX 1080"));
    cr_assert_null(strata_gpu_of_model("AMD EPYC 9254"));
}
