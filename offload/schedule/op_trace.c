/*
 * Spans of ops; see op_trace.h.
 *
 * An arrow begins where a tile's gradient has come to rest or waits in a frame (its norm, the
 * one op that every gradient has), goes on to its update, and ends where the next step's first
 * fetch brings the parameters to the device.
 *
 * Thread: see op_trace.h.
 */

#include "offload/schedule/op_trace.h"

#include "base/error.h"
#include "offload/schedule/address.h"

#include <stdio.h>

/* Drives have two each, after these; with one rank there is no row of collectives. */
enum { ROW_COMPUTE, ROW_CPU, ROW_H2D, ROW_D2H, ROW_COMM, ROW_COUNT };

#define MAX_ROWS (ROW_COUNT + 2 * STRATA_STORE_MAX_DRIVES)

static uint32_t first_drive_row(const struct offload_plan *plan)
{
    return plan->model.ranks > 1 ? ROW_COUNT : ROW_COMM;
}

static uint32_t row_of(const struct offload_plan *plan, const struct op *op, uint32_t drive)
{
    switch (op->lane) {
    case STRATA_LANE_NVME_READ:
        return first_drive_row(plan) + 2 * drive;
    case STRATA_LANE_NVME_WRITE:
        return first_drive_row(plan) + 2 * drive + 1;
    case STRATA_LANE_H2D:
        return ROW_H2D;
    case STRATA_LANE_D2H:
        return ROW_D2H;
    case STRATA_LANE_COMM:
        return ROW_COMM;
    case STRATA_LANE_CPU:
        return ROW_CPU;
    case STRATA_LANE_COMPUTE:
    case STRATA_LANE_COUNT:
        break;
    }
    STRATA_CHECK(false); /* no op is of another lane */
    return ROW_CPU;
}

static const char *word_of(const struct op *op)
{
    static const char *const moves[4][6] = {
        [OP_NVME_READ] = {"read weights", "read gradient", "read state", "read parked",
                          "read activations", "read"},
        [OP_NVME_WRITE] = {"write weights", "write gradient", "write state", "write parked",
                           "write activations", "write"},
        [OP_H2D] = {"weights in", "gradient in", "state in", "parked in", "activations in",
                    "in"},
        [OP_D2H] = {"weights out", "gradient out", "state out", "parked out", "activations out",
                    "out"},
    };
    switch (op->kind) {
    case OP_ZERO:
        return "zero";
    case OP_ROUND:
        return "round";
    case OP_NORM:
        return "norm";
    case OP_UPDATE:
        return "update";
    case OP_TOTAL:
        return "norm of the step";
    case OP_COMMIT:
        return "commit";
    case OP_GATHER:
        return "gather";
    case OP_REDUCE:
        return "reduce";
    case OP_SHARE:
        return "share sums";
    case OP_NVME_READ:
    case OP_NVME_WRITE:
    case OP_H2D:
    case OP_D2H:
        return moves[op->kind][op->what];
    case OP_OPEN:
        break;
    }
    STRATA_CHECK(false);
    return "";
}

static uint32_t group_of(const struct offload_plan *plan, const struct op *op)
{
    if (op->tile != STRATA_NONE)
        return plan->model.tiles[op->tile].group;
    return op->placement != STRATA_NONE ? plan->residency.placements[op->placement].group
                                        : UINT32_MAX;
}

/* What stays in the device is counted as well. */
static uint64_t bytes_of(const struct offload_plan *plan, const struct op *op)
{
    if (op->kind == OP_TOTAL)
        return 0;
    uint64_t work_bytes = strata_address_work_bytes(plan, op);
    return work_bytes > 0 ? work_bytes : strata_address_lane_bytes(plan, op);
}

/* The first placement of the group in the step is the use that its update was for. */
static bool first_fetch(const struct offload_plan *plan, const struct op *op)
{
    if (op->kind != OP_H2D || op->what != WHAT_PARAM || op->placement == STRATA_NONE ||
        op->step == 0)
        return false;
    const struct placement *p = &plan->residency.placements[op->placement];
    for (uint32_t i = 0; i < op->placement; i++)
        if (plan->residency.placements[i].kind == PLACEMENT_PARAM &&
            plan->residency.placements[i].group == p->group)
            return false;
    return true;
}

void strata_trace_op(struct trace *trace, const struct offload_plan *plan, const struct op *op,
                     uint32_t drive, uint64_t start_ns, uint64_t end_ns)
{
    struct trace_event event = {
        .what = word_of(op),
        .start_ns = start_ns,
        .end_ns = end_ns,
        .step = op->step,
        .bytes = bytes_of(plan, op),
        .row = row_of(plan, op, drive),
        .group = group_of(plan, op),
        .tile = op->tile,
    };
    if (op->kind == OP_NORM)
        event.role = TRACE_GRADIENT;
    if (op->kind == OP_UPDATE && op->work & (UPDATE_APPLY | UPDATE_WEIGHTS))
        event.role = TRACE_UPDATE;
    if (first_fetch(plan, op)) {
        event.role = TRACE_USE;
        event.step--;
    }
    strata_trace_add(trace, &event);
}

void strata_trace_compute(struct trace *trace, const struct offload_plan *plan, uint32_t use,
                          uint64_t step, uint64_t start_ns, uint64_t end_ns)
{
    const struct use *u = &plan->model.uses[use];
    bool group = u->kind == STRATA_USE_ACQUIRE || u->kind == STRATA_USE_RELEASE;
    struct trace_event event = {
        .what = !group                                    ? "compute"
                : u->grad                                 ? "backward"
                : strata_model_is_eval(&plan->model, use) ? "evaluation"
                                                          : "forward",
        .start_ns = start_ns,
        .end_ns = end_ns,
        .step = step,
        .row = ROW_COMPUTE,
        .group = group ? u->index : UINT32_MAX,
        .tile = UINT32_MAX,
    };
    strata_trace_add(trace, &event);
}

static const char *group_name(void *user, uint32_t group)
{
    const struct offload_plan *plan = user;
    return plan->model.groups[group].name;
}

strata_status strata_trace_save(const struct trace *trace, const struct offload_plan *plan,
                                uint32_t drives, const char *title, const char *path,
                                strata_error *error)
{
    char names[MAX_ROWS][24] = {"compute", "cpu", "h2d", "d2h", "comm"};
    const char *rows[MAX_ROWS];
    uint32_t first = first_drive_row(plan);
    uint32_t count = first + 2 * drives;
    for (uint32_t i = 0; i < count; i++) {
        rows[i] = names[i];
        if (i >= first)
            snprintf(names[i], sizeof names[i], "drive %u %s", (i - first) / 2,
                     (i - first) % 2 == 0 ? "read" : "write");
    }
    struct trace_desc desc = {.rows = rows,
                              .row_count = count,
                              .title = title,
                              .group_name = group_name,
                              .user = (void *)(uintptr_t)plan};
    return strata_trace_write(trace, path, &desc, error);
}
