#define _GNU_SOURCE
/*
 * The committer: a thread that takes one job at a time from a channel. See committer.h.
 *
 * Thread: its own; started and stopped by the engine's caller.
 */

#include "offload/pager/committer.h"

#include "base/channel.h"
#include "base/error.h"
#include "base/thread.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct committer {
    struct store *store;
    struct channel *jobs; /* struct message */
    commit_done_fn done;
    void *user;
    pthread_t thread;
};

struct message {
    bool stop;
    struct commit_job job;
};

strata_status strata_commit_lines(struct store *store, const struct commit_line *lines,
                                  uint32_t line_count, uint64_t updates, double loss_scale)
{
    struct store_line named[1 + STRATA_MAX_KEEP];
    for (uint32_t i = 0; i < line_count; i++)
        named[i] = (struct store_line){.step = lines[i].step, .slots = lines[i].slots};
    return strata_store_commit(store, named, line_count, updates, loss_scale);
}

static void *run_committer(void *user)
{
    struct committer *committer = user;
    for (;;) {
        struct message message;
        if (!strata_channel_receive(committer->jobs, &message, UINT64_MAX))
            continue;
        if (message.stop)
            return NULL;
        const struct commit_job *job = &message.job;
        strata_status status = strata_commit_lines(
            committer->store, job->lines, job->line_count, job->updates, job->loss_scale);
        committer->done(committer->user, job->slot, status);
    }
}

strata_status strata_committer_create(struct committer **out, struct store *store,
                                      commit_done_fn done, void *user, strata_error *error)
{
    *out = NULL;
    struct committer *committer = calloc(1, sizeof *committer);
    if (committer == NULL)
        return strata_fail(error, STRATA_E_NOMEM, 0, "no memory for the committer");
    *committer = (struct committer){.store = store, .done = done, .user = user};
    strata_status status =
        strata_channel_create(&committer->jobs, 2, sizeof(struct message), error);
    if (status != STRATA_OK)
        goto free_committer;
    int failed = strata_thread_start(&committer->thread, 0, run_committer, committer);
    if (failed != 0) {
        status = strata_fail(error, STRATA_E_NOMEM, failed, "committer thread: %s",
                             strerror(failed));
        goto destroy_channel;
    }
    pthread_setname_np(committer->thread, "strata-commit");
    *out = committer;
    return STRATA_OK;
destroy_channel:
    strata_channel_destroy(committer->jobs);
free_committer:
    free(committer);
    return status;
}

void strata_committer_destroy(struct committer *committer)
{
    if (committer == NULL)
        return;
    strata_channel_send(committer->jobs, &(struct message){.stop = true});
    pthread_join(committer->thread, NULL);
    strata_channel_destroy(committer->jobs);
    free(committer);
}

void strata_committer_start(struct committer *committer, const struct commit_job *job)
{
    strata_channel_send(committer->jobs, &(struct message){.job = *job});
}
