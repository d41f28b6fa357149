#ifndef STRATA_BASE_TRACE_H
#define STRATA_BASE_TRACE_H

/*
 * When each op ran, kept while a step runs and written afterwards as a Chrome trace: a row per
 * lane and drive, a span per op, arrows from a tile's gradient to its update to its next use.
 *
 * Events are kept until the room is used up, and then only counted: the first steps of a run
 * are of most interest. So nothing is allocated or overwritten, and one thread may write the
 * file while another one adds events.
 *
 * Thread: one thread adds; another one may call the rest.
 */

#include "strata/status.h"

#include <stdint.h>

struct trace;

/* The end of an arrow that a span is; arrows connect spans of the same tile. */
enum trace_role {
    TRACE_PLAIN,
    TRACE_GRADIENT, /* the gradient of step n moves to its home or to its update */
    TRACE_UPDATE,   /* of step n */
    TRACE_USE       /* the parameters move to their use in step n + 1 */
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
    const char *title;                                     /* title of the trace; borrowed */
    const char *(*group_name)(void *user, uint32_t group); /* required */
    void *user;
};

uint64_t strata_trace_bytes(uint32_t capacity);
strata_status strata_trace_create(struct trace **out, uint32_t capacity, strata_error *error);
void strata_trace_destroy(struct trace *trace);

void strata_trace_add(struct trace *trace, const struct trace_event *event);

/* Writes all events so far. An old trace is replaced once the new one is whole. E_INVALID: the
 * path holds something other than a trace, which stays. E_IO: the file. */
strata_status strata_trace_write(const struct trace *trace, const char *path,
                                 const struct trace_desc *desc, strata_error *error);

#endif
