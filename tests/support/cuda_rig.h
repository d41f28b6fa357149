#ifndef STRATA_TESTS_CUDA_RIG_H
#define STRATA_TESTS_CUDA_RIG_H

/*
 * A GPU for a test, or the reason why it has to be skipped. With STRATA_TEST_FAIL_ON_SKIP=1,
 * which a run on a GPU sets, the reason is a failure.
 *
 * A context costs up to a second and each Criterion test is a process of its own, so tests on a
 * GPU have many cases each.
 *
 * Thread: one test.
 */

#include "strata/device.h"

#include <criterion/criterion.h>

#include <stdlib.h>
#include <string.h>

struct cuda_rig {
    strata_device *device;
    strata_stream *stream;
};

static inline struct cuda_rig cuda_rig_open(void)
{
    struct cuda_rig rig = {0};
    strata_error error = {0};
    strata_status status = strata_device_open_cuda(&rig.device, 0, &error);
    if (status == STRATA_E_UNSUPPORTED) {
        const char *fail = getenv("STRATA_TEST_FAIL_ON_SKIP");
        cr_assert(fail == NULL || strcmp(fail, "1") != 0, "%s", error.message);
        cr_skip_test("%s", error.message);
    }
    cr_assert_eq(status, STRATA_OK, "%s", error.message);
    cr_assert_eq(strata_stream_create(&rig.stream, rig.device, "test", &error), STRATA_OK, "%s",
                 error.message);
    return rig;
}

static inline void cuda_rig_close(struct cuda_rig *rig)
{
    const strata_error *failure = strata_device_error(rig->device);
    cr_expect_null(failure, "%s", failure != NULL ? failure->message : "");
    strata_stream_destroy(rig->stream);
    strata_device_close(rig->device);
}

/* Device memory with a copy of what is given; NULL: left as it is. */
static inline void *cuda_rig_take(struct cuda_rig *rig, const void *content, size_t bytes)
{
    void *memory;
    strata_error error = {0};
    cr_assert_eq(strata_device_take(rig->device, bytes, &memory, &error), STRATA_OK, "%s",
                 error.message);
    if (content != NULL) {
        strata_stream_copy(rig->stream, memory, content, bytes);
        strata_stream_sync(rig->stream);
    }
    return memory;
}

static inline void cuda_rig_read(struct cuda_rig *rig, void *out, const void *memory,
                                 size_t bytes)
{
    strata_stream_copy(rig->stream, out, memory, bytes);
    strata_stream_sync(rig->stream);
}

#endif
