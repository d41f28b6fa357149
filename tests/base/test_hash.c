/* The hash: published values of XXH3-128, seeds, and that pieces give the whole's hash. */

#include "base/hash.h"

#include <criterion/criterion.h>
#include <string.h>

/* xxhash's own answers for no bytes: what `xxh128sum /dev/null` prints. */
Test(hash, of_nothing_is_the_known_value)
{
    struct hash128 hash = strata_hash("", 0, 0);
    cr_assert_eq(hash.high, UINT64_C(0x99aa06d3014798d8));
    cr_assert_eq(hash.low, UINT64_C(0x6001c324468d497f));
}

Test(hash, seed_and_every_byte_count)
{
    uint8_t data[4096] = {0};
    struct hash128 plain = strata_hash(data, sizeof data, 0);
    struct hash128 seeded = strata_hash(data, sizeof data, 1);
    cr_assert(plain.low != seeded.low && plain.high != seeded.high);
    for (size_t i = 0; i < sizeof data; i += 97) {
        data[i] ^= 0x10;
        struct hash128 other = strata_hash(data, sizeof data, 0);
        cr_assert(other.low != plain.low || other.high != plain.high, "byte %zu", i);
        data[i] ^= 0x10;
    }
}

Test(hash, pieces_give_the_hash_of_the_whole_in_big_endian)
{
    uint8_t data[10000];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * i >> 3);
    struct hash128 whole = strata_hash(data, sizeof data, 0);
    uint8_t expected[16];
    for (int i = 0; i < 8; i++) {
        expected[i] = (uint8_t)(whole.high >> (56 - 8 * i));
        expected[8 + i] = (uint8_t)(whole.low >> (56 - 8 * i));
    }
    struct hash_state *state;
    strata_error error = {0};
    cr_assert_eq(strata_hash_create(&state, &error), STRATA_OK, "%s", error.message);
    for (size_t piece = 1; piece < 3000; piece = piece * 2 + 1) {
        strata_hash_reset(state);
        for (size_t at = 0; at < sizeof data; at += piece)
            strata_hash_add(state, data + at,
                            sizeof data - at < piece ? sizeof data - at : piece);
        uint8_t digest[16];
        strata_hash_digest(state, digest);
        cr_assert_eq(memcmp(digest, expected, 16), 0, "pieces of %zu", piece);
    }
    strata_hash_destroy(state);
}

Test(hash, a_new_state_and_no_bytes_give_the_hash_of_nothing)
{
    struct hash_state *state;
    cr_assert_eq(strata_hash_create(&state, NULL), STRATA_OK);
    strata_hash_add(state, NULL, 0);
    uint8_t digest[16];
    strata_hash_digest(state, digest);
    cr_assert_eq(digest[0], 0x99);
    cr_assert_eq(digest[15], 0x7f);
    strata_hash_destroy(state);
    strata_hash_destroy(NULL);
}
