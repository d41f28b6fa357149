/*
 * What is said where there is no fused attention: the reason, whatever lies on the stack, and
 * nothing where fp32 wants none.
 */

#include "train/attention_fused.h"

#include "train/attention_cudnn.h"

#include <criterion/criterion.h>
#include <string.h>

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
