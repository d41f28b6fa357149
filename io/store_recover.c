/*
 * What the files found hold, and whether this run may go on with it.
 *
 * Three questions, in this order. Whose are they? Each file names its store and its place in
 * it; commits are told by the first drive's file, so a file whose first drive is not among the
 * directories is left alone. Is there a commit? Without one they are nobody's. And is it this
 * run's? Everything that a commit means must match: the identity that the run was given, and
 * the records' layout.
 *
 * The newest record counts whose tables are complete on all drives. A crash never leaves a
 * record without its tables, since those are flushed first; so a record that is good while its
 * tables are not means damage. Then an older one may do. If none does the store is refused, not
 * made anew: somebody's weeks may still be saved by hand.
 *
 * Records themselves are not read here. Their hashes are, and each read is checked.
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

/* Every file's first drive is here too, so what follows speaks for it. */
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

strata_status strata_store_read_commits(const struct store *store, const struct drive *drive,
                                        struct commits *out, strata_error *error)
{
    out->blocks = (const struct commit_record *)store->fill;
    out->count = 0;
    STRATA_TRY(strata_store_file_read(&drive->file, store->fill,
                                      STRATA_STORE_RECORD_COUNT * STRATA_STORE_BLOCK_BYTES,
                                      STRATA_STORE_BLOCK_BYTES, error));
    for (uint32_t i = 0; i < STRATA_STORE_RECORD_COUNT; i++) {
        if (!strata_store_record_valid(&out->blocks[i], drive->header))
            continue;
        uint32_t at = out->count++;
        for (; at > 0 && out->blocks[out->order[at - 1]].generation < out->blocks[i].generation;
             at--)
            out->order[at] = out->order[at - 1];
        out->order[at] = i;
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

/* What stands before, or behind, the first '='. */
static struct line part_of(struct line line, bool value)
{
    const char *sign = memchr(line.text, '=', line.bytes);
    size_t name = sign != NULL ? (size_t)(sign - line.text) : line.bytes;
    if (!value)
        return (struct line){line.text, name};
    size_t skip = sign != NULL ? name + 1 : line.bytes;
    return (struct line){line.text + skip, line.bytes - skip};
}

/* Lines are compared in order; the first that differs is told, by its name. */
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

strata_status strata_store_read_tables(struct store *store, const struct listed_commit *line,
                                       strata_error *error)
{
    uint8_t hashes[STRATA_STORE_MAX_DRIVES][16], hash[16];
    bool good = true;
    for (uint32_t i = 0; i < store->drive_count; i++) {
        struct drive *drive = &store->drives[i];
        uint64_t bytes = drive->layout.table_bytes;
        uint64_t offset = drive->layout.tables_offset + line->table_copy * bytes;
        STRATA_TRY(strata_store_file_read(&drive->file, drive->table, bytes, offset, error));
        memcpy(hashes[i], (uint8_t *)drive->table + bytes - 16, 16);
        if (!strata_store_table_valid(drive->table, bytes, drive->header, line) ||
            drive->table->entry_count != drive->layout.record_count)
            return strata_fail(error, STRATA_E_CORRUPT, 0,
                               "the tile table of step %" PRIu64 ", %" PRIu64
                               " bytes at %" PRIu64 " in %s, is not what was written",
                               line->step, bytes, offset, drive->file.path);
    }
    strata_store_put_hash(hash, strata_hash(hashes, (size_t)store->drive_count * 16, 0));
    good = memcmp(hash, line->tables_hash, sizeof hash) == 0;
    if (!good)
        return strata_fail(error, STRATA_E_CORRUPT, 0,
                           "the tile tables of step %" PRIu64 " in %s are not those committed",
                           line->step, store->drives[0].file.path);
    return STRATA_OK;
}

/* Take over what the drives' buffers say, as one more line. */
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
        place->round = entry->step;
        place->known = true;
    }
    store->recovery.lines[at] = (struct store_line){.step = line->step, .slots = slots};
    store->recovery.line_count = store->line_count;
}

/* The line to go on from, in this record. line_count: there is none. */
static uint32_t pick(const struct commit_record *record, uint64_t resume_step)
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

