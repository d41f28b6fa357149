/*
 * What a config.json may say. Each refusal is checked by the word that the message must name.
 */

#include "base/shape.h"
#include "tests/support/suite_dir.h"
#include "train/decoder.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* What every Llama has; a test puts its own members behind it. */
#define BARE_SIZES                                                                             \
    "\"vocab_size\": 256, \"hidden_size\": 64, \"num_hidden_layers\": 2, "                     \
    "\"num_attention_heads\": 4, \"intermediate_size\": 176"
#define SIZES "\"architectures\": [\"LlamaForCausalLM\"], " BARE_SIZES

#define LLAMA3                                                                                 \
    "\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1.0, "                   \
    "\"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 8192"

static char file[sizeof dir.path + 16];

static void set_up(void)
{
    make_dir();
    snprintf(file, sizeof file, "%s/config.json", dir.path);
}

TestSuite(config, .init = set_up, .fini = remove_dir);

static void write_config(const char *text)
{
    FILE *out = fopen(file, "w");
    cr_assert_not_null(out);
    cr_assert_geq(fputs(text, out), 0);
    cr_assert_eq(fclose(out), 0);
}

static struct decoder_config accepted(const char *text)
{
    struct decoder_config config;
    strata_error error = {0};
    write_config(text);
    cr_assert(strata_decoder_config_read(&config, file, &error) == STRATA_OK, "%s",
              error.message);
    return config;
}

static void refused(const char *text, const char *named)
{
    struct decoder_config config;
    strata_error error = {0};
    write_config(text);
    cr_assert_eq(strata_decoder_config_read(&config, file, &error), STRATA_E_INVALID,
                 "accepted: %s", text);
    cr_assert_not_null(strstr(error.message, named), "\"%s\" does not name %s", error.message,
                       named);
    cr_assert_null(strchr(error.message, '\n'));
}

/* Each of these members beside the sizes is refused by its name. */
static void refused_members(const char *const *members, size_t count)
{
    char text[1024], name[64];
    for (size_t i = 0; i < count; i++) {
        cr_assert_eq(sscanf(members[i], "\"%63[^\"]\"", name), 1);
        snprintf(text, sizeof text, "{" SIZES ", %s}", members[i]);
        refused(text, name);
    }
}

/* The sizes again, with one of them replaced. */
static void refused_size(const char *key, const char *value, const char *named)
{
    static const char *const keys[] = {"vocab_size", "hidden_size", "num_hidden_layers",
                                       "num_attention_heads", "intermediate_size"};
    static const char *const values[] = {"256", "64", "2", "4", "176"};
    char text[512] = "{\"architectures\": [\"LlamaForCausalLM\"]";
    for (size_t i = 0; i < 5; i++) {
        const char *put = strcmp(keys[i], key) == 0 ? value : values[i];
        if (put != NULL)
            snprintf(text + strlen(text), sizeof text - strlen(text), ", \"%s\": %s", keys[i],
                     put);
    }
    strcat(text, "}");
    refused(text, named);
}

#define COUNT(array) (sizeof(array) / sizeof *(array))

Test(config, sizes_alone_get_the_defaults_of_the_transformers_library)
{
    struct decoder_config c = accepted("{" SIZES "}");
    cr_assert_eq(c.vocab_size, 256);
    cr_assert_eq(c.hidden_size, 64);
    cr_assert_eq(c.layer_count, 2);
    cr_assert_eq(c.head_count, 4);
    cr_assert_eq(c.kv_head_count, 4);
    cr_assert_eq(c.head_dim, 16);
    cr_assert_eq(c.ffn_size, 176);
    cr_assert_eq(c.rms_eps, 1e-6);
    cr_assert_eq(c.rope.theta, 10000.0);
    cr_assert_eq(c.initializer_range, 0.02);
    cr_assert(!c.tied && c.rope.type == DECODER_ROPE_DEFAULT);
    cr_assert(!c.qkv_bias && !c.qk_norm && c.window == 0 && c.activation == OP_SILU);
}

