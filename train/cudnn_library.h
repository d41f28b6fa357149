#ifndef STRATA_TRAIN_CUDNN_LIBRARY_H
#define STRATA_TRAIN_CUDNN_LIBRARY_H

/*
 * Finding and opening libcudnn. It must be installed, complete, for this architecture and new
 * enough; otherwise one line says which of these fails and what to do.
 *
 * This code does not link libcudnn and needs no header of it, so every build can look for it.
 *
 * Thread: any, but not two at once.
 */

#include "strata/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CUDNN_LIBRARY "libcudnn.so.9"

/* The oldest version that plans were built with, in the form of cudnnGetVersion(). */
#define CUDNN_OLDEST 91900u

#define CUDNN_PARTS 5

struct cudnn_library {
    void *handle;
    void *parts[CUDNN_PARTS];
    uint32_t version; /* major x 10000 + minor x 100 + patch */
    char version_text[24];
    char path[512]; /* where libcudnn.so.9 was found */
};

/*
 * dir: the folder of libcudnn; NULL: the loader's search path (LD_LIBRARY_PATH, the system's
 * folders).
 *
 * STRATA_E_UNSUPPORTED: libcudnn cannot be used; the message names file, reason and remedy.
 */
STRATA_NODISCARD strata_status strata_cudnn_open(struct cudnn_library *out, const char *dir,
                                                 strata_error *error);
void strata_cudnn_close(struct cudnn_library *library);

#ifdef __cplusplus
}
#endif

#endif
