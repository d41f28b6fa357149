/*
 * Look-up and cross entropy over slices of the vocabulary, against plain versions in double
 * precision. See ops_rig.h.
 */

#include "tests/train/ops_rig.h"

/* Look-up. */

static void check_embed(strata_dtype dtype)
{
    struct rig rig = rig_open(2);
    enum { VOCAB = 7, WIDTH = 67, ROWS = 70, CUT = 3 };
    float *weight = random_floats(VOCAB * WIDTH, 51), *dy = random_floats(ROWS * WIDTH, 52);
    uint16_t *weight16 = as_bf16(weight, VOCAB * WIDTH);
    const char *stored = dtype == STRATA_BF16 ? (const char *)weight16 : (const char *)weight;
    float *out = zero_floats(ROWS * WIDTH), *dweight = zero_floats(VOCAB * WIDTH);
    double *want = doubles(VOCAB * WIDTH);
    uint32_t *tokens = take(ROWS * sizeof *tokens);
    for (uint32_t i = 0; i < ROWS; i++)
        tokens[i] = i * i % VOCAB;
    uint32_t *order = take(ROWS * sizeof *order), *starts = take((ROWS + 1) * sizeof *starts);
    uint32_t *room = take(VOCAB * sizeof *room);
    uint64_t distinct = strata_op_order_tokens(tokens, ROWS, VOCAB, order, starts, room);
    rig.ops.weight_dtype = dtype;
    for (uint64_t first = 0; first < VOCAB; first += CUT) {
        uint64_t rows = first + CUT < VOCAB ? CUT : VOCAB - first;
        const char *slice = stored + first * WIDTH * strata_dtype_bytes(dtype);
        strata_op_embed(&rig.ops,
                        &(struct op_embed){tokens, slice, out, ROWS, WIDTH, first, rows});
        strata_op_embed_grad(&rig.ops, &(struct op_embed_grad){tokens, order, starts, dy,
                                                               dweight + first * WIDTH, ROWS,
                                                               distinct, WIDTH, first, rows});
    }
    strata_stream_sync(rig.stream);
    for (uint32_t row = 0; row < ROWS; row++) {
        cr_assert_arr_eq(out + row * WIDTH, weight + tokens[row] * WIDTH, WIDTH * sizeof *out);
        for (uint32_t i = 0; i < WIDTH; i++)
            want[tokens[row] * WIDTH + i] += dy[row * WIDTH + i];
    }
    expect_close("embedding dweight", dweight, want, VOCAB * WIDTH, GRADIENT_TOLERANCE);
    give(weight), give(dy), give(weight16), give(out), give(dweight), give(tokens);
    give(order), give(starts), give(room);
    free(want);
    rig_close(&rig);
}

/* Tokens 5 and 9 are beyond a vocabulary of 5. */
Test(ops, tokens_are_ordered_with_each_ones_rows_in_their_order)
{
    static const uint32_t tokens[] = {4, 0, 4, 9, 0, 2, 5, 4};
    static const uint32_t want_order[] = {1, 4, 5, 0, 2, 7}, want_starts[] = {0, 2, 3, 6};
    uint32_t order[8], starts[9], room[5];
    cr_assert_eq(strata_op_order_tokens(tokens, 8, 5, order, starts, room), 3);
    cr_assert_arr_eq(order, want_order, sizeof want_order);
    cr_assert_arr_eq(starts, want_starts, sizeof want_starts);
    cr_assert_eq(strata_op_order_tokens(tokens + 3, 1, 5, order, starts, room), 0);
    cr_assert_eq(starts[0], 0);
}

Test(ops, embedding_slices_together_answer_every_token)
{
    check_embed(STRATA_FP32);
    if (!ONE_TYPE)
        check_embed(STRATA_BF16);
}

/* Cross entropy. */

struct entropy_shape {
    uint64_t rows;
    uint64_t vocab;
    const uint32_t *targets;
};

