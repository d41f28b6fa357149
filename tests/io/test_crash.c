#define _GNU_SOURCE
/*
 * The store on drives that lose their power, at every request there is, or that lie.
 *
 * The matrix. A run over two drives, four records each, is made once for every request in it,
 * from the first of its creation to the last of its last commit, and loses its power there. For
 * each loss many seeds decide what the unsynced sectors are afterwards: old, new, garbage.
 * Every one of these states is opened again. What is found must be the last commit that the
 * store called durable or the one it was making, retained ones included, and every byte of
 * every record must be right. Before the first commit there may be none. In some runs records
 * rest elsewhere, and are written for a commit only.
 *
 * The hole. A process is killed when a commit record is written and not yet flushed. The next
 * one believes the record, since it reads it, and writes its step over the commit before. Then
 * the power goes, at each request of that step. The commit that was gone on from must survive,
 * though nobody but the next process can have flushed it.
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
#include <stdlib.h>
#include <string.h>

/* Of each loss; ten times as many in the long form. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#    define SEEDS     4u
#    define STATES    1500u
#    define SURVIVORS 200u
#else
#    define SEEDS     24u
#    define STATES    10000u
#    define SURVIVORS 2000u
#endif

#define EXPECT_STEP(list, number)                                                              \
    cr_assert((list)->count == 1 && (list)->steps[0] == (number), "%u lines, step %d",         \
              (list)->count, (int)(list)->steps[0])

struct matrix {
    struct commit_rig rig;
    struct io_sim sim;
    struct io_sim_plan plan;    /* of the run that loses its power */
    struct io_sim_plan on_plan; /* of what comes after */
    uint64_t seeds;
};

/* What kind of run. */
struct kind {
    uint32_t commit_every;
    uint32_t keep;
    uint32_t elsewhere;
};

