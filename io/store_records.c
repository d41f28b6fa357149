/*
 * Reading the commit records: which is the newest, what is damaged, and what is lost.
 *
 * A crash may happen at any moment, and damage may be found at any time. The two must not be
 * mistaken for each other: a state that a crash alone can leave is resumed, and any other state
 * is damage, which is reported and left as it is. These rules tell them apart.
 *
 * A commit writes in this order: both copies of its tables; a flush; both copies of its record,
 * over the oldest of four; a flush; a receipt with the record's generation, which the next
 * commit's first flush makes durable. So of the commit of generation g:
 *
 *   - A receipt of g says that record g was durable in both copies. So does a table of g + 1,
 *     which is written only after record g has been flushed. If neither record g nor a newer
 * one
 *     is there then, it is lost, and no crash did that. A table of g alone says nothing: the
 *     power may have failed before record g was written, or while it was.
 *   - While record g is written, its place may hold anything, in both copies, since a drive
 *     promises nothing about sectors in flight. This is the only place of the four that a crash
 *     may leave so. It is the oldest: the next commit writes over it again.
 *   - One copy of record g may be written and the other not. Then there is no receipt of g. The
 *     run that resumes writes the other copy again, and the receipt.
 *
 * A new store has a known pattern in the places of the records. It has never been committed to,
 * and may be made anew, as long as there is no record, no receipt and no table of a second
 * commit, and the pattern is everywhere but in the place of the first record, whose write a
 * crash may have interrupted.
 *
 * A block that cannot be read counts as damaged, whatever the drive's reason.
 *
 * With --durability process nothing is flushed. Then there are no receipts either, and a loss
 * of power, which such a run does not promise to survive, may look like damage.
 *
 * Thread: the opener, or the caller of list, scrub and drop.
 */

#include "io/store_internal.h"

#include "base/error.h"

#include <inttypes.h>
#include <string.h>

/* What was found at a commit record's place. */
enum found { FOUND_OTHER, FOUND_EMPTY, FOUND_RECORD };

/* All that is read, before it is judged. */
struct reading {
    const struct drive *drive;
    struct commit_record *blocks;
    void *spare; /* one block, for receipts and tables */
    enum found found[STRATA_STORE_RECORD_BLOCKS];
    strata_error errors[STRATA_STORE_RECORD_BLOCKS]; /* of a block that cannot be read */
    struct commit_receipt receipt;                   /* the newest; generation 0: none */
    uint64_t table_generation;                       /* of the newest table */
    uint64_t table_step;
};

void strata_store_tell_damage(struct damage *damage, const strata_error *story)
{
    if (damage == NULL)
        return;
    damage->count++;
    if (damage->tell != NULL)
        damage->tell(damage->user, story->message);
}

uint32_t strata_store_other_copy(uint32_t block)
{
    return (block + STRATA_STORE_RECORD_COUNT) % STRATA_STORE_RECORD_BLOCKS;
}

static bool read_block(const struct reading *reading, uint64_t offset, void *out,
                       strata_error *error)
{
    return strata_store_file_read(&reading->drive->file, out, STRATA_STORE_BLOCK_BYTES, offset,
                                  error) == STRATA_OK;
}

static void read_records(struct reading *reading)
{
    const struct store_header *header = reading->drive->header;
    for (uint32_t i = 0; i < STRATA_STORE_RECORD_BLOCKS; i++) {
        struct commit_record *block = &reading->blocks[i];
        reading->found[i] = FOUND_OTHER;
        if (!read_block(reading, header->record_offsets[i], block, &reading->errors[i]))
            continue;
        if (strata_store_record_valid(block, header))
            reading->found[i] = FOUND_RECORD;
        else if (strata_store_empty_valid((struct empty_record *)block, header, i))
            reading->found[i] = FOUND_EMPTY;
    }
}

static void read_receipts(struct reading *reading)
{
    strata_error ignored;
    const struct commit_receipt *receipt = reading->spare;
    for (uint64_t i = 0; i < STRATA_STORE_RECEIPT_COUNT; i++)
        if (read_block(reading, (1 + i) * STRATA_STORE_BLOCK_BYTES, reading->spare, &ignored) &&
            strata_store_receipt_valid(receipt, reading->drive->header) &&
            receipt->generation > reading->receipt.generation)
            reading->receipt = *receipt;
}

