/*
 * The catalogue. GPUs: memory, dense bf16 rate with fp32 accumulation and memory bandwidth from
 *
 *     A100      NVIDIA A100 Tensor Core GPU datasheet (SXM, 40 and 80 GB)
 *     H100      NVIDIA H100 Tensor Core GPU datasheet (SXM; half of the rate with sparsity)
 *     H200      NVIDIA H200 Tensor Core GPU datasheet (SXM; likewise)
 *     B200      NVIDIA HGX B200 datasheet (an eighth; half of the rate with sparsity)
 *     L40S      NVIDIA L40S datasheet
 *     RTX 3090  NVIDIA Ampere GA102 GPU architecture whitepaper, appendix
 *     RTX 4090  NVIDIA Ada GPU architecture whitepaper, appendix
 *     RTX 5090  NVIDIA RTX Blackwell GPU architecture whitepaper, appendix
 *
 * Drives: the default is a datacentre drive of 3.84 TB rated for one drive write a day over
 * five years (Samsung PM9A3 datasheet: 7,008 TB written).
 *
 * Kernels do not reach a datasheet's rate. Products: 816 TFLOP/s in a burst on an H200 (8,192
 * cubed, random data) and nine tenths of that once the clocks have settled; 167 to 174 on an
 * RTX 4090. Memory: 4.3 TB/s on an H200, 2.95 on an H100, 0.92 on an RTX 4090. With these
 * assumptions we get ten published step times of another trainer on an H100 and an RTX 4090
 * within 9 %. Long copies reach four fifths of a link's peak. On a machine that is at hand,
 * offload-bench probe measures instead.
 *
 * Thread: any.
 */

#include "bench/catalogue.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define GB  1e9
#define GIB 1073741824.0

#define REACHED_BYTES 0.8

/* x16 of PCIe 4 and 5, each way, by the standard. */
#define PCIE4 (32 * GB)
#define PCIE5 (64 * GB)

/* Rate of the largest product over the datasheet's rate, and the same for memory. The measured
 * ones are named above; a GPU that was not measured gets those of the most similar one. */
#define HOPPER(peak)    (0.742 * (peak))
#define ADA(peak)       (1.016 * (peak))
#define AMPERE(peak)    (0.85 * (peak))
#define OF_MEMORY(rate) (0.9 * (rate))

static const struct gpu gpus[] = {
    {"rtx3090", "RTX 3090", 24 * GIB, 71e12, 936 * GB, PCIE4, 0, false, ADA(71e12),
     OF_MEMORY(936 * GB), 82, false, true},
    {"rtx4090", "RTX 4090", 24 * GIB, 165.2e12, 1008 * GB, PCIE4, 0, false, 167.9e12, 920 * GB,
     128, false, false},
    {"rtx5090", "RTX 5090", 32 * GIB, 209.5e12, 1792 * GB, PCIE5, 0, false, ADA(209.5e12),
     OF_MEMORY(1792 * GB), 170, false, true},
    {"l40s", "L40S", 48 * GIB, 362e12, 864 * GB, PCIE4, 0, true, HOPPER(362e12),
     OF_MEMORY(864 * GB), 142, false, true},
    {"a100-40", "A100 40 GB", 40 * GIB, 312e12, 1555 * GB, PCIE4, 300 * GB, true,
     AMPERE(312e12), OF_MEMORY(1555 * GB), 108, false, true},
    {"a100", "A100 80 GB", 80 * GIB, 312e12, 2039 * GB, PCIE4, 300 * GB, true, AMPERE(312e12),
     OF_MEMORY(2039 * GB), 108, false, true},
    {"h100", "H100 SXM", 80 * GIB, 989.5e12, 3350 * GB, PCIE5, 450 * GB, true, HOPPER(989.5e12),
     2950 * GB, 132, true, false},
    {"h200", "H200 SXM", 141 * GB, 989.5e12, 4800 * GB, PCIE5, 450 * GB, true, HOPPER(989.5e12),
     4300 * GB, 132, true, false},
    {"b200", "B200", 180 * GB, 2250e12, 7700 * GB, PCIE5, 900 * GB, true, HOPPER(2250e12),
     OF_MEMORY(7700 * GB), 148, true, true},
};
#define GPUS (sizeof gpus / sizeof gpus[0])

