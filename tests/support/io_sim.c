#define _GNU_SOURCE
/*
 * The simulated drives; see io_sim.h.
 *
 * An attempt is carried out when it is started, so results are there at once; what makes a
 * drive a drive, order that nobody promised, comes from deciding per sector at the loss of
 * power, which covers every order the writes could have landed in.
 *
 * The write that fails for lack of power is held like any other: part of it may have landed.
 *
 * Thread: a backend as its queue, wake from any; disks belong to their queue's thread.
 */

#include "tests/support/io_sim.h"

#include "base/clock.h"
#include "base/error.h"
#include "io/store_file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Room for the states of a long test, half of it left empty; a power of two. */
#define STATES_MAX (1u << 20)

struct sim {
    struct io_backend base;
    const struct io_sim_plan *plan;
    struct sim_disk *disk;
    int fd;
    uint32_t depth;
    uint32_t result_count; /* the owner's */
    struct io_result *results;
    pthread_mutex_t lock; /* guards woken */
    pthread_cond_t news;
    bool woken;
};

static uint64_t sim_bytes(uint32_t depth)
{
    return sizeof(struct sim) + depth * sizeof(struct io_result);
}

static void grow(struct sim_disk *disk, uint64_t bytes)
{
    if (bytes <= disk->bytes)
        return;
    disk->durable = realloc(disk->durable, bytes);
    disk->cached = realloc(disk->cached, bytes);
    disk->sectors = realloc(disk->sectors, bytes / SIM_SECTOR_BYTES);
    STRATA_CHECK(disk->durable != NULL && disk->cached != NULL && disk->sectors != NULL);
    memset(disk->durable + disk->bytes, 0, bytes - disk->bytes);
    memset(disk->cached + disk->bytes, 0, bytes - disk->bytes);
    memset(disk->sectors + disk->bytes / SIM_SECTOR_BYTES, SECTOR_CLEAN,
           (bytes - disk->bytes) / SIM_SECTOR_BYTES);
    disk->bytes = bytes;
}

static void free_disk(struct sim_disk *disk)
{
    free(disk->durable);
    free(disk->cached);
    free(disk->sectors);
    *disk = (struct sim_disk){.bytes = 0};
}

/* The file past its O_DIRECT, which wants aligned buffers. */
static int open_again(int fd, int flags)
{
    char path[48];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int again = open(path, flags | O_CLOEXEC);
    STRATA_CHECK(again >= 0);
    return again;
}

static void load(struct sim_disk *disk, int fd)
{
    struct stat info;
    if (disk->kept) {
        disk->kept = false;
        return;
    }
    int again = open_again(fd, O_RDONLY);
    STRATA_CHECK(fstat(again, &info) == 0);
    uint64_t bytes = (uint64_t)info.st_size / STRATA_IO_ALIGN_BYTES * STRATA_IO_ALIGN_BYTES;
    free_disk(disk);
    grow(disk, bytes);
    STRATA_CHECK(bytes == 0 || pread(again, disk->durable, bytes, 0) == (ssize_t)bytes);
    if (bytes > 0)
        memcpy(disk->cached, disk->durable, bytes);
    close(again);
}

static strata_status sim_open(struct io_backend **out, const struct io_backend_desc *desc,
                              strata_error *error)
{
    const struct io_sim_plan *plan = desc->config;
    struct sim *sim = calloc(1, sim_bytes(desc->depth));
    if (sim == NULL)
        return strata_fail(error, STRATA_E_NOMEM, ENOMEM, "host: no memory for a simulation");
    STRATA_CHECK(desc->file_count == 1 && plan->sim->opened < SIM_DISKS_MAX);
    sim->base.ops = &strata_io_sim;
    sim->plan = plan;
    sim->disk = &plan->sim->disks[plan->sim->opened++];
    sim->fd = desc->files[0].fd;
    sim->depth = desc->depth;
    sim->results = (struct io_result *)(sim + 1);
    load(sim->disk, sim->fd);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&sim->lock, NULL);
    pthread_cond_init(&sim->news, &monotonic);
    pthread_condattr_destroy(&monotonic);
    *out = &sim->base;
    return STRATA_OK;
}

static void sync_disk(struct sim_disk *disk)
{
    for (uint64_t i = 0; i < disk->bytes / SIM_SECTOR_BYTES; i++) {
        uint8_t *durable = disk->durable + i * SIM_SECTOR_BYTES;
        uint8_t *cached = disk->cached + i * SIM_SECTOR_BYTES;
        if (disk->sectors[i] == SECTOR_UNSYNCED)
            memcpy(durable, cached, SIM_SECTOR_BYTES);
        else if (disk->sectors[i] == SECTOR_DOOMED)
            memcpy(cached, durable, SIM_SECTOR_BYTES);
        disk->sectors[i] = SECTOR_CLEAN;
    }
}

