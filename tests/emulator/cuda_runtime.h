#ifndef STRATA_TESTS_EMULATOR_CUDA_RUNTIME_H
#define STRATA_TESTS_EMULATOR_CUDA_RUNTIME_H

/*
 * In place of CUDA's header of this name: runs kernels on the CPU, so that what they compute is
 * tested where no GPU is. A .cu file is included by a C++ file of the tests, and its launchers
 * then work on host memory and are done when they return.
 *
 * Blocks run one after the other, in an order that is not theirs. The threads of a block are
 * contexts that run in turn, each until its end or its next barrier. So a kernel whose result
 * depends on the order of blocks, or of threads between barriers, shows it only by chance; what
 * shows surely is a wrong index, a missing tail, a sum in another order.
 *
 * A barrier waits for all threads of the block, or of the warp, that have not ended. Where some
 * wait at the one kind and some at the other and nobody can go on, the test ends.
 *
 * Only what our kernels use is here.
 *
 * Thread: one at a time.
 */

#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <deque>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __shared__      static
#define __forceinline__ inline
#define __launch_bounds__(...)

typedef int cudaError_t;
typedef void *cudaStream_t;
enum { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9 };

/* Words of arrays of any type, several at a time. */
struct __attribute__((may_alias, aligned(16))) uint4 {
    uint32_t x, y, z, w;
};

struct __attribute__((may_alias, aligned(8))) uint2 {
    uint32_t x, y;
};

static inline uint2 make_uint2(uint32_t x, uint32_t y)
{
    return uint2{x, y};
}

static inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w)
{
    return uint4{x, y, z, w};
}

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};

struct cudaLaunchConfig_t {
    dim3 gridDim;
    dim3 blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
};

struct cudaFuncAttributes {
    int unused;
};

template <typename kernel_t>
static inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *, kernel_t)
{
    return cudaSuccess;
}

/* Of the thread that runs. */
static dim3 gridDim, blockDim, blockIdx, threadIdx;

