/*
 * Groups of heads: as large as the limit on scores allows and no larger, whole key heads where
 * those fit, and workspace for all of it.
 */

#include "train/attention_calls.h"

#include <criterion/criterion.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

static struct attention_shape shape_of(uint32_t sequences, uint32_t seq, uint32_t heads,
                                       uint32_t kv_heads)
{
    return (struct attention_shape){.sequences = sequences,
                                    .seq = seq,
                                    .heads = heads,
                                    .kv_heads = kv_heads,
                                    .head_dim = 128,
                                    .dtype = STRATA_BF16};
}

static struct attention_calls calls_of(const struct attention_shape *shape)
{
    struct attention_calls calls;
    strata_error error = {0};
    cr_assert_eq(strata_attention_calls(&calls, shape, &error), STRATA_OK, "%s", error.message);
    return calls;
}

static void expect(const struct attention_shape *shape, uint32_t sequences, uint32_t heads,
                   uint32_t kv_heads, uint32_t parts)
{
    struct attention_calls calls = calls_of(shape);
    cr_expect(calls.sequences == sequences && calls.heads == heads &&
                  calls.kv_heads == kv_heads && calls.parts == parts,
              "%u x %u tokens, heads %u/%u: a call has %u sequences, heads %u/%u, %u parts",
              shape->sequences, shape->seq, shape->heads, shape->kv_heads, calls.sequences,
              calls.heads, calls.kv_heads, calls.parts);
}

static uint64_t scores_of(const struct attention_shape *shape, uint64_t heads)
{
    return 2 * heads * ((shape->seq + 63) / 64 * 64) * ((shape->seq + 127) / 128 * 128);
}

Test(attention_calls, a_group_is_the_largest_that_fits)
{
    struct attention_shape shape = shape_of(1, 4096, 32, 32);
    expect(&shape, 1, 32, 32, 1); /* exactly the limit */
    shape = shape_of(1, 4096, 33, 33);
    expect(&shape, 1, 11, 11, 1); /* one head more than fits: the next divisor */
    shape = shape_of(1, 4097, 32, 32);
    expect(&shape, 1, 16, 16, 1); /* one token more */
    shape = shape_of(1, 8192, 32, 32);
    expect(&shape, 1, 8, 8, 1);
    shape = shape_of(1, 4096, 31, 31);
    expect(&shape, 1, 31, 31, 1);
    shape = shape_of(1, 8192, 31, 31);
    expect(&shape, 1, 1, 1, 1); /* a prime number of heads has no group between */
}

Test(attention_calls, short_sequences_share_a_call)
{
    struct attention_shape shape = shape_of(16, 1024, 32, 32);
    expect(&shape, 16, 32, 32, 1); /* exactly the limit of scores */
    shape = shape_of(17, 1024, 32, 32);
    expect(&shape, 1, 32, 32, 1); /* a prime number of sequences */
    shape = shape_of(32, 1024, 32, 32);
    expect(&shape, 16, 32, 32, 1);
    shape = shape_of(24, 1024, 32, 32);
    expect(&shape, 12, 32, 32, 1);
    /* dK and dV of each head are a quarter more: 13 sequences would fit. */
    shape = shape_of(13, 1024, 32, 8);
    expect(&shape, 13, 32, 8, 1);
    shape = shape_of(14, 1024, 32, 8);
    expect(&shape, 7, 32, 8, 1);
}

Test(attention_calls, a_group_has_whole_key_heads_where_they_fit)
{
    struct attention_shape shape = shape_of(4, 4096, 64, 8);
    expect(&shape, 1, 32, 4, 1);
    shape = shape_of(1, 8192, 64, 8);
    expect(&shape, 1, 8, 1, 1); /* eight heads share one: exactly the limit */
    shape = shape_of(1, 8193, 64, 8);
    expect(&shape, 1, 4, 1, 2); /* one token more: half of them */
    shape = shape_of(1, 32768, 64, 8);
    expect(&shape, 1, 1, 1, 8);
    shape = shape_of(1, 32768, 32, 32);
    expect(&shape, 1, 1, 1, 1);
}

Test(attention_calls, one_head_may_take_two_gib_and_no_more)
{
    struct attention_calls calls;
    struct attention_shape shape = shape_of(1, 32768, 32, 8);
    strata_error error = {0};
    cr_expect_eq(strata_attention_calls(&calls, &shape, &error), STRATA_OK);
    cr_expect_eq(scores_of(&shape, 1), 2 * GIB);
    shape.seq = 32769;
    cr_expect_eq(strata_attention_calls(&calls, &shape, &error), STRATA_E_NOMEM);
    cr_expect_not_null(strstr(error.message, "a sequence of 32769 tokens"), "%s",
                       error.message);
    cr_expect_not_null(strstr(error.message, "shorter sequences"), "%s", error.message);
}

