#ifndef STRATA_OPTIM_RECORD_H
#define STRATA_OPTIM_RECORD_H

/*
 * A tile's state record: its master weights and moments, as bytes.
 *
 * A record is a row of blocks, one for each norm block of 16,384 elements. A block holds the
 * master weights of its elements, then their first moments, then their second moments:
 *
 *     type 1   fp32, fp32, fp32   12 bytes an element, blocks of 196,608
 *     type 2   fp32, bf16, bf16    8 bytes an element, blocks of 131,072
 *
 * So an update of a few blocks of a tile works on one contiguous part of its record, made of
 * whole pieces of the hash. The store's header holds the number of the type; a record of
 * another type is refused. Only this header knows the layout: plan, pager and store know how
 * many bytes an element has.
 *
 * Thread: any.
 */

#include "optim/kernel.h"
#include "strata/types.h"

enum record_type { RECORD_FP32 = 1, RECORD_BF16 = 2 };

/* moments: STRATA_FP32 or STRATA_BF16. */
KERNEL_INLINE enum record_type strata_record_type(strata_dtype moments)
{
    return moments == STRATA_BF16 ? RECORD_BF16 : RECORD_FP32;
}

KERNEL_INLINE strata_dtype strata_record_moments(enum record_type type)
{
    return type == RECORD_BF16 ? STRATA_BF16 : STRATA_FP32;
}

KERNEL_INLINE uint32_t strata_record_moment_bytes(enum record_type type)
{
    return type == RECORD_BF16 ? 2 : 4;
}

KERNEL_INLINE uint32_t strata_record_elem_bytes(enum record_type type)
{
    return 4 + 2 * strata_record_moment_bytes(type);
}

KERNEL_INLINE uint32_t strata_record_block_bytes(enum record_type type)
{
    return STRATA_BLOCK_ELEMS * strata_record_elem_bytes(type);
}

/* Where an element's values begin. The values of the next elements of its block follow. */
struct record_place {
    uint64_t master; /* offset in the record */
    uint64_t m;
    uint64_t v;
};

KERNEL_INLINE struct record_place strata_record_place(enum record_type type, uint64_t elem)
{
    uint64_t moment_bytes = strata_record_moment_bytes(type);
    uint64_t block = elem / STRATA_BLOCK_ELEMS * strata_record_block_bytes(type);
    uint64_t index = elem % STRATA_BLOCK_ELEMS;
    return (struct record_place){
        .master = block + 4 * index,
        .m = block + 4 * STRATA_BLOCK_ELEMS + moment_bytes * index,
        .v = block + (4 + moment_bytes) * STRATA_BLOCK_ELEMS + moment_bytes * index,
    };
}

#endif
