/*
 * A line of progress. See progress_line.h.
 *
 * The time left is estimated from the work since the first call for the piece: work that an
 * earlier run had done says nothing about this run's speed.
 *
 * Thread: one per object.
 */

#include "train/progress_line.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"
#include "train/terminal.h"

#define SECOND_NS UINT64_C(1000000000)

/* On a terminal: no line for work of two seconds or less. The first call comes a quarter of a
 * second after the beginning. */
#define LIVE_FIRST_NS (SECOND_NS * 7 / 4)

/* Elsewhere: time between two lines, and before the first. */
#define PLAIN_NS (10 * SECOND_NS)

void strata_progress_line_begin(struct progress_line *line, bool silent)
{
    *line = (struct progress_line){.silent = silent, .live = strata_terminal_is_there()};
}

bool strata_progress_line_at(struct progress_line *line, const char *what, uint64_t done,
                             uint64_t total, uint64_t now_ns, char *buffer, size_t bytes)
{
    if (line->silent || total == 0)
        return false;
    if (line->what == NULL || strcmp(line->what, what) != 0) {
        line->what = what;
        line->begin_ns = now_ns;
        line->begin_done = done;
        line->next_ns = now_ns + (line->live ? LIVE_FIRST_NS : PLAIN_NS);
    }
    if (done >= total)
        line->what = NULL;
    if (now_ns < line->next_ns || done >= total)
        return false;
    if (!line->live)
        line->next_ns = now_ns + PLAIN_NS;
    char left[16] = "?";
    if (done > line->begin_done) {
        double rate = (double)(done - line->begin_done) / (double)(now_ns - line->begin_ns);
        strata_format_clock(1e-9 * (double)(total - done) / rate, left, sizeof left);
    }
    snprintf(buffer, bytes, "%s: %.0f %%, %s left", what, 100.0 * (double)done / (double)total,
             left);
    return true;
}

void strata_progress_line_end(struct progress_line *line)
{
    static const char clear[] = "\r\033[K";
    if (line->open)
        strata_terminal_write(clear, sizeof clear - 1);
    line->open = false;
}

void strata_progress_line(void *user, const char *what, uint64_t done, uint64_t total)
{
    struct progress_line *line = user;
    char text[160];
    char out[200];
    bool said =
        strata_progress_line_at(line, what, done, total, strata_now_ns(), text, sizeof text);
    if (done >= total)
        strata_progress_line_end(line);
    if (!said)
        return;
    uint32_t room = strata_terminal_columns() - 1;
    if (line->live && strlen(text) > room)
        text[room] = '\0';
    int length = line->live ? snprintf(out, sizeof out, "\r%s\033[K", text)
                            : snprintf(out, sizeof out, "%s\n", text);
    strata_terminal_write(out, (size_t)length);
    line->open = line->live;
}
