/*
 * Store headers: any block is accepted or refused with one line, and of an accepted one every
 * number is in range.
 *
 * Input: the header's bytes, to which zeros are added.
 *
 * Thread: one.
 */

#include "io/store_format.h"
#include "tests/fuzz/fuzz.h"

#include "base/error.h"

#include <string.h>

static void judge(const struct store_header *header)
{
    strata_error error = {.status = STRATA_OK};
    strata_status status = strata_store_header_check(header, "a/file", &error);
    if (status != STRATA_OK) {
        STRATA_CHECK(status == STRATA_E_UNSUPPORTED || status == STRATA_E_CORRUPT);
        STRATA_CHECK(error.status == status && error.message[0] != '\0');
        STRATA_CHECK(strchr(error.message, '\n') == NULL);
        return;
    }
    STRATA_CHECK(header->drive_count > 0 && header->drive_index < header->drive_count);
    STRATA_CHECK(header->drive_count <= STRATA_STORE_MAX_DRIVES);
    STRATA_CHECK(header->slots > 0 && header->slots <= STRATA_STORE_MAX_SLOTS);
    STRATA_CHECK(header->keep <= STRATA_STORE_MAX_KEEP);
    STRATA_CHECK(!header->durable || header->slots == 2 + header->keep ||
                 header->slots == 3 + header->keep);
    STRATA_CHECK(header->identity_bytes <= sizeof header->identity);
    STRATA_CHECK(header->durable_bytes <= INT64_MAX);
    STRATA_CHECK(header->file_records <= header->record_count &&
                 header->record_count <= STRATA_STORE_MAX_RECORDS);
    for (uint32_t i = 0; i < STRATA_STORE_RECORD_BLOCKS; i++)
        STRATA_CHECK(header->record_offsets[i] == 0 ||
                     header->record_offsets[i] <
                         header->durable_bytes - STRATA_STORE_BLOCK_BYTES + 1);
    for (uint32_t i = 0; i < header->drive_count; i++)
        STRATA_CHECK(header->shares[i] > 0 && header->shares[i] <= STRATA_STORE_FULL_SHARE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct store_header header;
    memset(&header, 0, sizeof header);
    memcpy(&header, data, bytes < sizeof header ? bytes : sizeof header);
    judge(&header);
    strata_store_seal(&header, sizeof header);
    judge(&header);
    return 0;
}

static void seed(const char *name, const struct store_header *like, const char *identity,
                 size_t bytes)
{
    struct store_header header = *like;
    strata_error error;
    header.identity_bytes = (uint32_t)strlen(identity);
    memcpy(header.identity, identity, header.identity_bytes);
    strata_store_header_finish(&header);
    STRATA_CHECK(strata_store_header_check(&header, "a/file", &error) == STRATA_OK);
    strata_fuzz_seed(name, &header, bytes);
}

void strata_fuzz_seeds(void)
{
    struct store_header header;
    size_t numbers = offsetof(struct store_header, identity);
    memset(&header, 0, sizeof header);
    header.drive_count = 2;
    header.drive_index = 1;
    header.tile_elems = 262144;
    header.slots = 1;
    header.shares[0] = STRATA_STORE_FULL_SHARE;
    header.shares[1] = 400;
    seed("scratch", &header, "", numbers);
    header.durable = 1;
    header.record_count = 12;
    header.slots = 4;
    header.keep = 2;
    header.durable_bytes = 1u << 20;
    seed("durable", &header, "seed=1\nbatch=8\n", numbers + 16);
    seed("durable_whole", &header, "seed=1\nbatch=8\n", sizeof header);
}
