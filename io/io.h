#ifndef STRATA_IO_IO_H
#define STRATA_IO_IO_H

/*
 * Requests in flight against a few open files, and the seam below it that real and failing
 * backends share.
 *
 * The owner of a queue starts requests and reaps them:
 *
 *     strata_io_queue_start(queue, &req);               // req and its buffer are lent
 *     while ((done = strata_io_queue_reap(queue, timeout_ns)))
 *         ...                                           // done->status says how it went
 *
 * A request is embedded in its owner's struct and lent to the queue until it has been reaped.
 * It succeeds only when every byte has moved: the queue continues short transfers and repeats
 * attempts that end with EAGAIN or EINTR. A sync that failed is never repeated, because the
 * kernel may have dropped the very pages that it could not write.
 *
 * Backends report, the queue decides. A backend starts attempts and reports later the result
 * for each id. It neither retries nor judges, and it never sees a request. So what happens
 * after a failure is written once, in queue.c, and tested with a backend that fails on purpose.
 *
 * Thread: one per queue, its owner, for everything but strata_io_queue_wake().
 */

#include "strata/status.h"

#include <stdbool.h>

/* Offsets, lengths and buffers of transfers are multiples of this, also where the drive would
 * accept less. */
#define STRATA_IO_ALIGN_BYTES 4096u

/* A request's id names one of this many slots; far above what any drive can use. */
#define STRATA_IO_MAX_DEPTH 4096u

enum io_op {
    IO_READ = 1,
    IO_WRITE,
    IO_SYNC, /* fdatasync; buffer, offset and length are not used */
};

/* An open file a queue works on. The path is for messages. */
struct io_file {
    int fd;
    const char *path;
};

/* One transfer, or one sync. Zero it, fill the first part, start it. */
struct io_req {
    enum io_op op;
    uint32_t file_index; /* into the queue's files                                      */
    uint32_t length;     /* bytes; a multiple of STRATA_IO_ALIGN_BYTES, not 0           */
    void *buffer;        /* at a multiple of the same                                   */
    uint64_t offset;     /* a multiple of the same                                      */
    /* valid once reaped */
    strata_status status; /* OK, IO, TIMEOUT; strata_io_queue_error() describes the first */
    int32_t native;       /* errno; 0 where the system gave none                        */
    /* the queue's own */
    uint32_t moved;    /* bytes of it that are done                                      */
    uint32_t stalls;   /* attempts in a row that ended with EAGAIN or EINTR              */
    uint64_t start_ns; /* when strata_io_queue_start() took it, by the queue's clock    */
    struct io_req *next;
};

/* What a backend is asked to do: a request, or the rest of one. */
struct io_attempt {
    uint64_t id; /* comes back with the result; never 0, never used twice */
    enum io_op op;
    uint32_t file_index;
    uint32_t length;
    void *buffer;
    uint64_t offset;
};

/* The result of an attempt: bytes moved, or -errno. */
struct io_result {
    uint64_t id;
    int64_t result;
};

/*
 * Memory that buffers lie in; borrowed until close. A backend may register it with the kernel
 * at open, so that the kernel does not look up its pages for every request. Buffers may also
 * lie elsewhere. If the kernel refuses the registration, transfers cost more CPU time and work
 * all the same.
 */
struct io_region {
    void *base;
    uint64_t bytes; /* 0: none */
};

struct io_backend_desc {
    const struct io_file *files; /* required; borrowed until close                        */
    uint32_t file_count;         /* required                                              */
    uint32_t depth;              /* required; attempts in flight at most                  */
    struct io_region region;
    const void *config; /* for backends of tests; NULL for those of the kernel   */
};

/* The base of every backend's struct, embedded first. Both flags are set by open. */
struct io_backend {
    const struct io_ops *ops;
    bool registered;     /* the region is registered with the kernel */
    int32_t not_because; /* errno of a registration that the kernel refused; 0: none */
};

/*
 * What a backend must do; all of it is required. Calls come from the queue's owning thread
 * only, except wake, so a backend without threads of its own needs no locks.
 */
struct io_ops {
    const char *name;