Test(config, everything_that_can_be_said_is_read)
{
    struct decoder_config c = accepted(
        "{" SIZES ", \"num_key_value_heads\": 2, \"head_dim\": 32, \"rms_norm_eps\": 1e-5, "
        "\"rope_theta\": 500000, \"initializer_range\": 0.01, \"tie_word_embeddings\": true, "
        "\"hidden_act\": \"silu\", \"attention_bias\": false, \"mlp_bias\": false, "
        "\"model_type\": \"llama\", \"rope_scaling\": {" LLAMA3 "}}");
    cr_assert_eq(c.kv_head_count, 2);
    cr_assert_eq(c.head_dim, 32);
    cr_assert_eq(c.rms_eps, 1e-5);
    cr_assert_eq(c.rope.theta, 500000.0);
    cr_assert_eq(c.initializer_range, 0.01);
    cr_assert(c.tied && c.rope.type == DECODER_ROPE_LLAMA3);
    cr_assert_eq(c.rope.factor, 8.0);
    cr_assert_eq(c.rope.low_freq_factor, 1.0);
    cr_assert_eq(c.rope.high_freq_factor, 4.0);
    cr_assert_eq(c.rope.original_positions, 8192.0);
}

Test(config, keys_that_only_describe_are_passed_over)
{
    struct decoder_config c = accepted(
        "{" SIZES
        ", \"_name_or_path\": \"x\", \"torch_dtype\": \"bfloat16\", \"bos_token_id\": 1, "
        "\"eos_token_id\": [2, 3], \"max_position_embeddings\": 4096, \"use_cache\": true, "
        "\"pretraining_tp\": 1, \"attention_dropout\": 0.0, \"rope_scaling\": null, "
        "\"head_dim\": null, \"num_key_value_heads\": null, \"quantization_config\": null, "
        "\"transformers_version\": \"4.40.0\"}");
    cr_assert_eq(c.kv_head_count, 4);
    cr_assert(c.rope.type == DECODER_ROPE_DEFAULT);
}

Test(config, newer_files_keep_the_base_in_rope_parameters)
{
    struct decoder_config c =
        accepted("{" SIZES
                 ", \"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 500.0}}");
    cr_assert_eq(c.rope.theta, 500.0);
    cr_assert(c.rope.type == DECODER_ROPE_DEFAULT);
    c = accepted("{" SIZES ", \"rope_parameters\": {\"rope_theta\": 500.0, " LLAMA3 "}}");
    cr_assert_eq(c.rope.theta, 500.0);
    cr_assert(c.rope.type == DECODER_ROPE_LLAMA3);
}

Test(config, a_folder_stands_for_its_config_json)
{
    struct decoder_config c;
    strata_error error = {0};
    write_config("{" SIZES "}");
    cr_assert(strata_decoder_config_read(&c, dir.path, &error) == STRATA_OK, "%s",
              error.message);
    cr_assert_eq(c.hidden_size, 64);
}

Test(config, what_is_not_there_is_an_io_error_with_its_errno)
{
    struct decoder_config c;
    strata_error error = {0};
    cr_assert_eq(strata_decoder_config_read(&c, file, &error), STRATA_E_IO);
    cr_assert_eq(error.native, ENOENT);
    cr_assert_not_null(strstr(error.message, "No such file"), "%s", error.message);
    error = (strata_error){0};
    cr_assert_eq(strata_decoder_config_read(&c, dir.path, &error), STRATA_E_IO);
    cr_assert_eq(error.native, ENOENT); /* there is no config.json in it */
}

Test(config, other_architectures_are_refused)
{
    refused("{}", "architectures");
    refused("{\"architectures\": []}", "architectures");
    refused("{\"architectures\": \"LlamaForCausalLM\"}", "architectures");
    refused("{\"architectures\": [\"GPT2LMHeadModel\"]}",
            "architectures is \"GPT2LMHeadModel\": only LlamaForCausalLM, MistralForCausalLM, "
            "Qwen2ForCausalLM, Qwen3ForCausalLM are known");
    refused("{\"architectures\": [\"Qwen3MoeForCausalLM\"]}", "Qwen3MoeForCausalLM");
    refused("{\"architectures\": [\"LlamaForCausalLM\", \"Other\"]}", "architectures");
    refused("{\"model_type\": \"gpt2\"}",
            "model_type is \"gpt2\": only llama, mistral, qwen2, qwen3 are known");
    refused("{\"model_type\": 7}", "model_type");
}

