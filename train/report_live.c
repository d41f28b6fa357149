#define _GNU_SOURCE
/*
 * The live line of a run, and the plain lines where there is no terminal. See report.h.
 *
 * If the live line is too wide, it loses parts from the right: first the bars get shorter,
 * then they are left out, then the time left. The width is read at every drawing, one cheap
 * call per step, so a resized terminal needs no signal handler.
 *
 * A cell of a bar has more than two levels, because with six lanes on 80 columns each lane has
 * only one or two cells.
 *
 * Thread: one per object.
 */

#include "train/report.h"

#include <string.h>

#include "base/text.h"
#include "train/terminal.h"

/* More cells than this make a bar no clearer. */
#define MAX_BAR_CELLS 8u

/* Plain lines of a run. */
#define PLAIN_LINES 10u

/* Weight of the newest step in the mean that gives the time left: about the last ten steps
 * count. */
static const double newest_share = 0.1;

static const char *const block_levels[] = {" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"};
static const char *const ascii_levels[] = {" ", ".", ":", "#"};

/* Names short enough for the live line, in the order of strata_lane. */
static const char *const lane_labels[STRATA_LANE_COUNT] = {"rd",   "wr",  "h2d", "d2h",
                                                           "comm", "cpu", "dev"};

/* One lane as "rd|##  |", or as "rd#" with a single cell; returns the bytes written. */
static size_t draw_bar(bool blocks, const char *label, double share, uint32_t cells, char *out)
{
    const char *const *levels = blocks ? block_levels : ascii_levels;
    const uint32_t full = blocks ? 8 : 3;
    if (!(share > 0))
        share = 0;
    if (share > 1)
        share = 1;
    uint32_t filled = (uint32_t)(share * cells * full + 0.5);
    const char *frame = cells > 1 ? "|" : "";
    char *at = stpcpy(stpcpy(out, label), frame);
    for (uint32_t cell = 0; cell < cells; cell++) {
        uint32_t level = filled < full ? filled : full;
        filled -= level;
        at = stpcpy(at, levels[level]);
    }
    return (size_t)(stpcpy(at, frame) - out);
}

/* A run of one rank has no collectives. */
static bool has_bar(int lane)
{
    return lane != STRATA_LANE_COMM;
}

/* Columns of all bars with this many cells each, and the gaps before them. */
static uint32_t bars_columns(uint32_t cells)
{
    uint32_t columns = 1;
    for (int lane = 0; lane < STRATA_LANE_COUNT; lane++)
        if (has_bar(lane))
            columns += 1 + (uint32_t)strlen(lane_labels[lane]) + cells + (cells > 1 ? 2 : 0);
    return columns;
}

static size_t draw_bars(const struct report *report, const struct trainer_step *step,
                        uint32_t cells, char *out)
{
    size_t length = 0;
    out[length++] = ' ';
    for (int lane = 0; lane < STRATA_LANE_COUNT; lane++) {
        double share = 1e-9 * (double)step->lanes[lane].busy_ns / step->seconds;
        if (!has_bar(lane))
            continue;
        out[length++] = ' ';
        length += draw_bar(report->blocks, lane_labels[lane], share, cells, out + length);
    }
    out[length] = '\0';
    return length;
}

size_t strata_report_live_text(const struct report *report, const struct trainer_step *step,
                               uint32_t columns, char *buffer, size_t buffer_bytes)
{
    char head[128];
    char tail[64];
    char left[32];
    char bars[512] = "";
    uint32_t room = columns > 0 ? columns - 1 : 0;
    uint32_t head_columns =
        (uint32_t)snprintf(head, sizeof head, "step %llu/%llu  loss %.4f  %.0f tok/s",
                           (unsigned long long)step->step, (unsigned long long)report->steps,
                           step->loss, step->tokens_per_s);
    uint32_t tail_columns = (uint32_t)snprintf(
        tail, sizeof tail, "  %s left",
        strata_format_clock(report->mean_s * (double)(report->steps - step->step), left,
                            sizeof left));
    uint32_t cells = MAX_BAR_CELLS;
    while (cells > 0 && head_columns + bars_columns(cells) + tail_columns > room)
        cells--;
    if (cells > 0)
        draw_bars(report, step, cells, bars);
    if (head_columns + tail_columns > room)
        tail[0] = '\0';
    if (head_columns > room)
        head[room < sizeof head ? room : sizeof head - 1] = '\0';
    int length = snprintf(buffer, buffer_bytes, "%s%s%s", head, bars, tail);
    return length < (int)buffer_bytes ? (size_t)length : buffer_bytes - 1;
}

static void draw_live(struct report *report, const struct trainer_step *step)
{
    static const char clear_rest[] = "\033[K";
    uint32_t columns = strata_terminal_columns();
    char text[1024] = "\r";
    size_t length = 1 + strata_report_live_text(report, step, columns, text + 1,
                                                sizeof text - sizeof clear_rest - 1);
    memcpy(text + length, clear_rest, sizeof clear_rest - 1);
    strata_terminal_write(text, length + sizeof clear_rest - 1);
    report->line_open = true;
}

static void print_plain(const struct report *report, const struct trainer_step *step)
{
    uint64_t share = step->step * PLAIN_LINES / report->steps;
    uint64_t share_before = (step->step - 1) * PLAIN_LINES / report->steps;
    bool first = step->step == report->resumed + 1;
    if (!first && step->step < report->steps && share == share_before)
        return;
    char text[192];
    char left[32];
    char norm[64];
    if (step->skipped)
        snprintf(norm, sizeof norm, "skipped at loss scale %g", step->loss_scale);
    else
        snprintf(norm, sizeof norm, "norm %.3f", step->grad_norm);
    int length =
        snprintf(text, sizeof text, "step %llu/%llu: loss %.4f, %s, %.0f tokens/s, %s left\n",
                 (unsigned long long)step->step, (unsigned long long)report->steps, step->loss,
                 norm, step->tokens_per_s,
                 strata_format_clock(report->mean_s * (double)(report->steps - step->step),
                                     left, sizeof left));
    strata_terminal_write(text,
                          (size_t)length < sizeof text ? (size_t)length : sizeof text - 1);
}

void strata_report_step(struct report *report, const struct trainer_step *step)
{
    if (report->last.step == 0) {
        report->first_loss = step->loss;
        report->mean_s = step->seconds;
    }
    report->mean_s += newest_share * (step->seconds - report->mean_s);
    report->last_loss = step->loss;
    report->seconds += step->seconds;
    report->last = *step;
    if (report->live)
        draw_live(report, step);
    else if (report->plain)
        print_plain(report, step);
}

void strata_report_end_line(struct report *report)
{
    if (report->line_open)
        strata_terminal_write("\n", 1);
    report->line_open = false;
}
