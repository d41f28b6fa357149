#ifndef STRATA_TESTS_OPS_RIG_H
#define STRATA_TESTS_OPS_RIG_H

/*
 * What the tests of the operators share: a device with its stream and workers, arrays that both
 * sides may touch, and the comparison with a plain version in double precision.
 *
 * Forward: against the double version itself. Gradients: the double version is differentiated
 * by central differences of sum(out x weights), with random weights; so a wrong formula cannot
 * hide in both. Steps of 1e-5 in double leave an error of 1e-9, far below fp32's.
 *
 * Tolerance: 2e-6 of the largest value of the array per forward operator and 1e-5 per gradient.
 * Sums here have at most some hundred terms of 6e-8 each. Shapes are small, odd, and cross the
 * borders of blocks and panels.
 */

#include "train/ops.h"

/* The host's, the CUDA operators on the CPU by tests/emulator, or, ON_GPU, on a GPU. */
#ifndef OPS_TABLE
#    define OPS_TABLE strata_ops_host
#endif
#ifndef ON_GPU
#    define ON_GPU 0
#endif
/* Must activations and weights be of one type? So it is on a CUDA device. */
#ifndef ONE_TYPE
#    define ONE_TYPE 0
#endif
extern const struct ops_table OPS_TABLE;

#include "offload/device/device.h"
#include "tests/support/cuda_rig.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FORWARD_TOLERANCE  2e-6
#define GRADIENT_TOLERANCE 1e-5
#define INPUTS_MAX         4

/* Device, stream, workers. */

/* Elements of a matrix: more than any shape here has. */
#define MATRIX_ELEMS (UINT64_C(1) << 20)

/* What a test's arrays lie in on a GPU: host memory that is pinned while a rig is open. Nothing
 * is given back, a test being a process. */
#define POOL_BYTES (ON_GPU ? (size_t)64 << 20 : 4096)
static _Alignas(4096) uint8_t pool[POOL_BYTES];
static size_t pool_used;

/* Zeroed memory that the host and the operators may touch. */
static inline void *take(size_t bytes)
{
    void *out = ON_GPU ? pool + pool_used : calloc(1, bytes);
    if (ON_GPU)
        pool_used += (bytes + 255) / 256 * 256;
    cr_assert(out != NULL && pool_used <= sizeof pool, "no memory for an array");
    return out;
}

static inline void give(void *memory)
{
    if (!ON_GPU)
        free(memory);
}

struct rig {
    strata_device *device;
    strata_stream *stream;
    strata_workers *workers;
    struct ops ops;
};

static inline void rig_open_device(struct rig *rig)
{
    strata_error error = {0};
    if (ON_GPU) {
        struct cuda_rig cuda = cuda_rig_open();
        uint64_t piece_bytes;
        rig->device = cuda.device;
        rig->stream = cuda.stream;
        cr_assert(rig->device->ops->pin(rig->device, pool, sizeof pool, &piece_bytes, &error) ==
                      STRATA_OK,
                  "%s", error.message);
        return;
    }
    cr_assert(strata_device_open_host(&rig->device, &error) == STRATA_OK, "%s", error.message);
    cr_assert(strata_stream_create(&rig->stream, rig->device, "test", &error) == STRATA_OK,
              "%s", error.message);
}

static inline struct rig rig_open(uint32_t threads)
{
    struct rig rig = {0};
    strata_error error = {0};
    strata_workers_desc desc = {.thread_count = threads, .unbound = true};
    rig_open_device(&rig);
    cr_assert(strata_workers_create(&rig.workers, &desc, &error) == STRATA_OK, "%s",
              error.message);
    rig.ops = (struct ops){.table = &OPS_TABLE,
                           .stream = rig.stream,
                           .workers = rig.workers,
                           .weight_dtype = STRATA_FP32,
                           .act_dtype = STRATA_FP32};
    cr_assert(rig.ops.table->open(&rig.ops, &error) == STRATA_OK, "%s", error.message);
    cr_assert(strata_device_take(rig.device, OPS_TABLE.scratch(MATRIX_ELEMS, STRATA_BF16),
                                 &rig.ops.scratch, &error) == STRATA_OK,
              "%s", error.message);
    return rig;
}