static void note_path(struct sim_disk *disk, int fd)
{
    char link[48];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, disk->path, sizeof disk->path - 1);
    STRATA_CHECK(length > 0);
    disk->path[length] = '\0';
}

static void sim_close(struct io_backend *backend)
{
    struct sim *sim = (struct sim *)backend;
    note_path(sim->disk, sim->fd);
    if (!sim->plan->sim->off) {
        int again = open_again(sim->fd, O_WRONLY);
        sync_disk(sim->disk);
        STRATA_CHECK(pwrite(again, sim->disk->durable, sim->disk->bytes, 0) ==
                     (ssize_t)sim->disk->bytes);
        close(again);
    }
    pthread_cond_destroy(&sim->news);
    pthread_mutex_destroy(&sim->lock);
    free(sim);
}

static void put(struct sim_disk *disk, const void *bytes, uint64_t length, uint64_t offset,
                enum sim_sector state)
{
    grow(disk, offset + length);
    memcpy(disk->cached + offset, bytes, length);
    memset(disk->sectors + offset / SIM_SECTOR_BYTES, state, length / SIM_SECTOR_BYTES);
}

static void write_wrong(struct sim_disk *disk, const struct io_attempt *attempt,
                        enum sim_fault fault)
{
    uint64_t at = attempt->offset;
    switch (fault) {
    case SIM_FLIP:
        put(disk, attempt->buffer, attempt->length, at, SECTOR_UNSYNCED);
        disk->cached[at + attempt->length / 3] ^= 16;
        break;
    case SIM_TORN:
        put(disk, attempt->buffer, attempt->length / 2, at, SECTOR_UNSYNCED);
        break;
    case SIM_STALE:
        put(disk, attempt->buffer, attempt->length, at, SECTOR_DOOMED);
        break;
    case SIM_MISDIRECTED:
        at = at + 2 * attempt->length <= disk->bytes ? at + attempt->length
                                                     : at - attempt->length;
        put(disk, attempt->buffer, attempt->length, at, SECTOR_UNSYNCED);
        break;
    default:
        break;
    }
}

static int64_t perform(struct sim *sim, const struct io_attempt *attempt)
{
    const struct io_sim_plan *plan = sim->plan;
    uint64_t number = atomic_fetch_add(&plan->sim->attempts, 1) + 1;
    if (plan->off_at > 0 && number >= plan->off_at)
        plan->sim->off = true;
    if (plan->sim->off && (number > plan->off_at || attempt->op != IO_WRITE))
        return -EIO;
    switch (attempt->op) {
    case IO_READ:
        grow(sim->disk, attempt->offset + attempt->length);
        memcpy(attempt->buffer, sim->disk->cached + attempt->offset, attempt->length);
        return attempt->length;
    case IO_WRITE:
        atomic_fetch_add(&plan->sim->written_bytes, attempt->length);
        if (atomic_fetch_add(&plan->sim->writes, 1) + 1 == plan->fault_at)
            write_wrong(sim->disk, attempt, plan->fault);
        else
            put(sim->disk, attempt->buffer, attempt->length, attempt->offset, SECTOR_UNSYNCED);
        return plan->sim->off ? -EIO : (int64_t)attempt->length;
    case IO_SYNC:
        atomic_fetch_add(&plan->sim->syncs, 1);
        sync_disk(sim->disk);
        return 0;
    }
    return -EINVAL;
}

static uint32_t sim_start(struct io_backend *backend, const struct io_attempt *attempts,
                          uint32_t count)
{
    struct sim *sim = (struct sim *)backend;
    uint32_t started = 0;
    for (; started < count && sim->result_count < sim->depth; started++)
        sim->results[sim->result_count++] = (struct io_result){
            .id = attempts[started].id, .result = perform(sim, &attempts[started])};
    return started;
}

static void wait_wake(struct sim *sim, uint64_t timeout_ns)
{
    uint64_t now_ns = strata_now_ns();
    uint64_t until_ns = timeout_ns < INT64_MAX - now_ns ? now_ns + timeout_ns : INT64_MAX;
    struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000u),
                             .tv_nsec = (long)(until_ns % 1000000000u)};
    pthread_mutex_lock(&sim->lock);
    int rc = 0;
    while (!sim->woken && rc == 0)
        rc = pthread_cond_timedwait(&sim->news, &sim->lock, &until);
    sim->woken = false;
    pthread_mutex_unlock(&sim->lock);
}

