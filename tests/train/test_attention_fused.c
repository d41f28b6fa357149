/*
 * What is said where there is no fused attention: the reason, whatever lies on the stack, and
 * nothing where fp32 wants none. And what becomes of a refusal, by a cuDNN of the test's own:
 * of a shape, which is asked for once; of work, which is never lost.
 */

#include "train/attention_fused.h"

#include "train/attention_cudnn.h"
#include "train/ops_cuda.h"

#include "base/error.h"

#include <criterion/criterion.h>
#include <string.h>

/* The test's cuDNN. */
static struct {
    bool there;
    strata_status shape_status;
    strata_status work_status;
    int64_t native; /* of a refusal of work */
    uint32_t asked; /* shapes */
    uint32_t queued;
    int failed; /* what the stream was handed; 0: nothing */
} fake;
static char fake_object;

strata_status __real_strata_attention_cudnn_open(struct attention_cudnn **out,
                                                 const struct attention_target *target,
                                                 strata_error *error);
strata_status __wrap_strata_attention_cudnn_open(struct attention_cudnn **out,
                                                 const struct attention_target *target,
                                                 strata_error *error);
strata_status __wrap_strata_attention_cudnn_open(struct attention_cudnn **out,
                                                 const struct attention_target *target,
                                                 strata_error *error)
{
    if (!fake.there)
        return __real_strata_attention_cudnn_open(out, target, error);
    *out = (struct attention_cudnn *)(void *)&fake_object;
    return STRATA_OK;
}

void __real_strata_attention_cudnn_close(struct attention_cudnn *attention);
void __wrap_strata_attention_cudnn_close(struct attention_cudnn *attention);
void __wrap_strata_attention_cudnn_close(struct attention_cudnn *attention)
{
    if (!fake.there)
        __real_strata_attention_cudnn_close(attention);
}

strata_status __wrap_strata_attention_cudnn_prepare(struct attention_cudnn *attention,
                                                    const struct attention_shape *shape,
                                                    strata_error *error);
strata_status __wrap_strata_attention_cudnn_prepare(struct attention_cudnn *attention,
                                                    const struct attention_shape *shape,
                                                    strata_error *error)
{
    (void)attention;
    fake.asked++;
    if (fake.shape_status == STRATA_OK)
        return STRATA_OK;
    return strata_fail(error, fake.shape_status, 0, "cudnn: no plan for %u tokens", shape->seq);
}

static strata_status queue_work(strata_error *error)
{
    fake.queued++;
    if (fake.work_status == STRATA_OK)
        return STRATA_OK;
    return strata_fail(error, fake.work_status, fake.native, "cudnn: no");
}

strata_status __wrap_strata_attention_cudnn_forward(struct attention_cudnn *attention,
                                                    void *stream,
                                                    const struct attention_forward *args,
                                                    strata_error *error);
strata_status __wrap_strata_attention_cudnn_forward(struct attention_cudnn *attention,
                                                    void *stream,
                                                    const struct attention_forward *args,
                                                    strata_error *error)
{
    (void)attention, (void)stream, (void)args;
    return queue_work(error);
}

strata_status __wrap_strata_attention_cudnn_backward(struct attention_cudnn *attention,
                                                     void *stream,
                                                     const struct attention_backward *args,
                                                     strata_error *error);
strata_status __wrap_strata_attention_cudnn_backward(struct attention_cudnn *attention,
                                                     void *stream,
                                                     const struct attention_backward *args,
                                                     strata_error *error)
{
    (void)attention, (void)stream, (void)args;
    return queue_work(error);
}

strata_status __wrap_strata_stream_failed(strata_stream *stream, int native, const char *what);
strata_status __wrap_strata_stream_failed(strata_stream *stream, int native, const char *what)
{
    (void)stream, (void)what;
    fake.failed = native;
    return STRATA_E_DEVICE;
}

static const struct op_heads heads = {
    .sequences = 1, .seq = 64, .heads = 2, .kv_heads = 1, .head_dim = 64, .stride = 256};

static struct ops open_fake(void)
{
    fake.there = true;
    return (struct ops){.act_dtype = STRATA_BF16,
                        .fused = strata_fused_attention_open(STRATA_BF16)};
}

Test(attention_fused, a_refused_shape_is_asked_for_once_and_said)
{
    struct ops ops = open_fake();
    fake.shape_status = STRATA_E_UNSUPPORTED;
    for (int i = 0; i < 3; i++) {
        cr_expect_not(strata_fused_attention(&ops, &(struct op_attention){.shape = heads}));
        cr_expect_not(
            strata_fused_attention_grad(&ops, &(struct op_attention_grad){.shape = heads}));
    }
    cr_expect_eq(fake.asked, 1);
    cr_expect_eq(fake.queued, 0);
    cr_expect_not_null(strstr(strata_fused_attention_lack(ops.fused), "no plan for 64 tokens"));
    strata_fused_attention_close(ops.fused);
}

/* A failure without a number of its own, such as no memory, is one all the same. */
Test(attention_fused, work_that_is_refused_is_the_streams_failure)
{
    struct ops ops = open_fake();
    cr_expect(strata_fused_attention(&ops, &(struct op_attention){.shape = heads}));
    cr_expect_eq(fake.failed, 0);
    fake.work_status = STRATA_E_NOMEM;
    cr_expect(strata_fused_attention(&ops, &(struct op_attention){.shape = heads}));
    cr_expect_eq(fake.failed, CUDA_CUDNN_NATIVE);
    fake.work_status = STRATA_E_DEVICE;
    fake.native = 7;
    cr_expect(strata_fused_attention_grad(&ops, &(struct op_attention_grad){.shape = heads}));
    cr_expect_eq(fake.failed, CUDA_CUDNN_NATIVE + 7);
    strata_fused_attention_close(ops.fused);
}

/* What a caller's earlier work may leave on the stack. */
static __attribute__((noinline)) void leave_junk(void)
{
    volatile unsigned char junk[4096];
    for (size_t i = 0; i < sizeof junk; i++)
        junk[i] = 0x41;
}

Test(attention_fused, the_reason_is_said)
{
    leave_junk();
    struct fused_attention *fused = strata_fused_attention_open(STRATA_BF16);
    const char *lack = strata_fused_attention_lack(fused);
    const char *absent = strata_attention_cudnn_absent();
    if (absent != NULL) {
        cr_assert_not_null(lack);
        cr_expect_not_null(strstr(lack, absent), "%s", lack);
    }
    cr_expect(lack == NULL || strstr(lack, "slower: cudnn: ") != NULL, "%s", lack);
    strata_fused_attention_close(fused);
}

Test(attention_fused, fp32_wants_none)
{
    struct fused_attention *fused = strata_fused_attention_open(STRATA_FP32);
    cr_expect_null(strata_fused_attention_lack(fused));
    strata_fused_attention_close(fused);
}
