#define _GNU_SOURCE
/*
 * The store on drives that lose their power, at every request there is, or that lie.
 *
 * The matrix. A run over two drives, four records each, is made once for every request in it,
 * from the first of its creation to the last of its last commit, and loses its power there. For
 * each loss many seeds decide what the unsynced sectors are afterwards: old, new, garbage.
 * Every one of these states is opened again. What is found must be the last commit that the
 * store called durable or the one it was making, retained ones included, and every byte of
 * every record must be right. Before the first commit there may be none.
 *
 * The faults. One write of the run, each in turn, goes wrong without anybody being told. When
 * the records are read again the damage is found, and the message has tile, file and offset; or
 * the write did not matter, and everything is right. Nothing else is allowed.
 *
 * Sanitizers slow this down tenfold; they get fewer seeds.
 */

#include "base/error.h"
#include "tests/support/commit_rig.h"
#include "tests/support/io_sim.h"

#include <criterion/criterion.h>

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#    define SEEDS  4u
#    define STATES 1500u
#else
#    define SEEDS  28u
#    define STATES 10000u
#endif

/* Found states by their hash, to count those that differ: an open table, a power of two. */
#define SEEN_MAX (1u << 16)

struct seen {
    struct hash128 *hashes;
    uint32_t count;
};

static void note_state(struct seen *seen, struct hash128 hash)
{
    uint64_t at = hash.low % SEEN_MAX;
    STRATA_CHECK(seen->count < SEEN_MAX / 2);
    while (seen->hashes[at].low != 0) {
        if (seen->hashes[at].low == hash.low && seen->hashes[at].high == hash.high)
            return;
        at = (at + 1) % SEEN_MAX;
    }
    seen->hashes[at] = hash;
    seen->count++;
}

struct matrix {
    struct commit_rig rig;
    struct io_sim sim;
    struct io_sim_plan plan;    /* of the run that loses its power */
    struct io_sim_plan on_plan; /* of what comes after */
    char paths[2][PATH_MAX + 64];
    const char *path_list[2];
};

static void matrix_make(struct matrix *m, uint32_t commit_every, uint32_t keep)
{
    memset(m, 0, sizeof *m);
    strata_commit_rig_make(&m->rig, 2, STRATA_IO_THREADS, true);
    strata_commit_rig_keep(&m->rig, keep, 2);
    m->rig.commit_every = commit_every;
    m->rig.ops = &strata_io_sim;
    m->plan.sim = m->on_plan.sim = &m->sim;
}

/* A file that had no name yet keeps the one of files in the making. */
static void find_paths(struct matrix *m)
{
    for (uint32_t i = 0; i < 2; i++) {
        m->path_list[i] = strata_commit_rig_file(&m->rig, i, m->paths[i]);
        if (access(m->paths[i], F_OK) != 0)
            strcat(m->paths[i], ".new");
    }
}

/* The directories as they were when the power went, but for what the files hold. */
static void empty_directories(const struct matrix *m)
{
    char path[PATH_MAX + 64];
    for (uint32_t i = 0; i < 2; i++) {
        (void)remove(strata_commit_rig_file(&m->rig, i, path));
        strcat(path, ".new");
        (void)remove(path);
    }
}

static void matrix_free(struct matrix *m)
{
    strata_commit_rig_remove(&m->rig);
    strata_sim_free(&m->sim);
}

static strata_status go_on(struct matrix *m, const struct io_sim_plan *plan,
                           strata_error *error)
{
    *error = (strata_error){.status = STRATA_OK};
    m->rig.ops_config = plan;
    strata_sim_power_on(&m->sim);
    return strata_commit_rig_open(&m->rig, error);
}

/* From nothing to step 2, and, opened again, to step 5; until the power goes. */
static strata_status run(struct matrix *m)
{
    strata_error error;
    strata_status status = STRATA_OK;
    empty_directories(m);
    m->sim.attempts = m->sim.writes = 0;
    for (uint32_t last = 2; last <= 5 && status == STRATA_OK; last += 3) {
        STRATA_TRY(go_on(m, &m->plan, &error));
        while (m->rig.step < last && status == STRATA_OK)
            status = strata_commit_rig_step(&m->rig);
        strata_commit_rig_close(&m->rig);
    }
    return status;
}

static bool same_list(const struct commit_list *a, const struct commit_list *b)
{
    return a->count == b->count && memcmp(a->steps, b->steps, a->count * sizeof *a->steps) == 0;
}

/* Open what survived; it is one of the two, or, without a commit, step 0 anew. */
static void check_survivor(struct matrix *m, const struct commit_list *before,
                           const struct commit_list *after, uint64_t seed)
{
    strata_error error;
    bool same = false;
    strata_status status = go_on(m, &m->on_plan, &error);
    cr_assert(status == STRATA_OK, "request %d, seed %d: %s", (int)m->plan.off_at, (int)seed,
              error.message);
    bool found = strata_store_recovery(m->rig.store)->line_count > 0;
    if (found)
        cr_assert(same_list(&m->rig.listed, before) || same_list(&m->rig.listed, after),
                  "request %d, seed %d: step %d", (int)m->plan.off_at, (int)seed,
                  (int)m->rig.step);
    else
        cr_assert(before->count == 0, "request %d, seed %d: no commit", (int)m->plan.off_at,
                  (int)seed);
    status = strata_commit_rig_check(&m->rig, &same);
    cr_assert(status == STRATA_OK && same, "request %d, seed %d: %s", (int)m->plan.off_at,
              (int)seed, strata_store_error(m->rig.store)->message);
    strata_commit_rig_close(&m->rig);
}

