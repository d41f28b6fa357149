/*
 * What the files hold, and whether this run may resume it.
 *
 * Three questions are asked, in this order. Do the files belong together? Each file names its
 * store and its place in it. The first drive's file has the commits, so a file whose first
 * drive is not among the directories is left alone. Is there a commit? A new store without one
 * may be made anew; a store that is neither new nor has a commit is refused (store_records.c).
 * And is it this run's? Everything that a commit depends on must match: the identity that the
 * run was given, and the records' layout.
 *
 * The run resumes from the newest commit. A crash never leaves a record without its tables,
 * since those are flushed first, and never takes back a record that was durable. So if the
 * newest record is lost, or neither copy of one of its tables is whole, a committed step is
 * damaged: the store is refused, and the message names the newest commit that is whole. A run
 * that asks for that commit by its step resumes from it, and newer listings are dropped.
 *
 * Records themselves are not read here. Their hashes are, and each later read is compared.
 *
 * Thread: the opener.
 */

#include "io/store_internal.h"

#include "base/error.h"

#include <inttypes.h>
#include <string.h>

static bool is_first_of(const struct drive *drive, const struct drive *other)
{
    return drive->file.found && drive->header->durable && drive->header->drive_index == 0 &&
           memcmp(drive->header->store_id, other->header->store_id,
                  sizeof other->header->store_id) == 0;
}

/* For every file, the first drive of its store must be among the directories. */
static strata_status check_firsts(const struct store *store, const struct store_desc *desc,
                                  strata_error *error)
{
    for (uint32_t i = 0; i < store->drive_count; i++) {
        const struct drive *drive = &store->drives[i];
        bool here = !drive->file.found || !drive->header->durable;
        for (uint32_t j = 0; j < store->drive_count && !here; j++)
            here = is_first_of(&store->drives[j], drive);
        if (!here)
            return strata_fail(error, STRATA_E_INVALID, 0,
                               "store directory %s holds drive %" PRIu32 " of %" PRIu32
                               " of a store whose first drive is not named; it is left alone",
                               desc->dirs[i], drive->header->drive_index + 1,
                               drive->header->drive_count);
    }
    return STRATA_OK;
}

strata_status strata_store_check_drives(const struct store *store, const char *const *dirs,
                                        uint32_t first, strata_error *error)
{
    const struct store_header *header = store->drives[first].header;
    if (header->drive_count != store->drive_count)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "the store in %s has %" PRIu32 " drives, %" PRIu32
                           " directories are named: name them all, in order",
                           dirs[first], header->drive_count, store->drive_count);
    for (uint32_t i = 0; i < store->drive_count; i++) {
        const struct drive *drive = &store->drives[i];
        if (!drive->file.found)
            return strata_fail(error, STRATA_E_INVALID, 0,
                               "store directory %s is empty: drive %" PRIu32 " of %" PRIu32
                               " of the store in %s is missing",
                               dirs[i], i + 1, store->drive_count, dirs[first]);
        if (memcmp(drive->header->store_id, header->store_id, sizeof header->store_id) != 0)
            return strata_fail(error, STRATA_E_INVALID, 0,
                               "store directory %s holds a drive of another store than %s",
                               dirs[i], dirs[first]);
        if (drive->header->drive_index != i)
            return strata_fail(error, STRATA_E_INVALID, 0,
                               "store directory %s is drive %" PRIu32 " of %" PRIu32
                               ", not %" PRIu32 ": name the directories in order",
                               dirs[i], drive->header->drive_index + 1, store->drive_count,
                               i + 1);
    }
    return STRATA_OK;
}

/* A line of text without its end. */
struct line {
    const char *text;
    size_t bytes;
};

static struct line take_line(const char **at, const char *end)
{
    struct line line = {.text = *at};
    const char *stop = memchr(*at, '\n', (size_t)(end - *at));
    line.bytes = (size_t)((stop != NULL ? stop : end) - *at);
    *at = stop != NULL ? stop + 1 : end;
    return line;
}

