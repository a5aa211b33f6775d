// Enough of CUDA to run this project's kernels on a CPU, one block at a time, threads as fibres: for tests of their numbers and
// of the arguments they are given, not of speed. A barrier lets every fibre that has not ended reach it before any goes on.
//
// A fibre begins with a context of its own and is left and resumed by jumps, which unlike swapcontext ask nothing of the system;
// it serves one block after the other.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static

struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct Index { unsigned x, y, z; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static Index threadIdx, blockIdx, blockDim, gridDim;
alignas(16) static char emulated_shared[48 * 1024];

static inline float sinpif(float x) { return (float)std::sin(M_PI * (double)x); }
static inline void sincospif(float x, float* s, float* c) {
    *s = (float)std::sin(M_PI * (double)x);
    *c = (float)std::cos(M_PI * (double)x);
}
template <class T> static T atomicAdd(T* at, T value) { const T old = *at; *at += value; return old; }

struct Fibre { ucontext_t context; jmp_buf resumed; Index thread; bool begun, done; };
static std::vector<Fibre> fibres;
static jmp_buf scheduler;
static size_t current, left;
static double exchange[1024];

static void __syncthreads() {
    if (_setjmp(fibres[current].resumed) == 0) _longjmp(scheduler, 1);
}

static double __shfl_down_sync(unsigned, double value, int step) {
    const size_t own = current;
    exchange[own] = value;
    __syncthreads();
    const double other = (own % 32) + step < 32 ? exchange[own + step] : value;
    __syncthreads();
    return other;
}

static void (*body)(void*);
static void* body_arguments;
static void enter() {
    for (;;) {
        body(body_arguments);
        fibres[current].done = true;
        __syncthreads();
    }
}

static void run_block() {
    for (auto& fibre : fibres) fibre.done = false;
    do {
        left = 0;
        for (current = 0; current < fibres.size(); ++current) {
            Fibre& fibre = fibres[current];
            if (fibre.done) continue;
            threadIdx = fibre.thread;
            if (_setjmp(scheduler) == 0) {
                if (fibre.begun) _longjmp(fibre.resumed, 1);
                fibre.begun = true;
                setcontext(&fibre.context);
            }
            left += !fibres[current].done;
        }
    } while (left > 0);
}

// Calls kernel(arguments...) for every thread of the grid. Returns 0, or 1 + the place of an argument of the wrong size.
template <class... A, size_t... I>
static int launch(void (*kernel)(A...), const unsigned* grid, unsigned threads, void** arguments, const size_t* sizes,
                  std::index_sequence<I...>) {
    const size_t wanted[] = {sizeof(A)...};
    for (size_t i = 0; i < sizeof...(A); ++i)
        if (sizes[i] != wanted[i]) return 1 + (int)i;
    struct Call { void (*kernel)(A...); void** arguments; } call{kernel, arguments};
    body = [](void* p) { auto* c = (Call*)p; c->kernel(*(std::remove_reference_t<A>*)c->arguments[I]...); };
    body_arguments = &call;
    const size_t stack_bytes = 64 * 1024;
    std::vector<char> stacks(threads * stack_bytes);
    fibres.resize(threads);
    for (unsigned i = 0; i < threads; ++i) {
        Fibre& fibre = fibres[i];
        fibre.thread = {i, 0, 0};
        fibre.begun = false;
        getcontext(&fibre.context);
        fibre.context.uc_stack.ss_sp = stacks.data() + i * stack_bytes;
        fibre.context.uc_stack.ss_size = stack_bytes;
        fibre.context.uc_link = nullptr;
        makecontext(&fibre.context, enter, 0);
    }
    blockDim = {threads, 1, 1};
    gridDim = {grid[0], grid[1], 1};
    for (blockIdx.y = 0; blockIdx.y < grid[1]; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x < grid[0]; ++blockIdx.x) run_block();
    return 0;
}

template <class... A>
static int launch_any(void (*kernel)(A...), const unsigned* grid, unsigned threads, int count, void** arguments,
                      const size_t* sizes) {
    if (count != (int)sizeof...(A)) return -1;
    return launch(kernel, grid, threads, arguments, sizes, std::index_sequence_for<A...>{});
}

#define LAUNCHER(name)                                                                                              \
    extern "C" int launch_##name(const unsigned* grid, unsigned threads, int count, void** arguments, const size_t* sizes) { \
        return launch_any(name, grid, threads, count, arguments, sizes);                                            \
    }
