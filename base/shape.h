#ifndef STRATA_BASE_SHAPE_H
#define STRATA_BASE_SHAPE_H

/*
 * How many elements a model's descriptor asks for. Nothing is checked here: if a product of a
 * caller's descriptor needs more than 64 bits, its lowest 64 are returned, and
 * offload/plan/model.c refuses the descriptor.
 *
 * Thread: any.
 */

#include "strata/types.h"

#include <stddef.h>

/* The product of the shape. Entries beyond STRATA_MAX_RANK do not exist. */
static inline uint64_t strata_tensor_elems(const strata_tensor_desc *tensor)
{
    uint64_t elems = 1;
    for (uint32_t i = 0; i < tensor->rank && i < STRATA_MAX_RANK; i++)
        elems *= tensor->shape[i];
    return elems;
}

/* The sum over all tensors; 0 if there are none. */
static inline uint64_t strata_group_elems(const strata_group_desc *group)
{
    uint64_t elems = 0;
    for (uint32_t t = 0; group->tensors != NULL && t < group->tensor_count; t++)
        elems += strata_tensor_elems(&group->tensors[t]);
    return elems;
}

#endif
