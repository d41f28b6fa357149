/*
 * Sizes in and out of text, in integers only.
 *
 * strtod and printf's %f follow the locale, so "1.5G" would mean 1 in a German shell, and a
 * double cannot hold every byte count. So neither is used. A fraction is divided from its last
 * digit to its first: floor((d x unit + floor(y)) / 10) equals floor((d x unit + y) / 10), so
 * integer division gives exactly the whole bytes of any number of digits.
 *
 * Thread: any.
 */

#include "base/text.h"

#include "base/error.h"

#include <stdbool.h>
#include <string.h>

static bool is_digit(char byte)
{
    return byte >= '0' && byte <= '9';
}

static char lower_ascii(char byte)
{
    return byte >= 'A' && byte <= 'Z' ? (char)(byte - 'A' + 'a') : byte;
}

/* The bytes of the unit that follows the digits; 0: unknown. */
static uint64_t unit_bytes(const char *text)
{
    static const char letters[] = "kmgt";
    uint64_t unit = 1;
    const char *letter = *text ? strchr(letters, lower_ascii(*text)) : NULL;
    if (letter) {
        unit = (uint64_t)1024 << (10 * (letter - letters));
        text++;
        if (lower_ascii(text[0]) == 'i' && lower_ascii(text[1]) == 'b')
            text++;
    }
    if (lower_ascii(*text) == 'b')
        text++;
    return *text ? 0 : unit;
}

strata_status strata_parse_size(const char *text, uint64_t *out_bytes, strata_error *error)
{
    const char *whole_end = text;
    while (is_digit(*whole_end))
        whole_end++;
    const char *end = whole_end;
    if (*end == '.')
        do
            end++;
        while (is_digit(*end));
    if (whole_end == text || end == whole_end + 1)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "size \"%.64s\": a number was expected, such as 16M or 1.5G", text);
    uint64_t unit = unit_bytes(end);
    if (unit == 0)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "size \"%.64s\": unit \"%.16s\" is not one of K M G T", text, end);

    uint64_t bytes = 0;
    for (const char *at = end - 1; at > whole_end; at--)
        bytes = ((uint64_t)(*at - '0') * unit + bytes) / 10;
    uint64_t whole = 0;
    uint64_t limit = ((uint64_t)INT64_MAX - bytes) / unit;
    for (const char *at = text; at < whole_end; at++) {
        uint64_t digit = (uint64_t)(*at - '0');
        if (digit > limit || whole > (limit - digit) / 10)
            return strata_fail(error, STRATA_E_INVALID, 0,
                               "size \"%.64s\": more than 2^63 - 1 bytes", text);
        whole = whole * 10 + digit;
    }
    *out_bytes = whole * unit + bytes;
    return STRATA_OK;
}

char *strata_format_size(uint64_t bytes, char *buffer, size_t buffer_bytes)
{
    static const char *const names[] = {"KiB", "MiB", "GiB", "TiB"};
    if (bytes < 1024) {
        snprintf(buffer, buffer_bytes, "%u B", (unsigned)bytes);
        return buffer;
    }
    uint64_t unit = 1024;
    uint32_t name = 0;
    /* Go to the next unit when this one would be rounded up to "1024.0". */
    while (name < 3 && bytes >= unit * 1024 - unit / 20) {
        unit *= 1024;
        name++;
    }
    uint64_t whole = bytes / unit;
    uint64_t tenths = (bytes % unit * 10 + unit / 2) / unit;
    snprintf(buffer, buffer_bytes, "%llu.%u %s", (unsigned long long)(whole + tenths / 10),
             (unsigned)(tenths % 10), names[name]);
    return buffer;
}

char *strata_format_clock(double seconds, char *buffer, size_t buffer_bytes)
{
    if (!(seconds < 3.6e9))
        seconds = 3.6e9;
    unsigned long long whole = seconds > 0 ? (unsigned long long)(seconds + 0.5) : 0;
    if (whole >= 3600)
        snprintf(buffer, buffer_bytes, "%llu:%02llu:%02llu", whole / 3600, whole / 60 % 60,
                 whole % 60);
    else
        snprintf(buffer, buffer_bytes, "%llu:%02llu", whole / 60, whole % 60);
    return buffer;
}
