#ifndef STRATA_OFFLOAD_GATES_H
#define STRATA_OFFLOAD_GATES_H

/*
 * Numbers that one thread raises and other threads wait for. With them a stream waits for bytes
 * whose copy is not queued yet. A gate is never lowered, so a wait that has ended once would
 * end at once the next time.
 *
 * Thread: any.
 */

#include "strata/status.h"

#include <stdint.h>

/* The highest value of a gate: every wait at it ends. */
#define STRATA_GATE_OPEN UINT64_MAX

struct gates;

/* count gates, all 0 at first. */
strata_status strata_gates_create(struct gates **out, uint32_t count, strata_error *error);
/* No thread may be waiting at a gate. */
void strata_gates_destroy(struct gates *gates);

/* Raise a gate to value. If it is higher already, nothing changes. */
void strata_gate_open(struct gates *gates, uint32_t gate, uint64_t value);
/* Return once the gate is at least value. */
void strata_gate_wait(struct gates *gates, uint32_t gate, uint64_t value);

#endif
