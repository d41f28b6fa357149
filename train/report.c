#define _GNU_SOURCE
/*
 * What a run tells people. See report.h.
 *
 * The live line gives up what it cannot show, from the right: first the bars get shorter, then
 * they go, then the time left. The width is asked for at every drawing, one cheap call a step,
 * so a resized terminal needs no signal handler.
 *
 * A cell of a bar has more than two levels, because on 80 columns six lanes leave each a cell
 * or two.
 *
 * Thread: one per object.
 */

#include "train/report.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/json.h"
#include "base/text.h"
#include "train/document.h"
#include "base/error.h"

/* A bar of more cells than that says no more. */
#define MAX_BAR_CELLS 8u

/* Plain lines of a run. */
#define PLAIN_LINES 10u

/* Weight of the newest step in the mean that gives the time left: the last ten or so count. */
static const double newest_share = 0.1;

static const char *const block_levels[] = {" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"};
static const char *const ascii_levels[] = {" ", ".", ":", "#"};

/* Names short enough for the live line, in the order of strata_lane. */
static const char *const lane_labels[STRATA_LANE_COUNT] = {"rd",   "wr",  "h2d", "d2h",
                                                           "comm", "cpu", "dev"};

static bool shows_utf8(void)
{
    /* The first of these that is set decides the character set, as for the C library. */
    const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *value = getenv(names[i]);
        if (value != NULL && *value != '\0')
            return strcasestr(value, "utf-8") != NULL || strcasestr(value, "utf8") != NULL;
    }
    return false;
}

void strata_report_begin(struct report *report, const struct options *options)
{
    *report = (struct report){.steps = options->rate.steps, .blocks = shows_utf8()};
    if (options->quiet)
        return;
    report->out = options->json ? stderr : stdout;
    report->live = isatty(STDERR_FILENO) == 1;
    report->plain = !report->live;
}

static void print_dirs(FILE *out, const struct options *options)
{
    for (uint32_t i = 0; i < options->store_dir_count; i++)
        fprintf(out, "%s%s", i > 0 ? ", " : "", options->store_dirs[i]);
}

/* How often is known once the store is open. */
static bool commits_as_before(const struct options *options)
{
    return options->resume && options->durability != STRATA_SCRATCH &&
           options->commit_every == 0;
}

/* The rest of the first line: what a crash cannot take away. */
static void print_durability(FILE *out, const struct trainer *trainer)
{
    const struct options *options = strata_trainer_options(trainer);
    uint32_t every = strata_trainer_plan(trainer)->commit_every;
    if (options->store_dir_count == 0) {
        fputs("nothing is durable: no --store is given\n", out);
        return;
    }
    if (every == 0) {
        fputs("nothing is durable: the store in ", out);
        print_dirs(out, options);
        fputs(" is scratch and is removed at the end\n", out);
        return;
    }
    if (commits_as_before(options))
        fputs("commits as often as before in ", out);
    else
        fprintf(out, "commits every %u step%s in ", every, every > 1 ? "s" : "");
    print_dirs(out, options);
    fputs(options->durability == STRATA_DURABLE_PROCESS
              ? ", durable while the machine has power\n"
              : "\n",
          out);
}

/* Of a GPU also what is not ours of its memory, context and libraries above all. */
static void print_device(FILE *out, const struct trainer *trainer)
{
    const double gib = 1024.0 * 1024.0 * 1024.0;
    strata_device_facts facts;
    strata_trainer_device_facts(trainer, &facts);
    fprintf(out, "device %s", strata_trainer_device_name(trainer));
    if (facts.model[0] != '\0')
        fprintf(out, " (%s, %.1f GiB, %.2f of them taken before us)", facts.model,
                (double)facts.total_bytes / gib, (double)facts.other_bytes / gib);
    else if (strata_trainer_options(trainer)->device == DEVICE_AUTO)
        fputs(" (no GPU answers)", out);
    fputs(", ", out);
}

