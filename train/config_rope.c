/*
 * Rotary embedding in a config.json, of both generations of keys:
 *
 *     rope_theta, and rope_scaling {rope_type or type, ...} where it is scaled
 *     rope_parameters {rope_type, rope_theta, ...}
 *
 * Both generations at once, two values for one key, a missing key of the type and a key of
 * another type are refused: in such cases the transformers library uses one of the values and
 * warns at most, and which one has changed between its versions.
 *
 * Thread: any.
 */

#include "train/config_reader.h"

#include "base/error.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* The object that holds the keys, and its name in the file. doc: NULL if there is none. */
struct rope_source {
    const char *name;
    struct config_reader rope;
    struct config_reader *file;
};

static strata_status refuse_rope_key(const struct rope_source *s, const char *key,
                                     const char *why)
{
    return strata_fail(s->file->error, STRATA_E_INVALID, 0, "%s: %s %s", s->name, key, why);
}

/* The types that each key belongs to: one bit per type. */
#define BIT(type) (1u << (type))
#define LLAMA3    BIT(DECODER_ROPE_LLAMA3)
#define LINEAR    BIT(DECODER_ROPE_LINEAR)
#define YARN      BIT(DECODER_ROPE_YARN)

static const struct {
    const char *name;
    uint32_t types;
} keys[] = {
    {"factor", LLAMA3 | LINEAR | YARN},
    {"original_max_position_embeddings", LLAMA3 | YARN},
    {"low_freq_factor", LLAMA3},
    {"high_freq_factor", LLAMA3},
    {"attention_factor", YARN},
    {"beta_fast", YARN},
    {"beta_slow", YARN},
    {"mscale", YARN},
    {"mscale_all_dim", YARN},
    {"truncate", YARN},
    /* Keys of types that we do not support. */
    {"short_factor", 0},
    {"long_factor", 0},
    {"short_mscale", 0},
    {"long_mscale", 0},
    {"alpha", 0},
    {"mrope_section", 0},
    {"mrope_interleaved", 0},
    {"full_attention", 0},
    {"sliding_attention", 0},
};

#define KEY_COUNT (sizeof keys / sizeof *keys)

static strata_status check_keys(const struct rope_source *s, enum decoder_rope_type type,
                                const char *type_name)
{
    for (size_t i = 0; i < KEY_COUNT; i++) {
        if ((keys[i].types & BIT(type)) != 0 || !strata_json_has(s->rope.doc, keys[i].name))
            continue;
        return strata_fail(s->file->error, STRATA_E_INVALID, 0,
                           "%s: %s is set, which type \"%s\" does not have: leave it out, or "
                           "give the type that it belongs to",
                           s->name, keys[i].name, type_name);
    }
    return STRATA_OK;
}

/* The type's name; "default" if the object has no scaling. */
static strata_status read_type_name(const struct rope_source *s, const char **out)
{
    const strata_json *rope = s->rope.doc;
    const char *older = NULL;
    *out = NULL;
    if (strata_json_has(rope, "rope_type"))
        STRATA_TRY(strata_json_get_string(rope, "rope_type", out, s->file->error));
    if (strata_json_has(rope, "type"))
        STRATA_TRY(strata_json_get_string(rope, "type", &older, s->file->error));
    if (*out != NULL && older != NULL && strcmp(*out, older) != 0)
        return strata_fail(s->file->error, STRATA_E_INVALID, 0,
                           "%s: rope_type is \"%.32s\" and type is \"%.32s\": leave one out",
                           s->name, *out, older);
    if (*out == NULL)
        *out = older;
    for (size_t i = 0; *out == NULL && i < KEY_COUNT; i++)
        if (strata_json_has(rope, keys[i].name))
            return strata_fail(s->file->error, STRATA_E_INVALID, 0,
                               "%s: rope_type is missing, but %s is set", s->name,
                               keys[i].name);
    if (*out == NULL)
        *out = "default";
    return STRATA_OK;
}

/* Refuse a key that has different values in its older and its newer place. */
static strata_status same_in_both(const struct rope_source *s, const char *key)
{
    double outer, inner;
    if (!strata_json_has(s->file->doc, key) || !strata_json_has(s->rope.doc, key))
        return STRATA_OK;
    STRATA_TRY(strata_json_get_number(s->file->doc, key, &outer, s->file->error));
    STRATA_TRY(strata_json_get_number(s->rope.doc, key, &inner, s->file->error));
    if (outer == inner)
        return STRATA_OK;
    return strata_fail(s->file->error, STRATA_E_INVALID, 0,
                       "%s is %g, and %g in %s: leave one out", key, outer, inner, s->name);
}

static strata_status read_original(struct rope_source *s, struct decoder_rope *out)
{
    static const char *const key = "original_max_position_embeddings";
    STRATA_TRY(same_in_both(s, key));
    if (strata_json_has(s->file->doc, key))
        return strata_config_positive(s->file, key, &out->original_positions);
    return strata_config_positive(&s->rope, key, &out->original_positions);
}

