#define _GNU_SOURCE
/*
 * The cpu lane's dispatcher: it takes jobs from a channel in order, has the engine's functions
 * run them on the workers, and reports each end. At most two jobs are under way, and one of
 * them waits here, so the workers have the next one at once.
 *
 * Thread: the dispatcher; started and stopped by the engine's caller.
 */

#include "offload/pager/cpu_lane.h"

#include "base/channel.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/thread.h"

#include <fenv.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* More than the lane's depth, so that a sender never waits. */
#define LANE_JOBS 16u

struct cpu_lane {
    struct cpu_lane_desc desc;
    struct channel *jobs; /* struct message */
    pthread_t thread;
    strata_error error;
};

struct message {
    bool stop;
    struct cpu_job job;
};

static void run_job(struct cpu_lane *lane, const struct cpu_job *job)
{
    const struct lane_functions *functions = lane->desc.functions;
    void *user = lane->desc.functions_user;
    struct cpu_result result = {.slot = job->slot, .start_ns = strata_now_ns()};
    switch (job->kind) {
    case CPU_NORM:
        result.verdict =
            functions->norm(user, job->update.tile, job->update.grad.grad, job->loss_scale);
        break;
    case CPU_UPDATE:
        functions->update(user, &job->update);
        break;
    case CPU_TOTAL:
        result.total = (strata_step_result){
            .step = job->step, .updates = job->updates, .loss_scale = job->loss_scale};
        result.status = functions->total(user, &result.total, &lane->error);
        break;
    }
    result.end_ns = strata_now_ns();
    lane->desc.done(lane->desc.done_user, &result);
}

static void *dispatch(void *user)
{
    struct cpu_lane *lane = user;
    // The norm's sum and the powers of beta are computed here: the creator's modes must not
    // decide any bit of them.
    fesetenv(FE_DFL_ENV);
    for (;;) {
        struct message message;
        if (!strata_channel_receive(lane->jobs, &message, UINT64_MAX))
            continue;
        if (message.stop)
            return NULL;
        run_job(lane, &message.job);
    }
}

uint64_t strata_cpu_lane_bytes(void)
{
    return sizeof(struct cpu_lane) + strata_channel_bytes(LANE_JOBS, sizeof(struct message));
}

strata_status strata_cpu_lane_create(struct cpu_lane **out, const struct cpu_lane_desc *desc,
                                     strata_error *error)
{
    *out = NULL;
    struct cpu_lane *lane = calloc(1, sizeof *lane);
    if (lane == NULL)
        return strata_fail(error, STRATA_E_NOMEM, 0, "no memory for the cpu lane");
    lane->desc = *desc;
    strata_status status =
        strata_channel_create(&lane->jobs, LANE_JOBS, sizeof(struct message), error);
    if (status != STRATA_OK)
        goto free_lane;
    int failed = strata_thread_start(&lane->thread, 0, dispatch, lane);
    if (failed != 0) {
        status =
            strata_fail(error, STRATA_E_NOMEM, failed, "cpu lane thread: %s", strerror(failed));
        goto destroy_channel;
    }
    pthread_setname_np(lane->thread, "strata-cpu");
    *out = lane;
    return STRATA_OK;
destroy_channel:
    strata_channel_destroy(lane->jobs);
free_lane:
    free(lane);
    return status;
}

void strata_cpu_lane_destroy(struct cpu_lane *lane)
{
    if (lane == NULL)
        return;
    strata_channel_send(lane->jobs, &(struct message){.stop = true});
    pthread_join(lane->thread, NULL);
    strata_channel_destroy(lane->jobs);
    free(lane);
}

void strata_cpu_lane_start(struct cpu_lane *lane, const struct cpu_job *job)
{
    strata_channel_send(lane->jobs, &(struct message){.job = *job});
}

const strata_error *strata_cpu_lane_error(const struct cpu_lane *lane)
{
    return &lane->error;
}
