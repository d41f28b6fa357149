#ifndef STRATA_OFFLOAD_HEAP_H
#define STRATA_OFFLOAD_HEAP_H

/*
 * A binary heap of what waits, soonest deadline first, on an array of fixed capacity. Equal
 * deadlines go by chain, so that the order is a function of what was pushed and nothing else.
 *
 * Thread: one owner.
 */

#include "offload/plan/tables.h"

/* A chain that waits: for its lane with an op, or for a frame. */
struct entry {
    uint64_t key; /* deadline */
    uint32_t chain;
    uint8_t kind;
    uint8_t what;
};

struct heap {
    struct entry *entries;
    uint32_t count;
    uint32_t capacity;
};

void strata_heap_take(struct heap *heap, struct tables *tables, uint32_t capacity);
/* There is room: the capacity is what can wait at most. */
void strata_heap_push(struct heap *heap, struct entry entry);
/* It is not empty. */
struct entry strata_heap_pop(struct heap *heap);

#endif
