/*
 * The models that are known by name.
 *
 * Thread: any.
 */

#include "train/decoder.h"

#include <string.h>

struct named {
    const char *name;
    struct decoder_config config;
};

/*
 * Sizes of the published models; 125m and 350m are GPT-2's and GPT-3's widths as a Llama, with
 * the vocabulary of GPT-2 rounded up to a multiple of 64, tied.
 */
#define LLAMA3(by)                                                                             \
    .rms_eps = 1e-5, .initializer_range = 0.02,                                                \
    .rope = {.type = DECODER_ROPE_LLAMA3,                                                      \
             .theta = 500000.0,                                                                \
             .factor = (by),                                                                   \
             .low_freq_factor = 1.0,                                                           \
             .high_freq_factor = 4.0,                                                          \
             .original_positions = 8192.0}
#define LLAMA1 .rms_eps = 1e-6, .initializer_range = 0.02, .rope.theta = 10000.0
#define LLAMA2 .rms_eps = 1e-5, .initializer_range = 0.02, .rope.theta = 10000.0

/* In the order: vocabulary, hidden, layers, heads, key-value heads, head_dim, ffn. */
static const struct named named_models[] = {
    {"llama-125m", {50304, 768, 12, 12, 12, 64, 2048, LLAMA2, .tied = true}},
    {"llama-350m", {50304, 1024, 24, 16, 16, 64, 2736, LLAMA2, .tied = true}},
    {"llama-1b", {128256, 2048, 16, 32, 8, 64, 8192, LLAMA3(32.0), .tied = true}},
    {"llama-3b", {128256, 3072, 28, 24, 8, 128, 8192, LLAMA3(32.0), .tied = true}},
    {"llama-7b", {32000, 4096, 32, 32, 32, 128, 11008, LLAMA2}},
    {"llama-8b", {128256, 4096, 32, 32, 8, 128, 14336, LLAMA3(8.0)}},
    {"llama-13b", {32000, 5120, 40, 40, 40, 128, 13824, LLAMA2}},
    {"llama-33b", {32000, 6656, 60, 52, 52, 128, 17920, LLAMA1}},
    {"llama-70b", {128256, 8192, 80, 64, 8, 128, 28672, LLAMA3(8.0)}},
    {"llama-405b", {128256, 16384, 126, 128, 8, 128, 53248, LLAMA3(8.0)}},
};

#define NAMED_COUNT (sizeof named_models / sizeof *named_models)

bool strata_decoder_config_named(struct decoder_config *out, const char *name)
{
    for (size_t i = 0; i < NAMED_COUNT; i++) {
        if (strcmp(named_models[i].name, name) == 0) {
            *out = named_models[i].config;
            return true;
        }
    }
    return false;
}

const char *strata_decoder_names(void)
{
    return "llama-125m llama-350m llama-1b llama-3b llama-7b llama-8b llama-13b llama-33b "
           "llama-70b llama-405b";
}