Test(config, a_family_that_is_said_twice_and_differently_is_refused)
{
    refused("{" SIZES ", \"model_type\": \"mistral\"}",
            "model_type is \"mistral\", but architectures says LlamaForCausalLM");
    refused("{" SIZES ", \"model_type\": \"gpt2\"}", "gpt2");
}

Test(config, the_model_type_alone_says_the_family)
{
    struct decoder_config c = accepted("{\"model_type\": \"llama\", " BARE_SIZES "}");
    cr_assert_eq(c.hidden_size, 64);
    c = accepted("{\"architectures\": null, \"model_type\": \"qwen2\", " BARE_SIZES
                 ", \"num_key_value_heads\": 4}");
    cr_assert(c.qkv_bias);
}

/* A config of a family, with the sizes and `more`. */
static const char *of_family(const char *family, const char *more)
{
    static char text[2048];
    snprintf(text, sizeof text, "{\"model_type\": \"%s\", " BARE_SIZES "%s%s}", family,
             *more != '\0' ? ", " : "", more);
    return text;
}

#define KV "\"num_key_value_heads\": 2"

Test(config, mistral_has_a_window_in_every_layer_unless_it_says_null)
{
    struct decoder_config c = accepted(of_family("mistral", KV));
    cr_assert_eq(c.window, 4096); /* the library's default */
    cr_assert_eq(c.full_layers, 0);
    cr_assert_eq(c.rms_eps, 1e-6);
    cr_assert(!c.qkv_bias && !c.qk_norm);
    c = accepted(of_family("mistral", KV ", \"sliding_window\": 1"));
    cr_assert_eq(c.window, 1);
    c = accepted(of_family("mistral", KV ", \"sliding_window\": null, \"head_dim\": 6"));
    cr_assert_eq(c.window, 0);
    cr_assert_eq(c.head_dim, 6);
    refused(of_family("mistral", KV ", \"sliding_window\": 0"), "sliding_window");
    refused(of_family("mistral", KV ", \"sliding_window\": 64.5"), "sliding_window");
    refused(of_family("mistral", KV ", \"sliding_window\": 4294967296"), "sliding_window");
    refused(of_family("mistral", KV ", \"head_dim\": 15"), "head_dim is 15: must be even");
    refused(of_family("mistral", KV ", \"attention_bias\": true"), "attention_bias");
    refused(of_family("mistral", KV ", \"mlp_bias\": true"), "mlp_bias");
}

Test(config, key_value_heads_that_are_absent_are_the_familys_and_null_means_all)
{
    refused(of_family("mistral", ""), "num_key_value_heads, 8"); /* of 4 heads */
    refused(of_family("qwen2", ""), "num_key_value_heads, 32");
    refused(of_family("qwen3", ""), "num_key_value_heads, 32");
    struct decoder_config c = accepted(of_family("qwen2", "\"num_key_value_heads\": null"));
    cr_assert_eq(c.kv_head_count, 4);
}

Test(config, qwen2_has_biases_and_qwen3_norms_of_heads_of_128)
{
    struct decoder_config c = accepted(of_family("qwen2", KV));
    cr_assert(c.qkv_bias && !c.qk_norm);
    cr_assert_eq(c.head_dim, 16);
    cr_assert_eq(c.window, 0);
    c = accepted(of_family("qwen3", KV));
    cr_assert(!c.qkv_bias && c.qk_norm);
    cr_assert_eq(c.head_dim, 128);
    cr_assert_eq(c.window, 0);
    refused(of_family("qwen3", KV ", \"attention_bias\": true"), "attention_bias");
    refused(of_family("qwen3", KV ", \"mlp_bias\": true"), "mlp_bias");
    refused(of_family("qwen2", KV ", \"mlp_bias\": true"), "mlp_bias");
    refused(of_family("qwen2", KV ", \"use_mrope\": true"), "use_mrope");
    refused(of_family("qwen3", KV ", \"use_mrope\": true"), "use_mrope");
}

