#ifndef STRATA_BASE_THREAD_H
#define STRATA_BASE_THREAD_H

/*
 * Starting a thread of the library's. Signals are the program's: all are blocked on it, so that
 * no handler ever runs there.
 */

#include <pthread.h>
#include <stddef.h>

/* stack_bytes: 0: the system's default. 0, or the errno of what failed. Thread: any. */
int strata_thread_start(pthread_t *out, size_t stack_bytes, void *(*run)(void *), void *user);

#endif
