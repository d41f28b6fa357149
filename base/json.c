#define _GNU_SOURCE

/*
 * JSON by jansson, the only file that knows it.
 *
 * A strata_json is jansson's own value under another name, so that getters lend pointers into
 * the document without making anything.
 *
 * The builder's functions return nothing, or every line of a report would end in error
 * handling. A failure has to be remembered all the same, since half a report is worse than
 * none. The value has no room for that, but it counts references, and a builder's container has
 * exactly one; a second reference, held by nobody, is the mark of a failure. It moves from a
 * member to the container when the member is set, so asking the outermost is enough.
 *
 * A config may be somebody's download: the size is limited before it is read, and duplicate
 * keys, trailing bytes, NUL characters and broken UTF-8 are refused, because two readers could
 * take such a text for two different things.
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

/* What one read() of a file whose size is not known in advance asks for. */
#define READ_BYTES ((size_t)64 << 10)

static json_t *value_of(strata_json *json)
{
    return (json_t *)json;
}

/* jansson's readers take const pointers, but its getters return what may be changed. */
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

/* name: what the story calls the document. */
static strata_status parse(strata_json **out, const char *text, size_t bytes, const char *name,
                           strata_error *error)
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

/* Read until the file ends or the limit is passed by a byte. *out is owned: free() it. */
static strata_status slurp(int fd, const char *path, char **out, size_t *out_bytes,
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
    strata_status status = slurp(fd, path, &text, &bytes, error);
    close(fd);
    if (status != STRATA_OK)
        return status;
    status = parse(out, text, bytes, path, error);
    free(text);
    return status;
}

strata_status strata_json_read_text(strata_json **out, const char *text, size_t bytes,
                                    strata_error *error)
{
    *out = NULL;
    return parse(out, text, bytes, "json text", error);
}

void strata_json_free(strata_json *json)
{
    if (!json)
        return;
    json_t *value = value_of(json);
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

/* A set of jansson's types, so that "a number" can be two of them. */
#define TYPE(type) (1u << (type))

/* The member if it is of one of the types; NULL with the story told. wanted: what to call
 * them. */
static const json_t *find(const strata_json *object, const char *key, uint32_t types,
                          const char *wanted, strata_error *error)
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
    const json_t *member = find(object, key, TYPE(JSON_INTEGER), "an integer from 0 up", error);
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
        find(object, key, TYPE(JSON_INTEGER) | TYPE(JSON_REAL), "a number", error);
    if (!member)
        return STRATA_E_INVALID;
    *out = json_number_value(member);
    return STRATA_OK;
}

strata_status strata_json_get_bool(const strata_json *object, const char *key, bool *out,
                                   strata_error *error)
{
    const json_t *member =
        find(object, key, TYPE(JSON_TRUE) | TYPE(JSON_FALSE), "true or false", error);
    if (!member)
        return STRATA_E_INVALID;
    *out = json_is_true(member);
    return STRATA_OK;
}

strata_status strata_json_get_string(const strata_json *object, const char *key,
                                     const char **out, strata_error *error)
{
    const json_t *member = find(object, key, TYPE(JSON_STRING), "a string", error);
    if (!member)
        return STRATA_E_INVALID;
    *out = json_string_value(member);
    return STRATA_OK;
}

strata_status strata_json_get_object(const strata_json *object, const char *key,
                                     const strata_json **out, strata_error *error)
{
    const json_t *member = find(object, key, TYPE(JSON_OBJECT), "an object", error);
    if (!member)
        return STRATA_E_INVALID;
    *out = (const strata_json *)member;
    return STRATA_OK;
}

strata_status strata_json_get_array(const strata_json *object, const char *key,
                                    const strata_json **out, strata_error *error)
{
    const json_t *member = find(object, key, TYPE(JSON_ARRAY), "an array", error);
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
        json_incref(value_of(json));
}

/* The container has taken one reference to the value; what has failed in it has failed in
 * both. */
static void take_over_mark(strata_json *container, strata_json *value)
{
    if (!has_failed(value))
        return;
    mark_failed(container);
    if (value)
        json_decref(value_of(value));
}

strata_json *strata_json_object(void)
{
    return (strata_json *)json_object();
}

strata_json *strata_json_array(void)
{
    return (strata_json *)json_array();
}

/* value is ours to give away, NULL when it could not be made. Without a container it goes
 * at once. */
static void set_value(strata_json *object, const char *key, json_t *value)
{
    if (!object)
        json_decref(value);
    else if (json_object_set_new(value_of(object), key, value) != 0)
        mark_failed(object);
}

void strata_json_set_uint(strata_json *object, const char *key, uint64_t value)
{
    /* The library's integers end at 2^63 - 1; what is beyond (a limit that is none) has no last
     * digits that anyone counts on. */
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
    set_value(object, key, value_of(value));
}

void strata_json_append(strata_json *array, strata_json *value)
{
    take_over_mark(array, value);
    if (!array)
        json_decref(value_of(value));
    else if (json_array_append_new(value_of(array), value_of(value)) != 0)
        mark_failed(array);
}

char *strata_json_write(const strata_json *json)
{
    /* 17 digits: what is read back is the double that was written. */
    if (has_failed(json))
        return NULL;
    return json_dumps(read_only(json), JSON_COMPACT | JSON_REAL_PRECISION(17));
}
