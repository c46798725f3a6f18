// Rows of a cache of keys or values, one a token: float32, bfloat16, or int8 codes with their scale.
#pragma once

#include "rows.h"

namespace {

#define NEMOTRT_STATE_BYTES(number, name, bytes) bytes,
constexpr int STATE_BYTES[] = {NEMOTRT_STATE_FORMATS(NEMOTRT_STATE_BYTES)};
constexpr float LARGEST_CODE = 127;

struct Cache {
  char* rows;
  int64_t row_bytes;
  int format;
  Cache from(int row) const { return {rows + row * row_bytes, row_bytes, format}; }
};

INLINE int64_t cache_row_bytes(int depth, int format) {
  return cache_row_elements(depth, format) * STATE_BYTES[format];
}

// The bfloat16 nearest to each, ties to even.
INLINE void to_bfloat16(const float* x, int depth, char* out) {
  for (int k = 0; k < depth; k++) {
    uint32_t bits;
    memcpy(&bits, x + k, sizeof bits);
    uint16_t code = x[k] != x[k] ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    memcpy(out + 2 * k, &code, sizeof code);
  }
}

// Codes times their scale: the largest becomes 127. A row that is not finite has a scale that is none.
INLINE void to_codes(const float* x, int depth, char* out) {
  float largest = 0, probe = 0;
  for (int k = 0; k < depth; k++) {
    largest = fabsf(x[k]) > largest ? fabsf(x[k]) : largest;
    probe += x[k] * 0.f;
  }
  float factor = LARGEST_CODE / largest, scale = probe == 0 ? largest / LARGEST_CODE : NAN;
  bool has_codes = probe == 0 && factor <= LARGEST_FLOAT;  // else all are (nearly) zero
  if (probe == 0 && !has_codes) scale = 0;
  for (int k = 0; k < depth; k++) out[k] = has_codes ? (char)(int8_t)lrintf(x[k] * factor) : 0;
  memcpy(out + depth, &scale, sizeof scale);
}

// Not inlined: the compiler could fuse products in several ways.
__attribute__((noinline)) void keep_row(const Cache& cache, int row, const float* x, int depth) {
  char* out = cache.from(row).rows;
  if (cache.format == FLOAT32) memcpy(out, x, depth * sizeof(float));
  if (cache.format == BFLOAT16) to_bfloat16(x, depth, out);
  if (cache.format == CODES8) to_codes(x, depth, out);
}

// Some rows in float32, one behind the other: in `room`, or where they are.
__attribute__((noinline)) const float* plain_rows(const Cache& cache, int count, int depth, float* room) {
  if (cache.format == FLOAT32) return (const float*)cache.rows;
  for (int row = 0; row < count; row++) {
    const char* from = cache.rows + row * cache.row_bytes;
    float* out = room + (int64_t)row * depth;
    if (cache.format == BFLOAT16) {
      for (int k = 0; k < depth; k++) {
        uint16_t code;
        memcpy(&code, from + 2 * k, sizeof code);
        out[k] = bf16_to_float(code);
      }
      continue;
    }
    float scale;
    memcpy(&scale, from + depth, sizeof scale);
    for (int k = 0; k < depth; k++) out[k] = (int8_t)from[k] * scale;
  }
  return room;
}

}  // namespace