static inline void rig_close(struct rig *rig)
{
    strata_stream_sync(rig->stream);
    const strata_error *failure = strata_device_error(rig->device);
    cr_expect(failure == NULL, "%s", failure != NULL ? failure->message : "");
    strata_stream_destroy(rig->stream);
    rig->ops.table->close(&rig->ops);
    strata_device_give(rig->device, rig->ops.scratch,
                       OPS_TABLE.scratch(MATRIX_ELEMS, STRATA_BF16));
    if (ON_GPU)
        rig->device->ops->unpin(rig->device, pool);
    strata_workers_destroy(rig->workers);
    strata_device_close(rig->device);
}

/* Arrays. */

/* Values between -1 and 1, always the same for a seed. */
static inline float *random_floats(uint64_t count, uint32_t seed)
{
    float *out = take(count * sizeof *out);
    uint32_t state = seed * 2654435761u + 12345u;
    for (uint64_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        out[i] = (float)((double)(state >> 8) / 8388608.0 - 1.0);
    }
    return out;
}

static inline float *copy_floats(const float *src, uint64_t count)
{
    float *out = take(count * sizeof *out);
    memcpy(out, src, count * sizeof *out);
    return out;
}

static inline float *zero_floats(uint64_t count)
{
    return take(count * sizeof(float));
}

static inline double *doubles(uint64_t count)
{
    double *out = calloc(count, sizeof *out);
    cr_assert_not_null(out);
    return out;
}

static inline double *widened(const float *src, uint64_t count)
{
    double *out = doubles(count);
    for (uint64_t i = 0; i < count; i++)
        out[i] = src[i];
    return out;
}

/* Cut to bf16, in place, so that fp32 and bf16 arrays hold the same numbers. */
static inline uint16_t *as_bf16(float *values, uint64_t count)
{
    uint16_t *out = take(count * sizeof *out);
    for (uint64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        out[i] = (uint16_t)(bits >> 16);
        bits &= 0xffff0000u;
        memcpy(&values[i], &bits, sizeof bits);
    }
    return out;
}

static inline void expect_close(const char *what, const float *got, const double *want,
                                uint64_t count, double tolerance)
{
    double largest = 0.0;
    for (uint64_t i = 0; i < count; i++)
        largest = fmax(largest, fabs(want[i]));
    for (uint64_t i = 0; i < count; i++)
        cr_assert(fabs(got[i] - want[i]) <= tolerance * largest,
                  "%s: element %llu is %.9g, wanted %.9g (largest %.3g)", what,
                  (unsigned long long)i, got[i], want[i], largest);
}

/* A plain operator: out from in[], with its sizes in shape. */
struct plain {
    void (*run)(const void *shape, double *const *in, double *out);
    const void *shape;
    const float *in[INPUTS_MAX];
    uint64_t in_count[INPUTS_MAX];
    uint64_t out_count;
};

static inline void plain_open(const struct plain *p, double **in)
{
    for (int i = 0; i < INPUTS_MAX; i++)
        in[i] = p->in[i] != NULL ? widened(p->in[i], p->in_count[i]) : NULL;
}

static inline void plain_close(double **in)
{
    for (int i = 0; i < INPUTS_MAX; i++)
        free(in[i]);
}

static inline void expect_forward(const char *what, const struct plain *p, const float *got)
{
    double *in[INPUTS_MAX];
    plain_open(p, in);
    double *out = doubles(p->out_count);
    p->run(p->shape, in, out);
    expect_close(what, got, out, p->out_count, FORWARD_TOLERANCE);
    free(out);
    plain_close(in);
}

static inline double weighted(const struct plain *p, double *const *in, const float *d_out,
                              double *out)
{
    double sum = 0.0;
    p->run(p->shape, in, out);
    for (uint64_t i = 0; i < p->out_count; i++)
        sum += d_out[i] * out[i];
    return sum;
}

/* got: the operator's gradient of sum(out x d_out) for input `which`. */
static inline void expect_gradient(const char *what, const struct plain *p, int which,
                                   const float *d_out, const float *got)
{
    const double step = 1e-5;
    double *in[INPUTS_MAX];
    plain_open(p, in);
    double *out = doubles(p->out_count);
    double *want = doubles(p->in_count[which]);
    for (uint64_t i = 0; i < p->in_count[which]; i++) {
        double at = in[which][i];
        in[which][i] = at + step;
        double above = weighted(p, in, d_out, out);
        in[which][i] = at - step;
        double below = weighted(p, in, d_out, out);
        in[which][i] = at;
        want[i] = (above - below) / (2.0 * step);
    }
    expect_close(what, got, want, p->in_count[which], GRADIENT_TOLERANCE);
    free(want);
    free(out);
    plain_close(in);
}

#endif
