/* Stories of failures: the first one wins, one line, never beyond the buffer. */

#include "base/error.h"
#include "strata/types.h"

#include <criterion/criterion.h>
#include <string.h>

Test(error, tells_the_story_and_returns_the_status)
{
    strata_error error = {0};
    strata_status status =
        strata_fail(&error, STRATA_E_IO, 28, "write of %d bytes: %s", 4096, "no space left");
    cr_assert_eq(status, STRATA_E_IO);
    cr_assert_eq(error.status, STRATA_E_IO);
    cr_assert_eq(error.native, 28);
    cr_assert_str_eq(error.message, "write of 4096 bytes: no space left");
}

Test(error, first_failure_wins_but_each_call_returns_its_own_status)
{
    strata_error error = {0};
    (void)strata_fail(&error, STRATA_E_NOMEM, 12, "first");
    cr_assert_eq(strata_fail(&error, STRATA_E_IO, 5, "second"), STRATA_E_IO);
    cr_assert_eq(error.status, STRATA_E_NOMEM);
    cr_assert_eq(error.native, 12);
    cr_assert_str_eq(error.message, "first");
}

Test(error, null_error_is_fine)
{
    cr_assert_eq(strata_fail(NULL, STRATA_E_STATE, 0, "nobody listens"), STRATA_E_STATE);
}

Test(error, message_is_one_line_and_is_cut_at_its_end)
{
    strata_error error = {0};
    char text[1000];
    memset(text, 'x', sizeof text);
    text[3] = '\n';
    text[4] = '\x1b';
    text[sizeof text - 1] = '\0';
    (void)strata_fail(&error, STRATA_E_INVALID, 0, "%s", text);
    cr_assert_eq(strlen(error.message), sizeof error.message - 1);
    cr_assert_eq(strncmp(error.message, "xxx  xxx", 8), 0);
}

Test(error, bytes_of_utf8_are_left_alone)
{
    strata_error error = {0};
    (void)strata_fail(&error, STRATA_E_INVALID, 0, "%s", "\xc3\xa9tage");
    cr_assert_str_eq(error.message, "\xc3\xa9tage");
}

static strata_status refuse(strata_status status)
{
    STRATA_TRY(status);
    return STRATA_E_COMM;
}

Test(error, try_passes_a_failure_up_and_goes_on_after_success)
{
    cr_assert_eq(refuse(STRATA_E_TIMEOUT), STRATA_E_TIMEOUT);
    cr_assert_eq(refuse(STRATA_OK), STRATA_E_COMM);
}

Test(error, every_status_has_its_own_name)
{
    for (int a = STRATA_OK; a <= STRATA_E_NUMERIC; a++) {
        cr_assert_str_neq(strata_status_name((strata_status)a), "unknown");
        for (int b = STRATA_OK; b < a; b++)
            cr_assert_str_neq(strata_status_name((strata_status)a),
                              strata_status_name((strata_status)b));
    }
    cr_assert_str_eq(strata_status_name(STRATA_E_NOMEM), "nomem");
    cr_assert_str_eq(strata_status_name((strata_status)99), "unknown");
}

Test(error, version_is_the_headers)
{
    cr_assert_str_eq(strata_version(), STRATA_VERSION_STRING);
}

Test(error, dtypes_and_tiers_have_names_and_sizes)
{
    cr_assert_str_eq(strata_dtype_name(STRATA_FP32), "fp32");
    cr_assert_str_eq(strata_dtype_name(STRATA_BF16), "bf16");
    cr_assert_str_eq(strata_dtype_name(STRATA_FP16), "fp16");
    cr_assert_eq(strata_dtype_bytes(STRATA_FP16), 2);
    cr_assert_eq(strata_dtype_bytes(STRATA_FP32), 4);
    cr_assert_eq(strata_dtype_bytes(STRATA_BF16), 2);
    cr_assert_str_eq(strata_tier_name(STRATA_AUTO), "auto");
    cr_assert_str_eq(strata_tier_name(STRATA_DEVICE), "device");
    cr_assert_str_eq(strata_tier_name(STRATA_HOST), "host");
    cr_assert_str_eq(strata_tier_name(STRATA_NVME), "nvme");
    cr_assert_str_eq(strata_tier_name(STRATA_TIER_COUNT), "unknown");
}
