// A register of floats in GCC's vector extension: 16 where the unit is compiled for AVX-512, 4 where it is
// for NEON, else 8, in AVX2 registers where it is compiled for that, else in what there is.
// Everything here is internal to one translation unit, so that no AVX2 code leaks into another.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512VNNI__)
#include <immintrin.h>
#define REGISTER_BYTES 64
#define PIN(value) asm("" : "+v"(value))  // keeps an accumulator in its register
#elif defined(__AVX2__)
#include <immintrin.h>
#define REGISTER_BYTES 32
#define PIN(value) asm("" : "+x"(value))
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#define REGISTER_BYTES 16
#define PIN(value) asm("" : "+w"(value))
#else
#define REGISTER_BYTES 32
#define PIN(value)
#endif
#define UNROLL _Pragma("GCC unroll 16")
#define INLINE static inline __attribute__((always_inline))

namespace {

typedef float Vec __attribute__((vector_size(REGISTER_BYTES)));
typedef int32_t IntVec __attribute__((vector_size(REGISTER_BYTES)));
constexpr int LANES = REGISTER_BYTES / 4;

INLINE int least(int a, int b) { return a < b ? a : b; }
INLINE int most(int a, int b) { return a > b ? a : b; }

#if defined(__AVX512VNNI__)
INLINE Vec splat(float x) { return (Vec)_mm512_set1_ps(x); }
#elif defined(__ARM_FEATURE_DOTPROD)
INLINE Vec splat(float x) { return (Vec)vdupq_n_f32(x); }
#else
INLINE Vec splat(float x) { return Vec{x, x, x, x, x, x, x, x}; }
#endif
INLINE Vec load(const float* p) {
  Vec v;
  memcpy(&v, p, sizeof v);
  return v;
}
INLINE void store(float* p, Vec v) { memcpy(p, &v, sizeof v); }

// The first `count` (1 to LANES) lanes; the others are zero.
INLINE Vec load(const float* p, int count) {
  if (count >= LANES) return load(p);
  float part[LANES] = {};
  memcpy(part, p, count * sizeof(float));
  return load(part);
}
INLINE void store(float* p, Vec v, int count) {
  if (count >= LANES) return store(p, v);
  float part[LANES];
  store(part, v);
  memcpy(p, part, count * sizeof(float));
}

// Half floats: the value nearest to each, ties to even.
#if defined(__AVX512VNNI__)
INLINE Vec load(const uint16_t* p) {
  return (Vec)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
}
INLINE void store(uint16_t* p, Vec v) {
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT));
}
#elif defined(__AVX2__)
INLINE Vec load(const uint16_t* p) {
  return (Vec)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p));
}
INLINE void store(uint16_t* p, Vec v) {
  _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
}
#elif defined(__ARM_FEATURE_DOTPROD)
INLINE Vec load(const uint16_t* p) { return (Vec)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
INLINE void store(uint16_t* p, Vec v) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)v))); }
#else
INLINE float half_to_float(uint16_t half) {
  uint32_t bits = (half & 0x7c00) == 0x7c00 ? 0x7f800000 | (uint32_t)(half & 0x3ff) << 13
                                            : (uint32_t)(half & 0x7fff) << 13;
  float value;
  memcpy(&value, &bits, sizeof bits);
  if ((half & 0x7c00) != 0x7c00) value *= 0x1p112f;
  return half & 0x8000 ? -value : value;
}
INLINE uint16_t float_to_half(float value) {
  uint32_t bits, sign;
  memcpy(&bits, &value, sizeof bits);
  sign = bits >> 16 & 0x8000;
  float size = fabsf(value);
  if (!(size < 65520.f)) return sign | (size != size ? 0x7e00 : 0x7c00);
  size *= 0x1p-112f;  // a float whose bits above the 13th are the half's
  memcpy(&bits, &size, sizeof bits);
  return sign | (bits + 0xfff + (bits >> 13 & 1)) >> 13;
}
INLINE Vec load(const uint16_t* p) {
  Vec v;
  for (int i = 0; i < LANES; i++) v[i] = half_to_float(p[i]);
  return v;
}
INLINE void store(uint16_t* p, Vec v) {
  for (int i = 0; i < LANES; i++) p[i] = float_to_half(v[i]);
}
#endif
// The float of a bfloat16's code.
INLINE float bf16_to_float(uint16_t code) {
  uint32_t bits = (uint32_t)code << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
INLINE Vec load(const uint16_t* p, int count) {
  if (count >= LANES) return load(p);
  uint16_t part[LANES] = {};
  memcpy(part, p, count * sizeof *p);
  return load(part);
}
INLINE void store(uint16_t* p, Vec v, int count) {
  if (count >= LANES) return store(p, v);
  uint16_t part[LANES];
  store(part, v);
  memcpy(p, part, count * sizeof *p);
}

// The second of two that are equal or not numbers, as the instructions have it.
#if defined(__AVX512VNNI__)
INLINE Vec max(Vec a, Vec b) { return (Vec)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE Vec min(Vec a, Vec b) { return (Vec)_mm512_min_ps((__m512)a, (__m512)b); }
#elif defined(__AVX2__)
INLINE Vec max(Vec a, Vec b) { return (Vec)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE Vec min(Vec a, Vec b) { return (Vec)_mm256_min_ps((__m256)a, (__m256)b); }
#else
INLINE Vec max(Vec a, Vec b) { return a > b ? a : b; }
INLINE Vec min(Vec a, Vec b) { return a < b ? a : b; }
#endif
INLINE Vec magnitude(Vec a) {
  return (Vec)((IntVec)a & 0x7fffffff);
}
typedef float Quarter __attribute__((vector_size(16)));
INLINE Quarter fold(Vec v) {
  Quarter quarters[LANES / 4];
  memcpy(quarters, &v, sizeof v);
  Quarter q = quarters[0];
  if constexpr (LANES > 4) q += quarters[1];
  if constexpr (LANES > 8) q += quarters[2] + quarters[3];
  return q;
}
INLINE float sum(Vec v) {
  Quarter q = fold(v);
  return (q[0] + q[2]) + (q[1] + q[3]);
}
INLINE float largest(Vec v) {
  float a = v[0];
  for (int i = 1; i < LANES; i++) a = v[i] > a ? v[i] : a;
  return a;
}

// To the nearest integer, for |x| < 2^22.
INLINE Vec round_even(Vec x) { return (x + 12582912.f) - 12582912.f; }

// e^x, relative error about 1e-7. Source: the Cephes library's expf polynomial.
INLINE Vec exponential(Vec x) {
  x = max(min(x, splat(88.f)), splat(-87.f));
  Vec n = round_even(x * 1.44269504f);
  Vec r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  Vec p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = r * r * p + (r + 1.f);
  IntVec scale = (__builtin_convertvector(n, IntVec) + 127) << 23;
  return p * (Vec)scale;
}
INLINE Vec silu(Vec x) { return x / (1.f + exponential(-x)); }

}  // namespace
