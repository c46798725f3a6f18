// Linears as outer products: a panel of 16 weight rows times a group of up to 6 tokens.
//
// The order in which a token's sums are formed depends on nothing but the weight's depth, so a
// token's result is the same bits in any batch.
#pragma once

#include "operand.h"

namespace {

struct Tile {
  const void* weight;
  const void* operand;
  int depth;
  const float* row_scales;
  const float* token_scales;
  int token_scale_stride;
  float* out;
  int64_t stride;
  bool adds;
};

constexpr int PREFETCH_BYTES = 2048;

INLINE void load_weights(const float* w, Vec& a, Vec& b) {
  a = load(w);
  b = load(w + LANES);
}
INLINE void load_weights(const uint16_t* w, Vec& a, Vec& b) {
#if defined(__AVX2__)  // gcc 12 makes several shuffles of the conversion below
  __m256i low = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)w));
  __m256i high = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)(w + LANES)));
  a = (Vec)_mm256_slli_epi32(low, 16);
  b = (Vec)_mm256_slli_epi32(high, 16);
#else
  uint32_t words[PANEL];
  for (int r = 0; r < PANEL; r++) words[r] = (uint32_t)w[r] << 16;
  memcpy(&a, words, sizeof a);
  memcpy(&b, words + LANES, sizeof b);
#endif
}

INLINE void put(float* out, Vec value, bool adds) {
  store(out, adds ? load(out) + value : value);
}

// noinline and the unrolled loops keep the accumulators in registers (gcc -O3 spills them else).
template <typename W, int T>
__attribute__((noinline)) void float_tile(const Tile& tile) {
  const W* w = (const W*)tile.weight;
  const float* x = (const float*)tile.operand;
  Vec low[T], high[T];
  UNROLL for (int t = 0; t < T; t++) low[t] = high[t] = splat(0);
  for (int k = 0; k < tile.depth; k++, w += PANEL, x += T) {
    __builtin_prefetch((const char*)w + PREFETCH_BYTES);
    Vec a, b;
    load_weights(w, a, b);
    UNROLL for (int t = 0; t < T; t++) {
      Vec v = splat(x[t]);
      low[t] = a * v + low[t];
      PIN(low[t]);
      high[t] = b * v + high[t];
      PIN(high[t]);
    }
  }
  UNROLL for (int t = 0; t < T; t++) {
    put(tile.out + t * tile.stride, low[t], tile.adds);
    put(tile.out + t * tile.stride + LANES, high[t], tile.adds);
  }
}

#if defined(__AVX2__)
template <int T>
INLINE void int8_sums(const Tile& tile, IntVec (&low)[T], IntVec (&high)[T]) {
  const int8_t* w = (const int8_t*)tile.weight;
  const int32_t* x = (const int32_t*)tile.operand;  // pairs of int16
  __m256i a[T], b[T];
  UNROLL for (int t = 0; t < T; t++) a[t] = b[t] = _mm256_setzero_si256();
  for (int k = 0; k < tile.depth; k += 2, w += 2 * PANEL, x += T) {
    _mm_prefetch((const char*)w + PREFETCH_BYTES, _MM_HINT_T0);
    __m256i w0 = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)w));
    __m256i w1 = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)(w + PANEL)));
    UNROLL for (int t = 0; t < T; t++) {
      int32_t pair;
      memcpy(&pair, x + t, sizeof pair);
      __m256i v = _mm256_set1_epi32(pair);
      PIN(v);
      a[t] = _mm256_add_epi32(a[t], _mm256_madd_epi16(w0, v));
      PIN(a[t]);
      b[t] = _mm256_add_epi32(b[t], _mm256_madd_epi16(w1, v));
      PIN(b[t]);
    }
  }
  UNROLL for (int t = 0; t < T; t++) {
    low[t] = (IntVec)a[t];
    high[t] = (IntVec)b[t];
  }
}
#else
template <int T>
INLINE void int8_sums(const Tile& tile, IntVec (&low)[T], IntVec (&high)[T]) {
  const int8_t* w = (const int8_t*)tile.weight;
  const int16_t* x = (const int16_t*)tile.operand;
  int32_t sums[T][PANEL] = {};
  for (int k = 0; k < tile.depth; k += 2, w += 2 * PANEL, x += 2 * T)
    for (int t = 0; t < T; t++)
      for (int r = 0; r < PANEL; r++)
        sums[t][r] += w[2 * r] * x[2 * t] + w[2 * r + 1] * x[2 * t + 1];
  for (int t = 0; t < T; t++) {
    memcpy(&low[t], sums[t], sizeof low[t]);
    memcpy(&high[t], sums[t] + LANES, sizeof high[t]);
  }
}
#endif