static void matrix_make(struct matrix *m, const struct kind *kind)
{
    memset(m, 0, sizeof *m);
    strata_commit_rig_make(&m->rig, 2, STRATA_IO_THREADS, true);
    strata_commit_rig_keep(&m->rig, kind->keep, 2);
    m->rig.commit_every = kind->commit_every;
    m->rig.elsewhere = kind->elsewhere;
    m->rig.ops = &strata_io_sim;
    m->plan.sim = m->on_plan.sim = &m->sim;
    m->seeds = getenv("STRATA_TEST_LONG") != NULL ? 10 * SEEDS : SEEDS;
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
    strata_sim_remove(m->rig.dirs, 2);
    m->rig.listed = m->rig.pending = (struct commit_list){.count = 0};
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

/* The power is gone: each seed's survivor is opened. */
static void open_survivors(struct matrix *m, struct sim_states *states)
{
    struct commit_list before = m->rig.listed, after = m->rig.pending;
    struct io_sim lost = m->sim;
    /* The disks of the loss are kept; what is opened later gets others. */
    memset(m->sim.disks, 0, sizeof m->sim.disks);
    for (uint64_t i = 0; i < m->seeds; i++) {
        struct hash128 hash;
        uint64_t seed = m->plan.off_at * 1000 + i;
        strata_sim_remove(m->rig.dirs, 2);
        strata_sim_survive(&lost, seed, &hash);
        strata_sim_note_state(states, hash);
        check_survivor(m, &before, &after, seed);
    }
    strata_sim_free(&lost);
}

/* Every request of one kind of run. */
static void crash_everywhere(struct sim_states *states, const struct kind *kind)
{
    struct matrix m;
    matrix_make(&m, kind);
    cr_assert(run(&m) == STRATA_OK);
    uint64_t requests = m.sim.attempts;
    for (m.plan.off_at = 1; m.plan.off_at <= requests; m.plan.off_at++) {
        cr_assert(run(&m) == STRATA_E_IO, "request %d", (int)m.plan.off_at);
        open_survivors(&m, states);
    }
    uint64_t seeds = m.seeds;
    matrix_free(&m);
    printf("crash: commits every %u, %u retained, records elsewhere %#x: %" PRIu64
           " requests x %" PRIu64 " seeds, 1000 x request + 0, 1, ...\n",
           kind->commit_every, kind->keep, kind->elsewhere, requests, seeds);
}

Test(crash, power_lost_at_any_request_leaves_the_last_commit_or_the_next)
{
    static const struct kind kinds[] = {{1, 0, 0},    {1, 1, 0}, {2, 0, 0},
                                        {2, 1, 0x5a}, {2, 1, 0}, {2, 0, 0xff}};
    struct sim_states states = {.count = 0};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        crash_everywhere(&states, &kinds[i]);
    printf("crash: %u different states opened\n", states.count);
    cr_expect(states.count >= STATES, "only %d different states", (int)states.count);
    strata_sim_free_states(&states);
}

/* From nothing to step 2, closed; then into step 3, until the power goes. */
static strata_status run_into_step_3(struct matrix *m)
{
    strata_error error;
    strata_sim_remove(m->rig.dirs, 2);
    m->rig.listed = m->rig.pending = (struct commit_list){.count = 0};
    m->sim.attempts = m->sim.writes = 0;
    cr_assert(go_on(m, &m->on_plan, &error) == STRATA_OK, "%s", error.message);
    for (uint32_t step = 1; step <= 2; step++)
        cr_assert(strata_commit_rig_step(&m->rig) == STRATA_OK);
    strata_commit_rig_close(&m->rig);
    STRATA_TRY(go_on(m, &m->plan, &error));
    return strata_commit_rig_step(&m->rig);
}

/* As run_into_step_3(), killed at the flush of the commit record; then a process that goes on
 * to step 4, until the power goes at this request of its own; 0: it stays. */
static strata_status go_on_after_a_kill(struct matrix *m, uint64_t kill_at, uint64_t off_at)
{
    strata_error error;
    m->plan.off_at = kill_at;
    cr_assert(run_into_step_3(m) == STRATA_E_IO);
    EXPECT_STEP(&m->rig.listed, 2);
    EXPECT_STEP(&m->rig.pending, 3);
    strata_commit_rig_close(&m->rig);
    strata_sim_kill(&m->sim);
    m->sim.attempts = 0;
    m->plan.off_at = off_at;
    strata_status status = go_on(m, &m->plan, &error);
    if (status == STRATA_OK) {
        EXPECT_STEP(&m->rig.listed, 3);
        status = strata_commit_rig_step(&m->rig);
    }
    strata_commit_rig_close(&m->rig);
    return status;
}

Test(crash, a_record_whose_writer_was_killed_is_flushed_before_it_is_gone_on_from)
{
    struct matrix m;
    struct sim_states states = {.count = 0};
    matrix_make(&m, &(struct kind){.commit_every = 1});
    cr_assert(run_into_step_3(&m) == STRATA_OK);
    strata_commit_rig_close(&m.rig);
    /* A step's last two requests are the flush of the record and the receipt. */
    uint64_t kill_at = m.sim.attempts - 1;
    cr_assert(go_on_after_a_kill(&m, kill_at, 0) == STRATA_OK);
    uint64_t requests = m.sim.attempts, survivors = 0;
    m.seeds = 1 + SURVIVORS / requests;
    for (uint64_t off_at = 1; off_at <= requests; off_at++) {
        cr_assert(go_on_after_a_kill(&m, kill_at, off_at) == STRATA_E_IO, "request %d",
                  (int)off_at);
        open_survivors(&m, &states);
        survivors += m.seeds;
    }
    printf("crash: killed before a flush: %" PRIu64 " requests, %" PRIu64
           " survivors, %u different states\n",
           requests, survivors, states.count);
    strata_sim_free_states(&states);
    matrix_free(&m);
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
    matrix_make(&m, &(struct kind){.commit_every = 1});
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

Test(crash, every_write_that_a_drive_lies_about_is_found_before_use)
{
    for (enum sim_fault fault = SIM_FLIP; fault <= SIM_MISDIRECTED; fault++) {
        uint64_t found = 0;
        for (uint64_t nth = 1; lie_once(fault, nth, true); nth++)
            found += lie_once(fault, nth, false);
        cr_expect(found > COMMIT_RECORDS, "fault %d: %d writes", (int)fault, (int)found);
    }
}
