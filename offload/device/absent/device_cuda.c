/*
 * In place of offload/device/device_cuda.c where there is no CUDA toolkit: a build without the
 * CUDA device says so when it is asked for one.
 *
 * Thread: any.
 */

#include "base/error.h"
#include "offload/device/device.h"

strata_status strata_device_open_cuda(strata_device **out, uint32_t index, strata_error *error)
{
    (void)index;
    if (out != NULL)
        *out = NULL;
    return strata_fail(error, STRATA_E_UNSUPPORTED, 0,
                       "cuda device: this build has no CUDA: build it where nvcc is found, or "
                       "use the host device");
}
