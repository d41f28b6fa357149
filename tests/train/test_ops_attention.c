/*
 * Rotary embedding and attention against plain versions in double precision (ops_rig.h), and
 * all operators on several workers.
 */

#include "tests/train/ops_rig.h"

/* Rotary embedding. */

struct rotary_shape {
    uint64_t rows;
    uint32_t seq;
    uint32_t heads;
    uint32_t head_dim;
    uint32_t turned; /* the first of a head's elements; the others stay */
};

/* As the transformers library writes it: x cos + rotate_half(x) sin, halves, not neighbours. */
static void plain_rotary(const void *shape, double *const *in, double *out)
{
    const struct rotary_shape *s = shape;
    uint32_t half = s->turned / 2;
    for (uint64_t r = 0; r < s->rows; r++) {
        for (uint32_t h = 0; h < s->heads; h++) {
            const double *x = in[0] + (r * s->heads + h) * s->head_dim;
            double *y = out + (r * s->heads + h) * s->head_dim;
            for (uint32_t i = 0; i < s->head_dim; i++)
                y[i] = x[i];
            for (uint32_t i = 0; i < s->turned; i++) {
                double angle =
                    (double)(r % s->seq) * pow(10000.0, -2.0 * (i % half) / s->turned);
                double turned = i < half ? -x[i + half] : x[i - half];
                y[i] = x[i] * cos(angle) + turned * sin(angle);
            }
        }
    }
}

static float *rotary_table(const struct rotary_shape *s)
{
    uint32_t half = s->turned / 2;
    float *table = zero_floats((uint64_t)s->seq * s->turned);
    for (uint32_t position = 0; position < s->seq; position++) {
        for (uint32_t i = 0; i < half; i++) {
            double angle = position * pow(10000.0, -2.0 * i / s->turned);
            table[position * s->turned + i] = (float)cos(angle);
            table[position * s->turned + half + i] = (float)sin(angle);
        }
    }
    return table;
}

static void check_rotary(struct rotary_shape s)
{
    struct rig rig = rig_open(2);
    uint64_t count = s.rows * s.heads * s.head_dim;
    float *table = rotary_table(&s);
    float *x = random_floats(count, 21), *d_out = random_floats(count, 22);
    float *out = copy_floats(x, count), *dx = copy_floats(d_out, count);
    struct plain plain = {plain_rotary, &s, {x}, {count}, count};
    struct op_rotary args = {.x = out,
                             .table = table,
                             .rows = s.rows,
                             .stride = (uint64_t)s.heads * s.head_dim,
                             .seq = s.seq,
                             .heads = s.heads,
                             .head_dim = s.head_dim,
                             .turned = s.turned};
    strata_op_rotary(&rig.ops, &args);
    args.x = dx;
    args.inverse = true;
    strata_op_rotary(&rig.ops, &args);
    strata_stream_sync(rig.stream);
    expect_forward("rotary", &plain, out);
    expect_gradient("rotary dx", &plain, 0, d_out, dx);
    give(table), give(x), give(d_out), give(out), give(dx);
    rig_close(&rig);
}

Test(ops, rotary_turns_halves_and_inverse_is_its_gradient)
{
    check_rotary((struct rotary_shape){22, 11, 3, 6, 6});
}

Test(ops, rotary_of_a_part_of_the_head_leaves_the_rest)
{
    check_rotary((struct rotary_shape){22, 11, 3, 6, 4});
    check_rotary((struct rotary_shape){22, 11, 3, 7, 2}); /* a head may be odd then */
}

Test(ops, rotary_leaves_what_follows_the_heads_of_a_row)
{
    enum { ROWS = 22, HEADS = 3, DIM = 6, STRIDE = 25 };
    struct rig rig = rig_open(2);
    struct rotary_shape s = {ROWS, 11, HEADS, DIM, DIM};
    float *table = rotary_table(&s), *x = random_floats(ROWS * STRIDE, 21);
    float *wide = copy_floats(x, ROWS * STRIDE), *packed = zero_floats(ROWS * HEADS * DIM);
    for (uint64_t r = 0; r < ROWS; r++)
        memcpy(packed + r * HEADS * DIM, x + r * STRIDE, HEADS * DIM * sizeof *x);
    struct op_rotary args = {wide, table, ROWS, STRIDE, 11, HEADS, DIM, DIM, false};
    strata_op_rotary(&rig.ops, &args);
    args.x = packed;
    args.stride = HEADS * DIM;
    strata_op_rotary(&rig.ops, &args);
    strata_stream_sync(rig.stream);
    for (uint64_t r = 0; r < ROWS; r++) {
        cr_assert_arr_eq(wide + r * STRIDE, packed + r * HEADS * DIM, HEADS * DIM * sizeof *x);
        cr_assert_arr_eq(wide + r * STRIDE + HEADS * DIM, x + r * STRIDE + HEADS * DIM,
                         (STRIDE - HEADS * DIM) * sizeof *x);
    }
    give(table), give(x), give(wide), give(packed);
    rig_close(&rig);
}