void strata_report_first_lines(const struct report *report, const struct trainer *trainer)
{
    FILE *out = report->out;
    if (out == NULL)
        return;
    const struct options *options = strata_trainer_options(trainer);
    const struct llama_config *config = strata_trainer_config(trainer);
    const struct data *data = strata_trainer_data(trainer);
    print_device(out, trainer);
    fprintf(out, "%u workers; ", strata_trainer_thread_count(trainer));
    print_durability(out, trainer);
    fprintf(out,
            "model  %llu layers, hidden %llu, %llu heads, %llu kv, ffn %llu, vocabulary %llu, "
            "%s head, %s\n",
            (unsigned long long)config->layer_count, (unsigned long long)config->hidden_size,
            (unsigned long long)config->head_count, (unsigned long long)config->kv_head_count,
            (unsigned long long)config->ffn_size, (unsigned long long)config->vocab_size,
            config->tied ? "tied" : "untied", strata_dtype_name(options->compute_dtype));
    fprintf(out, "data   %s, %llu %s; a step is %u sequences of %u tokens\n", options->data,
            (unsigned long long)strata_data_token_count(data), strata_data_kind(data),
            options->batch, options->seq);
    fflush(out);
}

/* One entry of "what rests there": nothing where there are no bytes. */
static void print_share(FILE *out, const char *what, uint64_t bytes, bool *first)
{
    if (bytes == 0)
        return;
    char size[16];
    fprintf(out, "%s%s %s", *first ? "" : ", ", what,
            strata_format_size(bytes, size, sizeof size));
    *first = false;
}

/*
 * What a store takes beyond what rests there: each state's other slots, and tables. Without
 * commits that is a header per drive, which says nothing.
 */
static uint64_t commit_bytes(const strata_plan_tier *tier)
{
    uint64_t rest = tier->used_bytes;
    for (int part = 0; part < STRATA_PART_COUNT; part++)
        rest -= tier->home_bytes[part];
    return rest > OPTIONS_MAX_STORE_DIRS * 4096 ? rest : 0;
}

static void print_plan_tier(FILE *out, const strata_plan_tier *tier, strata_tier which)
{
    char limit[16];
    char need[16];
    char used[16];
    fprintf(out, "%-8s%11s%11s%11s   ", strata_tier_name(which),
            strata_format_size(tier->limit_bytes, limit, sizeof limit),
            strata_format_size(tier->need_bytes, need, sizeof need),
            strata_format_size(tier->used_bytes, used, sizeof used));
    bool first = true;
    print_share(out, "weights", tier->home_bytes[STRATA_PARAM], &first);
    print_share(out, "gradients", tier->home_bytes[STRATA_GRAD], &first);
    print_share(out, "states", tier->home_bytes[STRATA_STATE], &first);
    print_share(out, "activations", tier->stash_bytes, &first);
    print_share(out, "scratch", tier->scratch_bytes, &first);
    print_share(out, which == STRATA_DEVICE ? "group copies" : "frames", tier->frame_bytes,
                &first);
    print_share(out, "tables", tier->table_bytes, &first);
    print_share(out, "commits", which == STRATA_NVME ? commit_bytes(tier) : 0, &first);
    fputs(first ? "-\n" : "\n", out);
}

/* A tier without a limit is one that the run does not have. */
static bool has_tier(const strata_plan *plan, int tier)
{
    return plan->tiers[tier].limit_bytes > 0;
}

static void print_forecast(FILE *out, const strata_plan *plan)
{
    const strata_forecast *forecast = &plan->forecast;
    char size[16];
    if (plan->homes != NULL)
        fprintf(
            out,
            "homes   to RAM: %s (fastest in simulation); next best: %s, %.3f times as long\n",
            plan->homes, plan->next_homes, plan->next_factor);
    uint64_t written = forecast->bytes[STRATA_LANE_NVME_WRITE];
    if (written > 0)
        fprintf(out, "wear    %s written to the store a step",
                strata_format_size(written, size, sizeof size));
    if (forecast->drive_days > 0)
        fprintf(out, "; the drives' rated endurance lasts %.0f days", forecast->drive_days);
    fputs(written > 0 ? "\n" : "", out);
    fprintf(out, "a step will take %.3f s, bound by %s; the device will idle %.3f s\n\n",
            forecast->step_s, strata_lane_name(forecast->bottleneck), forecast->exposed_s);
}

void strata_report_tiers(FILE *out, const strata_plan *plan)
{
    fprintf(out, "%-8s%11s%11s%11s   %s\n", "tier", "limit", "need", "used",
            "what rests there");
    for (int tier = STRATA_DEVICE; tier < STRATA_TIER_COUNT; tier++) {
        if (has_tier(plan, tier))
            print_plan_tier(out, &plan->tiers[tier], (strata_tier)tier);
    }
}

