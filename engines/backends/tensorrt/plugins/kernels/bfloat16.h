// bfloat16 as bits: no header of CUDA's, so that NVRTC needs none.
#pragma once

using bf16 = unsigned short;

__device__ __forceinline__ float widen(bf16 value) {
  return __uint_as_float(static_cast<unsigned>(value) << 16);
}

// Two values rounded to nearest even; `low` goes to the lower half.
__device__ __forceinline__ unsigned pack(float low, float high) {
#ifdef NEMOTRT_EMULATED
  return emulator::pack_bf16(low, high);
#else
  unsigned packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
#endif
}

__device__ __forceinline__ bf16 narrow(float value) { return static_cast<bf16>(pack(value, 0.0f)); }

__device__ __forceinline__ float low_half(unsigned packed) { return __uint_as_float(packed << 16); }

__device__ __forceinline__ float high_half(unsigned packed) {
  return __uint_as_float(packed & 0xffff0000u);
}

// Two floats as the sum of two bfloat16 each: 16 bits of mantissa are kept.
struct Split {
  unsigned high, low;
};

__device__ __forceinline__ Split split(float first, float second) {
  Split parts;
  parts.high = pack(first, second);
  parts.low = pack(first - low_half(parts.high), second - high_half(parts.high));
  return parts;
}
