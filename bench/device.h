#ifndef STRATA_BENCH_DEVICE_H
#define STRATA_BENCH_DEVICE_H

/*
 * The device that a subcommand measures: the one of the command line, or else a GPU if there
 * is one.
 *
 * Thread: any.
 */

#include "strata/device.h"
#include "train/command_line.h"

enum device_kind { DEVICE_EITHER, DEVICE_HOST, DEVICE_CUDA };

extern const struct choice strata_bench_devices[];

/* For a target with a field `enum device_kind device`. */
#define DEVICE_ROW                                                                             \
    CHOICE("device", "host|cuda", strata_bench_devices, device,                                \
           "which (cuda if a GPU answers, else host)")

/* *out is owned; strata_device_close(). */
strata_status strata_bench_device_open(strata_device **out, enum device_kind kind,
                                       strata_error *error);

#endif
