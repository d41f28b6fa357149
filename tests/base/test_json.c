#define _GNU_SOURCE

/* JSON: what is read, what is refused with which words, and that a report is whole or not
 * at all. */

#include "base/json.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static strata_json *read_text(const char *text)
{
    strata_json *json;
    strata_error error = {0};
    cr_assert_eq(strata_json_read_text(&json, text, strlen(text), &error), STRATA_OK, "%s: %s",
                 text, error.message);
    return json;
}

static void refuse_bytes(const char *text, size_t bytes, const char *because)
{
    strata_json *json = (void *)1;
    strata_error error = {0};
    cr_assert_eq(strata_json_read_text(&json, text, bytes, &error), STRATA_E_INVALID, "%s",
                 text);
    cr_assert_null(json);
    cr_assert(strstr(error.message, because), "%s: %s", text, error.message);
}

Test(json, values_come_out_as_they_are)
{
    strata_json *json =
        read_text("{\"layers\": 30, \"eps\": 1e-5, \"tied\": true, \"no\": false,"
                  " \"name\": \"Llama \\u00e9\", \"none\": null,"
                  " \"list\": [\"a\", 2, \"c\"], \"in\": {\"x\": -1}}");
    uint64_t layers;
    double number;
    bool flag;
    const char *name;
    const strata_json *part;
    strata_error error = {0};
    cr_assert_eq(strata_json_get_uint(json, "layers", &layers, &error), STRATA_OK);
    cr_assert_eq(layers, 30);
    cr_assert_eq(strata_json_get_number(json, "layers", &number, &error), STRATA_OK);
    cr_assert_eq(number, 30.0);
    cr_assert_eq(strata_json_get_number(json, "eps", &number, &error), STRATA_OK);
    cr_assert_eq(number, 1e-5);
    cr_assert_eq(strata_json_get_bool(json, "tied", &flag, &error), STRATA_OK);
    cr_assert(flag);
    cr_assert_eq(strata_json_get_bool(json, "no", &flag, &error), STRATA_OK);
    cr_assert_not(flag);
    cr_assert_eq(strata_json_get_string(json, "name", &name, &error), STRATA_OK);
    cr_assert_str_eq(name, "Llama \xc3\xa9");
    cr_assert_eq(strata_json_get_array(json, "list", &part, &error), STRATA_OK);
    cr_assert_eq(strata_json_count(part), 3);
    cr_assert_str_eq(strata_json_text_of(strata_json_at(part, 2)), "c");
    cr_assert_null(strata_json_text_of(strata_json_at(part, 1)));
    cr_assert_null(strata_json_at(part, 3));
    cr_assert_eq(strata_json_get_object(json, "in", &part, &error), STRATA_OK);
    cr_assert_eq(strata_json_get_number(part, "x", &number, &error), STRATA_OK);
    cr_assert_eq(number, -1.0);
    strata_json_free(json);
}

Test(json, has_means_there_and_not_null_and_is_null_means_there)
{
    strata_json *json = read_text("{\"a\": 0, \"b\": null}");
    cr_assert(strata_json_has(json, "a"));
    cr_assert_not(strata_json_has(json, "b"));
    cr_assert_not(strata_json_has(json, "c"));
    cr_assert_not(strata_json_is_null(json, "a"));
    cr_assert(strata_json_is_null(json, "b"));
    cr_assert_not(strata_json_is_null(json, "c"));
    strata_json_free(json);
}

Test(json, ambiguous_or_broken_texts_are_refused)
{
    refuse_bytes("", 0, "line 1");
    refuse_bytes("{", 1, "line 1");
    refuse_bytes("{\"a\": 1, \"a\": 2}", 16, "duplicate");
    refuse_bytes("{\"a\": 1} x", 10, "is no JSON: line 1, column 10");
    refuse_bytes("{\"a\":\n\n nope}", 13, "line 3");
    refuse_bytes("{\"a\": \"\xff\"}", 10, "decode byte 0xff");
    refuse_bytes("{\"a\": \"\\u0000\"}", 15, "line 1");
    refuse_bytes("{\"a\": 99999999999999999999}", 27, "too big integer");
    refuse_bytes("{\"a\": 1e999}", 12, "overflow");
    refuse_bytes("{\"a\": NaN}", 10, "line 1");
    refuse_bytes("{\"a\": 1,}", 9, "line 1");
    refuse_bytes("{\"a\": 1}\0", 9, "line 1");
    char deep[10000];
    memset(deep, '[', sizeof deep);
    refuse_bytes(deep, sizeof deep, "depth");
}

