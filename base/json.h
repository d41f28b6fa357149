#ifndef STRATA_BASE_JSON_H
#define STRATA_BASE_JSON_H

/*
 * JSON for the programs on top of the library: a strict reader (duplicate keys, trailing bytes
 * and broken UTF-8 are errors) and a builder. Numbers stay numbers. Jansson does the work,
 * behind this header; it is here so that programs need no second JSON library.
 *
 *     strata_json *doc;
 *     strata_json_read_file(&doc, "config.json", &error);
 *     uint64_t layers;
 *     strata_json_get_uint(doc, "num_hidden_layers", &layers, &error);
 *     strata_json_free(doc);
 *
 * A getter's error names the key and what it found instead. Getters lend: what they return
 * lives as long as the document. Thread: one per document.
 */

#include "strata/status.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct strata_json strata_json;

/* Read a whole file or text; at most 64 MiB. *out is owned until strata_json_free(). */
STRATA_NODISCARD strata_status strata_json_read_file(strata_json **out, const char *path,
                                                     strata_error *error);
STRATA_NODISCARD strata_status strata_json_read_text(strata_json **out, const char *text,
                                                     size_t bytes, strata_error *error);
void strata_json_free(strata_json *json);

/* True when the object has this member and it is not null. */
bool strata_json_has(const strata_json *object, const char *key);
/* True when the object has this member and it is null. */
bool strata_json_is_null(const strata_json *object, const char *key);

/* STRATA_E_INVALID when the member is absent, of another type or out of range. */
STRATA_NODISCARD strata_status strata_json_get_uint(const strata_json *object, const char *key,
                                                    uint64_t *out, strata_error *error);
STRATA_NODISCARD strata_status strata_json_get_number(const strata_json *object,
                                                      const char *key, double *out,
                                                      strata_error *error);
STRATA_NODISCARD strata_status strata_json_get_bool(const strata_json *object, const char *key,
                                                    bool *out, strata_error *error);
STRATA_NODISCARD strata_status strata_json_get_string(const strata_json *object,
                                                      const char *key, const char **out,
                                                      strata_error *error);
STRATA_NODISCARD strata_status strata_json_get_object(const strata_json *object,
                                                      const char *key, const strata_json **out,
                                                      strata_error *error);
STRATA_NODISCARD strata_status strata_json_get_array(const strata_json *object, const char *key,
                                                     const strata_json **out,
                                                     strata_error *error);
size_t strata_json_count(const strata_json *array);
const strata_json *strata_json_at(const strata_json *array, size_t index);
/* The text of a string value (an array's element); NULL when it is something else. */
const char *strata_json_text_of(const strata_json *value);

/* Building. After a failed allocation strata_json_write() returns NULL. */
strata_json *strata_json_object(void);
strata_json *strata_json_array(void);
void strata_json_set_uint(strata_json *object, const char *key, uint64_t value);
/* A value that is not finite is written as null. */
void strata_json_set_number(strata_json *object, const char *key, double value);
void strata_json_set_bool(strata_json *object, const char *key, bool value);
void strata_json_set_string(strata_json *object, const char *key, const char *value);
/* value is taken over, by object or array. */
void strata_json_set(strata_json *object, const char *key, strata_json *value);
void strata_json_append(strata_json *array, strata_json *value);

/* One line without a newline; owned, free() it. NULL when memory ran out. */
char *strata_json_write(const strata_json *json);

#endif