Test(config, qwens_windows_begin_at_a_layer_where_they_are_in_use)
{
    struct decoder_config c = accepted(of_family("qwen2", KV ", \"sliding_window\": 7"));
    cr_assert_eq(c.window, 0);
    c = accepted(of_family("qwen3", KV ", \"use_sliding_window\": true"));
    cr_assert_eq(c.window, 4096);
    cr_assert_eq(c.full_layers, 28);
    c = accepted(of_family("qwen2", KV ", \"use_sliding_window\": true, \"sliding_window\": 7, "
                                       "\"max_window_layers\": 1"));
    cr_assert_eq(c.window, 7);
    cr_assert_eq(c.full_layers, 1);
    c = accepted(of_family("qwen2", KV ", \"use_sliding_window\": true, "
                                       "\"sliding_window\": null"));
    cr_assert_eq(c.window, 0);
    refused(of_family("qwen2", KV ", \"use_sliding_window\": 1"), "use_sliding_window");
    refused(of_family("qwen2", KV ", \"max_window_layers\": -1"), "max_window_layers");
    refused(of_family("qwen2", KV ", \"use_sliding_window\": true, \"sliding_window\": 0"),
            "sliding_window");
}

#define WINDOW KV ", \"use_sliding_window\": true, \"sliding_window\": 7, "

Test(config, layer_types_say_from_which_layer_on_there_are_windows)
{
    struct decoder_config c = accepted(of_family(
        "qwen3", WINDOW "\"layer_types\": [\"full_attention\", \"sliding_attention\"]"));
    cr_assert_eq(c.full_layers, 1);
    c = accepted(of_family("qwen3", WINDOW
                           "\"layer_types\": [\"sliding_attention\", \"sliding_attention\"]"));
    cr_assert_eq(c.full_layers, 0);
    c = accepted(
        of_family("qwen3", WINDOW "\"layer_types\": [\"full_attention\", \"full_attention\"]"));
    cr_assert_eq(c.full_layers, 2);
}

Test(config, layer_types_that_cannot_be_carried_out_are_refused)
{
    refused(of_family("qwen3", WINDOW "\"layer_types\": [\"sliding_attention\", "
                                      "\"full_attention\"]"),
            "layer_types: layer 1 is full_attention after one with a window");
    refused(of_family("qwen3", WINDOW "\"layer_types\": [\"full_attention\"]"),
            "layer_types has 1 layers: num_hidden_layers is 2");
    refused(of_family("qwen3", WINDOW "\"layer_types\": [\"full_attention\", \"linear\"]"),
            "linear");
    refused(of_family("qwen3", WINDOW "\"layer_types\": [\"full_attention\", 1]"),
            "layer_types");
    refused(of_family("qwen3", WINDOW "\"layer_types\": 2"), "layer_types");
    refused(of_family("qwen3", KV ", \"layer_types\": [\"full_attention\", "
                                  "\"sliding_attention\"]"),
            "no sliding_window is in use");
    refused("{" SIZES ", \"layer_types\": [\"full_attention\", \"sliding_attention\"]}",
            "layer_types");
}

Test(config, whole_numbers_may_be_written_with_a_point)
{
    struct decoder_config c = accepted(
        "{\"model_type\": \"llama\", \"vocab_size\": 256.0, \"hidden_size\": 6.4e1, "
        "\"num_hidden_layers\": 2.0, \"num_attention_heads\": 4, \"intermediate_size\": 176}");
    cr_assert_eq(c.vocab_size, 256);
    cr_assert_eq(c.hidden_size, 64);
}

Test(config, largest_sizes_are_accepted_and_one_more_is_not)
{
    struct decoder_config c = accepted(
        "{\"model_type\": \"llama\", \"vocab_size\": 16777216, \"hidden_size\": 1048576, "
        "\"num_hidden_layers\": 16384, \"num_attention_heads\": 16384, "
        "\"intermediate_size\": 1048576}");
    cr_assert_eq(c.head_dim, 64);
    refused_size("vocab_size", "16777217", "vocab_size is 16777217: at most 16777216");
    refused_size("hidden_size", "1048577", "hidden_size is 1048577: at most 1048576");
    refused_size("num_hidden_layers", "16385", "num_hidden_layers is 16385: at most 16384");
    refused_size("num_attention_heads", "16385", "num_attention_heads is 16385: at most 16384");
    refused_size("intermediate_size", "1048577", "intermediate_size");
}

