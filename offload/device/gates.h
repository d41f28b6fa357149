#ifndef STRATA_OFFLOAD_GATES_H
#define STRATA_OFFLOAD_GATES_H

/*
 * Numbers that one thread raises and others wait for: how a stream waits for bytes whose copy
 * is not queued yet. A gate is never lowered, so whoever was let through once would be again.
 *
 * Thread: any.
 */

#include "strata/status.h"

#include <stdint.h>

/* The highest value of a gate: it is open for whatever is waited for. */
#define STRATA_GATE_OPEN UINT64_MAX

struct gates;

/* count gates, all 0 at first. */
strata_status strata_gates_create(struct gates **out, uint32_t count, strata_error *error);
/* Nobody may be waiting. */
void strata_gates_destroy(struct gates *gates);

/* A lower value than the gate has changes nothing. */
void strata_gate_open(struct gates *gates, uint32_t gate, uint64_t value);
/* Returns once the gate is at least value. */
void strata_gate_wait(struct gates *gates, uint32_t gate, uint64_t value);

#endif
