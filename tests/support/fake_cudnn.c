/*
 * A library that says that it is cuDNN, of a version that the build chooses, and has nothing
 * else of it. As a part of cuDNN it is as good as any: those are only opened.
 *
 * Thread: any.
 */

#include <stddef.h>

__attribute__((visibility("default"))) size_t cudnnGetVersion(void);
__attribute__((visibility("default"))) int cudnnGraphVersionCheck(void);

size_t cudnnGetVersion(void)
{
    return FAKE_CUDNN_VERSION;
}

/* What cuDNN answers when its parts are of another version than itself. */
int cudnnGraphVersionCheck(void)
{
    return FAKE_CUDNN_MIXED;
}