Test(config, activations_are_told_by_the_librarys_names)
{
    static const struct {
        const char *name;
        enum op_activation activation;
    } known[] = {{"silu", OP_SILU},
                 {"swish", OP_SILU},
                 {"gelu", OP_GELU},
                 {"gelu_new", OP_GELU_TANH},
                 {"gelu_pytorch_tanh", OP_GELU_TANH}};
    for (size_t i = 0; i < COUNT(known); i++) {
        char more[64];
        snprintf(more, sizeof more, KV ", \"hidden_act\": \"%s\"", known[i].name);
        struct decoder_config c = accepted(of_family("qwen3", more));
        cr_assert_eq(c.activation, known[i].activation, "%s", known[i].name);
    }
}

Test(config, arithmetic_that_is_not_carried_out_is_refused)
{
    static const char *const members[] = {
        "\"hidden_act\": \"relu\"",   "\"attention_bias\": true",
        "\"mlp_bias\": true",         "\"mlp_bias\": 1",
        "\"attention_dropout\": 0.1", "\"pretraining_tp\": 2",
        "\"sliding_window\": 4096",   "\"quantization_config\": {\"bits\": 4}"};
    refused_members(members, COUNT(members));
}

Test(config, other_rope_scaling_is_refused)
{
    refused("{" SIZES ", \"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2.0}}",
            "rope_scaling: rope_type is \"dynamic\": only default, linear, llama3 and yarn");
    refused("{" SIZES ", \"rope_scaling\": {\"rope_type\": \"longrope\", \"factor\": 2.0}}",
            "longrope");
    refused("{" SIZES ", \"rope_scaling\": {\"factor\": 2.0}}", "rope_type is missing");
    refused("{" SIZES ", \"rope_scaling\": 2.0}", "rope_scaling");
    refused("{" SIZES ", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0}}",
            "low_freq_factor");
    refused("{" SIZES ", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0, "
            "\"low_freq_factor\": 4.0, \"high_freq_factor\": 4.0, "
            "\"original_max_position_embeddings\": 8192}}",
            "high_freq_factor");
    refused("{" SIZES ", \"rope_theta\": 0}", "rope_theta");
    refused("{" SIZES ", \"rope_theta\": -1.0}", "rope_theta");
}

/* A rope of one generation of keys, or of the other. */
static const char *with_rope(bool newer, const char *members)
{
    static char text[1024];
    snprintf(text, sizeof text, "{" SIZES ", \"%s\": {%s}}",
             newer ? "rope_parameters" : "rope_scaling", members);
    return text;
}

Test(config, ropes_are_read_in_both_generations_of_keys)
{
    for (int newer = 0; newer < 2; newer++) {
        struct decoder_config c =
            accepted(with_rope(newer, "\"rope_type\": \"linear\", \"factor\": 2.5"));
        cr_assert_eq(c.rope.type, DECODER_ROPE_LINEAR);
        cr_assert_eq(c.rope.factor, 2.5);
        c = accepted(with_rope(newer, "\"type\": \"linear\", \"rope_type\": \"linear\", "
                                      "\"factor\": 2, \"rope_theta\": 500"));
        cr_assert_eq(c.rope.theta, 500.0);
        c = accepted(with_rope(newer, LLAMA3));
        cr_assert_eq(c.rope.type, DECODER_ROPE_LLAMA3);
        c = accepted(with_rope(newer, ""));
        cr_assert_eq(c.rope.type, DECODER_ROPE_DEFAULT);
    }
}

#define YARN                                                                                   \
    "\"rope_type\": \"yarn\", \"factor\": 4, \"original_max_position_embeddings\": 32768"

