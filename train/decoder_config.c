/*
 * What a Llama is, from a config.json or by name.
 *
 * Strict where it decides the numbers: a key that would change the arithmetic and is not
 * carried out is refused by its name, so nobody trains something else than the file says. Keys
 * that only describe (torch_dtype, token ids, max_position_embeddings, ...) are passed over.
 * Absent keys have the defaults of Hugging Face's LlamaConfig, except the five sizes, which
 * must be there.
 *
 * Thread: any.
 */

#define _GNU_SOURCE

#include "train/decoder.h"

#include "base/json.h"
#include "base/error.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Larger than any model there is by a factor of 16 or more, and small enough that no product of
 * sizes in this program leaves 64 bits. */
#define LIMIT_VOCAB  (UINT64_C(1) << 24)
#define LIMIT_WIDTH  (UINT64_C(1) << 20)
#define LIMIT_LAYERS (UINT64_C(1) << 14)
#define LIMIT_HEADS  (UINT64_C(1) << 14)

#define PATH_BYTES 4096

struct named {
    const char *name;
    struct decoder_config config;
};

/*
 * Sizes of the published models; 125m and 350m are GPT-2's and GPT-3's widths as a Llama, with
 * the vocabulary of GPT-2 rounded up to a multiple of 64, tied.
 */
#define LLAMA3(factor)                                                                         \
    .rms_eps = 1e-5, .rope_theta = 500000.0, .initializer_range = 0.02, .rope_llama3 = true,   \
    .rope_factor = (factor), .rope_low_freq_factor = 1.0, .rope_high_freq_factor = 4.0,        \
    .rope_original_positions = 8192.0
#define LLAMA1 .rms_eps = 1e-6, .rope_theta = 10000.0, .initializer_range = 0.02
#define LLAMA2 .rms_eps = 1e-5, .rope_theta = 10000.0, .initializer_range = 0.02

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

strata_status strata_decoder_config_check(const char *model, strata_error *error)
{
    struct decoder_config config;
    size_t length = strlen(model);
    bool path =
        strchr(model, '/') != NULL || (length > 5 && strcmp(model + length - 5, ".json") == 0);
    if (path || strata_decoder_config_named(&config, model) || access(model, F_OK) == 0)
        return STRATA_OK;
    return strata_fail(error, STRATA_E_INVALID, 0,
                       "--model %.40s: no such name: give a config.json or one of %s", model,
                       strata_decoder_names());
}

/* Reading. The document and where its story goes. */
struct reader {
    const strata_json *doc;
    strata_error *error;
};

static strata_status refuse_uint(struct reader *r, const char *key, uint64_t value,
                                 const char *why)
{
    return strata_fail(r->error, STRATA_E_INVALID, 0, "%s is %llu: %s", key,
                       (unsigned long long)value, why);
}

/* A size that must be there, from 1 to limit. */
static strata_status read_size(struct reader *r, const char *key, uint64_t limit, uint64_t *out)
{
    STRATA_TRY(strata_json_get_uint(r->doc, key, out, r->error));
    if (*out == 0)
        return refuse_uint(r, key, *out, "must be at least 1");
    if (*out > limit)
        return strata_fail(r->error, STRATA_E_INVALID, 0, "%s is %llu: at most %llu", key,
                           (unsigned long long)*out, (unsigned long long)limit);
    return STRATA_OK;
}

static strata_status read_size_or(struct reader *r, const char *key, uint64_t limit,
                                  uint64_t *out)
{
    return strata_json_has(r->doc, key) ? read_size(r, key, limit, out) : STRATA_OK;
}

/* A number above 0; *out keeps its value where the key is absent. */
static strata_status read_positive_or(struct reader *r, const char *key, double *out)
{
    if (!strata_json_has(r->doc, key))
        return STRATA_OK;
    STRATA_TRY(strata_json_get_number(r->doc, key, out, r->error));
    if (!(*out > 0.0) || !isfinite(*out))
        return strata_fail(r->error, STRATA_E_INVALID, 0, "%s is %g: must be above 0", key,
                           *out);
    return STRATA_OK;
}

static strata_status read_positive(struct reader *r, const char *key, double *out)
{
    if (!strata_json_has(r->doc, key))
        return strata_fail(r->error, STRATA_E_INVALID, 0, "%s is missing", key);
    return read_positive_or(r, key, out);
}