static int32_t sim_reap(struct io_backend *backend, struct io_result *out, uint32_t capacity,
                        uint64_t timeout_ns)
{
    struct sim *sim = (struct sim *)backend;
    if (sim->result_count == 0)
        wait_wake(sim, timeout_ns);
    uint32_t count = sim->result_count < capacity ? sim->result_count : capacity;
    if (count > 0)
        memcpy(out, sim->results, count * sizeof *out);
    sim->result_count -= count;
    memmove(sim->results, sim->results + count, sim->result_count * sizeof *out);
    return (int32_t)count;
}

static void sim_wake(struct io_backend *backend)
{
    struct sim *sim = (struct sim *)backend;
    pthread_mutex_lock(&sim->lock);
    sim->woken = true;
    pthread_cond_signal(&sim->news);
    pthread_mutex_unlock(&sim->lock);
}

void strata_sim_power_on(struct io_sim *sim)
{
    sim->off = false;
    sim->opened = 0;
}

/* splitmix64: a seed's every neighbour is another story. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* Decide for one unit, a sector of 512 bytes or of 4096, if any of it is unsynced. */
static void survive_unit(const struct sim_disk *disk, uint64_t first, uint64_t count,
                         uint64_t *state, uint8_t *image)
{
    uint64_t unsynced = 0;
    for (uint64_t i = first; i < first + count; i++)
        unsynced += disk->sectors[i] != SECTOR_CLEAN;
    if (unsynced == 0)
        return;
    uint64_t choice = next_random(state) % 3;
    for (uint64_t at = first * SIM_SECTOR_BYTES; at < (first + count) * SIM_SECTOR_BYTES;
         at += sizeof *state) {
        uint64_t garbage = next_random(state);
        if (choice > 0)
            memcpy(image + at, choice == 1 ? disk->cached + at : (uint8_t *)&garbage,
                   sizeof garbage);
    }
}

static void write_survivors(const char *path, const uint8_t *image, uint64_t bytes)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    STRATA_CHECK(fd >= 0 && pwrite(fd, image, bytes, 0) == (ssize_t)bytes &&
                 ftruncate(fd, (off_t)bytes) == 0);
    close(fd);
}

void strata_sim_kill(struct io_sim *sim)
{
    for (uint32_t i = 0; i < sim->opened; i++) {
        write_survivors(sim->disks[i].path, sim->disks[i].cached, sim->disks[i].bytes);
        sim->disks[i].kept = true;
    }
}

void strata_sim_survive(const struct io_sim *sim, uint64_t seed, struct hash128 *out_hash)
{
    uint64_t unit = seed % 2 == 0 ? 1 : STRATA_IO_ALIGN_BYTES / SIM_SECTOR_BYTES;
    uint64_t state = seed;
    *out_hash = (struct hash128){0, 0};
    for (uint32_t d = 0; d < sim->opened; d++) {
        const struct sim_disk *disk = &sim->disks[d];
        uint8_t *image = malloc(disk->bytes + 1);
        STRATA_CHECK(image != NULL);
        if (disk->bytes > 0)
            memcpy(image, disk->durable, disk->bytes);
        for (uint64_t i = 0; i < disk->bytes / SIM_SECTOR_BYTES; i += unit)
            survive_unit(disk, i, unit, &state, image);
        write_survivors(disk->path, image, disk->bytes);
        struct hash128 hash = strata_hash(image, disk->bytes, out_hash->low);
        *out_hash = hash;
        free(image);
    }
}

void strata_sim_remove(const char *const *dirs, uint32_t count)
{
    char path[PATH_MAX + 32];
    for (uint32_t i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/%s", dirs[i], STRATA_STORE_FILE_NAME);
        (void)remove(path);
        snprintf(path, sizeof path, "%s/%s", dirs[i], STRATA_STORE_NEW_NAME);
        (void)remove(path);
    }
}

void strata_sim_note_state(struct sim_states *states, struct hash128 hash)
{
    if (states->hashes == NULL)
        states->hashes = calloc(STATES_MAX, sizeof *states->hashes);
    STRATA_CHECK(states->hashes != NULL && states->count < STATES_MAX / 2);
    uint64_t at = hash.low % STATES_MAX;
    for (; states->hashes[at].low != 0; at = (at + 1) % STATES_MAX)
        if (states->hashes[at].low == hash.low && states->hashes[at].high == hash.high)
            return;
    states->hashes[at] = hash;
    states->count++;
}

void strata_sim_free_states(struct sim_states *states)
{
    free(states->hashes);
    *states = (struct sim_states){.count = 0};
}

void strata_sim_free(struct io_sim *sim)
{
    for (uint32_t i = 0; i < SIM_DISKS_MAX; i++)
        free_disk(&sim->disks[i]);
}

const struct io_ops strata_io_sim = {
    .name = "sim",
    .bytes = sim_bytes,
    .open = sim_open,
    .close = sim_close,
    .start = sim_start,
    .reap = sim_reap,
    .wake = sim_wake,
};
