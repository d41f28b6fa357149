/*
 * The profile's numbers, once by name: the writer, the reader and the check all go through one
 * table, so that a field cannot be written and not read.
 *
 * Thread: any.
 */

#include "offload/simulate/profile.h"

#include "base/error.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>

/* More than any machine has. */
#define MAX_CORES  65536u
#define MAX_DRIVES 1024u

/* Where a number has to be there. */
enum need {
    ALWAYS,
    WITH_DRIVES,
    IF_KNOWN /* else 0 */
};

static const struct number {
    const char *name;
    size_t offset;
    double least; /* allowed */
    double most;
    enum need need;
} numbers[] = {
#define NUMBER(field, least, most, need)                                                       \
    {                                                                                          \
#        field, offsetof(strata_profile, field), least, most, need                             \
    }
    NUMBER(flops_per_s, 1, 1e18, ALWAYS),
    NUMBER(dram_bytes_per_s, 1, 1e15, ALWAYS),
    NUMBER(update_bytes_per_s, 1, 1e15, ALWAYS),
    NUMBER(norm_bytes_per_s, 1, 1e15, ALWAYS),
    NUMBER(h2d_bytes_per_s, 1, 1e15, ALWAYS),
    NUMBER(d2h_bytes_per_s, 1, 1e15, ALWAYS),
    NUMBER(duplex, 0.1, 2, ALWAYS),
    NUMBER(device_bytes_per_s, 1, 1e15, ALWAYS),
    NUMBER(op_s, 0, 1, ALWAYS),
    NUMBER(update_share, 0.01, 1, ALWAYS),
    NUMBER(update_cores, 0, MAX_CORES, IF_KNOWN),
    NUMBER(comm_bytes_per_s, 0, 1e15, IF_KNOWN),
    NUMBER(drive_read_bytes_per_s, 1, 1e15, WITH_DRIVES),
    NUMBER(drive_write_bytes_per_s, 1, 1e15, WITH_DRIVES),
    NUMBER(mix, 0.1, 2, WITH_DRIVES),
    NUMBER(drive_cpu_s_per_byte, 0, 1, WITH_DRIVES),
    NUMBER(drive_op_s, 0, 10, WITH_DRIVES),
    NUMBER(drive_endurance_bytes, 0, 1e21, IF_KNOWN),
#undef NUMBER
};
#define NUMBERS (sizeof numbers / sizeof numbers[0])

static double *field(strata_profile *profile, const struct number *number)
{
    return (double *)(void *)((char *)profile + number->offset);
}

static double value_of(const strata_profile *profile, const struct number *number)
{
    return *(const double *)(const void *)((const char *)profile + number->offset);
}

strata_status strata_profile_check(const strata_profile *profile, strata_error *error)
{
    if (profile == NULL)
        return strata_fail(error, STRATA_E_INVALID, 0, "profile: it is NULL");
    if (profile->cores == 0 || profile->cores > MAX_CORES)
        return strata_fail(error, STRATA_E_INVALID, 0, "profile: cores %u: 1 to %u",
                           profile->cores, MAX_CORES);
    if (profile->drives > MAX_DRIVES)
        return strata_fail(error, STRATA_E_INVALID, 0, "profile: drives %u: at most %u",
                           profile->drives, MAX_DRIVES);
    for (size_t i = 0; i < NUMBERS; i++) {
        double value = value_of(profile, &numbers[i]);
        if (numbers[i].need == WITH_DRIVES && profile->drives == 0)
            continue;
        if (!(value >= numbers[i].least && value <= numbers[i].most))
            return strata_fail(error, STRATA_E_INVALID, 0, "profile: %s %g: %g to %g",
                               numbers[i].name, value, numbers[i].least, numbers[i].most);
    }
    return STRATA_OK;
}

static bool is_said(const strata_profile *profile, const struct number *number)
{
    return number->need == ALWAYS || (number->need == WITH_DRIVES && profile->drives > 0) ||
           (number->need == IF_KNOWN && value_of(profile, number) > 0);
}

strata_json *strata_profile_to_json(const strata_profile *profile)
{
    strata_json *json = strata_json_object();
    strata_json_set_string(json, "name", profile->name);
    strata_json_set_bool(json, "host_device", profile->host_device);
    strata_json_set_uint(json, "cores", profile->cores);
    strata_json_set_uint(json, "drives", profile->drives);
    for (size_t i = 0; i < NUMBERS; i++)
        if (is_said(profile, &numbers[i]))
            strata_json_set_number(json, numbers[i].name, value_of(profile, &numbers[i]));
    return json;
}

static strata_status from_json(strata_profile *out, const strata_json *json,
                               strata_error *error)
{
    const char *name;
    uint64_t cores;
    uint64_t drives;
    *out = (strata_profile){0};
    STRATA_TRY(strata_json_get_string(json, "name", &name, error));
    STRATA_TRY(strata_json_get_bool(json, "host_device", &out->host_device, error));
    STRATA_TRY(strata_json_get_uint(json, "cores", &cores, error));
    STRATA_TRY(strata_json_get_uint(json, "drives", &drives, error));
    snprintf(out->name, sizeof out->name, "%s", name);
    out->cores = cores > MAX_CORES ? UINT32_MAX : (uint32_t)cores;
    out->drives = drives > MAX_DRIVES ? UINT32_MAX : (uint32_t)drives;
    for (size_t i = 0; i < NUMBERS; i++)
        if (numbers[i].need == ALWAYS || (numbers[i].need == WITH_DRIVES && drives > 0) ||
            (numbers[i].need == IF_KNOWN && strata_json_has(json, numbers[i].name)))
            STRATA_TRY(
                strata_json_get_number(json, numbers[i].name, field(out, &numbers[i]), error));
    return strata_profile_check(out, error);
}

strata_status strata_profile_read_file(strata_profile *out, const char *path,
                                       strata_error *error)
{
    strata_json *json;
    strata_error cause = {0};
    if (out == NULL || path == NULL)
        return strata_fail(error, STRATA_E_INVALID, 0, "profile: %s is NULL",
                           out == NULL ? "out" : "the path");
    STRATA_TRY(strata_json_read_file(&json, path, error));
    strata_status status = from_json(out, json, &cause);
    strata_json_free(json);
    if (status != STRATA_OK)
        strata_fail(error, status, cause.native, "profile %.100s: %.140s", path, cause.message);
    return status;
}