/* The part of a line before the first '=', or the part after it. */
static struct line part_of(struct line line, bool value)
{
    const char *sign = memchr(line.text, '=', line.bytes);
    size_t name = sign != NULL ? (size_t)(sign - line.text) : line.bytes;
    if (!value)
        return (struct line){line.text, name};
    size_t skip = sign != NULL ? name + 1 : line.bytes;
    return (struct line){line.text + skip, line.bytes - skip};
}

/* Lines are compared in order; the message names the first that differs. */
static strata_status check_identity(const struct store_header *header, const char *identity,
                                    const char *dir, strata_error *error)
{
    const char *theirs = header->identity, *mine = identity;
    const char *their_end = theirs + header->identity_bytes, *my_end = mine + strlen(mine);
    while (theirs < their_end || mine < my_end) {
        struct line a = take_line(&theirs, their_end);
        struct line b = take_line(&mine, my_end);
        if (a.bytes == b.bytes && memcmp(a.text, b.text, a.bytes) == 0)
            continue;
        struct line name = part_of(a.bytes > 0 ? a : b, false);
        struct line was = part_of(a, true), is = part_of(b, true);
        /* Long values are cut, so that the rest of the message is not. */
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "the run in %.*s has %.*s %.*s, this one %.*s: give the same, or "
                           "another directory",
                           80, dir, name.bytes < 24 ? (int)name.bytes : 24, name.text,
                           was.bytes < 40 ? (int)was.bytes : 40, was.text,
                           is.bytes < 40 ? (int)is.bytes : 40, is.text);
    }
    return STRATA_OK;
}

static strata_status check_layout(const struct store_header *header,
                                  const struct store_desc *desc, strata_error *error)
{
    const struct store_records *records = desc->records;
    const struct {
        const char *name;
        uint32_t theirs;
        uint32_t mine;
    } numbers[] = {
        {"elements per tile", header->tile_elems, desc->tile_elems},
        {"as record type", header->record_type, records->record_type},
        {"records", header->record_count, records->count},
        {"records written once", header->fixed_count, records->fixed_count},
        {"slots per record", header->slots, records->slots},
        {"commits to retain", header->keep, records->keep},
    };
    uint8_t hash[16];
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (numbers[i].theirs != numbers[i].mine)
            return strata_fail(error, STRATA_E_INVALID, 0,
                               "the store in %s has %" PRIu32 " %s, this run %" PRIu32
                               ": give the same, or another directory",
                               desc->dirs[0], numbers[i].theirs, numbers[i].name,
                               numbers[i].mine);
    strata_store_put_hash(hash, strata_store_layout_hash(records));
    if (memcmp(hash, header->layout_hash, sizeof hash) != 0)
        return strata_fail(error, STRATA_E_INVALID, 0,
                           "the store in %s has records of other lengths than this run: give "
                           "the same model and tile size, or another directory",
                           desc->dirs[0]);
    return STRATA_OK;
}

/* Read one copy of a drive's table. false: it is not whole; story says why. */
static bool read_table(const struct drive *drive, const struct listed_commit *line,
                       uint32_t copy, strata_error *story)
{
    uint64_t bytes = drive->layout.table_bytes;
    uint64_t offset = drive->layout.tables_offset[copy] + line->table_copy * bytes;
    *story = (strata_error){.status = STRATA_OK};
    if (strata_store_file_read(&drive->file, drive->table, bytes, offset, story) != STRATA_OK)
        return false;
    if (strata_store_table_valid(drive->table, bytes, drive->header, line) &&
        drive->table->entry_count == drive->layout.record_count)
        return true;
    (void)strata_fail(story, STRATA_E_CORRUPT, 0,
                      "the tile table of step %" PRIu64 ", %" PRIu64 " bytes at %" PRIu64
                      " in %s, is not what was written",
                      line->step, bytes, offset, drive->file.path);
    return false;
}

/* Read both copies of all tables and report those that are damaged. */
static void look_at_both(const struct store *store, const struct listed_commit *line,
                         struct damage *damage)
{
    strata_error story;
    for (uint32_t i = 0; i < store->drive_count; i++)
        for (uint32_t copy = 0; copy < STRATA_STORE_COPIES; copy++)
            if (!read_table(&store->drives[i], line, copy, &story))
                strata_store_tell_damage(damage, &story);
}