/* Every shape: the scores within the limit, the next larger divisor beyond it, and workspace
 * for the call, its sums, and dK and dV of what shares a key head. */
static void expect_bounds(const struct attention_shape *shape)
{
    struct attention_calls calls = calls_of(shape);
    uint64_t each = scores_of(shape, 1);
    uint64_t heads = (uint64_t)calls.sequences * calls.heads;
    bool shared = shape->heads > shape->kv_heads;
    uint64_t all = each + (4 + (shared ? 4ull * shape->head_dim : 0)) * shape->seq;
    cr_assert(heads == 1 || (heads * each <= GIB && heads * all <= 1120 * MIB));
    cr_assert_eq(shape->heads % calls.heads, 0);
    cr_assert_eq(shape->sequences % calls.sequences, 0);
    uint32_t sharing = shape->heads / shape->kv_heads;
    cr_assert(calls.parts == 1 ? calls.heads == calls.kv_heads * sharing
                               : calls.kv_heads == 1 && calls.heads * calls.parts == sharing);
    cr_assert(calls.sequences == 1 || calls.heads == shape->heads);
    uint64_t step = calls.parts == 1 ? sharing : 1;
    uint64_t most = calls.parts == 1 ? shape->heads : sharing;
    for (uint64_t more = calls.heads + step; more <= most; more += step)
        cr_assert(most % more != 0 || more * each > GIB || more * all > 1120 * MIB,
                  "%llu heads would fit", (unsigned long long)more);
    uint64_t row = 4 + (calls.heads > calls.kv_heads ? 4ull * shape->head_dim : 0);
    cr_assert_geq(calls.call_bytes, heads * (each + row * shape->seq));
    uint64_t parts = calls.parts > 1 ? 4ull * calls.parts * shape->seq * shape->head_dim : 0;
    cr_assert_eq(calls.parts_bytes, parts);
    cr_assert_geq(calls.workspace_bytes, calls.call_bytes + calls.parts_bytes);
    cr_assert_leq(calls.workspace_bytes,
                  heads * each + heads * row * shape->seq + parts + 2 * MIB);
}

Test(attention_calls, bounds_hold_for_every_shape)
{
    static const uint32_t heads[][2] = {{1, 1},  {14, 2},  {16, 2},  {28, 4},  {32, 8},
                                        {40, 8}, {52, 52}, {64, 64}, {128, 8}, {71, 1}};
    static const uint32_t seqs[] = {2,    64,    65,    1000,  1024,  2048,  4095,
                                    4096, 11585, 11586, 16384, 23170, 23171, 32768};
    for (size_t h = 0; h < sizeof heads / sizeof heads[0]; h++)
        for (size_t s = 0; s < sizeof seqs / sizeof seqs[0]; s++)
            for (uint32_t sequences = 1; sequences <= 33; sequences += 4) {
                struct attention_shape shape =
                    shape_of(sequences, seqs[s], heads[h][0], heads[h][1]);
                expect_bounds(&shape);
            }
}

Test(attention_calls, strides_are_those_of_packed_rows_unless_given)
{
    struct attention_shape shape = shape_of(1, 128, 32, 8);
    struct attention_shape full = strata_attention_resolved(&shape);
    cr_expect_eq(full.qkv_stride, (32 + 2 * 8) * 128);
    cr_expect_eq(full.o_stride, 32 * 128);
    shape.qkv_stride = 8192;
    shape.o_stride = 4104;
    full = strata_attention_resolved(&shape);
    cr_expect_eq(full.qkv_stride, 8192);
    cr_expect_eq(full.o_stride, 4104);
}

static void expect_refused(const struct attention_shape *shape, const char *names)
{
    struct attention_calls calls;
    strata_error error = {0};
    cr_expect_eq(strata_attention_calls(&calls, shape, &error), STRATA_E_UNSUPPORTED);
    cr_expect_not_null(strstr(error.message, names), "%s", error.message);
}

Test(attention_calls, other_shapes_are_refused_by_name)
{
    struct attention_shape good = shape_of(1, 2, 4, 2);
    good.head_dim = 8;
    calls_of(&good);
    struct attention_shape bad = good;
    bad.seq = 1;
    expect_refused(&bad, "sequences of 1 tokens");
    bad = good;
    bad.head_dim = 12;
    expect_refused(&bad, "head_dim 12");
    bad.head_dim = 136;
    expect_refused(&bad, "head_dim 136");
    bad = good;
    bad.kv_heads = 3;
    expect_refused(&bad, "4 heads on 3 key heads");
    bad.kv_heads = 0;
    expect_refused(&bad, "4 heads on 0 key heads");
    bad = good;
    bad.dtype = STRATA_FP32;
    expect_refused(&bad, "bf16 or fp16");
    bad = good;
    bad.qkv_stride = 68;
    expect_refused(&bad, "rows 68 and 32 elements apart");
}
