#define _GNU_SOURCE
/*
 * Starts a thread with all signals blocked from its first instruction on; see thread.h. A
 * thread inherits the mask of its creator, so the mask is set before the creation and restored
 * after.
 *
 * Thread: any.
 */

#include "base/thread.h"

#include <signal.h>

int strata_thread_start(pthread_t *out, size_t stack_bytes, void *(*run)(void *), void *user)
{
    sigset_t all, before;
    pthread_attr_t attr;
    int failed = pthread_attr_init(&attr);
    if (failed != 0)
        return failed;
    if (stack_bytes > 0)
        failed = pthread_attr_setstacksize(&attr, stack_bytes);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (failed == 0)
        failed = pthread_create(out, &attr, run, user);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return failed;
}
