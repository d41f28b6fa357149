#define _GNU_SOURCE
/*
 * What the tests of commits share; the part of an engine in as few lines as it takes.
 *
 * Thread: one.
 */

#include "tests/support/commit_rig.h"

#include "base/error.h"
#include "tests/support/kernel.h"

#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

void strata_commit_rig_make(struct commit_rig *out, uint32_t drive_count,
                            strata_io_backend backend, bool in_memory)
{
    *out = (struct commit_rig){.commit_every = 1};
    if (in_memory)
        strata_temp_dir_make_in_memory(&out->dir);
    else
        strata_temp_dir_make(&out->dir);
    STRATA_CHECK(drive_count <= COMMIT_DRIVES_MAX);
    for (uint32_t i = 0; i < drive_count; i++) {
        snprintf(out->drives[i], sizeof out->drives[i], "%s/%c", out->dir.path, 'a' + (int)i);
        STRATA_CHECK(mkdir(out->drives[i], 0700) == 0);
        out->dirs[i] = out->drives[i];
    }
    for (uint32_t i = 0; i < COMMIT_RECORDS; i++)
        out->record_bytes[i] =
            i % 4 == 3 ? COMMIT_LARGEST_BYTES : (1 + i % 4) * STRATA_IO_ALIGN_BYTES;
    out->scratch_bytes[0] = out->scratch_bytes[1] = 3 * STRATA_IO_ALIGN_BYTES;
    out->buffer = aligned_alloc(STRATA_IO_ALIGN_BYTES, COMMIT_LARGEST_BYTES);
    out->expected = malloc(COMMIT_LARGEST_BYTES);
    STRATA_CHECK(out->buffer != NULL && out->expected != NULL);
    out->records = (struct store_records){
        .bytes = out->record_bytes,
        .count = COMMIT_RECORDS,
        .slots = 2,
        .record_type = 1,
        .durable = true,
        .flush = true,
        .resume = true,
        .resume_step = UINT64_MAX,
        .new_commit_every = 1,
        .identity = "model=tiny\nseed=1\n",
    };
    out->desc = (struct store_desc){
        .dirs = out->dirs,
        .dir_count = drive_count,
        .place_bytes = out->scratch_bytes,
        .place_count = 2,
        .records = &out->records,
        .limit_bytes = UINT64_MAX,
        .tile_elems = 16384,
        .backend = strata_backend_here(backend),
        .allow = STRATA_ALLOW_BUFFERED_IO,
        .depth = 4,
        .request_bytes = STRATA_HASH_PIECE_BYTES,
        .deadline_ns = 20000000000u,
    };
}

void strata_commit_rig_keep(struct commit_rig *rig, uint32_t keep, uint32_t keep_every)
{
    rig->records.keep = keep;
    rig->records.slots = 2 + keep;
    rig->keep_every = keep_every;
}

void strata_commit_rig_close(struct commit_rig *rig)
{
    strata_store_close(rig->store);
    rig->store = NULL;
    strata_tables_free(&rig->tables);
    rig->tables = (struct tables){.first = NULL};
}

void strata_commit_rig_remove(struct commit_rig *rig)
{
    strata_commit_rig_close(rig);
    free(rig->buffer);
    free(rig->expected);
    strata_temp_dir_remove(&rig->dir);
}

const char *strata_commit_rig_file(const struct commit_rig *rig, uint32_t drive_index,
                                   char *out)
{
    snprintf(out, PATH_MAX + 32, "%s/%s", rig->drives[drive_index], STRATA_STORE_FILE_NAME);
    return out;
}

void strata_commit_rig_pattern(const struct commit_rig *rig, uint32_t record, uint64_t step,
                               uint8_t *out)
{
    uint64_t state = (uint64_t)(record + 1) << 32 | step;
    for (uint64_t i = 0; i < rig->record_bytes[record]; i += sizeof state) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        memcpy(out + i, &state, sizeof state);
    }
}

uint64_t strata_commit_rig_updates(uint64_t step)
{
    return step - step / 3;
}

double strata_commit_rig_scale(uint64_t step)
{
    return 65536.0 / (double)(step + 1);
}

static strata_status write_record(struct commit_rig *rig, uint32_t record, uint32_t slot)
{
    if (rig->record_bytes[record] == 0)
        return STRATA_OK;
    strata_commit_rig_pattern(rig, record, rig->step, rig->buffer);
    return strata_store_transfer(rig->store, true,
                                 strata_store_slot_place(rig->store, record, slot),
                                 strata_commit_rig_updates(rig->step), rig->buffer);
}

static strata_status commit(struct commit_rig *rig)
{
    struct commit_line lines[1 + STRATA_MAX_KEEP];
    struct store_line store_lines[1 + STRATA_MAX_KEEP];
    struct commit_list next = {.count = strata_slots_next_lines(&rig->slots, lines)};
    for (uint32_t i = 0; i < next.count; i++) {
        store_lines[i] = (struct store_line){lines[i].step, lines[i].slots};
        next.steps[i] = lines[i].step;
    }
    rig->pending = next;
    STRATA_TRY(strata_store_commit(rig->store, store_lines, next.count,
                                   strata_commit_rig_updates(rig->step),
                                   strata_commit_rig_scale(rig->step)));
    strata_slots_committed(&rig->slots);
    rig->listed = rig->pending;
    return STRATA_OK;
}

