/*
 * Rotary embedding and gated linear units on a CUDA device: twins of those in ops_host.c, with
 * the same formulas in the same order, so that bits differ by the functions of libm alone.
 *
 * Nothing is summed: a thread has a chunk.
 *
 * Thread: see ops_cuda.h.
 */

#include "train/elements.cuh"
#include "train/ops_cuda.h"

/* Rotary embedding: a thread turns the pairs of one chunk of the lower half of a head. */

template <typename elem_t, bool WIDE>
static __global__ void __launch_bounds__(THREADS, BLOCKS(THREADS))
    rotary_kernel(uint32_t count, struct op_rotary a, uint32_t chunks)
{
    constexpr uint32_t elems = element<elem_t>::chunk;
    uint32_t i = chunk_index();
    if (i >= count)
        return;
    uint32_t half = a.turned / 2;
    uint32_t pair = i % chunks * elems;
    uint32_t head = i / chunks % a.heads;
    uint32_t row = i / chunks / a.heads;
    uint32_t left = half - pair;
    uint64_t at = row * a.stride + head * a.head_dim + pair;
    uint64_t angle = (uint64_t)(row % a.seq) * a.turned + pair;
    struct chunk low = load<elem_t, WIDE>(a.x, at, left);
    struct chunk high = load<elem_t, WIDE>(a.x, at + half, left);
    float cosines[elems], sines[elems];
    load_floats<elem_t, WIDE>(cosines, a.table, angle, left);
    load_floats<elem_t, WIDE>(sines, a.table, angle + half, left);
    struct chunk new_low = {}, new_high = {};
#pragma unroll
    for (uint32_t k = 0; k < elems; k++) {
        float sine = a.inverse ? -sines[k] : sines[k];
        float from_low = get<elem_t>(low, k);
        float from_high = get<elem_t>(high, k);
        put<elem_t>(&new_low, k, from_low * cosines[k] - from_high * sine);
        put<elem_t>(&new_high, k, from_high * cosines[k] + from_low * sine);
    }
    store<elem_t, WIDE>(a.x, at, left, new_low);
    store<elem_t, WIDE>(a.x, at + half, left, new_high);
}

extern "C" int strata_cuda_rotary(void *stream, const struct op_rotary *args,
                                  strata_dtype dtype)
{
    uint32_t half = args->turned / 2;
    uint32_t chunks = chunks_of(half, dtype);
    bool wide = is_wide(dtype, half | args->head_dim | args->stride,
                        address(args->x) | address(args->table));
    return launch_chunks(stream, args->rows * args->heads * chunks,
                         KERNEL_FOR(rotary_kernel, dtype, wide), *args, chunks);
}

/* Gated linear units. */

#define SQRT_HALF    0.70710678118654752f
#define TWO_OVER_PI  0.79788456080286536f /* its root       */
#define GELU_CUBE    0.044715f
#define NORMAL_SCALE 0.39894228040143268f /* 1 / sqrt(2 pi) */

/* An activation's value and its derivative. */
struct slope {
    float value;
    float slope;
};

static __device__ struct slope slope_of(float x, enum op_activation activation)
{
    if (activation == OP_GELU) {
        float below = 1.0f + erff(x * SQRT_HALF);
        return {0.5f * x * below, 0.5f * below + x * NORMAL_SCALE * expf(-0.5f * x * x)};
    }
    if (activation == OP_GELU_TANH) {
        float t = tanhf(TWO_OVER_PI * (x + GELU_CUBE * x * x * x));
        float inner = TWO_OVER_PI * (1.0f + 3.0f * GELU_CUBE * x * x);
        return {0.5f * x * (1.0f + t), 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * inner};
    }
    float below = 1.0f + expf(-x);
    float sigmoid = 1.0f / below;
    return {x / below, sigmoid * (1.0f + x * (1.0f - sigmoid))};
}

/* Forward needs no derivative, and the compiler makes none. */
template <typename elem_t, bool WIDE>
static __global__ void __launch_bounds__(THREADS, BLOCKS(THREADS))
    glu_kernel(uint32_t count, struct op_glu a, uint32_t chunks)
{
    constexpr uint32_t elems = element<elem_t>::chunk;
    uint32_t i = chunk_index();
    if (i >= count)
        return;
    uint32_t row = i / chunks;
    uint32_t col = i % chunks * elems;
    uint32_t left = (uint32_t)a.width - col;
    uint64_t at = row * 2 * a.width + col;
    struct chunk gate = load<elem_t, WIDE>(a.gate_up, at, left);
    struct chunk up = load<elem_t, WIDE>(a.gate_up, at + a.width, left);
    struct chunk out = {};
#pragma unroll
    for (uint32_t k = 0; k < elems; k++)
        put<elem_t>(&out, k,
                    slope_of(get<elem_t>(gate, k), a.activation).value * get<elem_t>(up, k));
    store<elem_t, WIDE>(a.out, row * a.width + col, left, out);
}

extern "C" int strata_cuda_glu(void *stream, const struct op_glu *args, strata_dtype dtype)
{
    uint32_t chunks = chunks_of(args->width, dtype);
    bool wide = is_wide(dtype, args->width, address(args->gate_up) | address(args->out));
    return launch_chunks(stream, args->rows * chunks, KERNEL_FOR(glu_kernel, dtype, wide),
                         *args, chunks);
}

template <typename elem_t, bool WIDE>
static __global__ void __launch_bounds__(THREADS, BLOCKS(THREADS))
    glu_grad_kernel(uint32_t count, struct op_glu_grad a, uint32_t chunks)
{
    constexpr uint32_t elems = element<elem_t>::chunk;
    uint32_t i = chunk_index();
    if (i >= count)
        return;
    uint32_t row = i / chunks;
    uint32_t col = i % chunks * elems;
    uint32_t left = (uint32_t)a.width - col;
    uint64_t at = row * 2 * a.width + col;
    struct chunk gate = load<elem_t, WIDE>(a.gate_up, at, left);
    struct chunk up = load<elem_t, WIDE>(a.gate_up, at + a.width, left);
    struct chunk d_out = load<elem_t, WIDE>(a.d_out, row * a.width + col, left);
    struct chunk out = {}, d_gate = {}, d_up = {};
#pragma unroll
    for (uint32_t k = 0; k < elems; k++) {
        struct slope of = slope_of(get<elem_t>(gate, k), a.activation);
        float d = get<elem_t>(d_out, k);
        put<elem_t>(&out, k, of.value * get<elem_t>(up, k));
        put<elem_t>(&d_gate, k, d * get<elem_t>(up, k) * of.slope);
        put<elem_t>(&d_up, k, d * of.value);
    }
    store<elem_t, WIDE>(a.gate_up, at, left, d_gate);
    store<elem_t, WIDE>(a.gate_up, at + a.width, left, d_up);
    store<elem_t, WIDE>(a.out, row * a.width + col, left, out);
}

extern "C" int strata_cuda_glu_grad(void *stream, const struct op_glu_grad *args,
                                    strata_dtype dtype)
{
    uint32_t chunks = chunks_of(args->width, dtype);
    bool wide = is_wide(dtype, args->width,
                        address(args->gate_up) | address(args->d_out) | address(args->out));
    return launch_chunks(stream, args->rows * chunks, KERNEL_FOR(glu_grad_kernel, dtype, wide),
                         *args, chunks);
}
