// Puts one row of activations where the matrix kernels read it.
//
// The tokens are cut into groups of T <= GROUP, as equal as can be. A group is interleaved by input:
// float [inputs][T], or int16 [inputs/2][T][2] with one scale per token and DEPTH_BLOCK inputs, or
// cells of int8: [inputs/CELL] times codes [CELL/4][T][4], offsets [T] and scales [T], in words.
#pragma once

#include "program.h"
#include "vector.h"

namespace {
using namespace nemotrt;

// Tokens that one pass over a panel serves: as many sums as the registers hold.
#if defined(__AVX512VNNI__)
constexpr int GROUP = 12;
#else
constexpr int GROUP = 6;
#endif

INLINE int groups_of(int rows) { return (rows + GROUP - 1) / GROUP; }
INLINE int first_of(int group, int rows) {
  return (int)((int64_t)group * rows / most(groups_of(rows), 1));
}

// |code| is at most this, so that DEPTH_BLOCK products with int8 fit int32.
constexpr float LARGEST_FLOAT = 3.4028234e38f;
constexpr float CODE_MAX = 2147483647 / (128 * DEPTH_BLOCK);

INLINE void pack_float(const float* x, int depth, int tokens, float* out) {
  if (tokens == 1) {
    memcpy(out, x, depth * sizeof(float));
    return;
  }
  for (int k = 0; k < depth; k++) out[(int64_t)k * tokens] = x[k];
}

// Rounds one block of inputs (a multiple of 16) to int16 and returns its scale.
INLINE float pack_block(const float* x, int depth, int tokens, int16_t* out) {
  typedef int16_t Codes __attribute__((vector_size(2 * LANES)));
  Vec amax = splat(0), probe = splat(0);
  for (int k = 0; k < depth; k += LANES) {
    Vec v = load(x + k);
    amax = max(amax, magnitude(v));
    probe += v * 0.f;  // NaN if any input is NaN or infinite
  }
  float bound = largest(amax), factor = CODE_MAX / bound;
  bool is_finite = sum(probe) == 0;
  if (!is_finite || !(factor <= LARGEST_FLOAT)) {  // or all are (nearly) zero
    for (int k = 0; k < depth; k += 2) memset(out + (int64_t)k * tokens, 0, 2 * sizeof *out);
    return is_finite ? 0 : NAN;
  }
  for (int k = 0; k < depth; k += LANES) {
    IntVec wide = __builtin_convertvector(round_even(load(x + k) * factor), IntVec);
    Codes codes = __builtin_convertvector(wide, Codes);
    if (tokens == 1) {
      memcpy(out + k, &codes, sizeof codes);
      continue;
    }
    int32_t pairs[LANES / 2];
    memcpy(pairs, &codes, sizeof pairs);
    for (int j = 0; j < LANES / 2; j++)
      memcpy(out + (int64_t)(k + 2 * j) * tokens, pairs + j, sizeof *pairs);
  }
  return bound / CODE_MAX;
}

// A row's word of a sum of codes times bytes that starts at 8 times minus the bytes' sum, as the int4
// codes are stored plus 8. On AVX2 it is two halves, of the even and the odd pairs of each four bytes.
INLINE int32_t offset_of(const int8_t* bytes) {
  int32_t sums[2] = {0, 0};
  for (int k = 0; k < CELL; k++) sums[k / 2 % 2] -= 8 * bytes[k];
#if defined(__AVX2__) && !defined(__AVX512VNNI__)
  return (int32_t)((uint32_t)sums[1] << 16 | (uint16_t)sums[0]);
#else
  return sums[0] + sums[1];
#endif
}

// Rounds CELL inputs to int8; a word of the row is `tokens` words from the next.
INLINE void pack_cell(const float* x, int tokens, int32_t* out) {
  Vec amax = splat(0), probe = splat(0);
  for (int k = 0; k < CELL; k += LANES) {
    Vec v = load(x + k);
    amax = max(amax, magnitude(v));
    probe += v * 0.f;  // NaN if any input is NaN or infinite
  }
  float bound = largest(amax), factor = 127.f / bound;
  int8_t bytes[CELL] = {};
  float scale = sum(probe) == 0 ? 0 : NAN;
  if (scale == 0 && factor <= LARGEST_FLOAT) {  // else all are (nearly) zero
    typedef int8_t Bytes __attribute__((vector_size(LANES)));
    for (int k = 0; k < CELL; k += LANES) {
      IntVec wide = __builtin_convertvector(round_even(load(x + k) * factor), IntVec);
      Bytes part = __builtin_convertvector(wide, Bytes);
      memcpy(bytes + k, &part, sizeof part);
    }
    scale = bound / 127.f;
  }
  int32_t words[CELL_WORDS];
  memcpy(words, bytes, sizeof bytes);
  words[CELL / 4] = offset_of(bytes);
  memcpy(words + CELL / 4 + 1, &scale, sizeof scale);
  for (int j = 0; j < CELL_WORDS; j++) out[(int64_t)j * tokens] = words[j];
}

// Where a row lies in an operand: the group's first row and size.
struct Place {
  int first, tokens;
};

// One row; x has `width` values and room up to a multiple of CELL, which is zeroed here.
INLINE void pack(const Buffer& operand, float* x, int width, int row, Place group) {
  int depth = (int)round_up(width, operand.format == OPERAND_INT8 ? CELL : PANEL);
  memset(x + width, 0, (depth - width) * sizeof(float));
  int column = row - group.first;
  int64_t start_of_group = (int64_t)group.first * depth;
  if (operand.format == OPERAND_FLOAT) {
    pack_float(x, depth, group.tokens, operand.rows + start_of_group + column);
    return;
  }
  if (operand.format == OPERAND_INT8) {
    int32_t* out = operand.cells + start_of_group / CELL * CELL_WORDS + column;
    for (int k = 0; k < depth; k += CELL, out += (int64_t)CELL_WORDS * group.tokens)
      pack_cell(x + k, group.tokens, out);
    return;
  }
  int blocks = blocks_of(depth);
  for (int b = 0; b < blocks; b++) {
    int start = b * DEPTH_BLOCK, size = least(DEPTH_BLOCK, depth - start);
    int16_t* out = operand.codes + start_of_group + (int64_t)start * group.tokens + 2 * column;
    operand.scales[(int64_t)row * blocks + b] = pack_block(x + start, size, group.tokens, out);
  }
}

}  // namespace