strata_status strata_store_read_tables(struct store *store, const struct listed_commit *line,
                                       struct damage *damage, strata_error *error)
{
    uint8_t hashes[STRATA_STORE_MAX_DRIVES][16], hash[16];
    strata_error story;
    if (damage != NULL)
        look_at_both(store, line, damage);
    for (uint32_t first = 0; first < STRATA_STORE_COPIES; first++) {
        for (uint32_t i = 0; i < store->drive_count; i++) {
            struct drive *drive = &store->drives[i];
            if (!read_table(drive, line, first, &story) &&
                !read_table(drive, line, 1 - first, &story))
                return strata_fail(error, STRATA_E_CORRUPT, story.native,
                                   "%s, and its other copy is damaged too", story.message);
            uint8_t *end = (uint8_t *)drive->table + drive->layout.table_bytes;
            memcpy(hashes[i], end - sizeof hash, sizeof hash);
        }
        strata_store_put_hash(hash, strata_hash(hashes, (size_t)store->drive_count * 16, 0));
        if (memcmp(hash, line->tables_hash, sizeof hash) == 0)
            return STRATA_OK;
    }
    return strata_fail(error, STRATA_E_CORRUPT, 0,
                       "the tile tables of step %" PRIu64 " in %s are not those committed",
                       line->step, store->drives[0].file.path);
}

/* The same for a store that is opened, whose tiles must be those in the tables. */
static strata_status read_own_tables(struct store *store, const struct listed_commit *line,
                                     struct damage *damage, strata_error *error)
{
    const struct table_entry *entries[STRATA_STORE_MAX_DRIVES];
    bool same = true;
    STRATA_TRY(strata_store_read_tables(store, line, damage, error));
    for (uint32_t i = 0; i < store->drive_count; i++)
        entries[i] = (const struct table_entry *)(store->drives[i].table + 1);
    for (uint32_t i = 0; i < store->record_count; i++) {
        const struct place *place = &store->places[strata_store_slot_place(store, i, 0)];
        if (place->bytes == 0)
            continue;
        const struct table_entry *entry = entries[place->drive_index]++;
        same = same && entry->record == i && entry->bytes == place->bytes;
    }
    if (same)
        return STRATA_OK;
    return strata_fail(error, STRATA_E_CORRUPT, 0,
                       "the tile tables of step %" PRIu64 " in %s name other tiles than this "
                       "store was made for",
                       line->step, store->drives[0].file.path);
}

/* Add a line to the store: its slots and hashes are in the tables that the drives' buffers
 * hold. */
static void take_line_over(struct store *store, const struct listed_commit *line)
{
    struct table_entry *entries[STRATA_STORE_MAX_DRIVES];
    uint32_t at = store->line_count++;
    uint8_t *slots = store->recovered_slots + (size_t)at * store->record_count;
    store->lines[at] = *line;
    for (uint32_t i = 0; i < store->drive_count; i++)
        entries[i] = (struct table_entry *)(store->drives[i].table + 1);
    for (uint32_t i = 0; i < store->record_count; i++) {
        struct place *place = &store->places[strata_store_slot_place(store, i, 0)];
        slots[i] = 0;
        if (place->bytes == 0)
            continue;
        const struct table_entry *entry = entries[place->drive_index]++;
        slots[i] = (uint8_t)entry->slot;
        place += entry->slot;
        place->hash = strata_store_get_hash(entry->hash);
        place->round = entry->updates;
        place->known = true;
    }
    store->recovery.lines[at] = (struct store_line){.step = line->step, .slots = slots};
    store->recovery.line_count = store->line_count;
}

/* The line of this record that the run resumes from. line_count: there is none. */
static uint32_t find_resume_line(const struct commit_record *record, uint64_t resume_step)
{
    uint32_t i = 0;
    if (resume_step == UINT64_MAX)
        return 0;
    while (i < record->line_count && record->lines[i].step != resume_step)
        i++;
    return i;
}