Test(config, yarn_has_the_librarys_defaults)
{
    struct decoder_config c = accepted(with_rope(false, YARN));
    cr_assert_eq(c.rope.type, DECODER_ROPE_YARN);
    cr_assert_eq(c.rope.factor, 4.0);
    cr_assert_eq(c.rope.original_positions, 32768.0);
    cr_assert_eq(c.rope.beta_fast, 32.0);
    cr_assert_eq(c.rope.beta_slow, 1.0);
    cr_assert(c.rope.whole_pairs);
    cr_assert_float_eq(c.rope.attention_factor, 1.13862943611198906, 1e-15);
    c = accepted(with_rope(true, YARN ", \"mscale\": 1.0, \"mscale_all_dim\": 1.0, "
                                      "\"beta_fast\": 16, \"beta_slow\": 2, "
                                      "\"truncate\": false"));
    cr_assert_eq(c.rope.attention_factor, 1.0);
    cr_assert_eq(c.rope.beta_fast, 16.0);
    cr_assert_eq(c.rope.beta_slow, 2.0);
    cr_assert(!c.rope.whole_pairs);
    c = accepted(with_rope(true, YARN ", \"attention_factor\": 0.5"));
    cr_assert_eq(c.rope.attention_factor, 0.5);
    c = accepted("{" SIZES ", \"original_max_position_embeddings\": 64, \"rope_scaling\": "
                 "{\"rope_type\": \"yarn\", \"factor\": 0.5}}");
    cr_assert_eq(c.rope.original_positions, 64.0);
    cr_assert_eq(c.rope.attention_factor, 1.0); /* nothing is stretched */
}

Test(config, a_partial_rope_is_refused)
{
    refused(with_rope(false, "\"type\": \"linear\""), "factor");
    refused(with_rope(false, "\"type\": \"linear\", \"factor\": 0"), "factor is 0");
    refused(with_rope(true, "\"rope_type\": \"yarn\", \"factor\": 4.0"),
            "original_max_position_embeddings");
    refused(with_rope(true, "\"rope_type\": \"yarn\", "
                            "\"original_max_position_embeddings\": 64"),
            "factor");
    refused(with_rope(true, YARN ", \"mscale\": 1.0"), "mscale is set alone");
    refused(with_rope(true, YARN ", \"mscale_all_dim\": 1.0"), "mscale_all_dim is set alone");
    refused(with_rope(true, YARN ", \"beta_fast\": 1, \"beta_slow\": 2"), "beta_fast is 1");
    refused(with_rope(true, YARN ", \"truncate\": 1"), "truncate");
    refused(with_rope(true, YARN ", \"attention_factor\": 0"), "attention_factor");
    refused(with_rope(true, YARN ", \"rope_theta\": 1.0"), "rope_theta is 1: must be above 1");
    refused("{" SIZES ", \"partial_rotary_factor\": 0.5}", "partial_rotary_factor is 0.5");
    refused(with_rope(true, "\"partial_rotary_factor\": 0.5"), "partial_rotary_factor");
    refused(with_rope(false, "\"rope_type\": 3"), "rope_type");
}

Test(config, a_rope_that_contradicts_itself_is_refused)
{
    refused("{" SIZES ", \"rope_scaling\": {" LLAMA3 "}, \"rope_parameters\": {" LLAMA3 "}}",
            "rope_scaling and rope_parameters are both set");
    refused("{" SIZES ", \"rope_theta\": 500, \"rope_parameters\": {\"rope_theta\": 600}}",
            "rope_theta is 500, and 600 in rope_parameters");
    refused("{" SIZES ", \"original_max_position_embeddings\": 64, \"rope_scaling\": {" YARN
            "}}",
            "original_max_position_embeddings is 64, and 32768 in rope_scaling");
    refused(with_rope(false, "\"type\": \"linear\", \"rope_type\": \"yarn\", \"factor\": 2"),
            "rope_type is \"yarn\" and type is \"linear\"");
    refused(with_rope(true, "\"rope_type\": \"default\", \"factor\": 2.0"),
            "factor is set, which type \"default\" does not have");
    refused(with_rope(true, LLAMA3 ", \"beta_fast\": 32"), "beta_fast");
    refused(with_rope(true, YARN ", \"low_freq_factor\": 1"), "low_freq_factor");
    refused(with_rope(true, YARN ", \"mrope_section\": [1, 2]"), "mrope_section");
    refused(with_rope(true, "\"full_attention\": {\"rope_theta\": 5.0}"), "full_attention");
    struct decoder_config c = accepted(
        "{" SIZES ", \"rope_theta\": 500, \"rope_parameters\": {\"rope_theta\": 500.0}}");
    cr_assert_eq(c.rope.theta, 500.0); /* twice the same is no contradiction */
}

