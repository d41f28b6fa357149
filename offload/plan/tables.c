/*
 * A list of zeroed blocks, freed together. A caller takes all it needs and checks once, so that
 * the lines that build a structure are not buried under lines that test for memory.
 */

#include "offload/plan/tables.h"

#include "base/error.h"
#include "base/round.h"

#include <stdlib.h>
#include <string.h>

#define BLOCK_ALIGN 64u

struct table_block {
    struct table_block *next;
};

void *strata_tables_take(struct tables *tables, uint64_t count, uint64_t each)
{
    uint64_t payload;
    if (__builtin_mul_overflow(count, each, &payload) || payload > INT64_MAX / 2) {
        tables->failed = true;
        return NULL;
    }
    uint64_t bytes = BLOCK_ALIGN + strata_round_up(payload, BLOCK_ALIGN);
    struct table_block *block = aligned_alloc(BLOCK_ALIGN, bytes);
    if (block == NULL) {
        tables->failed = true;
        return NULL;
    }
    memset(block, 0, bytes);
    block->next = tables->first;
    tables->first = block;
    tables->bytes += bytes;
    return (uint8_t *)block + BLOCK_ALIGN;
}

void strata_tables_count(struct tables *tables, uint64_t bytes)
{
    tables->bytes += bytes;
    tables->counted_bytes += bytes;
}

strata_status strata_tables_check(const struct tables *tables, strata_error *error)
{
    if (!tables->failed)
        return STRATA_OK;
    return strata_fail(error, STRATA_E_NOMEM, 0, "no memory for tables after %llu bytes",
                       (unsigned long long)tables->bytes);
}

void strata_tables_free(struct tables *tables)
{
    while (tables->first != NULL) {
        struct table_block *block = tables->first;
        tables->first = block->next;
        free(block);
    }
    tables->bytes = tables->counted_bytes = 0;
}
