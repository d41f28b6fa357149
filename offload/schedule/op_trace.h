#ifndef STRATA_OFFLOAD_OP_TRACE_H
#define STRATA_OFFLOAD_OP_TRACE_H

/*
 * Ops as spans of a trace: the rows, the names and the arrows that a real step and a simulated
 * one have in common.
 *
 * Thread: the driver of the schedule; write: any, see base/trace.h.
 */

#include "base/trace.h"
#include "offload/schedule/schedule.h"

/* A span in a row of its lane; nvme ops in that of their drive. */
void strata_trace_op(struct trace *trace, const struct offload_plan *plan, const struct op *op,
                     uint32_t drive, uint64_t start_ns, uint64_t end_ns);

/* What the caller computes at a use. */
void strata_trace_compute(struct trace *trace, const struct offload_plan *plan, uint32_t use,
                          uint64_t step, uint64_t start_ns, uint64_t end_ns);

strata_status strata_trace_save(const struct trace *trace, const struct offload_plan *plan,
                                uint32_t drives, const char *title, const char *path,
                                strata_error *error);

#endif
