#define _GNU_SOURCE
/*
 * Configs of models: any file is a model or refused with one line, and a model's sizes are such
 * that what is computed from them stays within 64 bits.
 *
 * Input: the file. It is given by a path, as a user does, to a file in memory.
 *
 * Thread: one.
 */

#include "tests/fuzz/fuzz.h"
#include "train/decoder.h"

#include "base/error.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void expect_positive(double value)
{
    STRATA_CHECK(isfinite(value) && value > 0.0);
}

static void expect_sane_rope(const struct decoder_rope *rope)
{
    expect_positive(rope->theta);
    switch (rope->type) {
    case DECODER_ROPE_LLAMA3:
        expect_positive(rope->low_freq_factor);
        expect_positive(rope->original_positions);
        STRATA_CHECK(rope->high_freq_factor > rope->low_freq_factor);
        break;
    case DECODER_ROPE_YARN:
        STRATA_CHECK(rope->theta > 1.0 && rope->beta_fast >= rope->beta_slow);
        expect_positive(rope->beta_slow);
        expect_positive(rope->original_positions);
        expect_positive(rope->attention_factor);
        break;
    case DECODER_ROPE_LINEAR:
        break;
    case DECODER_ROPE_DEFAULT:
        return;
    }
    expect_positive(rope->factor);
}

static void expect_sane(const struct decoder_config *config)
{
    STRATA_CHECK(config->vocab_size > 0 && config->hidden_size > 0);
    STRATA_CHECK(config->layer_count > 0 && config->ffn_size > 0);
    STRATA_CHECK(config->head_count > 0 && config->kv_head_count > 0);
    STRATA_CHECK(config->head_count % config->kv_head_count == 0);
    STRATA_CHECK(config->head_dim > 0 && config->head_dim % 2 == 0);
    STRATA_CHECK(isfinite(config->rms_eps) && config->rms_eps > 0.0);
    STRATA_CHECK(config->window <= UINT64_C(1) << 31);
    STRATA_CHECK(config->full_layers <= UINT64_C(1) << 14);
    STRATA_CHECK(isfinite(config->initializer_range) && config->initializer_range > 0.0);
    expect_sane_rope(&config->rope);
    /* The bytes of the states of all layers: the largest product there is. */
    uint64_t row = config->head_dim * config->head_count * 4 + config->ffn_size * 3, all;
    STRATA_CHECK(!__builtin_mul_overflow(row, config->hidden_size, &all));
    STRATA_CHECK(!__builtin_mul_overflow(all, config->layer_count, &all));
    STRATA_CHECK(!__builtin_mul_overflow(all, 16, &all));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    char path[64];
    struct decoder_config config;
    strata_error error = {.status = STRATA_OK};
    int fd = memfd_create("config.json", MFD_CLOEXEC);
    STRATA_CHECK(fd >= 0);
    STRATA_CHECK(write(fd, data, bytes) == (ssize_t)bytes);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    strata_status status = strata_decoder_config_read(&config, path, &error);
    if (status == STRATA_OK) {
        expect_sane(&config);
    } else {
        STRATA_CHECK(status == STRATA_E_INVALID && error.status == status);
        STRATA_CHECK(error.message[0] != '\0' && strchr(error.message, '\n') == NULL);
    }
    close(fd);
    return 0;
}

/* The keys that must be there, with so many layers, and what the caller adds. */
static void seed(const char *name, unsigned layers, const char *more)
{
    char text[1024];
    snprintf(text, sizeof text,
             "{\"architectures\":[\"LlamaForCausalLM\"],\"vocab_size\":256,\"hidden_size\":64,"
             "\"num_hidden_layers\":%u,\"intermediate_size\":128,\"num_attention_heads\":4%s}",
             layers, more);
    strata_fuzz_seed_text(name, text);
}

static void seed_family(const char *family, const char *more)
{
    char text[1024];
    snprintf(text, sizeof text,
             "{\"model_type\":\"%s\",\"vocab_size\":256.0,\"hidden_size\":64,"
             "\"num_hidden_layers\":2,\"intermediate_size\":128,\"num_attention_heads\":4,"
             "\"num_key_value_heads\":2%s}",
             family, more);
    strata_fuzz_seed_text(family, text);
}

void strata_fuzz_seeds(void)
{
    seed("least", 1, "");
    seed("usual", 2,
         ",\"model_type\":\"llama\",\"hidden_act\":\"silu\",\"num_key_value_heads\":2,"
         "\"head_dim\":16,\"rms_norm_eps\":1e-5,\"rope_theta\":5e5,\"rope_scaling\":null,"
         "\"tie_word_embeddings\":true,\"attention_bias\":false,\"mlp_bias\":false");
    seed("llama3", 16384,
         ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1,"
         "\"high_freq_factor\":4,\"original_max_position_embeddings\":8192}");
    seed("rope_parameters", 2,
         ",\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":1e4}");
    seed(
        "yarn", 2,
        ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"mscale\":1,\"mscale_all_dim\":0.5,"
        "\"beta_fast\":32,\"beta_slow\":1,\"attention_factor\":1.1,\"truncate\":false,"
        "\"original_max_position_embeddings\":32768},\"hidden_act\":\"gelu_new\"");
    seed("linear", 2,
         ",\"rope_parameters\":{\"rope_type\":\"linear\",\"rope_theta\":1e6,\"factor\":2.5},"
         "\"partial_rotary_factor\":1.0");
    seed_family("mistral", ",\"sliding_window\":4096,\"head_dim\":16,\"hidden_act\":\"gelu\"");
    seed_family(
        "qwen2",
        ",\"use_sliding_window\":true,\"sliding_window\":7,\"max_window_layers\":1,"
        "\"use_mrope\":false,\"layer_types\":[\"full_attention\",\"sliding_attention\"]");
    seed_family("qwen3",
                ",\"attention_bias\":false,\"attention_dropout\":0.0,\"torch_dtype\":1");
    seed("no_layers", 0, "");
    seed("line_ends", 2, ",\"hidden_act\":\"si\\nlu\"");
    strata_fuzz_seed_text("not_json", "{\"architectures\": [");
}
