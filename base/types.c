/*
 * Names and sizes of the public enums. A value outside an enum is a caller's bug, but the
 * caller may be printing an error about it, so it gets the name "unknown". Its size is 0.
 *
 * Thread: any.
 */

#include "strata/types.h"

const char *strata_dtype_name(strata_dtype dtype)
{
    switch (dtype) {
    case STRATA_FP32:
        return "fp32";
    case STRATA_BF16:
        return "bf16";
    case STRATA_FP16:
        return "fp16";
    }
    return "unknown";
}

const char *strata_tier_name(strata_tier tier)
{
    switch (tier) {
    case STRATA_AUTO:
        return "auto";
    case STRATA_DEVICE:
        return "device";
    case STRATA_HOST:
        return "host";
    case STRATA_NVME:
        return "nvme";
    case STRATA_TIER_COUNT:
        break;
    }
    return "unknown";
}

const char *strata_lane_name(strata_lane lane)
{
    static const char *const names[STRATA_LANE_COUNT] = {
        "nvme_read", "nvme_write", "h2d", "d2h", "comm", "cpu", "compute"};
    return lane >= 0 && lane < STRATA_LANE_COUNT ? names[lane] : "unknown";
}

uint32_t strata_dtype_bytes(strata_dtype dtype)
{
    if (dtype == STRATA_FP32)
        return 4;
    return dtype == STRATA_BF16 || dtype == STRATA_FP16 ? 2 : 0;
}