static strata_status no_such_step(const struct commit_record *record,
                                  const struct store_desc *desc, strata_error *error)
{
    char list[128] = "";
    size_t used = 0;
    for (uint32_t i = 0; i < record->line_count && used + 24 < sizeof list; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%" PRIu64,
                                 i > 0 ? ", " : "", record->lines[i].step);
    return strata_fail(error, STRATA_E_INVALID, 0,
                       "store %.*s holds no commit of step %" PRIu64 "; it has %s", 80,
                       desc->dirs[0], desc->records->resume_step, list);
}

static void log_damage(void *user, const char *line)
{
    strata_store_log(user, "store: %s; its other copy is whole", line);
}

/* Add the lines that stay listed. A line whose tables are damaged is dropped. */
static void take_retained(struct store *store, const struct store_desc *desc,
                          const struct commit_record *record, uint32_t from)
{
    strata_error story;
    for (uint32_t i = from; i < record->line_count; i++) {
        if (read_own_tables(store, &record->lines[i], NULL, &story) == STRATA_OK)
            take_line_over(store, &record->lines[i]);
        else
            strata_store_log(desc, "store: a retained commit is given up: %s", story.message);
    }
}

/* A commit to resume from: a line of one of the records. */
struct choice {
    const struct commit_record *record;
    uint32_t line;
};

/* The newest commit whose tables are whole, or that of the step. false: there is none. */
static bool find_whole(struct store *store, const struct commits *commits, uint64_t step,
                       struct choice *out)
{
    strata_error story;
    for (uint32_t i = 0; i < commits->count; i++) {
        out->record = &commits->blocks[commits->order[i]];
        for (out->line = 0; out->line < out->record->line_count; out->line++) {
            const struct listed_commit *line = &out->record->lines[out->line];
            if ((step == UINT64_MAX || line->step == step) &&
                read_own_tables(store, line, NULL, &story) == STRATA_OK)
                return true;
        }
    }
    return false;
}

/* The newest commit is damaged. The run may have asked for an older one by its step. */
static strata_status choose_older(struct store *store, const struct store_desc *desc,
                                  const struct commits *commits, const strata_error *story,
                                  struct choice *out, strata_error *error)
{
    uint64_t step = desc->records->resume_step;
    store->relist = true;
    if (step != UINT64_MAX && find_whole(store, commits, step, out)) {
        strata_store_log(desc, "store: step %" PRIu64 " is gone on from as asked: %s", step,
                         story->message);
        return STRATA_OK;
    }
    if (!find_whole(store, commits, UINT64_MAX, out))
        return strata_fail(error, STRATA_E_CORRUPT, story->native, "%s; no commit is whole",
                           story->message);
    return strata_fail(error, STRATA_E_CORRUPT, story->native,
                       "%s; --resume --at %" PRIu64 " goes on from the newest that is whole",
                       story->message, out->record->lines[out->line].step);
}

/* Choose the newest commit, or the one that was asked for by its step. */
static strata_status choose_commit(struct store *store, const struct store_desc *desc,
                                   const struct commits *commits, struct choice *out,
                                   strata_error *error)
{
    strata_error story = {.status = STRATA_OK};
    struct damage damage = {.tell = log_damage, .user = (void *)desc};
    *out = (struct choice){.record = &commits->blocks[commits->order[0]]};
    if (commits->lost)
        (void)strata_store_lost(&store->drives[0], commits, &story);
    else
        (void)read_own_tables(store, &out->record->lines[0], &damage, &story);
    if (story.status != STRATA_OK)
        return choose_older(store, desc, commits, &story, out, error);
    /* The step is looked up in the newest listing: an older one may have a commit that was
     * dropped. */
    out->line = find_resume_line(out->record, desc->records->resume_step);
    if (out->line == out->record->line_count)
        return no_such_step(out->record, desc, error);
    store->relist = out->line > 0;
    return read_own_tables(store, &out->record->lines[out->line], NULL, error);
}

/* Note what the newest record lacks; it is written once the store is open. */
static void note_confirmation(struct store *store, const struct commits *commits)
{
    uint32_t newest = commits->order[0];
    store->torn_copy = STRATA_STORE_RECORD_BLOCKS;
    if (!commits->has_both_copies)
        store->torn_copy = strata_store_other_copy(newest);
    store->confirm = !store->relist &&
                     (!commits->has_both_copies || (store->flush && !commits->has_receipt));
    *store->record = commits->blocks[newest];
}