static strata_status read_llama3(struct rope_source *s, struct decoder_rope *out)
{
    STRATA_TRY(strata_config_positive(&s->rope, "factor", &out->factor));
    STRATA_TRY(strata_config_positive(&s->rope, "low_freq_factor", &out->low_freq_factor));
    STRATA_TRY(strata_config_positive(&s->rope, "high_freq_factor", &out->high_freq_factor));
    STRATA_TRY(read_original(s, out));
    if (out->high_freq_factor <= out->low_freq_factor)
        return strata_fail(s->file->error, STRATA_E_INVALID, 0,
                           "%s: high_freq_factor is %g: must be above low_freq_factor, %g",
                           s->name, out->high_freq_factor, out->low_freq_factor);
    return STRATA_OK;
}

/* Yarn's factor of the attention logits, for a stretch of `factor`. */
static double yarn_scale(double factor, double mscale)
{
    return factor <= 1.0 ? 1.0 : 0.1 * mscale * log(factor) + 1.0;
}

static strata_status read_yarn_attention(struct rope_source *s, struct decoder_rope *out)
{
    double mscale, all_dim;
    bool one = strata_json_has(s->rope.doc, "mscale");
    if (one != strata_json_has(s->rope.doc, "mscale_all_dim"))
        return refuse_rope_key(s, one ? "mscale" : "mscale_all_dim",
                               "is set alone: mscale and mscale_all_dim go together");
    out->attention_factor = yarn_scale(out->factor, 1.0);
    if (one) {
        STRATA_TRY(strata_config_positive(&s->rope, "mscale", &mscale));
        STRATA_TRY(strata_config_positive(&s->rope, "mscale_all_dim", &all_dim));
        out->attention_factor =
            yarn_scale(out->factor, mscale) / yarn_scale(out->factor, all_dim);
    }
    return strata_config_positive_or(&s->rope, "attention_factor", &out->attention_factor);
}

static strata_status read_yarn(struct rope_source *s, struct decoder_rope *out)
{
    STRATA_TRY(strata_config_positive(&s->rope, "factor", &out->factor));
    STRATA_TRY(read_original(s, out));
    STRATA_TRY(read_yarn_attention(s, out));
    out->beta_fast = 32.0;
    out->beta_slow = 1.0;
    STRATA_TRY(strata_config_positive_or(&s->rope, "beta_fast", &out->beta_fast));
    STRATA_TRY(strata_config_positive_or(&s->rope, "beta_slow", &out->beta_slow));
    if (out->beta_fast < out->beta_slow)
        return strata_fail(s->file->error, STRATA_E_INVALID, 0,
                           "%s: beta_fast is %g: must not be below beta_slow, %g", s->name,
                           out->beta_fast, out->beta_slow);
    if (!(out->theta > 1.0))
        return strata_fail(s->file->error, STRATA_E_INVALID, 0,
                           "rope_theta is %g: must be above 1 for type \"yarn\"", out->theta);
    out->whole_pairs = true;
    return strata_config_bool_or(&s->rope, "truncate", &out->whole_pairs);
}

static strata_status read_scaled(struct rope_source *s, struct decoder_rope *out)
{
    static const struct {
        const char *name;
        enum decoder_rope_type type;
    } types[] = {{"default", DECODER_ROPE_DEFAULT},
                 {"linear", DECODER_ROPE_LINEAR},
                 {"llama3", DECODER_ROPE_LLAMA3},
                 {"yarn", DECODER_ROPE_YARN}};
    const char *name;
    size_t i = 0;
    STRATA_TRY(read_type_name(s, &name));
    while (i < 4 && strcmp(types[i].name, name) != 0)
        i++;
    if (i == 4)
        return strata_fail(s->file->error, STRATA_E_INVALID, 0,
                           "%s: rope_type is \"%.32s\": only default, linear, llama3 and yarn "
                           "are known",
                           s->name, name);
    out->type = types[i].type;
    STRATA_TRY(check_keys(s, out->type, name));
    switch (out->type) {
    case DECODER_ROPE_LINEAR:
        return strata_config_positive(&s->rope, "factor", &out->factor);
    case DECODER_ROPE_LLAMA3:
        return read_llama3(s, out);
    case DECODER_ROPE_YARN:
        return read_yarn(s, out);
    case DECODER_ROPE_DEFAULT:
        break;
    }
    return STRATA_OK;
}

strata_status strata_config_rope(struct config_reader *r, struct decoder_config *out)
{
    static const char *const older = "rope_scaling", *const newer = "rope_parameters";
    struct rope_source s = {.name = newer, .rope = {NULL, r->error}, .file = r};
    STRATA_TRY(strata_config_only_number(r, "partial_rotary_factor", 1.0));
    STRATA_TRY(strata_config_positive_or(r, "rope_theta", &out->rope.theta));
    if (strata_json_has(r->doc, older) && strata_json_has(r->doc, newer))
        return strata_fail(r->error, STRATA_E_INVALID, 0,
                           "rope_scaling and rope_parameters are both set: leave one out");
    if (strata_json_has(r->doc, older))
        s.name = older;
    else if (!strata_json_has(r->doc, newer))
        return STRATA_OK;
    STRATA_TRY(strata_json_get_object(r->doc, s.name, &s.rope.doc, r->error));
    STRATA_TRY(strata_config_only_number(&s.rope, "partial_rotary_factor", 1.0));
    STRATA_TRY(same_in_both(&s, "rope_theta"));
    STRATA_TRY(strata_config_positive_or(&s.rope, "rope_theta", &out->rope.theta));
    return read_scaled(&s, &out->rope);
}