/* A text that may be absent but nothing else than wanted. */
static strata_status only_text(struct reader *r, const char *key, const char *wanted)
{
    const char *text;
    if (!strata_json_has(r->doc, key))
        return STRATA_OK;
    STRATA_TRY(strata_json_get_string(r->doc, key, &text, r->error));
    if (strcmp(text, wanted) != 0)
        return strata_fail(r->error, STRATA_E_INVALID, 0,
                           "%s is \"%.64s\": only \"%s\" is known", key, text, wanted);
    return STRATA_OK;
}

static strata_status only_false(struct reader *r, const char *key)
{
    bool value;
    if (!strata_json_has(r->doc, key))
        return STRATA_OK;
    STRATA_TRY(strata_json_get_bool(r->doc, key, &value, r->error));
    if (value)
        return strata_fail(r->error, STRATA_E_INVALID, 0, "%s is true: only false is known",
                           key);
    return STRATA_OK;
}

static strata_status only_number(struct reader *r, const char *key, double wanted)
{
    double value;
    if (!strata_json_has(r->doc, key))
        return STRATA_OK;
    STRATA_TRY(strata_json_get_number(r->doc, key, &value, r->error));
    if (value != wanted)
        return strata_fail(r->error, STRATA_E_INVALID, 0, "%s is %g: only %g is known", key,
                           value, wanted);
    return STRATA_OK;
}

static strata_status only_absent(struct reader *r, const char *key)
{
    if (!strata_json_has(r->doc, key))
        return STRATA_OK;
    return strata_fail(r->error, STRATA_E_INVALID, 0, "%s is set: not known here", key);
}

static strata_status check_architecture(struct reader *r)
{
    const strata_json *list;
    STRATA_TRY(strata_json_get_array(r->doc, "architectures", &list, r->error));
    const char *name =
        strata_json_count(list) == 1 ? strata_json_text_of(strata_json_at(list, 0)) : NULL;
    if (name == NULL)
        return strata_fail(r->error, STRATA_E_INVALID, 0,
                           "architectures: one name is wanted, \"LlamaForCausalLM\"");
    if (strcmp(name, "LlamaForCausalLM") != 0)
        return strata_fail(r->error, STRATA_E_INVALID, 0,
                           "architectures is \"%.64s\": only \"LlamaForCausalLM\" is known",
                           name);
    return only_text(r, "model_type", "llama");
}

/* Whatever would change the arithmetic and is not carried out. */
static strata_status check_arithmetic(struct reader *r)
{
    STRATA_TRY(check_architecture(r));
    STRATA_TRY(only_text(r, "hidden_act", "silu"));
    STRATA_TRY(only_false(r, "attention_bias"));
    STRATA_TRY(only_false(r, "mlp_bias"));
    STRATA_TRY(only_number(r, "attention_dropout", 0.0));
    STRATA_TRY(only_number(r, "partial_rotary_factor", 1.0));
    STRATA_TRY(only_number(r, "pretraining_tp", 1.0));
    STRATA_TRY(only_absent(r, "sliding_window"));
    return only_absent(r, "quantization_config");
}

static strata_status read_llama3(struct reader *r, struct decoder_config *out)
{
    out->rope_llama3 = true;
    STRATA_TRY(read_positive(r, "factor", &out->rope_factor));
    STRATA_TRY(read_positive(r, "low_freq_factor", &out->rope_low_freq_factor));
    STRATA_TRY(read_positive(r, "high_freq_factor", &out->rope_high_freq_factor));
    STRATA_TRY(
        read_positive(r, "original_max_position_embeddings", &out->rope_original_positions));
    if (out->rope_high_freq_factor <= out->rope_low_freq_factor)
        return strata_fail(r->error, STRATA_E_INVALID, 0,
                           "high_freq_factor is %g: must be above low_freq_factor, %g",
                           out->rope_high_freq_factor, out->rope_low_freq_factor);
    return STRATA_OK;
}

/* rope_scaling, or rope_parameters, which newer files have in its place with the base in it. */
static strata_status read_rope(struct reader *r, const char *key, struct decoder_config *out)
{
    const char *type = NULL;
    struct reader rope = {NULL, r->error};
    if (!strata_json_has(r->doc, key))
        return STRATA_OK;
    STRATA_TRY(strata_json_get_object(r->doc, key, &rope.doc, r->error));
    STRATA_TRY(strata_json_get_string(
        rope.doc, strata_json_has(rope.doc, "rope_type") ? "rope_type" : "type", &type,
        r->error));
    STRATA_TRY(read_positive_or(&rope, "rope_theta", &out->rope_theta));
    if (strcmp(type, "default") == 0)
        return STRATA_OK;
    if (strcmp(type, "llama3") != 0)
        return strata_fail(r->error, STRATA_E_INVALID, 0,
                           "%s has type \"%.64s\": only null and \"llama3\" are known", key,
                           type);
    return read_llama3(&rope, out);
}

