/*
 * Keeping events, and writing them in the Chrome trace format: an object with an array of
 * events. X: a span with a start and a duration in microseconds; M: a row's name; s and f: the
 * two ends of an arrow, each attached to the span that it lies in.
 *
 * The document is written event by event and never built in memory: a trace has a hundred
 * thousand events.
 *
 * The thread that adds writes count with release, the thread that writes the file reads it
 * with acquire: events below count do not change any more.
 *
 * Thread: see trace.h.
 */

#include "base/trace.h"

#include "base/error.h"
#include "base/output.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct trace {
    uint32_t capacity;
    _Atomic uint32_t count;
    _Atomic uint64_t left_out;
    struct trace_event events[];
};

uint64_t strata_trace_bytes(uint32_t capacity)
{
    return sizeof(struct trace) + (uint64_t)capacity * sizeof(struct trace_event);
}

strata_status strata_trace_create(struct trace **out, uint32_t capacity, strata_error *error)
{
    *out = calloc(1, strata_trace_bytes(capacity));
    if (*out == NULL)
        return strata_fail(error, STRATA_E_NOMEM, ENOMEM, "no memory for a trace of %u events",
                           capacity);
    (*out)->capacity = capacity;
    return STRATA_OK;
}

void strata_trace_destroy(struct trace *trace)
{
    free(trace);
}

void strata_trace_add(struct trace *trace, const struct trace_event *event)
{
    uint32_t count = atomic_load_explicit(&trace->count, memory_order_relaxed);
    if (count == trace->capacity) {
        atomic_fetch_add_explicit(&trace->left_out, 1, memory_order_relaxed);
        return;
    }
    trace->events[count] = *event;
    atomic_store_explicit(&trace->count, count + 1, memory_order_release);
}

static void put_text(FILE *file, const char *text)
{
    fputc('"', file);
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\')
            fputc('\\', file);
        if ((unsigned char)*text < ' ')
            fprintf(file, "\\u%04x", (unsigned)*text);
        else
            fputc(*text, file);
    }
    fputc('"', file);
}

static void put_name(FILE *file, const struct trace_event *event, const struct trace_desc *desc)
{
    char name[160];
    int length = snprintf(name, sizeof name, "%s", event->what);
    if (event->group != UINT32_MAX)
        length += snprintf(name + length, sizeof name - (size_t)length, " %.100s",
                           desc->group_name(desc->user, event->group));
    if (event->tile != UINT32_MAX)
        snprintf(name + length, sizeof name - (size_t)length, " #%u", event->tile);
    put_text(file, name);
}

static void put_span(FILE *file, const struct trace_event *event, uint64_t zero_ns,
                     const struct trace_desc *desc)
{
    fprintf(file, ",\n{\"ph\":\"X\",\"pid\":1,\"tid\":%u,\"ts\":%.3f,\"dur\":%.3f,\"name\":",
            event->row, 1e-3 * (double)(event->start_ns - zero_ns),
            1e-3 * (double)(event->end_ns - event->start_ns));
    put_name(file, event, desc);
    fprintf(file, ",\"args\":{\"step\":%" PRIu64 ",\"bytes\":%" PRIu64 "}}", event->step,
            event->bytes);
}

/* One end of an arrow, in the middle of its span. The two arrows of a tile and step have
 * different ids. */
static void put_arrow(FILE *file, const struct trace_event *event, uint64_t zero_ns,
                      bool begins, uint64_t id)
{
    double middle = 0.5e-3 * (double)(event->start_ns - zero_ns + event->end_ns - zero_ns);
    fprintf(file,
            ",\n{\"ph\":\"%s\",\"pid\":1,\"tid\":%u,\"ts\":%.3f,\"id\":%" PRIu64
            ",\"cat\":\"tile\",\"name\":\"tile\"%s}",
            begins ? "s" : "f", event->row, middle, id, begins ? "" : ",\"bp\":\"e\"");
}

static void put_arrows(FILE *file, const struct trace_event *event, uint64_t zero_ns)
{
    uint64_t id = 2 * (event->step << 32 | event->tile);
    switch (event->role) {
    case TRACE_GRADIENT:
        put_arrow(file, event, zero_ns, true, id);
        break;
    case TRACE_UPDATE:
        put_arrow(file, event, zero_ns, false, id);
        put_arrow(file, event, zero_ns, true, id + 1);
        break;
    case TRACE_USE:
        put_arrow(file, event, zero_ns, false, id + 1);
        break;
    default:
        break;
    }
}

static void put_rows(FILE *file, const struct trace_desc *desc)
{
    fputs("{\"ph\":\"M\",\"pid\":1,\"name\":\"process_name\",\"args\":{\"name\":", file);
    put_text(file, desc->title);
    fputs("}}", file);
    for (uint32_t i = 0; i < desc->row_count; i++) {
        fprintf(file,
                ",\n{\"ph\":\"M\",\"pid\":1,\"tid\":%u,\"name\":\"thread_name\",\"args\":{"
                "\"name\":",
                i);
        put_text(file, desc->rows[i]);
        fputs("}}", file);
    }
}

strata_status strata_trace_write(const struct trace *trace, const char *path,
                                 const struct trace_desc *desc, strata_error *error)
{
    struct output out;
    STRATA_TRY(strata_output_open(&out, path, OUTPUT_TRACE, error));
    uint32_t count = atomic_load_explicit(&trace->count, memory_order_acquire);
    uint64_t left_out = atomic_load_explicit(&trace->left_out, memory_order_relaxed);
    uint64_t zero_ns = UINT64_MAX;
    for (uint32_t i = 0; i < count; i++)
        if (trace->events[i].start_ns < zero_ns)
            zero_ns = trace->events[i].start_ns;
    fprintf(out.stream,
            "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"events_left_out\":%" PRIu64
            "},\"traceEvents\":[\n",
            left_out);
    put_rows(out.stream, desc);
    for (uint32_t i = 0; i < count; i++) {
        put_span(out.stream, &trace->events[i], zero_ns, desc);
        put_arrows(out.stream, &trace->events[i], zero_ns);
    }
    fputs("\n]}\n", out.stream);
    return strata_output_close(&out, error);
}