Test(config, sizes_that_are_missing_zero_absurd_or_no_numbers_are_refused)
{
    static const char *const keys[] = {"vocab_size", "hidden_size", "num_hidden_layers",
                                       "num_attention_heads", "intermediate_size"};
    static const char *const wrong[] = {NULL, "0", "-4", "1099511627776", "\"64\"", "64.5"};
    for (size_t i = 0; i < 5; i++)
        for (size_t j = 0; j < 6; j++)
            refused_size(keys[i], wrong[j], keys[i]);
}

Test(config, sizes_that_do_not_divide_are_refused)
{
    static const char *const members[] = {"\"num_key_value_heads\": 3",
                                          "\"num_key_value_heads\": 8",
                                          "\"num_key_value_heads\": 0",
                                          "\"head_dim\": 15",
                                          "\"head_dim\": 0",
                                          "\"head_dim\": 1048576"};
    refused_size("hidden_size", "66", "hidden_size");
    refused_size("num_attention_heads", "64", "head_dim"); /* 64 / 64 = 1 is odd */
    refused_members(members, COUNT(members));
}

Test(config, numbers_out_of_range_are_refused)
{
    static const char *const members[] = {"\"rms_norm_eps\": 0", "\"rms_norm_eps\": \"1e-5\"",
                                          "\"initializer_range\": -0.02",
                                          "\"tie_word_embeddings\": 1"};
    refused_members(members, COUNT(members));
}

Test(config, text_that_is_no_json_object_is_refused)
{
    refused("", "");
    refused("[]", "");
    refused("{" SIZES, "");
    refused("{" SIZES "} x", "");
    refused("{" SIZES ", \"vocab_size\": 512}", "vocab_size");
}

Test(config, a_text_with_line_ends_in_it_is_refused_with_one_line)
{
    refused("{" SIZES ", \"hidden_act\": \"si\\nlu\\u001b[2J\"}", "hidden_act");
}

/* Parameters of a model, without its padding. */
static double params_of(const struct decoder_config *c)
{
    double h = (double)c->hidden_size, q = (double)(c->head_count * c->head_dim);
    double kv = (double)(c->kv_head_count * c->head_dim), ffn = (double)c->ffn_size;
    double layer = 2.0 * h * q + 2.0 * h * kv + 3.0 * h * ffn + 2.0 * h;
    return (double)c->layer_count * layer + (double)c->vocab_size * h * (c->tied ? 1.0 : 2.0) +
           h;
}

Test(config, named_models_have_the_parameters_of_their_names)
{
    /* The published counts; for 125m and 350m, which are this project's, what the name says. */
    static const struct {
        const char *name;
        double params;
    } models[] = {
        {"llama-125m", 124e6},        {"llama-350m", 354e6},
        {"llama-1b", 1235814400.0},   {"llama-3b", 3212749824.0},
        {"llama-7b", 6738415616.0},   {"llama-8b", 8030261248.0},
        {"llama-13b", 13015864320.0}, {"llama-33b", 32528943616.0},
        {"llama-70b", 70553706496.0}, {"llama-405b", 405853388800.0},
    };
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        struct decoder_config c;
        cr_assert(strata_decoder_config_named(&c, models[i].name), "%s", models[i].name);
        double off = params_of(&c) / models[i].params - 1.0;
        double allowed = models[i].params < 1e9 ? 0.01 : 1e-9;
        cr_assert(off > -allowed && off < allowed, "%s has %.0f parameters, not %.0f",
                  models[i].name, params_of(&c), models[i].params);
        cr_assert_not_null(strstr(strata_decoder_names(), models[i].name));
    }
}

/* What published files have beside the keys that are read. */
#define COMMON_KEYS                                                                            \
    ",\"attention_dropout\":0.0,\"bos_token_id\":1,\"eos_token_id\":2,\"hidden_act\":"         \
    "\"silu\","                                                                                \
    "\"initializer_range\":0.02,\"torch_dtype\":\"bfloat16\",\"use_cache\":true,"              \
    "\"transformers_version\":\"4.40.1\"}"

