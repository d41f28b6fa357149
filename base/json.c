#define _GNU_SOURCE

/*
 * JSON by jansson; only this file includes its header.
 *
 * A strata_json is jansson's own value under another name, so getters return pointers into the
 * document and allocate nothing.
 *
 * The builder's functions return nothing; otherwise every line of a report would need error
 * handling. Still, a failure must be remembered, because half a report is worse than none. A
 * value has no field for that, but it has a reference count, which is exactly 1 for a
 * container of the builder. A count of 2 marks a failure. When a member is set, its mark moves
 * to the container, so the outermost container tells whether anything failed.
 *
 * A config may be a download from a stranger. So the size is limited before it is read, and
 * duplicate keys, trailing bytes, NUL characters and broken UTF-8 are refused: two readers
 * could understand such a text in two ways.
 *
 * Thread: one per document.
 */

#include "base/json.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The largest config of a published model is some kilobytes, a tokenizer's file some
 * megabytes. */
#define DOCUMENT_BYTES_MAX ((size_t)64 << 20)

/* Bytes that the first read() of a file asks for, as its size is not known. */
#define READ_BYTES ((size_t)64 << 10)

static json_t *jansson_value(strata_json *json)
{
    return (json_t *)json;
}

/* jansson's readers take const pointers. */
static const json_t *read_only(const strata_json *json)
{
    return (const json_t *)json;
}

static const char *type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number with a fraction";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    case JSON_NULL:
        return "null";
    }
    return "something else";
}

/* ---- reading ---- */

/* name: the document's name in an error. */
static strata_status parse_document(strata_json **out, const char *text, size_t bytes,
                                    const char *name, strata_error *error)
{
    if (bytes > DOCUMENT_BYTES_MAX)
        return strata_fail(error, STRATA_E_INVALID, 0, "%s: more than 64 MiB of JSON", name);
    json_error_t why;
    json_t *value = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &why);
    if (!value && json_error_code(&why) == json_error_out_of_memory)
        return strata_fail(error, STRATA_E_NOMEM, 0, "%s: out of memory", name);
    if (!value)
        return strata_fail(error, STRATA_E_INVALID, 0, "%s is no JSON: line %d, column %d: %s",
                           name, why.line, why.column, why.text);
    *out = (strata_json *)value;
    return STRATA_OK;
}

/* Read to the end of the file, or one byte past the limit. *out is owned: free() it. */
static strata_status read_whole_file(int fd, const char *path, char **out, size_t *out_bytes,
                                     strata_error *error)
{
    char *text = NULL;
    size_t bytes = 0;
    size_t room = 0;
    ssize_t got = 1;
    while (got > 0 && bytes <= DOCUMENT_BYTES_MAX) {
        if (bytes == room) {
            room = room ? room * 2 : READ_BYTES;
            char *larger = realloc(text, room);
            if (!larger) {
                free(text);
                return strata_fail(error, STRATA_E_NOMEM, 0, "%s: no %zu bytes to read it into",
                                   path, room);
            }
            text = larger;
        }
        got = read(fd, text + bytes, room - bytes);
        if (got < 0 && errno == EINTR)
            got = 1;
        else if (got > 0)
            bytes += (size_t)got;
    }
    if (got < 0) {
        int cause = errno;
        free(text);
        return strata_fail(error, STRATA_E_IO, cause, "read of %s: %s", path, strerror(cause));
    }
    *out = text;
    *out_bytes = bytes;
    return STRATA_OK;
}

strata_status strata_json_read_file(strata_json **out, const char *path, strata_error *error)
{
    *out = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return strata_fail(error, STRATA_E_IO, errno, "open of %s: %s", path, strerror(errno));
    char *text = NULL;
    size_t bytes = 0;
    strata_status status = read_whole_file(fd, path, &text, &bytes, error);
    close(fd);
    if (status != STRATA_OK)
        return status;
    status = parse_document(out, text, bytes, path, error);
    free(text);
    return status;
}

strata_status strata_json_read_text(strata_json **out, const char *text, size_t bytes,
                                    strata_error *error)
{
    *out = NULL;
    return parse_document(out, text, bytes, "json text", error);
}

void strata_json_free(strata_json *json)
{
    if (!json)
        return;
    json_t *value = jansson_value(json);
    if (value->refcount > 1)
        json_decref(value);
    json_decref(value);
}

bool strata_json_has(const strata_json *object, const char *key)
{
    const json_t *member = json_object_get(read_only(object), key);
    return member && !json_is_null(member);
}

bool strata_json_is_null(const strata_json *object, const char *key)
{
    return json_is_null(json_object_get(read_only(object), key));
}

/* A set of jansson's types, since "a number" can be an integer or a real. */
#define TYPE(type) (1u << (type))

/* The member if it has one of the types; else NULL, and error is filled. wanted: the name of
 * the types in the message. */
static const json_t *find_typed_member(const strata_json *object, const char *key,
                                       uint32_t types, const char *wanted, strata_error *error)
{
    const json_t *member = json_object_get(read_only(object), key);
    if (!member) {
        strata_fail(error, STRATA_E_INVALID, 0, "\"%s\" is missing: %s was expected", key,
                    wanted);
        return NULL;
    }
    if ((types & TYPE(json_typeof(member))) == 0) {
        strata_fail(error, STRATA_E_INVALID, 0, "\"%s\" is %s: %s was expected", key,
                    type_name(member), wanted);
        return NULL;
    }
    return member;
}