/* The generation of a table that is whole; 0: it is not, or not newer than least. */
static uint64_t table_generation(const struct reading *reading, uint64_t offset, uint64_t bytes,
                                 uint64_t least)
{
    strata_error ignored;
    const struct store_header *header = reading->drive->header;
    const struct table_head *head = reading->spare;
    if (!read_block(reading, offset, reading->spare, &ignored) || head->generation <= least ||
        memcmp(head->store_id, header->store_id, sizeof head->store_id) != 0)
        return 0;
    uint64_t generation = head->generation;
    /* Only tables of a commit that was interrupted, or of one that is lost, get here. */
    void *table = aligned_alloc(STRATA_IO_ALIGN_BYTES, bytes);
    bool good = table != NULL &&
                strata_store_file_read(&reading->drive->file, table, bytes, offset, &ignored) ==
                    STRATA_OK &&
                strata_store_sealed(table, bytes);
    free(table);
    return good ? generation : 0;
}

/* The newest table of the first drive, if it is newer than the newest record. */
static void read_table_heads(struct reading *reading, uint64_t newest_record)
{
    const struct store_header *header = reading->drive->header;
    struct drive_layout layout = {.record_count = header->file_records,
                                  .durable_bytes = header->durable_bytes};
    uint32_t tables = 2 + header->keep;
    strata_store_place_tables(&layout, tables);
    for (uint32_t i = 0; i < STRATA_STORE_COPIES * tables; i++) {
        uint64_t offset = layout.tables_offset[i / tables] + i % tables * layout.table_bytes;
        uint64_t least = newest_record > reading->table_generation ? newest_record
                                                                   : reading->table_generation;
        uint64_t generation = table_generation(reading, offset, layout.table_bytes, least);
        if (generation > 0)
            reading->table_generation = generation;
    }
}

/* The better copy of each record that has a valid one, by generation. */
static void sort_records(const struct reading *reading, struct commits *out)
{
    for (uint32_t i = 0; i < STRATA_STORE_RECORD_COUNT; i++) {
        uint32_t best = i, other = strata_store_other_copy(i);
        if (reading->found[best] != FOUND_RECORD ||
            (reading->found[other] == FOUND_RECORD &&
             reading->blocks[other].generation > reading->blocks[best].generation))
            best = other;
        if (reading->found[best] != FOUND_RECORD)
            continue;
        out->generations[i] = reading->blocks[best].generation;
        uint32_t at = out->count++;
        for (; at > 0 && out->blocks[out->order[at - 1]].generation < out->generations[i]; at--)
            out->order[at] = out->order[at - 1];
        out->order[at] = best;
    }
}

uint32_t strata_store_oldest_record(const uint64_t *generations, uint64_t current)
{
    uint32_t oldest = STRATA_STORE_RECORD_COUNT;
    for (uint32_t i = 0; i < STRATA_STORE_RECORD_COUNT; i++)
        if (generations[i] != current &&
            (oldest == STRATA_STORE_RECORD_COUNT || generations[i] < generations[oldest]))
            oldest = i;
    return oldest;
}

/* Is a block as it should be: the record that the better copy of its place has, or empty? */
static bool block_is_sound(const struct reading *reading, const struct commits *commits,
                           uint32_t block)
{
    uint64_t generation = commits->generations[block % STRATA_STORE_RECORD_COUNT];
    if (generation == 0)
        return reading->found[block] == FOUND_EMPTY;
    return reading->found[block] == FOUND_RECORD &&
           reading->blocks[block].generation == generation;
}

/* Report each block that is not as it should be and that no crash can have left so. */
static void tell_damaged_blocks(const struct reading *reading, const struct commits *commits,
                                struct damage *damage)
{
    uint64_t newest = commits->blocks[commits->order[0]].generation;
    uint32_t next = strata_store_oldest_record(commits->generations, newest);
    for (uint32_t i = 0; i < STRATA_STORE_RECORD_BLOCKS; i++) {
        uint32_t index = i % STRATA_STORE_RECORD_COUNT;
        strata_error story = reading->errors[i];
        bool may_be_torn = index == next || (commits->generations[index] == newest &&
                                             reading->receipt.generation < newest);
        if (block_is_sound(reading, commits, i) || (may_be_torn && story.status == STRATA_OK))
            continue;
        if (story.status == STRATA_OK)
            (void)strata_fail(&story, STRATA_E_CORRUPT, 0,
                              "a copy of a commit record, %u bytes at %" PRIu64
                              " in %s, is not what was written",
                              STRATA_STORE_BLOCK_BYTES,
                              reading->drive->header->record_offsets[i],
                              reading->drive->file.path);
        strata_store_tell_damage(damage, &story);
    }
}

