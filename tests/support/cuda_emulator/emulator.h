// Runs CUDA kernels on the host, every thread of a block as a fiber: barriers, shuffles and matrix
// instructions make a fiber wait for the others. Between two of them threads run in random order,
// and some warps far ahead of others, so a missing barrier shows. A barrier that not all threads
// reach ends the process.
#pragma once

#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#define NEMOTRT_EMULATED
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)

struct uint3 {
  unsigned x, y, z;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

using std::min;

static uint3 threadIdx, blockIdx, blockDim, gridDim;

inline float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline unsigned __float_as_uint(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}
inline unsigned long long __float2ull_rn(float value) {
  return static_cast<unsigned long long>(std::nearbyint(value));
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned __int128>(a) * b >> 64;
}
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(unsigned bits) { return __builtin_ffs(static_cast<int>(bits)); }
// One fiber runs at a time.
template <class T>
T atomicAdd(T* to, T more) {
  const T before = *to;
  *to = before + more;
  return before;
}
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline float __fdividef(float a, float b) { return a / b; }
template <class T>
T __ldcs(const T* from) {
  return *from;
}
template <class T>
void __stcs(T* to, T value) {
  *to = value;
}

namespace emulator {

enum class Waits { for_nothing, for_warp, for_block, for_ever };

struct Fiber {
  ucontext_t context;
  void* stack;
  Waits waits;
  unsigned calls;  // collective instructions so far
};

constexpr size_t STACK = 1 << 18;
constexpr size_t PAYLOAD = 64;
static std::vector<Fiber> fibers;
static ucontext_t scheduler;
static unsigned current;
static std::vector<unsigned char> slots;  // two a thread: the next instruction may come early

inline void wait(Waits what) {
  fibers[current].waits = what;
  swapcontext(&fibers[current].context, &scheduler);
}

// What every lane of the warp gives, by lane.
template <class T>
std::vector<T> gather(const T& own) {
  static_assert(sizeof(T) <= PAYLOAD);
  const unsigned me = current, half = fibers[me].calls++ % 2;
  std::memcpy(&slots[(me * 2 + half) * PAYLOAD], &own, sizeof own);
  wait(Waits::for_warp);
  std::vector<T> all(32);
  for (unsigned lane = 0; lane < 32; ++lane) {
    std::memcpy(&all[lane], &slots[((me / 32 * 32 + lane) * 2 + half) * PAYLOAD], sizeof(T));
  }
  return all;
}

inline unsigned round_bf16(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

inline unsigned pack_bf16(float low, float high) {
  return round_bf16(low) | round_bf16(high) << 16;
}

inline float half_of(unsigned pair, int which) {
  return __uint_as_float(which ? pair & 0xffff0000u : pair << 16);
}

struct Operands {
  unsigned a[4], b[2];
};

// Source: PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type".
inline void multiply_add(float (&acc)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  const auto all = gather(Operands{{a[0], a[1], a[2], a[3]}, {b0, b1}});
  const unsigned lane = current % 32;
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    float sum = 0;
    for (int k = 0; k < 16; ++k) {
      const unsigned left = all[row % 8 * 4 + k % 8 / 2].a[row / 8 + k / 8 * 2];
      const unsigned right = all[column * 4 + k % 8 / 2].b[k / 8];
      sum += half_of(left, k % 2) * half_of(right, k % 2);
    }
    acc[i] += sum;
  }
}

// Source: PTX ISA, "ldmatrix": eight rows of 16 bytes a matrix, each aligned to 16 bytes.
inline void load_matrices(unsigned (&to)[4], const unsigned short* row, bool is_transposed) {
  if (reinterpret_cast<uintptr_t>(row) % 16) {
    std::fprintf(stderr, "ldmatrix: a row is not aligned\n");
    std::abort();
  }
  const auto rows = gather(row);
  const unsigned lane = current % 32;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned short* const* matrix = &rows[8 * i];
    const unsigned pair = lane % 4 * 2, line = lane / 4;
    to[i] = is_transposed ? matrix[pair][line] | matrix[pair + 1][line] << 16
                          : matrix[line][pair] | matrix[line][pair + 1] << 16;
  }
}

static void (*body)();

inline void enter() {
  body();
  wait(Waits::for_ever);
}

inline void fail(const char* what) {
  std::fprintf(stderr, "%s in block (%u, %u, %u)\n", what, blockIdx.x, blockIdx.y, blockIdx.z);
  std::abort();
}

// Let the threads of a range go on if all of them, but the ended ones, wait for `what`.
inline bool release(unsigned begin, unsigned end, Waits what) {
  bool is_any = false;
  for (unsigned i = begin; i < end; ++i) {
    if (fibers[i].waits == Waits::for_ever && what == Waits::for_block) continue;
    if (fibers[i].waits != what) return false;
    is_any = true;
  }
  for (unsigned i = begin; is_any && i < end; ++i) {
    if (fibers[i].waits == what) fibers[i].waits = Waits::for_nothing;
  }
  return is_any;
}

inline void run_block(std::mt19937_64& random) {
  const unsigned count = blockDim.x;
  for (unsigned i = 0; i < count; ++i) {
    getcontext(&fibers[i].context);
    fibers[i].context.uc_stack.ss_sp = fibers[i].stack;
    fibers[i].context.uc_stack.ss_size = STACK;
    fibers[i].context.uc_link = nullptr;
    fibers[i].waits = Waits::for_nothing;
    fibers[i].calls = 0;
    makecontext(&fibers[i].context, enter, 0);
  }
  std::vector<unsigned> warps(count / 32), lanes(32);
  std::iota(warps.begin(), warps.end(), 0);
  std::iota(lanes.begin(), lanes.end(), 0);
  for (;;) {
    if (random() % 64 == 0) std::shuffle(warps.begin(), warps.end(), random);
    // The first warp that can go on does: it runs as far ahead of the others as barriers let it.
    const auto runs = [](unsigned warp) {
      return std::any_of(&fibers[warp * 32], &fibers[warp * 32] + 32,
                         [](const Fiber& fiber) { return fiber.waits == Waits::for_nothing; });
    };
    const auto warp = std::find_if(warps.begin(), warps.end(), runs);
    if (warp == warps.end()) {
      if (release(0, count, Waits::for_block)) continue;
      for (const Fiber& fiber : fibers) {
        if (fiber.waits != Waits::for_ever) fail("threads wait for others that never come");
      }
      return;
    }
    std::shuffle(lanes.begin(), lanes.end(), random);
    for (unsigned lane : lanes) {
      const unsigned thread = *warp * 32 + lane;
      if (fibers[thread].waits != Waits::for_nothing) continue;
      current = thread;
      threadIdx = {thread, 0, 0};
      swapcontext(&scheduler, &fibers[thread].context);
    }
    release(*warp * 32, *warp * 32 + 32, Waits::for_warp);
  }
}

// Runs `kernel` for the whole grid, blocks in random order.
inline void run(void (*kernel)(), uint3 grid, unsigned threads, uint64_t seed) {
  if (threads % 32) fail("a block is not of whole warps");
  std::mt19937_64 random(seed);
  body = kernel;
  gridDim = grid, blockDim = {threads, 1, 1};
  slots.assign(threads * 2 * PAYLOAD, 0);
  fibers.resize(threads);
  for (Fiber& fiber : fibers) {
    fiber.stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  }
  std::vector<unsigned> blocks(grid.x * grid.y * grid.z);
  for (unsigned i = 0; i < blocks.size(); ++i) blocks[i] = i;
  std::shuffle(blocks.begin(), blocks.end(), random);
  for (unsigned i : blocks) {
    blockIdx = {i % grid.x, i / grid.x % grid.y, i / grid.x / grid.y};
    run_block(random);
  }
  for (Fiber& fiber : fibers) munmap(fiber.stack, STACK);
  fibers.clear();
}

}  // namespace emulator

inline void __syncthreads() { emulator::wait(emulator::Waits::for_block); }
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulator::gather(value)[emulator::current % 32 ^ mask];
}
template <class T>
T __shfl_up_sync(unsigned, T value, int distance) {
  const int lane = emulator::current % 32;
  const auto all = emulator::gather(value);
  return all[lane < distance ? lane : lane - distance];
}
template <class T>
T __shfl_down_sync(unsigned, T value, int distance) {
  const int lane = emulator::current % 32;
  const auto all = emulator::gather(value);
  return all[lane + distance > 31 ? lane : lane + distance];
}
template <class T>
T __shfl_sync(unsigned, T value, int lane) {
  return emulator::gather(value)[lane];
}
inline unsigned __ballot_sync(unsigned, bool holds) {
  const auto all = emulator::gather<unsigned char>(holds);
  unsigned bits = 0;
  for (unsigned lane = 0; lane < 32; ++lane) bits |= static_cast<unsigned>(all[lane]) << lane;
  return bits;
}
