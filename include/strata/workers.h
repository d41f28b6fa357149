#ifndef STRATA_WORKERS_H
#define STRATA_WORKERS_H

/*
 * One pool of CPU workers for everything that computes on the host: panels of matrix products
 * and the optimizer's updates. One worker per core, bound to it, inside the process's own
 * affinity mask and CPU quota, near a device where that is asked for. The pool has two classes
 * of jobs; while both wait, half of the workers update, rounded down, and the others compute
 * panels.
 *
 *     static void square(void *user, uint32_t index, uint32_t worker) { ... }
 *     strata_workers_run(workers, STRATA_JOB_PANEL, square, &data, 64);
 *
 * A job is cut into items by its shape alone, never by the number of workers, so the thread
 * count changes no bit of any result.
 *
 * Thread: any thread may run jobs, several at once. Create and destroy from one.
 */

#include "strata/types.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct strata_workers strata_workers;

typedef struct strata_workers_desc {
    uint32_t thread_count; /* 0: one per core that may be used, at most the CPU quota */
    const char *near_cpus; /* NULL: the whole affinity mask; else a list such as "0-15,32-47",
                              as in a device's local_cpulist in sysfs: only those of the mask,
                              unless it has none of them. Read during create only */
    bool unbound;          /* do not bind the workers to cores */
    uint32_t spared;       /* with thread_count 0: cores that are left to other threads, if one
                              is left to the workers */
} strata_workers_desc;

typedef enum strata_job_class {
    STRATA_JOB_PANEL = 0,
    STRATA_JOB_UPDATE,
    STRATA_JOB_CLASS_COUNT
} strata_job_class;

/* index: which item, 0 to count - 1. worker: in whose place it runs, 0 to the thread count - 1;
 * no two items run in one place at once. */
typedef void (*strata_job_fn)(void *user, uint32_t index, uint32_t worker);

/*
 * Start the threads. On success *out is owned until strata_workers_destroy().
 *
 * STRATA_E_INVALID: more threads than four per core that may be used; near_cpus is no list.
 * STRATA_E_NOMEM:   a thread could not be created; native is the errno.
 */
STRATA_API STRATA_NODISCARD strata_status strata_workers_create(strata_workers **out,
                                                                const strata_workers_desc *desc,
                                                                strata_error *error);

/* Waits for jobs that run. While an engine is left that was made with the pool, it is the
 * engine's, and goes with it. NULL is fine. */
STRATA_API void strata_workers_destroy(strata_workers *workers);

/*
 * Run fn for every index from 0 to count - 1, in any order, on any worker; return when all are
 * done. With panels the caller's thread computes too, in the place of the worker of its core,
 * if that is idle and nothing else is queued: under that worker's number and with its
 * floating-point environment. Else, and with updates, it sleeps meanwhile. fn must not call
 * this again.
 *
 * A caller who is sure of its arguments need not look at the status: STRATA_E_INVALID: no
 * workers, no fn or no such class; STRATA_E_STATE: called from an item of the same pool. Then
 * nothing has run.
 *
 * Thread: any.
 */
STRATA_API strata_status strata_workers_run(strata_workers *workers, strata_job_class job_class,
                                            strata_job_fn fn, void *user, uint32_t count);

/* NULL: 0. */
STRATA_API uint32_t strata_workers_count(const strata_workers *workers);

#ifdef __cplusplus
}
#endif

#endif
