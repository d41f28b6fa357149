/*
 * The textbook binary heap; see heap.h.
 *
 * Thread: one owner.
 */

#include "offload/schedule/heap.h"

#include "base/error.h"

void strata_heap_take(struct heap *heap, struct tables *tables, uint32_t capacity)
{
    heap->entries = strata_tables_take(tables, capacity, sizeof *heap->entries);
    heap->count = 0;
    heap->capacity = capacity;
}

static bool before(const struct entry *a, const struct entry *b)
{
    return a->key != b->key ? a->key < b->key : a->chain < b->chain;
}

void strata_heap_push(struct heap *heap, struct entry entry)
{
    STRATA_CHECK(heap->count < heap->capacity);
    uint32_t i = heap->count++;
    while (i > 0 && before(&entry, &heap->entries[(i - 1) / 2])) {
        heap->entries[i] = heap->entries[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap->entries[i] = entry;
}

struct entry strata_heap_pop(struct heap *heap)
{
    struct entry top = heap->entries[0];
    struct entry last = heap->entries[--heap->count];
    uint32_t i = 0;
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= heap->count)
            break;
        if (child + 1 < heap->count)
            child += before(&heap->entries[child + 1], &heap->entries[child]);
        if (!before(&heap->entries[child], &last))
            break;
        heap->entries[i] = heap->entries[child];
        i = child;
    }
    heap->entries[i] = last;
    return top;
}