/* Every request of one kind of run. Returns how many there are. */
static uint64_t crash_everywhere(struct seen *seen, uint32_t commit_every, uint32_t keep)
{
    struct matrix m;
    matrix_make(&m, commit_every, keep);
    cr_assert(run(&m) == STRATA_OK);
    uint64_t requests = m.sim.attempts;
    for (m.plan.off_at = 1; m.plan.off_at <= requests; m.plan.off_at++) {
        cr_assert(run(&m) == STRATA_E_IO, "request %d", (int)m.plan.off_at);
        struct commit_list before = m.rig.listed, after = m.rig.pending;
        struct io_sim lost = m.sim;
        find_paths(&m);
        /* The disks of the loss are kept; what is opened later gets others. */
        memset(m.sim.disks, 0, sizeof m.sim.disks);
        for (uint64_t i = 0; i < SEEDS; i++) {
            struct hash128 hash;
            uint64_t seed = m.plan.off_at * 1000 + commit_every * 100 + keep * 500 + i;
            empty_directories(&m);
            strata_sim_survive(&lost, seed, m.path_list, &hash);
            note_state(seen, hash);
            check_survivor(&m, &before, &after, seed);
        }
        strata_sim_free(&lost);
    }
    matrix_free(&m);
    return requests;
}

Test(crash, power_lost_at_any_request_leaves_the_last_commit_or_the_next, .timeout = 600)
{
    struct seen seen = {.hashes = calloc(SEEN_MAX, sizeof(struct hash128))};
    uint64_t requests = 0;
    cr_assert(seen.hashes != NULL);
    for (uint32_t commit_every = 1; commit_every <= 2; commit_every++)
        for (uint32_t keep = 0; keep <= 1; keep++)
            requests += crash_everywhere(&seen, commit_every, keep);
    printf("crash: %" PRIu64 " requests x %u seeds (1000 x request + 100 x K + 500 x keep + "
           "0, 1, ...): %u different states opened\n",
           requests, SEEDS, seen.count);
    cr_expect(seen.count >= STATES, "only %d different states", (int)seen.count);
    free(seen.hashes);
}

/* Which tile the n-th write of a step belongs to; COMMIT_RECORDS: a table or a commit record.
 */
static uint32_t tile_of_write(const struct commit_rig *rig, uint64_t n)
{
    uint32_t tile = 0;
    for (; tile < COMMIT_RECORDS; tile++) {
        uint64_t each = rig->desc.request_bytes;
        uint64_t requests = (rig->record_bytes[tile] + each - 1) / each;
        if (n <= requests)
            break;
        n -= requests;
    }
    return tile;
}

/* Read one tile of the newest commit: it is damaged, and the message says all there is. */
static void expect_damage(struct commit_rig *rig, uint32_t tile, const uint8_t *slots)
{
    char text[PATH_MAX + 160], path[PATH_MAX + 32];
    uint32_t number = strata_store_slot_place(rig->store, tile, slots[tile]);
    const struct place *place = &rig->store->places[number];
    cr_expect(strata_store_transfer(rig->store, false, number, 0, rig->buffer) ==
                  STRATA_E_CORRUPT,
              "tile %d", (int)tile);
    snprintf(text, sizeof text,
             "read of tile %" PRIu32 ", slot %u, %" PRIu64 " bytes at %" PRIu64 " in %s", tile,
             slots[tile], place->bytes, place->offset,
             strata_commit_rig_file(rig, place->drive_index, path));
    const char *message = strata_store_error(rig->store)->message;
    cr_expect(strncmp(message, text, strlen(text)) == 0, "%s instead of %s", message, text);
}

/* One write of a step goes wrong. Returns whether there was such a write. */
static bool lie_once(enum sim_fault fault, uint64_t nth, bool reopen)
{
    struct matrix m;
    strata_error error;
    struct io_sim_plan lying = {.fault = fault};
    matrix_make(&m, 1, 0);
    cr_assert(run(&m) == STRATA_OK);
    lying.sim = &m.sim;
    lying.fault_at = m.sim.writes + nth;
    cr_assert(go_on(&m, &lying, &error) == STRATA_OK, "%s", error.message);
    cr_assert(strata_commit_rig_step(&m.rig) == STRATA_OK);
    bool happened = m.sim.writes >= lying.fault_at;
    uint32_t tile = tile_of_write(&m.rig, nth);
    uint8_t slots[COMMIT_RECORDS];
    memcpy(slots, m.rig.slots.lines[0].slots, sizeof slots);
    strata_status status = STRATA_OK;
    bool same = true;
    if (reopen) {
        strata_commit_rig_close(&m.rig);
        status = go_on(&m, &m.on_plan, &error);
    }
    if (tile < COMMIT_RECORDS)
        expect_damage(&m.rig, tile, slots);
    else if (status == STRATA_OK && reopen)
        status = strata_commit_rig_check(&m.rig, &same);
    cr_expect(status == STRATA_OK || status == STRATA_E_CORRUPT);
    cr_expect(same, "fault %d, write %d", (int)fault, (int)nth);
    matrix_free(&m);
    return happened;
}

Test(crash, every_write_that_a_drive_lies_about_is_found_before_use, .timeout = 300)
{
    for (enum sim_fault fault = SIM_FLIP; fault <= SIM_MISDIRECTED; fault++) {
        uint64_t found = 0;
        for (uint64_t nth = 1; lie_once(fault, nth, true); nth++)
            found += lie_once(fault, nth, false);
        cr_expect(found > COMMIT_RECORDS, "fault %d: %d writes", (int)fault, (int)found);
    }
}