static uint64_t params_from(const struct decoder_config *config)
{
    const struct decoder_shape shape = {
        .seq = 8, .batch = 1, .micro_batch = 1, .compute_dtype = STRATA_BF16};
    struct decoder *decoder;
    strata_error error = {0};
    uint64_t params = 0;
    cr_assert(strata_decoder_create(&decoder, config, &shape, NULL, &error) == STRATA_OK, "%s",
              error.message);
    const strata_model_desc *model = strata_decoder_model(decoder);
    for (uint32_t i = 0; i < model->group_count; i++)
        params += strata_group_elems(&model->groups[i]);
    strata_decoder_destroy(decoder);
    return params;
}

Test(config, published_files_are_read_and_give_the_published_number_of_parameters)
{
    static const struct {
        const char *name;
        uint64_t params;
        const char *text;
    } files[] = {
        {"Qwen2.5 7B", UINT64_C(7615616512),
         "{\"architectures\":[\"Qwen2ForCausalLM\"],\"hidden_size\":3584,"
         "\"intermediate_size\":18944,\"max_position_embeddings\":131072,"
         "\"max_window_layers\":28,\"model_type\":\"qwen2\","
         "\"num_attention_heads\":28,\"num_hidden_layers\":28,"
         "\"num_key_value_heads\":4,\"rms_norm_eps\":1e-06,\"rope_theta\":1000000.0,"
         "\"sliding_window\":131072,\"tie_word_embeddings\":false,"
         "\"use_mrope\":false,\"use_sliding_window\":false,\"vocab_size\":152064" COMMON_KEYS},
        {"Qwen3 0.6B", UINT64_C(596049920),
         "{\"architectures\":[\"Qwen3ForCausalLM\"],\"attention_bias\":false,"
         "\"head_dim\":128,\"hidden_size\":1024,\"intermediate_size\":3072,"
         "\"max_position_embeddings\":40960,\"max_window_layers\":28,"
         "\"model_type\":\"qwen3\",\"num_attention_heads\":16,"
         "\"num_hidden_layers\":28,\"num_key_value_heads\":8,\"rms_norm_eps\":1e-06,"
         "\"rope_scaling\":null,\"rope_theta\":1000000,\"sliding_window\":null,"
         "\"tie_word_embeddings\":true,\"use_sliding_window\":false,"
         "\"vocab_size\":151936" COMMON_KEYS},
        {"Mistral 7B", UINT64_C(7241732096),
         "{\"architectures\":[\"MistralForCausalLM\"],\"hidden_size\":4096,"
         "\"intermediate_size\":14336,\"max_position_embeddings\":32768,"
         "\"model_type\":\"mistral\",\"num_attention_heads\":32,"
         "\"num_hidden_layers\":32,\"num_key_value_heads\":8,\"rms_norm_eps\":1e-05,"
         "\"rope_theta\":10000.0,\"sliding_window\":4096,"
         "\"tie_word_embeddings\":false,\"vocab_size\":32000" COMMON_KEYS},
        {"Mistral Nemo", UINT64_C(12247782400),
         "{\"architectures\":[\"MistralForCausalLM\"],\"head_dim\":128,"
         "\"hidden_size\":5120,\"intermediate_size\":14336,"
         "\"max_position_embeddings\":131072,\"model_type\":\"mistral\","
         "\"num_attention_heads\":32,\"num_hidden_layers\":40,"
         "\"num_key_value_heads\":8,\"rms_norm_eps\":1e-05,\"rope_theta\":1000000.0,"
         "\"sliding_window\":null,\"tie_word_embeddings\":false,"
         "\"vocab_size\":131072" COMMON_KEYS},
    };
    for (size_t i = 0; i < COUNT(files); i++) {
        struct decoder_config c = accepted(files[i].text);
        cr_assert_eq(params_from(&c), files[i].params, "%s has %llu parameters", files[i].name,
                     (unsigned long long)params_from(&c));
    }
}

Test(config, unknown_names_are_not_found)
{
    struct decoder_config c;
    cr_assert(!strata_decoder_config_named(&c, "llama-2b"));
    cr_assert(!strata_decoder_config_named(&c, ""));
    cr_assert(!strata_decoder_config_named(&c, "LLAMA-1B"));
}
