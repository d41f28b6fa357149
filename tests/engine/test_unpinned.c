/*
 * Host memory that a device cannot pin: refused, unless it is allowed, and then told.
 */

#include "tests/support/toy.h"

#include <criterion/criterion.h>

#include <stdlib.h>
#include <string.h>

static strata_status pin_code;

static strata_status pin_fails(strata_device *device, void *base, uint64_t bytes,
                               uint64_t *out_piece_bytes, strata_error *error)
{
    (void)device;
    (void)base;
    (void)bytes;
    *out_piece_bytes = 0;
    *error = (strata_error){.status = pin_code, .native = 77};
    strcpy(error->message, "pinning: the test has none of it");
    return pin_code;
}

/* What was not pinned is not unpinned. */
static void never(strata_device *device, void *base)
{
    (void)device;
    (void)base;
    abort();
}

static struct strata_device_ops ops;

static struct toy_run unpinned(strata_status code, uint32_t allow)
{
    pin_code = code;
    ops = strata_device_host;
    ops.pin = pin_fails;
    ops.unpin = never;
    return (struct toy_run){.params = STRATA_HOST,
                            .grads = STRATA_HOST,
                            .states = STRATA_HOST,
                            .allow = allow,
                            .device_ops = &ops};
}

Test(unpinned, is_refused_with_the_devices_reason)
{
    struct toy_run run =
        unpinned(STRATA_E_UNSUPPORTED, STRATA_ALLOW_THREADS_IO | STRATA_ALLOW_BUFFERED_IO);
    struct toy_result result = strata_toy_run(&run);
    cr_expect_eq(result.status, STRATA_E_UNSUPPORTED);
    cr_expect_eq(result.error.native, 77);
    cr_expect_str_eq(result.error.message, "pinning: the test has none of it");
}

Test(unpinned, runs_where_it_is_allowed_and_statistics_say_so)
{
    struct toy_run run = unpinned(STRATA_E_UNSUPPORTED, STRATA_ALLOW_UNPINNED);
    struct toy_result result = strata_toy_run(&run);
    cr_assert_eq(result.status, STRATA_OK, "%s", result.error.message);
    cr_expect_not(result.stats.pinned);
    run.device_ops = NULL;
    struct toy_result pinned = strata_toy_run(&run);
    cr_assert_eq(pinned.status, STRATA_OK, "%s", pinned.error.message);
    cr_expect(pinned.stats.pinned);
    cr_expect_arr_eq(result.hash, pinned.hash, sizeof pinned.hash);
}

Test(unpinned, a_failure_of_the_device_is_no_lack_that_could_be_allowed)
{
    struct toy_run run = unpinned(STRATA_E_DEVICE, STRATA_ALLOW_UNPINNED);
    cr_expect_eq(strata_toy_run(&run).status, STRATA_E_DEVICE);
}
