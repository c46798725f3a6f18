// Tiles of int4 weights times int8 inputs, of which each CELL has a scale of its own.
#pragma once

#include "neon.h"
#include "tile.h"

namespace {

// sums += products of four codes with four bytes in each lane. On AVX2 each half of a lane sums two of
// them in int16, where CELL products fit; the sum begins with the offset's part (operand.h), which may wrap.
INLINE void add_bytes(IntVec& sums, IntVec codes, IntVec bytes) {
#if defined(__AVX512VNNI__)
  sums = (IntVec)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)codes, (__m512i)bytes);
#elif defined(__AVX2__)
  sums = (IntVec)_mm256_add_epi16((__m256i)sums, _mm256_maddubs_epi16((__m256i)codes, (__m256i)bytes));
#elif defined(__ARM_FEATURE_DOTPROD)
  sums = (IntVec)vdotq_s32((int32x4_t)sums, (int8x16_t)codes, (int8x16_t)bytes);
#else
  for (int up = 24; up >= 0; up -= 8) sums += (codes >> (24 - up) & 0xff) * ((bytes << up) >> 24);
#endif
}
INLINE IntVec whole(IntVec sums) {
#if defined(__AVX2__) && !defined(__AVX512VNNI__)
  return (IntVec)_mm256_madd_epi16((__m256i)sums, _mm256_set1_epi16(1));
#else
  return sums;
#endif
}
INLINE IntVec word_at(const int32_t* x) {
  int32_t word;
  memcpy(&word, x, sizeof word);
  return word - IntVec{};
}

constexpr int CELL_CODES = PANEL * CELL / 2, PANEL_CELL = CELL_CODES + PANEL * 2;  // bytes

#if !defined(__ARM_FEATURE_MATMUL_INT8)  // which has them in neon.h
template <int T>
INLINE void add_cell(const uint8_t*, const int32_t*, IntVec (&)[T][VECTORS]) {}
constexpr bool HAS_SQUARES = false;
#else
constexpr bool HAS_SQUARES = true;
#endif

// Of each CELL inputs exact integer sums, then one multiply-add with both scales, cell after cell.
// A cell has 16 scales as half floats, and for each 8 inputs 16 rows' first four codes + 8 in the lower
// halves of 64 bytes, the last four in the upper.
template <int T, int P>
__attribute__((noinline)) void int4_tile(const Tile& tile) {
  const uint8_t* w = (const uint8_t*)tile.weight;
  const int32_t* x = (const int32_t*)tile.operand;
  Vec totals[P][T][VECTORS];
  UNROLL for (int p = 0; p < P; p++) UNROLL for (int t = 0; t < T; t++)
    UNROLL for (int v = 0; v < VECTORS; v++) totals[p][t][v] = splat(0);
  Ahead ahead = ahead_of<P>(tile, (int64_t)tile.depth / CELL * PANEL_CELL);
  for (int k = 0; k < tile.depth; k += CELL, w += PANEL_CELL, x += CELL_WORDS * T) {
    int64_t next = distance(ahead, w);
    IntVec sums[P][T][VECTORS];
    UNROLL for (int t = 0; t < T; t++) UNROLL for (int p = 0; p < P; p++)
      UNROLL for (int v = 0; v < VECTORS; v++) sums[p][t][v] = word_at(x + CELL / 4 * T + t);
    if constexpr (HAS_SQUARES && T > 1 && P == 1) add_cell<T>(w + PANEL * 2, x, sums[0]);
    else UNROLL for (int four = 0; four < CELL / 4; four++) {
      IntVec codes[P][VECTORS];
      UNROLL for (int p = 0; p < P; p++) {
        const uint8_t *cell = panel_of(w, tile, p), *part = cell + PANEL * 2 + four / 2 * 4 * PANEL;
        if (four < 5) __builtin_prefetch((const char*)cell + next + four * 64);  // all of its lines
        UNROLL for (int v = 0; v < VECTORS; v++) {
          memcpy(&codes[p][v], part + v * REGISTER_BYTES, sizeof(IntVec));
          codes[p][v] = (four % 2 ? codes[p][v] >> 4 : codes[p][v]) & 0x0f0f0f0f;
        }
      }
      UNROLL for (int t = 0; t < T; t++) {
        IntVec bytes = word_at(x + four * T + t);
        PIN(bytes);
        UNROLL for (int p = 0; p < P; p++) UNROLL for (int v = 0; v < VECTORS; v++) {
          add_bytes(sums[p][t][v], codes[p][v], bytes);
          PIN(sums[p][t][v]);
        }
      }
    }
    const float* scales = (const float*)(x + (CELL / 4 + 1) * T);
    UNROLL for (int p = 0; p < P; p++) UNROLL for (int v = 0; v < VECTORS; v++) {
      Vec rows = load((const uint16_t*)panel_of(w, tile, p) + v * LANES);
      UNROLL for (int t = 0; t < T; t++)
        totals[p][t][v] += __builtin_convertvector(whole(sums[p][t][v]), Vec) * (rows * scales[t]);
    }
  }
  UNROLL for (int p = 0; p < P; p++) UNROLL for (int t = 0; t < T; t++)
    UNROLL for (int v = 0; v < VECTORS; v++) {
      int row = p * PANEL + v * LANES;
      put(tile.out + t * tile.stride + row, totals[p][t][v] * load(tile.row_scales + row), tile.adds);
    }
}

}  // namespace
