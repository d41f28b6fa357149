#ifndef STRATA_BASE_THREAD_H
#define STRATA_BASE_THREAD_H

/*
 * Starting a thread of the library. Signals belong to the program: the new thread blocks all
 * of them, so no handler ever runs there.
 */

#include <pthread.h>
#include <stddef.h>

/* stack_bytes 0: the system's default. Returns 0, or the errno of the failure. Thread: any. */
int strata_thread_start(pthread_t *out, size_t stack_bytes, void *(*run)(void *), void *user);

#endif
