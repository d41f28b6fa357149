#ifndef STRATA_IO_STORE_FORMAT_H
#define STRATA_IO_STORE_FORMAT_H

/*
 * The bytes of a store's files, and the functions that check them. docs/formats.md says the
 * same in words.
 *
 *     header | 2 receipts | 2 + keep tile tables | slots of the records, on the first drive
 *     with the commit records between them | the tables again | scratch places
 *
 * A scratch store has neither receipts nor tables nor commit records. Every block here ends
 * with the hash of all bytes before it, padding included, so one pair of functions seals and
 * checks. All numbers are in the byte order of the machine, which is little-endian wherever
 * this library runs.
 *
 * A reader trusts nothing before it has checked it: these functions take any bytes.
 *
 * Thread: any; they touch nothing but what they are given.
 */

#include "io/store.h"

#include "base/hash.h"

#define STRATA_STORE_VERSION     6u
#define STRATA_STORE_BLOCK_BYTES 4096u
/* Commit records of four generations. Each of them, and each table, has two copies. */
#define STRATA_STORE_RECORD_COUNT  4u
#define STRATA_STORE_COPIES        2u
#define STRATA_STORE_RECORD_BLOCKS (STRATA_STORE_RECORD_COUNT * STRATA_STORE_COPIES)
/* Two, so that the one before is left if one is torn. */
#define STRATA_STORE_RECEIPT_COUNT 2u
#define STRATA_STORE_LINES         (1u + STRATA_STORE_MAX_KEEP)
/* Slots of a record: two, one for each commit retained, one for updates ahead of the norm. */
#define STRATA_STORE_MAX_SLOTS (3u + STRATA_STORE_MAX_KEEP)
/* The share of the fastest drive. Half the speed gives half the share. */
#define STRATA_STORE_FULL_SHARE 1000u

/* The first block of a file; written once, never changed. */
struct store_header {
    char magic[8];
    uint32_t version;
    uint32_t header_bytes;
    uint8_t store_id[16]; /* random; the same in all files of one store         */
    uint32_t drive_index;
    uint32_t drive_count;
    uint32_t tile_elems;
    uint32_t durable; /* 1: it has commits; 0: scratch                          */
    uint32_t record_type;
    uint32_t record_count; /* of the whole store                                */
    uint32_t slots;        /* per record                                        */
    uint32_t keep;
    uint64_t durable_bytes;  /* of this file: where scratch places begin        */
    uint8_t layout_hash[16]; /* of the records' lengths, 8 bytes each           */
    uint32_t identity_bytes;
    uint32_t file_records; /* with bytes, in this file                          */
    char identity[STRATA_IDENTITY_BYTES];
    uint32_t shares[STRATA_STORE_MAX_DRIVES]; /* of the places, by drive; zeros beyond */
    /* The commit records' places: the first copies, then the second ones. On the first drive of
     * a durable store; zeros elsewhere. */
    uint64_t record_offsets[STRATA_STORE_RECORD_BLOCKS];
    uint32_t fixed_count; /* records that have slot 0 alone, the last ones              */
    uint8_t zero[STRATA_STORE_BLOCK_BYTES - 116 - STRATA_IDENTITY_BYTES -
                 4 * STRATA_STORE_MAX_DRIVES - 8 * STRATA_STORE_RECORD_BLOCKS];
    uint8_t hash[16];
};

/* One commit that a commit record lists. */
struct listed_commit {
    uint64_t step;
    uint64_t generation; /* of the record that listed it first; its tables have the same */
    uint64_t updates;
    double loss_scale;
    uint32_t table_copy; /* which of the 2 + keep tables of each drive                   */
    uint32_t zero;
    uint8_t tables_hash[16]; /* of the hashes of the drives' tables, in order of drives  */
};

