#ifndef STRATA_BENCH_CATALOGUE_H
#define STRATA_BENCH_CATALOGUE_H

/*
 * Machines that need not exist: GPUs by name, drives by their rates, a host to go with them,
 * and the share of such a machine that one rank gets.
 *
 * Thread: any; plain data.
 */

#include <stdint.h>

#include "strata/profile.h"

struct gpu {
    const char *name;
    const char *title;
    double memory_bytes;
    double flops_per_s; /* dense bf16 with fp32 sums, by the datasheet */
    double memory_bytes_per_s;
    double pcie_bytes_per_s; /* each way */
    double link_bytes_per_s; /* each way, between GPUs; 0: by PCIe */
    bool server;             /* its host is a server, not a desktop */
    /* What kernels reach over seconds, once clocks have settled (bench/roofline.h). */
    double product_flops_per_s; /* the largest matrix products, bf16 with fp32 sums */
    double stream_bytes_per_s;  /* of memory, read and written together */
    uint32_t multiprocessors;
    bool wide_tiles; /* products need tiles of 128 x 256: wgmma and later */
    bool assumed;    /* the two rates are assumed from a similar GPU's share of its datasheet */
};

#define GPU_NAMES "a100-40 a100 h100 h200 b200 l40s rtx3090 rtx4090 rtx5090"

/* NULL: the name is unknown. Static storage. */
const struct gpu *strata_gpu_named(const char *name);
/* The one that a driver calls so, as "NVIDIA H200" or "NVIDIA GeForce RTX 4090"; NULL: none. */
const struct gpu *strata_gpu_of_model(const char *model);
/* The next larger GPU; NULL: there is none. */
const struct gpu *strata_gpu_after(const struct gpu *gpu);

/* A whole machine. */
struct machine {
    const struct gpu *gpu; /* NULL: the profile's own device */
    uint32_t gpus;
    uint64_t device_bytes; /* of each */
    uint64_t ram_bytes;
    uint32_t drives;
    double drive_bytes;  /* of each */
    strata_profile host; /* all that the fields above do not replace */
};

/* A machine of the catalogue: one GPU, a host's usual RAM, no drives. */
struct machine strata_machine_with(const struct gpu *gpu);

/* What one rank gets. */
strata_profile strata_machine_rank(const struct machine *machine);

#endif
