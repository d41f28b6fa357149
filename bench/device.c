/*
 * The device that a subcommand measures. See device.h.
 *
 * Thread: any.
 */

#include "bench/device.h"

const struct choice strata_bench_devices[] = {
    {"host", DEVICE_HOST}, {"cuda", DEVICE_CUDA}, {NULL, 0}};

strata_status strata_bench_device_open(strata_device **out, enum device_kind kind,
                                       strata_error *error)
{
    strata_error why = {.status = STRATA_OK};
    if (kind != DEVICE_HOST) {
        strata_status status = strata_device_open_cuda(out, 0, &why);
        if (status == STRATA_OK)
            return STRATA_OK;
        if (kind == DEVICE_CUDA || status != STRATA_E_UNSUPPORTED) {
            *error = why;
            return status;
        }
    }
    return strata_device_open_host(out, error);
}