/* Lines that stay listed. One whose tables are damaged is of no use and falls out. */
static strata_status take_retained(struct store *store, const struct store_desc *desc,
                                   const struct commit_record *record, uint32_t from,
                                   strata_error *error)
{
    for (uint32_t i = from; i < record->line_count; i++) {
        strata_error damage = {.status = STRATA_OK};
        strata_status status = strata_store_read_tables(store, &record->lines[i], &damage);
        if (status == STRATA_OK)
            take_line_over(store, &record->lines[i]);
        else if (status == STRATA_E_CORRUPT)
            strata_store_log(desc, "store: a retained commit is given up: %s", damage.message);
        else
            return strata_fail(error, status, damage.native, "%s", damage.message);
    }
    return STRATA_OK;
}

static void take_record(struct store *store, const struct commit_record *record, uint32_t line)
{
    store->listing_generation = record->generation;
    store->dropped = line > 0;
    store->recovery.updates = record->lines[line].updates;
    store->recovery.loss_scale = record->lines[line].loss_scale;
    if (store->recovery.commit_every == 0)
        store->recovery.commit_every = record->commit_every;
    take_line_over(store, &record->lines[line]);
}

/* The newest record that can be used; damage is told when it is the only thing there is. */
static strata_status choose(struct store *store, const struct store_desc *desc,
                            const struct commits *commits, strata_error *error)
{
    uint64_t resume_step = desc->records->resume_step;
    strata_error damage = {.status = STRATA_OK};
    /* A step is asked for by the newest listing: in older ones it may have been given up. */
    uint32_t count = resume_step == UINT64_MAX ? commits->count : 1;
    for (uint32_t i = 0; i < count; i++) {
        const struct commit_record *record = &commits->blocks[commits->order[i]];
        uint32_t line = pick(record, resume_step);
        if (line == record->line_count)
            return no_such_step(record, desc, error);
        strata_status status = strata_store_read_tables(store, &record->lines[line], &damage);
        if (status == STRATA_OK) {
            if (i > 0)
                strata_store_log(desc, "store: step %" PRIu64 " is the last that is whole: %s",
                                 record->lines[0].step, damage.message);
            take_record(store, record, line);
            return take_retained(store, desc, record, line + 1, error);
        }
        if (status != STRATA_E_CORRUPT)
            break;
    }
    return strata_fail(error, damage.status, damage.native, "%s", damage.message);
}

static strata_status resume(struct store *store, const struct store_desc *desc, uint32_t first,
                            const struct commits *commits, strata_error *error)
{
    const struct store_header *header = store->drives[first].header;
    STRATA_TRY(strata_store_check_drives(store, desc->dirs, first, error));
    STRATA_TRY(check_identity(header, desc->records->identity, desc->dirs[0], error));
    STRATA_TRY(check_layout(header, desc, error));
    memcpy(store->store_id, header->store_id, sizeof store->store_id);
    memcpy(store->shares, header->shares, sizeof store->shares);
    strata_store_settle(store, desc);
    for (uint32_t i = 0; i < commits->count; i++)
        store->record_generation[commits->order[i]] =
            commits->blocks[commits->order[i]].generation;
    store->generation = commits->blocks[commits->order[0]].generation;
    STRATA_TRY(choose(store, desc, commits, error));
    store->resumed = true;
    return STRATA_OK;
}

strata_status strata_store_recover(struct store *store, const struct store_desc *desc,
                                   strata_error *error)
{
    const struct store_records *records = desc->records;
    struct commits commits;
    STRATA_TRY(check_firsts(store, desc, error));
    for (uint32_t i = 0; i < store->drive_count; i++) {
        const struct drive *drive = &store->drives[i];
        if (!is_first_of(drive, drive))
            continue;
        STRATA_TRY(strata_store_read_commits(store, drive, &commits, error));
        if (commits.count == 0)
            continue;
        if (records->durable && records->resume)
            return resume(store, desc, i, &commits, error);
        return strata_fail(error, STRATA_E_STATE, 0,
                           "store %s holds a run at step %" PRIu64
                           ": --resume goes on from it, or give another directory",
                           desc->dirs[i], commits.blocks[commits.order[0]].lines[0].step);
    }
    return STRATA_OK;
}