void strata_report_plan(const struct report *report, const strata_plan *plan)
{
    FILE *out = report->out;
    if (out == NULL)
        return;
    char state[16];
    fprintf(out,
            "plan   %llu parameters in %u groups and %u tiles of %u; training state %s\n\n",
            (unsigned long long)plan->param_count, plan->group_count, plan->tile_count,
            plan->tile_elems, strata_format_size(plan->state_bytes, state, sizeof state));
    strata_report_tiers(out, plan);
    fprintf(out,
            "frames  %u fetch, %u gradient, %u update, %u parked; %u of %u uses of a group "
            "bring it to the device\n\n",
            plan->fetch_frames, plan->grad_frames, plan->update_frames, plan->park_frames,
            plan->param_loads, plan->param_uses);
    if (plan->forecast.step_s > 0)
        print_forecast(out, plan);
    fflush(out);
}

/* Where a run that was told to go on stands. Commit 0, the initial weights, is no progress. */
static void print_resumed(const struct report *report, const struct trainer *trainer)
{
    const struct options *options = strata_trainer_options(trainer);
    uint32_t every = strata_trainer_plan(trainer)->commit_every;
    if (!options->resume)
        return;
    if (report->resumed > 0)
        fprintf(report->out, "resume goes on from the commit of step %llu\n",
                (unsigned long long)report->resumed);
    else
        fprintf(report->out, "resume starts at step 0: %s\n",
                options->at == 0               ? "that commit was asked for"
                : options->store_dir_count > 0 ? "there is no later commit"
                                               : "no --store is given");
    if (commits_as_before(options))
        fprintf(report->out, "commits every %u step%s\n", every, every > 1 ? "s" : "");
}

void strata_report_started(struct report *report, struct trainer *trainer)
{
    report->resumed = strata_trainer_steps_done(trainer);
    strata_trainer_stats(trainer, &report->last.total);
    if (report->out == NULL)
        return;
    const strata_stats *stats = &report->last.total;
    print_resumed(report, trainer);
    if (stats->io_name != NULL)
        fprintf(report->out, "store  %s, %s, registered buffers: %s; ", stats->io_name,
                stats->io_direct ? "O_DIRECT" : "page cache",
                stats->io_registered ? "yes" : "no");
    fprintf(report->out, "huge pages: %s\n\n", stats->huge_pages ? "yes" : "no");
    fflush(report->out);
}

/* "0:42", "12:05", "3:12:05". */
static const char *clock_text(double seconds, char *buffer, size_t bytes)
{
    if (!(seconds < 3.6e9))
        seconds = 3.6e9;
    unsigned long long whole = (unsigned long long)(seconds + 0.5);
    if (whole >= 3600)
        snprintf(buffer, bytes, "%llu:%02llu:%02llu", whole / 3600, whole / 60 % 60,
                 whole % 60);
    else
        snprintf(buffer, bytes, "%llu:%02llu", whole / 60, whole % 60);
    return buffer;
}

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

/* A run of one rank has nothing to show of collectives. */
static bool has_bar(int lane)
{
    return lane != STRATA_LANE_COMM;
}

/* Columns of all bars with the given cells each, with the gaps before them. */
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
        clock_text(report->mean_s * (double)(report->steps - step->step), left, sizeof left));
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

static void write_stderr(const char *text, size_t bytes)
{
    while (bytes > 0) {
        ssize_t wrote = write(STDERR_FILENO, text, bytes);
        if (wrote < 0 && errno == EINTR)
            continue;
        /* A terminal that is gone is no reason to stop training. */
        if (wrote <= 0)
            return;
        text += wrote;
        bytes -= (size_t)wrote;
    }
}

static void draw_live(struct report *report, const struct trainer_step *step)
{
    static const char clear_rest[] = "\033[K";
    struct winsize size;
    uint32_t columns =
        ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
    char text[1024] = "\r";
    size_t length = 1 + strata_report_live_text(report, step, columns, text + 1,
                                                sizeof text - sizeof clear_rest - 1);
    memcpy(text + length, clear_rest, sizeof clear_rest - 1);
    write_stderr(text, length + sizeof clear_rest - 1);
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
    int length = snprintf(
        text, sizeof text, "step %llu/%llu: loss %.4f, %s, %.0f tokens/s, %s left\n",
        (unsigned long long)step->step, (unsigned long long)report->steps, step->loss, norm,
        step->tokens_per_s,
        clock_text(report->mean_s * (double)(report->steps - step->step), left, sizeof left));
    write_stderr(text, (size_t)length < sizeof text ? (size_t)length : sizeof text - 1);
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
        write_stderr("\n", 1);
    report->line_open = false;
}

static uint64_t tier_peak(const strata_stats *stats, int tier)
{
    return tier == STRATA_DEVICE ? stats->device_peak_bytes
           : tier == STRATA_HOST ? stats->host_peak_bytes
                                 : stats->nvme_bytes;
}