/* Attention. */

static uint64_t first_seen(const struct op_heads *s, uint64_t row)
{
    return s->window != 0 && row >= s->window ? row + 1 - s->window : 0;
}

static void plain_attention(const void *shape, double *const *in, double *out)
{
    const struct op_heads *s = shape;
    double *p = doubles(s->seq);
    for (uint64_t item = 0; item < (uint64_t)s->sequences * s->heads * s->seq; item++) {
        uint64_t row = item % s->seq, head = item / s->seq % s->heads,
                 seq = item / s->seq / s->heads;
        uint64_t kv_head = head / (s->heads / s->kv_heads);
        const double *q = in[0] + ((seq * s->seq + row) * s->heads + head) * s->head_dim;
        double *o = out + ((seq * s->seq + row) * s->heads + head) * s->head_dim;
        double sum = 0.0;
        for (uint64_t j = first_seen(s, row); j <= row; j++) {
            const double *k =
                in[1] + ((seq * s->seq + j) * s->kv_heads + kv_head) * s->head_dim;
            double score = 0.0;
            for (uint64_t i = 0; i < s->head_dim; i++)
                score += q[i] * k[i];
            p[j] = exp(score / sqrt((double)s->head_dim));
            sum += p[j];
        }
        memset(o, 0, s->head_dim * sizeof *o);
        for (uint64_t j = first_seen(s, row); j <= row; j++) {
            const double *v =
                in[2] + ((seq * s->seq + j) * s->kv_heads + kv_head) * s->head_dim;
            for (uint64_t i = 0; i < s->head_dim; i++)
                o[i] += p[j] / sum * v[i];
        }
    }
    free(p);
}

static uint64_t q_count(const struct op_heads *s)
{
    return (uint64_t)s->sequences * s->seq * s->heads * s->head_dim;
}

static uint64_t kv_count(const struct op_heads *s)
{
    return (uint64_t)s->sequences * s->seq * s->kv_heads * s->head_dim;
}

/* q, k and v side by side in rows, as a model's product leaves them; and what else attention
 * takes and gives. The gradients lie in the places of q, k and v where the table allows it. */
struct attention_case {
    struct op_heads shape;
    uint64_t q_width;
    uint64_t kv_width;
    float *qkv;
    float *d_qkv;
    float *o;
    float *lse;
    float *scratch;
};

static struct attention_case attention_open(struct op_heads s, const float *q, const float *k,
                                            const float *v)
{
    struct attention_case c = {.q_width = (uint64_t)s.heads * s.head_dim,
                               .kv_width = (uint64_t)s.kv_heads * s.head_dim};
    uint64_t rows = (uint64_t)s.sequences * s.seq;
    s.stride = c.q_width + 2 * c.kv_width;
    c.shape = s;
    c.qkv = zero_floats(rows * s.stride);
    for (uint64_t r = 0; r < rows; r++) {
        float *row = c.qkv + r * s.stride;
        memcpy(row, q + r * c.q_width, c.q_width * sizeof *q);
        memcpy(row + c.q_width, k + r * c.kv_width, c.kv_width * sizeof *k);
        memcpy(row + c.q_width + c.kv_width, v + r * c.kv_width, c.kv_width * sizeof *v);
    }
    c.d_qkv = OPS_TABLE.attention_apart ? zero_floats(rows * s.stride) : c.qkv;
    c.o = zero_floats(rows * c.q_width);
    c.lse = zero_floats(rows * s.heads);
    c.scratch = take(OPS_TABLE.attention_scratch(&s, STRATA_BF16) * sizeof *c.scratch);
    return c;
}

static void attention_close(struct attention_case *c)
{
    if (c->d_qkv != c->qkv)
        give(c->d_qkv);
    give(c->qkv), give(c->o), give(c->lse), give(c->scratch);
}

static void attention_queue(struct rig *rig, struct attention_case *c)
{
    strata_op_attention(&rig->ops, &(struct op_attention){
                                       .q = c->qkv,
                                       .k = c->qkv + c->q_width,
                                       .v = c->qkv + c->q_width + c->kv_width,
                                       .o = c->o,
                                       .lse = c->lse,
                                       .scratch = c->scratch,
                                       .shape = c->shape,
                                   });
}

