/* The hash: published values of XXH3-128, seeds, and that pieces give the whole's hash. */

#include "base/hash.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

/* xxhash's own answers for no bytes: what `xxh128sum /dev/null` prints. */
Test(hash, of_nothing_is_the_known_value)
{
    struct hash128 hash = strata_hash("", 0, 0);
    cr_assert_eq(hash.high, UINT64_C(0x99aa06d3014798d8));
    cr_assert_eq(hash.low, UINT64_C(0x6001c324468d497f));
}

/* What the plain calls of libxxhash 0.8.1 make of byte i = bits 13 to 20 of i x 2654435761. The
 * lengths are one or two from each of the paths that it takes by length. */
static const struct known {
    size_t bytes;
    uint64_t seed;
    uint64_t high;
    uint64_t low;
} known[] = {
    {1, UINT64_C(0x0), UINT64_C(0xa6cd5e9392000f6a), UINT64_C(0xc44bdff4074eecdb)},
    {1, UINT64_C(0x1), UINT64_C(0x3b3052d680068ad3), UINT64_C(0x5eaac1f7b17ef730)},
    {1, UINT64_C(0x9e3779b97f4a7c15), UINT64_C(0xe366b8c99a31df50),
     UINT64_C(0x062b185e4e01441a)},
    {16, UINT64_C(0x0), UINT64_C(0x29be75b0bbbb5284), UINT64_C(0xaafffcec5df2cb27)},
    {16, UINT64_C(0x1), UINT64_C(0x6fea86fd33f37708), UINT64_C(0x0d5f8e12fffdad4f)},
    {16, UINT64_C(0x9e3779b97f4a7c15), UINT64_C(0x58c47d96b734dfa2),
     UINT64_C(0x4184fcb27ec83364)},
    {100, UINT64_C(0x0), UINT64_C(0x09386db44501f7e4), UINT64_C(0xacedade9575c6f25)},
    {100, UINT64_C(0x1), UINT64_C(0xf84dade1f16d9233), UINT64_C(0x76b3e5ad71762a82)},
    {100, UINT64_C(0x9e3779b97f4a7c15), UINT64_C(0xf6443d38b3fbfa68),
     UINT64_C(0x83636b9645765467)},
    {200, UINT64_C(0x0), UINT64_C(0xfc856e6538fc9e49), UINT64_C(0x293b2bb62ee3d385)},
    {200, UINT64_C(0x1), UINT64_C(0x79a3a2b51407bf2b), UINT64_C(0xef32010340eae024)},
    {200, UINT64_C(0x9e3779b97f4a7c15), UINT64_C(0xaef5fc8ee09d7ff5),
     UINT64_C(0x5a3edf0619b0bbfa)},
    {241, UINT64_C(0x0), UINT64_C(0x50b62ee1ee6455a7), UINT64_C(0xbc424a2c480dd281)},
    {241, UINT64_C(0x1), UINT64_C(0x711749eb1bd7c954), UINT64_C(0xf4014562799325a9)},
    {241, UINT64_C(0x9e3779b97f4a7c15), UINT64_C(0x0f899b32ec0df0d9),
     UINT64_C(0xdbcb360abf2ca85d)},
    {1024, UINT64_C(0x0), UINT64_C(0x53bd178b75ab292e), UINT64_C(0x1fd15e7d36f5e1bc)},
    {1024, UINT64_C(0x1), UINT64_C(0x34899998f7b7e412), UINT64_C(0x8bd0f37fca810004)},
    {1024, UINT64_C(0x9e3779b97f4a7c15), UINT64_C(0xcf4085274abbf647),
     UINT64_C(0x249cd8f9ad0ea839)},
    {5000, UINT64_C(0x0), UINT64_C(0x971956c2a9ecb28a), UINT64_C(0x853377ef13cec7bd)},
    {5000, UINT64_C(0x1), UINT64_C(0x51ef0754917c2029), UINT64_C(0x7b7160980bca6224)},
    {5000, UINT64_C(0x9e3779b97f4a7c15), UINT64_C(0x4b0d2828d6a1258b),
     UINT64_C(0x122e66ec07798497)},
    {1048576, UINT64_C(0x0), UINT64_C(0x490d2e4880066606), UINT64_C(0xe2786b358eab4a67)},
    {1048576, UINT64_C(0x1), UINT64_C(0x488f4e68203dd123), UINT64_C(0x541cda5551130334)},
    {1048576, UINT64_C(0x9e3779b97f4a7c15), UINT64_C(0xf35ca0d2a075a73d),
     UINT64_C(0xf7853e554026d983)},
};