    /* Bytes of memory that open takes at this depth, stacks of threads left out. */
    uint64_t (*bytes)(uint32_t depth);

    /*
     * STRATA_E_UNSUPPORTED: this kernel or this container lacks what the backend needs; the
     * message names the cause and the remedy.
     */
    strata_status (*open)(struct io_backend **out, const struct io_backend_desc *desc,
                          strata_error *error);

    /* Must not wait for attempts that are still in flight: the queue has waited already. */
    void (*close)(struct io_backend *backend);

    /* Start the first of `count` attempts, as many as fit, and return how many. The attempts
     * are copied. */
    uint32_t (*start)(struct io_backend *backend, const struct io_attempt *attempts,
                      uint32_t count);

    /*
     * Wait for a result, a wake or the timeout (UINT64_MAX: none), whichever is first. Write at
     * most `capacity` results and return how many; 0 is possible. -errno: the backend itself is
     * broken, and no result of what is in flight will come.
     */
    int32_t (*reap)(struct io_backend *backend, struct io_result *out, uint32_t capacity,
                    uint64_t timeout_ns);

    /* End a reap that waits, or the next one. Thread: any. */
    void (*wake)(struct io_backend *backend);
};

extern const struct io_ops strata_io_uring;
extern const struct io_ops strata_io_threads;

struct io_queue_desc {
    const struct io_ops *ops;    /* required                                              */
    const void *ops_config;      /* NULL: none; handed to the backend's open              */
    const struct io_file *files; /* required; borrowed until close                        */
    uint32_t file_count;         /* required                                              */
    uint32_t depth;              /* required; 1 to STRATA_IO_MAX_DEPTH                    */
    struct io_region region;
    uint64_t deadline_ns; /* required; an older request is STRATA_E_TIMEOUT        */
};

struct io_queue;

/* Bytes of memory that open takes, the backend's included. */
uint64_t strata_io_queue_bytes(const struct io_ops *ops, uint32_t depth);

/* On failure nothing is held. STRATA_E_UNSUPPORTED: see io_ops.open. */
strata_status strata_io_queue_open(struct io_queue **out, const struct io_queue_desc *desc,
                                   strata_error *error);

/*
 * Wait for what is in flight, for at most the deadline once more, and close. NULL is fine.
 *
 * false: a drive has not answered by then. The kernel, or a thread of a pool that is stuck in
 * it, may read from or write to the buffers of requests at any time until the process ends. So
 * these must stay mapped and be used for nothing else.
 */
bool strata_io_queue_close(struct io_queue *queue);

/* Is the region registered with the kernel? out_cause: errno if the kernel refused it, or 0. */
bool strata_io_queue_registered(const struct io_queue *queue, int32_t *out_cause);

/*
 * Take a request; never fails, never waits. It goes out with the next push or reap, so that
 * several go together. What is beyond depth waits in order of arrival.
 */
void strata_io_queue_start(struct io_queue *queue, struct io_req *req);

/* Send out the requests that were started, if the next reap is not soon. */
void strata_io_queue_push(struct io_queue *queue);

/*
 * A request that has ended, well or not. NULL after a wake or the timeout (UINT64_MAX: none),
 * and at times without either. After STRATA_E_TIMEOUT the request is the owner's again, but
 * the kernel may still write to its buffer until the queue is closed.
 */
struct io_req *strata_io_queue_reap(struct io_queue *queue, uint64_t timeout_ns);

/* End a reap that waits, or the next one. Thread: any. */
void strata_io_queue_wake(struct io_queue *queue);

/* The first failure: file, offset, length, what came back. Lent until close. */
const strata_error *strata_io_queue_error(const struct io_queue *queue);

/* What the queue mended by itself, and what it dropped. For statistics and tests. */
struct io_queue_counts {
    uint64_t resumed; /* short transfers continued                        */
    uint64_t retried; /* EAGAIN, EINTR                                    */
    uint64_t stale;   /* results that belong to no request in flight      */
};
void strata_io_queue_counts(const struct io_queue *queue, struct io_queue_counts *out);

#endif