namespace emulator
{
constexpr size_t stack_bytes = 64 << 10;
constexpr unsigned warp_threads = 32;

/* What a thread waits for. */
enum waits { for_nothing, for_warp, for_block, ended };

/*
 * A thread of a block. It lives on: after its end in one block it waits to begin the next, of
 * any kernel. Its context is entered once, and from then on by a jump: swapcontext() makes a
 * system call each time, which took nine tenths of the operators' tests.
 */
struct fiber {
    ucontext_t context;
    std::vector<char> stack;
    jmp_buf at;
    bool entered;
    waits wait;
    unsigned exchanges; /* of this block's, so far */
};

/* A kernel with its arguments. */
struct call {
    void (*run)(void *);
    void *user;
};

static std::deque<fiber> fibers;
static fiber *current;
static jmp_buf scheduler;
static call now;
static unsigned launches; /* so far */

/* Back to the scheduler, until it lets this thread go on. */
inline void leave(waits wait)
{
    current->wait = wait;
    if (_setjmp(current->at) == 0)
        _longjmp(scheduler, 1);
}

inline void thread_main()
{
    for (;;) {
        now.run(now.user);
        leave(ended);
    }
}

inline void go_on(fiber *f)
{
    current = f;
    if (_setjmp(scheduler) != 0)
        return;
    if (f->entered)
        _longjmp(f->at, 1);
    f->entered = true;
    setcontext(&f->context);
}

inline void take_fibers(unsigned count)
{
    while (fibers.size() < count) {
        fibers.emplace_back();
        fiber *f = &fibers.back();
        f->stack.resize(stack_bytes);
        getcontext(&f->context);
        f->context.uc_stack.ss_sp = f->stack.data();
        f->context.uc_stack.ss_size = stack_bytes;
        f->context.uc_link = nullptr;
        makecontext(&f->context, thread_main, 0);
    }
}

/* Let the threads from first to end - 1 go on where all that have not ended wait for `wait`. */
inline bool open_barrier(unsigned first, unsigned end, waits wait)
{
    bool any = false;
    for (unsigned i = first; i < end; i++) {
        if (fibers[i].wait != wait && fibers[i].wait != ended)
            return false;
        any |= fibers[i].wait == wait;
    }
    for (unsigned i = first; any && i < end; i++)
        if (fibers[i].wait == wait)
            fibers[i].wait = for_nothing;
    return any;
}

inline bool open_barriers()
{
    bool any = open_barrier(0, blockDim.x, for_block);
    for (unsigned first = 0; first < blockDim.x; first += warp_threads) {
        unsigned end = first + warp_threads;
        any |= open_barrier(first, end < blockDim.x ? end : blockDim.x, for_warp);
    }
    return any;
}

/* Each thread in turn up to its next barrier, until all have ended. */
inline void run_block()
{
    for (unsigned i = 0; i < blockDim.x; i++) {
        fibers[i].wait = for_nothing;
        fibers[i].exchanges = 0;
    }
    do {
        for (unsigned i = 0; i < blockDim.x; i++) {
            threadIdx = dim3(i, 0, 0);
            if (fibers[i].wait == for_nothing)
                go_on(&fibers[i]);
        }
    } while (open_barriers());
    for (unsigned i = 0; i < blockDim.x; i++)
        if (fibers[i].wait != ended) {
            fprintf(stderr, "emulator: thread %u waits for ever\n", i);
            abort();
        }
}

/* Threads of a warp exchange values. One barrier is enough: the next exchange has other slots,
 * and between two that share slots lies the barrier of the one between them. */
template <typename value_t> inline value_t exchange(value_t value, unsigned partner)
{
    static value_t slots[2][1024];
    value_t *slot = slots[current->exchanges++ % 2];
    unsigned thread = threadIdx.x;
    slot[thread] = value;
    leave(for_warp);
    return slot[thread / warp_threads * warp_threads + partner];
}

template <typename call_t> inline void run_grid(dim3 grid, dim3 threads, call_t &call)
{
    gridDim = grid;
    blockDim = threads;
    take_fibers(threads.x);
    now.run = [](void *user) { (*static_cast<call_t *>(user))(); };
    now.user = &call;
    for (unsigned z = grid.z; z-- > 0;)
        for (unsigned y = grid.y; y-- > 0;)
            for (unsigned x = grid.x; x-- > 0;) {
                blockIdx = dim3(x, y, z);
                run_block();
            }
}
} // namespace emulator

template <typename... want_t, typename... give_t>
static inline cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *config,
                                             void (*kernel)(want_t...), give_t... args)
{
    auto call = [&] { kernel(static_cast<want_t>(args)...); };
    emulator::launches++;
    emulator::run_grid(config->gridDim, config->blockDim, call);
    return cudaSuccess;
}

static inline void __syncthreads()
{
    emulator::leave(emulator::for_block);
}

static inline void __syncwarp()
{
    emulator::leave(emulator::for_warp);
}

/* A whole warp's only; partners beyond the last thread of a block are not ours to ask for. */
template <typename value_t>
static inline value_t __shfl_xor_sync(unsigned mask, value_t value, int with)
{
    if (mask != 0xffffffffu)
        abort();
    return emulator::exchange(value, threadIdx.x % emulator::warp_threads ^ (unsigned)with);
}

static inline uint32_t __float_as_uint(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float __uint_as_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Compiled without contraction, so a plain operation is one that rounds to nearest. */
static inline float __fmul_rn(float a, float b)
{
    return a * b;
}

static inline float __fsub_rn(float a, float b)
{
    return a - b;
}

static inline float __fmaf_rn(float a, float b, float c)
{
    return __builtin_fmaf(a, b, c);
}

static inline float __fsqrt_rn(float a)
{
    return __builtin_sqrtf(a);
}

static inline float __fdiv_rn(float a, float b)
{
    return a / b;
}

static inline double __dadd_rn(double a, double b)
{
    return a + b;
}

static inline double __dmul_rn(double a, double b)
{
    return a * b;
}

#endif
