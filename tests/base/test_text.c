/* Sizes in text. */

#include "base/text.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static void expect(const char *text, uint64_t bytes)
{
    uint64_t out = 12345;
    strata_error error = {0};
    cr_assert_eq(strata_parse_size(text, &out, &error), STRATA_OK, "%s: %s", text,
                 error.message);
    cr_assert_eq(out, bytes, "%s is %llu", text, (unsigned long long)out);
}

static void refuse(const char *text, const char *because)
{
    uint64_t out = 12345;
    strata_error error = {0};
    cr_assert_eq(strata_parse_size(text, &out, &error), STRATA_E_INVALID, "\"%s\"", text);
    cr_assert_eq(out, 12345);
    cr_assert(strstr(error.message, because), "\"%s\": %s", text, error.message);
    char quoted[80];
    snprintf(quoted, sizeof quoted, "\"%s\"", text);
    cr_assert(strstr(error.message, quoted), "%s does not quote %s", error.message, quoted);
}

Test(text, reads_sizes)
{
    expect("0", 0);
    expect("4096", 4096);
    expect("007", 7);
    expect("1K", 1024);
    expect("16M", UINT64_C(16) << 20);
    expect("3g", UINT64_C(3) << 30);
    expect("2T", UINT64_C(2) << 40);
    expect("96MiB", UINT64_C(96) << 20);
    expect("96mb", UINT64_C(96) << 20);
    expect("512B", 512);
    expect("1.5G", UINT64_C(3) << 29);
    expect("0.5K", 512);
}

Test(text, fractions_are_exact_and_cut_to_whole_bytes)
{
    expect("1.9", 1);
    expect("0.1K", 102);
    expect("0.3T", UINT64_C(329853488332));
    expect("0.333333333333333333333333333333333333G", 357913941);
    expect("0.99999999999999999999999999999999K", 1023);
    expect("0.0009765625K", 1);
    expect("0.0009765624999999999999999999999999999999999999K", 0);
}

Test(text, the_largest_size_is_2_to_63_minus_1)
{
    expect("9223372036854775807", INT64_MAX);
    refuse("9223372036854775808", "2^63 - 1");
    expect("8388607T", UINT64_C(8388607) << 40);
    expect("8388607.9999999999999T", INT64_MAX);
    refuse("8388608T", "2^63 - 1");
    refuse("99999999999999999999999999999999999999", "2^63 - 1");
    refuse("18446744073709551617", "2^63 - 1"); /* 1, if it wrapped */
}

Test(text, refuses_what_is_not_a_size)
{
    refuse("", "a number was expected");
    refuse("M", "a number was expected");
    refuse("-1", "a number was expected");
    refuse("+1", "a number was expected");
    refuse(" 1", "a number was expected");
    refuse(".5G", "a number was expected");
    refuse("5.G", "a number was expected");
    refuse("1 M", "not one of K M G T");
    refuse("1X", "not one of K M G T");
    refuse("1e3", "not one of K M G T");
    refuse("1.5.2G", "not one of K M G T");
    refuse("1,5G", "not one of K M G T");
    refuse("0x10", "not one of K M G T");
    refuse("1Mi", "not one of K M G T");
    refuse("1iB", "not one of K M G T");
    refuse("1MBB", "not one of K M G T");
}

static void expect_format(uint64_t bytes, const char *text)
{
    char buffer[16];
    cr_assert_eq(strata_format_size(bytes, buffer, sizeof buffer), buffer);
    cr_assert_str_eq(buffer, text);
}

Test(text, writes_sizes)
{
    expect_format(0, "0 B");
    expect_format(512, "512 B");
    expect_format(1023, "1023 B");
    expect_format(1024, "1.0 KiB");
    expect_format(UINT64_C(96) << 20, "96.0 MiB");
    expect_format(356830413, "340.3 MiB");
    expect_format(UINT64_C(3) << 29, "1.5 GiB");
    expect_format(UINT64_MAX, "16777216.0 TiB");
}

Test(text, rounding_up_takes_the_next_unit)
{
    expect_format(1048524, "1023.9 KiB");
    expect_format(1048525, "1.0 MiB");
    expect_format((UINT64_C(1) << 30) - 1, "1.0 GiB");
    expect_format((UINT64_C(1) << 40) - 1, "1.0 TiB");
    expect_format((UINT64_C(1) << 50) - 1, "1024.0 TiB"); /* there is no next one */
}

Test(text, a_short_buffer_is_terminated)
{
    char buffer[4];
    strata_format_size(UINT64_C(96) << 20, buffer, sizeof buffer);
    cr_assert_str_eq(buffer, "96.");
}

Test(text, what_was_written_reads_back_as_nearly_the_same)
{
    for (uint64_t bytes = 1; bytes < UINT64_C(1) << 55; bytes = bytes * 3 + 1) {
        char buffer[16];
        strata_format_size(bytes, buffer, sizeof buffer);
        char *space = strchr(buffer, ' ');
        memmove(space, space + 1, strlen(space));
        uint64_t back;
        cr_assert_eq(strata_parse_size(buffer, &back, NULL), STRATA_OK, "%s", buffer);
        double ratio = (double)back / (double)bytes;
        cr_assert(ratio > 0.95 && ratio < 1.05, "%s", buffer);
    }
}

Test(text, a_time_has_hours_from_the_first_on)
{
    static const struct {
        double seconds;
        const char *text;
    } cases[] = {
        {0, "0:00"},    {0.49, "0:00"},          {0.5, "0:01"},         {59.4, "0:59"},
        {59.5, "1:00"}, {3599.4, "59:59"},       {3599.5, "1:00:00"},   {45296, "12:34:56"},
        {-3, "0:00"},   {1e30, "1000000:00:00"}, {NAN, "1000000:00:00"}};
    char buffer[16];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        cr_expect_str_eq(strata_format_clock(cases[i].seconds, buffer, sizeof buffer),
                         cases[i].text);
}
