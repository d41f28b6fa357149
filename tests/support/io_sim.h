#ifndef STRATA_TESTS_IO_SIM_H
#define STRATA_TESTS_IO_SIM_H

/*
 * Drives made of memory that lose their power.
 *
 * A write is held in the drive's volatile cache until the file is synced; reads see it at once.
 * From a chosen attempt on nothing works any more, and then a seed decides for every unsynced
 * sector by itself what is there when power comes back: the old bytes, the new ones, or
 * garbage. Many seeds can be tried on one loss of power.
 *
 *     struct io_sim sim = {.opened = 0};
 *     struct io_sim_plan plan = {.sim = &sim, .off_at = 17};
 *     ... a store on strata_io_sim with &plan, until it fails; close it ...
 *     for (seed ...) {
 *         strata_sim_survive(&sim, seed, paths, &hash);   // the files are what survived
 *         ... a store again, with a plan that leaves the power on ...
 *     }
 *     strata_sim_free(&sim);
 *
 * A file's content is read when a queue is opened on it, and written back when the queue is
 * closed with the power on. What is read and written past the queue, as the store does when it
 * looks at what it found, is therefore what survived.
 *
 * Besides, one write may go wrong in silence, the ways drives have.
 *
 * Thread: a disk as its queue; survive and free when no queue is open.
 */

#include "io/io.h"

#include "base/hash.h"

#include <stdatomic.h>

#define SIM_DISKS_MAX    4u
#define SIM_SECTOR_BYTES 512u

enum sim_fault {
    SIM_NONE,
    SIM_FLIP,        /* one bit of it is another */
    SIM_TORN,        /* only the first half is written */
    SIM_LOST,        /* nothing is written */
    SIM_STALE,       /* it can be read until the sync, which drops it */
    SIM_MISDIRECTED, /* it goes to the block behind, or before */
};

enum sim_sector { SECTOR_CLEAN, SECTOR_UNSYNCED, SECTOR_DOOMED };

/* What is on it, what its cache says, and where these differ. */
struct sim_disk {
    uint8_t *durable;
    uint8_t *cached;
    uint8_t *sectors; /* enum sim_sector, SIM_SECTOR_BYTES each */
    uint64_t bytes;
};

struct io_sim {
    _Atomic uint64_t attempts;
    _Atomic uint64_t writes;
    _Atomic uint64_t syncs;
    _Atomic uint64_t written_bytes;
    _Atomic bool off;
    uint32_t opened; /* queues since power came; each gets the next disk */
    struct sim_disk disks[SIM_DISKS_MAX];
};

struct io_sim_plan {
    struct io_sim *sim; /* required; borrowed */
    uint64_t off_at;    /* the attempt, from 1, that fails and all after it; 0: none */
    enum sim_fault fault;
    uint64_t fault_at; /* the write, from 1, that goes wrong */
};

extern const struct io_ops strata_io_sim;

/* Power comes back, the files being what they are: before a store is opened. Counts stay. */
void strata_sim_power_on(struct io_sim *sim);

/*
 * Write what a seed lets survive to files, one per disk, created where they are not there.
 * out_hash: of all of it, so that states can be told apart.
 */
void strata_sim_survive(const struct io_sim *sim, uint64_t seed, const char *const *paths,
                        struct hash128 *out_hash);

void strata_sim_free(struct io_sim *sim);

#endif
