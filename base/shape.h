#ifndef STRATA_BASE_SHAPE_H
#define STRATA_BASE_SHAPE_H

/*
 * How many elements a model's descriptor asks for, as it stands: nothing is checked here. A
 * descriptor that came from a caller may give a product of more than 64 bits, of which the
 * lowest 64 are returned; offload/plan/model.c refuses it.
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

/* Of all tensors together; 0 where there are none. */
static inline uint64_t strata_group_elems(const strata_group_desc *group)
{
    uint64_t elems = 0;
    for (uint32_t t = 0; group->tensors != NULL && t < group->tensor_count; t++)
        elems += strata_tensor_elems(&group->tensors[t]);
    return elems;
}

#endif