static void attention_grad_queue(struct rig *rig, struct attention_case *c, const float *d_out)
{
    strata_op_attention_grad(&rig->ops, &(struct op_attention_grad){
                                            .q = c->qkv,
                                            .k = c->qkv + c->q_width,
                                            .v = c->qkv + c->q_width + c->kv_width,
                                            .o = c->o,
                                            .lse = c->lse,
                                            .d_out = d_out,
                                            .dq = c->d_qkv,
                                            .dk = c->d_qkv + c->q_width,
                                            .dv = c->d_qkv + c->q_width + c->kv_width,
                                            .scratch = c->scratch,
                                            .shape = c->shape,
                                        });
}

/* `width` columns of d_qkv from column `first` on, without gaps. */
static float *gradient_of(const struct attention_case *c, uint64_t first, uint64_t width)
{
    uint64_t rows = (uint64_t)c->shape.sequences * c->shape.seq;
    float *out = zero_floats(rows * width);
    for (uint64_t r = 0; r < rows; r++)
        memcpy(out + r * width, c->d_qkv + r * c->shape.stride + first, width * sizeof *out);
    return out;
}

static void check_attention(struct op_heads s)
{
    struct rig rig = rig_open(2);
    float *q = random_floats(q_count(&s), 31), *k = random_floats(kv_count(&s), 32);
    float *v = random_floats(kv_count(&s), 33), *d_out = random_floats(q_count(&s), 34);
    struct attention_case c = attention_open(s, q, k, v);
    struct plain plain = {
        plain_attention, &s, {q, k, v}, {q_count(&s), kv_count(&s), kv_count(&s)}, q_count(&s)};
    attention_queue(&rig, &c);
    attention_grad_queue(&rig, &c, d_out);
    strata_stream_sync(rig.stream);
    float *dq = gradient_of(&c, 0, c.q_width), *dk = gradient_of(&c, c.q_width, c.kv_width);
    float *dv = gradient_of(&c, c.q_width + c.kv_width, c.kv_width);
    expect_forward("attention", &plain, c.o);
    expect_gradient("attention dq", &plain, 0, d_out, dq);
    expect_gradient("attention dk", &plain, 1, d_out, dk);
    expect_gradient("attention dv", &plain, 2, d_out, dv);
    give(q), give(k), give(v), give(d_out), give(dq), give(dk), give(dv);
    attention_close(&c);
    rig_close(&rig);
}

Test(ops, attention_and_its_gradient_agree_with_double)
{
    check_attention((struct op_heads){1, 1, 1, 1, 2, 0, 0});
    check_attention(
        (struct op_heads){2, 5, 6, 2, 4, 0, 0}); /* three query heads share a key-value head */
    check_attention((struct op_heads){3, 7, 6, 6, 2, 0, 0}); /* more items than lanes */
}

Test(ops, attention_over_more_than_one_block_of_rows_agrees_with_double)
{
    check_attention((struct op_heads){2, 67, 2, 1, 2, 0, 0});
}

Test(ops, attention_in_a_window_agrees_with_double)
{
    check_attention((struct op_heads){2, 9, 4, 2, 2, 1, 0}); /* a row sees itself only */
    check_attention((struct op_heads){2, 9, 4, 2, 2, 3, 0});
    check_attention(
        (struct op_heads){1, 9, 2, 1, 2, 8, 0}); /* one key is out of one row's sight */
    check_attention((struct op_heads){1, 9, 2, 1, 2, 9, 0}); /* none is */
}

Test(ops, attention_in_a_window_over_several_blocks_of_rows_agrees_with_double)
{
    check_attention((struct op_heads){1, 131, 2, 1, 2, 5, 0});
    check_attention((struct op_heads){1, 131, 1, 1, 2, 64, 0});
    check_attention((struct op_heads){1, 131, 1, 1, 2, 66, 0});
}

Test(ops, attention_never_looks_at_later_tokens)
{
    struct rig rig = rig_open(1);
    struct op_heads s = {1, 9, 2, 1, 4, 0, 0};
    float *q = random_floats(q_count(&s), 31), *k = random_floats(kv_count(&s), 32);
    float *v = random_floats(kv_count(&s), 33);
    struct attention_case c = attention_open(s, q, k, v);
    attention_queue(&rig, &c);
    strata_stream_sync(rig.stream);
    float *before = copy_floats(c.o, q_count(&s));
    for (uint64_t token = 5; token < 9; token++)
        for (uint64_t i = c.q_width; i < c.shape.stride; i++)
            c.qkv[token * c.shape.stride + i] = 100.0f;
    attention_queue(&rig, &c);
    strata_stream_sync(rig.stream);
    cr_assert_arr_eq(c.o, before, 5 * 8 * sizeof *before);
    cr_assert_float_neq(c.o[5 * 8], before[5 * 8], 1e-3f);
    give(q), give(k), give(v), give(before);
    attention_close(&c);
    rig_close(&rig);
}

