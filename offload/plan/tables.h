#ifndef STRATA_OFFLOAD_TABLES_H
#define STRATA_OFFLOAD_TABLES_H

/*
 * Small memory of an engine: everything that is not an arena. It is taken at create, zeroed,
 * freed all at once, and counted, because the host budget has to hold it.
 *
 * Thread: one owner.
 */

#include "strata/status.h"

#include <stdbool.h>

struct tables {
    struct table_block *first;
    uint64_t bytes;         /* taken so far, bookkeeping included */
    uint64_t counted_bytes; /* of these, by others and perhaps later */
    bool failed;            /* a take got nothing; checked once, after all takes */
};

/* count x each zeroed bytes, 64-byte aligned; NULL and failed when memory ran out. */
void *strata_tables_take(struct tables *tables, uint64_t count, uint64_t each);

/* For memory that somebody else took on the engine's behalf. */
void strata_tables_count(struct tables *tables, uint64_t bytes);

/* STRATA_E_NOMEM when a take failed. */
strata_status strata_tables_check(const struct tables *tables, strata_error *error);

void strata_tables_free(struct tables *tables);

#endif