/* Check the header's numbers that follow from others, as they did when the store was made. */
static strata_status check_derived(const struct store *store, strata_error *error)
{
    for (uint32_t i = 0; i < store->drive_count; i++) {
        const struct drive *drive = &store->drives[i];
        const struct store_header *header = drive->header;
        if (header->durable_bytes != drive->layout.durable_bytes ||
            header->file_records != drive->layout.record_count ||
            (i == 0 && memcmp(header->record_offsets, drive->layout.record_offsets,
                              sizeof header->record_offsets) != 0))
            return strata_fail(error, STRATA_E_CORRUPT, 0,
                               "the header of %s, %u bytes at 0, has its tiles where they "
                               "cannot be",
                               drive->file.path, STRATA_STORE_BLOCK_BYTES);
    }
    return STRATA_OK;
}

/* Check that this is what the run was planned for. The files were not locked in between.
 * newest: NULL: no commit. */
static strata_status check_seen(const struct store_desc *desc,
                                const struct commit_record *newest, strata_error *error)
{
    const struct store_sight *seen = desc->records->seen;
    struct store_sight now = {.generation = 0};
    if (newest != NULL) {
        memcpy(now.store_id, newest->store_id, sizeof now.store_id);
        now.generation = newest->generation;
    }
    if (seen == NULL || (now.generation == seen->generation &&
                         memcmp(now.store_id, seen->store_id, sizeof now.store_id) == 0))
        return STRATA_OK;
    return strata_fail(error, STRATA_E_STATE, 0,
                       "store %s was changed by another process while this run was planned: "
                       "start it again",
                       desc->dirs[0]);
}

static strata_status resume(struct store *store, const struct store_desc *desc, uint32_t first,
                            const struct commits *commits, strata_error *error)
{
    struct choice choice;
    const struct store_header *header = store->drives[first].header;
    STRATA_TRY(strata_store_check_drives(store, desc->dirs, first, error));
    STRATA_TRY(check_seen(desc, &commits->blocks[commits->order[0]], error));
    STRATA_TRY(check_identity(header, desc->records->identity, desc->dirs[0], error));
    STRATA_TRY(check_layout(header, desc, error));
    memcpy(store->store_id, header->store_id, sizeof store->store_id);
    memcpy(store->shares, header->shares, sizeof store->shares);
    strata_store_settle(store, desc);
    STRATA_TRY(check_derived(store, error));
    memcpy(store->record_generation, commits->generations, sizeof store->record_generation);
    store->generation = commits->generation;
    STRATA_TRY(choose_commit(store, desc, commits, &choice, error));
    const struct listed_commit *line = &choice.record->lines[choice.line];
    store->listing_generation = choice.record->generation;
    store->recovery.updates = line->updates;
    store->recovery.loss_scale = line->loss_scale;
    if (store->recovery.commit_every == 0)
        store->recovery.commit_every = choice.record->commit_every;
    take_line_over(store, line);
    take_retained(store, desc, choice.record, choice.line + 1);
    note_confirmation(store, commits);
    store->resumed = true;
    return STRATA_OK;
}

strata_status strata_store_recover(struct store *store, const struct store_desc *desc,
                                   strata_error *error)
{
    const struct store_records *records = desc->records;
    struct commits commits;
    struct damage damage = {.tell = log_damage, .user = (void *)desc};
    STRATA_TRY(check_firsts(store, desc, error));
    for (uint32_t i = 0; i < store->drive_count; i++) {
        const struct drive *drive = &store->drives[i];
        if (!is_first_of(drive, drive))
            continue;
        STRATA_TRY(strata_store_read_commits(store, drive, &commits, &damage, error));
        if (commits.count == 0)
            continue;
        if (records->durable && records->resume)
            return resume(store, desc, i, &commits, error);
        return strata_fail(error, STRATA_E_STATE, 0,
                           "store %s holds a run at step %" PRIu64
                           ": --resume goes on from it, or give another directory",
                           desc->dirs[i], commits.blocks[commits.order[0]].lines[0].step);
    }
    return check_seen(desc, NULL, error);
}
