/*
 * The output of a run for programs: one JSON document. See report.h.
 *
 * Thread: one per object.
 */

#include "train/report.h"

#include "base/json.h"
#include "train/document.h"

static strata_json *json_tier(const strata_plan_tier *tier)
{
    strata_json *object = strata_json_object();
    strata_json_set_uint(object, "limit_bytes", tier->limit_bytes);
    strata_json_set_uint(object, "need_bytes", tier->need_bytes);
    strata_json_set_uint(object, "used_bytes", tier->used_bytes);
    strata_json_set_uint(object, "param_bytes", tier->home_bytes[STRATA_PARAM]);
    strata_json_set_uint(object, "frozen_bytes", tier->frozen_bytes);
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
        if (strata_report_has_tier(plan, tier))
            strata_json_set(tiers, strata_tier_name((strata_tier)tier),
                            json_tier(&plan->tiers[tier]));
    }
    strata_json_set(object, "tiers", tiers);
    return object;
}

static strata_json *json_run_result(const struct report *report, const char *state_hash)
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
        strata_json_set(document, "result", json_run_result(report, state_hash));
    strata_status status =
        strata_document_write(document, options->json, options->document, error);
    strata_json_free(document);
    return status;
}
