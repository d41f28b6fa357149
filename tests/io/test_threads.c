#define _GNU_SOURCE
/*
 * A thread of the pool that is stuck in the kernel when its queue is closed. It ends some time
 * later, and then it copies what it read to where it was told to. So that memory must still be
 * there, and the close must say so.
 *
 * Built with the linker's --wrap for pread(), which stays away as long as the test wants.
 */

#include "io/io.h"
#include "tests/support/temp_dir.h"

#include <criterion/criterion.h>

#include <fcntl.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BYTES 8192u

static sem_t entered;
static sem_t let_go;
static sem_t copied;
static bool hold;

extern ssize_t __real_pread(int fd, void *buffer, size_t bytes, off_t offset);
ssize_t __wrap_pread(int fd, void *buffer, size_t bytes, off_t offset);

ssize_t __wrap_pread(int fd, void *buffer, size_t bytes, off_t offset)
{
    if (!hold)
        return __real_pread(fd, buffer, bytes, offset);
    sem_post(&entered);
    sem_wait(&let_go);
    memset(buffer, 7, bytes);
    sem_post(&copied);
    return (ssize_t)bytes;
}

struct threads_rig {
    struct temp_dir dir;
    struct io_file file;
    char path[PATH_MAX + 8];
    struct io_queue *queue;
    uint8_t *buffer; /* a mapping of its own */
    struct io_req req;
};

static void open_rig(struct threads_rig *rig)
{
    strata_error error = {.status = STRATA_OK};
    *rig = (struct threads_rig){.queue = NULL};
    strata_temp_dir_make(&rig->dir);
    snprintf(rig->path, sizeof rig->path, "%s/file", rig->dir.path);
    rig->file.path = rig->path;
    rig->file.fd = open(rig->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    cr_assert(rig->file.fd >= 0 && ftruncate(rig->file.fd, BYTES) == 0);
    rig->buffer = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert(rig->buffer != MAP_FAILED);
    struct io_queue_desc desc = {
        .ops = &strata_io_threads,
        .files = &rig->file,
        .file_count = 1,
        .depth = 4,
        .deadline_ns = 20000000,
    };
    cr_assert(strata_io_queue_open(&rig->queue, &desc, &error) == STRATA_OK, "%s",
              error.message);
    rig->req = (struct io_req){.op = IO_READ, .length = BYTES, .buffer = rig->buffer};
    strata_io_queue_start(rig->queue, &rig->req);
}

static void remove_rig(struct threads_rig *rig)
{
    munmap(rig->buffer, BYTES);
    close(rig->file.fd);
    strata_temp_dir_remove(&rig->dir);
}

static struct io_req *reap(struct threads_rig *rig)
{
    struct io_req *req;
    do
        req = strata_io_queue_reap(rig->queue, UINT64_MAX);
    while (req == NULL);
    return req;
}

Test(threads, close_says_that_a_stuck_thread_may_still_write_to_a_buffer)
{
    struct threads_rig rig;
    sem_init(&entered, 0, 0);
    sem_init(&let_go, 0, 0);
    sem_init(&copied, 0, 0);
    hold = true;
    open_rig(&rig);
    cr_expect(reap(&rig)->status == STRATA_E_TIMEOUT);
    sem_wait(&entered);
    cr_expect(!strata_io_queue_close(rig.queue));
    cr_expect(rig.buffer[0] == 0);
    sem_post(&let_go);
    sem_wait(&copied);
    cr_expect(rig.buffer[0] == 7 && rig.buffer[BYTES - 1] == 7, "it wrote after the close");
    remove_rig(&rig);
}

Test(threads, close_says_that_nothing_is_left_where_all_have_answered)
{
    struct threads_rig rig;
    open_rig(&rig);
    cr_expect(reap(&rig)->status == STRATA_OK);
    cr_expect(strata_io_queue_close(rig.queue));
    cr_expect(strata_io_queue_close(NULL));
    remove_rig(&rig);
}
