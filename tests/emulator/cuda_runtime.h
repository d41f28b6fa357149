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
 * Only what our kernels use is here. Warps are not: __syncwarp() is a barrier of the block.
 *
 * Thread: one at a time.
 */

#include <math.h>
#include <setjmp.h>
#include <stdint.h>
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

typedef int cudaError_t;
typedef void *cudaStream_t;
enum { cudaSuccess = 0 };

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
    bool ended;
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

/* Back to the scheduler, until it lets this thread go on. */
inline void barrier()
{
    if (_setjmp(current->at) == 0)
        _longjmp(scheduler, 1);
}

inline void thread_main()
{
    for (;;) {
        now.run(now.user);
        current->ended = true;
        barrier();
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

/* Each thread in turn up to its next barrier, until all have ended. */
inline void run_block()
{
    for (unsigned i = 0; i < blockDim.x; i++)
        fibers[i].ended = false;
    for (bool any = true; any;) {
        any = false;
        for (unsigned i = 0; i < blockDim.x; i++) {
            if (fibers[i].ended)
                continue;
            any = true;
            threadIdx = dim3(i, 0, 0);
            go_on(&fibers[i]);
        }
    }
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
    emulator::run_grid(config->gridDim, config->blockDim, call);
    return cudaSuccess;
}

static inline void __syncthreads()
{
    emulator::barrier();
}

static inline void __syncwarp()
{
    emulator::barrier();
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
