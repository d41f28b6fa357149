/*
 * The CUDA operators, by the tests of the host's: on the CPU, emulated, unless test_ops_gpu.c
 * says otherwise. What runs there is ops_cuda.c, attention_cuda.c and the kernels; the products
 * are plain loops. These tests are in fp32; test_ops_twins.c compares with the host's operators
 * in every type.
 */

#ifndef OPS_TABLE
#define OPS_TABLE strata_ops_emulated
#define EMULATED  1
#include "tests/train/ops_emulated.h"
#endif
#define ONE_TYPE 1

#include "tests/train/test_ops.c"
#include "tests/train/test_ops_attention.c"
#include "tests/train/test_ops_vocab.c"

#include "train/ops_cuda.h"

/* Of the first row it is its one score, of q and k, over the root of their length. */
Test(ops_cuda, attention_gives_the_log_of_each_rows_sum)
{
    struct op_heads s = {2, 37, 4, 2, 4, 5, 0};
    struct rig rig = rig_open(1);
    float *q = random_floats(q_count(&s), 31), *k = random_floats(kv_count(&s), 32);
    struct attention_case c = attention_open(s, q, k, k);
    attention_queue(&rig, &c);
    strata_stream_sync(rig.stream);
    for (uint64_t head = 0; head < 4; head++)
        for (uint64_t row = 0; row < 37; row++) {
            double sum = 0;
            for (uint64_t key = row < 4 ? 0 : row - 4; key <= row; key++) {
                double score = 0;
                for (uint64_t i = 0; i < 4; i++)
                    score += (double)q[((37 + row) * 4 + head) * 4 + i] *
                             k[((37 + key) * 2 + head / 2) * 4 + i];
                sum += exp(score / 2);
            }
            cr_assert_float_eq(c.lse[(4 + head) * 37 + row], log(sum), 1e-6);
        }
    attention_close(&c);
    give(q), give(k);
    rig_close(&rig);
}

Test(ops_cuda, types_of_activations_and_weights_that_differ_are_refused)
{
    strata_error error = {0};
    struct ops ops = {
        .table = &OPS_TABLE, .weight_dtype = STRATA_BF16, .act_dtype = STRATA_FP32};
    cr_assert_eq(ops.table->open(&ops, &error), STRATA_E_UNSUPPORTED);
    cr_assert_not_null(strstr(error.message, "fp32 beside weights in bf16"), "%s",
                       error.message);
}

#ifdef EMULATED
static void attend(struct op_heads s)
{
    struct rig rig = rig_open(1);
    float *q = random_floats(q_count(&s), 31), *k = random_floats(kv_count(&s), 32);
    float *v = random_floats(kv_count(&s), 33), *d_out = random_floats(q_count(&s), 34);
    struct attention_case c = attention_open(s, q, k, v);
    attention_queue(&rig, &c);
    attention_grad_queue(&rig, &c, d_out);
    strata_stream_sync(rig.stream);
    attention_close(&c);
    give(q), give(k), give(v), give(d_out);
    rig_close(&rig);
}

/* 10 blocks of rows; two numbers of keys there, and so two times three products. */
Test(ops_cuda, attention_over_many_blocks_has_few_shapes_of_products)
{
    attend((struct op_heads){1, 160, 2, 1, 2, 0, 0});
    cr_expect_eq(strata_emulated_shape_count(), 6);
}

/* Backward begins with all keys; the blocks after it see 16 to 112 of them, in steps of 16 rows
 * and ends that are multiples of 80. */
Test(ops_cuda, attention_in_a_window_over_many_blocks_has_few_shapes_of_products)
{
    attend((struct op_heads){1, 160, 2, 1, 2, 20, 0});
    cr_expect_leq(strata_emulated_shape_count(), 3 * 7);
}

Test(ops_cuda, refused_product_is_told_by_its_shape_and_cublass_own_number)
{
    struct rig rig = rig_open(1);
    struct linear_case c = linear_open((struct linear_shape){3, 5, 2, 0});
    strata_emulated_refuse();
    linear_run(&rig, &c, STRATA_FP32, false);
    cr_expect_eq(strata_emulated_failure()->native, CUDA_CUBLAS_NATIVE + 15);
    cr_expect_str_eq(strata_emulated_failure()->message,
                     "a product of 3 x 5 x 2 in fp32, 1 times: CUBLAS_STATUS_NOT_SUPPORTED");
    linear_close(&c);
    rig_close(&rig);
}

/* What a layer's forward and backward queue on the rows of a micro-batch, attention apart: of a
 * family with biases and with norms of heads. Few columns: launches do not depend on them. */
static void queue_layer(struct rig *rig, float *a, float *b, float *grad)
{
    enum { ROWS = 16384, WIDTH = 8, HEADS = 2, DIM = 4, STRIDE = 24 };
    const struct ops *ops = &rig->ops;
    struct op_norm norm = {a, grad, b, ROWS, WIDTH, 0, 0, 1e-5f};
    struct op_norm_grad norm_back = {a, grad, b, b, NULL, grad, ROWS, WIDTH, 0, 0, 1e-5f, true};
    struct op_norm head_norm = {a, grad, a, ROWS, DIM, HEADS, STRIDE, 1e-5f};
    struct op_norm_grad head_back = {a,    grad, b,     b,      NULL,  grad,
                                     ROWS, DIM,  HEADS, STRIDE, 1e-5f, false};
    struct op_rotary rotary = {a, grad, ROWS, STRIDE, 4, HEADS, DIM, DIM, false};
    struct op_linear linear = {a, grad, NULL, b, ROWS, 1, 1, 0};
    struct op_linear_dw linear_dw = {a, b, grad, ROWS, 1, 1, 0};
    for (int i = 0; i < 2; i++) {
        strata_op_norm(ops, &norm), strata_op_norm_grad(ops, &norm_back);
        strata_op_norm(ops, &head_norm), strata_op_norm_grad(ops, &head_back);
        strata_op_rotary(ops, &rotary);
    }
    for (int i = 0; i < 4; i++) {
        strata_op_linear(ops, &linear), strata_op_linear_dx(ops, &linear);
        strata_op_linear_dw(ops, &linear_dw);
    }
    strata_op_bias(ops, &(struct op_bias){a, grad, ROWS, STRIDE});
    strata_op_bias_grad(ops, &(struct op_bias_grad){a, grad, ROWS, STRIDE});
    strata_op_glu(ops, &(struct op_glu){a, b, ROWS, WIDTH, OP_SILU});
    strata_op_glu_grad(ops, &(struct op_glu_grad){a, b, b, ROWS, WIDTH, OP_SILU});
}

/* Backward makes nine of forward's again, so they are 40, and attention. */
Test(ops_cuda, layer_of_a_whole_micro_batch_is_31_launches)
{
    struct rig rig = rig_open(1);
    float *a = random_floats(16384 * 24, 1), *b = random_floats(16384 * 24, 2);
    float *grad = random_floats(64, 3);
    queue_layer(&rig, a, b, grad);
    strata_stream_sync(rig.stream);
    cr_expect_eq(strata_emulated_product_count(), 12);
    cr_expect_eq(strata_emulated_kernel_count(), 19);
    give(a), give(b), give(grad);
    rig_close(&rig);
}
#endif
