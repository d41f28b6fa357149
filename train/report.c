#define _GNU_SOURCE
/*
 * The text that a run prints for people: the first lines, the plan, the tables at the end. See
 * report.h. report_live.c draws the live line, report_json.c writes the document.
 *
 * Thread: one per object.
 */

#include "train/report.h"

#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "train/terminal.h"

static bool shows_utf8(void)
{
    /* The first of these that is set names the character set, as in the C library. */
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
    report->live = strata_terminal_is_there();
    report->plain = !report->live;
}

static void print_dirs(FILE *out, const struct options *options)
{
    for (uint32_t i = 0; i < options->store_dir_count; i++)
        fprintf(out, "%s%s", i > 0 ? ", " : "", options->store_dirs[i]);
}

/* True if the interval of commits comes from the store, so it is known only once that is
 * open. */
static bool commits_as_before(const struct options *options)
{
    return options->resume && options->durability != STRATA_SCRATCH &&
           options->commit_every == 0;
}

/* The rest of the first line: what survives a crash. */
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

/* For a GPU also the memory that is not ours, mostly the context and libraries. */
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

/* The first weights of a new run. */
static void print_weights(FILE *out, const struct options *options)
{
    if (options->resume)
        return;
    fprintf(out, "weights random, seed %llu", (unsigned long long)options->seed);
    if (strata_decoder_has_weights(options->model))
        fprintf(out, "; those in %s are not read by this version", options->model);
    fputc('\n', out);
}

void strata_report_first_lines(const struct report *report, const struct trainer *trainer)
{
    FILE *out = report->out;
    if (out == NULL)
        return;
    const struct options *options = strata_trainer_options(trainer);
    const struct decoder_config *config = strata_trainer_config(trainer);
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
    print_weights(out, options);
    fprintf(out, "data   %s, %llu %s; a step is %u sequences of %u tokens\n", options->data,
            (unsigned long long)strata_data_token_count(data), strata_data_kind(data),
            options->batch, options->seq);
    fflush(out);
}

/* One entry of a tier's contents; prints nothing for 0 bytes. */
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
 * The bytes of a store beyond the tiles that rest there: the other slots of each state, and
 * tables. Without commits that is only a header per drive, which is not worth a line.
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
    if (tier->frozen_bytes > 0)
        fprintf(out, " (%s frozen)", strata_format_size(tier->frozen_bytes, used, sizeof used));
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

bool strata_report_has_tier(const strata_plan *plan, int tier)
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
        if (strata_report_has_tier(plan, tier))
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

/* The step of a run that continues from a commit. Commit 0, the initial weights, is no
 * progress. */
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
        if (!strata_report_has_tier(plan, tier))
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
            continue; /* there was no such work */
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