void strata_report_tables(const struct report *report, const strata_plan *plan)
{
    FILE *out = report->out;
    if (out == NULL || report->last.step == 0)
        return;
    const strata_stats *stats = &report->last.total;
    char first[16];
    char second[16];
    fprintf(out, "\n%-12s%11s%12s%8s\n", "tier", "limit", "peak used", "share");
    for (int tier = STRATA_DEVICE; tier < STRATA_TIER_COUNT; tier++) {
        if (!has_tier(plan, tier))
            continue;
        uint64_t limit = plan->tiers[tier].limit_bytes;
        uint64_t peak = tier_peak(stats, tier);
        fprintf(out, "%-12s%11s%12s%6.1f %%\n", strata_tier_name((strata_tier)tier),
                strata_format_size(limit, first, sizeof first),
                strata_format_size(peak, second, sizeof second),
                100.0 * (double)peak / (double)limit);
    }
    fprintf(out, "\n%-12s%11s%12s%8s\n", "lane", "bytes", "busy", "share");
    for (int lane = 0; lane < STRATA_LANE_COUNT; lane++) {
        double busy = 1e-9 * (double)stats->lanes[lane].busy_ns;
        uint64_t bytes = stats->lanes[lane].bytes;
        const char *moved = bytes > 0 ? strata_format_size(bytes, first, sizeof first) : "-";
        if (stats->lanes[lane].ops == 0)
            continue; /* nothing of the kind was there to do */
        fprintf(out, "%-12s%11s%10.1f s%6.1f %%\n", strata_lane_name((strata_lane)lane), moved,
                busy, 100.0 * busy / report->seconds);
    }
    fputs("waits       ", out);
    for (int stall = 0; stall < STRATA_STALL_COUNT; stall++)
        fprintf(out, "%s%s %.1f s", stall > 0 ? ", " : "",
                strata_stall_name((strata_stall)stall), 1e-9 * (double)stats->stall_ns[stall]);
    fputc('\n', out);
    double step_tokens = report->last.tokens_per_s * report->last.seconds;
    fprintf(out, "\nloss %.4f at step %llu, %.4f at step %llu; %.1f s, %.0f tokens/s\n",
            report->first_loss, (unsigned long long)report->resumed + 1, report->last_loss,
            (unsigned long long)report->last.step, report->seconds,
            step_tokens * (double)(report->last.step - report->resumed) / report->seconds);
    fflush(out);
}

static strata_json *json_tier(const strata_plan_tier *tier)
{
    strata_json *object = strata_json_object();
    strata_json_set_uint(object, "limit_bytes", tier->limit_bytes);
    strata_json_set_uint(object, "need_bytes", tier->need_bytes);
    strata_json_set_uint(object, "used_bytes", tier->used_bytes);
    strata_json_set_uint(object, "param_bytes", tier->home_bytes[STRATA_PARAM]);
    strata_json_set_uint(object, "grad_bytes", tier->home_bytes[STRATA_GRAD]);
    strata_json_set_uint(object, "state_bytes", tier->home_bytes[STRATA_STATE]);
    strata_json_set_uint(object, "stash_bytes", tier->stash_bytes);
    strata_json_set_uint(object, "frame_bytes", tier->frame_bytes);
    strata_json_set_uint(object, "table_bytes", tier->table_bytes);
    strata_json_set_uint(object, "scratch_bytes", tier->scratch_bytes);
    return object;
}

static strata_json *json_forecast(const strata_forecast *forecast)
{
    strata_json *object = strata_json_object();
    strata_json_set_number(object, "step_s", forecast->step_s);
    strata_json_set_number(object, "bound_s", forecast->bound_s);
    strata_json_set_string(object, "bottleneck", strata_lane_name(forecast->bottleneck));
    strata_json_set_number(object, "chain_s", forecast->chain_s);
    strata_json_set_uint(object, "write_bytes", forecast->bytes[STRATA_LANE_NVME_WRITE]);
    strata_json_set_number(object, "drive_days", forecast->drive_days);
    strata_json_set_number(object, "exposed_s", forecast->exposed_s);
    strata_json *lanes = strata_json_object();
    for (int lane = 0; lane < STRATA_LANE_COUNT; lane++)
        strata_json_set_number(lanes, strata_lane_name((strata_lane)lane),
                               forecast->busy_s[lane]);
    strata_json_set(object, "busy_s", lanes);
    return object;
}

