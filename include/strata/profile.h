#ifndef STRATA_PROFILE_H
#define STRATA_PROFILE_H

/*
 * A machine as the plan sees it: how fast each lane is alone, and what lanes take from each
 * other. `offload-bench probe` measures one into a file (box.json); a what-if fills one from a
 * catalogue.
 *
 * Rates are those of one rank: its device, and its share of the host's memory, cores and
 * drives. What two lanes do to each other is said once for each thing they share:
 *
 *     a drive's reads and writes    mix: seconds of work, each as long as it takes alone, that
 *                                   the drive gets done in a second of both; 2: neither
 *                                   notices the other, 1: they take turns
 *     copies in and out             duplex, likewise
 *     host memory                   dram_bytes_per_s, divided by the bytes that each moves
 *     the cores, on a host device   cores, divided by the cores that each keeps busy; where
 *                                   the update runs beside compute it gets update_share
 *
 * Thread: plain data.
 */

#include <stdbool.h>
#include <stdint.h>

#include "strata/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct strata_profile {
    char name[96];      /* for people */
    bool host_device;   /* the device is made of RAM: it computes and copies on the cores */
    uint32_t cores;     /* workers */
    uint32_t drives;    /* 0: no NVMe tier */
    double flops_per_s; /* of the caller's work, as the use list counts it */
    double dram_bytes_per_s;   /* read and written together */
    double update_bytes_per_s; /* the fused update alone, in bytes of DRAM */
    double norm_bytes_per_s;   /* sums of gradients, in bytes read */
    double h2d_bytes_per_s;    /* alone */
    double d2h_bytes_per_s;
    double duplex;
    double device_bytes_per_s;     /* copies, zeroing and rounding within the device */
    double drive_read_bytes_per_s; /* of one drive, alone */
    double drive_write_bytes_per_s;
    double mix;
    double drive_cpu_s_per_byte;  /* core seconds of a transfer: checksum and requests */
    double op_s;                  /* from the decision to start an op to its start */
    double drive_op_s;            /* the same of a transfer, with its way to the drive */
    double drive_endurance_bytes; /* of one drive, rated to be written; 0: not known */
    double update_share;          /* host device: of the cores, beside compute; 0 to 1 */
    double update_cores;     /* host device: that do for update_bytes_per_s; 0: it takes all */
    double comm_bytes_per_s; /* of a collective, received by each rank; 0: one rank only */
} strata_profile;

/* Is every number one that a time can be computed from? INVALID names the member. */
STRATA_API STRATA_NODISCARD strata_status strata_profile_check(const strata_profile *profile,
                                                               strata_error *error);

/* From a file that `offload-bench probe -o` wrote: a JSON object whose members are the fields.
 * Every field is filled and checked, an unknown member is not an error. */
STRATA_API STRATA_NODISCARD strata_status strata_profile_read_file(strata_profile *out,
                                                                   const char *path,
                                                                   strata_error *error);

#ifdef __cplusplus
}
#endif

#endif