static strata_status read_heads(struct reader *r, struct decoder_config *out)
{
    STRATA_TRY(read_size(r, "num_attention_heads", LIMIT_HEADS, &out->head_count));
    out->kv_head_count = out->head_count;
    STRATA_TRY(read_size_or(r, "num_key_value_heads", LIMIT_HEADS, &out->kv_head_count));
    if (out->hidden_size % out->head_count != 0)
        return strata_fail(r->error, STRATA_E_INVALID, 0,
                           "hidden_size is %llu: not a multiple of num_attention_heads, %llu",
                           (unsigned long long)out->hidden_size,
                           (unsigned long long)out->head_count);
    if (out->head_count % out->kv_head_count != 0)
        return strata_fail(
            r->error, STRATA_E_INVALID, 0,
            "num_attention_heads is %llu: not a multiple of num_key_value_heads, %llu",
            (unsigned long long)out->head_count, (unsigned long long)out->kv_head_count);
    out->head_dim = out->hidden_size / out->head_count;
    STRATA_TRY(read_size_or(r, "head_dim", LIMIT_WIDTH, &out->head_dim));
    if (out->head_dim % 2 != 0)
        return refuse_uint(r, "head_dim", out->head_dim,
                           "must be even, rotary embedding turns pairs");
    if (out->head_dim * out->head_count > LIMIT_WIDTH)
        return refuse_uint(r, "head_dim", out->head_dim,
                           "times num_attention_heads, at most 1048576");
    return STRATA_OK;
}

static strata_status read_config(struct reader *r, struct decoder_config *out)
{
    *out = (struct decoder_config){
        .rms_eps = 1e-6, .rope_theta = 10000.0, .initializer_range = 0.02};
    STRATA_TRY(check_arithmetic(r));
    STRATA_TRY(read_size(r, "vocab_size", LIMIT_VOCAB, &out->vocab_size));
    STRATA_TRY(read_size(r, "hidden_size", LIMIT_WIDTH, &out->hidden_size));
    STRATA_TRY(read_size(r, "num_hidden_layers", LIMIT_LAYERS, &out->layer_count));
    STRATA_TRY(read_size(r, "intermediate_size", LIMIT_WIDTH, &out->ffn_size));
    STRATA_TRY(read_heads(r, out));
    STRATA_TRY(read_positive_or(r, "rms_norm_eps", &out->rms_eps));
    STRATA_TRY(read_positive_or(r, "rope_theta", &out->rope_theta));
    STRATA_TRY(read_positive_or(r, "initializer_range", &out->initializer_range));
    if (strata_json_has(r->doc, "tie_word_embeddings"))
        STRATA_TRY(strata_json_get_bool(r->doc, "tie_word_embeddings", &out->tied, r->error));
    STRATA_TRY(read_rope(r, "rope_scaling", out));
    return read_rope(r, "rope_parameters", out);
}

/* The file itself: path, or config.json in the folder path. */
static strata_status config_path(char *out, const char *path, strata_error *error)
{
    struct stat info;
    if (stat(path, &info) != 0)
        return strata_fail(
            error, STRATA_E_IO, errno,
            "model %.128s: %s: give a config.json, a folder that has one, or a name", path,
            strerror(errno));
    int length =
        snprintf(out, PATH_BYTES, "%s%s", path, S_ISDIR(info.st_mode) ? "/config.json" : "");
    if (length < 0 || length >= PATH_BYTES)
        return strata_fail(error, STRATA_E_IO, ENAMETOOLONG, "model %.128s...: path too long",
                           path);
    return STRATA_OK;
}

strata_status strata_decoder_config_read(struct decoder_config *out, const char *model,
                                         strata_error *error)
{
    char file[PATH_BYTES];
    strata_json *doc = NULL;
    strata_error cause = {0};
    if (strata_decoder_config_named(out, model))
        return STRATA_OK;
    STRATA_TRY(config_path(file, model, error));
    STRATA_TRY(strata_json_read_file(&doc, file, error));
    struct reader reader = {doc, &cause};
    strata_status status = read_config(&reader, out);
    strata_json_free(doc);
    if (status != STRATA_OK)
        strata_fail(error, status, cause.native, "%.100s: %.140s", file, cause.message);
    return status;
}