static strata_json *json_plan(const strata_plan *plan)
{
    strata_json *object = strata_json_object();
    strata_json_set_uint(object, "param_count", plan->param_count);
    strata_json_set_uint(object, "state_bytes", plan->state_bytes);
    strata_json_set_uint(object, "group_count", plan->group_count);
    strata_json_set_uint(object, "tile_count", plan->tile_count);
    strata_json_set_uint(object, "tile_elems", plan->tile_elems);
    strata_json_set_uint(object, "param_loads", plan->param_loads);
    strata_json_set_uint(object, "param_uses", plan->param_uses);
    strata_json_set_uint(object, "commit_every", plan->commit_every);
    if (plan->forecast.step_s > 0)
        strata_json_set(object, "forecast", json_forecast(&plan->forecast));
    if (plan->homes != NULL) {
        strata_json_set_string(object, "homes", plan->homes);
        strata_json_set_string(object, "next_homes", plan->next_homes);
        strata_json_set_number(object, "next_factor", plan->next_factor);
    }
    strata_json *tiers = strata_json_object();
    for (int tier = STRATA_DEVICE; tier < STRATA_TIER_COUNT; tier++) {
        if (has_tier(plan, tier))
            strata_json_set(tiers, strata_tier_name((strata_tier)tier),
                            json_tier(&plan->tiers[tier]));
    }
    strata_json_set(object, "tiers", tiers);
    return object;
}

static strata_json *json_result(const struct report *report, const char *state_hash)
{
    const strata_stats *stats = &report->last.total;
    strata_json *object = strata_json_object();
    bool trained = report->last.step > 0;
    strata_json_set_uint(object, "steps", trained ? report->last.step : report->resumed);
    strata_json_set_uint(object, "resumed_steps", report->resumed);
    strata_json_set_number(object, "seconds", report->seconds);
    if (trained) {
        strata_json_set_number(object, "first_loss", report->first_loss);
        strata_json_set_number(object, "last_loss", report->last_loss);
        strata_json_set_uint(object, "updates", report->last.updates);
        strata_json_set_number(object, "loss_scale", report->last.loss_scale);
    }
    strata_json_set_uint(object, "device_peak_bytes", stats->device_peak_bytes);
    strata_json_set_uint(object, "host_peak_bytes", stats->host_peak_bytes);
    strata_json_set_uint(object, "nvme_bytes", stats->nvme_bytes);
    strata_json *lanes = strata_json_object();
    for (int lane = 0; lane < STRATA_LANE_COUNT; lane++) {
        strata_json *one = strata_json_object();
        strata_json_set_number(one, "busy_s", 1e-9 * (double)stats->lanes[lane].busy_ns);
        strata_json_set_uint(one, "bytes", stats->lanes[lane].bytes);
        strata_json_set(lanes, strata_lane_name((strata_lane)lane), one);
    }
    strata_json_set(object, "lanes", lanes);
    strata_json *waits = strata_json_object();
    for (int stall = 0; stall < STRATA_STALL_COUNT; stall++)
        strata_json_set_number(waits, strata_stall_name((strata_stall)stall),
                               1e-9 * (double)stats->stall_ns[stall]);
    strata_json_set(object, "waits_s", waits);
    if (stats->io_name != NULL) {
        strata_json_set_string(object, "io", stats->io_name);
        strata_json_set_bool(object, "io_direct", stats->io_direct);
        strata_json_set_bool(object, "io_registered", stats->io_registered);
    }
    strata_json_set_bool(object, "huge_pages", stats->huge_pages);
    strata_json_set_bool(object, "pinned", stats->pinned);
    if (state_hash != NULL)
        strata_json_set_string(object, "state_hash", state_hash);
    return object;
}

strata_status strata_report_json(const struct report *report, const struct trainer *trainer,
                                 const char *state_hash, strata_error *error)
{
    const struct options *options = strata_trainer_options(trainer);
    strata_json *document = strata_json_object();
    strata_json_set_string(document, "program", "offload-train");
    strata_json_set_string(document, "version", strata_version());
    strata_json_set_string(document, "device", strata_trainer_device_name(trainer));
    strata_json_set_uint(document, "threads", strata_trainer_thread_count(trainer));
    strata_json_set(document, "plan", json_plan(strata_trainer_plan(trainer)));
    if (report->last.step > 0 || report->resumed > 0)
        strata_json_set(document, "result", json_result(report, state_hash));
    strata_status status =
        strata_document_write(document, options->json, options->document, error);
    strata_json_free(document);
    return status;
}