/* Step 0: slot 0 of every record, and its commit. */
static strata_status begin(struct commit_rig *rig)
{
    static uint8_t zeros[COMMIT_RECORDS];
    struct store_line line = {.step = 0, .slots = zeros};
    rig->step = 0;
    rig->listed = (struct commit_list){.count = 0};
    rig->pending = (struct commit_list){.count = 1};
    for (uint32_t i = 0; i < COMMIT_RECORDS; i++)
        STRATA_TRY(write_record(rig, i, 0));
    STRATA_TRY(strata_store_commit(rig->store, &line, 1, strata_commit_rig_updates(0),
                                   strata_commit_rig_scale(0)));
    rig->listed = rig->pending;
    strata_slots_recover(&rig->slots, &(struct commit_line){.step = 0, .slots = zeros}, 1);
    return STRATA_OK;
}

static void recover(struct commit_rig *rig, const struct store_recovery *recovery)
{
    struct commit_line lines[1 + STRATA_MAX_KEEP];
    rig->listed.count = recovery->line_count;
    for (uint32_t i = 0; i < recovery->line_count; i++) {
        lines[i] = (struct commit_line){.step = recovery->lines[i].step,
                                        .slots = (uint8_t *)recovery->lines[i].slots};
        rig->listed.steps[i] = lines[i].step;
    }
    rig->pending = rig->listed;
    strata_slots_recover(&rig->slots, lines, recovery->line_count);
    rig->step = lines[0].step;
}

strata_status strata_commit_rig_open(struct commit_rig *rig, strata_error *error)
{
    struct slots_desc slots = {.tile_count = COMMIT_RECORDS,
                               .durable = true,
                               .keep = rig->records.keep,
                               .keep_every = rig->keep_every};
    const struct io_ops *ops =
        rig->desc.backend == STRATA_IO_THREADS ? &strata_io_threads : &strata_io_uring;
    STRATA_TRY(strata_store_open_on(&rig->store, &rig->desc, rig->ops != NULL ? rig->ops : ops,
                                    rig->ops_config, error));
    STRATA_CHECK(strata_slots_create(&rig->slots, &rig->tables, &slots, error) == STRATA_OK);
    const struct store_recovery *recovery = strata_store_recovery(rig->store);
    strata_status status = STRATA_OK;
    if (recovery->line_count > 0)
        recover(rig, recovery);
    else
        status = begin(rig);
    if (status != STRATA_OK) {
        if (error != NULL)
            *error = *strata_store_error(rig->store);
        strata_commit_rig_close(rig);
    }
    return status;
}

void strata_commit_rig_leave_uncommitted(struct commit_rig *rig)
{
    int status = 0;
    pid_t child = fork();
    STRATA_CHECK(child >= 0);
    if (child == 0)
        _exit(strata_store_open(&rig->store, &rig->desc, NULL) == STRATA_OK &&
                      strata_store_recovery(rig->store)->line_count == 0
                  ? 0
                  : 1);
    STRATA_CHECK(waitpid(child, &status, 0) == child && status == 0);
}

strata_status strata_commit_rig_step(struct commit_rig *rig)
{
    struct slots *slots = &rig->slots;
    rig->step++;
    bool due = rig->step % rig->commit_every == 0;
    bool ready = false;
    STRATA_CHECK(!due || strata_slots_prepare(slots, rig->step));
    for (uint32_t i = 0; i < COMMIT_RECORDS; i++) {
        if (!due && (rig->elsewhere >> i & 1))
            continue;
        uint32_t slot = strata_slots_choose(slots, i, false);
        STRATA_CHECK(slot != STRATA_NO_SLOT);
        if (due)
            strata_slots_name(slots, i, slot);
        STRATA_TRY(write_record(rig, i, slot));
        strata_slots_written(slots, i, slot);
        ready = due && strata_slots_ready(slots);
    }
    return ready ? commit(rig) : STRATA_OK;
}

void strata_commit_rig_find(const struct commit_rig *rig, struct commit_places *out)
{
    const struct store *store = rig->store;
    memcpy(out->records, store->drives[0].layout.record_offsets, sizeof out->records);
    for (uint32_t i = 0; i < STRATA_STORE_RECORD_COUNT; i++)
        for (uint32_t copy = 0; copy < STRATA_STORE_COPIES; copy++)
            if (store->record_generation[i] == store->listing_generation)
                out->newest[copy] = out->records[copy * STRATA_STORE_RECORD_COUNT + i];
    out->back_tables = store->drives[0].layout.tables_offset[1];
    for (uint32_t i = 0; i < store->drive_count; i++) {
        out->table_bytes[i] = store->drives[i].layout.table_bytes;
        out->durable_bytes[i] = store->drives[i].layout.durable_bytes;
        for (uint32_t line = 0; line < store->line_count; line++)
            for (uint32_t copy = 0; copy < STRATA_STORE_COPIES; copy++)
                out->tables[i][line][copy] =
                    store
                        ->places[strata_store_table_place(store, i,
                                                          store->lines[line].table_copy, copy)]
                        .offset;
    }
}

strata_status strata_commit_rig_check(struct commit_rig *rig, bool *out_same)
{
    const struct store_recovery *recovery = strata_store_recovery(rig->store);
    uint64_t first = recovery->line_count > 0 ? recovery->lines[0].step : 0;
    *out_same =
        recovery->line_count == 0 || (recovery->updates == strata_commit_rig_updates(first) &&
                                      recovery->loss_scale == strata_commit_rig_scale(first));
    for (uint32_t i = 0; i < recovery->line_count; i++) {
        const struct store_line *line = &recovery->lines[i];
        for (uint32_t r = 0; r < COMMIT_RECORDS; r++) {
            size_t bytes = rig->record_bytes[r];
            if (bytes == 0)
                continue;
            STRATA_TRY(strata_store_transfer(
                rig->store, false, strata_store_slot_place(rig->store, r, line->slots[r]),
                line->step, rig->buffer));
            strata_commit_rig_pattern(rig, r, line->step, rig->expected);
            *out_same = *out_same && memcmp(rig->buffer, rig->expected, bytes) == 0;
        }
    }
    return STRATA_OK;
}
