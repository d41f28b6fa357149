#ifndef STRATA_BASE_TRACE_H
#define STRATA_BASE_TRACE_H

/*
 * What ran when, kept while a step runs and written afterwards as a Chrome trace: one row per
 * lane and drive, a span per op, arrows from a tile's gradient to its update to its next use.
 *
 * Events are kept until there is no more room, then counted: the first steps of a run are those
 * that one wants to see. So nothing is allocated and nothing overwritten, and one thread may
 * write out what there is while another goes on adding.
 *
 * Thread: add: one owner, which may be another than that of the rest.
 */

#include "strata/status.h"

#include <stdint.h>

struct trace;

/* Which end of an arrow a span is; arrows connect spans of the same tile. */
enum trace_role {
    TRACE_PLAIN,
    TRACE_GRADIENT, /* of step n, at home or where its update takes it from */
    TRACE_UPDATE,   /* of step n */
    TRACE_USE       /* the parameters of step n + 1 on their way to it */
};

struct trace_event {
    const char *what; /* static */
    uint64_t start_ns;
    uint64_t end_ns;
    uint64_t step;  /* from 0 */
    uint64_t bytes; /* moved or worked on */
    uint32_t row;
    uint32_t group; /* or UINT32_MAX */
    uint32_t tile;  /* or UINT32_MAX */
    enum trace_role role;
};

struct trace_desc {
    const char *const *rows; /* required; borrowed */
    uint32_t row_count;
    const char *title;                                     /* of the whole; borrowed */
    const char *(*group_name)(void *user, uint32_t group); /* required */
    void *user;
};

uint64_t strata_trace_bytes(uint32_t capacity);
strata_status strata_trace_create(struct trace **out, uint32_t capacity, strata_error *error);
void strata_trace_destroy(struct trace *trace);

void strata_trace_add(struct trace *trace, const struct trace_event *event);

/* Everything added so far. What is at the path is replaced when the trace is whole; it is left
 * alone where it is no trace: STRATA_E_INVALID. STRATA_E_IO: the file. */
strata_status strata_trace_write(const struct trace *trace, const char *path,
                                 const struct trace_desc *desc, strata_error *error);

#endif
