// Exact integer sums of int8 weights on ARM: dot products of four bytes, and products of int8 matrices
// (two rows of eight inputs times two tokens) where the unit is compiled for them.
//
// An int16 input is a signed byte times 256 and another signed byte: one pass for each over the weights,
// the second of which come from the first-level cache.
#pragma once

#include "tile.h"

#if defined(__ARM_FEATURE_DOTPROD)
namespace {

// The bytes of int16 inputs, |x| <= CODE_MAX: high ones times 256 plus low ones, both signed.
INLINE int8x16_t low_bytes(int16x8_t a, int16x8_t b) { return vuzp1q_s8((int8x16_t)a, (int8x16_t)b); }
INLINE int8x16_t high_bytes(int16x8_t a, int16x8_t b) {
  int8x16_t high = vuzp2q_s8((int8x16_t)a, (int8x16_t)b);
  return vsubq_s8(high, vshrq_n_s8(low_bytes(a, b), 7));
}
template <bool HIGH>
INLINE int8x16_t bytes_half(int16x8_t a, int16x8_t b) {
  return HIGH ? high_bytes(a, b) : low_bytes(a, b);
}

// `PAIRS` pairs of a token's inputs; a pair is `tokens` pairs from the next.
template <int PAIRS>
INLINE int16x8_t inputs_at(const int32_t* x, int tokens) {
  int32x4_t pairs = vdupq_n_s32(x[0]);
  pairs = vsetq_lane_s32(x[tokens], pairs, 1);
  if constexpr (PAIRS == 2) return (int16x8_t)vreinterpretq_s32_s64(vdupq_laneq_s64((int64x2_t)pairs, 0));
  pairs = vsetq_lane_s32(x[2 * tokens], pairs, 2);
  return (int16x8_t)vsetq_lane_s32(x[3 * tokens], pairs, 3);
}

// Four rows of a panel, four inputs each, from its rows of two inputs.
INLINE int8x16_t four_inputs(const int8_t* w, int four_rows) {
  int16x8_t first = (int16x8_t)vld1q_s8(w + four_rows / 2 * 16);
  int16x8_t second = (int16x8_t)vld1q_s8(w + 2 * PANEL + four_rows / 2 * 16);
  return (int8x16_t)(four_rows % 2 ? vzip2q_s16(first, second) : vzip1q_s16(first, second));
}

template <bool HIGH, int T, int P>
INLINE void add_dots(const Tile& tile, IntVec (&sums)[P][T][VECTORS]) {
  const int8_t* w = (const int8_t*)tile.weight;
  const int32_t* x = (const int32_t*)tile.operand;
  for (int k = 0; k < tile.depth; k += 4, w += 4 * PANEL, x += 2 * T) {
    int8x16_t rows[P][VECTORS];
    UNROLL for (int p = 0; p < P; p++) {
      const int8_t* panel = panel_of(w, tile, p);
      if (HIGH) __builtin_prefetch((const char*)panel + PREFETCH_BYTES);
      UNROLL for (int v = 0; v < VECTORS; v++) rows[p][v] = four_inputs(panel, v);
    }
    UNROLL for (int t = 0; t < T; t++) {
      int16x8_t inputs = inputs_at<2>(x + t, T);
      int8x16_t bytes = bytes_half<HIGH>(inputs, inputs);
      UNROLL for (int p = 0; p < P; p++) UNROLL for (int v = 0; v < VECTORS; v++) {
        sums[p][t][v] = (IntVec)vdotq_s32((int32x4_t)sums[p][t][v], rows[p][v], bytes);
        PIN(sums[p][t][v]);
      }
    }
  }
}

#if defined(__ARM_FEATURE_MATMUL_INT8)
// Products of two rows and two tokens: row 0 with token 0 and 1, row 1 with them.
template <int T>
struct Squares {
  static constexpr int PAIRS = (T + 1) / 2;  // the last token of an odd number is its own partner
  int32x4_t sums[PAIRS][PANEL / 2];
  __attribute__((always_inline)) Squares() {
    UNROLL for (int i = 0; i < PAIRS; i++) UNROLL for (int r = 0; r < PANEL / 2; r++) sums[i][r] = vdupq_n_s32(0);
  }
  __attribute__((always_inline)) void add(int pair, int rows, int8x16_t weights, int8x16_t bytes) {
    sums[pair][rows] = vmmlaq_s32(sums[pair][rows], weights, bytes);
    PIN(sums[pair][rows]);
  }
  // The sums of a token with four rows.
  __attribute__((always_inline)) IntVec of(int token, int four_rows) const {
    int32x4_t a = sums[token / 2][2 * four_rows], b = sums[token / 2][2 * four_rows + 1];
    return (IntVec)(token % 2 ? vuzp2q_s32(a, b) : vuzp1q_s32(a, b));
  }
};

template <bool HIGH, int T>
INLINE void add_squares(const Tile& tile, Squares<T>& squares) {
  const int8_t* w = (const int8_t*)tile.weight;
  const int32_t* x = (const int32_t*)tile.operand;
  for (int k = 0; k < tile.depth; k += 8, w += 8 * PANEL, x += 4 * T) {
    if (HIGH) __builtin_prefetch((const char*)w + PREFETCH_BYTES);
    int8x16_t bytes[Squares<T>::PAIRS];
    UNROLL for (int i = 0; i < Squares<T>::PAIRS; i++)
      bytes[i] = bytes_half<HIGH>(inputs_at<4>(x + 2 * i, T), inputs_at<4>(x + least(2 * i + 1, T - 1), T));
    UNROLL for (int v = 0; v < VECTORS; v++) {
      int32x4_t first = (int32x4_t)four_inputs(w, v), second = (int32x4_t)four_inputs(w + 4 * PANEL, v);
      int8x16_t even = (int8x16_t)vzip1q_s32(first, second), odd = (int8x16_t)vzip2q_s32(first, second);
      UNROLL for (int i = 0; i < Squares<T>::PAIRS; i++) {
        squares.add(i, 2 * v, even, bytes[i]);
        squares.add(i, 2 * v + 1, odd, bytes[i]);
      }
    }
  }
}

// Adds products of a cell of int4 codes, plus 8, with bytes: int4.h has how they lie.
template <int T>
INLINE void add_cell(const uint8_t* codes, const int32_t* x, IntVec (&sums)[T][VECTORS]) {
  Squares<T> squares;
  UNROLL for (int k = 0; k < CELL; k += 8, codes += 4 * PANEL, x += 2 * T) {
    int8x16_t bytes[Squares<T>::PAIRS];
    UNROLL for (int i = 0; i < Squares<T>::PAIRS; i++) {
      const int32_t *first = x + 2 * i, *second = x + least(2 * i + 1, T - 1);
      bytes[i] = (int8x16_t)IntVec{first[0], first[T], second[0], second[T]};
    }
    UNROLL for (int v = 0; v < VECTORS; v++) {
      uint8x16_t both = vld1q_u8(codes + 16 * v);
      int32x4_t first = (int32x4_t)vandq_u8(both, vdupq_n_u8(15)), second = (int32x4_t)vshrq_n_u8(both, 4);
      int8x16_t even = (int8x16_t)vzip1q_s32(first, second), odd = (int8x16_t)vzip2q_s32(first, second);
      UNROLL for (int i = 0; i < Squares<T>::PAIRS; i++) {
        squares.add(i, 2 * v, even, bytes[i]);
        squares.add(i, 2 * v + 1, odd, bytes[i]);
      }
    }
  }
  UNROLL for (int t = 0; t < T; t++) UNROLL for (int v = 0; v < VECTORS; v++) sums[t][v] += squares.of(t, v);
}
#endif

template <int T, int P>
INLINE void int8_sums(const Tile& tile, IntVec (&sums)[P][T][VECTORS]) {
#if defined(__ARM_FEATURE_MATMUL_INT8)
  if constexpr (T > 1 && P == 1) {
    Squares<T> squares;
    add_squares<true, T>(tile, squares);
    UNROLL for (int i = 0; i < squares.PAIRS; i++)
      UNROLL for (int r = 0; r < PANEL / 2; r++) squares.sums[i][r] = vshlq_n_s32(squares.sums[i][r], 8);
    add_squares<false, T>(tile, squares);
    UNROLL for (int t = 0; t < T; t++) UNROLL for (int v = 0; v < VECTORS; v++) sums[0][t][v] = squares.of(t, v);
    return;
  }
#endif
  UNROLL for (int p = 0; p < P; p++) UNROLL for (int t = 0; t < T; t++)
    UNROLL for (int v = 0; v < VECTORS; v++) sums[p][t][v] = IntVec{};
  add_dots<true, T, P>(tile, sums);
  UNROLL for (int p = 0; p < P; p++) UNROLL for (int t = 0; t < T; t++)
    UNROLL for (int v = 0; v < VECTORS; v++) sums[p][t][v] <<= 8;
  add_dots<false, T, P>(tile, sums);
}

}  // namespace
#endif