struct commit_record {
    char magic[8];
    uint32_t version;
    uint32_t line_count;
    uint8_t store_id[16];
    uint64_t generation; /* the greatest valid one counts                                */
    uint32_t
        commit_every; /* steps from one commit to the next, for a resume; not 0           */
    uint32_t zero_before;
    struct listed_commit lines[STRATA_STORE_LINES]; /* the commit, then the retained ones */
    uint8_t zero[STRATA_STORE_BLOCK_BYTES - 64 - 56 * STRATA_STORE_LINES];
    uint8_t hash[16];
};

/* What creation writes to the place of a commit record. */
struct empty_record {
    char magic[8];
    uint32_t version;
    uint32_t block; /* which of the record blocks this is */
    uint8_t store_id[16];
    uint8_t zero[STRATA_STORE_BLOCK_BYTES - 48];
    uint8_t hash[16];
};

/* Written after a commit record has been flushed, so it says that the record was durable. */
struct commit_receipt {
    char magic[8];
    uint32_t version;
    uint32_t zero_before;
    uint8_t store_id[16];
    uint64_t generation; /* of the record                             */
    uint64_t step;       /* of the commit that the record lists first */
    uint8_t zero[STRATA_STORE_BLOCK_BYTES - 64];
    uint8_t hash[16];
};

/* A tile table: this, then an entry per record of the drive, zeros, and the hash at the end. */
struct table_head {
    char magic[8];
    uint8_t store_id[16];
    uint32_t drive_index;
    uint32_t entry_count;
    uint64_t generation;
    uint64_t step;
    uint8_t zero[16];
};

struct table_entry {
    uint32_t record;
    uint32_t slot;
    uint64_t bytes;   /* of the record, so that it is found without the model */
    uint64_t updates; /* it has seen; with the record's number the seed of its hash */
    uint8_t hash[16]; /* of the record's bytes                                      */
};

/* Slots of one record: all, or one of those that are written once. */
static inline uint32_t strata_store_slots_of(const struct store_header *header, uint32_t record)
{
    return record < header->record_count - header->fixed_count ? header->slots : 1;
}

/* A table's length in the file. */
uint64_t strata_store_table_length(uint32_t entry_count);

/* Put the hash of all bytes before them into the last 16; and: is it there? */
void strata_store_seal(void *block, uint64_t bytes);
bool strata_store_sealed(const void *block, uint64_t bytes);

/* A hash as it is stored, and back. */
void strata_store_put_hash(uint8_t out[16], struct hash128 hash);
struct hash128 strata_store_get_hash(const uint8_t bytes[16]);

/* The seed of the hash of a record's bytes. */
uint64_t strata_store_record_seed(uint32_t record, uint64_t updates);

/* Fill in magic, version and lengths, and seal. */
void strata_store_header_finish(struct store_header *header);
void strata_store_record_finish(struct commit_record *record);
void strata_store_empty_finish(struct empty_record *empty);
void strata_store_receipt_finish(struct commit_receipt *receipt);
void strata_store_table_finish(struct table_head *table, uint64_t bytes);

/* An identity is lines of text, without control characters. */
bool strata_store_is_text(const char *text, size_t bytes);

/*
 * STRATA_E_UNSUPPORTED: not a store's file, or of another version. STRATA_E_CORRUPT: ours, but
 * the hash is wrong, or a number in it is out of range.
 */
strata_status strata_store_header_check(const struct store_header *header, const char *path,
                                        strata_error *error);

/* Is this what creation wrote to this block of this very store? */
bool strata_store_empty_valid(const struct empty_record *empty,
                              const struct store_header *header, uint32_t block);

/* Is it a receipt of this very store? */
bool strata_store_receipt_valid(const struct commit_receipt *receipt,
                                const struct store_header *header);

/* Is it a record of this very store, complete, with every number in range? */
bool strata_store_record_valid(const struct commit_record *record,
                               const struct store_header *header);

/* Is it the table that a listed commit names, complete, with every slot in range? */
bool strata_store_table_valid(const struct table_head *table, uint64_t bytes,
                              const struct store_header *header,
                              const struct listed_commit *line);

#endif