#define KNOWN_BYTES (1u << 20)

static uint8_t *known_data(void)
{
    uint8_t *data = malloc(KNOWN_BYTES);
    cr_assert(data != NULL);
    for (size_t i = 0; i < KNOWN_BYTES; i++)
        data[i] = (uint8_t)(i * UINT64_C(2654435761) >> 13);
    return data;
}

Test(hash, values_are_those_of_the_plain_calls_whatever_the_cpu_has)
{
    uint8_t *data = known_data();
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct hash128 hash = strata_hash(data, known[i].bytes, known[i].seed);
        cr_expect(hash.high == known[i].high && hash.low == known[i].low, "row %zu", i);
    }
    free(data);
}

Test(hash, bytes_added_in_parts_give_the_hash_of_the_whole)
{
    uint8_t *data = known_data();
    struct hash_state *state;
    cr_assert_eq(strata_hash_create(&state, NULL), STRATA_OK);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t piece = known[i].bytes / 3 + 1;
        if (known[i].seed != 0)
            continue;
        strata_hash_reset(state);
        for (size_t at = 0; at < known[i].bytes; at += piece)
            strata_hash_add(state, data + at,
                            known[i].bytes - at < piece ? known[i].bytes - at : piece);
        uint8_t digest[16];
        uint64_t high = 0, low = 0;
        strata_hash_digest(state, digest);
        for (int byte = 0; byte < 8; byte++) {
            high = high << 8 | digest[byte];
            low = low << 8 | digest[8 + byte];
        }
        cr_expect(high == known[i].high && low == known[i].low, "row %zu", i);
    }
    strata_hash_destroy(state);
    free(data);
}

/* The definition, and that pieces may be hashed in any order and grouping. */
Test(hash, the_fold_is_the_hash_of_the_pieces_digests_in_whatever_order_they_came)
{
    enum { PIECES = 7 };
    uint8_t *data = known_data();
    size_t bytes = (PIECES - 1) * STRATA_HASH_PIECE_BYTES + 4096;
    struct hash128 whole[PIECES], parts[PIECES], expected[PIECES];
    cr_assert_eq(strata_hash_piece_count(bytes), PIECES);
    cr_expect_eq(strata_hash_piece_count(0), 0);
    cr_expect_eq(strata_hash_piece_count(STRATA_HASH_PIECE_BYTES), 1);
    for (size_t i = 0; i < PIECES; i++)
        expected[i] = strata_hash(data + i * STRATA_HASH_PIECE_BYTES,
                                  i + 1 < PIECES ? STRATA_HASH_PIECE_BYTES : 4096, 0);
    strata_hash_pieces(data, bytes, whole);
    for (size_t i = PIECES + 1; i > 1; i -= 2) { // The last, then pairs from behind.
        size_t first = i - 2;
        size_t at = first * STRATA_HASH_PIECE_BYTES;
        size_t left = bytes - at;
        size_t most = 2 * STRATA_HASH_PIECE_BYTES;
        strata_hash_pieces(data + at, left < most ? left : most, parts + first);
    }
    cr_expect_arr_eq(whole, expected, sizeof expected);
    cr_expect_arr_eq(parts, expected, sizeof expected);
    struct hash128 fold = strata_hash_fold(whole, PIECES, 5);
    struct hash128 list = strata_hash(expected, sizeof expected, 5);
    cr_expect(fold.low == list.low && fold.high == list.high);
    free(data);
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

Test(hash, parts_give_the_hash_of_the_whole_in_big_endian)
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