/* The mean loss. */
static void plain_entropy(const void *shape, double *const *in, double *out)
{
    const struct entropy_shape *s = shape;
    *out = 0.0;
    for (uint64_t r = 0; r < s->rows; r++) {
        const double *logits = in[0] + r * s->vocab;
        double max = logits[0], sum = 0.0;
        for (uint64_t i = 1; i < s->vocab; i++)
            max = fmax(max, logits[i]);
        for (uint64_t i = 0; i < s->vocab; i++)
            sum += exp(logits[i] - max);
        *out += (log(sum) + max - logits[s->targets[r]]) / (double)s->rows;
    }
}

/* The slice's columns of a row-major array of the whole vocabulary. */
static void copy_columns(const struct op_entropy *to, const float *src,
                         const struct entropy_shape *s)
{
    for (uint64_t r = 0; r < s->rows; r++)
        memcpy((float *)to->logits + r * to->stride, src + r * s->vocab + to->first,
               to->slice_rows * sizeof *src);
}

/* Loss, and the gradient into grad, going over the vocabulary `cut` tokens at a time. */
static double sliced_entropy(struct rig *rig, const struct entropy_shape *s,
                             const float *logits, uint64_t cut, float *grad)
{
    struct op_row_stat *stats = take(s->rows * sizeof *stats);
    uint64_t stride = cut + 3; /* rows have gaps */
    float *slice = zero_floats(s->rows * stride);
    double *mean = take(sizeof *mean);
    struct op_entropy args = {.logits = slice,
                              .targets = s->targets,
                              .stats = stats,
                              .rows = s->rows,
                              .stride = stride,
                              .scale = 1.0f / (float)s->rows};
    strata_op_entropy_begin(&rig->ops, stats, s->rows);
    for (args.first = 0; args.first < s->vocab; args.first += cut) {
        args.slice_rows = args.first + cut < s->vocab ? cut : s->vocab - args.first;
        copy_columns(&args, logits, s);
        strata_op_entropy_scan(&rig->ops, &args);
        strata_stream_sync(rig->stream);
    }
    strata_op_entropy_loss(&rig->ops, stats, s->rows, mean);
    for (args.first = 0; args.first < s->vocab; args.first += cut) {
        args.slice_rows = args.first + cut < s->vocab ? cut : s->vocab - args.first;
        copy_columns(&args, logits, s);
        strata_op_entropy_grad(&rig->ops, &args);
        strata_stream_sync(rig->stream);
        for (uint64_t r = 0; r < s->rows; r++)
            memcpy(grad + r * s->vocab + args.first, slice + r * stride,
                   args.slice_rows * sizeof *grad);
    }
    double loss = *mean;
    give(stats), give(slice), give(mean);
    return loss;
}

static void check_entropy(uint64_t cut, float scale)
{
    enum { ROWS = 5, VOCAB = 23 };
    struct rig rig = rig_open(2);
    static const uint32_t tokens[ROWS] = {0, 22, 7, 8, 7};
    uint32_t *targets = take(sizeof tokens);
    memcpy(targets, tokens, sizeof tokens);
    struct entropy_shape s = {ROWS, VOCAB, targets};
    float *logits = random_floats(ROWS * VOCAB, 61), *grad = zero_floats(ROWS * VOCAB);
    for (int i = 0; i < ROWS * VOCAB; i++)
        logits[i] *= scale;
    struct plain plain = {plain_entropy, &s, {logits}, {ROWS * VOCAB}, 1};
    float one = 1.0f;
    float loss = (float)sliced_entropy(&rig, &s, logits, cut, grad);
    expect_forward("entropy", &plain, &loss);
    expect_gradient("entropy dlogits", &plain, 0, &one, grad);
    give(logits), give(grad), give(targets);
    rig_close(&rig);
}

Test(ops, entropy_and_its_gradient_agree_with_double_in_any_slices)
{
    check_entropy(23, 3.0f);
    check_entropy(7, 3.0f);
    check_entropy(1, 3.0f);
}

Test(ops, entropy_of_huge_logits_does_not_overflow)
{
    check_entropy(7, 1000.0f);
}