strata_status strata_json_get_uint(const strata_json *object, const char *key, uint64_t *out,
                                   strata_error *error)
{
    const json_t *member =
        find_typed_member(object, key, TYPE(JSON_INTEGER), "an integer from 0 up", error);
    if (!member)
        return STRATA_E_INVALID;
    json_int_t value = json_integer_value(member);
    if (value < 0)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "\"%s\" is %lld: an integer from 0 up was expected", key,
                           (long long)value);
    *out = (uint64_t)value;
    return STRATA_OK;
}

strata_status strata_json_get_number(const strata_json *object, const char *key, double *out,
                                     strata_error *error)
{
    const json_t *member =
        find_typed_member(object, key, TYPE(JSON_INTEGER) | TYPE(JSON_REAL), "a number", error);
    if (!member)
        return STRATA_E_INVALID;
    *out = json_number_value(member);
    return STRATA_OK;
}

strata_status strata_json_get_bool(const strata_json *object, const char *key, bool *out,
                                   strata_error *error)
{
    const json_t *member = find_typed_member(object, key, TYPE(JSON_TRUE) | TYPE(JSON_FALSE),
                                             "true or false", error);
    if (!member)
        return STRATA_E_INVALID;
    *out = json_is_true(member);
    return STRATA_OK;
}

strata_status strata_json_get_string(const strata_json *object, const char *key,
                                     const char **out, strata_error *error)
{
    const json_t *member = find_typed_member(object, key, TYPE(JSON_STRING), "a string", error);
    if (!member)
        return STRATA_E_INVALID;
    *out = json_string_value(member);
    return STRATA_OK;
}

strata_status strata_json_get_object(const strata_json *object, const char *key,
                                     const strata_json **out, strata_error *error)
{
    const json_t *member =
        find_typed_member(object, key, TYPE(JSON_OBJECT), "an object", error);
    if (!member)
        return STRATA_E_INVALID;
    *out = (const strata_json *)member;
    return STRATA_OK;
}

strata_status strata_json_get_array(const strata_json *object, const char *key,
                                    const strata_json **out, strata_error *error)
{
    const json_t *member = find_typed_member(object, key, TYPE(JSON_ARRAY), "an array", error);
    if (!member)
        return STRATA_E_INVALID;
    *out = (const strata_json *)member;
    return STRATA_OK;
}

size_t strata_json_count(const strata_json *array)
{
    return json_array_size(read_only(array));
}

const strata_json *strata_json_at(const strata_json *array, size_t index)
{
    return (const strata_json *)json_array_get(read_only(array), index);
}

const char *strata_json_text_of(const strata_json *value)
{
    return json_string_value(read_only(value));
}

/* ---- building ---- */

static bool has_failed(const strata_json *json)
{
    return !json || read_only(json)->refcount > 1;
}

static void mark_failed(strata_json *json)
{
    if (json && !has_failed(json))
        json_incref(jansson_value(json));
}

/* Move the mark of a failed value, which becomes a member, to its container. */
static void take_over_mark(strata_json *container, strata_json *value)
{
    if (!has_failed(value))
        return;
    mark_failed(container);
    if (value)
        json_decref(jansson_value(value));
}

strata_json *strata_json_object(void)
{
    return (strata_json *)json_object();
}

strata_json *strata_json_array(void)
{
    return (strata_json *)json_array();
}

/* Takes over value; NULL means that it could not be made. Without a container it is freed. */
static void set_value(strata_json *object, const char *key, json_t *value)
{
    if (!object)
        json_decref(value);
    else if (json_object_set_new(jansson_value(object), key, value) != 0)
        mark_failed(object);
}

void strata_json_set_uint(strata_json *object, const char *key, uint64_t value)
{
    /* The library's integers end at 2^63 - 1. A larger value, such as "no limit", is written
     * as a double: nobody needs its last digits. */
    set_value(object, key,
              value <= INT64_MAX ? json_integer((json_int_t)value) : json_real((double)value));
}

void strata_json_set_number(strata_json *object, const char *key, double value)
{
    set_value(object, key, isfinite(value) ? json_real(value) : json_null());
}

void strata_json_set_bool(strata_json *object, const char *key, bool value)
{
    set_value(object, key, json_boolean(value));
}

void strata_json_set_string(strata_json *object, const char *key, const char *value)
{
    set_value(object, key, json_string(value));
}

void strata_json_set(strata_json *object, const char *key, strata_json *value)
{
    take_over_mark(object, value);
    set_value(object, key, jansson_value(value));
}

void strata_json_append(strata_json *array, strata_json *value)
{
    take_over_mark(array, value);
    if (!array)
        json_decref(jansson_value(value));
    else if (json_array_append_new(jansson_value(array), jansson_value(value)) != 0)
        mark_failed(array);
}

char *strata_json_write(const strata_json *json)
{
    /* 17 digits, so that a reader gets back the same double. */
    if (has_failed(json))
        return NULL;
    return json_dumps(read_only(json), JSON_COMPACT | JSON_REAL_PRECISION(17));
}