template <int T>
__attribute__((noinline)) void int8_tile(const Tile& tile) {
  IntVec low[T], high[T];
  int8_sums<T>(tile, low, high);
  Vec scale_low = load(tile.row_scales), scale_high = load(tile.row_scales + LANES);
  UNROLL for (int t = 0; t < T; t++) {
    float scale = tile.token_scales[t * tile.token_scale_stride];
    float* out = tile.out + t * tile.stride;
    put(out, scale_low * scale * __builtin_convertvector(low[t], Vec), tile.adds);
    put(out + LANES, scale_high * scale * __builtin_convertvector(high[t], Vec), tile.adds);
  }
}

using TileRun = void (*)(const Tile&);
template <typename W>
constexpr TileRun FLOAT_TILES[GROUP] = {float_tile<W, 1>, float_tile<W, 2>, float_tile<W, 3>,
                                        float_tile<W, 4>, float_tile<W, 5>, float_tile<W, 6>};
constexpr TileRun INT8_TILES[GROUP] = {int8_tile<1>, int8_tile<2>, int8_tile<3>,
                                       int8_tile<4>, int8_tile<5>, int8_tile<6>};

constexpr int CACHED_BYTES = 160 * 1024;  // of weights that stay in L2 while the tokens pass

INLINE int panels_of(const Machine& machine, const Op& op) {
  return (machine.tensors[op.tensors[0]].rows + PANEL - 1) / PANEL;
}

// target (+)= operand x weight^T over some panels of the weight.
void linear(const Machine& machine, const Op& op, int rows, Range panels) {
  const Tensor& weight = machine.tensors[op.tensors[0]];
  const Buffer &operand = machine.buffers[op.sources[0].buffer],
               &target = machine.buffers[op.target.buffer];
  const float* scales = weight.kind == PANELS_INT8 ? (const float*)machine.tensors[op.tensors[1]].data : nullptr;
  const TileRun* runs = weight.kind == PANELS_INT8    ? INT8_TILES
                        : weight.kind == PANELS_BF16 ? FLOAT_TILES<uint16_t>
                                                     : FLOAT_TILES<float>;
  int weight_bytes = weight.kind == PANELS_INT8 ? 1 : weight.kind == PANELS_BF16 ? 2 : 4;
  int depth = (int)round_up(weight.columns, PANEL);
  int blocks = (depth + DEPTH_BLOCK - 1) / DEPTH_BLOCK;
  float* out = target.rows + op.target.column;
  for (int b = 0; b < blocks; b++) {
    int start = b * DEPTH_BLOCK, size = least(DEPTH_BLOCK, depth - start);
    int step = rows <= GROUP ? panels.last : most(2, CACHED_BYTES / (PANEL * size * weight_bytes));
    for (int first = panels.first; first < panels.last; first += step) {
      int last = least(panels.last, first + step);
      for (int row = 0; row < rows; row += GROUP) {
        int tokens = least(GROUP, rows - row);
        int64_t place = (int64_t)row * depth + (int64_t)start * tokens;
        const void* x = scales ? (const void*)(operand.codes + place) : (const void*)(operand.rows + place);
        const float* token_scales = scales ? operand.scales + (int64_t)row * blocks + b : nullptr;
        for (int p = first; p < last; p++) {
          int64_t element = (int64_t)p * PANEL * depth + (int64_t)start * PANEL;
          runs[tokens - 1]({(const char*)weight.data + element * weight_bytes, x, size,
                            scales ? scales + p * PANEL : nullptr, token_scales, blocks,
                            out + (int64_t)row * target.stride + p * PANEL, target.stride,
                            op.sizes[0] != 0 || b > 0});
        }
      }
    }
  }
}

}  // namespace