/* Thread counts. */

/* One after another, all operators on shapes of many items; everything they wrote, in one
 * array. */
static float *run_all(uint32_t threads, uint64_t *out_count)
{
    struct rig rig = rig_open(threads);
    struct op_heads s = {3, 70, 4, 2, 8, 33, 64};
    uint64_t rows = (uint64_t)s.sequences * s.seq, width = (uint64_t)s.heads * s.head_dim;
    uint64_t q = q_count(&s), out = 300, qkv_count = rows * s.stride;
    uint64_t total = 4 * q + 2 * qkv_count + rows * out + out * width + s.stride;
    float *all = random_floats(total, 71), *d = random_floats(q, 73);
    float *x = all, *dx = x + q, *normed = dx + q, *o = normed + q, *qkv = o + q;
    float *d_qkv = qkv + qkv_count, *y = d_qkv + qkv_count, *dw = y + rows * out;
    float *dnorm = dw + out * width;
    float *weight = random_floats(out * width, 72);
    struct attention_case c = {s, width, width / 2, qkv, d_qkv, o, NULL, NULL};
    c.lse = zero_floats(rows * s.heads);
    c.scratch = take(OPS_TABLE.attention_scratch(&s, STRATA_BF16) * sizeof *c.scratch);
    struct rotary_shape shape = {rows, s.seq, s.heads, s.head_dim, s.head_dim};
    float *table = rotary_table(&shape);
    uint32_t *tokens = take(rows * sizeof *tokens), *order = take(rows * sizeof *order);
    uint32_t *starts = take((rows + 1) * sizeof *starts), *room = take(out * sizeof *room);
    struct op_row_stat *stats = take(rows * sizeof *stats);
    for (uint64_t i = 0; i < rows; i++)
        tokens[i] = (uint32_t)(i * i % out);
    uint64_t distinct = strata_op_order_tokens(tokens, rows, out, order, starts, room);
    struct op_entropy entropy = {y, tokens, stats, rows, 0, out, out, 0.5f};
    strata_op_embed(&rig.ops, &(struct op_embed){tokens, weight, x, rows, width, 0, out});
    strata_op_norm(&rig.ops, &(struct op_norm){x, weight, normed, rows, width, 0, 0, 1e-5f});
    strata_op_bias(&rig.ops, &(struct op_bias){qkv, weight, rows, s.stride});
    strata_op_rotary(&rig.ops, &(struct op_rotary){qkv, table, rows, s.stride, s.seq, s.heads,
                                                   s.head_dim, s.head_dim, false});
    attention_queue(&rig, &c);
    attention_grad_queue(&rig, &c, d);
    strata_op_bias_grad(&rig.ops, &(struct op_bias_grad){d_qkv, dnorm, rows, s.stride});
    strata_op_linear(&rig.ops, &(struct op_linear){normed, weight, y, y, rows, width, out, 0});
    strata_op_entropy_begin(&rig.ops, stats, rows);
    strata_op_entropy_scan(&rig.ops, &entropy);
    strata_op_entropy_grad(&rig.ops, &entropy);
    strata_op_linear_dw(&rig.ops, &(struct op_linear_dw){normed, y, dw, rows, width, out, 0});
    strata_op_linear_dx(&rig.ops, &(struct op_linear){y, weight, dx, dx, rows, width, out, 0});
    strata_op_norm_grad(&rig.ops, &(struct op_norm_grad){x, weight, o, dx, normed, dnorm, rows,
                                                         width, 0, 0, 1e-5f, true});
    strata_op_glu(&rig.ops, &(struct op_glu){qkv, o, rows, width, OP_GELU});
    strata_op_glu_grad(&rig.ops, &(struct op_glu_grad){qkv, o, o, rows, width, OP_GELU});
    strata_op_embed_grad(&rig.ops, &(struct op_embed_grad){tokens, order, starts, dx, dw, rows,
                                                           distinct, width, 0, out});
    strata_stream_sync(rig.stream);
    rig_close(&rig);
    give(d), give(weight), give(c.scratch), give(c.lse), give(table), give(tokens);
    give(stats), give(order), give(starts), give(room);
    *out_count = total;
    return all;
}

Test(ops, thread_count_changes_no_bit)
{
    uint64_t count;
    float *one = run_all(1, &count);
    float *three = run_all(3, &count);
    float *four = run_all(4, &count);
    cr_assert_eq(memcmp(one, three, count * sizeof *one), 0, "1 and 3 workers differ");
    cr_assert_eq(memcmp(one, four, count * sizeof *one), 0, "1 and 4 workers differ");
    for (uint64_t i = 0; i < count; i++)
        cr_assert(isfinite(one[i]), "element %llu", (unsigned long long)i);
    give(one), give(three), give(four);
}