const struct gpu *strata_gpu_named(const char *name)
{
    for (uint32_t i = 0; i < GPUS; i++)
        if (strcmp(gpus[i].name, name) == 0)
            return &gpus[i];
    return NULL;
}

/* The driver's name has the chip's, which a title begins with: "RTX 4090", or one word. */
const struct gpu *strata_gpu_of_model(const char *model)
{
    for (uint32_t i = 0; i < GPUS; i++) {
        char chip[32];
        snprintf(chip, sizeof chip, "%s", gpus[i].title);
        char *blank = strchr(chip, ' ');
        if (blank != NULL && strncmp(chip, "RTX", 3) != 0)
            *blank = '\0';
        bool small = strcmp(gpus[i].name, "a100-40") == 0;
        if (strstr(model, chip) != NULL && (!small || strstr(model, "40GB") != NULL))
            return &gpus[i];
    }
    return NULL;
}

const struct gpu *strata_gpu_after(const struct gpu *gpu)
{
    return gpu + 1 < gpus + GPUS ? gpu + 1 : NULL;
}

/* Two channels of DDR5-5600 with 16 cores, or eight of DDR5-4800 with 64. */
static strata_profile host_of(bool server)
{
    double dram = REACHED_BYTES * (server ? 307.2 : 89.6) * GB;
    return (strata_profile){
        .cores = server ? 64 : 16,
        .dram_bytes_per_s = dram,
        /* The fused update runs at the speed of memory. */
        .update_bytes_per_s = 0.95 * dram,
        .norm_bytes_per_s = 0.95 * dram,
        .duplex = 1.8,
        .mix = 1.1,
        .drive_read_bytes_per_s = 6.8 * GB,
        .drive_write_bytes_per_s = 4 * GB,
        .drive_endurance_bytes = 7008e12,
        /* Checksums and requests take some 100 ms of a core per GiB. */
        .drive_cpu_s_per_byte = 1e-10,
        .op_s = 20e-6,
        .drive_op_s = 100e-6,
        .update_share = 0.2,
    };
}

struct machine strata_machine_with(const struct gpu *gpu)
{
    return (struct machine){
        .gpu = gpu,
        .gpus = 1,
        /* A tenth is left for the driver, the context and the libraries. */
        .device_bytes = (uint64_t)(0.9 * gpu->memory_bytes),
        .ram_bytes = (uint64_t)((gpu->server ? 512 : 128) * GIB),
        .drive_bytes = 3.84e12,
        .host = host_of(gpu->server),
    };
}

/* A rank's own part crosses PCIe while the parts of other ranks are gathered and sent. Without
 * another link these cross PCIe too. */
static double copy_rate(const struct machine *machine)
{
    double pcie = REACHED_BYTES * machine->gpu->pcie_bytes_per_s;
    double link = REACHED_BYTES * machine->gpu->link_bytes_per_s;
    if (machine->gpus == 1)
        return pcie;
    return link > 0 ? fmin(pcie, link / (machine->gpus - 1)) : pcie / machine->gpus;
}

strata_profile strata_machine_rank(const struct machine *machine)
{
    strata_profile rank = machine->host;
    double share = 1.0 / machine->gpus;
    rank.cores = (uint32_t)fmax(1, floor(rank.cores * share));
    rank.dram_bytes_per_s *= share;
    rank.update_bytes_per_s *= share;
    rank.norm_bytes_per_s *= share;
    /* Each rank's tiles lie on all drives, so a rank gets its share of every drive. */
    if (machine->drives > 0) {
        rank.drives = machine->drives > machine->gpus ? machine->drives / machine->gpus : 1;
        double each = share * machine->drives / rank.drives;
        rank.drive_read_bytes_per_s *= each;
        rank.drive_write_bytes_per_s *= each;
        rank.drive_endurance_bytes *= each;
    }
    if (machine->gpu == NULL)
        return rank;
    rank.host_device = false;
    rank.flops_per_s = machine->gpu->product_flops_per_s;
    rank.device_bytes_per_s = machine->gpu->stream_bytes_per_s;
    rank.h2d_bytes_per_s = rank.d2h_bytes_per_s = copy_rate(machine);
    snprintf(rank.name, sizeof rank.name, "%s of %u", machine->gpu->title, machine->gpus);
    return rank;
}
