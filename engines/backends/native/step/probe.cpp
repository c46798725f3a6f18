// What this machine can do at most, measured: memory read, memory updated, multiply-adds in registers.
// Compiled once for each instruction set, as the kernels are.

#include "program.h"
#include "vector.h"

namespace {
using namespace nemotrt;

constexpr int LINE = 64 / sizeof(float);
constexpr int VECTORS = 2 * LINE / LANES;  // of two cache lines
constexpr int PREFETCH_LINES = 32;
constexpr int CHAINS = 12;  // independent sums: more than a multiply-add's latency times its ports
constexpr int64_t ROUNDS = 1 << 18;  // about a millisecond

void keep(Vec value) { asm volatile("" : : "m"(value)); }

#define UNROLL_CHAINS _Pragma("GCC unroll 12") for (int j = 0; j < CHAINS; j++)

double read(float* data, int64_t count) {
  Vec sums[VECTORS];
  UNROLL for (int j = 0; j < VECTORS; j++) sums[j] = splat(0);
  for (int64_t i = 0; i < count; i += 2 * LINE) {
    __builtin_prefetch(data + i + PREFETCH_LINES * LINE);
    __builtin_prefetch(data + i + (PREFETCH_LINES + 1) * LINE);
    UNROLL for (int j = 0; j < VECTORS; j++) sums[j] += load(data + i + j * LANES);
  }
  UNROLL for (int j = 0; j < VECTORS; j++) keep(sums[j]);
  return (double)count * sizeof(float);
}

double update(float* data, int64_t count) {
  for (int64_t i = 0; i < count; i += 2 * LINE) {
    __builtin_prefetch(data + i + PREFETCH_LINES * LINE, 1);
    __builtin_prefetch(data + i + (PREFETCH_LINES + 1) * LINE, 1);
    UNROLL for (int j = 0; j < VECTORS; j++)
      store(data + i + j * LANES, load(data + i + j * LANES) * 0.5f + 1.f);
  }
  return 2. * count * sizeof(float);
}

double float_madds() {
  Vec sums[CHAINS], a = splat(0.999f), b = splat(1e-3f);
  UNROLL_CHAINS sums[j] = splat(0);
  for (int64_t i = 0; i < ROUNDS; i++) {
    UNROLL_CHAINS {
      PIN(a);  // else the product is computed once
      sums[j] = a * b + sums[j];
      PIN(sums[j]);
    }
  }
  UNROLL_CHAINS keep(sums[j]);
  return 2. * ROUNDS * CHAINS * LANES;
}

// int16 products summed in pairs to int32, as the int8 kernels do.
double int16_madds() {
#if defined(__AVX2__)
  IntVec sums[CHAINS], a = (IntVec)splat(3), b = (IntVec)splat(5);
  UNROLL_CHAINS sums[j] = (IntVec)splat(0);
  for (int64_t i = 0; i < ROUNDS; i++) {
    UNROLL_CHAINS {
      PIN(a);
#if defined(__AVX512VNNI__)
      sums[j] = (IntVec)_mm512_dpwssd_epi32((__m512i)sums[j], (__m512i)a, (__m512i)b);
#else
      __m256i products = _mm256_madd_epi16((__m256i)a, (__m256i)b);
      sums[j] = (IntVec)_mm256_add_epi32((__m256i)sums[j], products);
#endif
      PIN(sums[j]);
    }
  }
  UNROLL_CHAINS keep((Vec)sums[j]);
  return 4. * ROUNDS * CHAINS * LANES;
#elif defined(__ARM_FEATURE_DOTPROD)  // two dot products of bytes do what one of int16 would
  int32x4_t sums[CHAINS];
  int8x16_t a = vdupq_n_s8(3), b = vdupq_n_s8(5);
  UNROLL_CHAINS sums[j] = vdupq_n_s32(0);
  for (int64_t i = 0; i < ROUNDS; i++)
    UNROLL_CHAINS {
      PIN(a);
      sums[j] = vdotq_s32(sums[j], a, b);
      PIN(sums[j]);
    }
  UNROLL_CHAINS keep((Vec)sums[j]);
  return 4. * ROUNDS * CHAINS * LANES;
#else
  IntVec sums[CHAINS] = {}, a = (IntVec)splat(3), b = (IntVec)splat(5);
  for (int64_t i = 0; i < ROUNDS; i++)
    for (int j = 0; j < CHAINS; j++) sums[j] = sums[j] * a + b;
  for (IntVec sum : sums) keep((Vec)sum);
  return 2. * ROUNDS * CHAINS * LANES;
#endif
}

}  // namespace

namespace nemotrt::NEMOTRT_ISA {

// One thread's pass over its part of the memory: bytes or operations done.
double probe(int what, float* data, int64_t count) {
  switch (what) {
    case PROBE_READ: return read(data, count);
    case PROBE_UPDATE: return update(data, count);
    case PROBE_FLOAT: return float_madds();
    default: return int16_madds();
  }
}

}  // namespace nemotrt::NEMOTRT_ISA
