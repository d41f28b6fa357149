/*
 * What a decoder is, from a config.json: finds the family and lets it read.
 *
 * A file says its family in `architectures`, in `model_type`, or in both, which must agree
 * then.
 *
 * Thread: any.
 */

#define _GNU_SOURCE

#include "train/family.h"

#include "base/error.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_BYTES  4096
#define KNOWN_BYTES 200

static const struct decoder_family *const families[] = {
    &strata_family_llama,
    &strata_family_mistral,
    &strata_family_qwen2,
    &strata_family_qwen3,
};

#define FAMILY_COUNT (sizeof families / sizeof *families)

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

static const struct decoder_family *family_by_architecture(const char *name)
{
    for (size_t i = 0; i < FAMILY_COUNT; i++)
        if (strcmp(families[i]->architecture, name) == 0)
            return families[i];
    return NULL;
}

static const struct decoder_family *family_by_type(const char *name)
{
    for (size_t i = 0; i < FAMILY_COUNT; i++)
        if (strcmp(families[i]->model_type, name) == 0)
            return families[i];
    return NULL;
}

/* The families, as the key says them. */
static const char *known(char *buffer, bool architectures)
{
    size_t used = 0;
    for (size_t i = 0; i < FAMILY_COUNT; i++)
        used += (size_t)snprintf(buffer + used, KNOWN_BYTES - used, "%s%s", i > 0 ? ", " : "",
                                 architectures ? families[i]->architecture
                                               : families[i]->model_type);
    return buffer;
}

static strata_status by_architectures(struct config_reader *r,
                                      const struct decoder_family **out)
{
    const strata_json *list;
    char buffer[KNOWN_BYTES];
    *out = NULL;
    if (!strata_json_has(r->doc, "architectures"))
        return STRATA_OK;
    STRATA_TRY(strata_json_get_array(r->doc, "architectures", &list, r->error));
    const char *name =
        strata_json_count(list) == 1 ? strata_json_text_of(strata_json_at(list, 0)) : NULL;
    if (name == NULL)
        return strata_fail(r->error, STRATA_E_INVALID, 0,
                           "architectures: one name is wanted, of %s", known(buffer, true));
    *out = family_by_architecture(name);
    if (*out == NULL)
        return strata_fail(r->error, STRATA_E_INVALID, 0,
                           "architectures is \"%.64s\": only %s are known", name,
                           known(buffer, true));
    return STRATA_OK;
}

static strata_status find_family(struct config_reader *r, const struct decoder_family **out)
{
    const char *type;
    char buffer[KNOWN_BYTES];
    STRATA_TRY(by_architectures(r, out));
    if (!strata_json_has(r->doc, "model_type")) {
        if (*out != NULL)
            return STRATA_OK;
        return strata_fail(r->error, STRATA_E_INVALID, 0,
                           "architectures and model_type are missing: give one of %s",
                           known(buffer, true));
    }
    STRATA_TRY(strata_json_get_string(r->doc, "model_type", &type, r->error));
    if (*out != NULL && strcmp((*out)->model_type, type) != 0)
        return strata_fail(r->error, STRATA_E_INVALID, 0,
                           "model_type is \"%.64s\", but architectures says %s: leave one out",
                           type, (*out)->architecture);
    *out = family_by_type(type);
    if (*out == NULL)
        return strata_fail(r->error, STRATA_E_INVALID, 0,
                           "model_type is \"%.64s\": only %s are known", type,
                           known(buffer, false));
    return STRATA_OK;
}

static strata_status read_config(struct config_reader *r, struct decoder_config *out)
{
    const struct decoder_family *family;
    STRATA_TRY(find_family(r, &family));
    *out = (struct decoder_config){0};
    return family->read(r, out);
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

bool strata_decoder_has_weights(const char *model)
{
    static const char *const endings[] = {".safetensors", ".bin", ".pt", ".pth", ".gguf"};
    bool found = false;
    struct decoder_config named;
    DIR *dir = strata_decoder_config_named(&named, model) ? NULL : opendir(model);
    for (struct dirent *entry; dir != NULL && !found && (entry = readdir(dir)) != NULL;)
        for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
            size_t length = strlen(entry->d_name);
            size_t ending = strlen(endings[i]);
            found = found || (length > ending &&
                              strcmp(entry->d_name + length - ending, endings[i]) == 0);
        }
    if (dir != NULL)
        closedir(dir);
    return found;
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
    struct config_reader reader = {doc, &cause};
    strata_status status = read_config(&reader, out);
    strata_json_free(doc);
    if (status != STRATA_OK)
        strata_fail(error, status, cause.native, "%.100s: %.140s", file, cause.message);
    return status;
}