Test(json, a_getters_error_names_the_key_and_what_is_there)
{
    strata_json *json =
        read_text("{\"s\": \"x\", \"r\": 1.5, \"n\": -3, \"z\": null, \"o\": {},"
                  " \"l\": [], \"b\": true}");
    static const struct {
        const char *key;
        const char *message;
    } cases[] = {
        {"missing", "\"missing\" is missing: an integer from 0 up was expected"},
        {"s", "\"s\" is a string: an integer from 0 up was expected"},
        {"r", "\"r\" is a number with a fraction: an integer from 0 up was expected"},
        {"n", "\"n\" is -3: an integer from 0 up was expected"},
        {"z", "\"z\" is null: an integer from 0 up was expected"},
        {"o", "\"o\" is an object: an integer from 0 up was expected"},
        {"l", "\"l\" is an array: an integer from 0 up was expected"},
        {"b", "\"b\" is a boolean: an integer from 0 up was expected"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t value = 77;
        strata_error error = {0};
        cr_assert_eq(strata_json_get_uint(json, cases[i].key, &value, &error),
                     STRATA_E_INVALID);
        cr_assert_str_eq(error.message, cases[i].message);
        cr_assert_eq(value, 77);
    }
    strata_json_free(json);
}

Test(json, every_getter_refuses_another_type)
{
    strata_json *json = read_text("{\"s\": \"x\", \"n\": 1}");
    double number;
    bool flag;
    const char *text;
    const strata_json *part;
    cr_assert_eq(strata_json_get_number(json, "s", &number, NULL), STRATA_E_INVALID);
    cr_assert_eq(strata_json_get_bool(json, "n", &flag, NULL), STRATA_E_INVALID);
    cr_assert_eq(strata_json_get_string(json, "n", &text, NULL), STRATA_E_INVALID);
    cr_assert_eq(strata_json_get_object(json, "n", &part, NULL), STRATA_E_INVALID);
    cr_assert_eq(strata_json_get_array(json, "n", &part, NULL), STRATA_E_INVALID);
    strata_json_free(json);
}

Test(json, a_file_is_read_whole)
{
    char path[] = "/tmp/strata-json-XXXXXX";
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    FILE *file = fdopen(fd, "w");
    fputs("{\"list\": [0", file);
    for (int i = 1; i < 50000; i++)
        fprintf(file, ",\n%d", i);
    fputs("]}\n", file);
    fclose(file);
    strata_json *json;
    strata_error error = {0};
    cr_assert_eq(strata_json_read_file(&json, path, &error), STRATA_OK, "%s", error.message);
    const strata_json *list;
    cr_assert_eq(strata_json_get_array(json, "list", &list, NULL), STRATA_OK);
    cr_assert_eq(strata_json_count(list), 50000);
    strata_json_free(json);
    unlink(path);
}

Test(json, files_that_cannot_be_read_say_why)
{
    strata_json *json;
    strata_error error = {0};
    cr_assert_eq(strata_json_read_file(&json, "/no/such/config.json", &error), STRATA_E_IO);
    cr_assert_eq(error.native, ENOENT);
    cr_assert(strstr(error.message, "/no/such/config.json"));
    error = (strata_error){0};
    cr_assert_eq(strata_json_read_file(&json, "/tmp", &error), STRATA_E_IO);
    cr_assert_eq(error.native, EISDIR);
    error = (strata_error){0};
    cr_assert_eq(strata_json_read_file(&json, "/dev/null", &error), STRATA_E_INVALID);
    error = (strata_error){0};
    cr_assert_eq(strata_json_read_file(&json, "/dev/zero", &error), STRATA_E_INVALID);
    cr_assert(strstr(error.message, "64 MiB"), "%s", error.message);
}

Test(json, what_is_built_is_written_in_order)
{
    strata_json *line = strata_json_object();
    strata_json_set_uint(line, "step", 7);
    strata_json_set_number(line, "loss", 2.5);
    strata_json_set_number(line, "bad", NAN);
    strata_json_set_number(line, "worse", INFINITY);
    strata_json_set_bool(line, "ok", true);
    strata_json_set_string(line, "name", "a \"b\"\n");
    strata_json *list = strata_json_array();
    for (int i = 0; i < 2; i++) {
        strata_json *lane = strata_json_object();
        strata_json_set_uint(lane, "bytes", (uint64_t)INT64_MAX);
        strata_json_append(list, lane);
    }
    strata_json_set(line, "lanes", list);
    char *text = strata_json_write(line);
    cr_assert_str_eq(text,
                     "{\"step\":7,\"loss\":2.5,\"bad\":null,\"worse\":null,\"ok\":true,"
                     "\"name\":\"a \\\"b\\\"\\n\",\"lanes\":[{\"bytes\":9223372036854775807},"
                     "{\"bytes\":9223372036854775807}]}");
    free(text);
    strata_json_free(line);
}

Test(json, numbers_come_back_bit_for_bit)
{
    static const double values[] = {0.1, 1.0 / 3, 5.65, 1e-300, 1.7976931348623157e308, 5e-324};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        strata_json *out = strata_json_object();
        strata_json_set_number(out, "x", values[i]);
        char *text = strata_json_write(out);
        strata_json *in = read_text(text);
        double back;
        cr_assert_eq(strata_json_get_number(in, "x", &back, NULL), STRATA_OK);
        cr_assert_eq(back, values[i], "%s", text);
        free(text);
        strata_json_free(in);
        strata_json_free(out);
    }
}

/* A text that is no UTF-8 fails where a failed allocation would: in the making of the value. */
Test(json, a_failure_anywhere_makes_the_document_unwritable)
{
    strata_json *line = strata_json_object();
    strata_json *list = strata_json_array();
    strata_json *inner = strata_json_object();
    strata_json_set_string(inner, "text", "\xff\xfe");
    strata_json_set_uint(inner, "later", 1);
    cr_assert_null(strata_json_write(inner));
    strata_json_append(list, inner);
    cr_assert_null(strata_json_write(list));
    strata_json_set(line, "list", list);
    cr_assert_null(strata_json_write(line));
    strata_json_set_uint(line, "more", 2);
    cr_assert_null(strata_json_write(line));
    strata_json_free(line); /* ASan says whether all of it went */
}

Test(json, a_container_that_could_not_be_made_is_carried_along)
{
    strata_json *line = strata_json_object();
    strata_json_set_uint(NULL, "a", 1);
    strata_json_set(NULL, "b", strata_json_array());
    strata_json_append(NULL, strata_json_object());
    cr_assert_null(strata_json_write(NULL));
    strata_json_set(line, "c", NULL);
    cr_assert_null(strata_json_write(line));
    strata_json_free(line);
    strata_json_free(NULL);
}
