#ifndef STRATA_TRAIN_ATTENTION_CUDNN_H
#define STRATA_TRAIN_ATTENTION_CUDNN_H

/*
 * Causal attention and its gradient by cuDNN, queued on a CUDA stream.
 *
 *     struct attention_cudnn *attention;
 *     struct attention_target here = {0};
 *     STRATA_TRY(strata_attention_calls(&calls, &shape, error));
 *     STRATA_TRY(strata_attention_cudnn_open(&attention, &here, error));
 *     STRATA_TRY(strata_attention_cudnn_prepare(attention, &shape, error));
 *     workspace = ... calls.workspace_bytes of the device ...
 *     STRATA_TRY(strata_attention_cudnn_forward(attention, stream, &args, error));
 *
 * The forward keeps o and, for each row and head, the logarithm of its softmax's sum (lse);
 * the backward recomputes the scores from these. Sums inside are fp32.
 *
 * The backward runs by groups of heads (train/attention_calls.h). Every run on one kind of GPU
 * with one version of cuDNN gives the same bits of every gradient.
 *
 * A shape's plans are built when it is prepared, half a second each, and kept until close.
 * After that we allocate nothing and nothing waits for the GPU.
 *
 * cuDNN is opened by name and never linked. A build without its headers, or without CUDA, has
 * the same functions; there open says what is missing.
 *
 * Thread: one per object, with the object's device current.
 */

#include "strata/status.h"
#include "train/attention_calls.h"

#ifdef __cplusplus
extern "C" {
#endif

struct attention_cudnn;

/* The GPU and the library that plans are made for. All zero: the current CUDA device, and
 * libcudnn from the loader's search path. */
struct attention_target {
    const char *library_dir; /* NULL: the loader's search path; copied */
    /* To build plans for a GPU without having it, and run none: cuDNN's own JSON of its
     * properties; NULL: the current device. Copied. */
    const char *device_json;
    uint32_t sm; /* with device_json only: compute capability x 10 */
};

/* q, k, v, o and the gradients: device memory of the shape's dtype, each the address of its
 * first element, aligned to 16 bytes. lse: sequences x heads x seq floats. workspace: the
 * bytes of strata_attention_calls(), aligned to 256 bytes. All lent until the stream has run
 * the call. */
struct attention_forward {
    struct attention_shape shape;
    const void *q;
    const void *k;
    const void *v;
    void *o;
    float *lse;
    void *workspace;
};

struct attention_backward {
    struct attention_shape shape;
    const void *q;
    const void *k;
    const void *v;
    const void *o;
    const void *d_o;
    const float *lse;
    void *d_q;
    void *d_k;
    void *d_v;
    void *workspace;
};

/* Why this build has no attention by cuDNN, and what to do; NULL: it has it. Static storage.
 * Thread: any. */
const char *strata_attention_cudnn_absent(void);

/*
 * STRATA_E_UNSUPPORTED: this build has no cuDNN, or libcudnn is missing, too old, incomplete
 * or of another architecture; the message says which, and what to do. STRATA_E_DEVICE: cuDNN
 * refuses the device.
 */
STRATA_NODISCARD strata_status strata_attention_cudnn_open(
    struct attention_cudnn **out, const struct attention_target *target, strata_error *error);
/* The stream must have been synchronised. NULL is accepted. */
void strata_attention_cudnn_close(struct attention_cudnn *attention);

/* libcudnn's version, such as "9.19.0". Lent until close. */
const char *strata_attention_cudnn_version(const struct attention_cudnn *attention);

/*
 * Build a shape's plans, unless they exist already.
 *
 * STRATA_E_UNSUPPORTED: this GPU with this cuDNN has no plan for the shape, or none whose
 * workspace is within strata_attention_calls().
 */
STRATA_NODISCARD strata_status
strata_attention_cudnn_prepare(struct attention_cudnn *attention,
                               const struct attention_shape *shape, strata_error *error);

/* The bytes of workspace that the plans of a prepared shape need. */
struct attention_needs {
    uint64_t forward_bytes;
    uint64_t call_bytes; /* of one backward call */
};
STRATA_NODISCARD strata_status strata_attention_cudnn_needs(struct attention_cudnn *attention,
                                                            const struct attention_shape *shape,
                                                            struct attention_needs *out,
                                                            strata_error *error);

/*
 * Queue the call on a cudaStream_t. A shape that was not prepared is prepared now.
 *
 * STRATA_E_DEVICE: cuDNN refused the call; native is its status.
 */
STRATA_NODISCARD strata_status
strata_attention_cudnn_forward(struct attention_cudnn *attention, void *stream,
                               const struct attention_forward *args, strata_error *error);
STRATA_NODISCARD strata_status
strata_attention_cudnn_backward(struct attention_cudnn *attention, void *stream,
                                const struct attention_backward *args, strata_error *error);

#ifdef __cplusplus
}
#endif

#endif