/* There is no record. OK: there has never been one. */
static strata_status check_never_committed(const struct reading *reading, strata_error *error)
{
    const struct drive *drive = reading->drive;
    uint32_t bad = 0;
    /* The first commit is written to the first record, so a crash may leave anything there. */
    while (bad < STRATA_STORE_RECORD_BLOCKS &&
           (bad % STRATA_STORE_RECORD_COUNT == 0 || reading->found[bad] == FOUND_EMPTY))
        bad++;
    if (bad == STRATA_STORE_RECORD_BLOCKS && reading->receipt.generation == 0 &&
        reading->table_generation <= 1)
        return STRATA_OK;
    bad = bad == STRATA_STORE_RECORD_BLOCKS ? 0 : bad;
    int32_t native = reading->errors[bad].native;
    return strata_fail(error, STRATA_E_CORRUPT, native,
                       "%.100s: no commit record is whole, and this is no new store: %u bytes "
                       "at %" PRIu64 ": %s; it is left alone: move it",
                       drive->file.path, STRATA_STORE_BLOCK_BYTES,
                       drive->header->record_offsets[bad],
                       native != 0 ? strerror(native) : "not what was written");
}

/* Was there a record that is newer than those that are left? */
static void judge_loss(const struct reading *reading, struct commits *out)
{
    uint64_t newest = out->blocks[out->order[0]].generation;
    uint64_t durable = reading->receipt.generation;
    out->lost_step = reading->receipt.step;
    if (reading->table_generation > durable + 1) {
        durable = reading->table_generation - 1;
        out->lost_step = UINT64_MAX;
    }
    out->lost = durable > newest;
    out->generation = newest > durable ? newest : durable;
    if (reading->table_generation > out->generation && out->lost)
        out->generation = reading->table_generation;
    out->has_both_copies = block_is_sound(reading, out, strata_store_other_copy(out->order[0]));
    out->has_receipt = reading->receipt.generation >= newest;
}

strata_status strata_store_read_commits(const struct store *store, const struct drive *drive,
                                        struct commits *out, struct damage *damage,
                                        strata_error *error)
{
    struct reading reading = {
        .drive = drive,
        .blocks = (struct commit_record *)store->fill,
        .spare = store->fill + STRATA_STORE_RECORD_BLOCKS * STRATA_STORE_BLOCK_BYTES,
    };
    *out = (struct commits){.blocks = reading.blocks};
    read_records(&reading);
    sort_records(&reading, out);
    read_receipts(&reading);
    read_table_heads(&reading, out->count > 0 ? out->blocks[out->order[0]].generation : 0);
    if (out->count == 0)
        return check_never_committed(&reading, error);
    judge_loss(&reading, out);
    if (!out->lost)
        tell_damaged_blocks(&reading, out, damage);
    return STRATA_OK;
}

strata_status strata_store_lost(const struct drive *drive, const struct commits *commits,
                                strata_error *error)
{
    char step[32] = "a commit";
    const struct commit_record *left = &commits->blocks[commits->order[0]];
    uint32_t index = strata_store_oldest_record(commits->generations, left->generation);
    if (commits->lost_step != UINT64_MAX)
        snprintf(step, sizeof step, "step %" PRIu64, commits->lost_step);
    return strata_fail(error, STRATA_E_CORRUPT, 0,
                       "%.80s: %s is lost, its commit record is whole in neither copy, %u "
                       "bytes at %" PRIu64 " and %" PRIu64,
                       drive->file.path, step, STRATA_STORE_BLOCK_BYTES,
                       drive->header->record_offsets[index],
                       drive->header->record_offsets[strata_store_other_copy(index)]);
}
