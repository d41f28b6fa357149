/*
 * Costs; see cost.h.
 *
 * The device's compute counts as no traffic of host memory, also where the device is made of
 * RAM: matrix products are blocked for the caches, and what remains is in the measured rate.
 *
 * Thread: any.
 */

#include "offload/simulate/cost.h"

#include "base/error.h"
#include "offload/schedule/address.h"

#include <math.h>

/* A flush of a drive's cache, at a commit. Measured 1 to 10 ms; the study: 10 ms cost 0.1 %. */
#define FLUSH_S 0.005

/* Moving bytes at a rate after an overhead; how many of them each byte costs host memory. */
static struct cost cost_of_bytes(double bytes, double rate, double overhead_s, double dram_each)
{
    double work_s = overhead_s + bytes / rate;
    return (struct cost){.work_s = work_s, .dram = work_s > 0 ? bytes * dram_each / work_s : 0};
}

/* On the cores of a host device: by one thread, or by all workers. */
static struct cost on_cores(const strata_profile *profile, struct cost cost, bool all)
{
    if (profile->host_device)
        cost.cores = all ? profile->cores : 1;
    return cost;
}

/* Work within the device: read and written bytes of its own memory. */
static struct cost in_device(const strata_profile *profile, double bytes, bool all_workers)
{
    struct cost cost = cost_of_bytes(bytes, profile->device_bytes_per_s, profile->op_s,
                                     profile->host_device ? 1 : 0);
    return on_cores(profile, cost, all_workers);
}

static struct cost cost_in_device(const struct offload_plan *plan,
                                  const strata_profile *profile, const struct op *op,
                                  bool all_workers)
{
    return in_device(profile, (double)strata_address_work_bytes(plan, op), all_workers);
}

static struct cost cost_of_copy(const struct offload_plan *plan, const strata_profile *profile,
                                const struct op *op)
{
    double rate = op->kind == OP_H2D ? profile->h2d_bytes_per_s : profile->d2h_bytes_per_s;
    double bytes = (double)strata_address_lane_bytes(plan, op);
    /* A host device's copy reads and writes host memory. */
    struct cost cost = cost_of_bytes(bytes, rate, profile->op_s, profile->host_device ? 2 : 1);
    return on_cores(profile, cost, false);
}

static struct cost cost_of_transfer(const struct offload_plan *plan,
                                    const strata_profile *profile, const struct op *op)
{
    if (op->kind == OP_COMMIT)
        return (struct cost){.work_s = FLUSH_S};
    double rate = op->kind == OP_NVME_READ ? profile->drive_read_bytes_per_s
                                           : profile->drive_write_bytes_per_s;
    double bytes = (double)strata_address_lane_bytes(plan, op);
    struct cost cost = cost_of_bytes(bytes, rate, profile->drive_op_s, 1);
    cost.cores = profile->drive_cpu_s_per_byte * bytes / cost.work_s;
    return cost;
}

static struct cost cost_of_cpu(const struct offload_plan *plan, const strata_profile *profile,
                               const struct op *op)
{
    double bytes = (double)strata_address_work_bytes(plan, op);
    double rate =
        op->kind == OP_UPDATE ? profile->update_bytes_per_s : profile->norm_bytes_per_s;
    struct cost cost = cost_of_bytes(bytes, rate, profile->op_s, 1);
    cost.cores = op->kind == OP_TOTAL ? 1 : profile->cores;
    if (op->kind == OP_UPDATE && profile->update_cores > 0)
        cost.cores = profile->update_cores;
    return cost;
}

/* A host device's ranks exchange bytes through host memory. */
static struct cost cost_of_collective(const struct offload_plan *plan,
                                      const strata_profile *profile, const struct op *op)
{
    double bytes = (double)strata_address_lane_bytes(plan, op);
    struct cost cost = cost_of_bytes(bytes, profile->comm_bytes_per_s, profile->op_s,
                                     profile->host_device ? 2 : 0);
    return on_cores(profile, cost, false);
}

struct cost strata_cost_of(const struct offload_plan *plan, const strata_profile *profile,
                           const struct op *op)
{
    switch (op->kind) {
    case OP_NVME_READ:
    case OP_NVME_WRITE:
    case OP_COMMIT:
        return cost_of_transfer(plan, profile, op);
    case OP_H2D:
    case OP_D2H:
        return cost_of_copy(plan, profile, op);
    case OP_ZERO:
        return cost_in_device(plan, profile, op, false);
    case OP_ROUND:
        return cost_in_device(plan, profile, op, true);
    case OP_NORM:
    case OP_UPDATE:
        if (op->on_device)
            return cost_in_device(plan, profile, op, true);
        return cost_of_cpu(plan, profile, op);
    case OP_TOTAL:
        return cost_of_cpu(plan, profile, op);
    case OP_GATHER:
    case OP_REDUCE:
    case OP_SHARE:
        return cost_of_collective(plan, profile, op);
    case OP_OPEN:
        break;
    }
    STRATA_CHECK(false);
    return (struct cost){0};
}

struct cost strata_cost_of_block(const struct offload_plan *plan, const strata_profile *profile)
{
    return in_device(profile, 2.0 * (double)plan->model.stash_copy_bytes, false);
}

struct cost strata_cost_of_compute(const struct offload_plan *plan,
                                   const strata_profile *profile, const double *compute_s,
                                   uint32_t use)
{
    double seconds =
        compute_s != NULL ? compute_s[use] : plan->model.uses[use].flops / profile->flops_per_s;
    return on_cores(profile, (struct cost){.work_s = seconds}, true);
}

double strata_cost_of_drives(const strata_profile *profile, double read_s, double write_s)
{
    double more = fmax(read_s, write_s);
    double less = fmin(read_s, write_s);
    return profile->drives > 0 ? (more - less + 2 * less / profile->mix) / profile->drives : 0;
}
